#pragma once

#include <algorithm>
#include <initializer_list>
#include <optional>
#include <tuple>
#include <vector>

#include "lohe/nn/container.h"
#include "lohe/nn/types.h"
#include "nn/python_text.h"

/// Python's lists, and helpers of python/lohe/nn that look at types, for what is translated from Python.
namespace lohe::nn::detail {

/// x[i]; a negative i counts from the end.
template <class T>
T at(const std::vector<T>& list, int64_t i) {
  return list.at(static_cast<size_t>(i < 0 ? i + static_cast<int64_t>(list.size()) : i));
}
/// x[begin:] and x[:end]
template <class List>
List from(const List& list, int64_t begin) {
  const auto size = static_cast<int64_t>(list.size());
  const int64_t first = std::clamp<int64_t>(begin < 0 ? begin + size : begin, 0, size);
  return List(std::vector<typename List::value_type>(list.begin() + first, list.end()));
}
template <class List>
List until(const List& list, int64_t end) {
  const auto size = static_cast<int64_t>(list.size());
  const int64_t last = std::clamp<int64_t>(end < 0 ? end + size : end, 0, size);
  return List(std::vector<typename List::value_type>(list.begin(), list.begin() + last));
}
inline IntList from(IntArrayRef list, int64_t begin) { return from(IntList(list), begin); }
inline IntList until(IntArrayRef list, int64_t end) { return until(IntList(list), end); }
inline int64_t at(IntArrayRef list, int64_t i) { return at<int64_t>(list.vec(), i); }

template <class T>
std::vector<T> reversed(std::vector<T> list) {
  std::reverse(list.begin(), list.end());
  return list;
}
inline IntList reversed(IntArrayRef list) { return reversed(list.vec()); }

inline IntList joined(std::initializer_list<IntList> lists) {
  IntList result;
  for (const IntList& l : lists) result.insert(result.end(), l.begin(), l.end());
  return result;
}
inline std::vector<Tensor> joined_tensors(std::initializer_list<std::vector<Tensor>> lists) {
  std::vector<Tensor> result;
  for (const auto& l : lists) result.insert(result.end(), l.begin(), l.end());
  return result;
}

/// The first N tensors side by side. @throws ValueError unless there are N.
template <size_t N>
auto as_tuple(const std::vector<Tensor>& list) {
  LOHE_CHECK_VALUE(list.size() == N, "expected ", N, " tensors, but got ", list.size());
  if constexpr (N == 2) {
    return std::tuple<Tensor, Tensor>(list[0], list[1]);
  } else {
    return std::tuple<Tensor, Tensor, Tensor>(list[0], list[1], list[2]);
  }
}

/// None is the empty list.
inline IntList or_empty(const std::optional<IntList>& list) { return list.value_or(IntList()); }

/// Both in their common shape.
inline std::tuple<Tensor, Tensor> broadcast(const Tensor& a, const Tensor& b) {
  return as_tuple<2>(broadcast_tensors({a, b}));
}

/// The shape in which both can be read. @throws RuntimeError where there is none.
inline IntList broadcast_shapes(IntArrayRef a, IntArrayRef b) {
  IntList result(a.size() < b.size() ? b : a);
  const IntArrayRef shorter = a.size() < b.size() ? a : b;
  const size_t lead = result.size() - shorter.size();
  for (size_t i = 0; i < shorter.size(); ++i) {
    int64_t& size = result[lead + i];
    LOHE_CHECK(size == shorter[i] || size == 1 || shorter[i] == 1,
               "Shape mismatch: objects cannot be broadcast to a single shape, got ", a, " and ", b);
    if (size == 1) size = shorter[i];
  }
  return result;
}

/// A padding as F.pad takes it: the last dim first, each size before and after.
inline IntList reversed_twice(IntArrayRef list) {
  IntList result;
  for (size_t i = list.size(); i-- > 0;) result.insert(result.end(), 2, list[i]);
  return result;
}

/// One int stands for `n`.
inline IntList repeated(IntArrayRef list, int64_t n) {
  return list.size() == 1 ? IntList(std::vector<int64_t>(static_cast<size_t>(n), list[0])) : IntList(list);
}

/// The output size of an adaptive pooling over n dims; what is left open is the input's.
inline IntList adaptive_sizes(const OptionalIntList& output, const Tensor& input, int64_t n) {
  const OptionalIntList wanted =
      output.size() == 1 ? OptionalIntList(OptionalIntList::Base(static_cast<size_t>(n), output[0])) : output;
  const auto count = static_cast<int64_t>(wanted.size());
  LOHE_CHECK_VALUE(input.dim() > count, "Input dimension should be at least ", count + 1, ", but got ",
                   input.dim());
  IntList sizes;
  for (int64_t i = 0; i < count; ++i)
    sizes.push_back(wanted[static_cast<size_t>(i)].value_or(input.size(input.dim() - count + i)));
  return sizes;
}

inline int64_t product(IntArrayRef list) {
  int64_t result = 1;
  for (const int64_t v : list) result *= v;
  return result;
}
inline int64_t sum(const std::pair<int64_t, int64_t>& v) { return v.first + v.second; }

/// Copies of a layer, and one of them as the holder that it came from.
template <class Layer>
ModuleList clones(const Layer& layer, int64_t n) {
  ModuleList list;
  for (int64_t i = 0; i < n; ++i) list->push_back(layer->clone());
  return list;
}
template <class Layer>
Layer item(const ModuleList& list, int64_t i) {
  return Layer(std::static_pointer_cast<typename Layer::ContainedType>(list->ptr(static_cast<size_t>(i))));
}

}  // namespace lohe::nn::detail
