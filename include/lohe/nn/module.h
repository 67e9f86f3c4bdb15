#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lohe/creation.h"
#include "lohe/functions.h"

/// What models are made of: modules own parameters, buffers and other modules, each under a name.
namespace lohe {

/// Items by name, in the order in which they were registered.
template <class T>
class OrderedDict {
 public:
  struct Item {
    std::string name;
    T item;
    const std::string& key() const { return name; }
    const T& value() const { return item; }
    T& value() { return item; }
  };
  void insert(std::string name, T item) { items_.push_back({std::move(name), std::move(item)}); }
  const T* find(const std::string& name) const {
    for (const Item& i : items_) {
      if (i.name == name) return &i.item;
    }
    return nullptr;
  }
  /// @throws KeyError naming what there is.
  const T& operator[](const std::string& name) const {
    if (const T* found = find(name)) return *found;
    std::string known;
    for (const Item& i : items_) known += (known.empty() ? "" : ", ") + i.name;
    raise(ErrorKind::kKey, "'", name, "' is not defined; there are: ", known);
  }
  bool contains(const std::string& name) const { return find(name) != nullptr; }
  size_t size() const { return items_.size(); }
  bool is_empty() const { return items_.empty(); }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }
  auto begin() { return items_.begin(); }
  auto end() { return items_.end(); }

 private:
  std::vector<Item> items_;
};

namespace nn {

/// Base of all modules. A subclass registers what it owns in its constructor and has a member `forward`.
class LOHE_API Module : public std::enable_shared_from_this<Module> {
 public:
  Module() = default;
  explicit Module(std::string name) : name_(std::move(name)) {}
  virtual ~Module();
  Module(const Module&) = default;
  Module& operator=(const Module&) = default;

  /// The class's name, e.g. "LinearImpl", unless the constructor was given one.
  const std::string& name() const;

  /// Own parameters, then those of submodules as "child.weight"; shared ones once.
  std::vector<Tensor> parameters(bool recurse = true) const;
  OrderedDict<Tensor> named_parameters(bool recurse = true) const;
  std::vector<Tensor> buffers(bool recurse = true) const;
  OrderedDict<Tensor> named_buffers(bool recurse = true) const;
  std::vector<std::shared_ptr<Module>> children() const;
  OrderedDict<std::shared_ptr<Module>> named_children() const { return children_; }
  OrderedDict<std::shared_ptr<Module>> named_modules(const std::string& prefix = {}) const;
  void apply(const std::function<void(Module&)>& function);

  virtual void train(bool on = true);
  void eval() { train(false); }
  bool is_training() const noexcept { return training_; }
  /// Parameters and buffers of floating point dtype.
  virtual void to(Dtype dtype);
  virtual void zero_grad(bool set_to_none = true);
  virtual void reset_parameters() {}
  /// One line: class and arguments.
  virtual void pretty_print(std::ostream& stream) const;

  /// @throws KeyError if the name is taken or holds a dot. An undefined tensor stands for an absent
  /// parameter.
  Tensor& register_parameter(std::string name, Tensor tensor, bool requires_grad = true);
  Tensor& register_buffer(std::string name, Tensor tensor);
  template <class T>
  std::shared_ptr<T> register_module(std::string name, std::shared_ptr<T> module) {
    insert_module(std::move(name), module);
    return module;
  }
  template <class Holder>
    requires requires(Holder h) { h.ptr(); }
  Holder register_module(std::string name, Holder holder) {
    insert_module(std::move(name), holder.ptr());
    return holder;
  }

 protected:
  bool training_ = true;

 private:
  void insert_module(std::string name, std::shared_ptr<Module> module);
  void check_name(const std::string& name) const;
  std::vector<std::pair<std::string, const Module*>> walk(bool recurse) const;
  OrderedDict<std::shared_ptr<Tensor>> parameters_, buffers_;
  OrderedDict<std::shared_ptr<Module>> children_;
  mutable std::string name_;
};
LOHE_API std::ostream& operator<<(std::ostream& stream, const Module& module);

/// A shared module as a value: `Linear layer(3, 4); layer->forward(x); layer(x)`. Made from nullptr it is
/// empty.
template <class Impl>
class ModuleHolder {
 public:
  using ContainedType = Impl;
  ModuleHolder()
    requires std::default_initializable<Impl>
      : impl_(std::make_shared<Impl>()) {}
  ModuleHolder(std::nullptr_t) {}
  ModuleHolder(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  template <class Head, class... Tail>
    requires(!std::is_base_of_v<ModuleHolder, std::remove_cvref_t<Head>> &&
             !std::is_same_v<std::remove_cvref_t<Head>, std::shared_ptr<Impl>>)
  explicit ModuleHolder(Head&& head, Tail&&... tail)
      : impl_(std::make_shared<Impl>(std::forward<Head>(head), std::forward<Tail>(tail)...)) {}
  explicit operator bool() const { return impl_ != nullptr; }
  bool is_empty() const { return impl_ == nullptr; }
  Impl* get() const {
    LOHE_CHECK(impl_ != nullptr, "an empty module holder was used; give it a module first");
    return impl_.get();
  }
  Impl* operator->() const { return get(); }
  Impl& operator*() const { return *get(); }
  const std::shared_ptr<Impl>& ptr() const { return impl_; }
  template <class... Args>
  auto operator()(Args&&... args) const {
    return get()->forward(std::forward<Args>(args)...);
  }
  template <class Index>
    requires requires(Impl& m, Index i) { m[i]; }
  auto operator[](Index index) const {
    return (*get())[index];
  }

 protected:
  std::shared_ptr<Impl> impl_;
};

}  // namespace nn
}  // namespace lohe

/// Declares the holder `Name` of the module `NameImpl`.
#define LOHE_MODULE(Name)                                     \
  class Name : public ::lohe::nn::ModuleHolder<Name##Impl> {  \
   public:                                                    \
    using ::lohe::nn::ModuleHolder<Name##Impl>::ModuleHolder; \
    using Impl = Name##Impl;                                  \
  }
#define TORCH_MODULE(Name) LOHE_MODULE(Name)

/// An option: `options.name(value)` sets it and gives the options back, `options.name()` reads it.
#define LOHE_ARG(T, name)                            \
 public:                                             \
  auto name(T value) -> decltype(*this) {            \
    name##_ = std::move(value);                      \
    return *this;                                    \
  }                                                  \
  const T& name() const noexcept { return name##_; } \
                                                     \
 private:                                            \
  T name##_
