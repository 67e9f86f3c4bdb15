#pragma once

#include "ir/math.h"
#include "ir/math_coefficients.h"
#include "ir/math_pieces.h"

/// What the files math_*.cpp share: bit access, polynomials, unevaluated sums of two floats, and the cores of
/// exp and log.
namespace lohe::ir::math {

inline bool single(V x) { return x.type() == Type::kF32; }
inline V widen(V x) { return x.builder->cast(x, Type::kF64); }
inline V narrow(V x) { return x.builder->cast(x, Type::kF32); }

/// The bits of a float as an unsigned integer of its size, and back. Unsigned because AVX2 has no arithmetic
/// shift of 64-bit lanes.
inline V bits_of(V x) { return x.builder->bitcast(x, single(x) ? Type::kU32 : Type::kU64); }
inline V float_of(V bits) {
  return bits.builder->bitcast(bits, bits.type() == Type::kU32 ? Type::kF32 : Type::kF64);
}
inline V integer(V like, uint64_t x) {
  return like.builder->constant_int(like.type(), static_cast<int64_t>(x));
}
inline V shift_left(V x, int n) { return x << integer(x, static_cast<uint64_t>(n)); }
inline V shift_right(V x, int n) { return x >> integer(x, static_cast<uint64_t>(n)); }

inline constexpr double kInfinity = __builtin_inf();
inline constexpr double kPi = 0x1.921fb54442d18p+1;
/// ln 2 = high + low; high's trailing zeros make its product with an exponent exact.
inline double ln2_high(V x) { return single(x) ? 0x1.62e4p-1 : 0x1.62e42fefa3800p-1; }
inline double ln2_low(V x) { return single(x) ? 0x1.7f7d1cf79abcap-20 : 0x1.ef35793c76730p-45; }
inline V infinity(V like) { return literal(like, kInfinity); }
inline V not_a_number(V like) { return literal(like, __builtin_nan("")); }

/// `magnitude`, which has no sign yet, with the sign of `sign`.
inline V copy_sign(V magnitude, V sign) {
  const V sign_bit = bits_of(literal(sign, -0.0));
  return float_of(bits_of(magnitude) | (bits_of(sign) & sign_bit));
}
inline V negative_sign(V x) { return (bits_of(x) & bits_of(literal(x, -0.0))) != integer(bits_of(x), 0); }
inline V minimum(V a, V b) { return select(a < b, a, b); }  ///< b where either is NaN
inline V maximum(V a, V b) { return select(a > b, a, b); }
/// x within [low, high]; NaN stays NaN.
inline V clamp(V x, double low, double high) {
  return minimum(literal(x, high), maximum(literal(x, low), x));
}

/// c[0] + c[1] x + ... by Horner's rule.
template <int N>
V polynomial(V x, const double (&c)[N]) {
  V sum = literal(x, c[N - 1]);
  for (int i = N - 2; i >= 0; --i) sum = fma(sum, x, literal(x, c[i]));
  return sum;
}
/// The same in two interleaved chains: half the latency, one multiplication and one step more.
template <int N>
V polynomial2(V x, const double (&c)[N]) {
  const V square = x * x;
  V even = literal(x, c[(N - 1) & ~1]);
  for (int i = ((N - 1) & ~1) - 2; i >= 0; i -= 2) even = fma(even, square, literal(x, c[i]));
  V odd = literal(x, c[((N - 2) & ~1) + 1]);
  for (int i = ((N - 2) & ~1) - 1; i >= 0; i -= 2) odd = fma(odd, square, literal(x, c[i]));
  return fma(odd, x, even);
}

/// f(a) for a >= 0 or NaN, kF32, from pieces looked up by the leading bits of a number that grows with a: one
/// short chain of operations, where a select between formulas computes both. Above `last` f is what it is
/// there.
template <size_t kRows>
V piecewise(V a, const Pieces<kRows>& f) {
  a = minimum(literal(a, f.last), a);
  const V index = shift_right(bits_of(fma(a, literal(a, f.scale), literal(a, f.first))), 21);
  const auto row = [&](size_t i) { return a.builder->table(index, f.rows[i]); };
  const V u = a - row(0);
  V q = row(kRows - 1);
  for (size_t i = kRows - 2; i >= 3; --i) q = fma(q, u, row(i));
  return fma(q, u, fma(row(2), u, row(1)));
}

/// The same with one rounding of the size of c[0], for c[0] above the rest.
template <int N>
V polynomial_rest(V x, const double (&c)[N]) {
  double rest[N - 1];
  for (int i = 1; i < N; ++i) rest[i - 1] = c[i];
  return x * polynomial2(x, rest);
}

/// An unevaluated sum: high is the float nearest to high + low.
struct Pair {
  V high, low;
};
inline Pair two_sum(V a, V b) {  // Knuth
  const V s = a + b;
  const V t = s - a;
  return {s, (a - (s - t)) + (b - t)};
}
inline Pair fast_two_sum(V a, V b) {  // Dekker; |a| >= |b| or a = 0
  const V s = a + b;
  return {s, b - (s - a)};
}
inline Pair two_product(V a, V b) {
  const V p = a * b;
  return {p, fma(a, b, -p)};
}

/// exp(high + low) * 2^shift with one rounding more than exp(high); |low| is small against 1. Overflow gives
/// infinity, underflow denormals and 0.
V exp_pair(V high, V low, int shift = 0);
/// factor * exp(high + low), for a factor within the normal range, with one rounding of the result's size.
V exp_pair_times(V high, V low, V factor);

/// log(1 + f) for sqrt(1/2) <= 1 + f < sqrt(2), kF64, as a sum.
Pair log_of_fraction(V f);
/// log(a) for finite a > 0 in kF64, as a sum, to about 2^-67 of its size.
Pair log_pair(V a);
/// x = (1 + f) * 2^exponent, sqrt(1/2) <= 1 + f < sqrt(2), for finite x > 0.
struct Scaled {
  V f, exponent;  ///< both of x's type; f is exact
};
Scaled split(V x);
/// 2^n for integral n of a float type, within the normal range.
V power_of_two(V n);

}  // namespace lohe::ir::math
