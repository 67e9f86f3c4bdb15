#include "record/run.h"

#include <chrono>
#include <utility>

#include "backend/meanwhile.h"
#include "base/allocator.h"
#include "base/inline_vector.h"
#include "compile/calls.h"
#include "profile/session.h"

namespace lohe::record {

using namespace compiler;

void run_unfused(const Trace& trace, Storages& storages, std::vector<bool>& done) {
  std::vector<size_t> last_use(storages.size());
  for (size_t r = 0; r < trace.records.size(); ++r) {
    for (const TraceOperand& o : trace.operands_of(trace.records[r]))
      last_use[static_cast<size_t>(o.storage)] = r;
  }
  std::vector<char*> memory(storages.size());
  std::vector<CallFrame::Source> sources;
  for (size_t r = 0; r < trace.records.size(); ++r) {
    const TraceRecord& record = trace.records[r];
    if (record.program == nullptr) sources.push_back({static_cast<int32_t>(r), trace.operands_of(record)});
  }
  CallFrame calls(trace, sources);
  size_t next_call = 0;
  profile::Session* session = profile::current();
  for (size_t r = 0; r < trace.records.size(); ++r) {
    const TraceRecord& record = trace.records[r];
    const std::span<const TraceOperand> operands = trace.operands_of(record);
    const profile::Scope scope(session,
                               record.program != nullptr ? profile::Event::kKernel : profile::Event::kCall,
                               [&] { return name_of(trace, record); });
    for (const TraceOperand& o : operands) {
      // A promised block may be read before it is written: torch.empty() gives what happens to be there.
      const auto s = static_cast<size_t>(o.storage);
      storages[s]->provide();
      memory[s] = static_cast<char*>(storages[s]->memory());
    }
    if (record.program != nullptr) {
      InlineVector<Binding, 8> bound;
      for (const TraceOperand& o : operands)
        bound.push_back({memory[static_cast<size_t>(o.storage)] + o.offset, o.strides});
      const std::span<const Binding> all = bound;
      record.program->run(record.space, all.first(static_cast<size_t>(record.inputs)),
                          all.subspan(static_cast<size_t>(record.inputs)),
                          {trace.scalars.data() + record.scalar, static_cast<size_t>(record.scalars)});
    } else {
      calls.run(next_call++, memory);
    }
    done[r] = true;
    for (const TraceOperand& o : operands) {
      const auto s = static_cast<size_t>(o.storage);
      if (last_use[s] == r && !trace.storages[s].observed) storages[s] = nullptr;
    }
  }
  for (const auto& s : storages) {
    if (s) s->provide();
  }
}

namespace {

class Arena {
 public:
  Arena(const CompiledTrace& compiled, std::span<char*> memory)
      : bytes_(static_cast<size_t>(compiled.arena_bytes)),
        begin_(bytes_ > 0 ? static_cast<char*>(allocate(bytes_)) : nullptr) {
    memory[compiled.storages.size()] = begin_;
    for (size_t s = 0; s < compiled.storages.size(); ++s) {
      if (compiled.storages[s].home == CompiledTrace::kArena)
        memory[s] = begin_ + compiled.storages[s].offset;
    }
  }
  ~Arena() {
    if (begin_ != nullptr) deallocate(begin_, bytes_);
  }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

 private:
  size_t bytes_;
  char* begin_;
};

class Blocks {
 public:
  Blocks(const CompiledTrace& compiled, std::span<char*> memory) : compiled_(compiled), memory_(memory) {}
  ~Blocks() {
    for (size_t s = 0; held_ > 0; ++s) {
      if (compiled_.storages[s].home == CompiledTrace::kBlock && memory_[s] != nullptr) end(s);
    }
  }
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;

  void begin(size_t s) {
    memory_[s] = static_cast<char*>(allocate(static_cast<size_t>(compiled_.storages[s].bytes)));
    ++held_;
  }
  void end(size_t s) {
    deallocate(std::exchange(memory_[s], nullptr), static_cast<size_t>(compiled_.storages[s].bytes));
    --held_;
  }

 private:
  const CompiledTrace& compiled_;
  std::span<char*> memory_;
  int held_ = 0;
};

using Far = InlineVector<backend::FarMemory, CompiledTrace::Turn::kMostFar>;

/// Where the storages lie that a turn's call may fetch, of those that lie anywhere by now.
void find_far(const CompiledTrace& compiled, const CompiledTrace::Turn& turn, const Trace& trace,
              const Storages& storages, std::span<char* const> memory, Far& far) {
  far.clear();
  for (const int32_t n : turn.far) {
    const auto s = static_cast<size_t>(n);
    const char* at = memory[s];
    if (at == nullptr && compiled.storages[s].home == CompiledTrace::kOwn && storages[s])
      at = static_cast<const char*>(storages[s]->memory());
    if (at != nullptr) far.push_back({at, trace.storages[s].nbytes});
  }
}

}  // namespace

std::atomic<bool> profiling{false};

void run_compiled(const CompiledTrace& compiled, const Trace& trace, std::span<const Scalar> numbers,
                  Storages& storages, std::vector<bool>& done) {
  std::vector<char*> memory(storages.size() + 1);
  const Arena arena(compiled, memory);
  Blocks blocks(compiled, memory);
  const CompiledTrace::FrameUse frame(compiled, trace);
  profile::Session* session = profile::current();
  size_t next_call = 0;
  Far far;
  using Clock = std::chrono::steady_clock;
  const bool timed = profiling.load(std::memory_order_relaxed);
  Clock::time_point last = timed ? Clock::now() : Clock::time_point();
  for (size_t t = 0; t < compiled.turns.size(); ++t) {
    const CompiledTrace::Turn& turn = compiled.turns[t];
    const FusedStep& step = compiled.steps[turn.first];
    for (const int32_t n : turn.begin) {
      const auto s = static_cast<size_t>(n);
      storages[s]->provide();
      memory[s] = static_cast<char*>(storages[s]->memory());
    }
    for (const int32_t n : turn.begin_blocks) blocks.begin(static_cast<size_t>(n));
    const profile::Scope scope(
        session, step.program != nullptr ? profile::Event::kKernel : profile::Event::kCall, [&] {
          return step.program != nullptr ? std::string_view(step.program->name())
                                         : name_of(trace, trace.records[static_cast<size_t>(step.call)]);
        });
    if (!turn.together.empty()) {
      run_together(turn.together, memory, numbers);
    } else if (step.program != nullptr) {
      for (const Launch& l : step.launches) run(l, memory, numbers);
    } else {
      find_far(compiled, turn, trace, storages, memory, far);
      const backend::Meanwhile meanwhile(far);
      frame->run(next_call++, memory);
    }
    for (size_t i = turn.first; i < turn.first + turn.count; ++i) {
      for (const int32_t r : compiled.steps[i].records) done[static_cast<size_t>(r)] = true;
    }
    for (const int32_t n : turn.end_blocks) blocks.end(static_cast<size_t>(n));
    // Recipes may need what this program does not any more.
    for (const int32_t n : turn.end) {
      const auto s = static_cast<size_t>(n);
      if (!trace.storages[s].observed && compiled.recipes.empty()) storages[s] = nullptr;
    }
    if (timed) {
      const Clock::time_point now = Clock::now();
      compiled.times.turn_ns[t] += std::chrono::nanoseconds(now - last).count();
      last = now;
    }
  }
  // torch.empty(): nothing is written.
  for (size_t s = 0; s < storages.size(); ++s) {
    if (compiled.storages[s].home == CompiledTrace::kOwn && storages[s]) storages[s]->provide();
  }
  if (timed) ++compiled.times.runs;
}

}  // namespace lohe::record
