#pragma once

#include <cstddef>
#include <functional>
#include <initializer_list>
#include <iosfwd>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "lohe/array_ref.h"
#include "lohe/error.h"
#include "lohe/options.h"
#include "lohe/scalar.h"

namespace lohe {

class Generator;
class Tensor;
class TensorImpl;
struct TensorIndex;
using TensorList = ArrayRef<Tensor>;

namespace detail {
LOHE_API void retain(TensorImpl* impl) noexcept;
LOHE_API void release(TensorImpl* impl) noexcept;
}  // namespace detail

/// The dtype that a C++ element type stores: float is kFloat32, int64_t kInt64, std::complex<float>
/// kComplex64 ...
template <class T>
constexpr Dtype dtype_of();

/// A handle of a strided array: copying it shares the array, as in Python. A default-constructed one is
/// undefined; asking an undefined tensor anything but defined() raises RuntimeError. Methods that are ops are
/// declared by the op table, at the end.
class LOHE_API Tensor {
 public:
  Tensor() : impl_(nullptr) {}
  Tensor(std::nullopt_t) : impl_(nullptr) {}
  Tensor(const Tensor& other) noexcept : impl_(other.impl_) {
    if (impl_ != nullptr) detail::retain(impl_);
  }
  Tensor(Tensor&& other) noexcept : impl_(std::exchange(other.impl_, nullptr)) {}
  Tensor& operator=(const Tensor& other) noexcept {
    Tensor(other).swap(*this);
    return *this;
  }
  Tensor& operator=(Tensor&& other) noexcept {
    Tensor(std::move(other)).swap(*this);
    return *this;
  }
  ~Tensor() {
    if (impl_ != nullptr) detail::release(impl_);
  }
  void swap(Tensor& other) noexcept { std::swap(impl_, other.impl_); }

  bool defined() const { return impl_ != nullptr; }
  void reset() { *this = Tensor(); }
  bool is_same(const Tensor& other) const { return impl_ == other.impl_; }
  /// The shared array; null when undefined.
  TensorImpl* impl() const { return impl_; }
  /// Takes over one reference that the caller owns.
  static Tensor adopt(TensorImpl* impl) {
    Tensor t;
    t.impl_ = impl;
    return t;
  }

  int64_t dim() const;
  int64_t ndimension() const { return dim(); }
  IntArrayRef sizes() const;
  /// In elements.
  IntArrayRef strides() const;
  /// A negative dim counts from the end. @throws IndexError.
  int64_t size(int64_t dim) const;
  int64_t stride(int64_t dim) const;
  int64_t numel() const;
  int64_t storage_offset() const;
  Dtype dtype() const;
  Dtype scalar_type() const { return dtype(); }
  Device device() const;
  Layout layout() const { return Layout::kStrided; }
  TensorOptions options() const;
  /// Bytes of one element, and of all of them.
  int64_t element_size() const { return lohe::itemsize(dtype()); }
  size_t itemsize() const { return static_cast<size_t>(element_size()); }
  size_t nbytes() const { return static_cast<size_t>(numel()) * itemsize(); }
  bool is_contiguous(MemoryFormat format = MemoryFormat::kContiguous) const;
  bool is_floating_point() const { return lohe::is_floating(dtype()); }
  bool is_complex() const { return lohe::is_complex(dtype()); }
  bool is_signed() const { return lohe::info(dtype()).is_signed; }
  bool is_cpu() const { return device().type == DeviceType::kCpu; }
  bool is_cuda() const { return false; }
  bool is_conj() const;
  bool is_neg() const;
  bool is_view() const;
  bool is_inference() const;
  int64_t _version() const;

  /// Address of element 0. @throws RuntimeError if T is not the dtype's type.
  template <class T>
  T* data_ptr() const {
    return static_cast<T*>(checked_data(dtype_of<T>()));
  }
  template <class T>
  const T* const_data_ptr() const {
    return data_ptr<T>();
  }
  template <class T>
  T* mutable_data_ptr() const {
    return data_ptr<T>();
  }
  void* data_ptr() const;
  /// The only element, converted to T. @throws RuntimeError unless numel() is 1.
  template <class T>
  T item() const;
  Scalar item() const;

  bool requires_grad() const;
  /// @throws RuntimeError for a non-leaf and for integer dtypes.
  Tensor& set_requires_grad(bool value);
  const Tensor& requires_grad_(bool value = true) const;
  /// Takes this tensor out of the graph that made it. @throws RuntimeError for a view.
  const Tensor& detach_() const;
  bool is_leaf() const;
  bool retains_grad() const;
  void retain_grad() const;
  /// What backward() has accumulated; undefined before.
  Tensor grad() const;
  Tensor& mutable_grad();
  /// The tape node that made this tensor, e.g. "MulBackward0"; empty for a leaf.
  std::string grad_fn_name() const;
  /// Accumulates d self / d leaf into every leaf's grad. @throws RuntimeError without `gradient` unless
  /// numel() is 1.
  void backward(const Tensor& gradient = {}, std::optional<bool> retain_graph = std::nullopt,
                bool create_graph = false, std::optional<std::vector<Tensor>> inputs = std::nullopt) const;
  /// Called with the gradient when it is complete; a defined result replaces it. The number removes it again.
  unsigned register_hook(std::function<Tensor(Tensor)> hook) const;
  /// A hook that only looks.
  template <class Hook>
    requires std::is_void_v<std::invoke_result_t<Hook&, Tensor>>
  unsigned register_hook(Hook hook) const {
    return register_hook(std::function<Tensor(Tensor)>([hook = std::move(hook)](Tensor grad) mutable {
      hook(std::move(grad));
      return Tensor();
    }));
  }
  void remove_hook(unsigned number) const;
  /// The same memory without history and with its own version counter.
  Tensor data() const;
  Tensor tensor_data() const { return data(); }
  Tensor variable_data() const { return data(); }
  /// Makes this tensor view what `other` views.
  void set_data(const Tensor& other) const;

  Tensor to(Dtype dtype, bool non_blocking = false, bool copy = false) const;
  Tensor to(const TensorOptions& options, bool non_blocking = false, bool copy = false) const;
  Tensor to(Device device, Dtype dtype, bool non_blocking = false, bool copy = false) const;
  Tensor to(const Tensor& other, bool non_blocking = false, bool copy = false) const;
  Tensor cpu() const { return *this; }
  Tensor toType(Dtype dtype) const { return to(dtype); }

  /// `t.index({Slice(1), None, "...", mask})`, as t[1:, None, ..., mask] in Python.
  Tensor index(std::initializer_list<TensorIndex> indices) const;
  Tensor index(ArrayRef<TensorIndex> indices) const;
  Tensor& index_put_(std::initializer_list<TensorIndex> indices, const Tensor& value);
  Tensor& index_put_(std::initializer_list<TensorIndex> indices, const Scalar& value);
  Tensor& index_put_(ArrayRef<TensorIndex> indices, const Tensor& value);
  Tensor operator[](int64_t index) const;
  Tensor operator[](const Tensor& index) const;

  /// self[start:end:step] along `dim`.
  Tensor slice(int64_t dim = 0, std::optional<int64_t> start = std::nullopt,
               std::optional<int64_t> end = std::nullopt, int64_t step = 1) const;

  Tensor operator-() const;
  Tensor operator~() const;
  Tensor& operator+=(const Tensor& other);
  Tensor& operator+=(const Scalar& other);
  Tensor& operator-=(const Tensor& other);
  Tensor& operator-=(const Scalar& other);
  Tensor& operator*=(const Tensor& other);
  Tensor& operator*=(const Scalar& other);
  Tensor& operator/=(const Tensor& other);
  Tensor& operator/=(const Scalar& other);

  std::string toString() const;
  void print() const;

#include "lohe/tensor_methods.h"

 private:
  void* checked_data(Dtype expected) const;
  TensorImpl* impl_;
};

LOHE_API std::ostream& operator<<(std::ostream& out, const Tensor& tensor);

template <class T>
constexpr Dtype dtype_of() {
  using U = std::remove_cv_t<T>;
  if constexpr (std::is_same_v<U, bool>)
    return kBool;
  else if constexpr (std::is_same_v<U, uint8_t>)
    return kUInt8;
  else if constexpr (std::is_same_v<U, int8_t> || std::is_same_v<U, char>)
    return kInt8;
  else if constexpr (std::is_integral_v<U> && std::is_signed_v<U> && sizeof(U) == 2)
    return kInt16;
  else if constexpr (std::is_integral_v<U> && std::is_signed_v<U> && sizeof(U) == 4)
    return kInt32;
  else if constexpr (std::is_integral_v<U> && std::is_signed_v<U> && sizeof(U) == 8)
    return kInt64;
  else if constexpr (std::is_same_v<U, float>)
    return kFloat32;
  else if constexpr (std::is_same_v<U, double>)
    return kFloat64;
  else if constexpr (std::is_same_v<U, std::complex<float>>)
    return kComplex64;
  else if constexpr (std::is_same_v<U, std::complex<double>>)
    return kComplex128;
  else
    static_assert(!sizeof(U), "no dtype stores this type");
}

template <class T>
T Tensor::item() const {
  const Scalar value = item();
  if constexpr (std::is_same_v<T, bool>)
    return value.to_bool();
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(value.to_int());
  else if constexpr (std::is_floating_point_v<T>)
    return static_cast<T>(value.to_double());
  else
    return static_cast<T>(value.to_complex());
}

}  // namespace lohe
