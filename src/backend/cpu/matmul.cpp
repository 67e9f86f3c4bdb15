#include <algorithm>
#include <complex>
#include <type_traits>
#include <utility>

#include "backend/cpu/packing.h"
#include "backend/cpu/scratch.h"
#include "backend/cpu/writer.h"
#include "backend/library.h"
#include "base/threads.h"
#include "lohe/error.h"

namespace lohe::backend {
namespace {

/// An operand as the tile kernels read it: panels of `width` lanes; element (lane, p) of panel i is at
/// data + i * panel_stride + lane * lane_stride + p * k_stride.
template <class T>
struct Panels {
  const T* data;
  int64_t panel_stride;
  int64_t lane_stride;
  int64_t k_stride;
};

/// C (+)= A B with C in the compute type and its columns adjacent. The work is cut into blocks of A and B
/// that are packed once, and a grid of tiles of C. No bit depends on how, so the cutting may look at whatever
/// is fast.
template <class T>
class Gemm {
 public:
  Gemm(const GemmLevel& level, const Operand& a, const Operand& b, int64_t k, bool parallel)
      : level_(level), kernels_(level.get(T{})), a_(a), b_(b), k_(k), parallel_(parallel) {}

  void run(T* c, int64_t c_row_stride) {
    const int64_t m = a_.lanes, n = b_.lanes;
    // Panels that are small or used by few rows (of B) or columns (of A) are read where they lie; those of B
    // need adjacent columns.
    const bool small = (m + n) * k_ * static_cast<int64_t>(sizeof(T)) <= kSmallBytes;
    const bool pack_b =
        b_.form != Form::kPlain || (b_.lane_stride != 1 && n > 1) || (!small && m > 8 * kernels_.rows);
    const bool few_rows = m <= 4 * kernels_.rows;
    const bool pack_a = a_.form != Form::kPlain || (!small && !few_rows && n > 4 * kernels_.columns);
    if (pack_b && !pack_a && few_rows) return panel_by_panel(c, c_row_stride);
    if (!pack_a && !pack_b && !parallel_) {
      for (int64_t k0 = 0; k0 < k_; k0 += kChunk)
        tiles({0, m}, {0, n}, k0, std::min(k_ - k0, kChunk), in_place(a_, kernels_.rows, 0),
              in_place(b_, kernels_.columns, 0), c, c_row_stride, k0 > 0);
      return;
    }
    const int64_t k_block = std::min(k_, kBlockChunks * kChunk);
    const int64_t rows = block_lanes(m, k_block, kernels_.rows, pack_a);
    const int64_t columns = block_lanes(n, k_block, kernels_.columns, pack_b);
    Scratch<T> packed_a(pack_a ? round_up(std::min(rows, m), kernels_.rows) * k_block : 0);
    Scratch<T> packed_b(pack_b ? round_up(std::min(columns, n), kernels_.columns) * k_block : 0);
    for (int64_t k0 = 0; k0 < k_; k0 += k_block) {
      for (int64_t j = 0; j < n; j += columns) {
        for (int64_t i = 0; i < m; i += rows) {
          const Range row_range{i, std::min(rows, m - i)};
          const Range column_range{j, std::min(columns, n - j)};
          const int64_t k = std::min(k_block, k_ - k0);
          pack_blocks(row_range, column_range, k0, k,
                      pack_a && (i > 0 || j == 0 || rows < m) ? packed_a.data() : nullptr,
                      pack_b && i == 0 ? packed_b.data() : nullptr);
          const Panels<T> a = pack_a ? Panels<T>{packed_a.data(), kernels_.rows * k, 1, kernels_.rows}
                                     : in_place(a_, kernels_.rows, i, k0);
          const Panels<T> b = pack_b ? Panels<T>{packed_b.data(), kernels_.columns * k, 1, kernels_.columns}
                                     : in_place(b_, kernels_.columns, j, k0);
          multiply(row_range, column_range, k, a, b, c + i * c_row_stride + j, c_row_stride, k0 > 0);
        }
      }
    }
  }

 private:
  struct Range {
    int64_t begin;
    int64_t size;
  };

  /// Bounds the packed memory: 16 chunks of k, and lanes so that a block is about 16 MiB.
  static constexpr int64_t kBlockChunks = 16;
  static constexpr int64_t kBlockBytes = 16 << 20;
  static constexpr int64_t kSmallBytes = 40 << 10;  ///< A and B fit into a first-level cache
  static constexpr int64_t kTilePanelsOfA = 16;
  static constexpr int64_t kTilePanelsOfB = 4;

  static int64_t round_up(int64_t n, int64_t to) { return ceil_div(n, to) * to; }

  static int64_t block_lanes(int64_t lanes, int64_t k, int64_t width, bool packed) {
    if (!packed) return lanes;
    return std::max(kBlockBytes / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(k, 1) / width,
                    int64_t{1}) *
           width;
  }

  static Panels<T> in_place(const Operand& operand, int width, int64_t lane, int64_t k0 = 0) {
    const T* data =
        reinterpret_cast<const T*>(operand.data) + lane * operand.lane_stride + k0 * operand.k_stride;
    return {data, width * operand.lane_stride, operand.lane_stride, operand.k_stride};
  }

  void pack_blocks(Range rows, Range columns, int64_t k0, int64_t k, T* to_a, T* to_b) {
    const int64_t chunks = ceil_div(k, kChunk);
    const int64_t jobs_a = to_a ? ceil_div(rows.size, kernels_.rows) * chunks : 0;
    const int64_t jobs_b = to_b ? ceil_div(columns.size, kernels_.columns) * chunks : 0;
    const bool staged = (to_a && a_.form != Form::kPlain) || (to_b && b_.form != Form::kPlain);
    for_range(jobs_a + jobs_b, [&](int64_t begin, int64_t end) {
      Scratch<T> staging(staged ? std::max(kernels_.rows, kernels_.columns) * kChunk : 0);
      for (int64_t job = begin; job < end; ++job) {
        const bool is_a = job < jobs_a;
        const int64_t index = is_a ? job : job - jobs_a;
        const int64_t panel = index / chunks, offset = index % chunks * kChunk;
        const int width = is_a ? kernels_.rows : kernels_.columns;
        const Range& range = is_a ? rows : columns;
        const int lanes = static_cast<int>(std::min<int64_t>(width, range.size - panel * width));
        pack_panel(level_, is_a ? a_ : b_, range.begin + panel * width, lanes, width, k0 + offset,
                   std::min(kChunk, k - offset), staging.data(),
                   (is_a ? to_a : to_b) + (panel * k + offset) * width);
      }
    });
  }

  /// For few rows: a panel of B is used at once after it is packed, and never leaves the caches.
  void panel_by_panel(T* c, int64_t c_row_stride) {
    const int64_t n = b_.lanes;
    const int width = kernels_.columns;
    for_range(ceil_div(n, width), [&](int64_t begin, int64_t end) {
      Scratch<T> packed(width * std::min(k_, kChunk));
      Scratch<T> staging(b_.form != Form::kPlain ? width * kChunk : 0);
      for (int64_t j = begin * width; j < std::min(end * width, n); j += width) {
        for (int64_t k0 = 0; k0 < k_; k0 += kChunk) {
          const int64_t k = std::min(kChunk, k_ - k0), lanes = std::min<int64_t>(width, n - j);
          pack_panel(level_, b_, j, static_cast<int>(lanes), width, k0, k, staging.data(), packed.data());
          tiles({0, a_.lanes}, {0, lanes}, 0, k, in_place(a_, kernels_.rows, 0, k0),
                {packed.data(), 0, 1, width}, c + j, c_row_stride, k0 > 0);
        }
      }
    });
  }

  void multiply(Range rows, Range columns, int64_t k, const Panels<T>& a, const Panels<T>& b, T* c,
                int64_t c_row_stride, bool accumulate) {
    const int64_t tile_rows = kTilePanelsOfA * kernels_.rows,
                  tile_columns = kTilePanelsOfB * kernels_.columns;
    const int64_t grid_columns = ceil_div(columns.size, tile_columns);
    for_range(ceil_div(rows.size, tile_rows) * grid_columns, [&](int64_t begin, int64_t end) {
      for (int64_t job = begin; job < end; ++job) {
        const int64_t i = job / grid_columns * tile_rows, j = job % grid_columns * tile_columns;
        const Range r{i, std::min(tile_rows, rows.size - i)}, q{j, std::min(tile_columns, columns.size - j)};
        for (int64_t k0 = 0; k0 < k; k0 += kChunk)
          tiles(r, q, k0, std::min(kChunk, k - k0), a, b, c, c_row_stride, accumulate || k0 > 0);
      }
    });
  }

  /// The panel of A stays in the first-level cache while those of B pass by.
  void tiles(Range rows, Range columns, int64_t k0, int64_t k, const Panels<T>& a, const Panels<T>& b, T* c,
             int64_t c_row_stride, bool accumulate) {
    const int mr = kernels_.rows, nr = kernels_.columns;
    for (int64_t i = rows.begin; i < rows.begin + rows.size; i += mr) {
      const T* pa = a.data + i / mr * a.panel_stride + k0 * a.k_stride;
      const int tile_rows = static_cast<int>(std::min<int64_t>(mr, rows.begin + rows.size - i));
      for (int64_t j = columns.begin; j < columns.begin + columns.size; j += nr) {
        kernels_.tile(tile_rows, static_cast<int>(std::min<int64_t>(nr, columns.begin + columns.size - j)), k,
                      pa, a.lane_stride, a.k_stride, b.data + j / nr * b.panel_stride + k0 * b.k_stride,
                      b.k_stride, c + i * c_row_stride + j, c_row_stride, accumulate);
      }
    }
  }

  void for_range(int64_t n, FunctionRef<void(int64_t, int64_t)> body) {
    if (n > 0) parallel_for(n, parallel_ ? 1 : n, body);
  }

  const GemmLevel& level_;
  const GemmKernels<T>& kernels_;
  const Operand a_, b_;
  const int64_t k_;
  const bool parallel_;
};

/// One dtype: computed in T; E is the element of C as computed (T or its complex partner), D as stored.
template <class T, class E, class D>
class Product {
 public:
  Product(Dtype dtype, const MatmulShape& shape, const Matrix& a, const Matrix& b, const Matrix& c,
          const Epilogue& epilogue)
      : dtype_(dtype),
        shape_(shape),
        a_(a),
        b_(b),
        c_(c),
        epilogue_(epilogue),
        level_(level_in_use()),
        beta_is_zero_(as_element<E>(epilogue.beta) == E(0)),
        plain_(std::is_same_v<E, D> && beta_is_zero_ && as_element<E>(epilogue.alpha) == E(1)) {}

  void run() {
    normalize();
    const double work = 2.0 * static_cast<double>(shape_.m) * static_cast<double>(shape_.n) *
                        static_cast<double>(std::max<int64_t>(shape_.k, 1)) * kParts * kParts;
    // Many matrices are shared out whole; few or large ones one after the other, each by all threads.
    const bool many = shape_.batch >= 4 * num_threads() && work * sizeof(T) < 1e9;
    if (many || shape_.batch * work < kSerialWork) {
      const int64_t grain = shape_.batch * work < kSerialWork
                                ? shape_.batch
                                : std::max<int64_t>(1, static_cast<int64_t>(kSerialWork / 4 / work));
      parallel_for(shape_.batch, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) one(i, false);
      });
    } else {
      for (int64_t i = 0; i < shape_.batch; ++i) one(i, true);
    }
  }

 private:
  static constexpr bool kComplex = !std::is_same_v<T, E>;
  static constexpr int64_t kParts = kComplex ? 2 : 1;
  /// Multiply-adds times two below which a second thread costs more than it brings.
  static constexpr double kSerialWork = 1.5e6;

  void normalize() {
    // A stack of A's rows against one B is one product.
    if (shape_.batch > 1 && b_.batch_stride == 0 && a_.batch_stride == shape_.m * a_.row_stride &&
        c_.batch_stride == shape_.m * c_.row_stride &&
        (beta_is_zero_ || epilogue_.addend.batch_stride == shape_.m * epilogue_.addend.row_stride)) {
      shape_.m *= shape_.batch;
      shape_.batch = 1;
    }
    if (shape_.n == 1) c_.column_stride = 1;
    if (shape_.m == 1) c_.row_stride = std::max<int64_t>(shape_.n, 1);
    // The transposed product has the same chains, but for the order inside a complex imaginary part. It is
    // the better one when C's rows are adjacent, and when there are too few columns to fill a vector.
    if (!kComplex &&
        ((c_.column_stride != 1 && c_.row_stride == 1) || (shape_.n < 8 && shape_.m > shape_.n))) {
      std::swap(shape_.m, shape_.n);
      std::swap(a_, b_);
      a_ = a_.transposed();
      b_ = b_.transposed();
      c_ = c_.transposed();
      epilogue_.addend = epilogue_.addend.transposed();
      if (shape_.m == 1) c_.row_stride = std::max<int64_t>(shape_.n, 1);
    }
  }

  void one(int64_t index, bool parallel) {
    const int64_t size = itemsize(dtype_);
    const Form plain = sizeof(D) == sizeof(E) ? Form::kPlain : Form::kWidened;
    const Operand a{static_cast<const char*>(a_.data) + index * a_.batch_stride * size,
                    a_.row_stride,
                    a_.column_stride,
                    shape_.m,
                    dtype_,
                    kComplex ? Form::kComplexA : plain,
                    a_.conjugate};
    const Operand b{static_cast<const char*>(b_.data) + index * b_.batch_stride * size,
                    b_.column_stride,
                    b_.row_stride,
                    shape_.n * kParts,
                    dtype_,
                    kComplex ? Form::kComplexB : plain,
                    b_.conjugate};
    D* const c = static_cast<D*>(c_.data) + index * c_.batch_stride;
    const int64_t k = shape_.k * kParts;
    if (k > 0 && plain_ && (c_.column_stride == 1)) {
      Gemm<T>(level_, a, b, k, parallel).run(reinterpret_cast<T*>(c), c_.row_stride * kParts);
      return;
    }
    const D* addend = static_cast<const D*>(epilogue_.addend.data);
    if (!beta_is_zero_) addend += index * epilogue_.addend.batch_stride;
    if constexpr (std::is_same_v<E, D>) {
      if (k > 0 && c_.column_stride == 1 && (beta_is_zero_ || !addend_may_be_c())) {
        Gemm<T>(level_, a, b, k, parallel).run(reinterpret_cast<T*>(c), c_.row_stride * kParts);
        return finish(0, shape_.m, c, c_.row_stride, addend, c, parallel);
      }
    }
    // Rows at a time, so that the sums take little memory.
    const int64_t rows =
        std::clamp<int64_t>(kStagedBytes / static_cast<int64_t>(sizeof(E)) / shape_.n, 1, shape_.m);
    Scratch<E> sums(rows * shape_.n);
    for (int64_t i = 0; i < shape_.m; i += rows) {
      const int64_t count = std::min(rows, shape_.m - i);
      Operand part = a;
      part.data += i * a.lane_stride * size;
      part.lanes = count;
      if (k > 0)
        Gemm<T>(level_, part, b, k, parallel).run(reinterpret_cast<T*>(sums.data()), shape_.n * kParts);
      else
        std::fill_n(sums.data(), count * shape_.n, E(0));
      finish(i, count, sums.data(), shape_.n, addend, c, parallel);
    }
  }

  /// The epilogue of `count` rows from row i on; `sums` begins at row i, the other two at row 0.
  void finish(int64_t i, int64_t count, E* sums, int64_t sums_row_stride, const D* addend, D* c,
              bool parallel) {
    parallel_for(
        count, parallel ? std::max<int64_t>(1, 16384 / shape_.n) : count, [&](int64_t begin, int64_t end) {
          Writer<E, D> writer(level_, dtype_, epilogue_);
          for (int64_t r = begin; r < end; ++r)
            writer.write_row(shape_.n, sums + r * sums_row_stride,
                             beta_is_zero_ ? nullptr : addend + (i + r) * epilogue_.addend.row_stride,
                             epilogue_.addend.column_stride, c + (i + r) * c_.row_stride, c_.column_stride);
        });
  }

  /// Whether the addend's memory may overlap C's: then C cannot hold the sums before the addend is read.
  bool addend_may_be_c() const {
    const auto extent = [this](const Matrix& x) {
      int64_t low = 0, high = 1;
      for (const auto& [size, stride] :
           {std::pair{shape_.batch, x.batch_stride}, std::pair{shape_.m, x.row_stride},
            std::pair{shape_.n, x.column_stride}})
        (stride < 0 ? low : high) += (size - 1) * stride;
      const auto* data = static_cast<const D*>(x.data);
      return std::pair{reinterpret_cast<uintptr_t>(data + low), reinterpret_cast<uintptr_t>(data + high)};
    };
    const auto [c_low, c_high] = extent(c_);
    const auto [addend_low, addend_high] = extent(epilogue_.addend);
    return addend_low < c_high && c_low < addend_high;
  }

  static constexpr int64_t kStagedBytes = 4 << 20;

  const Dtype dtype_;
  MatmulShape shape_;
  Matrix a_, b_, c_;
  Epilogue epilogue_;
  const GemmLevel& level_;
  const bool beta_is_zero_;
  const bool plain_;
};

}  // namespace

void matmul(Dtype dtype, const MatmulShape& shape, const Matrix& a, const Matrix& b, const Matrix& c,
            const Epilogue& epilogue) {
  LOHE_CHECK_KIND(kNotImplemented, dtype != kBool && dtype != Dtype::kUndefined,
                  "matmul: not defined for dtype ", dtype, "; convert the operands to a number type first");
  if (shape.batch == 0 || shape.m == 0 || shape.n == 0) return;
  const auto run = [&]<class T, class E, class D>() {
    Product<T, E, D>(dtype, shape, a, b, c, epilogue).run();
  };
  switch (dtype) {
    case kFloat32:
      return run.template operator()<float, float, float>();
    case kFloat64:
      return run.template operator()<double, double, double>();
    case kComplex64:
      return run.template operator()<float, std::complex<float>, std::complex<float>>();
    case kComplex128:
      return run.template operator()<double, std::complex<double>, std::complex<double>>();
    case kFloat16:
    case kBFloat16:
      return run.template operator()<float, float, uint16_t>();
    case kUInt8:
    case kInt8:
      return run.template operator()<uint32_t, uint32_t, uint8_t>();
    case kInt16:
      return run.template operator()<uint32_t, uint32_t, uint16_t>();
    case kInt32:
      return run.template operator()<uint32_t, uint32_t, uint32_t>();
    default:
      return run.template operator()<uint64_t, uint64_t, uint64_t>();
  }
}

}  // namespace lohe::backend
