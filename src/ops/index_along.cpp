#include <algorithm>
#include <vector>

#include "lohe/error.h"
#include "ops/indexing.h"
#include "tensor/shape.h"

/// Rows that name whole slices along one dim by an index vector.
namespace lohe::ops {
namespace {

using backend::Combine;

/// The walk over slices of `self` at `offsets` along `dim`, beside slices of `other` that follow one another.
/// @param other_strides elements, by dim of self.
backend::SliceIndex slice_walk(TensorImpl& self, int64_t dim, const std::vector<int64_t>& offsets,
                               char* other, std::span<const int64_t> other_strides) {
  backend::SliceIndex x;
  const int64_t size = self.itemsize();
  x.self = self.data();
  x.other = other;
  x.at = offsets.data();
  x.positions = static_cast<int64_t>(offsets.size());
  x.other_step = (self.dim() == 0 ? 1 : other_strides[static_cast<size_t>(dim)]) * size;
  for (int64_t d = 0; d < self.dim(); ++d) {
    const auto k = static_cast<size_t>(d);
    if (d != dim) x.slice.add(self.sizes()[k], {self.strides()[k] * size, other_strides[k] * size});
  }
  return x;
}

void check_range(const TensorImpl& index, int64_t size, int64_t dim, ErrorKind kind, bool negative,
                 std::string_view prefix) {
  const IndexRange range = index_range(index);
  if (index.numel() == 0) return;
  const bool high = range.greatest >= size;
  if (!high && range.least >= (negative ? -size : 0)) return;
  raise(kind, prefix, "index ", high ? range.greatest : range.least, " is out of bounds for dimension ", dim,
        " with size ", size);
}

std::vector<Meta> infer_index_select(Args a) {
  const TensorImpl &self = *a[0].tensor, &index = *a[2].tensor;
  const int64_t dim = wrap_dim(a[1].integer, self.dim());
  LOHE_CHECK_INDEX(index.dim() <= 1, "index_select(): Index is supposed to be a vector");
  LOHE_CHECK(index.dtype() == Dtype::kInt64 || index.dtype() == Dtype::kInt32,
             "index_select(): Expected dtype int32 or int64 for index");
  LOHE_CHECK(self.dim() != 0 || index.numel() == 1,
             "index_select(): Index to scalar can have only 1 value, got ", index.numel(), " value(s)");
  Dims sizes = self.size_dims();
  if (self.dim() > 0) sizes[static_cast<size_t>(dim)] = index.numel();
  return {row_major(self.dtype(), sizes)};
}

void run_index_select(Args a, Results& r) {
  TensorImpl& self = *a[0].tensor;
  const TensorImpl& index = *a[2].tensor;
  const int64_t dim = wrap_dim(a[1].integer, self.dim());
  const int64_t size = size_at(self, dim);
  const IndexRange range = index_range(index);
  LOHE_CHECK_INDEX(index.numel() == 0 || (range.least >= 0 && range.greatest < size),
                   "index out of range in self");
  const TensorPtr& out = r[0];
  const std::vector<int64_t> offsets = offsets_along(index, stride_at(self, dim) * self.itemsize(), size);
  if (out->numel() != 0)
    backend::gather_slices(slice_walk(self, dim, offsets, out->data(), out->strides()), self.itemsize());
}

/// self[index along dim] = combine(self[...], source).
void write_slices(TensorImpl& self, int64_t dim, const TensorImpl& index, const TensorImpl& source,
                  Combine combine) {
  Dims strides(self.sizes().size());
  for (size_t d = 0; d < strides.size(); ++d) strides[d] = source.dim() == 0 ? 0 : source.strides()[d];
  const std::vector<int64_t> offsets =
      offsets_along(index, stride_at(self, dim) * self.itemsize(), size_at(self, dim));
  if (self.numel() == 0 || offsets.empty()) return;
  backend::scatter_slices(slice_walk(self, dim, offsets, source.data(), strides), self.dtype(), combine);
}

void check_index_add(std::string_view op, const TensorImpl& self, int64_t dim, const TensorImpl& index,
                     const TensorImpl& source) {
  LOHE_CHECK_INDEX(index.dim() <= 1, op, "(): Index is supposed to be a vector, but got dim: ", index.dim(),
                   " with type: ", type_word(index.dtype()));
  LOHE_CHECK(index.dtype() == Dtype::kInt64 || index.dtype() == Dtype::kInt32, op,
             "(): Expected dtype int32/int64 for index but got: ", type_word(index.dtype()));
  LOHE_CHECK(self.dtype() == source.dtype(), op, "(): self (", type_word(self.dtype()), ") and source (",
             type_word(source.dtype()), ") must have the same scalar type");
  LOHE_CHECK(dim == 0 || dim < source.dim(), op, "(): Indexing dim ", dim,
             " is out of bounds of the source tensor with dim ", source.dim());
  LOHE_CHECK(index.numel() == (source.dim() == 0 ? 1 : source.sizes()[static_cast<size_t>(dim)]), op,
             "(): Number of indices (", index.numel(), ") should be equal to source.size(dim): (",
             size_at(source, dim), "), for dim: ", dim);
  bool same = self.dim() == source.dim() || source.dim() == 0 || self.dim() == 0;
  for (int64_t d = 0; same && d < self.dim() && source.dim() != 0; ++d) {
    same = d == dim || self.sizes()[static_cast<size_t>(d)] == source.sizes()[static_cast<size_t>(d)];
  }
  LOHE_CHECK(
      same,
      "source tensor shape must match self tensor shape, excluding the specified dimension. Got self.shape = ",
      to_string(self.sizes()), " source.shape = ", to_string(source.sizes()));
}

std::vector<Meta> check_index_add_(Args a) {
  const int64_t dim = wrap_dim(a[1].integer, a[0].tensor->dim());
  const Scalar alpha = a[4].scalar();
  check_index_add("index_add_", *a[0].tensor, dim, *a[2].tensor, *a[3].tensor);
  LOHE_CHECK(!(alpha.is_floating() && is_integral(a[0].tensor->dtype(), true)),
             "For integral input tensors, argument alpha must not be "
             "a floating point number.");
  LOHE_CHECK(!alpha.is_bool() || a[0].tensor->dtype() == Dtype::kBool,
             "Boolean alpha only supported for Boolean results.");
  // Times alpha, the source is a tensor of its own.
  check_written("index_add_", *a[0].tensor,
                {a[2].tensor, alpha == Scalar(int64_t{1}) ? a[3].tensor : nullptr});
  return {};
}

void run_index_add(Args a, Results& r) {
  static const OpRef mul("mul");
  const int64_t dim = wrap_dim(a[1].integer, a[0].tensor->dim());
  const TensorImpl& index = *a[2].tensor;
  check_range(index, size_at(*a[0].tensor, dim), dim, ErrorKind::kRuntime, false, "");
  const Scalar alpha = a[4].scalar();
  TensorPtr source = plain(a[3].tensor);
  if (!(alpha == Scalar(int64_t{1}))) {
    const WithoutGrad guard;
    source = mul(source, Arg(alpha));
  }
  r = write_to(a[0].tensor,
               [&](TensorImpl& self) { write_slices(self, dim, index, *source, Combine::kAdd); });
}

std::vector<Meta> check_index_copy(Args a) {
  const int64_t dim = wrap_dim(a[1].integer, a[0].tensor->dim());
  const TensorImpl &index = *a[2].tensor, &given = *a[3].tensor, &into = *a[0].tensor;
  LOHE_CHECK_INDEX(index.dim() <= 1, "index_copy_(): Index should have dimension 1 or 0 (got ", index.dim(),
                   ")");
  LOHE_CHECK_INDEX(given.dim() != 0 || index.numel() == 1,
                   "index_copy_(): When source is scalar, index should have one element (got ", index.numel(),
                   ")");
  LOHE_CHECK_INDEX(
      given.dim() == into.dim() || given.dim() == 0 || into.dim() == 0,
      "index_copy_(): When source and destination are not scalars, their dimensionality must match. Source dimensionality (",
      given.dim(), "), destination dimensionality (", into.dim(), ")");
  LOHE_CHECK_INDEX(index.dtype() == Dtype::kInt64,
                   "index_copy_(): Expected a long tensor for index, but got ", type_word(index.dtype()));
  LOHE_CHECK(into.dtype() == given.dtype(),
             "index_copy_(): self and source expected to have the same dtype, but got (self) ",
             type_word(into.dtype()), " and (source) ", type_word(given.dtype()));
  const auto without = [&](const TensorImpl& t) {
    Dims s;
    for (int64_t d = 0; d < t.dim(); ++d)
      if (d != dim) s.push_back(t.sizes()[static_cast<size_t>(d)]);
    return s;
  };
  const Dims to = without(into), from = without(given);
  if (given.dim() != 0 && into.dim() != 0 && !(to == from)) {
    const auto text = [](const Dims& s) {
      std::string all = to_string(s);
      return all.substr(1, all.size() - 2);
    };
    raise(ErrorKind::kRuntime,
          "index_copy_(): Source/destination tensor must have same slice shapes. Destination slice shape: ",
          text(to), " at dimension ", dim, " and source slice shape: ", text(from), " at dimension 0.");
  }
  LOHE_CHECK_INDEX(given.dim() == 0 || index.numel() == size_at(given, dim),
                   "index_copy_(): Number of indices (", index.numel(),
                   ") should be equal to source.size(dim) (", size_at(given, dim), ")");
  check_written("index_copy_", into, {&index, &given});
  return {};
}

void run_index_copy(Args a, Results& r) {
  const int64_t dim = wrap_dim(a[1].integer, a[0].tensor->dim());
  const TensorImpl &index = *a[2].tensor, &into = *a[0].tensor;
  check_range(index, size_at(into, dim), dim, ErrorKind::kIndex, false, "index_copy_(): ");
  const TensorPtr source = plain(a[3].tensor);
  r = write_to(a[0].tensor,
               [&](TensorImpl& self) { write_slices(self, dim, index, *source, Combine::kCopy); });
}

std::vector<Meta> check_index_fill(Args a) {
  wrap_dim(a[1].integer, a[0].tensor->dim());
  const TensorImpl& index = *a[2].tensor;
  const bool number = a[3].kind != Arg::kTensor;
  LOHE_CHECK(number || a[3].tensor->dim() == 0,
             "index_fill_ only supports a 0-dimensional value tensor, but got tensor with ",
             number ? 0 : a[3].tensor->dim(), " dimension(s).");
  LOHE_CHECK(!(number ? a[3].scalar().is_complex() : is_complex(a[3].tensor->dtype())) ||
                 is_complex(a[0].tensor->dtype()),
             "index_fill_(): Converting complex Scalar to non-complex type is not supported");
  LOHE_CHECK_INDEX(index.dtype() == Dtype::kInt64, "index_fill_(): Expected dtype int64 for index.");
  LOHE_CHECK_INDEX(index.dim() <= 1, "Index has to be a vector/scalar");
  check_written("index_fill_", *a[0].tensor, {&index});
  return {};
}

void fill_slices(Args a, const TensorPtr& value, Results& r) {
  const int64_t dim = wrap_dim(a[1].integer, a[0].tensor->dim());
  const TensorImpl& index = *a[2].tensor;
  check_range(index, size_at(*a[0].tensor, dim), dim, ErrorKind::kIndex, true, "");
  r = write_to(a[0].tensor, [&](TensorImpl& self) {
    const Dims still(self.sizes().size());
    const std::vector<int64_t> offsets =
        offsets_along(index, stride_at(self, dim) * self.itemsize(), size_at(self, dim));
    if (self.numel() == 0 || offsets.empty()) return;
    backend::SliceIndex x = slice_walk(self, dim, offsets, value->data(), still);
    x.other_step = 0;
    backend::scatter_slices(x, self.dtype(), Combine::kCopy);
  });
}

void run_index_fill(Args a, Results& r) {
  const WithoutGrad guard;
  fill_slices(a, number_tensor(a[3], a[0].tensor->dtype()), r);
}

void run_index_fill_tensor(Args a, Results& r) {
  static const OpRef to("to.dtype");
  const WithoutGrad guard;
  fill_slices(a, to(plain(a[3].tensor), a[0].tensor->dtype()), r);
}

/// What reached the written slices, in the shape of a source.
TensorPtr slices_of(Backward& b, int source) {
  static const OpRef select("index_select"), reshape("reshape");
  TensorPtr g = select(b.grad(), b.arg(1), b.tensor(2));
  return g->size_dims() == b.meta(source).sizes ? g : reshape(g, b.meta(source).sizes);
}

const OpFamily index_along(
    "index_along",
    {
        primitive("index_select(Tensor self, int dim, Tensor index) -> Tensor", infer_index_select,
                  run_index_select)
            .exact_out()
            .gradient_reads({"index"})
            .grad([](Backward& b) {
              static const OpRef index_add("index_add_");
              if (b.needs(0)) b.set(0, index_add(zeros_as(b.meta(0)), b.arg(1), b.tensor(2), b.grad()));
            })
            .describe("Slices along dim, in the order of an index vector."),
        primitive(
            "index_add_(Tensor(a!) self, int dim, Tensor index, Tensor source, *, Scalar alpha=1) -> Tensor(a!)",
            check_index_add_, run_index_add)
            .method_only()
            .gradient_reads({"index"})
            .grad([](Backward& b) {
              static const OpRef mul("mul");
              if (b.needs(0)) b.set(0, b.grad());
              if (b.needs(3)) {
                const TensorPtr g = slices_of(b, 3);
                Scalar alpha = b.arg(4).scalar();
                if (alpha.is_complex()) alpha = Scalar(std::conj(alpha.to_complex()));
                b.set(3, mul(g, Arg(alpha)));
              }
            })
            .describe("Adds alpha * source to the slices that index names; equal indices add up in order."),
        function("index_add(Tensor self, int dim, Tensor index, Tensor source, *, Scalar alpha=1) -> Tensor",
                 [](Args a) {
                   static const OpRef row("index_add_");
                   return through_copy(row, a, true);
                 })
            .exact_out()
            .describe("A copy of self with alpha * source added to the slices that index names."),
        primitive("index_copy_(Tensor(a!) self, int dim, Tensor index, Tensor source) -> Tensor(a!)",
                  check_index_copy, run_index_copy)
            .method_only()
            .gradient_reads({"index"})
            .grad([](Backward& b) {
              static const OpRef fill("index_fill.int_number");
              if (b.needs(0)) b.set(0, fill(b.grad(), b.arg(1), b.tensor(2), int64_t{0}));
              if (b.needs(3)) b.set(3, slices_of(b, 3));
            })
            .describe("Writes source into the slices that index names; the last of equal indices stays."),
        function("index_copy(Tensor self, int dim, Tensor index, Tensor source) -> Tensor",
                 [](Args a) {
                   static const OpRef row("index_copy_");
                   return through_copy(row, a, true);
                 })
            .exact_out()
            .describe("A copy of self with source in the slices that index names."),
        primitive(
            "index_fill_.int_number(Tensor(a!) self, int dim, Tensor index, Scalar value) -> Tensor(a!)",
            check_index_fill, run_index_fill)
            .method_only()
            .gradient_reads({"index"})
            .grad([](Backward& b) {
              static const OpRef fill("index_fill.int_number");
              if (b.needs(0)) b.set(0, fill(b.grad(), b.arg(1), b.tensor(2), int64_t{0}));
            })
            .describe("Writes one number into the slices that index names."),
        primitive(
            "index_fill_.int_Tensor(Tensor(a!) self, int dim, Tensor index, Tensor value) -> Tensor(a!)",
            check_index_fill, run_index_fill_tensor)
            .method_only()
            .gradient_reads({"index"})
            .grad([](Backward& b) {
              static const OpRef fill("index_fill.int_number"), select("index_select"),
                  sum("sum.dim_IntList"), distinct("_unique2");
              if (b.needs(0)) b.set(0, fill(b.grad(), b.arg(1), b.tensor(2), int64_t{0}));
              // A slice that is named twice is written, and counts, once.
              if (b.needs(3)) b.set(3, sum(select(b.grad(), b.arg(1), distinct(b.tensor(2))), Dims{}));
            })
            .describe("Writes a 0-dim tensor's number into the slices that index names."),
        function("index_fill.int_number(Tensor self, int dim, Tensor index, Scalar value) -> Tensor",
                 [](Args a) {
                   static const OpRef row("index_fill_.int_number");
                   return through_copy(row, a, false);
                 })
            .describe("A copy of self with one number in the slices that index names."),
        function("index_fill.int_Tensor(Tensor self, int dim, Tensor index, Tensor value) -> Tensor",
                 [](Args a) {
                   static const OpRef row("index_fill_.int_Tensor");
                   return through_copy(row, a, false);
                 })
            .describe("A copy of self with a 0-dim tensor's number in the slices that index names."),
    });

}  // namespace
}  // namespace lohe::ops
