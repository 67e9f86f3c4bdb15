#pragma once

#include "backend/cpu/gemm.h"

/// The packing, written once over the vector type of gemm_simd.h, which asks each gemm_<level>.cpp for this,
/// too:
///   pack_transposed(lanes, width, k, source, lane_stride, packed): GemmKernels::pack for k_stride 1.

namespace lohe::backend {
namespace {

template <class T>
void pack(int lanes, int width, int64_t k, const T* source, int64_t lane_stride, int64_t k_stride,
          T* packed) {
  using L = Lanes<T>;
  if (lane_stride == 1) {
    for (int64_t p = 0; p < k; ++p, source += k_stride, packed += width) {
      for (int lane = 0; lane < width; lane += L::kWidth) {
        const int stored = width - lane < L::kWidth ? width - lane : L::kWidth;
        const int loaded = lanes - lane < stored ? (lanes - lane > 0 ? lanes - lane : 0) : stored;
        L::store(packed + lane, L::load(source + lane, L::mask(loaded)), L::mask(stored));
      }
    }
    return;
  }
  if (k_stride == 1) {
    pack_transposed(lanes, width, k, source, lane_stride, packed);
    return;
  }
  for (int64_t p = 0; p < k; ++p)
    for (int lane = 0; lane < width; ++lane)
      packed[p * width + lane] = lane < lanes ? source[lane * lane_stride + p * k_stride] : T{0};
}

/// pack_panels for lanes that are adjacent and panels of a width that the compiler knows.
template <class T, int kPanel>
void pack_adjacent(int64_t lanes, int64_t k, const T* source, int64_t k_stride, T* packed,
                   int64_t panel_stride) {
  using L = Lanes<T>;
  // Row by row through all panels: the source is read in long runs. They may be short for a processor's own
  // prefetching, so that what comes from the third-level cache is asked for in time.
  constexpr int64_t kRowsAhead = 16, kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t p = 0; p < k; ++p, source += k_stride, packed += kPanel) {
    const T* from = source;
    T* to = packed;
    int64_t left = lanes;
    for (; left >= kPanel; left -= kPanel, from += kPanel, to += panel_stride) {
#pragma GCC unroll 8
      for (int64_t at = 0; at < kPanel; at += kLine) __builtin_prefetch(from + at + kRowsAhead * k_stride);
#pragma GCC unroll 8
      for (int lane = 0; lane < kPanel; lane += L::kWidth) {
        if (lane + L::kWidth <= kPanel) {
          L::store(to + lane, L::load(from + lane));
        } else {
          const auto mask = L::mask(kPanel - lane);
          L::store(to + lane, L::load(from + lane, mask), mask);
        }
      }
    }
    if (left > 0) pack(static_cast<int>(left), kPanel, 1, from, 1, k_stride, to);
  }
}

template <class T>
void pack_panels(int64_t lanes, int width, int64_t k, const T* source, int64_t lane_stride, int64_t k_stride,
                 T* packed, int64_t panel_stride) {
  using L = Lanes<T>;
  if (lane_stride == 1) {
    if (width == L::kRows)
      pack_adjacent<T, L::kRows>(lanes, k, source, k_stride, packed, panel_stride);
    else
      pack_adjacent<T, L::kVectors * L::kWidth>(lanes, k, source, k_stride, packed, panel_stride);
    return;
  }
  for (; lanes > 0; lanes -= width, source += width * lane_stride, packed += panel_stride)
    pack(static_cast<int>(lanes < width ? lanes : width), width, k, source, lane_stride, k_stride, packed);
}

template <class T>
void copy_segments(const Segment* segments, int count, int width, int64_t rows, const T* source,
                   int64_t source_stride, T* packed, int64_t packed_stride) {
  using L = Lanes<T>;
  for (int64_t r = 0; r < rows; ++r, source += source_stride, packed += packed_stride) {
    for (int lane = 0; lane < width; lane += L::kWidth) L::store(packed + lane, L::zero());
    for (int s = 0; s < count; ++s) {
      const Segment segment = segments[s];
      const T* from = source + segment.offset;
      T* to = packed + segment.lane;
      int length = segment.length;
      for (; length >= L::kWidth; length -= L::kWidth, from += L::kWidth, to += L::kWidth)
        L::store(to, L::load(from));
      if (length > 0) L::store(to, L::load(from, L::mask(length)), L::mask(length));
    }
  }
}

}  // namespace
}  // namespace lohe::backend
