#pragma once

#include <cstdint>
#include <vector>

#include "base/small_vector.h"
#include "ir/graph.h"
#include "ir/kernel.h"

/// From a graph of primitives to one kernel: a nest of loops over kept dims, passes over reduced dims inside.
namespace lohe::compiler {

/// A loop of the nest. Order: kept dims, outermost first, then reduced dims, outermost first.
struct LoopDim {
  ir::Space group;  ///< of the dims that were merged into it
  bool reduced;
  bool operator==(const LoopDim&) const = default;
};

/// How an operand moves along the vector dim. kTurned: in steps, while it is dense along
/// KernelSpec::tile_dim.
enum class Step : uint8_t { kZero, kUnit, kStrided, kTurned };

struct Operand {
  Dtype dtype;        ///< in memory
  uint32_t dims = 0;  ///< bit i: moves along loop i
  Step step = Step::kZero;
  uint32_t edges = 0;       ///< bit i: its window begins or ends along loop i
  bool overwrites = false;  ///< an output in the place of an input: no sweep that reads it may follow
  bool operator==(const Operand&) const = default;
};

struct KernelSpec {
  SmallVector<LoopDim, 6> dims;
  int vector_dim = 0;
  /// Pointwise kernels with turned inputs go over tiles of this loop and the vector dim; -1: there is none.
  int tile_dim = -1;
  /// The vector dim is the last kept one, and reduced loops run around it instead of inside it. The same
  /// chain for every element, so the same bits; it reads memory row by row, where the other form goes down
  /// one column of vectors after the other with its accumulators in registers.
  bool by_rows = false;
  /// Elements of the one reduced dim, where they are so few that the code has each of them beside the others
  /// and vectors go along the last kept dim; 0: any number. The same tree for every element, so the same
  /// bits.
  int row = 0;
  /// A row of a reduction is one long chain of operations: of short ones the code does so many side by side,
  /// which fill each other's waits.
  int rows_together = 1;
  bool unit_iota = false;           ///< neighbours along the vector dim are one apart in their group
  SmallVector<Operand, 6> inputs;   ///< by input number of the graph
  SmallVector<Operand, 3> outputs;  ///< by output of the graph
  bool operator==(const KernelSpec&) const = default;
};

/// What a parameter slot of the kernel holds.
struct Slot {
  enum Kind : uint8_t {
    kExtent,    ///< of loop `a`
    kCount,     ///< elements of all dims of the groups in `a`
    kIotaBase,  ///< what positions in group `a` start from
    kIotaStep,  ///< logical distance of neighbours along loop `a` in its group
    kStride,    ///< of operand `a` along loop `b`, in elements
    kLow,       ///< where the window of operand `a` begins along loop `b`
    kHigh,      ///< where it ends
    kScalar,    ///< number `a`, as `dtype`; b: 0 real part, 1 imaginary part
  };
  Kind kind;
  int16_t a = 0, b = 0;
  Dtype dtype = Dtype::kUndefined;
};

/// Memory that a call of the kernel needs for itself.
struct Scratch {
  int64_t bytes;
  bool per_row;  ///< for each element of the reduced dims
};

/// Up to so many elements, KernelSpec::row; and up to so many of a row whose elements are written.
inline constexpr int64_t kShortRow = 16, kShortWrittenRow = 8;
/// Elements of the vector dim that a kernel of kind `by_rows` takes at a time, and the sides of a tile:
/// ranges of the outermost loop that are handed to it had better not be shorter.
inline constexpr int64_t kColumnTile = 1024;
inline constexpr int64_t kTurnedTile = ir::Transpose::kTile;

struct LoweredKernel {
  ir::Kernel kernel;
  std::vector<Slot> slots;
  std::vector<Scratch> scratch;  ///< one entry a scratch buffer
  int cost = 0;                  ///< simple instructions an element, for the choice of a grain
};

/// Buffers: inputs, outputs, scratch, in this order. `graph` is pointwise or reduces over exactly the reduced
/// loops; its checks give codes 1, 2, ...
LoweredKernel lower(const ir::Graph& graph, const KernelSpec& spec, std::string name);

}  // namespace lohe::compiler
