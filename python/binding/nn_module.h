#pragma once

#include <vector>

#include "binding/common.h"

namespace lohe::python {

extern PyTypeObject module_base_type;  ///< lohe._C.ModuleBase, the base of nn.Module

/// While set, every module that this thread calls is added.
extern thread_local std::vector<Ref>* called_modules;
/// Whether no module runs hooks that are everybody's.
bool no_global_hooks();

void init_nn_module(PyObject* module);

}  // namespace lohe::python
