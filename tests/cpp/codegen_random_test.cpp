#include "codegen_fixture.h"
#include "ir/builder.h"
#include "random_kernel.h"

namespace lohe::codegen::testing {
namespace {

constexpr uint64_t kKernels = 400;

TEST(CodegenRandom, RandomKernelsAgreeWithTheInterpreterAtEveryLevel) {
  for (uint64_t seed = 1; seed <= kKernels; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    const ir::test::RandomKernel random = ir::test::random_kernel(seed);
    std::vector<Launch> runs(2);
    for (Launch& run : runs) {
      run.buffers.assign(random.buffers.begin(), random.buffers.end());
      run.params = random.params;
      run.end = random.outer;
    }
    runs[1].begin = random.outer / 3;
    runs[1].end = random.outer - random.outer / 4;
    expect_all_levels_agree(random.kernel, runs);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace lohe::codegen::testing
