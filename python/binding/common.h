#pragma once

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "lohe/error.h"
#include "ops/arg.h"

/// What every file of the extension needs: owned references, exceptions across the border, the Tensor object.
namespace lohe::python {

/// An owned Python reference. Needs the GIL.
class Ref {
 public:
  Ref() = default;
  static Ref steal(PyObject* object) {
    Ref r;
    r.object_ = object;
    return r;
  }
  static Ref borrow(PyObject* object) {
    Py_XINCREF(object);
    return steal(object);
  }
  Ref(const Ref& other) : object_(other.object_) { Py_XINCREF(object_); }
  Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  Ref& operator=(Ref other) noexcept {
    std::swap(object_, other.object_);
    return *this;
  }
  ~Ref() { Py_XDECREF(object_); }

  PyObject* get() const { return object_; }
  PyObject* release() { return std::exchange(object_, nullptr); }
  explicit operator bool() const { return object_ != nullptr; }

 private:
  PyObject* object_ = nullptr;
};

/// Thrown where the interpreter already holds an exception.
struct PythonError {};

/// An owned reference to the result of a C-API call. @throws PythonError for null.
inline Ref checked(PyObject* object) {
  if (object == nullptr) throw PythonError{};
  return Ref::steal(object);
}
inline void check_status(int status) {
  if (status < 0) throw PythonError{};
}

/// Turns the C++ exception in flight into the interpreter's.
void set_error_from_exception() noexcept;

/// Runs `body`, which returns a new reference; an exception becomes Python's.
template <class F>
PyObject* guarded(F&& body) noexcept {
  try {
    return body();
  } catch (...) {
    set_error_from_exception();
    return nullptr;
  }
}
template <class F>
int guarded_status(F&& body) noexcept {
  try {
    body();
    return 0;
  } catch (...) {
    set_error_from_exception();
    return -1;
  }
}

/// Inside: Python may be called. For code that the engine or a destructor runs on any thread.
class WithGil {
 public:
  WithGil() : state_(PyGILState_Ensure()) {}
  ~WithGil() { PyGILState_Release(state_); }
  WithGil(const WithGil&) = delete;
  WithGil& operator=(const WithGil&) = delete;

 private:
  PyGILState_STATE state_;
};

/// Inside: other Python threads run.
class WithoutGil {
 public:
  explicit WithoutGil(bool release = true) : saved_(release ? PyEval_SaveThread() : nullptr) {}
  ~WithoutGil() {
    if (saved_ != nullptr) PyEval_RestoreThread(saved_);
  }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* saved_;
};

/// A Python object held by something that may die on any thread, with or without the GIL.
class SharedRef {
 public:
  explicit SharedRef(PyObject* object);  ///< adds a reference
  PyObject* get() const { return object_->get(); }

 private:
  std::shared_ptr<Ref> object_;
};

/// Throws Error(kStopped) when the interpreter holds an exception, for callbacks that C++ runs.
[[noreturn]] void throw_stopped();

/// The Tensor object. `impl` is owned unless impl->python_owned.
struct PyTensor {
  PyObject_HEAD TensorImpl* impl;
  PyObject* dict;
  PyObject* weakrefs;
  PyObject* hooks;  ///< dict of tensor hooks by id, or null
};

extern PyTypeObject tensor_base_type;  ///< lohe._C.TensorBase
extern PyTypeObject* tensor_type;      ///< lohe.Tensor, the class of results

inline bool is_tensor(PyObject* object) {
  return Py_TYPE(object) == tensor_type || PyObject_TypeCheck(object, &tensor_base_type);
}

/// Borrowed. @throws RuntimeError for an object whose tensor is gone (seen by a finalizer only).
inline TensorImpl* impl_of(PyObject* tensor) {
  TensorImpl* impl = reinterpret_cast<PyTensor*>(tensor)->impl;
  LOHE_CHECK(impl != nullptr,
             "the tensor behind this object is gone, or its class did not call Tensor.__new__");
  return impl;
}
inline TensorPtr tensor_of(PyObject* object) { return TensorPtr(impl_of(object)); }

/// The one Python object of a tensor; None for null. New reference.
PyObject* wrap(TensorPtr tensor);
/// A new object of class `type` (a subclass of Tensor) around a tensor that has no Python object yet.
PyObject* wrap_as(PyTypeObject* type, TensorPtr tensor);
/// A tuple of tensors.
PyObject* wrap_list(const std::vector<TensorPtr>& tensors);

inline PyObject* unicode(std::string_view text) {
  return PyUnicode_FromStringAndSize(text.data(), static_cast<Py_ssize_t>(text.size()));
}
/// The UTF-8 text of a str. @throws PythonError.
std::string_view utf8(PyObject* text);
std::string type_name(PyObject* object);
PyObject* wrap_scalar(const Scalar& number);

/// An interned, immortal name.
PyObject* intern(const char* name);

/// The beginning of a type that lives as long as the process.
inline PyTypeObject static_type(const char* name, Py_ssize_t size) {
  PyTypeObject type{};
  Py_SET_REFCNT(reinterpret_cast<PyObject*>(&type), 1);
  type.tp_name = name;
  type.tp_basicsize = size;
  type.tp_flags = Py_TPFLAGS_DEFAULT;
  return type;
}

/// Adds names to the extension module, one function a file.
void init_errors(PyObject* module);
void init_types(PyObject* module);
void init_tensor(PyObject* module);
void init_ops(PyObject* module);
void init_data(PyObject* module);
void init_autograd(PyObject* module);
void init_function(PyObject* module);
void init_storage(PyObject* module);
void init_torch_function(PyObject* module);
void init_runtime(PyObject* module);
void init_generator(PyObject* module);
void init_transforms(PyObject* module);
void init_compile(PyObject* module);
void init_replay(PyObject* module);
void init_profile(PyObject* module);
void init_serialization(PyObject* module);

}  // namespace lohe::python
