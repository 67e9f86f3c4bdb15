#include <algorithm>
#include <cmath>
#include <complex>
#include <numeric>

#include "base/threads.h"
#include "lohe/error.h"
#include "ops/indexing.h"
#include "tensor/shape.h"

/// Singular values of matrices by one-sided Jacobi rotations (Hestenes 1958): columns are turned in pairs
/// until all are orthogonal; their lengths are the singular values, to full relative precision. Every matrix
/// is worked on by one thread in 64 bits, so that its result depends on nothing else.
namespace lohe::ops {
namespace {

using Complex = std::complex<double>;

double conjugate(double x) { return x; }
Complex conjugate(Complex x) { return std::conj(x); }
double square(double x) { return x * x; }
double square(Complex x) { return std::norm(x); }

constexpr int kSweeps = 60;  // a handful are enough; the bound is for what cannot converge

/// a[:, p] and a[:, q] of a column-major matrix, turned by the rotation (c, s) after q took the phase.
template <class T>
void turn(T* p, T* q, int64_t rows, double c, double s, T phase) {
  for (int64_t i = 0; i < rows; ++i) {
    const T x = p[i], y = q[i] * phase;
    p[i] = c * x - s * y;
    q[i] = s * x + c * y;
  }
}

/// Turns columns p and q orthogonal; false if they are.
template <class T>
bool orthogonalize(T* p, T* q, int64_t rows, T* v_p, T* v_q, int64_t columns) {
  double a = 0, b = 0;
  T between{};
  for (int64_t i = 0; i < rows; ++i) {
    a += square(p[i]);
    b += square(q[i]);
    between += conjugate(p[i]) * q[i];
  }
  const double overlap = std::abs(between);
  if (overlap <= 0x1p-52 * std::sqrt(a) * std::sqrt(b)) return false;
  const double zeta = (b - a) / (2 * overlap);
  const double t = std::copysign(1.0, zeta) / (std::abs(zeta) + std::hypot(1.0, zeta));
  const double c = 1 / std::sqrt(1 + t * t);
  const T phase = conjugate(between) / overlap;
  turn(p, q, rows, c, c * t, phase);
  turn(v_p, v_q, columns, c, c * t, phase);
  return true;
}

/// One matrix, column-major with rows >= columns: on return `a` holds the left vectors times the singular
/// values, `v` the right vectors, both in columns that `order` sorts by falling singular value.
template <class T>
void decompose(std::vector<T>& a, std::vector<T>& v, std::vector<double>& values, std::vector<int64_t>& order,
               int64_t rows, int64_t columns) {
  double largest = 0;
  for (const T& x : a) {
    LOHE_CHECK_KIND(kLinAlg, std::isfinite(std::abs(x)),
                    "linalg.svd: The algorithm failed to converge because the input matrix contained "
                    "non-finite values.");
    largest = std::max(largest, std::abs(x));
  }
  // Scaled by a power of two, so that no square overflows or vanishes.
  const int exponent = largest == 0 ? 0 : std::ilogb(largest);
  for (T& x : a) x *= std::ldexp(1.0, -exponent);
  v.assign(static_cast<size_t>(columns * columns), T{});
  for (int64_t j = 0; j < columns; ++j) v[static_cast<size_t>(j * columns + j)] = 1;
  bool turned = true;
  for (int sweep = 0; turned && sweep < kSweeps; ++sweep) {
    turned = false;
    for (int64_t p = 0; p < columns; ++p) {
      for (int64_t q = p + 1; q < columns; ++q) {
        turned |= orthogonalize(a.data() + p * rows, a.data() + q * rows, rows, v.data() + p * columns,
                                v.data() + q * columns, columns);
      }
    }
  }
  values.assign(static_cast<size_t>(columns), 0);
  for (int64_t j = 0; j < columns; ++j) {
    double sum = 0;
    for (int64_t i = 0; i < rows; ++i) sum += square(a[static_cast<size_t>(j * rows + i)]);
    values[static_cast<size_t>(j)] = std::sqrt(sum);
  }
  order.resize(static_cast<size_t>(columns));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t x, int64_t y) {
    return values[static_cast<size_t>(x)] > values[static_cast<size_t>(y)];
  });
  for (int64_t j = 0; j < columns; ++j) {
    const double length = values[static_cast<size_t>(j)];
    for (int64_t i = 0; i < rows; ++i) {
      T& x = a[static_cast<size_t>(j * rows + i)];
      x = length == 0 ? T{} : x / length;
    }
    values[static_cast<size_t>(j)] = std::ldexp(length, exponent);
  }
}

/// All matrices of a batch. `u` [.., m, k], `s` [.., k] and `vh` [.., k, n] are row-major.
template <class T>
void decompose_all(const TensorImpl& x, T* u, double* s, T* vh) {
  const auto rank = static_cast<size_t>(x.dim());
  const int64_t m = x.sizes()[rank - 2], n = x.sizes()[rank - 1], k = std::min(m, n);
  const int64_t count = k == 0 ? 0 : x.numel() / (m * n);
  const bool wide = m < n;
  const int64_t rows = std::max(m, n);
  parallel_for(count, std::max<int64_t>(1, 4096 / (m * n + 1)), [&](int64_t begin, int64_t end) {
    std::vector<T> a, v;
    std::vector<double> values;
    std::vector<int64_t> order;
    for (int64_t b = begin; b < end; ++b) {
      const T* from = reinterpret_cast<const T*>(x.data()) + b * m * n;
      a.assign(static_cast<size_t>(m * n), T{});
      // A wide matrix is decomposed as its adjoint.
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t j = 0; j < n; ++j) {
          const T value = from[i * n + j];
          a[static_cast<size_t>(wide ? i * rows + j : j * rows + i)] = wide ? conjugate(value) : value;
        }
      }
      decompose(a, v, values, order, rows, k);
      for (int64_t c = 0; c < k; ++c) {
        const int64_t at = order[static_cast<size_t>(c)];
        s[b * k + c] = values[static_cast<size_t>(at)];
        const T *left = wide ? v.data() + at * k : a.data() + at * rows,
                *right = wide ? a.data() + at * rows : v.data() + at * k;
        for (int64_t i = 0; i < m; ++i) u[(b * m + i) * k + c] = left[i];
        for (int64_t j = 0; j < n; ++j) vh[(b * k + c) * n + j] = conjugate(right[j]);
      }
    }
  });
}

std::vector<Meta> infer_svd(Args a) {
  const TensorImpl& x = *a[0].tensor;
  LOHE_CHECK(x.dim() >= 2, "linalg.svd: The input tensor A must have at least 2 dimensions, got ", x.dim());
  LOHE_CHECK(is_differentiable(x.dtype()),
             "linalg.svd: Expected a floating point or complex tensor as input. Got ", x.dtype());
  LOHE_CHECK_KIND(kNotImplemented, itemsize(info(x.dtype()).value_dtype) >= 4,
                  "\"linalg_svd_cpu\" not implemented for ", x.dtype(), "; convert it to float32 or float64");
  const auto rank = static_cast<size_t>(x.dim());
  const int64_t m = x.sizes()[rank - 2], n = x.sizes()[rank - 1], k = std::min(m, n);
  Dims batch(x.sizes().first(rank - 2));
  std::vector<Meta> metas(3);
  for (Meta& meta : metas) {
    meta.dtype = x.dtype();
    meta.sizes = batch;
  }
  metas[1].dtype = info(x.dtype()).value_dtype;
  metas[0].sizes.push_back(m);
  metas[0].sizes.push_back(k);
  metas[1].sizes.push_back(k);
  metas[2].sizes.push_back(k);
  metas[2].sizes.push_back(n);
  return metas;
}

void run_svd(Args a, Results& r) {
  static const OpRef to("to.dtype"), contiguous("contiguous"), empty("empty"), copy("copy_");
  const WithoutGrad guard;
  const bool complex = is_complex(r[0]->dtype());
  const Dtype wide = complex ? Dtype::kComplex128 : Dtype::kFloat64;
  const TensorPtr x = contiguous(to(a[0].tensor, wide));
  const TensorPtr u = empty(r[0]->sizes(), wide), s = empty(r[1]->sizes(), Dtype::kFloat64),
                  vh = empty(r[2]->sizes(), wide);
  auto* values = reinterpret_cast<double*>(s->data());
  if (complex)
    decompose_all(*x, reinterpret_cast<Complex*>(u->data()), values, reinterpret_cast<Complex*>(vh->data()));
  else
    decompose_all(*x, reinterpret_cast<double*>(u->data()), values, reinterpret_cast<double*>(vh->data()));
  copy(r[0], u);
  copy(r[1], s);
  copy(r[2], vh);
}

const OpFamily singular(
    "singular",
    {
        primitive("_svd(Tensor self) -> (Tensor U, Tensor S, Tensor Vh)", infer_svd, run_svd)
            .gradient_reads({"result0", "result2"})
            .grad([](Backward& b) {
              static const OpRef matmul("matmul"), mul("mul"), unsqueeze("unsqueeze");
              LOHE_CHECK_KIND(
                  kNotImplemented, !b.grad(0) && !b.grad(2),
                  "linalg.svdvals: the derivative of the singular vectors is not implemented, which a "
                  "second derivative of singular values needs");
              if (b.needs(0) && b.grad(1))
                b.set(0, matmul(mul(b.result(0), unsqueeze(b.grad(1), int64_t{-2})), b.result(2)));
            })
            .in("_C")
            .describe("Left vectors, falling singular values and adjoint right vectors of matrices."),
        function("linalg_svdvals(Tensor A, *, str? driver=None) -> Tensor",
                 [](Args a) {
                   static const OpRef row("_svd");
                   LOHE_CHECK(
                       a[1].none(),
                       "torch.linalg.svdvals: keyword argument `driver=` is only supported on CUDA inputs");
                   return Results(row.all(a[0].tensor)[1]);
                 })
            .in("linalg")
            .out(OutDtype::kSame)
            .describe("The singular values of matrices, the largest first."),
    });

}  // namespace
}  // namespace lohe::ops
