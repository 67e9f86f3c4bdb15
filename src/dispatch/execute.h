#pragma once

#include "ops/call.h"

/// How each kind of row is carried out on plain tensors, below interceptors and tape.
namespace lohe::dispatch {

/// Fresh row-major memory.
TensorPtr empty(std::span<const int64_t> sizes, Dtype dtype);
TensorPtr empty_strided(std::span<const int64_t> sizes, std::span<const int64_t> strides, Dtype dtype);

/// `target`: the tensor to write (in-place, out=), or null.
Results run_pointwise(const ops::OpDef& op, Args args, TensorImpl* target);
Results run_composed(const ops::OpDef& op, Args args);
Results run_view(const ops::OpDef& op, Args args);
Results run_primitive(const ops::OpDef& op, Args args);

/// Memory that a row writes beside its results: every element named once (unless `one_value` goes into all),
/// writable, and where it lies in an
/// argument's memory, the same elements in the same place (`whole_overlap`) or not at all. `resized`: the
/// tensor that will become `target`. Where all elements get `one_value`, the target may name one twice.
/// @throws RuntimeError.
void check_written_memory(const ops::OpDef& op, Args args, const TensorImpl& target, bool whole_overlap,
                          const TensorImpl* resized = nullptr, bool one_value = false);

/// A new tensor that views `base`'s storage by `spec`.
TensorPtr make_view(TensorImpl& base, const ops::ViewSpec& spec);

}  // namespace lohe::dispatch
