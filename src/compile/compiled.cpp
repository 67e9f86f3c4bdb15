#include "compile/compiled.h"

#include <algorithm>
#include <chrono>
#include <span>

#include "base/dump.h"
#include "compile/direct_results.h"
#include "compile/feed.h"
#include "compile/foresight.h"
#include "tensor/shape.h"

namespace lohe::compiler {
namespace {

constexpr int64_t kAlignment = 64;
/// From here on a buffer is a block of the heap instead of a part of the arena: then results that outlive the
/// program, which cannot lie in the arena, take memory that has just been used, and is near. (GPT of six
/// layers, whose weights' gradients are such results: 3 % of a step, and 27 MiB less of 380 at the peak.)
constexpr int64_t kBlock = 1 << 20;

/// A storage that only some steps need.
struct Interval {
  size_t storage;
  int64_t bytes;
  size_t first, last;  ///< turns
};

/// Offsets: the largest first, each in the smallest gap that fits among those alive at the same time
/// (Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference", 2020).
/// @return bytes in all
int64_t plan(std::vector<Interval> intervals, CompiledTrace::Home home, bool share, CompiledTrace& compiled) {
  int64_t bytes = 0;
  std::stable_sort(intervals.begin(), intervals.end(),
                   [](const Interval& a, const Interval& b) { return a.bytes > b.bytes; });
  std::vector<const Interval*> placed;  // by offset
  const auto offset_of = [&](const Interval& i) { return compiled.storages[i.storage].offset; };
  for (const Interval& i : intervals) {
    int64_t best = -1, best_gap = 0, end = 0;
    for (const Interval* p : placed) {
      if (share && (p->last < i.first || i.last < p->first)) continue;
      const int64_t gap = offset_of(*p) - end;
      if (gap >= i.bytes && (best < 0 || gap < best_gap)) {
        best = end;
        best_gap = gap;
      }
      end = std::max(end, offset_of(*p) + p->bytes);
    }
    if (best < 0) best = end;
    compiled.storages[i.storage] = {home, best, i.bytes, i.first, i.last};
    bytes = std::max(bytes, best + i.bytes);
    placed.insert(
        std::upper_bound(placed.begin(), placed.end(), &i,
                         [&](const Interval* a, const Interval* b) { return offset_of(*a) < offset_of(*b); }),
        &i);
  }
  return bytes;
}

/// Makes every kernel of a step. Buffers' bases are numbers of operands for now.
/// @return bytes for buffers inside the step
int64_t prepare(FusedStep& step) {
  if (step.program == nullptr) return 0;
  std::vector<Binding> bound;
  for (size_t i = 0; i < step.operands.size(); ++i) {
    // Operands in one place have one address: the program may ask.
    size_t first = 0;
    while (step.operands[first].storage != step.operands[i].storage ||
           step.operands[first].offset != step.operands[i].offset)
      ++first;
    const Window* window = i < step.windows.size() ? &step.windows[i] : nullptr;
    bound.push_back({Preparation::operand(static_cast<int32_t>(first)), step.operands[i].strides, window});
  }
  Preparation preparation;
  Space space = step.space;
  space.preparation = &preparation;
  const std::span<const Binding> all(bound);
  step.program->run(space, all.first(static_cast<size_t>(step.inputs)),
                    all.subspan(static_cast<size_t>(step.inputs)), {});
  step.launches = std::move(preparation.launches);
  for (Launch& l : step.launches) {
    for (Launch::Number& n : l.numbers) n.scalar = step.scalars[static_cast<size_t>(n.scalar)];
  }
  return preparation.temporary_bytes;
}

/// Whether a step may share a turn: one launch of a kernel that cannot fail.
/// @param makes whether it is the first to use a buffer of the arena
bool may_share(const FusedStep& step, bool makes) {
  // A long one keeps all threads busy by itself, and what it makes is needed for a shorter time alone. Where
  // it changes only what is there, as an optimizer does, a region of many steps is faster nevertheless: each
  // thread goes through long runs of memory, and waits for the other ones once.
  constexpr int64_t kLong = 64;
  if (step.program == nullptr || step.launches.size() != 1) return false;
  const Launch& l = step.launches[0];
  return l.scratch.empty() && l.graph->checks.empty() && l.feed.maker == nullptr &&
         (!makes || l.count / l.grain < kLong);
}

/// Consecutive steps of one kernel, none of which writes what another uses.
std::vector<CompiledTrace::Turn> take_turns(const Trace& trace, const std::vector<FusedStep>& steps) {
  std::vector<CompiledTrace::Turn> turns;
  const size_t storages = trace.storages.size();
  std::vector<size_t> used(storages, SIZE_MAX), written(storages, SIZE_MAX);  // the last turn that did
  bool open = false;  // whether another step may join the last turn
  for (size_t i = 0; i < steps.size(); ++i) {
    const FusedStep& step = steps[i];
    const auto inputs = static_cast<size_t>(step.inputs);
    const bool makes =
        std::any_of(step.operands.begin() + step.inputs, step.operands.end(), [&](const TraceOperand& o) {
          const auto s = static_cast<size_t>(o.storage);
          return used[s] == SIZE_MAX && trace.storages[s].fresh && !trace.storages[s].observed;
        });
    const bool shares = may_share(step, makes);
    bool joins = open && shares && steps[i - 1].program == step.program &&
                 steps[i - 1].launches[0].kernel == step.launches[0].kernel;
    open = shares;
    for (size_t o = 0; joins && o < step.operands.size(); ++o) {
      const auto s = static_cast<size_t>(step.operands[o].storage);
      joins = written[s] != turns.size() - 1 && (o < inputs || used[s] != turns.size() - 1);
    }
    if (joins)
      ++turns.back().count;
    else
      turns.emplace_back().first = i;
    for (size_t o = 0; o < step.operands.size(); ++o) {
      const auto s = static_cast<size_t>(step.operands[o].storage);
      used[s] = turns.size() - 1;
      if (o >= inputs) written[s] = turns.size() - 1;
    }
  }
  for (CompiledTrace::Turn& t : turns) {
    for (size_t i = 0; t.count > 1 && i < t.count; ++i) t.together.push_back(&steps[t.first + i].launches[0]);
  }
  return turns;
}

/// From operands to where they lie.
void settle_buffers(CompiledTrace& compiled, int64_t temporaries) {
  const auto arena = static_cast<int32_t>(compiled.storages.size());
  const auto settle = [&](const FusedStep& step, Launch& l) {
    for (Launch::Buffer& b : l.buffers) {
      if (b.base == Launch::kFed) continue;
      if (b.base == Preparation::kTemporary) {
        b = {arena, b.offset + temporaries};
        continue;
      }
      const TraceOperand& o = step.operands[static_cast<size_t>(b.base)];
      const CompiledTrace::Placement& p = compiled.storages[static_cast<size_t>(o.storage)];
      b.offset += o.offset + (p.home == CompiledTrace::kArena ? p.offset : 0);
      b.base = p.home == CompiledTrace::kArena ? arena : o.storage;
    }
  };
  for (FusedStep& step : compiled.steps) {
    const Launch* maker = nullptr;  // of several launches
    for (Launch& l : step.launches) {
      settle(step, l);
      if (l.feed.maker == nullptr || l.feed.maker.get() == maker) continue;
      settle(step, *l.feed.maker);
      maker = l.feed.maker.get();
    }
  }
}

std::string print_steps(const Trace& trace, const std::vector<FusedStep>& steps) {
  std::string text;
  for (size_t i = 0; i < steps.size(); ++i) {
    const FusedStep& step = steps[i];
    const std::string_view name = step.program != nullptr
                                      ? std::string_view(step.program->name())
                                      : name_of(trace, trace.records[static_cast<size_t>(step.call)]);
    text += "step " + std::to_string(i) + ": " + (step.program != nullptr ? "kernel " : "call ") +
            std::string(name) + " " + to_string(step.space.sizes) + ", records";
    for (const int32_t r : step.records) text += " " + std::to_string(r);
    text += "\n";
    if (step.program != nullptr) text += ir::print(step.program->graph()) + "\n";
  }
  return text;
}

}  // namespace

CompiledTrace::FrameUse::FrameUse(const CompiledTrace& program, const Trace& trace) : program_(program) {
  {
    const std::lock_guard lock(program.frames_mutex_);
    if (!program.frames_.empty()) {
      frame_ = std::move(program.frames_.back());
      program.frames_.pop_back();
      return;
    }
  }
  std::vector<CallFrame::Source> calls;
  for (const FusedStep& step : program.steps) {
    if (step.program == nullptr) calls.push_back({step.call, step.operands});
  }
  frame_ = std::make_unique<CallFrame>(trace, calls);
}

CompiledTrace::FrameUse::~FrameUse() {
  const std::lock_guard lock(program_.frames_mutex_);
  program_.frames_.push_back(std::move(frame_));
}

bool CompiledTrace::serves(const Trace& trace) const {
  for (const Recipe& r : recipes) {
    if (!trace.storages[static_cast<size_t>(r.storage)].kept) return false;
  }
  for (size_t s = 0; s < observed.size(); ++s) {
    if (trace.storages[s].observed && trace.storages[s].fresh && !observed[s] &&
        std::none_of(recipes.begin(), recipes.end(),
                     [&](const Recipe& r) { return static_cast<size_t>(r.storage) == s; }))
      return false;
  }
  return true;
}

std::unique_ptr<CompiledTrace> compile_trace(const Trace& trace, const CompileOptions& options,
                                             Grouping& grouping) {
  const auto start = std::chrono::steady_clock::now();
  auto made = std::make_unique<CompiledTrace>();
  if (dumps_ir()) dump_ir("trace", "trace", print(trace));
  made->steps = fuse(trace, options.fuse, grouping);
  if (options.fuse) place_results(trace, made->steps);
  if (dumps_ir()) dump_ir("program", "program", print_steps(trace, made->steps));
  int64_t temporary_bytes = 0;
  for (FusedStep& step : made->steps) temporary_bytes = std::max(temporary_bytes, prepare(step));
  if (options.fuse) feed_reductions(trace, made->steps);
  const size_t count = trace.storages.size();
  made->storages.resize(count);
  made->turns = take_turns(trace, made->steps);
  std::vector<Interval> intervals(count);
  std::vector<bool> used(count);
  for (size_t t = 0; t < made->turns.size(); ++t) {
    const CompiledTrace::Turn& turn = made->turns[t];
    for (const FusedStep& step : std::span(made->steps).subspan(turn.first, turn.count)) {
      for (const TraceOperand& o : step.operands) {
        const auto s = static_cast<size_t>(o.storage);
        const int64_t bytes = (trace.storages[s].nbytes + kAlignment - 1) / kAlignment * kAlignment;
        if (!used[s]) intervals[s] = {s, bytes, t, t};
        intervals[s].last = t;
        used[s] = true;
      }
    }
  }
  std::vector<Interval> in_arena, in_blocks;
  for (size_t s = 0; s < count; ++s) {
    made->observed.push_back(trace.storages[s].observed);
    if (!trace.storages[s].fresh || trace.storages[s].observed) {
      CompiledTrace::Placement& own = made->storages[s];
      own.home = CompiledTrace::kOwn;
      if (!used[s]) continue;
      own.first_turn = intervals[s].first;
      own.last_turn = intervals[s].last;
      made->turns[own.first_turn].begin.push_back(static_cast<int32_t>(s));
      made->turns[own.last_turn].end.push_back(static_cast<int32_t>(s));
    } else if (used[s] && intervals[s].bytes >= kBlock && options.plan_memory) {
      in_blocks.push_back(intervals[s]);
      made->turns[intervals[s].first].begin_blocks.push_back(static_cast<int32_t>(s));
      made->turns[intervals[s].last].end_blocks.push_back(static_cast<int32_t>(s));
    } else if (used[s]) {
      in_arena.push_back(intervals[s]);
    }
  }
  made->arena_bytes = plan(std::move(in_arena), CompiledTrace::kArena, options.plan_memory, *made);
  made->block_bytes = plan(std::move(in_blocks), CompiledTrace::kBlock, true, *made);
  settle_buffers(*made, made->arena_bytes);
  if (options.fuse) foresee(trace, *made);
  made->arena_bytes += temporary_bytes;
  made->times.turn_ns = std::vector<std::atomic<int64_t>>(made->turns.size());
  made->compile_ns = std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count();
  return made;
}

}  // namespace lohe::compiler
