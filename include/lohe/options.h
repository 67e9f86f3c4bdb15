#pragma once

#include <cstdint>
#include <optional>

#include "lohe/device.h"
#include "lohe/dtype.h"

namespace lohe {

using ScalarType = Dtype;

enum class Layout : uint8_t { kStrided = 0 };
inline constexpr Layout kStrided = Layout::kStrided;

/// The order of a tensor's elements in memory. The numbers are those of PyTorch's files.
enum class MemoryFormat : int8_t { kContiguous = 0, kPreserve = 1, kChannelsLast = 2, kChannelsLast3d = 3 };

/// How a new tensor is made: `rand({2, 3}, kFloat64)`, `zeros({2}, dtype(kFloat64).requires_grad(true))`.
/// What is not given takes the default: the default dtype, the CPU, strided, no gradient.
class TensorOptions {
 public:
  TensorOptions() = default;
  TensorOptions(Dtype dtype) : dtype_(dtype) {}
  TensorOptions(Device device) : device_(device) {}
  TensorOptions(DeviceType device) : device_(Device(device)) {}
  TensorOptions(Layout layout) : layout_(layout) {}
  TensorOptions(MemoryFormat format) : memory_format_(format) {}

  [[nodiscard]] TensorOptions dtype(std::optional<Dtype> v) const { return with(&TensorOptions::dtype_, v); }
  [[nodiscard]] TensorOptions device(std::optional<Device> v) const {
    return with(&TensorOptions::device_, v);
  }
  [[nodiscard]] TensorOptions layout(std::optional<Layout> v) const {
    return with(&TensorOptions::layout_, v);
  }
  [[nodiscard]] TensorOptions requires_grad(std::optional<bool> v) const {
    return with(&TensorOptions::requires_grad_, v);
  }
  [[nodiscard]] TensorOptions memory_format(std::optional<MemoryFormat> v) const {
    return with(&TensorOptions::memory_format_, v);
  }

  Dtype dtype() const { return dtype_.value_or(default_dtype()); }
  Device device() const { return device_.value_or(kCPU); }
  Layout layout() const { return layout_.value_or(Layout::kStrided); }
  bool requires_grad() const { return requires_grad_.value_or(false); }
  std::optional<Dtype> dtype_opt() const { return dtype_; }
  std::optional<Device> device_opt() const { return device_; }
  std::optional<Layout> layout_opt() const { return layout_; }
  std::optional<bool> requires_grad_opt() const { return requires_grad_; }
  std::optional<MemoryFormat> memory_format_opt() const { return memory_format_; }

 private:
  template <class T>
  TensorOptions with(std::optional<T> TensorOptions::* member, std::optional<T> value) const {
    TensorOptions copy = *this;
    copy.*member = value;
    return copy;
  }
  std::optional<Dtype> dtype_;
  std::optional<Device> device_;
  std::optional<Layout> layout_;
  std::optional<bool> requires_grad_;
  std::optional<MemoryFormat> memory_format_;
};

inline TensorOptions dtype(Dtype v) { return TensorOptions().dtype(v); }
inline TensorOptions device(Device v) { return TensorOptions().device(v); }
inline TensorOptions layout(Layout v) { return TensorOptions().layout(v); }
inline TensorOptions requires_grad(bool v = true) { return TensorOptions().requires_grad(v); }

// Short names of dtypes.
inline constexpr Dtype kByte = Dtype::kUInt8, kChar = Dtype::kInt8, kShort = Dtype::kInt16,
                       kInt = Dtype::kInt32, kLong = Dtype::kInt64, kHalf = Dtype::kFloat16,
                       kFloat = Dtype::kFloat32, kDouble = Dtype::kFloat64, kComplexFloat = Dtype::kComplex64,
                       kComplexDouble = Dtype::kComplex128;

}  // namespace lohe
