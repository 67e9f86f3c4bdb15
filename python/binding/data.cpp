#include <cstring>

#include "autograd/tape.h"
#include "binding/export.h"
#include "binding/parse.h"
#include "binding/storage.h"
#include "binding/tensor.h"
#include "binding/torch_function.h"
#include "binding/types.h"
#include "tensor/shape.h"

/// Tensors from Python data: tensor(), as_tensor(), asarray(), and the class called as a function.
namespace lohe::python {
namespace {

constexpr size_t kMaxRank = 128;

bool is_array(PyObject* object) {
  return PyObject_HasAttrString(object, "__array_struct__") != 0 ||
         PyObject_HasAttrString(object, "__array_interface__") != 0;
}
bool is_number(PyObject* object) {
  return PyFloat_Check(object) || PyLong_Check(object) || PyComplex_Check(object);
}
bool is_sequence(PyObject* object) {
  return PyList_CheckExact(object) || PyTuple_CheckExact(object) ||
         (!is_number(object) && !PyUnicode_Check(object) && PySequence_Check(object) != 0 &&
          !PyDict_Check(object));
}

/// The dtype of one Python value as an element.
Dtype infer_dtype(PyObject* object, int depth = 0) {
  if (PyFloat_CheckExact(object)) return default_dtype();
  if (PyBool_Check(object)) return kBool;
  if (PyLong_Check(object)) return kInt64;
  if (is_tensor(object)) return impl_of(object)->dtype();
  if (!PyList_CheckExact(object) && !PyTuple_CheckExact(object) &&
      (is_numpy_scalar(object) || is_array(object))) {
    return tensor_from_array(object, false)->dtype();
  }
  if (PyFloat_Check(object)) return default_dtype();
  if (PyComplex_Check(object)) return to_complex(default_dtype());
  LOHE_CHECK_TYPE(!PyUnicode_Check(object), "new(): invalid data type 'str'");
  LOHE_CHECK(!PyDict_Check(object) && PySequence_Check(object) != 0, "Could not infer dtype of ",
             Py_TYPE(object)->tp_name);
  const Ref fast = checked(PySequence_Fast(object, "not a sequence"));
  const Py_ssize_t n = PySequence_Fast_GET_SIZE(fast.get());
  if (n == 0) return default_dtype();
  Dtype dtype = Dtype::kUndefined;
  for (Py_ssize_t i = 0; i < n; ++i) {
    PyObject* item = PySequence_Fast_GET_ITEM(fast.get(), i);
    LOHE_CHECK_TYPE(item != object, "new(): self-referential lists are incompatible");
    LOHE_CHECK_VALUE(depth < static_cast<int>(kMaxRank), "too many dimensions '", Py_TYPE(item)->tp_name,
                     "'");
    const Dtype one = infer_dtype(item, depth + 1);
    dtype = dtype == Dtype::kUndefined ? one : promote_types(dtype, one);
  }
  return dtype;
}

/// Sizes by the first elements; the rest is checked while it is read.
Dims infer_sizes(PyObject* data) {
  Dims sizes;
  Ref at = Ref::borrow(data);
  while (is_sequence(at.get()) && !is_numpy_scalar(at.get())) {
    if (is_tensor(at.get())) {
      for (const int64_t s : impl_of(at.get())->sizes()) sizes.push_back(s);
      break;
    }
    const Py_ssize_t n = PySequence_Size(at.get());
    if (n < 0) throw PythonError{};
    sizes.push_back(n);
    LOHE_CHECK_VALUE(sizes.size() <= kMaxRank, "too many dimensions '", Py_TYPE(at.get())->tp_name, "'");
    if (n == 0) break;
    Ref first = Ref::steal(PySequence_GetItem(at.get(), 0));
    if (!first) {
      PyErr_Clear();
      raise(ErrorKind::kValue, "could not determine the shape of object type '", Py_TYPE(at.get())->tp_name,
            "'");
    }
    at = std::move(first);
  }
  // A text is a sequence of texts without end.
  LOHE_CHECK_VALUE(!PyUnicode_Check(at.get()), "too many dimensions 'str'");
  return sizes;
}

Scalar element_from(PyObject* object) {
  Arg arg;
  if (is_tensor(object)) return item_of(tensor_of(object));
  if (PyLong_Check(object) && !PyBool_Check(object)) {
    int overflow = 0;
    const long long value = PyLong_AsLongLongAndOverflow(object, &overflow);
    if (overflow != 0) {
      PyErr_Clear();
      raise(ErrorKind::kRuntime, "Overflow when unpacking long long");
    }
    return Scalar(static_cast<int64_t>(value));
  }
  if (scalar_from(object, arg)) return arg.scalar();
  const double value = PyFloat_AsDouble(object);
  if (value == -1.0 && PyErr_Occurred() != nullptr) throw PythonError{};
  return Scalar(value);
}

void fill(char* address, const Dims& sizes, const Dims& strides, size_t dim, Dtype dtype, PyObject* data) {
  if (dim == sizes.size()) {
    if (PyFloat_CheckExact(data) && dtype == kFloat32) {
      const auto value = static_cast<float>(PyFloat_AS_DOUBLE(data));
      std::memcpy(address, &value, sizeof value);
      return;
    }
    store_element(address, dtype, element_from(data));
    return;
  }
  const int64_t n = sizes[dim], step = strides[dim] * itemsize(dtype);
  LOHE_CHECK_TYPE(is_sequence(data), "expected a sequence at dim ", dim, ", got ", Py_TYPE(data)->tp_name);
  const Ref fast = checked(PySequence_Fast(data, "not a sequence"));
  const Py_ssize_t got = PySequence_Fast_GET_SIZE(fast.get());
  LOHE_CHECK_VALUE(got == n, "expected sequence of length ", n, " at dim ", dim, " (got ", got, ")");
  for (int64_t i = 0; i < n; ++i) {
    fill(address + i * step, sizes, strides, dim + 1, dtype, PySequence_Fast_GET_ITEM(fast.get(), i));
  }
}

TensorPtr fresh(Dtype dtype, std::span<const int64_t> sizes) {
  return TensorImpl::make_contiguous(Storage::allocate(numel_of(sizes) * itemsize(dtype)), dtype, sizes);
}

/// A list whose elements are all tensors of one element, arrays and the like is read element by element, too.
TensorPtr tensor_from_sequence(PyObject* data, Dtype dtype) {
  const Dims sizes = infer_sizes(data);
  if (dtype == Dtype::kUndefined) dtype = infer_dtype(data);
  TensorPtr t = fresh(dtype, sizes);
  if (t->numel() > 0) fill(t->data(), sizes, contiguous_strides(sizes), 0, dtype, data);
  return t;
}

TensorPtr copied(const TensorPtr& t, Dtype dtype) {
  const autograd::GradModeGuard off(false);
  if (dtype != Dtype::kUndefined && dtype != t->dtype()) return cast(t, dtype);
  return call_row("clone", {Arg(t.get())});
}

/// What all constructors share: always a copy for `copy`, memory shared where possible otherwise.
TensorPtr tensor_from(PyObject* data, Dtype dtype, bool copy) {
  if (is_tensor(data)) {
    if (!copy) return cast(tensor_of(data), dtype == Dtype::kUndefined ? impl_of(data)->dtype() : dtype);
    return copied(tensor_of(data), dtype);
  }
  LOHE_CHECK_TYPE(!PyUnicode_Check(data), "new(): invalid data type 'str'");
  if (!PyList_CheckExact(data) && !PyTuple_CheckExact(data) && !PyFloat_CheckExact(data) &&
      !PyLong_CheckExact(data) && (is_numpy_scalar(data) || is_array(data))) {
    TensorPtr shared = tensor_from_array(data, !copy);
    if (!copy && !is_numpy_scalar(data) && (dtype == Dtype::kUndefined || dtype == shared->dtype()))
      return shared;
    return copied(shared, dtype);
  }
  return tensor_from_sequence(data, dtype);
}

Dtype dtype_argument(PyObject* object, const char* name) {
  if (object == nullptr || object == Py_None) return Dtype::kUndefined;
  const Dtype dtype = dtype_from(object);
  LOHE_CHECK_TYPE(dtype != Dtype::kUndefined, name, "(): argument 'dtype' must be torch.dtype, not ",
                  type_name(object));
  return dtype;
}
void device_argument(PyObject* object, const char* name) {
  Device device;
  if (object == nullptr || object == Py_None) return;
  LOHE_CHECK_TYPE(device_from(object, device), name, "(): argument 'device' must be torch.device, not ",
                  type_name(object));
}

PyObject* tensor_function(PyObject*, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    static const char* names[] = {"data", "dtype", "device", "requires_grad", "pin_memory", "names", nullptr};
    PyObject *data, *dtype = nullptr, *device = nullptr, *name_list = nullptr;
    int requires_grad = 0, pin_memory = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOppO:tensor", const_cast<char**>(names), &data,
                                     &dtype, &device, &requires_grad, &pin_memory, &name_list)) {
      throw PythonError{};
    }
    device_argument(device, "tensor");
    if (is_tensor(data)) {
      check_status(PyErr_WarnEx(
          PyExc_UserWarning,
          "To copy construct from a tensor, it is recommended to use sourceTensor.detach().clone() or "
          "sourceTensor.detach().clone().requires_grad_(True), rather than torch.tensor(sourceTensor).",
          1));
    }
    TensorPtr t = tensor_from(data, dtype_argument(dtype, "tensor"), true);
    if (requires_grad != 0) autograd::set_requires_grad(*t, true);
    return wrap(std::move(t));
  });
}

PyObject* as_tensor_function(PyObject*, PyObject* args, PyObject* kwargs) {
  return guarded([&]() -> PyObject* {
    static const char* names[] = {"data", "dtype", "device", nullptr};
    PyObject *data, *dtype = nullptr, *device = nullptr;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|OO:as_tensor", const_cast<char**>(names), &data, &dtype,
                                     &device)) {
      throw PythonError{};
    }
    device_argument(device, "as_tensor");
    return wrap(tensor_from(data, dtype_argument(dtype, "as_tensor"), false));
  });
}

PyObject* asarray_function(PyObject*, PyObject* args, PyObject* kwargs) {
  return guarded([&]() -> PyObject* {
    static const char* names[] = {"obj", "dtype", "device", "copy", "requires_grad", nullptr};
    PyObject *data, *dtype_object = nullptr, *device = nullptr, *copy_object = Py_None;
    int requires_grad = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OOOp:asarray", const_cast<char**>(names), &data,
                                     &dtype_object, &device, &copy_object, &requires_grad)) {
      throw PythonError{};
    }
    device_argument(device, "asarray");
    const Dtype dtype = dtype_argument(dtype_object, "asarray");
    const bool copy = copy_object == Py_True;
    TensorPtr t;
    if (is_tensor(data)) {
      t = copy ? copied(tensor_of(data), dtype)
               : cast(tensor_of(data), dtype == Dtype::kUndefined ? impl_of(data)->dtype() : dtype);
      if (!requires_grad && t->requires_grad) t = call_row("detach", {Arg(t.get())});
    } else if (TensorPtr shared = PyList_Check(data) || PyTuple_Check(data) || is_number(data)
                                      ? nullptr
                                      : tensor_from_array(data, true)) {
      const bool converts = dtype != Dtype::kUndefined && dtype != shared->dtype();
      LOHE_CHECK_VALUE(copy_object != Py_False || !converts, "can't alias tensor with dtype '",
                       dtype_text(shared->dtype()), "' into dtype '", dtype_text(dtype), "'.");
      t = copy || converts ? copied(shared, dtype) : shared;
    } else {
      LOHE_CHECK_VALUE(copy_object != Py_False, "can't alias arbitrary sequence into a tensor.");
      t = tensor_from(data, dtype, true);
    }
    if (requires_grad != 0 && !t->requires_grad) autograd::set_requires_grad(*t, true);
    return wrap(std::move(t));
  });
}

PyObject* from_numpy_function(PyObject*, PyObject* array) {
  return guarded([&] {
    LOHE_CHECK_TYPE(PyObject_HasAttrString(array, "__array_struct__") != 0 && !is_numpy_scalar(array),
                    "expected np.ndarray (got ", Py_TYPE(array)->tp_name, ")");
    return wrap(tensor_from_array(array, true));
  });
}

/// A one-dimensional view of typed memory: frombuffer(buffer, dtype=..., count=-1, offset=0).
PyObject* frombuffer_function(PyObject*, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    static const char* names[] = {"buffer", "dtype", "count", "offset", "requires_grad", nullptr};
    PyObject *object, *dtype_object = nullptr;
    long long count = -1, offset = 0;
    int requires_grad = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O|$OLLp:frombuffer", const_cast<char**>(names), &object,
                                     &dtype_object, &count, &offset, &requires_grad)) {
      throw PythonError{};
    }
    const Dtype dtype = dtype_argument(dtype_object, "frombuffer");
    LOHE_CHECK_TYPE(dtype != Dtype::kUndefined,
                    "frombuffer() missing 1 required keyword argument: \"dtype\"");
    auto* view = new Py_buffer{};
    const bool writable = PyObject_GetBuffer(object, view, PyBUF_WRITABLE) == 0;
    if (!writable) {
      PyErr_Clear();
      if (PyObject_GetBuffer(object, view, PyBUF_SIMPLE) != 0) {
        delete view;
        PyErr_Clear();
        raise(ErrorKind::kValue, "could not retrieve buffer from object");
      }
    }
    const auto release = [](void* context) {
      if (Py_IsInitialized() == 0) return;
      const WithGil gil;
      PyBuffer_Release(static_cast<Py_buffer*>(context));
      delete static_cast<Py_buffer*>(context);
    };
    Intrusive<Storage> storage = Storage::borrow(view->buf, view->len, release, view, writable);
    const int64_t size = itemsize(dtype), length = view->len;
    LOHE_CHECK_VALUE(length > 0 && count != 0, "both buffer length (", length, ") and count (", count,
                     ") must not be 0");
    LOHE_CHECK_VALUE(offset >= 0 && offset < length, "offset (", offset,
                     " bytes) must be non-negative and no greater than "
                     "buffer length (",
                     length, " bytes) minus 1");
    LOHE_CHECK_VALUE(count > 0 || (length - offset) % size == 0, "buffer length (", length - offset,
                     " bytes) after offset (", offset, " bytes) must be a multiple of element size (", size,
                     ")");
    const int64_t n = count < 0 ? (length - offset) / size : count;
    LOHE_CHECK_VALUE(n <= (length - offset) / size, "requested buffer length (", n, " * ", size,
                     " bytes) after offset (", offset,
                     " bytes) must not be greater than actual buffer length (", length, " bytes)");
    if (!writable) {
      check_status(PyErr_WarnEx(
          PyExc_UserWarning,
          "The given buffer is not writable, and a write to the tensor would be an error. Copy it to "
          "silence this warning.",
          1));
    }
    if (offset % size != 0) {
      // Elements must lie at multiples of their size.
      Intrusive<Storage> copy = Storage::allocate(n * size);
      std::memcpy(copy->data(), static_cast<char*>(view->buf) + offset, static_cast<size_t>(n * size));
      storage = std::move(copy);
      offset = 0;
    }
    const int64_t sizes[1] = {n}, strides[1] = {1};
    TensorPtr t = TensorImpl::make(std::move(storage), dtype, sizes, strides, offset / size);
    if (requires_grad != 0) autograd::set_requires_grad(*t, true);
    return wrap(std::move(t));
  });
}

PyObject* tensor_with_storage(PyObject*, PyObject* args) {
  return guarded([&] {
    PyObject *storage, *dtype, *sizes, *strides;
    long long offset;
    if (!PyArg_ParseTuple(args, "OOLOO:_tensor_with_storage", &storage, &dtype, &offset, &sizes, &strides))
      throw PythonError{};
    LOHE_CHECK_TYPE(is_storage(storage), "_tensor_with_storage: storage must be an UntypedStorage, not ",
                    type_name(storage));
    Dims size_dims, stride_dims;
    LOHE_CHECK_TYPE(ints_from(sizes, size_dims) && ints_from(strides, stride_dims) &&
                        size_dims.size() == stride_dims.size(),
                    "_tensor_with_storage: sizes and strides must be as many ints");
    const Dtype type = dtype_argument(dtype, "_tensor_with_storage");
    int64_t last = offset;
    bool empty = false;
    for (size_t i = 0; i < size_dims.size(); ++i) {
      LOHE_CHECK(size_dims[i] >= 0 && stride_dims[i] >= 0, "_tensor_with_storage: negative size or stride");
      empty |= size_dims[i] == 0;
      last += (size_dims[i] - 1) * stride_dims[i];
    }
    Storage* s = storage_of(storage);
    LOHE_CHECK(offset >= 0 && (empty || (last + 1) * itemsize(type) <= s->nbytes()),
               "_tensor_with_storage: sizes ", to_string(size_dims), " with strides ", to_string(stride_dims),
               " and offset ", offset, " reach out of a storage of ", s->nbytes(), " bytes");
    return wrap(TensorImpl::make(Intrusive<Storage>(s), type, size_dims, stride_dims, offset));
  });
}

PyObject* from_dlpack_capsule(PyObject*, PyObject* capsule) {
  return guarded([&] { return wrap(tensor_from_capsule(capsule)); });
}

template <class F>
PyCFunction as_function(F* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}

PyMethodDef module_functions[] = {
    {"tensor", as_function(tensor_function), METH_VARARGS | METH_KEYWORDS,
     "tensor(data, *, dtype=None, device=None, requires_grad=False): a copy of `data` as a leaf tensor."},
    {"as_tensor", as_function(as_tensor_function), METH_VARARGS | METH_KEYWORDS,
     "as_tensor(data, dtype=None, device=None): `data` as a tensor, sharing memory where possible."},
    {"asarray", as_function(asarray_function), METH_VARARGS | METH_KEYWORDS,
     "asarray(obj, *, dtype=None, device=None, copy=None, requires_grad=False)"},
    {"from_numpy", from_numpy_function, METH_O, "from_numpy(ndarray): a tensor over the array's memory."},
    {"frombuffer", as_function(frombuffer_function), METH_VARARGS | METH_KEYWORDS,
     "frombuffer(buffer, *, dtype, count=-1, offset=0, requires_grad=False): a 1-D tensor over the buffer."},
    {"_tensor_with_storage", tensor_with_storage, METH_VARARGS,
     "_tensor_with_storage(storage, dtype, offset, sizes, strides): a tensor that views a storage."},
    {"_from_dlpack", from_dlpack_capsule, METH_O, nullptr},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

PyObject* legacy_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  // Only the class's own keywords; subclasses with more take them in their __new__.
  if (type == tensor_type && kwargs != nullptr && PyDict_Size(kwargs) > 0) {
    PyObject* device = PyDict_GetItemString(kwargs, "device");
    LOHE_CHECK_TYPE(device != nullptr && PyDict_Size(kwargs) == 1,
                    "Tensor(): the only keyword argument is 'device'");
    device_argument(device, "Tensor");
  }
  const Py_ssize_t n = PyTuple_GET_SIZE(args);
  PyObject* first = n > 0 ? PyTuple_GET_ITEM(args, 0) : nullptr;
  const Dtype dtype = default_dtype();
  TensorPtr t;
  Dims sizes;
  if (first == nullptr) {
    const int64_t none[1] = {0};
    t = fresh(dtype, none);
  } else if (n == 1 && is_tensor(first)) {
    LOHE_CHECK_TYPE(type != tensor_type || impl_of(first)->dtype() == dtype, "expected ",
                    info(dtype).tensor_type, " (got ", info(impl_of(first)->dtype()).tensor_type, ")");
    t = call_row("alias", {Arg(impl_of(first))});
  } else if (n == 1 && (Py_TYPE(first) == &size_type)) {
    LOHE_CHECK_TYPE(ints_from(first, sizes), "Tensor(): sizes must be ints");
    t = fresh(dtype, sizes);
  } else if (PyLong_Check(first) || (PyIndex_Check(first) && !PyList_Check(first))) {
    LOHE_CHECK_TYPE(ints_from(args, sizes), "Tensor(): the sizes must be ints");
    t = fresh(dtype, sizes);
  } else {
    LOHE_CHECK_TYPE(n == 1 && !PyFloat_Check(first), "new(): data must be a sequence (got ",
                    Py_TYPE(first)->tp_name, ")");
    t = tensor_from(first, dtype, true);
  }
  return wrap_as(type, std::move(t));
}

void init_data(PyObject* module) { check_status(PyModule_AddFunctions(module, module_functions)); }

}  // namespace lohe::python
