#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

namespace lohe::testing {

/// The distance of `got` from the exact value `want`, in units of the last place that T has there (of the
/// smallest denormal at least, and no finer than at `least`). Infinity where a NaN, an infinite result or a
/// zero's sign is wrong; next to the overflow an infinity counts as the power of two behind the largest
/// float.
template <class T, class Wide>
double ulps(T got, Wide want, double least = 0) {
  using Limits = std::numeric_limits<T>;
  constexpr double wrong = std::numeric_limits<double>::infinity();
  if (want != want || got != got) return (want != want) == (got != got) ? 0 : wrong;
  const T rounded = static_cast<T>(want);
  if (want == 0 && got == 0) return std::signbit(rounded) == std::signbit(got) ? 0 : wrong;
  if (std::isinf(rounded) && rounded == got) return 0;
  const Wide beyond = static_cast<Wide>(std::ldexp(0.5L, Limits::max_exponent)) * 2;
  if (want > beyond || -want > beyond) return wrong;  // got is finite or of the other sign
  const Wide value = std::isinf(got) ? (got > 0 ? beyond : -beyond) : static_cast<Wide>(got);
  int exponent;
  std::frexp(
      std::max(std::min(std::fabs(static_cast<double>(want)), static_cast<double>(Limits::max())), least),
      &exponent);
  const Wide difference = value > want ? value - want : want - value;
  const int unit = std::max(exponent, Limits::min_exponent) - Limits::digits;
  return static_cast<double>(difference / static_cast<Wide>(std::ldexp(1.0L, unit)));
}

}  // namespace lohe::testing
