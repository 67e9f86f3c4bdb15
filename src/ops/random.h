#pragma once

#include "lohe/generator.h"
#include "ops/call.h"

/// What the random rows share.
namespace lohe::ops {

/// Where a call draws from: arguments `seed` and `offset` of the rows that make kernels.
struct Draw {
  int64_t seed, offset;
};
/// The generator of an argument, the default one for None.
Generator& generator_of(const Arg& a);
/// Takes counters for a call.
Draw draw(const Arg& generator, int64_t counters);

}  // namespace lohe::ops
