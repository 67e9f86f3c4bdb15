#pragma once

#include <vector>

#include "ir/graph.h"

/// Rewrites of a program's graph that round differently, for traces that allow it. docs/compile.md gives the
/// bound of each.
namespace lohe::compiler {

/// How often each was applied.
struct Rewrites {
  int reciprocals = 0;  ///< divisions that became products with a reciprocal
  int fmas = 0;         ///< products and sums that became one fused multiply-add
  int roundings = 0;    ///< roundings to a half dtype that were left out
  bool any() const { return reciprocals + fmas + roundings > 0; }
};

/// Inputs keep their numbers and their order, reductions their operands' order: the loops of a kernel of the
/// new graph are those of the old one.
/// @param still by input number: whether it stays the same along the innermost loop; asked where nothing is
/// reduced, because groups say it otherwise
Rewrites relax(ir::Graph& graph, const std::vector<bool>& still);

}  // namespace lohe::compiler
