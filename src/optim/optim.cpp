#include "lohe/optim.h"

#include "lohe/autograd.h"

namespace lohe::optim {

Optimizer::~Optimizer() = default;

Tensor Optimizer::step(const LossClosure& closure) {
  Tensor loss;
  if (closure) {
    const AutoGradMode with_grad(true);
    loss = closure();
  }
  const NoGradGuard no_grad;
  update();
  return loss;
}

void Optimizer::zero_grad(bool set_to_none) {
  const NoGradGuard no_grad;
  for (Tensor& p : all_params()) {
    if (!p.grad().defined()) continue;
    if (set_to_none)
      p.mutable_grad().reset();
    else
      p.mutable_grad().detach().zero_();
  }
}

namespace {

/// Complex tensors are updated as pairs of reals.
Tensor real_view(const Tensor& t) { return t.is_complex() ? view_as_real(t) : t; }

void check_numbers(double lr, double weight_decay) {
  LOHE_CHECK_VALUE(lr >= 0, "Invalid learning rate: ", lr);
  LOHE_CHECK_VALUE(weight_decay >= 0, "Invalid weight_decay value: ", weight_decay);
}

template <class Options>
void check_adam(const Options& o) {
  check_numbers(o.lr(), o.weight_decay());
  LOHE_CHECK_VALUE(o.eps() >= 0, "Invalid epsilon value: ", o.eps());
  const auto [beta1, beta2] = o.betas();
  LOHE_CHECK_VALUE(beta1 >= 0 && beta1 < 1, "Invalid beta parameter at index 0: ", beta1);
  LOHE_CHECK_VALUE(beta2 >= 0 && beta2 < 1, "Invalid beta parameter at index 1: ", beta2);
}

template <class Options, class Update>
void adam_step(ParamGroup<Options>& group, std::unordered_map<const TensorImpl*, AdamState>& state,
               Update update) {
  const Options& o = group.options();
  std::vector<Tensor> params, grads, means, squares, largest, steps;
  for (const Tensor& p : group.params()) {
    if (!p.grad().defined()) continue;
    AdamState& s = state[p.impl()];
    if (!s.step.defined()) {
      s.step = lohe::tensor(0.0, kFloat32);
      s.exp_avg = zeros_like(p, {}, MemoryFormat::kPreserve);
      s.exp_avg_sq = zeros_like(p, {}, MemoryFormat::kPreserve);
      if (o.amsgrad()) s.max_exp_avg_sq = zeros_like(p, {}, MemoryFormat::kPreserve);
    }
    s.step.add_(1);
    params.push_back(real_view(p));
    grads.push_back(real_view(p.grad()));
    means.push_back(real_view(s.exp_avg));
    squares.push_back(real_view(s.exp_avg_sq));
    if (o.amsgrad()) largest.push_back(real_view(s.max_exp_avg_sq));
    steps.push_back(s.step);
  }
  if (params.empty()) return;
  const auto [beta1, beta2] = o.betas();
  update(params, grads, means, squares, largest, steps, o.lr(), beta1, beta2, o.weight_decay(), o.eps(),
         o.amsgrad(), o.maximize());
}

}  // namespace

SGD::SGD(Groups groups, SGDOptions defaults) : GroupedOptimizer(std::move(defaults)) {
  add(std::move(groups));
}

void SGD::check(const SGDOptions& o) const {
  check_numbers(o.lr(), o.weight_decay());
  LOHE_CHECK_VALUE(o.momentum() >= 0, "Invalid momentum value: ", o.momentum());
  LOHE_CHECK_VALUE(!o.nesterov() || (o.momentum() > 0 && o.dampening() == 0),
                   "Nesterov momentum requires a momentum and zero dampening");
}

void SGD::update() {
  for (auto& group : param_groups()) {
    const SGDOptions& o = group.options();
    struct Lists {
      std::vector<Tensor> params, grads, buffers;
    };
    // The parameters whose momentum begins now take their gradient as it is.
    Lists started, fresh;
    for (const Tensor& p : group.params()) {
      if (!p.grad().defined()) continue;
      const bool begins = o.momentum() != 0 && !momentum_.contains(p.impl());
      Lists& lists = begins ? fresh : started;
      if (begins) momentum_[p.impl()] = empty_like(p.grad());
      if (o.momentum() != 0) lists.buffers.push_back(real_view(momentum_[p.impl()]));
      lists.params.push_back(real_view(p));
      lists.grads.push_back(real_view(p.grad()));
    }
    for (const Lists* lists : {&started, &fresh}) {
      if (lists->params.empty()) continue;
      _fused_sgd_(lists->params, lists->grads, lists->buffers, o.weight_decay(), o.momentum(), o.lr(),
                  o.dampening(), o.nesterov(), o.maximize(), lists == &fresh);
    }
  }
}

Adam::Adam(Groups groups, AdamOptions defaults) : GroupedOptimizer(std::move(defaults)) {
  add(std::move(groups));
}
void Adam::check(const AdamOptions& o) const { check_adam(o); }
void Adam::update() {
  for (auto& group : param_groups()) {
    adam_step(group, state_, [](const auto&... a) { _fused_adam_(a...); });
  }
}

AdamW::AdamW(Groups groups, AdamWOptions defaults) : GroupedOptimizer(std::move(defaults)) {
  add(std::move(groups));
}
void AdamW::check(const AdamWOptions& o) const { check_adam(o); }
void AdamW::update() {
  for (auto& group : param_groups()) {
    adam_step(group, state_, [](const auto&... a) { _fused_adamw_(a...); });
  }
}

}  // namespace lohe::optim
