#include <gtest/gtest.h>
#include <lohe/lohe.h>

#include <cmath>

/// Optimizers from C++ alone.
namespace torch = lohe;

namespace {

torch::Tensor leaf(double v) { return torch::tensor({v}, torch::kFloat64).requires_grad_(true); }

TEST(PublicOptimizers, SgdWithMomentumFollowsItsFormula) {
  torch::Tensor p = leaf(1);
  torch::optim::SGD sgd({p}, torch::optim::SGDOptions(0.1).momentum(0.9));
  double expected = 1, v = 0;
  for (int i = 0; i < 3; ++i) {
    sgd.zero_grad();
    (p * p).backward();
    const double g = 2 * expected;
    v = i == 0 ? g : 0.9 * v + g;
    expected -= 0.1 * v;
    sgd.step();
  }
  EXPECT_NEAR(p.item<double>(), expected, 1e-12);
}

TEST(PublicOptimizers, AdamsFirstStepHasTheLengthOfTheLearningRate) {
  torch::Tensor p = leaf(3);
  torch::optim::Adam adam({p}, torch::optim::AdamOptions(0.01));
  adam.step([&] {
    torch::Tensor loss = (p * p).sum();
    loss.backward();
    return loss;
  });
  EXPECT_NEAR(p.item<double>(), 2.99, 1e-9);
}

TEST(PublicOptimizers, AdamWShrinksWhatHasNoSlope) {
  torch::Tensor p = leaf(2);
  p.mutable_grad() = torch::zeros({1}, torch::kFloat64);
  torch::optim::AdamW adamw({p}, torch::optim::AdamWOptions(0.5).weight_decay(0.1));
  adamw.step();
  EXPECT_NEAR(p.item<double>(), 2 * (1 - 0.5 * 0.1), 1e-12);
}

TEST(PublicOptimizers, RefuseImpossibleOptions) {
  torch::Tensor p = leaf(2);
  EXPECT_THROW(torch::optim::SGD({p}, torch::optim::SGDOptions(-1)), torch::Error);
  EXPECT_THROW(torch::optim::SGD({p}, torch::optim::SGDOptions(1).nesterov(true)), torch::Error);
}

}  // namespace
