#pragma once

#include <cstdint>

#include "lohe/dtype.h"
#include "tensor/loops.h"

/// Order along a dim. All real dtypes and bool; NaN is larger than every number and equal to itself, -0
/// equals +0, and of equal elements the earlier position comes first, in both directions. Results therefore
/// depend on neither the algorithm nor the number of threads.
namespace lohe::backend {

/// Lines along a dim of `self`, and what is written for each: elements of the same dtype and int64 positions.
/// Steps and strides are bytes.
struct OrderLines {
  const char* self = nullptr;
  char* values = nullptr;
  char* indices = nullptr;
  int64_t length = 0;  ///< elements of a line of self
  int64_t self_step = 0, values_step = 0, index_step = 0;
  Loops<3> lines;  ///< strides in self, values, indices
};

/// The first `count` elements of every line in ascending or descending order; `count` = length sorts.
void sort_lines(const OrderLines& x, Dtype dtype, int64_t count, bool descending);

/// What select_lines picks from a line that is not empty.
enum class Pick : uint8_t {
  kRank,       ///< element number `rank` in ascending order
  kMedian,     ///< the first NaN if there is one, else the lower median
  kNanMedian,  ///< the lower median of what is not NaN; the first element if all are
  kMode,       ///< the last position of the most frequent value, the smallest of those; a NaN equals nothing
};
/// One element of every line, and its position.
void select_lines(const OrderLines& x, Dtype dtype, Pick pick, int64_t rank = 0);

}  // namespace lohe::backend
