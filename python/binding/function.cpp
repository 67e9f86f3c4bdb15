#include "binding/autograd.h"
#include "binding/tensor.h"

namespace lohe::autograd {
uint64_t new_sequence();
}

/// Custom functions: nodes whose backward is written in Python. python/lohe/autograd/function.py has the
/// rest.
namespace lohe::python {

namespace {

/// Lets the context see its node while Python code reads saved tensors; longer would be a cycle.
class NodeInContext {
 public:
  explicit NodeInContext(autograd::GradNode* node) : context_(function_context(node)) {
    if (context_ == nullptr) return;
    const Ref wrapper = checked(wrap_node(Intrusive<autograd::GradNode>(node)));
    check_status(PyObject_SetAttrString(context_, "_node", wrapper.get()));
  }
  ~NodeInContext() {
    if (context_ == nullptr) return;
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (PyObject_SetAttrString(context_, "_node", Py_None) < 0) PyErr_Clear();
    PyErr_Restore(type, value, trace);
  }

 private:
  PyObject* context_;
};

}  // namespace

class FunctionNode final : public autograd::GradNode {
 public:
  FunctionNode(PyObject* context, PyObject* backward, std::string name)
      : context_(context), backward_(backward), name_(std::move(name)) {}
  std::string name() const override { return name_; }
  PyObject* context() const { return context_.get(); }

  /// `backward(context, gradients)` gives one gradient or None for every argument of forward.
  autograd::GradList apply(autograd::GradList grads) override {
    const WithGil gil;
    try {
      const Ref incoming = checked(wrap_list({grads.begin(), grads.end()}));
      const NodeInContext visible(this);
      const Ref result =
          checked(PyObject_CallFunctionObjArgs(backward_.get(), context_.get(), incoming.get(), nullptr));
      LOHE_CHECK_TYPE(PyTuple_Check(result.get()), name_, ": backward must give a tuple");
      autograd::GradList list;
      for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(result.get()); ++i) {
        PyObject* item = PyTuple_GET_ITEM(result.get(), i);
        list.push_back(item == Py_None ? TensorPtr() : tensor_of(item));
      }
      return list;
    } catch (const PythonError&) {
      throw_stopped();
    }
  }

  void free_saved() override {
    const WithGil gil;
    const Ref done = Ref::steal(PyObject_CallMethod(context_.get(), "_release", nullptr));
    if (!done) throw_stopped();
  }

 private:
  SharedRef context_, backward_;
  std::string name_;
};

PyObject* function_attribute(autograd::GradNode* node, PyObject* name) {
  return guarded([&] {
    const NodeInContext visible(node);
    return checked(PyObject_GetAttr(function_context(node), name)).release();
  });
}

PyObject* function_context(autograd::GradNode* node) {
  auto* function = dynamic_cast<FunctionNode*>(node);
  return function == nullptr ? nullptr : function->context();
}

namespace {

/// A node with an edge for each argument that needs a gradient. Made before forward runs, which may write its
/// inputs.
PyObject* make_node(PyObject*, PyObject* args) {
  tell_watcher("a custom autograd function runs");
  return guarded([&] {
    PyObject *context, *backward, *inputs;
    const char* name;
    if (!PyArg_ParseTuple(args, "OOO!s:_function_node", &context, &backward, &PyTuple_Type, &inputs, &name))
      throw PythonError{};
    Intrusive<autograd::GradNode> node =
        Intrusive<autograd::GradNode>::adopt(new FunctionNode(context, backward, name));
    node->sequence = autograd::new_sequence();
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(inputs); ++i) {
      PyObject* item = PyTuple_GET_ITEM(inputs, i);
      node->next.push_back(is_tensor(item) ? autograd::gradient_edge(tensor_of(item)) : autograd::Edge{});
    }
    return wrap_node(std::move(node));
  });
}

/// Makes the node the history of output number `index`; gives the tensor to hand to the user.
PyObject* set_history(PyObject*, PyObject* args) {
  return guarded([&] {
    PyObject *node_object, *tensor;
    int index = 0, dirty = 0, is_input = 0;
    if (!PyArg_ParseTuple(args, "OO!ipp:_function_set_history", &node_object, &tensor_base_type, &tensor,
                          &index, &dirty, &is_input)) {
      throw PythonError{};
    }
    autograd::GradNode* node = node_of(node_object);
    TensorPtr t = tensor_of(tensor);
    node->outputs.resize(std::max(node->outputs.size(), static_cast<size_t>(index) + 1));
    node->outputs[static_cast<size_t>(index)] = autograd::GradShape(*t);
    if (dirty != 0) {
      autograd::rebase_history(t, Intrusive<autograd::GradNode>(node), index);
      return Py_NewRef(tensor);
    }
    if (is_input != 0) {
      // An input that is handed through keeps its own history; the output is another tensor of the same
      // memory.
      const autograd::GradModeGuard off(false);
      t = call_row("alias", {Arg(t.get())});
    }
    t->view_base = nullptr;
    autograd::GradMeta& m = autograd::meta_of(*t);
    m.grad_fn = Intrusive<autograd::GradNode>(node);
    m.output = index;
    t->requires_grad = true;
    return wrap(std::move(t));
  });
}

PyObject* bump_version(PyObject*, PyObject* tensor) {
  return guarded([&] {
    LOHE_CHECK_TYPE(is_tensor(tensor), "expected a Tensor, got ", type_name(tensor));
    impl_of(tensor)->bump_version();
    return Py_NewRef(Py_None);
  });
}

// --- saved tensors

struct PySaved {
  PyObject_HEAD autograd::SavedTensor* saved;
};

PyObject* saved_new(PyTypeObject* type, PyObject* args, PyObject*) {
  return guarded([&] {
    PyObject* tensor;
    int is_output = 0;
    if (!PyArg_ParseTuple(args, "O!p:SavedTensor", &tensor_base_type, &tensor, &is_output))
      throw PythonError{};
    Ref object = checked(type->tp_alloc(type, 0));
    reinterpret_cast<PySaved*>(object.get())->saved =
        new autograd::SavedTensor(tensor_of(tensor), is_output != 0);
    return object.release();
  });
}
void saved_dealloc(PyObject* self) {
  delete reinterpret_cast<PySaved*>(self)->saved;
  Py_TYPE(self)->tp_free(self);
}
PyObject* saved_unpack(PyObject* self, PyObject* node) {
  return guarded([&] {
    return wrap(reinterpret_cast<PySaved*>(self)->saved->unpack(node == Py_None ? nullptr : node_of(node)));
  });
}

PyMethodDef saved_methods[] = {
    {"unpack", saved_unpack, METH_O, "The tensor; raises if it was written since it was saved."},
    {nullptr, nullptr, 0, nullptr}};
PyTypeObject saved_type = [] {
  PyTypeObject type = static_type("lohe._C.SavedTensor", sizeof(PySaved));
  type.tp_new = saved_new;
  type.tp_dealloc = saved_dealloc;
  type.tp_methods = saved_methods;
  return type;
}();

PyMethodDef module_functions[] = {{"_function_node", make_node, METH_VARARGS, nullptr},
                                  {"_function_set_history", set_history, METH_VARARGS, nullptr},
                                  {"_bump_version", bump_version, METH_O, nullptr},
                                  {nullptr, nullptr, 0, nullptr}};

}  // namespace

void init_function(PyObject* module) {
  check_status(PyType_Ready(&saved_type));
  check_status(PyModule_AddFunctions(module, module_functions));
  check_status(PyModule_AddObjectRef(module, "SavedTensor", reinterpret_cast<PyObject*>(&saved_type)));
}

}  // namespace lohe::python
