#include "lohe/nn/module.h"

#include <cxxabi.h>

#include <cstdlib>
#include <ostream>
#include <set>
#include <typeinfo>

#include "lohe/autograd.h"
#include "lohe/generator.h"
#include "lohe/serialize.h"

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

OrderedDict<std::string, Tensor> Module::named_parameters(bool recurse) const {
  OrderedDict<std::string, Tensor> result;
  std::set<const TensorImpl*> seen;
  for (const auto& [prefix, module] : walk(recurse)) {
    for (const auto& [name, tensor] : module->parameters_) {
      if (tensor->defined() && seen.insert(tensor->impl()).second) result.insert(prefix + name, *tensor);
    }
  }
  return result;
}

OrderedDict<std::string, Tensor> Module::named_buffers(bool recurse) const {
  OrderedDict<std::string, Tensor> result;
  std::set<const TensorImpl*> seen;
  for (const auto& [prefix, module] : walk(recurse)) {
    for (const auto& [name, tensor] : module->buffers_) {
      if (tensor->defined() && seen.insert(tensor->impl()).second) result.insert(prefix + name, *tensor);
    }
  }
  return result;
}

std::vector<Tensor> Module::parameters(bool recurse) const { return named_parameters(recurse).values(); }
std::vector<Tensor> Module::buffers(bool recurse) const { return named_buffers(recurse).values(); }
std::vector<std::shared_ptr<Module>> Module::children() const { return children_.values(); }

std::vector<std::shared_ptr<Module>> Module::modules(bool include_self) const {
  std::vector<std::shared_ptr<Module>> list = named_modules().values();
  if (!include_self) list.erase(list.begin());
  return list;
}

OrderedDict<std::string, std::shared_ptr<Module>> Module::named_modules(const std::string& prefix) const {
  OrderedDict<std::string, std::shared_ptr<Module>> result;
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

void Module::apply(const std::function<void(const std::string&, Module&)>& function,
                   const std::string& prefix) {
  for (const auto& [name, child] : children_) {
    if (child) child->apply(function, prefix.empty() ? name : prefix + "." + name);
  }
  function(prefix, *this);
}

void Module::train(bool on) {
  training_ = on;
  for (const auto& [name, child] : children_) {
    if (child) child->train(on);
  }
}

void Module::to(Device, bool) {}  // there is one device

void Module::to(Device device, Dtype dtype, bool non_blocking) {
  to(device, non_blocking);
  to(dtype, non_blocking);
}

void Module::to(Dtype dtype, bool) {
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

void Module::collect(const std::string& prefix, std::vector<Member>& members) const {
  for (const auto& [name, tensor] : parameters_) {
    if (tensor->defined()) members.push_back({prefix + name, *tensor, false});
  }
  for (const auto& [name, tensor] : buffers_) {
    if (tensor->defined()) members.push_back({prefix + name, *tensor, true});
  }
  for (const auto& [name, child] : children_) {
    if (child) child->collect(prefix + name + ".", members);
  }
}

void Module::save(serialize::OutputArchive& archive) const {
  std::vector<Member> members;
  collect("", members);
  for (const Member& m : members) archive.write(m.name, m.tensor, m.is_buffer);
}

void Module::load(serialize::InputArchive& archive) {
  std::vector<Member> members;
  collect("", members);
  std::vector<Tensor> values;
  std::string missing, wrong, unexpected;
  std::set<std::string> known;
  for (const Member& m : members) {
    known.insert(m.name);
    Tensor value;
    if (!archive.try_read(m.name, value, m.is_buffer)) {
      missing += (missing.empty() ? "\"" : ", \"") + m.name + "\"";
    } else if (value.sizes() != m.tensor.sizes()) {
      wrong += lohe::detail::concat("\n\tsize mismatch for ", m.name, ": copying a param with shape ",
                                    value.sizes(), " from checkpoint, the shape in current model is ",
                                    m.tensor.sizes(), ".");
    }
    values.push_back(std::move(value));
  }
  for (const std::string& key : archive.keys()) {
    if (!known.contains(key)) unexpected += (unexpected.empty() ? "\"" : ", \"") + key + "\"";
  }
  LOHE_CHECK(missing.empty() && wrong.empty() && unexpected.empty(), "Error(s) in loading state_dict for ",
             name(), ":", missing.empty() ? "" : "\n\tMissing key(s) in state_dict: " + missing + ".",
             unexpected.empty() ? "" : "\n\tUnexpected key(s) in state_dict: " + unexpected + ".", wrong);
  const NoGradGuard no_grad;
  for (size_t i = 0; i < members.size(); ++i) members[i].tensor.copy_(values[i]);
}

void Module::replace_child(const std::string& name, std::shared_ptr<Module> module) {
  std::shared_ptr<Module>* child = children_.find(name);
  LOHE_CHECK_KIND(kKey, child != nullptr, "'", name, "' is no submodule of ", this->name());
  *child = std::move(module);
}

void Module::unregister_module(const std::string& name) {
  LOHE_CHECK_KIND(kKey, children_.contains(name), "'", name, "' is no submodule of ", this->name());
  children_.erase(name);
}

void Module::clear_registered() {
  parameters_.clear();
  buffers_.clear();
  children_.clear();
}

std::shared_ptr<Module> Module::clone() const {
  raise(ErrorKind::kNotImplemented, "clone() has not been implemented for ", name(),
        "; derive it from nn::Cloneable<", name(), "> instead of nn::Module");
}

std::shared_ptr<Module> Module::copied(const std::function<std::shared_ptr<Module>()>& make) const {
  const Generator::State random = default_generator().state();
  const std::shared_ptr<Module> copy = make();
  default_generator().set_state(random);
  const NoGradGuard no_grad;
  const auto take = [&](const OrderedDict<std::string, Tensor>& from,
                        const OrderedDict<std::string, Tensor>& to) {
    LOHE_CHECK(from.size() == to.size(), "clone(): the copy of ", name(), " has ", to.size(),
               " tensors where the original has ", from.size(), "; reset() must register all of them");
    for (const auto& [key, tensor] : from) {
      Tensor copied = to[key];
      copied.set_data(tensor.detach().clone());
      copied.set_requires_grad(tensor.requires_grad());
    }
  };
  take(named_parameters(), copy->named_parameters());
  take(named_buffers(), copy->named_buffers());
  const auto modes = named_modules(), modes_of_copy = copy->named_modules();
  for (const auto& [key, module] : modes) {
    if (modes_of_copy.contains(key)) modes_of_copy[key]->training_ = module->training_;
  }
  return copy;
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
