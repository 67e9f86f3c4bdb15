#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <complex>
#include <cstring>
#include <random>
#include <vector>

#include "backend/cpu/gemm.h"
#include "backend/library.h"
#include "base/threads.h"
#include "codegen/codegen.h"
#include "lohe/error.h"

namespace lohe::backend {
namespace {

float float_of_bfloat16(uint16_t x) { return std::bit_cast<float>(uint32_t{x} << 16); }
uint16_t bfloat16_of_float(float x) {
  uint16_t result;
  gemm_portable().half.narrow_bfloat16(1, &x, &result);
  return result;
}

/// Storage of one operand with strides of its own, filled with small numbers.
template <class E>
struct Operand {
  std::vector<E> memory;
  Matrix matrix;
  int64_t offset = 0;

  Operand(int64_t batch, int64_t rows, int64_t columns, int layout, std::mt19937& random) {
    const int64_t pad = layout >= 2 ? 3 : 0;
    const int64_t step = layout >= 4 ? 2 : 1;  // neither axis adjacent
    if (layout % 2 == 0)
      matrix = {nullptr, columns * step + pad, step, rows * (columns * step + pad), false};
    else
      matrix = {nullptr, step, rows * step + pad, columns * (rows * step + pad), false};
    memory.resize(static_cast<size_t>(batch * matrix.batch_stride + 64));
    std::uniform_int_distribution<int> number(-8, 8);
    for (E& x : memory) set(x, number(random), number(random));
    matrix.data = memory.data();
  }

  static void set(E& x, int real, int imag) {
    if constexpr (std::is_same_v<E, uint16_t>) {
      x = bfloat16_of_float(static_cast<float>(real) / 4);
      (void)imag;
    } else if constexpr (std::is_integral_v<E>) {
      x = static_cast<E>(real * 37 + imag);
    } else if constexpr (std::is_floating_point_v<E>) {
      x = static_cast<E>(real) / 4;
    } else {
      x = E(static_cast<typename E::value_type>(real) / 4, static_cast<typename E::value_type>(imag) / 4);
    }
  }

  E& at(int64_t b, int64_t i, int64_t j) {
    return memory[static_cast<size_t>(b * matrix.batch_stride + i * matrix.row_stride +
                                      j * matrix.column_stride)];
  }
};

/// The values above are multiples of 1/4 of small size, so that every order of summation is exact.
template <class E>
void check_dtype(Dtype dtype, int64_t batch, int64_t m, int64_t n, int64_t k, int layout_a, int layout_b,
                 int layout_c, bool epilogue) {
  std::mt19937 random(static_cast<unsigned>(m * 131 + n * 17 + k));
  Operand<E> a(batch, m, k, layout_a, random), b(batch, k, n, layout_b, random),
      c(batch, m, n, layout_c, random);
  Operand<E> addend(1, 1, n, 0, random);
  Epilogue e;
  if (epilogue) {
    e.alpha = 2;
    e.beta = -3;
    e.addend = {addend.memory.data(), 0, 1, 0, false};
  }
  const bool complex = is_complex(dtype);
  a.matrix.conjugate = complex && layout_a == 1;
  b.matrix.conjugate = complex && layout_b == 1;
  matmul(dtype, {batch, m, n, k}, a.matrix, b.matrix, c.matrix, e);
  for (int64_t p = 0; p < batch; ++p) {
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        SCOPED_TRACE(testing::Message()
                     << dtype << " batch " << batch << " " << m << "x" << n << "x" << k << " layouts "
                     << layout_a << layout_b << layout_c << " at " << p << "," << i << "," << j);
        if constexpr (std::is_same_v<E, uint16_t>) {
          float sum = 0;
          for (int64_t q = 0; q < k; ++q)
            sum += float_of_bfloat16(a.at(p, i, q)) * float_of_bfloat16(b.at(p, q, j));
          if (epilogue) sum = 2 * sum - 3 * float_of_bfloat16(addend.at(0, 0, j));
          ASSERT_EQ(c.at(p, i, j), bfloat16_of_float(sum));
        } else {
          using S = std::conditional_t<std::is_integral_v<E>, uint64_t, E>;
          S sum{};
          for (int64_t q = 0; q < k; ++q) {
            S x = static_cast<S>(a.at(p, i, q)), y = static_cast<S>(b.at(p, q, j));
            if constexpr (!std::is_integral_v<E> && !std::is_floating_point_v<E>) {
              if (a.matrix.conjugate) x = std::conj(x);
              if (b.matrix.conjugate) y = std::conj(y);
            }
            sum += x * y;
          }
          if (epilogue) sum = S(2) * sum - S(3) * static_cast<S>(addend.at(0, 0, j));
          ASSERT_EQ(c.at(p, i, j), static_cast<E>(sum));
        }
      }
    }
  }
}

void check(Dtype dtype, int64_t batch, int64_t m, int64_t n, int64_t k, int la, int lb, int lc,
           bool epilogue) {
  switch (dtype) {
    case kFloat32:
      return check_dtype<float>(dtype, batch, m, n, k, la, lb, lc, epilogue);
    case kFloat64:
      return check_dtype<double>(dtype, batch, m, n, k, la, lb, lc, epilogue);
    case kComplex64:
      return check_dtype<std::complex<float>>(dtype, batch, m, n, k, la, lb, lc, epilogue);
    case kComplex128:
      return check_dtype<std::complex<double>>(dtype, batch, m, n, k, la, lb, lc, epilogue);
    case kBFloat16:
      return check_dtype<uint16_t>(dtype, batch, m, n, k, la, lb, lc, epilogue);
    case kUInt8:
      return check_dtype<uint8_t>(dtype, batch, m, n, k, la, lb, lc, epilogue);
    case kInt8:
      return check_dtype<int8_t>(dtype, batch, m, n, k, la, lb, lc, epilogue);
    case kInt16:
      return check_dtype<int16_t>(dtype, batch, m, n, k, la, lb, lc, epilogue);
    case kInt32:
      return check_dtype<int32_t>(dtype, batch, m, n, k, la, lb, lc, epilogue);
    default:
      return check_dtype<int64_t>(dtype, batch, m, n, k, la, lb, lc, epilogue);
  }
}

constexpr Dtype kDtypes[] = {kFloat32, kFloat64, kComplex64, kComplex128, kBFloat16,
                             kUInt8,   kInt8,    kInt16,     kInt32,      kInt64};

TEST(Matmul, MatchesPlainLoopsForEveryDtypeAndLayout) {
  for (const Dtype dtype : kDtypes)
    for (int la = 0; la < 6; ++la)
      for (int lb = 0; lb < 6; ++lb)
        for (int lc = 0; lc < 6; ++lc) check(dtype, 2, 17, 35, 21, la, lb, lc, (la + lb + lc) % 2 == 1);
}

TEST(Matmul, MatchesPlainLoopsForEverySize) {
  for (const Dtype dtype : kDtypes) {
    for (const int64_t m : {0, 1, 2, 7, 15, 29})
      for (const int64_t n : {0, 1, 3, 16, 33, 70})
        for (const int64_t k : {0, 1, 2, 5, 64})
          check(dtype, 1, m, n, k, static_cast<int>(m % 2), static_cast<int>(n % 2), static_cast<int>(k % 2),
                m % 2);
    check(dtype, 1, 130, 300, 70, 0, 1, 0, false);
    check(dtype, 1, 61, 40, 1100, 1, 0, 0, true);
    check(dtype, 0, 3, 4, 5, 0, 0, 0, false);
    check(dtype, 33, 5, 6, 7, 0, 0, 0, false);
  }
}

TEST(Matmul, CrossesTheBlocksOfPackedMemory) {
  check(kFloat32, 1, 3, 70, 9000, 0, 1, 0, false);
  check(kFloat64, 1, 70, 40, 8300, 1, 0, 0, true);
  check(kFloat32, 1, 600, 150, 40, 0, 0, 1, true);
}

/// Rows by the thread, columns by the thread, and transposed operands that are packed for one or few panels.
TEST(Matmul, CutsTallNarrowAndTransposedProducts) {
  check(kFloat32, 1, 900, 40, 200, 0, 1, 0, false);
  check(kFloat32, 1, 700, 300, 250, 0, 1, 0, true);
  check(kFloat64, 1, 500, 500, 130, 0, 0, 0, false);
  check(kFloat32, 1, 250, 70, 800, 1, 0, 0, false);
  check(kFloat32, 1, 60, 400, 800, 1, 0, 0, false);
}

template <class T>
std::vector<T> random_numbers(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<T> result(n);
  for (T& x : result) x = static_cast<T>(normal(random));
  return result;
}

/// Bits are compared: == would take -0 for 0.
template <class T>
bool same_bits(const T* a, const T* b, int64_t n) {
  return n == 0 || std::memcmp(a, b, static_cast<size_t>(n) * sizeof(T)) == 0;
}

template <class T>
void check_element_is_its_chain(Dtype dtype) {
  for (const int64_t k : {1, 13, 384, 512, 513, 1024, 2000, 9000}) {  // 1024, 512: rows a page apart
    const int64_t m = 19, n = 37;
    const auto a = random_numbers<T>(static_cast<size_t>(m * k), 1),
               b = random_numbers<T>(static_cast<size_t>(k * n), 2);
    std::vector<T> c(static_cast<size_t>(m * n));
    matmul(dtype, {1, m, n, k}, {const_cast<T*>(a.data()), k, 1, 0, false},
           {const_cast<T*>(b.data()), n, 1, 0, false}, {c.data(), n, 1, 0, false});
    for (int64_t i = 0; i < m; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        T sum = 0;
        for (int64_t k0 = 0; k0 < k; k0 += kChunk) {
          T chain = 0;
          for (int64_t p = k0; p < std::min(k, k0 + kChunk); ++p)
            chain = std::fma(a[static_cast<size_t>(i * k + p)], b[static_cast<size_t>(p * n + j)], chain);
          sum = k0 == 0 ? chain : sum + chain;
        }
        ASSERT_TRUE(same_bits(&sum, &c[static_cast<size_t>(i * n + j)], 1))
            << "k " << k << " at " << i << "," << j;
      }
    }
  }
}

TEST(Matmul, AnElementIsOneChainOfFusedMultiplyAddsInTheOrderOfK) {
  check_element_is_its_chain<float>(kFloat32);
  check_element_is_its_chain<double>(kFloat64);
}

template <class T>
void check_rows_and_threads(Dtype dtype) {
  const int before = num_threads();
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{1, 700}, {5, 513}, {65, 384}, {300, 1030}}) {
    for (const bool transposed : {false, true}) {
      const int64_t most = 1000;
      const auto a = random_numbers<T>(static_cast<size_t>(most * k), 3),
                 b = random_numbers<T>(static_cast<size_t>(k * n), 4);
      const Matrix b_matrix{const_cast<T*>(b.data()), transposed ? 1 : n, transposed ? k : 1, 0, false};
      std::vector<T> full(static_cast<size_t>(most * n));
      set_num_threads(1);
      matmul(dtype, {1, most, n, k}, {const_cast<T*>(a.data()), k, 1, 0, false}, b_matrix,
             {full.data(), n, 1, 0, false});
      for (const int threads : {1, 2, 3}) {
        set_num_threads(threads);
        for (const int64_t m : {1, 2, 3, 8, 100, 1000}) {
          for (const int64_t batch : {1, 3}) {
            std::vector<T> c(static_cast<size_t>(batch * m * n));
            matmul(dtype, {batch, m, n, k}, {const_cast<T*>(a.data()), k, 1, 0, false}, b_matrix,
                   {c.data(), n, 1, m * n, false});
            for (int64_t p = 0; p < batch; ++p)
              ASSERT_TRUE(same_bits(c.data() + p * m * n, full.data(), m * n))
                  << dtype << " m " << m << " n " << n << " k " << k << " threads " << threads << " batch "
                  << batch;
          }
        }
      }
    }
  }
  set_num_threads(before);
}

TEST(Matmul, BitsDependNeitherOnRowsNorOnBatchNorOnThreads) {
  check_rows_and_threads<float>(kFloat32);
  check_rows_and_threads<double>(kFloat64);
  check_rows_and_threads<std::complex<float>>(kComplex64);
}

std::vector<const GemmLevel*> usable_levels() {
  std::vector<const GemmLevel*> levels{&gemm_portable()};
  if (codegen::detected_cpu_level() >= codegen::CpuLevel::kAvx2) levels.push_back(&gemm_avx2());
  if (codegen::detected_cpu_level() >= codegen::CpuLevel::kAvx512) levels.push_back(&gemm_avx512());
  return levels;
}

template <class T>
void check_tiles_of_levels() {
  const int64_t k = 300;
  auto a = random_numbers<T>(static_cast<size_t>(k * 4), 5),
       b = random_numbers<T>(static_cast<size_t>(k * 8), 6);
  if constexpr (std::is_same_v<T, float>) {
    // Subnormal and huge products, where an emulated fused multiply-add could round twice.
    for (size_t i = 0; i < a.size(); i += 7) a[i] *= 1e-38f;
    for (size_t i = 0; i < b.size(); i += 5) b[i] *= 1e-5f;
    a[11] = std::numeric_limits<float>::infinity();
    b[100] = std::numeric_limits<float>::max();
  }
  const auto addend = random_numbers<T>(8, 12);
  std::vector<std::vector<T>> results;
  for (const GemmLevel* level : usable_levels()) {
    std::vector<T> c(32, T(1));
    const auto& kernels = level->get(T{});
    for (int i = 0; i < 4; i += 2)
      for (int j = 0; j < 8; j += 4)
        kernels.multiply({.rows = 2,
                          .columns = 4,
                          .k = k,
                          .a = a.data() + i * k,
                          .a_row_stride = k,
                          .a_k_stride = 1,
                          .b = b.data() + j,
                          .b_k_stride = 8,
                          .b_tile_stride = 0,
                          .c = c.data() + i * 8 + j,
                          .c_row_stride = 8,
                          .accumulate = i > 0,
                          .addend = j > 0 ? addend.data() + j : nullptr});
    results.push_back(c);
  }
  for (const auto& result : results)
    for (size_t i = 0; i < result.size(); ++i)
      EXPECT_TRUE(same_bits(&result[i], &results[0][i], 1) ||
                  (result[i] != result[i] && results[0][i] != results[0][i]));
}

TEST(GemmKernels, GiveTheSameBitsAtEveryCpuLevel) {
  check_tiles_of_levels<float>();
  check_tiles_of_levels<double>();
  check_tiles_of_levels<uint32_t>();
  check_tiles_of_levels<uint64_t>();
}

/// A strip of `rows` by `columns`, in the middle of a larger C that must stay as it is, at every level.
void check_strip(int rows, int64_t columns, int64_t k, bool accumulate, bool with_addend, bool packed) {
  const int64_t stride = columns + 3;
  const auto a = random_numbers<float>(static_cast<size_t>(14 * k), 21),
             b = random_numbers<float>(static_cast<size_t>(k * columns), 22),
             addend = random_numbers<float>(static_cast<size_t>(rows * columns), 23);
  std::vector<float> expected(static_cast<size_t>((rows + 1) * stride), 2.5f);
  const std::vector<float> before = expected;
  for (int i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      float sum = 0;
      for (int64_t p = 0; p < k; ++p)
        sum = std::fma(a[static_cast<size_t>(packed ? p * 14 + i : i * k + p)],
                       b[static_cast<size_t>(p * columns + j)], sum);
      float& c = expected[static_cast<size_t>(i * stride + j)];
      c = accumulate ? c + sum : sum;
      if (with_addend) c += addend[static_cast<size_t>(i * columns + j)];
    }
  for (const GemmLevel* level : usable_levels()) {
    const auto& kernels = level->float32;
    if (rows > kernels.rows) continue;
    std::vector<Fetch<float>> later(static_cast<size_t>(columns / kernels.columns + 1),
                                    Fetch<float>{a.data(), k, 16});
    std::vector<float> c = before;
    kernels.multiply({.rows = rows,
                      .columns = columns,
                      .k = k,
                      .a = a.data(),
                      .a_row_stride = packed ? 1 : k,
                      .a_k_stride = packed ? 14 : 1,
                      .b = b.data(),
                      .b_k_stride = columns,
                      .b_tile_stride = kernels.columns,
                      .c = c.data(),
                      .c_row_stride = stride,
                      .accumulate = accumulate,
                      .addend = with_addend ? addend.data() : nullptr,
                      .addend_row_stride = columns,
                      .near = k % 2 == 0,
                      .next = {a.data(), k, k},
                      .next_share = 16,
                      .later = k % 3 == 0 ? nullptr : later.data()});
    EXPECT_EQ(c, expected) << rows << " x " << columns << ", k " << k << ", " << accumulate << with_addend
                           << packed << ", tiles of " << kernels.columns;
  }
}

TEST(GemmKernels, StripsOfAnySizeAreChainsInOrder) {
  for (const int rows : {1, 3, 4, 6, 7, 13, 14})
    for (const int64_t columns : {1, 8, 15, 16, 17, 32, 48, 100})
      for (const int64_t k : {1, 2, 3, 4, 29, 384})
        for (const int kind : {0, 1, 2, 3})
          check_strip(rows, columns, k, (kind & 1) != 0, (kind & 2) != 0, (k + columns) % 2 == 0);
}

TEST(GemmKernels, PackAnyPanel) {
  for (const GemmLevel* level : usable_levels()) {
    const auto check_pack = [&]<class T>(const GemmKernels<T>& kernels) {
      for (const int width : {kernels.rows, kernels.columns})
        for (const int lanes : {1, 3, width - 1, width})
          for (const int64_t k : {1, 2, 3, 4, 7, 8, 33})
            for (const auto& [lane_stride, k_stride] :
                 {std::pair<int64_t, int64_t>{1, 40}, {40, 1}, {3, 120}}) {
              // Exactly as much memory as is read and written, so that a checker sees any step outside.
              std::vector<T> source(static_cast<size_t>((lanes - 1) * lane_stride + (k - 1) * k_stride + 1));
              for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<T>(i + 1);
              std::vector<T> packed(static_cast<size_t>(width * k), T(99));
              kernels.pack(lanes, width, k, source.data(), lane_stride, k_stride, packed.data());
              for (int64_t p = 0; p < k; ++p)
                for (int lane = 0; lane < width; ++lane)
                  ASSERT_EQ(
                      packed[static_cast<size_t>(p * width + lane)],
                      lane < lanes ? source[static_cast<size_t>(lane * lane_stride + p * k_stride)] : T(0));
            }
    };
    check_pack(level->float32);
    check_pack(level->float64);
    check_pack(level->int32);
    check_pack(level->int64);
  }
}

TEST(GemmKernels, PackManyPanels) {
  for (const GemmLevel* level : usable_levels()) {
    const GemmKernels<float>& kernels = level->float32;
    for (const int width : {kernels.rows, kernels.columns})
      for (const int64_t lanes : {width - 1, width, 2 * width + 3, 5 * width})
        for (const auto& [lane_stride, k_stride] :
             {std::pair<int64_t, int64_t>{1, 1000}, {1000, 1}, {3, 3000}}) {
          const int64_t k = 9, panels = (lanes + width - 1) / width, panel_stride = width * k;
          std::vector<float> source(static_cast<size_t>((lanes - 1) * lane_stride + (k - 1) * k_stride + 1));
          for (size_t i = 0; i < source.size(); ++i) source[i] = static_cast<float>(i + 1);
          std::vector<float> packed(static_cast<size_t>(panels * panel_stride), 99);
          kernels.pack_panels(lanes, width, k, source.data(), lane_stride, k_stride, packed.data(),
                              panel_stride);
          for (int64_t lane = 0; lane < panels * width; ++lane)
            for (int64_t p = 0; p < k; ++p)
              ASSERT_EQ(packed[static_cast<size_t>(lane / width * panel_stride + p * width + lane % width)],
                        lane < lanes ? source[static_cast<size_t>(lane * lane_stride + p * k_stride)] : 0.0f)
                  << "width " << width << " lanes " << lanes << " lane " << lane << " p " << p;
        }
  }
}

TEST(HalfConversions, AgreeAtEveryCpuLevel) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  std::vector<float> numbers;
  std::mt19937 random(7);
  for (int i = 0; i < 200000; ++i) numbers.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
  for (int i = 0; i < 65536; ++i)
    numbers.push_back(std::bit_cast<float>(0x33000000u + static_cast<uint32_t>(i) * 4096));
  const auto& plain = gemm_portable().half;
  for (const GemmLevel* level : usable_levels()) {
    const auto n = static_cast<int64_t>(numbers.size());
    for (const auto& [widen, narrow, widen_plain, narrow_plain] :
         {std::tuple{level->half.widen_float16, level->half.narrow_float16, plain.widen_float16,
                     plain.narrow_float16},
          std::tuple{level->half.widen_bfloat16, level->half.narrow_bfloat16, plain.widen_bfloat16,
                     plain.narrow_bfloat16}}) {
      std::vector<float> wide(all.size()), wide_plain(all.size());
      widen(static_cast<int64_t>(all.size()), all.data(), wide.data());
      widen_plain(static_cast<int64_t>(all.size()), all.data(), wide_plain.data());
      EXPECT_TRUE(same_bits(wide.data(), wide_plain.data(), static_cast<int64_t>(all.size())));
      std::vector<uint16_t> narrowed(numbers.size()), narrowed_plain(numbers.size());
      narrow(n, numbers.data(), narrowed.data());
      narrow_plain(n, numbers.data(), narrowed_plain.data());
      EXPECT_TRUE(same_bits(narrowed.data(), narrowed_plain.data(), n));
    }
  }
}

TEST(Matmul, AccumulatesIntoC) {
  const auto a = random_numbers<float>(40 * 50, 8), b = random_numbers<float>(50 * 30, 9);
  auto c = random_numbers<float>(40 * 30, 10);
  std::vector<float> product(c.size()), expected(c);
  const Matrix am{const_cast<float*>(a.data()), 50, 1, 0, false},
      bm{const_cast<float*>(b.data()), 30, 1, 0, false};
  matmul(kFloat32, {1, 40, 30, 50}, am, bm, {product.data(), 30, 1, 0, false});
  for (size_t i = 0; i < c.size(); ++i) expected[i] = product[i] + c[i];
  const Matrix cm{c.data(), 30, 1, 0, false};
  matmul(kFloat32, {1, 40, 30, 50}, am, bm, cm, {1, 1, cm});
  EXPECT_TRUE(same_bits(c.data(), expected.data(), static_cast<int64_t>(c.size())));
}

/// A bias or a whole addend is added after the last chunk, by whichever way the product is computed.
TEST(Matmul, AddsOnceTheLastChunkIsIn) {
  const int before = num_threads();
  for (const auto& [m, n, k] :
       {std::tuple<int64_t, int64_t, int64_t>{5, 40, 30}, {30, 300, 900}, {300, 70, 900}, {200, 500, 400}}) {
    const auto a = random_numbers<float>(static_cast<size_t>(m * k), 20),
               b = random_numbers<float>(static_cast<size_t>(k * n), 21),
               bias = random_numbers<float>(static_cast<size_t>(m * n), 22);
    for (int layouts = 0; layouts < 4; ++layouts) {
      const Matrix am{const_cast<float*>(a.data()), layouts & 1 ? 1 : k, layouts & 1 ? m : 1, 0, false};
      const Matrix bm{const_cast<float*>(b.data()), layouts & 2 ? 1 : n, layouts & 2 ? k : 1, 0, false};
      std::vector<float> product(static_cast<size_t>(m * n)), c(product.size());
      set_num_threads(1);
      matmul(kFloat32, {1, m, n, k}, am, bm, {product.data(), n, 1, 0, false});
      for (const int64_t row_stride : {int64_t{0}, n}) {
        for (const int threads : {1, 2, 3}) {
          set_num_threads(threads);
          const Matrix addend{const_cast<float*>(bias.data()), row_stride, 1, 0, false};
          matmul(kFloat32, {1, m, n, k}, am, bm, {c.data(), n, 1, 0, false}, {1, 1, addend});
          for (int64_t i = 0; i < m * n; ++i) {
            const float expected =
                product[static_cast<size_t>(i)] + bias[static_cast<size_t>(i / n * row_stride + i % n)];
            ASSERT_TRUE(same_bits(&expected, &c[static_cast<size_t>(i)], 1))
                << m << "x" << n << "x" << k << " layouts " << layouts << " threads " << threads << " at "
                << i;
          }
        }
      }
    }
  }
  set_num_threads(before);
}

/// Both operands in every layout, at sizes where panels are packed by blocks, by threads or for all.
TEST(Matmul, BitsDependNeitherOnLayoutsNorOnThreads) {
  const int before = num_threads();
  for (const auto& [m, n, k] : {std::tuple<int64_t, int64_t, int64_t>{300, 65, 400},
                                {130, 900, 500},
                                {900, 130, 500},
                                {400, 1000, 70},
                                {128, 128, 768},
                                {390, 130, 770},
                                {400, 60, 4500},
                                {60, 400, 4500}}) {
    const auto a = random_numbers<float>(static_cast<size_t>(m * k), 23),
               b = random_numbers<float>(static_cast<size_t>(k * n), 24);
    std::vector<float> at(a.size()), bt(b.size());
    for (int64_t i = 0; i < m; ++i)
      for (int64_t p = 0; p < k; ++p) at[static_cast<size_t>(p * m + i)] = a[static_cast<size_t>(i * k + p)];
    for (int64_t p = 0; p < k; ++p)
      for (int64_t j = 0; j < n; ++j) bt[static_cast<size_t>(j * k + p)] = b[static_cast<size_t>(p * n + j)];
    std::vector<float> first, c(static_cast<size_t>(m * n));
    for (const int threads : {1, 2, 3}) {
      set_num_threads(threads);
      for (int layouts = 0; layouts < 4; ++layouts) {
        const Matrix am = layouts & 1 ? Matrix{at.data(), 1, m, 0, false}
                                      : Matrix{const_cast<float*>(a.data()), k, 1, 0, false};
        const Matrix bm = layouts & 2 ? Matrix{bt.data(), 1, k, 0, false}
                                      : Matrix{const_cast<float*>(b.data()), n, 1, 0, false};
        std::fill(c.begin(), c.end(), 7.0f);
        matmul(kFloat32, {1, m, n, k}, am, bm, {c.data(), n, 1, 0, false});
        if (first.empty()) first = c;
        ASSERT_TRUE(same_bits(c.data(), first.data(), m * n))
            << m << "x" << n << "x" << k << " layouts " << layouts << " threads " << threads;
      }
    }
  }
  set_num_threads(before);
}

/// Both gradients of a linear map [m, k] -> [m, n], at once and one after the other.
template <class T>
void check_two_at_once(Dtype dtype, int64_t m, int64_t n, int64_t k) {
  SCOPED_TRACE(::testing::Message() << dtype << " " << m << " " << n << " " << k);
  const auto size = [](int64_t a, int64_t b) { return static_cast<size_t>(a * b); };
  std::vector<T> g = random_numbers<T>(size(m, n), 1), x = random_numbers<T>(size(m, k), 2),
                 w = random_numbers<T>(size(n, k), 3), gx(size(m, k)), gw(size(n, k)), gx2 = gx, gw2 = gw;
  const Matrix grad{g.data(), n, 1}, input{x.data(), k, 1}, weight{w.data(), k, 1};
  const auto of_input = [&](std::vector<T>& c) {
    return Multiplication{{1, m, k, n}, grad, weight, {c.data(), k, 1}};
  };
  const auto of_weight = [&](std::vector<T>& c) {
    return Multiplication{{1, n, k, m}, grad.transposed(), input, {c.data(), k, 1}};
  };
  matmul(dtype, of_input(gx), of_weight(gw));
  matmul(dtype, of_input(gx2));
  matmul(dtype, of_weight(gw2));
  EXPECT_TRUE(same_bits(gx.data(), gx2.data(), gx.size()));
  EXPECT_TRUE(same_bits(gw.data(), gw2.data(), gw.size()));
}

TEST(Matmul, TwoProductsAtOnceGiveTheBitsOfEach) {
  const int before = num_threads();
  for (const int threads : {1, 2, 5}) {
    set_num_threads(threads);
    for (const auto& [m, n, k] : {std::array<int64_t, 3>{768, 128, 96},
                                  {64, 512, 512},
                                  {1000, 65, 128},
                                  {3, 4, 5},
                                  {7000, 40, 30},
                                  {300, 2, 700},
                                  {33, 700, 1},
                                  {0, 4, 8},
                                  {5, 0, 8}}) {
      check_two_at_once<float>(kFloat32, m, n, k);
      check_two_at_once<double>(kFloat64, m, n, k);
      check_two_at_once<std::complex<float>>(kComplex64, std::min<int64_t>(m, 100), n, k);
    }
  }
  set_num_threads(before);
}

TEST(Matmul, RefusesBool) {
  bool x = true;
  const Matrix one{&x, 1, 1, 1, false};
  EXPECT_THROW(matmul(kBool, {1, 1, 1, 1}, one, one, one), Error);
}

}  // namespace
}  // namespace lohe::backend
