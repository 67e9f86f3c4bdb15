#include <gtest/gtest.h>
#include <lohe/lohe.h>

/// Gradients from C++ alone.
namespace torch = lohe;

namespace {

torch::Tensor leaf(double v) { return torch::tensor({v}).requires_grad_(true); }

TEST(PublicAutograd, BackwardAccumulatesIntoLeaves) {
  torch::Tensor x = leaf(3);
  (x * x).backward();
  EXPECT_EQ(x.grad().item<double>(), 6);
  (x * x).backward();
  EXPECT_EQ(x.grad().item<double>(), 12);
  x.mutable_grad() = torch::Tensor();
  EXPECT_FALSE(x.grad().defined());
}

TEST(PublicAutograd, GradOfGrad) {
  const torch::Tensor x = leaf(2);
  const auto g = torch::autograd::grad({x * x * x}, {x}, {}, true, true);
  EXPECT_EQ(g[0].item<double>(), 12);
  EXPECT_EQ(torch::autograd::grad({g[0]}, {x})[0].item<double>(), 12);
  EXPECT_FALSE(x.grad().defined());
}

TEST(PublicAutograd, NothingIsRecordedUnderAGuard) {
  const torch::Tensor x = leaf(2);
  {
    const torch::NoGradGuard guard;
    EXPECT_FALSE((x * x).requires_grad());
  }
  EXPECT_TRUE((x * x).requires_grad());
  EXPECT_EQ((x * x).grad_fn_name(), "MulBackward0");
  EXPECT_FALSE(x.detach().requires_grad());
}

TEST(PublicAutograd, HooksSeeAndReplaceGradients) {
  const torch::Tensor x = leaf(2), y = x * 3;
  y.retain_grad();
  const unsigned hook = y.register_hook([](torch::Tensor g) { return g * 10; });
  y.backward({}, true);
  EXPECT_EQ(x.grad().item<double>(), 30);
  y.remove_hook(hook);
  y.backward();
  EXPECT_EQ(x.grad().item<double>(), 33);
}

struct Cube : torch::autograd::Function<Cube> {
  static torch::Tensor forward(torch::autograd::AutogradContext* ctx, torch::Tensor x, double factor) {
    ctx->save_for_backward({x});
    ctx->saved_data["factor"] = factor;
    return x * x * x * factor;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 torch::autograd::variable_list grads) {
    const torch::Tensor x = ctx->get_saved_variables()[0];
    return {grads[0] * x * x * (3 * ctx->saved_data["factor"].toDouble()), torch::Tensor()};
  }
};

TEST(PublicAutograd, FunctionsWithAGradientOfTheirOwn) {
  const torch::Tensor x = leaf(2);
  Cube::apply(x, 5.0).backward();
  EXPECT_EQ(x.grad().item<double>(), 60);
}

TEST(PublicAutograd, FunctionsRefuseChangedSavedValues) {
  const torch::Tensor x = leaf(2);
  torch::Tensor h = x * 1;
  const torch::Tensor y = Cube::apply(h, 1.0);
  h.add_(1);
  EXPECT_THROW(y.backward(), torch::Error);
}

}  // namespace
