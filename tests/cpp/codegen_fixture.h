#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "codegen/codegen.h"
#include "codegen/llvm/compiler.h"
#include "ir/builder.h"

/// Runs kernels at every level that the machine has and compares each with the interpreter.
namespace lohe::codegen::testing {

using Bytes = std::vector<unsigned char>;

/// Memory between two inaccessible pages; its content touches the page behind (or the one before).
class GuardedBuffer {
 public:
  GuardedBuffer(const Bytes& content, bool at_end) : size_(content.size()) {
    const size_t page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    const size_t inner = (content.size() + page - 1) / page * page;
    mapped_ = inner + 2 * page;
    base_ = static_cast<unsigned char*>(
        ::mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    EXPECT_NE(base_, MAP_FAILED);
    if (inner != 0) ::mprotect(base_ + page, inner, PROT_READ | PROT_WRITE);
    data_ = at_end ? base_ + page + inner - content.size() : base_ + page;
    if (!content.empty()) std::memcpy(data_, content.data(), content.size());
  }
  ~GuardedBuffer() { ::munmap(base_, mapped_); }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;
  unsigned char* data() const { return data_; }
  Bytes content() const { return Bytes(data_, data_ + size_); }

 private:
  unsigned char* base_;
  unsigned char* data_;
  size_t size_, mapped_;
};

inline bool is_nan_at(ir::Type type, const unsigned char* p) {
  switch (type) {
    case ir::Type::kF32: {
      float x;
      std::memcpy(&x, p, 4);
      return std::isnan(x);
    }
    case ir::Type::kF64: {
      double x;
      std::memcpy(&x, p, 8);
      return std::isnan(x);
    }
    case ir::Type::kF16: {
      uint16_t x;
      std::memcpy(&x, p, 2);
      return (x & 0x7FFF) > 0x7C00;
    }
    case ir::Type::kBF16: {
      uint16_t x;
      std::memcpy(&x, p, 2);
      return (x & 0x7FFF) > 0x7F80;
    }
    default:
      return false;
  }
}

inline uint64_t bits_at(ir::Type type, const unsigned char* p) {
  uint64_t bits = 0;
  std::memcpy(&bits, p, static_cast<size_t>(ir::size_of(type)));
  return bits;
}

/// Equal bits; any NaN equals any other.
inline ::testing::AssertionResult same(ir::Type type, const Bytes& expected, const Bytes& got) {
  const size_t size = static_cast<size_t>(ir::size_of(type));
  for (size_t at = 0; at + size <= expected.size(); at += size) {
    if (std::memcmp(&expected[at], &got[at], size) == 0) continue;
    if (is_nan_at(type, &expected[at]) && is_nan_at(type, &got[at])) continue;
    return ::testing::AssertionFailure()
           << "element " << at / size << ": expected bits 0x" << std::hex << bits_at(type, &expected[at])
           << ", got 0x" << bits_at(type, &got[at]);
  }
  return ::testing::AssertionSuccess();
}

struct Launch {
  std::vector<Bytes> buffers;
  std::vector<int64_t> params;
  int64_t begin = 0, end = 0;
  std::vector<int> same_as;  ///< same_as[i] = j < i: buffer i is buffer j's memory
};

struct Result {
  int32_t code;
  std::vector<Bytes> buffers;
};

template <class Function>
Result call(const Launch& run, bool at_end, const Function& function) {
  std::vector<std::unique_ptr<GuardedBuffer>> memory;
  std::vector<void*> pointers;
  for (size_t i = 0; i < run.buffers.size(); ++i) {
    const int alias = i < run.same_as.size() ? run.same_as[i] : -1;
    if (alias >= 0) {
      memory.push_back(nullptr);
      pointers.push_back(pointers[static_cast<size_t>(alias)]);
    } else {
      memory.push_back(std::make_unique<GuardedBuffer>(run.buffers[i], at_end));
      pointers.push_back(memory.back()->data());
    }
  }
  Result result{function(pointers.data(), run.params.data(), run.begin, run.end), {}};
  for (const auto& m : memory) result.buffers.push_back(m == nullptr ? Bytes() : m->content());
  return result;
}

inline std::vector<CpuLevel> levels() {
  std::vector<CpuLevel> result;
  for (CpuLevel level : kCpuLevels) {
    if (level <= detected_cpu_level()) result.push_back(level);
  }
  return result;
}

/// Every level gives what the interpreter gives, in all runs, with the buffers ending and starting at guard
/// pages.
inline void expect_all_levels_agree(const ir::Kernel& kernel, const std::vector<Launch>& runs) {
  ASSERT_NO_THROW(ir::check(kernel)) << ir::print(kernel);
  for (CpuLevel level : levels()) {
    SCOPED_TRACE(std::string("level ") + name(level) + ", kernel " + kernel.name);
    const ir::KernelFunction function = load_object(compile_to_object(kernel, level, "k"), "k");
    for (const Launch& run : runs) {
      const Result expected =
          call(run, true, [&](void* const* b, const int64_t* p, int64_t begin, int64_t end) {
            return ir::interpret(kernel, b, p, begin, end);
          });
      for (bool at_end : {true, false}) {
        const Result got = call(run, at_end, function);
        ASSERT_EQ(expected.code, got.code) << ir::print(kernel);
        for (size_t i = 0; i < run.buffers.size(); ++i) {
          if (kernel.buffers[i].scratch) continue;
          ASSERT_TRUE(same(kernel.buffers[i].type, expected.buffers[i], got.buffers[i]))
              << "buffer " << i << ", range [" << run.begin << ", " << run.end << ")\n"
              << ir::print(kernel);
        }
      }
    }
  }
}

/// Numbers that find faults: boundaries of the type and of its neighbours, special values, and random bits.
inline Bytes interesting(ir::Type type, size_t count, uint64_t seed) {
  std::mt19937_64 random(seed);
  const size_t size = static_cast<size_t>(ir::size_of(type));
  Bytes bytes(count * size);
  const double special[] = {0.0,
                            -0.0,
                            1.0,
                            -1.0,
                            0.5,
                            1.5,
                            2.5,
                            -2.5,
                            3.0,
                            7.0,
                            0.49999999999999994,
                            8388607.5,
                            1e10,
                            -1e10,
                            2147483647.0,
                            2147483648.0,
                            -2147483648.0,
                            -2147483649.0,
                            4294967296.0,
                            9223372036854775807.0,
                            -9223372036854775808.0,
                            1e38,
                            -1e38,
                            1e-38,
                            1e-45,
                            5e-324,
                            1e300,
                            65504.0,
                            65519.99,
                            65520.0,
                            6e-8,
                            1e-310,
                            INFINITY,
                            -INFINITY,
                            NAN};
  for (size_t i = 0; i < count; ++i) {
    uint64_t bits = random();
    const uint64_t kind = random() % 4;
    if (type == ir::Type::kBool) {
      bits &= 1;
    } else if (ir::is_float(type)) {
      double x = special[bits % std::size(special)];
      if (kind == 0) x = static_cast<double>(static_cast<int64_t>(random() % 2001) - 1000) / 16;
      if (kind <= 1) {
        if (type == ir::Type::kF32) {
          const float f = static_cast<float>(x);
          uint32_t word;
          std::memcpy(&word, &f, 4);
          bits = word;
        } else {
          std::memcpy(&bits, &x, 8);
        }
      }
    } else if (ir::is_int(type) && kind <= 1) {
      const int64_t small = static_cast<int64_t>(random() % 9) - 4;
      const int width = 8 * ir::size_of(type);
      const uint64_t bases[] = {0,  0, uint64_t{1} << (width - 1), ~uint64_t{0}, static_cast<uint64_t>(width),
                                100};
      bits = bases[random() % std::size(bases)] + static_cast<uint64_t>(small);
    }
    std::memcpy(&bytes[i * size], &bits, size);
  }
  return bytes;
}

inline Bytes zeros(ir::Type type, int64_t count) {
  return Bytes(static_cast<size_t>(count) * static_cast<size_t>(ir::size_of(type)));
}

}  // namespace lohe::codegen::testing
