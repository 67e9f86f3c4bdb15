#pragma once

#include <functional>

#include "lohe/functions.h"

/// Tensors from C++ values and from memory of the caller.
namespace lohe {
namespace detail {

/// A number, or a braced list of such: `{{1, 2}, {3, 4}}`. Lists of one level have one shape.
class LOHE_API NestedNumbers {
 public:
  template <class T>
    requires std::is_arithmetic_v<T>
  NestedNumbers(T v) : number_(v), dtype_(literal_dtype<T>()) {}
  NestedNumbers(std::complex<double> v) : number_(v), dtype_(to_complex(default_dtype())) {}
  NestedNumbers(const Scalar& v) : number_(v), dtype_(v.dtype()) {}
  NestedNumbers(std::initializer_list<NestedNumbers> list);
  template <class T>
    requires std::is_arithmetic_v<T>
  NestedNumbers(ArrayRef<T> list) : dtype_(literal_dtype<T>()) {
    sizes_.push_back(static_cast<int64_t>(list.size()));
    for (const T& v : list) numbers_.emplace_back(v);
  }
  template <class T>
    requires std::is_arithmetic_v<T>
  NestedNumbers(const std::vector<T>& list) : dtype_(literal_dtype<T>()) {
    sizes_.push_back(static_cast<int64_t>(list.size()));
    for (const T v : list) numbers_.emplace_back(v);
  }
  Tensor make(const TensorOptions& options) const;

 private:
  template <class T>
  static Dtype literal_dtype() {
    return std::is_same_v<T, bool> ? kBool : std::is_integral_v<T> ? kInt64 : default_dtype();
  }
  Scalar number_;
  std::vector<Scalar> numbers_;
  std::vector<int64_t> sizes_;
  Dtype dtype_;
};

}  // namespace detail

/// `tensor(3)`, `tensor({1.0, 2.0})`, `tensor({{1, 2}, {3, 4}}, kFloat)`. Floats of any width take the
/// default dtype, integers of any width int64. @throws ValueError for lists of unequal shape.
inline Tensor tensor(const detail::NestedNumbers& values, const TensorOptions& options = {}) {
  return values.make(options);
}
inline Tensor tensor(std::initializer_list<detail::NestedNumbers> values, const TensorOptions& options = {}) {
  return detail::NestedNumbers(values).make(options);
}

/// A tensor of `data`'s memory, which the caller keeps alive until `deleter` is called (or for good). No
/// bytes are copied.
LOHE_API Tensor from_blob(void* data, IntArrayRef sizes, const TensorOptions& options = {});
LOHE_API Tensor from_blob(void* data, IntArrayRef sizes, std::function<void(void*)> deleter,
                          const TensorOptions& options = {});
/// Strides in elements.
LOHE_API Tensor from_blob(void* data, IntArrayRef sizes, IntArrayRef strides,
                          const TensorOptions& options = {});
LOHE_API Tensor from_blob(void* data, IntArrayRef sizes, IntArrayRef strides,
                          std::function<void(void*)> deleter, const TensorOptions& options = {});

/// The state of the default generator as a tensor of bytes, and back: a random stream goes on where it was.
/// @throws RuntimeError for a tensor that is no such state.
LOHE_API Tensor get_rng_state();
LOHE_API void set_rng_state(const Tensor& state);

/// Threads that one op may use, the caller's included. @throws RuntimeError outside [1, 4096].
LOHE_API void set_num_threads(int threads);
LOHE_API int get_num_threads();

}  // namespace lohe
