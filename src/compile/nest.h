#pragma once

#include <span>

#include "base/inline_vector.h"
#include "base/small_vector.h"
#include "ir/graph.h"

/// The loops of a kernel's call. The bits of a reduction depend on them, so that whoever changes what is
/// computed beside it asks here what becomes of its loops.
namespace lohe::compiler {

struct Binding;
struct Space;

/// Where along a loop an operand's window begins and ends.
struct Edge {
  size_t operand;
  int64_t low, high;
};

/// One loop after dims were dropped, ordered and merged.
struct Loop {
  int64_t size;
  uint8_t group;
  bool reduced;
  Dims strides;         ///< by operand, then of the leader
  int64_t logical = 1;  ///< distance of neighbours in the group's row-major order
  SmallVector<Edge, 1> edges;
};
using Loops = InlineVector<Loop, 6>;

struct Nest {
  Loops loops;        ///< at least one kept loop, then reduced ones: at least one where anything is reduced
  size_t kept = 0;    ///< how many are kept
  size_t leader = 0;  ///< index into Loop::strides of what orders the loops
  /// Vectors go along the last kept loop, because the leader is dense there and not along the rows.
  bool along_columns = false;
};

/// @param inputs how many of the operands, the first ones, are read
/// @param positions whether the kernel asks where it is (iota): then dims keep their order
Nest make_nest(const Space& space, std::span<const Binding> operands, size_t inputs, ir::Space reduced,
               bool positions);
void put_first(Loops& loops, Loop loop);
/// The loop, other than the last, along which operand `o` is dense, if that and the last are long enough for
/// tiles; else -1.
int dense_loop(const Loops& loops, size_t o);
/// Where the innermost loop of elementwise work is short, vectors go along another one if that takes less.
void put_best_last(Loops& loops, size_t inputs, size_t count);
/// Whether rows are so short, and columns so long, that vectors go along the columns.
bool has_short_rows(const Loops& loops, size_t kept, size_t inputs, size_t count);

/// Whether a reduction over kRow has the same loops, up to merging of kept ones, whatever subset of these
/// operands a kernel has beside its leader: one row loop, and vectors along the same dim.
bool is_steady(const Space& space, std::span<const Binding> operands);

}  // namespace lohe::compiler
