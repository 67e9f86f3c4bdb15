#pragma once

#include <memory>
#include <vector>

#include "compile/trace.h"

/// Calls of primitives inside a program, ready to be made again and again.
namespace lohe::compiler {

/// Arguments and result tensors of calls, on stand-ins for the trace's storages: a primitive that reads the
/// real ones would wait for the trace that it is part of. One frame serves one run at a time.
class CallFrame {
 public:
  /// A call among the trace's records, and where its tensors lie.
  struct Source {
    int32_t record;
    std::span<const TraceOperand> operands;
  };
  /// @param calls in the order of their later numbers
  CallFrame(const Trace& trace, std::span<const Source> calls);
  /// @param memory where the storages lie now, by number
  /// @throws what the primitive raises.
  void run(size_t call, std::span<char* const> memory);

 private:
  struct Call {
    const ops::OpDef* op;
    std::shared_ptr<int64_t[]> lists;  ///< what lists and strings in `args` point to
    std::vector<TensorPtr> tensors;    ///< keeps `pointers`
    std::vector<TensorImpl*> pointers;
    std::vector<Arg> args;
    std::vector<TensorPtr> results;
    std::vector<size_t> storages;  ///< of its tensors
  };
  TensorPtr tensor(const Trace& trace, const Source& source, const TraceCall::Tensor& d, Call& call);

  std::vector<Intrusive<Storage>> stand_ins_;  ///< by storage; null: no call concerns it
  std::vector<Call> calls_;
};

}  // namespace lohe::compiler
