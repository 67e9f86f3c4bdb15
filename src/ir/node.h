#pragma once

#include <type_traits>

#include "ir/graph.h"

/// What a row's body is written with: operators and functions of symbolic values.
namespace lohe::ir {

Node operator+(Node a, Node b);
Node operator-(Node a, Node b);
Node operator*(Node a, Node b);
Node operator/(Node a, Node b);
Node operator-(Node a);
Node operator&(Node a, Node b);
Node operator|(Node a, Node b);
Node operator^(Node a, Node b);
Node operator~(Node a);
Node operator==(Node a, Node b);
Node operator!=(Node a, Node b);
Node operator<(Node a, Node b);
Node operator<=(Node a, Node b);
Node operator>(Node a, Node b);
Node operator>=(Node a, Node b);
Node unary(Prim prim, Node a);  ///< result dtype follows from the table of primitives
Node binary(Prim prim, Node a, Node b);
Node select(Node condition, Node a, Node b);
Node cast(Node a, Dtype dtype);
Node is_nan(Node a);
Node conj(Node a);  ///< a itself for real dtypes
Node sum(Node a, Space groups = kRow);
Node prod(Node a, Space groups = kRow);
Node amax(Node a, Space groups = kRow);
Node amin(Node a, Space groups = kRow);
Node count(Node like, Space groups = kRow);  ///< number of elements, in like's dtype

inline Node abs(Node a) { return unary(Prim::kAbs, a); }
inline Node sign(Node a) { return unary(Prim::kSign, a); }
inline Node reciprocal(Node a) { return unary(Prim::kReciprocal, a); }
inline Node square(Node a) { return unary(Prim::kSquare, a); }
inline Node sqrt(Node a) { return unary(Prim::kSqrt, a); }
inline Node rsqrt(Node a) { return unary(Prim::kRsqrt, a); }
inline Node exp(Node a) { return unary(Prim::kExp, a); }
inline Node exp2(Node a) { return unary(Prim::kExp2, a); }
inline Node expm1(Node a) { return unary(Prim::kExpm1, a); }
inline Node log(Node a) { return unary(Prim::kLog, a); }
inline Node log2(Node a) { return unary(Prim::kLog2, a); }
inline Node log10(Node a) { return unary(Prim::kLog10, a); }
inline Node log1p(Node a) { return unary(Prim::kLog1p, a); }
inline Node sin(Node a) { return unary(Prim::kSin, a); }
inline Node cos(Node a) { return unary(Prim::kCos, a); }
inline Node tan(Node a) { return unary(Prim::kTan, a); }
inline Node asin(Node a) { return unary(Prim::kAsin, a); }
inline Node acos(Node a) { return unary(Prim::kAcos, a); }
inline Node atan(Node a) { return unary(Prim::kAtan, a); }
inline Node sinh(Node a) { return unary(Prim::kSinh, a); }
inline Node cosh(Node a) { return unary(Prim::kCosh, a); }
inline Node tanh(Node a) { return unary(Prim::kTanh, a); }
inline Node asinh(Node a) { return unary(Prim::kAsinh, a); }
inline Node acosh(Node a) { return unary(Prim::kAcosh, a); }
inline Node atanh(Node a) { return unary(Prim::kAtanh, a); }
inline Node erf(Node a) { return unary(Prim::kErf, a); }
inline Node erfc(Node a) { return unary(Prim::kErfc, a); }
inline Node erfinv(Node a) { return unary(Prim::kErfinv, a); }
inline Node gelu_slope(Node a) { return unary(Prim::kGeluSlope, a); }
inline Node lgamma(Node a) { return unary(Prim::kLgamma, a); }
inline Node digamma(Node a) { return unary(Prim::kDigamma, a); }
inline Node sigmoid(Node a) { return unary(Prim::kSigmoid, a); }
inline Node floor(Node a) { return unary(Prim::kFloor, a); }
inline Node ceil(Node a) { return unary(Prim::kCeil, a); }
inline Node trunc(Node a) { return unary(Prim::kTrunc, a); }
inline Node round(Node a) { return unary(Prim::kRound, a); }
inline Node real(Node a) { return unary(Prim::kReal, a); }
inline Node imag(Node a) { return unary(Prim::kImag, a); }
inline Node angle(Node a) { return unary(Prim::kAngle, a); }
inline Node signbit(Node a) { return unary(Prim::kSignbit, a); }

inline Node minimum(Node a, Node b) { return binary(Prim::kMinimum, a, b); }
inline Node maximum(Node a, Node b) { return binary(Prim::kMaximum, a, b); }
inline Node fmin(Node a, Node b) { return binary(Prim::kFmin, a, b); }
inline Node fmax(Node a, Node b) { return binary(Prim::kFmax, a, b); }
inline Node pow(Node a, Node b) { return binary(Prim::kPow, a, b); }
inline Node atan2(Node a, Node b) { return binary(Prim::kAtan2, a, b); }
inline Node hypot(Node a, Node b) { return binary(Prim::kHypot, a, b); }
inline Node fma(Node a, Node b, Node c) { return a.graph()->apply(Prim::kFma, a.dtype(), a, b, c); }
inline Node fmod(Node a, Node b) { return binary(Prim::kFmod, a, b); }
inline Node remainder(Node a, Node b) { return binary(Prim::kRemainder, a, b); }
inline Node floor_divide(Node a, Node b) { return binary(Prim::kFloorDiv, a, b); }
inline Node trunc_divide(Node a, Node b) { return binary(Prim::kTruncDiv, a, b); }
inline Node shift_left(Node a, Node b) { return binary(Prim::kShl, a, b); }
inline Node shift_right(Node a, Node b) { return binary(Prim::kShr, a, b); }

// Node op number.
template <class T>
concept Number = std::is_arithmetic_v<T>;
Node operator+(Node a, Number auto b) { return a + a.literal(static_cast<double>(b)); }
Node operator+(Number auto a, Node b) { return b.literal(static_cast<double>(a)) + b; }
Node operator-(Node a, Number auto b) { return a - a.literal(static_cast<double>(b)); }
Node operator-(Number auto a, Node b) { return b.literal(static_cast<double>(a)) - b; }
Node operator*(Node a, Number auto b) { return a * a.literal(static_cast<double>(b)); }
Node operator*(Number auto a, Node b) { return b.literal(static_cast<double>(a)) * b; }
Node operator/(Node a, Number auto b) { return a / a.literal(static_cast<double>(b)); }
Node operator/(Number auto a, Node b) { return b.literal(static_cast<double>(a)) / b; }
Node operator==(Node a, Number auto b) { return a == a.literal(static_cast<double>(b)); }
Node operator==(Number auto a, Node b) { return b.literal(static_cast<double>(a)) == b; }
Node operator!=(Node a, Number auto b) { return a != a.literal(static_cast<double>(b)); }
Node operator!=(Number auto a, Node b) { return b.literal(static_cast<double>(a)) != b; }
Node operator<(Node a, Number auto b) { return a < a.literal(static_cast<double>(b)); }
Node operator<(Number auto a, Node b) { return b.literal(static_cast<double>(a)) < b; }
Node operator<=(Node a, Number auto b) { return a <= a.literal(static_cast<double>(b)); }
Node operator<=(Number auto a, Node b) { return b.literal(static_cast<double>(a)) <= b; }
Node operator>(Node a, Number auto b) { return a > a.literal(static_cast<double>(b)); }
Node operator>(Number auto a, Node b) { return b.literal(static_cast<double>(a)) > b; }
Node operator>=(Node a, Number auto b) { return a >= a.literal(static_cast<double>(b)); }
Node operator>=(Number auto a, Node b) { return b.literal(static_cast<double>(a)) >= b; }
Node select(Node c, Node a, Number auto b) { return select(c, a, a.literal(static_cast<double>(b))); }
Node select(Node c, Number auto a, Node b) { return select(c, b.literal(static_cast<double>(a)), b); }

}  // namespace lohe::ir
