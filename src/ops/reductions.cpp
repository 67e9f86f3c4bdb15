#include "lohe/error.h"
#include "ops/call.h"

/// Reductions over dims.
namespace lohe::ops {
namespace {

using namespace ir;

const OpFamily reductions("reductions", {
    composed("sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
             [](Node x) { return sum(x); })
        .over(reduce_over(1)).promote(Promotion::kSum).describe("Sum over dims."),
    composed("mean.dim(Tensor self, int[1]? dim, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
             [](Node x) { return sum(x) / count(x); })
        .over(reduce_over(1)).dtypes_are(kFloatingOrComplex).describe("Mean over dims."),
    composed("amax(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor", [](Node x) { return amax(x); })
        .over(reduce_over(1)).dtypes_are(kAllReals).gradient_reads({"self", "result"}).describe("Maximum over dims; ties share the gradient."),
    composed("amin(Tensor self, int[1] dim=[], bool keepdim=False) -> Tensor", [](Node x) { return amin(x); })
        .over(reduce_over(1)).dtypes_are(kAllReals).gradient_reads({"self", "result"}).describe("Minimum over dims; ties share the gradient."),
    composed("softmax.int(Tensor self, int dim, ScalarType? dtype=None) -> Tensor",
             [](Node x) {
               const Node e = exp(x - amax(x));
               return e / sum(e);
             })
        .over(reduce_over(1)).dtypes_are(kFloating)
        .gradient_reads({"result"})
        .derivative([](Node dy, Node y) { return y * (dy - sum(y * dy)); })
        .describe("exp(self) normalised to sum 1 along dim."),
});

}  // namespace
}  // namespace lohe::ops
