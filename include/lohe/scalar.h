#pragma once

#include <complex>
#include <concepts>
#include <cstdint>
#include <iosfwd>

#include "lohe/dtype.h"

namespace lohe {

/// A number that is not a tensor: bool, 64-bit integer, double or complex double. In type promotion it counts
/// by its category only, as a Python number does in PyTorch.
class LOHE_API Scalar {
 public:
  enum class Kind : uint8_t { kBool, kInt, kFloat, kComplex };

  Scalar() : Scalar(int64_t{0}) {}
  Scalar(bool v) : kind_(Kind::kBool), int_(v) {}
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  Scalar(T v) : kind_(Kind::kInt), int_(static_cast<int64_t>(v)) {}
  template <std::floating_point T>
  Scalar(T v) : kind_(Kind::kFloat), real_(static_cast<double>(v)) {}
  Scalar(std::complex<double> v) : kind_(Kind::kComplex), real_(v.real()), imag_(v.imag()) {}
  // Member by member: a processor waits where what was just written is read in wider words.
  Scalar(const Scalar& o) : kind_(o.kind_), int_(o.int_), imag_(o.imag_) {}
  Scalar& operator=(const Scalar& o) {
    kind_ = o.kind_;
    int_ = o.int_;
    imag_ = o.imag_;
    return *this;
  }

  Kind kind() const { return kind_; }
  bool is_bool() const { return kind_ == Kind::kBool; }
  bool is_integral() const { return kind_ <= Kind::kInt; }
  bool is_floating() const { return kind_ == Kind::kFloat; }
  bool is_complex() const { return kind_ == Kind::kComplex; }

  double to_double() const { return is_integral() ? static_cast<double>(int_) : real_; }
  /// Truncates toward zero; out of range and NaN give the minimum.
  int64_t to_int() const;
  bool to_bool() const { return is_integral() ? int_ != 0 : (real_ != 0 || (is_complex() && imag_ != 0)); }
  std::complex<double> to_complex() const { return {to_double(), is_complex() ? imag_ : 0.0}; }
  double imag() const { return is_complex() ? imag_ : 0.0; }

  /// bool, int64, the default dtype or its complex partner.
  Dtype dtype() const;
  bool operator==(const Scalar& other) const;

 private:
  Kind kind_;
  union {
    int64_t int_;
    double real_;
  };
  double imag_ = 0;
};

LOHE_API std::ostream& operator<<(std::ostream& out, const Scalar& s);

}  // namespace lohe
