#include <algorithm>
#include <cstring>

#include "binding/plain_data.h"
#include "binding/storage.h"
#include "binding/tensor.h"
#include "binding/types.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "io/tensors.h"
#include "io/unpickle.h"

/// Files of tensors: what lohe.serialization and lohe.safetensors call.
namespace lohe::python {
namespace {

constexpr size_t kChunk = size_t{4} << 20;  ///< bytes handed to a Python file object at once

PyObject* safetensors_error = nullptr;

/// `guarded` for functions that read or write files, whose errors have classes of their own in Python.
template <class F>
PyObject* guarded_file(F&& body) noexcept {
  return guarded([&]() -> PyObject* {
    try {
      return body();
    } catch (const io::UnpicklingError& error) {
      const Ref module = checked(PyImport_ImportModule("pickle"));
      const Ref type = checked(PyObject_GetAttrString(module.get(), "UnpicklingError"));
      PyErr_SetString(type.get(), error.what());
    } catch (const io::SafetensorsError& error) {
      PyErr_SetString(safetensors_error, error.what());
    }
    throw PythonError{};
  });
}

/// A file's content: the name of a file, or an object with the buffer protocol.
struct Source {
  std::string path;
  std::shared_ptr<const void> owner;  ///< of bytes in memory
  std::span<const std::byte> bytes;
  bool is_path() const { return owner == nullptr; }
};

Source source_of(PyObject* object, const char* function) {
  Source source;
  if (PyUnicode_Check(object)) {
    const Ref encoded = checked(PyUnicode_EncodeFSDefault(object));
    source.path.assign(PyBytes_AS_STRING(encoded.get()),
                       static_cast<size_t>(PyBytes_GET_SIZE(encoded.get())));
    LOHE_CHECK_VALUE(source.path.find('\0') == source.path.npos, "embedded null byte");
    return source;
  }
  LOHE_CHECK_TYPE(PyBytes_CheckExact(object), function,
                  "(): expected the path of a file as str, or its content as bytes, not ", type_name(object));
  source.owner = std::make_shared<SharedRef>(object);
  source.bytes =
      std::as_bytes(std::span(PyBytes_AS_STRING(object), static_cast<size_t>(PyBytes_GET_SIZE(object))));
  return source;
}

/// What a map_location function makes of a storage.
PlaceStorage placement(PyObject* function) {
  if (function == Py_None) return nullptr;
  return [function](const Intrusive<Storage>& storage, const std::string& location) -> Intrusive<Storage> {
    const Ref object = checked(wrap_storage(storage));
    const Ref name = checked(unicode(location));
    const Ref result = checked(PyObject_CallFunctionObjArgs(function, object.get(), name.get(), nullptr));
    if (result.get() == Py_None || result.get() == object.get()) return {};
    LOHE_CHECK_TYPE(is_storage(result.get()),
                    "load(): map_location must return an UntypedStorage or None, got ",
                    type_name(result.get()));
    return Intrusive<Storage>(storage_of(result.get()));
  };
}

PyObject* load(PyObject*, PyObject* args) {
  return guarded_file([&]() -> PyObject* {
    PyObject *object, *map_location = Py_None;
    const char* name = "<bytes>";
    int mmap = 0;
    if (!PyArg_ParseTuple(args, "O|pOs:_load", &object, &mmap, &map_location, &name)) throw PythonError{};
    const Source source = source_of(object, "_load");
    io::Value value;
    {
      const WithoutGil released;
      const io::LoadOptions options{.mmap = mmap != 0};
      value = source.is_path() ? io::load(source.path, options)
                               : io::load(source.bytes, source.owner, name, options);
    }
    return from_value(value, placement(map_location));
  });
}

/// Hands bytes to `write`, a Python function, in pieces of its own, since it may keep them.
class PythonSink {
 public:
  explicit PythonSink(PyObject* write) : write_(write) {}
  void operator()(std::span<const std::byte> bytes) {
    while (!bytes.empty()) {
      const size_t taken = std::min(bytes.size(), kChunk - pending_.size());
      pending_.append(reinterpret_cast<const char*>(bytes.data()), taken);
      bytes = bytes.subspan(taken);
      if (pending_.size() == kChunk) flush();
    }
  }
  void flush() {
    if (pending_.empty()) return;
    const Ref chunk =
        checked(PyBytes_FromStringAndSize(pending_.data(), static_cast<Py_ssize_t>(pending_.size())));
    pending_.clear();
    checked(PyObject_CallOneArg(write_, chunk.get()));
  }

 private:
  PyObject* write_;
  std::string pending_;
};

PyObject* save(PyObject*, PyObject* args) {
  return guarded_file([&]() -> PyObject* {
    PyObject *object, *target;
    if (!PyArg_ParseTuple(args, "OO:_save", &object, &target)) throw PythonError{};
    const io::Value value = to_value(object);
    if (PyCallable_Check(target) != 0) {
      PythonSink sink(target);
      io::save(value, [&](std::span<const std::byte> bytes) { sink(bytes); });
      sink.flush();
    } else {
      const Source path = source_of(target, "_save");
      LOHE_CHECK_TYPE(path.is_path(),
                      "_save(): expected the path of a file as str or a function that writes bytes");
      const WithoutGil released;
      io::save(value, path.path);
    }
    Py_RETURN_NONE;
  });
}

PyObject* load_safetensors(PyObject*, PyObject* args) {
  return guarded_file([&]() -> PyObject* {
    PyObject* object;
    int copy = 0;
    if (!PyArg_ParseTuple(args, "O|p:_load_safetensors", &object, &copy)) throw PythonError{};
    const Source source = source_of(object, "_load_safetensors");
    io::SafetensorsFile file = source.is_path() ? io::load_safetensors(source.path)
                                                : io::load_safetensors(source.bytes, source.owner, "<bytes>");
    const Ref tensors = checked(PyDict_New()), metadata = checked(PyDict_New());
    io::TensorBuilder builder;
    for (const auto& [name, blob] : file.tensors) {
      const Ref key = checked(unicode(name));
      TensorPtr tensor = builder.tensor(blob);
      if (copy != 0 || !tensor->storage().writable()) {
        const int64_t nbytes = tensor->storage().nbytes();
        Intrusive<Storage> own = Storage::allocate(nbytes);
        if (nbytes > 0) std::memcpy(own->data(), tensor->storage().data(), static_cast<size_t>(nbytes));
        tensor = TensorImpl::make(std::move(own), tensor->dtype(), tensor->sizes(), tensor->strides(), 0);
      }
      const Ref wrapped = checked(wrap(std::move(tensor)));
      check_status(PyDict_SetItem(tensors.get(), key.get(), wrapped.get()));
    }
    for (const auto& [name, text] : file.metadata) {
      const Ref key = checked(unicode(name)), value = checked(unicode(text));
      check_status(PyDict_SetItem(metadata.get(), key.get(), value.get()));
    }
    return Py_BuildValue("(OO)", tensors.get(), metadata.get());
  });
}

std::map<std::string, std::string> texts_of(PyObject* mapping) {
  std::map<std::string, std::string> texts;
  if (mapping == Py_None) return texts;
  LOHE_CHECK_TYPE(PyDict_Check(mapping), "save_file(): metadata must be a dict of str, not ",
                  type_name(mapping));
  PyObject *key, *value;
  for (Py_ssize_t i = 0; PyDict_Next(mapping, &i, &key, &value) != 0;) {
    LOHE_CHECK_TYPE(PyUnicode_Check(key) && PyUnicode_Check(value),
                    "save_file(): metadata must map str to str, got ", type_name(key), " and ",
                    type_name(value));
    texts.emplace(utf8(key), utf8(value));
  }
  return texts;
}

PyObject* save_safetensors(PyObject*, PyObject* args) {
  return guarded_file([&]() -> PyObject* {
    PyObject *mapping, *metadata = Py_None, *target = Py_None;
    if (!PyArg_ParseTuple(args, "O|OO:_save_safetensors", &mapping, &metadata, &target)) throw PythonError{};
    LOHE_CHECK_TYPE(PyDict_Check(mapping), "save_file(): tensors must be a dict of str to Tensor, not ",
                    type_name(mapping));
    std::map<std::string, io::TensorBlob> tensors;
    PyObject *key, *value;
    for (Py_ssize_t i = 0; PyDict_Next(mapping, &i, &key, &value) != 0;) {
      LOHE_CHECK_TYPE(PyUnicode_Check(key), "save_file(): the name of a tensor must be a str, not ",
                      type_name(key));
      const std::string_view name = utf8(key);
      LOHE_CHECK_TYPE(is_tensor(value), "save_file(): '", name, "' must be a Tensor, not ", type_name(value));
      // A describer for each: the format knows no storages, so views of one in several dtypes are no
      // conflict.
      tensors.emplace(name, io::TensorDescriber().tensor(*impl_of(value)));
    }
    const std::map<std::string, std::string> texts = texts_of(metadata);
    if (target == Py_None) {
      const std::string bytes = io::save_safetensors_to_string(tensors, texts);
      return PyBytes_FromStringAndSize(bytes.data(), static_cast<Py_ssize_t>(bytes.size()));
    }
    const Source path = source_of(target, "_save_safetensors");
    LOHE_CHECK_TYPE(path.is_path(), "save_file(): expected the path of a file");
    const WithoutGil released;
    io::save_safetensors(tensors, texts, path.path);
    Py_RETURN_NONE;
  });
}

PyMethodDef module_functions[] = {
    {"_load", load, METH_VARARGS,
     "_load(path_or_bytes, mmap=False, map_location=None, name='<bytes>'): the object that a .pt file holds."},
    {"_save", save, METH_VARARGS,
     "_save(obj, path_or_write): writes a .pt file, or its bytes by calls of a function."},
    {"_load_safetensors", load_safetensors, METH_VARARGS,
     "_load_safetensors(path_or_bytes, copy=False): (tensors, metadata), both dicts."},
    {"_save_safetensors", save_safetensors, METH_VARARGS,
     "_save_safetensors(tensors, metadata=None, path=None): writes a file, or gives its bytes."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

void init_serialization(PyObject* module) {
  safetensors_error =
      PyErr_NewExceptionWithDoc("lohe.safetensors.SafetensorError",
                                "A file breaks the rules of the safetensors format, or tensors cannot be "
                                "written in it.",
                                PyExc_ValueError, nullptr);
  if (safetensors_error == nullptr) throw PythonError{};
  check_status(PyModule_AddObjectRef(module, "SafetensorError", safetensors_error));
  check_status(PyModule_AddFunctions(module, module_functions));
}

}  // namespace lohe::python
