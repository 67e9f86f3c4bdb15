#include "lohe/error.h"
#include "ops/public_name.h"
#include "ops/reductions.h"
#include "tensor/shape.h"

/// Losses of scores over classes: (C), (N, C) or (N, C, d1...).
namespace lohe::ops {
namespace {

using namespace ir;

constexpr int64_t kNone = 0, kMean = 1;

size_t class_dim(const TensorImpl& x) { return x.dim() > 1 ? 1 : 0; }

/// kRow: the classes; kOuter: samples and positions.
Domain class_domain(const OpDef& op, Args a) {
  Domain d;
  const TensorImpl& x = *a[0].tensor;
  const size_t classes = class_dim(x);
  d.sizes = x.size_dims();
  d.dims_of.resize(op.schema.params.size());
  const bool same_shape = a[1].tensor->dim() == x.dim();
  for (size_t i = 0; i < d.sizes.size(); ++i) {
    d.groups.push_back(i == classes ? kRow : kOuter);
    if (same_shape || i != classes) d.dims_of[1].push_back(static_cast<int8_t>(i));
  }
  d.dims_of[2].push_back(static_cast<int8_t>(classes));
  return d;
}

/// Makes a result one number a sample.
void per_sample(Meta& m, const Domain& d) {
  for (size_t i = 0; i < d.sizes.size(); ++i) {
    if (d.groups[i] != kOuter) continue;
    m.sizes.push_back(d.sizes[i]);
    m.dims.push_back(static_cast<int8_t>(i));
  }
}

/// A loss a sample, or one number; of two results, the second is one number.
std::vector<Meta> class_results(const OpDef& op, Args a, const Domain& d, Dtype) {
  std::vector<Meta> metas(op.schema.returns.size());
  if (a[static_cast<size_t>(op.schema.index_of("reduction"))].integer == kNone) per_sample(metas[0], d);
  return metas;
}

/// The same, and numbers a sample.
std::vector<Meta> with_statistics(const OpDef& op, Args a, const Domain& d, Dtype dtype) {
  std::vector<Meta> metas = class_results(op, a, d, dtype);
  for (size_t k = 1; k < metas.size(); ++k) per_sample(metas[k], d);
  return metas;
}

void check_scores(const OpDef& op, Args a) {
  const TensorImpl& x = *a[0].tensor;
  LOHE_CHECK(x.dim() > 0, public_name(op.schema.base), ": input must have at least one dim, the classes");
  const int64_t n = x.sizes()[class_dim(x)];
  LOHE_CHECK(a[2].none() || (a[2].tensor->dim() == 1 && a[2].tensor->numel() == n),
             "weight tensor should be defined either for all ", n,
             " classes or no classes but got weight tensor of shape: ",
             a[2].none() ? std::string() : to_string(a[2].tensor->sizes()));
}
void check_indices(const OpDef& op, Args a) {
  const TensorImpl &x = *a[0].tensor, &t = *a[1].tensor;
  Dims expected;
  for (size_t i = 0; i < x.sizes().size(); ++i) {
    if (i != class_dim(x)) expected.push_back(x.sizes()[i]);
  }
  LOHE_CHECK_KIND(kValue, x.dim() < 2 || t.dim() == 0 || t.sizes()[0] == x.sizes()[0],
                  "Expected input batch_size (", x.sizes()[0], ") to match target batch_size (",
                  t.dim() == 0 ? 0 : t.sizes()[0], ").");
  LOHE_CHECK(t.size_dims() == expected, public_name(op.schema.base), ": expected target of shape ",
             to_string(expected), " for input of shape ", to_string(x.sizes()), ", got ",
             to_string(t.sizes()));
  LOHE_CHECK(t.dtype() == Dtype::kInt64 || t.dtype() == Dtype::kUInt8 || t.dtype() == Dtype::kInt32,
             "expected scalar type Long but found ", t.dtype());
}
void check_classes(const OpDef& op, Args a) {
  check_scores(op, a);
  check_indices(op, a);
}
/// Targets are class indices, or probabilities of the scores' shape.
void check_cross_entropy(const OpDef& op, Args a) {
  check_scores(op, a);
  const bool probabilities = a[0].tensor->size_dims() == a[1].tensor->size_dims();
  if (!probabilities) check_indices(op, a);
  LOHE_CHECK(!probabilities || is_floating(a[1].tensor->dtype()),
             "Expected floating point type for target with class probabilities, got ", a[1].tensor->dtype());
  const double s = a[5].scalar().to_double();
  LOHE_CHECK(s >= 0 && s <= 1, "label_smoothing must be between 0.0 and 1.0. Got: ", s);
  LOHE_CHECK(!probabilities || a[4].integer < 0, "ignore_index is not supported for floating point target");
}

/// Class indices and what follows from them. Ignored samples weigh nothing.
struct Targets {
  Node hit;     ///< at the target's class
  Node valid;   ///< not ignored
  Node weight;  ///< of the sample: that of its class, 0 if ignored
};
Targets targets(Node x, Node target, Node weight, Node ignore_index, bool index_error = true) {
  Graph& g = *x.graph();
  Targets t;
  const Node index = cast(target, Dtype::kInt64);
  t.valid = index != ignore_index;
  // One comparison of small integers for each element: what is ignored is at no class, and what is out of
  // range raises.
  const Node small = cast(index, Dtype::kInt32);
  t.hit = g.iota(kRow, Dtype::kInt32) == select(t.valid, small, small.literal(-1));
  g.check(~t.valid | ((index >= 0) & (index < g.extent(Dtype::kInt64, kRow))), "Target is out of bounds.",
          index_error);
  t.weight = select(t.valid, weight.defined() ? sum(select(t.hit, weight, x.literal(0))) : x.literal(1),
                    x.literal(0));
  return t;
}

Node total(Node per_sample) { return sum(per_sample, kOuter); }

/// -weight[target] * x[target]
std::array<Node, 2> negative_log_likelihood(Node x, Node target, Node weight, int64_t reduction,
                                            Node ignore_index) {
  const Targets t = targets(x, target, weight, ignore_index);
  const Node picked = sum(select(t.hit, x, x.literal(0)));
  const Node loss = select(t.valid, -(t.weight * picked), x.literal(0));
  if (reduction == kNone) return {loss, x.literal(0)};
  const Node weights = total(t.weight);
  return {reduction == kMean ? total(loss) / weights : total(loss), weights};
}
std::array<Node, 3> negative_log_likelihood_gradient(Node g, Node x, Node target, Node weight,
                                                     int64_t reduction, Node ignore_index) {
  const Targets t = targets(x, target, weight, ignore_index);
  const Node h = reduction == kMean ? g / total(t.weight) : g;
  return {select(t.hit, -(t.weight * h), x.literal(0)), {}, {}};
}

/// Cross entropy is -sum(q * log_softmax(x)) with q from the target: smoothed probabilities times the
/// classes' weights. With each sample's highest score and the sum of exponentials of scores less that.
std::array<Node, 3> cross_entropy(Node x, Node target, Node weight, int64_t reduction, Node ignore_index,
                                  double smoothing) {
  const Node highest = amax(x), mass = sum(exp(x - highest)), lse = log(mass) + highest,
             classes = count(x, kRow);
  if (is_floating(target.dtype())) {
    Node q = target;
    if (smoothing > 0) q = q * (1 - smoothing) + smoothing / classes;
    if (weight.defined()) q = q * weight;
    Node loss = sum(q * (lse - x));
    if (reduction != kNone) loss = reduction == kMean ? total(loss) / count(x, kOuter) : total(loss);
    return {loss, highest, mass};
  }
  const Targets t = targets(x, target, weight, ignore_index);
  const Node zero = x.literal(0);
  Node loss = t.weight * (lse - sum(select(t.hit, x, zero)));
  if (smoothing > 0) {
    const Node away = sum(weight.defined() ? weight * (lse - x) : lse - x);
    loss = (1 - smoothing) * loss + smoothing / classes * away;
  }
  loss = select(t.valid, loss, zero);
  if (reduction != kNone) loss = reduction == kMean ? total(loss) / total(t.weight) : total(loss);
  return {loss, highest, mass};
}

/// Gradients of x, target and weight. The softmax is made from the statistics.
std::array<Node, 3> cross_entropy_gradient(Node g, Node x, Node highest, Node mass, Node target, Node weight,
                                           int64_t reduction, Node ignore_index, double smoothing) {
  const Node p = exp(x - highest) / mass, classes = count(x, kRow);
  if (is_floating(target.dtype())) {
    const Node h = reduction == kMean ? g / count(x, kOuter) : g;
    Node q = target;
    if (smoothing > 0) q = q * (1 - smoothing) + smoothing / classes;
    if (weight.defined()) q = q * weight;
    Node dq = h * (log(mass) + highest - x);
    if (weight.defined()) dq = dq * weight;
    if (smoothing > 0) dq = dq * (1 - smoothing);
    return {h * (p * sum(q) - q), dq, {}};
  }
  const Targets t = targets(x, target, weight, ignore_index);
  const Node zero = x.literal(0);
  const Node h = select(t.valid, reduction == kMean ? g / total(t.weight) : g, zero);
  if (smoothing == 0) {
    const Node slope = h * t.weight;
    return {slope * select(t.hit, p - 1, p), {}, {}};
  }
  const Node share = smoothing / classes;
  const Node all = weight.defined() ? weight * share : share;
  const Node at_hit = (1 - smoothing) * t.weight;
  const Node sum_q = at_hit + (weight.defined() ? share * sum(weight) : share * classes);
  return {h * (p * sum_q - (select(t.hit, at_hit, zero) + all)), {}, {}};
}

/// Scores (C) or (N, C); targets of the same shape list classes up to the first -1.
Results multilabel_margin(Args a) {
  static const OpRef reshape("reshape"), contiguous("contiguous"), to("to.dtype"), full("full"),
      gather("gather"), row("_multilabel_margin_loss"), mean("mean"), sum_row("sum");
  const TensorImpl &x = *a[0].tensor, &t = *a[1].tensor;
  LOHE_CHECK(
      x.dim() <= 2 && (x.dim() < 2 || x.sizes()[1] != 0),
      "Expected non-empty vector or matrix with optional 0-dim batch size, but got: ", to_string(x.sizes()));
  LOHE_CHECK(x.dim() < 2 ? t.dim() <= 1 && t.numel() == x.numel() : t.size_dims() == x.size_dims(),
             "inconsistent target size: ", to_string(t.sizes()),
             " for input of size: ", to_string(x.sizes()));
  LOHE_CHECK_KIND(kNotImplemented, x.dtype() == Dtype::kFloat32 || x.dtype() == Dtype::kFloat64,
                  "\"multilabel_margin_loss\" not implemented for '", x.dtype(),
                  "'; convert to float32 or float64");
  LOHE_CHECK(is_integral(t.dtype(), false), "multilabel_margin_loss: expected an int64 target, got ",
             t.dtype());
  const Dims sizes = x.dim() < 2 ? Dims{1, x.numel()} : x.size_dims();
  const TensorPtr scores = reshape(a[0], sizes),
                  targets = contiguous(reshape(to(a[1], Dtype::kInt64), sizes));
  const TensorPtr listed = full(sizes, false, Dtype::kBool), is_target = full(sizes, false, Dtype::kBool),
                  index = full(sizes, int64_t{0}, Dtype::kInt64);
  const auto* target = reinterpret_cast<const int64_t*>(targets->data());
  const int64_t classes = sizes[1];
  for (int64_t i = 0; i < targets->numel(); ++i) {
    LOHE_CHECK(target[i] >= -1 && target[i] < classes,
               "multilabel_margin_loss: argument 'target' is out of range: ", target[i], " for ", classes,
               " classes");
  }
  for (int64_t n = 0; n < sizes[0]; ++n) {
    for (int64_t k = n * classes; k < (n + 1) * classes && target[k] >= 0; ++k) {
      reinterpret_cast<bool*>(listed->data())[k] = true;
      reinterpret_cast<bool*>(is_target->data())[n * classes + target[k]] = true;
      reinterpret_cast<int64_t*>(index->data())[k] = target[k];
    }
  }
  const TensorPtr loss = row(gather(scores, int64_t{1}, index), listed, scores, is_target);
  if (a[2].integer == kNone) return Results(x.dim() < 2 ? TensorPtr(reshape(loss, Dims{})) : loss);
  return Results(a[2].integer == kMean ? mean(loss) : sum_row(loss));
}

const OpFamily class_losses(
    "class_losses",
    {
        composed(
            "nll_loss_forward(Tensor self, Tensor target, Tensor? weight, int reduction, int ignore_index) -> (Tensor output, Tensor total_weight)",
            negative_log_likelihood)
            .over(class_domain)
            .shaped(class_results)
            .promote(Promotion::kFirst)
            .dtypes_are(kFloating)
            .checked(check_classes)
            .runtime({"ignore_index"})
            .function_only()
            .gradient_reads({"target", "weight", "ignore_index"})
            .derivative([](Node g, Node, Node, Node, Node x, Node target, Node weight, int64_t r,
                           Node ignore_index) {
              return negative_log_likelihood_gradient(g, x, target, weight, r, ignore_index);
            })
            .describe("nll_loss, with the sum of the weights that the mean divides by."),
        function(
            "nll_loss(Tensor self, Tensor target, Tensor? weight=None, int reduction=1, int ignore_index=-100) -> Tensor",
            [](Args a) {
              static const OpRef row("nll_loss_forward");
              return row(a[0], a[1], a[2], a[3], a[4]);
            })
            .function_only()
            .out()
            .describe("-weight[target] * self[target] of log-probabilities (N, C) and class indices (N)."),
        function(
            "nll_loss2d(Tensor self, Tensor target, Tensor? weight=None, int reduction=1, int ignore_index=-100) -> Tensor",
            [](Args a) {
              static const OpRef row("nll_loss_forward");
              return row(a[0], a[1], a[2], a[3], a[4]);
            })
            .function_only()
            .out()
            .describe("nll_loss of log-probabilities (N, C, H, W) and class indices (N, H, W)."),
        function(
            "nll_loss_nd(Tensor self, Tensor target, Tensor? weight=None, int reduction=1, int ignore_index=-100) -> Tensor",
            [](Args a) {
              static const OpRef row("nll_loss_forward");
              return row(a[0], a[1], a[2], a[3], a[4]);
            })
            .function_only()
            .describe("nll_loss of log-probabilities (N, C, ...) and class indices (N, ...)."),
        composed(
            "_cross_entropy_loss(Tensor self, Tensor target, Tensor? weight, int reduction, int ignore_index, float label_smoothing) -> (Tensor, Tensor, Tensor)",
            [](Node x, Node target, Node weight, int64_t r, Node ignore_index, Arg smoothing) {
              return cross_entropy(x, target, weight, r, ignore_index, smoothing.scalar().to_double());
            })
            .over(class_domain)
            .shaped(with_statistics)
            .promote(Promotion::kFirst)
            .wide_statistics()
            .dtypes_are(kFloating)
            .checked(check_cross_entropy)
            .runtime({"ignore_index"})
            .in("_C")
            .gradient_reads({"self", "target", "weight", "ignore_index", "result1", "result2"})
            .derivative([](Node g, Node, Node g_mass, Node, Node highest, Node mass, Node x, Node target,
                           Node weight, int64_t r, Node ignore_index, Arg smoothing) {
              std::array<Node, 3> gradients;
              if (g.defined())
                gradients = cross_entropy_gradient(g, x, highest, mass, target, weight, r, ignore_index,
                                                   smoothing.scalar().to_double());
              // Second derivatives. What is made of the statistics does not depend on the highest score, by
              // which both are shifted, so that it may count as a constant.
              if (g_mass.defined()) {
                const Node flows = g_mass * exp(x - highest);
                gradients[0] = gradients[0].defined() ? gradients[0] + flows : flows;
              }
              return gradients;
            })
            .describe("cross_entropy_loss, with the statistics of each sample that its gradient reads."),
        function(
            "cross_entropy_loss(Tensor self, Tensor target, Tensor? weight=None, int reduction=1, int ignore_index=-100, float label_smoothing=0.0) -> Tensor",
            [](Args a) {
              static const OpRef row("_cross_entropy_loss");
              return row(a[0], a[1], a[2], a[3], a[4], a[5]);
            })
            .function_only()
            .describe(
                "-log(softmax(self)) at the target classes, or weighted by class probabilities target."),
        function(
            "multi_margin_loss(Tensor self, Tensor target, Scalar p=1, Scalar margin=1, Tensor? weight=None, int reduction=1) -> Tensor",
            [](Args a) {
              static const OpRef row("_multi_margin_loss");
              const double p = a[2].scalar().to_double();
              LOHE_CHECK(p == 1 || p == 2, "only p == 1 and p == 2 supported");
              const TensorImpl &x = *a[0].tensor, &t = *a[1].tensor;
              const double margin = a[3].scalar().to_double();
              if (x.dim() > 1) return Results(row(a[0], a[1], a[4], p == 2, margin, a[5]));
              // One sample: its target may have a dim, and so has then the loss.
              static const OpRef reshape("reshape");
              LOHE_CHECK(t.numel() == 1,
                         "multi_margin_loss: inconsistent target size, expected one target for input ",
                         to_string(x.sizes()), ", got ", to_string(t.sizes()));
              const TensorPtr loss =
                  row(reshape(a[0], Dims{1, x.numel()}), reshape(a[1], Dims{1}), a[4], p == 2, margin, a[5]);
              return Results(a[5].integer == kNone ? TensorPtr(reshape(loss, t.sizes())) : loss);
            })
            .function_only()
            .out()
            .describe("sum(max(0, margin - self[target] + self[other]) ** p) / C."),
        composed(
            "_multi_margin_loss(Tensor self, Tensor target, Tensor? weight, bool squared, float margin, int reduction) -> Tensor",
            [](Node x, Node target, Node weight, bool squared, Node margin, int64_t r) {
              Graph& g = *x.graph();
              const Targets t = targets(x, target, {}, g.constant_int(Dtype::kInt64, -1), false);
              const Node zero = x.literal(0);
              const Node room = cast(margin, x.dtype()) - sum(select(t.hit, x, zero)) + x;
              Node term = select((room > 0) & ~t.hit, room, zero);
              if (squared) term = term * term;
              if (weight.defined()) term = term * sum(select(t.hit, weight, zero));
              const Node loss = sum(term) / count(x, kRow);
              return r == kNone ? loss : r == kMean ? total(loss) / count(x, kOuter) : total(loss);
            })
            .over(class_domain)
            .shaped(class_results)
            .promote(Promotion::kFirst)
            .dtypes_are(kFloating)
            .checked(check_classes)
            .runtime({"margin"})
            .in("_C")
            .describe("multi_margin_loss with a static power."),
        function("multilabel_margin_loss(Tensor self, Tensor target, int reduction=1) -> Tensor",
                 multilabel_margin)
            .function_only()
            .out()
            .describe(
                "sum over targets y and other classes i of max(0, 1 - (self[y] - self[i])) / C; -1 ends targets."),
        composed(
            "_multilabel_margin_loss(Tensor picked, Tensor listed, Tensor self, Tensor is_target) -> Tensor",
            [](Node picked, Node listed, Node x, Node is_target) {
              const Node room = 1 - picked + x;
              const Node term = select((room > 0) & listed & ~is_target, room, room.literal(0));
              return sum(term, kGroupA | kRow) / count(x, kRow);
            })
            .over([](const OpDef&, Args a) {
              // Samples, listed targets, classes.
              Domain d;
              const auto picked = a[0].tensor->sizes(), x = a[2].tensor->sizes();
              d.sizes = {picked[0], picked[1], x[1]};
              d.groups = {kOuter, kGroupA, kRow};
              d.dims_of = {{0, 1}, {0, 1}, {0, 2}, {0, 2}};
              return d;
            })
            .shaped([](const OpDef&, Args, const Domain& d, Dtype) {
              Meta m;
              m.sizes = {d.sizes[0]};
              m.dims = {0};
              return std::vector<Meta>{m};
            })
            .promote(Promotion::kFirst)
            .dtypes_are(kFloats)
            .mask("listed")
            .mask("is_target")
            .in("_C")
            .describe(
                "multilabel_margin_loss of each sample: scores of the listed targets against all scores."),
    });

}  // namespace
}  // namespace lohe::ops
