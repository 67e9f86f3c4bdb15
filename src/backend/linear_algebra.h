#pragma once

#include <cstdint>

#include "backend/library.h"
#include "lohe/dtype.h"

namespace lohe::backend {

/// Solvers and factorizations of dense matrices: float32, float64, complex64 and complex128, all computed in
/// float64. Each is plain code with one order of arithmetic, so that its bits depend on neither threads nor
/// CPU.

/// A = Q R by Householder reflections; the diagonal of R is real, and of the opposite sign to what it
/// replaces. A is [batch, m, n] and not changed, R [batch, k, n] and Q [batch, m, k] with k = min(m, n), or
/// with `complete` k = m. `q` may have no data. A has m or n of 0 only if the result has no elements to
/// compute.
void qr(Dtype dtype, int64_t batch, int64_t m, int64_t n, bool complete, const Matrix& a, const Matrix& q,
        const Matrix& r);

struct TriangularShape {
  int64_t batch = 1, n = 0;  ///< A is [batch, n, n]
  int64_t columns = 0;       ///< X and B are [batch, n, columns]
  bool upper = false;
  bool unit = false;  ///< the diagonal is taken as ones and not read
};
/// A X = B by substitution; the other triangle of A is not read. A singular A gives infinities and NaN.
void solve_triangular(Dtype dtype, const TriangularShape& shape, const Matrix& a, const Matrix& b,
                      const Matrix& x);

}  // namespace lohe::backend
