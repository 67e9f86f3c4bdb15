#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "lohe/dtype.h"

namespace lohe::backend {

/// The input positions that one output position looks at: start, start + step, ... below end; all inside the
/// input.
struct Window {
  int64_t start, end, step;
  int64_t padded;  ///< positions counting those in the padding
};

/// Pooling over three axes of dense planes; absent axes have size 1.
struct PoolingShape {
  using Axes = std::array<int64_t, 3>;
  int64_t planes = 1;
  Axes input{1, 1, 1}, output{1, 1, 1};
  std::array<std::vector<Window>, 3> windows;  ///< one for every output position of the axis
};

/// The largest value of each window, and its position within the plane: the first one, NaN counting as
/// largest. An empty window gives the lowest value. Every real dtype.
void max_pool(Dtype dtype, const PoolingShape& shape, const void* input, void* output, int64_t* indices);
/// Adds each gradient at its index, in output order; zero elsewhere. Floating and integer dtypes; half types
/// add in float32.
void max_pool_gradient(Dtype dtype, const PoolingShape& shape, const void* grad, const int64_t* indices,
                       void* grad_input);

/// How an average counts.
struct AverageRule {
  bool count_padding = true;
  int64_t divisor = 0;  ///< 0: the number of positions
};
void average_pool(Dtype dtype, const PoolingShape& shape, const AverageRule& rule, const void* input,
                  void* output);
void average_pool_gradient(Dtype dtype, const PoolingShape& shape, const AverageRule& rule, const void* grad,
                           void* grad_input);

}  // namespace lohe::backend
