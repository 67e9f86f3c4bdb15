#include <algorithm>
#include <numeric>

#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// Tensors joined: one after the other, or along a new dim.
namespace lohe::ops {
namespace {

using Tensors = std::span<TensorImpl* const>;

/// A one-dimensional empty tensor joins anything, whatever the other shapes are.
bool is_skipped(const TensorImpl& t) { return t.dim() == 1 && t.numel() == 0; }
bool is_skipped(const Meta& m) { return m.sizes.size() == 1 && m.sizes[0] == 0; }

Dtype joined_dtype(Tensors list) {
  Dtype with_dims = Dtype::kUndefined, without = Dtype::kUndefined;
  for (const TensorImpl* t : list) {
    Dtype& slot = t->dim() > 0 ? with_dims : without;
    slot = slot == Dtype::kUndefined ? t->dtype() : promote_types(slot, t->dtype());
  }
  return with_dims == Dtype::kUndefined ? without : with_dims;
}

/// channels_last where every tensor is laid out so, else row-major.
Dims joined_strides(Tensors list, const Dims& sizes) {
  if (sizes.size() != 4 && sizes.size() != 5) return {};
  for (const TensorImpl* t : list) {
    if (is_skipped(*t)) continue;
    if (t->contiguous() || !is_channels_last(t->sizes(), t->strides())) return {};
  }
  return channels_last_strides(sizes);
}

/// A list may hold None where a row takes optional tensors; these do not.
void check_present(Tensors list, const char* name) {
  for (size_t i = 0; i < list.size(); ++i) {
    LOHE_CHECK_TYPE(list[i] != nullptr, name, "(): expected Tensor as element ", i,
                    " in argument 0, but got NoneType");
  }
}

std::vector<Meta> joined(Args a) {
  const Tensors list = a[0].tensor_list();
  LOHE_CHECK_VALUE(!list.empty(), "torch.cat(): expected a non-empty list of Tensors");
  check_present(list, "cat");
  const TensorImpl* first = nullptr;
  for (const TensorImpl* t : list) {
    if (first == nullptr && !is_skipped(*t)) first = t;
  }
  for (size_t i = 0; i < list.size(); ++i) {
    LOHE_CHECK(list[i]->dim() > 0, "zero-dimensional tensor (at position ", i, ") cannot be concatenated");
  }
  Meta m;
  m.dtype = joined_dtype(list);
  if (first == nullptr) {
    wrap_dim(a[1].integer, 1);
    m.sizes = Dims{0};
    return {m};
  }
  const auto dim = static_cast<size_t>(wrap_dim(a[1].integer, first->dim()));
  m.sizes = first->size_dims();
  m.sizes[dim] = 0;
  for (size_t i = 0; i < list.size(); ++i) {
    const TensorImpl& t = *list[i];
    if (is_skipped(t)) continue;
    LOHE_CHECK(t.dim() == first->dim(), "Tensors must have same number of dimensions: got ", first->dim(),
               " and ", t.dim());
    for (size_t d = 0; d < m.sizes.size(); ++d) {
      LOHE_CHECK(d == dim || t.sizes()[d] == m.sizes[d], "Sizes of tensors must match except in dimension ",
                 dim, ". Expected size ", m.sizes[d], " but got size ", t.sizes()[d], " for tensor number ",
                 i, " in the list.");
    }
    m.sizes[dim] += t.sizes()[dim];
  }
  m.strides = joined_strides(list, m.sizes);
  return {m};
}

void join(Args a, Results& r) {
  static const OpRef slice("slice.Tensor"), copy("copy_");
  const NoGrad no_grad;
  if (r[0]->dim() == 0) return;
  const int64_t dim = wrap_dim(a[1].integer, r[0]->dim());
  int64_t at = 0;
  for (TensorImpl* t : a[0].tensor_list()) {
    if (is_skipped(*t)) continue;
    const int64_t n = t->sizes()[static_cast<size_t>(dim)];
    copy(slice(r[0], dim, at, at + n), t);
    at += n;
  }
}

/// Every tensor's part of the cotangent.
void joined_gradient(Backward& b) {
  static const OpRef slice("slice.Tensor"), zeros("zeros");
  const auto count = static_cast<size_t>(b.arg(0).count);
  const TensorPtr& g = b.grad();
  const int64_t dim = wrap_dim(b.arg(1).integer, g->dim());
  std::vector<TensorPtr> parts(count);
  int64_t at = 0;
  for (size_t i = 0; i < count; ++i) {
    const Meta& m = b.meta(0, static_cast<int>(i));
    if (is_skipped(m)) {
      parts[i] = zeros(m.sizes, m.dtype);
      continue;
    }
    const int64_t n = m.sizes[static_cast<size_t>(dim)];
    if (is_differentiable(m.dtype)) parts[i] = slice(g, dim, at, at + n);
    at += n;
  }
  b.set_list(0, std::move(parts));
}

Results along_new_dim(Tensors list, int64_t dim) {
  static const OpRef unsqueeze("unsqueeze"), cat("cat");
  LOHE_CHECK(!list.empty(), "stack expects a non-empty TensorList");
  check_present(list, "stack");
  const int64_t d = wrap_dim(dim, list[0]->dim() + 1);
  std::vector<TensorPtr> rows;
  for (size_t i = 0; i < list.size(); ++i) {
    LOHE_CHECK(list[i]->size_dims() == list[0]->size_dims(),
               "stack expects each tensor to be equal size, but got ", to_string(list[0]->sizes()),
               " at entry 0 and ", to_string(list[i]->sizes()), " at entry ", i);
    rows.push_back(unsqueeze(list[i], d));
  }
  const auto raw = pointers_of(rows);
  return cat(Tensors(raw), d);
}

Results after(const OpRef& at_least, Tensors list, int64_t dim, const char* name) {
  static const OpRef cat("cat");
  LOHE_CHECK(!list.empty(), name, " expects a non-empty TensorList");
  check_present(list, name);
  std::vector<TensorPtr> rows;
  for (TensorImpl* t : list) rows.push_back(at_least(t));
  const auto raw = pointers_of(rows);
  return cat(Tensors(raw), dim);
}

const OpRef& at_least_1d() {
  static const OpRef r("atleast_1d");
  return r;
}
const OpRef& at_least_2d() {
  static const OpRef r("atleast_2d");
  return r;
}
const OpRef& at_least_3d() {
  static const OpRef r("atleast_3d");
  return r;
}

Results side_by_side(Args a) {
  const Tensors list = a[0].tensor_list();
  LOHE_CHECK(!list.empty(), "hstack expects a non-empty TensorList");
  check_present(list, "hstack");
  // One-dimensional tensors follow each other, others along their second dim: the first one decides.
  return after(at_least_1d(), list, list[0]->dim() <= 1 ? 0 : 1, "hstack");
}

Results as_columns(Args a) {
  static const OpRef reshape("reshape"), cat("cat");
  const Tensors list = a[0].tensor_list();
  LOHE_CHECK(!list.empty(), "column_stack expects a non-empty TensorList");
  check_present(list, "column_stack");
  std::vector<TensorPtr> columns;
  for (TensorImpl* t : list)
    columns.push_back(t->dim() <= 1 ? reshape(t, Dims{t->numel(), 1}) : TensorPtr(t));
  const auto raw = pointers_of(columns);
  return cat(Tensors(raw), int64_t{1});
}

Results on_diagonal(Args a) {
  static const OpRef zeros("zeros"), at_least("atleast_2d"), pad("constant_pad_nd"), cat("cat"),
      to("to.dtype");
  const Tensors list = a[0].tensor_list();
  if (list.empty()) return zeros(Dims{1, 0});
  int64_t columns = 0;
  Dtype dtype = Dtype::kUndefined;
  std::vector<TensorPtr> blocks;
  for (size_t i = 0; i < list.size(); ++i) {
    TensorImpl* t = list[i];
    LOHE_CHECK(t->dim() <= 2, "torch.block_diag: Input tensors must have 2 or fewer dimensions. Input ", i,
               " has ", t->dim(), " dimensions");
    dtype = dtype == Dtype::kUndefined ? t->dtype() : promote_types(dtype, t->dtype());
    blocks.push_back(at_least(t));
    columns += blocks.back()->sizes()[1];
  }
  // Each block padded to the full width, then one below the other.
  std::vector<TensorPtr> rows;
  int64_t left = 0;
  for (const TensorPtr& block : blocks) {
    const int64_t width = block->sizes()[1];
    rows.push_back(pad(to(block, dtype), Dims{left, columns - left - width}));
    left += width;
  }
  const auto raw = pointers_of(rows);
  return cat(Tensors(raw), int64_t{0});
}

/// The tensors' values along dims of their own: result i has shape [n0, n1, ...].
std::vector<TensorPtr> grids(Tensors list, bool swapped) {
  static const OpRef view("view"), expand("expand"), transpose("transpose.int");
  LOHE_CHECK(!list.empty(), "meshgrid expects a non-empty TensorList");
  check_present(list, "meshgrid");
  Dims shape;
  for (const TensorImpl* t : list) {
    LOHE_CHECK(t->dim() <= 1, "torch.meshgrid: Expected 0D or 1D tensor in the tensor list but got: ",
               to_string(t->sizes()));
    LOHE_CHECK(t->dtype() == list[0]->dtype(), "torch.meshgrid expects all tensors to have the same dtype");
    shape.push_back(t->numel());
  }
  const bool swap = swapped && list.size() >= 2;
  std::vector<TensorPtr> result;
  for (size_t i = 0; i < list.size(); ++i) {
    Dims own(list.size());
    for (size_t d = 0; d < list.size(); ++d) own[d] = d == i ? shape[i] : 1;
    TensorPtr grid = expand(view(list[i], own), shape);
    result.push_back(swap ? transpose(grid, int64_t{0}, int64_t{1}) : std::move(grid));
  }
  return result;
}

Results products_of(Args a) {
  static const OpRef reshape("reshape"), stack("stack");
  const Tensors list = a[0].tensor_list();
  for (const TensorImpl* t : list) {
    LOHE_CHECK(t->dim() == 1, "Expect a 1D vector, but got shape ", to_string(t->sizes()));
  }
  if (list.size() == 1) return TensorPtr(list[0]);
  std::vector<TensorPtr> flat;
  for (const TensorPtr& g : grids(list, false)) flat.push_back(reshape(g, Dims{-1}));
  const auto raw = pointers_of(flat);
  return stack(Tensors(raw), int64_t{1});
}

/// All choices of r positions of n in order, as an index tensor of shape [count, r].
TensorPtr choices(int64_t n, int64_t r, bool repeated) {
  static const OpRef empty("empty");
  std::vector<int64_t> values, now(static_cast<size_t>(r));
  if (!repeated) std::iota(now.begin(), now.end(), int64_t{0});
  int64_t count = 0;
  bool more = repeated ? n > 0 : r <= n;
  while (more) {
    values.insert(values.end(), now.begin(), now.end());
    ++count;
    int64_t k = r - 1;
    while (k >= 0 && now[static_cast<size_t>(k)] == (repeated ? n - 1 : n - r + k)) --k;
    more = k >= 0;
    if (!more) break;
    const int64_t next = now[static_cast<size_t>(k)] + 1;
    for (int64_t j = k; j < r; ++j) now[static_cast<size_t>(j)] = repeated ? next : next + (j - k);
  }
  TensorPtr t = empty(Dims{count, r}, kInt64);
  std::copy(values.begin(), values.end(), reinterpret_cast<int64_t*>(t->data()));
  return t;
}

Results combinations_of(Args a) {
  static const OpRef empty("empty"), select("index_select"), view("view");
  TensorImpl* t = a[0].tensor;
  const int64_t r = a[1].integer;
  LOHE_CHECK(t->dim() == 1, "Expect a 1D vector, but got shape ", to_string(t->sizes()));
  LOHE_CHECK(r >= 0, "Expect a non-negative number, but got ", r);
  if (r == 0) return empty(Dims{0}, t->dtype());
  const TensorPtr index = choices(t->numel(), r, a[2].integer != 0);
  return view(select(t, int64_t{0}, view(index, Dims{-1})), index->sizes());
}

const OpFamily joining(
    "joining",
    {
        primitive("cat(Tensor[] tensors, int dim=0) -> Tensor", joined, join)
            .grad(joined_gradient)
            .gradient_reads({})
            .filled_by_ops()
            .function_only()
            .out_apart(OutDtype::kCastableType)
            .describe("The tensors one after the other along a dim."),
        alias("concat", "cat"),
        alias("concatenate", "cat"),
        function("stack(Tensor[] tensors, int dim=0) -> Tensor",
                 [](Args a) { return along_new_dim(a[0].tensor_list(), a[1].integer); })
            .function_only()
            .out_apart(OutDtype::kCastableType)
            .describe("Tensors of one shape along a new dim."),
        function("hstack(Tensor[] tensors) -> Tensor", side_by_side)
            .function_only()
            .out_apart(OutDtype::kCastableType)
            .describe("Side by side: along dim 1, vectors along dim 0."),
        function("vstack(Tensor[] tensors) -> Tensor",
                 [](Args a) { return after(at_least_2d(), a[0].tensor_list(), 0, "vstack"); })
            .function_only()
            .out_apart(OutDtype::kCastableType)
            .describe("One below the other: along dim 0, vectors as rows."),
        function("row_stack(Tensor[] tensors) -> Tensor",
                 [](Args a) { return after(at_least_2d(), a[0].tensor_list(), 0, "row_stack"); })
            .function_only()
            .out_apart(OutDtype::kCastableType)
            .describe("Another name of vstack."),
        function("dstack(Tensor[] tensors) -> Tensor",
                 [](Args a) { return after(at_least_3d(), a[0].tensor_list(), 2, "dstack"); })
            .function_only()
            .out_apart(OutDtype::kCastableType)
            .describe("Along dim 2."),
        function("column_stack(Tensor[] tensors) -> Tensor", as_columns)
            .function_only()
            .out_apart(OutDtype::kCastableType)
            .describe("Side by side, vectors as columns."),
        function("block_diag(Tensor[] tensors) -> Tensor", on_diagonal)
            .function_only()
            .describe("Matrices along the diagonal of zeros."),
        function("meshgrid(Tensor[] tensors) -> Tensor[]",
                 [](Args a) { return Results(grids(a[0].tensor_list(), false)); })
            .function_only()
            .describe("Grids of coordinates: result i varies along dim i as tensor i does."),
        function("meshgrid.indexing(Tensor[] tensors, *, str indexing) -> Tensor[]",
                 [](Args a) {
                   const bool xy = a[1].str() == "xy";
                   LOHE_CHECK(xy || a[1].str() == "ij",
                              "torch.meshgrid: indexing must be one of \"xy\" or \"ij\", but received: ",
                              a[1].str());
                   return Results(grids(a[0].tensor_list(), xy));
                 })
            .function_only()
            .describe("Grids of coordinates; with 'xy' the first two dims are swapped."),
        function("cartesian_prod(Tensor[] tensors) -> Tensor", products_of)
            .function_only()
            .describe("All tuples of one element of each vector, as rows."),
        function("combinations(Tensor self, int r=2, bool with_replacement=False) -> Tensor", combinations_of)
            .describe("All choices of r elements of a vector, as rows."),
    });

}  // namespace
}  // namespace lohe::ops
