#include <array>

#include "autograd/tape.h"
#include "binding/autograd.h"
#include "binding/parse.h"
#include "binding/storage.h"
#include "binding/tensor.h"
#include "binding/types.h"
#include "tensor/shape.h"

/// Attributes of Tensor that are not ops: geometry, type, gradient state.
namespace lohe::python {
namespace {

using autograd::GradMeta;

template <class F>
PyObject* property(PyObject* self, F&& body) {
  return guarded([&]() -> PyObject* { return body(impl_of(self)); });
}
PyObject* boolean(bool value) { return Py_NewRef(value ? Py_True : Py_False); }

PyObject* get_shape(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) { return wrap_size(t->sizes()); });
}
PyObject* get_ndim(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) { return PyLong_FromLongLong(t->dim()); });
}
PyObject* get_itemsize(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) { return PyLong_FromLongLong(t->itemsize()); });
}
PyObject* get_nbytes(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) { return PyLong_FromLongLong(t->numel() * t->itemsize()); });
}
PyObject* get_dtype(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) { return Py_NewRef(dtype_object(t->dtype())); });
}
PyObject* get_device(PyObject* self, void*) {
  static PyObject* cpu = nullptr;
  return property(self, [](TensorImpl*) {
    if (cpu == nullptr) cpu = wrap_device(kCPU);
    return Py_NewRef(cpu);
  });
}
PyObject* get_layout(PyObject*, void*) { return Py_NewRef(strided_layout()); }
PyObject* get_true(PyObject*, void*) { Py_RETURN_TRUE; }
PyObject* get_false(PyObject*, void*) { Py_RETURN_FALSE; }
PyObject* get_none(PyObject*, void*) { Py_RETURN_NONE; }

// --- autograd

PyObject* get_requires_grad(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) { return boolean(autograd::requires_grad(*t)); });
}
int set_requires_grad_property(PyObject* self, PyObject* value, void*) {
  return guarded_status([&] {
    LOHE_CHECK_TYPE(value != nullptr && PyBool_Check(value), "requires_grad must be a bool");
    autograd::set_requires_grad(*impl_of(self), value == Py_True);
  });
}

PyObject* get_grad(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) {
    const GradMeta* meta = autograd::meta_or_null(*t);
    if (meta == nullptr || !meta->grad) {
      if (t->requires_grad && !autograd::is_leaf(*t) && (meta == nullptr || !meta->retains_grad)) {
        check_status(PyErr_WarnEx(
            PyExc_UserWarning,
            "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed. Its .grad "
            "attribute won't be populated during autograd.backward(). If you indeed want the .grad "
            "field to be populated for a non-leaf Tensor, use .retain_grad() on the non-leaf Tensor.",
            1));
      }
      return Py_NewRef(Py_None);
    }
    return wrap(meta->grad);
  });
}
int set_grad(PyObject* self, PyObject* value, void*) {
  return guarded_status([&] {
    TensorImpl* t = impl_of(self);
    if (Watcher* watcher = current_watcher()) watcher->replaces_gradient(*t);
    if (value == nullptr || value == Py_None) {
      if (GradMeta* meta = autograd::meta_or_null(*t); meta != nullptr) meta->grad = nullptr;
      return;
    }
    LOHE_CHECK_TYPE(is_tensor(value), "assigned grad expected to be a Tensor or None but got grad of type ",
                    type_name(value));
    LOHE_CHECK(value != self, "can't assign Variable as its own grad");
    TensorImpl* grad = impl_of(value);
    LOHE_CHECK(grad->dtype() == t->dtype(), "attempting to assign a gradient with dtype '",
               info(grad->dtype()).name, "' to a tensor with dtype '", info(t->dtype()).name,
               "'. Please ensure that the gradient and the tensor have "
               "the same dtype");
    LOHE_CHECK(grad->size_dims() == t->size_dims(), "attempting to assign a gradient of size '",
               to_string(grad->sizes()), "' to a tensor of size '", to_string(t->sizes()),
               "'. Please ensure that the gradient and the tensor are the "
               "same size");
    autograd::meta_of(*t).grad = TensorPtr(grad);
  });
}

PyObject* get_grad_fn(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) {
    if (!t->requires_grad) return Py_NewRef(Py_None);
    return wrap_node(autograd::grad_fn(TensorPtr(t)));
  });
}
PyObject* get_is_leaf(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) { return boolean(!t->requires_grad || autograd::is_leaf(*t)); });
}
PyObject* get_retains_grad(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) {
    const GradMeta* meta = autograd::meta_or_null(*t);
    return boolean(meta != nullptr && meta->retains_grad);
  });
}
PyObject* get_output_nr(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) {
    const GradMeta* meta = autograd::meta_or_null(*t);
    return PyLong_FromLong(meta == nullptr ? 0 : meta->output);
  });
}

PyObject* get_data(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) { return wrap(data_alias(t)); });
}
int set_data(PyObject* self, PyObject* value, void*) {
  return guarded_status([&] {
    LOHE_CHECK_TYPE(value != nullptr && is_tensor(value), "Variable data has to be a tensor, but got ",
                    value == nullptr ? "nothing" : type_name(value));
    TensorImpl* t = impl_of(self);
    TensorImpl* from = impl_of(value);
    LOHE_CHECK(!t->requires_grad || is_differentiable(from->dtype()),
               "data set to a tensor that requires gradients must be floating point or complex dtype");
    // A tensor that shared the counter of its old storage gets one of its own: the storage changes, its
    // history does not.
    if (&t->storage() != &from->storage()) t->fresh_version();
    t->set_view(from->storage_ptr(), from->dtype(), from->sizes(), from->strides(), from->offset());
    t->set_conj(from->conj());
    t->set_neg(from->neg());
  });
}

PyObject* get_version(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) {
    LOHE_CHECK(!t->inference, "Inference tensors do not track version counter.");
    return PyLong_FromUnsignedLong(t->version().value.load());
  });
}
PyObject* get_base(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) { return wrap(t->view_base); });
}

// --- transposed and complex forms

template <int kWhat>
PyObject* get_transposed(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) -> PyObject* {
    const int64_t rank = t->dim();
    if (kWhat == 'H') {
      LOHE_CHECK(rank == 2 || rank == 0, "tensor.H is only supported on matrices (2-D tensors). Got ", rank,
                 "-D tensor.", rank > 2 ? " For batches of matrices, consider using tensor.mH" : "");
    }
    if (kWhat == 'm' || kWhat == 'M') {
      LOHE_CHECK(rank >= 2, "tensor.", kWhat == 'm' ? "mT" : "mH",
                 " is only supported on matrices or batches of matrices. Got ", rank, "-D tensor.");
    }
    if (kWhat == 'T' && rank != 2 && rank != 0) {
      check_status(PyErr_WarnEx(
          PyExc_UserWarning,
          "The use of `x.T` on tensors of dimension other than 2 to reverse their shape is deprecated "
          "and it will throw an error in a future release. Consider `x.mT` to transpose batches of "
          "matrices or `x.permute(*torch.arange(x.ndim - 1, -1, -1))` to reverse the dimensions of a "
          "tensor.",
          1));
    }
    Dims order;
    for (int64_t i = 0; i < rank; ++i) order.push_back(i);
    if (kWhat == 'T') {
      for (int64_t i = 0; i < rank; ++i) order[static_cast<size_t>(i)] = rank - 1 - i;
    } else if (rank >= 2) {
      std::swap(order[static_cast<size_t>(rank - 1)], order[static_cast<size_t>(rank - 2)]);
    }
    TensorPtr result = call_row("permute", {Arg(t), Arg(std::span<const int64_t>(order))});
    if ((kWhat == 'H' || kWhat == 'M') && is_complex(t->dtype()))
      result = call_row("conj", {Arg(result.get())});
    return wrap(std::move(result));
  });
}

PyObject* get_real(PyObject* self, void*) {
  return guarded([&]() -> PyObject* {
    if (!is_complex(impl_of(self)->dtype())) return Py_NewRef(self);
    return wrap(call_row("real", {Arg(impl_of(self))}));
  });
}
PyObject* get_imag(PyObject* self, void*) {
  return property(self, [](TensorImpl* t) {
    LOHE_CHECK(is_complex(t->dtype()), "imag is not implemented for tensors with non-complex dtypes.");
    return wrap(call_row("imag", {Arg(t)}));
  });
}
int set_part(PyObject* self, PyObject* value, bool imaginary) {
  return guarded_status([&] {
    LOHE_CHECK_TYPE(value != nullptr, "the real or imaginary part cannot be deleted");
    const Ref part = Ref::steal(imaginary ? get_imag(self, nullptr) : get_real(self, nullptr));
    if (!part) throw PythonError{};
    const Ref done =
        checked(PyObject_CallMethod(part.get(), is_tensor(value) ? "copy_" : "fill_", "O", value));
  });
}
int set_real(PyObject* self, PyObject* value, void*) { return set_part(self, value, false); }
int set_imag(PyObject* self, PyObject* value, void*) { return set_part(self, value, true); }

PyGetSetDef properties[] = {
    {"shape", get_shape, nullptr, "The sizes, as torch.Size.", nullptr},
    {"ndim", get_ndim, nullptr, "The number of dimensions.", nullptr},
    {"itemsize", get_itemsize, nullptr, "Bytes of one element.", nullptr},
    {"nbytes", get_nbytes, nullptr, "Bytes of all elements.", nullptr},
    {"dtype", get_dtype, nullptr, nullptr, nullptr},
    {"device", get_device, nullptr, nullptr, nullptr},
    {"layout", get_layout, nullptr, nullptr, nullptr},
    {"is_cpu", get_true, nullptr, nullptr, nullptr},
    {"is_cuda", get_false, nullptr, nullptr, nullptr},
    {"is_xpu", get_false, nullptr, nullptr, nullptr},
    {"is_mps", get_false, nullptr, nullptr, nullptr},
    {"is_meta", get_false, nullptr, nullptr, nullptr},
    {"is_sparse", get_false, nullptr, nullptr, nullptr},
    {"is_sparse_csr", get_false, nullptr, nullptr, nullptr},
    {"is_quantized", get_false, nullptr, nullptr, nullptr},
    {"is_mkldnn", get_false, nullptr, nullptr, nullptr},
    {"is_nested", get_false, nullptr, nullptr, nullptr},
    {"is_vulkan", get_false, nullptr, nullptr, nullptr},
    {"names", get_none, nullptr, nullptr, nullptr},
    {"requires_grad", get_requires_grad, set_requires_grad_property, nullptr, nullptr},
    {"grad", get_grad, set_grad, nullptr, nullptr},
    {"_grad", get_grad, set_grad, nullptr, nullptr},
    {"grad_fn", get_grad_fn, nullptr, nullptr, nullptr},
    {"is_leaf", get_is_leaf, nullptr, nullptr, nullptr},
    {"retains_grad", get_retains_grad, nullptr, nullptr, nullptr},
    {"output_nr", get_output_nr, nullptr, nullptr, nullptr},
    {"data", get_data, set_data, "The same memory without history, with a version counter of its own.",
     nullptr},
    {"_version", get_version, nullptr, nullptr, nullptr},
    {"_base", get_base, nullptr, nullptr, nullptr},
    {"T", get_transposed<'T'>, nullptr, nullptr, nullptr},
    {"H", get_transposed<'H'>, nullptr, nullptr, nullptr},
    {"mT", get_transposed<'m'>, nullptr, nullptr, nullptr},
    {"mH", get_transposed<'M'>, nullptr, nullptr, nullptr},
    {"real", get_real, set_real, nullptr, nullptr},
    {"imag", get_imag, set_imag, nullptr, nullptr},
    {nullptr, nullptr, nullptr, nullptr, nullptr}};

}  // namespace

void add_tensor_properties(PyTypeObject* type) { add_descriptors(type, properties, nullptr); }

}  // namespace lohe::python
