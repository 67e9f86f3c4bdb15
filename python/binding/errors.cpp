#include <new>

#include "binding/common.h"

/// Exceptions across the border: lohe::Error to Python's classes, and back for callbacks.
namespace lohe::python {
namespace {

PyObject* out_of_memory_error = nullptr;
PyObject* lin_alg_error = nullptr;
PyObject* accelerator_error = nullptr;

PyObject* exception_class(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::kType:
      return PyExc_TypeError;
    case ErrorKind::kValue:
      return PyExc_ValueError;
    case ErrorKind::kIndex:
      return PyExc_IndexError;
    case ErrorKind::kKey:
      return PyExc_KeyError;
    case ErrorKind::kAttribute:
      return PyExc_AttributeError;
    case ErrorKind::kNotImplemented:
      return PyExc_NotImplementedError;
    case ErrorKind::kOverflow:
      return PyExc_OverflowError;
    case ErrorKind::kOutOfMemory:
      return out_of_memory_error;
    case ErrorKind::kIo:
      return PyExc_OSError;
    case ErrorKind::kLinAlg:
      return lin_alg_error;
    case ErrorKind::kRuntime:
    case ErrorKind::kZeroDivision:
    case ErrorKind::kStopped:
    case ErrorKind::kInternal:
      return PyExc_RuntimeError;
  }
  return PyExc_RuntimeError;
}

}  // namespace

void set_error_from_exception() noexcept {
  try {
    throw;
  } catch (const PythonError&) {
    if (PyErr_Occurred() == nullptr)
      PyErr_SetString(PyExc_SystemError, "an error was reported but none is set");
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::kStopped) {
      if (PyErr_Occurred() == nullptr) PyErr_SetNone(PyExc_KeyboardInterrupt);
    } else {
      PyErr_SetString(exception_class(error.kind()), error.what());
    }
  } catch (const std::bad_alloc&) {
    PyErr_NoMemory();
  } catch (const std::exception& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what());
  }
}

void throw_stopped() { throw Error(ErrorKind::kStopped, "a Python callback raised"); }

SharedRef::SharedRef(PyObject* object)
    : object_(new Ref(Ref::borrow(object)), [](Ref* held) {
        if (Py_IsInitialized() == 0) {
          held->release();  // the interpreter is gone, and its objects with it
          delete held;
          return;
        }
        WithGil gil;
        delete held;
      }) {}

std::string_view utf8(PyObject* text) {
  Py_ssize_t size = 0;
  const char* chars = PyUnicode_AsUTF8AndSize(text, &size);
  if (chars == nullptr) throw PythonError{};
  return {chars, static_cast<size_t>(size)};
}

std::string type_name(PyObject* object) {
  if (is_tensor(object) && Py_TYPE(object) == tensor_type) return "Tensor";
  const std::string_view name = Py_TYPE(object)->tp_name;
  const auto dot = name.rfind('.');
  return std::string(dot == name.npos ? name : name.substr(dot + 1));
}

PyObject* wrap_scalar(const Scalar& s) {
  switch (s.kind()) {
    case Scalar::Kind::kBool:
      return PyBool_FromLong(s.to_bool());
    case Scalar::Kind::kInt:
      return PyLong_FromLongLong(s.to_int());
    case Scalar::Kind::kFloat:
      return PyFloat_FromDouble(s.to_double());
    case Scalar::Kind::kComplex:
      return PyComplex_FromDoubles(s.to_double(), s.imag());
  }
  Py_RETURN_NONE;
}

PyObject* intern(const char* name) {
  PyObject* text = PyUnicode_InternFromString(name);
  if (text == nullptr) throw PythonError{};
  return text;
}

void init_errors(PyObject* module) {
  out_of_memory_error = PyErr_NewExceptionWithDoc(
      "lohe.OutOfMemoryError", "Memory for a tensor could not be had.", PyExc_RuntimeError, nullptr);
  lin_alg_error = PyErr_NewExceptionWithDoc("lohe.linalg.LinAlgError", "A matrix has no such decomposition.",
                                            PyExc_RuntimeError, nullptr);
  accelerator_error =
      PyErr_NewExceptionWithDoc("lohe.AcceleratorError", "A device failed.", PyExc_RuntimeError, nullptr);
  if (out_of_memory_error == nullptr || lin_alg_error == nullptr || accelerator_error == nullptr)
    throw PythonError{};
  check_status(PyModule_AddObjectRef(module, "OutOfMemoryError", out_of_memory_error));
  check_status(PyModule_AddObjectRef(module, "LinAlgError", lin_alg_error));
  check_status(PyModule_AddObjectRef(module, "AcceleratorError", accelerator_error));
}

}  // namespace lohe::python
