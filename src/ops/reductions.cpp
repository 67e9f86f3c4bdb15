#include "ops/reductions.h"

#include <limits>

#include "lohe/error.h"
#include "tensor/shape.h"

/// Reductions over dims.
namespace lohe::ops {

using namespace ir;

DomainRule reduce_all() {
  return [](const OpDef&, Args args) {
    Domain d;
    d.sizes = args[0].tensor->size_dims();
    for (size_t i = 0; i < d.sizes.size(); ++i) d.groups.push_back(kRow);
    return d;
  };
}

void check_nonempty(std::string_view name, const TensorImpl& x, std::span<const int64_t> dims) {
  if (x.numel() != 0) return;
  LOHE_CHECK(
      !dims.empty(), name,
      ": Expected reduction dim to be specified for input.numel() == 0. Specify the reduction dim with "
      "the 'dim' argument.");
  for (const int64_t dim : dims) {
    const int64_t d = wrap_dim(dim, x.dim());
    LOHE_CHECK_KIND(kIndex, x.dim() == 0 || x.sizes()[static_cast<size_t>(d)] != 0, name,
                    ": Expected reduction dim ", dim, " to have non-zero size.");
  }
}

TensorPtr scatter_to(const TensorPtr& g, const TensorPtr& indices, int64_t dim, const Meta& shape) {
  static const OpRef zeros("zeros"), scatter("scatter_add");
  return scatter(zeros(shape.sizes, g->dtype()), dim, indices, g);
}

namespace {

std::span<const int64_t> dims_of(const Arg& a) {
  if (a.kind == Arg::kInt) return {&a.integer, 1};
  return a.none() ? std::span<const int64_t>() : a.int_list();
}

/// A check that the reduced dims (parameter 1, if the row has one) hold elements.
std::function<void(const OpDef&, Args)> nonempty(std::string_view name) {
  return [name](const OpDef& op, Args a) {
    const bool has_dim = op.schema.index_of("dim") == 1;
    check_nonempty(name, *a[0].tensor, has_dim ? dims_of(a[1]) : std::span<const int64_t>());
  };
}
void argument_nonempty(const OpDef& op, Args a) {
  LOHE_CHECK_KIND(kIndex, a[0].tensor->numel() != 0 || !a[1].none(), op.schema.base,
                  "(): Expected reduction dim to be specified for "
                  "input.numel() == 0. Specify the reduction dim with the 'dim' argument.");
  nonempty(op.schema.base == "argmax" ? "argmax()" : "argmin()")(op, a);
}

/// any(dim=()) and all(dim=()) reduce nothing.
Domain reduce_given(const OpDef& op, Args args) {
  if (!args[1].none() && args[1].count == 0) {
    Domain d;
    d.sizes = args[0].tensor->size_dims();
    for (size_t i = 0; i < d.sizes.size(); ++i) d.groups.push_back(kOuter);
    return d;
  }
  return reduce_over(1)(op, args);
}

void floating_mean(const OpDef& op, Args a) {
  const int at = op.schema.index_of("dtype");
  const bool given = a[static_cast<size_t>(at)].kind == Arg::kDtype;
  const Dtype d = given ? a[static_cast<size_t>(at)].dtype : a[0].tensor->dtype();
  const std::string_view t = info(d).tensor_type;
  LOHE_CHECK(is_differentiable(d), op.schema.base, "(): could not infer output dtype. ",
             given ? "Optional" : "Input",
             " dtype must be either a floating point or complex dtype. Got: ", t.substr(0, t.size() - 6));
}

/// Sums that skip NaN compute in floating dtypes what is given in them.
void floats_stay_floats(const OpDef& op, Args a) {
  const Arg& dtype = a[static_cast<size_t>(op.schema.index_of("dtype"))];
  LOHE_CHECK_KIND(kNotImplemented,
                  dtype.none() || !is_floating(a[0].tensor->dtype()) || is_floating(dtype.dtype), "\"",
                  op.schema.base, "\" of floating numbers is not implemented in ", dtype.dtype,
                  "; give a floating dtype");
}

Node mean_of(Node x) { return sum(x) / count(x); }
Node finite_sum(Node x) { return sum(select(is_nan(x), x.literal(0), x)); }
Node finite_mean(Node x) { return finite_sum(x) / sum(select(is_nan(x), x.literal(0), x.literal(1))); }

/// any and all give bool, except for uint8, which gives uint8.
Node truth(Node x, Prim prim) {
  const Node r = x.graph()->reduce(prim, cast(x, Dtype::kBool), kRow);
  return x.dtype() == Dtype::kUInt8 ? cast(r, Dtype::kUInt8) : r;
}
Node any_of(Node x) { return truth(x, Prim::kAny); }
Node all_of(Node x) { return truth(x, Prim::kAll); }

Node position_of(Node x, Prim prim) { return x.graph()->reduce(prim, x, kRow); }
std::array<Node, 2> extreme(Node x, bool max) {
  return {max ? amax(x) : amin(x), position_of(x, max ? Prim::kArgmax : Prim::kArgmin)};
}
/// Where the position along the reduced dims is that of the picked value.
Node picked_gradient(Node g, Node index) {
  return select(g.graph()->iota(kRow, Dtype::kInt64) == index, g, g.literal(0));
}

Node nonzero_count(Node x) {
  Graph& g = *x.graph();
  return sum(select(x != 0, g.constant_int(Dtype::kInt64, 1), g.constant_int(Dtype::kInt64, 0)));
}

// --- variance

Node squared(Node d) { return is_complex(d.dtype()) ? square(real(d)) + square(imag(d)) : square(d); }
/// What is taken from the number of elements: `correction`, or 1 or 0 by `unbiased`.
Node correction_of(GraphCall& c) {
  const Node x = c.nodes[0];
  const Dtype real_dtype = info(x.dtype()).value_dtype;
  if (const int at = c.op.root().schema.index_of("unbiased"); at >= 0)
    return x.graph()->constant(real_dtype, c.attributes[static_cast<size_t>(at)].integer);
  const Node given = c.nodes[static_cast<size_t>(c.op.root().schema.index_of("correction"))];
  if (!given.defined()) return x.graph()->constant(real_dtype, 1);
  return is_complex(given.dtype()) ? real(given) : cast(given, real_dtype);
}
/// Two passes: the mean first, then squared distances from it.
Node variance(Node x, Node correction) {
  const Node total = sum(squared(x - mean_of(x)));
  const Node freedom = count(total) - correction;
  return total / select(freedom < 0, freedom.literal(0), freedom);
}
Node variance_gradient(Node g, Node x, Node correction) {
  const Node slope = 2 / (count(correction) - correction) * (is_complex(g.dtype()) ? real(g) : g);
  return cast(slope, x.dtype()) * (x - mean_of(x));
}
Node deviation_gradient(Node g, Node y, Node x, Node correction) {
  const Node real_y = is_complex(y.dtype()) ? real(y) : y, real_g = is_complex(g.dtype()) ? real(g) : g;
  return variance_gradient(select(real_y == 0, real_g.literal(0), real_g / (2 * real_y)), x, correction);
}
Node zero_of(Node x) { return x.literal(0); }

/// Gradient through (variance or deviation, mean).
Node moments_gradient(Node g_spread, Node g_mean, Node x, Node correction, Node deviation) {
  Node result;
  if (g_spread.defined()) {
    result = deviation.defined() ? deviation_gradient(g_spread, deviation, x, correction)
                                 : variance_gradient(g_spread, x, correction);
  }
  if (g_mean.defined()) {
    const Node from_mean = cast(g_mean, x.dtype()) / count(x);
    result = result.defined() ? result + from_mean : from_mean + zero_of(x);
  }
  return result.defined() ? result : zero_of(x);
}

/// A row of var, std, var_mean or std_mean, as the name says.
OpDef moments(std::string_view schema) {
  const bool deviation = schema.starts_with("std"), mean = schema.ends_with("(Tensor, Tensor)");
  const bool all = schema.find(" dim") == std::string_view::npos;
  return composed(schema,
                  [deviation, mean](GraphCall& c) {
                    const Node spread = variance(c.nodes[0], correction_of(c));
                    std::vector<Node> results{deviation ? sqrt(spread) : spread};
                    if (mean) results.push_back(mean_of(c.nodes[0]));
                    return results;
                  })
      .over(all ? reduce_all() : reduce_over(1))
      .promote(Promotion::kReal)
      .dtypes_are(kFloatingOrComplex, ErrorKind::kRuntime)
      .derivative([deviation, mean](GraphCall& c) {
        const size_t params = c.op.root().schema.params.size(), results = mean ? 2 : 1;
        const Node g_mean = mean ? c.nodes[params + 1] : Node();
        return moments_gradient(c.nodes[params], g_mean, c.nodes[0], correction_of(c),
                                deviation ? c.nodes[params + results] : Node());
      });
}

Node log_sum_exp(Node x) {
  const Node highest = amax(is_complex(x.dtype()) ? real(x) : x);
  // An infinite maximum is taken as 0: exp(-inf) sums to 0, exp(inf) to infinity.
  const Node base =
      cast(select(abs(highest) == std::numeric_limits<double>::infinity(), highest.literal(0), highest),
           x.dtype());
  return log(sum(exp(x - base))) + base;
}

const OpFamily reductions(
    "reductions",
    {
        alias("special_logsumexp", "logsumexp").in("special"),
        composed("sum(Tensor self, *, ScalarType? dtype=None) -> Tensor", [](Node x) { return sum(x); })
            .over(reduce_all())
            .promote(Promotion::kSum)
            .out(OutDtype::kGiven)
            .describe("Sum of all elements."),
        composed(
            "sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
            [](Node x) { return sum(x); })
            .over(reduce_over(1))
            .promote(Promotion::kSum)
            .out(OutDtype::kGiven)
            .describe("Sum over dims."),
        composed("mean(Tensor self, *, ScalarType? dtype=None) -> Tensor", mean_of)
            .over(reduce_all())
            .dtypes_are(kFloatingOrComplex)
            .checked(floating_mean)
            .describe("Mean of all elements."),
        composed(
            "mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
            mean_of)
            .over(reduce_over(1))
            .dtypes_are(kFloatingOrComplex)
            .checked(floating_mean)
            .describe("Mean over dims."),
        composed("prod(Tensor self, *, ScalarType? dtype=None) -> Tensor", [](Node x) { return prod(x); })
            .over(reduce_all())
            .promote(Promotion::kSum)
            .out(OutDtype::kGiven)
            .describe("Product of all elements."),
        composed(
            "prod.dim_int(Tensor self, int dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
            [](Node x) { return prod(x); })
            .over(reduce_over(1))
            .promote(Promotion::kSum)
            .out(OutDtype::kGiven)
            .describe("Product over a dim."),
        composed(
            "nansum(Tensor self, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
            finite_sum)
            .over(reduce_over(1))
            .promote(Promotion::kSum)
            .dtypes_are(kAllReals, ErrorKind::kRuntime)
            .checked(floats_stay_floats)
            .out(OutDtype::kGiven)
            .describe("Sum over dims, NaN as zero."),
        composed(
            "nanmean(Tensor self, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
            finite_mean)
            .over(reduce_over(1))
            .dtypes_are(kFloating, ErrorKind::kRuntime)
            .checked(floats_stay_floats)
            .out(OutDtype::kGiven)
            .describe("Mean over dims of what is not NaN."),

        composed("amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor",
                 [](Node x) { return amax(x); })
            .over(reduce_over(1))
            .dtypes_are(kAllReals)
            .checked(nonempty("amax()"))
            .out(OutDtype::kSame)
            .gradient_reads({"self", "result"})
            .describe("Maximum over dims; ties share the gradient."),
        composed("amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor",
                 [](Node x) { return amin(x); })
            .over(reduce_over(1))
            .dtypes_are(kAllReals)
            .checked(nonempty("amin()"))
            .out(OutDtype::kSame)
            .gradient_reads({"self", "result"})
            .describe("Minimum over dims; ties share the gradient."),
        composed("aminmax(Tensor self, *, int? dim=None, bool keepdim=False) -> (Tensor min, Tensor max)",
                 [](Node x) { return std::array{amin(x), amax(x)}; })
            .over(reduce_over(1))
            .dtypes_are(kAllReals)
            .checked(nonempty("aminmax()"))
            .out(OutDtype::kSame)
            .gradient_reads({"self", "result0", "result1"})
            .describe("Minimum and maximum in one pass."),
        composed("max(Tensor self) -> Tensor", [](Node x) { return amax(x); })
            .over(reduce_all())
            .dtypes_are(kAllReals)
            .checked(nonempty("max()"))
            .gradient_reads({"self", "result"})
            .describe("Maximum of all elements; ties share the gradient."),
        composed("min(Tensor self) -> Tensor", [](Node x) { return amin(x); })
            .over(reduce_all())
            .dtypes_are(kAllReals)
            .checked(nonempty("min()"))
            .gradient_reads({"self", "result"})
            .describe("Minimum of all elements; ties share the gradient."),
        composed("max.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)",
                 [](Node x) { return extreme(x, true); })
            .over(reduce_over(1))
            .dtypes_are(kAllReals, ErrorKind::kRuntime)
            .checked(nonempty("max()"))
            .gradient_reads({"result1"})
            .derivative([](Node g, Node, Node, Node index) { return picked_gradient(g, index); })
            .describe("Maximum along a dim and its first position; the gradient goes there."),
        composed("min.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)",
                 [](Node x) { return extreme(x, false); })
            .over(reduce_over(1))
            .dtypes_are(kAllReals, ErrorKind::kRuntime)
            .checked(nonempty("min()"))
            .gradient_reads({"result1"})
            .derivative([](Node g, Node, Node, Node index) { return picked_gradient(g, index); })
            .describe("Minimum along a dim and its first position; the gradient goes there."),
        function("max.other(Tensor self, Tensor other) -> Tensor",
                 [](Args a) {
                   static const OpRef maximum("maximum");
                   return maximum.all(a[0], a[1]);
                 })
            .out()
            .describe("Elementwise maximum."),
        function("min.other(Tensor self, Tensor other) -> Tensor",
                 [](Args a) {
                   static const OpRef minimum("minimum");
                   return minimum.all(a[0], a[1]);
                 })
            .out()
            .describe("Elementwise minimum."),
        composed("argmax(Tensor self, int? dim=None, bool keepdim=False) -> Tensor",
                 [](Node x) { return position_of(x, Prim::kArgmax); })
            .over(reduce_over(1))
            .promote(Promotion::kIndex)
            .dtypes_are(kReals, ErrorKind::kRuntime)
            .checked(argument_nonempty)
            .not_differentiable()
            .describe(
                "First position of the maximum along dim, or in the flattened tensor; NaN is the largest."),
        composed("argmin(Tensor self, int? dim=None, bool keepdim=False) -> Tensor",
                 [](Node x) { return position_of(x, Prim::kArgmin); })
            .over(reduce_over(1))
            .promote(Promotion::kIndex)
            .dtypes_are(kReals, ErrorKind::kRuntime)
            .checked(argument_nonempty)
            .not_differentiable()
            .describe(
                "First position of the minimum along dim, or in the flattened tensor; NaN is the smallest."),

        composed("any(Tensor self) -> Tensor", any_of)
            .over(reduce_all())
            .out(OutDtype::kTruth)
            .not_differentiable()
            .describe("Whether any element is true."),
        composed("any.dim(Tensor self, int dim, bool keepdim=False) -> Tensor", any_of)
            .over(reduce_over(1))
            .out(OutDtype::kTruth)
            .not_differentiable()
            .describe("Whether any element along dim is true."),
        composed("any.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor", any_of)
            .over(reduce_given)
            .out(OutDtype::kTruth)
            .not_differentiable()
            .describe("Whether any element over dims is true."),
        composed("all(Tensor self) -> Tensor", all_of)
            .over(reduce_all())
            .out(OutDtype::kTruth)
            .not_differentiable()
            .describe("Whether all elements are true."),
        composed("all.dim(Tensor self, int dim, bool keepdim=False) -> Tensor", all_of)
            .over(reduce_over(1))
            .out(OutDtype::kTruth)
            .not_differentiable()
            .describe("Whether all elements along dim are true."),
        composed("all.dims(Tensor self, int[]? dim=None, bool keepdim=False) -> Tensor", all_of)
            .over(reduce_given)
            .out(OutDtype::kTruth)
            .not_differentiable()
            .describe("Whether all elements over dims are true."),
        composed("count_nonzero(Tensor self, int? dim=None) -> Tensor", nonzero_count)
            .over(reduce_over(1))
            .promote(Promotion::kIndex)
            .not_differentiable()
            .describe("Number of elements that are not zero."),
        composed("count_nonzero.dim_IntList(Tensor self, int[] dim) -> Tensor", nonzero_count)
            .over(reduce_over(1))
            .promote(Promotion::kIndex)
            .not_differentiable()
            .describe("Number of elements that are not zero."),

        moments("var(Tensor self, bool unbiased=True) -> Tensor").describe("Variance of all elements."),
        moments("var.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor")
            .describe("Variance over dims."),
        moments(
            "var.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor")
            .describe("Variance over dims: squared distances from the mean, summed, over n - correction."),
        moments("std(Tensor self, bool unbiased=True) -> Tensor")
            .describe("Standard deviation of all elements."),
        moments("std.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> Tensor")
            .describe("Standard deviation over dims."),
        moments(
            "std.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> Tensor")
            .describe("Standard deviation over dims."),
        moments("var_mean(Tensor self, bool unbiased=True) -> (Tensor, Tensor)")
            .describe("Variance and mean of all elements."),
        moments(
            "var_mean.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> (Tensor, Tensor)")
            .describe("Variance and mean over dims."),
        moments(
            "var_mean.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> (Tensor, Tensor)")
            .describe("Variance and mean over dims."),
        moments("std_mean(Tensor self, bool unbiased=True) -> (Tensor, Tensor)")
            .describe("Standard deviation and mean of all elements."),
        moments(
            "std_mean.dim(Tensor self, int[1]? dim, bool unbiased=True, bool keepdim=False) -> (Tensor, Tensor)")
            .describe("Standard deviation and mean over dims."),
        moments(
            "std_mean.correction(Tensor self, int[1]? dim=None, *, Scalar? correction=None, bool keepdim=False) -> (Tensor, Tensor)")
            .describe("Standard deviation and mean over dims."),

        composed("logsumexp(Tensor self, int[1] dim, bool keepdim=False) -> Tensor", log_sum_exp)
            .over(reduce_over(1))
            .promote(Promotion::kFloat)
            .dtypes_are(kAll)
            .gradient_reads({"self", "result"})
            .derivative([](Node g, Node y, Node x) { return g * conj(exp(x - y)); })
            .describe("log(sum(exp(self))) without overflow."),
    });

}  // namespace
}  // namespace lohe::ops
