#pragma once

#include "lohe/nn/module.h"

namespace lohe::nn {

/// Base of modules of one's own that can be cloned: `reset()` registers all that the module has, and the
/// constructor calls it.
template <class Derived>
class Cloneable : public Module {
 public:
  using Module::Module;
  virtual void reset() = 0;
  std::shared_ptr<Module> clone() const override {
    return copied([&] {
      auto copy = std::make_shared<Derived>(static_cast<const Derived&>(*this));
      copy->clear_registered();
      copy->reset();
      return copy;
    });
  }
};

/// Any layer with `Tensor forward(Tensor)`, as a value; what Sequential holds. Made of nothing it is empty.
class AnyModule {
 public:
  AnyModule() = default;
  template <class M>
    requires std::is_base_of_v<Module, M>
  AnyModule(std::shared_ptr<M> module)
      : module_(std::move(module)),
        forward_([](Module& m, const Tensor& x) -> Tensor { return static_cast<M&>(m).forward(x); }) {}
  template <class Holder>
    requires requires(const Holder& h) { h.ptr()->forward(std::declval<const Tensor&>()); }
  AnyModule(const Holder& holder) : AnyModule(holder.ptr()) {}
  template <class M>
    requires std::is_base_of_v<Module, std::remove_cvref_t<M>>
  AnyModule(M&& module) : AnyModule(std::make_shared<std::remove_cvref_t<M>>(std::forward<M>(module))) {}

  bool is_empty() const { return module_ == nullptr; }
  const std::shared_ptr<Module>& ptr() const { return module_; }
  /// The holder T of the layer, or a copy of the layer T. @throws TypeError if it is another.
  template <class T>
  T get() const {
    if constexpr (requires { typename T::ContainedType; }) {
      return T(cast<typename T::ContainedType>());
    } else {
      return *cast<T>();
    }
  }
  /// @throws RuntimeError when it is empty.
  Tensor forward(const Tensor& input) const {
    LOHE_CHECK(!is_empty(), "Cannot call forward() on an empty AnyModule");
    return forward_(*module_, input);
  }
  /// A copy with parameters of its own.
  AnyModule clone() const {
    AnyModule copy = *this;
    if (!is_empty()) copy.module_ = module_->clone();
    return copy;
  }

 private:
  template <class T>
  std::shared_ptr<T> cast() const {
    auto found = std::dynamic_pointer_cast<T>(module_);
    LOHE_CHECK_TYPE(found != nullptr, "AnyModule holds ", is_empty() ? "nothing" : module_->name(),
                    ", which is not the type that get() asks for");
    return found;
  }

  std::shared_ptr<Module> module_;
  Tensor (*forward_)(Module&, const Tensor&) = nullptr;
};

/// A layer under a name, for Sequential: `{"fc", Linear(3, 4)}`.
class NamedAnyModule {
 public:
  template <class Item>
  NamedAnyModule(std::string name, Item&& item) : name_(std::move(name)), module_(std::forward<Item>(item)) {}
  const std::string& name() const { return name_; }
  const AnyModule& module() const { return module_; }

 private:
  std::string name_;
  AnyModule module_;
};

}  // namespace lohe::nn
