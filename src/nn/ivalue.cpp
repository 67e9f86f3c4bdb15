#include "lohe/ivalue.h"

namespace lohe {

const char* IValue::type_name() const {
  static constexpr const char* names[] = {"None", "Tensor", "bool", "int", "float",
                                          "str",  "dtype",  "list", "dict"};
  return isTuple() ? "tuple" : names[value_.index()];
}

void IValue::refuse(const char* wanted) const {
  raise(ErrorKind::kType, "IValue: expected ", wanted, ", but it holds a value of type ", type_name());
}

Tensor IValue::toTensor() const {
  if (!isTensor()) refuse("a Tensor");
  return std::get<Tensor>(value_);
}
bool IValue::toBool() const {
  if (!isBool()) refuse("a bool");
  return std::get<bool>(value_);
}
int64_t IValue::toInt() const {
  if (!isInt()) refuse("an int");
  return std::get<int64_t>(value_);
}
double IValue::toDouble() const {
  if (isInt()) return static_cast<double>(toInt());
  if (!isDouble()) refuse("a float");
  return std::get<double>(value_);
}
const std::string& IValue::toStringRef() const {
  if (!isString()) refuse("a str");
  return std::get<std::string>(value_);
}
Dtype IValue::toDtype() const {
  if (!isDtype()) refuse("a dtype");
  return std::get<Dtype>(value_);
}
IValue::List& IValue::toListRef() const {
  if (!is<Sequence>()) refuse("a list");
  return *std::get<Sequence>(value_).items;
}
IValue::Dict& IValue::toDictRef() const {
  if (!isGenericDict()) refuse("a dict");
  return *std::get<std::shared_ptr<Dict>>(value_);
}

std::vector<Tensor> IValue::toTensorVector() const {
  std::vector<Tensor> result;
  for (const IValue& v : toListRef()) result.push_back(v.toTensor());
  return result;
}
std::vector<int64_t> IValue::toIntVector() const {
  std::vector<int64_t> result;
  for (const IValue& v : toListRef()) result.push_back(v.toInt());
  return result;
}
std::vector<double> IValue::toDoubleVector() const {
  std::vector<double> result;
  for (const IValue& v : toListRef()) result.push_back(v.toDouble());
  return result;
}

const IValue* IValue::find(const IValue& key) const {
  if (!isGenericDict()) return nullptr;
  for (const auto& [known, value] : toDictRef()) {
    if (key.isString() ? known.isString() && known.toStringRef() == key.toStringRef()
                       : known.isInt() && known.toInt() == key.toInt())
      return &value;
  }
  return nullptr;
}

}  // namespace lohe
