#pragma once

#include <bit>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <limits>
#include <type_traits>

/// The vocabulary of ir/builder.h with every instruction carried out at once instead of being appended to a
/// kernel: the source text of src/ir/math_*.cpp, compiled against this header, is plain C++ that runs at full
/// speed. Take this folder before src/ in the include path.
namespace lohe::ir {

enum class Type : uint8_t { kBool, kU8, kI8, kI16, kI32, kU32, kI64, kU64, kF16, kBF16, kF32, kF64 };

struct Builder;

struct V {
  Type kind = Type::kBool;
  float f = 0;
  double d = 0;
  uint64_t u = 0;  ///< integers and bool; 32-bit ones zero extended
  static inline Builder* builder = nullptr;
  Type type() const { return kind; }
};

inline V of(float f) { return {Type::kF32, f, 0, 0}; }
inline V of(double d) { return {Type::kF64, 0, d, 0}; }
inline V of(bool b) { return {Type::kBool, 0, 0, b}; }
inline V of_int(Type t, uint64_t u) {
  return {t, 0, 0, t == Type::kI32 || t == Type::kU32 ? static_cast<uint32_t>(u) : u};
}
inline bool is_wide(V a) { return a.kind == Type::kF64; }

struct Builder {
  V constant(Type t, double x) {
    if (t == Type::kF32) return of(static_cast<float>(x));
    if (t == Type::kF64) return of(x);
    return of_int(t, static_cast<uint64_t>(static_cast<int64_t>(x)));
  }
  V constant_int(Type t, int64_t x) { return of_int(t, static_cast<uint64_t>(x)); }
  V constant_bits(Type t, uint64_t bits) { return bitcast(of_int(Type::kU64, bits), t, true); }
  V bitcast(V x, Type t, bool = false) {
    uint64_t bits = x.u;
    if (x.kind == Type::kF32) bits = std::bit_cast<uint32_t>(x.f);
    if (x.kind == Type::kF64) bits = std::bit_cast<uint64_t>(x.d);
    if (t == Type::kF32) return of(std::bit_cast<float>(static_cast<uint32_t>(bits)));
    if (t == Type::kF64) return of(std::bit_cast<double>(bits));
    return of_int(t, bits);
  }
  V cast(V x, Type t) {
    if (x.kind == t) return x;
    if (x.kind == Type::kF32 && t == Type::kF64) return of(static_cast<double>(x.f));
    if (x.kind == Type::kF64 && t == Type::kF32) return of(static_cast<float>(x.d));
    if (t == Type::kF32 && x.kind == Type::kI32) return of(static_cast<float>(static_cast<int32_t>(x.u)));
    if (t == Type::kF64 && x.kind == Type::kI32) return of(static_cast<double>(static_cast<int32_t>(x.u)));
    if (t == Type::kF64 && x.kind == Type::kI64) return of(static_cast<double>(static_cast<int64_t>(x.u)));
    if (t == Type::kI64 && x.kind == Type::kF64)
      return of_int(
          t, x.d >= -0x1p63 && x.d < 0x1p63 ? static_cast<uint64_t>(static_cast<int64_t>(x.d)) : 1ull << 63);
    if (x.kind == Type::kI32 && t == Type::kI64)
      return of_int(t, static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(x.u))));
    if (x.kind == Type::kU32 || x.kind == Type::kI64 || x.kind == Type::kU64 || x.kind == Type::kBool)
      return of_int(t, x.u);
    __builtin_trap();
  }
  V select(V c, V a, V b) {
    if (a.kind != b.kind) __builtin_trap();
    return {a.kind, c.u ? a.f : b.f, c.u ? a.d : b.d, c.u ? a.u : b.u};
  }
};

#define LOHE_SCALAR_BINARY(OP)                       \
  inline V operator OP(V a, V b) {                   \
    if (a.kind != b.kind) __builtin_trap();          \
    if (a.kind == Type::kF32) return of(a.f OP b.f); \
    if (a.kind == Type::kF64) return of(a.d OP b.d); \
    return of_int(a.kind, a.u OP b.u);               \
  }
LOHE_SCALAR_BINARY(+)
LOHE_SCALAR_BINARY(-)
LOHE_SCALAR_BINARY(*)
#undef LOHE_SCALAR_BINARY
inline V operator/(V a, V b) { return is_wide(a) ? of(a.d / b.d) : of(a.f / b.f); }
inline V operator-(V a) {
  if (a.kind == Type::kF32) return of(-a.f);
  if (a.kind == Type::kF64) return of(-a.d);
  return of_int(a.kind, -a.u);
}
inline V operator&(V a, V b) { return of_int(a.kind, a.u & b.u); }
inline V operator|(V a, V b) { return of_int(a.kind, a.u | b.u); }
inline V operator^(V a, V b) { return of_int(a.kind, a.u ^ b.u); }
inline V operator~(V a) { return a.kind == Type::kBool ? of(a.u == 0) : of_int(a.kind, ~a.u); }
inline V operator<<(V a, V b) {
  const uint64_t bits = a.kind == Type::kU32 || a.kind == Type::kI32 ? 32 : 64;
  return of_int(a.kind, b.u < bits ? a.u << b.u : 0);
}
inline V operator>>(V a, V b) {
  if (a.kind == Type::kI32)
    return of_int(a.kind, static_cast<uint64_t>(static_cast<int32_t>(a.u) >> (b.u < 31 ? b.u : 31)));
  if (a.kind == Type::kI64)
    return of_int(a.kind, static_cast<uint64_t>(static_cast<int64_t>(a.u) >> (b.u < 63 ? b.u : 63)));
  const uint64_t bits = a.kind == Type::kU32 ? 32 : 64;
  return of_int(a.kind, b.u < bits ? a.u >> b.u : 0);
}
#define LOHE_SCALAR_COMPARE(OP)                                                                  \
  inline V operator OP(V a, V b) {                                                               \
    if (a.kind != b.kind) __builtin_trap();                                                      \
    if (a.kind == Type::kF32) return of(a.f OP b.f);                                             \
    if (a.kind == Type::kF64) return of(a.d OP b.d);                                             \
    if (a.kind == Type::kI32) return of(static_cast<int32_t>(a.u) OP static_cast<int32_t>(b.u)); \
    if (a.kind == Type::kI64) return of(static_cast<int64_t>(a.u) OP static_cast<int64_t>(b.u)); \
    return of(a.u OP b.u);                                                                       \
  }
LOHE_SCALAR_COMPARE(==)
LOHE_SCALAR_COMPARE(!=)
LOHE_SCALAR_COMPARE(<)
LOHE_SCALAR_COMPARE(<=)
LOHE_SCALAR_COMPARE(>)
LOHE_SCALAR_COMPARE(>=)
#undef LOHE_SCALAR_COMPARE
inline V select(V c, V a, V b) { return a.builder->select(c, a, b); }
inline V fma(V a, V b, V c) {
  return is_wide(a) ? of(__builtin_fma(a.d, b.d, c.d)) : of(__builtin_fmaf(a.f, b.f, c.f));
}
inline V sqrt(V a) { return is_wide(a) ? of(__builtin_sqrt(a.d)) : of(__builtin_sqrtf(a.f)); }
inline V abs(V a) { return is_wide(a) ? of(__builtin_fabs(a.d)) : of(__builtin_fabsf(a.f)); }
inline V floor(V a) { return is_wide(a) ? of(__builtin_floor(a.d)) : of(__builtin_floorf(a.f)); }
inline V trunc(V a) { return is_wide(a) ? of(__builtin_trunc(a.d)) : of(__builtin_truncf(a.f)); }
inline V round_even(V a) { return is_wide(a) ? of(__builtin_rint(a.d)) : of(__builtin_rintf(a.f)); }
inline V is_nan(V a) { return is_wide(a) ? of(a.d != a.d) : of(a.f != a.f); }

template <class T>
concept Literal = std::is_arithmetic_v<T>;
inline V literal(V like, double x) { return like.builder->constant(like.type(), x); }
#define LOHE_SCALAR_LITERAL(OP)                     \
  template <Literal T>                              \
  V operator OP(V a, T b) {                         \
    return a OP literal(a, static_cast<double>(b)); \
  }
LOHE_SCALAR_LITERAL(+)
LOHE_SCALAR_LITERAL(-)
LOHE_SCALAR_LITERAL(*)
LOHE_SCALAR_LITERAL(/)
LOHE_SCALAR_LITERAL(<)
LOHE_SCALAR_LITERAL(<=)
LOHE_SCALAR_LITERAL(>)
LOHE_SCALAR_LITERAL(>=)
LOHE_SCALAR_LITERAL(==)
LOHE_SCALAR_LITERAL(!=)
#undef LOHE_SCALAR_LITERAL
template <Literal T>
V operator+(T a, V b) {
  return literal(b, static_cast<double>(a)) + b;
}
template <Literal T>
V operator-(T a, V b) {
  return literal(b, static_cast<double>(a)) - b;
}
template <Literal T>
V operator*(T a, V b) {
  return literal(b, static_cast<double>(a)) * b;
}
template <Literal T>
V operator/(T a, V b) {
  return literal(b, static_cast<double>(a)) / b;
}

}  // namespace lohe::ir
