#pragma once

#include <memory>
#include <vector>

#include "compile/access.h"
#include "compile/relax.h"
#include "compile/trace.h"

/// From a trace to steps: records that share data and go over one iteration space become one program.
namespace lohe::compiler {

/// One program over one space, or one call.
struct FusedStep {
  Program* program = nullptr;    ///< of a record, or `own`
  std::shared_ptr<Program> own;  ///< made of several records, or of one by rewriting
  Rewrites rewrites;             ///< in `own`
  int32_t call = -1;             ///< record of a call, where `program` is null
  Space space;
  std::vector<TraceOperand> operands;  ///< inputs, then outputs
  std::vector<Window> windows;         ///< of inputs, where any is not read everywhere; else empty
  int32_t inputs = 0;
  std::vector<int32_t> scalars;  ///< numbers of the trace, in the order of the program's
  std::vector<int32_t> records;  ///< that it carries out
  /// Of its program. Bases are numbers of storages, then the arena.
  std::vector<Launch> launches;
};

/// What makes a step (records, or single results of some), in the order in which it is joined; the steps in
/// theirs.
using Grouping = std::vector<std::vector<int32_t>>;

/// @param fuse false: every record stays a step of its own
/// @param grouping of a trace that differs from this one in sizes alone, or empty: it is followed where all
/// that it joins may be joined here. Set to what was done.
std::vector<FusedStep> fuse(const Trace& trace, bool fuse, Grouping& grouping);

}  // namespace lohe::compiler
