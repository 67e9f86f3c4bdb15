#pragma once

#include "compile/compiled.h"

namespace lohe::compiler {

/// Says for each call what the turns after it, up to the next call, read that no turn has touched for long:
/// CompiledTrace::Turn::far. Kernels of a program are short and wait for memory, products compute: so they
/// fetch it (see backend::Meanwhile).
void foresee(const Trace& trace, CompiledTrace& compiled);

}  // namespace lohe::compiler
