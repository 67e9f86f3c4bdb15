#pragma once

#include "binding/common.h"

namespace lohe::python {

extern PyTypeObject module_base_type;  ///< lohe._C.ModuleBase, the base of nn.Module

void init_nn_module(PyObject* module);

}  // namespace lohe::python
