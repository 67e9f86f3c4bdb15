#pragma once

#include "binding/common.h"
#include "ops/call.h"

/// What makes up the Tensor class; each part stands in a file of its own.
namespace lohe::python {

// number.cpp
PyNumberMethods* number_methods();
PyObject* tensor_compare(PyObject* a, PyObject* b, int op);

// tensor_properties.cpp, tensor_methods.cpp
void add_tensor_properties(PyTypeObject* type);
void add_tensor_methods(PyTypeObject* type);
void add_descriptors(PyTypeObject* type, PyGetSetDef* properties, PyMethodDef* methods);

// rows.cpp
/// Calls a row by name; trailing arguments that are left out take their defaults.
Results call_row_all(std::string_view name, std::initializer_list<Arg> args,
                     dispatch::Form form = dispatch::Form::kValue);
TensorPtr call_row(std::string_view name, std::initializer_list<Arg> args);
/// Calls an op, with the GIL released when there is much to do.
Results run_op(const ops::OpDef& op, Args args, dispatch::Form form = dispatch::Form::kValue,
               std::span<TensorImpl* const> out = {});
/// The same data without history and with a version counter of its own, as `.data` gives it.
TensorPtr data_alias(TensorImpl* tensor);
/// Sorted out: lazy conjugation and negation are carried out, for readers of memory.
TensorPtr materialized(TensorPtr tensor);
TensorPtr cast(const TensorPtr& tensor, Dtype dtype);

// transforms.cpp
/// Before `what` reads the tensor's memory. @throws RuntimeError for a batched tensor under vmap.
void check_readable(const TensorImpl& tensor, const char* what);

// data.cpp
/// Tensor(...) as the class is called: sizes, a sequence, or a tensor.
PyObject* legacy_new(PyTypeObject* type, PyObject* args, PyObject* kwargs);

}  // namespace lohe::python
