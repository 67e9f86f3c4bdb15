#include <cmath>

#include "lohe/error.h"
#include "ops/random.h"

/// Dropout. The forward kernel keeps no mask: its gradient draws the same bits again from the recorded seed
/// and offset.
namespace lohe::ops {
namespace {

using namespace ir;

/// Whether the element at hand stays: its first word reaches the threshold, probability * 2^32.
Value stays(Value threshold, Value seed, Value offset) {
  Graph& g = *seed.graph();
  return g.philox(offset + g.iota(kOuter, Dtype::kInt64), seed, 0) >= threshold;
}

void check_probability(double p) {
  LOHE_CHECK(p >= 0 && p <= 1, "dropout probability has to be between 0 and 1, but got ", p);
}

Results drop(TensorImpl* input, double p, bool in_place) {
  static const OpRef row("_dropout");
  LOHE_CHECK(is_differentiable(input->dtype()), "result type ", info(default_dtype()).name,
             " can't be cast to the desired output type ", info(input->dtype()).name,
             "; dropout scales what it keeps and so needs a floating dtype");
  const Draw at = draw(Arg(), input->numel());
  const Arg args[] = {Arg(input), Arg(static_cast<int64_t>(std::nearbyint(p * 0x1p32))),
                      Arg(p == 1 ? 0.0 : 1 / (1 - p)), Arg(at.seed), Arg(at.offset)};
  return dispatch::call(row.op(), args, in_place ? dispatch::Form::kInPlace : dispatch::Form::kValue);
}

Results dropout(Args a, bool in_place) {
  const double p = a[1].scalar().to_double();
  check_probability(p);
  if (p == 0 || a[2].integer == 0 || a[0].tensor->numel() == 0) return TensorPtr(a[0].tensor);
  return drop(a[0].tensor, p, in_place);
}

/// Dropout with noise of its own shape or form: whole channels, or alpha dropout (Klambauer et al.,
/// "Self-normalizing neural networks", 2017), which keeps mean and variance of SELU's outputs.
Results noise_dropout(Args a, bool feature, bool alpha, bool in_place) {
  static const OpRef empty("empty"), bernoulli("bernoulli_.float"), mul("mul"), add("add"), div("div");
  const double p = a[1].scalar().to_double();
  check_probability(p);
  TensorImpl* input = a[0].tensor;
  if (p == 0 || a[2].integer == 0 || input->numel() == 0) return TensorPtr(input);
  const auto apply = [&](const OpRef& row, const TensorPtr& x, const Arg& y) {
    const Arg args[] = {Arg(x), y, Arg(int64_t{1})};
    return dispatch::call(row.op(), Args(args, row.op().schema.params.size()),
                          in_place ? dispatch::Form::kInPlace : dispatch::Form::kValue)[0];
  };
  LOHE_CHECK(is_differentiable(input->dtype()), "result type ", info(default_dtype()).name,
             " can't be cast to the desired output type ", info(input->dtype()).name,
             "; dropout scales what it keeps and so needs a floating dtype");
  const TensorPtr x(input);
  if (p == 1) return apply(mul, x, Arg(0.0));
  Dims shape = input->size_dims();
  if (feature) {
    LOHE_CHECK(shape.size() >= 2, "Feature dropout requires at least 2 dimensions in the input");
    for (size_t d = 2; d < shape.size(); ++d) shape[d] = 1;
  }
  TensorPtr noise = bernoulli(empty(shape, input->dtype()), 1 - p);
  if (!alpha) return apply(mul, x, Arg(div(noise, 1 - p)));
  constexpr double kAlpha = 1.7580993408473766;
  const double scale = 1 / std::sqrt((kAlpha * kAlpha * p + 1) * (1 - p));
  const TensorPtr shift = add(mul(add(noise, -1.0), kAlpha * scale), kAlpha * scale * p);
  return apply(add, apply(mul, x, Arg(mul(noise, scale))), Arg(shift));
}

const OpFamily dropout_rows(
    "dropout",
    {
        pointwise("_dropout(Tensor self, int threshold, float scale, int seed, int offset) -> Tensor",
                  [](Value x, Value threshold, Value scale, Value seed, Value offset) {
                    const Value zero = x.literal(0), factor = cast(scale, x.dtype());
                    return select(stays(threshold, seed, offset), x * factor, zero);
                  })
            .dtypes_are(kFloatingOrComplex)
            .runtime({"threshold", "scale", "seed", "offset"})
            .gradient_reads({})
            .derivative([](Value g, Value, Value, Value threshold, Value scale, Value seed, Value offset) {
              return select(stays(threshold, seed, offset), g * cast(scale, g.dtype()), g.literal(0));
            })
            .function_only()
            .in("_C")
            .inplace()
            .describe("Dropout of the elements whose random word is below the threshold."),
        function("dropout(Tensor input, float p, bool train) -> Tensor",
                 [](Args a) { return dropout(a, false); })
            .function_only()
            .describe(
                "Zeros elements with probability p and scales the others by 1 / (1 - p); input itself unless train."),
        function("dropout_(Tensor(a!) self, float p, bool train) -> Tensor(a!)",
                 [](Args a) { return dropout(a, true); })
            .function_only()
            .describe("dropout in place."),
        function("native_dropout(Tensor input, float p, bool? train) -> (Tensor, Tensor)",
                 [](Args a) {
                   static const OpRef empty("empty"), bernoulli("bernoulli_.float"), ones("ones"), mul("mul"),
                       clone("clone");
                   const double p = a[1].scalar().to_double();
                   const bool train = a[2].none() || a[2].integer != 0;
                   TensorImpl* input = a[0].tensor;
                   if (!train || input->numel() == 0)
                     return Results(clone(input), ones(input->sizes(), Dtype::kBool));
                   check_probability(p);
                   const TensorPtr mask = bernoulli(empty(input->sizes(), Dtype::kBool), 1 - p);
                   return Results(mul(mul(input, mask), p == 1 ? 0.0 : 1 / (1 - p)), mask);
                 })
            .function_only()
            .describe("dropout, and the mask of what was kept."),
        function("feature_dropout(Tensor input, float p, bool train) -> Tensor",
                 [](Args a) { return noise_dropout(a, true, false, false); })
            .function_only()
            .describe("dropout of whole channels."),
        function("feature_dropout_(Tensor(a!) self, float p, bool train) -> Tensor(a!)",
                 [](Args a) { return noise_dropout(a, true, false, true); })
            .function_only()
            .describe("feature_dropout in place."),
        function("alpha_dropout(Tensor input, float p, bool train) -> Tensor",
                 [](Args a) { return noise_dropout(a, false, true, false); })
            .function_only()
            .describe("dropout that keeps mean and variance of SELU's outputs."),
        function("alpha_dropout_(Tensor(a!) self, float p, bool train) -> Tensor(a!)",
                 [](Args a) { return noise_dropout(a, false, true, true); })
            .function_only()
            .describe("alpha_dropout in place."),
        function("feature_alpha_dropout(Tensor input, float p, bool train) -> Tensor",
                 [](Args a) { return noise_dropout(a, true, true, false); })
            .function_only()
            .describe("alpha_dropout of whole channels."),
        function("feature_alpha_dropout_(Tensor(a!) self, float p, bool train) -> Tensor(a!)",
                 [](Args a) { return noise_dropout(a, true, true, true); })
            .function_only()
            .describe("feature_alpha_dropout in place."),
    });

}  // namespace
}  // namespace lohe::ops
