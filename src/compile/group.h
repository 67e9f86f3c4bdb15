#pragma once

#include <algorithm>
#include <vector>

#include "compile/assembly.h"

/// Records on their way into one step: what they touch, seen over one space, and what may be done to that
/// without changing a bit.
namespace lohe::compiler {

struct Member {
  int32_t unit;
  std::vector<Source> inputs;
  std::vector<Access> outputs;
};

/// Calls `f` with whatever a member touches, seen over the group's space, as long as it says true.
bool each_access(std::vector<Source>& sources, const auto& f) {
  for (Source& s : sources) {
    if (!f(s.access)) return false;
    for (Piece& p : s.pieces) {
      if (!f(p.place) || !each_access(p.inputs, f)) return false;
    }
  }
  return true;
}
bool each_access(Member& m, const auto& f) {
  return each_access(m.inputs, f) && std::all_of(m.outputs.begin(), m.outputs.end(), f);
}
/// Calls `f` with what is read from memory.
void each_load(const std::vector<Source>& sources, const auto& f) {
  for (const Source& s : sources) {
    if (s.access.dtype == Dtype::kUndefined) continue;
    if (s.pieces.empty()) f(s.access);
    for (const Piece& p : s.pieces) each_load(p.inputs, f);
  }
}

/// Records that run as one step, over one space.
struct Group {
  bool open = false;  ///< others may join
  Dims sizes;
  SmallVector<uint8_t, 6> groups;
  std::vector<Member> members;
  std::vector<Access> loads, stores;     ///< from and to memory; a store that is overwritten is not listed
  std::vector<int32_t> reads, writes;    ///< storages
  std::vector<int32_t> late;             ///< of `writes`: what waits for a reduction of the group
  bool reduces = false, counts = false;  ///< holds reductions; holds positions or numbers of elements
  bool both_ways = false;                ///< reduces columns, too: a norm's gradient
  Dims leader;                           ///< strides by which the reductions' loops are ordered
  size_t nodes = 0;
  bool may_raise = false;
};

bool each_access(Group& g, const auto& f) {
  return std::all_of(g.members.begin(), g.members.end(), [&](Member& m) { return each_access(m, f); }) &&
         std::all_of(g.loads.begin(), g.loads.end(), f) && std::all_of(g.stores.begin(), g.stores.end(), f);
}

bool has(const std::vector<int32_t>& list, int32_t x);
bool has(const std::vector<Access>& list, const Access& x);
void add(std::vector<int32_t>& list, int32_t x);

/// Whether the group's reductions go down the loops that they go down alone.
bool steady(const Group& g);
/// Whether some element is read in a window only.
bool has_windows(const Group& g);
/// Whether its rows are reduced in one go. Long ones are taken in blocks, whose loops have no windows.
bool reduces_at_once(const Group& g);
/// Whether each element of the space has its own.
bool moves(const Access& x);
/// Whether `g` reads any of these.
bool waits(const Group& g, const std::vector<int32_t>& storages);
/// Whether `r` makes one element of each of the group's: the group's reductions of columns stay what they
/// are.
bool goes_on_with_elements(const Group& g, const Group& r);
/// Whether what a reduction of the group would be computed from, or computes, is written in the same sweep,
/// or in one that finds the row still near.
bool worth_sweeping(const Group& a, const Group& b);

/// Brings elementwise work on what the reductions of `a` leave, which does not move along reduced dims, to
/// the space of `a`; false if `b` is none.
bool onto_kept(const Group& a, Group& b);
/// Brings a group to a finer space; false, and the group is lost, where a window's edge is in the way.
bool refine(Group& g, const Dims& fine);

}  // namespace lohe::compiler
