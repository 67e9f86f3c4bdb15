#include <gtest/gtest.h>
#include <lohe/lohe.h>

#include "base/allocator.h"

namespace torch = lohe;

namespace {

constexpr int64_t kMiB = 1 << 20;
constexpr int64_t kSide = 512;  // a float32 matrix of so many rows and columns takes 1 MiB

TEST(CompiledMemory, LargeBuffersAreBlocksOfWhichFewAreNeededAtATime) {
  const torch::Tensor x = torch::randn({kSide, kSide}) / 20;
  const auto chain = [](const torch::Tensor& a) {
    torch::Tensor y = a;
    for (int i = 0; i < 6; ++i) y = torch::mm(y, a);
    return y;
  };
  const torch::Tensor want = chain(x);
  auto compiled = torch::compile(chain);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(torch::equal(compiled(x), want));
  const auto report = torch::compile_report(compiled.site());
  ASSERT_EQ(report.size(), 1u);
  EXPECT_EQ(report[0].arena_bytes, 0);
  EXPECT_EQ(report[0].block_bytes, 2 * kMiB);  // what a product reads and what it writes
  EXPECT_EQ(report[0].buffers.size(), 5u);     // the last product is the result
}

TEST(CompiledMemory, BlocksAreFreedWhenAStepFails) {
  const torch::Tensor x = torch::randn({kSide, kSide}) / 20;
  const auto f = [&](const torch::Tensor& index) {
    const torch::Tensor y = torch::mm(x, x);
    return torch::mm(torch::index_select(torch::mm(y, x), 0, index), y);
  };
  const torch::Tensor good = torch::arange(kSide), bad = good + 1;
  auto compiled = torch::compile(f);
  for (int i = 0; i < 3; ++i) compiled(good);
  const int64_t before = lohe::memory_stats().allocated_bytes;
  EXPECT_THROW(compiled(bad), torch::Error);
  EXPECT_EQ(lohe::memory_stats().allocated_bytes, before);
  EXPECT_TRUE(torch::equal(compiled(good), f(good)));
}

TEST(CompiledMemory, AnUpdateOfLargeTensorsIsOneStep) {
  std::vector<torch::Tensor> weights;
  for (int i = 0; i < 4; ++i) {
    weights.push_back(torch::randn({kSide, kSide}).requires_grad_());
    weights.back().mutable_grad() = torch::randn({kSide, kSide});
  }
  torch::optim::SGD optimizer(weights, torch::optim::SGDOptions(0.1).momentum(0.9));
  auto step = torch::compile([&] { optimizer.step(); });
  for (int i = 0; i < 5; ++i) step();
  const auto report = torch::compile_report(step.site());
  ASSERT_FALSE(report.empty());
  ASSERT_EQ(report[0].steps.size(), 1u);
  EXPECT_NE(report[0].steps[0].name.find(" x4"), std::string::npos) << report[0].steps[0].name;
}

}  // namespace
