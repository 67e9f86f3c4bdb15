#include "binding/types.h"

/// torch.Size: a tuple of ints that stays one under slicing, + and *.
namespace lohe::python {
namespace {

PyObject* from_tuple(PyObject* tuple) {
  if (tuple == nullptr) return nullptr;
  const Ref held = Ref::steal(tuple);
  if (!PyTuple_Check(tuple)) return Py_NewRef(tuple);
  const Py_ssize_t n = PyTuple_GET_SIZE(tuple);
  PyObject* size = size_type.tp_alloc(&size_type, n);
  if (size == nullptr) return nullptr;
  for (Py_ssize_t i = 0; i < n; ++i) PyTuple_SET_ITEM(size, i, Py_NewRef(PyTuple_GET_ITEM(tuple, i)));
  return size;
}

PyObject* size_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  const Ref made = Ref::steal(PyTuple_Type.tp_new(type, args, kwargs));
  if (!made) return nullptr;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(made.get()); ++i) {
    PyObject* item = PyTuple_GET_ITEM(made.get(), i);
    if (PyLong_Check(item)) continue;
    PyObject* number = PyIndex_Check(item) ? PyNumber_Index(item) : nullptr;
    if (number == nullptr) {
      PyErr_Clear();
      return PyErr_Format(PyExc_TypeError, "torch.Size() takes an iterable of 'int' (item %zd is '%s')", i,
                          Py_TYPE(item)->tp_name);
    }
    PyTuple_SET_ITEM(made.get(), i, number);
    Py_DECREF(item);
  }
  return Py_NewRef(made.get());
}

PyObject* size_repr(PyObject* self) {
  std::string text = "torch.Size([";
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self); ++i) {
    if (i != 0) text += ", ";
    text += std::to_string(PyLong_AsLongLong(PyTuple_GET_ITEM(self, i)));
  }
  return unicode(text + "])");
}

PyObject* size_numel(PyObject* self, PyObject*) {
  int64_t product = 1;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(self); ++i)
    product *= PyLong_AsLongLong(PyTuple_GET_ITEM(self, i));
  return PyLong_FromLongLong(product);
}

PyObject* size_reduce(PyObject* self, PyObject*) {
  const Ref plain = Ref::steal(PySequence_List(self));
  if (!plain) return nullptr;
  return Py_BuildValue("O(N)", reinterpret_cast<PyObject*>(&size_type), PyList_AsTuple(plain.get()));
}

PyObject* size_subscript(PyObject* self, PyObject* key) {
  PyObject* item = PyTuple_Type.tp_as_mapping->mp_subscript(self, key);
  return PySlice_Check(key) ? from_tuple(item) : item;
}
PyObject* size_concat(PyObject* self, PyObject* other) {
  if (!PyTuple_Check(other)) {
    return PyErr_Format(PyExc_TypeError, "can only concatenate tuple (not \"%s\") to torch.Size",
                        Py_TYPE(other)->tp_name);
  }
  return from_tuple(PyTuple_Type.tp_as_sequence->sq_concat(self, other));
}
/// Also tuple + Size, which the tuple's own slot would make a plain tuple.
PyObject* size_add(PyObject* a, PyObject* b) {
  if (!PyTuple_Check(a) || !PyTuple_Check(b)) Py_RETURN_NOTIMPLEMENTED;
  return from_tuple(PyTuple_Type.tp_as_sequence->sq_concat(a, b));
}
PyObject* size_repeat(PyObject* self, Py_ssize_t n) {
  return from_tuple(PyTuple_Type.tp_as_sequence->sq_repeat(self, n));
}

PyMethodDef size_methods[] = {{"numel", size_numel, METH_NOARGS, "The product of the sizes."},
                              {"__reduce__", size_reduce, METH_NOARGS, nullptr},
                              {nullptr, nullptr, 0, nullptr}};
PySequenceMethods size_sequence = [] {
  PySequenceMethods m{};
  m.sq_concat = size_concat;
  m.sq_repeat = size_repeat;
  return m;
}();
PyMappingMethods size_mapping = [] {
  PyMappingMethods m{};
  m.mp_subscript = size_subscript;
  return m;
}();
PyNumberMethods size_number = [] {
  PyNumberMethods m{};
  m.nb_add = size_add;
  return m;
}();

}  // namespace

PyTypeObject size_type = [] {
  PyTypeObject type = static_type("lohe.Size", 0);
  type.tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_TUPLE_SUBCLASS;
  type.tp_base = &PyTuple_Type;
  type.tp_new = size_new;
  type.tp_repr = size_repr;
  type.tp_methods = size_methods;
  type.tp_as_sequence = &size_sequence;
  type.tp_as_mapping = &size_mapping;
  type.tp_as_number = &size_number;
  return type;
}();

PyObject* wrap_size(std::span<const int64_t> sizes) {
  PyObject* size = size_type.tp_alloc(&size_type, static_cast<Py_ssize_t>(sizes.size()));
  if (size == nullptr) throw PythonError{};
  for (size_t i = 0; i < sizes.size(); ++i) {
    PyTuple_SET_ITEM(size, static_cast<Py_ssize_t>(i), PyLong_FromLongLong(sizes[i]));
  }
  return size;
}

PyObject* wrap_ints(std::span<const int64_t> values) {
  PyObject* tuple = PyTuple_New(static_cast<Py_ssize_t>(values.size()));
  if (tuple == nullptr) throw PythonError{};
  for (size_t i = 0; i < values.size(); ++i) {
    PyTuple_SET_ITEM(tuple, static_cast<Py_ssize_t>(i), PyLong_FromLongLong(values[i]));
  }
  return tuple;
}

}  // namespace lohe::python
