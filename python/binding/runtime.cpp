#include "base/allocator.h"
#include "base/threads.h"
#include "binding/common.h"
#include "binding/types.h"
#include "codegen/codegen.h"

/// Process-wide settings: threads, the default dtype, memory.
namespace lohe::python {
namespace {

PyObject* get_threads(PyObject*, PyObject*) {
  return guarded([] { return PyLong_FromLong(num_threads()); });
}
PyObject* set_threads(PyObject*, PyObject* count) {
  return guarded([&] {
    LOHE_CHECK_TYPE(PyLong_Check(count), "set_num_threads expects an int, but got ", type_name(count));
    const long n = PyLong_AsLong(count);
    if (n == -1 && PyErr_Occurred() != nullptr) throw PythonError{};
    LOHE_CHECK(n > 0, "set_num_threads expects a positive integer");
    set_num_threads(static_cast<int>(n));
    return Py_NewRef(Py_None);
  });
}

PyObject* get_default(PyObject*, PyObject*) {
  return guarded([] { return Py_NewRef(dtype_object(default_dtype())); });
}
PyObject* set_default(PyObject*, PyObject* object) {
  return guarded([&] {
    LOHE_CHECK_TYPE(is_dtype(object),
                    "invalid dtype object: only floating-point types are supported as the default type");
    const Dtype d = dtype_from(object);
    LOHE_CHECK_TYPE(is_floating(d), "only floating-point types are supported as the default type, got ",
                    dtype_text(d));
    set_default_dtype(d);
    return Py_NewRef(Py_None);
  });
}

Dtype dtype_argument(PyObject* object, const char* name) {
  LOHE_CHECK_TYPE(is_dtype(object), name, "(): the arguments must be torch.dtype, not ", type_name(object));
  return dtype_from(object);
}
PyObject* promote(PyObject*, PyObject* args) {
  return guarded([&] {
    PyObject *a, *b;
    if (!PyArg_ParseTuple(args, "OO:promote_types", &a, &b)) throw PythonError{};
    return Py_NewRef(
        dtype_object(promote_types(dtype_argument(a, "promote_types"), dtype_argument(b, "promote_types"))));
  });
}
PyObject* can_cast_function(PyObject*, PyObject* args) {
  return guarded([&] {
    PyObject *from, *to;
    if (!PyArg_ParseTuple(args, "OO:can_cast", &from, &to)) throw PythonError{};
    return PyBool_FromLong(can_cast(dtype_argument(from, "can_cast"), dtype_argument(to, "can_cast")));
  });
}

PyObject* stats(PyObject*, PyObject*) {
  return guarded([] {
    const MemoryStats s = memory_stats();
    const auto n = [](int64_t v) { return static_cast<long long>(v); };
    return Py_BuildValue("{s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L,s:L}", "allocated_bytes", n(s.allocated_bytes),
                         "peak_allocated_bytes", n(s.peak_allocated_bytes), "reserved_bytes",
                         n(s.reserved_bytes), "peak_reserved_bytes", n(s.peak_reserved_bytes), "cached_bytes",
                         n(s.cached_bytes), "allocations", n(s.allocations), "frees", n(s.frees), "segments",
                         n(s.segments), "segment_bytes", n(s.segment_bytes));
  });
}
PyObject* reset_peak(PyObject*, PyObject*) {
  return guarded([] {
    reset_peak_memory_stats();
    return Py_NewRef(Py_None);
  });
}
/// _kernel_cache(): the folder on disk ("": none), the bound of its size in bytes, how this process got
/// kernels.
PyObject* kernel_cache(PyObject*, PyObject*) {
  return guarded([] {
    const codegen::KernelCacheOptions options = codegen::KernelCacheOptions::from_environment();
    const codegen::KernelCacheStats s = codegen::KernelCache::global().stats();
    const auto n = [](uint64_t v) { return static_cast<unsigned long long>(v); };
    return Py_BuildValue("(sK{s:K,s:K,s:K,s:K,s:K})", options.directory.c_str(), n(options.max_disk_bytes),
                         "memory_hits", n(s.memory_hits), "prebuilt_hits", n(s.prebuilt_hits), "disk_hits",
                         n(s.disk_hits), "compiled", n(s.compiled), "interpreted", n(s.interpreted));
  });
}
PyObject* empty(PyObject*, PyObject*) {
  return guarded([] {
    empty_cache();
    return Py_NewRef(Py_None);
  });
}

PyMethodDef module_functions[] = {
    {"get_num_threads", get_threads, METH_NOARGS, "Threads that a parallel region uses."},
    {"set_num_threads", set_threads, METH_O, "Sets the number of threads for later regions of the process."},
    {"get_default_dtype", get_default, METH_NOARGS, "The dtype of tensors made from Python floats."},
    {"_set_default_dtype", set_default, METH_O, nullptr},
    {"promote_types", promote, METH_VARARGS, "The dtype that two operands give together."},
    {"can_cast", can_cast_function, METH_VARARGS,
     "Whether a result of the first dtype may be written into the second."},
    {"_memory_stats", stats, METH_NOARGS, nullptr},
    {"_reset_peak_memory_stats", reset_peak, METH_NOARGS, nullptr},
    {"_empty_cache", empty, METH_NOARGS, nullptr},
    {"_kernel_cache", kernel_cache, METH_NOARGS, nullptr},
    {nullptr, nullptr, 0, nullptr}};

}  // namespace

void init_runtime(PyObject* module) { check_status(PyModule_AddFunctions(module, module_functions)); }

}  // namespace lohe::python
