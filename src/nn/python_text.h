#pragma once

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include "base/log.h"
#include "lohe/functions.h"

/// Python's way to write values and to divide ints, for what is translated from Python.
namespace lohe::nn::detail {

inline std::string python_text(bool v) { return v ? "True" : "False"; }
inline std::string python_text(int64_t v) { return std::to_string(v); }
inline std::string python_text(std::string_view v) { return std::string(v); }
inline std::string python_text(double v) {
  char buffer[32];
  std::string text(buffer, std::to_chars(buffer, buffer + sizeof buffer, v).ptr);
  return text.find_first_of(".eni") == std::string::npos ? text + ".0" : text;
}
inline std::string python_text(IntArrayRef v) {
  std::string text = "(";
  for (size_t i = 0; i < v.size(); ++i) text += (i == 0 ? "" : ", ") + std::to_string(v[i]);
  return text + (v.size() == 1 ? ",)" : ")");
}
template <class T>
std::string python_text(const std::optional<T>& v) {
  return v.has_value() ? python_text(*v) : "None";
}

inline std::string python_repr(std::string_view v) { return "'" + std::string(v) + "'"; }

/// The reduction as the ops take it.
inline std::optional<int64_t> reduction_number(std::string_view name) {
  if (name == "none") return 0;
  if (name == "mean") return 1;
  if (name == "sum") return 2;
  return std::nullopt;
}

/// A tensor that is written though its handle is const.
inline Tensor& written(const Tensor& t) { return const_cast<Tensor&>(t); }

/// Python's x[i] and x[from:].
inline int64_t at(const IntList& list, int64_t i) {
  return list.at(static_cast<size_t>(i < 0 ? i + static_cast<int64_t>(list.size()) : i));
}
inline IntList from(const IntList& list, int64_t begin) {
  const auto size = static_cast<int64_t>(list.size());
  const int64_t first = std::clamp<int64_t>(begin < 0 ? begin + size : begin, 0, size);
  return IntList(std::vector<int64_t>(list.begin() + first, list.end()));
}
inline IntList joined(std::initializer_list<IntList> lists) {
  IntList result;
  for (const IntList& l : lists) result.insert(result.end(), l.begin(), l.end());
  return result;
}

/// None is the empty list.
inline IntList or_empty(const std::optional<IntList>& list) { return list.value_or(IntList()); }

/// Both in their common shape.
inline std::pair<Tensor, Tensor> broadcast(const Tensor& a, const Tensor& b) {
  std::vector<Tensor> both = broadcast_tensors({a, b});
  return {std::move(both[0]), std::move(both[1])};
}

/// A padding as F.pad takes it: the last dim first, each size before and after.
inline IntList reversed_twice(const IntList& list) {
  IntList result;
  for (size_t i = list.size(); i-- > 0;) result.insert(result.end(), 2, list[i]);
  return result;
}

/// One int stands for `n`.
inline IntList repeated(IntArrayRef list, int64_t n) {
  return list.size() == 1 ? IntList(std::vector<int64_t>(static_cast<size_t>(n), list[0])) : IntList(list);
}
inline int64_t product(IntArrayRef list, size_t from) {
  int64_t result = 1;
  for (size_t i = from; i < list.size(); ++i) result *= list[i];
  return result;
}
inline int64_t sum(const std::pair<int64_t, int64_t>& v) { return v.first + v.second; }
inline void warn(std::string_view text) { log(LogLevel::kWarning, text); }

/// Rounded down.
inline int64_t floor_div(int64_t a, int64_t b) { return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0); }
inline int64_t floor_mod(int64_t a, int64_t b) { return a - floor_div(a, b) * b; }

inline std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

}  // namespace lohe::nn::detail
