#pragma once

#include <algorithm>
#include <functional>
#include <vector>

#include "lohe/optim.h"

/// Schedules of learning rates: `step()` is called after each epoch (or batch) and sets the rates of the
/// optimizer's groups. They follow Python's: a new schedule has set the rates of epoch 0.
namespace lohe::optim {

/// Base of the schedules. One of one's own overrides get_lrs() and calls start() at the end of its
/// constructor.
class LOHE_API LRScheduler {
 public:
  /// The optimizer must outlive the schedule.
  explicit LRScheduler(Optimizer& optimizer) : optimizer_(&optimizer) {}
  virtual ~LRScheduler();
  /// Goes on by one epoch.
  virtual void step();
  /// The rates that the last step set, one for each group.
  const std::vector<double>& get_last_lr() const { return last_lr_; }

 protected:
  /// `epoch` -1 starts anew; otherwise the groups must know their initial rates. @throws KeyError
  void start(int64_t epoch = -1);
  /// The groups' next rates, from last_epoch and the present rates.
  virtual std::vector<double> get_lrs() = 0;
  std::vector<double> rates() const;
  std::vector<double> get_current_lrs() const { return rates(); }
  static int64_t count_of(const IntList& list, int64_t value) {
    return std::count(list.begin(), list.end(), value);
  }

  // The names of Python's attributes, which the translated schedules use.
  std::vector<double> base_lrs;
  int64_t last_epoch = -1;
  int64_t _step_count = 0;
  bool _is_initial = false;

 private:
  Optimizer* optimizer_;
  std::vector<double> last_lr_;
};

/// Base of schedules that functions of the epoch give: one for all groups, or one for each.
class LOHE_API LambdaScheduler : public LRScheduler {
 public:
  using Function = std::function<double(int64_t)>;

 protected:
  LambdaScheduler(Optimizer& optimizer, Function function)
      : LRScheduler(optimizer), lr_lambdas(optimizer.param_groups().size(), std::move(function)) {}
  /// @throws ValueError unless there is one for each group.
  LambdaScheduler(Optimizer& optimizer, std::vector<Function> functions);
  std::vector<Function> lr_lambdas;
};

}  // namespace lohe::optim
