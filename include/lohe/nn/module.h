#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lohe/creation.h"
#include "lohe/functions.h"
#include "lohe/nn/types.h"
#include "lohe/ordered_dict.h"

/// What models are made of: modules own parameters, buffers and other modules, each under a name.
namespace lohe {

namespace serialize {
class InputArchive;
class OutputArchive;
}  // namespace serialize

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
  OrderedDict<std::string, Tensor> named_parameters(bool recurse = true) const;
  std::vector<Tensor> buffers(bool recurse = true) const;
  OrderedDict<std::string, Tensor> named_buffers(bool recurse = true) const;
  std::vector<std::shared_ptr<Module>> children() const;
  OrderedDict<std::string, std::shared_ptr<Module>> named_children() const { return children_; }
  OrderedDict<std::string, std::shared_ptr<Module>> named_modules(const std::string& prefix = {}) const;
  std::vector<std::shared_ptr<Module>> modules(bool include_self = true) const;
  /// Calls `function` for every module below this one, then for this one.
  void apply(const std::function<void(Module&)>& function);
  void apply(const std::function<void(const std::string&, Module&)>& function,
             const std::string& prefix = {});

  virtual void train(bool on = true);
  void eval() { train(false); }
  bool is_training() const noexcept { return training_; }
  /// Parameters and buffers of floating point dtype.
  virtual void to(Dtype dtype, bool non_blocking = false);
  virtual void to(Device device, bool non_blocking = false);
  virtual void to(Device device, Dtype dtype, bool non_blocking = false);
  virtual void zero_grad(bool set_to_none = true);
  virtual void reset_parameters() {}
  /// One line: class and arguments.
  virtual void pretty_print(std::ostream& stream) const;
  /// A copy with parameters and buffers of its own; the random generator stays as it was.
  /// @throws NotImplementedError where the class does not say how; derive from Cloneable.
  virtual std::shared_ptr<Module> clone() const;
  /// This module as an M, or as what the holder M holds; null if it is another.
  template <class M>
  auto* as() {
    if constexpr (requires { typename M::ContainedType; }) {
      return dynamic_cast<typename M::ContainedType*>(this);
    } else {
      return dynamic_cast<M*>(this);
    }
  }
  template <class M>
  const auto* as() const {
    return const_cast<Module*>(this)->template as<M>();
  }

  /// All parameters and buffers under the names that Python's state_dict gives them.
  virtual void save(serialize::OutputArchive& archive) const;
  /// Takes the values of all of them. @throws RuntimeError naming what is missing or of another size; nothing
  /// has changed then.
  virtual void load(serialize::InputArchive& archive);

  /// @throws KeyError if the name is taken or holds a dot. An undefined tensor stands for an absent
  /// parameter.
  Tensor& register_parameter(std::string name, Tensor tensor, bool requires_grad = true);
  Tensor& register_buffer(std::string name, Tensor tensor);
  /// Forgets a submodule. @throws KeyError if there is none of that name.
  void unregister_module(const std::string& name);
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
  /// Puts another module in the place of a submodule. @throws KeyError if there is none of that name.
  template <class M>
  M replace_module(const std::string& name, M module) {
    replace_child(name, pointer_of(module));
    return module;
  }

 protected:
  /// A module that `make` makes, with the values of this one.
  std::shared_ptr<Module> copied(const std::function<std::shared_ptr<Module>()>& make) const;
  /// Forgets all parameters, buffers and submodules; Cloneable registers them anew.
  void clear_registered();
  bool training_ = true;

 private:
  struct Member {
    std::string name;
    Tensor tensor;
    bool is_buffer;
  };
  /// Everything that a state_dict holds, in its order: parameters, buffers, then those of submodules. What is
  /// shared stands under each of its names.
  void collect(const std::string& prefix, std::vector<Member>& members) const;
  template <class M>
  static std::shared_ptr<Module> pointer_of(const std::shared_ptr<M>& module) {
    return module;
  }
  template <class Holder>
    requires requires(const Holder& h) { h.ptr(); }
  static std::shared_ptr<Module> pointer_of(const Holder& holder) {
    return holder.ptr();
  }
  void insert_module(std::string name, std::shared_ptr<Module> module);
  void replace_child(const std::string& name, std::shared_ptr<Module> module);
  void check_name(const std::string& name) const;
  std::vector<std::pair<std::string, const Module*>> walk(bool recurse) const;
  OrderedDict<std::string, std::shared_ptr<Tensor>> parameters_, buffers_;
  OrderedDict<std::string, std::shared_ptr<Module>> children_;
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

template <class Impl>
std::ostream& operator<<(std::ostream& stream, const ModuleHolder<Impl>& holder) {
  return stream << static_cast<const Module&>(*holder);
}

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
