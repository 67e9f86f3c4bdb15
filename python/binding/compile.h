#pragma once

namespace lohe::python {

/// Whether compiled functions record: see set_stance of lohe.compiler.
bool recording_allowed();

}  // namespace lohe::python
