#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/small_vector.h"

/// Shape and stride algebra. All strides count elements.
namespace lohe {

/// Product of sizes. @throws RuntimeError on overflow or a negative size.
int64_t numel_of(std::span<const int64_t> sizes);
Dims contiguous_strides(std::span<const int64_t> sizes);
/// Strides of NHWC (rank 4) or NDHWC (rank 5) memory for NCHW sizes.
Dims channels_last_strides(std::span<const int64_t> sizes);
bool is_contiguous(std::span<const int64_t> sizes, std::span<const int64_t> strides);
bool is_channels_last(std::span<const int64_t> sizes, std::span<const int64_t> strides);
/// Every byte of [min, max] address belongs to exactly one element.
bool is_non_overlapping_and_dense(std::span<const int64_t> sizes, std::span<const int64_t> strides);
/// Two indices may name one element (a dim of size > 1 with stride 0 and the like).
bool may_overlap(std::span<const int64_t> sizes, std::span<const int64_t> strides);

/// NumPy broadcasting of two shapes. @throws RuntimeError with PyTorch's text.
Dims broadcast_shapes(std::span<const int64_t> a, std::span<const int64_t> b);
/// Strides of a tensor expanded to `target` (0 where it is broadcast); sizes must be compatible.
Dims broadcast_strides(std::span<const int64_t> sizes, std::span<const int64_t> strides,
                       std::span<const int64_t> target);

/// A dimension number in [-rank, rank) to [0, rank); rank 0 counts as 1. @throws IndexError with PyTorch's
/// text.
int64_t wrap_dim(int64_t dim, int64_t rank);
/// Bit set of wrapped dims; empty means all. @throws IndexError, RuntimeError for a repeated one.
uint64_t dim_mask(std::span<const int64_t> dims, int64_t rank, bool empty_is_all);

/// Strides that view `sizes`/`strides` memory as `target` without a copy, if there are any.
std::optional<Dims> view_strides(std::span<const int64_t> sizes, std::span<const int64_t> strides,
                                 std::span<const int64_t> target);
/// Replaces one -1. @throws RuntimeError "shape '[..]' is invalid for input of size N".
Dims infer_size(std::span<const int64_t> shape, int64_t numel);
/// "[2, 3]"
std::string to_string(std::span<const int64_t> sizes);

/// Result strides of an elementwise operation by PyTorch's TensorIterator rule: dims are ordered by the
/// operands' strides (first operand first), ties keep row-major order. `operands` are strides broadcast to
/// `sizes`.
Dims elementwise_strides(std::span<const int64_t> sizes, std::span<const std::span<const int64_t>> operands);

}  // namespace lohe
