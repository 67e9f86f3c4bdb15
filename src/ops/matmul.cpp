#include <complex>
#include <optional>

#include "backend/library.h"
#include "lohe/error.h"
#include "ops/call.h"
#include "tensor/shape.h"

/// Products of matrices. One library call computes every element as the same chain of fused multiply-adds,
/// whatever the shapes around it.
namespace lohe::ops {
namespace {

const OpRef& mm_row() {
  static const OpRef r("mm");
  return r;
}
const OpRef& bmm_row() {
  static const OpRef r("bmm");
  return r;
}
const OpRef& transpose_row() {
  static const OpRef r("transpose.int");
  return r;
}
const OpRef& conj_row() {
  static const OpRef r("conj");
  return r;
}
const OpRef& view_row() {
  static const OpRef r("view");
  return r;
}
const OpRef& reshape_row() {
  static const OpRef r("reshape");
  return r;
}
const OpRef& expand_row() {
  static const OpRef r("expand");
  return r;
}
const OpRef& mul_row() {
  static const OpRef r("mul");
  return r;
}
const OpRef& sum_row() {
  static const OpRef r("sum.dim_IntList");
  return r;
}
const OpRef& unsqueeze_row() {
  static const OpRef r("unsqueeze");
  return r;
}
const OpRef& squeeze_row() {
  static const OpRef r("squeeze.dim");
  return r;
}

/// Conjugate transpose of the last two dims.
TensorPtr adjoint(const TensorPtr& t) {
  const TensorPtr x = transpose_row()(t, int64_t{-2}, int64_t{-1});
  return is_complex(t->dtype()) ? conj_row()(x) : x;
}

void same_dtype(std::string_view op, const TensorImpl& a, const TensorImpl& b) {
  LOHE_CHECK(a.dtype() == b.dtype(), "expected m1 and m2 to have the same dtype, but got: ", a.dtype(),
             " != ", b.dtype(), " in ", op);
}

/// The last two dims as a matrix, the one before them as the batch.
backend::Matrix matrix(const TensorImpl& t) {
  const size_t n = t.sizes().size();
  return {t.data(), t.strides()[n - 2], t.strides()[n - 1], n > 2 ? t.strides()[n - 3] : 0};
}

Meta meta(Dtype dtype, Dims sizes) {
  Meta m;
  m.dtype = dtype;
  m.sizes = std::move(sizes);
  return m;
}

void check_numeric(std::string_view op, const TensorImpl& t) {
  LOHE_CHECK_KIND(kNotImplemented, t.dtype() != Dtype::kBool, "\"", op,
                  "\" not implemented for 'Bool'; convert to a number dtype");
}

// --- mm, bmm and their forms with an addend

std::vector<Meta> infer_mm(Args a) {
  const TensorImpl &x = *a[0].tensor, &y = *a[1].tensor;
  LOHE_CHECK(x.dim() == 2, "self must be a matrix");
  LOHE_CHECK(y.dim() == 2, "mat2 must be a matrix");
  LOHE_CHECK(x.sizes()[1] == y.sizes()[0], "mat1 and mat2 shapes cannot be multiplied (", x.sizes()[0], "x",
             x.sizes()[1], " and ", y.sizes()[0], "x", y.sizes()[1], ")");
  same_dtype("mm", x, y);
  if (x.numel() != 0 && y.numel() != 0) check_numeric("addmm_impl_cpu_", x);
  return {meta(x.dtype(), {x.sizes()[0], y.sizes()[1]})};
}

void run_mm(Args a, Results& r) {
  const TensorImpl &x = *a[0].tensor, &y = *a[1].tensor;
  if (x.numel() == 0 || y.numel() == 0) {
    static const OpRef zero("zero_");
    zero(r[0]);
    return;
  }
  backend::matmul(x.dtype(), {1, x.sizes()[0], y.sizes()[1], x.sizes()[1]}, matrix(x), matrix(y),
                  matrix(*r[0]));
}

void grad_mm(Backward& b) {
  if (b.needs(0)) b.set(0, mm_row()(b.grad(), adjoint(b.tensor(1))));
  if (b.needs(1)) b.set(1, mm_row()(adjoint(b.tensor(0)), b.grad()));
}

std::vector<Meta> infer_bmm(Args a) {
  const TensorImpl &x = *a[0].tensor, &y = *a[1].tensor;
  LOHE_CHECK(x.dim() == 3, "batch1 must be a 3D tensor");
  LOHE_CHECK(y.dim() == 3, "batch2 must be a 3D tensor");
  LOHE_CHECK(x.sizes()[0] == y.sizes()[0] && x.sizes()[2] == y.sizes()[1],
             "Expected size for first two dimensions of batch2 tensor to be: [", x.sizes()[0], ", ",
             x.sizes()[2], "] but got: [", y.sizes()[0], ", ", y.sizes()[1], "].");
  same_dtype("bmm", x, y);
  check_numeric("bmm", x);
  return {meta(x.dtype(), {x.sizes()[0], x.sizes()[1], y.sizes()[2]})};
}

void run_bmm(Args a, Results& r) {
  const TensorImpl &x = *a[0].tensor, &y = *a[1].tensor;
  backend::matmul(x.dtype(), {x.sizes()[0], x.sizes()[1], y.sizes()[2], x.sizes()[2]}, matrix(x), matrix(y),
                  matrix(*r[0]));
}

/// Whether the last two dims lie in memory column by column.
bool by_columns(const TensorImpl& t) {
  const size_t n = t.sizes().size();
  return t.strides()[n - 2] == 1 && t.strides()[n - 1] > 1;
}

void grad_bmm(Backward& b) {
  if (b.needs(0)) b.set(0, bmm_row()(b.grad(), adjoint(b.tensor(1))));
  if (!b.needs(1)) return;
  // The gradient lies in memory as the operand does (both are there when both gradients are asked for), so
  // that what takes it on through the operand's view reads it along rows.
  const bool transposed = b.needs(0) && !is_complex(b.meta(1).dtype) && by_columns(*b.tensor(1));
  b.set(1, transposed ? adjoint(bmm_row()(adjoint(b.grad()), b.tensor(0)))
                      : bmm_row()(adjoint(b.tensor(0)), b.grad()));
}

// --- matrices in two dims of a batch

/// [a, b, m, k] times [a, b, k, n]. Heads of attention lie inside of positions; no copy has to bring them
/// together.
std::vector<Meta> infer_nested(Args a) {
  const TensorImpl &x = *a[0].tensor, &y = *a[1].tensor;
  LOHE_CHECK(x.dim() == 4 && y.dim() == 4, "_nested_bmm: expected tensors of 4 dims, got ", x.dim(), " and ",
             y.dim());
  LOHE_CHECK(x.sizes()[0] == y.sizes()[0] && x.sizes()[1] == y.sizes()[1] && x.sizes()[3] == y.sizes()[2],
             "_nested_bmm: shapes ", to_string(x.sizes()), " and ", to_string(y.sizes()), " do not fit");
  same_dtype("_nested_bmm", x, y);
  check_numeric("bmm", x);
  const int64_t heads = x.sizes()[1], m = x.sizes()[2], n = y.sizes()[3];
  Meta r = meta(x.dtype(), {x.sizes()[0], heads, m, n});
  if (a[2].integer != 0) r.strides = {m * heads * n, n, heads * n, 1};
  return {r};
}

void run_nested(Args a, Results& r) {
  const TensorImpl &x = *a[0].tensor, &y = *a[1].tensor;
  const auto operand = [](const TensorImpl& t) {
    backend::Matrix m = matrix(t);
    m.outer_stride = t.strides()[0];
    return m;
  };
  const Dims& s = x.size_dims();
  backend::matmul(x.dtype(), {s[0] * s[1], s[2], y.sizes()[3], s[3], s[1]}, operand(x), operand(y),
                  operand(*r[0]));
}

const OpRef& nested_row() {
  static const OpRef r("_nested_bmm");
  return r;
}

/// Whether dim 1 lies inside of dim 2.
bool interleaved(const TensorImpl& t) { return t.strides()[1] < t.strides()[2]; }

/// Gradients lie in memory as the operands do, as far as those are there: see grad_bmm.
void grad_nested(Backward& b) {
  const bool both = b.needs(0) && b.needs(1);
  if (b.needs(0)) b.set(0, nested_row()(b.grad(), adjoint(b.tensor(1)), both && interleaved(*b.tensor(0))));
  if (!b.needs(1)) return;
  if (both && !is_complex(b.meta(1).dtype) && by_columns(*b.tensor(1))) {
    const TensorPtr rows = adjoint(b.tensor(1));
    b.set(1, adjoint(nested_row()(adjoint(b.grad()), b.tensor(0), interleaved(*rows))));
  } else {
    b.set(1, nested_row()(adjoint(b.tensor(0)), b.grad(), both && interleaved(*b.tensor(1))));
  }
}

// --- beta * self + alpha * product

/// A factor as the dtype takes it: integers truncate.
Arg factor(const Arg& a, Dtype dtype) { return is_integral(dtype, true) ? Arg(a.scalar().to_int()) : a; }

bool is_number(const Arg& a, double v) { return !a.scalar().is_complex() && a.scalar().to_double() == v; }

void check_addend(const TensorImpl& self, const TensorImpl& product, std::span<const int64_t> shape) {
  LOHE_CHECK(self.dtype() == product.dtype(), "self and mat2 must have the same dtype, but got ",
             self.dtype(), " and ", product.dtype());
  LOHE_CHECK(self.sizes().size() <= shape.size(), "expand: the number of sizes provided (", shape.size(),
             ") must be greater or equal to the number of dimensions in the tensor (", self.dim(), ")");
  const size_t lead = shape.size() - self.sizes().size();
  for (size_t d = 0; d < self.sizes().size(); ++d) {
    LOHE_CHECK(self.sizes()[d] == shape[lead + d] || self.sizes()[d] == 1,
               "The expanded size of the tensor (", shape[lead + d], ") must match the existing size (",
               self.sizes()[d], ") at non-singleton dimension ", lead + d,
               ".  Target sizes: ", to_string(shape), ".  Tensor sizes: ", to_string(self.sizes()));
  }
}

/// As two rows of the table, where there is no product call to fold them into.
Results scaled_sum(const Arg& self, const TensorPtr& product, const Arg& beta_given, const Arg& alpha_given) {
  static const OpRef add("add");
  check_addend(*self.tensor, *product, product->sizes());
  const Arg beta = factor(beta_given, product->dtype()), alpha = factor(alpha_given, product->dtype());
  if (is_number(beta, 0)) return Results(is_number(alpha, 1) ? product : mul_row()(product, alpha));
  const TensorPtr addend = is_number(beta, 1) ? TensorPtr(self.tensor) : mul_row()(self.tensor, beta);
  return Results(add(addend, product, alpha));
}

std::vector<Meta> with_addend(std::vector<Meta> metas, Args a) {
  check_addend(*a[0].tensor, *a[1].tensor, metas[0].sizes);
  return metas;
}

/// One library call: the product is scaled and added to before it is rounded.
void run_with_addend(Args a, Results& r) {
  const TensorImpl &x = *a[1].tensor, &y = *a[2].tensor;
  const size_t n = x.sizes().size();
  const Dims strides = broadcast_strides(a[0].tensor->sizes(), a[0].tensor->strides(), r[0]->sizes());
  backend::Epilogue e;
  e.beta = a[3].scalar();
  e.alpha = a[4].scalar();
  e.addend = {a[0].tensor->data(), strides[n - 2], strides[n - 1], n > 2 ? strides[n - 3] : 0};
  backend::matmul(x.dtype(), {n > 2 ? x.sizes()[0] : 1, x.sizes()[n - 2], y.sizes()[n - 1], x.sizes()[n - 1]},
                  matrix(x), matrix(y), matrix(*r[0]), e);
}

void grad_with_addend(Backward& b, const OpRef& product) {
  const auto scaled = [](const TensorPtr& t, const Arg& s) {
    if (is_number(s, 1)) return t;
    return mul_row()(t, is_complex(t->dtype()) && s.scalar().is_complex()
                            ? Arg(Scalar(std::conj(s.scalar().to_complex())))
                            : s);
  };
  if (b.needs(0)) b.set(0, scaled(b.grad(), b.arg(3)));
  if (b.needs(1)) b.set(1, scaled(product(b.grad(), adjoint(b.tensor(2))), b.arg(4)));
  if (b.needs(2)) b.set(2, scaled(product(adjoint(b.tensor(1)), b.grad()), b.arg(4)));
}

// --- matmul by rank

TensorPtr expand_batch(const TensorPtr& t, const Dims& batch) {
  Dims full = batch;
  full.push_back(t->sizes()[t->sizes().size() - 2]);
  full.push_back(t->sizes().back());
  return expand_row()(t, full);
}

/// The batch's dims as two, at whose border the operands need not be one; as one (the first is 1) where they
/// are. Nothing: there is no such view of both.
std::optional<Dims> nested_batch(const TensorImpl& x, const TensorImpl& y) {
  const size_t rank = x.sizes().size();
  for (size_t cut = 0; cut + 2 < rank; ++cut) {
    Dims batch{1, 1};
    for (size_t d = 0; d + 2 < rank; ++d) batch[d < cut ? 0 : 1] *= x.sizes()[d];
    const auto fits = [&](const TensorImpl& t) {
      return view_strides(t.sizes(), t.strides(),
                          Dims{batch[0], batch[1], t.sizes()[rank - 2], t.sizes()[rank - 1]})
          .has_value();
    };
    if (fits(x) && fits(y)) return batch;
  }
  return std::nullopt;
}

TensorPtr fold_batch(const TensorPtr& e) {
  const Dims& full = e->size_dims();
  int64_t n = 1;
  for (size_t d = 0; d + 2 < full.size(); ++d) n *= full[d];
  if (!by_columns(*e)) return reshape_row()(e, Dims{n, full[full.size() - 2], full.back()});
  // A copy, if there must be one, runs along what is adjacent; the product takes any strides.
  const TensorPtr rows = transpose_row()(e, int64_t{-2}, int64_t{-1});
  return transpose_row()(reshape_row()(rows, Dims{n, full.back(), full[full.size() - 2]}), int64_t{-2},
                         int64_t{-1});
}

Results run_matmul(Args a) {
  const TensorPtr x(a[0].tensor), y(a[1].tensor);
  static const OpRef dot("dot"), mv("mv");
  LOHE_CHECK(x->dim() >= 1 && y->dim() >= 1, "both arguments to matmul need to be at least 1D, but they are ",
             x->dim(), "D and ", y->dim(), "D");
  if (x->dim() == 1 && y->dim() == 1) return Results(dot(x, y));
  if (x->dim() == 2 && y->dim() == 1) return Results(mv(x, y));
  if (x->dim() == 1 && y->dim() == 2)
    return Results(squeeze_row()(mm_row()(unsqueeze_row()(x, int64_t{0}), y), int64_t{0}));
  if (x->dim() == 2 && y->dim() == 2) return Results(mm_row()(x, y));
  // Many rows against one matrix: one product.
  if (x->dim() >= 3 && y->dim() <= 2) {
    Dims shape(x->sizes());
    const int64_t k = shape.back();
    shape.pop_back();
    int64_t rows = 1;
    for (const int64_t s : shape) rows *= s;
    const TensorPtr flat = reshape_row()(x, Dims{rows, k});
    if (y->dim() == 1) return Results(view_row()(mv(flat, y), shape));
    shape.push_back(y->sizes()[1]);
    return Results(view_row()(mm_row()(flat, y), shape));
  }
  const bool vector_x = x->dim() == 1, vector_y = y->dim() == 1;
  const TensorPtr p = vector_x ? unsqueeze_row()(x, int64_t{0}) : x;
  const TensorPtr q = vector_y ? unsqueeze_row()(y, int64_t{1}) : y;
  const auto batch_of = [](const TensorPtr& t) { return t->sizes().first(t->sizes().size() - 2); };
  LOHE_CHECK(p->sizes().back() == q->sizes()[q->sizes().size() - 2],
             "mat1 and mat2 shapes cannot be multiplied (", to_string(x->sizes()), " and ",
             to_string(y->sizes()), ")");
  const Dims batch = broadcast_shapes(batch_of(p), batch_of(q));
  const TensorPtr left = expand_batch(p, batch), right = expand_batch(q, batch);
  TensorPtr product;
  if (const auto nested = nested_batch(*left, *right);
      nested && (*nested)[0] != 1 && !left->extension && !right->extension) {
    const auto as_nested = [&](const TensorPtr& t) {
      const auto s = t->sizes();
      return view_row()(t, Dims{(*nested)[0], (*nested)[1], s[s.size() - 2], s.back()});
    };
    product = nested_row()(as_nested(left), as_nested(right), false);
  } else {
    product = bmm_row()(fold_batch(left), fold_batch(right));
  }
  Dims shape = batch;
  if (!vector_x) shape.push_back(p->sizes()[p->sizes().size() - 2]);
  if (!vector_y) shape.push_back(q->sizes().back());
  return Results(view_row()(product, shape));
}

/// input1, input2, weight (out, in1, in2), bias
Results bilinear(Args a) {
  static const OpRef reshape("reshape"), permute("permute"), add("add");
  const TensorImpl &x = *a[0].tensor, &y = *a[1].tensor, &w = *a[2].tensor;
  LOHE_CHECK(x.dtype() == y.dtype() && x.dtype() == w.dtype(),
             "All tensors must have the same dtype, got input1: ", x.dtype(), ", input2: ", y.dtype(),
             ", weight: ", w.dtype());
  LOHE_CHECK(x.dim() > 0 && x.dim() == y.dim(), "bilinear(): input dimensions do not match: got ", x.dim(),
             " and ", y.dim());
  LOHE_CHECK(w.dim() == 3, "bilinear(): weight must have 3 dims, got ", w.dim());
  for (size_t d = 0; d + 1 < x.sizes().size(); ++d) {
    LOHE_CHECK(x.sizes()[d] == y.sizes()[d], "bilinear(): input batch dimensions do not match at dim ", d,
               ": got ", x.sizes()[d], " and ", y.sizes()[d]);
  }
  const int64_t out = w.sizes()[0], m = w.sizes()[1], n = w.sizes()[2];
  LOHE_CHECK(x.sizes().back() == m, "bilinear(): input1 size does not match weight size: got ",
             x.sizes().back(), " but expected ", m);
  LOHE_CHECK(y.sizes().back() == n, "bilinear(): input2 size does not match weight size: got ",
             y.sizes().back(), " but expected ", n);
  LOHE_CHECK(a[3].none() || (a[3].tensor->dim() == 1 && a[3].tensor->sizes()[0] == out),
             "bilinear(): bias size does not match weight size: got ",
             a[3].none() ? std::string() : to_string(a[3].tensor->sizes()), " but expected ", out);
  int64_t rows = 1;
  Dims sizes(x.sizes());
  for (size_t d = 0; d + 1 < sizes.size(); ++d) rows *= sizes[d];
  sizes.back() = out;
  // (rows, in1) times (in1, out * in2), then each row's (out, in2) times its input2.
  const TensorPtr by_first = reshape(permute(a[2], Dims{1, 0, 2}), Dims{m, out * n});
  const TensorPtr half = reshape(mm_row()(reshape(a[0], Dims{rows, m}), by_first), Dims{rows, out, n});
  TensorPtr result = reshape(bmm_row()(half, reshape(a[1], Dims{rows, n, 1})), sizes);
  if (!a[3].none()) result = add(result, a[3]);
  return Results(result);
}

Results rank_one_update(Args a) {
  static const OpRef row("_addr");
  const TensorImpl &self = *a[0].tensor, &u = *a[1].tensor, &v = *a[2].tensor;
  LOHE_CHECK(u.dim() == 1, "addr: Expected 1-D argument vec1, but got ", u.dim(), "-D");
  LOHE_CHECK(v.dim() == 1, "addr: Expected 1-D argument vec2, but got ", v.dim(), "-D");
  const bool integral =
      is_integral(self.dtype(), true) && is_integral(u.dtype(), true) && is_integral(v.dtype(), true);
  for (const size_t i : {3, 4}) {
    LOHE_CHECK(!integral || a[i].scalar().is_integral(), "For integral input tensors, argument ",
               i == 3 ? "beta" : "alpha", " must not be a floating point number.");
  }
  const Dims shape{u.numel(), v.numel()};
  return row(expand_row()(a[0].tensor, shape), unsqueeze_row()(a[1].tensor, int64_t{1}), a[2].tensor, a[3],
             a[4]);
}

const OpFamily products(
    "matmul",
    {
        primitive("mm(Tensor self, Tensor mat2) -> Tensor", infer_mm, run_mm)
            .grad(grad_mm)
            .exact_out()
            .describe("Product of two matrices."),
        primitive("bmm(Tensor self, Tensor mat2) -> Tensor", infer_bmm, run_bmm)
            .grad(grad_bmm)
            .exact_out()
            .describe("Products of a batch of matrices."),
        primitive("_nested_bmm(Tensor self, Tensor mat2, bool interleaved=False) -> Tensor", infer_nested,
                  run_nested)
            .grad(grad_nested)
            .in("_C")
            .describe(
                "Products of matrices in two dims of a batch; interleaved: dim 1 of the result lies inside of dim 2."),
        function("bilinear(Tensor input1, Tensor input2, Tensor weight, Tensor? bias=None) -> Tensor",
                 bilinear)
            .function_only()
            .describe("sum over i and j of input1[i] weight[o, i, j] input2[j], plus bias[o]."),
        function("mv(Tensor self, Tensor vec) -> Tensor",
                 [](Args a) {
                   LOHE_CHECK(a[0].tensor->dim() == 2 && a[1].tensor->dim() == 1,
                              "vector + matrix @ vector expected, got 1, ", a[0].tensor->dim(), ", ",
                              a[1].tensor->dim());
                   LOHE_CHECK(a[0].tensor->sizes()[1] == a[1].tensor->sizes()[0],
                              "size mismatch, got input (", a[0].tensor->sizes()[0], "), mat (",
                              a[0].tensor->sizes()[0], "x", a[0].tensor->sizes()[1], "), vec (",
                              a[1].tensor->sizes()[0], ")");
                   return Results(squeeze_row()(
                       mm_row()(a[0].tensor, unsqueeze_row()(a[1].tensor, int64_t{1})), int64_t{1}));
                 })
            .out(OutDtype::kSame)
            .describe("Matrix times vector."),
        function("dot(Tensor self, Tensor tensor) -> Tensor",
                 [](Args a) {
                   const TensorImpl &x = *a[0].tensor, &y = *a[1].tensor;
                   LOHE_CHECK(x.dim() == 1 && y.dim() == 1, "1D tensors expected, but got ", x.dim(),
                              "D and ", y.dim(), "D tensors");
                   LOHE_CHECK(x.dtype() == y.dtype(),
                              "dot : expected both vectors to have same dtype, but found ", x.dtype(),
                              " and ", y.dtype());
                   LOHE_CHECK(x.numel() == y.numel(), "inconsistent tensor size, expected tensor [",
                              x.numel(), "] and src [", y.numel(),
                              "] to have the same number of elements, but got ", x.numel(), " and ",
                              y.numel(), " elements respectively");
                   const TensorPtr p = mm_row()(unsqueeze_row()(a[0].tensor, int64_t{0}),
                                                unsqueeze_row()(a[1].tensor, int64_t{1}));
                   return Results(view_row()(p, Dims{}));
                 })
            .out(OutDtype::kSame)
            .describe("Inner product of two vectors."),
        function("vdot(Tensor self, Tensor other) -> Tensor",
                 [](Args a) {
                   static const OpRef dot("dot");
                   TensorImpl *x = a[0].tensor, *y = a[1].tensor;
                   if (!is_complex(x->dtype())) return Results(dot(x, y));
                   // A pending conjugation of the second vector is left to the result.
                   if (!x->conj() && y->conj()) return Results(conj_row()(dot(x, conj_row()(y))));
                   return Results(dot(conj_row()(x), y));
                 })
            .out(OutDtype::kSame)
            .describe("Inner product with the first vector conjugated."),
        function("outer(Tensor self, Tensor vec2) -> Tensor",
                 [](Args a) {
                   LOHE_CHECK(a[0].tensor->dim() == 1, "outer: Expected 1-D argument self, but got ",
                              a[0].tensor->dim(), "-D");
                   LOHE_CHECK(a[1].tensor->dim() == 1, "outer: Expected 1-D argument vec2, but got ",
                              a[1].tensor->dim(), "-D");
                   return Results(mul_row()(unsqueeze_row()(a[0].tensor, int64_t{1}), a[1].tensor));
                 })
            .out()
            .describe("Outer product of two vectors."),
        primitive(
            "addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
            [](Args a) { return with_addend(infer_mm(a.subspan(1)), a); }, run_with_addend)
            .grad([](Backward& b) { grad_with_addend(b, mm_row()); })
            .gradient_reads({"mat1", "mat2"})
            .inplace()
            .exact_out()
            .describe("beta * self + alpha * (mat1 @ mat2)."),
        function("addmv(Tensor self, Tensor mat, Tensor vec, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
                 [](Args a) {
                   static const OpRef mv("mv");
                   return scaled_sum(a[0], mv(a[1].tensor, a[2].tensor), a[3], a[4]);
                 })
            .inplace()
            .exact_out()
            .describe("beta * self + alpha * (mat @ vec)."),
        primitive(
            "baddbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
            [](Args a) { return with_addend(infer_bmm(a.subspan(1)), a); }, run_with_addend)
            .grad([](Backward& b) { grad_with_addend(b, bmm_row()); })
            .gradient_reads({"batch1", "batch2"})
            .inplace()
            .exact_out()
            .describe("beta * self + alpha * (batch1 @ batch2)."),
        function(
            "addbmm(Tensor self, Tensor batch1, Tensor batch2, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
            [](Args a) {
              const TensorPtr p = bmm_row()(a[1].tensor, a[2].tensor);
              return scaled_sum(a[0], sum_row()(p, Dims{0}, false, p->dtype()), a[3], a[4]);
            })
            .inplace()
            .exact_out()
            .describe("beta * self + alpha * sum of (batch1 @ batch2)."),
        pointwise("_addr(Tensor self, Tensor vec1, Tensor vec2, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
                  [](ir::Node x, ir::Node u, ir::Node v, ir::Node beta, ir::Node alpha) {
                    // A factor of zero leaves out even what is not finite.
                    const ir::Node addend = select(beta == 0, x.literal(0), beta * x);
                    return addend + alpha * u * v;
                  })
            .in("_C")
            .describe("beta * self + alpha * vec1 * vec2."),
        function("addr(Tensor self, Tensor vec1, Tensor vec2, *, Scalar beta=1, Scalar alpha=1) -> Tensor",
                 rank_one_update)
            .inplace()
            .out()
            .describe("beta * self + alpha * outer(vec1, vec2)."),
        function("matmul(Tensor self, Tensor other) -> Tensor", run_matmul)
            .exact_out()
            .describe("Product by rank: vectors, matrices, or batches of matrices with broadcasting."),
        alias("ger", "outer"),
        alias("linalg_matmul", "matmul").in("linalg"),
    });

}  // namespace
}  // namespace lohe::ops
