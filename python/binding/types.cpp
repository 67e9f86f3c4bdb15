#include "binding/types.h"

#include <array>

/// Dtype, device, layout and memory format objects.
namespace lohe::python {
namespace {

constexpr std::array kDtypes{kUInt8,   kInt8,    kInt16,     kInt32,      kInt64, kFloat16,
                             kFloat32, kFloat64, kComplex64, kComplex128, kBool,  kBFloat16};
PyObject* dtype_objects[256];

Dtype dtype_of(PyObject* self) { return reinterpret_cast<PyDtype*>(self)->dtype; }

PyObject* dtype_repr(PyObject* self) {
  return guarded([&] { return unicode(dtype_text(dtype_of(self))); });
}
PyObject* dtype_reduce(PyObject* self, PyObject*) {
  return guarded([&] { return unicode(info(dtype_of(self)).name); });
}
PyObject* dtype_to_complex(PyObject* self, PyObject*) {
  return guarded([&] { return Py_NewRef(dtype_object(to_complex(dtype_of(self)))); });
}
PyObject* dtype_to_real(PyObject* self, PyObject*) {
  return guarded([&] { return Py_NewRef(dtype_object(info(dtype_of(self)).value_dtype)); });
}
PyObject* dtype_copy(PyObject* self, PyObject*) { return Py_NewRef(self); }
PyObject* dtype_module(PyObject*, void*) { return PyUnicode_FromString("lohe"); }
PyObject* dtype_is_floating(PyObject* self, void*) { return PyBool_FromLong(is_floating(dtype_of(self))); }
PyObject* dtype_is_complex(PyObject* self, void*) { return PyBool_FromLong(is_complex(dtype_of(self))); }
PyObject* dtype_is_signed(PyObject* self, void*) { return PyBool_FromLong(info(dtype_of(self)).is_signed); }
PyObject* dtype_itemsize(PyObject* self, void*) { return PyLong_FromLongLong(itemsize(dtype_of(self))); }

PyMethodDef dtype_methods[] = {
    {"__reduce__", dtype_reduce, METH_NOARGS, nullptr},
    {"__copy__", dtype_copy, METH_NOARGS, nullptr},
    {"__deepcopy__", dtype_copy, METH_O, nullptr},
    {"to_complex", dtype_to_complex, METH_NOARGS, "The complex dtype whose parts have this precision."},
    {"to_real", dtype_to_real, METH_NOARGS, "The dtype of the parts of a complex dtype; else itself."},
    {nullptr, nullptr, 0, nullptr}};
PyGetSetDef dtype_properties[] = {{"__module__", dtype_module, nullptr, nullptr, nullptr},
                                  {"is_floating_point", dtype_is_floating, nullptr, nullptr, nullptr},
                                  {"is_complex", dtype_is_complex, nullptr, nullptr, nullptr},
                                  {"is_signed", dtype_is_signed, nullptr, nullptr, nullptr},
                                  {"itemsize", dtype_itemsize, nullptr, "Bytes of one element.", nullptr},
                                  {nullptr, nullptr, nullptr, nullptr, nullptr}};

// --- device

PyObject* device_new(PyTypeObject*, PyObject* args, PyObject* kwargs) {
  return guarded([&]() -> PyObject* {
    static const char* names[] = {"type", "index", nullptr};
    PyObject* type = nullptr;
    PyObject* index = Py_None;
    static const char* one[] = {"device", nullptr};
    if (kwargs != nullptr && PyDict_GetItemString(kwargs, "device") != nullptr) {
      if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O", const_cast<char**>(one), &type))
        throw PythonError{};
    } else if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|O:device", const_cast<char**>(names), &type,
                                            &index)) {
      throw PythonError{};
    }
    Device device;
    LOHE_CHECK_TYPE(device_from(type, device), "device(): argument 'type' must be str or torch.device, not ",
                    type_name(type));
    if (index != Py_None) {
      const long long value = PyLong_AsLongLong(index);
      if (value == -1 && PyErr_Occurred() != nullptr) throw PythonError{};
      LOHE_CHECK(
          device.index == -1,
          "type (string) must not include an index because index was passed explicitly: ", device.str());
      LOHE_CHECK(value == 0, "device(): there is one cpu, whose index is 0, got index ", value);
      device.index = 0;
    }
    return wrap_device(device);
  });
}
Device device_value(PyObject* self) { return reinterpret_cast<PyDevice*>(self)->device; }
PyObject* device_str(PyObject* self) {
  return guarded([&] { return unicode(device_value(self).str()); });
}
PyObject* device_repr(PyObject* self) {
  const Device d = device_value(self);
  if (d.index < 0) return PyUnicode_FromString("device(type='cpu')");
  return PyUnicode_FromFormat("device(type='cpu', index=%d)", static_cast<int>(d.index));
}
Py_hash_t device_hash(PyObject* self) { return device_value(self).index + 1001; }
PyObject* device_compare(PyObject* a, PyObject* b, int op) {
  if (!is_device(b) || (op != Py_EQ && op != Py_NE)) Py_RETURN_NOTIMPLEMENTED;
  return PyBool_FromLong((device_value(a) == device_value(b)) == (op == Py_EQ));
}
PyObject* device_type_name(PyObject*, void*) { return PyUnicode_FromString("cpu"); }
PyObject* device_index(PyObject* self, void*) {
  const Device d = device_value(self);
  if (d.index < 0) Py_RETURN_NONE;
  return PyLong_FromLong(d.index);
}
PyObject* device_reduce(PyObject* self, PyObject*) {
  return guarded([&] {
    const Ref text = checked(unicode(device_value(self).str()));
    return Py_BuildValue("O(O)", reinterpret_cast<PyObject*>(&device_type), text.get());
  });
}
PyObject* device_enter(PyObject* self, PyObject*) { return Py_NewRef(self); }
PyObject* device_exit(PyObject*, PyObject*) { Py_RETURN_NONE; }

PyMethodDef device_methods[] = {{"__reduce__", device_reduce, METH_NOARGS, nullptr},
                                {"__enter__", device_enter, METH_NOARGS, nullptr},
                                {"__exit__", device_exit, METH_VARARGS, nullptr},
                                {nullptr, nullptr, 0, nullptr}};
PyGetSetDef device_properties[] = {{"type", device_type_name, nullptr, nullptr, nullptr},
                                   {"index", device_index, nullptr, nullptr, nullptr},
                                   {nullptr, nullptr, nullptr, nullptr, nullptr}};

// --- layouts and memory formats

PyObject* enum_repr(PyObject* self) {
  return PyUnicode_FromFormat("torch.%s", reinterpret_cast<PyEnum*>(self)->name);
}
PyObject* enum_reduce(PyObject* self, PyObject*) {
  return PyUnicode_FromString(reinterpret_cast<PyEnum*>(self)->name);
}
PyObject* enum_copy(PyObject* self, PyObject*) { return Py_NewRef(self); }
PyMethodDef enum_methods[] = {{"__reduce__", enum_reduce, METH_NOARGS, nullptr},
                              {"__copy__", enum_copy, METH_NOARGS, nullptr},
                              {"__deepcopy__", enum_copy, METH_O, nullptr},
                              {nullptr, nullptr, 0, nullptr}};
PyGetSetDef enum_properties[] = {{"__module__", dtype_module, nullptr, nullptr, nullptr},
                                 {nullptr, nullptr, nullptr, nullptr, nullptr}};

struct EnumRow {
  const char* name;
  int value;
};
PyObject* strided = nullptr;

void add_enums(PyObject* module, PyTypeObject* type, std::initializer_list<EnumRow> rows) {
  for (const EnumRow& row : rows) {
    auto* object = PyObject_New(PyEnum, type);
    if (object == nullptr) throw PythonError{};
    object->name = row.name;
    object->value = row.value;
    check_status(PyModule_AddObjectRef(module, row.name, reinterpret_cast<PyObject*>(object)));
    if (std::string_view(row.name) == "strided") strided = reinterpret_cast<PyObject*>(object);
  }
}

}  // namespace

PyTypeObject dtype_type = static_type("lohe.dtype", sizeof(PyDtype));
PyTypeObject device_type = static_type("lohe.device", sizeof(PyDevice));
PyTypeObject layout_type = static_type("lohe.layout", sizeof(PyEnum));
PyTypeObject memory_format_type = static_type("lohe.memory_format", sizeof(PyEnum));

PyObject* dtype_object(Dtype dtype) {
  PyObject* object = dtype_objects[static_cast<uint8_t>(dtype)];
  LOHE_INTERNAL_ASSERT(object != nullptr, "no object for this dtype");
  return object;
}

Dtype dtype_from(PyObject* object) {
  if (is_dtype(object)) return dtype_of(object);
  if (object == reinterpret_cast<PyObject*>(&PyFloat_Type)) return default_dtype();
  if (object == reinterpret_cast<PyObject*>(&PyLong_Type)) return kInt64;
  if (object == reinterpret_cast<PyObject*>(&PyBool_Type)) return kBool;
  if (object == reinterpret_cast<PyObject*>(&PyComplex_Type)) return to_complex(default_dtype());
  return Dtype::kUndefined;
}

std::string dtype_text(Dtype dtype) { return "torch." + std::string(info(dtype).name); }

PyObject* wrap_device(Device device) {
  auto* object = PyObject_New(PyDevice, &device_type);
  if (object == nullptr) throw PythonError{};
  object->device = device;
  return reinterpret_cast<PyObject*>(object);
}

bool device_from(PyObject* object, Device& device) {
  if (is_device(object)) {
    device = device_value(object);
    return true;
  }
  if (PyUnicode_Check(object)) {
    device = Device::parse(utf8(object));
    return true;
  }
  return false;
}

PyObject* strided_layout() { return strided; }

void init_types(PyObject* module) {
  dtype_type.tp_repr = dtype_repr;
  dtype_type.tp_methods = dtype_methods;
  dtype_type.tp_getset = dtype_properties;
  device_type.tp_new = device_new;
  device_type.tp_repr = device_repr;
  device_type.tp_str = device_str;
  device_type.tp_hash = device_hash;
  device_type.tp_richcompare = device_compare;
  device_type.tp_methods = device_methods;
  device_type.tp_getset = device_properties;
  for (PyTypeObject* type : {&layout_type, &memory_format_type}) {
    type->tp_repr = enum_repr;
    type->tp_methods = enum_methods;
    type->tp_getset = enum_properties;
  }
  for (PyTypeObject* type : {&dtype_type, &device_type, &layout_type, &memory_format_type, &size_type}) {
    check_status(PyType_Ready(type));
    const std::string_view name = type->tp_name;
    check_status(
        PyModule_AddObjectRef(module, name.data() + name.rfind('.') + 1, reinterpret_cast<PyObject*>(type)));
  }
  for (const Dtype d : kDtypes) {
    auto* object = PyObject_New(PyDtype, &dtype_type);
    if (object == nullptr) throw PythonError{};
    object->dtype = d;
    dtype_objects[static_cast<uint8_t>(d)] = reinterpret_cast<PyObject*>(object);
    const DtypeInfo& row = info(d);
    check_status(
        PyModule_AddObjectRef(module, std::string(row.name).c_str(), reinterpret_cast<PyObject*>(object)));
    if (!row.alias.empty()) {
      check_status(
          PyModule_AddObjectRef(module, std::string(row.alias).c_str(), reinterpret_cast<PyObject*>(object)));
    }
  }
  add_enums(module, &layout_type,
            {{"strided", 0},
             {"sparse_coo", 1},
             {"sparse_csr", 2},
             {"sparse_csc", 3},
             {"sparse_bsr", 4},
             {"sparse_bsc", 5}});
  add_enums(module, &memory_format_type,
            {{"contiguous_format", kContiguousFormat},
             {"preserve_format", kPreserveFormat},
             {"channels_last", kChannelsLast},
             {"channels_last_3d", kChannelsLast3d}});
}

}  // namespace lohe::python
