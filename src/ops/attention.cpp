#include <cmath>
#include <limits>

#include "lohe/error.h"
#include "ops/call.h"
#include "ops/reductions.h"
#include "tensor/shape.h"

/// Attention: two products and one kernel for scale, mask and softmax.
namespace lohe::ops {
namespace {

using namespace ir;

/// Groups: batch and heads, query positions, key positions.
Domain score_domain(const OpDef&, Args a) {
  const TensorImpl& t = *a[0].tensor;
  Domain d;
  d.sizes = t.size_dims();
  for (int64_t i = 0; i < t.dim(); ++i) {
    d.groups.push_back(i == t.dim() - 1 ? kRow : i == t.dim() - 2 ? kGroupA : kOuter);
  }
  return d;
}

std::vector<Meta> like_scores(const OpDef&, Args a, const Domain& d, Dtype) {
  (void)a;
  Meta m;
  m.sizes = d.sizes;
  return {m};
}

Results attention(Args a) {
  static const OpRef matmul("matmul"), transpose("transpose.int"), softmax("_attention_softmax"),
      dropout("dropout"), repeat("repeat_interleave.self_int");
  TensorPtr q(a[0].tensor), k(a[1].tensor), v(a[2].tensor);
  const Arg &mask = a[3], &dropout_p = a[4], &causal = a[5], &scale = a[6], &gqa = a[7];
  LOHE_CHECK(q->dtype() == k->dtype() && q->dtype() == v->dtype(),
             "Expected query, key, and value to have the same dtype, but got query.dtype: ", q->dtype(),
             " key.dtype: ", k->dtype(), " and value.dtype: ", v->dtype(), " instead.");
  LOHE_CHECK(q->dim() >= 2 && k->dim() >= 2 && v->dim() >= 2,
             "Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: ",
             q->dim(), " key.dim: ", k->dim(), " and value.dim: ", v->dim(), " instead.");
  LOHE_CHECK(!is_integral(q->dtype(), true),
             "scaled_dot_product_attention: expected a floating dtype but found ", q->dtype(),
             "; convert query, key and value");
  LOHE_CHECK(mask.none() || causal.integer == 0,
             "_scaled_dot_product_attention: Explicit attn_mask should not be set when is_causal=True");
  if (!mask.none()) {
    const Dtype m = mask.tensor->dtype();
    LOHE_CHECK(m == Dtype::kBool || m == q->dtype() || m == Dtype::kFloat32,
               "Expected attn_mask dtype to be bool or float or to match query dtype, "
               "but got attn_mask.dtype: ",
               m, " and  query.dtype: ", q->dtype(), " instead.");
  }
  if (gqa.integer != 0) {
    const auto heads = [](const TensorPtr& t) { return t->sizes()[t->sizes().size() - 3]; };
    LOHE_CHECK(q->dim() >= 3 && heads(q) % heads(k) == 0 && heads(q) % heads(v) == 0,
               "Number of heads in key and value must divide the number of "
               "heads in query");
    k = repeat(k, heads(q) / heads(k), int64_t{-3});
    v = repeat(v, heads(q) / heads(v), int64_t{-3});
  }
  const double factor =
      scale.none() ? 1.0 / std::sqrt(static_cast<double>(q->sizes().back())) : scale.scalar().to_double();
  // Scores are not rounded to a half dtype, whose steps would be large factors after exp().
  const Dtype dtype = q->dtype(), wide = is_half(dtype) ? Dtype::kFloat32 : dtype;
  const TensorPtr scores = matmul(to_dtype(q, wide), transpose(to_dtype(k, wide), int64_t{-2}, int64_t{-1}));
  TensorPtr weights = to_dtype(softmax(scores, mask, factor, causal.integer != 0), dtype);
  if (dropout_p.scalar().to_double() > 0) weights = dropout(weights, dropout_p, true);
  // The result lies in memory as the query does: heads inside of positions need no copy to be joined.
  static const OpRef nested("_nested_bmm");
  const bool plain = !weights->extension && !v->extension;
  if (q->dim() == 4 && q->strides()[1] < q->strides()[2] && plain && weights->sizes()[0] == v->sizes()[0] &&
      weights->sizes()[1] == v->sizes()[1])
    return Results(nested(weights, v, true));
  return Results(matmul(weights, v));
}

const OpFamily attention_rows(
    "attention",
    {
        composed("_attention_softmax(Tensor scores, Tensor? mask, Scalar scale, bool causal) -> Tensor",
                 [](Node x, Node mask, Node scale, bool causal) {
                   const Node none = x.literal(-std::numeric_limits<double>::infinity());
                   x = x * scale;
                   if (mask.defined())
                     x = mask.dtype() == Dtype::kBool ? select(mask, x, none) : x + cast(mask, x.dtype());
                   if (causal) {
                     Graph& g = *x.graph();
                     x = select(g.iota(kRow, Dtype::kInt32) <= g.iota(kGroupA, Dtype::kInt32), x, none);
                   }
                   // A row that may look at nothing gives zeros.
                   const Node highest = amax(x);
                   const Node e = exp(x - select(highest == none, x.literal(0), highest));
                   const Node total = sum(e);
                   return select(total == 0, x.literal(0), e / total);
                 })
            .over(score_domain)
            .shaped(like_scores)
            .promote(Promotion::kFirst)
            .dtypes_are(kFloating)
            .in("_C")
            .gradient_reads({"scale", "result"})
            .derivative([](Node g, Node y, Node, Node mask, Node scale) {
              const Node d = y * (g - sum(y * g));
              return std::array{d * scale,
                                mask.defined() && is_differentiable(mask.dtype()) ? d : g.literal(0)};
            })
            .describe(
                "softmax(scores * scale + mask) along the last dim; a float mask is added, a bool mask keeps where true, "
                "causal keeps keys up to the query's own position."),
        function(
            "scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float dropout_p=0.0, bool is_causal=False, *, float? scale=None, bool enable_gqa=False) -> Tensor",
            attention)
            .in("nn")
            .describe("softmax(query key^T * scale + mask) value (Vaswani et al. 2017)."),
    });

}  // namespace
}  // namespace lohe::ops
