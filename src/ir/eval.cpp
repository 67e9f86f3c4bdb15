#include "ir/eval.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "lohe/error.h"

namespace lohe::ir {

const char* name(Type t) {
  static constexpr const char* names[] = {"bool", "u8",  "i8",  "i16",  "i32", "u32",
                                          "i64",  "u64", "f16", "bf16", "f32", "f64"};
  return names[static_cast<int>(t)];
}

const char* name(Op op) {
  static constexpr const char* names[] = {
      "const", "param", "begin", "end",        "index",  "carry", "load",    "load_unit", "add",   "sub",
      "mul",   "neg",   "abs",   "min",        "max",    "div",   "rem",     "fma",       "scale", "sqrt",
      "floor", "ceil",  "trunc", "round_even", "and",    "or",    "xor",     "not",       "shl",   "shr",
      "eq",    "ne",    "lt",    "le",         "select", "cast",  "bitcast", "table"};
  static_assert(std::size(names) == static_cast<size_t>(Op::kTable) + 1);
  return names[static_cast<int>(op)];
}

Type type_of(Dtype d) {
  switch (d) {
    case Dtype::kUInt8:
      return Type::kU8;
    case Dtype::kInt8:
      return Type::kI8;
    case Dtype::kInt16:
      return Type::kI16;
    case Dtype::kInt32:
      return Type::kI32;
    case Dtype::kInt64:
      return Type::kI64;
    case Dtype::kFloat16:
      return Type::kF16;
    case Dtype::kFloat32:
      return Type::kF32;
    case Dtype::kFloat64:
      return Type::kF64;
    case Dtype::kBool:
      return Type::kBool;
    case Dtype::kBFloat16:
      return Type::kBF16;
    case Dtype::kComplex64:
    case Dtype::kComplex128:
    case Dtype::kUndefined:
      break;
  }
  raise(ErrorKind::kInternal, "ir::type_of: dtype number ", static_cast<int>(d),
        " has no register type; complex numbers are pairs of their parts");
}

int operand_count(Op op) {
  if (is_leaf(op)) return 0;
  switch (op) {
    case Op::kLoad:
    case Op::kLoadUnit:
    case Op::kNeg:
    case Op::kAbs:
    case Op::kSqrt:
    case Op::kFloor:
    case Op::kCeil:
    case Op::kTrunc:
    case Op::kRoundEven:
    case Op::kNot:
    case Op::kCast:
    case Op::kBitcast:
    case Op::kTable:
      return 1;
    case Op::kFma:
    case Op::kSelect:
      return 3;
    default:
      return 2;
  }
}

float float_from_half(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 31, mantissa = bits & 0x3FF;
  if (exponent == 31) {
    const uint32_t quiet = mantissa != 0 ? 0x400000 : 0;
    return std::bit_cast<float>(sign | 0x7F800000 | quiet | mantissa << 13);
  }
  if (exponent == 0) {  // Zero and denormals: a multiple of 2^-24.
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(magnitude));
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

float float_from_bfloat(uint16_t bits) {
  uint32_t x = static_cast<uint32_t>(bits) << 16;
  if ((x & 0x7FFFFFFF) > 0x7F800000) x |= 0x400000;
  return std::bit_cast<float>(x);
}

uint16_t half_from_float(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value), magnitude = bits & 0x7FFFFFFF;
  const uint32_t sign = bits >> 16 & 0x8000;
  if (magnitude > 0x7F800000) return static_cast<uint16_t>(sign | 0x7E00 | (magnitude >> 13 & 0x3FF));
  if (magnitude >= 0x477FF000)
    return static_cast<uint16_t>(sign | 0x7C00);                   // 65520 and above round to infinity.
  if (magnitude < 0x33000000) return static_cast<uint16_t>(sign);  // Below half the least denormal.
  uint32_t mantissa, shift;
  if (magnitude < 0x38800000) {  // A denormal result: units of 2^-24.
    mantissa = (magnitude & 0x7FFFFF) | 0x800000;
    shift = 126 - (magnitude >> 23);
  } else {
    mantissa = magnitude - (112u << 23);
    shift = 13;
  }
  // A carry out of the mantissa goes into the exponent, which is what rounding up means.
  const uint32_t kept = mantissa >> shift, rest = mantissa & ((1u << shift) - 1), half = 1u << (shift - 1);
  const uint32_t up = rest > half || (rest == half && (kept & 1) != 0) ? 1 : 0;
  return static_cast<uint16_t>(sign | (kept + up));
}

uint16_t bfloat_from_float(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7FFFFFFF) > 0x7F800000) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

namespace {

template <class R, class A, class F>
LaneFunction lanes1(F) {
  return [](void* r, const void* a, const void*, const void*, int n) {
    auto* out = static_cast<R*>(r);
    const auto* x = static_cast<const A*>(a);
    for (int i = 0; i < n; ++i) out[i] = static_cast<R>(F{}(x[i]));
  };
}
template <class R, class A, class F>
LaneFunction lanes2(F) {
  return [](void* r, const void* a, const void* b, const void*, int n) {
    auto* out = static_cast<R*>(r);
    const auto* x = static_cast<const A*>(a);
    const auto* y = static_cast<const A*>(b);
    for (int i = 0; i < n; ++i) out[i] = static_cast<R>(F{}(x[i], y[i]));
  };
}

/// Wrapping arithmetic is done in an unsigned type that no promotion to int can overflow.
template <class T>
using Wide = std::conditional_t<sizeof(T) < 4, uint32_t, std::make_unsigned_t<T>>;

template <class T>
LaneFunction select_function() {
  return [](void* r, const void* a, const void* b, const void* c, int n) {
    const auto* condition = static_cast<const uint8_t*>(a);
    const auto* x = static_cast<const T*>(b);
    const auto* y = static_cast<const T*>(c);
    // Loaded before the choice so that the loop has no branch.
    for (int i = 0; i < n; ++i) {
      const T yes = x[i], no = y[i];
      static_cast<T*>(r)[i] = condition[i] != 0 ? yes : no;
    }
  };
}

template <class T>
LaneFunction comparison(Op op) {
  switch (op) {
    case Op::kEq:
      return lanes2<uint8_t, T>([](T a, T b) { return a == b; });
    case Op::kNe:
      return lanes2<uint8_t, T>([](T a, T b) { return a != b; });
    case Op::kLt:
      return lanes2<uint8_t, T>([](T a, T b) { return a < b; });
    case Op::kLe:
      return lanes2<uint8_t, T>([](T a, T b) { return a <= b; });
    default:
      return nullptr;
  }
}

/// Whether a shift count is in [0, bits).
template <class T>
bool shifts(T count) {
  return static_cast<std::make_unsigned_t<T>>(count) < sizeof(T) * 8;
}

template <class T>
LaneFunction int_function(Op op) {
  using W = Wide<T>;
  switch (op) {
    case Op::kAdd:
      return lanes2<T, T>([](T a, T b) { return static_cast<W>(a) + static_cast<W>(b); });
    case Op::kSub:
      return lanes2<T, T>([](T a, T b) { return static_cast<W>(a) - static_cast<W>(b); });
    case Op::kMul:
      return lanes2<T, T>([](T a, T b) { return static_cast<W>(a) * static_cast<W>(b); });
    case Op::kNeg:
      return lanes1<T, T>([](T a) { return W{0} - static_cast<W>(a); });
    case Op::kAbs:
      return lanes1<T, T>([](T a) { return a < T{0} ? W{0} - static_cast<W>(a) : static_cast<W>(a); });
    case Op::kMin:
      return lanes2<T, T>([](T a, T b) { return b < a ? b : a; });
    case Op::kMax:
      return lanes2<T, T>([](T a, T b) { return a < b ? b : a; });
    case Op::kDiv:
      return lanes2<T, T>([](T a, T b) -> T {
        if (b == 0) return 0;
        if (std::is_signed_v<T> && b == static_cast<T>(-1)) return static_cast<T>(W{0} - static_cast<W>(a));
        return static_cast<T>(a / b);
      });
    case Op::kRem:
      return lanes2<T, T>([](T a, T b) -> T {
        if (b == 0) return a;
        if (std::is_signed_v<T> && b == static_cast<T>(-1)) return 0;
        return static_cast<T>(a % b);
      });
    case Op::kAnd:
      return lanes2<T, T>([](T a, T b) { return a & b; });
    case Op::kOr:
      return lanes2<T, T>([](T a, T b) { return a | b; });
    case Op::kXor:
      return lanes2<T, T>([](T a, T b) { return a ^ b; });
    case Op::kNot:
      return lanes1<T, T>([](T a) { return ~a; });
    case Op::kShl:
      return lanes2<T, T>(
          [](T a, T b) -> T { return shifts<T>(b) ? static_cast<T>(static_cast<W>(a) << b) : T{0}; });
    case Op::kShr:
      return lanes2<T, T>([](T a, T b) -> T {
        if (shifts<T>(b)) return static_cast<T>(a >> b);
        return a < T{0} ? static_cast<T>(-1) : T{0};
      });
    default:
      return comparison<T>(op);
  }
}

template <class T>
LaneFunction float_function(Op op) {
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;
  constexpr Bits kSign = Bits{1} << (sizeof(T) * 8 - 1);
  switch (op) {
    case Op::kAdd:
      return lanes2<T, T>([](T a, T b) { return a + b; });
    case Op::kSub:
      return lanes2<T, T>([](T a, T b) { return a - b; });
    case Op::kMul:
      return lanes2<T, T>([](T a, T b) { return a * b; });
    case Op::kDiv:
      return lanes2<T, T>([](T a, T b) { return a / b; });
    case Op::kNeg:
      return lanes1<Bits, Bits>([](Bits a) { return a ^ kSign; });
    case Op::kAbs:
      return lanes1<Bits, Bits>([](Bits a) { return a & ~kSign; });
    case Op::kMin:
      return lanes2<T, T>([](T a, T b) { return b < a ? b : a; });
    case Op::kMax:
      return lanes2<T, T>([](T a, T b) { return a < b ? b : a; });
    case Op::kScale:
      return lanes2<T, T>([](T a, T b) {
        return std::isnan(b) ? b : std::ldexp(a, static_cast<int>(std::clamp(b, T{-9999}, T{9999})));
      });
    case Op::kSqrt:
      return lanes1<T, T>([](T a) { return std::sqrt(a); });
    case Op::kFloor:
      return lanes1<T, T>([](T a) { return std::floor(a); });
    case Op::kCeil:
      return lanes1<T, T>([](T a) { return std::ceil(a); });
    case Op::kTrunc:
      return lanes1<T, T>([](T a) { return std::trunc(a); });
    case Op::kRoundEven:
      return lanes1<T, T>([](T a) { return std::nearbyint(a); });
    case Op::kFma:
      return [](void* r, const void* a, const void* b, const void* c, int n) {
        const auto *x = static_cast<const T*>(a), *y = static_cast<const T*>(b),
                   *z = static_cast<const T*>(c);
        for (int i = 0; i < n; ++i) static_cast<T*>(r)[i] = std::fma(x[i], y[i], z[i]);
      };
    default:
      return comparison<T>(op);
  }
}

LaneFunction bool_function(Op op) {
  using T = uint8_t;
  switch (op) {
    case Op::kAnd:
      return lanes2<T, T>([](T a, T b) { return a & b; });
    case Op::kOr:
      return lanes2<T, T>([](T a, T b) { return a | b; });
    case Op::kXor:
      return lanes2<T, T>([](T a, T b) { return a ^ b; });
    case Op::kNot:
      return lanes1<T, T>([](T a) { return a ^ 1; });
    default:
      return comparison<T>(op);
  }
}

/// As cvttss2si and its kin: the minimum for NaN and everything whose truncation does not fit.
template <class To, class From>
To truncate(From x) {
  constexpr From kLimit = sizeof(To) == 4 ? From{0x1p31} : From{0x1p63};
  const bool above = sizeof(To) == 4 && sizeof(From) == 8 ? x > -kLimit - From{1} : x >= -kLimit;
  return above && x < kLimit ? static_cast<To>(x) : std::numeric_limits<To>::min();
}

template <class From>
LaneFunction cast_from_int(Type to) {
  switch (to) {
    case Type::kU8:
      return lanes1<uint8_t, From>([](From x) { return static_cast<uint8_t>(x); });
    case Type::kI8:
      return lanes1<int8_t, From>([](From x) { return static_cast<int8_t>(x); });
    case Type::kI16:
      return lanes1<int16_t, From>([](From x) { return static_cast<int16_t>(x); });
    case Type::kI32:
      return lanes1<int32_t, From>([](From x) { return static_cast<int32_t>(x); });
    case Type::kU32:
      return lanes1<uint32_t, From>([](From x) { return static_cast<uint32_t>(x); });
    case Type::kI64:
      return lanes1<int64_t, From>([](From x) { return static_cast<int64_t>(x); });
    case Type::kU64:
      return lanes1<uint64_t, From>([](From x) { return static_cast<uint64_t>(x); });
    case Type::kF32:
      return lanes1<float, From>([](From x) { return static_cast<float>(x); });
    case Type::kF64:
      return lanes1<double, From>([](From x) { return static_cast<double>(x); });
    default:
      return nullptr;
  }
}

template <class From>
LaneFunction cast_from_float(Type to) {
  switch (to) {
    case Type::kI32:
      return lanes1<int32_t, From>([](From x) { return truncate<int32_t>(x); });
    case Type::kI64:
      return lanes1<int64_t, From>([](From x) { return truncate<int64_t>(x); });
    case Type::kF32:
      return lanes1<float, From>([](From x) { return static_cast<float>(x); });
    case Type::kF64:
      return lanes1<double, From>([](From x) { return static_cast<double>(x); });
    case Type::kF16:
      if constexpr (std::is_same_v<From, float>)
        return lanes1<uint16_t, From>([](From x) { return half_from_float(x); });
      return nullptr;
    case Type::kBF16:
      if constexpr (std::is_same_v<From, float>)
        return lanes1<uint16_t, From>([](From x) { return bfloat_from_float(x); });
      return nullptr;
    default:
      return nullptr;
  }
}

LaneFunction cast_function(Type to, Type from) {
  switch (from) {
    case Type::kBool:
    case Type::kU8:
      return to == from ? nullptr : cast_from_int<uint8_t>(to);
    case Type::kI8:
      return cast_from_int<int8_t>(to);
    case Type::kI16:
      return cast_from_int<int16_t>(to);
    case Type::kI32:
      return cast_from_int<int32_t>(to);
    case Type::kU32:
      return cast_from_int<uint32_t>(to);
    case Type::kI64:
      return cast_from_int<int64_t>(to);
    case Type::kU64:
      return cast_from_int<uint64_t>(to);
    case Type::kF32:
      return cast_from_float<float>(to);
    case Type::kF64:
      return cast_from_float<double>(to);
    case Type::kF16:
      return to != Type::kF32 ? nullptr
                              : lanes1<float, uint16_t>([](uint16_t x) { return float_from_half(x); });
    case Type::kBF16:
      return to != Type::kF32 ? nullptr
                              : lanes1<float, uint16_t>([](uint16_t x) { return float_from_bfloat(x); });
  }
  return nullptr;
}

LaneFunction copy_function(Type to, Type from) {
  if (size_of(to) != size_of(from) || to == Type::kBool || from == Type::kBool) return nullptr;
  switch (size_of(to)) {
    case 1:
      return lanes1<uint8_t, uint8_t>([](uint8_t x) { return x; });
    case 2:
      return lanes1<uint16_t, uint16_t>([](uint16_t x) { return x; });
    case 4:
      return lanes1<uint32_t, uint32_t>([](uint32_t x) { return x; });
    default:
      return lanes1<uint64_t, uint64_t>([](uint64_t x) { return x; });
  }
}

void look_up(void* r, const void* a, const void* table, const void*, int n) {
  for (int i = 0; i < n; ++i)
    static_cast<uint32_t*>(r)[i] =
        (*static_cast<const Table*>(table))[static_cast<const uint32_t*>(a)[i] % 16];
}

}  // namespace

LaneFunction lane_function(Op op, Type result, Type operand) {
  if (op == Op::kCast) return result == operand ? nullptr : cast_function(result, operand);
  if (op == Op::kBitcast) return copy_function(result, operand);
  if (op == Op::kTable) return result == Type::kF32 && operand == Type::kU32 ? look_up : nullptr;
  const bool compares = op == Op::kEq || op == Op::kNe || op == Op::kLt || op == Op::kLe;
  if (result != (compares ? Type::kBool : operand)) return nullptr;
  if (op == Op::kSelect) {
    switch (size_of(operand)) {
      case 1:
        return select_function<uint8_t>();
      case 2:
        return select_function<uint16_t>();
      case 4:
        return select_function<uint32_t>();
      default:
        return select_function<uint64_t>();
    }
  }
  switch (operand) {
    case Type::kBool:
      return bool_function(op);
    case Type::kU8:
      return int_function<uint8_t>(op);
    case Type::kI8:
      return int_function<int8_t>(op);
    case Type::kI16:
      return int_function<int16_t>(op);
    case Type::kI32:
      return int_function<int32_t>(op);
    case Type::kU32:
      return int_function<uint32_t>(op);
    case Type::kI64:
      return int_function<int64_t>(op);
    case Type::kU64:
      return int_function<uint64_t>(op);
    case Type::kF32:
      return float_function<float>(op);
    case Type::kF64:
      return float_function<double>(op);
    case Type::kF16:
    case Type::kBF16:
      return nullptr;
  }
  return nullptr;
}

uint64_t evaluate(Op op, Type result, Type operand, uint64_t a, uint64_t b, uint64_t c) {
  const LaneFunction function = lane_function(op, result, operand);
  LOHE_INTERNAL_ASSERT(function != nullptr, "ir::evaluate: ", name(op), " is not defined from ",
                       name(operand), " to ", name(result));
  uint64_t bits = 0;  // The machine is little endian: the low bytes are the value.
  function(&bits, &a, &b, &c, 1);
  return bits;
}

}  // namespace lohe::ir
