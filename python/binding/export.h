#pragma once

#include "binding/common.h"

/// Data leaving and entering: Python numbers, NumPy arrays, DLPack capsules.
namespace lohe::python {

PyObject* tensor_item(PyObject* self, PyObject*);
PyObject* tensor_tolist(PyObject* self, PyObject*);
PyObject* tensor_numpy(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames);
PyObject* tensor_dlpack(PyObject* self, PyObject* args, PyObject* kwargs);
/// A tensor over the memory of a DLPack capsule, which is consumed.
TensorPtr tensor_from_capsule(PyObject* capsule);
/// One element by its byte address.
Scalar load_element(const char* address, Dtype dtype);
void store_element(char* address, Dtype dtype, const Scalar& value);
/// A tensor over the memory of an object with `__array_interface__` or the buffer protocol, without a copy.
/// Null if it offers neither. @throws TypeError for dtypes that have no counterpart, ValueError for negative
/// strides.
TensorPtr tensor_from_array(PyObject* object, bool warn_read_only);

}  // namespace lohe::python
