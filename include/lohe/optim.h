#pragma once

#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "lohe/optim_options.h"

/// Optimizers: they own no parameters but change those that they are given, from their gradients, at every
/// step. The update rules are the ops that Python's optimizers call.
namespace lohe::optim {

/// Parameters that share options.
class LOHE_API OptimizerParamGroup {
 public:
  OptimizerParamGroup(std::vector<Tensor> params) : params_(std::move(params)) {}
  OptimizerParamGroup(std::vector<Tensor> params, std::unique_ptr<OptimizerOptions> options)
      : params_(std::move(params)), options_(std::move(options)) {}
  OptimizerParamGroup(const OptimizerParamGroup& other)
      : params_(other.params_), options_(other.has_options() ? other.options_->clone() : nullptr) {}
  OptimizerParamGroup(OptimizerParamGroup&&) = default;
  OptimizerParamGroup& operator=(OptimizerParamGroup other) noexcept {
    params_.swap(other.params_);
    options_.swap(other.options_);
    return *this;
  }

  std::vector<Tensor>& params() { return params_; }
  const std::vector<Tensor>& params() const { return params_; }
  bool has_options() const { return options_ != nullptr; }
  /// `static_cast<AdamOptions&>(group.options())`. @throws RuntimeError where none were given.
  OptimizerOptions& options();
  const OptimizerOptions& options() const { return const_cast<OptimizerParamGroup*>(this)->options(); }
  void set_options(std::unique_ptr<OptimizerOptions> options) { options_ = std::move(options); }

 private:
  std::vector<Tensor> params_;
  std::unique_ptr<OptimizerOptions> options_;
};

/// What an optimizer keeps of one parameter, by the names that Python's state_dict gives it.
using ParamState = OrderedDict<std::string, Tensor>;

/// Base of all optimizers. One of one's own overrides update().
class LOHE_API Optimizer {
 public:
  using LossClosure = std::function<Tensor()>;
  /// @throws ValueError for no parameters, a parameter that stands in two groups, or a non-leaf.
  Optimizer(std::vector<OptimizerParamGroup> groups, std::unique_ptr<OptimizerOptions> defaults);
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;
  virtual ~Optimizer();

  /// One update; `closure`, if given, computes the loss (with gradients) first and its result is given back.
  virtual Tensor step(LossClosure closure = nullptr);
  void zero_grad(bool set_to_none = true);
  void add_param_group(const OptimizerParamGroup& group);
  std::vector<OptimizerParamGroup>& param_groups() { return groups_; }
  const std::vector<OptimizerParamGroup>& param_groups() const { return groups_; }
  OptimizerOptions& defaults() { return *defaults_; }
  const OptimizerOptions& defaults() const { return *defaults_; }
  std::vector<Tensor> parameters() const;
  /// What is kept of a parameter; empty before its first update.
  ParamState& state(const Tensor& parameter) { return state_[parameter.impl()]; }

  /// Python's state_dict of the optimizer.
  void save(serialize::OutputArchive& archive) const;
  /// @throws RuntimeError, ValueError for a state of other groups; nothing has changed then.
  void load(serialize::InputArchive& archive);

 protected:
  virtual void update() = 0;
  /// @throws ValueError for an option out of range.
  virtual void check(const OptimizerOptions& options) const = 0;
  /// The groups that were given to the constructor, once check() can be called.
  void check_groups() const {
    for (const auto& g : groups_) check(g.options());
  }

 private:
  void add(OptimizerParamGroup group);
  std::vector<OptimizerParamGroup> groups_;
  std::unique_ptr<OptimizerOptions> defaults_;
  std::unordered_map<const TensorImpl*, ParamState> state_;
};

/// An optimizer whose options are an Options.
#define LOHE_OPTIMIZER(Name)                                                                   \
  class LOHE_API Name : public Optimizer {                                                     \
   public:                                                                                     \
    explicit Name(std::vector<OptimizerParamGroup> groups, Name##Options defaults = {})        \
        : Optimizer(std::move(groups), std::make_unique<Name##Options>(std::move(defaults))) { \
      check_groups();                                                                          \
    }                                                                                          \
    explicit Name(std::vector<Tensor> params, Name##Options defaults = {})                     \
        : Name(std::vector<OptimizerParamGroup>{OptimizerParamGroup(std::move(params))},       \
               std::move(defaults)) {}                                                         \
                                                                                               \
   private:                                                                                    \
    void update() override;                                                                    \
    void check(const OptimizerOptions& options) const override;                                \
  }

/// Stochastic gradient descent with momentum; lohe.optim.SGD has the formulas.
LOHE_OPTIMIZER(SGD);
/// Adam (Kingma and Ba, 2015).
LOHE_OPTIMIZER(Adam);
/// Adam whose weight decay shrinks the parameters directly (Loshchilov and Hutter, 2019).
LOHE_OPTIMIZER(AdamW);
/// A running mean of squared gradients scales each step (Hinton, 2012).
LOHE_OPTIMIZER(RMSprop);
#undef LOHE_OPTIMIZER

}  // namespace lohe::optim
