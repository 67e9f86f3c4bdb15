#pragma once

#include <cstdint>

#include "lohe/dtype.h"
#include "lohe/scalar.h"

namespace lohe::backend {

/// Library calls on plain memory: matrix products and convolutions of a CPU. Shapes and aliasing are the
/// caller's business; nothing here knows a tensor.
///
/// The bits of a result are a function of its operands' values, the shape and the dtype: not of the number of
/// threads, the strides, the batch, the CPU level or (matmul) the other rows and columns of the same call.

/// A batch of matrices in memory. Strides count elements, may be negative, or 0 to repeat. Element (b, i, j)
/// is at data + b * batch_stride + i * row_stride + j * column_stride.
struct Matrix {
  void* data = nullptr;
  int64_t row_stride = 0;
  int64_t column_stride = 0;
  int64_t batch_stride = 0;
  bool conjugate = false;  ///< of an operand of complex dtype: its conjugate takes part

  Matrix transposed() const { return {data, column_stride, row_stride, batch_stride, conjugate}; }
};

struct MatmulShape {
  int64_t batch = 1;
  int64_t m = 0;  ///< rows of A and C
  int64_t n = 0;  ///< columns of B and C
  int64_t k = 0;  ///< columns of A, rows of B
};

/// What becomes of a product S = A B before it is written: C = alpha * S + beta * addend, each multiplication
/// and the addition rounded once in the compute dtype, and a factor of 1 left out. For integer dtypes both
/// factors are taken as integers and all of it wraps around; for real dtypes they are taken as doubles and
/// rounded to the compute dtype.
struct Epilogue {
  Scalar alpha = 1;
  Scalar beta = 0;  ///< 0: `addend` is not read, NaN in it does not matter
  Matrix addend;    ///< [batch, m, n] of C's dtype; strides of 0 make it a bias; it may be C itself
};

/// C[b] = A[b] B[b] for every dtype but bool.
///
/// An element is a sum over chunks of 512 values of k (256 for complex types), the chunks' sums added in
/// order; a chunk is one chain of fused multiply-adds from +0 in the order of k. Of a complex product the
/// real part is the chain fma(ar, br), fma(ai, -bi), and the imaginary part fma(ar, bi), fma(ai, br), for
/// each k. Half types are computed in float32 and rounded once, at the end; integers wrap around. k = 0 gives
/// zeros. C may not overlap A or B, and no two of its elements may be the same memory.
/// @throws NotImplementedError for bool, OutOfMemory for the packing buffers.
void matmul(Dtype dtype, const MatmulShape& shape, const Matrix& a, const Matrix& b, const Matrix& c,
            const Epilogue& epilogue = {});

}  // namespace lohe::backend
