#include "compile/access.h"

#include <algorithm>

#include "lohe/error.h"
#include "tensor/shape.h"

namespace lohe::compiler {

bool apart(const Access& x, const Access& y, const Dims& sizes) {
  if (x.storage != y.storage) return true;
  const int64_t size = itemsize(x.dtype), distance = std::abs(x.offset - y.offset);
  LOHE_INTERNAL_ASSERT(size > 0, "an access without a dtype");
  if (x.dtype != y.dtype || x.strides != y.strides || distance % size != 0) return false;
  // The two are one access with a dim more.
  Dims all = sizes, strides = x.strides;
  all.push_back(2);
  strides.push_back(distance / size);
  return !may_overlap(all, strides);
}
bool apart(const Access& x, const std::vector<Access>& list, const Dims& sizes) {
  return std::all_of(list.begin(), list.end(), [&](const Access& y) { return apart(x, y, sizes); });
}

std::optional<Dims> common_refinement(const Dims& a, const Dims& b) {
  Dims cut;
  size_t i = a.size(), j = b.size();
  int64_t x = 1, y = 1;
  while (true) {
    if (x == 1 && i > 0) x = a[--i];
    if (y == 1 && j > 0) y = b[--j];
    if (x == 1 && y == 1) break;
    const int64_t least = std::min(x, y);
    if (least == 1 || x % least != 0 || y % least != 0) return std::nullopt;
    cut.push_back(least);
    x /= least;
    y /= least;
  }
  std::reverse(cut.begin(), cut.end());
  return cut;
}

SmallVector<int64_t, 8> origin_of(const Dims& sizes, const Dims& fine) {
  SmallVector<int64_t, 8> from(fine.size());
  size_t d = sizes.size();
  int64_t left = 1;
  for (size_t f = fine.size(); f-- > 0;) {
    if (left == 1) left = sizes[--d];
    from[f] = static_cast<int64_t>(d);
    left /= fine[f];
  }
  return from;
}

bool refine(Access& access, const Dims& sizes, const Dims& fine, const SmallVector<int64_t, 8>& from) {
  access.strides = refined_strides(access.strides, fine, from);
  if (access.window.everywhere()) return true;
  Window result{Dims(fine.size()), fine};
  for (size_t d = 0; d < sizes.size(); ++d) {
    // The edge of a dim is one of the outermost dim that comes from it.
    size_t f = 0;
    while (from[f] != static_cast<int64_t>(d)) ++f;
    const int64_t inner = sizes[d] / fine[f], low = access.window.low[d], high = access.window.high[d];
    if (low % inner != 0 || high % inner != 0) return false;
    result.low[f] = low / inner;
    result.high[f] = high / inner;
  }
  access.window = std::move(result);
  return true;
}

Dims refined_strides(const Dims& strides, const Dims& fine, const SmallVector<int64_t, 8>& from) {
  Dims result(fine.size());
  int64_t inner = 1;
  for (size_t f = fine.size(); f-- > 0;) {
    if (f + 1 < fine.size() && from[f] == from[f + 1])
      inner *= fine[f + 1];
    else
      inner = 1;
    result[f] = strides[static_cast<size_t>(from[f])] * inner;
  }
  return result;
}

}  // namespace lohe::compiler
