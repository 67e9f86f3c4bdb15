#pragma once

#include <algorithm>
#include <complex>
#include <cstdint>
#include <type_traits>

#include "backend/cpu/packing.h"
#include "backend/library.h"
#include "lohe/scalar.h"

namespace lohe::backend {

/// alpha and beta in an element type.
template <class E>
E as_element(const Scalar& scalar) {
  if constexpr (std::is_integral_v<E>) {
    return static_cast<E>(scalar.to_int());
  } else if constexpr (std::is_floating_point_v<E>) {
    return static_cast<E>(scalar.to_double());
  } else {
    using R = typename E::value_type;
    return {static_cast<R>(scalar.to_complex().real()), static_cast<R>(scalar.to_complex().imag())};
  }
}

template <class E>
E times(E a, E b) {
  if constexpr (std::is_integral_v<E> || std::is_floating_point_v<E>) {
    return a * b;
  } else {
    return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
  }
}

/// Writes rows of sums, `E` as computed (adjacent columns), as C's dtype `D` after the epilogue.
template <class E, class D>
class Writer {
 public:
  Writer(const GemmLevel& level, Dtype dtype, const Epilogue& epilogue)
      : level_(level),
        dtype_(dtype),
        alpha_(as_element<E>(epilogue.alpha)),
        beta_(as_element<E>(epilogue.beta)) {}

  void write_row(int64_t n, E* sums, const D* addend, int64_t addend_stride, D* c, int64_t c_stride) {
    if (alpha_ != E(1))
      for (int64_t j = 0; j < n; ++j) sums[j] = times(alpha_, sums[j]);
    if (beta_ != E(0)) {
      if constexpr (std::is_same_v<E, D>) {
        add(n, sums, addend, addend_stride);
      } else {
        E widened[kStep];
        for (int64_t j = 0; j < n; j += kStep) {
          const int64_t count = std::min(kStep, n - j);
          widen(level_, dtype_, reinterpret_cast<const char*>(addend + j * addend_stride), addend_stride,
                count, widened);
          add(count, sums + j, widened, 1);
        }
      }
    }
    if constexpr (std::is_same_v<E, D>) {
      if (c == sums) return;
      if (c_stride == 1) {
        std::copy_n(sums, n, c);
      } else {
        for (int64_t j = 0; j < n; ++j) c[j * c_stride] = sums[j];
      }
    } else if constexpr (std::is_same_v<E, float>) {
      const auto narrow = dtype_ == kBFloat16 ? level_.half.narrow_bfloat16 : level_.half.narrow_float16;
      if (c_stride == 1) return narrow(n, sums, c);
      uint16_t narrowed[kStep];
      for (int64_t j = 0; j < n; j += kStep) {
        const int64_t count = std::min(kStep, n - j);
        narrow(count, sums + j, narrowed);
        for (int64_t i = 0; i < count; ++i) c[(j + i) * c_stride] = narrowed[i];
      }
    } else {
      for (int64_t j = 0; j < n; ++j) c[j * c_stride] = static_cast<D>(sums[j]);
    }
  }

 private:
  static constexpr int64_t kStep = 256;

  void add(int64_t n, E* sums, const E* addend, int64_t stride) {
    if (beta_ == E(1) && stride == 0) {
      const E same = *addend;
      for (int64_t j = 0; j < n; ++j) sums[j] = sums[j] + same;
    } else if (beta_ == E(1)) {
      for (int64_t j = 0; j < n; ++j) sums[j] = sums[j] + addend[j * stride];
    } else {
      for (int64_t j = 0; j < n; ++j) sums[j] = sums[j] + times(beta_, addend[j * stride]);
    }
  }

  const GemmLevel& level_;
  const Dtype dtype_;
  const E alpha_, beta_;
};

}  // namespace lohe::backend
