#pragma once

#include <functional>
#include <unordered_map>
#include <variant>
#include <vector>

#include "lohe/nn/module.h"
#include "lohe/optim_options.h"

/// Optimizers: they own no parameters but change those that they are given, from their gradients, at every
/// step. The update rules are the ops that Python's optimizers call.
namespace lohe::optim {

/// Parameters that share options.
template <class Options>
class ParamGroup {
 public:
  ParamGroup(std::vector<Tensor> params) : params_(std::move(params)) {}
  ParamGroup(std::vector<Tensor> params, Options options)
      : params_(std::move(params)), options_(std::move(options)), given_(true) {}
  std::vector<Tensor>& params() { return params_; }
  const std::vector<Tensor>& params() const { return params_; }
  Options& options() { return options_; }
  const Options& options() const { return options_; }
  bool has_options() const { return given_; }
  void set_options(Options options) {
    options_ = std::move(options);
    given_ = true;
  }

 private:
  std::vector<Tensor> params_;
  Options options_;
  bool given_ = false;
};

class LOHE_API Optimizer {
 public:
  using LossClosure = std::function<Tensor()>;
  virtual ~Optimizer();
  /// One update; `closure`, if given, computes the loss (with gradients) first and its result is given back.
  Tensor step(const LossClosure& closure = nullptr);
  void zero_grad(bool set_to_none = true);

 protected:
  virtual void update() = 0;
  virtual std::vector<Tensor> all_params() const = 0;
};

/// What optimizers of one kind of options share.
template <class Options>
class GroupedOptimizer : public Optimizer {
 public:
  using Groups = std::vector<ParamGroup<Options>>;
  Groups& param_groups() { return groups_; }
  const Groups& param_groups() const { return groups_; }
  void add_param_group(ParamGroup<Options> group) {
    if (!group.has_options()) group.set_options(defaults_);
    check(group.options());
    groups_.push_back(std::move(group));
  }
  const Options& defaults() const { return defaults_; }

 protected:
  explicit GroupedOptimizer(Options defaults) : defaults_(std::move(defaults)) {}
  /// @throws ValueError for an option out of range.
  virtual void check(const Options& options) const = 0;
  std::vector<Tensor> all_params() const override {
    std::vector<Tensor> all;
    for (const auto& g : groups_) all.insert(all.end(), g.params().begin(), g.params().end());
    return all;
  }
  void add(Groups groups) {
    for (auto& g : groups) add_param_group(std::move(g));
  }

 private:
  Options defaults_;
  Groups groups_;
};

/// Stochastic gradient descent with momentum; lohe.optim.SGD has the formulas.
class LOHE_API SGD : public GroupedOptimizer<SGDOptions> {
 public:
  explicit SGD(Groups groups, SGDOptions defaults = {});
  explicit SGD(std::vector<Tensor> params, SGDOptions defaults = {})
      : SGD(Groups{std::move(params)}, std::move(defaults)) {}

 private:
  void update() override;
  void check(const SGDOptions& options) const override;
  std::unordered_map<const TensorImpl*, Tensor> momentum_;
};

/// The running means of one parameter.
struct AdamState {
  Tensor step, exp_avg, exp_avg_sq, max_exp_avg_sq;
};

/// Adam (Kingma and Ba, 2015).
class LOHE_API Adam : public GroupedOptimizer<AdamOptions> {
 public:
  explicit Adam(Groups groups, AdamOptions defaults = {});
  explicit Adam(std::vector<Tensor> params, AdamOptions defaults = {})
      : Adam(Groups{std::move(params)}, std::move(defaults)) {}

 private:
  void update() override;
  void check(const AdamOptions& options) const override;
  std::unordered_map<const TensorImpl*, AdamState> state_;
};

/// Adam whose weight decay shrinks the parameters directly (Loshchilov and Hutter, 2019).
class LOHE_API AdamW : public GroupedOptimizer<AdamWOptions> {
 public:
  explicit AdamW(Groups groups, AdamWOptions defaults = {});
  explicit AdamW(std::vector<Tensor> params, AdamWOptions defaults = {})
      : AdamW(Groups{std::move(params)}, std::move(defaults)) {}

 private:
  void update() override;
  void check(const AdamWOptions& options) const override;
  std::unordered_map<const TensorImpl*, AdamState> state_;
};

}  // namespace lohe::optim
