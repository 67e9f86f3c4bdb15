#include <algorithm>
#include <cmath>
#include <complex>

#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// Numbers in equal steps.
namespace lohe::ops {
namespace {

using namespace ir;

Dtype dtype_of(const Arg& a, Dtype otherwise) { return a.kind == Arg::kDtype ? a.dtype : otherwise; }

TensorPtr empty_vector(int64_t n, Dtype dtype) {
  static const OpRef empty("empty");
  return empty(Dims{n}, dtype);
}

/// int64 where every bound is an integer, else the default dtype.
Dtype range_dtype(const Arg& dtype, std::initializer_list<Arg> bounds) {
  bool integral = true;
  for (const Arg& b : bounds) integral = integral && b.scalar().is_integral();
  return dtype_of(dtype, integral ? kInt64 : default_dtype());
}

void check_bounds(const Scalar& start, const Scalar& end, const Scalar& step, const char* name) {
  LOHE_CHECK(!start.is_complex() && !end.is_complex() && !step.is_complex(), name,
             ": the bounds must be real numbers");
  const double a = start.to_double(), b = end.to_double(), s = step.to_double();
  LOHE_CHECK(s != 0, "step must be nonzero");
  LOHE_CHECK(std::isfinite(a) && std::isfinite(b), "unsupported range: ", a, " -> ", b);
  LOHE_CHECK((s > 0 && b >= a) || (s < 0 && b <= a),
             "upper bound and lower bound inconsistent with step sign");
}

/// start + i step: integers exactly in int64, others in float64.
void fill_steps(const TensorPtr& t, const Scalar& start, const Scalar& step, bool integral) {
  static const OpRef integers("_fill_steps_.int"), numbers("_fill_steps_.float");
  const NoGrad no_grad;
  if (t->numel() == 0) return;
  if (integral)
    integers(t, start.to_int(), step.to_int(), kInt64);
  else
    numbers(t, start.to_double(), step.to_double(), kFloat64);
}

/// [start, end) with the end left out (arange) or taken in (range).
Results steps(const Arg& from, const Arg& to, const Arg& by, const Arg& dtype_arg, bool closed) {
  const Scalar start = from.scalar(), end = to.scalar(), step = by.scalar();
  const char* name = closed ? "range" : "arange";
  check_bounds(start, end, step, name);
  const Dtype dtype = closed ? dtype_of(dtype_arg, default_dtype()) : range_dtype(dtype_arg, {from, to, by});
  LOHE_CHECK_KIND(kNotImplemented, dtype != kBool && !is_complex(dtype), "\"", name,
                  "\" not implemented for '", dtype, "'");
  const bool integral = is_integral(dtype, false);
  int64_t n = 0;
  if (dtype == kInt64) {
    LOHE_CHECK_VALUE(step.to_int() != 0, "step must be nonzero");
    const int64_t a = start.to_int(), b = end.to_int(), s = step.to_int();
    const auto distance = static_cast<__int128>(b) - a;
    const auto count = closed ? distance / s + 1 : (distance + s - (s > 0 ? 1 : -1)) / s;
    LOHE_CHECK(count <= INT64_MAX, "invalid size, possible overflow?");
    n = static_cast<int64_t>(count);
  } else {
    const double count = (end.to_double() - start.to_double()) / step.to_double();
    const double size = closed ? std::floor(count) + 1 : std::ceil(count);
    LOHE_CHECK(size >= 0 && size <= 9.2e18, "invalid size, possible overflow?");
    n = static_cast<int64_t>(size);
  }
  TensorPtr t = empty_vector(n, dtype);
  fill_steps(t, start, step, integral);
  return t;
}

/// A bound given as a 0-dim tensor.
Scalar number_in(TensorImpl* t, const char* name) {
  static const OpRef to("to.dtype");
  LOHE_CHECK(t->dim() == 0, name, " only supports 0-dimensional start and end tensors, but got one with ",
             t->dim(), " dimension(s).");
  const NoGrad no_grad;
  if (is_complex(t->dtype())) {
    const auto* p = reinterpret_cast<const std::complex<double>*>(to(t, kComplex128)->data());
    return Scalar(*p);
  }
  if (is_floating(t->dtype())) {
    const TensorPtr d = to(t, kFloat64);
    return Scalar(*reinterpret_cast<const double*>(d->data()));
  }
  const TensorPtr i = to(t, kInt64);
  return Scalar(*reinterpret_cast<const int64_t*>(i->data()));
}
Scalar bound(const Arg& a, const char* name) {
  return a.kind == Arg::kTensor ? number_in(a.tensor, name) : a.scalar();
}

Dtype spaced_dtype(const Arg& dtype, const Scalar& start, const Scalar& end, const char* name) {
  const bool complex = start.is_complex() || end.is_complex();
  const Dtype d = dtype_of(dtype, complex ? to_complex(default_dtype()) : default_dtype());
  LOHE_CHECK(!complex || is_complex(d), name, "(): inferred dtype ", to_complex(default_dtype()),
             " can't be safely cast to passed dtype ", d);
  return d;
}

/// `steps` numbers from start to end, both taken in; the second half counts back from the end, so that both
/// are exact.
TensorPtr spaced(const Scalar& start, const Scalar& end, int64_t steps, Dtype dtype) {
  static const OpRef numbers("_fill_spaced_.float"), complexes("_fill_spaced_.complex"), fill("fill_");
  LOHE_CHECK(steps >= 0, "number of steps must be non-negative");
  TensorPtr t = empty_vector(steps, dtype);
  const NoGrad no_grad;
  if (steps == 0) return t;
  if (steps == 1) {
    fill(t, Arg(start));
  } else if (is_complex(dtype)) {
    const std::complex<double> a = start.to_complex(), b = end.to_complex();
    complexes(t, Arg(Scalar(a)), Arg(Scalar(b)), Arg(Scalar((b - a) / static_cast<double>(steps - 1))),
              steps);
  } else {
    double a = start.to_double(), b = end.to_double();
    if (is_integral(dtype, false)) {
      a = std::trunc(a);
      b = std::trunc(b);
    }
    double step = (b - a) / static_cast<double>(steps - 1);
    const bool narrow = dtype == kFloat32 || is_half(dtype);
    if (narrow) step = (static_cast<float>(b) - static_cast<float>(a)) / static_cast<float>(steps - 1);
    if (!is_integral(dtype, true)) {
      numbers(t, a, b, step, steps, narrow ? kFloat32 : kFloat64);
    } else {
      static const OpRef copy("copy_");
      const TensorPtr fractions = empty_vector(steps, kFloat64);
      numbers(fractions, a, b, step, steps, kFloat64);
      copy(t, fractions);
    }
  }
  return t;
}

Results spaced_row(Args a) {
  const Scalar start = bound(a[0], "linspace"), end = bound(a[1], "linspace");
  return spaced(start, end, a[2].integer, spaced_dtype(a[3], start, end, "torch.linspace"));
}

Results powers_row(Args a) {
  const Scalar start = bound(a[0], "logspace"), end = bound(a[1], "logspace");
  const Dtype dtype = spaced_dtype(a[4], start, end, "torch.logspace");
  const int64_t steps = a[2].integer;
  const double base = a[3].kind == Arg::kFloat ? a[3].real : a[3].scalar().to_double();
  LOHE_CHECK(steps >= 0, "number of steps must be non-negative");
  const NoGrad no_grad;
  // Powers that are integers go from one integer exponent to another.
  const auto exponent = [&](const Scalar& n) {
    return is_integral(dtype, false) ? Scalar(std::trunc(n.to_double())) : n;
  };
  const TensorPtr exponents =
      spaced(exponent(start), exponent(end), steps, is_complex(dtype) ? kComplex128 : kFloat64);
  TensorPtr t = empty_vector(steps, dtype);
  if (steps > 0) {
    static const OpRef pow("pow"), copy("copy_");
    copy(t, pow(base, exponents));
  }
  return t;
}

const OpFamily sequences(
    "sequences",
    {
        pointwise("_fill_steps_.int(Tensor(a!) self, int start, int step, ScalarType dtype) -> Tensor(a!)",
                  [](Value x, Value start, Value step) {
                    return start + step * x.graph()->iota(kOuter, kInt64);
                  })
            .promote(Promotion::kFirst)
            .runtime({"start", "step"})
            .in("_C")
            .not_differentiable()
            .describe("start + step i at element i of a contiguous tensor, computed in int64."),
        pointwise(
            "_fill_steps_.float(Tensor(a!) self, float start, float step, ScalarType dtype) -> Tensor(a!)",
            [](Value x, Value start, Value step) { return start + step * x.graph()->iota(kOuter, kFloat64); })
            .promote(Promotion::kFirst)
            .runtime({"start", "step"})
            .in("_C")
            .not_differentiable()
            .describe("start + step i at element i of a contiguous tensor, computed in float64."),
        pointwise(
            "_fill_spaced_.float(Tensor(a!) self, float start, float end, float step, int steps, ScalarType dtype) -> Tensor(a!)",
            [](Value x, Value start, Value end, Value step, Value steps) {
              const Value i = x.graph()->iota(kOuter, kInt64);
              const Dtype d = x.dtype();
              const Value up = cast(start, d) + cast(step, d) * cast(i, d),
                          down = cast(end, d) - cast(step, d) * cast(steps - 1 - i, d);
              return select(i < shift_right(steps, steps.literal(1)), up, down);
            })
            .promote(Promotion::kFirst)
            .runtime({"start", "end", "step", "steps"})
            .in("_C")
            .not_differentiable()
            .describe("Equal steps from start to end over a contiguous tensor."),
        pointwise(
            "_fill_spaced_.complex(Tensor(a!) self, Scalar start, Scalar end, Scalar step, int steps) -> Tensor(a!)",
            [](Value x, Value start, Value end, Value step, Value steps) {
              const Value i = x.graph()->iota(kOuter, kInt64);
              const Dtype d = x.dtype();
              return select(i < shift_right(steps, steps.literal(1)), start + step * cast(i, d),
                            end - step * cast(steps - 1 - i, d));
            })
            .promote(Promotion::kFirst)
            .runtime({"steps"})
            .in("_C")
            .not_differentiable()
            .describe("Equal steps between complex numbers over a contiguous tensor."),
        function(
            "arange(Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            [](Args a) { return steps(Arg(int64_t{0}), a[0], Arg(int64_t{1}), a[1], false); })
            .function_only()
            .out()
            .describe("0, 1, ... below end."),
        function(
            "arange.start(Scalar start, Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            [](Args a) { return steps(a[0], a[1], Arg(int64_t{1}), a[2], false); })
            .function_only()
            .out()
            .describe("start, start + 1, ... below end."),
        function(
            "arange.start_step(Scalar start, Scalar end, Scalar step=1, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            [](Args a) { return steps(a[0], a[1], a[2], a[3], false); })
            .function_only()
            .out()
            .describe("start, start + step, ... before end; int64 where all three are integers."),
        function(
            "range(Scalar start, Scalar end, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            [](Args a) { return steps(a[0], a[1], Arg(int64_t{1}), a[2], true); })
            .function_only()
            .describe("start, start + 1, ... up to and with end."),
        function(
            "range.step(Scalar start, Scalar end, Scalar step=1, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            [](Args a) { return steps(a[0], a[1], a[2], a[3], true); })
            .function_only()
            .describe("start, start + step, ... up to and with end."),
        function(
            "linspace(Scalar start, Scalar end, int steps, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            spaced_row)
            .function_only()
            .out()
            .describe("`steps` numbers at equal distances from start to end."),
        function(
            "linspace.Tensor_Tensor(Tensor start, Tensor end, int steps, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            spaced_row)
            .function_only()
            .out()
            .describe("Bounds from 0-dim tensors."),
        function(
            "linspace.Tensor_Scalar(Tensor start, Scalar end, int steps, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            spaced_row)
            .function_only()
            .out()
            .describe("Bounds from 0-dim tensors."),
        function(
            "linspace.Scalar_Tensor(Scalar start, Tensor end, int steps, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            spaced_row)
            .function_only()
            .out()
            .describe("Bounds from 0-dim tensors."),
        function(
            "logspace(Scalar start, Scalar end, int steps, float base=10.0, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            powers_row)
            .function_only()
            .out()
            .describe("Powers of base: their exponents as linspace."),
        function(
            "logspace.Tensor_Tensor(Tensor start, Tensor end, int steps, float base=10.0, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            powers_row)
            .function_only()
            .out()
            .describe("Bounds from 0-dim tensors."),
        function(
            "logspace.Tensor_Scalar(Tensor start, Scalar end, int steps, float base=10.0, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            powers_row)
            .function_only()
            .out()
            .describe("Bounds from 0-dim tensors."),
        function(
            "logspace.Scalar_Tensor(Scalar start, Tensor end, int steps, float base=10.0, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            powers_row)
            .function_only()
            .out()
            .describe("Bounds from 0-dim tensors."),
    });

}  // namespace
}  // namespace lohe::ops
