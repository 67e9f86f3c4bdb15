#include <cmath>

#include "base/inline_vector.h"
#include "lohe/error.h"
#include "ops/reductions.h"
#include "tensor/watcher.h"

/// Optimizer steps over lists of tensors: one row for each tensor, which updates it and its state in place;
/// those of a list run together.
namespace lohe::ops {
namespace {

using namespace ir;

void lists_match(const OpDef& op, Args a, std::span<const size_t> params) {
  for (const size_t p : params) {
    LOHE_CHECK(a[p].count == a[0].count || a[p].count == 0, op.schema.base, ": '", op.schema.params[p].name,
               "' has ", a[p].count, " tensors, 'self' has ", a[0].count);
  }
}

/// The value of a tensor of one element.
double number_in(const TensorImpl& t) {
  LOHE_CHECK(t.numel() == 1, "expected a tensor of one element, got one of ", t.numel());
  switch (t.dtype()) {
    case Dtype::kFloat32:
      return *reinterpret_cast<const float*>(t.data());
    case Dtype::kFloat64:
      return *reinterpret_cast<const double*>(t.data());
    case Dtype::kInt64:
      return static_cast<double>(*reinterpret_cast<const int64_t*>(t.data()));
    case Dtype::kInt32:
      return *reinterpret_cast<const int32_t*>(t.data());
    case Dtype::kBool:
      return *reinterpret_cast<const bool*>(t.data()) ? 1 : 0;
    default:
      break;
  }
  raise(ErrorKind::kType,
        "expected a number in a tensor of dtype float32, float64, int64, int32 or bool, got ", t.dtype());
}
double rate_of(const Arg& lr) {
  return lr.kind == Arg::kTensor ? number_in(*lr.tensor) : lr.scalar().to_double();
}

/// Undoes a loss scale in place; true when the step must not be done.
bool skipped(Args a, size_t grads, const Arg& grad_scale, const Arg& found_inf) {
  static const OpRef div("div");
  if (found_inf.kind == Arg::kTensor && number_in(*found_inf.tensor) != 0) return true;
  if (grad_scale.kind == Arg::kTensor) {
    for (TensorImpl* g : a[grads].tensor_list())
      dispatch::call(div.op(), std::array{Arg(g), grad_scale}, dispatch::Form::kInPlace);
  }
  return false;
}

/// Argument lists of one row, for all tensors.
class Steps {
 public:
  Steps(const OpRef& row, size_t count) : op_(row.op()) { args_.reserve(count * op_.schema.params.size()); }
  template <class... A>
  void add(const A&... args) {
    (args_.emplace_back(args), ...);
    ++count_;
  }
  /// Does those that were added since the last time.
  void run() {
    dispatch::call_each(op_, args_, count_, dispatch::Form::kValue);
    args_.clear();
    count_ = 0;
  }

 private:
  const OpDef& op_;
  std::vector<Arg> args_;
  size_t count_ = 0;
};

/// What a step of Adam takes of its count of steps and of its rate.
struct AdamRates {
  double size, shrink, eps;
};
struct AdamConstants {
  double beta1, beta2, decay, eps, decoupled, rate;
};
AdamRates adam_rates(const AdamConstants& c, double steps, double rate) {
  // size (m / (sqrt(v) / root + eps)), less one division for every element. Decoupled: the parameter shrinks
  // by rate * decay.
  const double root = std::sqrt(1 - std::pow(c.beta2, steps));
  return {rate * root / (1 - std::pow(c.beta1, steps)), c.decoupled != 0 ? 1 - rate * c.decay : 1,
          c.eps * root};
}

/// For who does the step again without this code.
void follow_rates(Watcher& watcher, const AdamConstants& c, TensorImpl* steps, const Arg& rate) {
  InlineVector<TensorImpl*, 2> sources;
  sources.push_back(steps);
  if (rate.kind == Arg::kTensor) sources.push_back(rate.tensor);
  const std::array constants{c.beta1, c.beta2, c.decay, c.eps, c.decoupled, c.rate};
  static constexpr std::array kNumbers{0, 3, 5};  // size, shrink and eps
  watcher.follows({sources, constants, kNumbers,
                   [](std::span<const double> k, std::span<TensorImpl* const> from, std::span<double> to) {
                     const AdamConstants known{k[0], k[1], k[2], k[3], k[4], k[5]};
                     const AdamRates r = adam_rates(known, number_in(*from[0]),
                                                    from.size() > 1 ? number_in(*from[1]) : known.rate);
                     to[0] = r.size, to[1] = r.shrink, to[2] = r.eps;
                   }});
}

Results adam(const OpDef& op, Args a, bool decoupled) {
  static const OpRef step("_adam_step_"), amsgrad_step("_amsgrad_step_");
  static constexpr size_t lists[] = {1, 2, 3, 4, 5};
  lists_match(op, a, lists);
  if (skipped(a, 1, a[13], a[14])) return {};
  Watcher* const watcher = current_watcher();
  const auto known = [&](const TensorImpl& t) {
    const Unwatched reading;  // the watcher is told of the rule
    return number_in(t);
  };
  const double rate = a[6].kind == Arg::kTensor ? known(*a[6].tensor) : a[6].scalar().to_double();
  const double beta1 = a[7].scalar().to_double(), beta2 = a[8].scalar().to_double();
  const double decay = a[9].scalar().to_double(), eps = a[10].scalar().to_double();
  const bool amsgrad = a[11].integer != 0, maximize = a[12].integer != 0;
  const AdamConstants constants{
      beta1, beta2, decay, eps, decoupled ? 1.0 : 0.0, a[6].kind == Arg::kTensor ? 0 : rate};
  // Not decoupled: the gradient takes decay * parameter.
  const double pull = decoupled ? 0 : decay;
  // Most tensors have taken as many steps as the one before them.
  double steps = -1;
  AdamRates r{};
  const auto count = static_cast<size_t>(a[0].count);
  Steps list(amsgrad ? amsgrad_step : step, count);
  for (size_t i = 0; i < count; ++i) {
    if (const double t = known(*a[5].tensors[i]); t != steps) {
      r = adam_rates(constants, t, rate);
      steps = t;
    }
    if (watcher != nullptr) follow_rates(*watcher, constants, a[5].tensors[i], a[6]);
    TensorImpl *p = a[0].tensors[i], *g = a[1].tensors[i], *m = a[2].tensors[i], *v = a[3].tensors[i];
    if (amsgrad) {
      list.add(p, m, v, a[4].tensors[i], g, r.size, beta1, beta2, r.shrink, pull, r.eps, maximize);
    } else {
      list.add(p, m, v, g, r.size, beta1, beta2, r.shrink, pull, r.eps, maximize);
    }
    if (watcher != nullptr) list.run();  // the rule is of this one
  }
  list.run();
  return {};
}

struct AdamState {
  Value param, mean, square;
};
/// The moving averages (Kingma and Ba 2015).
AdamState adam_state(Value p, Value m, Value v, Value g, Value beta1, Value beta2, Value shrink, Value pull,
                     bool maximize) {
  if (maximize) g = -g;
  p = p * shrink;
  g = g + pull * p;
  return {p, beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * (g * g)};
}

Results sgd(const OpDef& op, Args a) {
  static const OpRef plain("_sgd_step_"), momentum_step("_sgd_momentum_step_");
  static constexpr size_t lists[] = {1, 2};
  lists_match(op, a, lists);
  if (skipped(a, 1, a[10], a[11])) return {};
  const double decay = a[3].scalar().to_double(), momentum = a[4].scalar().to_double(), rate = rate_of(a[5]);
  const double dampening = a[6].scalar().to_double();
  const bool nesterov = a[7].integer != 0, maximize = a[8].integer != 0, first = a[9].integer != 0;
  const auto count = static_cast<size_t>(a[0].count);
  Steps list(momentum == 0 ? plain : momentum_step, count);
  for (size_t i = 0; i < count; ++i) {
    TensorImpl *p = a[0].tensors[i], *g = a[1].tensors[i];
    if (momentum == 0) {
      list.add(p, g, decay, rate, maximize);
    } else {
      list.add(p, a[2].tensors[i], g, decay, momentum, rate, dampening, nesterov, maximize, first);
    }
  }
  list.run();
  return {};
}

Results adagrad(const OpDef& op, Args a) {
  static const OpRef step("_adagrad_step_");
  static constexpr size_t lists[] = {1, 2, 3};
  lists_match(op, a, lists);
  if (skipped(a, 1, a[9], a[10])) return {};
  const double rate = rate_of(a[4]), rate_decay = a[5].scalar().to_double(),
               decay = a[6].scalar().to_double();
  const auto count = static_cast<size_t>(a[0].count);
  Steps list(step, count);
  for (size_t i = 0; i < count; ++i) {
    const double t = number_in(*a[3].tensors[i]);
    list.add(a[0].tensors[i], a[2].tensors[i], a[1].tensors[i], rate / (1 + (t - 1) * rate_decay), decay,
             a[7].scalar().to_double(), a[8].integer != 0);
  }
  list.run();
  return {};
}

const OpFamily optimizers(
    "optimizers",
    {
        pointwise(
            "_adam_step_(Tensor(a!) self, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, Tensor grad, Scalar size, Scalar beta1, Scalar beta2, Scalar shrink, Scalar pull, Scalar eps, bool maximize) -> (Tensor(a!), Tensor(b!), Tensor(c!))",
            [](Value p, Value m, Value v, Value g, Value size, Value beta1, Value beta2, Value shrink,
               Value pull, Value eps, bool maximize) {
              const AdamState s = adam_state(p, m, v, g, beta1, beta2, shrink, pull, maximize);
              return std::array{s.param - size * (s.mean / (sqrt(s.square) + eps)), s.mean, s.square};
            })
            .promote(Promotion::kFirst)
            .dtypes_are(kFloating)
            .no_inplace()
            .not_differentiable()
            .in("_C")
            .describe("One step of Adam."),
        pointwise(
            "_amsgrad_step_(Tensor(a!) self, Tensor(b!) exp_avg, Tensor(c!) exp_avg_sq, Tensor(d!) max_exp_avg_sq, Tensor grad, Scalar size, Scalar beta1, Scalar beta2, Scalar shrink, Scalar pull, Scalar eps, bool maximize) -> (Tensor(a!), Tensor(b!), Tensor(c!), Tensor(d!))",
            [](Value p, Value m, Value v, Value top, Value g, Value size, Value beta1, Value beta2,
               Value shrink, Value pull, Value eps, bool maximize) {
              const AdamState s = adam_state(p, m, v, g, beta1, beta2, shrink, pull, maximize);
              const Value highest = maximum(top, s.square);
              return std::array{s.param - size * (s.mean / (sqrt(highest) + eps)), s.mean, s.square, highest};
            })
            .promote(Promotion::kFirst)
            .dtypes_are(kFloating)
            .no_inplace()
            .not_differentiable()
            .in("_C")
            .describe("One step of Adam that divides by the largest average so far (Reddi et al. 2018)."),
        pointwise(
            "_sgd_step_(Tensor(a!) self, Tensor grad, Scalar decay, Scalar rate, bool maximize) -> Tensor(a!)",
            [](Value p, Value g, Value decay, Value rate, bool maximize) {
              if (maximize) g = -g;
              return p - rate * (g + decay * p);
            })
            .promote(Promotion::kFirst)
            .dtypes_are(kFloating)
            .no_inplace()
            .not_differentiable()
            .in("_C")
            .describe("One step of gradient descent."),
        pointwise(
            "_sgd_momentum_step_(Tensor(a!) self, Tensor(b!) momentum_buffer, Tensor grad, Scalar decay, Scalar momentum, Scalar rate, Scalar dampening, bool nesterov, bool maximize, bool first) -> (Tensor(a!), Tensor(b!))",
            [](Value p, Value buffer, Value g, Value decay, Value momentum, Value rate, Value dampening,
               bool nesterov, bool maximize, bool first) {
              if (maximize) g = -g;
              g = g + decay * p;
              buffer = first ? g : momentum * buffer + (1 - dampening) * g;
              return std::array{p - rate * (nesterov ? g + momentum * buffer : buffer), buffer};
            })
            .promote(Promotion::kFirst)
            .dtypes_are(kFloating)
            .no_inplace()
            .not_differentiable()
            .in("_C")
            .describe("One step of gradient descent with momentum."),
        pointwise(
            "_adagrad_step_(Tensor(a!) self, Tensor(b!) state_sum, Tensor grad, Scalar rate, Scalar decay, Scalar eps, bool maximize) -> (Tensor(a!), Tensor(b!))",
            [](Value p, Value total, Value g, Value rate, Value decay, Value eps, bool maximize) {
              if (maximize) g = -g;
              g = g + decay * p;
              total = total + g * g;
              return std::array{p - rate * g / (sqrt(total) + eps), total};
            })
            .promote(Promotion::kFirst)
            .dtypes_are(kFloating)
            .no_inplace()
            .not_differentiable()
            .in("_C")
            .describe("One step of Adagrad (Duchi, Hazan and Singer 2011)."),

        function(
            "_fused_adam_(Tensor(a!)[] self, Tensor(b!)[] grads, Tensor(c!)[] exp_avgs, Tensor(d!)[] exp_avg_sqs, Tensor(e!)[] max_exp_avg_sqs, Tensor[] state_steps, *, float lr, float beta1, float beta2, float weight_decay, float eps, bool amsgrad, bool maximize, Tensor? grad_scale=None, Tensor? found_inf=None) -> ()",
            [](Args a) { return adam(find_op("_fused_adam_"), a, false); })
            .function_only()
            .describe("A step of Adam for every tensor (Kingma and Ba 2015)."),
        function(
            "_fused_adam_.tensor_lr(Tensor(a!)[] self, Tensor(b!)[] grads, Tensor(c!)[] exp_avgs, Tensor(d!)[] exp_avg_sqs, Tensor(e!)[] max_exp_avg_sqs, Tensor[] state_steps, *, Tensor lr, float beta1, float beta2, float weight_decay, float eps, bool amsgrad, bool maximize, Tensor? grad_scale=None, Tensor? found_inf=None) -> ()",
            [](Args a) { return adam(find_op("_fused_adam_"), a, false); })
            .function_only()
            .describe("A step of Adam for every tensor (Kingma and Ba 2015)."),
        function(
            "_fused_adamw_(Tensor(a!)[] self, Tensor(b!)[] grads, Tensor(c!)[] exp_avgs, Tensor(d!)[] exp_avg_sqs, Tensor(e!)[] max_exp_avg_sqs, Tensor[] state_steps, *, float lr, float beta1, float beta2, float weight_decay, float eps, bool amsgrad, bool maximize, Tensor? grad_scale=None, Tensor? found_inf=None) -> ()",
            [](Args a) { return adam(find_op("_fused_adamw_"), a, true); })
            .function_only()
            .describe(
                "A step of Adam with decoupled weight decay for every tensor (Loshchilov and Hutter 2019)."),
        function(
            "_fused_adamw_.tensor_lr(Tensor(a!)[] self, Tensor(b!)[] grads, Tensor(c!)[] exp_avgs, Tensor(d!)[] exp_avg_sqs, Tensor(e!)[] max_exp_avg_sqs, Tensor[] state_steps, *, Tensor lr, float beta1, float beta2, float weight_decay, float eps, bool amsgrad, bool maximize, Tensor? grad_scale=None, Tensor? found_inf=None) -> ()",
            [](Args a) { return adam(find_op("_fused_adamw_"), a, true); })
            .function_only()
            .describe(
                "A step of Adam with decoupled weight decay for every tensor (Loshchilov and Hutter 2019)."),
        function(
            "_fused_sgd_(Tensor(a!)[] self, Tensor(b!)[] grads, Tensor(c!)[] momentum_buffer_list, *, float weight_decay, float momentum, float lr, float dampening, bool nesterov, bool maximize, bool is_first_step, Tensor? grad_scale=None, Tensor? found_inf=None) -> ()",
            [](Args a) { return sgd(find_op("_fused_sgd_"), a); })
            .function_only()
            .describe("A step of gradient descent for every tensor."),
        function(
            "_fused_sgd_.tensor_lr(Tensor(a!)[] self, Tensor(b!)[] grads, Tensor(c!)[] momentum_buffer_list, *, float weight_decay, float momentum, Tensor lr, float dampening, bool nesterov, bool maximize, bool is_first_step, Tensor? grad_scale=None, Tensor? found_inf=None) -> ()",
            [](Args a) { return sgd(find_op("_fused_sgd_"), a); })
            .function_only()
            .describe("A step of gradient descent for every tensor."),
        function(
            "_fused_adagrad_(Tensor(a!)[] self, Tensor(b!)[] grads, Tensor(c!)[] state_sums, Tensor(d!)[] state_steps, *, float lr, float lr_decay, float weight_decay, float eps, bool maximize, Tensor? grad_scale=None, Tensor? found_inf=None) -> ()",
            [](Args a) { return adagrad(find_op("_fused_adagrad_"), a); })
            .function_only()
            .describe("A step of Adagrad for every tensor (Duchi, Hazan and Singer 2011)."),
        function(
            "_fused_adagrad_.tensor_lr(Tensor(a!)[] self, Tensor(b!)[] grads, Tensor(c!)[] state_sums, Tensor(d!)[] state_steps, *, Tensor lr, float lr_decay, float weight_decay, float eps, bool maximize, Tensor? grad_scale=None, Tensor? found_inf=None) -> ()",
            [](Args a) { return adagrad(find_op("_fused_adagrad_"), a); })
            .function_only()
            .describe("A step of Adagrad for every tensor (Duchi, Hazan and Singer 2011)."),
    });

}  // namespace
}  // namespace lohe::ops
