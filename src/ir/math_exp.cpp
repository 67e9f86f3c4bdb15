#include "ir/math_impl.h"

/// exp and its relatives: x = n ln 2 + r with |r| <= ln(2)/2 (W. J. Cody and W. Waite, 1980), a polynomial in
/// r, and two multiplications by powers of two, so that denormal results round once and results near the
/// largest float survive.
namespace lohe::ir::math {
namespace {

/// Adding this number rounds to an integer.
double magic(V x) { return single(x) ? 0x1.8p23 : 0x1.8p52; }
int mantissa_bits(V x) { return single(x) ? 23 : 52; }

constexpr double kLog2E = 0x1.71547652b82fep+0;

V exp_tail(V r) { return single(r) ? polynomial(r, kExpF32) : polynomial2(r, kExpF64); }

/// x = n ln 2 + r; `high` is r less the low part of n ln 2.
struct Parts {
  V n, r, high;
};
Parts cut(V x) {
  const V n = fma(x, literal(x, kLog2E), literal(x, magic(x))) - magic(x);
  const V high = fma(n, literal(x, -ln2_high(x)), x);
  return {n, fma(n, literal(x, -ln2_low(x)), high), high};
}
V exp_of_rest(V r) { return fma(r, fma(r, exp_tail(r), literal(r, 1)), literal(r, 1)); }

// Beyond these exp overflows or rounds to 0.
double lowest(V x) { return single(x) ? -104.0 : -746.0; }
double highest(V x) { return single(x) ? 89.0 : 710.5; }

/// scale (exp(r) - 1) + constant, where the sum may be small and the roundings of r and of exp(r) - 1 would
/// show.
V scaled_expm1(const Parts& d, V scale, V constant) {
  const V low = fma(d.n, literal(d.n, -ln2_low(d.n)), d.high - d.r);
  return fma(scale, fma(d.r * d.r, exp_tail(d.r), low), fma(scale, d.r, constant));
}

/// exp(x) for lowest <= x <= highest or NaN.
V exp_within(V x) {
  const Parts d = cut(x);
  return scale(exp_of_rest(d.r), d.n);
}

}  // namespace

V exp_pair(V high, V low, int shift) {
  const Parts d = cut(clamp(high, lowest(high), highest(high)));
  return scale(exp_of_rest(d.r + low), d.n + shift);
}

V exp_pair_times(V high, V low, V factor) {
  const Parts d = cut(clamp(high, lowest(high), highest(high)));
  const V r = d.r + low;
  const V rest = r * fma(r, exp_tail(r), literal(r, 1));  // exp(r) - 1
  return scale(fma(factor, rest, factor), d.n);
}

V exp(V x) {
  // Where the result is 0 it is selected, not computed: on x86 an underflow costs more than a hundred cycles,
  // and masked scores make it common.
  const V vanishes = x < lowest(x);
  const V bounded = select(vanishes, literal(x, 0), minimum(literal(x, highest(x)), x));
  return select(vanishes, literal(x, 0), exp_within(bounded));
}

V exp2(V x) {
  x = single(x) ? clamp(x, -151.0, 129.0) : clamp(x, -1076.0, 1025.0);
  const V n = (x + magic(x)) - magic(x);
  const V r = x - n;
  const V tail = single(x) ? polynomial(r, kExp2F32) : polynomial2(r, kExp2F64);
  return scale(fma(r, tail, literal(x, 1)), n);
}

V expm1(V x) {
  // Its upper bound keeps 2^(n-1) finite.
  const Parts d = single(x) ? cut(clamp(x, -20.0, 89.0)) : cut(clamp(x, -40.0, 709.9));
  // 2^n exp(r) - 1 = 2 (2^(n-1) (exp(r) - 1) + (2^(n-1) - 1/2)), because 2^n may be out of range.
  const V half = power_of_two(d.n - 1);
  const V result = scaled_expm1(d, half, half - 0.5) * 2;
  // The halves of denormals are inexact, and zero keeps its sign.
  return select(abs(x) < (single(x) ? 0x1p-26 : 0x1p-55), x, result);
}

V power_of_two(V n) {
  const V biased = n + (single(n) ? 0x1.8p23 + 127 : 0x1.8p52 + 1023);
  return float_of(shift_left(bits_of(biased), mantissa_bits(n)));
}

V sigmoid(V x) {
  const V a = -abs(x);
  const V e = exp_within(maximum(literal(x, lowest(x)), a));
  const V left = x < 0;
  const Pair d = fast_two_sum(literal(x, 1), e);
  const V quotient = select(left, e, literal(x, 1)) / d.high;
  // 1 / d is the quotient itself, or 1 less it; with that the denominator's rounding comes off again.
  const V inverse = select(left, 1 - quotient, quotient);
  return fma(-quotient * d.low, inverse, quotient);
}

V tanh(V x) {
  const V a = abs(x);
  if (single(x)) return copy_sign(piecewise(a, kTanhPieces), x);
  const V z = x * x;
  const V small = fma(a * z, polynomial2(z, kTanhF64), a);
  // 1 - 2 / (exp(2a) + 1), which rounds to 1 from here on.
  const V bounded = minimum(literal(x, 20), a);
  const Parts d = cut(bounded + bounded);
  const V large = 1 - 2 / fma(exp_of_rest(d.r), power_of_two(d.n), literal(x, 1));
  return copy_sign(select(a < 0.625, small, large), x);
}

V sinh(V x) {
  if (single(x)) return narrow(sinh(widen(x)));
  const V a = abs(x);
  const V z = x * x;
  const V small = fma(a * z, polynomial(z, kSinhF64), a);
  const V half = exp_pair(a, literal(x, 0), -1);
  return copy_sign(select(a < 1, small, half - 0.25 / half), x);
}

V cosh(V x) {
  if (single(x)) return narrow(cosh(widen(x)));
  const V half = exp_pair(abs(x), literal(x, 0), -1);
  return half + 0.25 / half;
}

}  // namespace lohe::ir::math
