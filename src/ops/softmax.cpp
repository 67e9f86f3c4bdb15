#include "lohe/error.h"
#include "ops/call.h"

/// Softmax and its logarithm.
namespace lohe::ops {
namespace {

using namespace ir;

Node softmax_of(Node x) {
  const Node e = exp(x - amax(x));
  return e / sum(e);
}
Node log_softmax_of(Node x) {
  const Node z = x - amax(x);
  return z - log(sum(exp(z)));
}

void no_promotion(const OpDef& op, Args a) {
  LOHE_CHECK(a[2].integer == 0, op.schema.base,
             ": half_to_float is for other devices than the CPU; pass half_to_float=False");
}

const OpFamily softmax_rows(
    "softmax",
    {
        alias("special_softmax", "softmax").in("special"),
        alias("special_log_softmax", "log_softmax").in("special"),
        composed("softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor", softmax_of)
            .over(reduce_over(1))
            .dtypes_are(kFloating)
            .gradient_reads({"result"})
            .derivative([](Node g, Node y) { return y * (g - sum(y * g)); })
            .describe("exp(self) normalised to sum 1 along dim."),
        composed("_softmax(Tensor self, int dim, bool half_to_float) -> Tensor", softmax_of)
            .over(reduce_over(1))
            .dtypes_are(kFloating)
            .checked(no_promotion)
            .function_only()
            .gradient_reads({"result"})
            .derivative([](Node g, Node y) { return y * (g - sum(y * g)); })
            .describe("exp(self) normalised to sum 1 along dim."),
        composed("log_softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor", log_softmax_of)
            .over(reduce_over(1))
            .dtypes_are(kFloating)
            .gradient_reads({"result"})
            .derivative([](Node g, Node y) { return g - exp(y) * sum(g); })
            .describe("log(softmax(self, dim)) without loss of precision."),
        composed("_log_softmax(Tensor self, int dim, bool half_to_float) -> Tensor", log_softmax_of)
            .over(reduce_over(1))
            .dtypes_are(kFloating)
            .checked(no_promotion)
            .function_only()
            .gradient_reads({"result"})
            .derivative([](Node g, Node y) { return g - exp(y) * sum(g); })
            .describe("log(softmax(self, dim)) without loss of precision."),
    });

}  // namespace
}  // namespace lohe::ops
