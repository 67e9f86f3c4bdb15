#include "ops/view_rules.h"

#include <algorithm>

#include "lohe/error.h"
#include "tensor/shape.h"

/// Where the elements of a view lie.
namespace lohe::ops {

ViewSpec whole(const TensorImpl& t) {
  return {t.size_dims(), t.stride_dims(), t.offset(), Dtype::kUndefined, t.conj(), t.neg()};
}

ViewSpec viewed_as(const TensorImpl& t, std::span<const int64_t> shape) {
  ViewSpec v = whole(t);
  v.sizes = infer_size(shape, t.numel());
  const auto strides = view_strides(t.sizes(), t.strides(), v.sizes);
  LOHE_CHECK(
      strides.has_value(),
      "view size is not compatible with input tensor's size and stride (at least one dimension spans across "
      "two contiguous subspaces). Use .reshape(...) instead.");
  v.strides = *strides;
  return v;
}

ViewSpec transposed(const TensorImpl& t, int64_t a, int64_t b) {
  ViewSpec v = whole(t);
  const int64_t x = wrap_dim(a, t.dim()), y = wrap_dim(b, t.dim());
  if (t.dim() == 0) return v;
  std::swap(v.sizes[static_cast<size_t>(x)], v.sizes[static_cast<size_t>(y)]);
  std::swap(v.strides[static_cast<size_t>(x)], v.strides[static_cast<size_t>(y)]);
  return v;
}

ViewSpec permuted(const TensorImpl& t, std::span<const int64_t> dims) {
  LOHE_CHECK(static_cast<int64_t>(dims.size()) == t.dim(),
             "permute(sparse_coo): number of dimensions in the tensor input does not match "
             "the length of the desired ordering of dimensions i.e. input.dim() = ",
             t.dim(), " is not equal to len(dims) = ", dims.size());
  ViewSpec v = whole(t);
  uint64_t seen = 0;
  for (size_t i = 0; i < dims.size(); ++i) {
    const int64_t d = wrap_dim(dims[i], t.dim());
    LOHE_CHECK((seen >> d & 1) == 0, "permute(): duplicate dims are not allowed.");
    seen |= uint64_t{1} << d;
    v.sizes[i] = t.sizes()[static_cast<size_t>(d)];
    v.strides[i] = t.strides()[static_cast<size_t>(d)];
  }
  return v;
}

ViewSpec expanded(const TensorImpl& t, std::span<const int64_t> shape) {
  ViewSpec v = whole(t);
  LOHE_CHECK(shape.size() >= t.sizes().size(), "expand: the number of sizes provided (", shape.size(),
             ") must be greater or equal to the number of dimensions in the tensor (", t.dim(), ")");
  v.sizes = Dims(shape.size());
  v.strides = Dims(shape.size());
  const size_t lead = shape.size() - t.sizes().size();
  for (size_t d = shape.size(); d-- > 0;) {
    const int64_t have = d < lead ? 1 : t.sizes()[d - lead];
    LOHE_CHECK(shape[d] >= 0 || (shape[d] == -1 && d >= lead), "The expanded size of the tensor (", shape[d],
               ") isn't allowed in a leading, non-existing dimension ", d);
    const int64_t want = shape[d] == -1 ? have : shape[d];
    LOHE_CHECK(have == want || have == 1, "The expanded size of the tensor (", want,
               ") must match the existing size (", have, ") at non-singleton dimension ", d,
               ".  Target sizes: ", to_string(shape), ".  Tensor sizes: ", to_string(t.sizes()));
    v.sizes[d] = want;
    // A dim that keeps its size keeps its stride; a new dim of size 1 moves as a row-major one would.
    if (have != want)
      v.strides[d] = 0;
    else if (d >= lead)
      v.strides[d] = t.strides()[d - lead];
    else
      v.strides[d] = d + 1 == shape.size() ? 1 : v.sizes[d + 1] * v.strides[d + 1];
  }
  return v;
}

ViewSpec selected(const TensorImpl& t, int64_t dim, int64_t index) {
  LOHE_CHECK_INDEX(t.dim() > 0, "select() cannot be applied to a 0-dim tensor.");
  const auto d = static_cast<size_t>(wrap_dim(dim, t.dim()));
  const int64_t size = t.sizes()[d];
  LOHE_CHECK_INDEX(index >= -size && index < size, "select(): index ", index,
                   " out of range for tensor of size ", to_string(t.sizes()), " at dimension ", d);
  ViewSpec v = whole(t);
  v.offset += (index < 0 ? index + size : index) * t.strides()[d];
  Dims sizes, strides;
  for (size_t i = 0; i < t.sizes().size(); ++i) {
    if (i == d) continue;
    sizes.push_back(t.sizes()[i]);
    strides.push_back(t.strides()[i]);
  }
  v.sizes = std::move(sizes);
  v.strides = std::move(strides);
  return v;
}

ViewSpec sliced(const TensorImpl& t, int64_t dim, int64_t start, int64_t end, int64_t step) {
  LOHE_CHECK(t.dim() > 0, "slice() cannot be applied to a 0-dim tensor.");
  const auto d = static_cast<size_t>(wrap_dim(dim, t.dim()));
  LOHE_CHECK(step > 0, "slice step must be positive");
  const int64_t size = t.sizes()[d];
  if (start < 0) start += size;
  if (end < 0) end += size;
  start = std::clamp<int64_t>(start, 0, size);
  end = std::clamp<int64_t>(end, start, size);
  ViewSpec v = whole(t);
  v.offset += start * t.strides()[d];
  v.sizes[d] = (end - start) / step + ((end - start) % step != 0 ? 1 : 0);
  int64_t stride = 0;
  LOHE_CHECK(!__builtin_mul_overflow(t.strides()[d], step, &stride) || v.sizes[d] <= 1, "slice(): step ",
             step, " is too large");
  v.strides[d] = stride;
  return v;
}

ViewSpec narrowed(const TensorImpl& t, int64_t dim, int64_t start, int64_t length) {
  LOHE_CHECK(t.dim() > 0, "narrow() cannot be applied to a 0-dim tensor.");
  LOHE_CHECK(length >= 0, "narrow(): length must be non-negative.");
  const int64_t size = t.sizes()[static_cast<size_t>(wrap_dim(dim, t.dim()))];
  LOHE_CHECK_INDEX(start >= -size && start <= size, "start out of range (expected to be in range of [", -size,
                   ", ", size, "], but got ", start, ")");
  if (start < 0) start += size;
  LOHE_CHECK(start <= size - length, "start (", start, ") + length (", length, ") exceeds dimension size (",
             size, ").");
  return sliced(t, dim, start, start + length, 1);
}

}  // namespace lohe::ops
