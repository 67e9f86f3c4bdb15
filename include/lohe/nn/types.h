#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lohe/tensor.h"

/// An option: `options.name(value)` sets it and gives the options back, `options.name()` reads it.
#define LOHE_ARG(T, name)                            \
 public:                                             \
  auto name(T value) -> decltype(*this) {            \
    name##_ = std::move(value);                      \
    return *this;                                    \
  }                                                  \
  const T& name() const noexcept { return name##_; } \
                                                     \
 private:                                            \
  T name##_

/// Types of layers' options.
namespace lohe {

// Values of options that PyTorch's frontend names so; each is Python's word for it.
inline constexpr const char *kNone = "none", *kMean = "mean", *kSum = "sum", *kBatchMean = "batchmean",
                            *kReLU = "relu", *kGELU = "gelu", *kTanh = "tanh", *kSigmoid = "sigmoid",
                            *kLeakyReLU = "leaky_relu", *kLinear = "linear", *kConv1D = "conv1d",
                            *kConv2D = "conv2d", *kConv3D = "conv3d", *kConvTranspose1D = "conv_transpose1d",
                            *kConvTranspose2D = "conv_transpose2d", *kConvTranspose3D = "conv_transpose3d",
                            *kFanIn = "fan_in", *kFanOut = "fan_out", *kZeros = "zeros",
                            *kReflect = "reflect", *kReplicate = "replicate", *kCircular = "circular",
                            *kConstant = "constant", *kMax = "max", *kBorder = "border",
                            *kReflection = "reflection", *kNearest = "nearest", *kBilinear = "bilinear",
                            *kBicubic = "bicubic", *kTrilinear = "trilinear", *kArea = "area";

/// How a loss of elements becomes a result, as the ops take it.
namespace Reduction {
enum Reduction : int64_t { None = 0, Mean = 1, Sum = 2 };
}

namespace nn {

/// Sizes of an output, of which some may be left as the input has them: `{5, std::nullopt}`.
class OptionalIntList : public std::vector<std::optional<int64_t>> {
 public:
  using Base = std::vector<std::optional<int64_t>>;
  OptionalIntList() = default;
  OptionalIntList(int64_t one) : Base(1, one) {}
  OptionalIntList(int one) : OptionalIntList(int64_t{one}) {}
  OptionalIntList(std::nullopt_t) : Base(1, std::nullopt) {}
  OptionalIntList(std::initializer_list<std::optional<int64_t>> list) : Base(list) {}
  OptionalIntList(const Base& list) : Base(list) {}
  OptionalIntList(IntArrayRef list) : Base(list.begin(), list.end()) {}
};

/// Ints that need not be given: `.stride(2)`, `.stride({2, 1})`.
class OptionalInts : public std::optional<IntList> {
 public:
  using std::optional<IntList>::optional;
  OptionalInts(int64_t one) : std::optional<IntList>(IntList(one)) {}
  OptionalInts(int one) : OptionalInts(int64_t{one}) {}
  OptionalInts(std::initializer_list<int64_t> list) : std::optional<IntList>(IntList(list)) {}
  OptionalInts(IntArrayRef list) : std::optional<IntList>(IntList(list)) {}
};

/// A function between two layers: one by its name ("relu" or "gelu"), or any other.
class LOHE_API Activation {
 public:
  /// @throws RuntimeError for another name.
  Activation(std::string_view name);
  Activation(const char* name) : Activation(std::string_view(name)) {}
  Activation(const std::string& name) : Activation(std::string_view(name)) {}
  template <class F>
    requires std::is_invocable_r_v<Tensor, F&, const Tensor&>
  Activation(F function) : function_(std::move(function)) {}
  Tensor operator()(const Tensor& x) const { return function_(x); }

 private:
  std::function<Tensor(const Tensor&)> function_;
};

}  // namespace nn
}  // namespace lohe
