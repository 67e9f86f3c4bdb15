#include "binding/tensor.h"

#include <structmember.h>

#include "autograd/tape.h"
#include "binding/export.h"
#include "binding/index.h"
#include "binding/types.h"

/// The Tensor object's life: one Python object a tensor, kept by whichever side outlives the other.
///
/// A Python object owns its tensor. When the last Python reference goes while C++ still holds the tensor (in
/// a list, a saved value, another tensor's .grad), an object with state of its own (attributes, hooks, weak
/// references, a subclass) is not freed: the tensor owns it from then on (`python_owned`), and the next
/// wrap() turns this around again. An object without state is simply dropped; a later wrap() makes an equal
/// one.
namespace lohe::python {

PyTypeObject* tensor_type = nullptr;

namespace {

PyTensor* self_of(PyObject* self) { return reinterpret_cast<PyTensor*>(self); }

// --- memory: objects of class Tensor itself come from a free list and are tracked by the collector only once
// they hold references that could make a cycle.

constexpr int kFreeObjects = 256;
PyTensor* free_objects[kFreeObjects];
int free_count = 0;

PyTensor* new_plain() {
  PyTensor* object;
  if (free_count > 0) {
    object = free_objects[--free_count];
    PyObject_Init(reinterpret_cast<PyObject*>(object), tensor_type);
  } else {
    object = PyObject_GC_New(PyTensor, tensor_type);
    if (object == nullptr) throw PythonError{};
  }
  object->dict = object->weakrefs = object->hooks = nullptr;
  return object;
}

void track(PyObject* self) {
  if (PyObject_GC_IsTracked(self) == 0) PyObject_GC_Track(self);
}

bool has_state(const PyTensor* object) {
  return object->dict != nullptr || object->weakrefs != nullptr || object->hooks != nullptr ||
         Py_TYPE(object) != tensor_type;
}

/// True: the tensor owns the object from now on, which stays alive.
bool hand_to_impl(PyTensor* object) {
  TensorImpl* impl = object->impl;
  if (impl == nullptr || impl->python_owned || impl->use_count() <= 1 || !has_state(object)) return false;
  Py_SET_REFCNT(reinterpret_cast<PyObject*>(object), 1);
#ifdef Py_REF_DEBUG
  _Py_RefTotal++;
#endif
  impl->python_owned = true;
  impl->release();
  return true;
}

void release_impl(PyTensor* object) {
  TensorImpl* impl = std::exchange(object->impl, nullptr);
  if (impl == nullptr) return;
  if (impl->python_owned) return;  // it is dying and has let go of this object already
  impl->python_object.store(nullptr, std::memory_order_relaxed);
  impl->release();
}

void free_plain(PyObject* self) {
  PyTensor* object = self_of(self);
  if (PyObject_GC_IsTracked(self) != 0) PyObject_GC_UnTrack(self);
  if (object->weakrefs != nullptr) PyObject_ClearWeakRefs(self);
  release_impl(object);
  Py_CLEAR(object->hooks);
  Py_CLEAR(object->dict);
  if (free_count < kFreeObjects) {
    free_objects[free_count++] = object;
  } else {
    PyObject_GC_Del(self);
  }
  Py_DECREF(reinterpret_cast<PyObject*>(tensor_type));
}

/// Clears what `__slots__` of the classes between the object's own and TensorBase hold.
void clear_slots(PyObject* self) {
  for (PyTypeObject* type = Py_TYPE(self); type != nullptr && type != &tensor_base_type;
       type = type->tp_base) {
    PyMemberDef* member =
        reinterpret_cast<PyMemberDef*>(reinterpret_cast<char*>(type) + Py_TYPE(type)->tp_basicsize);
    for (Py_ssize_t i = 0; i < Py_SIZE(type); ++i, ++member) {
      if (member->type != T_OBJECT_EX || (member->flags & READONLY) != 0) continue;
      PyObject** slot = reinterpret_cast<PyObject**>(reinterpret_cast<char*>(self) + member->offset);
      Py_CLEAR(*slot);
    }
  }
}

int visit_slots(PyObject* self, visitproc visit, void* arg) {
  for (PyTypeObject* type = Py_TYPE(self); type != nullptr && type != &tensor_base_type;
       type = type->tp_base) {
    PyMemberDef* member =
        reinterpret_cast<PyMemberDef*>(reinterpret_cast<char*>(type) + Py_TYPE(type)->tp_basicsize);
    for (Py_ssize_t i = 0; i < Py_SIZE(type); ++i, ++member) {
      if (member->type != T_OBJECT_EX) continue;
      Py_VISIT(*reinterpret_cast<PyObject**>(reinterpret_cast<char*>(self) + member->offset));
    }
  }
  return 0;
}

void tensor_dealloc(PyObject* self) {
  PyTensor* object = self_of(self);
  if (hand_to_impl(object)) return;
  if (Py_TYPE(self) == tensor_type) {
    free_plain(self);
    return;
  }
  PyTypeObject* type = Py_TYPE(self);
  if (type->tp_finalize != nullptr || type->tp_del != nullptr) {
    track(self);
    if (type->tp_finalize != nullptr && PyObject_CallFinalizerFromDealloc(self) < 0) return;  // resurrected
    if (type->tp_del != nullptr) {
      type->tp_del(self);
      if (Py_REFCNT(self) > 0) return;
    }
  }
  if (PyObject_GC_IsTracked(self) != 0) PyObject_GC_UnTrack(self);
  if (object->weakrefs != nullptr) PyObject_ClearWeakRefs(self);
  release_impl(object);
  clear_slots(self);
  Py_CLEAR(object->hooks);
  Py_CLEAR(object->dict);
  type->tp_free(self);
  Py_DECREF(reinterpret_cast<PyObject*>(type));
}

int tensor_traverse(PyObject* self, visitproc visit, void* arg) {
  PyTensor* object = self_of(self);
  Py_VISIT(Py_TYPE(self));
  Py_VISIT(object->dict);
  Py_VISIT(object->hooks);
  TensorImpl* impl = object->impl;
  if (impl != nullptr && !impl->python_owned && impl->use_count() == 1) {
    // Nobody but this object holds the tensor, so what the tensor holds belongs to this object.
    if (const autograd::GradMeta* meta = autograd::meta_or_null(*impl); meta != nullptr) {
      if (meta->hooks && !meta->hooks->gradient.empty()) Py_VISIT(object->hooks);
      if (meta->grad && meta->grad->python_owned && meta->grad->use_count() == 1) {
        Py_VISIT(static_cast<PyObject*>(meta->grad->python_object.load()));
      }
    }
  }
  return visit_slots(self, visit, arg);
}

int tensor_clear(PyObject* self) {
  PyTensor* object = self_of(self);
  if (object->impl != nullptr && !object->impl->python_owned && object->impl->use_count() == 1) {
    if (autograd::GradMeta* meta = autograd::meta_or_null(*object->impl); meta != nullptr) {
      if (meta->hooks) {
        // Out of the tensor before they go: what they hold may look at it.
        const auto hooks = std::exchange(meta->hooks->gradient, {});
        const auto more = std::exchange(meta->hooks->post_accumulate, {});
      }
    }
  }
  Py_CLEAR(object->hooks);
  Py_CLEAR(object->dict);
  clear_slots(self);
  return 0;
}

// --- the tensor dies first

/// A weak reference brought the object back while its tensor was dying: the object gets an equal tensor of
/// its own.
void revive(PyTensor* object, TensorImpl* dying) {
  TensorPtr copy = TensorImpl::make(dying->storage_ptr(), dying->dtype(), dying->sizes(), dying->strides(),
                                    dying->offset());
  copy->share_version(*dying);
  copy->set_conj(dying->conj());
  copy->set_neg(dying->neg());
  copy->autograd = std::move(dying->autograd);
  copy->view_base = std::move(dying->view_base);
  copy->extension = std::move(dying->extension);
  copy->requires_grad = dying->requires_grad;
  copy->inference = dying->inference;
  copy->python_subclass = dying->python_subclass;
  copy->python_object.store(object, std::memory_order_relaxed);
  object->impl = copy.detach();
}

void impl_dies(TensorImpl* impl) {
  if (!impl->python_owned || Py_IsInitialized() == 0) return;
  const WithGil gil;
  auto* object = static_cast<PyTensor*>(impl->python_object.exchange(nullptr));
  if (object == nullptr) return;
  if (Py_REFCNT(reinterpret_cast<PyObject*>(object)) > 1) {
    revive(object, impl);
  } else {
    object->impl = nullptr;
  }
  PyObject *type, *value, *trace;
  PyErr_Fetch(&type, &value, &trace);
  Py_DECREF(reinterpret_cast<PyObject*>(object));
  PyErr_Restore(type, value, trace);
}

// --- attributes

int tensor_setattro(PyObject* self, PyObject* name, PyObject* value) {
  const int status = PyObject_GenericSetAttr(self, name, value);
  if (self_of(self)->dict != nullptr) track(self);
  return status;
}

PyObject* get_dict(PyObject* self, void* context) {
  PyObject* dict = PyObject_GenericGetDict(self, context);
  if (dict != nullptr) track(self);
  return dict;
}

PyObject* get_hooks(PyObject* self, void*) {
  PyObject* hooks = self_of(self)->hooks;
  return Py_NewRef(hooks == nullptr ? Py_None : hooks);
}
int set_hooks(PyObject* self, PyObject* value, void*) {
  PyObject* old = self_of(self)->hooks;
  self_of(self)->hooks = value == nullptr || value == Py_None ? nullptr : Py_NewRef(value);
  Py_XDECREF(old);
  track(self);
  return 0;
}

PyGetSetDef life_properties[] = {{"__dict__", get_dict, PyObject_GenericSetDict, nullptr, nullptr},
                                 {"_backward_hooks", get_hooks, set_hooks, nullptr, nullptr},
                                 {nullptr, nullptr, nullptr, nullptr, nullptr}};

PyObject* make_subclass(PyObject*, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    static const char* names[] = {"cls", "data", "require_grad", nullptr};
    PyObject *cls, *data;
    int require_grad = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!O!|p:_make_subclass", const_cast<char**>(names),
                                     &PyType_Type, &cls, &tensor_base_type, &data, &require_grad)) {
      throw PythonError{};
    }
    auto* type = reinterpret_cast<PyTypeObject*>(cls);
    LOHE_CHECK_TYPE(PyType_IsSubtype(type, &tensor_base_type) != 0,
                    "_make_subclass: cls must be a subclass of Tensor");
    TensorPtr detached = data_alias(impl_of(data));
    if (require_grad != 0) autograd::set_requires_grad(*detached, true);
    return wrap_as(type, std::move(detached));
  });
}

PyObject* as_subclass(PyObject* self, PyObject* cls) {
  return guarded([&] {
    LOHE_CHECK_TYPE(PyType_Check(cls) != 0 &&
                        PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(cls), &tensor_base_type) != 0,
                    "as_subclass(): argument 'cls' must be a subclass of Tensor");
    TensorPtr alias = call_row("alias", {Arg(impl_of(self))});
    return wrap_as(reinterpret_cast<PyTypeObject*>(cls), std::move(alias));
  });
}

PyMethodDef life_methods[] = {
    {"_make_subclass", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(make_subclass)),
     METH_STATIC | METH_VARARGS | METH_KEYWORDS, "An object of class `cls` that shares the data of `data`."},
    {"as_subclass", as_subclass, METH_O, "This tensor as an object of class `cls`; differentiable."},
    {nullptr, nullptr, 0, nullptr}};

// --- the metaclass: classes derived in Python would bring their own way of freeing objects

int meta_init(PyObject* cls, PyObject* args, PyObject* kwargs) {
  if (PyType_Type.tp_init(cls, args, kwargs) < 0) return -1;
  auto* type = reinterpret_cast<PyTypeObject*>(cls);
  type->tp_dealloc = tensor_dealloc;
  type->tp_traverse = tensor_traverse;
  type->tp_clear = tensor_clear;
  return 0;
}

PyTypeObject metaclass = static_type("lohe._C._TensorMeta", 0);

PyObject* base_new(PyTypeObject* type, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    LOHE_CHECK_TYPE(type != &tensor_base_type, "_TensorBase cannot be made; use lohe.Tensor");
    return legacy_new(type, args, kwargs);
  });
}

PyObject* set_tensor_class(PyObject*, PyObject* cls) {
  return guarded([&] {
    LOHE_CHECK_TYPE(PyType_Check(cls) != 0 && tensor_type == nullptr,
                    "_set_tensor_class: the class is set once");
    tensor_type = reinterpret_cast<PyTypeObject*>(Py_NewRef(cls));
    return Py_NewRef(Py_None);
  });
}

PyMethodDef module_functions[] = {{"_set_tensor_class", set_tensor_class, METH_O, nullptr},
                                  {nullptr, nullptr, 0, nullptr}};

PyMappingMethods mapping = [] {
  PyMappingMethods m{};
  m.mp_length = tensor_length;
  m.mp_subscript = tensor_getitem;
  m.mp_ass_subscript = tensor_setitem;
  return m;
}();
/// Length and items by position are found through the mapping; iteration is a method of the class.
PySequenceMethods sequence = [] {
  PySequenceMethods m{};
  m.sq_length = tensor_length;
  return m;
}();

}  // namespace

PyTypeObject tensor_base_type = [] {
  PyTypeObject type = static_type("lohe._C.TensorBase", sizeof(PyTensor));
  type.tp_flags |= Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC;
  type.tp_dealloc = tensor_dealloc;
  type.tp_traverse = tensor_traverse;
  type.tp_clear = tensor_clear;
  type.tp_setattro = tensor_setattro;
  type.tp_dictoffset = offsetof(PyTensor, dict);
  type.tp_weaklistoffset = offsetof(PyTensor, weakrefs);
  type.tp_new = base_new;
  return type;
}();

PyObject* wrap(TensorPtr tensor) {
  if (!tensor) Py_RETURN_NONE;
  TensorImpl* impl = tensor.get();
  if (void* existing = impl->python_object.load(std::memory_order_relaxed); existing != nullptr) {
    auto* object = static_cast<PyTensor*>(existing);
    if (!impl->python_owned) return Py_NewRef(reinterpret_cast<PyObject*>(object));
    // The object takes the tensor over; the reference that the tensor held becomes the caller's.
    impl->python_owned = false;
    object->impl = tensor.detach();
    return reinterpret_cast<PyObject*>(object);
  }
  PyTensor* object = new_plain();
  object->impl = tensor.detach();
  impl->python_object.store(object, std::memory_order_relaxed);
  return reinterpret_cast<PyObject*>(object);
}

PyObject* wrap_as(PyTypeObject* type, TensorPtr tensor) {
  LOHE_CHECK(tensor->python_object.load() == nullptr, "the tensor has a Python object of class ",
             tensor->python_object.load() == nullptr
                 ? ""
                 : type_name(static_cast<PyObject*>(tensor->python_object.load())),
             " already");
  if (type == tensor_type) return wrap(std::move(tensor));
  PyObject* object = type->tp_alloc(type, 0);
  if (object == nullptr) throw PythonError{};
  TensorImpl* impl = tensor.detach();
  self_of(object)->impl = impl;
  impl->python_subclass = true;
  impl->python_object.store(object, std::memory_order_relaxed);
  return object;
}

PyObject* wrap_list(const std::vector<TensorPtr>& tensors) {
  Ref tuple = checked(PyTuple_New(static_cast<Py_ssize_t>(tensors.size())));
  for (size_t i = 0; i < tensors.size(); ++i) {
    PyTuple_SET_ITEM(tuple.get(), static_cast<Py_ssize_t>(i), wrap(tensors[i]));
  }
  return tuple.release();
}

void add_descriptors(PyTypeObject* type, PyGetSetDef* properties, PyMethodDef* methods) {
  for (; properties != nullptr && properties->name != nullptr; ++properties) {
    const Ref d = checked(PyDescr_NewGetSet(type, properties));
    check_status(PyDict_SetItemString(type->tp_dict, properties->name, d.get()));
  }
  for (; methods != nullptr && methods->ml_name != nullptr; ++methods) {
    Ref d;
    if ((methods->ml_flags & METH_STATIC) != 0) {
      const Ref function = checked(PyCFunction_New(methods, nullptr));
      d = checked(PyStaticMethod_New(function.get()));
    } else {
      d = checked(PyDescr_NewMethod(type, methods));
    }
    check_status(PyDict_SetItemString(type->tp_dict, methods->ml_name, d.get()));
  }
}

void init_tensor(PyObject* module) {
  metaclass.tp_base = &PyType_Type;
  metaclass.tp_flags |= Py_TPFLAGS_BASETYPE;
  metaclass.tp_init = meta_init;
  check_status(PyType_Ready(&metaclass));
  Py_SET_TYPE(reinterpret_cast<PyObject*>(&tensor_base_type), &metaclass);
  tensor_base_type.tp_as_mapping = &mapping;
  tensor_base_type.tp_as_sequence = &sequence;
  tensor_base_type.tp_as_number = number_methods();
  tensor_base_type.tp_richcompare = tensor_compare;
  tensor_base_type.tp_hash = [](PyObject* self) { return _Py_HashPointer(self); };
  check_status(PyType_Ready(&tensor_base_type));
  add_descriptors(&tensor_base_type, life_properties, life_methods);
  add_tensor_properties(&tensor_base_type);
  add_tensor_methods(&tensor_base_type);
  PyType_Modified(&tensor_base_type);
  check_status(PyModule_AddFunctions(module, module_functions));
  check_status(PyModule_AddObjectRef(module, "TensorBase", reinterpret_cast<PyObject*>(&tensor_base_type)));
  check_status(PyModule_AddObjectRef(module, "_TensorMeta", reinterpret_cast<PyObject*>(&metaclass)));
  python_hooks.impl_dies = impl_dies;
  python_hooks.leave = []() -> void* {
    return Py_IsInitialized() != 0 && PyGILState_Check() != 0 ? PyEval_SaveThread() : nullptr;
  };
  python_hooks.enter = [](void* state) { PyEval_RestoreThread(static_cast<PyThreadState*>(state)); };
}

}  // namespace lohe::python
