#pragma once

#include <string_view>

#include "ir/builder.h"
#include "ir/graph.h"

/// The table of primitives: name, result dtype, derivative, instructions. Nothing else enumerates them.
namespace lohe::ir {

struct Primitive {
  std::string_view name;
  int operands;
  /// What the compiler should think it costs, in simple instructions; a dear value is kept rather than made
  /// again.
  int cost;
};
const Primitive& primitive(Prim prim);
/// Result dtype of an elementwise primitive on `operand`.
Dtype result_dtype(Prim prim, Dtype operand);

/// Cotangent of operand `which` given the cotangent `g` of result `y`; undefined where there is none. For
/// complex values this is the conjugate Wirtinger derivative.
Node derivative(Prim prim, int which, Node g, Node y, Node a, Node b, Node c);

/// A value of a graph node in a kernel: two registers for complex dtypes.
struct Registers {
  V re, im;
  bool complex() const { return im.builder != nullptr; }
};
/// Instructions of an elementwise primitive; `dtype` is the operands', `result` the node's.
Registers lower(Builder& b, const GraphNode& node, Dtype dtype, const Registers& x, const Registers& y,
                const Registers& z);
/// A constant of a dtype.
Registers lower_constant(Builder& b, const GraphNode& node);
/// Neutral element and combining function of a reduction; argmax and argmin fold (value, position) pairs.
std::vector<V> reduction_identity(Builder& b, Prim prim, Dtype dtype);
/// Virtual lanes of a reduction in a vector loop: they are part of what a sum is.
constexpr int reduction_lanes(size_t registers, Type element) {
  return registers > 1 ? 16 : 256 / size_of(element) < 64 ? 256 / size_of(element) : 64;
}
std::vector<V> reduction_combine(Builder& b, Prim prim, Dtype dtype, const std::vector<V>& left,
                                 const std::vector<V>& right);
/// As a vector loop folds the elements of a row that has no more of them than lanes.
std::vector<V> reduction_of_few(Builder& b, Prim prim, Dtype dtype, std::vector<std::vector<V>> elements);

}  // namespace lohe::ir
