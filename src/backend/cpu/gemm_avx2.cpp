#include <immintrin.h>

#include "backend/cpu/gemm.h"

namespace lohe::backend {
namespace {

template <class T>
struct Lanes;

alignas(64) constexpr int32_t kMasks32[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
alignas(64) constexpr int64_t kMasks64[8] = {-1, -1, -1, -1, 0, 0, 0, 0};

/// The first n lanes of a vector.
struct First {
  __m256i mask;
  int bytes;
};
First first32(int n) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMasks32 + 8 - n)), 4 * n};
}
First first64(int n) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(kMasks64 + 4 - n)), 8 * n};
}

/// Stores them in pieces: AMD's processors up to Zen 3 take some 12 cycles for a store under a mask.
void store_first(void* to, __m256i v, First first) {
  char* p = static_cast<char*>(to);
  if (first.bytes == 32) return _mm256_storeu_si256(reinterpret_cast<__m256i_u*>(p), v);
  __m128i rest = _mm256_castsi256_si128(v);
  if (first.bytes & 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i_u*>(p), rest);
    rest = _mm256_extracti128_si256(v, 1);
    p += 16;
  }
  if (first.bytes & 8) {
    _mm_storel_epi64(reinterpret_cast<__m128i_u*>(p), rest);
    rest = _mm_unpackhi_epi64(rest, rest);
    p += 8;
  }
  if (first.bytes & 4) _mm_storeu_si32(p, rest);
}

template <>
struct Lanes<float> {
  using Vector = __m256;
  static constexpr int kWidth = 8, kRows = 6, kVectors = 2, kLastValues = 1;
  static First mask(int n) { return first32(n); }
  static Vector zero() { return _mm256_setzero_ps(); }
  static Vector set1(float x) { return _mm256_set1_ps(x); }
  static Vector load(const float* p) { return _mm256_loadu_ps(p); }
  static Vector load(const float* p, First m) { return _mm256_maskload_ps(p, m.mask); }
  static void store(float* p, Vector v) { _mm256_storeu_ps(p, v); }
  static void store(float* p, Vector v, First m) { store_first(p, _mm256_castps_si256(v), m); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm256_add_ps(a, b); }
};

template <>
struct Lanes<double> {
  using Vector = __m256d;
  static constexpr int kWidth = 4, kRows = 6, kVectors = 2, kLastValues = 1;
  static First mask(int n) { return first64(n); }
  static Vector zero() { return _mm256_setzero_pd(); }
  static Vector set1(double x) { return _mm256_set1_pd(x); }
  static Vector load(const double* p) { return _mm256_loadu_pd(p); }
  static Vector load(const double* p, First m) { return _mm256_maskload_pd(p, m.mask); }
  static void store(double* p, Vector v) { _mm256_storeu_pd(p, v); }
  static void store(double* p, Vector v, First m) { store_first(p, _mm256_castpd_si256(v), m); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_pd(a, b, c); }
  static Vector add(Vector a, Vector b) { return _mm256_add_pd(a, b); }
};

template <>
struct Lanes<uint32_t> {
  using Vector = __m256i;
  static constexpr int kWidth = 8, kRows = 6, kVectors = 2, kLastValues = 1;
  static First mask(int n) { return first32(n); }
  static Vector zero() { return _mm256_setzero_si256(); }
  static Vector set1(uint32_t x) { return _mm256_set1_epi32(static_cast<int>(x)); }
  static Vector load(const uint32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static Vector load(const uint32_t* p, First m) {
    return _mm256_maskload_epi32(reinterpret_cast<const int*>(p), m.mask);
  }
  static void store(uint32_t* p, Vector v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static void store(uint32_t* p, Vector v, First m) { store_first(p, v, m); }
  static Vector fma(Vector a, Vector b, Vector c) { return _mm256_add_epi32(_mm256_mullo_epi32(a, b), c); }
  static Vector add(Vector a, Vector b) { return _mm256_add_epi32(a, b); }
};

template <>
struct Lanes<uint64_t> {
  using Vector = __m256i;
  static constexpr int kWidth = 4, kRows = 4, kVectors = 2, kLastValues = 1;
  static First mask(int n) { return first64(n); }
  static Vector zero() { return _mm256_setzero_si256(); }
  static Vector set1(uint64_t x) { return _mm256_set1_epi64x(static_cast<long long>(x)); }
  static Vector load(const uint64_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
  static Vector load(const uint64_t* p, First m) {
    return _mm256_maskload_epi64(reinterpret_cast<const long long*>(p), m.mask);
  }
  static void store(uint64_t* p, Vector v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static void store(uint64_t* p, Vector v, First m) { store_first(p, v, m); }
  /// The low 64 bits of a product from its 32-bit parts.
  static Vector fma(Vector a, Vector b, Vector c) {
    const __m256i cross = _mm256_mullo_epi32(a, _mm256_shuffle_epi32(b, 0xB1));
    const __m256i upper = _mm256_slli_epi64(_mm256_add_epi32(cross, _mm256_srli_epi64(cross, 32)), 32);
    return _mm256_add_epi64(_mm256_add_epi64(_mm256_mul_epu32(a, b), upper), c);
  }
  static Vector add(Vector a, Vector b) { return _mm256_add_epi64(a, b); }
};

/// 8 lanes by 4 values of k: the loads put lanes r and r + 4 into the two 128-bit parts. Whole: all `present`
/// lanes and `count` values are there and stored.
template <bool kWhole>
inline __attribute__((always_inline)) void turn(const float* from, int64_t stride, int present, int count,
                                                float* to, int width, First stored) {
  const auto part = [&](int lane) {
    if (!kWhole && lane >= present) return _mm_setzero_ps();
    if (kWhole || count == 4) return _mm_loadu_ps(from + lane * stride);
    return _mm_maskload_ps(from + lane * stride, _mm256_castsi256_si128(first32(count).mask));
  };
  __m256 rows[4];
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) rows[r] = _mm256_insertf128_ps(_mm256_castps128_ps256(part(r)), part(r + 4), 1);
  const __m256 a = _mm256_unpacklo_ps(rows[0], rows[1]), b = _mm256_unpackhi_ps(rows[0], rows[1]);
  const __m256 c = _mm256_unpacklo_ps(rows[2], rows[3]), d = _mm256_unpackhi_ps(rows[2], rows[3]);
  const __m256 columns[4] = {_mm256_shuffle_ps(a, c, 0x44), _mm256_shuffle_ps(a, c, 0xEE),
                             _mm256_shuffle_ps(b, d, 0x44), _mm256_shuffle_ps(b, d, 0xEE)};
#pragma GCC unroll 4
  for (int r = 0; r < 4; ++r) {
    if (kWhole)
      _mm256_storeu_ps(to + r * width, columns[r]);
    else if (r < count)
      Lanes<float>::store(to + r * width, columns[r], stored);
  }
}

/// 4 lanes by 2 values of k.
template <bool kWhole>
inline __attribute__((always_inline)) void turn(const double* from, int64_t stride, int present, int count,
                                                double* to, int width, First stored) {
  const auto part = [&](int lane) {
    if (!kWhole && lane >= present) return _mm_setzero_pd();
    return kWhole || count == 2 ? _mm_loadu_pd(from + lane * stride) : _mm_load_sd(from + lane * stride);
  };
  const __m256d even = _mm256_insertf128_pd(_mm256_castpd128_pd256(part(0)), part(2), 1);
  const __m256d odd = _mm256_insertf128_pd(_mm256_castpd128_pd256(part(1)), part(3), 1);
  const __m256d columns[2] = {_mm256_unpacklo_pd(even, odd), _mm256_unpackhi_pd(even, odd)};
  if (kWhole) {
    _mm256_storeu_pd(to, columns[0]);
    _mm256_storeu_pd(to + width, columns[1]);
  } else {
    Lanes<double>::store(to, columns[0], stored);
    if (count == 2) Lanes<double>::store(to + width, columns[1], stored);
  }
}

template <class T>
void pack_transposed(int lanes, int width, int64_t k, const T* source, int64_t stride, T* packed) {
  constexpr int kVector = 32 / static_cast<int>(sizeof(T)), kValues = 16 / static_cast<int>(sizeof(T));
  for (int first = 0; first < width; first += kVector) {
    const int present = lanes - first, kept = width - first < kVector ? width - first : kVector;
    const First stored = Lanes<T>::mask(kept);
    const T* from = source + first * stride;
    T* to = packed + first;
    int64_t p = 0;
    if (present >= kVector && kept == kVector) {
      for (; p + kValues <= k; p += kValues, from += kValues, to += kValues * width)
        turn<true>(from, stride, kVector, kValues, to, width, stored);
    }
    for (; p < k; p += kValues, from += kValues, to += kValues * width) {
      const int count = k - p < kValues ? static_cast<int>(k - p) : kValues;
      turn<false>(from, stride, present, count, to, width, stored);
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

float from_bits(uint32_t bits) {
  float x;
  __builtin_memcpy(&x, &bits, 4);
  return x;
}
uint32_t to_bits(float x) {
  uint32_t bits;
  __builtin_memcpy(&bits, &x, 4);
  return bits;
}

void widen_bfloat16(int64_t n, const uint16_t* source, float* result) {
  for (int64_t i = 0; i < n; ++i) result[i] = from_bits(static_cast<uint32_t>(source[i]) << 16);
}

void narrow_bfloat16(int64_t n, const float* source, uint16_t* result) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = to_bits(source[i]);
    const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    result[i] = static_cast<uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : rounded);
  }
}

void widen_float16(int64_t n, const uint16_t* source, float* result) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(result + i,
                     _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i))));
  for (; i < n; ++i) result[i] = _cvtsh_ss(source[i]);
}

void narrow_float16(int64_t n, const float* source, uint16_t* result) {
  int64_t i = 0;
  for (; i + 8 <= n; i += 8)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(result + i),
                     _mm256_cvtps_ph(_mm256_loadu_ps(source + i), _MM_FROUND_TO_NEAREST_INT));
  for (; i < n; ++i) result[i] = _cvtss_sh(source[i], _MM_FROUND_TO_NEAREST_INT);
}

}  // namespace
}  // namespace lohe::backend

#include "backend/cpu/gemm_simd.h"

namespace lohe::backend {

const GemmLevel& gemm_avx2() {
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
