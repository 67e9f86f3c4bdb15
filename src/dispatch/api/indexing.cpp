#include "lohe/indexing.h"

#include "dispatch/public_call.h"

/// Indices: ints, slices, None and the ellipsis are views; tensors and bools gather behind them.
namespace lohe {

using ops::OpRef;

namespace {

struct Indexed {
  TensorPtr view;
  std::vector<TensorPtr> gathers;  ///< one for each leading dim of `view`, null where it is kept whole
};

/// Dims of the indexed tensor that an index takes.
int64_t dims_taken(const TensorIndex& index) {
  switch (index.kind) {
    case TensorIndex::Kind::kInteger:
    case TensorIndex::Kind::kSlice:
      return 1;
    case TensorIndex::Kind::kTensor:
      return index.tensor.dtype() == kBool ? index.tensor.dim() : 1;
    default:
      return 0;
  }
}

Indexed apply(const Tensor& self, ArrayRef<TensorIndex> indices) {
  static const OpRef select("select.int"), slice("slice.Tensor"), unsqueeze("unsqueeze"), alias("alias"),
      full("full");
  Indexed result{TensorPtr(detail::required(self, "index", "self").tensor), {}};
  int64_t taken = 0, ellipses = 0;
  for (const TensorIndex& i : indices) {
    taken += dims_taken(i);
    ellipses += i.kind == TensorIndex::Kind::kEllipsis ? 1 : 0;
  }
  LOHE_CHECK_INDEX(taken <= self.dim(), "too many indices for tensor of dimension ", self.dim());
  LOHE_CHECK_INDEX(ellipses <= 1, "an index can only have a single ellipsis ('...')");
  int64_t dim = 0;
  const auto gather = [&](TensorPtr t) {
    result.gathers.resize(static_cast<size_t>(dim));
    result.gathers.push_back(std::move(t));
  };
  for (const TensorIndex& i : indices) {
    switch (i.kind) {
      case TensorIndex::Kind::kNone:
        result.view = unsqueeze(result.view, dim++);
        break;
      case TensorIndex::Kind::kEllipsis:
        dim += self.dim() - taken;
        break;
      case TensorIndex::Kind::kInteger:
        result.view = select(result.view, dim, i.integer);
        break;
      case TensorIndex::Kind::kSlice: {
        const Arg start = detail::to_arg(i.slice.start), stop = detail::to_arg(i.slice.stop);
        LOHE_CHECK_VALUE(i.slice.step > 0, "step must be greater than zero");
        if (i.slice.start || i.slice.stop || i.slice.step != 1)
          result.view = slice(result.view, dim, start, stop, i.slice.step);
        ++dim;
        break;
      }
      case TensorIndex::Kind::kBoolean: {
        // A new dim of one element that is taken or not.
        result.view = unsqueeze(result.view, dim);
        gather(full(Dims{1}, i.boolean, Dtype::kBool));
        ++dim;
        break;
      }
      case TensorIndex::Kind::kTensor:
        gather(TensorPtr(detail::required(i.tensor, "index", "indices").tensor));
        dim += dims_taken(i);
        break;
    }
  }
  if (result.view.get() == self.impl()) result.view = alias(result.view);
  return result;
}

/// As the op takes them: a mask of several dims stands for as many dims.
std::vector<TensorImpl*> pointers(const Indexed& indexed) {
  std::vector<TensorImpl*> list;
  for (size_t i = 0; i < indexed.gathers.size();) {
    TensorImpl* t = indexed.gathers[i].get();
    list.push_back(t);
    i += t != nullptr && t->dtype() == Dtype::kBool ? std::max<size_t>(1, static_cast<size_t>(t->dim())) : 1;
  }
  return list;
}

}  // namespace

Tensor Tensor::index(ArrayRef<TensorIndex> indices) const {
  static const OpRef row("index.Tensor");
  Indexed indexed = apply(*this, indices);
  if (indexed.gathers.empty()) return to_public(std::move(indexed.view));
  const std::vector<TensorImpl*> list = pointers(indexed);
  return to_public(row(indexed.view, std::span<TensorImpl* const>(list)));
}

Tensor& Tensor::index_put_(ArrayRef<TensorIndex> indices, const Tensor& value) {
  static const OpRef row("index_put_"), copy("copy_");
  const Arg source = detail::required(value, "index_put_", "value");
  const Indexed indexed = apply(*this, indices);
  if (indexed.gathers.empty()) {
    copy(indexed.view, source);
  } else {
    const std::vector<TensorImpl*> list = pointers(indexed);
    row(indexed.view, std::span<TensorImpl* const>(list), source);
  }
  return *this;
}

Tensor& Tensor::index_put_(std::initializer_list<TensorIndex> indices, const Scalar& value) {
  static const OpRef full("full");
  return index_put_(ArrayRef<TensorIndex>(indices), to_public(full(Dims{}, value, dtype())));
}

Tensor Tensor::index(std::initializer_list<TensorIndex> indices) const {
  return index(ArrayRef<TensorIndex>(indices));
}
Tensor& Tensor::index_put_(std::initializer_list<TensorIndex> indices, const Tensor& value) {
  return index_put_(ArrayRef<TensorIndex>(indices), value);
}
Tensor Tensor::operator[](int64_t at) const {
  static const OpRef select("select.int");
  return to_public(select(detail::required(*this, "operator[]", "self"), int64_t{0}, at));
}
Tensor Tensor::slice(int64_t dim, std::optional<int64_t> start, std::optional<int64_t> end,
                     int64_t step) const {
  static const OpRef row("slice.Tensor");
  return to_public(
      row(detail::required(*this, "slice", "self"), dim, detail::to_arg(start), detail::to_arg(end), step));
}
Tensor Tensor::operator[](const Tensor& at) const { return index({TensorIndex(at)}); }

}  // namespace lohe
