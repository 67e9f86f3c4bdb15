#include "backend/library.h"
#include "lohe/error.h"
#include "ops/call.h"
#include "tensor/shape.h"

/// The linear map of a layer, and its gradient: input @ weight.T + bias over the last dim.
namespace lohe::ops {
namespace {

const OpRef& mm_row() {
  static const OpRef r("mm");
  return r;
}
const OpRef& reshape_row() {
  static const OpRef r("reshape");
  return r;
}

/// All dims of `t` but the last as the rows of a matrix with k columns: where it lies, or a copy.
struct Rows {
  Rows(TensorImpl& t, int64_t m, int64_t k) : kept(&t) {
    if (t.contiguous()) {
      matrix = {t.data(), k, 1};
      return;
    }
    auto strides = t.dim() == 2 ? t.stride_dims() : view_strides(t.sizes(), t.strides(), Dims{m, k});
    if (!strides) {
      static const OpRef contiguous("contiguous");
      kept = contiguous(kept);
      strides = Dims{k, 1};
    }
    matrix = {kept->data(), (*strides)[0], (*strides)[1]};
  }
  TensorPtr kept;
  backend::Matrix matrix;
};

/// A weight [n, k] as the matrix [n, k]; one of one dim has one row.
backend::Matrix weight_matrix(const TensorImpl& w) {
  return {w.data(), w.dim() == 2 ? w.strides()[0] : 0, w.strides().back()};
}

Meta meta(Dtype dtype, Dims sizes) {
  Meta m;
  m.dtype = dtype;
  m.sizes = std::move(sizes);
  return m;
}

std::vector<Meta> infer_linear(Args a) {
  const TensorImpl &x = *a[0].tensor, &w = *a[1].tensor;
  LOHE_CHECK(x.dim() >= 1 && w.dim() >= 1 && w.dim() <= 2,
             "linear(): input and weight must have at least one dim and weight at most two, got ", x.dim(),
             "D and ", w.dim(), "D");
  const int64_t k = x.sizes().back();
  int64_t rows = 1;
  for (size_t d = 0; d + 1 < x.sizes().size(); ++d) rows *= x.sizes()[d];
  LOHE_CHECK(w.sizes().back() == k, "mat1 and mat2 shapes cannot be multiplied (", rows, "x", k, " and ",
             w.sizes().back(), "x", w.dim() == 2 ? w.sizes()[0] : 1, ")");
  LOHE_CHECK(x.dtype() == w.dtype(), "expected m1 and m2 to have the same dtype, but got: ", x.dtype(),
             " != ", w.dtype(), " in linear");
  LOHE_CHECK_KIND(kNotImplemented, x.dtype() != Dtype::kBool,
                  "\"addmm_impl_cpu_\" not implemented for 'Bool'; convert to a number dtype");
  if (!a[2].none()) {
    LOHE_CHECK(a[2].tensor->dtype() == x.dtype(), "self and mat2 must have the same dtype, but got ",
               a[2].tensor->dtype(), " and ", x.dtype());
    LOHE_CHECK(a[2].tensor->dim() <= 1 || w.dim() == 2, "linear: bias of shape ",
               to_string(a[2].tensor->sizes()), " does not fit");
    const int64_t n = w.dim() == 2 ? w.sizes()[0] : 1;
    LOHE_CHECK(a[2].tensor->numel() == 1 ||
                   (a[2].tensor->dim() >= 1 && a[2].tensor->sizes().back() == n && a[2].tensor->numel() == n),
               "The expanded size of the tensor (", n, ") must match the existing size (",
               a[2].tensor->numel(), ") at non-singleton dimension 1.");
  }
  Dims sizes(x.sizes());
  sizes.pop_back();
  if (w.dim() == 2) sizes.push_back(w.sizes()[0]);
  return {meta(x.dtype(), std::move(sizes))};
}

void run_linear(Args a, Results& r) {
  const TensorImpl& w = *a[1].tensor;
  const int64_t k = a[0].tensor->sizes().back();
  const int64_t n = w.dim() == 2 ? w.sizes()[0] : 1;
  const int64_t m = n == 0 ? 0 : r[0]->numel() / n;
  const Rows x(*a[0].tensor, m, k);
  backend::Epilogue epilogue;
  if (!a[2].none()) {
    // One number for all columns, or one a column.
    const TensorImpl& bias = *a[2].tensor;
    epilogue.beta = 1;
    epilogue.addend = {bias.data(), 0, bias.numel() == 1 ? 0 : bias.strides().back()};
  }
  backend::matmul(w.dtype(), {1, m, n, k}, x.matrix, weight_matrix(w).transposed(), {r[0]->data(), n, 1},
                  epilogue);
}

// --- the gradient as one call: what a pass that is not itself recorded uses

std::vector<Meta> infer_backward(Args a) {
  std::vector<Meta> metas;
  for (const size_t i : {1, 2}) {
    if (a[i + 2].integer != 0) metas.push_back(meta(a[i].tensor->dtype(), a[i].tensor->size_dims()));
  }
  return metas;
}

void run_backward(Args a, Results& r) {
  TensorImpl &x = *a[1].tensor, &w = *a[2].tensor;
  const int64_t k = w.sizes().back(), n = w.dim() == 2 ? w.sizes()[0] : 1;
  const int64_t m = n == 0 ? 0 : a[0].tensor->numel() / n;
  const Rows g(*a[0].tensor, m, n);
  const bool to_input = a[3].integer != 0, to_weight = a[4].integer != 0;
  const auto of_input = [&] {
    return backend::Multiplication{{1, m, k, n}, g.matrix, weight_matrix(w), {r[0]->data(), k, 1}};
  };
  if (!to_weight) {
    if (to_input) backend::matmul(w.dtype(), of_input());
    return;
  }
  const Rows rows(x, m, k);
  const backend::Multiplication of_weight{
      {1, n, k, m}, g.matrix.transposed(), rows.matrix, {r[to_input ? 1 : 0]->data(), k, 1}};
  if (to_input)
    backend::matmul(w.dtype(), of_input(), of_weight);
  else
    backend::matmul(w.dtype(), of_weight);
}

// --- the gradient

/// By rows that are recorded themselves.
void recorded_gradient(Backward& b, const TensorPtr& x, const TensorPtr& weight) {
  static const OpRef conj("conj"), view("view"), transpose("transpose.int"), sum("sum.dim_IntList");
  const TensorPtr& g = b.grad();
  const bool vector = weight->dim() == 1, complex = is_complex(g->dtype());
  const int64_t k = weight->sizes().back(), n = vector ? 1 : weight->sizes()[0];
  const TensorPtr rows = reshape_row()(g, Dims{n == 0 ? 0 : g->numel() / n, n});
  if (b.needs(0)) {
    TensorPtr w = vector ? view(weight, Dims{1, k}) : weight;
    if (complex) w = conj(w);
    b.set(0, view(mm_row()(rows, w), b.meta(0).sizes));
  }
  if (b.needs(1)) {
    const TensorPtr flat = reshape_row()(x, Dims{rows->sizes()[0], k});
    const TensorPtr gw = mm_row()(transpose(rows, int64_t{0}, int64_t{1}), complex ? conj(flat) : flat);
    b.set(1, vector ? view(gw, Dims{k}) : gw);
  }
  if (!b.arg(2).none() && b.needs(2)) b.set(2, sum(rows, Dims{0}));
}

void grad_linear(Backward& b) {
  static const OpRef fused("_linear_backward"), sum("sum.dim_IntList");
  const TensorPtr &g = b.grad(), x = b.tensor(0), w = b.tensor(1);
  const bool wrapped = g->extension || x->extension || w->extension;
  if (dispatch::grad_enabled() || wrapped || is_complex(g->dtype())) return recorded_gradient(b, x, w);
  Results r = fused.all(g, x, w, b.needs(0), b.needs(1));
  int at = 0;
  for (int p = 0; p < 2; ++p) {
    if (b.needs(p)) b.set(p, std::move(r[at++]));
  }
  if (!b.arg(2).none() && b.needs(2)) {
    const int64_t n = w->dim() == 2 ? w->sizes()[0] : 1;
    const bool rows = g->dim() == 2 && w->dim() == 2;
    b.set(2, sum(rows ? g : reshape_row()(g, Dims{n == 0 ? 0 : g->numel() / n, n}), Dims{0}));
  }
}

const OpFamily linear_maps(
    "linear",
    {
        primitive("linear(Tensor input, Tensor weight, Tensor? bias=None) -> Tensor", infer_linear,
                  run_linear)
            .grad(grad_linear)
            .gradient_reads({"input", "weight"})
            .in("nn")
            .exact_out()
            .describe("input @ weight.T + bias."),
        primitive(
            "_linear_backward(Tensor grad, Tensor input, Tensor weight, bool to_input, bool to_weight) -> Tensor[]",
            infer_backward, run_backward)
            .in("_C")
            .not_differentiable()
            .describe("The gradients of linear that are asked for, of input and weight in this order."),
    });

}  // namespace
}  // namespace lohe::ops
