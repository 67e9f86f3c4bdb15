#pragma once

#include <vector>

#include "compile/compiled.h"

namespace lohe::record {

/// Storages of a trace, by number; those of which nobody observes anything may be let go.
using Storages = std::vector<Intrusive<Storage>>;

/// Does the work of a trace, one record after the other, on the eager kernels. Memory of storages that nobody
/// observes is given back after their last use; their entries in `storages` are then null.
/// @param done by record: whether it was carried out
/// @throws what a record raises; the records after it are not done.
void run_unfused(const compiler::Trace& trace, Storages& storages, std::vector<bool>& done);

/// Whether run_compiled measures its steps.
extern std::atomic<bool> profiling;

/// The same by the steps that were made of an equal trace.
/// @param numbers the trace's scalars, or others in their place
void run_compiled(const compiler::CompiledTrace& compiled, const compiler::Trace& trace,
                  std::span<const Scalar> numbers, Storages& storages, std::vector<bool>& done);

}  // namespace lohe::record
