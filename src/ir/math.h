#pragma once

#include "ir/builder.h"

/// The elementary functions as kernel-IR instructions: the only numerics there are, for eager kernels, fused
/// kernels and the interpreter alike. Arguments and results are kF32 or kF64. Every function is within 2 ulp
/// of the exact value over its whole domain (the special functions state their own bound), with IEEE results
/// for NaN, infinities, signed zeros and denormals.
namespace lohe::ir::math {

V exp(V x);
V exp2(V x);
V expm1(V x);
V log(V x);
V log2(V x);
V log10(V x);
V log1p(V x);
V sin(V x);
V cos(V x);
V tan(V x);
V asin(V x);
V acos(V x);
V atan(V x);
V atan2(V y, V x);
V sinh(V x);
V cosh(V x);
V tanh(V x);
V asinh(V x);
V acosh(V x);
V atanh(V x);
V sigmoid(V x);  ///< 1 / (1 + exp(-x))
V rsqrt(V x);    ///< 1 / sqrt(x), two roundings
V erf(V x);
V erfc(V x);
V erfinv(V x);      ///< 2.5 ulp
V gelu_slope(V x);  ///< d/dx x Phi(x), Phi the normal distribution's: 1e-7, 3e-16
V lgamma(V x);      ///< 6 ulp in kF64, relative where |lgamma| > 1, absolute below
V digamma(V x);     ///< kF64: a few ulp for x > 0; for x < 0 of the larger of the reflection's two terms
V pow(V x, V y);    ///< C99 special cases
V fmod(V x, V y);   ///< exact, sign of x
V hypot(V x, V y);  ///< no overflow in between

}  // namespace lohe::ir::math
