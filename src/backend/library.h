#pragma once

#include <array>
#include <cstdint>
#include <limits>

#include "lohe/dtype.h"
#include "lohe/scalar.h"

namespace lohe::backend {

/// Library calls on plain memory: matrix products and convolutions of a CPU. Shapes and aliasing are the
/// caller's business; nothing here knows a tensor.
///
/// The bits of a result are a function of its operands' values, the shape and the dtype: not of the number of
/// threads, the strides, the batch, the CPU level or (matmul) the other rows and columns of the same call.

/// A batch of matrices in memory. Strides count elements, may be negative, or 0 to repeat. Element (b, i, j)
/// is at data + b / inner * outer_stride + b % inner * batch_stride + i * row_stride + j * column_stride,
/// with MatmulShape::inner.
struct Matrix {
  void* data = nullptr;
  int64_t row_stride = 0;
  int64_t column_stride = 0;
  int64_t batch_stride = 0;
  bool conjugate = false;  ///< of an operand of complex dtype: its conjugate takes part
  int64_t outer_stride = 0;

  Matrix transposed() const {
    return {data, column_stride, row_stride, batch_stride, conjugate, outer_stride};
  }
};

struct MatmulShape {
  int64_t batch = 1;
  int64_t m = 0;                                        ///< rows of A and C
  int64_t n = 0;                                        ///< columns of B and C
  int64_t k = 0;                                        ///< columns of A, rows of B
  int64_t inner = std::numeric_limits<int64_t>::max();  ///< matrices that are batch_stride apart
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
/// An element is a sum over chunks of 384 values of k (192 for complex types), the chunks' sums added in
/// order; a chunk is one chain of fused multiply-adds from +0 in the order of k. Of a complex product the
/// real part is the chain fma(ar, br), fma(ai, -bi), and the imaginary part fma(ar, bi), fma(ai, br), for
/// each k. Half types are computed in float32 and rounded once, at the end; integers wrap around. k = 0 gives
/// zeros. C may not overlap A or B, and no two of its elements may be the same memory.
/// @throws NotImplementedError for bool, OutOfMemory for the packing buffers.
void matmul(Dtype dtype, const MatmulShape& shape, const Matrix& a, const Matrix& b, const Matrix& c,
            const Epilogue& epilogue = {});

/// A product C = A B.
struct Multiplication {
  MatmulShape shape;
  Matrix a, b, c;
};
/// Two products, neither of which touches the other's C: the gradients of a linear map, say. As two calls,
/// but that a thread turns to the second one as soon as it finds nothing left to do for the first.
void matmul(Dtype dtype, const Multiplication& first, const Multiplication& second);
inline void matmul(Dtype dtype, const Multiplication& p) { matmul(dtype, p.shape, p.a, p.b, p.c); }

/// Sizes of a convolution with three spatial axes; with one or two, the leading ones have size 1, stride 1,
/// dilation 1 and no padding. Channels are all channels, of which a group takes its share; both numbers are
/// divisible by `groups`. `output` is given, and any size is right that reads no further than the padding
/// goes on the right side as on the left: positions outside the input read as zeros.
struct ConvolutionShape {
  using Axes = std::array<int64_t, 3>;
  int64_t batch = 1;
  int64_t in_channels = 1;
  int64_t out_channels = 1;
  int64_t groups = 1;
  Axes input{1, 1, 1};
  Axes kernel{1, 1, 1};
  Axes output{1, 1, 1};
  Axes stride{1, 1, 1};
  Axes padding{0, 0, 0};
  Axes dilation{1, 1, 1};
};

/// Images [batch, channels, axes], or a weight [out_channels, in_channels / groups, kernel axes]; strides
/// count elements and are whatever the memory format makes them.
struct Images {
  void* data = nullptr;
  int64_t outer_stride = 0;    ///< of batch; of out_channels for a weight
  int64_t channel_stride = 0;  ///< of in_channels for a weight
  ConvolutionShape::Axes strides{0, 0, 0};
};

/// Convolutions (cross-correlations, as the field calls them so) for every dtype but bool:
///   output[n, co, o] = bias[co] + sum over ci, r of weight[co, ci, r] * input[n, ci, o * stride + r *
///   dilation - padding]
/// with ci over the channels of co's group. As in matmul, an element is a sum over chunks of 384 products
/// (192 complex ones), here in the order (ci, r), each a chain of fused multiply-adds; half types are
/// computed in float32 and rounded once, after the bias. An output overlaps no operand. `bias`: [channels of
/// the result], adjacent, or nullptr.
/// @throws NotImplementedError for bool.
void convolution(Dtype dtype, const ConvolutionShape& shape, const Images& input, const Images& weight,
                 const void* bias, const Images& output);

/// The derivative with respect to the input, which is also the transposed convolution of `grad_output`:
///   grad_input[n, ci, i] = bias[ci] + sum over co, r, o with o * stride + r * dilation - padding == i of
///                          weight[co, ci, r] * grad_output[n, co, o]
/// in the order (co, r) of those r for which the stride leaves an o; o outside of the output reads as zero.
void convolution_input_gradient(Dtype dtype, const ConvolutionShape& shape, const Images& grad_output,
                                const Images& weight, const void* bias, const Images& grad_input);

/// The derivative with respect to the weight:
///   grad_weight[co, ci, r] = sum over n, o of grad_output[n, co, o] * input[n, ci, o * stride + r * dilation
///   - padding]
/// in the order (n, o).
void convolution_weight_gradient(Dtype dtype, const ConvolutionShape& shape, const Images& input,
                                 const Images& grad_output, const Images& grad_weight);

}  // namespace lohe::backend
