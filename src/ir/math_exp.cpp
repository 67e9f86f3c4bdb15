#include "ir/math_impl.h"

/// exp and its relatives: x = n ln 2 + r with |r| <= ln(2)/2 (W. J. Cody and W. Waite, 1980), a polynomial in r, and two
/// multiplications by powers of two, so that denormal results round once and results near the largest float survive.
namespace lohe::ir::math {
namespace {

/// Adding this number rounds to an integer n and leaves n + 2 * bias in the low bits.
double magic(V x) { return single(x) ? 0x1.8p23 + 254 : 0x1.8p52 + 2046; }
int mantissa_bits(V x) { return single(x) ? 23 : 52; }

constexpr double kLog2E = 0x1.71547652b82fep+0;

V exp_tail(V r) { return single(r) ? polynomial(r, kExpF32) : polynomial2(r, kExpF64); }

/// value * 2^n, where biased = n + magic.
V scale(V value, V biased) {
  const V n = bits_of(biased);
  const V half = shift_right(n, 1);
  const int m = mantissa_bits(value);
  return (value * float_of(shift_left(half, m))) * float_of(shift_left(n - half, m));
}

V clamp_for_exp(V x) { return single(x) ? clamp(x, -104.0, 89.0) : clamp(x, -746.0, 710.5); }

}  // namespace

V exp_pair(V high, V low, int shift) {
  const V x = clamp_for_exp(high);
  const V biased = fma(x, literal(x, kLog2E), literal(x, magic(x)));
  const V n = biased - magic(x);
  V r = fma(n, literal(x, -ln2_high(x)), x);
  r = fma(n, literal(x, -ln2_low(x)), r) + low;
  const V value = fma(r, fma(r, exp_tail(r), literal(x, 1)), literal(x, 1));
  return scale(value, biased + shift);
}

V exp(V x) {
  x = clamp_for_exp(x);
  const V biased = fma(x, literal(x, kLog2E), literal(x, magic(x)));
  const V n = biased - magic(x);
  V r = fma(n, literal(x, -ln2_high(x)), x);
  r = fma(n, literal(x, -ln2_low(x)), r);
  return scale(fma(r, fma(r, exp_tail(r), literal(x, 1)), literal(x, 1)), biased);
}

V exp2(V x) {
  x = single(x) ? clamp(x, -151.0, 129.0) : clamp(x, -1076.0, 1025.0);
  const V biased = x + magic(x);
  const V r = x - (biased - magic(x));
  const V tail = single(x) ? polynomial(r, kExp2F32) : polynomial2(r, kExp2F64);
  return scale(fma(r, tail, literal(x, 1)), biased);
}

V expm1(V x) {
  const V y = single(x) ? clamp(x, -20.0, 89.0) : clamp(x, -40.0, 710.5);
  const V biased = fma(y, literal(x, kLog2E), literal(x, magic(x)));
  const V n = biased - magic(x);
  V r = fma(n, literal(x, -ln2_high(x)), y);
  r = fma(n, literal(x, -ln2_low(x)), r);
  const V tail = fma(r * r, exp_tail(r), r);
  // 2^n (1 + tail) - 1 = 2 (2^(n-1) tail + (2^(n-1) - 1/2)), because 2^n may be out of range.
  const V half = power_of_two(n - 1);
  const V result = fma(half, tail, half - 0.5) * 2;
  // The halves of denormals are inexact, and zero keeps its sign.
  return select(abs(x) < (single(x) ? 0x1p-26 : 0x1p-55), x, result);
}

V power_of_two(V n) {
  const V biased = n + (single(n) ? 0x1.8p23 + 127 : 0x1.8p52 + 1023);
  return float_of(shift_left(bits_of(biased), mantissa_bits(n)));
}

V sigmoid(V x) {
  const V e = exp(-abs(x));
  const V left = x < 0;
  const Pair d = fast_two_sum(literal(x, 1), e);
  const V quotient = select(left, e, literal(x, 1)) / d.high;
  // 1 / d is the quotient itself, or 1 less it; with that the denominator's rounding comes off again.
  const V inverse = select(left, 1 - quotient, quotient);
  return fma(-quotient * d.low, inverse, quotient);
}

V tanh(V x) {
  const V a = abs(x);
  const V z = x * x;
  const V small = fma(x * z, single(x) ? polynomial(z, kTanhF32) : polynomial2(z, kTanhF64), x);
  // 1 - 2 / (exp(2a) + 1); the result rounds to 1 long before exp overflows.
  const V large = 1 - 2 / (exp(a + a) + 1);
  return select(a < 0.625, select(a < 0x1p-30, x, small), copy_sign(large, x));
}

V sinh(V x) {
  if (single(x)) return narrow(sinh(widen(x)));
  const V a = abs(x);
  const V z = x * x;
  const V small = fma(x * z, polynomial(z, kSinhF64), x);
  const V half = exp_pair(a, literal(x, 0), -1);
  const V large = half - 0.25 / half;
  return select(a < 1, select(a < 0x1p-30, x, small), copy_sign(large, x));
}

V cosh(V x) {
  if (single(x)) return narrow(cosh(widen(x)));
  const V half = exp_pair(abs(x), literal(x, 0), -1);
  return half + 0.25 / half;
}

}  // namespace lohe::ir::math
