#include "compile/feed.h"

#include <algorithm>
#include <limits>

#include "base/env.h"

namespace lohe::compiler {
namespace {

/// What is smaller stays in second-level caches from one step to the next. 2 MiB.
int64_t large_bytes() {
  static const int64_t bytes =
      env_int("LOHE_DEBUG_FEED_FROM", 2 << 20, 0, std::numeric_limits<int64_t>::max());
  return bytes;
}
/// Pieces are cut at the maker's indices, and what one begins the last one ended is made twice.
constexpr int64_t kMostStep = Launch::Feed::kPiece / 8;

size_t index_of(int32_t storage) { return static_cast<size_t>(storage); }

/// Uses of each storage, by number of steps.
std::vector<int> count_uses(const Trace& trace, const std::vector<FusedStep>& steps) {
  std::vector<int> uses(trace.storages.size());
  std::vector<size_t> last(trace.storages.size(), SIZE_MAX);
  for (size_t i = 0; i < steps.size(); ++i) {
    for (const TraceOperand& o : steps[i].operands) {
      if (o.storage < 0 || last[index_of(o.storage)] == i) continue;
      last[index_of(o.storage)] = i;
      ++uses[index_of(o.storage)];
    }
  }
  return uses;
}

/// Whether the step is one launch that makes one large storage, index by index, and nothing else.
bool makes_pieces(const Trace& trace, const FusedStep& step) {
  if (step.program == nullptr || step.launches.size() != 1 ||
      step.operands.size() != static_cast<size_t>(step.inputs) + 1)
    return false;
  const Launch& l = step.launches[0];
  const TraceOperand& made = step.operands.back();
  const TraceStorage& storage = trace.storages[index_of(made.storage)];
  if (!l.scratch.empty() || !l.graph->checks.empty() || !storage.fresh || storage.observed ||
      storage.nbytes < large_bytes() || made.offset != 0 ||
      std::any_of(
          step.operands.begin(), step.operands.end() - 1,
          [&](const TraceOperand& o) { return o.storage == made.storage; }))
    return false;
  const Launch::Extent& e = l.extents.back();
  return l.buffers.back().base == step.inputs && e.dense && e.step == e.span && e.step <= kMostStep &&
         l.count * e.step == storage.nbytes;
}

/// Whether `step` reads operand `x` once, block by block: one launch, and perhaps one for what is left.
bool takes_pieces(const FusedStep& step, int32_t x) {
  int passes = 0;
  for (const Launch& l : step.launches) {
    int reads = 0;
    for (size_t b = 0; b < l.buffers.size(); ++b) {
      if (l.buffers[b].base != x) continue;
      const Launch::Extent& e = l.extents[b];
      if (++reads > 1 || !e.forward || e.span > Launch::Feed::kPiece) return false;
      if (l.count > 1 && (e.step < e.span || ++passes > 1)) return false;
    }
  }
  return passes == 1;
}

/// Whether a step from `first` on, up to `last`, writes what `maker` reads.
bool is_overwritten(const Trace& trace, const std::vector<FusedStep>& steps, const FusedStep& maker,
                    size_t first, size_t last) {
  for (size_t i = first; i <= last; ++i) {
    for (size_t o = 0; o < steps[i].operands.size(); ++o) {
      const int32_t s = steps[i].operands[o].storage;
      const bool read = std::any_of(maker.operands.begin(), maker.operands.end() - 1,
                                    [&](const TraceOperand& m) { return m.storage == s; });
      if (!read || s < 0) continue;
      if (steps[i].program == nullptr ? writes(trace, trace.records[index_of(steps[i].call)], s)
                                      : o >= index_of(steps[i].inputs))
        return true;
    }
  }
  return false;
}

/// Makes `maker` part of `step`, which reads what it makes as operand `x`, and as no other.
void join(const FusedStep& maker, FusedStep& step, int32_t x) {
  const auto shift = static_cast<int32_t>(maker.inputs);
  auto launch = std::make_shared<Launch>(maker.launches[0]);
  for (Launch& l : step.launches) {
    for (size_t b = 0; b < l.buffers.size(); ++b) {
      Launch::Buffer& buffer = l.buffers[b];
      if (buffer.base == Preparation::kTemporary) continue;
      if (buffer.base == x) {
        const int64_t begin = buffer.offset;
        buffer = {Launch::kFed, 0};
        l.feed = {launch, launch->buffers.size() - 1, b, begin};
      } else {
        buffer.base += shift - (buffer.base > x ? 1 : 0);
      }
    }
  }
  launch->buffers.back() = {Launch::kFed, 0};
  step.operands.erase(step.operands.begin() + x);
  step.windows.clear();  // they are in the launches
  step.operands.insert(step.operands.begin(), maker.operands.begin(), maker.operands.end() - 1);
  step.inputs += shift - 1;
  step.rewrites.reciprocals += maker.rewrites.reciprocals;
  step.rewrites.fmas += maker.rewrites.fmas;
  step.rewrites.roundings += maker.rewrites.roundings;
  step.records.insert(step.records.begin(), maker.records.begin(), maker.records.end());
}

}  // namespace

void feed_reductions(const Trace& trace, std::vector<FusedStep>& steps) {
  if (std::none_of(steps.begin(), steps.end(), [&](const FusedStep& s) { return makes_pieces(trace, s); }))
    return;
  const std::vector<int> uses = count_uses(trace, steps);
  for (size_t m = 0; m < steps.size(); ++m) {
    const FusedStep& maker = steps[m];
    if (!makes_pieces(trace, maker)) continue;
    const int32_t made = maker.operands.back().storage;
    if (uses[index_of(made)] != 2) continue;
    const auto reads = [&](const FusedStep& s) {
      return std::any_of(s.operands.begin(), s.operands.end(),
                         [&](const TraceOperand& o) { return o.storage == made; });
    };
    const auto reader = std::find_if(steps.begin() + static_cast<int64_t>(m) + 1, steps.end(), reads);
    if (reader == steps.end() || reader->program == nullptr || reader->launches.size() < 2) continue;
    FusedStep& step = *reader;
    // The only one of its operands there, and an input that it reads from the beginning on.
    const auto there = [&](const TraceOperand& o) { return o.storage == made; };
    const auto x = std::find_if(step.operands.begin(), step.operands.end(), there) - step.operands.begin();
    if (x >= step.inputs || step.operands[static_cast<size_t>(x)].offset != 0 ||
        std::count_if(step.operands.begin(), step.operands.end(), there) != 1 ||
        (!step.windows.empty() && !step.windows[static_cast<size_t>(x)].everywhere()) ||
        std::any_of(step.launches.begin(), step.launches.end(),
                    [](const Launch& l) { return l.feed.maker != nullptr; }))
      continue;
    if (!takes_pieces(step, static_cast<int32_t>(x)) ||
        is_overwritten(trace, steps, maker, m + 1, static_cast<size_t>(reader - steps.begin())))
      continue;
    join(maker, step, static_cast<int32_t>(x));
    steps.erase(steps.begin() + static_cast<int64_t>(m));
    --m;
  }
}

}  // namespace lohe::compiler
