#pragma once

#include <memory>
#include <vector>

#include "base/small_vector.h"
#include "base/threads.h"
#include "codegen/codegen.h"
#include "ir/graph.h"
#include "lohe/scalar.h"

/// Calls of kernels, made ready: everything is worked out but addresses and run-time numbers.
namespace lohe::compiler {

struct Launch {
  /// Where a buffer begins: bytes from a base that is given for each run.
  struct Buffer {
    int32_t base;
    int64_t offset;
  };
  /// A parameter that takes a run-time number.
  struct Number {
    int16_t param;
    int32_t scalar;
    Dtype dtype;
    bool imaginary;
  };
  /// How a buffer is gone through: index i of the outermost loop uses bytes within [i step, i step + span).
  struct Extent {
    int64_t step = 0, span = 0;
    bool forward = false;  ///< no stride is negative
    bool dense = false;    ///< all bytes of a span are used
  };
  /// Another launch makes what this one reads in a buffer, for some indices of the outermost loop at a time,
  /// in memory that each range has for itself.
  struct Feed {
    static constexpr int64_t kPiece = 256 << 10;  ///< bytes; a second-level cache holds a few
    std::shared_ptr<Launch> maker;
    size_t made = 0, read = 0;  ///< buffers of the maker and of this launch, with base kFed
    int64_t begin = 0;          ///< bytes of what is made before what index 0 reads
  };
  static constexpr int32_t kFed = -1;
  const codegen::CompiledKernel* kernel = nullptr;
  const ir::Graph* graph = nullptr;  ///< whose checks the kernel's codes name
  SmallVector<int64_t, 24> params;
  SmallVector<Number, 4> numbers;
  SmallVector<Buffer, 8> buffers;
  SmallVector<Extent, 8> extents;   ///< by buffer; of prepared launches
  SmallVector<int64_t, 4> scratch;  ///< bytes that each range needs for itself
  int64_t count = 0, grain = 1;     ///< of the outermost loop
  Grain length = Grain::kShort;     ///< how long a grain takes
  Feed feed;
};

/// @param numbers by Launch::Number::scalar
/// @throws Error of the first check that fails.
void run(const Launch& launch, std::span<char* const> bases, std::span<const Scalar> numbers);
/// Launches without scratch and checks that have nothing to do with one another, in one parallel region.
void run_together(std::span<const Launch* const> launches, std::span<char* const> bases,
                  std::span<const Scalar> numbers);

/// One of several loops that run in one parallel region: its length, and what is worth a thread of its own.
struct Part {
  int64_t count, grain;
};
/// Covers every part by ranges: `body(part, begin, end)`, possibly at the same time on several threads. Parts
/// that are short take one together.
void run_parts(std::span<const Part> parts, FunctionRef<void(size_t part, int64_t begin, int64_t end)> body);

/// A number as a kernel's parameter.
int64_t scalar_bits(const Scalar& s, Dtype dtype, bool imaginary);

/// Collects launches instead of running them: addresses are symbols that know their base.
class Preparation {
 public:
  static constexpr int32_t kTemporary = 1 << 15;

  /// Stands for the first byte of operand `number`.
  static char* operand(int32_t number) { return symbol(number); }
  /// Stands for a buffer that lives from here to the end.
  char* temporary(int64_t bytes) {
    char* at = symbol(kTemporary) + temporary_bytes;
    temporary_bytes += (bytes + 63) / 64 * 64;
    return at;
  }
  static Launch::Buffer decode(const char* symbol) {
    const auto value = reinterpret_cast<uintptr_t>(symbol);
    return {static_cast<int32_t>(value >> kShift) - 1,
            static_cast<int64_t>(value & ((uintptr_t{1} << kShift) - 1))};
  }

  std::vector<Launch> launches;
  int64_t temporary_bytes = 0;

 private:
  static constexpr int kShift = 44;
  static char* symbol(int32_t base) {
    return reinterpret_cast<char*>((static_cast<uintptr_t>(base) + 1) << kShift);
  }
};

}  // namespace lohe::compiler
