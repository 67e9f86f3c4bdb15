#pragma once

#include <vector>

#include "compile/fuse.h"

namespace lohe::compiler {

/// Lets calls write results to where the only step that reads them copies them: the gradients of queries,
/// keys and values into that of the projection they were cut from. The copies go. Only calls of rows that say
/// so, see ops::OpDef::strided_results.
void place_results(const Trace& trace, std::vector<FusedStep>& steps);

}  // namespace lohe::compiler
