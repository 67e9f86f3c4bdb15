#include "lohe/error.h"
#include "ops/call.h"
#include "tensor/shape.h"

/// Views: another shape over the same memory.
namespace lohe::ops {
namespace {

ViewSpec same(const TensorImpl& t) {
  return {t.size_dims(), t.stride_dims(), t.offset(), Dtype::kUndefined, t.conj(), t.neg()};
}

ViewSpec view_as(const TensorImpl& t, std::span<const int64_t> shape) {
  ViewSpec v = same(t);
  v.sizes = infer_size(shape, t.numel());
  const auto strides = view_strides(t.sizes(), t.strides(), v.sizes);
  LOHE_CHECK(strides.has_value(), "view size is not compatible with input tensor's size and stride (at least one dimension spans across "
             "two contiguous subspaces). Use .reshape(...) instead.");
  v.strides = *strides;
  return v;
}

ViewSpec transposed(const TensorImpl& t, int64_t a, int64_t b) {
  ViewSpec v = same(t);
  const int64_t x = wrap_dim(a, t.dim()), y = wrap_dim(b, t.dim());
  if (t.dim() == 0) return v;
  std::swap(v.sizes[static_cast<size_t>(x)], v.sizes[static_cast<size_t>(y)]);
  std::swap(v.strides[static_cast<size_t>(x)], v.strides[static_cast<size_t>(y)]);
  return v;
}

ViewSpec expanded(const TensorImpl& t, std::span<const int64_t> shape) {
  ViewSpec v = same(t);
  LOHE_CHECK(shape.size() >= t.sizes().size(), "expand: the number of sizes provided (", shape.size(),
             ") must be greater or equal to the number of dimensions in the tensor (", t.dim(), ")");
  v.sizes = Dims(shape.size());
  v.strides = Dims(shape.size());
  const size_t lead = shape.size() - t.sizes().size();
  for (size_t d = 0; d < shape.size(); ++d) {
    const int64_t have = d < lead ? 1 : t.sizes()[d - lead];
    LOHE_CHECK(shape[d] >= 0 || (shape[d] == -1 && d >= lead), "expand: the expanded size of the tensor (", shape[d],
               ") isn't allowed in a leading, non-existing dimension ", d);
    const int64_t want = shape[d] == -1 ? have : shape[d];
    LOHE_CHECK(have == want || have == 1, "The expanded size of the tensor (", want, ") must match the existing size (", have,
               ") at non-singleton dimension ", d, ".  Target sizes: ", to_string(shape), ".  Tensor sizes: ", to_string(t.sizes()));
    v.sizes[d] = want;
    // A dim that keeps its size keeps its stride; a new one before them moves as the next would.
    if (d >= lead && have == want) v.strides[d] = t.strides()[d - lead];
    else v.strides[d] = 0;
  }
  return v;
}

const OpFamily views("views", {
    view("view(Tensor(a) self, int[] size) -> Tensor(a)", [](Args a) { return view_as(*a[0].tensor, a[1].int_list()); })
        .grad([](Backward& b) {
          static const OpRef reshape("reshape");
          if (b.needs(0)) b.set(0, reshape(b.grad(), b.meta(0).sizes));
        })
        .gradient_reads({}).method_only().describe("The same elements in another shape, without a copy."),
    view("transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a)",
         [](Args a) { return transposed(*a[0].tensor, a[1].integer, a[2].integer); })
        .grad([](Backward& b) {
          static const OpRef transpose("transpose.int");
          if (b.needs(0)) b.set(0, transpose(b.grad(), b.arg(1), b.arg(2)));
        })
        .gradient_reads({}).describe("Two dims swapped."),
    view("expand(Tensor(a) self, int[] size, *, bool implicit=False) -> Tensor(a)",
         [](Args a) { return expanded(*a[0].tensor, a[1].int_list()); })
        .grad([](Backward& b) { b.set(0, b.grad()); })  // the tape sums down to the operand's shape
        .gradient_reads({}).method_only().describe("Dims of size 1 repeated without a copy."),
    view("as_strided(Tensor(a) self, int[] size, int[] stride, int? storage_offset=None) -> Tensor(a)",
         [](Args a) {
           ViewSpec v = same(*a[0].tensor);
           v.sizes = Dims(a[1].int_list());
           v.strides = Dims(a[2].int_list());
           if (!a[3].none()) v.offset = a[3].integer;
           LOHE_CHECK(v.sizes.size() == v.strides.size(), "mismatch in length of strides and shape");
           int64_t last = v.offset;
           for (size_t d = 0; d < v.sizes.size(); ++d) {
             LOHE_CHECK(v.strides[d] >= 0, "as_strided: Negative strides are not supported at the moment, got strides: ", to_string(v.strides));
             LOHE_CHECK(v.sizes[d] >= 0, "as_strided: sizes must be non-negative, got ", to_string(v.sizes));
             last += (v.sizes[d] - 1) * v.strides[d];
           }
           LOHE_CHECK(v.offset >= 0, "as_strided: storage_offset must be non-negative, got ", v.offset);
           const int64_t bytes = a[0].tensor->storage().nbytes();
           LOHE_CHECK(numel_of(v.sizes) == 0 || (last + 1) * a[0].tensor->itemsize() <= bytes, "setStorage: sizes ", to_string(v.sizes),
                      ", strides ", to_string(v.strides), ", storage offset ", v.offset, ", and itemsize ", a[0].tensor->itemsize(),
                      " requiring a storage size of ", (last + 1) * a[0].tensor->itemsize(), " are out of bounds for storage of size ", bytes);
           return v;
         })
        .describe("Any sizes and strides over the same memory."),
    view("detach(Tensor(a) self) -> Tensor(a)", [](Args a) { return same(*a[0].tensor); })
        .not_differentiable().describe("The same memory without history."),
    function("reshape(Tensor(a) self, int[] shape) -> Tensor(a)",
             [](Args a) {
               static const OpRef view("view"), clone("clone");
               const TensorImpl& t = *a[0].tensor;
               const Dims shape = infer_size(a[1].int_list(), t.numel());
               if (view_strides(t.sizes(), t.strides(), shape)) return Results(view(a[0].tensor, shape));
               return Results(view(clone(a[0].tensor, int64_t{0}), shape));
             })
        .describe("The same elements in another shape; copied where a view cannot do it."),
});

}  // namespace
}  // namespace lohe::ops
