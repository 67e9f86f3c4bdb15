#include "lohe/nn/module.h"

#include <cxxabi.h>

#include <cstdlib>
#include <ostream>
#include <set>
#include <typeinfo>

#include "lohe/autograd.h"

namespace lohe::nn {

Module::~Module() = default;

const std::string& Module::name() const {
  if (name_.empty()) {
    int status = 0;
    char* text = abi::__cxa_demangle(typeid(*this).name(), nullptr, nullptr, &status);
    name_ = status == 0 ? text : typeid(*this).name();
    std::free(text);
    if (const auto colon = name_.rfind("::"); colon != std::string::npos) name_ = name_.substr(colon + 2);
  }
  return name_;
}

std::vector<std::pair<std::string, const Module*>> Module::walk(bool recurse) const {
  std::vector<std::pair<std::string, const Module*>> list{{"", this}};
  std::set<const Module*> seen{this};
  const auto visit = [&](const auto& self, const Module& m, const std::string& prefix) -> void {
    for (const auto& [name, child] : m.children_) {
      if (child == nullptr || !seen.insert(child.get()).second) continue;
      list.emplace_back(prefix + name + ".", child.get());
      self(self, *child, prefix + name + ".");
    }
  };
  if (recurse) visit(visit, *this, "");
  return list;
}

OrderedDict<Tensor> Module::named_parameters(bool recurse) const {
  OrderedDict<Tensor> result;
  std::set<const TensorImpl*> seen;
  for (const auto& [prefix, module] : walk(recurse)) {
    for (const auto& [name, tensor] : module->parameters_) {
      if (tensor->defined() && seen.insert(tensor->impl()).second) result.insert(prefix + name, *tensor);
    }
  }
  return result;
}

OrderedDict<Tensor> Module::named_buffers(bool recurse) const {
  OrderedDict<Tensor> result;
  std::set<const TensorImpl*> seen;
  for (const auto& [prefix, module] : walk(recurse)) {
    for (const auto& [name, tensor] : module->buffers_) {
      if (tensor->defined() && seen.insert(tensor->impl()).second) result.insert(prefix + name, *tensor);
    }
  }
  return result;
}

namespace {
std::vector<Tensor> values(const OrderedDict<Tensor>& named) {
  std::vector<Tensor> list;
  for (const auto& [name, tensor] : named) list.push_back(tensor);
  return list;
}
}  // namespace

std::vector<Tensor> Module::parameters(bool recurse) const { return values(named_parameters(recurse)); }
std::vector<Tensor> Module::buffers(bool recurse) const { return values(named_buffers(recurse)); }

std::vector<std::shared_ptr<Module>> Module::children() const {
  std::vector<std::shared_ptr<Module>> list;
  for (const auto& [name, child] : children_) list.push_back(child);
  return list;
}

OrderedDict<std::shared_ptr<Module>> Module::named_modules(const std::string& prefix) const {
  OrderedDict<std::shared_ptr<Module>> result;
  for (const auto& [path, module] : walk(true)) {
    std::string name = prefix.empty() || path.empty() ? prefix + path : prefix + "." + path;
    if (name.ends_with('.')) name.pop_back();
    result.insert(std::move(name), std::const_pointer_cast<Module>(module->shared_from_this()));
  }
  return result;
}

void Module::apply(const std::function<void(Module&)>& function) {
  for (const auto& [name, child] : children_) {
    if (child) child->apply(function);
  }
  function(*this);
}

void Module::train(bool on) {
  training_ = on;
  for (const auto& [name, child] : children_) {
    if (child) child->train(on);
  }
}

void Module::to(Dtype dtype) {
  LOHE_CHECK_TYPE(is_floating(dtype) || is_complex(dtype),
                  "nn.Module.to only accepts floating point or complex dtypes, but got ", info(dtype).name);
  const NoGradGuard no_grad;
  for (const auto& [path, module] : walk(true)) {
    for (const auto* owned : {&module->parameters_, &module->buffers_}) {
      for (const auto& [name, tensor] : *owned) {
        if (!tensor->defined() || !is_floating(tensor->dtype())) continue;
        tensor->set_data(tensor->to(dtype));
        if (tensor->grad().defined()) tensor->mutable_grad() = tensor->grad().to(dtype);
      }
    }
  }
}

void Module::zero_grad(bool set_to_none) {
  const NoGradGuard no_grad;
  for (Tensor& p : parameters()) {
    if (!p.grad().defined()) continue;
    if (set_to_none)
      p.mutable_grad().reset();
    else
      p.mutable_grad().detach().zero_();
  }
}

void Module::pretty_print(std::ostream& stream) const { stream << name(); }

void Module::check_name(const std::string& name) const {
  LOHE_CHECK_KIND(kKey, !name.empty() && name.find('.') == std::string::npos,
                  "a name of a module's item must not be empty or "
                  "contain a dot, got '",
                  name, "'");
  LOHE_CHECK_KIND(kKey, !parameters_.contains(name) && !buffers_.contains(name) && !children_.contains(name),
                  "'", name, "' already defined in ", this->name());
}

Tensor& Module::register_parameter(std::string name, Tensor tensor, bool requires_grad) {
  check_name(name);
  if (tensor.defined()) tensor.set_requires_grad(requires_grad);
  auto owned = std::make_shared<Tensor>(std::move(tensor));
  parameters_.insert(std::move(name), owned);
  return *owned;
}

Tensor& Module::register_buffer(std::string name, Tensor tensor) {
  check_name(name);
  auto owned = std::make_shared<Tensor>(std::move(tensor));
  buffers_.insert(std::move(name), owned);
  return *owned;
}

void Module::insert_module(std::string name, std::shared_ptr<Module> module) {
  check_name(name);
  children_.insert(std::move(name), std::move(module));
}

std::ostream& operator<<(std::ostream& stream, const Module& module) {
  const auto print = [&](const auto& self, const Module& m, const std::string& indent) -> void {
    m.pretty_print(stream);
    if (m.named_children().is_empty()) return;
    stream << "(\n";
    for (const auto& [name, child] : m.named_children()) {
      stream << indent << "  (" << name << "): ";
      if (child)
        self(self, *child, indent + "  ");
      else
        stream << "None";
      stream << "\n";
    }
    stream << indent << ")";
  };
  print(print, module, "");
  return stream;
}

}  // namespace lohe::nn
