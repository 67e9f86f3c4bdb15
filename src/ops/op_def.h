#pragma once

#include <functional>
#include <string_view>
#include <type_traits>
#include <vector>

#include "ops/op_types.h"
#include "ops/row_body.h"

/// The op table. A row says what an op is called, what its result looks like, what it means and what its
/// gradient is; everything else is derived (src/dispatch, python/binding, tools/gen). See
/// docs/adding_an_op.md.
namespace lohe::ops {

using DomainRule = std::function<Domain(const OpDef&, Args)>;
using ResultRule = std::function<std::vector<Meta>(const OpDef&, Args, const Domain&, Dtype result)>;

struct OpDef {
  Schema schema;
  OpKind kind = OpKind::kFunction;
  std::string_view family;  ///< file of the row
  int id = -1;              ///< position in the table

  // pointwise, composed
  GraphBody body;
  /// cotangents of the outputs come behind the parameters: nodes[params + k]; results: nodes[params + outputs
  /// + k]
  GraphBody graph_gradient;  ///< returns one Node per parameter (undefined: none)
  Promotion promotion = Promotion::kSame;
  DtypeSet dtypes = kAll;
  DomainRule domain;   ///< composed
  ResultRule results;  ///< composed; empty: by space
  Strides strides = Strides::kElementwise;
  // view
  std::function<ViewSpec(Args)> view;
  std::function<std::vector<ViewSpec>(Args)> views;  ///< for rows that return Tensor[]
  // primitive
  /// What results are made, from shapes alone. Of a row that writes an argument: gives nothing, but raises
  /// what shapes tell.
  std::function<std::vector<Meta>(Args)> infer;
  std::function<bool(Args)> by_values;      ///< see shaped_by_values
  std::function<void(Args, Results&)> run;  ///< results are allocated as inferred
  // function; also primitives whose result shape depends on data
  std::function<Results(Args)> call;
  // everything
  TensorGradient gradient;
  std::function<void(const OpDef&, Args)> checks;
  /// Bool tensors that choose: they keep their dtype and do not take part in promotion.
  uint64_t mask_params = 0;
  std::function<uint8_t(Args)>
      variant;                  ///< arguments of one dtype that ask for different graphs (the 2 in x ** 2)
  uint64_t runtime_params = 0;  ///< int and float parameters that reach the kernel as run-time numbers
  uint64_t saved_params = 0, saved_results = 0;  ///< what `gradient` reads
  bool saves_declared = false;
  bool differentiable = true;
  bool has_function = true, has_method = true, has_inplace = false, has_out = false;
  OutDtype out_dtype = OutDtype::kCastable;
  bool apart = false;                              ///< see out_apart
  bool unfilled = false;                           ///< see unfilled_result
  bool by_ops = false;                             ///< see filled_by_ops
  bool strided_results = false;                    ///< see fills_any_strides
  bool wide = false;                               ///< see wide_statistics
  ErrorKind refusal = ErrorKind::kNotImplemented;  ///< what a dtype outside of `dtypes` raises
  std::string_view module;  ///< "", "nn", "special", "linalg", "_C": where Python shows it
  std::string_view doc;
  std::string_view alias_of;  ///< another base name of the family: this row only lends its name, see alias()
  const OpDef* primal = nullptr;  ///< set for derived gradients
  /// The row that a gradient comes from.
  const OpDef& root() const { return primal == nullptr ? *this : primal->root(); }
  /// Of the dispatcher: instances for the dtypes met so far; lives as long as the process.
  mutable void* state = nullptr;

  // Builders, chained in a row.
  OpDef&& dtypes_are(DtypeSet set, ErrorKind otherwise = ErrorKind::kNotImplemented) &&;
  OpDef&& promote(Promotion p) &&;
  OpDef&& no_inplace() &&;
  OpDef&& inplace() &&;
  OpDef&& out(OutDtype rule = OutDtype::kCastable) &&;
  /// out= whose tensors name each element once and share no memory with an argument.
  OpDef&& out_apart(OutDtype rule) &&;
  /// The same, of the result's dtype.
  OpDef&& exact_out() &&;
  OpDef&& function_only() &&;
  OpDef&& method_only() &&;
  OpDef&& in(std::string_view m) &&;
  OpDef&& not_differentiable() &&;
  OpDef&& contiguous_result() &&;
  /// A primitive that makes tensors without looking at memory: what is in them, somebody else writes.
  OpDef&& unfilled_result() &&;
  /// A primitive that fills its results by calling other rows on views of them: recorded, those calls may be
  /// joined with what is around them.
  OpDef&& filled_by_ops() &&;
  /// A primitive that writes results of any strides, if the last dim's elements are adjacent: they may be
  /// parts of a larger tensor.
  OpDef&& fills_any_strides() &&;
  /// A composed row whose results after the first stay in the dtype in which it computes, float32 of a half
  /// dtype: its gradient reads them.
  OpDef&& wide_statistics() &&;
  /// A primitive some of whose calls, those for which `p` holds, make results whose shape depends on values:
  /// they are not recorded. Where nothing is recorded no results are inferred: `run` checks, and makes them.
  OpDef&& shaped_by_values(std::function<bool(Args)> p) &&;
  OpDef&& over(DomainRule d) &&;
  OpDef&& shaped(ResultRule r) &&;
  OpDef&& checked(std::function<void(const OpDef&, Args)> c) &&;
  /// What the gradient reads, by name: parameters, "result" (or "result0"...). In-place writes to those raise
  /// in backward.
  OpDef&& gradient_reads(std::initializer_list<std::string_view> names) &&;
  /// Bool tensors that choose (where's condition): the body gets them as bool, the result's dtype does not
  /// depend on them.
  OpDef&& mask(std::string_view name) &&;
  /// A number that follows from the arguments and selects the graph; the body works it out from `attributes`.
  /// Only kinds and numbers may be looked at: backward asks again when the tensors may be gone.
  OpDef&& varies_with(std::function<uint8_t(Args)> f) &&;
  /// int and float parameters that are run-time numbers (int64, float64) rather than static attributes: the
  /// row is not compiled anew for each value, and its body gets them as Value.
  OpDef&& runtime(std::initializer_list<std::string_view> names) &&;
  /// Whether parameter `p` reaches the graph as a value: tensors, Scalars, run-time numbers.
  bool is_operand(size_t p) const {
    const ArgType type = schema.params[p].type;
    return type == ArgType::kTensor || type == ArgType::kScalar || (p < 64 && (runtime_params >> p & 1) != 0);
  }
  /// The dtype in which number parameter `p` enters a graph that computes in `compute`.
  Dtype number_dtype(size_t p, Dtype compute) const {
    if (schema.params[p].type == ArgType::kInt) return Dtype::kInt64;
    return schema.params[p].type == ArgType::kFloat ? Dtype::kFloat64 : compute;
  }
  /// On tensors.
  OpDef&& grad(TensorGradient g) &&;
  /// On nodes: `[](Node dy, Node y, <parameters>) -> Node or std::array`, one Node per tensor parameter.
  template <class F>
  OpDef&& derivative(F f) &&;
  OpDef&& describe(std::string_view text) &&;
};

template <class F>
OpDef&& OpDef::derivative(F f) && {
  const int params = static_cast<int>(schema.params.size()),
            outputs = static_cast<int>(schema.returns.size());
  if constexpr (std::is_same_v<typename detail::Signature<F>::Arguments, std::tuple<GraphCall>>) {
    graph_gradient = [f](GraphCall& c) { return detail::to_nodes(f(c)); };
  } else {
    graph_gradient = [f, params, outputs](GraphCall& c) {
      constexpr int n = detail::Signature<F>::size;
      int slots[n > 0 ? n : 1];
      // dy..., y..., parameters...
      for (int i = 0; i < n; ++i) slots[i] = i < 2 * outputs ? params + i : i - 2 * outputs;
      return detail::invoke(f, c, slots, std::make_index_sequence<n>());
    };
  }
  return std::move(*this);
}

/// Row constructors. The first argument is always a literal: a build step reads it as text.
template <class F>
OpDef pointwise(std::string_view schema, F body) {
  OpDef op;
  op.schema = Schema::parse(schema);
  op.kind = OpKind::kPointwise;
  op.body = detail::make_body(std::move(body));
  op.has_inplace = op.has_out = true;
  return op;
}
template <class F>
OpDef composed(std::string_view schema, F body) {
  OpDef op;
  op.schema = Schema::parse(schema);
  op.kind = OpKind::kComposed;
  op.body = detail::make_body(std::move(body));
  op.strides = Strides::kContiguous;
  op.has_out = true;
  return op;
}
OpDef view(std::string_view schema, std::function<ViewSpec(Args)> rule);
OpDef multi_view(std::string_view schema, std::function<std::vector<ViewSpec>(Args)> rule);
OpDef primitive(std::string_view schema, std::function<std::vector<Meta>(Args)> infer,
                std::function<void(Args, Results&)> run);
OpDef function(std::string_view schema, std::function<Results(Args)> call);
/// Every row of the same family whose base name is `base`, under another name too: alias("absolute", "abs").
/// A module given to the alias, alias("special_expit", "sigmoid").in("special"), replaces the row's.
OpDef alias(std::string_view name, std::string_view base);

/// One family of rows: a static object in src/ops/<family>.cpp.
struct OpFamily {
  OpFamily(std::string_view name, std::vector<OpDef> rows);
};

/// All rows, in a fixed order (by name). Overloads of one base name are neighbours.
const std::vector<const OpDef*>& op_table();
/// Row "add" or "max.dim". @throws internal error if there is none.
const OpDef& find_op(std::string_view name);
const OpDef* find_op_or_null(std::string_view name);

// Domain rules for composed rows.
/// kRow: the dims in int or int[] parameter `param` (None or empty: all); kOuter: the others.
DomainRule reduce_over(int param);
/// kRow: as many trailing dims as the int[] parameter has, parameters after it span these dims.
DomainRule trailing(int param);
/// kOuter: dim 1 (of the first operand); kRow: all others; one-dimensional parameters span kOuter.
DomainRule channels();

}  // namespace lohe::ops
