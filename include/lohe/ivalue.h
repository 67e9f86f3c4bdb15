#pragma once

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "lohe/tensor.h"

namespace lohe {

/// A value of any of the kinds that files and Python know: None, a bool, a number, text, a tensor, a list or
/// tuple, or a dict. Lists and dicts are shared by copies, as in Python.
class LOHE_API IValue {
 public:
  using List = std::vector<IValue>;
  using Dict = std::vector<std::pair<IValue, IValue>>;  ///< in the order of insertion

  IValue() = default;
  IValue(std::nullopt_t) {}
  IValue(Tensor value) : value_(std::move(value)) {}
  IValue(bool value) : value_(value) {}
  template <class T>
    requires(std::is_integral_v<T> && !std::is_same_v<T, bool>)
  IValue(T value) : value_(static_cast<int64_t>(value)) {}
  IValue(double value) : value_(value) {}
  IValue(std::string value) : value_(std::move(value)) {}
  IValue(const char* value) : value_(std::string(value)) {}
  IValue(Dtype value) : value_(value) {}
  IValue(List items) : value_(Sequence{std::make_shared<List>(std::move(items)), false}) {}
  IValue(Dict items) : value_(std::make_shared<Dict>(std::move(items))) {}
  template <class T>
    requires std::constructible_from<IValue, T>
  IValue(const std::vector<T>& items) : IValue(List(items.begin(), items.end())) {}
  static IValue tuple(List items) {
    IValue made(std::move(items));
    std::get<Sequence>(made.value_).is_tuple = true;
    return made;
  }

  bool isNone() const { return is<std::monostate>(); }
  bool isTensor() const { return is<Tensor>(); }
  bool isBool() const { return is<bool>(); }
  bool isInt() const { return is<int64_t>(); }
  bool isDouble() const { return is<double>(); }
  bool isString() const { return is<std::string>(); }
  bool isDtype() const { return is<Dtype>(); }
  bool isList() const { return is<Sequence>() && !std::get<Sequence>(value_).is_tuple; }
  bool isTuple() const { return is<Sequence>() && std::get<Sequence>(value_).is_tuple; }
  bool isGenericDict() const { return is<std::shared_ptr<Dict>>(); }

  // @throws TypeError naming what it holds instead. toDouble takes an int too.
  Tensor toTensor() const;
  bool toBool() const;
  int64_t toInt() const;
  double toDouble() const;
  const std::string& toStringRef() const;
  Dtype toDtype() const;
  /// Of a list or a tuple.
  List& toListRef() const;
  Dict& toDictRef() const;
  std::vector<Tensor> toTensorVector() const;
  std::vector<int64_t> toIntVector() const;
  std::vector<double> toDoubleVector() const;
  /// The value of a key of a dict, or null. Keys are text or ints.
  const IValue* find(const IValue& key) const;
  /// What Python calls the type: "int", "dict", "Tensor".
  const char* type_name() const;

 private:
  struct Sequence {
    std::shared_ptr<List> items;
    bool is_tuple;
  };
  template <class T>
  bool is() const {
    return std::holds_alternative<T>(value_);
  }
  [[noreturn]] void refuse(const char* wanted) const;
  std::variant<std::monostate, Tensor, bool, int64_t, double, std::string, Dtype, Sequence,
               std::shared_ptr<Dict>>
      value_;
};

}  // namespace lohe
