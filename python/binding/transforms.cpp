#include <vector>

#include "autograd/tape.h"
#include "binding/tensor.h"
#include "dispatch/jvp.h"
#include "dispatch/vmap.h"

/// Function transforms: what python/lohe/func.py is made of.
namespace lohe::python {
namespace {

thread_local std::vector<std::unique_ptr<dispatch::Vmap>> vmaps;
thread_local std::vector<std::unique_ptr<dispatch::Jvp>> jvps;

TensorPtr tensor_argument(PyObject* object, const char* what) {
  LOHE_CHECK_TYPE(is_tensor(object), what, ": expected a Tensor, got ", type_name(object));
  return tensor_of(object);
}

PyObject* vmap_push(PyObject*, PyObject* args) {
  return guarded([&] {
    long long batch = 0;
    const char* randomness = nullptr;
    if (!PyArg_ParseTuple(args, "Ls:_vmap_push", &batch, &randomness)) throw PythonError{};
    const std::string_view mode(randomness);
    LOHE_CHECK(mode == "error" || mode == "same" || mode == "different",
               "Only allowed values for randomness are 'error', 'different', or 'same'. Got ", mode);
    vmaps.push_back(std::make_unique<dispatch::Vmap>(batch, mode == "error" ? dispatch::Randomness::kError
                                                            : mode == "same"
                                                                ? dispatch::Randomness::kSame
                                                                : dispatch::Randomness::kDifferent));
    dispatch::push_interceptor(vmaps.back().get());
    return PyLong_FromUnsignedLongLong(vmaps.back()->level());
  });
}

PyObject* vmap_pop(PyObject*, PyObject*) {
  return guarded([&] {
    LOHE_CHECK(!vmaps.empty(), "no vmap is active");
    dispatch::pop_interceptor(vmaps.back().get());
    vmaps.pop_back();
    return Py_NewRef(Py_None);
  });
}

/// The tensor with its dim `dim` hidden.
PyObject* vmap_wrap(PyObject*, PyObject* args) {
  return guarded([&] {
    PyObject* tensor;
    long long dim = 0;
    unsigned long long level = 0;
    if (!PyArg_ParseTuple(args, "OLK:_vmap_wrap", &tensor, &dim, &level)) throw PythonError{};
    TensorPtr t = tensor_argument(tensor, "vmap");
    if (dim != 0) t = call_row("movedim.int", {Arg(t), Arg(static_cast<int64_t>(dim)), Arg(0)});
    return wrap(dispatch::wrap_batched(std::move(t), level));
  });
}

/// With the batch dim first; None for a tensor that is not batched at this level.
PyObject* vmap_unwrap(PyObject*, PyObject* args) {
  return guarded([&] {
    PyObject* tensor;
    unsigned long long level = 0;
    if (!PyArg_ParseTuple(args, "OK:_vmap_unwrap", &tensor, &level)) throw PythonError{};
    const TensorPtr t = tensor_argument(tensor, "vmap");
    const dispatch::Batched* b = dispatch::batched_of(t.get(), level);
    return b == nullptr ? Py_NewRef(Py_None) : wrap(b->value);
  });
}

PyObject* jvp_push(PyObject*, PyObject*) {
  return guarded([&] {
    jvps.push_back(std::make_unique<dispatch::Jvp>());
    dispatch::push_interceptor(jvps.back().get());
    return PyLong_FromUnsignedLongLong(jvps.back()->level());
  });
}

PyObject* jvp_pop(PyObject*, PyObject*) {
  return guarded([&] {
    LOHE_CHECK(!jvps.empty(), "no forward-mode level is active");
    dispatch::pop_interceptor(jvps.back().get());
    jvps.pop_back();
    return Py_NewRef(Py_None);
  });
}

PyObject* make_dual(PyObject*, PyObject* args) {
  return guarded([&] {
    PyObject *primal, *tangent;
    unsigned long long level = 0;
    if (!PyArg_ParseTuple(args, "OOK:_make_dual", &primal, &tangent, &level)) throw PythonError{};
    const TensorPtr p = tensor_argument(primal, "make_dual"), t = tensor_argument(tangent, "make_dual");
    LOHE_CHECK(is_differentiable(p->dtype()),
               "Expected primal to be floating point or complex, but got: ", p->dtype());
    LOHE_CHECK(p->size_dims() == t->size_dims(), "Expected primal and tangent to have the same shape");
    LOHE_CHECK(p->dtype() == t->dtype(), "Expected primal and tangent to have the same dtype, got ",
               p->dtype(), " and ", t->dtype());
    return wrap(dispatch::wrap_dual(p, t, level));
  });
}

/// (primal, tangent or None)
PyObject* unpack_dual(PyObject*, PyObject* args) {
  return guarded([&] {
    PyObject* tensor;
    unsigned long long level = 0;
    if (!PyArg_ParseTuple(args, "OK:_unpack_dual", &tensor, &level)) throw PythonError{};
    const TensorPtr t = tensor_argument(tensor, "unpack_dual");
    const dispatch::Dual* d = dispatch::dual_of(t.get(), level);
    const Ref primal = checked(wrap(d == nullptr ? t : d->primal)),
              tangent = checked(wrap(d == nullptr ? TensorPtr() : d->tangent));
    return PyTuple_Pack(2, primal.get(), tangent.get());
  });
}

PyObject* tracked_alias(PyObject*, PyObject* tensor) {
  return guarded([&] { return wrap(dispatch::tracked_alias(tensor_argument(tensor, "grad"))); });
}

/// (tensor, leaves, all): see without_history.
PyObject* without_history(PyObject*, PyObject* args) {
  return guarded([&] {
    PyObject *tensor, *leaves;
    int all = 0;
    if (!PyArg_ParseTuple(args, "OO!p:_without_history", &tensor, &PyTuple_Type, &leaves, &all))
      throw PythonError{};
    std::vector<TensorPtr> list;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(leaves); ++i)
      list.push_back(tensor_argument(PyTuple_GET_ITEM(leaves, i), "grad"));
    return wrap(dispatch::without_history(tensor_argument(tensor, "grad"), list, all != 0));
  });
}

PyObject* release_leaf(PyObject*, PyObject* tensor) {
  return guarded([&] {
    dispatch::release_leaf(tensor_argument(tensor, "grad"));
    return Py_NewRef(Py_None);
  });
}

PyMethodDef module_functions[] = {{"_vmap_push", vmap_push, METH_VARARGS, nullptr},
                                  {"_vmap_pop", vmap_pop, METH_NOARGS, nullptr},
                                  {"_vmap_wrap", vmap_wrap, METH_VARARGS, nullptr},
                                  {"_vmap_unwrap", vmap_unwrap, METH_VARARGS, nullptr},
                                  {"_jvp_push", jvp_push, METH_NOARGS, nullptr},
                                  {"_jvp_pop", jvp_pop, METH_NOARGS, nullptr},
                                  {"_make_dual", make_dual, METH_VARARGS, nullptr},
                                  {"_unpack_dual", unpack_dual, METH_VARARGS, nullptr},
                                  {"_tracked_alias", tracked_alias, METH_O, nullptr},
                                  {"_release_leaf", release_leaf, METH_O, nullptr},
                                  {"_without_history", without_history, METH_VARARGS, nullptr},
                                  {nullptr, nullptr, 0, nullptr}};

}  // namespace

void init_transforms(PyObject* module) { check_status(PyModule_AddFunctions(module, module_functions)); }

void check_readable(const TensorImpl& t, const char* what) {
  LOHE_CHECK(
      !dispatch::holds_batch(t), "vmap: It looks like you're calling ", what,
      " on a Tensor. We don't support vmap over calling ", what,
      " on a Tensor, nor data-dependent control flow: the examples of a batch have different values. Please try to rewrite what "
      "you're doing with other operations, such as torch.where().");
}

}  // namespace lohe::python
