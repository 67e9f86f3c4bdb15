#include <array>
#include <cmath>
#include <numbers>

#include "lohe/error.h"
#include "ops/call.h"

/// Activation functions. Rows in "nn" show in torch.nn.functional only.
namespace lohe::ops {
namespace {

using namespace ir;

Value zero(Value like) { return like.literal(0); }

template <class F>
OpDef activation(std::string_view schema, F f) {
  return pointwise(schema, f).dtypes_are(kFloating);
}

Dtype dtype_of(const Arg& a) { return a.kind == Arg::kTensor ? a.tensor->dtype() : a.scalar().dtype(); }

void no_bool(const OpDef& op, Args args) {
  LOHE_CHECK(dtype_of(args[0]) != Dtype::kBool, "Boolean inputs not supported for ", op.schema.base);
}

void real_bounds(const OpDef& op, Args a) {
  LOHE_CHECK(dtype_of(a[0]) != Dtype::kBool, "Bool inputs not supported for ", op.schema.base);
}

void known_approximation(const OpDef&, Args a) {
  LOHE_CHECK(a[1].str() == "none" || a[1].str() == "tanh",
             "approximate argument must be either none or tanh.");
}

void shrinks(const OpDef&, Args a) {
  LOHE_CHECK(a[1].scalar().to_double() >= 0, "lambda must be greater or equal to 0, but found to be ",
             a[1].scalar().to_double(), ".");
}

void divisible_alpha(const OpDef&, Args a) {
  LOHE_CHECK(a[1].scalar().to_double() != 0, "ZeroDivisionError: alpha cannot be 0 for CELU");
}

/// Hendrycks and Gimpel, arXiv:1606.08415.
Value gelu(Value x, Str approximate) {
  if (approximate == "tanh") {
    constexpr double kScale = std::numbers::sqrt2 * std::numbers::inv_sqrtpi;
    return 0.5 * x * (1 + tanh(kScale * (x + 0.044715 * (x * x * x))));
  }
  return 0.5 * x * (1 + erf(x * (std::numbers::sqrt2 / 2)));
}

Value gelu_gradient(Value g, Value, Value x, Str approximate) {
  if (approximate != "tanh") return g * gelu_slope(x);
  constexpr double kScale = std::numbers::sqrt2 * std::numbers::inv_sqrtpi;
  const Value square = x * x;
  const Value t = tanh(kScale * (x + 0.044715 * (x * square)));
  const Value inner = kScale * (1 + (3 * 0.044715) * square);
  return g * (0.5 * (1 + t) + 0.5 * x * ((1 - t * t) * inner));
}

/// Constants of Klambauer et al., arXiv:1706.02515.
constexpr double kSeluAlpha = 1.6732632423543772848170429916717,
                 kSeluScale = 1.0507009873554804934193349852946;

/// 0 where both scales of elu are one, which is nearly always: then nothing is multiplied by them, and its
/// exponential is that of others of the same tensor.
uint8_t has_elu_scales(Args a) {
  const auto is_one = [](const Arg& x) {
    return x.is_number() && x.kind != Arg::kComplex && x.scalar().to_double() == 1;
  };
  return is_one(a[2]) && is_one(a[3]) ? 0 : 1;
}

Value elu(GraphCall& c) {
  const Value x = c.nodes[0], alpha = c.nodes[1], scale = c.nodes[2], input_scale = c.nodes[3];
  if (has_elu_scales(c.attributes) == 0) return select(x <= 0.0, expm1(x) * alpha, x);
  return select(x <= 0.0, expm1(x * input_scale) * (alpha * scale), x * scale);
}

Value elu_gradient(GraphCall& c) {
  const Value x = c.nodes[0], alpha = c.nodes[1], scale = c.nodes[2], input_scale = c.nodes[3],
              g = c.nodes[4];
  if (has_elu_scales(c.attributes) == 0) return select(x <= 0.0, g * alpha * exp(x), g);
  return select(x <= 0.0, g * input_scale * (alpha * scale) * exp(x * input_scale), g * scale);
}

Value selu(Value x) { return select(x <= 0.0, expm1(x) * kSeluAlpha, x) * kSeluScale; }

Value bounded(Value x, Value low, Value high) { return minimum(high, maximum(low, x)); }

/// Between -lambd and lambd: 0.
template <class T>
Value beyond(Value x, Value lambd, T value) {
  return select((x >= -lambd) & (x <= lambd), zero(x), value);
}

TensorPtr narrowed(TensorImpl* x, int64_t dim, int64_t start, int64_t length) {
  static const OpRef narrow("narrow");
  return narrow(x, dim, start, length);
}

Results glu(Args a) {
  static const OpRef gated("_glu");
  TensorImpl* x = a[0].tensor;
  LOHE_CHECK(x->dim() > 0, "glu does not support 0-dimensional tensors");
  const int64_t dim = a[1].integer < 0 ? a[1].integer + x->dim() : a[1].integer;
  LOHE_CHECK_INDEX(dim >= 0 && dim < x->dim(), "Dimension out of range (expected to be in range of [",
                   -x->dim(), ", ", x->dim() - 1, "], but got ", a[1].integer, ")");
  const int64_t size = x->sizes()[static_cast<size_t>(dim)];
  LOHE_CHECK(size % 2 == 0, "Halving dimension must be even, but dimension ", dim, " is size ", size);
  return Results(gated(narrowed(x, dim, 0, size / 2), narrowed(x, dim, size / 2, size / 2)));
}

Results prelu(Args a) {
  static const OpRef kernel("_prelu_kernel"), view("view");
  TensorImpl *x = a[0].tensor, *w = a[1].tensor;
  LOHE_CHECK(x->dtype() == w->dtype(), "prelu: Type promoting not supported. Got ", info(x->dtype()).name,
             " and ", info(w->dtype()).name);
  LOHE_CHECK(w->dim() <= 1,
             "prelu: Expected `weight` to be a scalar or 1D tensor, but got: ndim = ", w->dim());
  if (w->numel() == 1) return Results(kernel(x, view(w, Dims{})));
  LOHE_CHECK(x->dim() > 0, "Not allow zero-dim input tensor.");
  const int64_t channels = x->dim() > 1 ? x->sizes()[1] : 1;
  LOHE_CHECK(channels == w->numel(),
             "Mismatch of parameter numbers and input channel size. Found parameter numbers = ", w->numel(),
             " and channel size = ", channels, ".");
  Dims shape(static_cast<size_t>(x->dim()), 1);
  shape[1] = channels;
  static const OpRef reshape("reshape");
  return Results(kernel(x, reshape(w, shape)));
}

Results rrelu(Args a, dispatch::Form form) {
  static const OpRef leaky("leaky_relu"), kernel("_prelu_kernel"), empty("empty"), uniform("uniform_");
  const double low = a[1].scalar().to_double(), high = a[2].scalar().to_double();
  LOHE_CHECK(low <= high, "Lower bound should be less than or equal to the upper bound");
  if (a[3].integer == 0) {
    return dispatch::call(leaky.op(), std::array{a[0], Arg((low + high) / 2)}, form);
  }
  const TensorPtr slope = empty(a[0].tensor->sizes(), a[0].tensor->dtype());
  uniform(slope, low, high, a[4]);
  return dispatch::call(kernel.op(), std::array{a[0], Arg(slope)}, form);
}

const OpFamily activation_family(
    "activation",
    {
        pointwise("relu(Tensor self) -> Tensor", [](Value x) { return maximum(zero(x), x); })
            .dtypes_are(kReals)
            .checked(no_bool)
            .gradient_reads({"result"})
            .derivative([](Value g, Value y) { return select(y <= 0.0, zero(g), g); })
            .describe("self, but at least 0."),
        pointwise("relu6(Tensor self) -> Tensor", [](Value x) { return bounded(x, zero(x), x.literal(6)); })
            .dtypes_are(kReals)
            .checked(no_bool)
            .derivative([](Value g, Value, Value x) { return select((x <= 0.0) | (x >= 6.0), zero(g), g); })
            .in("nn")
            .inplace()
            .describe("self bounded by 0 and 6."),
        pointwise("hardtanh(Tensor self, Scalar min_val=-1, Scalar max_val=1) -> Tensor",
                  [](Value x, Value low, Value high) { return bounded(x, low, high); })
            .dtypes_are(kReals)
            .checked(real_bounds)
            .derivative([](Value g, Value, Value x, Value low, Value high) {
              return select((x <= low) | (x >= high), zero(g), g);
            })
            .in("nn")
            .inplace()
            .describe("self bounded by min_val and max_val."),
        pointwise("threshold(Tensor self, Scalar threshold, Scalar value) -> Tensor",
                  [](Value x, Value t, Value v) { return select(x <= t, v, x); })
            .dtypes_are(kReals)
            .derivative([](Value g, Value, Value x, Value t) { return select(x <= t, zero(g), g); })
            .describe("self where it is greater than threshold, else value."),
        activation("leaky_relu(Tensor self, Scalar negative_slope=0.01) -> Tensor",
                   [](Value x, Value slope) { return select(x > 0.0, x, x * slope); })
            .derivative([](Value g, Value, Value x, Value slope) { return select(x > 0.0, g, g * slope); })
            .in("nn")
            .inplace()
            .describe("self where positive, else negative_slope * self."),
        activation("elu(Tensor self, Scalar alpha=1, Scalar scale=1, Scalar input_scale=1) -> Tensor",
                   [](GraphCall& c) { return elu(c); })
            .varies_with(has_elu_scales)
            .derivative([](GraphCall& c) { return elu_gradient(c); })
            .in("nn")
            .inplace()
            .describe("scale * (self where positive, else alpha * (exp(input_scale * self) - 1))."),
        activation("selu(Tensor self) -> Tensor", [](Value x) { return selu(x); })
            .derivative([](Value g, Value, Value x) {
              return select(x <= 0.0, g * (kSeluAlpha * kSeluScale) * exp(x), g * kSeluScale);
            })
            .describe("The self-normalizing exponential linear unit."),
        activation("celu(Tensor self, Scalar alpha=1.0) -> Tensor",
                   [](Value x, Value alpha) { return select(x <= 0.0, alpha * expm1(x / alpha), x); })
            .checked(divisible_alpha)
            .derivative([](Value g, Value, Value x, Value alpha) {
              return select(x <= 0.0, g * exp(x / alpha), g);
            })
            .describe("self where positive, else alpha * (exp(self / alpha) - 1)."),
        activation("gelu(Tensor self, *, str approximate='none') -> Tensor",
                   [](Value x, Str approximate) { return gelu(x, approximate); })
            .derivative(gelu_gradient)
            .checked(known_approximation)
            .in("nn")
            .inplace()
            .describe("self * Phi(self), Phi the normal distribution function; 'tanh' approximates it."),
        pointwise("silu(Tensor self) -> Tensor", [](Value x) { return x * sigmoid(x); })
            .dtypes_are(kFloatingOrComplex)
            .derivative([](Value g, Value, Value x) {
              const Value s = sigmoid(x);
              return g * conj(s * (1 + x * (1 - s)));
            })
            .in("nn")
            .inplace()
            .describe("self * sigmoid(self)."),
        activation("mish(Tensor self) -> Tensor", [](Value x) { return x * tanh(log1p(exp(x))); })
            .derivative([](Value g, Value, Value x) {
              const Value t = tanh(log1p(exp(x))), s = sigmoid(x);
              return g * (t + x * s * (1 - t * t));
            })
            .in("nn")
            .inplace()
            .describe("self * tanh(softplus(self))."),
        activation("softplus(Tensor self, Scalar beta=1, Scalar threshold=20) -> Tensor",
                   [](Value x, Value beta, Value threshold) {
                     return select(x * beta > threshold, x, log1p(exp(x * beta)) / beta);
                   })
            .derivative([](Value g, Value, Value x, Value beta, Value threshold) {
              return select(x * beta > threshold, g, g * sigmoid(x * beta));
            })
            .in("nn")
            .describe("log(1 + exp(beta * self)) / beta; self where beta * self is above threshold."),
        activation("log_sigmoid(Tensor self) -> Tensor",
                   [](Value x) { return minimum(zero(x), x) - log1p(exp(-abs(x))); })
            .derivative([](Value g, Value, Value x) { return g * sigmoid(-x); })
            .in("nn")
            .describe("log(sigmoid(self)), without its loss of precision."),
        pointwise("softsign(Tensor self) -> Tensor", [](Value x) { return x / (1 + abs(x)); })
            .dtypes_are(kFloating)
            .in("nn")
            .describe("self / (1 + |self|)."),
        pointwise("tanhshrink(Tensor self) -> Tensor", [](Value x) { return x - tanh(x); })
            .dtypes_are(kFloatingOrComplex)
            .in("nn")
            .describe("self - tanh(self)."),
        activation("hardswish(Tensor self) -> Tensor",
                   [](Value x) { return x * bounded(x + 3, zero(x), x.literal(6)) / 6; })
            .derivative([](Value g, Value, Value x) {
              return select(x <= -3.0, zero(g), select(x < 3.0, g * (x / 3 + 0.5), g));
            })
            .in("nn")
            .inplace()
            .describe("self * relu6(self + 3) / 6."),
        activation("hardsigmoid(Tensor self) -> Tensor",
                   [](Value x) { return bounded(x + 3, zero(x), x.literal(6)) / 6; })
            .derivative([](Value g, Value, Value x) {
              return select((x > -3.0) & (x < 3.0), g / 6, zero(g));
            })
            .in("nn")
            .inplace()
            .describe("relu6(self + 3) / 6."),
        activation("hardshrink(Tensor self, Scalar lambd=0.5) -> Tensor",
                   [](Value x, Value lambd) { return beyond(x, lambd, x); })
            .derivative([](Value g, Value, Value x, Value lambd) { return beyond(x, lambd, g); })
            .no_inplace()
            .describe("self where its magnitude is above lambd, else 0."),
        activation("softshrink(Tensor self, Scalar lambd=0.5) -> Tensor",
                   [](Value x, Value lambd) {
                     return select(x > lambd, x - lambd, select(x < -lambd, x + lambd, x * 0));
                   })
            .checked(shrinks)
            .derivative([](Value g, Value, Value x, Value lambd) { return beyond(x, lambd, g); })
            .in("nn")
            .describe("self moved towards 0 by lambd, at most to 0."),
        pointwise("_glu(Tensor self, Tensor gate) -> Tensor",
                  [](Value x, Value gate) { return x * sigmoid(gate); })
            .dtypes_are(kFloating)
            .in("_C")
            .describe("self * sigmoid(gate)."),
        function("glu(Tensor self, int dim=-1) -> Tensor", glu)
            .in("nn")
            .out()
            .describe("The first half of self along dim, times the sigmoid of the second."),
        pointwise("_prelu_kernel(Tensor self, Tensor weight) -> Tensor",
                  [](Value x, Value w) { return select(x > 0.0, x, x * w); })
            .dtypes_are(kFloating)
            .derivative([](Value g, Value, Value x, Value w) {
              return std::array{select(x > 0.0, g, g * w), select(x > 0.0, zero(g), g * x)};
            })
            .in("_C")
            .describe("self where positive, else weight * self."),
        function("prelu(Tensor self, Tensor weight) -> Tensor", prelu)
            .describe("self where positive, else weight * self, with one weight or one a channel (dim 1)."),
        function(
            "rrelu(Tensor self, Scalar lower=0.125, Scalar upper=0.3333333333333333, bool training=False, Generator? generator=None) -> Tensor",
            [](Args a) { return rrelu(a, dispatch::Form::kValue); })
            .function_only()
            .describe("Leaky ReLU with slopes drawn from [lower, upper] in training, their mean otherwise."),
        function(
            "rrelu_(Tensor(a!) self, Scalar lower=0.125, Scalar upper=0.3333333333333333, bool training=False, Generator? generator=None) -> Tensor(a!)",
            [](Args a) { return rrelu(a, dispatch::Form::kInPlace); })
            .function_only()
            .describe("rrelu written into self."),
    });

}  // namespace
}  // namespace lohe::ops
