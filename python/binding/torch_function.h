#pragma once

#include "binding/common.h"

/// The `__torch_function__` protocol: calls with a tensor subclass, or a class that imitates one, go to that
/// class.
namespace lohe::python {

/// Whether objects of this class take over calls: the class has a `__torch_function__` that is not the
/// disabled one, and the protocol is on in this thread. Never true for Tensor itself.
bool takes_calls(PyObject* object);

/// Calls `__torch_function__` of the arguments that take calls, subclasses first, left to right.
/// `self` (may be null) comes before args. New reference; null with an error set.
PyObject* call_torch_function(PyObject* function, PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                              PyObject* kwnames);

}  // namespace lohe::python
