#include "lohe/error.h"
#include "ops/reductions.h"
#include "tensor/shape.h"

/// Normalization over trailing dims, channels and groups of channels. Variances take two passes.
namespace lohe::ops {
namespace {

using namespace ir;

/// Value minus mean, and 1 / sqrt(variance + eps), over `groups`.
struct Moments {
  Node mean, variance, rstd;
};
Moments moments(Node x, Node eps, Space groups = kRow) {
  Moments m;
  m.mean = sum(x, groups) / count(x, groups);
  m.variance = sum(square(x - m.mean), groups) / count(x, groups);
  m.rstd = rsqrt(m.variance + cast(eps, x.dtype()));
  return m;
}
Node affine(Node normalized, Node weight, Node bias) {
  if (weight.defined()) normalized = normalized * weight;
  if (bias.defined()) normalized = normalized + bias;
  return normalized;
}
/// What flows into a normalization's results; undefined where nothing does. The statistics have cotangents
/// too: second derivatives pass through them.
struct Cotangents {
  Node out, mean, rstd, variance;
};
/// Gradients of input, weight and bias of a normalization whose statistics span `groups`.
std::array<Node, 3> normalization_gradient(const Cotangents& g, Node x, Node weight, Node mean, Node rstd,
                                           Space groups = kRow) {
  const Node normalized = (x - mean) * rstd;
  const Node n = count(x, groups);
  Node dx;
  const auto flows = [&dx](Node part) { dx = dx.defined() ? dx + part : part; };
  if (g.out.defined()) {
    const Node h = weight.defined() ? g.out * weight : g.out;
    flows(rstd * (h - (sum(h, groups) + normalized * sum(h * normalized, groups)) / n));
  }
  if (g.mean.defined()) flows(g.mean / n);
  if (g.rstd.defined()) flows(-(g.rstd * square(rstd) * normalized / n));
  if (g.variance.defined()) flows((g.variance + g.variance) * (x - mean) / n);
  if (!g.out.defined()) return {dx, Node{}, Node{}};
  return {dx, g.out * normalized, g.out};
}

void check_trailing(const OpDef& op, Args a) {
  const TensorImpl& x = *a[0].tensor;
  const auto shape = a[1].int_list();
  LOHE_CHECK(
      !shape.empty(),
      "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one element, but got "
      "normalized_shape = ",
      to_string(shape));
  const bool fits = x.sizes().size() >= shape.size() &&
                    std::equal(shape.begin(), shape.end(), x.sizes().end() - static_cast<long>(shape.size()));
  LOHE_CHECK(fits, "Given normalized_shape=", to_string(shape), ", expected input with shape [*, ",
             to_string(shape).substr(1), ", but got input of size", to_string(x.sizes()));
  for (const size_t p : {size_t{2}, size_t{3}}) {
    if (p >= a.size() || a[p].kind != Arg::kTensor) continue;
    LOHE_CHECK(
        std::equal(shape.begin(), shape.end(), a[p].tensor->sizes().begin(), a[p].tensor->sizes().end()),
        "Expected ", op.schema.params[p].name, " to be of same shape as normalized_shape, but got ",
        op.schema.params[p].name, " of shape ", to_string(a[p].tensor->sizes()),
        " and normalized_shape = ", to_string(shape));
  }
}

/// Results: like the input, then statistics with the reduced dims as 1 (dims in `kept` groups otherwise).
std::vector<Meta> with_statistics(const OpDef& op, Args a, const Domain& d, Dtype) {
  (void)a;
  Meta out, statistic;
  out.sizes = d.sizes;
  for (size_t i = 0; i < d.sizes.size(); ++i) {
    const bool kept = d.groups[i] != kRow;
    statistic.sizes.push_back(kept ? d.sizes[i] : 1);
    statistic.dims.push_back(static_cast<int8_t>(kept ? static_cast<int>(i) : -1));
  }
  std::vector<Meta> metas{out};
  while (metas.size() < op.schema.returns.size()) metas.push_back(statistic);
  return metas;
}

/// The statistics are told, not differentiated: gradients flow through the first result alone.
Results with_plain_statistics(Results r) {
  static const OpRef detach("detach");
  for (int k = 1; k < r.size(); ++k) r[k] = detach(r[k]);
  return r;
}

// --- channels

bool is_list_of(const Arg& a, int64_t n) { return a.kind != Arg::kTensor || a.tensor->numel() == n; }

void check_channels(Args a, int64_t channels) {
  static constexpr std::string_view names[] = {"weight", "bias", "running_mean", "running_var"};
  for (size_t p = 1; p <= 4; ++p) {
    LOHE_CHECK(is_list_of(a[p], channels), names[p - 1], " should contain ", channels, " elements not ",
               a[p].kind == Arg::kTensor ? a[p].tensor->numel() : 0);
  }
}

void move_running(const Arg& running, const TensorPtr& value, double momentum, double factor) {
  static const OpRef update("_move_running_");
  if (running.kind != Arg::kTensor) return;
  const NoGrad no_grad;
  update(running, value, momentum, factor);
}

/// input, weight, bias, running_mean, running_var, training, momentum, eps -> out, mean, inverse deviation.
Results native_batch_norm(Args a) {
  static const OpRef train("_batch_norm_train"), eval("_batch_norm_eval"), empty("empty");
  const TensorImpl& x = *a[0].tensor;
  LOHE_CHECK(x.dim() >= 2, "batch_norm: expected at least a 2D input (N, C, ...), got ", x.dim(), "D input");
  const int64_t channels = x.sizes()[1];
  check_channels(a, channels);
  const double momentum = a[6].scalar().to_double();
  if (a[5].integer == 0) {
    LOHE_CHECK(!a[3].none() && !a[4].none(),
               "batch_norm: running_mean and running_var must be given in evaluation mode");
    const TensorPtr none = empty(Dims{0}, x.dtype());
    return {eval(a[0], a[1], a[2], a[3], a[4], a[7]), none, none};
  }
  const Results r = train.all(a[0], a[1], a[2], a[7]);
  const auto n = static_cast<double>(channels == 0 ? 0 : x.numel() / channels);
  move_running(a[3], r[1], momentum, 1);
  move_running(a[4], r[3], momentum, n / (n - 1));
  return with_plain_statistics({r[0], r[1], r[2]});
}

Results instance_norm(Args a) {
  static const OpRef reshape("reshape"), repeat("repeat"), mean("mean.dim"), copy("copy_"), view("view"),
      contiguous("contiguous");
  const TensorImpl& x = *a[0].tensor;
  LOHE_CHECK(x.dim() >= 2, "instance_norm: expected at least a 2D input (N, C, ...), got ", x.dim(),
             "D input");
  LOHE_CHECK(a[5].integer != 0 || (!a[3].none() && !a[4].none()),
             "Expected running_mean and running_var to be defined when "
             "use_input_stats is false");
  const int64_t n = x.sizes()[0], channels = x.sizes()[1];
  check_channels(a, channels);
  Dims merged{1, n * channels};
  for (size_t d = 2; d < x.sizes().size(); ++d) merged.push_back(x.sizes()[d]);
  TensorPtr repeated[5];
  for (size_t p = 1; p <= 4; ++p) {
    if (a[p].kind == Arg::kTensor) repeated[p] = repeat(a[p], Dims{n});
  }
  const TensorPtr y =
      native_batch_norm(std::array{Arg(reshape(a[0], merged)), Arg(repeated[1]), Arg(repeated[2]),
                                   Arg(repeated[3]), Arg(repeated[4]), a[5], a[6], a[7]})[0];
  for (const size_t p : {size_t{3}, size_t{4}}) {
    if (a[5].integer == 0 || a[p].kind != Arg::kTensor) continue;
    const NoGrad no_grad;
    copy(a[p], mean(view(repeated[p], Dims{n, channels}), Dims{0}));
  }
  return view(y, x.sizes());
}

// --- groups of channels: the input as [N, groups, channels a group, positions]

Domain group_domain(const OpDef& op, Args a) {
  Domain d;
  d.sizes = a[0].tensor->size_dims();
  d.groups = {kOuter, kGroupA, kGroupB, kRow};
  d.dims_of.resize(op.schema.params.size());
  for (const size_t p : {size_t{1}, size_t{2}}) {
    if (a[p].kind == Arg::kTensor) d.dims_of[p] = {1, 2};
  }
  return d;
}
std::vector<Meta> group_results(const OpDef&, Args a, const Domain& d, Dtype) {
  (void)a;
  Meta out, statistic;
  out.sizes = d.sizes;
  statistic.sizes = {d.sizes[0], d.sizes[1]};
  statistic.dims = {0, 1};
  return {out, statistic, statistic};
}
constexpr Space kWithinGroup = kGroupB | kRow;

Results native_group_norm(TensorPtr x, const Arg& weight, const Arg& bias, int64_t n, int64_t channels,
                          int64_t positions, int64_t groups, const Arg& eps) {
  static const OpRef row("_group_norm"), reshape("reshape"), view("view");
  const Dims shape(x->sizes());
  const Dims of_group{groups, groups == 0 ? 0 : channels / groups};
  TensorPtr w, b;
  if (!weight.none()) w = reshape(weight, of_group);
  if (!bias.none()) b = reshape(bias, of_group);
  Results r = row.all(reshape(x, Dims{n, groups, of_group[1], positions}), w, b, eps);
  r[0] = view(r[0], shape);
  return r;
}

Results group_norm(Args a) {
  const TensorImpl& x = *a[0].tensor;
  LOHE_CHECK(x.dim() >= 2, "Expected at least 2 dimensions for input tensor but received ", x.dim());
  const int64_t n = x.sizes()[0], channels = x.sizes()[1], groups = a[1].integer;
  LOHE_CHECK(groups > 0, "Expected num groups to be greater than 0, got ", groups);
  LOHE_CHECK(channels % groups == 0,
             "Expected number of channels in input to be divisible by num_groups, but got input of shape ",
             to_string(x.sizes()), " and num_groups=", groups);
  for (const size_t p : {size_t{2}, size_t{3}}) {
    LOHE_CHECK(a[p].none() || (a[p].tensor->dim() == 1 && a[p].tensor->numel() == channels), "Expected ",
               p == 2 ? "weight" : "bias",
               " to be a vector of size equal to the number of channels in input, but got ",
               p == 2 ? "weight" : "bias", " of shape ",
               a[p].none() ? std::string() : to_string(a[p].tensor->sizes()), " and input of shape ",
               to_string(x.sizes()));
  }
  int64_t positions = 1;
  for (size_t d = 2; d < x.sizes().size(); ++d) positions *= x.sizes()[d];
  return native_group_norm(TensorPtr(a[0].tensor), a[2], a[3], n, channels, positions, groups, a[4])[0];
}

Node square_mean(Node x) { return sum(square(x)) / count(x); }

const OpFamily normalization(
    "normalization",
    {
        composed(
            "_native_layer_norm(Tensor input, int[] normalized_shape, Tensor? weight, Tensor? bias, float eps) -> (Tensor, Tensor, Tensor)",
            [](Node x, Arg, Node weight, Node bias, Node eps) {
              const Moments m = moments(x, eps);
              return std::array{affine((x - m.mean) * m.rstd, weight, bias), m.mean, m.rstd};
            })
            .over(trailing(1))
            .shaped(with_statistics)
            .promote(Promotion::kFirst)
            .dtypes_are(kFloating)
            .checked(check_trailing)
            .runtime({"eps"})
            .in("_C")
            .gradient_reads({"input", "weight", "result1", "result2"})
            .derivative([](Node g, Node g_mean, Node g_rstd, Node, Node mean, Node rstd, Node x, Arg,
                           Node weight) {
              return normalization_gradient({g, g_mean, g_rstd, {}}, x, weight, mean, rstd);
            })
            .describe("layer_norm, with the statistics that its gradient reads."),
        function(
            "native_layer_norm(Tensor input, int[] normalized_shape, Tensor? weight, Tensor? bias, float eps) -> (Tensor, Tensor, Tensor)",
            [](Args a) {
              static const OpRef row("_native_layer_norm");
              return with_plain_statistics(row.all(a[0], a[1], a[2], a[3], a[4]));
            })
            .function_only()
            .describe("layer_norm, with the mean and the inverse standard deviation that it used."),
        function(
            "layer_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, Tensor? bias=None, float eps=1e-05, bool cudnn_enable=True) -> Tensor",
            [](Args a) {
              static const OpRef row("_native_layer_norm");
              return row(a[0], a[1], a[2], a[3], a[4]);
            })
            .function_only()
            .describe("Normalizes over the trailing dims normalized_shape (Ba, Kiros and Hinton 2016)."),
        composed("_rms_norm(Tensor input, int[] normalized_shape, Tensor? weight, float eps) -> Tensor",
                 [](Node x, Arg, Node weight, Node eps) {
                   return affine(x * rsqrt(square_mean(x) + cast(eps, x.dtype())), weight, {});
                 })
            .over(trailing(1))
            .promote(Promotion::kFirst)
            .dtypes_are(kFloatingOrComplex)
            .checked(check_trailing)
            .runtime({"eps"})
            .in("_C")
            .gradient_reads({"input", "weight", "eps"})
            .derivative([](Node g, Node, Node x, Arg, Node weight, Node eps) {
              const Node r = conj(rsqrt(square_mean(x) + cast(eps, x.dtype()))), y = conj(x);
              const Node h = weight.defined() ? g * conj(weight) : g;
              return std::array{r * (h - y * (r * r) * (sum(h * y) / count(x))), g * (y * r)};
            })
            .describe("input / sqrt(mean(input ** 2) + eps) * weight over the trailing dims."),
        function(
            "rms_norm(Tensor input, int[] normalized_shape, Tensor? weight=None, float? eps=None) -> Tensor",
            [](Args a) {
              static const OpRef row("_rms_norm");
              const Dtype d = info(info(a[0].tensor->dtype()).value_dtype).compute_dtype;
              const double smallest = d == Dtype::kFloat64 ? 0x1p-52 : 0x1p-23;
              return row(a[0], a[1], a[2], a[3].none() ? smallest : a[3].scalar().to_double());
            })
            .function_only()
            .describe(
                "Divides by the root of the mean square over the trailing dims (Zhang and Sennrich 2019)."),

        composed(
            "_batch_norm_train(Tensor input, Tensor? weight, Tensor? bias, float eps) -> (Tensor, Tensor, Tensor, Tensor)",
            [](Node x, Node weight, Node bias, Node eps) {
              const Moments m = moments(x, eps);
              return std::array{affine((x - m.mean) * m.rstd, weight, bias), m.mean, m.rstd, m.variance};
            })
            .over(channels())
            .shaped([](const OpDef&, Args a, const Domain& d, Dtype) {
              Meta out, statistic;
              out.sizes = d.sizes;
              if (is_channels_last(d.sizes, a[0].tensor->strides()))
                out.strides = channels_last_strides(d.sizes);
              statistic.sizes = {d.sizes[1]};
              statistic.dims = {1};
              return std::vector<Meta>{out, statistic, statistic, statistic};
            })
            .promote(Promotion::kFirst)
            .dtypes_are(kFloating)
            .runtime({"eps"})
            .in("_C")
            .gradient_reads({"input", "weight", "result1", "result2"})
            .derivative([](Node g, Node g_mean, Node g_rstd, Node g_variance, Node, Node mean, Node rstd,
                           Node, Node x, Node weight) {
              return normalization_gradient({g, g_mean, g_rstd, g_variance}, x, weight, mean, rstd);
            })
            .describe("batch_norm by the batch's own statistics: out, mean, inverse deviation, variance."),
        composed(
            "_batch_norm_eval(Tensor input, Tensor? weight, Tensor? bias, Tensor running_mean, Tensor running_var, float eps) -> Tensor",
            [](Node x, Node weight, Node bias, Node mean, Node variance, Node eps) {
              return affine((x - mean) * rsqrt(variance + cast(eps, x.dtype())), weight, bias);
            })
            .over(channels())
            .promote(Promotion::kFirst)
            .dtypes_are(kFloating)
            .runtime({"eps"})
            .in("_C")
            .shaped([](const OpDef&, Args a, const Domain& d, Dtype) {
              Meta out;
              out.sizes = d.sizes;
              if (is_channels_last(d.sizes, a[0].tensor->strides()))
                out.strides = channels_last_strides(d.sizes);
              return std::vector<Meta>{out};
            })
            .gradient_reads({"input", "weight", "running_mean", "running_var", "eps"})
            .describe("batch_norm by running statistics."),
        pointwise("_move_running_(Tensor(a!) self, Tensor value, float momentum, float factor) -> Tensor(a!)",
                  [](Value x, Value v, Value momentum, Value factor) {
                    const Value m = cast(momentum, x.dtype());
                    return (1 - m) * x + m * (v * cast(factor, x.dtype()));
                  })
            .promote(Promotion::kFirst)
            .dtypes_are(kFloating)
            .no_inplace()
            .runtime({"momentum", "factor"})
            .in("_C")
            .describe("Moves self towards value * factor."),
        function(
            "native_batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool training, float momentum, float eps) -> (Tensor, Tensor, Tensor)",
            native_batch_norm)
            .function_only()
            .exact_out()
            .describe(
                "batch_norm, with the mean and the inverse standard deviation that it used (empty in evaluation)."),
        function(
            "batch_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool training, float momentum, float eps, bool cudnn_enabled) -> Tensor",
            [](Args a) { return native_batch_norm(a.first(8))[0]; })
            .function_only()
            .describe("Normalizes each channel over the batch and positions (Ioffe and Szegedy 2015)."),
        function(
            "instance_norm(Tensor input, Tensor? weight, Tensor? bias, Tensor? running_mean, Tensor? running_var, bool use_input_stats, float momentum, float eps, bool cudnn_enabled) -> Tensor",
            instance_norm)
            .function_only()
            .describe("Normalizes each channel of each sample over positions (Ulyanov et al. 2016)."),

        composed(
            "_group_norm(Tensor input, Tensor? weight, Tensor? bias, float eps) -> (Tensor, Tensor, Tensor)",
            [](Node x, Node weight, Node bias, Node eps) {
              const Moments m = moments(x, eps, kWithinGroup);
              return std::array{affine((x - m.mean) * m.rstd, weight, bias), m.mean, m.rstd};
            })
            .over(group_domain)
            .shaped(group_results)
            .promote(Promotion::kFirst)
            .dtypes_are(kFloating)
            .runtime({"eps"})
            .in("_C")
            .gradient_reads({"input", "weight", "result1", "result2"})
            .derivative([](Node g, Node g_mean, Node g_rstd, Node, Node mean, Node rstd, Node x,
                           Node weight) {
              return normalization_gradient({g, g_mean, g_rstd, {}}, x, weight, mean, rstd, kWithinGroup);
            })
            .describe("group_norm of (N, groups, channels a group, positions)."),
        function(
            "native_group_norm(Tensor input, Tensor? weight, Tensor? bias, int N, int C, int HxW, int group, float eps) -> (Tensor, Tensor, Tensor)",
            [](Args a) {
              return native_group_norm(TensorPtr(a[0].tensor), a[1], a[2], a[3].integer, a[4].integer,
                                       a[5].integer, a[6].integer, a[7]);
            })
            .function_only()
            .describe("group_norm, with the means and inverse standard deviations that it used."),
        function(
            "group_norm(Tensor input, int num_groups, Tensor? weight=None, Tensor? bias=None, float eps=1e-05, bool cudnn_enabled=True) -> Tensor",
            group_norm)
            .function_only()
            .describe("Normalizes each group of channels of each sample (Wu and He 2018)."),
    });

}  // namespace
}  // namespace lohe::ops
