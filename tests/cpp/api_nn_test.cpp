#include <gtest/gtest.h>
#include <lohe/lohe.h>

#include <cmath>
#include <sstream>

/// Models from C++ alone, as PyTorch's frontend writes them.
namespace torch = lohe;

namespace {

TEST(PublicModules, LinearComputesAndNamesItsParameters) {
  torch::nn::Linear layer(3, 2);
  const torch::Tensor x = torch::ones({4, 3});
  EXPECT_EQ(layer(x).sizes(), (std::vector<int64_t>{4, 2}));
  const auto named = layer->named_parameters();
  EXPECT_EQ(named.size(), 2u);
  EXPECT_EQ(named["weight"].sizes(), (std::vector<int64_t>{2, 3}));
  EXPECT_TRUE(named["bias"].requires_grad());
  EXPECT_LE(layer->weight.detach().abs().max().item<double>(), 1 / std::sqrt(3.0));
  EXPECT_FALSE(torch::nn::Linear(torch::nn::LinearOptions(3, 2).bias(false))->bias.defined());
  std::ostringstream text;
  text << *layer;
  EXPECT_EQ(text.str(), "Linear(in_features=3, out_features=2, bias=True)");
}

TEST(PublicModules, SequentialTrainsAndReportsByPath) {
  torch::nn::Sequential net(torch::nn::Linear(2, 4), torch::nn::ReLU(), torch::nn::Linear(4, 1));
  EXPECT_TRUE(net->named_parameters().contains("2.weight"));
  const torch::Tensor loss = net(torch::ones({5, 2})).sum();
  loss.backward();
  EXPECT_TRUE(net->parameters()[0].grad().defined());
  net->zero_grad();
  EXPECT_FALSE(net->parameters()[0].grad().defined());
  net->eval();
  EXPECT_FALSE(net[0]->is_training());
}

struct NetImpl : torch::nn::Module {
  NetImpl()
      : fc(register_module("fc", torch::nn::Linear(2, 2))),
        norm(register_module("norm", torch::nn::BatchNorm1d(2))) {}
  torch::Tensor forward(torch::Tensor x) { return norm(fc(x)); }
  torch::nn::Linear fc;
  torch::nn::BatchNorm1d norm;
};
TORCH_MODULE(Net);

TEST(PublicModules, OwnModulesAndBuffers) {
  Net net;
  EXPECT_TRUE(net->named_buffers().contains("norm.running_mean"));
  net->to(torch::kFloat64);
  EXPECT_EQ(net->parameters()[0].dtype(), torch::kFloat64);
  EXPECT_EQ(net->norm->num_batches_tracked.dtype(), torch::kInt64);
  EXPECT_THROW(net->register_module("fc", torch::nn::Linear(1, 1)), torch::Error);
}

TEST(PublicModules, DropoutActsInTrainingOnly) {
  torch::nn::Dropout drop(0.5);
  const torch::Tensor x = torch::ones({100});
  EXPECT_NE(drop(x).eq(0).sum().item<int>(), 0);
  drop->eval();
  EXPECT_EQ(drop(x).sum().item<double>(), 100);
  EXPECT_THROW(torch::nn::Dropout(2.0), torch::Error);
}

}  // namespace
