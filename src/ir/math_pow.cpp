#include "ir/math_impl.h"

/// Functions of two operands that are exact or nearly so: pow, fmod, hypot, and rsqrt.
namespace lohe::ir::math {
namespace {

constexpr double kTwoThirds = 0x1.5555555555555p-1, kTwoThirdsLow = 0x1.5555555555555p-55;

}  // namespace

Pair log_pair(V a) {
  const Scaled parts = split(a);
  const V f = parts.f;
  // s = f / (2 + f), log(1 + f) = 2 s + s^3 (2/3 + s^2 P(s^2))
  const Pair d = fast_two_sum(literal(f, 2), f);
  const V s = f / d.high;
  const V s_low = (fma(-s, d.high, f) - s * d.low) / d.high;
  const V z = s * s;
  const V z_low = fma(s, s, -z) + 2 * s * s_low;
  const Pair c = fast_two_sum(literal(f, kTwoThirds), z * polynomial2(z, kPowLogF64));
  const V c_low = c.low + fma(z_low, polynomial2(z, kPowLogF64), literal(f, kTwoThirdsLow));
  const V cube = z * s;
  const V cube_low = fma(z, s, -cube) + fma(z, s_low, z_low * s);
  const V tail = cube * c.high;
  const V tail_low = fma(cube, c.high, -tail) + fma(cube, c_low, cube_low * c.high);
  const Pair first = fast_two_sum(parts.exponent * ln2_high(f), 2 * s);
  const Pair second = fast_two_sum(first.high, tail);
  const V low =
      first.low + (second.low + (tail_low + fma(parts.exponent, literal(f, ln2_low(f)), 2 * s_low)));
  return fast_two_sum(second.high, low);
}

namespace {

V power_of_positive(V a, V y) {
  const Pair l = log_pair(a);
  const V high = select(a == 0, -infinity(a), select(a == infinity(a), a, l.high));
  const V product = y * high;
  const V low = fma(y, l.low, fma(y, high, -product));
  return exp_pair(product, select(abs(product) < 1e4, low, literal(a, 0)));
}

}  // namespace

V pow(V x, V y) {
  const V a = abs(x);
  V magnitude = single(x) ? narrow(exp(widen(y) * log(widen(a)))) : power_of_positive(a, y);
  const V one = literal(x, 1);
  magnitude = select(a == 1, one, magnitude);
  const V half = 0.5 * y;
  const V integral = trunc(y) == y;
  const V odd = integral & (trunc(half) != half);
  V result = select(negative_sign(x) & odd, -magnitude, magnitude);
  // A negative base with a fractional exponent; infinities count as even integers.
  const V undefined = (x < 0) & ~integral & (a != infinity(x));
  result = select(undefined, not_a_number(x), result);
  result = select(is_nan(x), x, result);
  result = select(is_nan(y), y, result);
  return select((y == 0) | (x == 1), one, result);
}

V hypot(V x, V y) {
  const V a = abs(x), b = abs(y);
  V result;
  if (single(x)) {
    const V u = widen(a), v = widen(b);
    result = narrow(sqrt(fma(u, u, v * v)));  // kF64 holds the squares of all floats
  } else {
    const V larger = maximum(a, b), smaller = minimum(a, b);
    // Powers of two bring the squares into range.
    const V big = larger > 0x1p500, small = larger < 0x1p-400;
    const V scale = select(big, literal(x, 0x1p-600), select(small, literal(x, 0x1p600), literal(x, 1)));
    const V back = select(big, literal(x, 0x1p600), select(small, literal(x, 0x1p-600), literal(x, 1)));
    const V u = larger * scale, v = smaller * scale;
    result = sqrt(fma(u, u, v * v)) * back;
  }
  result = select(is_nan(x), x, select(is_nan(y), y, result));
  return select((a == infinity(x)) | (b == infinity(x)), infinity(x), result);
}

V rsqrt(V x) { return 1 / sqrt(x); }

namespace {

/// a * b mod m for integers a, b < m < 2^24 held in kF64: the product and the quotient's error are exact.
V multiply_mod_single(V a, V b, V m) {
  const V product = a * b;
  const V r = fma(-trunc(product / m), m, product);
  return select(r < 0, r + m, select(r >= m, r - m, r));
}

/// a * b mod m for 0 <= a, b < m < 2^53 as u64. The estimate of the quotient is off by at most 3, so that the
/// difference modulo 2^64 is the remainder plus a small multiple of m.
V multiply_mod_double(V a, V b, V m) {
  const auto to_float = [](V u) {
    return float_of(u | bits_of(u.builder->constant(Type::kF64, 0x1p52))) - 0x1p52;
  };
  const auto convert = [&](V u) {  // below 2^53: the top bit apart
    const V low = u & integer(u, (uint64_t{1} << 32) - 1);
    return fma(to_float(shift_right(u, 32)), u.builder->constant(Type::kF64, 0x1p32), to_float(low));
  };
  const V estimate = trunc(convert(a) * convert(b) / convert(m));
  // Below 2^54: as an integer by its upper and lower halves.
  const V upper = floor(estimate * 0x1p-32);
  const V lower = fma(upper, literal(upper, -0x1p32), estimate);
  const V mask = integer(a, (uint64_t{1} << 52) - 1);
  const V quotient = shift_left(bits_of(upper + 0x1p52) & mask, 32) + (bits_of(lower + 0x1p52) & mask);
  V r = a * b - quotient * m;
  const V zero = integer(a, 0);
  const V sign = integer(a, uint64_t{1} << 63);
  r = select((r & sign) != zero, r + m + m + m, r);
  r = select(r >= m + m, r - m - m, r);
  r = select(r >= m + m, r - m - m, r);
  return select(r >= m, r - m, r);
}

/// The significand as an integer and the exponent such that |x| = significand * 2^(exponent - bias - digits).
void take_apart(V x, int digits, V* significand, V* exponent) {
  const V bits = bits_of(abs(x));
  const V biased = shift_right(bits, digits);
  const V normal = biased != integer(bits, 0);
  const V fraction = bits & integer(bits, (uint64_t{1} << digits) - 1);
  *significand = select(normal, fraction | integer(bits, uint64_t{1} << digits), fraction);
  *exponent = select(normal, biased, integer(bits, 1));
}

/// x mod y = (m_x 2^n mod m_y) 2^e_y for integers m: modular exponentiation takes log2(n) multiplications,
/// whatever the ratio of x and y.
V fmod_any(V x, V y) {
  const bool f32 = single(x);
  const int digits = f32 ? 23 : 52;
  V mx, ex, my, ey;
  take_apart(x, digits, &mx, &ex);
  take_apart(y, digits, &my, &ey);
  const V a = abs(x), b = abs(y);
  const V shrinks = a >= b;
  const V n = select(shrinks, ex - ey, integer(ex, 0));
  const V one = integer(ex, 1);
  const V divisor = select(my == integer(my, 0), one, my);
  V rest;
  if (f32) {
    const auto to_double = [](V u) {
      return widen(float_of(u | bits_of(u.builder->constant(Type::kF32, 0x1p23))) - 0x1p23);
    };
    const auto split_digits = [&](V u) {  // 24 bits: the top bit apart
      const V low = u & integer(u, (1u << 23) - 1);
      return to_double(low) + select(u == low, widen(literal(x, 0)), widen(literal(x, 0x1p23)));
    };
    const V m = split_digits(divisor);
    // n < 2^9: 2^(n >> 4) <= 2^17, then four squarings.
    const V wide_one = literal(m, 1);
    V power = widen(float_of(shift_left(shift_right(n, 4) + integer(n, 127), 23)));
    power = multiply_mod_single(power, wide_one, m);
    for (int bit = 3; bit >= 0; --bit) {
      power = multiply_mod_single(power, power, m);
      const V doubled = power + power;
      power = select((n & integer(n, 1u << bit)) != integer(n, 0), select(doubled >= m, doubled - m, doubled),
                     power);
    }
    const V significand = split_digits(mx);
    rest = narrow(multiply_mod_single(multiply_mod_single(significand, wide_one, m), power, m));
  } else {
    // n < 2^12: 2^(n >> 6) <= 2^32, then six squarings.
    V power = one << shift_right(n, 6);
    power = multiply_mod_double(power, one, divisor);
    for (int bit = 5; bit >= 0; --bit) {
      power = multiply_mod_double(power, power, divisor);
      const V doubled = power + power;
      power = select((n & integer(n, 1u << bit)) != integer(n, 0),
                     select(doubled >= divisor, doubled - divisor, doubled), power);
    }
    const V remainder = multiply_mod_double(multiply_mod_double(mx, one, divisor), power, divisor);
    const V low = remainder & integer(remainder, (uint64_t{1} << 32) - 1);
    const V base = bits_of(literal(x, 0x1p52));
    rest = fma(float_of(shift_right(remainder, 32) | base) - 0x1p52, literal(x, 0x1p32),
               float_of(low | base) - 0x1p52);
  }
  // rest * 2^(ey - bias - digits) in two steps, both exact.
  const uint64_t bias = f32 ? 127 : 1023;
  const V offset = ey + integer(ey, bias - static_cast<uint64_t>(digits));
  const V first = shift_right(offset, 1);
  const V remainder =
      (rest * float_of(shift_left(first, digits))) * float_of(shift_left(offset - first, digits));
  V result = select(shrinks, copy_sign(remainder, x), x);
  result = select((b == 0) | (a == infinity(x)), not_a_number(x), result);
  return select(is_nan(x), x, select(is_nan(y), y, result));
}

}  // namespace

// The quotient, rounded and cut, is the integral one or, where rounding reached the next, one more. As long
// as it has no more digits than a float, x - q y is a multiple of y's unit and no larger than y, so that one
// fma gives it exactly.
V fmod(V x, V y) {
  const V a = abs(x), b = abs(y);
  const V q = trunc(a / b);
  const V r = fma(-q, b, a);
  const V rest = select(a < b, a, select(r < 0, r + b, r));
  const V few_digits = q < literal(x, single(x) ? 0x1p23 : 0x1p52);
  return x.builder->rare(~few_digits, {copy_sign(rest, x)},
                         [&]() -> std::vector<V> { return {fmod_any(x, y)}; })[0];
}

}  // namespace lohe::ir::math
