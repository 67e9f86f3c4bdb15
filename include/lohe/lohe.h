#pragma once

/// Everything: `#include <lohe/lohe.h>`. With `namespace torch = lohe;` programs written for PyTorch's C++
/// frontend compile.
#include "lohe/autograd.h"
#include "lohe/compile.h"
#include "lohe/creation.h"
#include "lohe/data.h"
#include "lohe/functions.h"
#include "lohe/generator.h"
#include "lohe/indexing.h"
#include "lohe/nn/container.h"
#include "lohe/nn/functional.h"
#include "lohe/nn/modules.h"
#include "lohe/nn/types.h"
#include "lohe/operators.h"
#include "lohe/optim.h"
#include "lohe/optim_schedules.h"
#include "lohe/serialize.h"
#include "lohe/tensor.h"

namespace lohe {
// PyTorch's frontend has the ops of layers beside all others: torch::nll_loss, torch::leaky_relu.
using namespace nn::ops;  // NOLINT(google-build-using-namespace)
}  // namespace lohe
