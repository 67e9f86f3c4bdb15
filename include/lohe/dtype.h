#pragma once

#include <complex>
#include <cstddef>
#include <cstdint>
#include <iosfwd>
#include <string_view>
#include <type_traits>

#include "lohe/export.h"

namespace lohe {

/// Element types. The numbers are those of PyTorch's ScalarType, which its files carry.
enum class Dtype : uint8_t {
  kUInt8 = 0,
  kInt8 = 1,
  kInt16 = 2,
  kInt32 = 3,
  kInt64 = 4,
  kFloat16 = 5,
  kFloat32 = 6,
  kFloat64 = 7,
  kComplex64 = 9,
  kComplex128 = 10,
  kBool = 11,
  kBFloat16 = 15,
  kUndefined = 255,
};

/// One row for every dtype; `tensor/dtype.cpp` is the only table.
struct DtypeInfo {
  Dtype dtype;
  std::string_view name;         ///< "float32"
  std::string_view alias;        ///< "float", or empty
  std::string_view tensor_type;  ///< "FloatTensor"
  std::string_view safetensors;  ///< "F32"
  uint8_t size;                  ///< bytes an element
  bool is_floating;
  bool is_complex;
  bool is_signed;
  Dtype value_dtype;    ///< of the real part for complex types, else itself
  Dtype compute_dtype;  ///< float32 for half types, else itself
};

/// The table row of a dtype. @throws internal error for kUndefined.
LOHE_API const DtypeInfo& info(Dtype dtype);

constexpr bool is_floating(Dtype d) {
  return d == Dtype::kFloat16 || d == Dtype::kBFloat16 || d == Dtype::kFloat32 || d == Dtype::kFloat64;
}
constexpr bool is_complex(Dtype d) { return d == Dtype::kComplex64 || d == Dtype::kComplex128; }
constexpr bool is_integral(Dtype d, bool include_bool) {
  return (static_cast<uint8_t>(d) <= static_cast<uint8_t>(Dtype::kInt64)) ||
         (include_bool && d == Dtype::kBool);
}
constexpr bool is_half(Dtype d) { return d == Dtype::kFloat16 || d == Dtype::kBFloat16; }
constexpr bool is_differentiable(Dtype d) { return is_floating(d) || is_complex(d); }

/// Bytes of one element.
constexpr int64_t itemsize(Dtype d) {
  switch (d) {
    case Dtype::kUInt8:
    case Dtype::kInt8:
    case Dtype::kBool:
      return 1;
    case Dtype::kInt16:
    case Dtype::kFloat16:
    case Dtype::kBFloat16:
      return 2;
    case Dtype::kInt32:
    case Dtype::kFloat32:
      return 4;
    case Dtype::kInt64:
    case Dtype::kFloat64:
    case Dtype::kComplex64:
      return 8;
    case Dtype::kComplex128:
      return 16;
    case Dtype::kUndefined:
      return 0;
  }
  return 0;
}

/// The dtype that two operands of equal category give (PyTorch's promotion lattice).
LOHE_API Dtype promote_types(Dtype a, Dtype b);

/// Whether a result of dtype `from` may be written into a tensor of dtype `to` (in-place and out= rule).
LOHE_API bool can_cast(Dtype from, Dtype to);

/// complex64 for float32 and half types, complex128 for float64; complex types give themselves.
LOHE_API Dtype to_complex(Dtype d);

/// The dtype named `name` ("float32", "float", "bfloat16"), or kUndefined.
LOHE_API Dtype dtype_from_name(std::string_view name);

/// Default floating dtype (float32 unless set_default_dtype was called). Process wide, as in PyTorch.
LOHE_API Dtype default_dtype();
LOHE_API void set_default_dtype(Dtype d);

LOHE_API std::ostream& operator<<(std::ostream& out, Dtype d);

inline constexpr Dtype kUInt8 = Dtype::kUInt8, kInt8 = Dtype::kInt8, kInt16 = Dtype::kInt16,
                       kInt32 = Dtype::kInt32, kInt64 = Dtype::kInt64, kFloat16 = Dtype::kFloat16,
                       kFloat32 = Dtype::kFloat32, kFloat64 = Dtype::kFloat64, kComplex64 = Dtype::kComplex64,
                       kComplex128 = Dtype::kComplex128, kBool = Dtype::kBool, kBFloat16 = Dtype::kBFloat16;

/// The dtype that a C++ element type stores: float is kFloat32, int64_t kInt64, std::complex<float>
/// kComplex64 ...
template <class T>
constexpr Dtype dtype_of() {
  using U = std::remove_cv_t<T>;
  if constexpr (std::is_same_v<U, bool>)
    return kBool;
  else if constexpr (std::is_same_v<U, uint8_t>)
    return kUInt8;
  else if constexpr (std::is_same_v<U, int8_t> || std::is_same_v<U, char>)
    return kInt8;
  else if constexpr (std::is_integral_v<U> && std::is_signed_v<U> && sizeof(U) == 2)
    return kInt16;
  else if constexpr (std::is_integral_v<U> && std::is_signed_v<U> && sizeof(U) == 4)
    return kInt32;
  else if constexpr (std::is_integral_v<U> && std::is_signed_v<U> && sizeof(U) == 8)
    return kInt64;
  else if constexpr (std::is_same_v<U, float>)
    return kFloat32;
  else if constexpr (std::is_same_v<U, double>)
    return kFloat64;
  else if constexpr (std::is_same_v<U, std::complex<float>>)
    return kComplex64;
  else if constexpr (std::is_same_v<U, std::complex<double>>)
    return kComplex128;
  else
    static_assert(!sizeof(U), "no dtype stores this type");
}

}  // namespace lohe
