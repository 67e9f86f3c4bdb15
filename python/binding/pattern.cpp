#include "binding/pattern.h"

#include <cstring>

#include "binding/nn_module.h"
#include "binding/torch_function.h"
#include "binding/types.h"

namespace lohe::python {
namespace {

/// lohe._tree._parts: keys, children and how to rebuild; None for what is no container.
Ref parts_of(PyObject* value) {
  static PyObject* function = [] {
    const Ref module = checked(PyImport_ImportModule("lohe._tree"));
    return checked(PyObject_GetAttrString(module.get(), "_parts")).release();
  }();
  return checked(PyObject_CallOneArg(function, value));
}

bool is_plain(PyObject* o) {
  PyTypeObject* t = Py_TYPE(o);
  return o == Py_None || o == Py_Ellipsis || t == &PyBool_Type || t == &PyLong_Type || t == &PyFloat_Type ||
         t == &PyComplex_Type || t == &PyUnicode_Type || t == &PyBytes_Type || t == &dtype_type ||
         t == &device_type || t == &layout_type || t == &memory_format_type || t == &size_type ||
         // Those are equal when they are the same.
         PyFunction_Check(o) || PyCFunction_Check(o) || t == &PyType_Type ||
         PyObject_TypeCheck(o, &module_base_type);
}

bool has_attributes(PyObject* tensor) {
  PyObject* dict = reinterpret_cast<PyTensor*>(tensor)->dict;
  return dict != nullptr && PyDict_GET_SIZE(dict) != 0;
}

bool same_type(PyObject* o, const Ref& type) { return reinterpret_cast<PyObject*>(Py_TYPE(o)) == type.get(); }

}  // namespace

bool same_plain(PyObject* a, PyObject* b) {
  if (a == b) return true;
  if (Py_TYPE(a) != Py_TYPE(b)) return false;
  const auto same_bits = [](double x, double y) { return std::memcmp(&x, &y, sizeof x) == 0; };
  if (PyFloat_CheckExact(a)) return same_bits(PyFloat_AS_DOUBLE(a), PyFloat_AS_DOUBLE(b));
  if (PyComplex_CheckExact(a)) {
    const Py_complex x = PyComplex_AsCComplex(a), y = PyComplex_AsCComplex(b);
    return same_bits(x.real, y.real) && same_bits(x.imag, y.imag);
  }
  const int equal = PyObject_RichCompareBool(a, b, Py_EQ);
  check_status(equal);
  return equal != 0;
}

Pattern Pattern::of(PyObject* value, std::vector<PyObject*>& tensors, std::string& foreign) {
  if (Py_EnterRecursiveCall(" while a value is taken apart") != 0) throw PythonError{};
  struct Leave {
    ~Leave() { Py_LeaveRecursiveCall(); }
  } const leave;
  return part(value, tensors, foreign);
}

Pattern Pattern::part(PyObject* o, std::vector<PyObject*>& tensors, std::string& foreign) {
  Pattern p;
  p.type_ = Ref::borrow(reinterpret_cast<PyObject*>(Py_TYPE(o)));
  const auto key = [&](PyObject* k) {
    if (!is_plain(k)) foreign = "dict with keys of type " + type_name(k);
    p.keys_.push_back(Ref::borrow(k));
  };
  if (is_tensor(o)) {
    p.kind_ = kTensor;
    p.tensor_ = tensors.size();
    if (has_attributes(o)) foreign = "tensor with attributes";
    if (takes_calls(o)) foreign = type_name(o) + ", which takes calls";
    tensors.push_back(o);
  } else if (is_plain(o)) {
    p.value_ = Ref::borrow(o);
  } else if (PyTuple_CheckExact(o) || PyList_CheckExact(o)) {
    p.kind_ = PyTuple_CheckExact(o) ? kTuple : kList;
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(o); ++i)
      p.children_.push_back(of(PySequence_Fast_GET_ITEM(o, i), tensors, foreign));
  } else if (PyDict_CheckExact(o)) {
    p.kind_ = kDict;
    PyObject *k, *v;
    for (Py_ssize_t at = 0; PyDict_Next(o, &at, &k, &v) != 0;) {
      key(k);
      p.children_.push_back(of(v, tensors, foreign));
    }
  } else if (const Ref parts = parts_of(o); parts.get() != Py_None) {
    p.kind_ = kOther;
    PyObject *keys, *items, *rebuild;
    if (!PyArg_ParseTuple(parts.get(), "O!O!O", &PyTuple_Type, &keys, &PyList_Type, &items, &rebuild))
      throw PythonError{};
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(keys); ++i) key(PyTuple_GET_ITEM(keys, i));
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items); ++i)
      p.children_.push_back(of(PyList_GET_ITEM(items, i), tensors, foreign));
    p.value_ = Ref::borrow(rebuild);
  } else {
    foreign = type_name(o);
    p.value_ = Ref::borrow(Py_None);
  }
  return p;
}

bool Pattern::matches(PyObject* o, std::vector<TensorImpl*>& tensors) const {
  if (!same_type(o, type_)) return false;
  const size_t n = children_.size();
  switch (kind_) {
    case kTensor:
      if (has_attributes(o)) return false;
      tensors.push_back(impl_of(o));
      return true;
    case kPlain:
      return same_plain(value_.get(), o);
    case kTuple:
    case kList:
      if (static_cast<size_t>(PySequence_Fast_GET_SIZE(o)) != n) return false;
      for (size_t i = 0; i < n; ++i) {
        if (!children_[i].matches(PySequence_Fast_GET_ITEM(o, static_cast<Py_ssize_t>(i)), tensors))
          return false;
      }
      return true;
    case kDict: {
      if (static_cast<size_t>(PyDict_GET_SIZE(o)) != n) return false;
      PyObject *k, *v;
      size_t i = 0;
      for (Py_ssize_t at = 0; i < n && PyDict_Next(o, &at, &k, &v) != 0; ++i) {
        if (!same_plain(keys_[i].get(), k) || !children_[i].matches(v, tensors)) return false;
      }
      return i == n;
    }
    case kOther: {
      const Ref parts = parts_of(o);
      PyObject* keys = PyTuple_GET_ITEM(parts.get(), 0);
      PyObject* items = PyTuple_GET_ITEM(parts.get(), 1);
      if (static_cast<size_t>(PyList_GET_SIZE(items)) != n ||
          static_cast<size_t>(PyTuple_GET_SIZE(keys)) != keys_.size())
        return false;
      for (size_t i = 0; i < keys_.size(); ++i) {
        if (!same_plain(keys_[i].get(), PyTuple_GET_ITEM(keys, static_cast<Py_ssize_t>(i)))) return false;
      }
      for (size_t i = 0; i < n; ++i) {
        if (!children_[i].matches(PyList_GET_ITEM(items, static_cast<Py_ssize_t>(i)), tensors)) return false;
      }
      return true;
    }
  }
  return false;
}

Ref Pattern::make(const std::vector<Ref>& tensors) const {
  const auto n = static_cast<Py_ssize_t>(children_.size());
  switch (kind_) {
    case kTensor:
      return tensors[tensor_];
    case kPlain:
      return value_;
    case kTuple: {
      Ref made = checked(PyTuple_New(n));
      for (Py_ssize_t i = 0; i < n; ++i)
        PyTuple_SET_ITEM(made.get(), i, children_[static_cast<size_t>(i)].make(tensors).release());
      return made;
    }
    case kDict: {
      Ref made = checked(PyDict_New());
      for (size_t i = 0; i < children_.size(); ++i)
        check_status(PyDict_SetItem(made.get(), keys_[i].get(), children_[i].make(tensors).get()));
      return made;
    }
    case kList:
    case kOther: {
      Ref made = checked(PyList_New(n));
      for (Py_ssize_t i = 0; i < n; ++i)
        PyList_SET_ITEM(made.get(), i, children_[static_cast<size_t>(i)].make(tensors).release());
      return kind_ == kList ? made : checked(PyObject_CallOneArg(value_.get(), made.get()));
    }
  }
  return {};
}

bool Pattern::same_as(const Pattern& o) const {
  if (kind_ != o.kind_ || type_.get() != o.type_.get() || keys_.size() != o.keys_.size() ||
      children_.size() != o.children_.size() || tensor_ != o.tensor_)
    return false;
  if (kind_ == kPlain && !same_plain(value_.get(), o.value_.get())) return false;
  for (size_t i = 0; i < keys_.size(); ++i) {
    if (!same_plain(keys_[i].get(), o.keys_[i].get())) return false;
  }
  for (size_t i = 0; i < children_.size(); ++i) {
    if (!children_[i].same_as(o.children_[i])) return false;
  }
  return true;
}

int Pattern::visit(visitproc visit, void* arg) const {
  Py_VISIT(type_.get());
  Py_VISIT(value_.get());
  for (const Ref& k : keys_) Py_VISIT(k.get());
  for (const Pattern& c : children_) {
    if (const int status = c.visit(visit, arg); status != 0) return status;
  }
  return 0;
}

void mutable_parts(PyObject* o, std::vector<PyObject*>& parts) {
  if (is_tensor(o)) {
    parts.push_back(o);
  } else if (PyTuple_CheckExact(o) || PyList_CheckExact(o)) {
    if (PyList_CheckExact(o)) parts.push_back(o);
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(o); ++i)
      mutable_parts(PySequence_Fast_GET_ITEM(o, i), parts);
  } else if (PyDict_CheckExact(o)) {
    parts.push_back(o);
    PyObject *k, *v;
    for (Py_ssize_t at = 0; PyDict_Next(o, &at, &k, &v) != 0;) mutable_parts(v, parts);
  } else if (!is_plain(o)) {
    const Ref taken = parts_of(o);
    if (taken.get() == Py_None) return;
    if (!PyTuple_Check(o)) parts.push_back(o);
    PyObject* items = PyTuple_GET_ITEM(taken.get(), 1);
    for (Py_ssize_t i = 0; i < PyList_GET_SIZE(items); ++i) mutable_parts(PyList_GET_ITEM(items, i), parts);
  }
}

}  // namespace lohe::python
