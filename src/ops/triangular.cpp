#include <algorithm>

#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// Triangles and diagonals of matrices, and views written into a copy.
namespace lohe::ops {
namespace {

using namespace ir;

/// kGroupA: rows, kGroupB: columns of the last two dims; kOuter: the batch.
Domain matrices(const OpDef& op, Args args) {
  const TensorImpl& t = *args[0].tensor;
  LOHE_CHECK(t.dim() >= 2, op.schema.base, ": input tensor must have at least 2 dimensions");
  Domain d;
  d.sizes = t.size_dims();
  for (int64_t i = 0; i < t.dim(); ++i)
    d.groups.push_back(i == t.dim() - 2 ? kGroupA : i == t.dim() - 1 ? kGroupB : kOuter);
  return d;
}

/// Elements on and below (above) a diagonal; zero elsewhere.
Node lower(Node x, Node diagonal) {
  Graph& g = *x.graph();
  return select(g.iota(kGroupB, kInt64) - g.iota(kGroupA, kInt64) <= diagonal, x, x.literal(0));
}
Node upper(Node x, Node diagonal) {
  Graph& g = *x.graph();
  return select(g.iota(kGroupB, kInt64) - g.iota(kGroupA, kInt64) >= diagonal, x, x.literal(0));
}

/// Rows and columns of a triangle's elements, as [2, count].
Results triangle_positions(Args a, bool is_lower) {
  static const OpRef empty("empty");
  const int64_t rows = a[0].integer, columns = a[1].integer, offset = a[2].integer;
  LOHE_CHECK(rows >= 0, "row must be non-negative, got", rows);
  LOHE_CHECK(columns >= 0, "col must be non-negative, got", columns);
  const Dtype dtype = a[3].kind == Arg::kDtype ? a[3].dtype : kInt64;
  LOHE_CHECK_KIND(kNotImplemented, dtype == kInt64 || dtype == kInt32, "\"", is_lower ? "tril" : "triu",
                  "_indices\" not implemented for '", dtype, "'");
  const auto from = [&](int64_t row) { return is_lower ? 0 : std::clamp<int64_t>(row + offset, 0, columns); };
  const auto to = [&](int64_t row) {
    return is_lower ? std::clamp<int64_t>(row + offset + 1, 0, columns) : columns;
  };
  int64_t count = 0;
  for (int64_t i = 0; i < rows; ++i) count += to(i) - from(i);
  TensorPtr t = empty(Dims{2, count}, dtype);
  const auto fill = [&](auto* out) {
    using T = std::remove_pointer_t<decltype(out)>;
    T* second = out + count;
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = from(i); j < to(i); ++j) {
        *out++ = static_cast<T>(i);
        *second++ = static_cast<T>(j);
      }
    }
  };
  if (dtype == kInt64)
    fill(reinterpret_cast<int64_t*>(t->data()));
  else
    fill(reinterpret_cast<int32_t*>(t->data()));
  return t;
}

/// The last dim as a diagonal of two new dims of zeros.
std::vector<Meta> embedded(Args a) {
  const TensorImpl& t = *a[0].tensor;
  LOHE_CHECK(t.dim() >= 1, "Expected a tensor of at least one dimension");
  const int64_t rank = t.dim() + 1, x = wrap_dim(a[2].integer, rank), y = wrap_dim(a[3].integer, rank);
  LOHE_CHECK(x != y, "diagonal dimensions cannot be identical ", a[2].integer, ", ", a[3].integer);
  Meta m;
  m.dtype = t.dtype();
  const int64_t n = t.sizes().back() + std::abs(a[1].integer);
  size_t next = 0;
  for (int64_t d = 0; d < rank; ++d) m.sizes.push_back(d == x || d == y ? n : t.sizes()[next++]);
  return {m};
}

Results diagonal_matrix(Args a) {
  static const OpRef embed("diag_embed"), diagonal("diagonal"), clone("clone");
  TensorImpl* t = a[0].tensor;
  LOHE_CHECK(t->dim() == 1 || t->dim() == 2, "diag(): Supports 1D or 2D tensors. Got ", t->dim(), "D");
  if (t->dim() == 1) return embed(t, a[1]);
  return clone(diagonal(t, a[1]), int64_t{0});
}

/// `src` written into a view of a copy of `self`.
template <class View>
Results scattered(Args a, const View& view) {
  static const OpRef clone("clone"), copy("copy_");
  // A copy that has room of its own for every element.
  const TensorPtr result = clone(a[0].tensor);
  const TensorPtr part = view(result);
  TensorImpl* src = a[1].tensor;
  LOHE_CHECK(part->size_dims() == src->size_dims(),
             "expected src to have a size equal to the slice of self. src size = ", to_string(src->sizes()),
             ", slice size = ", to_string(part->sizes()));
  copy(part, src);
  return result;
}

const OpFamily triangular(
    "triangular",
    {
        composed("tril(Tensor self, int diagonal=0) -> Tensor",
                 [](Node x, Node diagonal) { return lower(x, diagonal); })
            .runtime({"diagonal"})
            .over(matrices)
            .grad([](Backward& b) {
              static const OpRef tril("tril");
              b.set(0, tril(b.grad(), b.arg(1)));
            })
            .gradient_reads({})
            .inplace()
            .out(OutDtype::kSame)
            .describe("The lower triangle of matrices, zero elsewhere."),
        composed("triu(Tensor self, int diagonal=0) -> Tensor",
                 [](Node x, Node diagonal) { return upper(x, diagonal); })
            .runtime({"diagonal"})
            .over(matrices)
            .grad([](Backward& b) {
              static const OpRef triu("triu");
              b.set(0, triu(b.grad(), b.arg(1)));
            })
            .gradient_reads({})
            .inplace()
            .out(OutDtype::kSame)
            .describe("The upper triangle of matrices, zero elsewhere."),
        function(
            "tril_indices(int row, int col, int offset=0, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            [](Args a) { return triangle_positions(a, true); })
            .function_only()
            .describe("Rows and columns of a lower triangle, row by row."),
        function(
            "triu_indices(int row, int col, int offset=0, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None) -> Tensor",
            [](Args a) { return triangle_positions(a, false); })
            .function_only()
            .describe("Rows and columns of an upper triangle, row by row."),
        primitive("diag_embed(Tensor self, int offset=0, int dim1=-2, int dim2=-1) -> Tensor", embedded,
                  [](Args a, Results& r) {
                    static const OpRef zero("zero_"), diagonal("diagonal"), copy("copy_");
                    const NoGrad no_grad;
                    zero(r[0]);
                    copy(diagonal(r[0], a[1], a[2], a[3]), a[0].tensor);
                  })
            .grad([](Backward& b) {
              static const OpRef diagonal("diagonal");
              b.set(0, diagonal(b.grad(), b.arg(1), b.arg(2), b.arg(3)));
            })
            .gradient_reads({})
            .describe("The last dim as the diagonal of two dims of zeros."),
        function("diag(Tensor self, int diagonal=0) -> Tensor", diagonal_matrix)
            .out(OutDtype::kSame)
            .describe("The matrix with a diagonal, or the diagonal of a matrix."),
        function("diagflat(Tensor self, int offset=0) -> Tensor",
                 [](Args a) {
                   static const OpRef embed("diag_embed"), reshape("reshape");
                   return Results(embed(reshape(a[0].tensor, Dims{-1}), a[1]));
                 })
            .describe("The matrix with all elements on a diagonal."),
        function("diagonal_scatter(Tensor self, Tensor src, int offset=0, int dim1=0, int dim2=1) -> Tensor",
                 [](Args a) {
                   static const OpRef diagonal("diagonal");
                   return scattered(a, [&](const TensorPtr& t) { return diagonal(t, a[2], a[3], a[4]); });
                 })
            .describe("A copy of self with src on a diagonal."),
        function("select_scatter(Tensor self, Tensor src, int dim, int index) -> Tensor",
                 [](Args a) {
                   static const OpRef select("select.int");
                   return scattered(a, [&](const TensorPtr& t) { return select(t, a[2], a[3]); });
                 })
            .describe("A copy of self with src at one position of a dim."),
        function(
            "slice_scatter(Tensor self, Tensor src, int dim=0, int? start=None, int? end=None, int step=1) -> Tensor",
            [](Args a) {
              static const OpRef slice("slice.Tensor");
              return scattered(a, [&](const TensorPtr& t) { return slice(t, a[2], a[3], a[4], a[5]); });
            })
            .out(OutDtype::kSame)
            .describe("A copy of self with src at positions of a dim."),
        function(
            "as_strided_scatter(Tensor self, Tensor src, int[] size, int[] stride, int? storage_offset=None) -> Tensor",
            [](Args a) {
              static const OpRef as_strided("as_strided");
              return scattered(a, [&](const TensorPtr& t) { return as_strided(t, a[2], a[3], a[4]); });
            })
            .describe("A copy of self with src at places of its memory."),
    });

}  // namespace
}  // namespace lohe::ops
