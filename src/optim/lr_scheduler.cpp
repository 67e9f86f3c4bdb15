#include "lohe/lr_scheduler.h"

namespace lohe::optim {

LRScheduler::~LRScheduler() = default;

void LRScheduler::start(int64_t epoch) {
  base_lrs.clear();
  for (OptimizerParamGroup& group : optimizer_->param_groups()) {
    OptimizerOptions& options = group.options();
    if (epoch == -1 && !options.initial_lr().has_value()) options.set_initial_lr(options.get_lr());
    LOHE_CHECK_KIND(kKey, options.initial_lr().has_value(),
                    "param 'initial_lr' is not specified in param_groups[", base_lrs.size(),
                    "] when resuming scheduler with last_epoch >= 0");
    base_lrs.push_back(*options.initial_lr());
  }
  last_epoch = epoch;
  _step_count = 0;
  _is_initial = true;
  LRScheduler::step();
  _is_initial = false;
}

void LRScheduler::step() {
  ++_step_count;
  ++last_epoch;
  const std::vector<double> values = get_lrs();
  auto& groups = optimizer_->param_groups();
  LOHE_CHECK(values.size() == groups.size(), "a schedule gave ", values.size(), " learning rates for ",
             groups.size(), " parameter groups");
  for (size_t i = 0; i < groups.size(); ++i) groups[i].options().set_lr(values[i]);
  last_lr_ = rates();
}

std::vector<double> LRScheduler::rates() const {
  std::vector<double> list;
  for (const OptimizerParamGroup& group : optimizer_->param_groups())
    list.push_back(group.options().get_lr());
  return list;
}

LambdaScheduler::LambdaScheduler(Optimizer& optimizer, std::vector<Function> functions)
    : LRScheduler(optimizer), lr_lambdas(std::move(functions)) {
  LOHE_CHECK_VALUE(lr_lambdas.size() == optimizer.param_groups().size(), "Expected ",
                   optimizer.param_groups().size(), " lr_lambdas, but got ", lr_lambdas.size());
}

}  // namespace lohe::optim
