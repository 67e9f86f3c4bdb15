#include "backend/limits.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "backend/cpu/packing.h"
#include "base/allocator.h"
#include "base/fork.h"
#include "base/threads.h"
#include "ir/builder.h"

namespace lohe::backend {
namespace {

enum class Loop : uint8_t { kCopy, kSum, kFill };

constexpr int kSmallest = 12, kLargest = 28;  ///< log2 of bytes
constexpr int64_t kShared = 256 << 10;        ///< from here on with all threads
constexpr int64_t kMoved = 32 << 20;          ///< bytes of one trial, if the working set is smaller

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// begin to end: repetitions; parameter 0: elements; buffers: read, written.
const codegen::CompiledKernel& kernel_of(Loop loop) {
  using namespace ir;
  Builder b(loop == Loop::kCopy ? "limit_copy" : loop == Loop::kSum ? "limit_sum" : "limit_fill");
  const int16_t in = b.buffer(Type::kF32, false), out = b.buffer(Type::kF32, true);
  const V n = b.param(Type::kI64), zero = b.constant_int(Type::kI64, 0);
  b.loop({{b.begin(), b.end()}}, false, [&](const std::vector<V>&) {
    if (loop == Loop::kSum) {
      Builder::Reduction sum;
      sum.init = {b.constant(Type::kF32, 0)};
      sum.lanes = 64;
      sum.combine = [](const std::vector<V>& x, const std::vector<V>& y) {
        return std::vector<V>{x[0] + y[0]};
      };
      const auto total = b.reduce({{zero, n}}, true, {sum}, [&](const std::vector<V>&) {
        return std::vector<std::vector<V>>{{b.load_unit(in, zero)}};
      });
      b.store(out, zero, total[0][0]);
      return;
    }
    b.loop({{zero, n}}, true, [&](const std::vector<V>&) {
      b.store_unit(out, zero, loop == Loop::kCopy ? b.load_unit(in, zero) : b.constant(Type::kF32, 1));
    });
  });
  return *codegen::KernelCache::global().get(b.finish());
}

struct Block {
  explicit Block(int64_t n) : bytes(static_cast<size_t>(n)), data(static_cast<char*>(allocate(bytes))) {
    std::fill(data, data + bytes, char{0});
  }
  ~Block() { deallocate(data, bytes); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  size_t bytes;
  char* data;
};

/// The best of some trials, in seconds; each is shared out among the threads.
template <class Body>
double best_time(int trials, int threads, const Body& body) {
  double best = 1e30;
  for (int i = 0; i <= trials; ++i) {  // one more, to come awake
    const double start = now();
    parallel_for(threads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) body(t);
    });
    best = std::min(best, now() - start);
  }
  return best;
}

double measured_seconds_a_byte(Loop loop, int64_t bytes, int threads) {
  const codegen::CompiledKernel& kernel = kernel_of(loop);
  if (kernel.function == nullptr) return 0;
  const bool copies = loop == Loop::kCopy;
  const int64_t part = std::max<int64_t>(bytes / threads / (copies ? 2 : 1) / 256 * 256, 256);
  const Block in(loop == Loop::kFill ? 256 : part * threads),
      out(loop == Loop::kSum ? 256 * threads : part * threads);
  const int64_t repeats = std::max<int64_t>(kMoved / bytes, 1), elements = part / 4;
  const double seconds = best_time(repeats == 1 ? 3 : 7, threads, [&](int64_t t) {
    void* buffers[] = {in.data + (loop == Loop::kFill ? 0 : t * part),
                       out.data + t * (loop == Loop::kSum ? 256 : part)};
    kernel(buffers, &elements, 0, repeats);
  });
  return seconds / static_cast<double>(repeats * part * threads * (copies ? 2 : 1));
}

/// Chains of this length leave a tile's operands in a first-level cache of 32 KiB at every CPU level.
constexpr int64_t kChain = 128;
static_assert(kChain <= kChunk);

template <class T>
double measured_flops_a_second(int threads) {
  const GemmKernels<T>& kernels = level_in_use().get(T{});
  const int64_t rows = kernels.rows, columns = kernels.columns;
  constexpr int64_t kRepeats = 250, kTiles = 4;
  const double seconds = best_time(7, threads, [&](int64_t) {
    const auto bytes = [](int64_t n) { return n * static_cast<int64_t>(sizeof(T)); };
    const Block a(bytes(rows * kChain)), b(bytes(columns * kChain)), c(bytes(rows * columns * kTiles));
    for (int64_t i = 0; i < kRepeats; ++i) {
      kernels.multiply({.rows = static_cast<int>(rows),
                        .columns = columns * kTiles,
                        .k = kChain,
                        .a = reinterpret_cast<const T*>(a.data),
                        .a_row_stride = 1,
                        .a_k_stride = rows,
                        .b = reinterpret_cast<const T*>(b.data),
                        .b_k_stride = columns,
                        .b_tile_stride = 0,
                        .c = reinterpret_cast<T*>(c.data),
                        .c_row_stride = columns * kTiles,
                        .near = true});
    }
  });
  return static_cast<double>(2 * rows * columns * kTiles * kChain * kRepeats * threads) / seconds;
}

/// Results by what was asked and the number of threads.
struct Known {
  std::mutex mutex;
  std::map<std::tuple<Loop, int, int>, double> seconds_a_byte;
  std::map<std::tuple<Dtype, int>, double> flops;
};
Known& known() {
  static auto* values = new Known;
  return *values;
}

}  // namespace

double least_seconds_to_move(int64_t read, int64_t written) {
  const int64_t all = read + written, both = std::min(read, written);
  if (all <= 0) return 0;
  const int size =
      std::clamp(static_cast<int>(std::bit_width(static_cast<uint64_t>(all - 1))), kSmallest, kLargest);
  const int64_t bytes = int64_t{1} << size;
  const int threads = all < kShared ? 1 : num_threads();
  const ForkSection section;
  const std::lock_guard lock(known().mutex);
  const auto seconds = [&](Loop loop, int64_t n) {
    if (n == 0) return 0.0;
    const auto [at, fresh] = known().seconds_a_byte.try_emplace({loop, size, threads});
    if (fresh) at->second = measured_seconds_a_byte(loop, bytes, threads);
    return at->second * static_cast<double>(n);
  };
  return seconds(Loop::kCopy, 2 * both) + seconds(Loop::kSum, read - both) +
         seconds(Loop::kFill, written - both);
}

double flops_a_second(Dtype dtype) {
  const int threads = num_threads();
  const ForkSection section;
  const std::lock_guard lock(known().mutex);
  const auto [at, fresh] = known().flops.try_emplace({dtype, threads});
  if (fresh) {
    at->second = dtype == Dtype::kFloat64 ? measured_flops_a_second<double>(threads)
                                          : measured_flops_a_second<float>(threads);
  }
  return at->second;
}

}  // namespace lohe::backend
