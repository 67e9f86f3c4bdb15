#include "compile/calls.h"

#include "lohe/error.h"

namespace lohe::compiler {

CallFrame::CallFrame(const Trace& trace, std::span<const Source> calls) : stand_ins_(trace.storages.size()) {
  for (const Source& source : calls) {
    const TraceRecord& record = trace.records[static_cast<size_t>(source.record)];
    const TraceCall& from = trace.calls[static_cast<size_t>(record.call)];
    Call& call = calls_.emplace_back();
    call.op = from.op;
    call.lists = from.lists;
    call.args = from.args;
    for (const TraceCall::Tensor& d : from.tensors) {
      call.tensors.push_back(tensor(trace, source, d, call));
      call.pointers.push_back(call.tensors.back().get());
    }
    size_t at = 0;
    for (Arg& a : call.args) {
      if (a.kind == Arg::kTensor) a.tensor = call.pointers[at++];
      if (a.kind != Arg::kTensors) continue;
      a.tensors = call.pointers.data() + at;
      at += static_cast<size_t>(a.count);
    }
    for (const TraceCall::Tensor& d : from.results) call.results.push_back(tensor(trace, source, d, call));
  }
}

TensorPtr CallFrame::tensor(const Trace& trace, const Source& source, const TraceCall::Tensor& d,
                            Call& call) {
  if (d.operand < 0) return {};
  const TraceOperand& o = source.operands[static_cast<size_t>(d.operand)];
  const auto number = static_cast<size_t>(o.storage);
  call.storages.push_back(number);
  Intrusive<Storage>& stand_in = stand_ins_[number];
  if (!stand_in)
    stand_in = Storage::borrow(nullptr, trace.storages[number].nbytes, nullptr, nullptr, /*writable=*/true);
  TensorPtr t = TensorImpl::make(stand_in, d.dtype, d.sizes, o.strides, o.offset / itemsize(d.dtype));
  t->set_conj(d.conj);
  t->set_neg(d.neg);
  t->wrapped_number = d.wrapped_number;
  return t;
}

void CallFrame::run(size_t number, std::span<char* const> memory) {
  Call& call = calls_[number];
  for (const size_t s : call.storages) stand_ins_[s]->move_borrowed(memory[s]);
  Results results;
  for (const TensorPtr& r : call.results) results.push(r);
  call.op->run(call.args, results);
  for (size_t o = 0; o < call.results.size(); ++o) {
    LOHE_INTERNAL_ASSERT(results[static_cast<int>(o)].get() == call.results[o].get(), call.op->schema.name,
                         " gave another tensor than the one it was to fill");
  }
}

}  // namespace lohe::compiler
