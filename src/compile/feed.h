#pragma once

#include "compile/fuse.h"

namespace lohe::compiler {

/// What the blocks of a long reduction read and nobody else needs, they make for themselves: a step whose
/// large result goes to such a reduction alone becomes part of it, as its launches' Launch::Feed. (A
/// reduction that could be one kernel with that step is one already. This one goes on from row to row of
/// operands whose rows do not follow one another in memory, as the difference of a matrix's neighbours does.)
/// Launches are prepared; their buffers' bases are numbers of operands.
void feed_reductions(const Trace& trace, std::vector<FusedStep>& steps);

}  // namespace lohe::compiler
