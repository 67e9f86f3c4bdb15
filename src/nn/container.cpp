#include "lohe/nn/container.h"

#include <ostream>

#include "lohe/nn/types.h"

namespace lohe::nn {

Tensor SequentialImpl::forward(Tensor input) {
  LOHE_CHECK(!is_empty(), "Cannot call forward() on an empty Sequential");
  for (const AnyModule& step : steps_) input = step.forward(input);
  return input;
}

void SequentialImpl::pretty_print(std::ostream& stream) const {
  stream << "Sequential" << (is_empty() ? "()" : "");
}

std::shared_ptr<Module> SequentialImpl::clone() const {
  auto copy = std::make_shared<SequentialImpl>();
  size_t i = 0;
  for (const auto& [name, child] : named_children()) copy->push_back(name, steps_[i++].clone());
  copy->training_ = training_;
  return copy;
}

void ModuleListImpl::pretty_print(std::ostream& stream) const {
  stream << "ModuleList" << (is_empty() ? "()" : "");
}

std::shared_ptr<Module> ModuleListImpl::clone() const {
  auto copy = std::make_shared<ModuleListImpl>();
  for (const auto& item : items_) copy->push_back(item->clone());
  copy->training_ = training_;
  return copy;
}

void ModuleDictImpl::pretty_print(std::ostream& stream) const {
  stream << "ModuleDict" << (empty() ? "()" : "");
}

std::shared_ptr<Module> ModuleDictImpl::clone() const {
  auto copy = std::make_shared<ModuleDictImpl>();
  for (const auto& [name, child] : named_children()) copy->insert(name, child->clone());
  copy->training_ = training_;
  return copy;
}

void FunctionalImpl::pretty_print(std::ostream& stream) const { stream << "Functional()"; }

std::shared_ptr<Module> FunctionalImpl::clone() const { return std::make_shared<FunctionalImpl>(function_); }

Activation::Activation(std::string_view name) {
  if (name == "relu") {
    function_ = [](const Tensor& x) { return relu(x); };
  } else if (name == "gelu") {
    function_ = [](const Tensor& x) { return ops::gelu(x); };
  } else {
    raise(ErrorKind::kRuntime, "activation should be relu/gelu, not ", name);
  }
}

}  // namespace lohe::nn
