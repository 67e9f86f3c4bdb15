#include <memory>

#include "binding/export.h"
#include "binding/tensor.h"
#include "binding/types.h"
#include "tensor/shape.h"

/// DLPack, the standard for handing tensors between libraries (dmlc.github.io/dlpack, versions 0 and 1).
namespace lohe::python {
namespace {

struct DLDevice {
  int32_t type;  ///< 1: CPU
  int32_t id;
};
struct DLDataType {
  uint8_t code;  ///< 0 int, 1 uint, 2 float, 4 bfloat, 5 complex, 6 bool
  uint8_t bits;
  uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  int32_t rank;
  DLDataType dtype;
  int64_t* sizes;
  int64_t* strides;  ///< in elements; null: row-major
  uint64_t byte_offset;
};
struct DLManaged {
  DLTensor tensor;
  void* context;
  void (*deleter)(DLManaged*);
};
struct DLManagedVersioned {
  uint32_t major, minor;
  void* context;
  void (*deleter)(DLManagedVersioned*);
  uint64_t flags;
  DLTensor tensor;
};
constexpr uint64_t kReadOnly = 1, kCopied = 2;

DLDataType type_of(Dtype dtype) {
  const auto bits = static_cast<uint8_t>(itemsize(dtype) * 8);
  if (dtype == kBool) return {6, 8, 1};
  if (dtype == kUInt8) return {1, 8, 1};
  if (dtype == kBFloat16) return {4, 16, 1};
  if (is_complex(dtype)) return {5, bits, 1};
  return {static_cast<uint8_t>(is_floating(dtype) ? 2 : 0), bits, 1};
}

Dtype dtype_of(DLDataType type) {
  for (const Dtype d : {kUInt8, kInt8, kInt16, kInt32, kInt64, kFloat16, kFloat32, kFloat64, kComplex64,
                        kComplex128, kBool, kBFloat16}) {
    const DLDataType t = type_of(d);
    if (t.code == type.code && t.bits == type.bits && type.lanes == 1) return d;
  }
  raise(ErrorKind::kRuntime, "Unsupported DLPack type: code ", static_cast<int>(type.code), ", ",
        static_cast<int>(type.bits), " bits, ", type.lanes, " lanes");
}

template <class Managed>
struct Export {
  Managed managed{};
  TensorPtr tensor;
  Dims sizes, strides;
};

template <class Managed>
void delete_export(Managed* managed) {
  delete static_cast<Export<Managed>*>(managed->context);
}

template <class Managed>
Managed* make_export(TensorPtr t) {
  check_readable(*t, ".__dlpack__()");
  auto* e = new Export<Managed>;
  e->sizes = t->size_dims();
  e->strides = t->stride_dims();
  for (size_t i = 0; i < e->sizes.size(); ++i) {
    if (e->sizes[i] < 2)
      e->strides[i] = 1;  // a stride that is never taken: consumers compare it all the same
  }
  e->managed.tensor = {t->numel() == 0 ? nullptr : t->expose_data(),
                       {1, 0},
                       static_cast<int32_t>(t->dim()),
                       type_of(t->dtype()),
                       e->sizes.data(),
                       e->strides.data(),
                       0};
  e->managed.context = e;
  e->managed.deleter = delete_export<Managed>;
  e->tensor = std::move(t);
  return &e->managed;
}

template <class Managed>
void delete_unused_capsule(PyObject* capsule, const char* name) {
  if (PyCapsule_IsValid(capsule, name) == 0) return;  // it was consumed and renamed
  auto* managed = static_cast<Managed*>(PyCapsule_GetPointer(capsule, name));
  if (managed->deleter != nullptr) managed->deleter(managed);
}

template <class Managed>
void release_import(void* context) {
  auto* managed = static_cast<Managed*>(context);
  if (managed->deleter == nullptr) return;
  if (Py_IsInitialized() != 0) {
    const WithGil gil;  // the producer may be a Python library
    managed->deleter(managed);
  }
}

template <class Managed>
TensorPtr import(Managed* managed, PyObject* capsule, const char* used_name, bool writable) {
  const DLTensor& d = managed->tensor;
  LOHE_CHECK(d.device.type == 1, "from_dlpack: the data lies on a device of DLPack type ", d.device.type,
             ", only CPU (1) is supported");
  LOHE_CHECK(d.rank >= 0 && d.rank <= 64, "from_dlpack: rank ", d.rank);
  const Dtype dtype = dtype_of(d.dtype);
  const Dims sizes(d.sizes, d.sizes + d.rank);
  const Dims strides = d.strides == nullptr ? contiguous_strides(sizes) : Dims(d.strides, d.strides + d.rank);
  int64_t last = 0;
  bool empty = false;
  for (size_t i = 0; i < sizes.size(); ++i) {
    LOHE_CHECK(sizes[i] >= 0 && strides[i] >= 0, "from_dlpack: negative sizes and strides are not supported");
    empty |= sizes[i] == 0;
    last += (sizes[i] - 1) * strides[i];
  }
  char* data = static_cast<char*>(d.data) + d.byte_offset;
  if (PyCapsule_SetName(capsule, used_name) != 0) throw PythonError{};
  Intrusive<Storage> storage = Storage::borrow(data, empty ? 0 : (last + 1) * itemsize(dtype),
                                               release_import<Managed>, managed, writable);
  return TensorImpl::make(std::move(storage), dtype, sizes, strides, 0);
}

}  // namespace

PyObject* tensor_dlpack(PyObject* self, PyObject* args, PyObject* kwargs) {
  return guarded([&] {
    static const char* names[] = {"versioned", "copied", nullptr};
    int versioned = 0, copied = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|pp:_dlpack", const_cast<char**>(names), &versioned,
                                     &copied)) {
      throw PythonError{};
    }
    TensorPtr t = tensor_of(self);
    if (versioned == 0) {
      auto* managed = make_export<DLManaged>(std::move(t));
      return PyCapsule_New(managed, "dltensor",
                           [](PyObject* c) { delete_unused_capsule<DLManaged>(c, "dltensor"); });
    }
    const bool writable = t->storage().writable();
    auto* managed = make_export<DLManagedVersioned>(std::move(t));
    managed->major = 1;
    managed->minor = 0;
    managed->flags = (writable ? 0 : kReadOnly) | (copied != 0 ? kCopied : 0);
    return PyCapsule_New(managed, "dltensor_versioned", [](PyObject* c) {
      delete_unused_capsule<DLManagedVersioned>(c, "dltensor_versioned");
    });
  });
}

TensorPtr tensor_from_capsule(PyObject* capsule) {
  if (PyCapsule_IsValid(capsule, "dltensor_versioned") != 0) {
    auto* managed = static_cast<DLManagedVersioned*>(PyCapsule_GetPointer(capsule, "dltensor_versioned"));
    LOHE_CHECK(managed->major == 1, "from_dlpack: DLPack version ", managed->major,
               " is not supported, 1 is");
    return import(managed, capsule, "used_dltensor_versioned", (managed->flags & kReadOnly) == 0);
  }
  LOHE_CHECK(
      PyCapsule_IsValid(capsule, "dltensor") != 0,
      "from_dlpack received an invalid capsule. Note that DLTensor capsules can be consumed only once, so you might have "
      "already constructed a tensor from it once.");
  auto* managed = static_cast<DLManaged*>(PyCapsule_GetPointer(capsule, "dltensor"));
  return import(managed, capsule, "used_dltensor", true);
}

}  // namespace lohe::python
