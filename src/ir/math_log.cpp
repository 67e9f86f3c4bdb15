#include "ir/math_impl.h"

/// Logarithms: x = (1 + f) 2^e with sqrt(1/2) <= 1 + f < sqrt(2). In kF32 log(1 + f) = f + f^2 Q(f); in kF64
/// the series of atanh(f / (2 + f)), whose terms fall faster, is worth its division.
namespace lohe::ir::math {
namespace {

constexpr double kLn2 = 0x1.62e42fefa39efp-1;
// Logarithms of 2 have a short high part, as ln2_high.
constexpr double kLog2EHigh = 0x1.71547652b82fep+0, kLog2ELow = 0x1.777d0ffda0d24p-56;
constexpr double kLog10EHigh = 0x1.bcb7b1526e50ep-2, kLog10ELow = 0x1.95355baaafad3p-57;
constexpr double kLog10Of2High = 0x1.34413509f7800p-2, kLog10Of2Low = 0x1.fef311f12b358p-46;
constexpr double kLog10Of2HighF32 = 0x1.344p-2, kLog10Of2LowF32 = 0x1.3509f79fef312p-18;

/// `result`, or log's values outside (0, inf).
V at_the_edges(V x, V result) {
  result = select(x == infinity(x), x, result);
  return select(x > 0, result, select(x == 0, -infinity(x), not_a_number(x)));
}

/// The base's logarithm in kF32: per_e = 1 / ln(base) = per_e_high + per_e_low, two = log(2) = two_high +
/// two_low.
V log_single(V x, double per_e, double two_high, double two_low) {
  const Scaled s = split(x);
  const V f = s.f;
  const double per_e_high = static_cast<float>(per_e);
  V tail = polynomial(f, kLogF32);
  if (per_e != 1) tail = tail * per_e;
  tail = per_e == per_e_high ? tail * f : fma(tail, f, literal(f, per_e - per_e_high));
  // The short terms first, then the long ones: one rounding of the size of the result, one of the size of f.
  V sum = tail * f;
  if (two_low != 0) sum = fma(s.exponent, literal(f, two_low), sum);
  sum = per_e_high == 1 ? sum + f : fma(f, literal(f, per_e_high), sum);
  return at_the_edges(x, fma(s.exponent, literal(f, two_high), sum));
}

/// (log(1 + f) as a sum) / ln(base) + e log(2) in kF64.
V log_double(V x, double per_e_high, double per_e_low, double two_high, double two_low) {
  const Scaled s = split(x);
  const Pair l = log_of_fraction(s.f);
  V high = l.high, low = l.low;
  if (per_e_high != 1) {
    const Pair product = two_product(l.high, literal(x, per_e_high));
    high = product.high;
    low = fma(l.high, literal(x, per_e_low), fma(l.low, literal(x, per_e_high), product.low));
  }
  const Pair sum = fast_two_sum(s.exponent * two_high, high);
  if (two_low != 0) low = fma(s.exponent, literal(x, two_low), low);
  return at_the_edges(x, sum.high + (sum.low + low));
}

}  // namespace

Scaled split(V x) {
  const bool f32 = single(x);
  const int m = f32 ? 23 : 52;
  const V tiny = x < (f32 ? 0x1p-126 : 0x1p-1022);
  const V bits = bits_of(select(tiny, x * (f32 ? 0x1p23 : 0x1p52), x));
  const uint64_t root_half = f32 ? 0x3f3504f3u : 0x3fe6a09e667f3bcdull;
  const uint64_t one = f32 ? 0x3f800000u : 0x3ff0000000000000ull;
  const V shifted = bits + integer(bits, one - root_half);
  const V biased = shift_right(shifted, m);
  const V fraction = (shifted & integer(bits, (uint64_t{1} << m) - 1)) + integer(bits, root_half);
  // The integer in the low bits of a large float becomes a float by a subtraction.
  const double base = f32 ? 0x1p23 : 0x1p52;
  const V exponent =
      float_of(biased | bits_of(literal(x, base))) -
      select(tiny, literal(x, base + (f32 ? 127 + 23 : 1023 + 52)), literal(x, base + (f32 ? 127 : 1023)));
  return {float_of(fraction) - 1, exponent};
}

Pair log_of_fraction(V f) {
  const V s = f / (2 + f);
  const V z = s * s;
  const V half_square = 0.5 * f * f;
  // log(1 + f) = f - f^2/2 + s (f^2/2 + R(z)) (K. C. Ng, fdlibm, 1993).
  const V tail = s * fma(z, polynomial2(z, kLogF64), half_square);
  const Pair sum = fast_two_sum(f, -half_square);
  return {sum.high, (sum.low - fma(0.5 * f, f, -half_square)) + tail};
}

V log(V x) {
  return single(x) ? log_single(x, 1, ln2_high(x), ln2_low(x)) : log_double(x, 1, 0, ln2_high(x), ln2_low(x));
}

V log2(V x) {
  return single(x) ? log_single(x, kLog2EHigh, 1, 0) : log_double(x, kLog2EHigh, kLog2ELow, 1, 0);
}

V log10(V x) {
  if (single(x)) return log_single(x, kLog10EHigh, kLog10Of2HighF32, kLog10Of2LowF32);
  return log_double(x, kLog10EHigh, kLog10ELow, kLog10Of2High, kLog10Of2Low);
}

V log1p(V x) {
  // 1 + x = u + c exactly; f = (1 + f_u) + c 2^-e - 1, which is x itself where e = 0.
  const Pair sum = two_sum(literal(x, 1), x);
  const V u = sum.high;
  const Scaled s = split(u);
  const V limit = literal(x, single(x) ? -126 : -1022);
  const V f = fma(sum.low, power_of_two(maximum(-s.exponent, limit)), s.f);
  V result;
  if (single(x)) {
    const V tail = fma(s.exponent, literal(x, ln2_low(x)), polynomial(f, kLogF32) * f * f);
    result = fma(s.exponent, literal(x, ln2_high(x)), f + tail);
  } else {
    const Pair l = log_of_fraction(f);
    const Pair total = fast_two_sum(s.exponent * ln2_high(x), l.high);
    result = total.high + (total.low + fma(s.exponent, literal(x, ln2_low(x)), l.low));
  }
  result = at_the_edges(u, result);
  return select(abs(x) < (single(x) ? 0x1p-26 : 0x1p-55), x, result);
}

V asinh(V x) {
  if (single(x)) return narrow(asinh(widen(x)));
  const V a = abs(x);
  const V large = log(a) + kLn2;
  const V square = a * a;
  const V small = log1p(a + square / (1 + sqrt(square + 1)));
  return select(a < 0x1p-28, x, copy_sign(select(a > 0x1p28, large, small), x));
}

V acosh(V x) {
  if (single(x)) return narrow(acosh(widen(x)));
  // log(1 + u), u = t + sqrt(t (t + 2)) as a sum: near 1 every rounding of u is one of the result.
  const V t = x - 1;
  const Pair factor = two_sum(literal(x, 2), t);
  const Pair square = two_product(t, factor.high);
  const V root = sqrt(square.high);
  const V missing = fma(-root, root, square.high) + fma(t, factor.low, square.low);
  const V root_low = missing / (2 * maximum(root, literal(x, 0x1p-500)));
  const Pair u = two_sum(root, t);
  const V small = log1p(u.high) + (u.low + root_low) / (1 + u.high);
  const V result = select(x > 0x1p28, log(x) + kLn2, small);
  return select(x < 1, not_a_number(x), result);
}

V atanh(V x) {
  if (single(x)) return narrow(atanh(widen(x)));
  const V a = abs(x);
  const V twice = a + a;
  const V argument = select(a < 0.5, fma(twice, a / (1 - a), twice), twice / (1 - a));
  return select(a < 0x1p-28, x, copy_sign(0.5 * log1p(argument), x));
}

}  // namespace lohe::ir::math
