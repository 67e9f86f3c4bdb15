#pragma once

#include "binding/parse.h"
#include "ops/call.h"

/// Ops as Python callables.
namespace lohe::python {

/// A function (`lohe.add`) or a method (`Tensor.add`), of one form.
struct PyOp {
  PyObject_HEAD vectorcallfunc vectorcall;
  const OverloadSet* set;
  PyObject* name;    ///< "add_"
  PyObject* module;  ///< "lohe"
  dispatch::Form form;
  bool method;
};

/// All overloads of a base name, null if there are none.
const OverloadSet* find_overloads(std::string_view base);

/// Results as Python sees them: tensor, named tuple, tuple, number or None.
PyObject* wrap_results(const Overload& overload, Results&& results);

/// A call with Python arguments: parse, run, wrap. `callable` is what __torch_function__ is told.
PyObject* call_overloads(PyObject* callable, const OverloadSet& set, dispatch::Form form, PyObject* self,
                         PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames);

/// The Tensor method object of an op, borrowed; null if there is none.
PyObject* find_method(std::string_view name);
/// The function object of an op, borrowed; null if there is none.
PyObject* find_function(std::string_view name);

}  // namespace lohe::python
