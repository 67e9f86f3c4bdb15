#include "binding/torch_function.h"

#include <array>
#include <vector>

#include "binding/tensor.h"

/// __torch_function__: which classes take calls, and the call itself.
namespace lohe::python {
namespace {

/// How many blocks in this thread have the protocol off.
thread_local int disabled_depth = 0;

PyObject* disabled_impl = nullptr;  ///< lohe._C._disabled_torch_function_impl
PyObject* protocol_name = nullptr;  ///< "__torch_function__"

PyObject* lookup(PyTypeObject* type) { return _PyType_Lookup(type, protocol_name); }

/// A plain class that does not name the protocol, a disabled one: false. The answer is kept by class and
/// version tag.
bool class_takes_calls(PyTypeObject* type) {
  struct Entry {
    PyTypeObject* type = nullptr;
    unsigned version = 0;
    bool answer = false;
  };
  static std::array<Entry, 64> entries;
  Entry& entry = entries[(reinterpret_cast<uintptr_t>(type) >> 6) % entries.size()];
  if (entry.type == type && entry.version == type->tp_version_tag && entry.version != 0) return entry.answer;
  PyObject* found = lookup(type);
  if (found != nullptr && Py_TYPE(found) == &PyClassMethod_Type) {
    const Ref inner = Ref::steal(PyObject_GetAttrString(found, "__func__"));
    PyErr_Clear();
    entry = {type, type->tp_version_tag, inner.get() != disabled_impl};
  } else if (found != nullptr && Py_TYPE(found) == &PyStaticMethod_Type) {
    const Ref inner = Ref::steal(PyObject_GetAttrString(found, "__func__"));
    PyErr_Clear();
    entry = {type, type->tp_version_tag, inner.get() != disabled_impl};
  } else {
    entry = {type, type->tp_version_tag, found != nullptr && found != disabled_impl};
  }
  return entry.answer;
}

/// func(*args, **kwargs) with the protocol off.
PyObject* run_disabled(PyObject*, PyObject* args) {
  PyObject *function, *types, *call_args, *kwargs = nullptr;
  if (!PyArg_ParseTuple(args, "OOO|O", &function, &types, &call_args, &kwargs)) return nullptr;
  ++disabled_depth;
  const Ref tuple = Ref::steal(PySequence_Tuple(call_args));
  PyObject* result =
      tuple ? PyObject_Call(function, tuple.get(), kwargs == nullptr || kwargs == Py_None ? nullptr : kwargs)
            : nullptr;
  --disabled_depth;
  return result;
}

PyObject* disable(PyObject*, PyObject*) {
  ++disabled_depth;
  Py_RETURN_NONE;
}
PyObject* enable(PyObject*, PyObject*) {
  --disabled_depth;
  Py_RETURN_NONE;
}
PyObject* is_enabled(PyObject*, PyObject*) { return PyBool_FromLong(disabled_depth == 0); }
PyObject* has_protocol(PyObject*, PyObject* arguments) {
  return guarded([&] {
    const Ref items = checked(PySequence_Tuple(arguments));
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items.get()); ++i) {
      if (takes_calls(PyTuple_GET_ITEM(items.get(), i))) return Py_NewRef(Py_True);
    }
    return Py_NewRef(Py_False);
  });
}

PyMethodDef module_functions[] = {
    {"_disabled_torch_function_impl", run_disabled, METH_VARARGS,
     "A __torch_function__ that makes a class behave as Tensor."},
    {"_disable_torch_function", disable, METH_NOARGS, nullptr},
    {"_enable_torch_function", enable, METH_NOARGS, nullptr},
    {"_is_torch_function_enabled", is_enabled, METH_NOARGS, nullptr},
    {"_has_torch_function", has_protocol, METH_O, "Whether an element of the sequence takes calls over."},
    {nullptr, nullptr, 0, nullptr}};

void collect(PyObject* object, std::vector<PyObject*>& found) {
  if (takes_calls(object)) {
    for (PyObject* known : found) {
      if (Py_TYPE(known) == Py_TYPE(object)) return;
    }
    // A subclass goes before its base class.
    auto place = found.begin();
    while (place != found.end() && !PyType_IsSubtype(Py_TYPE(object), Py_TYPE(*place))) ++place;
    found.insert(place, object);
  } else if (PyTuple_Check(object) || PyList_Check(object)) {
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(object); ++i)
      collect(PySequence_Fast_GET_ITEM(object, i), found);
  }
}

}  // namespace

bool takes_calls(PyObject* object) {
  PyTypeObject* type = Py_TYPE(object);
  if (type == tensor_type || disabled_depth != 0) return false;
  if (type == &PyLong_Type || type == &PyFloat_Type || type == &PyTuple_Type || type == &PyList_Type ||
      type == &PyUnicode_Type || type == &PyBool_Type || object == Py_None) {
    return false;
  }
  return class_takes_calls(type);
}

PyObject* call_torch_function(PyObject* function, PyObject* self, PyObject* const* args, Py_ssize_t nargs,
                              PyObject* kwnames) {
  tell_watcher("a class of tensors takes its calls");
  std::vector<PyObject*> takers;
  if (self != nullptr) collect(self, takers);
  const Py_ssize_t keywords = kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames);
  for (Py_ssize_t i = 0; i < nargs + keywords; ++i) collect(args[i], takers);
  const Py_ssize_t shift = self == nullptr ? 0 : 1;
  const Ref positional = checked(PyTuple_New(nargs + shift));
  if (self != nullptr) PyTuple_SET_ITEM(positional.get(), 0, Py_NewRef(self));
  for (Py_ssize_t i = 0; i < nargs; ++i) PyTuple_SET_ITEM(positional.get(), i + shift, Py_NewRef(args[i]));
  const Ref kwargs = checked(PyDict_New());
  for (Py_ssize_t k = 0; k < keywords; ++k) {
    check_status(PyDict_SetItem(kwargs.get(), PyTuple_GET_ITEM(kwnames, k), args[nargs + k]));
  }
  const Ref types = checked(PyTuple_New(static_cast<Py_ssize_t>(takers.size())));
  for (size_t i = 0; i < takers.size(); ++i) {
    PyTuple_SET_ITEM(types.get(), static_cast<Py_ssize_t>(i),
                     Py_NewRef(reinterpret_cast<PyObject*>(Py_TYPE(takers[i]))));
  }
  for (PyObject* taker : takers) {
    const Ref method = checked(PyObject_GetAttr(taker, protocol_name));
    Ref result = checked(PyObject_CallFunctionObjArgs(method.get(), function, types.get(), positional.get(),
                                                      kwargs.get(), nullptr));
    if (result.get() != Py_NotImplemented) return result.release();
  }
  std::string names;
  for (PyObject* taker : takers) names += (names.empty() ? "" : ", ") + type_name(taker);
  const Ref text = checked(PyObject_Repr(function));
  raise(ErrorKind::kType, "Multiple dispatch failed for ", utf8(text.get()),
        "; all __torch_function__ handlers returned ", "NotImplemented: ", names);
}

void init_torch_function(PyObject* module) {
  protocol_name = intern("__torch_function__");
  check_status(PyModule_AddFunctions(module, module_functions));
  disabled_impl = checked(PyObject_GetAttrString(module, "_disabled_torch_function_impl")).release();
}

}  // namespace lohe::python
