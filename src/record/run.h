#pragma once

#include <vector>

#include "compile/trace.h"

namespace lohe::record {

/// Does the work of a trace, one record after the other, on the eager kernels. Memory of storages that nobody
/// observes is given back after their last use; their entries in `storages` are then null.
/// @param done records that were carried out
/// @throws what a record raises; the records after it are not done.
void run_unfused(const compile::Trace& trace, std::vector<Intrusive<Storage>>& storages, size_t* done);

}  // namespace lohe::record
