#pragma once

#include <vector>

#include "backend/cpu/index.h"
#include "ops/call.h"

/// What the rows that read and write through indices share.
namespace lohe::ops {

/// The description of a row-major result.
inline Meta row_major(Dtype dtype, Dims sizes) {
  Meta m;
  m.dtype = dtype;
  m.sizes = std::move(sizes);
  return m;
}

inline int64_t size_at(const TensorImpl& t, int64_t dim) {  ///< a tensor without dims has one of size 1
  return t.dim() == 0 ? 1 : t.sizes()[static_cast<size_t>(dim)];
}
inline int64_t stride_at(const TensorImpl& t, int64_t dim) {
  return t.dim() == 0 ? 1 : t.strides()[static_cast<size_t>(dim)];
}
/// Zeros of the description's shape, row-major.
TensorPtr zeros_as(const Meta& m);
/// A number as a tensor without dims.
TensorPtr number_tensor(const Arg& value, Dtype dtype);
/// `t` without pending conjugation and negation.
TensorPtr plain(TensorImpl* t);
/// "Float", "Long": dtypes as PyTorch's messages name them.
std::string type_word(Dtype dtype);

/// A tensor that is about to be written element by element. @throws RuntimeError where two indices name one
/// element, where it shares memory with a source, and where the memory is read-only.
void check_written(std::string_view op, const TensorImpl& self,
                   std::initializer_list<const TensorImpl*> sources);
/// Inside: calls leave no history.
class WithoutGrad {
 public:
  WithoutGrad() : saved_(dispatch::mode_word) { dispatch::mode_word |= dispatch::kNoGrad; }
  ~WithoutGrad() { dispatch::mode_word = saved_; }
  WithoutGrad(const WithoutGrad&) = delete;
  WithoutGrad& operator=(const WithoutGrad&) = delete;

 private:
  uint32_t saved_;
};

/// Runs `write` on self, or on a plain copy that is written back if self is a conjugate or negative view.
template <class F>
Results write_to(TensorImpl* self, F&& write) {
  if (!self->conj() && !self->neg()) {
    write(*self);
    return TensorPtr(self);
  }
  static const OpRef clone("clone"), copy("copy_");
  const WithoutGrad guard;
  const TensorPtr twin = clone(plain(self));
  write(*twin);
  copy(self, twin);
  return TensorPtr(self);
}

/// Reads index element `i` of an int64 or int32 tensor at `p`.
inline int64_t read_index(const char* p, bool wide) {
  return wide ? *reinterpret_cast<const int64_t*>(p) : *reinterpret_cast<const int32_t*>(p);
}
inline bool is_wide(const TensorImpl& index) { return index.dtype() == Dtype::kInt64; }

/// The range of an index tensor's values; {0, -1} if it has none.
struct IndexRange {
  int64_t least = 0, greatest = -1;
};
IndexRange index_range(const TensorImpl& index);

/// Byte offsets of an index vector's positions along a dim: index * step. Values were checked.
std::vector<int64_t> offsets_along(const TensorImpl& index, int64_t step, int64_t size);

/// Positions of the non-zero elements, one column a dim: int64 of shape [n, dim], columns contiguous.
TensorPtr nonzero_of(const TensorImpl& t);

/// Row `name` called in its functional form: `clone` of self, then the in-place row. Keeps gradients.
Results through_copy(const OpRef& row, Args args, bool contiguous);

}  // namespace lohe::ops
