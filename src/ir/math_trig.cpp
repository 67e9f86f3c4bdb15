#include "ir/math_impl.h"

/// Trigonometric functions and their inverses. Arguments are reduced, x = (n + f) pi/2, by subtracting n
/// times pi/2 in three parts (W. J. Cody and W. Waite, 1980). From 2^20 or 2^30 on a Rare does it, exactly
/// for every float: only those bits of 2/pi take part whose product with x is no multiple of 4 (M. Payne and
/// R. Hanek, 1983). They are selected by the exponent of x.
namespace lohe::ir::math {
namespace {

/// pi/2 in three parts.
constexpr double kHalfPi = 0x1.921fb54442d18p+0, kHalfPiLow = 0x1.1a62633145c07p-54,
                 kHalfPiLast = -0x1.f1976b7ed8fbcp-110;
// The same for kF32; the constants of a kF32 expression round once.
constexpr double kHalfPiF32 = 0x1.921fb6p+0, kHalfPiLowF32 = -0x1.777a5cf72cedp-25,
                 kHalfPiLastF32 = -0x1.ee59dap-50;
constexpr double kTwoOverPi = 0x1.45f306dc9c883p-1;
/// Below these n has few bits, and its error, from 2/pi in one number, adds 0.042 (kF32) or nothing to pi/4.
constexpr double kEasyF32 = 0x1p20, kEasyF64 = 0x1p30;

/// x mod (pi/2) = high + low with |high| <= pi/4 and a little, and the quadrant n mod 4 in the low bits of an
/// integer.
struct Reduced {
  V high, low, quadrant;
};

V mod_4(V t) { return fma(literal(t, -4), round_even(t * 0.25), t); }
V quadrant_of(V n) { return bits_of(n + 0x1.8p52); }

/// For any a >= 0 of kF32, in kF64: the product of a and the first 29 selected bits is exact.
Reduced reduce_any_f32(V a) {
  const V x = widen(a);
  V part[3];
  for (int i = 0; i < 3; ++i) {
    part[i] = literal(x, kTwoOverPiBands[3][i]);
    for (int band = 2; band >= 0; --band) {
      const double limit = band == 0 ? 0x1p32 : band == 1 ? 0x1p64 : 0x1p96;
      part[i] = select(x < limit, literal(x, kTwoOverPiBands[band][i]), part[i]);
    }
  }
  const V first = mod_4(x * part[0]);
  const Pair second = two_product(x, part[1]);
  const V rest = mod_4(second.high);
  const V n = round_even(first + rest);
  const V f = ((first - n) + rest) + fma(x, part[2], second.low);
  const V r = f * kHalfPi;
  const V high = narrow(r);
  return {high, narrow(r - widen(high)), x.builder->cast(quadrant_of(n), Type::kU32)};
}

/// For any x >= 0 of kF64. Five 53-bit chunks of 2/pi, starting at the first that matters, times x as exact
/// products; their sum keeps all bits until the integer n has been taken off.
Reduced reduce_any_f64(V x) {
  constexpr int chunks = sizeof kTwoOverPiChunks / sizeof kTwoOverPiChunks[0];
  constexpr int parts = 5;
  // Chunk j is of no account for exponents >= 53 j + 107; the window starts at `skip`.
  const V biased = shift_right(bits_of(x), 52);
  const V exponent = float_of(biased | bits_of(literal(x, 0x1p52))) - (0x1p52 + 1023);
  const V skip = maximum(floor((exponent - 53.5) * (1.0 / 53)), literal(x, 0));
  const V index = bits_of(skip + 0x1p52);
  V window[chunks];
  for (int i = 0; i < chunks; ++i) window[i] = literal(x, kTwoOverPiChunks[i]);
  for (int step = 16; step > 0; step /= 2) {  // a shift by `skip`, one bit of it at a time
    const V moves = (index & integer(index, static_cast<uint64_t>(step))) != integer(index, 0);
    for (int i = 0; i < parts + step - 1; ++i)
      window[i] = select(moves, i + step < chunks ? window[i + step] : literal(x, 0), window[i]);
  }
  const V scaled = x * power_of_two(skip * -53);
  V weight[parts];
  double scale = 1;
  for (int i = 0; i < parts; ++i) weight[i] = window[i] * (scale *= 0x1p-53);
  const Pair p0 = two_product(scaled, weight[0]), p1 = two_product(scaled, weight[1]);
  const Pair p2 = two_product(scaled, weight[2]), p3 = two_product(scaled, weight[3]);
  V term[8] = {mod_4(p0.high), mod_4(p0.low), mod_4(p1.high), p1.low,
               p2.high,        p2.low,        p3.high,        fma(scaled, weight[4], p3.low)};
  V n = literal(x, 0);
  for (int pass = 0; pass < 2;
       ++pass) {  // error-free sums, smallest terms first; the errors take the terms' places
    V sum = term[7];
    for (int i = 6; i >= 0; --i) {
      const Pair s = two_sum(term[i], sum);
      sum = s.high;
      term[i + 1] = s.low;
    }
    if (pass == 0) {
      n = round_even(sum);
      sum = sum - n;
    }
    term[0] = sum;
  }
  V low = term[7];
  for (int i = 6; i >= 1; --i) low = low + term[i];
  const Pair f = fast_two_sum(term[0], low);
  const V high = f.high * kHalfPi;
  const V error = fma(f.high, literal(x, kHalfPi), -high);
  return {high, fma(f.low, literal(x, kHalfPi), fma(f.high, literal(x, kHalfPiLow), error)), quadrant_of(n)};
}

/// For a >= 0. Unless `exact`, the rounding of `high` is not in the low part.
Reduced reduce(V a, bool exact) {
  const bool f32 = single(a);
  const double shift = f32 ? 0x1.8p23 : 0x1.8p52;
  const V part[] = {literal(a, f32 ? kHalfPiF32 : kHalfPi), literal(a, f32 ? kHalfPiLowF32 : kHalfPiLow),
                    literal(a, f32 ? kHalfPiLastF32 : kHalfPiLast)};
  const V shifted = fma(a, literal(a, kTwoOverPi), literal(a, shift));
  const V n = shifted - shift;
  const V first = fma(n, -part[0], a);  // exact: a multiple of the unit of n pi/2 or of a, and below 1
  V high, low;
  if (exact) {
    const Pair product = two_product(n, part[1]);
    high = first - product.high;
    low = fma(n, -part[2], ((first - high) - product.high) - product.low);
  } else {
    high = fma(n, -part[1], first);
    low = n * -part[2];
  }
  const std::vector<V> result = a.builder->rare(
      a >= (f32 ? kEasyF32 : kEasyF64), {high, low, bits_of(shifted)}, [&]() -> std::vector<V> {
        const Reduced any = f32 ? reduce_any_f32(a) : reduce_any_f64(a);
        return {any.high, any.low, any.quadrant};
      });
  return {result[0], result[1], result[2]};
}

/// r^2 for kF32 and a little, which rounds away later: x86 takes a hundred cycles for a denormal result.
V square_f32(V r) { return fma(r, r, literal(r, 0x1p-30)); }

/// sin(high + low) and cos(high + low) as sums, |high| <= pi/4; the low part of kF32 results is 0.
Pair sine_kernel(V r, V low) {
  if (single(r)) {
    const V z = square_f32(r);
    return {r + fma(r, z * polynomial(z, kSinF32), low), literal(r, 0)};
  }
  const V z = r * r;
  return {r, fma(r * z, polynomial2(z, kSinF64), fma(z * low, literal(r, -0.5), low))};
}
Pair cosine_kernel(V r, V low) {
  if (single(r)) {
    const V z = square_f32(r);
    return {fma(z, fma(z, polynomial(z, kCosF32), literal(r, -0.5)), literal(r, 1)), literal(r, 0)};
  }
  const V z = r * r;
  const V half = 0.5 * z;
  const V high = 1 - half;
  const V half_error = fma(0.5 * r, r, -half);
  return {high, ((1 - high) - half) + (fma(z * z, polynomial2(z, kCosF64), -half_error) - r * low)};
}

V is_odd(V quadrant) { return (quadrant & integer(quadrant, 1)) != integer(quadrant, 0); }
/// x with its sign changed where the highest bit of `flags` is set.
V change_sign(V x, V flags) { return float_of(bits_of(x) ^ (flags & bits_of(literal(x, -0.0)))); }

/// The sine of |x| with the sign of x, or cos(x) = sin(|x| + pi/2).
V sine(V x, bool cosine) {
  const Reduced reduced = reduce(abs(x), !single(x));
  const Pair s = sine_kernel(reduced.high, reduced.low);
  const Pair c = cosine_kernel(reduced.high, reduced.low);
  const V quarters = reduced.quadrant + integer(reduced.quadrant, cosine ? 1 : 0);
  const V odd = is_odd(quarters);
  V value = select(odd, c.high, s.high);
  if (!single(x)) value = value + select(odd, c.low, s.low);
  const V flags = shift_left(quarters, single(x) ? 30 : 62);
  return change_sign(value, cosine ? flags : flags ^ bits_of(x));
}

V tan_f32(V x) {
  const Reduced reduced = reduce(abs(x), true);
  const V r = reduced.high, z = square_f32(r);
  const V tail = fma(r, z * polynomial(z, kTanF32), fma(reduced.low, z, reduced.low));
  const Pair t = fast_two_sum(r, tail);
  // tan(r + pi/2) = -1 / tan r
  const V inverse = -1 / t.high;
  const V error = fma(inverse, t.low, fma(inverse, t.high, literal(x, 1)));
  const V value = select(is_odd(reduced.quadrant), fma(inverse, error, inverse), t.high);
  return change_sign(value, bits_of(x));
}

V tan_f64(V x) {
  const Reduced reduced = reduce(abs(x), true);
  Pair s = sine_kernel(reduced.high, reduced.low);
  Pair c = cosine_kernel(reduced.high, reduced.low);
  s = fast_two_sum(s.high, s.low);
  c = fast_two_sum(c.high, c.low);
  // tan(r + pi/2) = -cos r / sin r
  const V odd = is_odd(reduced.quadrant);
  const V numerator = select(odd, c.high, s.high), numerator_low = select(odd, c.low, s.low);
  const V denominator = select(odd, s.high, c.high), denominator_low = select(odd, s.low, c.low);
  const V value = numerator / denominator;
  const V remainder = fma(-value, denominator, numerator) + fma(-value, denominator_low, numerator_low);
  return change_sign(value + remainder / denominator, shift_left(reduced.quadrant, 63) ^ bits_of(x));
}

/// (turns pi/2) + a + b for |b| far below |a|, with one rounding of the size of the result.
V add_quarters(V turns, V a, V b) {
  const double high = single(a) ? kHalfPiF32 : kHalfPi, low = single(a) ? kHalfPiLowF32 : kHalfPiLow;
  const Pair sum = fast_two_sum(turns * high, a);
  return sum.high + (sum.low + fma(turns, literal(a, low), b));
}

/// atan(t) - t for |t| <= 1 and asin(x) - x for |x| <= 1/2.
V atan_tail(V t) {
  const V z = t * t;
  return t * z * (single(t) ? polynomial(z, kAtanF32) : polynomial(z, kAtanF64));  // two chains would cancel
}
V asin_tail(V x) {
  const V z = x * x;
  return x * z * (single(x) ? polynomial(z, kAsinF32) : polynomial2(z, kAsinF64));
}

}  // namespace

V sin(V x) { return sine(x, false); }

V cos(V x) { return sine(x, true); }

V tan(V x) { return single(x) ? tan_f32(x) : tan_f64(x); }

V atan(V x) {
  const V a = abs(x);
  const V big = a > 1;
  const V t = select(big, 1 / a, a);
  const V tail = atan_tail(t);
  const V result = select(big, add_quarters(literal(x, 1), -t, -tail), t + tail);
  return copy_sign(result, x);
}

V atan2(V y, V x) {
  const V a = abs(y), b = abs(x);
  const V steep = a > b;
  const V larger = select(steep, a, b), smaller = select(steep, b, a);
  // 0 / 0 is an angle of 0, inf / inf one of pi/4; NaN goes through.
  V t = smaller / larger;
  t = select(larger == 0, larger, t);
  t = select(smaller == infinity(x), literal(x, 1), t);
  const V tail = atan_tail(t);
  const V left = negative_sign(x);
  // With u = atan t: pi/2 - u, pi/2 + u, pi - u or u.
  const V turns = select(steep, literal(x, 1), select(left, literal(x, 2), literal(x, 0)));
  const V turned = steep ^ left;
  const V result = add_quarters(turns, select(turned, -t, t), select(turned, -tail, tail));
  return select(is_nan(x), x, select(is_nan(y), y, copy_sign(result, y)));
}

V asin(V x) {
  const V a = abs(x);
  const V outer = a > 0.5;
  // asin a = pi/2 - 2 asin sqrt((1 - a) / 2)
  const V inner = select(outer, sqrt(0.5 * (1 - a)), a);
  const V tail = asin_tail(inner);
  const V result = select(outer, add_quarters(literal(x, 1), -2 * inner, -2 * tail), inner + tail);
  return copy_sign(result, x);
}

V acos(V x) {
  const V a = abs(x);
  const V outer = a > 0.5;
  const V left = x < 0;
  // 2 asin sqrt((1 - a) / 2) or pi less that; pi/2 - asin x in the middle.
  const V inner = select(outer, 2 * sqrt(0.5 * (1 - a)), a);
  const V tail = select(outer, literal(x, 2), literal(x, 1)) * asin_tail(select(outer, 0.5 * inner, a));
  const V turns = select(outer, select(left, literal(x, 2), literal(x, 0)), literal(x, 1));
  const V plus = outer ^ left;  // the sign of asin's part
  return add_quarters(turns, select(plus, inner, -inner), select(plus, tail, -tail));
}

}  // namespace lohe::ir::math
