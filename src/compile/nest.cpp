#include "compile/nest.h"

#include <algorithm>
#include <bit>

#include "compile/lower.h"
#include "compile/program.h"
#include "tensor/shape.h"

namespace lohe::compiler {
namespace {

using namespace ir;

/// Columns from which on vectors may go along them.
constexpr int64_t kColumns = 4;

/// A stable sort of some dims, by insertion: std::stable_sort takes heap memory.
template <class Before>
void sort_few(SmallVector<int64_t, 8>& list, Before before) {
  for (size_t i = 1; i < list.size(); ++i) {
    for (size_t k = i; k > 0 && before(list[k], list[k - 1]); --k) std::swap(list[k], list[k - 1]);
  }
}

/// Makes two loops of the first one, so that there are enough iterations for threads when the second goes
/// elsewhere; false where its size has no fitting divisor.
bool cut_first(Loops& loops) {
  constexpr int64_t kShortest = 64, kLongest = 512;  // looked for at every call
  Loop& first = loops[0];
  int64_t inner = std::min(kLongest, first.size / 2);
  while (inner >= kShortest && first.size % inner != 0) --inner;
  if (inner < kShortest || !first.edges.empty()) return false;
  Loop outer = first;
  outer.size /= inner;
  outer.logical *= inner;
  for (int64_t& s : outer.strides) s *= inner;
  first.size = inner;
  put_first(loops, std::move(outer));
  return true;
}

}  // namespace

void put_first(Loops& loops, Loop loop) {
  loops.push_back(std::move(loop));
  std::rotate(loops.begin(), loops.end() - 1, loops.end());
}

Nest make_nest(const Space& space, std::span<const Binding> operands, size_t inputs, ir::Space reduced,
               bool positions) {
  const size_t count = operands.size();
  // A leader that is no operand moves through the loops behind the operands.
  const bool led = !space.leader.empty() && reduced != 0;
  const size_t moving = count + (led ? 1 : 0);
  Nest nest;
  nest.leader = led ? count : reduced != 0 || inputs == count ? 0 : inputs;
  const auto stride = [&](size_t o, size_t d) {
    return o == count ? space.leader[d] : operands[o].strides[d];
  };
  const auto has_edge = [&](size_t o, size_t d) {
    return o < count && operands[o].window != nullptr && operands[o].window->has_edge(d, space.sizes[d]);
  };
  const auto is_reduced = [&](size_t d) { return (space.groups[d] & reduced) != 0; };
  const auto moves = [&](size_t d) {
    if (space.sizes[d] == 0) return true;
    for (size_t o = 0; o < moving; ++o) {
      if (stride(o, d) != 0 || has_edge(o, d)) return true;
    }
    return false;
  };
  // Dims of size 1 go, and kept dims that nobody moves along: what is made of a reduction is made once, not
  // for every row. Beside a reduction all kept dims stay or go together, because its vector dim may not
  // depend on what is computed with it.
  bool kept_moves = positions;
  for (size_t d = 0; d < space.sizes.size(); ++d)
    kept_moves = kept_moves || (!is_reduced(d) && space.sizes[d] != 1 && moves(d));
  SmallVector<int64_t, 8> order;
  for (size_t d = 0; d < space.sizes.size(); ++d) {
    if (space.sizes[d] == 1) continue;
    if (is_reduced(d) || positions || (reduced != 0 ? kept_moves : moves(d)))
      order.push_back(static_cast<int64_t>(d));
  }
  // Kept before reduced; slowest first by the leader's strides; neighbours merge.
  sort_few(order, [&](int64_t x, int64_t y) {
    const auto a = static_cast<size_t>(x), b = static_cast<size_t>(y);
    if (is_reduced(a) != is_reduced(b)) return is_reduced(b);
    return !positions && count > 0 && std::abs(stride(nest.leader, a)) > std::abs(stride(nest.leader, b));
  });
  int64_t logical[9] = {};  // by group bit position
  for (auto& l : logical) l = 1;
  Dims logical_of(space.sizes.size(), 1);
  for (size_t d = space.sizes.size(); d-- > 0;) {
    int64_t& l = logical[std::countr_zero(static_cast<unsigned>(space.groups[d]))];
    logical_of[d] = l;
    l *= space.sizes[d];
  }
  Loops& loops = nest.loops;
  for (const int64_t dim : order) {
    const auto d = static_cast<size_t>(dim);
    Loop l{space.sizes[d], space.groups[d], is_reduced(d), Dims(moving), logical_of[d], {}};
    for (size_t o = 0; o < moving; ++o) {
      l.strides[o] = stride(o, d);
      if (has_edge(o, d)) l.edges.push_back({o, operands[o].window->low[d], operands[o].window->high[d]});
    }
    if (!loops.empty()) {
      Loop& p = loops.back();
      bool merges =
          p.group == l.group && p.reduced == l.reduced && (!positions || p.logical == l.logical * l.size);
      for (size_t o = 0; o < moving && merges; ++o) merges = p.strides[o] == l.strides[o] * l.size;
      // Whole rows of a window stay one.
      merges = merges && l.edges.empty() && (p.edges.empty() || p.size * l.size < INT32_MAX);
      if (merges) {
        for (Edge& e : p.edges) {
          e.low *= l.size;
          e.high *= l.size;
        }
        p.size *= l.size;
        p.strides = l.strides;
        p.logical = l.logical;
        continue;
      }
    }
    loops.push_back(std::move(l));
  }
  if (loops.empty() || loops.front().reduced) put_first(loops, Loop{1, kOuter, false, Dims(moving), 0, {}});
  if (reduced != 0 && !loops.back().reduced) loops.push_back(Loop{1, reduced, true, Dims(moving), 0, {}});
  while (nest.kept < loops.size() && !loops[nest.kept].reduced) ++nest.kept;
  if (reduced != 0 && count > 0) {
    const Loop &row = loops.back(), &column = loops[nest.kept - 1];
    nest.along_columns = row.strides[nest.leader] != 1 && row.size != 1 && column.strides[nest.leader] == 1 &&
                         column.size >= kColumns;
  }
  return nest;
}

int dense_loop(const Loops& loops, size_t o) {
  constexpr int64_t kLong = 8;
  if (loops.back().size < kLong) return -1;
  for (size_t d = 0; d + 1 < loops.size(); ++d) {
    if (loops[d].strides[o] == 1 && loops[d].size >= kLong) return static_cast<int>(d);
  }
  return -1;
}

void put_best_last(Loops& loops, size_t inputs, size_t count) {
  constexpr int64_t kVector = 16;
  if (loops.back().size >= kVector) return;
  const auto cost = [&](const Loop& l) {
    double sum = 1;
    for (size_t o = 0; o < count; ++o) {
      const int64_t s = std::abs(l.strides[o]);
      sum += s <= 1 ? 1 : s == 2 ? 3 : kVector;
    }
    return sum / static_cast<double>(std::min(l.size, kVector));
  };
  size_t best = loops.size() - 1;
  for (size_t d = 0; d + 1 < loops.size(); ++d) {
    if (cost(loops[d]) < cost(loops[best])) best = d;
  }
  if (best + 1 == loops.size()) return;
  // An element that is written twice keeps what comes last.
  for (size_t o = inputs; o < count; ++o) {
    Dims sizes, strides;
    for (const Loop& l : loops) {
      sizes.push_back(l.size);
      strides.push_back(l.strides[o]);
    }
    if (may_overlap(sizes, strides)) return;
  }
  if (best == 0 && !cut_first(loops)) return;
  if (best == 0) best = 1;
  std::rotate(loops.begin() + best, loops.begin() + best + 1, loops.end());
}

bool has_short_rows(const Loops& loops, size_t kept, size_t inputs, size_t count) {
  // A kernel is made for each length of a row: the work must be worth it.
  constexpr int64_t kManyRows = 32, kManyElements = 16384;
  const Loop& row = loops.back();
  if (loops.size() != kept + 1 || row.size < 2 || row.size > kShortRow || loops[kept - 1].size < kManyRows)
    return false;
  int64_t elements = 1;
  for (const Loop& l : loops) elements *= l.size;
  if (elements < kManyElements) return false;
  for (size_t o = inputs; o < count; ++o) {
    if (row.strides[o] != 0 && row.size > kShortWrittenRow) return false;
  }
  return true;
}

bool is_steady(const Space& space, std::span<const Binding> operands) {
  const Nest nest = make_nest(space, operands, operands.size(), kRow, false);
  if (nest.loops.size() != nest.kept + 1) return false;
  // Fewer operands merge more kept loops, which never turns a long column loop into a short one.
  const Loop &row = nest.loops.back(), &column = nest.loops[nest.kept - 1];
  return row.strides[nest.leader] == 1 || row.size == 1 || column.strides[nest.leader] != 1 ||
         column.size >= kColumns || nest.kept == 1;
}

}  // namespace lohe::compiler
