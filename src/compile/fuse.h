#pragma once

#include <memory>
#include <vector>

#include "compile/trace.h"

/// From a trace to steps: records that share data and go over one iteration space become one program.
namespace lohe::compiler {

/// One program over one space, or one call.
struct FusedStep {
  Program* program = nullptr;    ///< of a record, or `own`
  std::unique_ptr<Program> own;  ///< made of several records
  int32_t call = -1;             ///< record of a call, where `program` is null
  Space space;
  std::vector<TraceOperand> operands;  ///< inputs, then outputs
  int32_t inputs = 0;
  std::vector<int32_t> scalars;  ///< numbers of the trace, in the order of the program's
  std::vector<int32_t> records;  ///< that it carries out
  /// Of its program. Bases are numbers of storages, then the arena.
  std::vector<Launch> launches;
};

/// @param fuse false: every record stays a step of its own
std::vector<FusedStep> fuse(const Trace& trace, bool fuse = true);

}  // namespace lohe::compiler
