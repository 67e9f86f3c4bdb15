#pragma once

#include "lohe/nn/module.h"

/// Modules made of others.
namespace lohe::nn {

/// Calls its modules one after another, each with what the one before gave: `Sequential(Linear(3, 4),
/// ReLU())`. Its items are holders, or modules, with `Tensor forward(Tensor)`; they are named "0", "1", ...
/// or as push_back says.
class SequentialImpl : public Module {
 public:
  SequentialImpl() : Module("Sequential") {}
  template <class... Items>
    requires(sizeof...(Items) > 0)
  explicit SequentialImpl(Items&&... items) : SequentialImpl() {
    (push_back(std::forward<Items>(items)), ...);
  }

  template <class Holder>
    requires requires(Holder h) { h.ptr(); }
  void push_back(std::string name, const Holder& holder) {
    register_module(std::move(name), holder);
    steps_.push_back([module = holder.ptr()](const Tensor& x) { return module->forward(x); });
  }
  template <class M>
    requires std::is_base_of_v<Module, M>
  void push_back(std::string name, std::shared_ptr<M> module) {
    push_back(std::move(name), ModuleHolder<M>(std::move(module)));
  }
  template <class Item>
  void push_back(Item&& item) {
    push_back(std::to_string(steps_.size()), std::forward<Item>(item));
  }
  size_t size() const { return steps_.size(); }
  bool is_empty() const { return steps_.empty(); }
  std::shared_ptr<Module> operator[](size_t index) const { return children().at(index); }

  /// @throws RuntimeError when it is empty.
  Tensor forward(Tensor input) {
    LOHE_CHECK(!is_empty(), "Cannot call forward() on an empty Sequential");
    for (const auto& step : steps_) input = step(input);
    return input;
  }

 private:
  std::vector<std::function<Tensor(const Tensor&)>> steps_;
};
LOHE_MODULE(Sequential);

/// Modules by number, each registered with its owner; they are called by hand.
class ModuleListImpl : public Module {
 public:
  ModuleListImpl() : Module("ModuleList") {}
  template <class Holder>
    requires requires(Holder h) { h.ptr(); }
  void push_back(const Holder& holder) {
    push_back(std::shared_ptr<Module>(holder.ptr()));
  }
  void push_back(std::shared_ptr<Module> module) {
    register_module(std::to_string(items_.size()), module);
    items_.push_back(std::move(module));
  }
  size_t size() const { return items_.size(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }
  std::shared_ptr<Module> operator[](size_t index) const { return items_.at(index); }

 private:
  std::vector<std::shared_ptr<Module>> items_;
};
LOHE_MODULE(ModuleList);

}  // namespace lohe::nn
