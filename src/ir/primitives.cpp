#include "ir/primitives.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "ir/math.h"
#include "lohe/error.h"

namespace lohe::ir {
namespace {

constexpr std::array<Primitive, static_cast<size_t>(Prim::kCount)> kTable{{
    {"input", 0, 0},     {"scalar", 0, 0},      {"const", 0, 0},   {"extent", 0, 0},
    {"iota", 0, 0},      {"inside", 0, 2},      {"add", 2, 1},     {"sub", 2, 1},
    {"mul", 2, 1},       {"div", 2, 4},         {"neg", 1, 1},     {"abs", 1, 1},
    {"sign", 1, 2},      {"reciprocal", 1, 4},  {"square", 1, 1},  {"floor_div", 2, 20},
    {"trunc_div", 2, 8}, {"remainder", 2, 20},  {"fmod", 2, 15},   {"minimum", 2, 3},
    {"maximum", 2, 3},   {"fmin", 2, 3},        {"fmax", 2, 3},    {"pow", 2, 40},
    {"sqrt", 1, 4},      {"rsqrt", 1, 6},       {"exp", 1, 15},    {"exp2", 1, 15},
    {"expm1", 1, 20},    {"log", 1, 15},        {"log2", 1, 15},   {"log10", 1, 15},
    {"log1p", 1, 20},    {"sin", 1, 25},        {"cos", 1, 25},    {"tan", 1, 30},
    {"asin", 1, 20},     {"acos", 1, 20},       {"atan", 1, 20},   {"atan2", 2, 25},
    {"sinh", 1, 25},     {"cosh", 1, 25},       {"tanh", 1, 20},   {"asinh", 1, 25},
    {"acosh", 1, 25},    {"atanh", 1, 25},      {"erf", 1, 20},    {"erfc", 1, 30},
    {"erfinv", 1, 30},   {"gelu_slope", 1, 15}, {"lgamma", 1, 60}, {"digamma", 1, 60},
    {"sigmoid", 1, 20},  {"hypot", 2, 10},      {"fma", 3, 1},     {"floor", 1, 1},
    {"ceil", 1, 1},      {"trunc", 1, 1},       {"round", 1, 1},   {"and", 2, 1},
    {"or", 2, 1},        {"xor", 2, 1},         {"not", 1, 1},     {"shl", 2, 1},
    {"shr", 2, 1},       {"eq", 2, 1},          {"ne", 2, 1},      {"lt", 2, 1},
    {"le", 2, 1},        {"is_nan", 1, 1},      {"signbit", 1, 1}, {"select", 3, 1},
    {"cast", 1, 1},      {"bitcast", 1, 0},     {"real", 1, 0},    {"imag", 1, 0},
    {"conj", 1, 1},      {"complex", 2, 0},     {"angle", 1, 25},  {"philox", 2, 60},
    {"sum", 1, 1},       {"prod", 1, 1},        {"amax", 1, 2},    {"amin", 1, 2},
    {"any", 1, 1},       {"all", 1, 1},         {"argmax", 1, 4},  {"argmin", 1, 4},
}};

bool floating(V x) { return is_float(x.type()); }
V zero(V like) { return literal(like, 0); }
V one(V like) { return literal(like, 1); }
V infinity(V like) { return literal(like, std::numeric_limits<double>::infinity()); }

/// The sign bit of y on the magnitude of x.
V copysign(V x, V y) {
  Builder& b = *x.builder;
  const Type bits = x.type() == Type::kF32 ? Type::kI32 : Type::kI64;
  const V mask = b.constant_bits(bits, x.type() == Type::kF32 ? 0x80000000u : 0x8000000000000000u);
  return b.bitcast((b.bitcast(x, bits) & ~mask) | (b.bitcast(y, bits) & mask), x.type());
}

/// Integral quotient and remainder, cut towards zero: those that are asked for.
struct Division {
  V quotient, rest;
};

/// Processors divide integers one at a time, and floats by vectors. The quotient of floats, rounded and cut,
/// is the integral one or, where rounding reached the next, one more; up to 2^52 (2^16 for kF32) all products
/// and differences are exact.
Division divided(V x, V y, bool quotient, bool rest) {
  Builder& b = *x.builder;
  const Type own = x.type();
  const bool narrow = size_of(own) < 4;
  if (own == Type::kU32 || own == Type::kU64 || own == Type::kBool) return {x / y, x % y};
  const Type wide = narrow ? Type::kI32 : Type::kI64;
  const V n = b.cast(x, wide), d = b.cast(y, wide), none = literal(n, 0);
  const V size = abs(n), by = abs(d);
  V easy = by != none;
  if (own == Type::kI64) easy = easy & (((size | by) >> literal(size, 52)) == none);
  // Of integers below 2^52, whose bits are those of a double's fraction.
  const V unit = b.bitcast(b.constant(Type::kF64, 0x1p52), Type::kI64);
  const V fraction = b.constant_int(Type::kI64, (int64_t{1} << 52) - 1);
  const auto to_float = [&](V u) {
    return narrow ? b.cast(u, Type::kF32) : b.bitcast(u | unit, Type::kF64) - 0x1p52;
  };
  const auto to_int = [&](V f) {
    return narrow ? b.cast(f, Type::kI32) : b.bitcast(f + 0x1p52, Type::kI64) & fraction;
  };
  const V fn = to_float(size), fd = to_float(by);
  V q = trunc(fn / fd), r = fn - q * fd;
  const V too_large = r < 0;
  std::vector<V> usual;
  if (quotient) {
    const V found = to_int(select(too_large, q - 1, q));
    usual.push_back(b.cast(select((n < none) != (d < none), -found, found), own));
  }
  if (rest) {
    const V found = to_int(select(too_large, r + fd, r));
    usual.push_back(b.cast(select(n < none, -found, found), own));
  }
  const std::vector<V> results = b.rare(~easy, usual, [&]() -> std::vector<V> {
    std::vector<V> slow;
    if (quotient) slow.push_back(x / y);
    if (rest) slow.push_back(x % y);
    return slow;
  });
  return {results.front(), results.back()};
}

V floor_div(V x, V y) {
  if (!floating(x)) {
    if (!is_signed_int(x.type())) return divided(x, y, true, false).quotient;
    const Division d = divided(x, y, true, true);
    const V q = d.quotient;
    return select((d.rest != zero(x)) & ((x < zero(x)) != (y < zero(y))), q - one(q), q);
  }
  // As Python's float floor division: through the exact remainder.
  const V mod = math::fmod(x, y);
  V q = (x - mod) / y;
  q = select((mod != zero(mod)) & ((y < zero(y)) != (mod < zero(mod))), q - one(q), q);
  const V f = floor(q);
  const V nearest = select(q - f > literal(q, 0.5), f + one(f), f);
  const V result = select(q != zero(q), nearest, copysign(zero(x), x / y));
  return select(y == zero(y), x / y, result);
}

V remainder(V x, V y) {
  if (!floating(x)) {
    const V r = divided(x, y, false, true).rest;
    if (!is_signed_int(x.type())) return r;
    return select((r != zero(r)) & ((r < zero(r)) != (y < zero(y))), r + y, r);
  }
  const V r = math::fmod(x, y);
  return select((r != zero(r)) & ((y < zero(y)) != (r < zero(r))), r + y, r);
}

/// Square and multiply over all bits of the exponent; a negative exponent leaves 0 except for bases 1 and -1.
V int_pow(V base, V exponent) {
  Builder& b = *base.builder;
  const int bits = size_of(base.type()) * 8;
  Builder::Reduction r;
  r.init = {one(base), base, exponent};
  r.combine = [](const std::vector<V>& acc, const std::vector<V>&) -> std::vector<V> {
    const V odd = (acc[2] & one(acc[2])) != zero(acc[2]);
    return {select(odd, acc[0] * acc[1], acc[0]), acc[1] * acc[1], acc[2] >> one(acc[2])};
  };
  const auto result = b.reduce(
      {{b.constant_int(Type::kI64, 0), b.constant_int(Type::kI64, bits)}}, false, {r},
      [&](const std::vector<V>&) { return std::vector<std::vector<V>>{{one(base), one(base), one(base)}}; });
  if (!is_signed_int(base.type())) return result[0][0];
  const V minus = zero(base) - one(base);
  const V odd = (exponent & one(exponent)) != zero(exponent);
  const V negative =
      select(base == one(base), one(base), select(base == minus, select(odd, minus, one(base)), zero(base)));
  return select(exponent < zero(exponent), negative, result[0][0]);
}

/// The test for NaN is of the first operand: where that is a bound, it is one test for all elements.
V minimum(V x, V y, bool max) {
  if (x.type() == Type::kBool) return max ? x | y : x & y;
  // b where that is more extreme, else a: of two zeros y, and y where either is NaN.
  const V extreme = x.builder->binary(max ? Op::kMax : Op::kMin, y, x);
  return floating(x) ? select(is_nan(x), x, extreme) : extreme;
}

/// Words of Philox 4x32-10 (Salmon et al., SC 2011) at a 64-bit counter and key.
V philox(Builder& b, V counter, V key, int word) {
  const auto c32 = [&](uint32_t v) { return b.constant_bits(Type::kU32, v); };
  const auto low = [&](V x) { return b.cast(x, Type::kU32); };
  const V wide = b.cast(counter, Type::kU64), wide_key = b.cast(key, Type::kU64);
  const V thirty_two = b.constant_bits(Type::kU64, 32);
  V c[4] = {low(wide), low(wide >> thirty_two), c32(0), c32(0)};
  V k0 = low(wide_key), k1 = low(wide_key >> thirty_two);
  const auto multiply = [&](uint32_t m, V x) {
    return b.constant_bits(Type::kU64, m) * b.cast(x, Type::kU64);
  };
  for (int round = 0; round < 10; ++round) {
    const V p0 = multiply(0xD2511F53u, c[0]), p1 = multiply(0xCD9E8D57u, c[2]);
    const V n0 = low(p1 >> thirty_two) ^ c[1] ^ k0, n1 = low(p1);
    const V n2 = low(p0 >> thirty_two) ^ c[3] ^ k1, n3 = low(p0);
    c[0] = n0;
    c[1] = n1;
    c[2] = n2;
    c[3] = n3;
    k0 = k0 + c32(0x9E3779B9u);
    k1 = k1 + c32(0xBB67AE85u);
  }
  return b.cast(c[word], Type::kI64);
}

V to_type(V x, Type type) {
  Builder& b = *x.builder;
  // Floats reach the small integers as C++ does on x86: through a wider integer whose low bits stay.
  if (floating(x) && type != Type::kBool && !is_float(type) && !is_half(type)) {
    if (type == Type::kU8) return b.cast(b.cast(x, Type::kI64), type);
    if (size_of(type) < 4) return b.cast(b.cast(x, Type::kI32), type);
    return b.cast(x, type);
  }
  if (is_half(type) && x.type() != Type::kF32 && x.type() != type) return b.cast(b.cast(x, Type::kF32), type);
  if (is_half(x.type()) && type != Type::kF32 && x.type() != type)
    return to_type(b.cast(x, Type::kF32), type);
  return b.cast(x, type);
}

V lower_real(Builder& b, const GraphNode& n, V x, V y, V z) {
  using namespace math;
  const bool boolean = x.builder != nullptr && x.type() == Type::kBool;
  switch (n.prim) {
    case Prim::kAdd:
      return boolean ? x | y : x + y;
    case Prim::kSub:
      return boolean ? x ^ y : x - y;
    case Prim::kMul:
      return boolean ? x & y : x * y;
    case Prim::kDiv:
      return x / y;
    case Prim::kNeg:
      return -x;
    case Prim::kAbs:
      return boolean || !(floating(x) || is_signed_int(x.type())) ? x : ir::abs(x);
    case Prim::kSign:
      if (boolean) return x;
      if (!floating(x) && !is_signed_int(x.type())) return select(x != zero(x), one(x), zero(x));
      return select(zero(x) < x, one(x), select(x < zero(x), literal(x, -1), zero(x)));
    case Prim::kReciprocal:
      return one(x) / x;
    case Prim::kSquare:
      return x * x;
    case Prim::kFloorDiv:
      return floor_div(x, y);
    case Prim::kTruncDiv:
      return floating(x) ? ir::trunc(x / y) : divided(x, y, true, false).quotient;
    case Prim::kRemainder:
      return remainder(x, y);
    case Prim::kFmod:
      return floating(x) ? math::fmod(x, y) : divided(x, y, false, true).rest;
    case Prim::kMinimum:
      return minimum(x, y, false);
    case Prim::kMaximum:
      return minimum(x, y, true);
    case Prim::kFmin:
      return floating(x) ? select((x <= y) | is_nan(y), x, y) : minimum(x, y, false);
    case Prim::kFmax:
      return floating(x) ? select((y <= x) | is_nan(y), x, y) : minimum(x, y, true);
    case Prim::kPow:
      return floating(x) ? math::pow(x, y) : int_pow(x, y);
    case Prim::kSqrt:
      return ir::sqrt(x);
    case Prim::kRsqrt:
      return math::rsqrt(x);
    case Prim::kExp:
      return math::exp(x);
    case Prim::kExp2:
      return math::exp2(x);
    case Prim::kExpm1:
      return math::expm1(x);
    case Prim::kLog:
      return math::log(x);
    case Prim::kLog2:
      return math::log2(x);
    case Prim::kLog10:
      return math::log10(x);
    case Prim::kLog1p:
      return math::log1p(x);
    case Prim::kSin:
      return math::sin(x);
    case Prim::kCos:
      return math::cos(x);
    case Prim::kTan:
      return math::tan(x);
    case Prim::kAsin:
      return math::asin(x);
    case Prim::kAcos:
      return math::acos(x);
    case Prim::kAtan:
      return math::atan(x);
    case Prim::kAtan2:
      return math::atan2(x, y);
    case Prim::kSinh:
      return math::sinh(x);
    case Prim::kCosh:
      return math::cosh(x);
    case Prim::kTanh:
      return math::tanh(x);
    case Prim::kAsinh:
      return math::asinh(x);
    case Prim::kAcosh:
      return math::acosh(x);
    case Prim::kAtanh:
      return math::atanh(x);
    case Prim::kErf:
      return math::erf(x);
    case Prim::kErfc:
      return math::erfc(x);
    case Prim::kGeluSlope:
      return math::gelu_slope(x);
    case Prim::kErfinv:
      return math::erfinv(x);
    case Prim::kLgamma:
      return math::lgamma(x);
    case Prim::kDigamma:
      return math::digamma(x);
    case Prim::kSigmoid:
      return math::sigmoid(x);
    case Prim::kHypot:
      return math::hypot(x, y);
    case Prim::kFma:
      return ir::fma(x, y, z);
    case Prim::kFloor:
      return floating(x) ? ir::floor(x) : x;
    case Prim::kCeil:
      return floating(x) ? ir::ceil(x) : x;
    case Prim::kTrunc:
      return floating(x) ? ir::trunc(x) : x;
    case Prim::kRound:
      return floating(x) ? ir::round_even(x) : x;
    case Prim::kAnd:
      return x & y;
    case Prim::kOr:
      return x | y;
    case Prim::kXor:
      return x ^ y;
    case Prim::kNot:
      return ~x;
    case Prim::kShl:
      return x << y;
    case Prim::kShr:
      return x >> y;
    case Prim::kEq:
      return boolean ? ~(x ^ y) : x == y;
    case Prim::kNe:
      return boolean ? x ^ y : x != y;
    case Prim::kLt:
      return boolean ? ~x & y : x < y;
    case Prim::kLe:
      return boolean ? ~x | y : x <= y;
    case Prim::kIsNan:
      return floating(x) ? is_nan(x) : b.constant_int(Type::kBool, 0);
    case Prim::kSignbit: {
      if (!floating(x)) return is_signed_int(x.type()) ? x < zero(x) : b.constant_int(Type::kBool, 0);
      const V bits = b.bitcast(x, x.type() == Type::kF32 ? Type::kI32 : Type::kI64);
      return bits < zero(bits);
    }
    case Prim::kSelect:
      return select(x, y, z);
    case Prim::kReal:
    case Prim::kConj:
      return x;
    case Prim::kImag:
      return zero(x);
    case Prim::kAngle:
      return select(is_nan(x), x, select(x < zero(x), literal(x, 3.14159265358979323846), zero(x)));
    default:
      break;
  }
  raise(ErrorKind::kInternal, "primitive ", kTable[static_cast<size_t>(n.prim)].name,
        " has no real instructions");
}

// --- complex: textbook formulas on pairs

using C = Registers;
C c_mul(C a, C b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
C c_div(C a, C b) {
  // Scaled by the larger part of the divisor, so that nothing overflows on the way.
  const V s = select(abs(b.re) < abs(b.im), abs(b.im), abs(b.re));
  const V br = b.re / s, bi = b.im / s, d = (br * br + bi * bi) * s;
  const C q{(a.re * br + a.im * bi) / d, (a.im * br - a.re * bi) / d};
  const V zero_divisor = s == zero(s);
  return {select(zero_divisor, a.re / s, q.re), select(zero_divisor, a.im / s, q.im)};
}
C c_exp(C a) {
  const V e = math::exp(a.re);
  const V flat = a.im == zero(a.im);
  return {e * math::cos(a.im), select(flat, a.im, e * math::sin(a.im))};
}
V c_abs(C a) { return math::hypot(a.re, a.im); }
C c_log(C a) { return {math::log(c_abs(a)), math::atan2(a.im, a.re)}; }
C c_sqrt(C a) {
  // sqrt((|z| + |re|) / 2) is the larger part; the other follows by division (Kahan 1987).
  const V half = literal(a.re, 0.5);
  const V t = sqrt((c_abs(a) * half) + abs(a.re) * half);
  const V u = select(t == zero(t), zero(t), abs(a.im) / (t * literal(t, 2)));
  const V positive = zero(a.re) <= a.re;
  const V re = select(positive, t, u), im = copysign(select(positive, u, t), a.im);
  const V infinite = abs(a.im) == infinity(a.im);
  return {select(infinite, infinity(re), re), select(infinite, a.im, im)};
}
C c_scale(C a, V s) { return {a.re * s, a.im * s}; }
C c_add(C a, C b) { return {a.re + b.re, a.im + b.im}; }
C c_sub(C a, C b) { return {a.re - b.re, a.im - b.im}; }
C c_one(C like) { return {one(like.re), zero(like.re)}; }
C c_times_i(C a) { return {-a.im, a.re}; }
C c_sinh(C a) { return {math::sinh(a.re) * math::cos(a.im), math::cosh(a.re) * math::sin(a.im)}; }
C c_cosh(C a) { return {math::cosh(a.re) * math::cos(a.im), math::sinh(a.re) * math::sin(a.im)}; }
C c_tanh(C a) {
  // tanh(x + iy) = (sinh 2x + i sin 2y) / (cosh 2x + cos 2y); saturates for large x.
  const V two = literal(a.re, 2), x = a.re * two, y = a.im * two;
  const V d = math::cosh(x) + math::cos(y);
  const V large = literal(a.re, 20) < abs(a.re);
  return {select(large, copysign(one(a.re), a.re), math::sinh(x) / d),
          select(large, copysign(zero(a.im), math::sin(y)), math::sin(y) / d)};
}
C c_unrotate(C a) { return {a.im, -a.re}; }  // times -i
C c_asinh(C a) {
  // From sqrt(1 - iz) and sqrt(1 + iz), so that nothing cancels or overflows (Kahan 1987).
  const C u = c_sqrt({one(a.re) + a.im, -a.re}), v = c_sqrt({one(a.re) - a.im, a.re});
  const V im = math::atan2(a.im, u.re * v.re - u.im * v.im);
  const V right_angle = copysign(literal(a.im, 1.57079632679489661923), a.im);
  const V upright = (abs(a.im) == infinity(a.im)) & (abs(a.re) < infinity(a.re));
  return {math::asinh(u.re * v.im - u.im * v.re), select(upright, right_angle, im)};
}
C c_acosh(C a) { return c_log(c_add(a, c_mul(c_sqrt(c_add(a, c_one(a))), c_sqrt(c_sub(a, c_one(a)))))); }
C c_atanh(C a) {
  return c_scale(c_sub(c_log(c_add(c_one(a), a)), c_log(c_sub(c_one(a), a))), literal(a.re, 0.5));
}

C lower_complex(Builder& b, const GraphNode& n, const C& x, const C& y, const C& z) {
  switch (n.prim) {
    case Prim::kAdd:
      return c_add(x, y);
    case Prim::kSub:
      return c_sub(x, y);
    case Prim::kMul:
      return c_mul(x, y);
    case Prim::kDiv:
      return c_div(x, y);
    case Prim::kNeg:
      return {-x.re, -x.im};
    case Prim::kAbs:
      return {c_abs(x), {}};
    case Prim::kReciprocal:
      return c_div(c_one(x), x);
    case Prim::kSquare:
      return c_mul(x, x);
    case Prim::kSqrt:
      return c_sqrt(x);
    case Prim::kRsqrt:
      return c_div(c_one(x), c_sqrt(x));
    case Prim::kExp:
      return c_exp(x);
    case Prim::kExp2:
      return c_exp(c_scale(x, literal(x.re, 0.69314718055994530942)));
    case Prim::kExpm1:
      return c_sub(c_exp(x), c_one(x));
    case Prim::kLog:
      return c_log(x);
    case Prim::kLog2:
      return c_scale(c_log(x), literal(x.re, 1.44269504088896340736));
    case Prim::kLog10:
      return c_scale(c_log(x), literal(x.re, 0.43429448190325182765));
    case Prim::kLog1p:
      return c_log(c_add(c_one(x), x));
    case Prim::kSin:
      return c_unrotate(c_sinh(c_times_i(x)));
    case Prim::kCos:
      return c_cosh(c_times_i(x));
    case Prim::kTan:
      return c_unrotate(c_tanh(c_times_i(x)));
    case Prim::kSinh:
      return c_sinh(x);
    case Prim::kCosh:
      return c_cosh(x);
    case Prim::kTanh:
      return c_tanh(x);
    case Prim::kAsin:
      return c_unrotate(c_asinh(c_times_i(x)));
    case Prim::kAcos: {
      const C s = c_unrotate(c_asinh(c_times_i(x)));
      return {literal(x.re, 1.57079632679489661923) - s.re, -s.im};
    }
    case Prim::kAtan:
      return c_unrotate(c_atanh(c_times_i(x)));
    case Prim::kAsinh:
      return c_asinh(x);
    case Prim::kAcosh:
      return c_acosh(x);
    case Prim::kAtanh:
      return c_atanh(x);
    case Prim::kSigmoid:
      return c_div(c_one(x), c_add(c_one(x), c_exp({-x.re, -x.im})));
    case Prim::kPow: {
      const C p = c_exp(c_mul(y, c_log(x)));
      const V base_zero = (x.re == zero(x.re)) & (x.im == zero(x.im));
      const V exponent_zero = (y.re == zero(y.re)) & (y.im == zero(y.im));
      const V at_zero = select(exponent_zero, one(x.re), zero(x.re));
      const V fixed = base_zero | exponent_zero;
      return {select(fixed, at_zero, p.re), select(fixed, zero(x.re), p.im)};
    }
    case Prim::kSign: {
      const V r = c_abs(x);
      const V at_zero = r == zero(r);
      return {select(at_zero, zero(r), x.re / r), select(at_zero, zero(r), x.im / r)};
    }
    case Prim::kEq:
      return {(x.re == y.re) & (x.im == y.im), {}};
    case Prim::kNe:
      return {(x.re != y.re) | (x.im != y.im), {}};
    case Prim::kIsNan:
      return {is_nan(x.re) | is_nan(x.im), {}};
    case Prim::kSelect:
      return {select(x.re, y.re, z.re), select(x.re, y.im, z.im)};
    case Prim::kReal:
      return {x.re, {}};
    case Prim::kImag:
      return {x.im, {}};
    case Prim::kConj:
      return {x.re, -x.im};
    case Prim::kAngle:
      return {math::atan2(x.im, x.re), {}};
    case Prim::kRound:
      return {round_even(x.re), round_even(x.im)};
    default:
      break;
  }
  (void)b;
  raise(ErrorKind::kNotImplemented, "'", kTable[static_cast<size_t>(n.prim)].name,
        "' is not implemented for complex dtypes");
}

}  // namespace

const Primitive& primitive(Prim prim) { return kTable[static_cast<size_t>(prim)]; }

Dtype result_dtype(Prim prim, Dtype d) {
  switch (prim) {
    case Prim::kEq:
    case Prim::kNe:
    case Prim::kLt:
    case Prim::kLe:
    case Prim::kIsNan:
    case Prim::kSignbit:
      return Dtype::kBool;
    case Prim::kAbs:
    case Prim::kReal:
    case Prim::kImag:
    case Prim::kAngle:
      return info(d).value_dtype;
    default:
      return d;
  }
}

Registers lower(Builder& b, const GraphNode& n, Dtype dtype, const Registers& x, const Registers& y,
                const Registers& z) {
  switch (n.prim) {
    case Prim::kCast: {
      if (!is_complex(n.dtype)) {
        // To bool: any part that is not zero.
        if (n.dtype == Dtype::kBool && x.complex())
          return {to_type(x.re, Type::kBool) | to_type(x.im, Type::kBool), {}};
        return {to_type(x.re, type_of(n.dtype)), {}};
      }
      const Type part = type_of(info(n.dtype).value_dtype);
      const V re = to_type(x.re, part);
      return {re, x.complex() ? to_type(x.im, part) : literal(re, 0)};
    }
    case Prim::kBitcast:
      return {b.bitcast(x.re, type_of(n.dtype)), {}};
    case Prim::kComplex:
      return {x.re, y.re};
    case Prim::kPhilox:
      return {philox(b, x.re, y.re, static_cast<int>(n.imm)), {}};
    case Prim::kSelect:
      if (is_complex(n.dtype)) return lower_complex(b, n, x, y, z);
      break;
    default:
      if (is_complex(dtype)) return lower_complex(b, n, x, y, z);
  }
  return {lower_real(b, n, x.re, y.re, z.re), {}};
}

Registers lower_constant(Builder& b, const GraphNode& n) {
  if (is_complex(n.dtype)) {
    const Type part = type_of(info(n.dtype).value_dtype);
    return {b.constant(part, n.real), b.constant(part, n.imag)};
  }
  const Type type = type_of(n.dtype);
  return {is_float(type) ? b.constant(type, n.real) : b.constant_int(type, n.imm), {}};
}

std::vector<V> reduction_identity(Builder& b, Prim prim, Dtype dtype) {
  const Type type = type_of(info(dtype).value_dtype);
  const auto number = [&](double v) { return b.constant(type, v); };
  const auto lowest = [&](bool max) {
    if (is_float(type))
      return number(max ? -std::numeric_limits<double>::infinity() : std::numeric_limits<double>::infinity());
    if (type == Type::kBool) return b.constant_int(type, max ? 0 : 1);
    if (type == Type::kU8) return b.constant_int(type, max ? 0 : 255);
    const int bits = size_of(type) * 8;
    const uint64_t low = uint64_t{1} << (bits - 1);
    return b.constant_int(type, static_cast<int64_t>(max ? (bits == 64 ? low : ~low + 1) : low - 1));
  };
  switch (prim) {
    case Prim::kSum:
      if (is_complex(dtype)) return {number(0), number(0)};
      return {number(0)};
    case Prim::kProd:
      if (is_complex(dtype)) return {number(1), number(0)};
      return {number(1)};
    case Prim::kAmax:
      return {lowest(true)};
    case Prim::kAmin:
      return {lowest(false)};
    case Prim::kAny:
      return {b.constant_int(Type::kBool, 0)};
    case Prim::kAll:
      return {b.constant_int(Type::kBool, 1)};
    case Prim::kArgmax:
    case Prim::kArgmin:
      return {lowest(prim == Prim::kArgmax), b.constant_int(Type::kI64, std::numeric_limits<int64_t>::max())};
    default:
      break;
  }
  raise(ErrorKind::kInternal, "not a reduction: ", primitive(prim).name);
}

std::vector<V> reduction_combine(Builder& b, Prim prim, Dtype dtype, const std::vector<V>& l,
                                 const std::vector<V>& r) {
  (void)b;
  switch (prim) {
    case Prim::kSum:
      if (is_complex(dtype)) return {l[0] + r[0], l[1] + r[1]};
      return {l[0].type() == Type::kBool ? l[0] | r[0] : l[0] + r[0]};
    case Prim::kProd:
      if (is_complex(dtype)) {
        const C p = c_mul({l[0], l[1]}, {r[0], r[1]});
        return {p.re, p.im};
      }
      return {l[0].type() == Type::kBool ? l[0] & r[0] : l[0] * r[0]};
    case Prim::kAmax:
      return {minimum(r[0], l[0], true)};  // so that the accumulator waits for one instruction and a choice
    case Prim::kAmin:
      return {minimum(r[0], l[0], false)};
    case Prim::kAny:
      return {l[0] | r[0]};
    case Prim::kAll:
      return {l[0] & r[0]};
    case Prim::kArgmax:
    case Prim::kArgmin: {
      const bool max = prim == Prim::kArgmax;
      const bool boolean = l[0].type() == Type::kBool;
      const auto before = [&](V x, V y) {  // x is strictly more extreme than y
        if (boolean) return max ? x & ~y : ~x & y;
        const V better = max ? y < x : x < y;
        return is_float(x.type()) ? better | (is_nan(x) & ~is_nan(y)) : better;
      };
      const V left_wins = before(l[0], r[0]), right_wins = before(r[0], l[0]);
      const V take_left = left_wins | (~right_wins & (l[1] <= r[1]));
      return {select(take_left, l[0], r[0]), select(take_left, l[1], r[1])};
    }
    default:
      break;
  }
  raise(ErrorKind::kInternal, "not a reduction: ", primitive(prim).name);
}

std::vector<V> reduction_of_few(Builder& b, Prim prim, Dtype dtype, std::vector<std::vector<V>> elements) {
  const std::vector<V> init = reduction_identity(b, prim, dtype);
  const auto combine = [&](const std::vector<V>& l, const std::vector<V>& r) {
    return reduction_combine(b, prim, dtype, l, r);
  };
  for (std::vector<V>& lane : elements) lane = combine(init, lane);
  // What has met the identity once is not changed by another one, if it is a single real number.
  const bool again = init.size() > 1;
  const size_t count = elements.size();
  for (auto half = static_cast<size_t>(reduction_lanes(init.size(), init[0].type())) / 2; half >= 1;
       half /= 2) {
    for (size_t i = 0; i < std::min(half, count); ++i) {
      if (i + half < count)
        elements[i] = combine(elements[i], elements[i + half]);
      else if (again)
        elements[i] = combine(elements[i], init);
    }
  }
  return elements[0];
}

}  // namespace lohe::ir
