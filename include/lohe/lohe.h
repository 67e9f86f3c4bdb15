#pragma once

/// Everything: `#include <lohe/lohe.h>`. With `namespace torch = lohe;` programs written for PyTorch's C++ frontend compile.
#include "lohe/autograd.h"
#include "lohe/creation.h"
#include "lohe/functions.h"
#include "lohe/generator.h"
#include "lohe/indexing.h"
#include "lohe/operators.h"
#include "lohe/tensor.h"
