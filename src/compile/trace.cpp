#include "compile/trace.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/hash.h"
#include "tensor/shape.h"

namespace lohe::compiler {
namespace {

bool same_arg(const Arg& a, const Arg& b) {
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case Arg::kNone:
    case Arg::kTensor:
      return true;
    case Arg::kBool:
    case Arg::kInt:
    case Arg::kFloat:
      return a.integer == b.integer;  // floats by their bits
    case Arg::kComplex:
      return a.integer == b.integer && std::bit_cast<int64_t>(a.imag) == std::bit_cast<int64_t>(b.imag);
    case Arg::kDtype:
      return a.dtype == b.dtype;
    case Arg::kDevice:
      return a.device == b.device;
    case Arg::kTensors:
      return a.count == b.count;
    case Arg::kInts:
    case Arg::kFloats:
    case Arg::kStr:
      return a.count == b.count && std::memcmp(a.chars, b.chars, list_bytes(a)) == 0;
    case Arg::kGenerator:
      return a.generator == b.generator;
  }
  return false;
}

bool same_call(const TraceCall& a, const TraceCall& b) {
  if (a.op != b.op || a.args.size() != b.args.size()) return false;
  for (size_t i = 0; i < a.args.size(); ++i) {
    if (!same_arg(a.args[i], b.args[i])) return false;
  }
  return a.tensors == b.tensors && a.results == b.results;
}

bool same_record(const TraceRecord& a, const TraceRecord& b) {
  return a.program == b.program && a.call == b.call && a.space.sizes == b.space.sizes &&
         a.space.groups == b.space.groups && a.space.iota_base == b.space.iota_base &&
         a.operand == b.operand && a.inputs == b.inputs && a.outputs == b.outputs && a.scalar == b.scalar &&
         a.scalars == b.scalars;
}

}  // namespace

void Trace::clear() {
  records.clear();
  operands.clear();
  storages.clear();
  calls.clear();
  scalars.clear();
  inexact = false;
  hash = 0;
}

Trace Trace::without_numbers() const {
  Trace copy = *this;
  copy.scalars = {};
  return copy;
}

bool Trace::same_work(const Trace& o) const {
  if (hash != o.hash || inexact != o.inexact || records.size() != o.records.size() ||
      storages.size() != o.storages.size() || calls.size() != o.calls.size() || operands != o.operands)
    return false;
  for (size_t i = 0; i < storages.size(); ++i) {
    if (storages[i].fresh != o.storages[i].fresh || storages[i].nbytes != o.storages[i].nbytes) return false;
  }
  for (size_t i = 0; i < records.size(); ++i) {
    if (!same_record(records[i], o.records[i])) return false;
  }
  for (size_t i = 0; i < calls.size(); ++i) {
    if (!same_call(calls[i], o.calls[i])) return false;
  }
  return true;
}

uint64_t Trace::structure_hash() const {
  uint64_t h = hash_combine(records.size() * 2 + (inexact ? 1 : 0), storages.size());
  for (const TraceRecord& r : records) {
    h = hash_combine(h, r.program != nullptr
                            ? reinterpret_cast<uintptr_t>(r.program)
                            : reinterpret_cast<uintptr_t>(calls[static_cast<size_t>(r.call)].op));
  }
  for (const TraceOperand& o : operands) h = h * 31 + static_cast<uint64_t>(o.storage);
  return h;
}

bool Trace::same_structure(const Trace& o) const {
  const auto same_record = [&](const TraceRecord& a, const TraceRecord& b) {
    return a.program == b.program && a.space.groups == b.space.groups && a.operand == b.operand &&
           a.inputs == b.inputs && a.outputs == b.outputs && a.scalar == b.scalar && a.scalars == b.scalars &&
           (a.program != nullptr ||
            calls[static_cast<size_t>(a.call)].op == o.calls[static_cast<size_t>(b.call)].op);
  };
  return inexact == o.inexact &&
         std::equal(records.begin(), records.end(), o.records.begin(), o.records.end(), same_record) &&
         std::equal(operands.begin(), operands.end(), o.operands.begin(), o.operands.end(),
                    [](const TraceOperand& a, const TraceOperand& b) { return a.storage == b.storage; }) &&
         std::equal(storages.begin(), storages.end(), o.storages.begin(), o.storages.end(),
                    [](const TraceStorage& a, const TraceStorage& b) { return a.fresh == b.fresh; });
}

std::string print(const Trace& trace) {
  std::string text = trace.inexact ? "inexact\n" : "";
  for (size_t i = 0; i < trace.storages.size(); ++i) {
    const TraceStorage& s = trace.storages[i];
    text += "storage " + std::to_string(i) + ": " + std::to_string(s.nbytes) + " bytes" +
            (s.fresh ? ", fresh" : "") + (s.observed ? ", observed" : "") + "\n";
  }
  const auto add = [&](std::span<const TraceOperand> operands) {
    for (const TraceOperand& o : operands)
      text += " " + std::to_string(o.storage) + "+" + std::to_string(o.offset) + to_string(o.strides);
  };
  for (size_t i = 0; i < trace.records.size(); ++i) {
    const TraceRecord& r = trace.records[i];
    text += std::to_string(i) + " " + std::string(name_of(trace, r)) + " " + to_string(r.space.sizes) + ":";
    add(trace.inputs(r));
    text += " ->";
    add(trace.outputs(r));
    text += "\n";
  }
  return text;
}

bool writes(const Trace& trace, const TraceRecord& record, int32_t storage) {
  const TraceCall& call = trace.calls[static_cast<size_t>(record.call)];
  size_t at = 0;
  for (size_t p = 0; p < call.args.size(); ++p) {
    const Arg& a = call.args[p];
    const size_t count = a.kind == Arg::kTensor    ? 1
                         : a.kind == Arg::kTensors ? static_cast<size_t>(a.count)
                                                   : 0;
    for (size_t i = 0; i < count; ++i, ++at) {
      const int32_t operand = call.tensors[at].operand;
      if (operand < 0 || p >= call.op->schema.params.size() || !call.op->schema.params[p].written) continue;
      if (trace.operands_of(record)[static_cast<size_t>(operand)].storage == storage) return true;
    }
  }
  return false;
}

std::string_view name_of(const Trace& trace, const TraceRecord& record) {
  if (record.program != nullptr) return record.program->name();
  return trace.calls[static_cast<size_t>(record.call)].op->schema.name;
}

TraceCall make_call(const ops::OpDef& op, Args args) {
  TraceCall call;
  call.op = &op;
  call.args.assign(args.begin(), args.end());
  for (Arg& a : call.args) {
    if (a.kind == Arg::kTensor) a.tensor = nullptr;
    if (a.kind == Arg::kTensors) a.tensors = nullptr;
  }
  call.lists = own_lists(call.args);
  return call;
}

}  // namespace lohe::compiler
