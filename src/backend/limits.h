#pragma once

#include <cstdint>

#include "lohe/dtype.h"

/// What this machine does at best, for the shares in reports. Measured when first asked for and kept for the
/// process: a size takes from a millisecond to some tens of them. Safe from many threads.
namespace lohe::backend {

/// Seconds of a plain loop that reads and writes so many bytes over a working set of their size: what is both
/// is copied, the rest of either summed or filled. Working sets are measured in powers of two from 4 KiB to
/// 256 MiB, on one thread below 256 KiB. 0 where kernels are interpreted.
double least_seconds_to_move(int64_t read, int64_t written);

/// Floating-point operations a second, two for a fused multiply-add, on all threads: of the matrix product's
/// own inner tile on operands in the first-level cache.
/// @param dtype float32 or float64
double flops_a_second(Dtype dtype);

}  // namespace lohe::backend
