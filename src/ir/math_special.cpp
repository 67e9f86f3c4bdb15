#include <numbers>

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
  return exp_pair_times(-square, error - fma(a, a, -square), quotient);
}

V erf_inner(V x) { return fma(x, polynomial2(x * x, kErfF64), x); }

/// c[0] + c[1] x + ... as a sum, its first two terms without a rounding; |c[0]| >= |c[1] x|.
template <int N>
Pair polynomial_pair(V x, const double (&c)[N]) {
  double rest[N - 2];
  for (int i = 2; i < N; ++i) rest[i - 2] = c[i];
  const Pair product = two_product(x, literal(x, c[1]));
  const Pair sum = fast_two_sum(literal(x, c[0]), product.high);
  return {sum.high, sum.low + fma(x * x, polynomial2(x, rest), product.low)};
}

/// sin(pi t) for 0 <= t <= 1/2, kF64.
V sine_pi(V t) {
  const V swap = t > 0.25;
  const V r = select(swap, 0.5 - t, t) * kPi;
  const V z = r * r;
  const V s = fma(r * z, polynomial2(z, kSinF64), r);
  const V c = fma(z * z, polynomial2(z, kCosF64), fma(z, literal(z, -0.5), literal(z, 1)));
  return select(swap, c, s);
}

}  // namespace

V erf(V x) {
  const V a = abs(x);
  if (single(x)) return copy_sign(piecewise(a, kErfPieces), x);
  return copy_sign(select(a < 1, erf_inner(a), 1 - erfc_tail(a)), x);
}

V gelu_slope(V x) {
  if (single(x)) return 0.5 + copy_sign(piecewise(abs(x), kGeluSlopePieces), x);
  constexpr double kDensity = std::numbers::inv_sqrtpi / std::numbers::sqrt2;
  const V phi = 0.5 * erfc(x * (-std::numbers::sqrt2 / 2));
  // The density is zero where the distribution function is not: no infinity meets it.
  const V a = minimum(literal(x, 40), abs(x));
  return phi + copy_sign(a, x) * (exp(-0.5 * (a * a)) * kDensity);
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
  const Pair centre = polynomial_pair(w - 3.125, kErfinvCentreF64);
  const Pair tail = polynomial_pair(root - 3.25, kErfinvTailF64);
  const Pair edge = polynomial_pair(root - 5, kErfinvEdgeF64);
  const V high = select(in_centre, centre.high, select(in_tail, tail.high, edge.high));
  const V low = select(in_centre, centre.low, select(in_tail, tail.low, edge.low));
  const V result = fma(x, high, x * low);
  const V a = abs(x);
  const V inside = select(x == 0, x, select(a > 1, not_a_number(x), result));
  return select(a == 1, copy_sign(infinity(x), x), inside);
}

namespace {

/// lgamma for x > 0 as a sum, kF64: its terms cancel, here where the result is small and in the reflection.
Pair lgamma_positive(V x) {
  // Below 9 the recurrence leads to 1 <= y < 2, lgamma(y) = (y - 1) (y - 2) P(y - 3/2).
  V y = x, product = literal(x, 1), product_low = literal(x, 0);
  for (int i = 0; i < 7; ++i) {
    const V high = y >= 2;
    y = select(high, y - 1, y);
    const Pair next = two_product(product, y);
    product_low = select(high, fma(product_low, y, next.low), product_low);
    product = select(high, next.high, product);
  }
  const V below = x < 1, above = x >= 9;
  const V from_one = select(below, x, y - 1);  // y = x + 1 below 1, without its rounding
  const V from_two = select(below, x - 1, y - 2);
  const V core = from_one * from_two * polynomial2(from_one - 0.5, kLgammaF64);
  const V direct = below | above;
  Pair logarithm = log_pair(select(direct, x, product));
  logarithm.low = logarithm.low + select(direct, literal(x, 0), product_low / product);
  // From 9 on Stirling's series: B_2k / (2k (2k - 1) x^(2k - 1)).
  static constexpr double stirling[] = {1.0 / 12,         -1.0 / 360,        1.0 / 1260, -1.0 / 1680,
                                        1.0 / 1188,       -691.0 / 360360,   1.0 / 156,  -3617.0 / 122400,
                                        43867.0 / 244188, -174611.0 / 125400};
  const V inverse = 1 / x;
  const V series =
      fma(inverse, polynomial2(inverse * inverse, stirling), literal(x, 0.91893853320467274178 - 0.5));
  const Pair factor = two_sum(logarithm.high, literal(x, -1));
  const Pair large = two_product(x - 0.5, factor.high);
  const V large_low = fma(x - 0.5, factor.low + logarithm.low, large.low) + series;
  const V sign = select(below, literal(x, -1), literal(x, 1));
  return {select(above, large.high, sign * logarithm.high),
          select(above, large_low, fma(sign, logarithm.low, core))};
}

}  // namespace

V lgamma(V x) {
  if (single(x)) return narrow(lgamma(widen(x)));
  const V a = abs(x);
  const Pair positive = lgamma_positive(a);
  // |gamma(-a)| = pi / (a |sin(pi a)| gamma(a))
  const V sine = sine_pi(abs(a - round_even(a)));
  const V tiny = a < 1e-20;
  const Pair product = two_product(a, sine);
  const Pair logarithm = log_pair(select(tiny | (product.high == 0), a, product.high));
  constexpr double kLogPi = 0x1.250d048e7a1bdp+0, kLogPiLow = 0x1.7abf2ad8d5088p-57;
  const Pair first = two_sum(literal(x, kLogPi), -logarithm.high);
  const Pair all = two_sum(first.high, -positive.high);
  const V rest = kLogPiLow - logarithm.low - product.low / maximum(product.high, literal(x, 0x1p-1000));
  const V reflected = all.high + (all.low + first.low + (rest - positive.low));
  V result =
      select(x < 0, select(tiny, -logarithm.high - logarithm.low, reflected), positive.high + positive.low);
  // Overflow leaves infinity - infinity in the low parts.
  result = select((positive.high == infinity(x)) | (a == 0), infinity(x), result);
  result = select((x < 0) & (sine == 0) & (a >= 1), infinity(x), result);
  result = select(a == infinity(x), a, result);
  return select(is_nan(x), x, result);
}

namespace {

/// pi / tan(pi t) for 0 < |t| <= 1/2, kF64, as a sum.
Pair pi_cotangent(V t) {
  constexpr double kPiLow = 0x1.1a62633145c07p-53;
  const V a = abs(t);
  const V swap = a > 0.25;
  const V part = select(swap, 0.5 - a, a);  // exact
  Pair r = two_product(part, literal(t, kPi));
  r.low = fma(part, literal(t, kPiLow), r.low);
  Pair z = two_product(r.high, r.high);
  z.low = fma(2 * r.high, r.low, z.low);
  // sin r = r + r z P(z), cos r = 1 - z / 2 + z^2 Q(z)
  Pair sine = fast_two_sum(r.high, r.high * (z.high * polynomial2(z.high, kSinF64)));
  sine.low = sine.low + r.low * (1 - 0.5 * z.high);
  Pair cosine = fast_two_sum(literal(t, 1), -0.5 * z.high);
  const V small =
      fma(z.high * z.high, polynomial2(z.high, kCosF64), fma(literal(t, -0.5), z.low, cosine.low));
  cosine = fast_two_sum(cosine.high, small);
  const Pair up{select(swap, sine.high, cosine.high), select(swap, sine.low, cosine.low)};
  const Pair down{select(swap, cosine.high, sine.high), select(swap, cosine.low, sine.low)};
  const V quotient = up.high / down.high;
  const V rest = (fma(-quotient, down.high, up.high) + (up.low - quotient * down.low)) / down.high;
  Pair result = two_product(quotient, literal(t, kPi));
  result.low = result.low + fma(rest, literal(t, kPi), quotient * kPiLow);
  const V sign = select(t < 0, literal(t, -1), literal(t, 1));
  return {sign * result.high, sign * result.low};
}

}  // namespace

V digamma(V x) {
  if (single(x)) return narrow(digamma(widen(x)));
  // digamma(x) = digamma(1 - x) - pi / tan(pi x), as sums because both may be large and cancel.
  const V left = x <= 0;
  const Pair mirrored = two_sum(literal(x, 1), -x);
  const V start = select(left, mirrored.high, x);
  // 1 / start, and the sum of 1 / (start + i) up to 10 as one quotient of sums
  const V first = 1 / start;
  const V first_low = fma(-first, start, literal(x, 1)) * first;
  const V recurs = start < 10, zero = literal(x, 0);
  const Pair next = two_sum(start, literal(x, 1));
  V y = select(recurs, next.high, start);
  Pair numerator{zero, zero}, denominator{literal(x, 1), zero};
  for (int i = 1; i < 10; ++i) {
    const V low = y < 10;
    const Pair product = two_product(numerator.high, y), larger = two_product(denominator.high, y);
    const Pair sum = two_sum(product.high, denominator.high);
    const V rest = fma(numerator.low, y, product.low + (sum.low + denominator.low));
    numerator = {select(low, sum.high, numerator.high), select(low, rest, numerator.low)};
    denominator.low = select(low, fma(denominator.low, y, larger.low), denominator.low);
    denominator.high = select(low, larger.high, denominator.high);
    y = select(low, y + 1, y);
  }
  const V others = numerator.high / denominator.high;
  const V others_low =
      (fma(-others, denominator.high, numerator.high) + (numerator.low - others * denominator.low)) /
      denominator.high;
  // What 1 - x and start + 1 lost in rounding, times the derivative there, about 1 / z + 1 / 2 z^2 + 1 / 6
  // z^3.
  const V z = select(recurs, next.high, start);
  const V lost = select(recurs, next.low, zero) + select(left, mirrored.low, zero);
  const V per_z = 1 / z;
  const V correction =
      lost * per_z * fma(per_z, fma(per_z, literal(x, 1.0 / 6), literal(x, 0.5)), literal(x, 1));
  // log y - 1 / 2y - sum of B_2k / (2k y^2k)
  static constexpr double series[] = {1.0 / 12,  -1.0 / 120,     1.0 / 252, -1.0 / 240,
                                      1.0 / 132, -691.0 / 32760, 1.0 / 12,  -3617.0 / 8160};
  const V inverse = 1 / y;
  const V square = inverse * inverse;
  const V tail = fma(square, polynomial2(square, series), 0.5 * inverse);
  const Pair logarithm = log_pair(y);
  const V fraction = x - round_even(x);
  const Pair cotangent = pi_cotangent(select(fraction == 0, literal(x, 0.25), fraction));
  // The large terms one by one, each with its error.
  const Pair one = two_sum(logarithm.high, -select(recurs, first, zero));
  const Pair two = two_sum(one.high, -select(left, cotangent.high, zero));
  const Pair three = two_sum(two.high, -others);
  const V low = (logarithm.low - select(recurs, first_low, zero)) - select(left, cotangent.low, zero) -
                others_low + correction;
  V result = three.high + (one.low + two.low + three.low + (low - tail));
  result = select(left & (fraction == 0), not_a_number(x), result);
  result = select(abs(x) < 0x1p-60, -1 / x, result);
  result = select(is_nan(x) | (x == infinity(x)), x, result);
  return select(x == -infinity(x), not_a_number(x), result);
}

}  // namespace lohe::ir::math
