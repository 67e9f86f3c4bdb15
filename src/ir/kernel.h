#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "lohe/dtype.h"

/// The loop-level kernel IR. One kernel is a nest of loops over run-time extents; every back end (LLVM vector
/// code, SIMT text, the interpreter) reads this and nothing else, and all give the same bits:
///  - every arithmetic instruction is an exactly specified IEEE or two's complement operation (no libm, no
///  contraction);
///  - a reduction in a vector loop has a fixed number of virtual lanes: element i goes to lane i % lanes,
///  lanes are
///    combined by halving. The result therefore depends on neither the vector width nor the number of
///    threads.
/// Memory types of two-byte floats exist only to be cast; complex numbers are pairs of loads made by the
/// lowering.
namespace lohe::ir {

enum class Type : uint8_t { kBool, kU8, kI8, kI16, kI32, kU32, kI64, kU64, kF16, kBF16, kF32, kF64 };

constexpr int size_of(Type t) {
  constexpr int sizes[] = {1, 1, 1, 2, 4, 4, 8, 8, 2, 2, 4, 8};
  return sizes[static_cast<int>(t)];
}
constexpr bool is_float(Type t) { return t == Type::kF32 || t == Type::kF64; }
constexpr bool is_half(Type t) { return t == Type::kF16 || t == Type::kBF16; }
constexpr bool is_signed_int(Type t) {
  return t == Type::kI8 || t == Type::kI16 || t == Type::kI32 || t == Type::kI64;
}
constexpr bool is_int(Type t) {
  return is_signed_int(t) || t == Type::kU8 || t == Type::kU32 || t == Type::kU64;
}
const char* name(Type t);
/// The register type of a real dtype. @throws internal error for complex ones.
Type type_of(Dtype d);

enum class Op : uint8_t {
  // Leaves
  kConst,  ///< imm: the bits, zero extended
  kParam,  ///< imm: slot in the 64-bit parameter array; integers are read whole, floats from the slot's low
           ///< bytes
  kBegin,  ///< first outer iteration of this call (i64)
  kEnd,    ///< one past the last outer iteration of this call (i64)
  kIndex,  ///< a loop's index (i64); defined by its Loop
  kCarry,  ///< an accumulator or right-hand side inside a Reduce's combine block, or the result of a Reduce
           ///< or Rare; defined there
  // Memory. Indices count elements of the buffer's type. Of a load, c, if given: where it is false nothing is
  // read, and the result is zero.
  kLoad,      ///< buffer[a]; a varies over lanes: gather
  kLoadUnit,  ///< buffer[a + i], i the index of the enclosing vector loop, a uniform: one vector load.
              ///< b, if given: buffer[b + i] will be read soon, a hint that asks nothing of b's value
  // Arithmetic: operands and result of one type. Integers wrap.
  kAdd,
  kSub,
  kMul,
  kNeg,
  kAbs,
  kMin,  ///< b where b < a, else a (so a where either is NaN, and of two zeros)
  kMax,  ///< b where a < b, else a, likewise
  kDiv,  ///< floats: IEEE. Integers: truncating; x / 0 = 0 (callers check), INT_MIN / -1 = INT_MIN
  kRem,  ///< integers only: truncating; x % 0 = x, x % -1 = 0
  kFma,  ///< a * b + c, one rounding
  /// Floats: a * 2^b, one rounding. b is integral and at most 252 (kF32) or 2044 (kF64) in size; a is 0,
  /// infinite or NaN, or so near 1 that a * 2^(b/2) is exact.
  kScale,
  kSqrt,
  kFloor,
  kCeil,
  kTrunc,
  kRoundEven,
  kAnd,
  kOr,
  kXor,
  kNot,  ///< integers and bool
  kShl,
  kShr,  ///< arithmetic for signed types; counts outside [0, bits): kShl gives 0, kShr the sign (0 if
         ///< unsigned)
  // Comparisons give bool; any comparison with NaN is false except kNe.
  kEq,
  kNe,
  kLt,
  kLe,
  kSelect,   ///< a ? b : c
  kCast,     ///< see Builder::cast
  kBitcast,  ///< same size
  kTable,    ///< Kernel::tables[imm][a % 16]; a is kU32
};

/// An SSA value: index into Kernel::insts.
using Value = int32_t;
inline constexpr Value kNoValue = -1;

struct Inst {
  Op op;
  Type type;
  int16_t buffer = -1;  ///< kLoad, kLoadUnit
  Value a = kNoValue, b = kNoValue, c = kNoValue;
  uint64_t imm = 0;
};

struct Loop;
struct Rare;

struct Store {
  int16_t buffer;
  bool unit;  ///< buffer[index + i], i the index of the enclosing vector loop
  Value index;
  Value value;            ///< of the buffer's type
  Value next = kNoValue;  ///< index of what will be written soon, a hint; of a unit store
};

/// The kernel goes on, and returns `code` (> 0; the largest failing one wins) if `condition` was false for
/// any element. Later loads must be safe all the same: clamp the index.
struct Check {
  Value condition;
  int32_t code;
};

struct Define {
  Value value;
};  ///< computes insts[value] here

/// Outside of vector loops: to[column * pitch + row] = from[base + row * stride + column] for `rows` rows and
/// `columns` columns of a tile, at least one of each and at most kTile. `to` is scratch of from's type, or,
/// for narrower elements, of kI32, which gets their bits with zeros above; it has room for
/// pitch * kTile elements, of which others may be overwritten.
struct Transpose {
  static constexpr int64_t kTile = 64;
  int16_t from, to;
  Value base, stride, rows, columns;
  int64_t pitch;  ///< at least kTile
};

using Stmt = std::variant<Define, Store, Check, Transpose, std::unique_ptr<Loop>, std::unique_ptr<Rare>>;
using Block = std::vector<Stmt>;

/// results = condition ? computed : usual, lane by lane, whatever the other lanes hold. The body, arithmetic
/// for `computed` alone, is skipped where the condition holds for no lane of a vector: what hardly any value
/// needs costs the others one test.
struct Rare {
  Value condition;
  Block body;
  std::vector<Value> computed, usual;
  std::vector<Value> results;  ///< kCarry: visible after the statement, as the body's values are not
};

/// Folds `elements` of every iteration into `results` with an associative function of k accumulators.
struct Reduce {
  std::vector<Value> init;         ///< uniform over the loop; in a vector loop every lane starts with it
  std::vector<Value> elements;     ///< computed by the loop's body
  std::vector<Value> left, right;  ///< kCarry: operands of combine
  Block combine;
  std::vector<Value> combined;  ///< what combine leaves
  std::vector<Value> results;   ///< kCarry: visible after the loop
  int lanes = 0;  ///< vector loops: a power of two >= 16; serial loops: 0, a chain in index order
};

/// A nest of dims (outermost first). A vector loop's last dim is spread over lanes (masked tail); loops
/// inside it are serial, and their values are vectors where they depend on its index. Vector loops do not
/// nest. Any number of its iterations may be done at a time, each statement for all of them before the next:
/// where buffers overlap they lie in the same place, and only scatters write an element twice.
struct Loop {
  struct Dim {
    Value index, begin, end;
  };
  std::vector<Dim> dims;
  bool vector = false;
  Block body;
  std::vector<Reduce> reduces;
};

struct Buffer {
  Type type;
  bool written = false;
  bool scratch = false;  ///< private to one call; its size is in Kernel::scratch_elements
};

/// Sixteen numbers of kF32, as bits: what one permutation of a 64-byte register looks up.
using Table = std::array<uint32_t, 16>;

/// int32_t kernel(void* const* buffers, const int64_t* params, int64_t begin, int64_t end): 0 or the code of
/// a Check. A call does outer iterations [begin, end) and nothing else; calls on disjoint ranges may run at
/// the same time.
struct Kernel {
  std::string name;
  std::vector<Buffer> buffers;
  std::vector<Inst> insts;
  std::vector<Table> tables;
  Block body;
  int params = 0;
};
using KernelFunction = int32_t (*)(void* const* buffers, const int64_t* params, int64_t begin, int64_t end);

/// Text form: one line an instruction; equal kernels have equal text (the key of the kernel cache).
std::string print(const Kernel& kernel);
/// @throws internal error naming the first ill-formed instruction: type rules, dominance, uniformity,
/// nesting.
void check(const Kernel& kernel);
/// Runs the kernel element by element: the oracle, and the fallback where code cannot be generated.
int32_t interpret(const Kernel& kernel, void* const* buffers, const int64_t* params, int64_t begin,
                  int64_t end);

}  // namespace lohe::ir
