#include "math_references.h"

#include <immintrin.h>

#include <cstring>
#include <vector>

// libmvec's functions by their names in the vector ABI; at most 4 ulp of float64.
#if defined(__AVX512F__)
using Lanes = __m512d;
#define LANES_OF(name) _ZGVeN8v_##name
#elif defined(__AVX2__)
using Lanes = __m256d;
#define LANES_OF(name) _ZGVdN4v_##name
#else
using Lanes = __m128d;
#define LANES_OF(name) _ZGVbN2v_##name
#endif

template <Lanes (*function)(Lanes)>
void in_lanes(const double* x, double* y, int64_t n) {
  constexpr int64_t width = sizeof(Lanes) / sizeof(double);
  int64_t i = 0;
  for (; i + width <= n; i += width) {
    Lanes lanes;
    std::memcpy(&lanes, x + i, sizeof lanes);
    lanes = function(lanes);
    std::memcpy(y + i, &lanes, sizeof lanes);
  }
  if (i == n) return;
  double rest[width] = {};
  std::memcpy(rest, x + i, static_cast<size_t>(n - i) * sizeof(double));
  Lanes lanes;
  std::memcpy(&lanes, rest, sizeof lanes);
  lanes = function(lanes);
  std::memcpy(rest, &lanes, sizeof lanes);
  std::memcpy(y + i, rest, static_cast<size_t>(n - i) * sizeof(double));
}

// ---- functions that the C libraries lack

__float128 digamma_quad(__float128 x) {
  if (isnanq(x)) return x;
  if (isinfq(x)) return x > 0 ? x : nanq("");
  if (x == 0) return signbitq(x) ? HUGE_VALQ : -HUGE_VALQ;
  if (x < 0) {
    const __float128 f = x - rintq(x);
    if (f == 0) return nanq("");
    return digamma_quad(1 - x) - M_PIq * cosq(M_PIq * f) / sinq(M_PIq * f);
  }
  __float128 sum = 0;
  while (x < 30) sum -= 1 / x, x += 1;
  static const __float128 b[] = {1.0Q / 12,        -1.0Q / 120,       1.0Q / 252,    -1.0Q / 240,
                                 1.0Q / 132,       -691.0Q / 32760,   1.0Q / 12,     -3617.0Q / 8160,
                                 43867.0Q / 14364, -174611.0Q / 6600, 77683.0Q / 276};
  const __float128 s = 1 / (x * x);
  __float128 p = 0;
  for (int i = 10; i >= 0; --i) p = (p + b[i]) * s;
  return sum + logq(x) - 0.5Q / x - p;
}

#define LOHE_WIDE(name)                                           \
  long double wide_##name(long double x) { return std::name(x); } \
  __float128 wide_##name(__float128 x) { return name##q(x); }
LOHE_WIDE(erf)
LOHE_WIDE(erfc)
LOHE_WIDE(exp)
LOHE_WIDE(fabs)
LOHE_WIDE(log)
LOHE_WIDE(log1p)
LOHE_WIDE(sqrt)
#undef LOHE_WIDE

/// A step below `tolerance`, relative to the result, is the last one: its error is about the square of that.
template <class T>
T erfinv_newton(T x, double tolerance) {
  constexpr T pi = M_PIq;
  const T a = wide_fabs(x);
  if (!(a < 1))
    return a == 1 ? x * std::numeric_limits<double>::infinity() : std::numeric_limits<double>::quiet_NaN();
  if (a < T(1e-30)) return x * wide_sqrt(pi) / 2;
  T y = a < T(0.5) ? a * T(0.9) : wide_sqrt(-wide_log1p(-x * x));
  for (int i = 0; i < 60; ++i) {  // Newton on the error or on the logarithm of the complement
    const T slope = 2 / wide_sqrt(pi) * wide_exp(-y * y);
    const T step =
        a < T(0.5) ? (wide_erf(y) - a) / slope : -wide_log(wide_erfc(y) / (1 - a)) * wide_erfc(y) / slope;
    y -= step;
    if (wide_fabs(step) < tolerance * y) break;
  }
  return x < 0 ? -y : y;
}

long double erfinv_extended(long double x) { return erfinv_newton(x, 1e-12); }
__float128 erfinv_quad(__float128 x) { return erfinv_newton(x, 1e-18); }

#define LOHE_LANES(name) extern "C" Lanes LANES_OF(name)(Lanes);
LOHE_LANES(exp)
LOHE_LANES(exp2)
LOHE_LANES(expm1)
LOHE_LANES(log)
LOHE_LANES(log2)
LOHE_LANES(log10)
LOHE_LANES(log1p)
LOHE_LANES(sin)
LOHE_LANES(cos)
LOHE_LANES(tan)
LOHE_LANES(asin)
LOHE_LANES(acos)
LOHE_LANES(atan)
LOHE_LANES(sinh)
LOHE_LANES(cosh)
LOHE_LANES(tanh)
LOHE_LANES(asinh)
LOHE_LANES(acosh)
LOHE_LANES(atanh)
LOHE_LANES(erf)
LOHE_LANES(erfc)
#undef LOHE_LANES

#define LOHE_REFERENCES(name)                                                                  \
  References references_##name() {                                                             \
    return {[](const double* x, const float*, double* want, int64_t n) {                       \
              in_lanes<LANES_OF(name)>(x, want, n);                                            \
            },                                                                                 \
            [](double x) { return std::name(x); }, [](long double x) { return std::name(x); }, \
            [](__float128 x) { return name##q(x); }};                                          \
  }
LOHE_REFERENCES(exp)
LOHE_REFERENCES(exp2)
LOHE_REFERENCES(expm1)
LOHE_REFERENCES(log)
LOHE_REFERENCES(log2)
LOHE_REFERENCES(log10)
LOHE_REFERENCES(log1p)
LOHE_REFERENCES(sin)
LOHE_REFERENCES(cos)
LOHE_REFERENCES(tan)
LOHE_REFERENCES(asin)
LOHE_REFERENCES(acos)
LOHE_REFERENCES(atan)
LOHE_REFERENCES(sinh)
LOHE_REFERENCES(cosh)
LOHE_REFERENCES(tanh)
LOHE_REFERENCES(asinh)
LOHE_REFERENCES(acosh)
LOHE_REFERENCES(atanh)
LOHE_REFERENCES(erf)
LOHE_REFERENCES(erfc)
#undef LOHE_REFERENCES

References references_sigmoid() {
  return {[](const double* x, const float*, double* want, int64_t n) {
            for (int64_t i = 0; i < n; ++i) want[i] = -x[i];
            in_lanes<LANES_OF(exp)>(want, want, n);
            for (int64_t i = 0; i < n; ++i) want[i] = 1 / (1 + want[i]);
          },
          [](double x) { return 1 / (1 + std::exp(-x)); },
          [](long double x) { return 1 / (1 + std::exp(-x)); },
          [](__float128 x) { return 1 / (1 + expq(-x)); }};
}

References references_rsqrt() {
  return {[](const double* x, const float*, double* want, int64_t n) {
            for (int64_t i = 0; i < n; ++i) want[i] = 1 / std::sqrt(x[i]);
          },
          [](double x) { return 1 / std::sqrt(x); }, [](long double x) { return 1 / std::sqrt(x); },
          [](__float128 x) { return 1 / sqrtq(x); }};
}

References references_lgamma() {
  const auto scalar = [](double x) {
    int sign;
    return ::lgamma_r(x, &sign);
  };
  return {[=](const double* x, const float*, double* want, int64_t n) {
            for (int64_t i = 0; i < n; ++i) want[i] = scalar(x[i]);
          },
          scalar,
          [](long double x) {
            int sign;
            return ::lgammal_r(x, &sign);
          },
          [](__float128 x) { return isinfq(x) ? fabsq(x) : lgammaq(x); }};
}

/// One Newton step from the result under test: its error is the square of that result's.
void erfinv_block(const double* x, const float* got, double* want, int64_t n) {
  constexpr double per_slope = 0.88622692545275801365;  // sqrt(pi) / 2
  constexpr double inf = std::numeric_limits<double>::infinity();
  std::vector<double> a(n), erf(n), erfc(n), growth(n);
  for (int64_t i = 0; i < n; ++i) a[i] = std::fabs(static_cast<double>(got[i]));
  in_lanes<LANES_OF(erf)>(a.data(), erf.data(), n);
  in_lanes<LANES_OF(erfc)>(a.data(), erfc.data(), n);
  for (int64_t i = 0; i < n; ++i) growth[i] = a[i] * a[i];
  in_lanes<LANES_OF(exp)>(growth.data(), growth.data(), n);
  for (int64_t i = 0; i < n; ++i) {
    const double magnitude = std::fabs(x[i]);
    const double excess = magnitude < 0.5 ? erf[i] - magnitude : (1 - magnitude) - erfc[i];
    double y = a[i] - excess * per_slope * growth[i];
    y = magnitude == 1 ? inf : y;
    want[i] = magnitude <= 1 ? std::copysign(y, x[i]) : std::numeric_limits<double>::quiet_NaN();
  }
}
References references_erfinv() {
  return {erfinv_block, [](double x) { return static_cast<double>(erfinv_quad(x)); }, erfinv_extended,
          erfinv_quad};
}

void digamma_block(const double* x, const float*, double* want, int64_t n) {
  constexpr double pi = 3.14159265358979323846, inf = std::numeric_limits<double>::infinity();
  std::vector<double> y(n), sum(n), logarithm(n), tangent(n);
  for (int64_t i = 0; i < n; ++i) {
    double at = x[i] < 0 ? 1 - x[i] : x[i], total = 0;
    for (int k = 0; k < 14; ++k) {
      const bool low = at < 14;
      total += low ? 1 / at : 0;
      at += low ? 1 : 0;
    }
    y[i] = at;
    sum[i] = total;
    tangent[i] = pi * (x[i] - std::rint(x[i]));
  }
  in_lanes<LANES_OF(log)>(y.data(), logarithm.data(), n);
  in_lanes<LANES_OF(tan)>(tangent.data(), tangent.data(), n);
  for (int64_t i = 0; i < n; ++i) {
    const double s = 1 / (y[i] * y[i]);
    const double series =
        s * (1.0 / 12 -
             s * (1.0 / 120 - s * (1.0 / 252 - s * (1.0 / 240 - s * (1.0 / 132 - s * (691.0 / 32760))))));
    const double positive = logarithm[i] - 0.5 / y[i] - series - sum[i];
    double result = x[i] < 0 ? positive - pi / tangent[i] : positive;
    result = x[i] < 0 && tangent[i] == 0 ? std::numeric_limits<double>::quiet_NaN() : result;
    result = x[i] == 0 ? std::copysign(inf, -x[i]) : result;
    want[i] = x[i] == inf ? inf : result;
  }
}
References references_digamma() {
  return {digamma_block, [](double x) { return static_cast<double>(digamma_quad(x)); }, nullptr,
          digamma_quad};
}
