#include <bit>
#include <cmath>

#include "backend/cpu/gemm.h"

namespace lohe::backend {
namespace {

/// fma in float without the instruction. The product of two floats is exact in double; when the sum with c is
/// not, its last bit is made odd (away from a tie that the second rounding could take wrongly), so that
/// rounding to float gives what one rounding would (Boldo and Melquiond, "Emulation of FMA and correctly
/// rounded sums", IEEE Transactions on Computers 2008).
float fma_of(float a, float b, float c) {
  const double product = static_cast<double>(a) * b;
  const double addend = c;
  double sum = product + addend;
  const double back = sum - product;
  const double error = (product - (sum - back)) + (addend - back);
  const auto bits = std::bit_cast<uint64_t>(sum);
  // An exact sum has no error; infinities and NaN give a NaN one, which compares false both times.
  if ((error < 0 || error > 0) && (bits & 1) == 0) {
    const bool away_from_zero = (error > 0) == (sum > 0);
    sum = std::bit_cast<double>(away_from_zero ? bits + 1 : bits - 1);
  }
  return static_cast<float>(sum);
}
double fma_of(double a, double b, double c) { return std::fma(a, b, c); }
uint32_t fma_of(uint32_t a, uint32_t b, uint32_t c) { return a * b + c; }
uint64_t fma_of(uint64_t a, uint64_t b, uint64_t c) { return a * b + c; }

template <class T>
struct Lanes {
  static constexpr int kWidth = 16 / sizeof(T), kRows = 4, kVectors = 2, kLastValues = 1;
  struct Vector {
    T lane[kWidth];
  };
  static int mask(int n) { return n; }
  static Vector zero() { return {}; }
  static Vector set1(T x) {
    Vector v;
    for (T& lane : v.lane) lane = x;
    return v;
  }
  static Vector load(const T* p) { return load(p, kWidth); }
  static Vector load(const T* p, int n) {
    Vector v{};
    for (int i = 0; i < n; ++i) v.lane[i] = p[i];
    return v;
  }
  static void store(T* p, const Vector& v) { store(p, v, kWidth); }
  static void store(T* p, const Vector& v, int n) {
    for (int i = 0; i < n; ++i) p[i] = v.lane[i];
  }
  static Vector fma(const Vector& a, const Vector& b, Vector c) {
    for (int i = 0; i < kWidth; ++i) c.lane[i] = fma_of(a.lane[i], b.lane[i], c.lane[i]);
    return c;
  }
  static Vector add(const Vector& a, Vector b) {
    for (int i = 0; i < kWidth; ++i) b.lane[i] = a.lane[i] + b.lane[i];
    return b;
  }
};

template <class T>
void pack_transposed(int lanes, int width, int64_t k, const T* source, int64_t stride, T* packed) {
  for (int lane = 0; lane < width; ++lane)
    for (int64_t p = 0; p < k; ++p)
      packed[p * width + lane] = lane < lanes ? source[lane * stride + p] : T{0};
}

void widen_bfloat16(int64_t n, const uint16_t* source, float* result) {
  for (int64_t i = 0; i < n; ++i) result[i] = std::bit_cast<float>(uint32_t{source[i]} << 16);
}

void narrow_bfloat16(int64_t n, const float* source, uint16_t* result) {
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<uint32_t>(source[i]);
    const uint32_t rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    result[i] = static_cast<uint16_t>((bits & 0x7FFFFFFF) > 0x7F800000 ? 0x7FC0 : rounded);
  }
}

void widen_float16(int64_t n, const uint16_t* source, float* result) {
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t sign = (source[i] & 0x8000u) << 16;
    const uint32_t magnitude = source[i] & 0x7FFFu;
    // Exponents move by 112 (127 - 15); a product with 2^112 does that for subnormal numbers too.
    const float scaled = std::bit_cast<float>(magnitude << 13) * 0x1p112f;
    const uint32_t bits = magnitude >= 0x7C00
                              ? 0x7F800000 | (magnitude & 0x3FF) << 13 | (magnitude > 0x7C00 ? 0x400000u : 0u)
                              : std::bit_cast<uint32_t>(scaled);
    result[i] = std::bit_cast<float>(sign | bits);
  }
}

void narrow_float16(int64_t n, const float* source, uint16_t* result) {
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<uint32_t>(source[i]);
    const uint32_t sign = bits >> 16 & 0x8000u;
    const uint32_t magnitude = bits & 0x7FFFFFFF;
    uint32_t half;
    if (magnitude > 0x7F800000) {
      half = 0x7E00 | (magnitude >> 13 & 0x3FF);
    } else if (magnitude >= 0x477FF000) {  // 65520 and more round to infinity
      half = 0x7C00;
    } else if (magnitude < 0x38800000) {  // below 2^-14: units of 2^-24, rounded by an addition
      half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
    } else {
      half = (magnitude - (112u << 23) + 0xFFF + (magnitude >> 13 & 1)) >> 13;
    }
    result[i] = static_cast<uint16_t>(sign | half);
  }
}

}  // namespace
}  // namespace lohe::backend

#include "backend/cpu/gemm_simd.h"

namespace lohe::backend {

const GemmLevel& gemm_portable() {
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
