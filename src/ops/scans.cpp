#include "backend/cpu/scan.h"
#include "lohe/error.h"
#include "ops/indexing.h"
#include "ops/reductions.h"
#include "tensor/shape.h"

/// Running sums, products and extremes along a dim, differences, and integrals by the trapezoidal rule.
namespace lohe::ops {
namespace {

using ir::real;

/// A tensor's strides beside a dim that is scanned; 0-dim tensors are one line of one element.
int64_t bytes_at(const TensorImpl* t, int64_t dim) {
  return t == nullptr || t->dim() == 0 ? 0 : t->strides()[static_cast<size_t>(dim)] * t->itemsize();
}

/// Lines along `dim` of operands of one shape; null for those that a scan does not have.
backend::ScanLines scan_lines(int64_t dim, const std::array<const TensorImpl*, 4>& operands) {
  backend::ScanLines x;
  const TensorImpl& shape = *operands[2];
  x.length = shape.dim() == 0 ? 1 : shape.sizes()[static_cast<size_t>(dim)];
  const auto strides_at = [&](int64_t d) {
    std::array<int64_t, 4> strides{};
    for (size_t k = 0; k < 4; ++k) strides[k] = bytes_at(operands[k], d);
    return strides;
  };
  x.steps = strides_at(dim);
  for (int64_t d = 0; d < shape.dim(); ++d) {
    if (d != dim) x.lines.add(shape.sizes()[static_cast<size_t>(d)], strides_at(d));
  }
  for (size_t k = 0; k < 2; ++k) {
    if (operands[k] != nullptr) x.input[k] = operands[k]->data();
    if (operands[k + 2] != nullptr) x.output[k] = operands[k + 2]->data();
  }
  return x;
}

/// Small integers give int64; `dtype` decides if it is given.
Dtype scan_dtype(Args a) {
  if (a[2].kind == Arg::kDtype) return a[2].dtype;
  const Dtype own = a[0].tensor->dtype();
  return is_integral(own, true) ? Dtype::kInt64 : own;
}

std::vector<Meta> scan_meta(std::string_view name, Args a) {
  Meta m;
  m.dtype = scan_dtype(a);
  wrap_dim(a[1].integer, a[0].tensor->dim());
  LOHE_CHECK_KIND(kNotImplemented, m.dtype != Dtype::kBool || a[0].tensor->dim() == 0, "\"", name,
                  "_out_cpu\" not implemented for 'Bool'; ask for another dtype");
  m.sizes = a[0].tensor->size_dims();
  return {m};
}

void run_sums(Args a, Results& r, bool reverse, void (*scan)(const backend::ScanLines&, Dtype)) {
  const int64_t dim = wrap_dim(a[1].integer, a[0].tensor->dim());
  const Dtype dtype = r[0]->dtype();
  const NoGrad guard;
  const TensorPtr self = to_dtype(TensorPtr(a[0].tensor), dtype);
  if (self->dim() == 0) {
    static const OpRef copy("copy_");
    copy(r[0], self);
    return;
  }
  backend::ScanLines x = scan_lines(dim, {self.get(), nullptr, r[0].get(), nullptr});
  x.reverse = reverse;
  scan(x, dtype);
}

TensorPtr plain_conj(const TensorPtr& t) {
  static const OpRef conj("conj_physical");
  return is_complex(t->dtype()) ? conj(t) : t;
}

/// Along `dim`: result[i] = t[i - 1] (`forward`) or t[i + 1], and `fill` where there is no such element.
TensorPtr shifted(const TensorPtr& t, int64_t dim, bool forward, double fill) {
  static const OpRef cat("cat"), narrow("narrow"), full("full");
  if (t->dim() == 0) return full(Dims{}, fill, t->dtype());
  const auto d = static_cast<size_t>(dim);
  const int64_t n = t->sizes()[d];
  if (n == 0) return t;
  Dims edge = t->size_dims();
  edge[d] = 1;
  const TensorPtr end = full(edge, fill, t->dtype()), kept = narrow(t, dim, int64_t{forward ? 0 : 1}, n - 1);
  TensorImpl* parts[2] = {forward ? end.get() : kept.get(), forward ? kept.get() : end.get()};
  return cat(std::span<TensorImpl* const>(parts), dim);
}

TensorPtr recurrence(const TensorPtr& factor, const TensorPtr& term, int64_t dim, bool reverse) {
  static const OpRef row("_linear_recurrence");
  return row(factor, term, dim, reverse);
}

int64_t dim_of(Backward& b, int param) {
  return wrap_dim(b.arg(param).integer, static_cast<int64_t>(b.meta(0).sizes.size()));
}

/// Of y_i = x_0 ... x_i: the product before each factor times what the factors after it make of the
/// cotangents. No division, so that zeros need no care and it can be differentiated again.
void product_gradient(Backward& b) {
  static const OpRef cumprod("cumprod"), mul("mul");
  if (!b.needs(0)) return;
  const int64_t dim = dim_of(b, 1);
  const TensorPtr x = b.tensor(0), g = to_dtype(b.grad(), x->dtype());
  const TensorPtr before = shifted(cumprod(x, dim), dim, true, 1);
  const TensorPtr after = recurrence(plain_conj(shifted(x, dim, false, 0)), g, dim, true);
  b.set(0, mul(plain_conj(before), after));
}

void recurrence_gradient(Backward& b) {
  static const OpRef mul("mul");
  const int64_t dim = dim_of(b, 2);
  const bool reverse = b.arg(3).integer != 0;
  const TensorPtr factor = b.tensor(0), result = b.result();
  const TensorPtr g = recurrence(plain_conj(shifted(factor, dim, reverse, 0)), b.grad(), dim, !reverse);
  if (b.needs(0)) b.set(0, mul(g, plain_conj(shifted(result, dim, !reverse, 0))));
  if (b.needs(1)) b.set(1, g);
}

Value is_minus_infinity(Value x) { return (is_complex(x.dtype()) ? real(x) : x) == -__builtin_inf(); }

/// The running maximum M of the real part is taken out, so that the sum s_i = s_(i-1) exp(M_(i-1) - M_i) +
/// exp(x_i - M_i) cannot overflow; the result is M + log(s), of complex numbers on the branch next to the
/// larger addend.
void run_log_sums(Args a, Results& r) {
  static const OpRef extreme("cummax"), decay("_log_decay"), weight("_log_weight"), total("_log_total"),
      copy("copy_"), real("real"), empty_like("empty_like");
  const NoGrad guard;
  const Dtype dtype = a[0].tensor->dtype();
  const int64_t dim = wrap_dim(a[1].integer, a[0].tensor->dim());
  const bool half = dtype == Dtype::kFloat16 || dtype == Dtype::kBFloat16, complex = is_complex(dtype);
  const Dtype wide = complex ? Dtype::kComplex128 : half ? Dtype::kFloat32 : Dtype::kFloat64;
  const TensorPtr x = to_dtype(TensorPtr(a[0].tensor), wide);
  const TensorPtr highest = extreme(complex ? real(x) : x, dim);
  const TensorPtr factor = to_dtype(decay(shifted(highest, dim, true, -__builtin_inf()), highest), wide);
  TensorPtr result = total(highest, recurrence(factor, weight(x, highest), dim, false));
  if (complex) {
    const TensorPtr principal = result;
    result = empty_like(principal);
    backend::continue_branch(scan_lines(dim, {x.get(), principal.get(), result.get(), nullptr}), wide);
  }
  copy(r[0], result);
}

/// With y the result: sum over i >= j of g_i exp(x_j - y_i). y of real numbers does not fall, so that no
/// factor is above 1.
void log_sums_gradient(Backward& b) {
  static const OpRef decay("_log_decay"), weight("_log_weight"), mul("mul");
  if (!b.needs(0)) return;
  const int64_t dim = dim_of(b, 1);
  const TensorPtr y = b.result();
  const TensorPtr reach = recurrence(plain_conj(decay(y, shifted(y, dim, false, 0))), b.grad(), dim, true);
  b.set(0, mul(reach, plain_conj(weight(b.tensor(0), y))));
}

void run_extreme(Args a, Results& r, bool largest) {
  const TensorImpl& self = *a[0].tensor;
  const int64_t dim = wrap_dim(a[1].integer, self.dim());
  backend::running_extreme(scan_lines(dim, {&self, nullptr, r[0].get(), r[1].get()}), self.dtype(), largest);
}

std::vector<Meta> extreme_meta(std::string_view name, Args a) {
  const TensorImpl& self = *a[0].tensor;
  wrap_dim(a[1].integer, self.dim());
  LOHE_CHECK_KIND(kNotImplemented, !is_complex(self.dtype()), "\"", name, "_cpu\" not implemented for '",
                  type_word(self.dtype()), "'");
  Meta values, indices;
  values.dtype = a[0].tensor->dtype();
  indices.dtype = Dtype::kInt64;
  values.sizes = indices.sizes = a[0].tensor->size_dims();
  return {values, indices};
}

void extreme_gradient(Backward& b) {
  if (!b.needs(0) || !b.grad()) return;
  if (b.meta(0).sizes.empty()) {
    b.set(0, b.grad());
    return;
  }
  b.set(0, scatter_to(b.grad(), b.result(1), dim_of(b, 1), b.meta(0)));
}

// --- differences and integrals

/// t[begin:end] along dim; a negative end counts from the back.
TensorPtr part(const TensorPtr& t, int64_t dim, int64_t begin, int64_t end) {
  static const OpRef slice("slice.Tensor");
  return slice(t, dim, begin, end);
}

void check_joined(const TensorImpl& self, const Arg& other, int64_t dim) {
  if (other.none()) return;
  LOHE_CHECK(other.tensor->dim() == self.dim(),
             "diff expects prepend or append to be the same dimension as input: got ", other.tensor->dim(),
             " dims, expected ", self.dim());
  for (int64_t d = 0; d < self.dim(); ++d) {
    const auto k = static_cast<size_t>(d);
    LOHE_CHECK(
        d == dim || other.tensor->sizes()[k] == self.sizes()[k],
        "diff expects the shape of tensor to prepend or append to match that of input except along the "
        "differencing dimension; input.size(",
        d, ") = ", self.sizes()[k], ", but got tensor.size(", d, ") = ", other.tensor->sizes()[k]);
  }
}

Results differences(Args a) {
  static const OpRef cat("cat"), sub("sub"), differ("logical_xor"), clone("clone");
  TensorImpl& self = *a[0].tensor;
  int64_t order = a[1].integer;
  LOHE_CHECK(self.dim() >= 1, "diff expects input to be at least one-dimensional");
  const int64_t dim = wrap_dim(a[2].integer, self.dim());
  check_joined(self, a[3], dim);
  check_joined(self, a[4], dim);
  LOHE_CHECK(order >= 0, "order must be non-negative but got ", order);
  if (order == 0) return clone(&self);
  TensorPtr t(&self);
  if (!a[3].none() || !a[4].none()) {
    SmallVector<TensorImpl*, 3> parts;
    if (!a[3].none()) parts.push_back(a[3].tensor);
    parts.push_back(&self);
    if (!a[4].none()) parts.push_back(a[4].tensor);
    t = cat(std::span<TensorImpl* const>(parts.data(), parts.size()), dim);
  }
  const int64_t length = t->sizes()[static_cast<size_t>(dim)];
  if (length == 0) return clone(t);
  order = std::min(order, length);
  for (int64_t k = 0; k < order; ++k) {
    const int64_t n = t->sizes()[static_cast<size_t>(dim)];
    const TensorPtr high = part(t, dim, 1, n), low = part(t, dim, 0, n - 1);
    t = self.dtype() == Dtype::kBool ? differ(high, low) : sub(high, low);
  }
  return t;
}

void check_real_step(std::string_view name, const TensorImpl& y, const Arg& step) {
  LOHE_CHECK(y.dtype() != Dtype::kBool, name, ": received a bool input for `y`, but bool is not supported");
  if (step.kind == Arg::kTensor) {
    LOHE_CHECK(step.tensor->dtype() != Dtype::kBool, name,
               ": received a bool input for `x`, but bool is not supported");
  } else {
    LOHE_CHECK(step.kind != Arg::kComplex && step.kind != Arg::kBool, name,
               ": Currently, we only support dx as a real number.");
  }
}

/// Distances between the points `x`, one dim (along `dim` of y) or broadcast to y.
TensorPtr distances(std::string_view name, const TensorImpl& y, TensorImpl* x, int64_t dim) {
  static const OpRef view("reshape"), sub("sub");
  TensorPtr points(x);
  if (x->dim() == 1) {
    LOHE_CHECK(x->sizes()[0] == y.sizes()[static_cast<size_t>(dim)], name,
               ": There must be one `x` value for each sample point: got ", x->sizes()[0], ", expected ",
               y.sizes()[static_cast<size_t>(dim)]);
    Dims sizes(static_cast<size_t>(y.dim()), 1);
    sizes[static_cast<size_t>(dim)] = x->sizes()[0];
    points = view(x, sizes);
  } else if (x->dim() < y.dim()) {
    Dims sizes(static_cast<size_t>(y.dim() - x->dim()), 1);
    for (const int64_t s : x->sizes()) sizes.push_back(s);
    points = view(x, sizes);
  }
  const int64_t n = points->sizes()[static_cast<size_t>(dim)];
  return sub(part(points, dim, 1, n), part(points, dim, 0, -1));
}

/// y[i] + y[i + 1]
TensorPtr neighbour_sums(TensorImpl* y, int64_t dim) {
  static const OpRef add("add");
  const TensorPtr t(y);
  return add(part(t, dim, 0, -1), part(t, dim, 1, t->sizes()[static_cast<size_t>(dim)]));
}

Results trapezoid(Args a) {
  static const OpRef mul("mul"), sum("sum.dim_IntList"), div("div"), zeros("zeros"), select("select.int"),
      sub("sub"), add("add");
  TensorImpl& y = *a[0].tensor;
  const bool points = a[1].kind == Arg::kTensor;
  const int64_t dim = wrap_dim(a[2].integer, y.dim());
  check_real_step("trapezoid", y, a[1]);
  LOHE_CHECK_INDEX(y.dim() > 0, "trapezoid: expected y with at least one dim, got a 0-dim tensor");
  if (y.sizes()[static_cast<size_t>(dim)] == 0) {
    Dims sizes;
    for (int64_t d = 0; d < y.dim(); ++d) {
      if (d != dim) sizes.push_back(y.sizes()[static_cast<size_t>(d)]);
    }
    return zeros(sizes, y.dtype());
  }
  const Dims over{dim};
  if (points)
    return div(sum(mul(neighbour_sums(&y, dim), distances("trapezoid", y, a[1].tensor, dim)), over), 2.0);
  const TensorPtr ends = add(select(&y, dim, int64_t{0}), select(&y, dim, int64_t{-1}));
  return mul(sub(sum(&y, over), mul(ends, 0.5)), a[1].scalar().to_double());
}

Results cumulative_trapezoid(Args a) {
  static const OpRef mul("mul"), div("div"), cumsum("cumsum");
  TensorImpl& y = *a[0].tensor;
  const int64_t dim = wrap_dim(a[2].integer, y.dim());
  check_real_step("cumulative_trapezoid", y, a[1]);
  LOHE_CHECK_INDEX(y.dim() > 0, "cumulative_trapezoid: expected y with at least one dim, got a 0-dim tensor");
  const TensorPtr sums = neighbour_sums(&y, dim);
  const TensorPtr areas = a[1].kind == Arg::kTensor
                              ? mul(sums, distances("cumulative_trapezoid", y, a[1].tensor, dim))
                              : mul(sums, a[1].scalar().to_double());
  return div(cumsum(areas, dim), 2.0);
}

const OpFamily scans(
    "scans",
    {
        primitive(
            "cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor",
            [](Args a) { return scan_meta("cumsum", a); },
            [](Args a, Results& r) { run_sums(a, r, false, backend::running_sum); })
            .inplace()
            .out(OutDtype::kGiven)
            .gradient_reads({})
            .grad([](Backward& b) {
              static const OpRef back("_reverse_cumsum");
              if (b.needs(0)) b.set(0, back(to_dtype(b.grad(), b.meta(0).dtype), b.arg(1)));
            })
            .describe("Running sum along dim."),
        primitive(
            "_reverse_cumsum(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor",
            [](Args a) { return scan_meta("cumsum", a); },
            [](Args a, Results& r) { run_sums(a, r, true, backend::running_sum); })
            .function_only()
            .in("_C")
            .gradient_reads({})
            .grad([](Backward& b) {
              static const OpRef row("cumsum");
              if (b.needs(0)) b.set(0, row(to_dtype(b.grad(), b.meta(0).dtype), b.arg(1)));
            })
            .describe("Running sum along dim from its end."),
        primitive(
            "cumprod(Tensor self, int dim, *, ScalarType? dtype=None) -> Tensor",
            [](Args a) { return scan_meta("cumprod", a); },
            [](Args a, Results& r) { run_sums(a, r, false, backend::running_product); })
            .inplace()
            .out(OutDtype::kGiven)
            .gradient_reads({"self"})
            .grad(product_gradient)
            .describe("Running product along dim."),
        primitive(
            "_linear_recurrence(Tensor factor, Tensor term, int dim, bool reverse=False) -> Tensor",
            [](Args a) {
              Meta m;
              m.dtype = a[1].tensor->dtype();
              m.sizes = a[1].tensor->size_dims();
              return std::vector<Meta>{m};
            },
            [](Args a, Results& r) {
              const TensorImpl &factor = *a[0].tensor, &term = *a[1].tensor;
              LOHE_CHECK(factor.dtype() == term.dtype() && factor.size_dims() == term.size_dims(),
                         "_linear_recurrence: factor and term must have one shape and dtype");
              LOHE_CHECK_KIND(kNotImplemented, is_differentiable(term.dtype()),
                              "_linear_recurrence is not implemented for '", type_word(term.dtype()), "'");
              const int64_t dim = wrap_dim(a[2].integer, term.dim());
              backend::ScanLines x = scan_lines(dim, {&factor, &term, r[0].get(), nullptr});
              x.reverse = a[3].integer != 0;
              backend::linear_recurrence(x, term.dtype());
            })
            .function_only()
            .in("_C")
            .gradient_reads({"factor", "result"})
            .grad(recurrence_gradient)
            .describe("result[i] = factor[i] * result[i - 1] + term[i] along dim, beginning with term[0]."),
        primitive(
            "cummax(Tensor self, int dim) -> (Tensor values, Tensor indices)",
            [](Args a) { return extreme_meta("cummax", a); },
            [](Args a, Results& r) { run_extreme(a, r, true); })
            .exact_out()
            .gradient_reads({"result1"})
            .grad(extreme_gradient)
            .describe("The largest element so far along dim and its position, the last of equal ones."),
        primitive(
            "cummin(Tensor self, int dim) -> (Tensor values, Tensor indices)",
            [](Args a) { return extreme_meta("cummin", a); },
            [](Args a, Results& r) { run_extreme(a, r, false); })
            .exact_out()
            .gradient_reads({"result1"})
            .grad(extreme_gradient)
            .describe("The smallest element so far along dim and its position, the last of equal ones."),
        primitive(
            "logcumsumexp(Tensor self, int dim) -> Tensor",
            [](Args a) {
              Meta m;
              m.dtype = a[0].tensor->dtype();
              m.sizes = a[0].tensor->size_dims();
              wrap_dim(a[1].integer, a[0].tensor->dim());
              LOHE_CHECK_KIND(kNotImplemented, is_differentiable(m.dtype),
                              "\"logcumsumexp_out_cpu\" not implemented for '", type_word(m.dtype),
                              "'; convert to a floating dtype");
              return std::vector<Meta>{m};
            },
            run_log_sums)
            .exact_out()
            .gradient_reads({"self", "result"})
            .grad(log_sums_gradient)
            .describe("log(cumsum(exp(self))) along dim without overflow."),
        pointwise("_log_decay(Tensor before, Tensor now) -> Tensor",
                  [](Value before, Value now) {
                    const Value f = exp(select(before == now, before.literal(0), before - now));
                    return select(is_minus_infinity(before), before.literal(0), f);
                  })
            .dtypes_are(kFloatingOrComplex)
            .function_only()
            .in("_C")
            .describe("exp(before - now): what a sum of exponentials keeps when its scale grows."),
        pointwise("_log_weight(Tensor self, Tensor scale) -> Tensor",
                  [](Value x, Value scale) {
                    const Value e = exp(select(x == scale, x.literal(0), x - scale));
                    return select(is_minus_infinity(x), x.literal(0), e);
                  })
            .dtypes_are(kFloatingOrComplex)
            .function_only()
            .in("_C")
            .describe("exp(self - scale), 1 where both are the same infinity and 0 for exp(-inf)."),
        pointwise("_log_total(Tensor scale, Tensor sum) -> Tensor",
                  [](Value scale, Value sum) { return log(sum) + scale; })
            .dtypes_are(kFloatingOrComplex)
            .function_only()
            .in("_C")
            .describe("log(sum) + scale."),

        function(
            "diff(Tensor self, int n=1, int dim=-1, Tensor? prepend=None, Tensor? append=None) -> Tensor",
            differences)
            .out()
            .describe("The n-th difference of neighbours along dim; of bool, whether they differ."),
        function("trapezoid.x(Tensor y, Tensor x, *, int dim=-1) -> Tensor", trapezoid)
            .function_only()
            .describe("The integral of y over the points x by the trapezoidal rule."),
        function("trapezoid.dx(Tensor y, *, Scalar dx=1, int dim=-1) -> Tensor", trapezoid)
            .function_only()
            .describe("The integral of y over points that lie dx apart by the trapezoidal rule."),
        alias("trapz", "trapezoid"),
        function("cumulative_trapezoid.x(Tensor y, Tensor x, *, int dim=-1) -> Tensor", cumulative_trapezoid)
            .function_only()
            .describe("Running integral of y over the points x by the trapezoidal rule."),
        function("cumulative_trapezoid.dx(Tensor y, *, Scalar dx=1, int dim=-1) -> Tensor",
                 cumulative_trapezoid)
            .function_only()
            .describe("Running integral of y over points that lie dx apart by the trapezoidal rule."),
    });

}  // namespace
}  // namespace lohe::ops
