#include "backend/linear_algebra.h"

#include <algorithm>
#include <cmath>
#include <complex>
#include <type_traits>

#include "backend/cpu/scratch.h"
#include "base/threads.h"
#include "lohe/error.h"
#include "tensor/half.h"

namespace lohe::backend {
namespace {

/// Multiplications that are worth a thread.
constexpr int64_t kGrain = 32768;

/// What element type T computes in.
template <class T>
using Wide = std::conditional_t<kIsComplex<T>, std::complex<double>, double>;

/// Calls f with the element type, one of the four that decompositions are computed in.
template <class F>
void visit(Dtype dtype, F&& f) {
  visit_dtype(dtype, [&]<class T>(T zero) {
    if constexpr (std::is_floating_point_v<T> || kIsComplex<T>)
      f(zero);
    else
      raise(ErrorKind::kInternal, "linear algebra is not computed in ", dtype);
  });
}

// Complex arithmetic by its formula: the library's operators look for infinities.
double times(double a, double b) { return a * b; }
std::complex<double> times(std::complex<double> a, std::complex<double> b) {
  return {a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real()};
}
double over(double a, double b) { return a / b; }
std::complex<double> over(std::complex<double> a, std::complex<double> b) {
  const double scale = std::max(std::abs(b.real()), std::abs(b.imag()));
  const std::complex<double> c = b / scale;
  const double size = (c.real() * c.real() + c.imag() * c.imag()) * scale;
  return times(a, std::conj(c)) / size;
}
double conjugate(double a) { return a; }
std::complex<double> conjugate(std::complex<double> a) { return std::conj(a); }
double squared(double a) { return a * a; }
double squared(std::complex<double> a) { return a.real() * a.real() + a.imag() * a.imag(); }
double real_of(double a) { return a; }
double real_of(std::complex<double> a) { return a.real(); }
double largest_part(double a) { return std::abs(a); }
double largest_part(std::complex<double> a) { return std::max(std::abs(a.real()), std::abs(a.imag())); }

/// Sum of conj(v[i]) x[i], in four chains.
template <class W>
W inner(const W* v, const W* x, int64_t n) {
  W sums[4] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    for (int64_t l = 0; l < 4; ++l) sums[l] += times(conjugate(v[i + l]), x[i + l]);
  }
  for (; i < n; ++i) sums[i % 4] += times(conjugate(v[i]), x[i]);
  return (sums[0] + sums[2]) + (sums[1] + sums[3]);
}

/// Columns of a matrix in working precision.
template <class W>
struct Columns {
  W* data;
  int64_t rows;
  W* column(int64_t c) const { return data + c * rows; }
};

template <class T>
T* element(const Matrix& m, int64_t b, int64_t i, int64_t j) {
  return static_cast<T*>(m.data) + b * m.batch_stride + i * m.row_stride + j * m.column_stride;
}

/// Makes a column's part from row j on a reflector (1, v), leaves v below the diagonal and the new diagonal
/// element on it, and gives tau of H = I - tau (1, v) (1, v)^H.
template <class W>
W make_reflector(W* column, int64_t rows, int64_t j) {
  W* x = column + j;
  const int64_t n = rows - j;
  double scale = 0, below = 0;
  for (int64_t i = 0; i < n; ++i) scale = std::max(scale, largest_part(x[i]));
  if (scale == 0 || !std::isfinite(scale)) scale = 1;
  for (int64_t i = 1; i < n; ++i) below += squared(x[i] / scale);
  const W alpha = x[0];
  if (below == 0 && alpha == W(real_of(alpha))) return W(0);
  const double length = std::sqrt(squared(alpha / scale) + below) * scale;
  const double beta = std::signbit(real_of(alpha)) ? length : -length;
  const W factor = over(W(1), alpha - W(beta));
  for (int64_t i = 1; i < n; ++i) x[i] = times(x[i], factor);
  x[0] = W(beta);
  return (W(beta) - alpha) / beta;
}

/// x -= tau (1, v) (1, v)^H x for the part of a column from row j on.
template <class W>
void reflect(const W* reflector, W tau, int64_t rows, int64_t j, W* column) {
  const W* v = reflector + j + 1;
  W* x = column + j + 1;
  const int64_t n = rows - j - 1;
  const W w = times(tau, column[j] + inner(v, x, n));
  column[j] -= w;
  for (int64_t i = 0; i < n; ++i) x[i] -= times(v[i], w);
}

template <class T>
void factor(int64_t b, int64_t m, int64_t n, bool complete, const Matrix& a, const Matrix& q,
            const Matrix& r) {
  using W = Wide<T>;
  const int64_t k = std::min(m, n), columns = complete ? m : k;
  Scratch<W> work(m * n), basis(q.data == nullptr ? 0 : m * columns), taus(k);
  const Columns<W> x{work.data(), m}, y{basis.data(), m};
  for (int64_t c = 0; c < n; ++c) {
    for (int64_t i = 0; i < m; ++i) {
      const W v = static_cast<W>(*element<const T>(a, b, i, c));
      x.column(c)[i] = a.conjugate ? conjugate(v) : v;
    }
  }
  const auto grain = [m](int64_t j) { return std::max<int64_t>(kGrain / (m - j), 1); };
  for (int64_t j = 0; j < k; ++j) {
    const W tau = taus.data()[j] = make_reflector(x.column(j), m, j);
    if (tau == W(0)) continue;
    parallel_for(n - j - 1, grain(j), [&](int64_t c0, int64_t c1) {
      for (int64_t c = c0; c < c1; ++c) reflect(x.column(j), conjugate(tau), m, j, x.column(j + 1 + c));
    });
  }
  for (int64_t i = 0; i < columns; ++i) {
    for (int64_t c = 0; c < n; ++c) *element<T>(r, b, i, c) = static_cast<T>(i <= c ? x.column(c)[i] : W(0));
  }
  if (q.data == nullptr) return;
  for (int64_t c = 0; c < columns; ++c) {
    std::fill_n(y.column(c), m, W(0));
    y.column(c)[c] = W(1);
  }
  for (int64_t j = k; j-- > 0;) {
    const W tau = taus.data()[j];
    if (tau == W(0)) continue;
    parallel_for(columns - j, grain(j), [&](int64_t c0, int64_t c1) {
      for (int64_t c = c0; c < c1; ++c) reflect(x.column(j), tau, m, j, y.column(j + c));
    });
  }
  for (int64_t c = 0; c < columns; ++c) {
    for (int64_t i = 0; i < m; ++i) *element<T>(q, b, i, c) = static_cast<T>(y.column(c)[i]);
  }
}

/// Columns [c0, c1) of X, row by row.
template <class T>
void substitute(const TriangularShape& s, int64_t b, const Matrix& a, const Matrix& right, const Matrix& x,
                int64_t c0, int64_t c1) {
  using W = Wide<T>;
  const int64_t n = s.n, columns = c1 - c0;
  Scratch<W> work(n * columns);
  for (int64_t step = 0; step < n; ++step) {
    const int64_t i = s.upper ? n - 1 - step : step;
    W* row = work.data() + i * columns;
    for (int64_t c = 0; c < columns; ++c) {
      const W v = static_cast<W>(*element<const T>(right, b, i, c0 + c));
      row[c] = right.conjugate ? conjugate(v) : v;
    }
    for (int64_t k = s.upper ? i + 1 : 0; k < (s.upper ? n : i); ++k) {
      const W given = static_cast<W>(*element<const T>(a, b, i, k)),
              factor = a.conjugate ? conjugate(given) : given;
      const W* known = work.data() + k * columns;
      for (int64_t c = 0; c < columns; ++c) row[c] -= times(factor, known[c]);
    }
    if (!s.unit) {
      const W given = static_cast<W>(*element<const T>(a, b, i, i)),
              pivot = a.conjugate ? conjugate(given) : given;
      for (int64_t c = 0; c < columns; ++c) row[c] = over(row[c], pivot);
    }
    for (int64_t c = 0; c < columns; ++c) *element<T>(x, b, i, c0 + c) = static_cast<T>(row[c]);
  }
}

}  // namespace

void qr(Dtype dtype, int64_t batch, int64_t m, int64_t n, bool complete, const Matrix& a, const Matrix& q,
        const Matrix& r) {
  visit(dtype, [&](auto zero) {
    parallel_for(batch, std::max<int64_t>(kGrain / std::max<int64_t>(m * n * std::min(m, n), 1), 1),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t b = begin; b < end; ++b) factor<decltype(zero)>(b, m, n, complete, a, q, r);
                 });
  });
}

void solve_triangular(Dtype dtype, const TriangularShape& s, const Matrix& a, const Matrix& b,
                      const Matrix& x) {
  // Columns are independent; enough of them together make the inner loops long.
  constexpr int64_t kTogether = 64;
  const int64_t blocks = (s.columns + kTogether - 1) / kTogether;
  visit(dtype, [&](auto zero) {
    parallel_for(s.batch * blocks, std::max<int64_t>(kGrain / std::max<int64_t>(s.n * s.n * kTogether, 1), 1),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t k = begin; k < end; ++k) {
                     const int64_t c = k % blocks * kTogether;
                     substitute<decltype(zero)>(s, k / blocks, a, b, x, c,
                                                std::min(c + kTogether, s.columns));
                   }
                 });
  });
}

}  // namespace lohe::backend
