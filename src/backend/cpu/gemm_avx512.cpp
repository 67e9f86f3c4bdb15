#include <immintrin.h>

// GCC 12 takes the undefined operands inside its own intrinsics for uninitialised variables.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

#include "backend/cpu/gemm.h"

namespace lohe::backend {
namespace {

template <class T>
struct Lanes;

template <>
struct Lanes<float> {
  using Vector = __m512;
  static constexpr int kWidth = 16, kRows = 14, kVectors = 2, kLastValues = 2;
  static __mmask16 mask(int n) { return static_cast<__mmask16>((1u << n) - 1); }
  static Vector zero() { return _mm512_setzero_ps(); }
  static Vector set1(float x) { return _mm512_set1_ps(x); }
  static Vector load(const float* p) { return _mm512_loadu_ps(p); }
  static Vector load(const float* p, __mmask16 m) { return _mm512_maskz_loadu_ps(m, p); }
  static void store(float* p, Vector v) { _mm512_storeu_ps(p, v); }
  static void store(float* p, Vector v, __mmask16 m) { _mm512_mask_storeu_ps(p, m, v); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_ps(a, b); }
};

template <>
struct Lanes<double> {
  using Vector = __m512d;
  static constexpr int kWidth = 8, kRows = 14, kVectors = 2, kLastValues = 2;
  static __mmask8 mask(int n) { return static_cast<__mmask8>((1u << n) - 1); }
  static Vector zero() { return _mm512_setzero_pd(); }
  static Vector set1(double x) { return _mm512_set1_pd(x); }
  static Vector load(const double* p) { return _mm512_loadu_pd(p); }
  static Vector load(const double* p, __mmask8 m) { return _mm512_maskz_loadu_pd(m, p); }
  static void store(double* p, Vector v) { _mm512_storeu_pd(p, v); }
  static void store(double* p, Vector v, __mmask8 m) { _mm512_mask_storeu_pd(p, m, v); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_pd(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_pd(a, b); }
};

template <>
struct Lanes<uint32_t> {
  using Vector = __m512i;
  static constexpr int kWidth = 16, kRows = 6, kVectors = 2, kLastValues = 2;
  static __mmask16 mask(int n) { return static_cast<__mmask16>((1u << n) - 1); }
  static Vector zero() { return _mm512_setzero_si512(); }
  static Vector set1(uint32_t x) { return _mm512_set1_epi32(static_cast<int>(x)); }
  static Vector load(const uint32_t* p) { return _mm512_loadu_si512(p); }
  static Vector load(const uint32_t* p, __mmask16 m) { return _mm512_maskz_loadu_epi32(m, p); }
  static void store(uint32_t* p, Vector v) { _mm512_storeu_si512(p, v); }
  static void store(uint32_t* p, Vector v, __mmask16 m) { _mm512_mask_storeu_epi32(p, m, v); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_add_epi32(_mm512_mullo_epi32(a, b), c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_epi32(a, b); }
};

template <>
struct Lanes<uint64_t> {
  using Vector = __m512i;
  static constexpr int kWidth = 8, kRows = 6, kVectors = 2, kLastValues = 2;
  static __mmask8 mask(int n) { return static_cast<__mmask8>((1u << n) - 1); }
  static Vector zero() { return _mm512_setzero_si512(); }
  static Vector set1(uint64_t x) { return _mm512_set1_epi64(static_cast<long long>(x)); }
  static Vector load(const uint64_t* p) { return _mm512_loadu_si512(p); }
  static Vector load(const uint64_t* p, __mmask8 m) { return _mm512_maskz_loadu_epi64(m, p); }
  static void store(uint64_t* p, Vector v) { _mm512_storeu_si512(p, v); }
  static void store(uint64_t* p, Vector v, __mmask8 m) { _mm512_mask_storeu_epi64(p, m, v); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm512_add_epi64(_mm512_mullo_epi64(a, b), c); }
  static Vector add(Vector a, Vector b) { return _mm512_add_epi64(a, b); }
};

/// Rows r, r + 4, r + 8, r + 12 of 4 adjacent elements each in the four 128-bit parts: the loads do the half
/// of a 16 x 16 transposition that crosses parts, and leave shuffles only for the half inside them.
__m512 load_parts(const float* source, int64_t stride, int lanes, int r, __mmask16 columns) {
  __m512 v = _mm512_setzero_ps();
  const __mmask8 m = static_cast<__mmask8>(columns);
  if (r < lanes) v = _mm512_castps128_ps512(_mm_maskz_loadu_ps(m, source + r * stride));
  if (r + 4 < lanes) v = _mm512_insertf32x4(v, _mm_maskz_loadu_ps(m, source + (r + 4) * stride), 1);
  if (r + 8 < lanes) v = _mm512_insertf32x4(v, _mm_maskz_loadu_ps(m, source + (r + 8) * stride), 2);
  if (r + 12 < lanes) v = _mm512_insertf32x4(v, _mm_maskz_loadu_ps(m, source + (r + 12) * stride), 3);
  return v;
}

/// 16 lanes by 4 values of k.
void transpose_16x4(const __m512 rows[4], __m512 result[4]) {
  const __m512 a = _mm512_unpacklo_ps(rows[0], rows[1]), b = _mm512_unpackhi_ps(rows[0], rows[1]);
  const __m512 c = _mm512_unpacklo_ps(rows[2], rows[3]), d = _mm512_unpackhi_ps(rows[2], rows[3]);
  const auto low = [](__m512 x, __m512 y) {
    return _mm512_castpd_ps(_mm512_unpacklo_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
  };
  const auto high = [](__m512 x, __m512 y) {
    return _mm512_castpd_ps(_mm512_unpackhi_pd(_mm512_castps_pd(x), _mm512_castps_pd(y)));
  };
  result[0] = low(a, c);
  result[1] = high(a, c);
  result[2] = low(b, d);
  result[3] = high(b, d);
}

/// The transpose of 16 rows of 16 elements each, into rows `width` apart of which `stored` lanes are written.
void transpose_16x16(const float* source, int64_t stride, float* to, int width, __mmask16 stored) {
  // A row beside the fourth after it: the loads do one of the four stages.
  __m512 halves[2][8];
#pragma GCC unroll 8
  for (int r = 0; r < 8; ++r) {
    const float* const row = source + (r + r / 4 * 4) * stride;
    for (int h = 0; h < 2; ++h)
      halves[h][r] = _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_loadu_ps(row + 8 * h)),
                                        _mm256_loadu_ps(row + 4 * stride + 8 * h), 1);
  }
#pragma GCC unroll 2
  for (int h = 0; h < 2; ++h) {
    // Part p of quad[q][c]: of column 8 h + 4 (p % 2) + c, the four rows from 8 q + 4 (p / 2) on.
    __m512 quad[2][4];
#pragma GCC unroll 2
    for (int q = 0; q < 2; ++q) transpose_16x4(halves[h] + 4 * q, quad[q]);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      _mm512_mask_storeu_ps(to + (8 * h + c) * width, stored,
                            _mm512_shuffle_f32x4(quad[0][c], quad[1][c], 0x88));
      _mm512_mask_storeu_ps(to + (8 * h + 4 + c) * width, stored,
                            _mm512_shuffle_f32x4(quad[0][c], quad[1][c], 0xDD));
    }
  }
}

void pack_transposed(int lanes, int width, int64_t k, const float* source, int64_t stride, float* packed) {
  for (int first = 0; first < width; first += 16) {
    const __mmask16 stored = Lanes<float>::mask(width - first < 16 ? width - first : 16);
    const int present = lanes - first;
    const float* at = source + first * stride;
    float* to = packed + first;
    // Lanes that are absent read lane 0 and are blanked when stored.
    const __mmask16 live = Lanes<float>::mask(present < 16 ? (present > 0 ? present : 0) : 16);
    int64_t row[16];
    for (int r = 0; r < 16; ++r) row[r] = r < present ? r * stride : 0;
    int64_t p = 0;
    if (present >= 16) {
      for (; p + 16 <= k; p += 16, at += 16, to += 16 * width) {
        for (int r = 0; r < 16; ++r) __builtin_prefetch(at + 64 + r * stride);
        transpose_16x16(at, stride, to, width, stored);
      }
    }
    if (present > 0) {
      for (; p + 4 <= k; p += 4, at += 4, to += 4 * width) {
        __m512 rows[4], columns[4];
        // One prefetch a cache line: 16 rows are more streams than the hardware follows.
        const int64_t* const ahead = row + p / 4 % 4 * 4;
        for (int r = 0; r < 4; ++r) __builtin_prefetch(at + 64 + ahead[r]);
        for (int r = 0; r < 4; ++r) {
          __m512 v = _mm512_castps128_ps512(_mm_loadu_ps(at + row[r]));
          v = _mm512_insertf32x4(v, _mm_loadu_ps(at + row[r + 4]), 1);
          v = _mm512_insertf32x4(v, _mm_loadu_ps(at + row[r + 8]), 2);
          rows[r] = _mm512_insertf32x4(v, _mm_loadu_ps(at + row[r + 12]), 3);
        }
        transpose_16x4(rows, columns);
        for (int r = 0; r < 4; ++r)
          _mm512_mask_storeu_ps(to + r * width, stored, _mm512_maskz_mov_ps(live, columns[r]));
      }
    }
    for (; p < k; p += 4, at += 4, to += 4 * width) {
      const int count = k - p < 4 ? static_cast<int>(k - p) : 4;
      __m512 rows[4], columns[4];
      for (int r = 0; r < 4; ++r) rows[r] = load_parts(at, stride, present, r, Lanes<float>::mask(count));
      transpose_16x4(rows, columns);
      for (int r = 0; r < count; ++r) _mm512_mask_storeu_ps(to + r * width, stored, columns[r]);
    }
  }
}

/// 8 lanes by 2 values of k at a time.
void pack_transposed(int lanes, int width, int64_t k, const double* source, int64_t stride, double* packed) {
  for (int first = 0; first < width; first += 8) {
    const __mmask8 stored = Lanes<double>::mask(width - first < 8 ? width - first : 8);
    const int present = lanes - first;
    const double* at = source + first * stride;
    double* to = packed + first;
    for (int64_t p = 0; p < k; p += 2, at += 2, to += 2 * width) {
      const bool two = p + 1 < k;
      const __mmask8 m = two ? 3 : 1;
      __m512d rows[2];
      for (int r = 0; r < 2; ++r) {
        const auto part = [&](int lane) {
          return lane < present ? _mm_maskz_loadu_pd(m, at + lane * stride) : _mm_setzero_pd();
        };
        __m512d v = _mm512_castpd128_pd512(part(r));
        v = _mm512_insertf64x2(v, part(r + 2), 1);
        v = _mm512_insertf64x2(v, part(r + 4), 2);
        rows[r] = _mm512_insertf64x2(v, part(r + 6), 3);
      }
      _mm512_mask_storeu_pd(to, stored, _mm512_unpacklo_pd(rows[0], rows[1]));
      if (two) _mm512_mask_storeu_pd(to + width, stored, _mm512_unpackhi_pd(rows[0], rows[1]));
    }
  }
}

// Packing moves bits: integers travel as the floating type of their size.
void pack_transposed(int lanes, int width, int64_t k, const uint32_t* source, int64_t stride,
                     uint32_t* packed) {
  pack_transposed(lanes, width, k, reinterpret_cast<const float*>(source), stride,
                  reinterpret_cast<float*>(packed));
}
void pack_transposed(int lanes, int width, int64_t k, const uint64_t* source, int64_t stride,
                     uint64_t* packed) {
  pack_transposed(lanes, width, k, reinterpret_cast<const double*>(source), stride,
                  reinterpret_cast<double*>(packed));
}

__mmask16 rest(int64_t n) { return n >= 16 ? __mmask16{0xFFFF} : Lanes<float>::mask(static_cast<int>(n)); }

void widen_bfloat16(int64_t n, const uint16_t* source, float* result) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 m = rest(n - i);
    const __m512i v = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, source + i));
    _mm512_mask_storeu_epi32(result + i, m, _mm512_slli_epi32(v, 16));
  }
}

void widen_float16(int64_t n, const uint16_t* source, float* result) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 m = rest(n - i);
    _mm512_mask_storeu_ps(result + i, m, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(m, source + i)));
  }
}

void narrow_bfloat16(int64_t n, const float* source, uint16_t* result) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 m = rest(n - i);
    const __m512i v = _mm512_castps_si512(_mm512_maskz_loadu_ps(m, source + i));
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(v, 16), _mm512_set1_epi32(1));
    const __m512i rounded =
        _mm512_srli_epi32(_mm512_add_epi32(v, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7FFF))), 16);
    const __mmask16 nan = _mm512_cmp_ps_mask(_mm512_castsi512_ps(v), _mm512_castsi512_ps(v), _CMP_UNORD_Q);
    const __m512i bits = _mm512_mask_mov_epi32(rounded, nan, _mm512_set1_epi32(0x7FC0));
    _mm256_mask_storeu_epi16(result + i, m, _mm512_cvtepi32_epi16(bits));
  }
}

void narrow_float16(int64_t n, const float* source, uint16_t* result) {
  for (int64_t i = 0; i < n; i += 16) {
    const __mmask16 m = rest(n - i);
    const __m512 v = _mm512_maskz_loadu_ps(m, source + i);
    _mm256_mask_storeu_epi16(result + i, m,
                             _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
  }
}

}  // namespace
}  // namespace lohe::backend

#include "backend/cpu/gemm_simd.h"

namespace lohe::backend {

const GemmLevel& gemm_avx512() {
  static constexpr GemmLevel level{
      gemm_kernels<float>(),
      gemm_kernels<double>(),
      gemm_kernels<uint32_t>(),
      gemm_kernels<uint64_t>(),
      {widen_bfloat16, widen_float16, narrow_bfloat16, narrow_float16},
  };
  return level;
}

}  // namespace lohe::backend
