#include "record/run.h"

#include "base/inline_vector.h"
#include "lohe/error.h"
#include "ops/arg.h"

namespace lohe::record {

using namespace compile;

namespace {

/// Carries out calls of primitives. They get tensors on stand-ins for the storages: reading the real ones would wait
/// for the trace.
class Calls {
 public:
  Calls(const Trace& trace, const std::vector<Intrusive<Storage>>& storages)
      : trace_(trace), storages_(storages), stand_ins_(trace.storages.size()) {}

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
      const Storage& s = *storages_[number];
      made = Storage::borrow(s.memory(), s.nbytes(), nullptr, nullptr, s.writable());
    }
    return made;
  }

  const Trace& trace_;
  const std::vector<Intrusive<Storage>>& storages_;
  std::vector<Intrusive<Storage>> stand_ins_;
};

}  // namespace

void run_unfused(const Trace& trace, std::vector<Intrusive<Storage>>& storages, size_t* done) {
  std::vector<size_t> last_use(storages.size());
  for (size_t r = 0; r < trace.records.size(); ++r) {
    const TraceRecord& record = trace.records[r];
    for (int32_t i = 0; i < record.inputs + record.outputs; ++i)
      last_use[static_cast<size_t>(trace.operands[static_cast<size_t>(record.operand + i)].storage)] = r;
  }
  Calls calls(trace, storages);
  for (size_t r = 0; r < trace.records.size(); ++r) {
    *done = r;
    const TraceRecord& record = trace.records[r];
    const std::span operands(trace.operands.data() + record.operand,
                             static_cast<size_t>(record.inputs + record.outputs));
    // A promised block may be read before it is written: torch.empty() gives what happens to be there.
    for (const TraceOperand& o : operands) storages[static_cast<size_t>(o.storage)]->provide();
    if (record.program != nullptr) {
      InlineVector<Binding, 8> bound;
      for (const TraceOperand& o : operands)
        bound.push_back({static_cast<char*>(storages[static_cast<size_t>(o.storage)]->memory()) + o.offset,
                         o.strides});
      const std::span<const Binding> all = bound;
      record.program->run(record.space, all.first(static_cast<size_t>(record.inputs)),
                          all.subspan(static_cast<size_t>(record.inputs)),
                          {trace.scalars.data() + record.scalar, static_cast<size_t>(record.scalars)});
    } else {
      calls.run(record);
    }
    for (const TraceOperand& o : operands) {
      const auto s = static_cast<size_t>(o.storage);
      if (last_use[s] != r || !storages[s] || trace.storages[s].observed) continue;
      calls.forget(s);
      storages[s] = nullptr;
    }
  }
  *done = trace.records.size();
  for (const auto& s : storages) {
    if (s) s->provide();
  }
}

}  // namespace lohe::record
