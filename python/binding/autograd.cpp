#include "binding/autograd.h"

#include "binding/tensor.h"
#include "binding/types.h"

/// The tape in Python: modes, backward, nodes and hooks.
namespace lohe::python {
namespace {

using autograd::GradNode;

struct PyNode {
  PyObject_HEAD GradNode* node;
  PyObject* weakrefs;
};

GradNode* node_at(PyObject* self) { return reinterpret_cast<PyNode*>(self)->node; }

void node_dealloc(PyObject* self) {
  auto* object = reinterpret_cast<PyNode*>(self);
  if (object->weakrefs != nullptr) PyObject_ClearWeakRefs(self);
  if (object->node != nullptr) {
    object->node->python_object = nullptr;
    Intrusive<GradNode>::adopt(object->node).reset();
  }
  Py_TYPE(self)->tp_free(self);
}

PyObject* node_name(PyObject* self, PyObject*) {
  return guarded([&] { return unicode(node_at(self)->name()); });
}
PyObject* node_repr(PyObject* self) {
  return guarded(
      [&] { return PyUnicode_FromFormat("<%s object at %p>", node_at(self)->name().c_str(), self); });
}
PyObject* node_next_functions(PyObject* self, void*) {
  return guarded([&] {
    const auto& next = node_at(self)->next;
    Ref tuple = checked(PyTuple_New(static_cast<Py_ssize_t>(next.size())));
    for (size_t i = 0; i < next.size(); ++i) {
      const Ref node = checked(wrap_node(next[i].node));
      PyTuple_SET_ITEM(tuple.get(), static_cast<Py_ssize_t>(i),
                       checked(Py_BuildValue("Oi", node.get(), next[i].index)).release());
    }
    return tuple.release();
  });
}
PyObject* node_sequence(PyObject* self, PyObject*) {
  return PyLong_FromUnsignedLongLong(node_at(self)->sequence);
}

/// Attributes that a node does not have are looked for in the context of a custom function.
PyObject* node_getattro(PyObject* self, PyObject* name) {
  PyObject* found = PyObject_GenericGetAttr(self, name);
  if (found != nullptr || PyErr_ExceptionMatches(PyExc_AttributeError) == 0) return found;
  if (function_context(node_at(self)) == nullptr) return nullptr;
  PyErr_Clear();
  return function_attribute(node_at(self), name);
}

/// Tensors, with None for null, from a sequence.
std::vector<TensorPtr> tensors_from(PyObject* object, const char* what) {
  const Ref items = checked(PySequence_Tuple(object));
  std::vector<TensorPtr> list;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(items.get()); ++i) {
    PyObject* item = PyTuple_GET_ITEM(items.get(), i);
    LOHE_CHECK_TYPE(item == Py_None || is_tensor(item), what, " must be Tensors or None, got ",
                    type_name(item));
    list.push_back(item == Py_None ? TensorPtr() : tensor_of(item));
  }
  return list;
}

/// The functions in a dict of hooks, in order; a hook may remove itself while it runs.
Ref hook_list(const SharedRef& hooks) { return checked(PyMapping_Values(hooks.get())); }

/// Runs hooks that take one gradient and may replace it. The GIL is taken; a Python exception becomes
/// kStopped.
TensorPtr run_tensor_hooks(const SharedRef& hooks, const TensorPtr& gradient) {
  const WithGil gil;
  try {
    const Ref list = hook_list(hooks);
    Ref value = checked(wrap(gradient));
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list.get()); ++i) {
      Ref changed = checked(PyObject_CallOneArg(PyList_GET_ITEM(list.get(), i), value.get()));
      if (changed.get() == Py_None) continue;
      LOHE_CHECK_TYPE(is_tensor(changed.get()), "hook should return a Tensor or None, got ",
                      type_name(changed.get()));
      value = std::move(changed);
    }
    const TensorPtr result = tensor_of(value.get());
    return result == gradient ? TensorPtr() : result;
  } catch (const PythonError&) {
    throw_stopped();
  }
}

PyObject* install_tensor_hooks(PyObject*, PyObject* args) {
  return guarded([&] {
    PyObject *tensor, *dict;
    if (!PyArg_ParseTuple(args, "O!O:_install_tensor_hooks", &tensor_base_type, &tensor, &dict))
      throw PythonError{};
    const TensorPtr t = tensor_of(tensor);
    autograd::TensorHook hook = [hooks = SharedRef(dict)](const TensorPtr& g) {
      return run_tensor_hooks(hooks, g);
    };
    autograd::GradMeta& meta = autograd::meta_of(*t);
    if (autograd::is_leaf(*t)) {
      meta.make_hooks().gradient.emplace_back(0, std::move(hook));
    } else {
      autograd::grad_fn(t)->make_hooks().tensors.emplace_back(meta.output, std::move(hook));
    }
    return Py_NewRef(Py_None);
  });
}

PyObject* install_post_accumulate_hooks(PyObject*, PyObject* args) {
  return guarded([&] {
    PyObject *tensor, *dict;
    if (!PyArg_ParseTuple(args, "O!O:_install_post_accumulate_hooks", &tensor_base_type, &tensor, &dict))
      throw PythonError{};
    autograd::meta_of(*impl_of(tensor))
        .make_hooks()
        .post_accumulate.emplace_back(0, [hooks = SharedRef(dict)](TensorImpl* t) {
          const WithGil gil;
          try {
            const Ref list = hook_list(hooks), value = checked(wrap(TensorPtr(t)));
            for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list.get()); ++i) {
              const Ref done = checked(PyObject_CallOneArg(PyList_GET_ITEM(list.get(), i), value.get()));
            }
          } catch (const PythonError&) {
            throw_stopped();
          }
        });
    return Py_NewRef(Py_None);
  });
}

/// Keeps the gradient of a tensor that is no leaf. The node refers to it weakly, so that no cycle arises.
PyObject* retain_grad(PyObject*, PyObject* tensor) {
  return guarded([&] {
    LOHE_CHECK_TYPE(is_tensor(tensor), "retain_grad(): not a Tensor");
    const TensorPtr t = tensor_of(tensor);
    LOHE_CHECK(t->requires_grad, "can't retain_grad on Tensor that has requires_grad=False");
    autograd::GradMeta& meta = autograd::meta_of(*t);
    if (autograd::is_leaf(*t) || meta.retains_grad) return Py_NewRef(Py_None);
    const Ref weak = checked(PyWeakref_NewRef(tensor, nullptr));
    autograd::grad_fn(t)->make_hooks().tensors.emplace_back(
        meta.output, [weak = SharedRef(weak.get())](const TensorPtr& g) -> TensorPtr {
          const WithGil gil;
          PyObject* target = PyWeakref_GetObject(weak.get());
          if (target != Py_None) autograd::meta_of(*impl_of(target)).grad = g;
          return nullptr;
        });
    meta.retains_grad = true;
    return Py_NewRef(Py_None);
  });
}

/// Node hooks get and may give tuples of gradients.
std::vector<TensorPtr> run_node_hooks(const SharedRef& hooks, const std::vector<TensorPtr>& first,
                                      const std::vector<TensorPtr>* second) {
  const WithGil gil;
  try {
    const Ref list = hook_list(hooks);
    std::vector<TensorPtr> result;
    const std::vector<TensorPtr>* now = &first;
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(list.get()); ++i) {
      const Ref a = checked(wrap_list(*now)), b = second == nullptr ? Ref() : checked(wrap_list(*second));
      const Ref changed =
          checked(PyObject_CallFunctionObjArgs(PyList_GET_ITEM(list.get(), i), a.get(), b.get(), nullptr));
      if (changed.get() == Py_None) continue;
      result = is_tensor(changed.get()) ? std::vector<TensorPtr>{tensor_of(changed.get())}
                                        : tensors_from(changed.get(), "what a node hook returns");
      LOHE_CHECK(result.size() == first.size(), "hook has returned an incorrect number of values (got ",
                 result.size(), ", but expected ", first.size(), ")");
      now = &result;
    }
    return result;
  } catch (const PythonError&) {
    throw_stopped();
  }
}

PyObject* install_node_hooks(PyObject*, PyObject* args) {
  return guarded([&] {
    PyObject *node, *dict;
    int before = 0;
    if (!PyArg_ParseTuple(args, "OOp:_install_node_hooks", &node, &dict, &before)) throw PythonError{};
    GradNode* target = node_of(node);
    if (before != 0) {
      target->make_hooks().before.emplace_back([hooks = SharedRef(dict)](const std::vector<TensorPtr>& in) {
        return run_node_hooks(hooks, in, nullptr);
      });
    } else {
      target->make_hooks().after.emplace_back(
          [hooks = SharedRef(dict)](const std::vector<TensorPtr>& in, const std::vector<TensorPtr>& out) {
            return run_node_hooks(hooks, in, &out);
          });
    }
    return Py_NewRef(Py_None);
  });
}

/// What a pass takes as one tensor or several: a Tensor stands for a sequence of one, None for an empty one.
autograd::GradList tensor_or_tensors(PyObject* object, const char* what) {
  autograd::GradList list;
  if (is_tensor(object)) {
    list.push_back(tensor_of(object));
  } else if (object != Py_None) {
    for (TensorPtr& t : tensors_from(object, what)) list.push_back(std::move(t));
  }
  return list;
}

/// _run_backward(tensors, grad_tensors, retain_graph, create_graph, inputs, allow_unused, accumulate)
PyObject* run_backward(PyObject*, PyObject* const* args, Py_ssize_t count) {
  return guarded([&] {
    LOHE_CHECK_TYPE(count == 7, "_run_backward() takes 7 arguments, got ", count);
    const auto flag = [&](int i) {
      const int truth = PyObject_IsTrue(args[i]);
      check_status(truth);
      return truth != 0;
    };
    const autograd::GradList roots = tensor_or_tensors(args[0], "tensors"),
                             cotangents = tensor_or_tensors(args[1], "grad_tensors"),
                             inputs = tensor_or_tensors(args[4], "inputs");
    LOHE_CHECK(cotangents.empty() || cotangents.size() == roots.size(), "got ", roots.size(), " tensors and ",
               cotangents.size(), " gradients");
    const bool create = flag(3), retain = args[2] == Py_None ? create : flag(2);
    const bool allow_unused = flag(5), accumulate = flag(6);
    if (args[4] != Py_None && inputs.empty()) {
      LOHE_CHECK(!accumulate, "`inputs` argument to `backward()` cannot be empty.");
      return PyTuple_New(0);
    }
    std::vector<TensorPtr> results;
    {
      const WithoutGil without;
      results = autograd::run_backward(roots, cotangents, retain, create, inputs, allow_unused, accumulate);
    }
    return accumulate ? Py_NewRef(Py_None) : wrap_list(results);
  });
}

// --- modes

PyObject* is_grad_enabled(PyObject*, PyObject*) { return PyBool_FromLong(dispatch::grad_enabled()); }
PyObject* grad_mode(PyObject*, PyObject*) {
  return PyBool_FromLong((dispatch::mode_word & dispatch::kNoGrad) == 0);
}
PyObject* set_bit(uint32_t bit, PyObject* value, bool inverted) {
  if (!PyBool_Check(value)) {
    return PyErr_Format(PyExc_TypeError, "enabled must be a bool (got %s)", Py_TYPE(value)->tp_name);
  }
  const bool on = (value == Py_True) != inverted;
  dispatch::mode_word = on ? dispatch::mode_word | bit : dispatch::mode_word & ~bit;
  Py_RETURN_NONE;
}
PyObject* set_grad_enabled(PyObject*, PyObject* value) { return set_bit(dispatch::kNoGrad, value, true); }
PyObject* set_inference(PyObject*, PyObject* value) { return set_bit(dispatch::kInference, value, false); }
PyObject* is_inference(PyObject*, PyObject*) {
  return PyBool_FromLong((dispatch::mode_word & dispatch::kInference) != 0);
}

PyMethodDef node_methods[] = {{"name", node_name, METH_NOARGS, nullptr},
                              {"_sequence_nr", node_sequence, METH_NOARGS, nullptr},
                              {nullptr, nullptr, 0, nullptr}};
PyGetSetDef node_properties[] = {{"next_functions", node_next_functions, nullptr, nullptr, nullptr},
                                 {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyTypeObject node_type = [] {
  PyTypeObject type = static_type("lohe._C.Node", sizeof(PyNode));
  type.tp_dealloc = node_dealloc;
  type.tp_repr = node_repr;
  type.tp_methods = node_methods;
  type.tp_getset = node_properties;
  type.tp_getattro = node_getattro;
  type.tp_weaklistoffset = offsetof(PyNode, weakrefs);
  return type;
}();

PyMethodDef module_functions[] = {
    {"_run_backward", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run_backward)),
     METH_FASTCALL, nullptr},
    {"_install_tensor_hooks", install_tensor_hooks, METH_VARARGS, nullptr},
    {"_install_post_accumulate_hooks", install_post_accumulate_hooks, METH_VARARGS, nullptr},
    {"_install_node_hooks", install_node_hooks, METH_VARARGS, nullptr},
    {"_retain_grad", retain_grad, METH_O, nullptr},
    {"is_grad_enabled", is_grad_enabled, METH_NOARGS,
     "Whether calls are recorded for backward in this thread."},
    {"_grad_mode", grad_mode, METH_NOARGS, nullptr},
    {"_set_grad_enabled", set_grad_enabled, METH_O, nullptr},
    {"_set_inference_mode", set_inference, METH_O, nullptr},
    {"is_inference_mode_enabled", is_inference, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

PyObject* wrap_node(Intrusive<GradNode> node) {
  if (!node) Py_RETURN_NONE;
  if (node->python_object != nullptr) return Py_NewRef(static_cast<PyObject*>(node->python_object));
  PyObject* object = node_type.tp_alloc(&node_type, 0);
  if (object == nullptr) throw PythonError{};
  node->python_object = object;
  reinterpret_cast<PyNode*>(object)->node = node.detach();
  return object;
}

GradNode* node_of(PyObject* object) {
  LOHE_CHECK_TYPE(Py_TYPE(object) == &node_type, "expected a node of the gradient graph, got ",
                  type_name(object));
  return node_at(object);
}

void init_autograd(PyObject* module) {
  check_status(PyType_Ready(&node_type));
  check_status(PyModule_AddFunctions(module, module_functions));
  check_status(PyModule_AddObjectRef(module, "Node", reinterpret_cast<PyObject*>(&node_type)));
}

}  // namespace lohe::python
