#pragma once

#include <stdint.h>

/// The inner parts of matrix multiplication, one set for each CPU level. This header and gemm_simd.h include
/// no C++ library header: an inline function of one, compiled for AVX-512, could be the copy that the linker
/// keeps for everybody.

namespace lohe::backend {

/// Every element of a product is a sum over chunks of kChunk values of k, the chunks' sums added in order;
/// inside a chunk it is one chain acc = fma(a, b, acc) in the order of k that starts at +0. Nothing else
/// enters: not the tile that the element falls into, not the number of rows or columns, threads or the CPU
/// level. 384 keeps a panel of A in a first-level cache and the error of a chain small; it is also what MKL's
/// float32 kernels for AVX-512 do (measured on 2024.2), so that most of their results have the same bits.
inline constexpr int64_t kChunk = 384;

/// Lanes [lane, lane + length) of a packed row, from `offset` on in the source.
struct Segment {
  int lane;
  int length;
  int64_t offset;
};

/// Adjacent elements of each of as many rows as a tile has, which it fetches into the second-level cache
/// beside its work. Any address is allowed.
template <class T>
struct Fetch {
  const T* at = nullptr;
  int64_t row_stride = 0;
  int64_t size = 0;  ///< elements of a row
};

/// Some rows of C, in tiles side by side, and what becomes of them:
///   c[i, j] = (accumulate ? c[i, j] : nothing) + sum over p < k of a[i, p] * b[p, j], and then + addend[i,
///   j] if there is one,
/// for i < rows, j < columns; k <= kChunk. Strides count elements; the columns of c and addend are adjacent,
/// and so are those of b that belong to a tile.
template <class T>
struct Strip {
  int rows;
  int64_t columns;
  int64_t k;
  const T* a;
  int64_t a_row_stride;
  int64_t a_k_stride;
  const T* b;
  int64_t b_k_stride;
  int64_t b_tile_stride;  ///< from a tile's columns to the next one's
  T* c;
  int64_t c_row_stride;
  bool accumulate = false;
  const T* addend = nullptr;
  int64_t addend_row_stride = 0;
  bool near = false;  ///< C is in a near cache: it is not fetched
  /// What the next strip reads: each tile fetches up to `next_share` elements of a row.
  Fetch<T> next{};
  int64_t next_share = 0;
  const Fetch<T>* later = nullptr;  ///< for each tile; what later steps of a program read
};

/// T: float, double, uint32_t, uint64_t (integers wrap around, so signed ones are computed as unsigned).
template <class T>
struct GemmKernels {
  int rows;     ///< of the largest tile, and of a packed panel of A
  int columns;  ///< of the largest tile, and of a packed panel of B

  /// strip.rows <= rows.
  void (*multiply)(const Strip<T>& strip);

  /// packed[p * width + lane] = source[lane * lane_stride + p * k_stride] for p < k and lane < lanes, 0 for
  /// lanes <= lane < width; width is `rows` or `columns`.
  void (*pack)(int lanes, int width, int64_t k, const T* source, int64_t lane_stride, int64_t k_stride,
               T* packed);

  /// As `pack` for any number of lanes: a panel for each `width` of them, panel_stride elements apart.
  void (*pack_panels)(int64_t lanes, int width, int64_t k, const T* source, int64_t lane_stride,
                      int64_t k_stride, T* packed, int64_t panel_stride);

  /// packed[r * packed_stride + lane] for r < rows and lane < width: what the `count` segments, which do not
  /// overlap, put there from source + r * source_stride, and 0 elsewhere.
  void (*copy_segments)(const Segment* segments, int count, int width, int64_t rows, const T* source,
                        int64_t source_stride, T* packed, int64_t packed_stride);
};

/// Conversions between half types and float32 of `n` adjacent elements; narrowing rounds to nearest even and
/// keeps NaN a NaN.
struct HalfConversions {
  void (*widen_bfloat16)(int64_t n, const uint16_t* source, float* result);
  void (*widen_float16)(int64_t n, const uint16_t* source, float* result);
  void (*narrow_bfloat16)(int64_t n, const float* source, uint16_t* result);
  void (*narrow_float16)(int64_t n, const float* source, uint16_t* result);
};

struct GemmLevel {
  GemmKernels<float> float32;
  GemmKernels<double> float64;
  GemmKernels<uint32_t> int32;
  GemmKernels<uint64_t> int64;
  HalfConversions half;

  const GemmKernels<float>& get(float) const { return float32; }
  const GemmKernels<double>& get(double) const { return float64; }
  const GemmKernels<uint32_t>& get(uint32_t) const { return int32; }
  const GemmKernels<uint64_t>& get(uint64_t) const { return int64; }
};

/// Plain C++ for the oldest level served; the others need what their names say.
const GemmLevel& gemm_portable();
const GemmLevel& gemm_avx2();
const GemmLevel& gemm_avx512();

}  // namespace lohe::backend
