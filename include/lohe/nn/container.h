#pragma once

#include "lohe/nn/any_module.h"

/// Modules made of others.
namespace lohe::nn {

/// Calls its modules one after another, each with what the one before gave: `Sequential(Linear(3, 4),
/// ReLU())`. Its items are holders, or modules, with `Tensor forward(Tensor)`; they are named "0", "1", ...
/// or as `Sequential({{"fc", Linear(3, 4)}, {"act", ReLU()}})` says.
class LOHE_API SequentialImpl : public Module {
 public:
  SequentialImpl() : Module("Sequential") {}
  SequentialImpl(std::initializer_list<NamedAnyModule> items) : SequentialImpl() {
    for (const NamedAnyModule& item : items) push_back(item.name(), item.module());
  }
  template <class... Items>
    requires(sizeof...(Items) > 0)
  explicit SequentialImpl(Items&&... items) : SequentialImpl() {
    (push_back(std::forward<Items>(items)), ...);
  }

  void push_back(std::string name, AnyModule item) {
    register_module(std::move(name), item.ptr());
    steps_.push_back(std::move(item));
  }
  template <class Item>
    requires std::constructible_from<AnyModule, Item>
  void push_back(Item&& item) {
    push_back(std::to_string(steps_.size()), AnyModule(std::forward<Item>(item)));
  }
  template <class Items>
  void extend(const Items& items) {
    for (const auto& item : items) push_back(item);
  }
  size_t size() const { return steps_.size(); }
  bool is_empty() const { return steps_.empty(); }
  auto begin() const { return steps_.begin(); }
  auto end() const { return steps_.end(); }
  std::shared_ptr<Module> ptr(size_t index) const { return steps_.at(index).ptr(); }
  std::shared_ptr<Module> operator[](size_t index) const { return ptr(index); }
  /// @throws TypeError if it is no M.
  template <class M>
  M& at(size_t index) const {
    M* found = dynamic_cast<M*>(steps_.at(index).ptr().get());
    LOHE_CHECK_TYPE(found != nullptr, "at(", index, "): the module there is ", ptr(index)->name());
    return *found;
  }

  /// @throws RuntimeError when it is empty.
  Tensor forward(Tensor input);
  void pretty_print(std::ostream& stream) const override;
  std::shared_ptr<Module> clone() const override;

 private:
  std::vector<AnyModule> steps_;
};
class Sequential : public ModuleHolder<SequentialImpl> {
 public:
  using ModuleHolder<SequentialImpl>::ModuleHolder;
  using Impl = SequentialImpl;
  Sequential() = default;
  Sequential(std::initializer_list<NamedAnyModule> items)
      : ModuleHolder<SequentialImpl>(std::make_shared<SequentialImpl>(items)) {}
};

/// Modules by number, each registered with its owner; they are called by hand.
class LOHE_API ModuleListImpl : public Module {
 public:
  ModuleListImpl() : Module("ModuleList") {}
  template <class... Items>
    requires(sizeof...(Items) > 0)
  explicit ModuleListImpl(Items&&... items) : ModuleListImpl() {
    (push_back(std::forward<Items>(items)), ...);
  }
  template <class Holder>
    requires requires(Holder h) { h.ptr(); }
  void push_back(const Holder& holder) {
    push_back(std::shared_ptr<Module>(holder.ptr()));
  }
  void push_back(std::shared_ptr<Module> module) {
    register_module(std::to_string(items_.size()), module);
    items_.push_back(std::move(module));
  }
  template <class Items>
  void extend(const Items& items) {
    for (const auto& item : items) push_back(item);
  }
  size_t size() const { return items_.size(); }
  bool is_empty() const { return items_.empty(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }
  std::shared_ptr<Module> ptr(size_t index) const { return items_.at(index); }
  std::shared_ptr<Module> operator[](size_t index) const { return ptr(index); }
  /// @throws TypeError if it is no M.
  template <class M>
  M& at(size_t index) const {
    M* found = dynamic_cast<M*>(items_.at(index).get());
    LOHE_CHECK_TYPE(found != nullptr, "at(", index, "): the module there is ", items_[index]->name());
    return *found;
  }
  void pretty_print(std::ostream& stream) const override;
  std::shared_ptr<Module> clone() const override;

 private:
  std::vector<std::shared_ptr<Module>> items_;
};
LOHE_MODULE(ModuleList);

/// Modules by name, in the order in which they were inserted; they are called by hand.
class LOHE_API ModuleDictImpl : public Module {
 public:
  using Items = std::vector<std::pair<std::string, std::shared_ptr<Module>>>;
  ModuleDictImpl() : Module("ModuleDict") {}
  explicit ModuleDictImpl(const Items& items) : ModuleDictImpl() { update(items); }

  template <class M>
  void insert(const std::string& name, const M& module) {
    const auto known = named_children();
    if (known.contains(name)) unregister_module(name);
    register_module(name, module);
  }
  void update(const Items& items) {
    for (const auto& [name, module] : items) insert(name, module);
  }
  size_t size() const { return named_children().size(); }
  bool empty() const { return size() == 0; }
  bool contains(const std::string& name) const { return named_children().contains(name); }
  std::vector<std::string> keys() const { return named_children().keys(); }
  std::vector<std::shared_ptr<Module>> values() const { return children(); }
  OrderedDict<std::string, std::shared_ptr<Module>> items() const { return named_children(); }
  /// @throws KeyError
  std::shared_ptr<Module> operator[](const std::string& name) const { return named_children()[name]; }
  /// @throws KeyError; TypeError if it is no M.
  template <class M>
  M& at(const std::string& name) const {
    M* found = dynamic_cast<M*>((*this)[name].get());
    LOHE_CHECK_TYPE(found != nullptr, "at(", name, "): the module there is ", (*this)[name]->name());
    return *found;
  }
  std::shared_ptr<Module> pop(const std::string& name) {
    std::shared_ptr<Module> module = (*this)[name];
    unregister_module(name);
    return module;
  }
  void clear() { clear_registered(); }
  void pretty_print(std::ostream& stream) const override;
  std::shared_ptr<Module> clone() const override;
};
LOHE_MODULE(ModuleDict);

/// A function as a layer: `Functional(relu)`, `Functional(log_softmax, 1)`; what follows the function are its
/// further arguments.
class LOHE_API FunctionalImpl : public Module {
 public:
  using Function = std::function<Tensor(Tensor)>;
  explicit FunctionalImpl(Function function) : Module("Functional"), function_(std::move(function)) {}
  template <class Plain, class... Args>
    requires(sizeof...(Args) > 0)
  explicit FunctionalImpl(Plain function, Args... arguments)
      : FunctionalImpl([=](Tensor input) { return function(std::move(input), arguments...); }) {}
  Tensor forward(const Tensor& input) { return function_(input); }
  void pretty_print(std::ostream& stream) const override;
  std::shared_ptr<Module> clone() const override;

 private:
  Function function_;
};
LOHE_MODULE(Functional);

}  // namespace lohe::nn
