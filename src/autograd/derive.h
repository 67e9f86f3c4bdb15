#pragma once

#include "ops/call.h"

namespace lohe::autograd {

/// The gradient of a pointwise or composed row as a row of its own, made by differentiating its graph (or
/// from the row's `derivative`). Its parameters are the row's, then the cotangents of its outputs, its
/// results, the compute dtype, and the dtype of every gradient; what it does not read is None. Being a row,
/// it is recorded and differentiated like any other.
struct Derivative {
  ops::OpDef op;
  uint64_t wanted = 0;  ///< parameters whose gradients it gives, in order
  uint64_t reads_params = 0, reads_results = 0;
  /// The output whose cotangent is the gradient as it is, where number parameter `unless` (-1: none) is 1.
  struct Pass {
    int8_t output = -1, unless = -1;
    bool operator==(const Pass&) const = default;
  };
  SmallVector<Pass, 4> passes;  ///< of a pointwise row, by parameter
};

/// @param wanted bit set of parameters; @param outputs bit set of outputs that have a cotangent.
const Derivative& derivative_of(const ops::OpDef& op, uint64_t wanted, uint64_t outputs, Args args);

}  // namespace lohe::autograd
