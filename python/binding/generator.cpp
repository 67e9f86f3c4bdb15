#include "lohe/generator.h"

#include "binding/parse.h"
#include "binding/types.h"
#include "ops/call.h"

/// lohe.Generator: a stream of random numbers.
namespace lohe::python {
namespace {

struct PyGenerator {
  PyObject_HEAD Generator* generator;
  bool owned;
};

PyTypeObject generator_type = static_type("lohe.Generator", sizeof(PyGenerator));

Generator& value(PyObject* self) { return *reinterpret_cast<PyGenerator*>(self)->generator; }

PyObject* generator_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  return guarded([&]() -> PyObject* {
    static const char* names[] = {"device", nullptr};
    PyObject* device = nullptr;
    if (PyArg_ParseTupleAndKeywords(args, kwargs, "|O:Generator", const_cast<char**>(names), &device) == 0)
      throw PythonError{};
    Device d = kCPU;
    LOHE_CHECK_TYPE(device == nullptr || device == Py_None || device_from(device, d),
                    "Generator(): argument 'device' must be torch.device, not ",
                    device == nullptr ? "" : type_name(device));
    Ref object = checked(type->tp_alloc(type, 0));
    auto* self = reinterpret_cast<PyGenerator*>(object.get());
    self->generator = new Generator(d);
    self->owned = true;
    return object.release();
  });
}

void generator_dealloc(PyObject* self) {
  auto* object = reinterpret_cast<PyGenerator*>(self);
  if (object->owned) delete object->generator;
  Py_TYPE(self)->tp_free(self);
}

/// A seed is any 64-bit integer; negative ones count from 2^64, as in PyTorch.
uint64_t seed_from(PyObject* object) {
  const Ref index = checked(PyNumber_Index(object));
  int overflow = 0;
  const long long small = PyLong_AsLongLongAndOverflow(index.get(), &overflow);
  if (overflow == 0) {
    if (small == -1 && PyErr_Occurred() != nullptr) throw PythonError{};
    return static_cast<uint64_t>(small);
  }
  const unsigned long long big = PyLong_AsUnsignedLongLong(index.get());
  if (PyErr_Occurred() != nullptr) {
    PyErr_Clear();
    raise(ErrorKind::kRuntime, "Overflow when unpacking long: a seed lies in [-2^63, 2^64)");
  }
  return big;
}

PyObject* generator_manual_seed(PyObject* self, PyObject* seed) {
  return guarded([&] {
    value(self).manual_seed(seed_from(seed));
    return Py_NewRef(self);
  });
}
PyObject* generator_seed(PyObject* self, PyObject*) {
  return guarded([&] { return PyLong_FromUnsignedLongLong(value(self).seed()); });
}
PyObject* generator_initial_seed(PyObject* self, PyObject*) {
  return guarded([&] { return PyLong_FromUnsignedLongLong(value(self).initial_seed()); });
}

PyObject* generator_get_state(PyObject* self, PyObject*) {
  return guarded([&] {
    static const ops::OpRef empty("empty");
    const auto bytes = value(self).state_bytes();
    const TensorPtr t = empty(Dims{static_cast<int64_t>(bytes.size())}, Dtype::kUInt8);
    std::copy(bytes.begin(), bytes.end(), reinterpret_cast<uint8_t*>(t->data()));
    return wrap(t);
  });
}
PyObject* generator_set_state(PyObject* self, PyObject* state) {
  return guarded([&] {
    static const ops::OpRef contiguous("contiguous");
    LOHE_CHECK_TYPE(is_tensor(state), "Generator.set_state: expected a torch.ByteTensor, but got ",
                    type_name(state));
    const TensorPtr t = contiguous(tensor_of(state));
    LOHE_CHECK_TYPE(t->dtype() == Dtype::kUInt8,
                    "Generator.set_state: RNG state must be a torch.ByteTensor, got ", info(t->dtype()).name);
    value(self).set_state_bytes(
        {reinterpret_cast<const uint8_t*>(t->data()), static_cast<size_t>(t->numel())});
    return Py_NewRef(self);
  });
}
PyObject* generator_clone_state(PyObject* self, PyObject*) {
  return guarded([&]() -> PyObject* {
    Ref object = checked(generator_type.tp_alloc(&generator_type, 0));
    auto* copy = reinterpret_cast<PyGenerator*>(object.get());
    copy->generator = new Generator(value(self).device());
    copy->owned = true;
    copy->generator->set_state(value(self).state());
    return object.release();
  });
}
PyObject* generator_reduce(PyObject* self, PyObject*) {
  return guarded([&] {
    const Ref state = checked(generator_get_state(self, nullptr));
    const Ref device = checked(unicode(value(self).device().str()));
    return Py_BuildValue("O(O)O", reinterpret_cast<PyObject*>(&generator_type), device.get(), state.get());
  });
}
PyObject* generator_device(PyObject* self, void*) {
  return guarded([&] { return wrap_device(value(self).device()); });
}

PyMethodDef methods[] = {
    {"manual_seed", generator_manual_seed, METH_O,
     "Starts the stream of a seed from its beginning; gives self."},
    {"seed", generator_seed, METH_NOARGS, "Takes a seed from the operating system and gives it."},
    {"initial_seed", generator_initial_seed, METH_NOARGS, "The seed of the stream."},
    {"get_state", generator_get_state, METH_NOARGS, "The state as a uint8 tensor."},
    {"set_state", generator_set_state, METH_O, "Goes on from a state that get_state gave."},
    {"clone_state", generator_clone_state, METH_NOARGS, "A generator of its own in the same state."},
    {"graphsafe_get_state", generator_clone_state, METH_NOARGS, "As clone_state."},
    {"__reduce__", generator_reduce, METH_NOARGS, nullptr},
    {"__setstate__", generator_set_state, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef properties[] = {{"device", generator_device, nullptr, "The device that it serves.", nullptr},
                            {nullptr, nullptr, nullptr, nullptr, nullptr}};

}  // namespace

bool generator_from(PyObject* object, Generator*& generator) {
  if (PyObject_TypeCheck(object, &generator_type) == 0) return false;
  generator = &value(object);
  return true;
}

void init_generator(PyObject* module) {
  generator_type.tp_doc = "Generator(device='cpu'): a stream of random numbers (Philox 4x32-10).";
  generator_type.tp_new = generator_new;
  generator_type.tp_dealloc = generator_dealloc;
  generator_type.tp_methods = methods;
  generator_type.tp_getset = properties;
  generator_type.tp_flags |= Py_TPFLAGS_BASETYPE;
  check_status(PyType_Ready(&generator_type));
  check_status(PyModule_AddObjectRef(module, "Generator", reinterpret_cast<PyObject*>(&generator_type)));
  const Ref standard = checked(generator_type.tp_alloc(&generator_type, 0));
  reinterpret_cast<PyGenerator*>(standard.get())->generator = &default_generator();
  reinterpret_cast<PyGenerator*>(standard.get())->owned = false;
  check_status(PyModule_AddObjectRef(module, "default_generator", standard.get()));
}

}  // namespace lohe::python
