#include <cstring>

#include "autograd/tape.h"
#include "binding/export.h"
#include "binding/parse.h"
#include "binding/tensor.h"
#include "binding/types.h"
#include "tensor/shape.h"

/// NumPy arrays and other typed buffers, by the array interface protocol; NumPy itself is imported only by
/// numpy().
namespace lohe::python {
namespace {

/// The array interface's C structure, version 3 (numpy.org, "The array interface protocol").
struct ArrayInterface {
  int two;
  int rank;
  char kind;
  int itemsize;
  int flags;
  Py_intptr_t* shape;
  Py_intptr_t* strides;
  void* data;
  PyObject* description;
};
constexpr int kNotSwapped = 0x200, kWriteable = 0x400;

Dtype dtype_of_array(char kind, int size) {
  switch (kind) {
    case 'b':
      return size == 1 ? kBool : Dtype::kUndefined;
    case 'u':
      return size == 1 ? kUInt8 : Dtype::kUndefined;
    case 'i':
      return size == 1   ? kInt8
             : size == 2 ? kInt16
             : size == 4 ? kInt32
             : size == 8 ? kInt64
                         : Dtype::kUndefined;
    case 'f':
      return size == 2 ? kFloat16 : size == 4 ? kFloat32 : size == 8 ? kFloat64 : Dtype::kUndefined;
    case 'c':
      return size == 8 ? kComplex64 : size == 16 ? kComplex128 : Dtype::kUndefined;
    default:
      return Dtype::kUndefined;
  }
}

const char* array_code(Dtype dtype) {
  switch (dtype) {
    case kBool:
      return "|b1";
    case kUInt8:
      return "|u1";
    case kInt8:
      return "|i1";
    case kInt16:
      return "<i2";
    case kInt32:
      return "<i4";
    case kInt64:
      return "<i8";
    case kFloat16:
      return "<f2";
    case kFloat32:
      return "<f4";
    case kFloat64:
      return "<f8";
    case kComplex64:
      return "<c8";
    case kComplex128:
      return "<c16";
    default:
      return nullptr;
  }
}

void release_object(void* object) {
  if (Py_IsInitialized() == 0) return;
  const WithGil gil;
  Py_DECREF(static_cast<PyObject*>(object));
}

/// Holds a tensor's memory for an array, which keeps this object as its base.
struct Exporter {
  PyObject_HEAD TensorImpl* tensor;
};

void exporter_dealloc(PyObject* self) {
  auto* exporter = reinterpret_cast<Exporter*>(self);
  if (exporter->tensor != nullptr) exporter->tensor->release();
  Py_TYPE(self)->tp_free(self);
}

PyObject* exporter_interface(PyObject* self, void*) {
  return guarded([&] {
    const TensorImpl* t = reinterpret_cast<Exporter*>(self)->tensor;
    Dims bytes;
    for (const int64_t s : t->strides()) bytes.push_back(s * t->itemsize());
    static char nothing;
    const Ref sizes = checked(wrap_ints(t->sizes())), strides = checked(wrap_ints(bytes));
    return Py_BuildValue("{s:i,s:s,s:O,s:O,s:(NN)}", "version", 3, "typestr", array_code(t->dtype()), "shape",
                         sizes.get(), "strides", strides.get(), "data",
                         PyLong_FromVoidPtr(t->numel() == 0 ? &nothing : t->expose_data()),
                         PyBool_FromLong(!t->storage().writable()));
  });
}

PyGetSetDef exporter_properties[] = {{"__array_interface__", exporter_interface, nullptr, nullptr, nullptr},
                                     {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyTypeObject* exporter_type() {
  static PyTypeObject type = [] {
    PyTypeObject t = static_type("lohe._C._ArrayExporter", sizeof(Exporter));
    t.tp_dealloc = exporter_dealloc;
    t.tp_getset = exporter_properties;
    return t;
  }();
  static const int ready = PyType_Ready(&type);
  check_status(ready);
  return &type;
}

TensorPtr from_interface(const ArrayInterface& array, PyObject* owner, bool warn_read_only) {
  const Dtype dtype = dtype_of_array(array.kind, array.itemsize);
  if (dtype == Dtype::kUndefined) {
    std::string name(1, array.kind);
    if (const Ref d = Ref::steal(PyObject_GetAttrString(owner, "dtype"))) {
      const Ref type = Ref::steal(PyObject_GetAttrString(d.get(), "type"));
      const Ref text = type ? Ref::steal(PyObject_GetAttrString(type.get(), "__name__")) : Ref();
      if (text) name = utf8(text.get());
    }
    PyErr_Clear();
    raise(ErrorKind::kType, "can't convert np.ndarray of type numpy.", name,
          ". The only supported types are: float64, "
          "float32, float16, complex64, complex128, int64, int32, int16, int8, uint8, and bool.");
  }
  LOHE_CHECK_VALUE(
      (array.flags & kNotSwapped) != 0 || array.itemsize == 1,
      "given numpy array has byte order different from the native byte order. Conversion between byte orders is "
      "currently not supported.");
  Dims sizes, strides;
  int64_t last = 0;
  bool empty = false;
  for (int i = 0; i < array.rank; ++i) {
    sizes.push_back(array.shape[i]);
    empty |= array.shape[i] == 0;
  }
  const Dims packed = contiguous_strides(sizes);
  for (int i = 0; i < array.rank; ++i) {
    const int64_t step =
        array.strides == nullptr ? packed[static_cast<size_t>(i)] * array.itemsize : array.strides[i];
    LOHE_CHECK_VALUE(
        step >= 0,
        "At least one stride in the given numpy array is negative, and tensors with negative strides "
        "are not currently supported. (You can probably work around this by making a copy of your array  with "
        "array.copy().) ");
    LOHE_CHECK_VALUE(step % array.itemsize == 0,
                     "given numpy array strides not a multiple of the element byte size. Copy the "
                     "numpy array to reallocate the memory.");
    strides.push_back(step / array.itemsize);
    last += (sizes[static_cast<size_t>(i)] - 1) * (step / array.itemsize);
  }
  const bool writable = (array.flags & kWriteable) != 0;
  if (!writable && warn_read_only) {
    check_status(PyErr_WarnEx(
        PyExc_UserWarning,
        "The given NumPy array is not writable, and PyTorch does not support non-writable tensors. A "
        "write to the tensor raises an error. Copy the array to silence this warning.",
        1));
  }
  Py_INCREF(owner);
  Intrusive<Storage> storage =
      Storage::borrow(array.data, empty ? 0 : (last + 1) * array.itemsize, release_object, owner, writable);
  return TensorImpl::make(std::move(storage), dtype, sizes, strides, 0);
}

/// Objects that offer only the dictionary form, and typed buffers (array.array, memoryview).
TensorPtr from_buffer(PyObject* object, bool warn_read_only) {
  auto* view = new Py_buffer{};
  if (PyObject_GetBuffer(object, view, PyBUF_FULL_RO) != 0) {
    delete view;
    PyErr_Clear();
    return nullptr;
  }
  struct Holder {
    Py_buffer* view;
    ~Holder() {
      if (view == nullptr) return;
      PyBuffer_Release(view);
      delete view;
    }
  } holder{view};
  const char code = view->format == nullptr ? 'B' : view->format[std::strspn(view->format, "@=<")];
  const char kind = std::strchr("bhilqn", code) != nullptr   ? 'i'
                    : std::strchr("BHILQN", code) != nullptr ? 'u'
                    : std::strchr("efd", code) != nullptr    ? 'f'
                    : code == '?'                            ? 'b'
                                                             : 'x';
  ArrayInterface array{2,
                       view->ndim,
                       kind,
                       static_cast<int>(view->itemsize),
                       kNotSwapped | (view->readonly ? 0 : kWriteable),
                       view->shape,
                       view->strides,
                       view->buf,
                       nullptr};
  if (dtype_of_array(kind, array.itemsize) == Dtype::kUndefined) return nullptr;
  const Ref keep = checked(PyMemoryView_FromObject(object));
  return from_interface(array, keep.get(), warn_read_only);
}

}  // namespace

TensorPtr tensor_from_array(PyObject* object, bool warn_read_only) {
  const Ref capsule = Ref::steal(PyObject_GetAttrString(object, "__array_struct__"));
  if (capsule && PyCapsule_CheckExact(capsule.get())) {
    auto* array = static_cast<ArrayInterface*>(PyCapsule_GetPointer(capsule.get(), nullptr));
    if (array == nullptr) throw PythonError{};
    LOHE_CHECK_VALUE(array->two == 2, "__array_struct__ is no array interface structure");
    if (is_numpy_scalar(object)) {
      // The structure points into a temporary array, which only lives as long as the capsule.
      const TensorPtr borrowed = from_interface(*array, capsule.get(), false);
      TensorPtr own =
          TensorImpl::make_contiguous(Storage::allocate(borrowed->itemsize()), borrowed->dtype(), {});
      std::memcpy(own->data(), borrowed->data(), static_cast<size_t>(own->itemsize()));
      return own;
    }
    return from_interface(*array, object, warn_read_only);
  }
  PyErr_Clear();
  if (PyObject_HasAttrString(object, "__array_interface__") || PyObject_HasAttrString(object, "__array__")) {
    const Ref numpy = checked(PyImport_ImportModule("numpy"));
    const Ref array = checked(PyObject_CallMethod(numpy.get(), "asarray", "O", object));
    return tensor_from_array(array.get(), warn_read_only);
  }
  if (PyObject_CheckBuffer(object)) return from_buffer(object, warn_read_only);
  return nullptr;
}

PyObject* tensor_numpy(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  return guarded([&] {
    const Py_ssize_t keywords = kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames);
    LOHE_CHECK_TYPE(
        nargs == 0 && keywords <= 1 && (keywords == 0 || utf8(PyTuple_GET_ITEM(kwnames, 0)) == "force"),
        "numpy() takes one argument, the keyword 'force'");
    const bool force = keywords == 1 && PyObject_IsTrue(args[0]) == 1;
    TensorPtr t = tensor_of(self);
    LOHE_CHECK(force || !t->requires_grad,
               "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.");
    LOHE_CHECK(force || !t->conj(),
               "Can't call numpy() on Tensor that has conjugate bit set. Use tensor.resolve_conj().numpy() "
               "instead.");
    LOHE_CHECK(force || !t->neg(),
               "Can't call numpy() on Tensor that has negative bit set. Use tensor.resolve_neg().numpy() "
               "instead.");
    LOHE_CHECK_TYPE(array_code(t->dtype()) != nullptr, "Got unsupported ScalarType BFloat16");
    check_readable(*t, ".numpy()");
    const autograd::GradModeGuard off(false);
    t = materialized(t);
    const Ref numpy = checked(PyImport_ImportModule("numpy"));
    static PyObject* asarray = nullptr;
    if (asarray == nullptr) asarray = checked(PyObject_GetAttrString(numpy.get(), "asarray")).release();
    const Ref exporter = checked(exporter_type()->tp_alloc(exporter_type(), 0));
    reinterpret_cast<Exporter*>(exporter.get())->tensor = t.detach();
    return checked(PyObject_CallOneArg(asarray, exporter.get())).release();
  });
}

}  // namespace lohe::python
