#include "backend/attention.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <limits>

#include "backend/cpu/ahead.h"
#include "backend/cpu/claims.h"
#include "backend/cpu/packing.h"
#include "backend/cpu/scratch.h"
#include "base/threads.h"
#include "ir/builder.h"
#include "ir/math.h"
#include "ir/primitives.h"

namespace lohe::backend {
namespace {

constexpr int64_t kBlock = 64;      ///< queries
constexpr int64_t kStripTiles = 8;  ///< of a product, side by side, that one call computes

// --- what happens to rows of scores between the products

/// Elements of a row that its loops take at once.
constexpr int row_step(Dtype dtype) { return static_cast<int>(64 / itemsize(dtype)); }

/// Rows [begin, end) of a block. Parameters: columns, elements from row to row, columns that row 0 sees, how
/// many more each next row sees, scale.
/// Forward: scores -> weights, statistics. Backward: scores, gradients of weights, statistics -> weights,
/// gradients of scores.
///
/// Most rows are short and each sees another number of columns, so loops go over whole steps, beyond what a
/// row sees, where its numbers are replaced: there are no rests, and no jumps that differ from row to row.
ir::Kernel row_kernel(Dtype dtype, bool backward) {
  using namespace ir;
  Builder b(backward ? "attention_rows_gradient" : "attention_rows");
  const Type type = type_of(dtype);
  const int16_t scores = b.buffer(type, true), grads = backward ? b.buffer(type, true) : int16_t{-1},
                statistics = b.buffer(type, !backward);
  const V columns = b.param(Type::kI64), stride = b.param(Type::kI64), first = b.param(Type::kI64),
          more = b.param(Type::kI64), factor = b.param(type), origin = b.constant_int(Type::kI64, 0),
          zero = b.constant(type, 0), none = b.constant(type, -std::numeric_limits<double>::infinity());
  b.loop({{b.begin(), b.end()}}, false, [&](const std::vector<V>& at) {
    const V base = at[0] * stride, of_row = at[0] + at[0];
    const V visible = b.binary(Op::kMin, first + at[0] * more, columns);
    const V whole = (visible + (row_step(dtype) - 1)) & b.constant_int(Type::kI64, -row_step(dtype));
    const V seen = b.cast(visible, Type::kI32);
    const auto sees_column = [&](const std::vector<V>& column) {
      return b.cast(column[0], Type::kI32) < seen;
    };
    const auto over = [&](V from, V to, const std::function<void(V sees)>& body) {
      b.loop({{from, to}}, true, [&](const std::vector<V>& column) { body(sees_column(column)); });
    };
    const auto fold = [&](V init, int lanes, V (*combine)(V, V), const std::function<V(V sees)>& element) {
      const Builder::Reduction reduction{
          {init}, lanes, [combine](const std::vector<V>& l, const std::vector<V>& r) {
            return std::vector<V>{combine(l[0], r[0])};
          }};
      return b.reduce({{origin, whole}}, true, {reduction}, [&](const std::vector<V>& column) {
        return std::vector<std::vector<V>>{{element(sees_column(column))}};
      })[0][0];
    };
    const auto add = [](V l, V r) { return l + r; };
    const auto greater = [](V l, V r) { return select(l > r, l, r); };
    if (backward) {
      const V highest = b.load(statistics, of_row),
              total = b.load(statistics, of_row + b.constant_int(Type::kI64, 1));
      const V mean = fold(zero, row_step(dtype), add, [&](V sees) {
        const V e = math::exp(b.load_unit(scores, base) * factor - highest);
        const V weight = select(sees & (total != 0), e / total, zero);
        b.store_unit(scores, base, weight);
        return select(sees, weight * b.load_unit(grads, base), zero);
      });
      over(origin, whole, [&](V sees) {
        const V grad = b.load_unit(scores, base) * (b.load_unit(grads, base) - mean) * factor;
        b.store_unit(grads, base, select(sees, grad, zero));
      });
      over(whole, columns, [&](V) {
        b.store_unit(scores, base, zero);
        b.store_unit(grads, base, zero);
      });
      return;
    }
    // A NaN may get lost here; the sum of the row has it.
    const V most = fold(none, row_step(dtype), greater, [&](V sees) {
      const V scaled = select(sees, b.load_unit(scores, base) * factor, none);
      b.store_unit(scores, base, scaled);
      return scaled;
    });
    const V highest = select(most == none, zero, most);
    // In the order in which every sum over rows is made.
    const V total = fold(zero, reduction_lanes(1, type), add, [&](V) {
      const V e = math::exp(b.load_unit(scores, base) - highest);
      b.store_unit(scores, base, e);
      return e;
    });
    over(origin, whole,
         [&](V) { b.store_unit(scores, base, select(total == 0, zero, b.load_unit(scores, base) / total)); });
    over(whole, columns, [&](V) { b.store_unit(scores, base, zero); });
    b.store(statistics, of_row, highest);
    b.store(statistics, of_row + b.constant_int(Type::kI64, 1), total);
  });
  return b.finish();
}

const codegen::CompiledKernel& compiled_row_kernel(Dtype dtype, bool backward) {
  static std::array<std::atomic<const codegen::CompiledKernel*>, 4> kernels;
  auto& kernel = kernels[(dtype == Dtype::kFloat64 ? 2 : 0) + (backward ? 1 : 0)];
  if (kernel.load() == nullptr) kernel = codegen::KernelCache::global().get(row_kernel(dtype, backward));
  return *kernel.load();
}

// --- products of blocks

template <class T>
class Attention {
 public:
  Attention(Dtype dtype, const AttentionShape& shape, bool backward)
      : shape_(shape),
        kernels_(level_in_use().get(T{})),
        rows_kernel_(compiled_row_kernel(dtype, backward)),
        by_head_(shape.batch % num_threads() == 0 || shape.batch >= 4 * num_threads()),
        // Room for the last whole step. Rows that are a multiple of a page apart would share few places of a
        // cache.
        scores_stride_(round_up(shape.keys, kernels_.columns) + row_step(dtype)) {}

  void forward(const Matrix& query, const Matrix& key, const Matrix& value, const Matrix& output,
               T* statistics) {
    const int64_t width = shape_.width, value_width = shape_.value_width;
    heads([&](int64_t head, int64_t next) {
      const View q = view(query, head), k = view(key, head), v = view(value, head), o = view(output, head);
      Ahead<T> ahead;
      if (next >= 0 && fits_ahead(width + value_width, width + value_width)) {
        add_rows(ahead, view(key, next), shape_.keys, width);
        add_rows(ahead, view(value, next), shape_.keys, value_width);
        add_rows(ahead, view(query, next), shape_.queries, width);
        add_rows(ahead, view(output, next), shape_.queries, value_width);
      }
      const Panels keys(kernels_, k, shape_.keys, width, true),
          values(kernels_, v, shape_.keys, value_width, false);
      Scratch<T> scores(kBlock * scores_stride_);
      Rows near_q(kernels_, q, width);
      for (int64_t i = 0; i < shape_.queries; i += kBlock) {
        const Block block = block_of(i);
        T* const s = scores.data();
        score(block, width, near_q.near(rows_of(q, i), block.rows), keys, s, ahead);
        soften(block, {s, statistics + (head * shape_.queries + i) * 2});
        combine(block, value_width, s, values, rows_of(o, i), ahead);
      }
    });
  }

  void backward(const Matrix& query, const Matrix& key, const Matrix& value, const Matrix& grad_output,
                const T* statistics, const Matrix& grad_query, const Matrix& grad_key,
                const Matrix& grad_value) {
    const int64_t width = shape_.width, value_width = shape_.value_width;
    heads([&](int64_t head, int64_t next) {
      const View q = view(query, head), k = view(key, head), v = view(value, head),
                 g = view(grad_output, head), gq = view(grad_query, head), gk = view(grad_key, head),
                 gv = view(grad_value, head);
      Ahead<T> ahead;
      if (next >= 0 && fits_ahead(2 * width + value_width, 2 * (width + value_width))) {
        add_rows(ahead, view(key, next), shape_.keys, width);
        add_rows(ahead, view(value, next), shape_.keys, value_width);
        add_rows(ahead, view(query, next), shape_.queries, width);
        add_rows(ahead, view(grad_output, next), shape_.queries, value_width);
        add_rows(ahead, view(grad_query, next), shape_.queries, width);
        add_rows(ahead, view(grad_value, next), shape_.keys, value_width);
        add_rows(ahead, view(grad_key, next), shape_.keys, width);
      }
      const Panels keys(kernels_, k, shape_.keys, width, true),
          key_rows(kernels_, k, shape_.keys, width, false),
          values(kernels_, v, shape_.keys, value_width, true);
      Scratch<T> scores(kBlock * scores_stride_), grads(kBlock * scores_stride_);
      T *const s = scores.data(), *const d = grads.data();
      Rows near_q(kernels_, q, width), near_g(kernels_, g, value_width);
      int64_t known = 0;  // keys whose gradients hold something
      for (int64_t i = 0; i < shape_.queries; i += kBlock) {
        const Block block = block_of(i);
        const View q_block = rows_of(q, i), g_block = rows_of(g, i);
        score(block, width, near_q.near(q_block, block.rows), keys, s, ahead);
        score(block, value_width, near_g.near(g_block, block.rows), values, d, ahead);
        soften(block, {s, d, const_cast<T*>(statistics) + (head * shape_.queries + i) * 2});
        combine(block, width, d, key_rows, rows_of(gq, i), ahead);
        const Panels q_rows(kernels_, q_block, block.rows, width, false),
            g_rows(kernels_, g_block, block.rows, value_width, false);
        gather(block, known, value_width, s, g_rows, gv, ahead);
        gather(block, known, width, d, q_rows, gk, ahead);
        known = block.keys;
      }
      for (int64_t j = known; j < shape_.keys; ++j) {
        std::fill_n(gk.data + j * gk.row_stride, width, T(0));
        std::fill_n(gv.data + j * gv.row_stride, value_width, T(0));
      }
    });
  }

 private:
  /// A matrix whose element (i, p) is at data + i * row_stride + p * k_stride.
  struct View {
    T* data;
    int64_t row_stride;
    int64_t k_stride;
  };
  /// `x`, [rows, columns] with adjacent columns, or transposed, as a right-hand side: panels of columns,
  /// `panel_stride` apart; where it lies if it can be read there.
  struct Panels {
    Panels(const GemmKernels<T>& kernels, const View& x, int64_t rows, int64_t columns, bool transposed)
        : lies_well(!transposed && close_rows<T>(kernels.rows, x.row_stride)),
          panel_stride(lies_well ? kernels.columns : kernels.columns * (transposed ? columns : rows)),
          k_stride(lies_well ? x.row_stride : kernels.columns),
          memory(lies_well ? 0 : ceil_div(transposed ? rows : columns, kernels.columns) * panel_stride),
          data(lies_well ? x.data : memory.data()) {
      if (lies_well) return;
      kernels.pack_panels(transposed ? rows : columns, kernels.columns, transposed ? columns : rows, x.data,
                          transposed ? x.row_stride : 1, transposed ? 1 : x.row_stride, memory.data(),
                          panel_stride);
    }
    const bool lies_well;
    const int64_t panel_stride, k_stride;
    Scratch<T> memory;
    const T* const data;
  };
  /// The rows of a block as a left-hand side; a copy of them where they would clash.
  class Rows {
   public:
    Rows(const GemmKernels<T>& kernels, const View& all, int64_t width)
        : width_(width),
          stride_(width + 64 / static_cast<int64_t>(sizeof(T))),
          copied_(rows_clash<T>(kernels.rows, all.row_stride)),
          memory_(copied_ ? kBlock * stride_ : 0) {}
    View near(const View& rows, int64_t count) {
      if (!copied_) return rows;
      for (int64_t r = 0; r < count; ++r)
        std::copy_n(rows.data + r * rows.row_stride, width_, memory_.data() + r * stride_);
      return {memory_.data(), stride_, 1};
    }

   private:
    const int64_t width_, stride_;
    const bool copied_;
    Scratch<T> memory_;
  };
  struct Block {
    int64_t first;  ///< query
    int64_t rows;
    int64_t keys;  ///< that its last row sees
  };
  /// What of a product some rows compute: values [begin, end) of k, for the first `columns` columns.
  struct Terms {
    int64_t begin, end;
    int64_t columns = std::numeric_limits<int64_t>::max();
  };

  static int64_t round_up(int64_t n, int64_t to) { return ceil_div(n, to) * to; }

  View view(const Matrix& m, int64_t head) const {
    return {
        static_cast<T*>(m.data) + head / shape_.inner * m.outer_stride + head % shape_.inner * m.batch_stride,
        m.row_stride, 1};
  }
  static View rows_of(const View& x, int64_t row) { return {x.data + row * x.row_stride, x.row_stride, 1}; }

  Block block_of(int64_t row) const {
    const int64_t rows = std::min(kBlock, shape_.queries - row);
    return {row, rows, shape_.causal ? std::min(row + rows, shape_.keys) : shape_.keys};
  }
  /// Keys that rows of the block before `row_end` see.
  int64_t seen(const Block& block, int64_t row_end) const {
    return shape_.causal ? std::min(block.first + row_end, block.keys) : block.keys;
  }

  /// Whether the next head's rows, so many elements for each query and key, may be fetched before it begins.
  bool fits_ahead(int64_t of_query, int64_t of_key) const {
    const int64_t elements = shape_.queries * of_query + shape_.keys * of_key;
    return elements * static_cast<int64_t>(sizeof(T)) <= Ahead<T>::kRoom;
  }
  static void add_rows(Ahead<T>& ahead, const View& x, int64_t count, int64_t width) {
    ahead.add(x.data, x.row_stride, count, width);
  }

  /// Many heads are shared out whole; of few, the parts of each product. @param body gets a head, and the one
  /// that the same thread is likely to take next; -1: none
  void heads(FunctionRef<void(int64_t, int64_t)> body) const {
    if (!by_head_) {
      for (int64_t head = 0; head < shape_.batch; ++head) body(head, -1);
      return;
    }
    Claims claims(shape_.batch);
    parallel_for(num_threads(), 1, [&](int64_t begin, int64_t) {
      const bool first = begin == 0;
      for (int64_t head; (head = claims.take(first)) < shape_.batch;)
        body(head, first ? (head + 1 < shape_.batch ? head + 1 : -1) : head - 1);
    });
  }

  // Tiles and terms that no row sees are left out: their weights are 0. (Beside a number 0 adds nothing, and
  // what is not finite among keys that a row does not see stays away from it.)

  /// Scores of the block's rows: `rows` times a transposed matrix.
  void score(const Block& block, int64_t width, const View& rows, const Panels& columns, T* scores,
             Ahead<T>& ahead) const {
    product(block.rows, block.keys, rows, columns, {scores, scores_stride_, 1}, false, ahead,
            [&](int64_t, int64_t row_end) { return Terms{0, width, seen(block, row_end)}; });
  }
  /// Sums of rows of `values` by the block's weights.
  void combine(const Block& block, int64_t width, T* weights, const Panels& values, const View& sums,
               Ahead<T>& ahead) const {
    product(block.rows, width, {weights, scores_stride_, 1}, values, sums, false, ahead,
            [&](int64_t, int64_t row_end) { return Terms{0, seen(block, row_end)}; });
  }
  /// The same for every key, over the block's rows; the first `known` keys' sums hold something already.
  void gather(const Block& block, int64_t known, int64_t width, T* weights, const Panels& rows,
              const View& sums, Ahead<T>& ahead) const {
    const auto part = [&](int64_t begin, int64_t end, bool adds) {
      product(end - begin, width, {weights + begin, 1, scores_stride_}, rows, rows_of(sums, begin), adds,
              ahead, [&](int64_t key, int64_t) {
                return Terms{shape_.causal ? std::max<int64_t>(begin + key - block.first, 0) : 0, block.rows};
              });
    };
    part(0, known, true);
    part(known, block.keys, false);
  }

  void soften(const Block& block, std::array<T*, 3> memory) const {
    void* buffers[] = {memory[0], memory[1], memory[2]};
    const T scale = static_cast<T>(shape_.scale);
    int64_t params[5] = {block.keys, scores_stride_, shape_.causal ? block.first + 1 : block.keys,
                         shape_.causal ? 1 : 0, 0};
    std::copy_n(reinterpret_cast<const char*>(&scale), sizeof(T), reinterpret_cast<char*>(&params[4]));
    parallel_for(block.rows, 8,
                 [&](int64_t begin, int64_t end) { rows_kernel_(buffers, params, begin, end); });
  }

  /// c = (adds ? c : 0) + a b, in chunks as every product. @param terms of rows [begin, end); rows without
  /// any are left out
  template <class TermsOf>
  void product(int64_t rows, int64_t columns, const View& a, const Panels& b, const View& c, bool adds,
               Ahead<T>& ahead, const TermsOf& terms) const {
    const int mr = kernels_.rows, nr = kernels_.columns;
    const int64_t panels = ceil_div(columns, nr);
    parallel_for(ceil_div(rows, mr) * panels, 4, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin, tiles; t < end; t += tiles) {
        const int64_t i = t / panels * mr, panel = t % panels;
        tiles = std::min({panels - panel, end - t, kStripTiles});
        const int64_t tile_rows = std::min<int64_t>(mr, rows - i);
        const Terms k = terms(i, i + tile_rows);
        const int64_t strip_columns = std::min({(panel + tiles) * nr, columns, k.columns}) - panel * nr;
        if (strip_columns <= 0) continue;
        for (int64_t p = k.begin; p < k.end; p = (p / kChunk + 1) * kChunk) {
          Strip<T> strip{.rows = static_cast<int>(tile_rows),
                         .columns = strip_columns,
                         .k = std::min((p / kChunk + 1) * kChunk, k.end) - p,
                         .a = a.data + i * a.row_stride + p * a.k_stride,
                         .a_row_stride = a.row_stride,
                         .a_k_stride = a.k_stride,
                         .b = b.data + panel * b.panel_stride + p * b.k_stride,
                         .b_k_stride = b.k_stride,
                         .b_tile_stride = b.panel_stride,
                         .c = c.data + i * c.row_stride + panel * nr,
                         .c_row_stride = c.row_stride,
                         .accumulate = adds || p > k.begin,
                         .near = true};
          std::array<Fetch<T>, kStripTiles> later;
          if (!ahead.empty()) {
            for (int64_t j = 0; j < ceil_div(strip_columns, nr); ++j)
              later[static_cast<size_t>(j)] = ahead.share_of_tile(strip.rows, strip.k);
            strip.later = later.data();
          }
          kernels_.multiply(strip);
        }
      }
    });
  }

  const AttentionShape& shape_;
  const GemmKernels<T>& kernels_;
  const codegen::CompiledKernel& rows_kernel_;
  const bool by_head_;
  const int64_t scores_stride_;
};

void check(Dtype dtype, const AttentionShape& shape) {
  LOHE_CHECK_KIND(kInternal, shape.fits() && (dtype == kFloat32 || dtype == kFloat64),
                  "attention: this shape or dtype ", dtype, " is not served");
}

}  // namespace

void attention(Dtype dtype, const AttentionShape& shape, const Matrix& query, const Matrix& key,
               const Matrix& value, const Matrix& output, void* statistics) {
  check(dtype, shape);
  if (dtype == kFloat32)
    Attention<float>(dtype, shape, false).forward(query, key, value, output, static_cast<float*>(statistics));
  else
    Attention<double>(dtype, shape, false)
        .forward(query, key, value, output, static_cast<double*>(statistics));
}

void attention_gradient(Dtype dtype, const AttentionShape& shape, const Matrix& query, const Matrix& key,
                        const Matrix& value, const Matrix& grad_output, const void* statistics,
                        const Matrix& grad_query, const Matrix& grad_key, const Matrix& grad_value) {
  check(dtype, shape);
  if (dtype == kFloat32) {
    Attention<float>(dtype, shape, true)
        .backward(query, key, value, grad_output, static_cast<const float*>(statistics), grad_query, grad_key,
                  grad_value);
  } else {
    Attention<double>(dtype, shape, true)
        .backward(query, key, value, grad_output, static_cast<const double*>(statistics), grad_query,
                  grad_key, grad_value);
  }
}

}  // namespace lohe::backend
