#include "compile/group.h"

#include "compile/nest.h"
#include "compile/program.h"

namespace lohe::compiler {
namespace {

using namespace ir;

/// Bytes of a row that is swept twice from a near cache.
constexpr int64_t kNearRow = 256 << 10;

int64_t row_length(const Group& g) {
  int64_t row = 1;
  for (size_t d = 0; d < g.sizes.size(); ++d) row *= g.groups[d] == kRow ? g.sizes[d] : 1;
  return row;
}

}  // namespace

bool has(const std::vector<int32_t>& list, int32_t x) {
  return std::find(list.begin(), list.end(), x) != list.end();
}
void add(std::vector<int32_t>& list, int32_t x) {
  if (!has(list, x)) list.push_back(x);
}
bool has(const std::vector<Access>& list, const Access& x) {
  return std::find(list.begin(), list.end(), x) != list.end();
}

bool steady(const Group& g) {
  Space space;
  space.sizes = g.sizes;
  space.groups = g.groups;
  space.leader = g.leader;
  std::vector<Binding> operands;
  for (const auto* list : {&g.loads, &g.stores}) {
    for (const Access& a : *list) operands.push_back({nullptr, a.strides, &a.window});
  }
  return is_steady(space, operands);
}

bool has_windows(const Group& g) {
  return std::any_of(g.loads.begin(), g.loads.end(), [](const Access& x) { return !x.window.everywhere(); });
}

bool reduces_at_once(const Group& g) { return row_length(g) <= Program::kBlock; }

bool moves(const Access& x) {
  return std::all_of(x.strides.begin(), x.strides.end(), [](int64_t s) { return s != 0; });
}

bool goes_on_with_elements(const Group& g, const Group& r) {
  if (r.reduces || r.counts || g.sizes != r.sizes) return false;
  return std::all_of(r.stores.begin(), r.stores.end(), moves) &&
         std::all_of(r.loads.begin(), r.loads.end(),
                     [&](const Access& x) { return !has(g.writes, x.storage) || moves(x); });
}

bool worth_sweeping(const Group& a, const Group& b) {
  const Dims& leader = a.reduces ? a.leader : b.leader;
  int64_t row = 1;
  bool dense = false;
  for (size_t d = 0; d < a.sizes.size(); ++d) {
    if (a.groups[d] != kRow) continue;
    row *= a.sizes[d];
    dense = dense || leader[d] == 1;
  }
  if (dense && row * 4 * static_cast<int64_t>(a.loads.size() + 1) < kNearRow) return true;
  // Further sweeps would read all of it again; and not find what is overwritten.
  for (const Access& l : a.loads) {
    if (has(a.writes, l.storage)) return false;
  }
  const Group& second = a.reduces ? b : a;
  const auto moves_along_row = [&a](const Access& o) {
    for (size_t d = 0; d < a.sizes.size(); ++d) {
      if (a.groups[d] == kRow && o.strides[d] != 0) return true;
    }
    return false;
  };
  return !waits(second, a.late) || std::none_of(second.stores.begin(), second.stores.end(), moves_along_row);
}

bool waits(const Group& g, const std::vector<int32_t>& storages) {
  return std::any_of(g.reads.begin(), g.reads.end(), [&](int32_t s) { return has(storages, s); });
}

bool onto_kept(const Group& a, Group& b) {
  if (!a.reduces || b.reduces || b.counts) return false;
  Dims kept;
  for (size_t d = 0; d < a.sizes.size(); ++d) {
    if (a.groups[d] == kOuter) kept.push_back(a.sizes[d]);
  }
  if (kept != b.sizes) return false;
  const auto spread = [&](Access& x) {
    Dims strides(a.sizes.size());
    Window window{Dims(a.sizes.size()), a.sizes};
    size_t at = 0;
    for (size_t d = 0; d < a.sizes.size(); ++d) {
      if (a.groups[d] != kOuter) continue;
      if (!x.window.everywhere()) {
        window.low[d] = x.window.low[at];
        window.high[d] = x.window.high[at];
      }
      strides[d] = x.strides[at++];
    }
    x.strides = strides;
    if (!x.window.everywhere()) x.window = window;
    return true;
  };
  each_access(b, spread);
  b.sizes = a.sizes;
  b.groups = a.groups;
  return true;
}

bool refine(Group& g, const Dims& fine) {
  if (g.sizes == fine) return true;
  const SmallVector<int64_t, 8> from = origin_of(g.sizes, fine);
  if (!each_access(g, [&](Access& a) { return refine(a, g.sizes, fine, from); })) return false;
  if (!g.leader.empty()) g.leader = refined_strides(g.leader, fine, from);
  SmallVector<uint8_t, 6> groups;
  for (const int64_t d : from) groups.push_back(g.groups[static_cast<size_t>(d)]);
  g.groups = groups;
  g.sizes = fine;
  return true;
}

}  // namespace lohe::compiler
