#include <algorithm>
#include <limits>
#include <numeric>

#include "lohe/error.h"
#include "ops/indexing.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// Views: another shape over the same memory. The in-place form of such a row changes what the tensor itself
/// shows.
namespace lohe::ops {
namespace {

constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();

ViewSpec matrix_transposed(const TensorImpl& t) {
  LOHE_CHECK(t.dim() <= 2, "t() expects a tensor with <= 2 dimensions, but self is ", t.dim(), "D");
  return t.dim() < 2 ? whole(t) : transposed(t, 0, 1);
}

ViewSpec unsqueezed(const TensorImpl& t, int64_t dim) {
  const auto d = static_cast<size_t>(wrap_dim(dim, t.dim() + 1));
  ViewSpec v = whole(t);
  const size_t rank = t.sizes().size();
  Dims sizes, strides;
  for (size_t i = 0; i <= rank; ++i) {
    if (i == d) {
      sizes.push_back(1);
      strides.push_back(d < rank ? t.sizes()[d] * t.strides()[d] : 1);
    }
    if (i == rank) break;
    sizes.push_back(t.sizes()[i]);
    strides.push_back(t.strides()[i]);
  }
  v.sizes = std::move(sizes);
  v.strides = std::move(strides);
  return v;
}

/// Without the dims of `mask` that have size 1.
ViewSpec squeezed(const TensorImpl& t, uint64_t mask) {
  ViewSpec v = whole(t);
  Dims sizes, strides;
  for (size_t i = 0; i < t.sizes().size(); ++i) {
    if (t.sizes()[i] == 1 && (mask >> i & 1) != 0) continue;
    sizes.push_back(t.sizes()[i]);
    strides.push_back(t.strides()[i]);
  }
  v.sizes = std::move(sizes);
  v.strides = std::move(strides);
  return v;
}

ViewSpec diagonal_of(const TensorImpl& t, int64_t offset, int64_t dim1, int64_t dim2) {
  const int64_t a = wrap_dim(dim1, t.dim()), b = wrap_dim(dim2, t.dim());
  LOHE_CHECK(a != b, "diagonal dimensions cannot be identical ", dim1, ", ", dim2);
  const auto x = static_cast<size_t>(a), y = static_cast<size_t>(b);
  const int64_t rows = t.sizes()[x], columns = t.sizes()[y];
  // A huge offset of either sign names an empty diagonal, without overflow.
  const int64_t length = offset >= 0 ? (offset >= columns ? 0 : std::min(rows, columns - offset))
                                     : (offset <= -rows ? 0 : std::min(rows + offset, columns));
  ViewSpec v = whole(t);
  if (length > 0) v.offset += offset >= 0 ? offset * t.strides()[y] : -offset * t.strides()[x];
  Dims sizes, strides;
  for (size_t i = 0; i < t.sizes().size(); ++i) {
    if (i == x || i == y) continue;
    sizes.push_back(t.sizes()[i]);
    strides.push_back(t.strides()[i]);
  }
  sizes.push_back(length);
  strides.push_back(t.strides()[x] + t.strides()[y]);
  v.sizes = std::move(sizes);
  v.strides = std::move(strides);
  return v;
}

ViewSpec windows(const TensorImpl& t, int64_t dim, int64_t size, int64_t step) {
  const auto d = static_cast<size_t>(wrap_dim(dim, t.dim()));
  const int64_t most = t.dim() == 0 ? 1 : t.sizes()[d];
  LOHE_CHECK(size >= 0, "size is ", size, " but must be >= 0");
  LOHE_CHECK(size <= most, "maximum size for tensor at dimension ", d, " is ", most, " but size is ", size);
  LOHE_CHECK(step > 0, "step is ", step, " but must be > 0");
  ViewSpec v = whole(t);
  if (t.dim() > 0) {
    v.sizes[d] = (most - size) / step + 1;
    v.strides[d] *= step;
  }
  v.sizes.push_back(size);
  v.strides.push_back(t.dim() == 0 ? 1 : t.strides()[d]);
  return v;
}

ViewSpec strided(const TensorImpl& t, Args a) {
  ViewSpec v = whole(t);
  v.sizes = Dims(a[1].int_list());
  v.strides = Dims(a[2].int_list());
  if (!a[3].none()) v.offset = a[3].integer;
  LOHE_CHECK(v.sizes.size() == v.strides.size(), "mismatch in length of strides and shape");
  int64_t last = v.offset;
  for (size_t d = 0; d < v.sizes.size(); ++d) {
    LOHE_CHECK(
        v.strides[d] >= 0,
        "as_strided: Negative strides are not supported at the moment, got strides: ", to_string(v.strides));
    LOHE_CHECK(v.sizes[d] >= 0, "as_strided: sizes must be non-negative, got ", to_string(v.sizes));
    last += (v.sizes[d] - 1) * v.strides[d];
  }
  LOHE_CHECK(v.offset >= 0, "as_strided: storage_offset must be non-negative, got ", v.offset);
  const int64_t bytes = t.storage().nbytes(), needed = (last + 1) * t.itemsize();
  LOHE_CHECK(numel_of(v.sizes) == 0 || needed <= bytes, "setStorage: sizes ", to_string(v.sizes),
             ", strides ", to_string(v.strides), ", storage offset ", v.offset, ", and itemsize ",
             t.itemsize(), " requiring a storage size of ", needed, " are out of bounds for storage of size ",
             bytes);
  return v;
}

/// Elements from the first to the last that a geometry names.
int64_t extent(std::span<const int64_t> sizes, std::span<const int64_t> strides) {
  int64_t n = 1;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) return 0;
    n += (sizes[i] - 1) * strides[i];
  }
  return n;
}

/// The storage's gradient as a flat tensor, seen as the input was: what several elements of the input share
/// is divided among them.
void strided_gradient(Backward& b) {
  static const OpRef zeros("zeros"), arange("arange"), as_strided("as_strided"), copy("copy_"),
      index_put("index_put_"), reshape("reshape"), div("div"), ones("ones");
  const Meta& input = b.meta(0);
  const TensorPtr& g = b.grad();
  const Dims sizes(b.arg(1).int_list()), strides(b.arg(2).int_list());
  const Dims input_strides =
      input.strides.size() == input.sizes.size() ? input.strides : contiguous_strides(input.sizes);
  const int64_t offset = b.arg(3).none() ? input.offset : b.arg(3).integer;
  const int64_t first = std::min(offset, input.offset);
  const int64_t length = std::max(offset - first + extent(sizes, strides),
                                  input.offset - first + extent(input.sizes, input_strides));
  const TensorPtr flat = zeros(Dims{length}, g->dtype());
  const auto positions = [&](const Dims& s, const Dims& st, int64_t from) {
    const TensorPtr all = arange(length);
    return reshape(as_strided(all, s, st, from), Dims{-1});
  };
  const auto accumulate = [&](const TensorPtr& target, const TensorPtr& index, const TensorPtr& values) {
    TensorImpl* const list[] = {index.get()};
    index_put(target, std::span<TensorImpl* const>(list), values, true);
  };
  if (numel_of(sizes) > 0) {
    if (may_overlap(sizes, strides))
      accumulate(flat, positions(sizes, strides, offset - first), reshape(g, Dims{-1}));
    else
      copy(as_strided(flat, sizes, strides, offset - first), g);
  }
  TensorPtr result = flat;
  if (numel_of(input.sizes) > 0 && may_overlap(input.sizes, input_strides)) {
    const TensorPtr count = zeros(Dims{length}, g->dtype());
    accumulate(count, positions(input.sizes, input_strides, input.offset - first),
               ones(Dims{numel_of(input.sizes)}, g->dtype()));
    result = div(flat, count);
  }
  b.set(0, as_strided(result, input.sizes, input_strides, input.offset - first));
}

/// Windows that overlap add up.
void windows_gradient(Backward& b) {
  static const OpRef zeros("zeros"), slice("slice.Tensor"), select("select.int"), sum("add"),
      unfold("unfold"), copy("copy_");
  const Meta& input = b.meta(0);
  const TensorPtr& g = b.grad();
  const TensorPtr into = zeros(input.sizes, input.dtype);
  const int64_t size = b.arg(2).integer, step = b.arg(3).integer;
  if (input.sizes.empty() || step >= size) {
    copy(unfold(into, b.arg(1), b.arg(2), b.arg(3)), g);
  } else {
    const int64_t dim = wrap_dim(b.arg(1).integer, static_cast<int64_t>(input.sizes.size()));
    const int64_t count = g->sizes()[static_cast<size_t>(dim)];
    for (int64_t k = 0; k < size; ++k) {
      const TensorPtr part = slice(into, dim, k, k + (count - 1) * step + 1, step);
      dispatch::call(sum.op(), std::array{Arg(part), Arg(select(g, int64_t{-1}, k)), Arg(int64_t{1})},
                     dispatch::Form::kInPlace);
    }
  }
  b.set(0, into);
}

/// The cotangent in the shape of the input: for views that only regroup dims.
void reshaped_gradient(Backward& b) {
  static const OpRef reshape("reshape");
  b.set(0, reshape(b.grad(), b.meta(0).sizes));
}

ViewSpec reinterpreted(const TensorImpl& t, Dtype dtype) {
  const int64_t from = t.itemsize(), to = itemsize(dtype);
  ViewSpec v = whole(t);
  v.dtype = dtype;
  LOHE_CHECK(
      !t.conj() || dtype == t.dtype(),
      "torch.Tensor.view is not supported for conjugate view tensors when converting to a different dtype.");
  LOHE_CHECK(!t.neg() || dtype == t.dtype(),
             "torch.Tensor.view is not supported for tensors with negative bit set when converting to a "
             "different dtype.");
  if (from == to) return v;
  const std::string names = type_word(t.dtype()) + " as " + type_word(dtype);
  LOHE_CHECK(t.dim() > 0, "self.dim() cannot be 0 to view ", names, " (different element sizes)");
  const size_t last = v.sizes.size() - 1;
  LOHE_CHECK(t.strides()[last] == 1, "self.stride(-1) must be 1 to view ", names,
             " (different element sizes), but got ", t.strides()[last]);
  if (from > to) {
    const int64_t ratio = from / to;
    for (size_t i = 0; i < last; ++i) v.strides[i] *= ratio;
    v.sizes[last] *= ratio;
    v.offset *= ratio;
    return v;
  }
  const int64_t ratio = to / from;
  LOHE_CHECK(t.sizes()[last] % ratio == 0, "self.size(-1) must be divisible by ", ratio, " to view ", names,
             " (different element sizes), but got ", t.sizes()[last]);
  LOHE_CHECK(t.offset() % ratio == 0, "self.storage_offset() must be divisible by ", ratio, " to view ",
             names, " (different element sizes), but got ", t.offset());
  for (size_t i = 0; i < last; ++i) {
    LOHE_CHECK(t.strides()[i] % ratio == 0, "self.stride(", i, ") must be divisible by ", ratio, " to view ",
               names, " (different element sizes), but got ", t.strides()[i]);
    v.strides[i] /= ratio;
  }
  v.sizes[last] /= ratio;
  v.offset /= ratio;
  return v;
}

void transposed_gradient(Backward& b) {
  static const OpRef transpose("transpose.int");
  b.set(0, transpose(b.grad(), b.arg(1), b.arg(2)));
}

const OpFamily views(
    "views",
    {
        view("view(Tensor(a) self, int[] size) -> Tensor(a)",
             [](Args a) { return viewed_as(*a[0].tensor, a[1].int_list()); })
            .grad(reshaped_gradient)
            .gradient_reads({})
            .method_only()
            .describe("The same elements in another shape, without a copy."),
        view("view.dtype(Tensor(a) self, ScalarType dtype) -> Tensor(a)",
             [](Args a) { return reinterpreted(*a[0].tensor, a[1].dtype); })
            .not_differentiable()
            .method_only()
            .describe("The same bytes as another dtype; the last dim grows or shrinks with the item size."),
        view("transpose.int(Tensor(a) self, int dim0, int dim1) -> Tensor(a)",
             [](Args a) { return transposed(*a[0].tensor, a[1].integer, a[2].integer); })
            .grad(transposed_gradient)
            .gradient_reads({})
            .inplace()
            .describe("Two dims swapped."),
        view("swapaxes(Tensor(a) self, int axis0, int axis1) -> Tensor(a)",
             [](Args a) { return transposed(*a[0].tensor, a[1].integer, a[2].integer); })
            .grad(transposed_gradient)
            .gradient_reads({})
            .inplace()
            .describe("Two dims swapped."),
        view("swapdims(Tensor(a) self, int dim0, int dim1) -> Tensor(a)",
             [](Args a) { return transposed(*a[0].tensor, a[1].integer, a[2].integer); })
            .grad(transposed_gradient)
            .gradient_reads({})
            .inplace()
            .describe("Two dims swapped."),
        view("t(Tensor(a) self) -> Tensor(a)", [](Args a) { return matrix_transposed(*a[0].tensor); })
            .grad([](Backward& b) {
              static const OpRef t("t");
              b.set(0, t(b.grad()));
            })
            .gradient_reads({})
            .inplace()
            .describe("The transposed matrix; tensors of fewer dims as they are."),
        view("permute(Tensor(a) self, int[] dims) -> Tensor(a)",
             [](Args a) { return permuted(*a[0].tensor, a[1].int_list()); })
            .grad([](Backward& b) {
              static const OpRef permute("permute");
              const auto dims = b.arg(1).int_list();
              const auto rank = static_cast<int64_t>(dims.size());
              Dims inverse(dims.size());
              for (int64_t i = 0; i < rank; ++i)
                inverse[static_cast<size_t>(wrap_dim(dims[static_cast<size_t>(i)], rank))] = i;
              b.set(0, permute(b.grad(), inverse));
            })
            .gradient_reads({})
            .describe("The dims in another order."),
        view("select.int(Tensor(a) self, int dim, int index) -> Tensor(a)",
             [](Args a) { return selected(*a[0].tensor, a[1].integer, a[2].integer); })
            .describe("One position of a dim, which goes."),
        view(
            "slice.Tensor(Tensor(a) self, int dim=0, int? start=None, int? end=None, int step=1) -> Tensor(a)",
            [](Args a) {
              return sliced(*a[0].tensor, a[1].integer, a[2].none() ? 0 : a[2].integer,
                            a[3].none() ? kEnd : a[3].integer, a[4].integer);
            })
            .in("_C")
            .describe("Positions start, start + step, ... below end of a dim, by Python's rules for slices."),
        view("unsqueeze(Tensor(a) self, int dim) -> Tensor(a)",
             [](Args a) { return unsqueezed(*a[0].tensor, a[1].integer); })
            .grad(reshaped_gradient)
            .gradient_reads({})
            .inplace()
            .describe("A new dim of size 1."),
        view("squeeze(Tensor(a) self) -> Tensor(a)",
             [](Args a) { return squeezed(*a[0].tensor, ~uint64_t{0}); })
            .grad(reshaped_gradient)
            .gradient_reads({})
            .inplace()
            .describe("Without dims of size 1."),
        view("squeeze.dim(Tensor(a) self, int dim) -> Tensor(a)",
             [](Args a) {
               return squeezed(*a[0].tensor, uint64_t{1} << wrap_dim(a[1].integer, a[0].tensor->dim()));
             })
            .grad(reshaped_gradient)
            .gradient_reads({})
            .inplace()
            .describe("Without one dim, if it has size 1."),
        view("squeeze.dims(Tensor(a) self, int[] dim) -> Tensor(a)",
             [](Args a) {
               return squeezed(*a[0].tensor, dim_mask(a[1].int_list(), a[0].tensor->dim(), false));
             })
            .grad(reshaped_gradient)
            .gradient_reads({})
            .inplace()
            .describe("Without those of the given dims that have size 1."),
        view("expand(Tensor(a) self, int[] size, *, bool implicit=False) -> Tensor(a)",
             [](Args a) { return expanded(*a[0].tensor, a[1].int_list()); })
            .grad([](Backward& b) { b.set(0, b.grad()); })  // the tape sums down to the operand's shape
            .gradient_reads({})
            .method_only()
            .describe("Dims of size 1 repeated without a copy."),
        view("diagonal(Tensor(a) self, int offset=0, int dim1=0, int dim2=1) -> Tensor(a)",
             [](Args a) { return diagonal_of(*a[0].tensor, a[1].integer, a[2].integer, a[3].integer); })
            .describe("The diagonal of two dims, as a new last dim."),
        view("unfold(Tensor(a) self, int dimension, int size, int step) -> Tensor(a)",
             [](Args a) { return windows(*a[0].tensor, a[1].integer, a[2].integer, a[3].integer); })
            .grad(windows_gradient)
            .gradient_reads({})
            .method_only()
            .describe("Windows of a dim, `step` apart; the positions in a window are a new last dim."),
        view("as_strided(Tensor(a) self, int[] size, int[] stride, int? storage_offset=None) -> Tensor(a)",
             [](Args a) { return strided(*a[0].tensor, a); })
            .grad(strided_gradient)
            .gradient_reads({})
            .inplace()
            .describe("Any sizes and strides over the same memory."),
        view("detach(Tensor(a) self) -> Tensor(a)", [](Args a) { return whole(*a[0].tensor); })
            .not_differentiable()
            .describe("The same memory without history."),
        view("alias(Tensor(a) self) -> Tensor(a)", [](Args a) { return whole(*a[0].tensor); })
            .grad([](Backward& b) { b.set(0, b.grad()); })
            .gradient_reads({})
            .in("_C")
            .describe("The whole tensor as a view."),
    });

}  // namespace
}  // namespace lohe::ops
