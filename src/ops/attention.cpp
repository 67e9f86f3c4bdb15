#include "backend/attention.h"

#include <cmath>
#include <limits>

#include "lohe/error.h"
#include "ops/call.h"
#include "ops/reductions.h"
#include "tensor/shape.h"

/// Attention: one call of the library where it serves the case, which keeps no scores; else two products and
/// one kernel for scale, mask and softmax.
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

// --- one call: [batch, heads, positions, features], float32 and float64, no mask but the causal one

backend::AttentionShape library_shape(const TensorImpl& q, const TensorImpl& k, const TensorImpl& v,
                                      double scale, bool causal) {
  return {.batch = q.sizes()[0] * q.sizes()[1],
          .inner = q.sizes()[1],
          .queries = q.sizes()[2],
          .keys = k.sizes()[2],
          .width = q.sizes()[3],
          .value_width = v.sizes()[3],
          .scale = scale,
          .causal = causal};
}

bool served(const TensorImpl& q, const TensorImpl& k, const TensorImpl& v) {
  if (q.extension || k.extension || v.extension) return false;
  if (q.dtype() != Dtype::kFloat32 && q.dtype() != Dtype::kFloat64) return false;
  if (q.dim() != 4 || k.dim() != 4 || v.dim() != 4) return false;
  for (size_t i = 0; i < 2; ++i) {
    if (q.sizes()[i] != k.sizes()[i] || q.sizes()[i] != v.sizes()[i]) return false;
  }
  return q.sizes()[3] == k.sizes()[3] && k.sizes()[2] == v.sizes()[2] &&
         library_shape(q, k, v, 1, false).fits();
}

/// Heads inside of positions, as a joint projection leaves them, or positions inside of heads.
Meta in_order_of(const TensorImpl& like, Dims sizes) {
  Meta m;
  m.dtype = like.dtype();
  m.sizes = std::move(sizes);
  const Dims& s = m.sizes;
  if (like.strides()[1] < like.strides()[2]) m.strides = {s[1] * s[2] * s[3], s[3], s[1] * s[3], 1};
  return m;
}

backend::Matrix heads(const TensorImpl& t) {
  return {t.data(), t.strides()[2], t.strides()[3], t.strides()[1], false, t.strides()[0]};
}

TensorPtr with_adjacent_features(TensorImpl* t) {
  static const OpRef contiguous("contiguous");
  return t->strides()[3] == 1 ? TensorPtr(t) : contiguous(TensorPtr(t));
}

std::vector<Meta> infer_attention(Args a) {
  const TensorImpl &q = *a[0].tensor, &k = *a[1].tensor, &v = *a[2].tensor;
  LOHE_CHECK(q.dtype() == k.dtype() && q.dtype() == v.dtype() && served(q, k, v),
             "_attention: expected query, key and value of [batch, heads, positions, features] in float32 or "
             "float64, got ",
             to_string(q.sizes()), ", ", to_string(k.sizes()), " and ", to_string(v.sizes()), " in ",
             q.dtype(), ", ", k.dtype(), " and ", v.dtype(), "; call scaled_dot_product_attention");
  Meta statistics;
  statistics.dtype = q.dtype();
  statistics.sizes = {q.sizes()[0], q.sizes()[1], q.sizes()[2], 2};
  return {in_order_of(q, {q.sizes()[0], q.sizes()[1], q.sizes()[2], v.sizes()[3]}), statistics};
}

void run_attention(Args a, Results& r) {
  const TensorPtr q = with_adjacent_features(a[0].tensor), k = with_adjacent_features(a[1].tensor),
                  v = with_adjacent_features(a[2].tensor);
  backend::attention(q->dtype(), library_shape(*q, *k, *v, a[3].scalar().to_double(), a[4].integer != 0),
                     heads(*q), heads(*k), heads(*v), heads(*r[0]), r[1]->data());
}

std::vector<Meta> infer_attention_backward(Args a) {
  std::vector<Meta> metas;
  for (size_t i = 1; i < 4; ++i) metas.push_back(in_order_of(*a[i].tensor, a[i].tensor->size_dims()));
  return metas;
}

void run_attention_backward(Args a, Results& r) {
  const TensorPtr g = with_adjacent_features(a[0].tensor), q = with_adjacent_features(a[1].tensor),
                  k = with_adjacent_features(a[2].tensor), v = with_adjacent_features(a[3].tensor);
  backend::attention_gradient(
      q->dtype(), library_shape(*q, *k, *v, a[5].scalar().to_double(), a[6].integer != 0), heads(*q),
      heads(*k), heads(*v), heads(*g), a[4].tensor->data(), heads(*r[0]), heads(*r[1]), heads(*r[2]));
}

/// By rows that are recorded themselves.
void recorded_gradient(Backward& b, const TensorPtr& q, const TensorPtr& k, const TensorPtr& v) {
  static const OpRef matmul("matmul"), transpose("transpose.int"), softmax("_attention_softmax"),
      sum("sum.dim_IntList"), mul("mul"), sub("sub");
  const auto turned = [](const TensorPtr& t) { return transpose(t, int64_t{-2}, int64_t{-1}); };
  const TensorPtr& g = b.grad();
  const TensorPtr weights = softmax(matmul(q, turned(k)), Arg(), b.arg(3), b.arg(4));
  if (b.needs(2)) b.set(2, matmul(turned(weights), g));
  if (!b.needs(0) && !b.needs(1)) return;
  const TensorPtr to_weights = matmul(g, turned(v));
  const TensorPtr mean = sum(mul(weights, to_weights), Dims{-1}, true);
  const TensorPtr to_scores = mul(mul(weights, sub(to_weights, mean)), b.arg(3));
  if (b.needs(0)) b.set(0, matmul(to_scores, k));
  if (b.needs(1)) b.set(1, matmul(turned(to_scores), q));
}

void grad_attention(Backward& b) {
  static const OpRef fused("_attention_backward");
  const TensorPtr &g = b.grad(), q = b.tensor(0), k = b.tensor(1), v = b.tensor(2);
  if (dispatch::grad_enabled() || g->extension || !served(*q, *k, *v)) return recorded_gradient(b, q, k, v);
  Results r = fused.all(g, q, k, v, b.result(1), b.arg(3), b.arg(4));
  for (int p = 0; p < 3; ++p) {
    if (b.needs(p)) b.set(p, std::move(r[p]));
  }
}

// --- the public row

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
  static const OpRef one_call("_attention"), squeeze("squeeze.dim"), unsqueeze("unsqueeze");
  if (mask.none() && dropout_p.scalar().to_double() <= 0) {
    const bool one_head = q->dim() == 3 && k->dim() == 3 && v->dim() == 3;
    const auto with_heads = [&](const TensorPtr& t) { return one_head ? unsqueeze(t, int64_t{1}) : t; };
    const TensorPtr q4 = with_heads(q), k4 = with_heads(k), v4 = with_heads(v);
    if (served(*q4, *k4, *v4)) {
      TensorPtr r = one_call(q4, k4, v4, factor, causal);
      return Results(one_head ? squeeze(r, int64_t{1}) : r);
    }
  }
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
        primitive(
            "_attention(Tensor query, Tensor key, Tensor value, float scale, bool causal) -> (Tensor, Tensor)",
            infer_attention, run_attention)
            .grad(grad_attention)
            .gradient_reads({"query", "key", "value", "result1"})
            .in("_C")
            .describe(
                "scaled_dot_product_attention, with the largest score and the sum of exponentials of every query."),
        primitive(
            "_attention_backward(Tensor grad, Tensor query, Tensor key, Tensor value, Tensor statistics, float scale, bool causal) -> (Tensor, Tensor, Tensor)",
            infer_attention_backward, run_attention_backward)
            .in("_C")
            .not_differentiable()
            .fills_any_strides()
            .describe("The gradients of _attention of query, key and value."),
        function(
            "scaled_dot_product_attention(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, float dropout_p=0.0, bool is_causal=False, *, float? scale=None, bool enable_gqa=False) -> Tensor",
            attention)
            .in("nn")
            .describe("softmax(query key^T * scale + mask) value (Vaswani et al. 2017)."),
    });

}  // namespace
}  // namespace lohe::ops
