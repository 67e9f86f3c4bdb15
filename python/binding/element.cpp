#include <cmath>
#include <cstring>

#include "binding/export.h"
#include "binding/parse.h"
#include "binding/tensor.h"
#include "tensor/half.h"

/// Single elements between memory and Python: item(), tolist(), and what tensor() writes.
namespace lohe::python {
namespace {

template <class T>
T read(const char* address) {
  T value;
  std::memcpy(&value, address, sizeof value);
  return value;
}
template <class T>
void write(char* address, T value) {
  std::memcpy(address, &value, sizeof value);
}

template <class T>
void write_integer(char* address, const Scalar& s, const char* type) {
  if (s.is_floating() || s.is_complex()) {
    const double d = s.to_double();
    LOHE_CHECK(s.imag() == 0 && (std::isnan(d) || (d > -9.3e18 && d < 9.3e18)),
               "value cannot be converted to type ", type, " without overflow");
    const int64_t truncated = s.to_int();
    LOHE_CHECK(std::isnan(d) == false && static_cast<int64_t>(static_cast<T>(truncated)) == truncated,
               "value cannot be converted to type ", type, " without overflow");
    write(address, static_cast<T>(truncated));
    return;
  }
  const int64_t value = s.to_int();
  // Unsigned types also take negative values, modulo their range, down to -max.
  const bool wraps = std::is_unsigned_v<T> && value < 0 && -value <= static_cast<int64_t>(static_cast<T>(-1));
  LOHE_CHECK(static_cast<int64_t>(static_cast<T>(value)) == value || wraps,
             "value cannot be converted to type ", type, " without overflow");
  write(address, static_cast<T>(value));
}

double real_value(const Scalar& s, const char* type) {
  LOHE_CHECK(s.imag() == 0, "value cannot be converted to type ", type, " without overflow");
  return s.to_double();
}

Ref list_of(const TensorImpl& t, const char* address, int64_t dim) {
  if (dim == t.dim()) return checked(wrap_scalar(load_element(address, t.dtype())));
  const int64_t n = t.sizes()[static_cast<size_t>(dim)];
  const int64_t step = t.strides()[static_cast<size_t>(dim)] * t.itemsize();
  Ref list = checked(PyList_New(n));
  for (int64_t i = 0; i < n; ++i)
    PyList_SET_ITEM(list.get(), i, list_of(t, address + i * step, dim + 1).release());
  return list;
}

}  // namespace

Scalar load_element(const char* p, Dtype dtype) {
  switch (dtype) {
    case kUInt8:
      return Scalar(static_cast<int64_t>(read<uint8_t>(p)));
    case kInt8:
      return Scalar(static_cast<int64_t>(read<int8_t>(p)));
    case kInt16:
      return Scalar(static_cast<int64_t>(read<int16_t>(p)));
    case kInt32:
      return Scalar(static_cast<int64_t>(read<int32_t>(p)));
    case kInt64:
      return Scalar(read<int64_t>(p));
    case kFloat16:
      return Scalar(static_cast<float>(read<Float16>(p)));
    case kBFloat16:
      return Scalar(static_cast<float>(read<BFloat16>(p)));
    case kFloat32:
      return Scalar(read<float>(p));
    case kFloat64:
      return Scalar(read<double>(p));
    case kComplex64:
      return Scalar(std::complex<double>(read<float>(p), read<float>(p + 4)));
    case kComplex128:
      return Scalar(std::complex<double>(read<double>(p), read<double>(p + 8)));
    case kBool:
      return Scalar(read<uint8_t>(p) != 0);
    case Dtype::kUndefined:
      break;
  }
  raise(ErrorKind::kInternal, "no dtype");
}

void store_element(char* p, Dtype dtype, const Scalar& s) {
  switch (dtype) {
    case kUInt8:
      write_integer<uint8_t>(p, s, "uint8_t");
      return;
    case kInt8:
      write_integer<int8_t>(p, s, "int8_t");
      return;
    case kInt16:
      write_integer<int16_t>(p, s, "int16_t");
      return;
    case kInt32:
      write_integer<int32_t>(p, s, "int");
      return;
    case kInt64:
      write_integer<int64_t>(p, s, "int64_t");
      return;
    case kFloat16:
      write(p, Float16(static_cast<float>(real_value(s, "c10::Half"))));
      return;
    case kBFloat16:
      write(p, BFloat16(static_cast<float>(real_value(s, "c10::BFloat16"))));
      return;
    case kFloat32:
      write(p, static_cast<float>(real_value(s, "float")));
      return;
    case kFloat64:
      write(p, real_value(s, "double"));
      return;
    case kComplex64:
      write(p, static_cast<float>(s.to_double()));
      write(p + 4, static_cast<float>(s.imag()));
      return;
    case kComplex128:
      write(p, s.to_double());
      write(p + 8, s.imag());
      return;
    case kBool:
      write(p, static_cast<uint8_t>(s.to_bool()));
      return;
    case Dtype::kUndefined:
      break;
  }
  raise(ErrorKind::kInternal, "no dtype");
}

Scalar item_of(const TensorPtr& tensor) {
  if (tensor->extension) [[unlikely]]
    check_readable(*tensor, ".item()");
  LOHE_CHECK(tensor->numel() == 1, "a Tensor with ", tensor->numel(),
             " elements cannot be converted to Scalar");
  if (!tensor->conj() && !tensor->neg()) [[likely]]
    return load_element(tensor->data(), tensor->dtype());
  return load_element(materialized(tensor)->data(), tensor->dtype());
}

PyObject* tensor_item(PyObject* self, PyObject*) {
  return guarded([&] { return wrap_scalar(item_of(tensor_of(self))); });
}

PyObject* tensor_tolist(PyObject* self, PyObject*) {
  return guarded([&] {
    check_readable(*impl_of(self), ".tolist()");
    const TensorPtr t = materialized(tensor_of(self));
    return list_of(*t, t->data(), 0).release();
  });
}

}  // namespace lohe::python
