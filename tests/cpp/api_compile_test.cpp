#include <gtest/gtest.h>
#include <lohe/lohe.h>

#include <atomic>
#include <cmath>
#include <mutex>
#include <thread>

namespace torch = lohe;

namespace {

bool same_bits(const torch::Tensor& a, const torch::Tensor& b) {
  return a.sizes() == b.sizes() && torch::equal(a.detach(), b.detach());
}

TEST(Compile, AFunctionGivesThePlainBitsUnfusedAndAsAProgram) {
  torch::manual_seed(0);
  const torch::Tensor x = torch::randn({40, 65}), y = torch::randn({40, 65});
  const auto f = [](const torch::Tensor& a, const torch::Tensor& b) {
    return torch::softmax(a * b + 1, -1) * a - b.sum(0);
  };
  const torch::Tensor want = f(x, y);
  auto compiled = torch::compile(f);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(same_bits(compiled(x, y), want));
  const auto report = torch::compile_report(compiled.site());
  ASSERT_EQ(report.size(), 1u);
  EXPECT_EQ(report[0].reason, "first");
  EXPECT_EQ(report[0].met, 4);
  EXPECT_NE(torch::to_string(report).find("softmax"), std::string::npos);
}

std::vector<float> train(bool compiled) {
  torch::manual_seed(3);
  torch::nn::Sequential model(torch::nn::Linear(8, 16), torch::nn::ReLU(), torch::nn::Linear(16, 3));
  torch::optim::AdamW optimizer(model->parameters(), torch::optim::AdamWOptions(0.01));
  const torch::Tensor x = torch::randn({12, 8}), y = torch::randint(0, 3, {12}, torch::kLong);
  auto step = torch::compile(
      [&] {
        optimizer.zero_grad();
        const torch::Tensor loss = torch::nn::functional::cross_entropy(model->forward(x), y);
        loss.backward();
        optimizer.step();
        return loss;
      },
      torch::CompileOptions{.disable = !compiled});
  std::vector<float> losses;
  for (int i = 0; i < 6; ++i) losses.push_back(step().item<float>());
  for (const torch::Tensor& p : model->parameters()) losses.push_back(p.sum().item<float>());
  return losses;
}

TEST(Compile, ATrainingStepHasThePlainLossesAndWeights) { EXPECT_EQ(train(true), train(false)); }

TEST(Compile, InexactProgramsStayWithinTheirBoundsAndOthersKeepTheirBits) {
  torch::manual_seed(0);
  const torch::Tensor x = torch::randn({40, 65}), y = torch::randn({40, 65});
  const auto f = [](const torch::Tensor& a, const torch::Tensor& b) { return a / 3.7 * b + a; };
  const torch::Tensor want = f(x, y);
  auto inexact = torch::compile(f, {.exact = false});
  EXPECT_TRUE(same_bits(inexact(x, y), want)) << "the first occurrence runs on the eager kernels";
  const torch::Tensor got = inexact(x, y);
  EXPECT_FALSE(same_bits(got, want));
  // 1.5 ulp of the quotient, carried through the product, then one rounding; an ulp is at most 2^-23 of a
  // size.
  const torch::Tensor product = x.to(torch::kDouble) / double{3.7f} * y.to(torch::kDouble);
  const torch::Tensor exact = product + x.to(torch::kDouble);
  const torch::Tensor bound = product.abs() * 0x1.9p-23 + exact.abs() * 0x1.01p-24;
  EXPECT_TRUE(((got.to(torch::kDouble) - exact).abs() <= bound).all().item<bool>());
  const auto report = torch::compile_report(inexact.site());
  ASSERT_EQ(report.size(), 1u);
  EXPECT_FALSE(report[0].exact);
  EXPECT_EQ(report[0].steps[0].rewrites.reciprocals, 1);
  EXPECT_EQ(report[0].steps[0].rewrites.fmas, 1);
  EXPECT_NE(torch::to_string(report).find("inexact: 1 divisions as products, 1 fused"), std::string::npos);
  auto plain = torch::compile(f);
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(same_bits(plain(x, y), want));
  torch::Tensor block;
  for (int i = 0; i < 2; ++i) {
    torch::Lazy scope(0, false);
    block = f(x, y);
    scope.end();
  }
  EXPECT_TRUE(same_bits(block, got));
}

TEST(Compile, AnErrorOfRecordedWorkIsThrownWhereTheScopeEnds) {
  const torch::Tensor table = torch::ones({4, 2}), index = torch::tensor({int64_t{9}});
  torch::Lazy scope;
  const torch::Tensor rows = torch::nn::functional::embedding(index, table);
  EXPECT_THROW(scope.end(), torch::Error);
  EXPECT_THROW(rows.sum().item<float>(), torch::Error);
  EXPECT_EQ(torch::ones({2}).sum().item<float>(), 2.0f);
}

TEST(Compile, ReadingAValueRunsWhatIsRecorded) {
  torch::Tensor x = torch::zeros({3});
  torch::Lazy scope;
  x.add_(2);
  EXPECT_EQ(x.sum().item<float>(), 6.0f);
  x.mul_(2);
  scope.end();
  EXPECT_EQ(x.sum().item<float>(), 12.0f);
}

// What backward computes again.

torch::Tensor polynomial(const torch::Tensor& x, const torch::Tensor& scale) {
  return ((x * 0.5 - scale) * x + 2) * (x + scale);
}

torch::Tensor eager_gradient(const torch::Tensor& x, const torch::Tensor& scale) {
  const torch::Tensor copy = x.detach().clone().requires_grad_();
  polynomial(copy, scale).sum().backward();
  return copy.grad();
}

TEST(Compile, ThreadsGoBackwardThroughOneGraphWhoseIntermediateValuesWereLeftOut) {
  auto f = torch::compile(polynomial);
  const torch::Tensor scale = torch::full({512, 512}, 1.5);
  for (int i = 0; i < 12; ++i) {
    const torch::Tensor x = torch::randn({512, 512}).requires_grad_();
    const torch::Tensor y = f(x, scale).sum(), want = eager_gradient(x, scale);
    std::vector<torch::Tensor> gradients(3);
    std::vector<std::thread> threads;
    for (torch::Tensor& g : gradients)
      threads.emplace_back([&] { g = torch::autograd::grad({y}, {x}, {}, /*retain_graph=*/true)[0]; });
    for (std::thread& t : threads) t.join();
    for (const torch::Tensor& g : gradients) EXPECT_TRUE(same_bits(g, want));
  }
}

TEST(Compile, WhatLeftOutValuesComeFromMayBeWrittenByAnotherThread) {
  auto f = torch::compile(polynomial);
  for (int i = 0; i < 12; ++i) {
    const torch::Tensor scale = torch::full({512, 512}, 1.5);
    const torch::Tensor x = torch::randn({512, 512}).requires_grad_();
    const torch::Tensor want = eager_gradient(x, scale);
    const torch::Tensor y = f(x, scale).sum();
    std::thread([&] {
      const torch::NoGradGuard guard;
      torch::Tensor other = scale;
      other.add_(1);
    }).join();
    y.backward();
    EXPECT_TRUE(same_bits(x.grad(), want));
  }
}

TEST(Compile, GraphsWithLeftOutValuesMayDieOnAnyThread) {
  auto f = torch::compile(polynomial);
  const torch::Tensor scale = torch::full({512, 512}, 1.5);
  std::vector<std::thread> threads;
  for (int t = 0; t < 3; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 12; ++i) {
        const torch::Tensor x = torch::randn({512, 512}).requires_grad_();
        torch::Tensor y = f(x, scale);
        std::thread([&] { y = torch::Tensor(); }).join();
      }
    });
  }
  for (std::thread& t : threads) t.join();
}

/// The recorder's own thread takes no lock that another could wait for; others ask for its work all the time.
TEST(Compile, OtherThreadsReadWhatAThreadIsRecordingOn) {
  const torch::NoGradGuard no_grad;
  constexpr int kValues = 3000;
  std::mutex mutex;
  std::vector<torch::Tensor> values;
  std::atomic<int> wrong{0}, read{0};
  std::atomic<bool> done{false};
  const auto reader = [&](size_t seed) {
    for (size_t i = seed; !done || i % 7 != 0; ++i) {
      torch::Tensor value;
      {
        const std::lock_guard lock(mutex);
        if (values.empty()) continue;
        const size_t at = i * 7919 % values.size();
        value = values[at];
        if (i % 3 == 0) value = value + torch::zeros({4});  // recorded by nobody: computed here
        values[at] = values.back();
        values.pop_back();
      }
      const float first = value[0].item<float>();
      if (first != value[3].item<float>() || first != std::floor(first)) ++wrong;
      ++read;
    }
  };
  std::thread first(reader, 1), second(reader, 2);
  {
    torch::Lazy lazy;
    torch::Tensor sum = torch::zeros({4});
    for (int i = 1; i <= kValues; ++i) {
      sum = sum + 1;
      const torch::Tensor twice = sum * 2;
      if (i % 2 == 0) {
        const std::lock_guard lock(mutex);
        values.push_back(i % 4 == 0 ? twice : sum);
      }
    }
    EXPECT_EQ(sum[0].item<float>(), kValues);
    lazy.end();
  }
  done = true;
  first.join();
  second.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_GT(read, 0);
}

}  // namespace
