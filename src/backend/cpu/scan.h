#pragma once

#include <cstdint>

#include "lohe/dtype.h"
#include "tensor/loops.h"

/// Running results along a dim: element i is made from element i - 1, one after the other, so that the order
/// of the arithmetic is fixed. Other lines run beside each other.
namespace lohe::backend {

/// Lines along a dim. Steps and strides are bytes; `reverse` begins at the last element.
struct ScanLines {
  const char* input[2] = {nullptr, nullptr};
  char* output[2] = {nullptr, nullptr};
  int64_t length = 0;
  std::array<int64_t, 4> steps{};  ///< along the line: inputs, then outputs
  Loops<4> lines;
  bool reverse = false;
};

/// output = running sum or product of input. Sums of float32 are kept in float64 and of complex64 in
/// complex128, half types in float32, and each is rounded where it is written; integers wrap around. All
/// dtypes but bool.
void running_sum(const ScanLines& x, Dtype dtype);
void running_product(const ScanLines& x, Dtype dtype);

/// output[0] = the largest (smallest) element so far and output[1] its int64 position: the last of equal
/// ones. From the first NaN on it is NaN, at the last NaN. Real dtypes and bool.
void running_extreme(const ScanLines& x, Dtype dtype, bool largest);

/// output[i] = input[0][i] * output[i - 1] + input[1][i], beginning from 0; precision as for sums. The first
/// factor is not read. Floating and complex dtypes.
void linear_recurrence(const ScanLines& x, Dtype dtype);

/// output = input[1], running logarithms of sums of exp(input[0]) with imaginary parts known up to multiples
/// of 2 pi, on the branch that lies next to the larger (by real part) of input[0][i] and output[i - 1].
/// Complex dtypes.
void continue_branch(const ScanLines& x, Dtype dtype);

}  // namespace lohe::backend
