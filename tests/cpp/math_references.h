#pragma once

#include <quadmath.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>

/// What math_accuracy.cpp measures against: for each function a quick reference for blocks of float32
/// arguments, a scalar one in float64, one in 80 bits, and one in 113 bits.

struct References {
  /// block(x, got, want, n): n references in float64; `got` is the result under test, which may serve as a
  /// starting point. Its error is far below a float32's ulp, except that a zero may have the wrong sign.
  std::function<void(const double*, const float*, double*, int64_t)> block;
  std::function<double(double)> scalar;
  std::function<long double(long double)> extended;  ///< empty where the C library has none
  std::function<__float128(__float128)> quad;
};

/// The errors of out[i] against want[i] as ulp.h counts them, infinite where that needs a closer look;
/// returns the largest. One loop without branches, for the compiler to vectorise.
inline double float_errors(const float* out, const double* want, double least, double* error, int64_t n) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  constexpr double max = std::numeric_limits<float>::max();
  double largest = 0;
  for (int64_t j = 0; j < n; ++j) {
    const double got = out[j], w = want[j];
    const bool same = std::bit_cast<uint32_t>(out[j]) == std::bit_cast<uint32_t>(static_cast<float>(want[j]));
    const double magnitude = std::fabs(w);
    const double clipped = magnitude < max ? magnitude : max;
    const double sized = clipped > least ? clipped : least;
    // 2^-unit by its bits: the exponent of a float32's last place, not below that of a denormal's.
    const auto biased = static_cast<int64_t>(std::bit_cast<uint64_t>(sized) >> 52);
    const int64_t exponent = biased > 1022 - 125 ? biased : 1022 - 125;
    const double per_unit = std::bit_cast<double>(static_cast<uint64_t>(1023 + 1022 + 24 - exponent) << 52);
    double e = std::fabs(got - w) * per_unit;
    e = same ? (e <= 1 ? e : 0) : (got == 0 && w == 0 ? inf : e);  // equal infinities have no difference
    e = e == e ? e : (got != got && w != w ? 0 : inf);
    error[j] = e;
    largest = e > largest ? e : largest;
  }
  return largest;
}

References references_exp();
References references_exp2();
References references_expm1();
References references_log();
References references_log2();
References references_log10();
References references_log1p();
References references_sin();
References references_cos();
References references_tan();
References references_asin();
References references_acos();
References references_atan();
References references_sinh();
References references_cosh();
References references_tanh();
References references_asinh();
References references_acosh();
References references_atanh();
References references_erf();
References references_erfc();
References references_sigmoid();
References references_rsqrt();
References references_lgamma();
References references_erfinv();
References references_digamma();
