#pragma once

#include "binding/common.h"

/// Python's objects for dtypes, devices, layouts, memory formats and sizes.
namespace lohe::python {

struct PyDtype {
  PyObject_HEAD Dtype dtype;
};
struct PyDevice {
  PyObject_HEAD Device device;
};
/// A named constant of one of two families; `value` is what the op rows expect.
struct PyEnum {
  PyObject_HEAD const char* name;
  int value;
};

extern PyTypeObject dtype_type, device_type, layout_type, memory_format_type, size_type;

inline bool is_dtype(PyObject* o) { return Py_TYPE(o) == &dtype_type; }
inline bool is_device(PyObject* o) { return Py_TYPE(o) == &device_type; }
inline bool is_layout(PyObject* o) { return Py_TYPE(o) == &layout_type; }
inline bool is_memory_format(PyObject* o) { return Py_TYPE(o) == &memory_format_type; }

/// The one object of a dtype, borrowed.
PyObject* dtype_object(Dtype dtype);
/// A dtype object, or one of Python's number types (float, int, bool, complex); kUndefined if it is neither.
Dtype dtype_from(PyObject* object);
/// "torch.float32"
std::string dtype_text(Dtype dtype);

PyObject* wrap_device(Device device);
/// A device, a str or an index. False if `object` is none of them. @throws Error for an unknown device.
bool device_from(PyObject* object, Device& device);

enum MemoryFormat : int {
  kContiguousFormat = 0,
  kPreserveFormat = 1,
  kChannelsLast = 2,
  kChannelsLast3d = 3
};
PyObject* strided_layout();  ///< borrowed

PyObject* wrap_size(std::span<const int64_t> sizes);
PyObject* wrap_ints(std::span<const int64_t> values);  ///< a plain tuple

}  // namespace lohe::python
