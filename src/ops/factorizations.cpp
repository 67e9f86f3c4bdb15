#include <algorithm>

#include "backend/linear_algebra.h"
#include "lohe/error.h"
#include "ops/indexing.h"
#include "ops/reductions.h"
#include "tensor/shape.h"

/// Factorizations of matrices, and systems with triangular matrices.
namespace lohe::ops {
namespace {

// --- what matrices in a batch share

int64_t rows_of(const TensorImpl& t) { return t.sizes()[t.sizes().size() - 2]; }
int64_t columns_of(const TensorImpl& t) { return t.sizes().back(); }
std::span<const int64_t> batch_of(const TensorImpl& t) { return t.sizes().first(t.sizes().size() - 2); }

/// A batch of column-major matrices.
Meta matrices(std::span<const int64_t> batch, int64_t rows, int64_t columns, Dtype dtype) {
  Meta m;
  m.dtype = dtype;
  m.sizes = Dims(batch);
  m.sizes.push_back(rows);
  m.sizes.push_back(columns);
  m.strides = contiguous_strides(m.sizes);
  m.strides[batch.size()] = 1;
  m.strides[batch.size() + 1] = std::max<int64_t>(rows, 1);
  return m;
}

/// The batch dims seen as one; `t` has them dense.
backend::Matrix as_matrix(const TensorImpl& t) {
  const size_t n = t.sizes().size();
  return {t.data(), t.strides()[n - 2], t.strides()[n - 1], rows_of(t) * columns_of(t), false};
}

TensorPtr dense(TensorImpl* t) {
  static const OpRef contiguous("contiguous");
  const NoGrad guard;
  return contiguous(plain(t));
}

TensorPtr adjoint(const TensorPtr& t) {
  static const OpRef transpose("transpose.int"), conj("conj_physical");
  const TensorPtr turned = transpose(t, int64_t{-2}, int64_t{-1});
  return is_complex(t->dtype()) ? conj(turned) : turned;
}

void check_matrices(std::string_view name, const TensorImpl& t, std::string_view which) {
  LOHE_CHECK(t.dim() >= 2, name, ": The input tensor ", which, " must have at least 2 dimensions.");
}

void check_computed(std::string_view kernel, Dtype dtype) {
  LOHE_CHECK_KIND(kNotImplemented, dtype == Dtype::kFloat32 || dtype == Dtype::kFloat64 || is_complex(dtype),
                  "\"", kernel, "_cpu\" not implemented for '", type_word(dtype),
                  "'; convert to float32 or float64");
}

// --- Q R

std::vector<Meta> qr_meta(Args a) {
  const TensorImpl& t = *a[0].tensor;
  const std::string_view mode = a[1].str();
  check_matrices("linalg.qr", t, "A");
  LOHE_CHECK(is_differentiable(t.dtype()),
             "linalg.qr: Expected a floating point or complex tensor as input. Got ", type_word(t.dtype()));
  check_computed("geqrf", t.dtype());
  LOHE_CHECK(mode == "reduced" || mode == "r" || mode == "complete", "qr received unrecognized mode '", mode,
             "' but expected one of 'reduced' (default), 'r', or 'complete'");
  const int64_t m = rows_of(t), n = columns_of(t), k = mode == "complete" ? m : std::min(m, n);
  Meta none;
  none.dtype = t.dtype();
  none.sizes = Dims{0};
  return {mode == "r" ? none : matrices(batch_of(t), m, k, t.dtype()),
          matrices(batch_of(t), k, n, t.dtype())};
}

void run_qr(Args a, Results& r) {
  static const OpRef eye("eye.m"), copy("copy_");
  const TensorPtr t = dense(a[0].tensor);
  const int64_t m = rows_of(*t), n = columns_of(*t);
  const bool wanted = a[1].str() != "r", complete = a[1].str() == "complete";
  if (t->numel() == 0) {
    // No columns to reflect: Q is the identity as far as it exists.
    if (wanted && r[0]->numel() > 0) copy(r[0], eye(m, columns_of(*r[0]), t->dtype()));
    return;
  }
  backend::qr(t->dtype(), t->numel() / (m * n), m, n, complete, as_matrix(*t),
              wanted ? as_matrix(*r[0]) : backend::Matrix(), as_matrix(*r[1]));
}

/// With A = Q R for at least as many rows as columns: (gQ + Q S) R^-H, where S is the upper triangle of
/// gR R^H - Q^H gQ and its mirror, the diagonal once and real. Columns beyond the rows are Q times those of
/// R.
void qr_gradient(Backward& b) {
  static const OpRef matmul("matmul"), solve("linalg_solve_triangular"), triu("triu"), add("add"), sub("sub"),
      slice("slice.Tensor"), cat("cat"), zeros("zeros"), tril("tril"), mul("mul");
  if (!b.needs(0)) return;
  const std::string_view mode = b.arg(1).str();
  LOHE_CHECK(mode != "r",
             "The derivative of linalg.qr depends on Q, which is not computed when mode='r'. Use "
             "mode='reduced'.");
  const TensorPtr q = b.result(0), r = b.result(1);
  const int64_t m = rows_of(*q), n = columns_of(*r);
  LOHE_CHECK(
      mode != "complete" || m <= n,
      "The QR decomposition is not differentiable when mode='complete' and nrows > ncols. Use mode='reduced'.");
  const auto or_zeros = [&](int output, const TensorPtr& like) {
    return b.grad(output) ? b.grad(output) : zeros(like->sizes(), like->dtype());
  };
  TensorPtr to_q = or_zeros(0, q), to_r = or_zeros(1, r), square = r, rest;
  if (m < n) {
    const auto columns = [&](const TensorPtr& t, int64_t from, int64_t to) {
      return slice(t, int64_t{-1}, from, to);
    };
    const TensorPtr beyond = columns(to_r, m, n);
    rest = matmul(q, beyond);
    to_q = add(to_q, matmul(matmul(q, columns(r, m, n)), adjoint(beyond)));
    square = columns(r, 0, m);
    to_r = columns(to_r, 0, m);
  }
  const TensorPtr upper = triu(sub(matmul(to_r, adjoint(square)), matmul(adjoint(q), to_q)));
  const TensorPtr both = add(upper, adjoint(upper)), mirrored = sub(both, mul(triu(tril(both)), 0.5));
  const TensorPtr inner = add(to_q, matmul(q, mirrored));
  // X R^H = inner
  const TensorPtr first = solve(adjoint(square), inner, false, false, false);
  if (!rest) {
    b.set(0, first);
    return;
  }
  TensorImpl* parts[2] = {first.get(), rest.get()};
  b.set(0, cat(std::span<TensorImpl* const>(parts), int64_t{-1}));
}

// --- triangular systems

/// The batch of both operands, laid over `t`.
TensorPtr over_batch(TensorImpl* t, std::span<const int64_t> batch) {
  static const OpRef expand("expand");
  Dims sizes(batch);
  sizes.push_back(rows_of(*t));
  sizes.push_back(columns_of(*t));
  return expand(t, sizes);
}

std::vector<Meta> triangular_meta(Args a) {
  const TensorImpl &t = *a[0].tensor, &right = *a[1].tensor;
  const bool left = a[3].integer != 0;
  check_matrices("linalg.solve_triangular", t, "A");
  check_matrices("linalg.solve_triangular", right, "B");
  LOHE_CHECK(rows_of(t) == columns_of(t),
             "linalg.solve_triangular: A must be batches of square matrices, but they are ", rows_of(t),
             " by ", columns_of(t), " matrices");
  LOHE_CHECK((left ? rows_of(right) : columns_of(right)) == rows_of(t),
             "linalg.solve_triangular: Incompatible shapes of A and B for the equation ",
             left ? "AX = B" : "XA = B", " (", rows_of(t), "x", columns_of(t), " and ", rows_of(right), "x",
             columns_of(right), ")");
  LOHE_CHECK(t.dtype() == right.dtype(),
             "linalg.solve_triangular: Expected A and B to have the same dtype, but found A of type ",
             info(t.dtype()).name, " and B of type ", info(right.dtype()).name, " instead");
  check_computed("triangular_solve", t.dtype());
  return {
      matrices(broadcast_shapes(batch_of(t), batch_of(right)), rows_of(right), columns_of(right), t.dtype())};
}

void run_triangular(Args a, Results& r) {
  if (r[0]->numel() == 0) return;
  const std::span<const int64_t> batch = batch_of(*r[0]);
  const NoGrad guard;
  const TensorPtr t = dense(over_batch(a[0].tensor, batch).get()),
                  right = dense(over_batch(a[1].tensor, batch).get());
  const bool left = a[3].integer != 0, upper = a[2].integer != 0;
  backend::TriangularShape s;
  s.n = rows_of(*t);
  s.columns = r[0]->numel() / s.n / numel_of(batch);
  s.batch = numel_of(batch);
  s.upper = upper == left;  // X A = B is solved as its transpose
  s.unit = a[4].integer != 0;
  const auto side = [left](const TensorImpl& x) { return left ? as_matrix(x) : as_matrix(x).transposed(); };
  backend::solve_triangular(t->dtype(), s, side(*t), side(*right), side(*r[0]));
}

void triangular_gradient(Backward& b) {
  static const OpRef matmul("matmul"), solve("linalg_solve_triangular"), triu("triu"), tril("tril"),
      neg("neg");
  const bool upper = b.arg(2).integer != 0, left = b.arg(3).integer != 0, unit = b.arg(4).integer != 0;
  const TensorPtr to_right = solve(adjoint(b.tensor(0)), b.grad(), !upper, left, unit);
  if (b.needs(1)) b.set(1, to_right);
  if (!b.needs(0)) return;
  const TensorPtr x = adjoint(b.result());
  const TensorPtr all = neg(left ? matmul(to_right, x) : matmul(x, to_right));
  const int64_t off = unit ? 1 : 0;
  b.set(0, upper ? triu(all, off) : tril(all, -off));
}

const OpFamily factorizations(
    "factorizations",
    {
        primitive("linalg_qr(Tensor A, str mode='reduced') -> (Tensor Q, Tensor R)", qr_meta, run_qr)
            .in("linalg")
            .exact_out()
            .gradient_reads({"result0", "result1"})
            .grad(qr_gradient)
            .describe(
                "A = Q R with orthonormal columns of Q and an upper triangle R, by Householder reflections."),
        function("qr(Tensor self, bool some=True) -> (Tensor Q, Tensor R)",
                 [](Args a) {
                   static const OpRef row("linalg_qr");
                   return row.all(a[0], a[1].integer != 0 ? "reduced" : "complete");
                 })
            .exact_out()
            .describe("As linalg.qr; some=False gives the complete Q."),
        primitive(
            "linalg_solve_triangular(Tensor self, Tensor B, *, bool upper, bool left=True, bool unitriangular=False) -> Tensor",
            triangular_meta, run_triangular)
            .in("linalg")
            .exact_out()
            .gradient_reads({"self", "result"})
            .grad(triangular_gradient)
            .describe("The X of A X = B, or of X A = B, for a triangular A; its other triangle is not read."),
    });

}  // namespace
}  // namespace lohe::ops
