#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace lohe::testing {

/// A binary floating format by its numeric_limits.
struct Format {
  int digits, min_exponent, max_exponent;
};

/// The distance of `got`, a value of `format`, from the exact value `want`, in units of the last place that
/// the format has there (of the smallest denormal at least, and no finer than at `least`). Infinity where a
/// NaN, an infinite result or a zero's sign is wrong; next to the overflow an infinity counts as the power of
/// two behind the largest number.
template <class T, class Wide>
double ulps(Format format, T got, Wide want, double least = 0) {
  constexpr double wrong = std::numeric_limits<double>::infinity();
  if (want != want || got != got) return (want != want) == (got != got) ? 0 : wrong;
  if (want == 0 && got == 0) return std::signbit(static_cast<T>(want)) == std::signbit(got) ? 0 : wrong;
  const Wide beyond = static_cast<Wide>(std::ldexp(0.5L, format.max_exponent)) * 2;
  // Half an ulp below `beyond` numbers start to round to infinity.
  const Wide rounds_up = beyond - static_cast<Wide>(std::ldexp(0.5L, format.max_exponent - format.digits));
  if (std::isinf(got) && (got > 0 ? want >= rounds_up : -want >= rounds_up)) return 0;
  if (want > beyond || -want > beyond) return wrong;  // got is finite or of the other sign
  const Wide value = std::isinf(got) ? (got > 0 ? beyond : -beyond) : static_cast<Wide>(got);
  const double max =
      static_cast<double>(std::ldexp(1 - std::ldexp(1.0L, -format.digits), format.max_exponent));
  int exponent;
  std::frexp(std::max(std::min(std::fabs(static_cast<double>(want)), max), least), &exponent);
  const Wide difference = value > want ? value - want : want - value;
  const int unit = std::max(exponent, format.min_exponent) - format.digits;
  return static_cast<double>(difference / static_cast<Wide>(std::ldexp(1.0L, unit)));
}

/// The same for a value of type T.
template <class T, class Wide>
double ulps(T got, Wide want, double least = 0) {
  using Limits = std::numeric_limits<T>;
  return ulps(Format{Limits::digits, Limits::min_exponent, Limits::max_exponent}, got, want, least);
}

}  // namespace lohe::testing
