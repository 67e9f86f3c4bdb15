#include "binding/plain_data.h"

#include <limits>
#include <unordered_map>

#include "autograd/tape.h"
#include "binding/storage.h"
#include "binding/tensor.h"
#include "binding/types.h"
#include "io/tensors.h"

namespace lohe::python {
namespace {

using io::Dict;
using io::DictKind;
using io::StorageBlob;
using io::TensorBlob;
using io::Value;

/// A class of a Python module, kept for the life of the process.
PyTypeObject* class_of(PyTypeObject*& slot, const char* module, const char* name) {
  if (slot == nullptr) {
    const Ref source = checked(PyImport_ImportModule(module));
    Ref found = checked(PyObject_GetAttrString(source.get(), name));
    LOHE_CHECK_TYPE(PyType_Check(found.get()) != 0, module, ".", name, " is no class");
    slot = reinterpret_cast<PyTypeObject*>(found.release());
  }
  return slot;
}
PyTypeObject* parameter_class() {
  static PyTypeObject* slot = nullptr;
  return class_of(slot, "lohe.nn.parameter", "Parameter");
}
PyTypeObject* ordered_dict_class() {
  static PyTypeObject* slot = nullptr;
  return class_of(slot, "collections", "OrderedDict");
}
PyTypeObject* counter_class() {
  static PyTypeObject* slot = nullptr;
  return class_of(slot, "collections", "Counter");
}
PyTypeObject* default_dict_class() {
  static PyTypeObject* slot = nullptr;
  return class_of(slot, "collections", "defaultdict");
}
PyObject* builtin(const std::string& name) {
  const Ref builtins = checked(PyImport_ImportModule("builtins"));
  return checked(PyObject_GetAttrString(builtins.get(), name.c_str())).release();
}

std::string qualified_type(PyObject* object) {
  const Ref type = Ref::borrow(reinterpret_cast<PyObject*>(Py_TYPE(object)));
  const Ref module = Ref::steal(PyObject_GetAttrString(type.get(), "__module__"));
  const Ref name = Ref::steal(PyObject_GetAttrString(type.get(), "__qualname__"));
  if (!module || !name || !PyUnicode_Check(module.get()) || !PyUnicode_Check(name.get())) {
    PyErr_Clear();
    return Py_TYPE(object)->tp_name;
  }
  const std::string_view prefix = utf8(module.get());
  return prefix == "builtins" ? std::string(utf8(name.get()))
                              : std::string(prefix) + "." + std::string(utf8(name.get()));
}

// --- Python to values

class Reader {
 public:
  Value read(PyObject* object) {
    if (object == Py_None) return io::None{};
    if (PyBool_Check(object)) return object == Py_True;
    if (PyLong_CheckExact(object)) return integer(object);
    if (PyFloat_CheckExact(object)) return PyFloat_AS_DOUBLE(object);
    if (PyComplex_CheckExact(object)) {
      const Py_complex c = PyComplex_AsCComplex(object);
      return std::complex<double>(c.real, c.imag);
    }
    if (is_dtype(object)) return dtype_from(object);
    if (const auto found = known_.find(object); found != known_.end()) {
      LOHE_CHECK_VALUE(found->second.complete, "cannot save a ", type_name(object), " that contains itself");
      return found->second.value;
    }
    LOHE_CHECK_VALUE(depth_ < io::kMaxNesting, "cannot save objects that nest deeper than ", io::kMaxNesting,
                     " levels");
    known_.emplace(object, Known{Ref::borrow(object), Value(), false});
    ++depth_;
    Value value = compound(object);
    --depth_;
    Known& known = known_.at(object);
    known.value = value;
    known.complete = true;
    return value;
  }

 private:
  struct Known {
    Ref object;  // kept, so that its address stays its own
    Value value;
    bool complete;
  };

  static Value integer(PyObject* object) {
    int overflow = 0;
    const long long small = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow == 0) return static_cast<int64_t>(small);
    const Ref bits = checked(PyObject_CallMethod(object, "bit_length", nullptr));
    const Py_ssize_t length = PyLong_AsSsize_t(bits.get()) / 8 + 1;  // one bit for the sign
    const Ref to_bytes = checked(PyObject_GetAttrString(object, "to_bytes"));
    const Ref args = checked(Py_BuildValue("(ns)", length, "little"));
    const Ref options = checked(Py_BuildValue("{sO}", "signed", Py_True));
    const Ref bytes = checked(PyObject_Call(to_bytes.get(), args.get(), options.get()));
    return io::BigInt{
        std::make_shared<const std::string>(PyBytes_AS_STRING(bytes.get()), static_cast<size_t>(length))};
  }

  Value compound(PyObject* object) {
    if (PyUnicode_CheckExact(object)) {
      const Ref text = checked(PyUnicode_AsEncodedString(object, "utf-8", "surrogatepass"));
      return std::string(PyBytes_AS_STRING(text.get()), static_cast<size_t>(PyBytes_GET_SIZE(text.get())));
    }
    if (PyBytes_CheckExact(object)) {
      return io::make_bytes({PyBytes_AS_STRING(object), static_cast<size_t>(PyBytes_GET_SIZE(object))});
    }
    if (PyByteArray_CheckExact(object)) {
      return io::ByteArray{std::make_shared<std::string>(PyByteArray_AS_STRING(object),
                                                         static_cast<size_t>(PyByteArray_GET_SIZE(object)))};
    }
    if (PyList_CheckExact(object) || PyTuple_CheckExact(object)) return sequence(object);
    if (PyAnySet_CheckExact(object)) return set(object);
    if (PyDict_CheckExact(object)) return mapping(object, DictKind::kPlain);
    if (Py_TYPE(object) == ordered_dict_class()) return mapping(object, DictKind::kOrdered);
    if (Py_TYPE(object) == counter_class()) return mapping(object, DictKind::kCounter);
    if (Py_TYPE(object) == default_dict_class()) return mapping(object, DictKind::kDefault);
    if (Py_TYPE(object) == &size_type) return size(object);
    if (Py_TYPE(object) == tensor_type) return tensor(object, false);
    if (Py_TYPE(object) == parameter_class()) return tensor(object, true);
    if (is_storage(object)) return tensors_.storage(Intrusive<Storage>(storage_of(object)), kUInt8, true);
    if (is_device(object)) {
      return std::make_shared<const io::Device>(
          io::Device{reinterpret_cast<PyDevice*>(object)->device.str()});
    }
    if (is_layout(object)) {
      return std::make_shared<const io::Layout>(
          io::Layout{std::string("torch.") + reinterpret_cast<PyEnum*>(object)->name});
    }
    refuse(object);
  }

  [[noreturn]] void refuse(PyObject* object) const {
    const std::string type = qualified_type(object);
    if (is_tensor(object)) {
      raise(ErrorKind::kType, "cannot save a tensor of class '", type,
            "': files are read without running code, so they hold Tensor and Parameter alone; save "
            "tensor.detach().as_subclass(Tensor)");
    }
    if (PyObject_HasAttrString(object, "state_dict") != 0 && !PyType_Check(object)) {
      raise(ErrorKind::kType, "cannot save an object of type '", type,
            "': files are read without running code, so they hold tensors and plain data alone; save "
            "object.state_dict() and load it with load_state_dict()");
    }
    if (type.starts_with("numpy.")) {
      raise(ErrorKind::kType, "cannot save an object of type '", type,
            "': files hold tensors and plain data; save value.item() or from_numpy(array)");
    }
    raise(
        ErrorKind::kType, "cannot save an object of type '", type,
        "': files are read without running code, so they hold tensors, None, bool, int, float, complex, str, bytes, "
        "list, tuple, dict, set, dtype, Size and device alone; save its contents as these (a module's or an "
        "optimizer's as state_dict())");
  }

  Value sequence(PyObject* object) {
    std::vector<Value> items;
    items.reserve(static_cast<size_t>(PySequence_Fast_GET_SIZE(object)));
    // Nothing that runs in between can change the object, but its length is read anew all the same.
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(object); ++i) {
      items.push_back(read(PySequence_Fast_GET_ITEM(object, i)));
    }
    return PyList_CheckExact(object) ? io::make_list(std::move(items)) : io::make_tuple(std::move(items));
  }

  Value set(PyObject* object) {
    auto made = std::make_shared<io::Set>();
    made->frozen = PyFrozenSet_CheckExact(object);
    const Ref items = checked(PySequence_List(object));
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items.get()); ++i) {
      made->items.push_back(read(PyList_GET_ITEM(items.get(), i)));
    }
    return made;
  }

  std::shared_ptr<Dict> mapping(PyObject* object, DictKind kind) {
    auto made = std::make_shared<Dict>();
    made->kind = kind;
    // An OrderedDict has an order of its own, which its items() follow.
    const Ref items = checked(kind == DictKind::kOrdered ? PyMapping_Items(object) : PyDict_Items(object));
    made->items.reserve(static_cast<size_t>(PyList_GET_SIZE(items.get())));
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items.get()); ++i) {
      PyObject* pair = PyList_GET_ITEM(items.get(), i);
      Value key = read(PyTuple_GET_ITEM(pair, 0));
      made->items.emplace_back(std::move(key), read(PyTuple_GET_ITEM(pair, 1)));
    }
    if (kind == DictKind::kDefault) made->default_factory = factory_name(object);
    if (kind == DictKind::kOrdered || kind == DictKind::kCounter) {
      const Ref attributes = checked(PyObject_GetAttrString(object, "__dict__"));
      if (PyDict_GET_SIZE(attributes.get()) > 0)
        made->attributes = mapping(attributes.get(), DictKind::kPlain);
    }
    return made;
  }

  static std::string factory_name(PyObject* object) {
    const Ref factory = checked(PyObject_GetAttrString(object, "default_factory"));
    if (factory.get() == Py_None) return {};
    for (PyTypeObject* type :
         {&PyList_Type, &PyDict_Type, &PySet_Type, &PyFrozenSet_Type, &PyTuple_Type, &PyLong_Type,
          &PyFloat_Type, &PyBool_Type, &PyUnicode_Type, &PyComplex_Type, &PyBytes_Type}) {
      if (factory.get() == reinterpret_cast<PyObject*>(type)) return type->tp_name;
    }
    raise(ErrorKind::kType, "cannot save a defaultdict whose default_factory is a '",
          qualified_type(factory.get()),
          "' that a file cannot name; only built-in types can be stored. Save dict(mapping)");
  }

  static Value size(PyObject* object) {
    io::Size made;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(object); ++i) {
      const long long n = PyLong_AsLongLong(PyTuple_GET_ITEM(object, i));
      if (n == -1 && PyErr_Occurred() != nullptr) throw PythonError{};
      made.sizes.push_back(n);
    }
    return std::make_shared<const io::Size>(std::move(made));
  }

  Value tensor(PyObject* object, bool is_parameter) {
    TensorBlob blob = tensors_.tensor(*impl_of(object));
    blob.is_parameter = is_parameter;
    if (!is_parameter) warn_of_hooks(object);
    const Ref attributes = checked(PyObject_GetAttrString(object, "__dict__"));
    if (PyDict_GET_SIZE(attributes.get()) > 0) {
      const Ref kept = checked(PyDict_Copy(attributes.get()));
      // Hooks belong to a process.
      if (PyDict_DelItemString(kept.get(), "_post_accumulate_grad_hooks") < 0) PyErr_Clear();
      if (PyDict_GET_SIZE(kept.get()) > 0) blob.attributes = mapping(kept.get(), DictKind::kPlain);
    }
    return std::make_shared<TensorBlob>(std::move(blob));
  }

  static void warn_of_hooks(PyObject* object) {
    PyObject* hooks = reinterpret_cast<PyTensor*>(object)->hooks;
    if (hooks == nullptr || !PyDict_Check(hooks)) return;
    const Ref list = checked(PyDict_Values(hooks));
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list.get()); ++i) {
      PyObject* hook = PyList_GET_ITEM(list.get(), i);
      if (PyObject_HasAttrString(hook, "__torch_unserializable__") != 0) continue;
      check_status(PyErr_WarnFormat(PyExc_UserWarning, 1,
                                    "the backward hook %R of a tensor is not saved; decorate it with "
                                    "torch.utils.hooks.unserializable_hook if this is meant",
                                    hook));
    }
  }

  std::unordered_map<PyObject*, Known> known_;
  io::TensorDescriber tensors_;
  int depth_ = 0;
};

// --- values to Python

/// The reader of files has checked that the value is free of rings and nested at most kMaxNesting deep.
class Writer {
 public:
  explicit Writer(const PlaceStorage& place) : place_(place) {}

  Ref write(const Value& value) {
    return std::visit([this](const auto& held) { return write_held(held); }, value.variant());
  }

 private:
  /// The object made for something that the file shares, or a new one from `make`.
  template <class F>
  Ref shared(const void* identity, F&& make) {
    if (const auto found = known_.find(identity); found != known_.end()) return found->second;
    Ref made = make();
    known_.emplace(identity, made);
    return made;
  }

  Ref write_held(io::None) { return Ref::borrow(Py_None); }
  Ref write_held(bool value) { return Ref::borrow(value ? Py_True : Py_False); }
  Ref write_held(int64_t value) { return checked(PyLong_FromLongLong(value)); }
  Ref write_held(double value) { return checked(PyFloat_FromDouble(value)); }
  Ref write_held(const std::complex<double>& value) {
    return checked(PyComplex_FromDoubles(value.real(), value.imag()));
  }
  Ref write_held(Dtype value) { return Ref::borrow(dtype_object(value)); }
  Ref write_held(io::Global) { raise(ErrorKind::kInternal, "a loaded value holds a class"); }
  Ref write_held(const io::Text& text) {
    return shared(text.get(), [&] {
      return checked(
          PyUnicode_DecodeUTF8(text->data(), static_cast<Py_ssize_t>(text->size()), "surrogatepass"));
    });
  }
  Ref write_held(const io::BigInt& value) {
    const Ref from_bytes =
        checked(PyObject_GetAttrString(reinterpret_cast<PyObject*>(&PyLong_Type), "from_bytes"));
    const Ref args = checked(
        Py_BuildValue("(y#s)", value.bytes->data(), static_cast<Py_ssize_t>(value.bytes->size()), "little"));
    const Ref options = checked(Py_BuildValue("{sO}", "signed", Py_True));
    return checked(PyObject_Call(from_bytes.get(), args.get(), options.get()));
  }
  Ref write_held(const io::Bytes& value) {
    return shared(value.bytes.get(), [&] {
      return checked(
          PyBytes_FromStringAndSize(value.bytes->data(), static_cast<Py_ssize_t>(value.bytes->size())));
    });
  }
  Ref write_held(const io::ByteArray& value) {
    return shared(value.bytes.get(), [&] {
      return checked(
          PyByteArray_FromStringAndSize(value.bytes->data(), static_cast<Py_ssize_t>(value.bytes->size())));
    });
  }
  Ref write_held(const std::shared_ptr<io::List>& list) {
    return shared(list.get(), [&] {
      return sequence(list->items, PyList_New,
                      [](PyObject* o, Py_ssize_t i, PyObject* v) { PyList_SET_ITEM(o, i, v); });
    });
  }
  Ref write_held(const std::shared_ptr<io::Tuple>& tuple) {
    return shared(tuple.get(), [&] {
      return sequence(tuple->items, PyTuple_New,
                      [](PyObject* o, Py_ssize_t i, PyObject* v) { PyTuple_SET_ITEM(o, i, v); });
    });
  }
  template <class New, class Set>
  Ref sequence(const std::vector<Value>& items, New make, Set set) {
    Ref made = checked(make(static_cast<Py_ssize_t>(items.size())));
    for (size_t i = 0; i < items.size(); ++i)
      set(made.get(), static_cast<Py_ssize_t>(i), write(items[i]).release());
    return made;
  }
  Ref write_held(const std::shared_ptr<io::Set>& set) {
    return shared(set.get(), [&] {
      const Ref items = sequence(set->items, PyList_New,
                                 [](PyObject* o, Py_ssize_t i, PyObject* v) { PyList_SET_ITEM(o, i, v); });
      return checked(set->frozen ? PyFrozenSet_New(items.get()) : PySet_New(items.get()));
    });
  }
  Ref write_held(const std::shared_ptr<Dict>& dict) {
    return shared(dict.get(), [&] { return mapping(*dict); });
  }
  Ref mapping(const Dict& dict) {
    Ref made;
    switch (dict.kind) {
      case DictKind::kPlain:
        made = checked(PyDict_New());
        break;
      case DictKind::kOrdered:
        made = checked(PyObject_CallNoArgs(reinterpret_cast<PyObject*>(ordered_dict_class())));
        break;
      case DictKind::kCounter:
        made = checked(PyObject_CallNoArgs(reinterpret_cast<PyObject*>(counter_class())));
        break;
      case DictKind::kDefault: {
        const Ref factory =
            dict.default_factory.empty() ? Ref::borrow(Py_None) : Ref::steal(builtin(dict.default_factory));
        made = checked(PyObject_CallOneArg(reinterpret_cast<PyObject*>(default_dict_class()), factory.get()));
        break;
      }
    }
    for (const auto& [name, item] : dict.items) {
      const Ref key = write(name), value = write(item);
      check_status(PyObject_SetItem(made.get(), key.get(), value.get()));
    }
    if (dict.attributes != nullptr) set_attributes(made.get(), *dict.attributes);
    return made;
  }
  /// Into the instance's dict, so that no property of the class runs.
  void set_attributes(PyObject* object, const Dict& attributes) {
    const Ref target = checked(PyObject_GetAttrString(object, "__dict__"));
    for (const auto& [name, item] : attributes.items) {
      LOHE_CHECK_KIND(kValue, name.is_text(), "cannot load a ", type_name(object),
                      " with an attribute whose name is a ", name.type_name());
      const Ref key = write(name), value = write(item);
      check_status(PyObject_SetItem(target.get(), key.get(), value.get()));
    }
  }

  void place(const std::shared_ptr<const StorageBlob>& blob) {
    if (!place_ || !placed_.emplace(blob.get(), true).second) return;
    Intrusive<Storage> instead = place_(tensors_.storage(blob), blob->location);
    if (instead) tensors_.replace(blob, std::move(instead));
  }
  Ref write_held(const std::shared_ptr<TensorBlob>& blob) {
    return shared(blob.get(), [&] {
      place(blob->storage);
      TensorPtr tensor = tensors_.tensor(*blob);
      Ref made = checked(blob->is_parameter ? wrap_as(parameter_class(), std::move(tensor))
                                            : wrap(std::move(tensor)));
      if (blob->attributes != nullptr) {
        set_attributes(made.get(), *blob->attributes);
      } else if (blob->is_buffer) {
        check_status(PyObject_SetAttrString(made.get(), "persistent", Py_True));
        check_status(PyObject_SetAttrString(made.get(), "_is_buffer", Py_True));
      }
      return made;
    });
  }
  Ref write_held(const std::shared_ptr<const StorageBlob>& blob) {
    LOHE_CHECK_KIND(kNotImplemented, blob->untyped, "cannot load a TypedStorage of ", info(blob->dtype).name,
                    ": storages are untyped here; save the tensor, or storage.untyped()");
    place(blob);
    return checked(wrap_storage(tensors_.storage(blob)));
  }
  Ref write_held(const std::shared_ptr<const io::Size>& size) {
    return shared(size.get(), [&] { return checked(wrap_size(size->sizes)); });
  }
  Ref write_held(const std::shared_ptr<const io::Device>& device) {
    LOHE_CHECK_KIND(kNotImplemented, device->name == "cpu" || device->name == "cpu:0",
                    "cannot load a torch.device('", device->name,
                    "'): the only device here is the CPU; save str(device) instead");
    return shared(device.get(), [&] { return checked(wrap_device(Device::parse(device->name))); });
  }
  Ref write_held(const std::shared_ptr<const io::Layout>& layout) {
    const std::string name = layout->name.substr(layout->name.rfind('.') + 1);
    const Ref module = checked(PyImport_ImportModule("lohe._C"));
    LOHE_CHECK_KIND(kNotImplemented, PyObject_HasAttrString(module.get(), name.c_str()) != 0,
                    "cannot load the layout ", layout->name, ", which does not exist here");
    return checked(PyObject_GetAttrString(module.get(), name.c_str()));
  }

  const PlaceStorage& place_;
  std::unordered_map<const void*, Ref> known_;
  std::unordered_map<const StorageBlob*, bool> placed_;
  io::TensorBuilder tensors_;
};

}  // namespace

io::Value to_value(PyObject* object) { return Reader().read(object); }

PyObject* from_value(const io::Value& value, const PlaceStorage& place) {
  return Writer(place).write(value).release();
}

}  // namespace lohe::python
