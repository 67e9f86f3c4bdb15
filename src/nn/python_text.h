#pragma once

#include <algorithm>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>

#include "base/log.h"
#include "lohe/functions.h"
#include "lohe/nn/types.h"

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
inline std::string python_text(const IntList& v) { return python_text(IntArrayRef(v)); }
inline std::string python_text(const OptionalIntList& v) {
  const auto one = [](const std::optional<int64_t>& n) {
    return n.has_value() ? std::to_string(*n) : "None";
  };
  if (v.size() == 1) return one(v[0]);
  std::string text = "(";
  for (size_t i = 0; i < v.size(); ++i) text += (i == 0 ? "" : ", ") + one(v[i]);
  return text + ")";
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

inline void warn(std::string_view text) { log(LogLevel::kWarning, text); }

/// Rounded down. @throws ZeroDivisionError
inline int64_t floor_div(int64_t a, int64_t b) {
  LOHE_CHECK_KIND(kZeroDivision, b != 0, "integer division or modulo by zero");
  return a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
}
inline int64_t floor_mod(int64_t a, int64_t b) { return a - floor_div(a, b) * b; }

inline std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

}  // namespace lohe::nn::detail
