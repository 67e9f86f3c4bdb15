#pragma once

#include <optional>
#include <vector>

#include "base/small_vector.h"
#include "lohe/dtype.h"

/// What records touch, seen over a space of loops, and spaces brought to one.
namespace lohe::compiler {

/// A box of a space: indices from `low` up to, not with, `high`, by dim; all of the space if empty.
struct Window {
  Dims low, high;
  bool everywhere() const { return low.empty(); }
  /// Whether it leaves out some of a dim of this size.
  bool has_edge(size_t dim, int64_t size) const {
    return !everywhere() && (low[dim] > 0 || high[dim] < size);
  }
  bool operator==(const Window&) const = default;
};

/// Part of a storage as a space sees it.
struct Access {
  int32_t storage;
  int64_t offset;
  Dims strides;
  Dtype dtype;
  Window window;  ///< outside of it nothing is read: what is there is zero
  bool operator==(const Access&) const = default;
};

/// Whether no element belongs to both, for accesses over `sizes`; false where that is not easily seen.
bool apart(const Access& x, const Access& y, const Dims& sizes);
bool apart(const Access& x, const std::vector<Access>& list, const Dims& sizes);

/// Both lists of sizes cut at the same places, or nothing. No size is 1.
std::optional<Dims> common_refinement(const Dims& a, const Dims& b);
/// Which dim of `sizes` each dim of its refinement comes from.
SmallVector<int64_t, 8> origin_of(const Dims& sizes, const Dims& fine);
/// Sees a finer space, as a dim of which each dim of `fine` comes from; false where a window's edge would lie
/// within a dim.
bool refine(Access& access, const Dims& sizes, const Dims& fine, const SmallVector<int64_t, 8>& from);
Dims refined_strides(const Dims& strides, const Dims& fine, const SmallVector<int64_t, 8>& from);

}  // namespace lohe::compiler
