#include "binding/nn_module.h"

#include "tensor/tensor_impl.h"

/// The base of nn.Module: what runs at each call of a module and at each read of its attributes. A model does
/// both several times a layer, so they run in C; all else about modules is Python.
namespace lohe::python {
namespace {

/// Names of attributes that are read here.
struct Attributes {
  PyObject* registries[3] = {intern("_parameters"), intern("_buffers"), intern("_modules")};
  PyObject* hooks[4] = {intern("_forward_hooks"), intern("_forward_pre_hooks"), intern("_backward_hooks"),
                        intern("_backward_pre_hooks")};
  PyObject* forward = intern("forward");
  PyObject* compiled = intern("_compiled_call_impl");
  PyObject* getattr = intern("__getattr__");
  PyObject* getattribute = intern("__getattribute__");
  PyObject* init_subclass = intern("__init_subclass__");
};
const Attributes& attributes() {
  static const Attributes names;
  return names;
}

/// Set by lohe.nn.modules._hooks: the call with hooks, and the dicts of hooks that every module runs.
PyObject* call_with_hooks = nullptr;
PyObject* global_hooks = nullptr;

}  // namespace

thread_local std::vector<Ref>* called_modules = nullptr;

namespace {

/// Borrowed; null for a key that is not there. @throws PythonError
PyObject* found_in(PyObject* dict, PyObject* key) {
  PyObject* value = PyDict_GetItemWithError(dict, key);
  if (value == nullptr && PyErr_Occurred() != nullptr) throw PythonError{};
  return value;
}

Ref dict_of(PyObject* self) { return checked(PyObject_GenericGetDict(self, nullptr)); }

// --- attributes

/// A parameter, buffer or submodule. @throws PythonError with an AttributeError if there is none of this
/// name.
Ref registered(PyObject* self, PyObject* name) {
  const Ref own = dict_of(self);
  for (PyObject* registry : attributes().registries) {
    PyObject* members = found_in(own.get(), registry);
    if (members == nullptr || !PyDict_Check(members)) continue;
    if (PyObject* value = found_in(members, name)) return Ref::borrow(value);
  }
  // `name` and `obj` let the interpreter add "Did you mean" from __dir__ when it prints the error.
  const Ref text =
      checked(PyUnicode_FromFormat("'%s' object has no attribute '%U'", type_name(self).c_str(), name));
  const Ref error = checked(PyObject_CallOneArg(PyExc_AttributeError, text.get()));
  check_status(PyObject_SetAttrString(error.get(), "name", name));
  check_status(PyObject_SetAttrString(error.get(), "obj", self));
  PyErr_SetObject(PyExc_AttributeError, error.get());
  throw PythonError{};
}

PyObject* module_getattr(PyObject* self, PyObject* name) {
  return guarded([&] {
    LOHE_CHECK_TYPE(PyUnicode_Check(name), "attribute name must be string, not '", type_name(name), "'");
    return registered(self, name).release();
  });
}

/// What the interpreter does for a class with __getattr__, without an AttributeError made and dropped on the
/// way to each parameter.
PyObject* module_getattro(PyObject* self, PyObject* name) {
  PyObject* found = _PyObject_GenericGetAttrWithDict(self, name, nullptr, 1);
  if (found != nullptr || PyErr_Occurred() != nullptr) return found;
  return module_getattr(self, name);
}

/// Gives `type` the short way to attributes if it means the same as the interpreter's: neither __getattr__
/// nor
/// __getattribute__ is anybody else's. Where one is assigned to a class later, the interpreter sets the slots
/// of that class and those below it anew.
void use_short_way(PyTypeObject* type) {
  const auto same_in = [type](PyTypeObject& base, PyObject* name) {
    return _PyType_Lookup(type, name) == _PyType_Lookup(&base, name);
  };
  if (same_in(module_base_type, attributes().getattr) &&
      same_in(PyBaseObject_Type, attributes().getattribute))
    type->tp_getattro = module_getattro;
}

PyObject* init_subclass(PyObject* cls, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    const Ref above =
        checked(PyObject_CallFunctionObjArgs(reinterpret_cast<PyObject*>(&PySuper_Type),
                                             reinterpret_cast<PyObject*>(&module_base_type), cls, nullptr));
    const Ref method = checked(PyObject_GetAttr(above.get(), attributes().init_subclass));
    const Ref done = checked(PyObject_Call(method.get(), args, kwargs));
    use_short_way(reinterpret_cast<PyTypeObject*>(cls));
    return Py_NewRef(Py_None);
  });
}

// --- calls

bool any_in(PyObject* hooks) {
  if (PyDict_Check(hooks)) return PyDict_GET_SIZE(hooks) != 0;
  const int truth = PyObject_IsTrue(hooks);
  check_status(truth);
  return truth != 0;
}

bool has_hooks(PyObject* self, PyObject* own) {
  for (PyObject* name : attributes().hooks) {
    if (PyObject* hooks = found_in(own, name)) {
      if (any_in(hooks)) return true;
    } else {
      const Ref elsewhere = checked(PyObject_GetAttr(self, name));  // says what is missing
      if (any_in(elsewhere.get())) return true;
    }
  }
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(global_hooks); ++i) {
    if (any_in(PyTuple_GET_ITEM(global_hooks, i))) return true;
  }
  return false;
}

/// function(self, *args, **kwargs) without a bound method and a new tuple.
Ref call_unbound(PyObject* function, PyObject* self, PyObject* args, PyObject* kwargs) {
  constexpr Py_ssize_t kOnStack = 8;
  const Py_ssize_t n = PyTuple_GET_SIZE(args) + 1;
  PyObject* on_stack[kOnStack];
  std::unique_ptr<PyObject*[]> on_heap;
  if (n > kOnStack) on_heap = std::make_unique<PyObject*[]>(static_cast<size_t>(n));
  PyObject** list = on_heap ? on_heap.get() : on_stack;
  list[0] = self;
  for (Py_ssize_t i = 1; i < n; ++i) list[i] = PyTuple_GET_ITEM(args, i - 1);
  return checked(PyObject_VectorcallDict(function, list, static_cast<size_t>(n), kwargs));
}

Ref call_forward(PyObject* self, PyObject* own, PyObject* args, PyObject* kwargs) {
  PyObject* const name = attributes().forward;
  if (Py_TYPE(self)->tp_getattro == module_getattro && found_in(own, name) == nullptr) {
    PyObject* function = _PyType_Lookup(Py_TYPE(self), name);
    if (function != nullptr && PyType_HasFeature(Py_TYPE(function), Py_TPFLAGS_METHOD_DESCRIPTOR)) {
      const Ref kept = Ref::borrow(function);
      return call_unbound(function, self, args, kwargs);
    }
  }
  const Ref bound = checked(PyObject_GetAttr(self, name));
  return checked(PyObject_Call(bound.get(), args, kwargs));
}

/// The call of forward inside of the hooks that are in force.
Ref call_impl(PyObject* self, PyObject* own, PyObject* args, PyObject* kwargs) {
  if (called_modules != nullptr) [[unlikely]]
    called_modules->push_back(Ref::borrow(self));
  if (!has_hooks(self, own)) return call_forward(self, own, args, kwargs);
  tell_watcher("a module runs hooks");
  const Ref named = kwargs != nullptr ? Ref::borrow(kwargs) : checked(PyDict_New());
  return checked(PyObject_CallFunctionObjArgs(call_with_hooks, self, args, named.get(), nullptr));
}

PyObject* module_call_impl(PyObject* self, PyObject* args, PyObject* kwargs) {
  return guarded([&] { return call_impl(self, dict_of(self).get(), args, kwargs).release(); });
}

PyObject* module_call(PyObject* self, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    const Ref own = dict_of(self);
    PyObject* compiled = found_in(own.get(), attributes().compiled);
    if (compiled != nullptr && compiled != Py_None) {
      const Ref kept = Ref::borrow(compiled);
      return checked(PyObject_Call(compiled, args, kwargs)).release();
    }
    return call_impl(self, own.get(), args, kwargs).release();
  });
}

PyObject* set_module_hooks(PyObject*, PyObject* args) {
  return guarded([&] {
    PyObject *call, *dicts;
    if (!PyArg_ParseTuple(args, "OO!:_set_module_hooks", &call, &PyTuple_Type, &dicts)) throw PythonError{};
    Py_XSETREF(call_with_hooks, Py_NewRef(call));
    Py_XSETREF(global_hooks, Py_NewRef(dicts));
    return Py_NewRef(Py_None);
  });
}

template <class F>
PyCFunction as_function(F* f) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(f));
}

PyMethodDef methods[] = {
    {"__getattr__", module_getattr, METH_O, "Parameters, buffers and submodules by name."},
    {"__init_subclass__", as_function(init_subclass), METH_CLASS | METH_VARARGS | METH_KEYWORDS, nullptr},
    {"_call_impl", as_function(module_call_impl), METH_VARARGS | METH_KEYWORDS,
     "Calls forward inside of the hooks that are in force."},
    {nullptr, nullptr, 0, nullptr}};

PyMethodDef module_functions[] = {{"_set_module_hooks", set_module_hooks, METH_VARARGS, nullptr},
                                  {nullptr, nullptr, 0, nullptr}};

}  // namespace

PyTypeObject module_base_type = [] {
  PyTypeObject type = static_type("lohe._C.ModuleBase", sizeof(PyObject));
  type.tp_flags |= Py_TPFLAGS_BASETYPE;
  type.tp_doc = "Calls and attributes of nn.Module.";
  type.tp_call = module_call;
  type.tp_methods = methods;
  return type;
}();

bool no_global_hooks() {
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(global_hooks); ++i) {
    if (any_in(PyTuple_GET_ITEM(global_hooks, i))) return false;
  }
  return true;
}

void init_nn_module(PyObject* module) {
  module_base_type.tp_new = PyBaseObject_Type.tp_new;  // static types do not inherit it
  check_status(PyType_Ready(&module_base_type));
  check_status(PyModule_AddFunctions(module, module_functions));
  check_status(PyModule_AddObjectRef(module, "ModuleBase", reinterpret_cast<PyObject*>(&module_base_type)));
}

}  // namespace lohe::python
