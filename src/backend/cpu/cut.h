#pragma once

#include <algorithm>
#include <cstdint>

#include "backend/cpu/packing.h"
#include "base/threads.h"

namespace lohe::backend {

struct Range {
  int64_t begin;
  int64_t size;
  int64_t end() const { return begin + size; }
};

/// A range of lanes in blocks whose numbers of panels differ by one at most. Where panels may begin
/// anywhere, each thread's share of the blocks has as many lanes as the others'.
struct Cut {
  Range all;
  int64_t width, blocks, shares;
  /// @param blocks of all `lanes`; the range gets its part of them @param packed panels that are there
  /// already
  Cut(Range range, int64_t lanes, int panel_width, int64_t blocks_of_all, bool packed)
      : all(range), width(panel_width) {
    const int64_t panels = ceil_div(range.size, width), threads = num_threads();
    blocks = std::min(ceil_div(blocks_of_all * panels, ceil_div(lanes, width)), panels);
    shares = !packed && blocks % threads == 0 ? threads : 1;
  }
  Range block(int64_t i) const {
    const int64_t each = blocks / shares, share = i / each;
    const int64_t begin = share * all.size / shares, size = (share + 1) * all.size / shares - begin;
    const auto first = [&](int64_t b) { return std::min(b * ceil_div(size, width) / each * width, size); };
    return {all.begin + begin + first(i % each), first(i % each + 1) - first(i % each)};
  }
  int64_t most_lanes() const {
    return ceil_div(ceil_div(ceil_div(all.size, shares), width), blocks / shares) * width;
  }
};

}  // namespace lohe::backend
