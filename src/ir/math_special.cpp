#include "ir/math_impl.h"

/// The error function, its complement and inverse, and the gamma function's logarithm and its derivative.
namespace lohe::ir::math {
namespace {

/// erfc(a) for a >= 1/2, kF64: exp(-a^2) times the scaled function, a polynomial in (a - 4) / (a + 4) over 1
/// + 2a (M. Shepherd and J. Laframboise, 1981). Coefficients are our own.
V erfc_tail(V a) {
  a = minimum(literal(a, 28), a);
  const V t = (a - 4) / (a + 4);
  const Pair scaled = fast_two_sum(literal(a, kErfcF64[0]), polynomial_rest(t, kErfcF64));
  const Pair d = two_sum(a + a, literal(a, 1));
  const V quotient = scaled.high / d.high;
  // The quotient's error goes into the exponent as a relative one; 1.13 < scaled < 1.24, so that 0.85 is near
  // enough to its reciprocal.
  const V error = 0.85 * (fma(-quotient, d.high, scaled.high) + fma(-quotient, d.low, scaled.low));
  const V square = a * a;
  return exp_pair(-square, error - fma(a, a, -square)) * quotient;
}

V erf_inner(V x) { return fma(x, polynomial2(x * x, kErfF64), x); }

/// sin(pi t) and cos(pi t) for |t| <= 1/2, kF64.
struct SineCosine {
  V sine, cosine;
};
SineCosine sine_cosine_pi(V t) {
  const V a = abs(t);
  const V swap = a > 0.25;
  const V r = select(swap, 0.5 - a, a) * kPi;
  const V z = r * r;
  const V s = fma(r * z, polynomial2(z, kSinF64), r);
  const V c = fma(z * z, polynomial2(z, kCosF64), fma(z, literal(z, -0.5), literal(z, 1)));
  return {copy_sign(select(swap, c, s), t), select(swap, s, c)};
}

}  // namespace

V erf(V x) {
  const V a = abs(x);
  const V inside = a < 1;
  V inner, outer;
  if (single(x)) {
    inner = fma(a, polynomial(x * x, kErfF32), a);
    // erf rounds to 1 from 3.92 on.
    outer = 1 - polynomial(minimum(literal(x, 3.92), a) - 2.46, kErfTailF32);
  } else {
    inner = erf_inner(a);
    outer = 1 - erfc_tail(a);
  }
  return copy_sign(select(inside, inner, outer), x);
}

V erfc(V x) {
  if (single(x)) return narrow(erfc(widen(x)));
  const V a = abs(x);
  const V tail = erfc_tail(a);
  const V outer = select(x < 0, 2 - tail, tail);
  const V result = select(a < 0.5, 1 - erf_inner(x), outer);
  return select(is_nan(x), x, result);
}

V erfinv(V x) {
  if (single(x)) return narrow(erfinv(widen(x)));
  // As a function of w = -log(1 - x^2) the quotient erfinv(x) / x is smooth (M. Giles, 2012). Coefficients
  // are our own.
  const V w = -log(fma(-x, x, literal(x, 1)));
  const V root = sqrt(maximum(w, literal(x, 0)));
  const V in_centre = w < 6.25, in_tail = root < 4;
  const V constant = select(in_centre, literal(x, kErfinvCentreF64[0]),
                            select(in_tail, literal(x, kErfinvTailF64[0]), literal(x, kErfinvEdgeF64[0])));
  const V rest = select(in_centre, polynomial_rest(w - 3.125, kErfinvCentreF64),
                        select(in_tail, polynomial_rest(root - 3.25, kErfinvTailF64),
                               polynomial_rest(root - 5, kErfinvEdgeF64)));
  const Pair quotient = fast_two_sum(constant, rest);
  const V result = fma(x, quotient.high, x * quotient.low);
  const V a = abs(x);
  return select(a == 1, copy_sign(infinity(x), x), select(a > 1, not_a_number(x), result));
}

namespace {

/// lgamma for x > 0, kF64.
V lgamma_positive(V x) {
  // Below 9 the recurrence leads to 1 <= y < 2, lgamma(y) = (y - 1) (y - 2) P(y - 3/2).
  V y = x, product = literal(x, 1);
  for (int i = 0; i < 7; ++i) {
    const V high = y >= 2;
    y = select(high, y - 1, y);
    product = select(high, product * y, product);
  }
  const V below = x < 1, above = x >= 9;
  const V from_one = select(below, x, y - 1);  // y = x + 1 below 1, without its rounding
  const V from_two = select(below, x - 1, y - 2);
  const V core = from_one * from_two * polynomial2(from_one - 0.5, kLgammaF64);
  const V logarithm = log(select(below | above, x, product));
  // From 9 on Stirling's series: B_2k / (2k (2k - 1) x^(2k - 1)).
  static constexpr double stirling[] = {1.0 / 12,         -1.0 / 360,        1.0 / 1260, -1.0 / 1680,
                                        1.0 / 1188,       -691.0 / 360360,   1.0 / 156,  -3617.0 / 122400,
                                        43867.0 / 244188, -174611.0 / 125400};
  const V inverse = 1 / x;
  const V series =
      fma(inverse, polynomial2(inverse * inverse, stirling), literal(x, 0.91893853320467274178 - 0.5));
  const V large = fma(x - 0.5, logarithm - 1, series);
  return select(above, large, core + select(below, -logarithm, logarithm));
}

}  // namespace

V lgamma(V x) {
  if (single(x)) return narrow(lgamma(widen(x)));
  const V a = abs(x);
  const V positive = lgamma_positive(a);
  // |gamma(-a)| = pi / (a |sin(pi a)| gamma(a))
  const V sine = abs(sine_cosine_pi(a - round_even(a)).sine);
  const V reflected = log(select(a < 1e-20, a, kPi / (a * sine)));
  V result = select(x < 0, select(a < 1e-20, -reflected, reflected - positive), positive);
  result = select((x < 0) & (sine == 0) & (a >= 1), infinity(x), result);
  return select(a == infinity(x), a, result);
}

V digamma(V x) {
  if (single(x)) return narrow(digamma(widen(x)));
  const V left = x <= 0;
  // digamma(x) = digamma(1 - x) - pi / tan(pi x)
  const V start = select(left, 1 - x, x);
  // sum of 1 / (y + i) up to 10, as one quotient
  V y = start, numerator = literal(x, 0), denominator = literal(x, 1);
  for (int i = 0; i < 10; ++i) {
    const V low = y < 10;
    numerator = select(low, fma(numerator, y, denominator), numerator);
    denominator = select(low, denominator * y, denominator);
    y = select(low, y + 1, y);
  }
  // log y - 1 / 2y - sum of B_2k / (2k y^2k)
  static constexpr double series[] = {1.0 / 12,  -1.0 / 120,     1.0 / 252, -1.0 / 240,
                                      1.0 / 132, -691.0 / 32760, 1.0 / 12,  -3617.0 / 8160};
  const V inverse = 1 / y;
  const V square = inverse * inverse;
  const V tail = fma(square, polynomial2(square, series), 0.5 * inverse);
  const V positive = log(y) - (tail + numerator / denominator);
  const SineCosine sc = sine_cosine_pi(x - round_even(x));
  V result = select(left, positive - kPi * sc.cosine / sc.sine, positive);
  result = select(left & (sc.sine == 0), not_a_number(x), result);
  result = select(x == 0, copy_sign(infinity(x), -x), result);
  result = select(x == infinity(x), x, result);
  return select(x == -infinity(x), not_a_number(x), result);
}

}  // namespace lohe::ir::math
