#include "record/run.h"

#include <chrono>

#include "base/allocator.h"
#include "base/inline_vector.h"
#include "lohe/error.h"
#include "ops/arg.h"

namespace lohe::record {

using namespace compiler;

namespace {

/// Carries out calls of primitives. They get tensors on stand-ins for the storages: reading the real ones
/// would wait for the trace.
class Calls {
 public:
  /// @param memory of each storage, at the time of the call
  Calls(const Trace& trace, const Storages& storages, const std::vector<char*>& memory)
      : trace_(trace), storages_(storages), memory_(memory), stand_ins_(trace.storages.size()) {}

  void run(const TraceRecord& record) {
    const TraceCall& call = trace_.calls[static_cast<size_t>(record.call)];
    std::vector<TensorPtr> tensors;
    std::vector<TensorImpl*> pointers;
    for (const TraceCall::Tensor& d : call.tensors) {
      tensors.push_back(tensor(record, d));
      pointers.push_back(tensors.back().get());
    }
    std::vector<Arg> args = call.args;
    size_t at = 0;
    for (Arg& a : args) {
      if (a.kind == Arg::kTensor) a.tensor = pointers[at++];
      if (a.kind != Arg::kTensors) continue;
      a.tensors = pointers.data() + at;
      at += static_cast<size_t>(a.count);
    }
    Results results;
    for (const TraceCall::Tensor& d : call.results) results.push(tensor(record, d));
    InlineVector<TensorImpl*, 3> promised;
    for (int o = 0; o < results.size(); ++o) promised.push_back(results[o].get());
    call.op->run(args, results);
    for (int o = 0; o < results.size(); ++o) {
      LOHE_INTERNAL_ASSERT(results[o].get() == promised[static_cast<size_t>(o)], call.op->schema.name,
                           " gave another tensor than the one it was to fill");
    }
  }
  void forget(size_t storage) { stand_ins_[storage] = nullptr; }

 private:
  TensorPtr tensor(const TraceRecord& record, const TraceCall::Tensor& d) {
    if (d.operand < 0) return {};
    const TraceOperand& o = trace_.operands[static_cast<size_t>(record.operand + d.operand)];
    TensorPtr t = TensorImpl::make(stand_in(static_cast<size_t>(o.storage)), d.dtype, d.sizes, o.strides,
                                   o.offset / itemsize(d.dtype));
    t->set_conj(d.conj);
    t->set_neg(d.neg);
    t->wrapped_number = d.wrapped_number;
    return t;
  }
  const Intrusive<Storage>& stand_in(size_t number) {
    Intrusive<Storage>& made = stand_ins_[number];
    if (!made) {
      const bool writable = !storages_[number] || storages_[number]->writable();
      made = Storage::borrow(memory_[number], trace_.storages[number].nbytes, nullptr, nullptr, writable);
    }
    return made;
  }

  const Trace& trace_;
  const Storages& storages_;
  const std::vector<char*>& memory_;
  Storages stand_ins_;
};

}  // namespace

void run_unfused(const Trace& trace, Storages& storages, std::vector<bool>& done) {
  std::vector<size_t> last_use(storages.size());
  for (size_t r = 0; r < trace.records.size(); ++r) {
    for (const TraceOperand& o : trace.operands_of(trace.records[r]))
      last_use[static_cast<size_t>(o.storage)] = r;
  }
  std::vector<char*> memory(storages.size());
  Calls calls(trace, storages, memory);
  for (size_t r = 0; r < trace.records.size(); ++r) {
    const TraceRecord& record = trace.records[r];
    const std::span<const TraceOperand> operands = trace.operands_of(record);
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
      calls.run(record);
    }
    done[r] = true;
    for (const TraceOperand& o : operands) {
      const auto s = static_cast<size_t>(o.storage);
      if (last_use[s] != r || !storages[s] || trace.storages[s].observed) continue;
      calls.forget(s);
      storages[s] = nullptr;
    }
  }
  for (const auto& s : storages) {
    if (s) s->provide();
  }
}

std::atomic<bool> profiling{false};

void run_compiled(const CompiledTrace& compiled, const Trace& trace, Storages& storages,
                  std::vector<bool>& done) {
  struct Arena {
    explicit Arena(int64_t n) : bytes(static_cast<size_t>(n)), memory(n > 0 ? allocate(bytes) : nullptr) {}
    ~Arena() {
      if (memory != nullptr) deallocate(memory, bytes);
    }
    size_t bytes;
    void* memory;
  };
  const Arena arena(compiled.arena_bytes);
  std::vector<char*> memory(storages.size() + 1);
  memory[storages.size()] = static_cast<char*>(arena.memory);
  for (size_t s = 0; s < storages.size(); ++s) {
    switch (compiled.storages[s].home) {
      case CompiledTrace::kOwn:
        storages[s]->provide();
        memory[s] = static_cast<char*>(storages[s]->memory());
        break;
      case CompiledTrace::kArena:
        memory[s] = static_cast<char*>(arena.memory) + compiled.storages[s].offset;
        break;
      case CompiledTrace::kNowhere:
        break;
    }
  }
  Calls calls(trace, storages, memory);
  using Clock = std::chrono::steady_clock;
  const bool timed = profiling.load(std::memory_order_relaxed);
  Clock::time_point last = timed ? Clock::now() : Clock::time_point();
  for (size_t i = 0; i < compiled.steps.size(); ++i) {
    const FusedStep& step = compiled.steps[i];
    if (step.program != nullptr) {
      for (const Launch& l : step.launches) run(l, memory, trace.scalars);
    } else {
      calls.run(trace.records[static_cast<size_t>(step.call)]);
    }
    for (const int32_t r : step.records) done[static_cast<size_t>(r)] = true;
    if (timed) {
      const Clock::time_point now = Clock::now();
      compiled.times.step_ns[i] += std::chrono::nanoseconds(now - last).count();
      last = now;
    }
  }
  if (timed) ++compiled.times.runs;
}

}  // namespace lohe::record
