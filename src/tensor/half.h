#pragma once

#include <bit>
#include <complex>
#include <cstdint>
#include <type_traits>

#include "lohe/dtype.h"
#include "lohe/error.h"

/// Element types for host code that is a template over dtypes. The half types hold bits and compute as
/// float32.
namespace lohe {

struct Float16 {
  _Float16 value;
  Float16() = default;
  explicit Float16(float v) : value(static_cast<_Float16>(v)) {}
  operator float() const { return static_cast<float>(value); }
};

struct BFloat16 {
  uint16_t bits;
  BFloat16() = default;
  explicit BFloat16(float v) {
    const auto u = std::bit_cast<uint32_t>(v);
    // To nearest, ties to even; a NaN stays one.
    bits = (u & 0x7fffffffu) > 0x7f800000u ? static_cast<uint16_t>(u >> 16 | 0x40u)
                                           : static_cast<uint16_t>((u + 0x7fffu + (u >> 16 & 1u)) >> 16);
  }
  operator float() const { return std::bit_cast<float>(uint32_t{bits} << 16); }
};

template <class T>
inline constexpr bool kIsHalf = std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>;
template <class T>
inline constexpr bool kIsComplex =
    std::is_same_v<T, std::complex<float>> || std::is_same_v<T, std::complex<double>>;

/// Calls `f(T{})` with the element type of `dtype`; bool elements are C++ bool.
template <class F>
decltype(auto) visit_dtype(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::kUInt8:
      return f(uint8_t{});
    case Dtype::kInt8:
      return f(int8_t{});
    case Dtype::kInt16:
      return f(int16_t{});
    case Dtype::kInt32:
      return f(int32_t{});
    case Dtype::kInt64:
      return f(int64_t{});
    case Dtype::kFloat16:
      return f(Float16{});
    case Dtype::kFloat32:
      return f(float{});
    case Dtype::kFloat64:
      return f(double{});
    case Dtype::kComplex64:
      return f(std::complex<float>{});
    case Dtype::kComplex128:
      return f(std::complex<double>{});
    case Dtype::kBFloat16:
      return f(BFloat16{});
    case Dtype::kBool:
      return f(bool{});
    case Dtype::kUndefined:
      break;
  }
  raise(ErrorKind::kInternal, "a tensor without dtype");
}

}  // namespace lohe
