#pragma once

#include <cstdint>
#include <vector>

#include "base/function_ref.h"
#include "lohe/dtype.h"
#include "tensor/loops.h"

/// Moves between a tensor and another one through positions that indices name. Every destination element is
/// written in the order of the positions, whatever the number of threads: work is split over destinations.
namespace lohe::backend {

enum class Combine : uint8_t { kCopy, kAdd, kMultiply, kMaximum, kMinimum };

/// Positions, each naming a slice of `self` (a row of an embedding, an element). Offsets are bytes.
struct SliceIndex {
  char* self = nullptr;
  char* other = nullptr;
  int64_t positions = 0;
  const int64_t* at = nullptr;        ///< where each position's slice begins in self
  const int64_t* other_at = nullptr;  ///< and in other; null: other_step apart
  int64_t other_step = 0;
  Loops<2> slice;  ///< elements of a slice: strides in self, in other
};
/// other = self.
void gather_slices(const SliceIndex& x, int64_t itemsize);
/// self = combine(self, other), in the order of the positions.
void scatter_slices(const SliceIndex& x, Dtype dtype, Combine combine);

/// One index for each element along a dim: lines along the dim, at all positions of the other dims.
struct LineIndex {
  char* self = nullptr;
  char* other = nullptr;
  const char* index = nullptr;  ///< int64 or int32
  bool wide = true;             ///< int64
  int64_t length = 0;           ///< indices along the dim
  int64_t self_step = 0, other_step = 0, index_step = 0;
  Loops<3> lines;  ///< strides in self, other, index
};
/// other[i] = self[index[i]]. @param outside is called with an index that is not in [0, size), and throws;
/// some elements of `other` are written then
void gather_lines(const LineIndex& x, int64_t itemsize, int64_t size,
                  FunctionRef<void(int64_t index)> outside);
/// self[index[i]] = combine(self[index[i]], other[i]). Every index is known to be inside.
void scatter_lines(const LineIndex& x, Dtype dtype, Combine combine);

}  // namespace lohe::backend
