#include "binding/storage.h"

#include <cstring>

#include "binding/types.h"

/// UntypedStorage: the bytes behind tensors.
namespace lohe::python {

extern PyTypeObject storage_type;

namespace {

struct PyStorage {
  PyObject_HEAD Storage* storage;
  PyObject* weakrefs;
};

PyStorage* self_of(PyObject* self) { return reinterpret_cast<PyStorage*>(self); }

void storage_dealloc(PyObject* self) {
  PyStorage* object = self_of(self);
  if (object->weakrefs != nullptr) PyObject_ClearWeakRefs(self);
  if (object->storage != nullptr) {
    object->storage->python_object = nullptr;
    object->storage->release();
  }
  Py_TYPE(self)->tp_free(self);
}

PyObject* storage_new(PyTypeObject*, PyObject* args, PyObject* kwargs) {
  return guarded([&]() -> PyObject* {
    static const char* names[] = {"size", "device", nullptr};
    PyObject* source = nullptr;
    PyObject* device = nullptr;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OO:UntypedStorage", const_cast<char**>(names), &source,
                                     &device)) {
      throw PythonError{};
    }
    if (source == nullptr || PyLong_Check(source)) {
      const int64_t bytes = source == nullptr ? 0 : PyLong_AsLongLong(source);
      if (PyErr_Occurred() != nullptr) throw PythonError{};
      return wrap_storage(Storage::allocate(bytes));
    }
    const Ref bytes = checked(PyBytes_FromObject(source));
    Intrusive<Storage> storage = Storage::allocate(PyBytes_GET_SIZE(bytes.get()));
    if (PyBytes_GET_SIZE(bytes.get()) > 0) {
      std::memcpy(storage->data(), PyBytes_AS_STRING(bytes.get()),
                  static_cast<size_t>(PyBytes_GET_SIZE(bytes.get())));
    }
    return wrap_storage(storage);
  });
}

Py_ssize_t storage_length(PyObject* self) { return self_of(self)->storage->nbytes(); }
PyObject* storage_nbytes(PyObject* self, PyObject*) {
  return PyLong_FromLongLong(self_of(self)->storage->nbytes());
}
PyObject* storage_data_ptr(PyObject* self, PyObject*) {
  return guarded([&] {
    self_of(self)->storage->expose();
    return PyLong_FromVoidPtr(self_of(self)->storage->data());
  });
}
PyObject* storage_resize(PyObject* self, PyObject* size) {
  return guarded([&] {
    const long long bytes = PyLong_AsLongLong(size);
    if (bytes == -1 && PyErr_Occurred() != nullptr) throw PythonError{};
    self_of(self)->storage->resize(bytes);
    return Py_NewRef(self);
  });
}
PyObject* storage_bytes(PyObject* self, PyObject*) {
  return guarded([&] {
    const Storage* s = self_of(self)->storage;
    return PyBytes_FromStringAndSize(static_cast<const char*>(s->data()), s->nbytes());
  });
}
PyObject* storage_tolist(PyObject* self, PyObject*) {
  const Ref bytes = Ref::steal(storage_bytes(self, nullptr));
  return bytes ? PySequence_List(bytes.get()) : nullptr;
}
PyObject* storage_clone(PyObject* self, PyObject*) {
  return guarded([&] {
    const Storage* s = self_of(self)->storage;
    Intrusive<Storage> copy = Storage::allocate(s->nbytes());
    if (s->nbytes() > 0) std::memcpy(copy->data(), s->data(), static_cast<size_t>(s->nbytes()));
    return wrap_storage(copy);
  });
}
PyObject* storage_reduce(PyObject* self, PyObject*) {
  return guarded([&] {
    const Ref bytes = checked(storage_bytes(self, nullptr));
    return Py_BuildValue("O(O)", reinterpret_cast<PyObject*>(Py_TYPE(self)), bytes.get());
  });
}
/// The bytes of `source`, a storage of the same size, come here.
PyObject* storage_copy_(PyObject* self, PyObject* args) {
  return guarded([&] {
    PyObject* source = nullptr;
    int non_blocking = 0;
    if (!PyArg_ParseTuple(args, "O!|p:copy_", &storage_type, &source, &non_blocking)) throw PythonError{};
    Storage *to = self_of(self)->storage, *from = self_of(source)->storage;
    LOHE_CHECK(to->nbytes() == from->nbytes(), "copy_: the storages have ", to->nbytes(), " and ",
               from->nbytes(), " bytes");
    if (to->nbytes() > 0) std::memmove(to->data(), from->data(), static_cast<size_t>(to->nbytes()));
    return Py_NewRef(self);
  });
}
PyObject* storage_self(PyObject* self, PyObject*) { return Py_NewRef(self); }
PyObject* storage_is_shared(PyObject*, PyObject*) { Py_RETURN_FALSE; }
PyObject* storage_device(PyObject*, void*) {
  return guarded([] { return wrap_device(kCPU); });
}
PyObject* storage_repr(PyObject* self) {
  return PyUnicode_FromFormat("<UntypedStorage of %lld bytes on cpu>",
                              static_cast<long long>(self_of(self)->storage->nbytes()));
}
PyObject* storage_item(PyObject* self, Py_ssize_t i) {
  const Storage* s = self_of(self)->storage;
  if (i < 0 || i >= s->nbytes()) return PyErr_Format(PyExc_IndexError, "storage index %zd out of range", i);
  return guarded(
      [&] { return PyLong_FromLong(static_cast<unsigned char>(static_cast<const char*>(s->data())[i])); });
}
int storage_buffer(PyObject* self, Py_buffer* view, int flags) {
  view->obj = nullptr;  // also where an error is raised
  return guarded_status([&] {
    Storage* s = self_of(self)->storage;
    s->expose();
    if (PyBuffer_FillInfo(view, self, s->data(), s->nbytes(), s->writable() ? 0 : 1, flags) != 0)
      throw PythonError{};
  });
}

PyMethodDef storage_methods[] = {{"size", storage_nbytes, METH_NOARGS, nullptr},
                                 {"nbytes", storage_nbytes, METH_NOARGS, nullptr},
                                 {"data_ptr", storage_data_ptr, METH_NOARGS, nullptr},
                                 {"resize_", storage_resize, METH_O, nullptr},
                                 {"tolist", storage_tolist, METH_NOARGS, nullptr},
                                 {"_bytes", storage_bytes, METH_NOARGS, "A copy of the bytes."},
                                 {"clone", storage_clone, METH_NOARGS, nullptr},
                                 {"copy_", storage_copy_, METH_VARARGS, nullptr},
                                 {"__deepcopy__", storage_clone, METH_O, nullptr},
                                 {"__reduce__", storage_reduce, METH_NOARGS, nullptr},
                                 {"untyped", storage_self, METH_NOARGS, nullptr},
                                 {"cpu", storage_self, METH_NOARGS, nullptr},
                                 {"is_shared", storage_is_shared, METH_NOARGS, nullptr},
                                 {nullptr, nullptr, 0, nullptr}};
PyGetSetDef storage_properties[] = {{"device", storage_device, nullptr, nullptr, nullptr},
                                    {nullptr, nullptr, nullptr, nullptr, nullptr}};
PySequenceMethods storage_sequence = [] {
  PySequenceMethods m{};
  m.sq_length = storage_length;
  m.sq_item = storage_item;
  return m;
}();
PyBufferProcs storage_buffers{storage_buffer, nullptr};

}  // namespace

PyTypeObject storage_type = [] {
  PyTypeObject type = static_type("lohe.UntypedStorage", sizeof(PyStorage));
  type.tp_dealloc = storage_dealloc;
  type.tp_new = storage_new;
  type.tp_repr = storage_repr;
  type.tp_methods = storage_methods;
  type.tp_getset = storage_properties;
  type.tp_as_sequence = &storage_sequence;
  type.tp_as_buffer = &storage_buffers;
  type.tp_weaklistoffset = offsetof(PyStorage, weakrefs);
  return type;
}();

PyObject* wrap_storage(const Intrusive<Storage>& storage) {
  if (storage->python_object != nullptr) return Py_NewRef(static_cast<PyObject*>(storage->python_object));
  PyObject* object = storage_type.tp_alloc(&storage_type, 0);
  if (object == nullptr) throw PythonError{};
  storage->retain();
  self_of(object)->storage = storage.get();
  storage->python_object = object;
  return object;
}

bool is_storage(PyObject* object) { return Py_TYPE(object) == &storage_type; }
Storage* storage_of(PyObject* object) { return self_of(object)->storage; }

void init_storage(PyObject* module) {
  check_status(PyType_Ready(&storage_type));
  check_status(PyModule_AddObjectRef(module, "UntypedStorage", reinterpret_cast<PyObject*>(&storage_type)));
}

}  // namespace lohe::python
