#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "lohe/dtype.h"

namespace lohe::backend {

/// How one axis is resampled: output o is the sum of `count` input positions, each times its weight.
struct AxisTaps {
  int64_t count = 1;
  std::vector<int64_t> at;      ///< count positions for every output position
  std::vector<double> weights;  ///< and their weights; empty: one position, taken as it is
};

/// Separable resampling over three axes of dense planes; absent axes have size 1.
struct ResamplingShape {
  using Axes = std::array<int64_t, 3>;
  int64_t planes = 1;
  Axes input{1, 1, 1}, output{1, 1, 1};
  std::array<AxisTaps, 3> taps;
};

/// One pass an axis, the last axis first; half types compute in float32. uint8 rounds after each pass, with
/// weights of 16-bit fixed point as image libraries compute them. Floating dtypes and uint8.
void resample(Dtype dtype, const ResamplingShape& shape, const void* input, void* output);
/// The transposed map. Floating dtypes.
void resample_gradient(Dtype dtype, const ResamplingShape& shape, const void* grad, void* grad_input);

}  // namespace lohe::backend
