#include "lohe/generator.h"

#include <cstring>

#include "binding/parse.h"
#include "binding/tensor.h"
#include "binding/types.h"

/// Generator: a stream of random numbers as a Python object.
namespace lohe::python {
namespace {

struct PyGenerator {
  PyObject_HEAD
  Generator* generator;
  bool owned;  ///< false: the default generator
};

Generator& at(PyObject* self) { return *reinterpret_cast<PyGenerator*>(self)->generator; }

PyObject* generator_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    static const char* names[] = {"device", nullptr};
    PyObject* device_object = nullptr;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Generator", const_cast<char**>(names), &device_object)) {
      throw PythonError{};
    }
    Device device;
    LOHE_CHECK_TYPE(device_object == nullptr || device_from(device_object, device),
                    "Generator(): argument 'device' must be torch.device, not ", type_name(device_object));
    Ref object = checked(type->tp_alloc(type, 0));
    auto* self = reinterpret_cast<PyGenerator*>(object.get());
    self->generator = new Generator(device);
    self->owned = true;
    return object.release();
  });
}
void generator_dealloc(PyObject* self) {
  auto* object = reinterpret_cast<PyGenerator*>(self);
  if (object->owned) delete object->generator;
  Py_TYPE(self)->tp_free(self);
}

PyObject* manual_seed_method(PyObject* self, PyObject* seed) {
  return guarded([&] {
    int overflow = 0;
    const Ref index = checked(PyNumber_Index(seed));
    const long long value = PyLong_AsLongLongAndOverflow(index.get(), &overflow);
    uint64_t bits = static_cast<uint64_t>(value);  // negative seeds count from the top of the range
    if (overflow > 0) {
      bits = PyLong_AsUnsignedLongLong(index.get());
      if (PyErr_Occurred() != nullptr) PyErr_Clear(), overflow = 2;
    }
    LOHE_CHECK_VALUE(overflow == 0 || overflow == 1, "Overflow when unpacking long long: a seed must be in [-2**63, 2**64)");
    at(self).manual_seed(bits);
    return Py_NewRef(self);
  });
}
PyObject* seed_method(PyObject* self, PyObject*) {
  return guarded([&] { return PyLong_FromUnsignedLongLong(at(self).seed()); });
}
PyObject* initial_seed_method(PyObject* self, PyObject*) {
  return guarded([&] { return PyLong_FromUnsignedLongLong(at(self).initial_seed()); });
}
PyObject* get_state(PyObject* self, PyObject*) {
  return guarded([&] {
    const auto bytes = at(self).state_bytes();
    const int64_t sizes[1] = {static_cast<int64_t>(bytes.size())};
    TensorPtr t = TensorImpl::make_contiguous(Storage::allocate(sizes[0]), kUInt8, sizes);
    std::memcpy(t->data(), bytes.data(), bytes.size());
    return wrap(std::move(t));
  });
}
PyObject* set_state(PyObject* self, PyObject* state) {
  return guarded([&] {
    LOHE_CHECK_TYPE(is_tensor(state) && impl_of(state)->dtype() == kUInt8, "expected a torch.ByteTensor, but got ", type_name(state));
    const TensorPtr t = call_row("contiguous", {Arg(impl_of(state))});
    at(self).set_state_bytes({reinterpret_cast<const uint8_t*>(t->data()), static_cast<size_t>(t->numel())});
    return Py_NewRef(self);
  });
}
PyObject* clone_state(PyObject* self, PyObject*) {
  return guarded([&] {
    const Ref arguments = checked(PyTuple_New(0));
    Ref copy = checked(generator_new(Py_TYPE(self), arguments.get(), nullptr));
    at(copy.get()).set_state(at(self).state());
    return copy.release();
  });
}
PyObject* get_offset(PyObject* self, PyObject*) { return PyLong_FromUnsignedLongLong(at(self).state().offset); }
PyObject* device_property(PyObject* self, void*) {
  return guarded([&] { return wrap_device(at(self).device()); });
}

PyMethodDef generator_methods[] = {
    {"manual_seed", manual_seed_method, METH_O, "Starts the stream of a seed from its beginning."},
    {"seed", seed_method, METH_NOARGS, "Takes a seed from the operating system and gives it."},
    {"initial_seed", initial_seed_method, METH_NOARGS, nullptr},
    {"get_state", get_state, METH_NOARGS, "The state as a tensor of bytes."},
    {"set_state", set_state, METH_O, nullptr},
    {"clone_state", clone_state, METH_NOARGS, "Another generator at the same place of the same stream."},
    {"get_offset", get_offset, METH_NOARGS, "The next counter."},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef generator_properties[] = {{"device", device_property, nullptr, nullptr, nullptr},
                                      {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyTypeObject generator_type = [] {
  PyTypeObject type = static_type("lohe.Generator", sizeof(PyGenerator));
  type.tp_new = generator_new;
  type.tp_dealloc = generator_dealloc;
  type.tp_methods = generator_methods;
  type.tp_getset = generator_properties;
  return type;
}();

}  // namespace

bool generator_from(PyObject* object, Generator*& generator) {
  if (Py_TYPE(object) != &generator_type) return false;
  generator = &at(object);
  return true;
}

void init_generator(PyObject* module) {
  check_status(PyType_Ready(&generator_type));
  check_status(PyModule_AddObjectRef(module, "Generator", reinterpret_cast<PyObject*>(&generator_type)));
  Ref shared = checked(generator_type.tp_alloc(&generator_type, 0));
  reinterpret_cast<PyGenerator*>(shared.get())->generator = &default_generator();
  check_status(PyModule_AddObjectRef(module, "default_generator", shared.get()));
}

}  // namespace lohe::python
