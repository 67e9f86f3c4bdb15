#pragma once

#include "binding/common.h"

/// Indexing: tensor[index] and tensor[index] = value.
namespace lohe::python {

Py_ssize_t tensor_length(PyObject* self);
PyObject* tensor_getitem(PyObject* self, PyObject* index);
int tensor_setitem(PyObject* self, PyObject* index, PyObject* value);

}  // namespace lohe::python
