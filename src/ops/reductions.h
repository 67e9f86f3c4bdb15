#pragma once

#include "ops/call.h"

/// What several families of reductions share.
namespace lohe::ops {

/// kRow: all dims.
DomainRule reduce_all();
/// @throws IndexError or RuntimeError when a reduction without neutral element meets no elements; `name` as
/// users call it.
void check_nonempty(std::string_view name, const TensorImpl& x, std::span<const int64_t> dims);

/// Nothing is recorded while it lives.
struct NoGrad {
  NoGrad() { dispatch::mode_word |= dispatch::kNoGrad; }
  ~NoGrad() { dispatch::mode_word = saved; }
  const uint32_t saved = dispatch::mode_word;
};

inline TensorPtr to_dtype(const TensorPtr& t, Dtype dtype) {
  static const OpRef to("to.dtype");
  return t->dtype() == dtype ? t : to(t, dtype);
}
/// The cotangent of a reduced value with the reduced dim put back as 1.
inline TensorPtr with_dim(const TensorPtr& g, int64_t dim, bool keepdim, int64_t rank) {
  static const OpRef unsqueeze("unsqueeze");
  return keepdim || rank == 0 ? g : unsqueeze(g, dim);
}
/// Gradient of values that were picked along `dim`: zeros with the cotangent at `indices`.
TensorPtr scatter_to(const TensorPtr& g, const TensorPtr& indices, int64_t dim, const Meta& shape);

}  // namespace lohe::ops
