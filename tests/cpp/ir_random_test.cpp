// Random kernels are well formed, and calls on parts of the outer range give what one call gives.
#include <gtest/gtest.h>

#include "ir/kernel.h"
#include "random_kernel.h"

namespace lohe::ir {
namespace {

TEST(IrRandom, SplitCallsAndEqualSeedsGiveTheSameBits) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    const test::RandomKernel random = test::random_kernel(seed);
    ASSERT_NO_THROW(check(random.kernel)) << print(random.kernel);
    ASSERT_EQ(print(random.kernel), print(test::random_kernel(seed).kernel));
    auto whole = random.buffers, parts = random.buffers;
    const int32_t code =
        interpret(random.kernel, random.pointers(whole).data(), random.params.data(), 0, random.outer);
    const int64_t middle = random.outer / 3;
    const auto pointers = random.pointers(parts);
    const int32_t first =
        interpret(random.kernel, pointers.data(), random.params.data(), middle, random.outer);
    const int32_t second = interpret(random.kernel, pointers.data(), random.params.data(), 0, middle);
    EXPECT_EQ(code, std::max(first, second)) << "seed " << seed;
    ASSERT_EQ(random.difference(whole, parts), "") << "seed " << seed << "\n" << print(random.kernel);
  }
}

}  // namespace
}  // namespace lohe::ir
