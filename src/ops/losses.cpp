#include <cmath>
#include <numbers>

#include "lohe/error.h"
#include "ops/reductions.h"
#include "tensor/shape.h"

/// Losses of two tensors, element by element, then reduced. `reduction` is 0 none, 1 mean, 2 sum.
namespace lohe::ops {
namespace {

using namespace ir;

constexpr int64_t kNone = 0, kMean = 1;

/// The broadcast shape of all tensors; reduced as a whole unless the reduction is none.
Domain loss_domain(const OpDef& op, Args a) {
  Domain d;
  d.sizes = a[0].tensor->size_dims();
  for (const Arg& arg : a) {
    if (arg.kind == Arg::kTensor) d.sizes = broadcast_shapes(d.sizes, arg.tensor->sizes());
  }
  const bool none = a[static_cast<size_t>(op.schema.index_of("reduction"))].integer == kNone;
  for (size_t i = 0; i < d.sizes.size(); ++i) d.groups.push_back(none ? kOuter : kRow);
  return d;
}

Node reduced(Node loss, int64_t reduction) {
  if (reduction == kNone) return loss;
  return reduction == kMean ? sum(loss) / count(loss) : sum(loss);
}
/// The cotangent of one element's loss.
Node spread(Node g, int64_t reduction) { return reduction == kMean ? g / count(g) : g; }

void valid_reduction(const OpDef& op, Args a) {
  const int64_t r = a[static_cast<size_t>(op.schema.index_of("reduction"))].integer;
  LOHE_CHECK(r >= 0 && r <= 2, op.schema.base, ": reduction must be 0 (none), 1 (mean) or 2 (sum), got ", r);
}
void no_bools(const OpDef& op, Args a) {
  for (const Arg& arg : a) {
    LOHE_CHECK(arg.kind != Arg::kTensor || arg.tensor->dtype() != Dtype::kBool, op.schema.base,
               ": subtraction with a bool tensor is not supported; convert the tensors to numbers");
  }
}
/// The mean of integers is no integer.
void no_mean_of_integers(const OpDef& op, Args a) {
  valid_reduction(op, a);
  no_bools(op, a);
  const bool integers = is_integral(a[0].tensor->dtype(), true) && is_integral(a[1].tensor->dtype(), true);
  LOHE_CHECK(
      !integers || a[2].integer != kMean, op.schema.base,
      ": could not infer output dtype of the mean. Input dtype must be either a floating point or complex "
      "dtype, got ",
      a[0].tensor->dtype());
}
/// Losses that round integers to nothing useful.
void no_integers(const OpDef& op, Args a) {
  valid_reduction(op, a);
  LOHE_CHECK(!is_integral(a[0].tensor->dtype(), true), op.schema.base,
             ": the result can't be cast to the desired output type ", a[0].tensor->dtype(),
             "; convert the input to a floating dtype");
}
void valid_numbers(const OpDef& op, Args a) {
  valid_reduction(op, a);
  no_bools(op, a);
}
void positive(std::string_view name, const Arg& a, bool zero) {
  const double v = a.scalar().to_double();
  LOHE_CHECK(zero ? v >= 0 : v > 0, name);
}

Node smooth(Node d, Node beta) {
  const Node a = abs(d);
  return select(a < beta, 0.5 * a * a / beta, a - 0.5 * beta);
}
Node smooth_slope(Node d, Node beta) {
  const Node a = abs(d);
  return select(a < beta, d / beta, sign(d));
}
Node huber(Node d, Node delta) {
  const Node a = abs(d);
  return select(a <= delta, 0.5 * a * a, delta * (a - 0.5 * delta));
}
Node huber_slope(Node d, Node delta) { return select(abs(d) <= delta, d, delta * sign(d)); }

/// x * log(y), 0 where x is 0.
Node x_log(Node x, Node log_y) { return select(x == 0, x.literal(0), x * log_y); }

Node cross_entropy_of(Node x, Node t) {
  const auto floor = [](Node l) { return select(l < -100, l.literal(-100), l); };
  x.graph()->check((x >= 0) & (x <= 1), "all elements of input should be between 0 and 1", false);
  return (t - 1) * floor(log1p(-x)) - t * floor(log(x));
}
Node cross_entropy_slope(Node x, Node t) {
  const Node room = (1 - x) * x;
  return (x - t) / select(room < 1e-12, room.literal(1e-12), room);
}

/// log(1 + exp(-x)) without overflow.
Node soft_plus_of_minus(Node x) { return log1p(exp(-abs(x))) + select(x < 0, -x, x.literal(0)); }
Node weighted(Node loss, Node weight) { return weight.defined() ? loss * weight : loss; }

Node logits_loss(Node x, Node t, Node pos_weight) {
  const Node steep = soft_plus_of_minus(x);
  if (!pos_weight.defined()) return (1 - t) * x + steep;
  return (1 - t) * x + ((pos_weight - 1) * t + 1) * steep;
}

Node kl(Node x, Node t, bool log_target) { return log_target ? exp(t) * (t - x) : x_log(t, log(t)) - t * x; }

Node soft_margin(Node x, Node t) { return log1p(exp(-(t * x))); }

Results reduce_tensor(const TensorPtr& loss, const Arg& reduction) {
  static const OpRef sum("sum"), mean("mean");
  return reduction.integer == kNone   ? Results(loss)
         : reduction.integer == kMean ? Results(mean(loss))
                                      : Results(sum(loss));
}

const OpFamily losses(
    "losses",
    {
        composed("mse_loss(Tensor self, Tensor target, int reduction=1) -> Tensor",
                 [](Node x, Node y, int64_t r) { return reduced(square(x - y), r); })
            .over(loss_domain)
            .dtypes_are(kFloating)
            .checked(valid_reduction)
            .function_only()
            .gradient_reads({"self", "target"})
            .describe("(self - target) ** 2."),
        composed("l1_loss(Tensor self, Tensor target, int reduction=1) -> Tensor",
                 [](Node x, Node y, int64_t r) { return reduced(abs(x - y), r); })
            .over(loss_domain)
            .promote(Promotion::kReal)
            .checked(no_mean_of_integers)
            .function_only()
            .gradient_reads({"self", "target"})
            .describe("|self - target|."),
        composed("smooth_l1_loss(Tensor self, Tensor target, int reduction=1, float beta=1.0) -> Tensor",
                 [](Node x, Node y, int64_t r, Node beta) {
                   return reduced(smooth(x - y, cast(beta, x.dtype())), r);
                 })
            .over(loss_domain)
            .dtypes_are(kFloating)
            .runtime({"beta"})
            .function_only()
            .gradient_reads({"self", "target", "beta"})
            .checked([](const OpDef& op, Args a) {
              valid_reduction(op, a);
              positive("smooth_l1_loss does not support negative values for beta.", a[3], true);
            })
            .derivative([](Node g, Node, Node x, Node y, int64_t r, Node beta) {
              const Node d = spread(g, r) * smooth_slope(x - y, cast(beta, x.dtype()));
              return std::array{d, -d};
            })
            .describe("Squared distance over 2 beta below beta, linear above."),
        composed("huber_loss(Tensor self, Tensor target, int reduction=1, float delta=1.0) -> Tensor",
                 [](Node x, Node y, int64_t r, Node delta) {
                   return reduced(huber(x - y, cast(delta, x.dtype())), r);
                 })
            .over(loss_domain)
            .dtypes_are(kFloating)
            .runtime({"delta"})
            .function_only()
            .gradient_reads({"self", "target", "delta"})
            .checked([](const OpDef& op, Args a) {
              valid_reduction(op, a);
              positive("huber_loss does not support non-positive values for delta.", a[3], false);
            })
            .derivative([](Node g, Node, Node x, Node y, int64_t r, Node delta) {
              const Node d = spread(g, r) * huber_slope(x - y, cast(delta, x.dtype()));
              return std::array{d, -d};
            })
            .describe("Half the squared distance below delta, linear above (Huber 1964)."),
        composed(
            "binary_cross_entropy(Tensor self, Tensor target, Tensor? weight=None, int reduction=1) -> Tensor",
            [](Node x, Node t, Node w, int64_t r) { return reduced(weighted(cross_entropy_of(x, t), w), r); })
            .over(loss_domain)
            .dtypes_are(kFloating)
            .checked(valid_reduction)
            .function_only()
            .gradient_reads({"self", "target", "weight"})
            .derivative([](Node g, Node, Node x, Node t, Node w, int64_t r) {
              const Node h = weighted(spread(g, r), w);
              return std::array{h * cross_entropy_slope(x, t), h * (log1p(-x) - log(x)), Node()};
            })
            .describe(
                "-(target log(self) + (1 - target) log(1 - self)) of probabilities; logs are at least -100."),
        composed(
            "binary_cross_entropy_with_logits(Tensor self, Tensor target, Tensor? weight=None, Tensor? pos_weight=None, int reduction=1) -> Tensor",
            [](Node x, Node t, Node w, Node p, int64_t r) {
              return reduced(weighted(logits_loss(x, t, p), w), r);
            })
            .over(loss_domain)
            .dtypes_are(kFloating)
            .checked(valid_reduction)
            .function_only()
            .gradient_reads({"self", "target", "weight", "pos_weight"})
            .derivative([](Node g, Node, Node x, Node t, Node w, Node p, int64_t r) {
              const Node h = weighted(spread(g, r), w);
              if (!p.defined()) return std::array{h * (sigmoid(x) - t), -(h * x), Node(), Node()};
              const Node scaled = p * t;
              return std::array{h * ((scaled + 1 - t) * sigmoid(x) - scaled),
                                h * ((p - 1) * soft_plus_of_minus(x) - x), Node(), Node()};
            })
            .describe("binary_cross_entropy(sigmoid(self), target) without its loss of precision."),
        composed("kl_div(Tensor self, Tensor target, int reduction=1, *, bool log_target=False) -> Tensor",
                 [](Node x, Node t, int64_t r, bool log_target) { return reduced(kl(x, t, log_target), r); })
            .over(loss_domain)
            .dtypes_are(kFloating)
            .checked(valid_reduction)
            .function_only()
            .gradient_reads({"self", "target"})
            .derivative([](Node g, Node, Node x, Node t, int64_t r, bool log_target) {
              const Node h = spread(g, r);
              if (log_target) return std::array{-(h * exp(t)), h * exp(t) * (t - x + 1)};
              return std::array{-(h * t), h * select(t == 0, t.literal(0), log(t) + 1 - x)};
            })
            .describe(
                "target (log(target) - self): divergence of probabilities target from log-probabilities self."),
        composed("soft_margin_loss(Tensor self, Tensor target, int reduction=1) -> Tensor",
                 [](Node x, Node t, int64_t r) { return reduced(soft_margin(x, t), r); })
            .over(loss_domain)
            .dtypes_are(kFloatingOrComplex)
            .checked(no_integers)
            .function_only()
            .gradient_reads({"self", "target"})
            .derivative([](Node g, Node, Node x, Node t, int64_t r) {
              if (is_complex(x.dtype())) {
                const Node e = exp(-(t * x)), slope = -(spread(g, r) * conj(e / (1 + e)));
                return std::array{slope * conj(t), slope * conj(x)};
              }
              const Node slope = -(spread(g, r) * sigmoid(-(t * x)));
              return std::array{slope * t, slope * x};
            })
            .describe("log(1 + exp(-target self))."),
        composed(
            "margin_ranking_loss(Tensor input1, Tensor input2, Tensor target, float margin=0.0, int reduction=1) -> Tensor",
            [](Node a, Node b, Node t, Node margin, int64_t r) {
              const Node loss = -t * (a - b) + cast(margin, a.dtype());
              return reduced(select(loss < 0, loss.literal(0), loss), r);
            })
            .over(loss_domain)
            .promote(Promotion::kFloat)
            .dtypes_are(kFloating)
            .checked(valid_numbers)
            .runtime({"margin"})
            .function_only()
            .describe("max(0, -target (input1 - input2) + margin)."),
        function(
            "hinge_embedding_loss(Tensor self, Tensor target, float margin=1.0, int reduction=1) -> Tensor",
            [](Args a) {
              static const OpRef row("_hinge_embedding_loss"), detach("detach");
              return Results(row(a[0], detach(a[1]), a[2], a[3]));  // the target only chooses
            })
            .function_only()
            .describe("self where target is 1, max(0, margin - self) where it is -1."),
        composed("_hinge_embedding_loss(Tensor self, Tensor target, float margin, int reduction) -> Tensor",
                 [](Node x, Node t, Node margin, int64_t r) {
                   const Node room = cast(margin, x.dtype()) - x, zero = x.literal(0);
                   return reduced(
                       select(t != 1, select(room < 0, zero, room), zero) + select(t != -1, x, zero), r);
                 })
            .over(loss_domain)
            .dtypes_are(kFloating)
            .checked(valid_reduction)
            .runtime({"margin"})
            .in("_C")
            .describe("hinge_embedding_loss of a target that takes no gradient."),
        composed(
            "poisson_nll_loss(Tensor input, Tensor target, bool log_input, bool full, float eps, int reduction) -> Tensor",
            [](Node x, Node t, bool log_input, bool full, Node eps, int64_t r) {
              Node loss = log_input ? exp(x) - t * x : x - t * log(x + cast(eps, x.dtype()));
              if (full) {
                const Node stirling = t * log(t) - t + 0.5 * log(2 * std::numbers::pi * t);
                loss = loss + select(t <= 1, t.literal(0), stirling);
              }
              return reduced(loss, r);
            })
            .over(loss_domain)
            .promote(Promotion::kFloat)
            .dtypes_are(kFloating)
            .checked(valid_numbers)
            .runtime({"eps"})
            .function_only()
            .describe(
                "Negative log likelihood of counts target under a Poisson distribution of (log) rate input."),
        function(
            "cosine_embedding_loss(Tensor input1, Tensor input2, Tensor target, float margin=0.0, int reduction=1) -> Tensor",
            [](Args a) {
              static const OpRef mul("mul"), add("add"), sub("sub"), rsub("rsub"), sum("sum.dim_IntList"),
                  sqrt("sqrt"), div("div"), clamp("clamp_min"), where("where.self"), eq("eq"),
                  zeros("zeros_like");
              const TensorImpl &x = *a[0].tensor, &y = *a[1].tensor, &t = *a[2].tensor;
              LOHE_CHECK(t.dim() == 0 || t.dim() == 1,
                         "0D or 1D target tensor expected, multi-target not supported");
              LOHE_CHECK(t.dim() == 0 ? x.dim() == 1 && y.dim() == 1 : x.dim() == 2 && y.dim() == 2,
                         t.dim() == 0 ? "1D" : "2D", " input tensors expected for target of ", t.dim(),
                         " dims, but found inputs with sizes ", to_string(x.sizes()), " and ",
                         to_string(y.sizes()), ".");
              const Dims last{t.dim()};
              constexpr double kSmall = 1e-12;
              const TensorPtr product = sum(mul(a[0], a[1]), last);
              const TensorPtr length =
                  mul(add(sum(mul(a[0], a[0]), last), kSmall), add(sum(mul(a[1], a[1]), last), kSmall));
              const TensorPtr cosine = div(product, sqrt(length)), zero = zeros(cosine);
              const TensorPtr alike = where(eq(a[2], int64_t{1}), rsub(cosine, int64_t{1}), zero);
              const TensorPtr apart =
                  where(eq(a[2], int64_t{-1}), clamp(sub(cosine, a[3]), int64_t{0}), zero);
              return reduce_tensor(add(alike, apart), a[4]);
            })
            .function_only()
            .describe("1 - cosine where target is 1, max(0, cosine - margin) where it is -1."),
        function(
            "triplet_margin_loss(Tensor anchor, Tensor positive, Tensor negative, float margin=1.0, float p=2, float eps=1e-06, bool swap=False, int reduction=1) -> Tensor",
            [](Args a) {
              static const OpRef distance("pairwise_distance"), minimum("minimum"), add("add"), sub("sub"),
                  clamp("clamp_min");
              LOHE_CHECK(
                  a[0].tensor->dim() == a[1].tensor->dim() && a[0].tensor->dim() == a[2].tensor->dim(),
                  "The anchor, positive, "
                  "and negative tensors are expected to have the same number of dimensions, but got: anchor ",
                  a[0].tensor->dim(), "D, positive ", a[1].tensor->dim(), "D, and negative ",
                  a[2].tensor->dim(), "D inputs");
              positive("triplet_margin_loss: expected margin to be greater than 0", a[3], false);
              const TensorPtr near = distance(a[0], a[1], a[4], a[5]);
              TensorPtr far = distance(a[0], a[2], a[4], a[5]);
              if (a[6].integer != 0) far = minimum(far, distance(a[1], a[2], a[4], a[5]));
              return reduce_tensor(clamp(add(sub(near, far), a[3]), int64_t{0}), a[7]);
            })
            .function_only()
            .describe("max(0, margin + |anchor - positive| - |anchor - negative|) (Balntas et al. 2016)."),
    });

}  // namespace
}  // namespace lohe::ops
