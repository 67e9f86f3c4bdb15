#pragma once

#include <memory>
#include <tuple>

#include "lohe/nn/module.h"
#include "lohe/serialize.h"

namespace lohe::optim {

using TwoNumbers = std::tuple<double, double>;

/// What a group of parameters is updated with.
class LOHE_API OptimizerOptions {
 public:
  virtual ~OptimizerOptions();
  virtual std::unique_ptr<OptimizerOptions> clone() const = 0;
  virtual double get_lr() const = 0;
  virtual void set_lr(double lr) = 0;
  /// The options by the names of Python's param_groups.
  virtual void serialize(serialize::OutputArchive& archive) const = 0;
  /// Takes those that the archive has.
  virtual void serialize(serialize::InputArchive& archive) = 0;
  /// The rate before any schedule, once there is one.
  const std::optional<double>& initial_lr() const { return initial_lr_; }
  void set_initial_lr(double lr) { initial_lr_ = lr; }

 protected:
  std::optional<double> initial_lr_;
};

namespace detail {
inline void write_option(serialize::OutputArchive& archive, const char* name, const TwoNumbers& value) {
  archive.write(name, IValue::tuple({std::get<0>(value), std::get<1>(value)}));
}
inline void write_option(serialize::OutputArchive& archive, const char* name, const IValue& value) {
  archive.write(name, value);
}
inline void read_option(const IValue& value, TwoNumbers& option) {
  const std::vector<double> numbers = value.toDoubleVector();
  LOHE_CHECK_VALUE(numbers.size() == 2, "expected an option of two numbers, got ", numbers.size());
  option = {numbers[0], numbers[1]};
}
inline void read_option(const IValue& value, double& option) { option = value.toDouble(); }
inline void read_option(const IValue& value, bool& option) { option = value.toBool(); }
}  // namespace detail

/// Options of an optimizer from its class: copies, the learning rate and files follow from `Derived::visit`,
/// which calls a function with the name and the value of each.
template <class Derived>
class OptimizerCloneableOptions : public OptimizerOptions {
 public:
  std::unique_ptr<OptimizerOptions> clone() const override { return std::make_unique<Derived>(self()); }
  double get_lr() const override { return self().lr(); }
  void set_lr(double lr) override { static_cast<Derived&>(*this).lr(lr); }
  void serialize(serialize::OutputArchive& archive) const override {
    const_cast<Derived&>(self()).visit(
        [&](const char* name, const auto& value) { detail::write_option(archive, name, value); });
    Derived::python_only([&](const char* name, const IValue& value) { archive.write(name, value); });
    if (initial_lr_.has_value()) archive.write("initial_lr", IValue(*initial_lr_));
  }
  void serialize(serialize::InputArchive& archive) override {
    IValue value;
    static_cast<Derived&>(*this).visit([&](const char* name, auto& option) {
      if (archive.try_read(name, value)) detail::read_option(value, option);
    });
    if (archive.try_read("initial_lr", value)) initial_lr_ = value.toDouble();
  }

 private:
  const Derived& self() const { return static_cast<const Derived&>(*this); }
};

}  // namespace lohe::optim
