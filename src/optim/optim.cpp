#include "lohe/optim.h"

#include <set>

#include "lohe/autograd.h"

namespace lohe::optim {

OptimizerOptions::~OptimizerOptions() = default;
Optimizer::~Optimizer() = default;

OptimizerOptions& OptimizerParamGroup::options() {
  LOHE_CHECK(has_options(),
             "this parameter group has no options yet; add it to an optimizer or call set_options");
  return *options_;
}

Optimizer::Optimizer(std::vector<OptimizerParamGroup> groups, std::unique_ptr<OptimizerOptions> defaults)
    : defaults_(std::move(defaults)) {
  LOHE_CHECK_VALUE(!groups.empty() && !(groups.size() == 1 && groups[0].params().empty()),
                   "optimizer got an empty parameter list");
  for (OptimizerParamGroup& g : groups) add(std::move(g));
}

void Optimizer::add_param_group(const OptimizerParamGroup& group) {
  if (group.has_options()) check(group.options());
  add(group);
}

void Optimizer::add(OptimizerParamGroup group) {
  std::set<const TensorImpl*> known;
  for (const Tensor& p : parameters()) known.insert(p.impl());
  for (const Tensor& p : group.params()) {
    LOHE_CHECK_VALUE(p.defined() && (p.is_leaf() || p.retains_grad()), "can't optimize a non-leaf Tensor");
    LOHE_CHECK_VALUE(!known.contains(p.impl()), "some parameters appear in more than one parameter group");
  }
  if (!group.has_options()) group.set_options(defaults_->clone());
  groups_.push_back(std::move(group));
}

std::vector<Tensor> Optimizer::parameters() const {
  std::vector<Tensor> all;
  for (const auto& g : groups_) all.insert(all.end(), g.params().begin(), g.params().end());
  return all;
}

Tensor Optimizer::step(LossClosure closure) {
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
  for (Tensor& p : parameters()) {
    if (!p.grad().defined()) continue;
    if (set_to_none)
      p.mutable_grad().reset();
    else
      p.mutable_grad().detach().zero_();
  }
}

void Optimizer::save(serialize::OutputArchive& archive) const {
  IValue::Dict state;
  IValue::List groups;
  int64_t number = 0;
  for (const OptimizerParamGroup& g : groups_) {
    serialize::OutputArchive group;
    g.options().serialize(group);
    IValue::List numbers;
    for (const Tensor& p : g.params()) {
      const auto found = state_.find(p.impl());
      if (found != state_.end()) {
        IValue::Dict kept;
        for (const auto& item : found->second) kept.emplace_back(item.name, item.item);
        state.emplace_back(number, std::move(kept));
      }
      numbers.emplace_back(number++);
    }
    group.write("params", IValue(std::move(numbers)));
    groups.push_back(group.value());
  }
  archive.write("state", IValue(std::move(state)));
  archive.write("param_groups", IValue(std::move(groups)));
}

void Optimizer::load(serialize::InputArchive& archive) {
  IValue state, saved;
  archive.read("state", state);
  archive.read("param_groups", saved);
  const IValue::List& groups = saved.toListRef();
  LOHE_CHECK_VALUE(groups.size() == groups_.size(),
                   "loaded state dict has a different number of parameter groups");
  std::vector<std::unique_ptr<OptimizerOptions>> options;
  std::unordered_map<const TensorImpl*, ParamState> kept;
  for (size_t i = 0; i < groups.size(); ++i) {
    const IValue* numbers = groups[i].find("params");
    LOHE_CHECK_VALUE(
        numbers != nullptr && numbers->toListRef().size() == groups_[i].params().size(),
        "loaded state dict contains a parameter group that doesn't match the size of optimizer's group");
    serialize::OutputArchive whole;
    for (const auto& [key, value] : groups[i].toDictRef()) whole.write(key.toStringRef(), value);
    serialize::InputArchive group(whole);
    options.push_back(groups_[i].options().clone());
    options.back()->serialize(group);
    check(*options.back());
    for (size_t j = 0; j < groups_[i].params().size(); ++j) {
      const Tensor& p = groups_[i].params()[j];
      const IValue* own = state.find(numbers->toListRef()[j]);
      if (own == nullptr) continue;
      for (const auto& [key, value] : own->toDictRef()) {
        if (value.isNone()) continue;  // a momentum that has not begun
        const std::string& name = key.toStringRef();
        // The step counts in float32 whatever the parameter's dtype; old files hold it as a number.
        Tensor t = value.isTensor() ? value.toTensor().clone() : lohe::tensor(value.toDouble(), kFloat32);
        if (name != "step" && is_floating(p.dtype())) t = t.to(p.dtype());
        LOHE_CHECK_VALUE(name == "step" || t.sizes() == p.sizes(), "loaded state dict has ", name,
                         " of size ", t.sizes(), " for a parameter of size ", p.sizes());
        kept[p.impl()].insert(name, t);
      }
    }
  }
  for (size_t i = 0; i < options.size(); ++i) groups_[i].set_options(std::move(options[i]));
  state_ = std::move(kept);
}

namespace {

/// Complex tensors are updated as pairs of reals.
Tensor real_view(const Tensor& t) { return t.is_complex() ? view_as_real(t) : t; }

Tensor zeros_as(const Tensor& p) { return zeros_like(p, {}, MemoryFormat::kPreserve); }
Tensor new_step() { return lohe::tensor(0.0, kFloat32); }

template <class Options>
const Options& as(const OptimizerOptions& options) {
  const auto* found = dynamic_cast<const Options*>(&options);
  LOHE_CHECK_TYPE(found != nullptr, "a parameter group has options of another optimizer");
  return *found;
}

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
void adam_step(Optimizer& optimizer, const Update& update) {
  for (OptimizerParamGroup& group : optimizer.param_groups()) {
    const auto& o = as<Options>(group.options());
    std::vector<Tensor> params, grads, means, squares, largest, steps;
    for (const Tensor& p : group.params()) {
      if (!p.grad().defined()) continue;
      ParamState& s = optimizer.state(p);
      if (s.is_empty()) {
        s.insert("step", new_step());
        s.insert("exp_avg", zeros_as(p));
        s.insert("exp_avg_sq", zeros_as(p));
        if (o.amsgrad()) s.insert("max_exp_avg_sq", zeros_as(p));
      }
      params.push_back(real_view(p));
      grads.push_back(real_view(p.grad()));
      means.push_back(real_view(s["exp_avg"]));
      squares.push_back(real_view(s["exp_avg_sq"]));
      if (o.amsgrad()) largest.push_back(real_view(s["max_exp_avg_sq"]));
      steps.push_back(s["step"]);
      steps.back().add_(1);
    }
    if (params.empty()) continue;
    const auto [beta1, beta2] = o.betas();
    update(params, grads, means, squares, largest, steps, o.lr(), beta1, beta2, o.weight_decay(), o.eps(),
           o.amsgrad(), o.maximize());
  }
}

}  // namespace

void SGD::check(const OptimizerOptions& options) const {
  const auto& o = as<SGDOptions>(options);
  check_numbers(o.lr(), o.weight_decay());
  LOHE_CHECK_VALUE(o.momentum() >= 0, "Invalid momentum value: ", o.momentum());
  LOHE_CHECK_VALUE(!o.nesterov() || (o.momentum() > 0 && o.dampening() == 0),
                   "Nesterov momentum requires a momentum and zero dampening");
}

void SGD::update() {
  for (OptimizerParamGroup& group : param_groups()) {
    const auto& o = as<SGDOptions>(group.options());
    struct Lists {
      std::vector<Tensor> params, grads, buffers;
    };
    // The parameters whose momentum begins now take their gradient as it is.
    Lists started, fresh;
    for (const Tensor& p : group.params()) {
      if (!p.grad().defined()) continue;
      const bool begins = o.momentum() != 0 && state(p).is_empty();
      Lists& lists = begins ? fresh : started;
      if (begins) state(p).insert("momentum_buffer", empty_like(p.grad()));
      if (o.momentum() != 0) lists.buffers.push_back(real_view(state(p)["momentum_buffer"]));
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

void Adam::check(const OptimizerOptions& options) const { check_adam(as<AdamOptions>(options)); }
void Adam::update() {
  adam_step<AdamOptions>(*this, [](const auto&... a) { _fused_adam_(a...); });
}

void AdamW::check(const OptimizerOptions& options) const { check_adam(as<AdamWOptions>(options)); }
void AdamW::update() {
  adam_step<AdamWOptions>(*this, [](const auto&... a) { _fused_adamw_(a...); });
}

void RMSprop::check(const OptimizerOptions& options) const {
  const auto& o = as<RMSpropOptions>(options);
  check_numbers(o.lr(), o.weight_decay());
  LOHE_CHECK_VALUE(o.eps() >= 0, "Invalid epsilon value: ", o.eps());
  LOHE_CHECK_VALUE(o.momentum() >= 0, "Invalid momentum value: ", o.momentum());
  LOHE_CHECK_VALUE(o.alpha() >= 0, "Invalid alpha value: ", o.alpha());
}

void RMSprop::update() {
  for (OptimizerParamGroup& group : param_groups()) {
    const auto& o = as<RMSpropOptions>(group.options());
    for (const Tensor& p : group.params()) {
      if (!p.grad().defined()) continue;
      ParamState& s = state(p);
      if (s.is_empty()) {
        s.insert("step", new_step());
        s.insert("square_avg", zeros_as(p));
        if (o.momentum() > 0) s.insert("momentum_buffer", zeros_as(p));
        if (o.centered()) s.insert("grad_avg", zeros_as(p));
      }
      s["step"].add_(1);
      Tensor g = o.maximize() ? -p.grad() : p.grad();
      if (o.weight_decay() != 0) g = g.add(p, o.weight_decay());
      const Tensor param = real_view(p), square = real_view(s["square_avg"]);
      g = real_view(g);
      square.mul_(o.alpha()).addcmul_(g, g, 1 - o.alpha());
      Tensor root;
      if (o.centered()) {
        const Tensor mean = real_view(s["grad_avg"]);
        mean.lerp_(g, 1 - o.alpha());
        root = square.addcmul(mean, mean, -1).sqrt_();
      } else {
        root = square.sqrt();
      }
      root.add_(o.eps());
      if (o.momentum() > 0) {
        const Tensor buffer = real_view(s["momentum_buffer"]);
        buffer.mul_(o.momentum()).addcdiv_(g, root);
        param.add_(buffer, -o.lr());
      } else {
        param.addcdiv_(g, root, -o.lr());
      }
    }
  }
}

}  // namespace lohe::optim
