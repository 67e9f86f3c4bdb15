#include <array>

#include "autograd/tape.h"
#include "binding/export.h"
#include "binding/parse.h"
#include "binding/storage.h"
#include "binding/tensor.h"
#include "binding/torch_function.h"
#include "binding/types.h"
#include "tensor/shape.h"

/// Methods of Tensor that are not ops: questions about it, and conversions by dtype and memory format.
namespace lohe::python {
namespace {

PyObject* boolean(bool value) { return Py_NewRef(value ? Py_True : Py_False); }

template <class F>
PyObject* method(PyObject* self, F&& body) {
  return guarded([&]() -> PyObject* { return body(impl_of(self)); });
}

/// size() and stride(): all of them, or the one of `dim`.
PyObject* all_or_one(PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames, const char* name,
                     std::span<const int64_t> values, bool as_size) {
  const Py_ssize_t keywords = kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames);
  LOHE_CHECK_TYPE(nargs + keywords <= 1, name, "() takes at most 1 argument, got ", nargs + keywords);
  LOHE_CHECK_TYPE(keywords == 0 || utf8(PyTuple_GET_ITEM(kwnames, 0)) == "dim", name,
                  "() got an unexpected keyword argument");
  if (nargs + keywords == 0 || args[0] == Py_None) return as_size ? wrap_size(values) : wrap_ints(values);
  int64_t dim = 0;
  LOHE_CHECK_TYPE(int_from(args[0], dim), name, "(): argument 'dim' must be int, not ", type_name(args[0]));
  const auto rank = static_cast<int64_t>(values.size());
  LOHE_CHECK_INDEX(rank > 0, "Dimension specified as ", dim, " but tensor has no dimensions");
  return PyLong_FromLongLong(values[static_cast<size_t>(wrap_dim(dim, rank))]);
}

PyObject* size(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  return method(self,
                [&](TensorImpl* t) { return all_or_one(args, nargs, kwnames, "size", t->sizes(), true); });
}
PyObject* stride(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  return method(
      self, [&](TensorImpl* t) { return all_or_one(args, nargs, kwnames, "stride", t->strides(), false); });
}
PyObject* dim(PyObject* self, PyObject*) {
  return method(self, [](TensorImpl* t) { return PyLong_FromLongLong(t->dim()); });
}
PyObject* numel(PyObject* self, PyObject*) {
  return method(self, [](TensorImpl* t) { return PyLong_FromLongLong(t->numel()); });
}
PyObject* storage_offset(PyObject* self, PyObject*) {
  return method(self, [](TensorImpl* t) { return PyLong_FromLongLong(t->offset()); });
}
PyObject* element_size(PyObject* self, PyObject*) {
  return method(self, [](TensorImpl* t) { return PyLong_FromLongLong(t->itemsize()); });
}
PyObject* data_ptr(PyObject* self, PyObject*) {
  return method(self, [](TensorImpl* t) {
    check_readable(*t, ".data_ptr()");
    return PyLong_FromVoidPtr(t->numel() == 0 ? nullptr : t->expose_data());
  });
}
PyObject* untyped_storage(PyObject* self, PyObject*) {
  return method(self, [](TensorImpl* t) { return wrap_storage(t->storage_ptr()); });
}
PyObject* get_device(PyObject*, PyObject*) { return PyLong_FromLong(-1); }

bool has_format(const TensorImpl& t, int format) {
  switch (format) {
    case kChannelsLast:
      return t.dim() == 4 && is_channels_last(t.sizes(), t.strides());
    case kChannelsLast3d:
      return t.dim() == 5 && is_channels_last(t.sizes(), t.strides());
    default:
      return t.contiguous();
  }
}
/// -1: none given.
int format_argument(PyObject* object, const char* name) {
  if (object == nullptr || object == Py_None) return -1;
  LOHE_CHECK_TYPE(is_memory_format(object), name,
                  "(): argument 'memory_format' must be torch.memory_format, not ", type_name(object));
  return reinterpret_cast<PyEnum*>(object)->value;
}

PyObject* is_contiguous_method(PyObject* self, PyObject* args, PyObject* kwargs) {
  return method(self, [&](TensorImpl* t) {
    static const char* names[] = {"memory_format", nullptr};
    PyObject* format = nullptr;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O:is_contiguous", const_cast<char**>(names), &format)) {
      throw PythonError{};
    }
    const int wanted = format_argument(format, "is_contiguous");
    LOHE_CHECK(wanted != kPreserveFormat, "preserve memory format is unsupported by the contiguous operator");
    return boolean(has_format(*t, wanted));
  });
}

PyObject* is_floating_point(PyObject* self, PyObject*) {
  return method(self, [](TensorImpl* t) { return boolean(is_floating(t->dtype())); });
}
PyObject* is_complex_method(PyObject* self, PyObject*) {
  return method(self, [](TensorImpl* t) { return boolean(is_complex(t->dtype())); });
}
PyObject* is_signed(PyObject* self, PyObject*) {
  return method(self, [](TensorImpl* t) { return boolean(info(t->dtype()).is_signed); });
}
PyObject* is_conj(PyObject* self, PyObject*) {
  return method(self, [](TensorImpl* t) { return boolean(t->conj()); });
}
PyObject* is_neg(PyObject* self, PyObject*) {
  return method(self, [](TensorImpl* t) { return boolean(t->neg()); });
}
PyObject* is_inference(PyObject* self, PyObject*) {
  return method(self, [](TensorImpl* t) { return boolean(t->inference); });
}
PyObject* is_view(PyObject* self, PyObject*) {
  return method(self, [](TensorImpl* t) { return boolean(t->view_base != nullptr); });
}
PyObject* is_set_to(PyObject* self, PyObject* other) {
  return method(self, [&](TensorImpl* t) {
    LOHE_CHECK_TYPE(is_tensor(other), "is_set_to(): argument 'tensor' must be Tensor, not ",
                    type_name(other));
    const TensorImpl* o = impl_of(other);
    return boolean(&t->storage() == &o->storage() && t->offset() == o->offset() &&
                   t->size_dims() == o->size_dims() && t->stride_dims() == o->stride_dims());
  });
}
PyObject* returns_false(PyObject*, PyObject*) { Py_RETURN_FALSE; }

PyObject* detach_(PyObject* self, PyObject*) {
  return guarded([&] {
    autograd::detach_in_place(*impl_of(self));
    return Py_NewRef(self);
  });
}

PyObject* requires_grad_(PyObject* self, PyObject* args, PyObject* kwargs) {
  return method(self, [&](TensorImpl* t) {
    static const char* names[] = {"requires_grad", nullptr};
    PyObject* value = Py_True;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O!:requires_grad_", const_cast<char**>(names),
                                     &PyBool_Type, &value)) {
      throw PythonError{};
    }
    LOHE_CHECK(
        value == Py_True || !t->requires_grad || autograd::is_leaf(*t),
        "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in a "
        "subgraph that doesn't require differentiation use var_no_grad = var.detach().");
    autograd::set_requires_grad(*t, value == Py_True);
    return Py_NewRef(self);
  });
}

/// In another dtype, memory format, or as a copy; the tensor itself where nothing changes. Differentiable.
PyObject* converted(PyObject* self, Dtype dtype, bool copy, int format) {
  TensorPtr t = tensor_of(self);
  const bool casts = dtype != Dtype::kUndefined && dtype != t->dtype();
  const bool lays_out = format >= 0 && format != kPreserveFormat && !has_format(*t, format);
  if (!casts && !copy && !lays_out) return Py_NewRef(self);
  if (casts)
    t = cast(t, dtype);
  else if (copy)
    t = call_row("clone", {Arg(t.get())});
  if (format >= 0 && format != kPreserveFormat && !has_format(*t, format)) {
    t = call_row("contiguous", {Arg(t.get()), Arg(int64_t{format})});
  }
  return wrap(std::move(t));
}

/// to(device, dtype), to(dtype), to(other), each with non_blocking, copy and memory_format behind.
PyObject* to(PyObject* self, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames) {
  return guarded([&]() -> PyObject* {
    if (takes_calls(self)) {
      const Ref callable = checked(PyObject_GetAttrString(reinterpret_cast<PyObject*>(tensor_type), "to"));
      return call_torch_function(callable.get(), self, args, nargs, kwnames);
    }
    Dtype dtype = Dtype::kUndefined;
    Device device;
    bool copy = false;
    int format = -1;
    Py_ssize_t flags = 0;  // positional booleans seen: non_blocking, then copy
    auto misfit = [&](PyObject* value) {
      raise(
          ErrorKind::kType, "to() received an invalid combination of arguments - got ", type_name(value),
          ", but expected one of:\n * (torch.device device = None, torch.dtype dtype = None, bool non_blocking = False, "
          "bool copy = False, *, torch.memory_format memory_format = None)\n * (torch.dtype dtype, bool non_blocking = "
          "False, bool copy = False, *, torch.memory_format memory_format = None)\n * (Tensor tensor, bool non_blocking = "
          "False, bool copy = False, *, torch.memory_format memory_format = None)\n");
    };
    for (Py_ssize_t i = 0; i < nargs; ++i) {
      PyObject* a = args[i];
      if (PyBool_Check(a) && i > 0) {
        if (++flags == 2)
          copy = a == Py_True;
        else if (flags > 2)
          misfit(a);
      } else if (is_tensor(a) && i == 0) {
        dtype = impl_of(a)->dtype();
      } else if (const Dtype d = dtype_from(a); d != Dtype::kUndefined && i <= 1) {
        dtype = d;
      } else if (a != Py_None && !(i == 0 && device_from(a, device))) {
        misfit(a);
      }
    }
    const Py_ssize_t keywords = kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames);
    for (Py_ssize_t k = 0; k < keywords; ++k) {
      const std::string_view name = utf8(PyTuple_GET_ITEM(kwnames, k));
      PyObject* value = args[nargs + k];
      if (name == "dtype") {
        if (value == Py_None) continue;
        dtype = dtype_from(value);
        if (dtype == Dtype::kUndefined) misfit(value);
      } else if (name == "device") {
        if (value != Py_None && !device_from(value, device)) misfit(value);
      } else if (name == "copy") {
        copy = PyObject_IsTrue(value) == 1;
      } else if (name == "memory_format") {
        format = format_argument(value, "to");
      } else if (name == "other" || name == "tensor") {
        if (!is_tensor(value)) misfit(value);
        dtype = impl_of(value)->dtype();
      } else if (name != "non_blocking") {
        raise(ErrorKind::kType, "to() got an unexpected keyword argument '", name, "'");
      }
    }
    return converted(self, dtype, copy, format);
  });
}

template <Dtype kTo>
PyObject* to_dtype(PyObject* self, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    static const char* names[] = {"memory_format", nullptr};
    PyObject* format = nullptr;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|O", const_cast<char**>(names), &format))
      throw PythonError{};
    if (takes_calls(self)) {
      const Ref to = checked(PyObject_GetAttrString(self, "to"));
      return checked(PyObject_CallFunctionObjArgs(to.get(), dtype_object(kTo), nullptr)).release();
    }
    return converted(self, kTo, false, format_argument(format, "memory_format"));
  });
}

PyObject* cpu(PyObject* self, PyObject*, PyObject*) { return Py_NewRef(self); }
PyObject* type_as(PyObject* self, PyObject* other) {
  return guarded([&] {
    LOHE_CHECK_TYPE(is_tensor(other), "type_as(): argument 'other' must be Tensor, not ", type_name(other));
    return converted(self, impl_of(other)->dtype(), false, -1);
  });
}

template <class F>
PyCFunction as_function(F* function) {
  return reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(function));
}
constexpr int kFast = METH_FASTCALL | METH_KEYWORDS;
constexpr int kBoth = METH_VARARGS | METH_KEYWORDS;

PyMethodDef tensor_methods[] = {
    {"size", as_function(size), kFast, "The sizes, or the size of one dimension."},
    {"stride", as_function(stride), kFast, "The strides in elements, or the stride of one dimension."},
    {"dim", dim, METH_NOARGS, "The number of dimensions."},
    {"ndimension", dim, METH_NOARGS, "The number of dimensions."},
    {"numel", numel, METH_NOARGS, "The number of elements."},
    {"nelement", numel, METH_NOARGS, "The number of elements."},
    {"storage_offset", storage_offset, METH_NOARGS,
     "Position of the first element in the storage, in elements."},
    {"element_size", element_size, METH_NOARGS, "Bytes of one element."},
    {"data_ptr", data_ptr, METH_NOARGS, "Address of the first element."},
    {"const_data_ptr", data_ptr, METH_NOARGS, "Address of the first element."},
    {"untyped_storage", untyped_storage, METH_NOARGS, "The bytes behind this tensor."},
    {"get_device", get_device, METH_NOARGS, nullptr},
    {"is_contiguous", as_function(is_contiguous_method), kBoth,
     "Whether the elements lie in the order of a memory format."},
    {"is_floating_point", is_floating_point, METH_NOARGS, nullptr},
    {"is_complex", is_complex_method, METH_NOARGS, nullptr},
    {"is_signed", is_signed, METH_NOARGS, nullptr},
    {"is_conj", is_conj, METH_NOARGS, nullptr},
    {"is_neg", is_neg, METH_NOARGS, nullptr},
    {"is_inference", is_inference, METH_NOARGS, nullptr},
    {"_is_view", is_view, METH_NOARGS, nullptr},
    {"is_set_to", is_set_to, METH_O, nullptr},
    {"is_pinned", returns_false, METH_NOARGS, nullptr},
    {"is_shared", returns_false, METH_NOARGS, nullptr},
    {"has_names", returns_false, METH_NOARGS, nullptr},
    {"is_distributed", returns_false, METH_NOARGS, nullptr},
    {"detach_", detach_, METH_NOARGS, "Takes this tensor out of the graph that made it; not for views."},
    {"requires_grad_", as_function(requires_grad_), kBoth, nullptr},
    {"to", as_function(to), kFast, "In another dtype or memory format; itself where nothing changes."},
    {"float", as_function(to_dtype<kFloat32>), kBoth, nullptr},
    {"double", as_function(to_dtype<kFloat64>), kBoth, nullptr},
    {"half", as_function(to_dtype<kFloat16>), kBoth, nullptr},
    {"bfloat16", as_function(to_dtype<kBFloat16>), kBoth, nullptr},
    {"int", as_function(to_dtype<kInt32>), kBoth, nullptr},
    {"long", as_function(to_dtype<kInt64>), kBoth, nullptr},
    {"short", as_function(to_dtype<kInt16>), kBoth, nullptr},
    {"char", as_function(to_dtype<kInt8>), kBoth, nullptr},
    {"byte", as_function(to_dtype<kUInt8>), kBoth, nullptr},
    {"bool", as_function(to_dtype<kBool>), kBoth, nullptr},
    {"cfloat", as_function(to_dtype<kComplex64>), kBoth, nullptr},
    {"cdouble", as_function(to_dtype<kComplex128>), kBoth, nullptr},
    {"cpu", as_function(cpu), kBoth, nullptr},
    {"type_as", type_as, METH_O, nullptr},
    {"item", tensor_item, METH_NOARGS, "The only element as a Python number."},
    {"tolist", tensor_tolist, METH_NOARGS, "The elements as nested lists of Python numbers."},
    {"numpy", as_function(tensor_numpy), kFast, "A NumPy array over the same memory."},
    {"_dlpack", as_function(tensor_dlpack), kBoth, "A DLPack capsule over the same memory."},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

void add_tensor_methods(PyTypeObject* type) { add_descriptors(type, nullptr, tensor_methods); }

}  // namespace lohe::python
