#include <array>
#include <cmath>
#include <numbers>

#include "lohe/error.h"
#include "ops/call.h"

/// Elementary and special functions of one number, rounding and signs.
namespace lohe::ops {
namespace {

using namespace ir;

/// A function of real or complex numbers; integers compute in the default dtype. Its gradient reads self.
template <class F>
OpDef analytic(std::string_view schema, F f) {
  return pointwise(schema, f).promote(Promotion::kFloat).dtypes_are(kFloatingOrComplex);
}

/// The same for real numbers only.
template <class F>
OpDef real_function(std::string_view schema, F f) {
  return pointwise(schema, f).promote(Promotion::kFloat).dtypes_are(kFloating);
}

void no_complex(const OpDef& op, Args args) {
  LOHE_CHECK(args[0].kind != Arg::kTensor || !is_complex(args[0].tensor->dtype()), op.schema.base,
             " is not supported for complex tensors; use real and imag parts");
}

/// Rounding leaves integers as they are and has a gradient of zero.
template <class F>
OpDef rounding(std::string_view schema, F f) {
  return pointwise(schema, [f](Value x) { return is_integral(x.dtype(), true) ? x : f(x); })
      .dtypes_are(kReals)
      .out(OutDtype::kSame)
      .gradient_reads({})
      .derivative([](Value g) { return g.literal(0); });
}

Value logit_of(Value x, const Arg& eps) {
  if (eps.none()) return log(x / (1 - x));
  const double low = eps.scalar().to_double(), high = 1 - low;
  const Value z = select(x < low, x.literal(low), select(x > high, x.literal(high), x));
  return log(z / (1 - z));
}

Value logit_gradient(Value g, Value x, const Arg& eps) {
  const Value slope = g / (x * (1 - x));
  const double nan = std::nan("");
  if (eps.none()) return select((x < 0.0) | (x > 1.0), x.literal(nan), slope);
  const double low = eps.scalar().to_double();
  return select((x < low) | (x > 1 - low), x.literal(low < 0 ? nan : 0), slope);
}

/// sum over k >= 0 of 1 / (x + k)^(n + 1), times n!, for x >= 1/2: terms, then Euler and Maclaurin's formula
/// (Abramowitz and Stegun 1964, 6.4.11).
Value polygamma_magnitude(int64_t n, Value x) {
  const auto power = [](Value v, int64_t e) {
    Value p = v.literal(1);
    for (int64_t i = 0; i < e; ++i) p = p * v;
    return p;
  };
  constexpr int kTerms = 12;
  constexpr double kBernoulli[] = {1.0 / 6, -1.0 / 30, 1.0 / 42, -1.0 / 30, 5.0 / 66, -691.0 / 2730, 7.0 / 6};
  const Value y = x + kTerms, inverse = 1 / y, inverse_square = inverse * inverse;
  double factor = std::tgamma(static_cast<double>(n));  // (n - 1)!
  Value tail = power(inverse, n) * factor;
  tail = tail + power(inverse, n + 1) * (factor * static_cast<double>(n) / 2);
  Value falling = power(inverse, n) * inverse_square;
  double ratio = factor * static_cast<double>(n) * static_cast<double>(n + 1);  // (2k + n - 1)!
  double even_factorial = 2;
  for (int k = 1; k <= 7; ++k) {
    tail = tail + falling * (kBernoulli[k - 1] * ratio / even_factorial);
    falling = falling * inverse_square;
    ratio *= static_cast<double>((n + 2 * k) * (n + 2 * k + 1));
    even_factorial *= (2.0 * k + 1) * (2.0 * k + 2);
  }
  const double terms = std::tgamma(static_cast<double>(n) + 1);
  for (int k = kTerms - 1; k >= 0; --k) tail = tail + terms / power(x + k, n + 1);
  return tail;
}

/// The n-th derivative of digamma, n >= 1; left of 1/2 by reflection (Abramowitz and Stegun 1964, 6.4.7).
Value polygamma(int64_t n, Value x) {
  const bool odd = n % 2 != 0;
  const Value left = x < 0.5;
  const Value magnitude = polygamma_magnitude(n, select(left, 1 - x, x));
  const Value right_value = odd ? magnitude : -magnitude;
  // The n-th derivative of cot(pi x), a polynomial in c = cot(pi x): each step is p -> -pi (1 + c^2) p'.
  std::vector<double> p = {0, 1};
  for (int64_t i = 0; i < n; ++i) {
    std::vector<double> next(p.size() + 1);
    for (size_t k = 1; k < p.size(); ++k) {
      const double d = -std::numbers::pi * static_cast<double>(k) * p[k];
      next[k - 1] += d;
      next[k + 1] += d;
    }
    p = std::move(next);
  }
  // cot by the nearer of its pole and its zero, so that it is exactly zero halfway between poles.
  const Value fraction = x - round(x);
  const Value near_zero = abs(fraction) > 0.25;
  const Value angle = select(near_zero, 0.5 - abs(fraction), fraction) * std::numbers::pi;
  const Value tangent = sin(angle) / cos(angle);
  const Value c = select(near_zero, select(fraction < 0.0, -tangent, tangent), 1 / tangent);
  Value cot = x.literal(p.back());
  for (size_t k = p.size() - 1; k-- > 0;) cot = cot * c + p[k];
  const Value reflected = (odd ? -right_value : right_value) - cot * std::numbers::pi;
  const Value pole = left & (fraction == 0.0);
  const double infinity = std::numeric_limits<double>::infinity();
  return select(pole, x.literal(odd ? infinity : -infinity), select(left, reflected, right_value));
}

void order_not_negative(const OpDef&, Args args) {
  LOHE_CHECK(args[0].integer >= 0, "polygamma(n, x) does not support negative n.");
}

const OpFamily elementary(
    "elementary",
    {
        // Exponentials and logarithms
        analytic("exp(Tensor self) -> Tensor", [](Value x) { return exp(x); })
            .gradient_reads({"result"})
            .derivative([](Value g, Value y) { return g * conj(y); })
            .describe("e to the power of self."),
        analytic("exp2(Tensor self) -> Tensor", [](Value x) { return exp2(x); })
            .gradient_reads({"result"})
            .derivative([](Value g, Value y) { return g * conj(y) * std::numbers::ln2; })
            .describe("2 to the power of self."),
        analytic("expm1(Tensor self) -> Tensor", [](Value x) { return expm1(x); })
            .gradient_reads({"result"})
            .derivative([](Value g, Value y) { return g * (conj(y) + 1); })
            .describe("exp(self) - 1, precise near 0."),
        analytic("log(Tensor self) -> Tensor", [](Value x) { return log(x); }).describe("Natural logarithm."),
        analytic("log2(Tensor self) -> Tensor", [](Value x) { return log2(x); })
            .describe("Logarithm to base 2."),
        analytic("log10(Tensor self) -> Tensor", [](Value x) { return log10(x); })
            .describe("Logarithm to base 10."),
        analytic("log1p(Tensor self) -> Tensor", [](Value x) { return log1p(x); })
            .describe("log(1 + self), precise near 0."),
        // Trigonometry
        analytic("sin(Tensor self) -> Tensor", [](Value x) { return sin(x); }).describe("Sine of radians."),
        analytic("cos(Tensor self) -> Tensor", [](Value x) { return cos(x); }).describe("Cosine of radians."),
        analytic("tan(Tensor self) -> Tensor", [](Value x) { return tan(x); })
            .gradient_reads({"result"})
            .derivative([](Value g, Value y) { return g * conj(1 + y * y); })
            .describe("Tangent of radians."),
        analytic("asin(Tensor self) -> Tensor", [](Value x) { return asin(x); })
            .describe("Inverse sine, in radians."),
        analytic("acos(Tensor self) -> Tensor", [](Value x) { return acos(x); })
            .describe("Inverse cosine, in radians."),
        analytic("atan(Tensor self) -> Tensor", [](Value x) { return atan(x); })
            .describe("Inverse tangent, in radians."),
        analytic("sinh(Tensor self) -> Tensor", [](Value x) { return sinh(x); }).describe("Hyperbolic sine."),
        analytic("cosh(Tensor self) -> Tensor", [](Value x) { return cosh(x); })
            .describe("Hyperbolic cosine."),
        analytic("tanh(Tensor self) -> Tensor", [](Value x) { return tanh(x); })
            .gradient_reads({"result"})
            .derivative([](Value g, Value y) { return g * conj(1 - y * y); })
            .describe("Hyperbolic tangent."),
        analytic("asinh(Tensor self) -> Tensor", [](Value x) { return asinh(x); })
            .describe("Inverse hyperbolic sine."),
        analytic("acosh(Tensor self) -> Tensor", [](Value x) { return acosh(x); })
            .describe("Inverse hyperbolic cosine."),
        analytic("atanh(Tensor self) -> Tensor", [](Value x) { return atanh(x); })
            .describe("Inverse hyperbolic tangent."),
        alias("arcsin", "asin"),
        alias("arccos", "acos"),
        alias("arctan", "atan"),
        alias("arcsinh", "asinh"),
        alias("arccosh", "acosh"),
        alias("arctanh", "atanh"),
        analytic("sinc(Tensor self) -> Tensor",
                 [](Value x) {
                   const Value px = x * std::numbers::pi;
                   return select(x == 0.0, x.literal(1), sin(px) / px);
                 })
            .derivative([](Value g, Value, Value x) {
              const Value px = x * std::numbers::pi;
              return select(x == 0.0, g.literal(0), g * conj((px * cos(px) - sin(px)) / (px * x)));
            })
            .describe("sin(pi self) / (pi self), 1 at 0."),
        pointwise("deg2rad(Tensor self) -> Tensor", [](Value x) { return x * (std::numbers::pi / 180); })
            .promote(Promotion::kFloat)
            .dtypes_are(kFloating)
            .checked(no_complex)
            .describe("Degrees to radians."),
        pointwise("rad2deg(Tensor self) -> Tensor", [](Value x) { return x * (180 / std::numbers::pi); })
            .promote(Promotion::kFloat)
            .dtypes_are(kFloating)
            .checked(no_complex)
            .describe("Radians to degrees."),
        // Roots
        analytic("sqrt(Tensor self) -> Tensor", [](Value x) { return sqrt(x); })
            .gradient_reads({"result"})
            .derivative([](Value g, Value y) { return g / conj(2 * y); })
            .describe("Square root."),
        analytic("rsqrt(Tensor self) -> Tensor", [](Value x) { return rsqrt(x); })
            .gradient_reads({"result"})
            .derivative([](Value g, Value y) { return -0.5 * g * conj(y * y * y); })
            .describe("1 / sqrt(self)."),
        // Special functions
        analytic("sigmoid(Tensor self) -> Tensor", [](Value x) { return sigmoid(x); })
            .gradient_reads({"result"})
            .derivative([](Value g, Value y) { return g * conj((1 - y) * y); })
            .describe("1 / (1 + exp(-self))."),
        real_function("logit(Tensor self, float? eps=None) -> Tensor",
                      [](Value x, Arg eps) { return logit_of(x, eps); })
            .derivative([](Value g, Value, Value x, Arg eps) { return logit_gradient(g, x, eps); })
            .describe("log(self / (1 - self)); with eps, self is clamped to [eps, 1 - eps] first."),
        real_function("erf(Tensor self) -> Tensor", [](Value x) { return erf(x); })
            .describe("Error function."),
        real_function("erfc(Tensor self) -> Tensor", [](Value x) { return erfc(x); })
            .describe("1 - erf(self)."),
        real_function("erfinv(Tensor self) -> Tensor", [](Value x) { return erfinv(x); })
            .describe("Inverse error function."),
        real_function("lgamma(Tensor self) -> Tensor", [](Value x) { return lgamma(x); })
            .describe("Logarithm of the absolute value of the gamma function."),
        real_function("digamma(Tensor self) -> Tensor", [](Value x) { return digamma(x); })
            .derivative([](Value g, Value, Value x) { return g * polygamma(1, x); })
            .describe("Derivative of lgamma."),
        real_function("polygamma(int n, Tensor self) -> Tensor",
                      [](int64_t n, Value x) { return n == 0 ? digamma(x) : polygamma(n, x); })
            .checked(order_not_negative)
            .no_inplace()
            .derivative([](Value g, Value, int64_t n, Value x) { return g * polygamma(n + 1, x); })
            .describe("The n-th derivative of digamma."),
        function("polygamma_(Tensor(a!) self, int n) -> Tensor(a!)",
                 [](Args a) {
                   static const OpRef row("polygamma"), copy("copy_"), clone("clone");
                   // Of a copy: the gradient reads what self held.
                   const TensorPtr result = row(a[1], clone(a[0].tensor));
                   LOHE_CHECK(can_cast(result->dtype(), a[0].tensor->dtype()), "result type ",
                              info(result->dtype()).name, " can't be cast to the desired output type ",
                              info(a[0].tensor->dtype()).name, " in polygamma_");
                   return Results(copy(a[0].tensor, result));
                 })
            .method_only()
            .describe("polygamma, written into self."),
        real_function("special_entr(Tensor self) -> Tensor",
                      [](Value x) {
                        const Value inside = select(x == 0.0, x.literal(0), -x * log(x));
                        const double lowest = -std::numeric_limits<double>::infinity();
                        return select(is_nan(x), x, select(x < 0.0, x.literal(lowest), inside));
                      })
            .derivative([](Value g, Value, Value x) { return g * -(1 + log(x)); })
            .in("special")
            .describe("-self log(self), the terms of entropy."),
        real_function("special_ndtr(Tensor self) -> Tensor",
                      [](Value x) {
                        const Value z = x * std::numbers::sqrt2 / 2;
                        return select(z < -1.0, 0.5 * erfc(-z), 0.5 * (1 + erf(z)));
                      })
            .derivative([](Value g, Value, Value x) {
              return g * exp(-0.5 * x * x) * (std::numbers::inv_sqrtpi / std::numbers::sqrt2);
            })
            .in("special")
            .describe("Distribution function of the standard normal."),
        real_function("special_spherical_bessel_j0(Tensor self) -> Tensor",
                      [](Value x) {
                        // Near 0 the first terms of the series: the quotient would lose digits.
                        const Value s = x * x;
                        const Value series =
                            1 -
                            s / 6 *
                                (1 - s / 20 * (1 - s / 42 * (1 - s / 72 * (1 - s / 110 * (1 - s / 156)))));
                        const Value infinite = abs(x) == std::numeric_limits<double>::infinity();
                        return select(infinite, x.literal(0), select(abs(x) < 0.5, series, sin(x) / x));
                      })
            .in("special")
            .describe("sin(self) / self, the spherical Bessel function of the first kind of order 0."),
        alias("special_exp2", "exp2").in("special"),
        alias("special_expm1", "expm1").in("special"),
        alias("special_log1p", "log1p").in("special"),
        alias("special_sinc", "sinc").in("special"),
        alias("special_expit", "sigmoid").in("special"),
        alias("special_logit", "logit").in("special"),
        alias("special_erf", "erf").in("special"),
        alias("special_erfc", "erfc").in("special"),
        alias("special_erfinv", "erfinv").in("special"),
        alias("special_gammaln", "lgamma").in("special"),
        alias("special_digamma", "digamma").in("special"),
        alias("special_psi", "digamma").in("special"),
        alias("special_polygamma", "polygamma").in("special"),
        alias("special_round", "round").in("special").dtypes_are(kFloating),
        // Rounding
        rounding("ceil(Tensor self) -> Tensor", [](Value x) { return ceil(x); })
            .describe("The least integer not below self."),
        rounding("floor(Tensor self) -> Tensor", [](Value x) { return floor(x); })
            .describe("The greatest integer not above self."),
        rounding("trunc(Tensor self) -> Tensor", [](Value x) { return trunc(x); })
            .describe("The integer part, towards 0."),
        alias("fix", "trunc"),
        rounding("round(Tensor self) -> Tensor", [](Value x) { return round(x); })
            .describe("The nearest integer; halves go to even."),
        pointwise("round.decimals(Tensor self, *, int decimals) -> Tensor",
                  [](Value x, int64_t decimals) {
                    if (decimals == 0) return round(x);
                    const Value scale = x.literal(std::pow(10.0, static_cast<double>(std::abs(decimals))));
                    return decimals > 0 ? round(x * scale) / scale : round(x / scale) * scale;
                  })
            .dtypes_are(kFloating)
            .out(OutDtype::kSame)
            .gradient_reads({})
            .derivative([](Value g) { return g.literal(0); })
            .describe("Rounded to a number of decimal places; negative ones count left of the point."),
        pointwise("frac(Tensor self) -> Tensor", [](Value x) { return x - trunc(x); })
            .dtypes_are(kFloating)
            .out(OutDtype::kSame)
            .gradient_reads({})
            .derivative([](Value g) { return g; })
            .describe("self - trunc(self)."),
        // Signs
        pointwise("sign(Tensor self) -> Tensor", [](Value x) { return sign(x); })
            .dtypes_are(kAllReals)
            .out(OutDtype::kSame)
            .gradient_reads({})
            .derivative([](Value g) { return g.literal(0); })
            .describe("-1, 0 or 1."),
        pointwise("sgn(Tensor self) -> Tensor", [](Value x) { return sign(x); })
            .out(OutDtype::kSame)
            .gradient_reads({"self", "result"})
            .derivative([](Value g, Value y, Value x) {
              if (!is_complex(x.dtype())) return g.literal(0);
              const Value magnitude = cast(abs(x), x.dtype());
              const Value tangent = g - cast(real(g * conj(y)), x.dtype()) * y;
              return select(x == 0.0, g.literal(0), tangent / magnitude);
            })
            .describe("sign; for complex numbers self / |self|, 0 at 0."),
        pointwise("signbit(Tensor self) -> Tensor", [](Value x) { return signbit(x); })
            .promote(Promotion::kBool)
            .out(OutDtype::kSame)
            .dtypes_are(kAllReals)
            .no_inplace()
            .describe("Whether the sign bit is set; true for -0."),
        pointwise("angle(Tensor self) -> Tensor", [](Value x) { return angle(x); })
            .promote(Promotion::kRealFloat)
            .gradient_reads({"self"})
            .no_inplace()
            .describe("Argument of a complex number, in radians; of real ones 0 or pi."),
    });

}  // namespace
}  // namespace lohe::ops
