#pragma once

#include "ops/call.h"

/// What rows that make or use views share.
namespace lohe::ops {

/// The geometry of `t` itself.
ViewSpec whole(const TensorImpl& t);
/// @throws RuntimeError where the shape does not fit, or needs a copy.
ViewSpec viewed_as(const TensorImpl& t, std::span<const int64_t> shape);
/// @throws IndexError for dims out of range.
ViewSpec transposed(const TensorImpl& t, int64_t a, int64_t b);
ViewSpec permuted(const TensorImpl& t, std::span<const int64_t> dims);
ViewSpec expanded(const TensorImpl& t, std::span<const int64_t> shape);
/// One position of a dim, which goes. @throws IndexError.
ViewSpec selected(const TensorImpl& t, int64_t dim, int64_t index);
/// Positions [start, end) of a dim, clamped as Python's slices are.
ViewSpec sliced(const TensorImpl& t, int64_t dim, int64_t start, int64_t end, int64_t step);
/// Positions [start, start + length), which must exist.
ViewSpec narrowed(const TensorImpl& t, int64_t dim, int64_t start, int64_t length);

/// Turns recording off while it lives: for rows that fill a fresh tensor by other rows.
class NoGrad {
 public:
  NoGrad() : saved_(dispatch::mode_word) { dispatch::mode_word |= dispatch::kNoGrad; }
  ~NoGrad() { dispatch::mode_word = saved_; }
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  uint32_t saved_;
};

/// The plain list that a Tensor[] argument borrows.
inline std::vector<TensorImpl*> pointers_of(const std::vector<TensorPtr>& list) {
  std::vector<TensorImpl*> raw;
  for (const TensorPtr& t : list) raw.push_back(t.get());
  return raw;
}

}  // namespace lohe::ops
