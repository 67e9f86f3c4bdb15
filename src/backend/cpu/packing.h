#pragma once

#include <algorithm>
#include <complex>
#include <cstdint>
#include <type_traits>

#include "backend/cpu/gemm.h"
#include "codegen/codegen.h"
#include "lohe/dtype.h"

namespace lohe::backend {

// Every product is computed by one of four tile kernels (float, double, 32 and 64-bit integers). What differs
// between dtypes is how an operand is brought into packed panels: as it is, widened, or, for complex types,
// expanded. A complex product [m, k] x [k, n] is the real product of A as it lies in memory, [m, 2k] with
// real and imaginary parts in turn, and the [2k, 2n] matrix that holds
//    br  bi
//   -bi  br    for each element of B; its result, [m, 2n], is C as it lies in memory.

enum class Form : uint8_t { kPlain, kWidened, kComplexA, kComplexB };

/// A or B: `lanes` are the rows of A or the columns of B, counted (as k is) in elements of the compute type.
struct Operand {
  const char* data;
  int64_t lane_stride;  ///< in elements of `dtype`
  int64_t k_stride;
  int64_t lanes;
  Dtype dtype;
  Form form;
  bool conjugate;
};

/// Whether so many rows, read where they lie, drive each other out of a first-level cache: it keeps 8 lines,
/// or a few more, whose addresses differ by multiples of 4 KiB. A copy of them side by side does not.
template <class T>
bool rows_clash(int64_t rows, int64_t row_stride) {
  constexpr int64_t kWays = 8, kWayBytes = 4096;
  return rows > kWays && row_stride != 0 && row_stride * static_cast<int64_t>(sizeof(T)) % kWayBytes == 0;
}

/// Rows from which on a tile puts a row of B to so much use that it may lie anywhere. Lower ones ask for
/// lines of B sooner than they come from other places than a panel: at AVX2 a B of 512 columns, read in
/// place, takes 1.3 times as long.
inline constexpr int kTallTile = 12;

/// Whether rows of a right-hand side are as good where they lie as in panels. @param tile_rows of the largest
/// tile
template <class T>
bool close_rows(int tile_rows, int64_t row_stride) {
  constexpr int64_t kCloseBytes = 2048;
  return tile_rows >= kTallTile && row_stride * static_cast<int64_t>(sizeof(T)) <= kCloseBytes;
}

inline const GemmLevel& level_in_use() {
  static const GemmLevel& level = codegen::cpu_level() == codegen::CpuLevel::kAvx512 ? gemm_avx512()
                                  : codegen::cpu_level() == codegen::CpuLevel::kAvx2 ? gemm_avx2()
                                                                                     : gemm_portable();
  return level;
}

template <class Source, class T>
void widen_strided(const Source* source, int64_t stride, int64_t n, T* result) {
  for (int64_t i = 0; i < n; ++i) result[i] = static_cast<T>(source[i * stride]);
}

/// n elements `stride` apart, as the compute type.
template <class T>
void widen(const GemmLevel& level, Dtype dtype, const char* source, int64_t stride, int64_t n, T* result) {
  if constexpr (std::is_same_v<T, float>) {
    const auto* from = reinterpret_cast<const uint16_t*>(source);
    uint16_t gathered[256];
    while (n > 0) {
      const int64_t count = stride == 1 ? n : std::min<int64_t>(n, 256);
      const uint16_t* adjacent = from;
      if (stride != 1) {
        for (int64_t i = 0; i < count; ++i) gathered[i] = from[i * stride];
        adjacent = gathered;
      }
      (dtype == kBFloat16 ? level.half.widen_bfloat16 : level.half.widen_float16)(count, adjacent, result);
      from += count * stride;
      result += count;
      n -= count;
    }
  } else if constexpr (std::is_same_v<T, uint32_t>) {
    switch (dtype) {
      case kUInt8:
        return widen_strided(reinterpret_cast<const uint8_t*>(source), stride, n, result);
      case kInt8:
        return widen_strided(reinterpret_cast<const int8_t*>(source), stride, n, result);
      default:
        return widen_strided(reinterpret_cast<const int16_t*>(source), stride, n, result);
    }
  }
}

/// Packs `lanes` lanes from `lane0` and `k` values of k from `k0`, at most kChunk, of a Form that is not
/// plain: first into `staged` (width * kChunk elements) along the axis that is adjacent in memory, then as
/// plain.
template <class T>
void pack_staged(const GemmLevel& level, const Operand& operand, int64_t lane0, int lanes, int width,
                 int64_t k0, int64_t k, T* staged, T* packed) {
  const GemmKernels<T>& kernels = level.get(T{});
  const int64_t size = itemsize(operand.dtype);
  if (operand.form == Form::kWidened) {
    const char* source = operand.data + (lane0 * operand.lane_stride + k0 * operand.k_stride) * size;
    if (operand.lane_stride == 1) {
      for (int64_t p = 0; p < k; ++p)
        widen(level, operand.dtype, source + p * operand.k_stride * size, 1, lanes, staged + p * width);
      kernels.pack(lanes, width, k, staged, 1, width, packed);
    } else {
      for (int lane = 0; lane < lanes; ++lane)
        widen(level, operand.dtype, source + lane * operand.lane_stride * size, operand.k_stride, k,
              staged + lane * k);
      kernels.pack(lanes, width, k, staged, k, 1, packed);
    }
    return;
  }
  if constexpr (std::is_floating_point_v<T>) {
    const auto* source = reinterpret_cast<const std::complex<T>*>(operand.data);
    const bool is_b = operand.form == Form::kComplexB;
    const int64_t lane_parts = is_b ? 2 : 1;
    for (int64_t lane = 0; lane < lanes / lane_parts; ++lane) {
      const auto* at = source + (lane0 / lane_parts + lane) * operand.lane_stride + k0 / 2 * operand.k_stride;
      T* to = staged + lane * lane_parts * k;
      for (int64_t p = 0; p < k; p += 2, at += operand.k_stride) {
        const T real = at->real();
        const T imag = operand.conjugate ? -at->imag() : at->imag();
        to[p] = real;
        to[p + 1] = is_b ? -imag : imag;
        if (is_b) {
          to[k + p] = imag;
          to[k + p + 1] = real;
        }
      }
    }
    kernels.pack(lanes, width, k, staged, k, 1, packed);
  }
}

/// Packs any Form; `staged` is used for those that are not plain.
template <class T>
void pack_panel(const GemmLevel& level, const Operand& operand, int64_t lane0, int lanes, int width,
                int64_t k0, int64_t k, T* staged, T* packed) {
  if (operand.form != Form::kPlain)
    return pack_staged(level, operand, lane0, lanes, width, k0, k, staged, packed);
  const T* source =
      reinterpret_cast<const T*>(operand.data) + lane0 * operand.lane_stride + k0 * operand.k_stride;
  level.get(T{}).pack(lanes, width, k, source, operand.lane_stride, operand.k_stride, packed);
}

/// As pack_panel for any number of lanes, in panels that are panel_stride elements apart.
template <class T>
void pack_lanes(const GemmLevel& level, const Operand& operand, int64_t lane0, int64_t lanes, int width,
                int64_t k0, int64_t k, T* staged, T* packed, int64_t panel_stride) {
  if (operand.form == Form::kPlain) {
    const T* source =
        reinterpret_cast<const T*>(operand.data) + lane0 * operand.lane_stride + k0 * operand.k_stride;
    level.get(T{}).pack_panels(lanes, width, k, source, operand.lane_stride, operand.k_stride, packed,
                               panel_stride);
    return;
  }
  for (; lanes > 0; lanes -= width, lane0 += width, packed += panel_stride)
    pack_staged(level, operand, lane0, static_cast<int>(std::min<int64_t>(lanes, width)), width, k0, k,
                staged, packed);
}

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace lohe::backend
