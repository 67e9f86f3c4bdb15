#pragma once

#include <string_view>

#include "lohe/tensor.h"

/// Indices as Python writes them between brackets.
namespace lohe {
namespace indexing {

/// start:stop:step. A missing end reaches to the border; `step` must be positive.
struct Slice {
  std::optional<int64_t> start, stop;
  int64_t step = 1;
  Slice(std::optional<int64_t> start = std::nullopt, std::optional<int64_t> stop = std::nullopt,
        std::optional<int64_t> step = std::nullopt)
      : start(start), stop(stop), step(step.value_or(1)) {}
};
struct EllipsisType {};
inline constexpr EllipsisType Ellipsis{};
inline constexpr std::nullopt_t None = std::nullopt;

}  // namespace indexing

/// One index: an int selects, a Slice keeps the dim, None adds one, "..." stands for all that are not named,
/// a bool or a tensor (int64 or bool) gathers.
struct TensorIndex {
  enum class Kind : uint8_t { kNone, kEllipsis, kInteger, kBoolean, kSlice, kTensor };
  Kind kind;
  int64_t integer = 0;
  bool boolean = false;
  indexing::Slice slice;
  Tensor tensor;

  TensorIndex(std::nullopt_t) : kind(Kind::kNone) {}
  TensorIndex(indexing::EllipsisType) : kind(Kind::kEllipsis) {}
  /// @throws ValueError for a text other than "...".
  TensorIndex(const char* text) : kind(Kind::kEllipsis) {
    LOHE_CHECK_VALUE(std::string_view(text) == "...",
                     "Expected \"...\" to represent an ellipsis index, but got \"", text, "\"");
  }
  template <std::integral T>
    requires(!std::same_as<T, bool>)
  TensorIndex(T v) : kind(Kind::kInteger), integer(static_cast<int64_t>(v)) {}
  template <std::same_as<bool> T>
  TensorIndex(T v) : kind(Kind::kBoolean), boolean(v) {}
  TensorIndex(indexing::Slice v) : kind(Kind::kSlice), slice(v) {}
  TensorIndex(Tensor v) : kind(Kind::kTensor), tensor(std::move(v)) {}
};

}  // namespace lohe
