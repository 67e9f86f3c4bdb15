#pragma once

#include <memory>
#include <string_view>
#include <vector>

#include "compile/program.h"
#include "ops/op_def.h"

/// What a recorder writes down: work on storages in program order, with nothing left to decide but the
/// numbers.
namespace lohe::compiler {

/// An operand of a program before it is run or written down: strides over the program's space, in elements.
struct Place {
  TensorImpl* tensor = nullptr;
  Dims strides;
};

/// Where an operand lies. Strides are in elements: of a program's operand over its space, of a call's tensor
/// over its own dims.
struct TraceOperand {
  TraceOperand() noexcept {}  // of its own, so that emplace_back() does not clear the whole first
  TraceOperand(int32_t number, int64_t bytes, const Dims& steps)
      : storage(number), offset(bytes), strides(steps) {}
  int32_t storage = -1;  ///< number in the trace; -1: no tensor
  int64_t offset = 0;    ///< bytes
  Dims strides;
  bool operator==(const TraceOperand&) const = default;
};

/// A primitive's call: arguments with memory of their own, tensors by description.
struct TraceCall {
  struct Tensor {
    int32_t operand = -1;  ///< of the record; -1: null in a list
    Dtype dtype = Dtype::kUndefined;
    bool conj = false, neg = false, wrapped_number = false;
    Dims sizes;
    bool operator==(const Tensor&) const = default;
  };
  const ops::OpDef* op = nullptr;
  std::vector<Arg> args;                 ///< those of kind kTensor and kTensors point to nothing
  std::shared_ptr<int64_t[]> lists;      ///< what lists and strings in `args` point to
  std::vector<Tensor> tensors, results;  ///< in the order of the arguments
};

/// A program over a space, or a call.
struct TraceRecord {
  TraceRecord() noexcept {}  // as TraceOperand's
  Program* program = nullptr;
  int32_t call = -1;  ///< number of the call, where `program` is null
  Space space;
  int32_t operand = 0;  ///< the first one; inputs, then outputs
  int32_t inputs = 0, outputs = 0;
  int32_t scalar = 0, scalars = 0;  ///< the first one, how many; records may have them in common
};

struct TraceStorage {
  int64_t nbytes = 0;
  bool fresh = false;     ///< made by the trace: nothing is in it before its first write
  bool observed = false;  ///< somebody can read it after the trace
  bool kept = false;      ///< the tape alone can, as far as is known
};

struct Trace {
  std::vector<TraceRecord> records;
  std::vector<TraceOperand> operands;
  std::vector<TraceStorage> storages;
  std::vector<TraceCall> calls;
  std::vector<Scalar> scalars;  ///< run-time numbers: not part of what two traces have in common
  bool inexact = false;         ///< its program may round differently, see relax.h
  uint64_t hash = 0;            ///< of everything but scalars and `observed`

  std::span<const TraceOperand> inputs(const TraceRecord& r) const {
    return {operands.data() + r.operand, static_cast<size_t>(r.inputs)};
  }
  std::span<const TraceOperand> outputs(const TraceRecord& r) const {
    return {operands.data() + r.operand + r.inputs, static_cast<size_t>(r.outputs)};
  }
  /// Both.
  std::span<const TraceOperand> operands_of(const TraceRecord& r) const {
    return {operands.data() + r.operand, static_cast<size_t>(r.inputs + r.outputs)};
  }
  /// A copy, for comparing with: run-time numbers are left out.
  Trace without_numbers() const;
  void clear();
  /// Equal but for scalars and for what is observed.
  bool same_work(const Trace& other) const;
  /// Of what does not depend on sizes: which operations, on which storages.
  uint64_t structure_hash() const;
  /// Equal but for sizes, strides and offsets, scalars, and for what is observed.
  bool same_structure(const Trace& other) const;
};

/// Whether a call writes one of its arguments that lies there.
bool writes(const Trace& trace, const TraceRecord& call, int32_t storage);
/// Of the op, or of the program made for it.
std::string_view name_of(const Trace& trace, const TraceRecord& record);
/// One line a record: its place, name, sizes, and operands as storage+offset[strides].
std::string print(const Trace& trace);
/// Takes a call's arguments; lists and strings are copied.
TraceCall make_call(const ops::OpDef& op, Args args);

}  // namespace lohe::compiler
