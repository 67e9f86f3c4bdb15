#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <vector>

#include "ir/graph.h"
#include "lohe/error.h"
#include "ops/arg.h"
#include "ops/schema.h"

/// The op table. A row says what an op is called, what its result looks like, what it means and what its
/// gradient is; everything else is derived (src/dispatch, python/binding, tools/gen). See
/// docs/adding_an_op.md.
namespace lohe::ops {

using ir::Node;
using Value = ir::Node;  ///< a Node in a pointwise row
using Str = std::string_view;

enum class OpKind : uint8_t {
  kPointwise,  ///< one expression per element over broadcast operands
  kComposed,   ///< a graph of primitives with reductions over groups of dims
  kView,       ///< an affine map from result index to storage
  kPrimitive,  ///< a result rule and a kernel of its own, or a library call
  kFunction,   ///< C++ that calls other ops; no kernel and no gradient of its own
};

/// How the result dtype follows from the operands.
enum class Promotion : uint8_t {
  kSame,       ///< promoted dtype of the operands
  kFloat,      ///< the same, integers to the default dtype
  kBool,       ///< computed in the promoted dtype, result bool
  kReal,       ///< complex operands give their real dtype
  kRealFloat,  ///< kFloat, then kReal
  kSum,        ///< small integers and bool to int64; a `dtype` argument overrides
  kIndex,      ///< computed in the operand's dtype, result int64
  kFirst,      ///< the first tensor's dtype, whatever the others are
};

/// Sets of dtypes that a row computes in.
enum DtypeSet : uint16_t {
  kBools = 1,
  kInts = 2,
  kHalfs = 4,
  kFloats = 8,
  kComplexes = 16,
  kFloating = kHalfs | kFloats,
  kReals = kInts | kFloating,
  kNumbers = kReals | kComplexes,
  kFloatingOrComplex = kFloating | kComplexes,
  kAllReals = kBools | kReals,
  kAll = kBools | kNumbers,
  kIntegral = kBools | kInts,
};
bool contains(DtypeSet set, Dtype dtype);

enum class Strides : uint8_t { kElementwise, kContiguous };

/// Which dtypes a tensor given as out= may have.
enum class OutDtype : uint8_t {
  kCastable,      ///< what the result can be cast to; others are a RuntimeError
  kCastableType,  ///< the same; others are a TypeError
  kSame,          ///< the result's own
  kTruth,         ///< bool and uint8: the result is a truth value
  kGiven,         ///< any: it stands for a dtype argument that is not given, the result is computed in it
  kFloating,      ///< any floating dtype; others are a NotImplementedError
  kAny,           ///< any: the result is converted
};

/// What a tensor result will look like.
struct Meta {
  Dtype dtype = Dtype::kUndefined;
  Dims sizes;
  Dims strides;  ///< empty with non-empty sizes: contiguous
  SmallVector<int8_t, 6>
      dims;  ///< composed rows: iteration dim of each result dim (-1: size 1); empty: by position or span
  int64_t offset =
      0;  ///< of an argument seen by a view's gradient: its storage offset (strides are given there too)
};

/// How a composed row's dims fall into groups.
struct Domain {
  Dims sizes;                      ///< of the iteration space, in the first operand's dim order
  SmallVector<uint8_t, 6> groups;  ///< ir::Group of every dim
  /// For every tensor parameter: the iteration dim of each of its own dims (-1: must be 1). Empty:
  /// right-aligned broadcast.
  std::vector<SmallVector<int8_t, 6>> dims_of;
};

/// A geometry for a view: no data moves.
struct ViewSpec {
  Dims sizes, strides;
  int64_t offset = 0;
  Dtype dtype = Dtype::kUndefined;  ///< kUndefined: as the input's
  bool conj = false, neg = false;
};

/// What a row's body sees while its graph is made, once for each combination of dtypes and static attributes.
struct GraphCall {
  ir::Graph& graph;
  const struct OpDef& op;
  std::vector<Node> nodes;      ///< by parameter; undefined for None and for attributes
  std::vector<Arg> attributes;  ///< by parameter: bool, int, str, dtype arguments as given
  Dtype compute_dtype = Dtype::kUndefined;
  Dtype result_dtype = Dtype::kUndefined;
};
using GraphBody = std::function<std::vector<Node>(GraphCall&)>;

/// What a gradient on tensors sees. `grad(i)` is null when nothing flows into output i.
class Backward {
 public:
  virtual ~Backward() = default;
  virtual const TensorPtr& grad(int output = 0) = 0;
  virtual const Arg& arg(int param) = 0;  ///< tensors only if the row saves them
  virtual TensorPtr tensor(int param,
                           int entry = 0) = 0;   ///< saved argument; of a list: its entry, null for None
  virtual TensorPtr result(int output = 0) = 0;  ///< saved result
  virtual bool needs(int param) const = 0;       ///< somebody wants this gradient
  virtual const Meta& meta(
      int param,
      int entry = 0) = 0;  ///< shape and dtype of a tensor argument (entry of a list), saved or not
  virtual void set(int param, TensorPtr gradient) = 0;
  virtual void set_list(int param, std::vector<TensorPtr> gradients) = 0;
};
using TensorGradient = std::function<void(Backward&)>;

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
  std::function<Domain(const OpDef&, Args)> domain;  ///< composed
  std::function<std::vector<Meta>(const OpDef&, Args, const Domain&, Dtype result)>
      results;  ///< composed; empty: by space
  Strides strides = Strides::kElementwise;
  // view
  std::function<ViewSpec(Args)> view;
  std::function<std::vector<ViewSpec>(Args)> views;  ///< for rows that return Tensor[]
  // primitive
  std::function<std::vector<Meta>(Args)> infer;
  std::function<void(Args, Results&)> run;  ///< results are allocated as inferred
  // function; also primitives whose result shape depends on data
  std::function<Results(Args)> call;
  // everything
  TensorGradient gradient;
  std::function<void(const OpDef&, Args)> checks;
  uint64_t mask_params =
      0;  ///< bool tensors that choose: they keep their dtype and do not take part in promotion
  std::function<uint8_t(Args)>
      variant;                  ///< arguments of one dtype that ask for different graphs (the 2 in x ** 2)
  uint64_t runtime_params = 0;  ///< int and float parameters that reach the kernel as run-time numbers
  uint64_t saved_params = 0, saved_results = 0;  ///< what `gradient` reads
  bool saves_declared = false;
  bool differentiable = true;
  bool has_function = true, has_method = true, has_inplace = false, has_out = false;
  OutDtype out_dtype = OutDtype::kCastable;
  bool apart = false;                              ///< see exact_out
  ErrorKind refusal = ErrorKind::kNotImplemented;  ///< what a dtype outside of `dtypes` raises
  std::string_view module;  ///< "", "nn", "special", "linalg", "_C": where Python shows it
  std::string_view doc;
  std::string_view alias_of;  ///< another base name of the family: this row only lends its name, see alias()
  const OpDef* primal = nullptr;  ///< set for derived gradients
  const OpDef& root() const {
    return primal == nullptr ? *this : primal->root();
  }  ///< the row that a gradient comes from
  mutable void* state =
      nullptr;  ///< of the dispatcher: instances for the dtypes met so far; lives as long as the process

  // Builders, chained in a row.
  OpDef&& dtypes_are(DtypeSet set, ErrorKind otherwise = ErrorKind::kNotImplemented) && {
    dtypes = set;
    refusal = otherwise;
    return std::move(*this);
  }
  OpDef&& promote(Promotion p) && {
    promotion = p;
    return std::move(*this);
  }
  OpDef&& no_inplace() && {
    has_inplace = false;
    return std::move(*this);
  }
  OpDef&& inplace() && {
    has_inplace = true;
    return std::move(*this);
  }
  OpDef&& out(OutDtype rule = OutDtype::kCastable) && {
    has_out = true;
    out_dtype = rule;
    return std::move(*this);
  }
  /// out= whose tensors name each element once and share no memory with an argument.
  OpDef&& out_apart(OutDtype rule) && {
    apart = true;
    return std::move(*this).out(rule);
  }
  OpDef&& exact_out() && { return std::move(*this).out_apart(OutDtype::kSame); }
  OpDef&& function_only() && {
    has_method = false;
    has_inplace = false;
    return std::move(*this);
  }
  OpDef&& method_only() && {
    has_function = false;
    return std::move(*this);
  }
  OpDef&& in(std::string_view m) && {
    module = m;
    has_method = false;
    has_inplace = false;
    return std::move(*this);
  }
  OpDef&& not_differentiable() && {
    differentiable = false;
    return std::move(*this);
  }
  OpDef&& contiguous_result() && {
    strides = Strides::kContiguous;
    return std::move(*this);
  }
  OpDef&& over(std::function<Domain(const OpDef&, Args)> d) && {
    domain = std::move(d);
    return std::move(*this);
  }
  OpDef&& shaped(std::function<std::vector<Meta>(const OpDef&, Args, const Domain&, Dtype)> r) && {
    results = std::move(r);
    return std::move(*this);
  }
  OpDef&& checked(std::function<void(const OpDef&, Args)> c) && {
    checks = std::move(c);
    return std::move(*this);
  }
  /// What the gradient reads, by name: parameters, "result" (or "result0"...). In-place writes to those raise
  /// in backward.
  OpDef&& gradient_reads(std::initializer_list<std::string_view> names) &&;
  /// Bool tensors that choose (where's condition): the body gets them as bool, the result's dtype does not
  /// depend on them.
  OpDef&& mask(std::string_view name) &&;
  /// A number that follows from the arguments and selects the graph; the body works it out from `attributes`.
  /// Only kinds and numbers may be looked at: backward asks again when the tensors may be gone.
  OpDef&& varies_with(std::function<uint8_t(Args)> f) && {
    variant = std::move(f);
    return std::move(*this);
  }
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
  OpDef&& grad(TensorGradient g) && {
    gradient = std::move(g);
    return std::move(*this);
  }
  /// On nodes: `[](Node dy, Node y, <parameters>) -> Node or std::array`, one Node per tensor parameter.
  template <class F>
  OpDef&& derivative(F f) &&;
  OpDef&& describe(std::string_view text) && {
    doc = text;
    return std::move(*this);
  }
};

// --- from lambdas with plain parameters to GraphBody

namespace detail {

template <class T>
struct Get;
template <>
struct Get<Node> {
  static Node from(GraphCall& c, int i) { return c.nodes[static_cast<size_t>(i)]; }
};
template <>
struct Get<Str> {
  static Str from(GraphCall& c, int i) { return c.attributes[static_cast<size_t>(i)].str(); }
};
template <>
struct Get<bool> {
  static bool from(GraphCall& c, int i) { return c.attributes[static_cast<size_t>(i)].integer != 0; }
};
template <>
struct Get<int64_t> {
  static int64_t from(GraphCall& c, int i) { return c.attributes[static_cast<size_t>(i)].integer; }
};
template <>
struct Get<Arg> {
  static Arg from(GraphCall& c, int i) { return c.attributes[static_cast<size_t>(i)]; }
};

template <class F>
struct Signature : Signature<decltype(&F::operator())> {};
template <class C, class R, class... A>
struct Signature<R (C::*)(A...) const> {
  using Result = R;
  using Arguments = std::tuple<std::remove_cvref_t<A>...>;
  static constexpr int size = sizeof...(A);
};
template <class C, class R, class... A>
struct Signature<R (C::*)(A...)> : Signature<R (C::*)(A...) const> {};
template <class R, class... A>
struct Signature<R (*)(A...)> {
  using Result = R;
  using Arguments = std::tuple<std::remove_cvref_t<A>...>;
  static constexpr int size = sizeof...(A);
};

inline std::vector<Node> to_nodes(Node n) { return {n}; }
template <size_t N>
std::vector<Node> to_nodes(const std::array<Node, N>& a) {
  return {a.begin(), a.end()};
}
inline std::vector<Node> to_nodes(std::vector<Node> v) { return v; }

/// Calls f with its first `shift` parameters taken from the end positions given by `slots`.
template <class F, size_t... I>
std::vector<Node> invoke(const F& f, GraphCall& c, const int* slots, std::index_sequence<I...>) {
  using Arguments = typename Signature<F>::Arguments;
  return to_nodes(f(Get<std::tuple_element_t<I, Arguments>>::from(c, slots[I])...));
}

template <class F>
GraphBody make_body(F f) {
  if constexpr (std::is_same_v<typename Signature<F>::Arguments, std::tuple<GraphCall>>) {
    return [f](GraphCall& c) { return to_nodes(f(c)); };
  } else {
    return [f](GraphCall& c) {
      constexpr int n = Signature<F>::size;
      int slots[n > 0 ? n : 1];
      for (int i = 0; i < n; ++i) slots[i] = i;
      return invoke(f, c, slots, std::make_index_sequence<n>());
    };
  }
}

}  // namespace detail

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
using DomainRule = std::function<Domain(const OpDef&, Args)>;
/// kRow: the dims in int or int[] parameter `param` (None or empty: all); kOuter: the others.
DomainRule reduce_over(int param);
/// kRow: as many trailing dims as the int[] parameter has, parameters after it span these dims.
DomainRule trailing(int param);
/// kOuter: dim 1 (of the first operand); kRow: all others; one-dimensional parameters span kOuter.
DomainRule channels();

}  // namespace lohe::ops
