#include <gtest/gtest.h>
#include <lohe/lohe.h>

#include <sstream>

/// Tensors from C++ alone: programs written for PyTorch's frontend, with the namespace that they use.
namespace torch = lohe;

namespace {

TEST(Api, BoundsOfClampAreNumbersOrTensors) {
  const torch::Tensor x = torch::arange(5, torch::kFloat) - 2;
  EXPECT_EQ(x.clamp(-1, 1).sum().item<float>(), 0.0f);
  EXPECT_EQ(torch::clamp(x, 0).sum().item<float>(), 3.0f);
  EXPECT_EQ(torch::clamp(x, {}, 0).sum().item<float>(), -3.0f);
  EXPECT_EQ(torch::clamp(x, torch::zeros({5})).sum().item<float>(), 3.0f);
  torch::Tensor y = x.clone();
  y.clamp_(-1, 1);
  EXPECT_EQ(y.max().item<float>(), 1.0f);
}

std::vector<float> values(const torch::Tensor& t) {
  const torch::Tensor c = t.contiguous();
  const float* p = c.data_ptr<float>();
  return {p, p + c.numel()};
}

TEST(PublicTensor, HandlesShareOneArray) {
  torch::Tensor a = torch::tensor({1.0f, 2.0f, 3.0f});
  const torch::Tensor b = a;
  a.add_(1);
  EXPECT_EQ(values(b), (std::vector<float>{2, 3, 4}));
  EXPECT_TRUE(a.is_same(b));
  EXPECT_FALSE(torch::Tensor().defined());
}

TEST(PublicTensor, AskedForItsShapeAndDtype) {
  const torch::Tensor t = torch::zeros({2, 3}, torch::kFloat64);
  EXPECT_EQ(t.dim(), 2);
  EXPECT_EQ(t.sizes(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(t.size(-1), 3);
  EXPECT_EQ(t.stride(0), 3);
  EXPECT_EQ(t.numel(), 6);
  EXPECT_EQ(t.nbytes(), 48u);
  EXPECT_EQ(t.dtype(), torch::kDouble);
  EXPECT_TRUE(t.is_contiguous());
  EXPECT_FALSE(t.transpose(0, 1).is_contiguous());
  EXPECT_EQ(torch::ones({2}, torch::dtype(torch::kInt64)).scalar_type(), torch::kLong);
}

TEST(PublicTensor, OperatorsTakeTensorsAndNumbersOnEitherSide) {
  const torch::Tensor a = torch::tensor({1.0, 2.0}), b = torch::tensor({3.0, 5.0});
  EXPECT_EQ(values(a + b), (std::vector<float>{4, 7}));
  EXPECT_EQ(values(a * 2.0), (std::vector<float>{2, 4}));
  EXPECT_EQ(values(10 - a), (std::vector<float>{9, 8}));
  EXPECT_EQ(values(-b / 2), (std::vector<float>{-1.5, -2.5}));
  torch::Tensor c = a.clone();
  c += b;
  c *= 2;
  EXPECT_EQ(values(c), (std::vector<float>{8, 14}));
}

TEST(PublicTensor, FunctionsInPlaceAndOutForms) {
  const torch::Tensor a = torch::tensor({1.0, 2.0});
  torch::Tensor out = torch::empty({2});
  torch::add_out(out, a, a, 3);
  EXPECT_EQ(values(out), (std::vector<float>{4, 8}));
  EXPECT_EQ(values(torch::mul(out, a)), (std::vector<float>{4, 16}));
  EXPECT_TRUE(out.mul_(a).is_same(out));
  EXPECT_EQ(values(torch::div(a, 2, "floor")), (std::vector<float>{0, 1}));
}

TEST(PublicTensor, NestedListsGiveShapes) {
  const torch::Tensor t = torch::tensor({{1, 2, 3}, {4, 5, 6}});
  EXPECT_EQ(t.sizes(), (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(t.dtype(), torch::kInt64);
  EXPECT_EQ(torch::tensor(2.5).dim(), 0);
  EXPECT_EQ(torch::tensor({true, false}).dtype(), torch::kBool);
  EXPECT_EQ(torch::tensor({1, 2}, torch::kHalf).dtype(), torch::kFloat16);
  EXPECT_THROW(torch::tensor({{1, 2}, {3}}), torch::Error);
}

TEST(PublicTensor, ItemsAndConversions) {
  EXPECT_EQ(torch::tensor(3).item<int>(), 3);
  EXPECT_EQ(torch::tensor(2.5, torch::kBFloat16).item<double>(), 2.5);
  EXPECT_EQ(torch::tensor({1.5, 2.5}).to(torch::kInt64).dtype(), torch::kInt64);
  EXPECT_THROW(torch::tensor({1.0, 2.0}).item(), torch::Error);
  EXPECT_THROW(torch::tensor({1.0}).data_ptr<double>(), torch::Error);
}

TEST(PublicTensor, UndefinedOperandsAreNamed) {
  try {
    torch::add(torch::tensor(1.0), torch::Tensor());
    FAIL();
  } catch (const torch::Error& e) {
    EXPECT_NE(std::string(e.what()).find("add(): argument 'other'"), std::string::npos);
  }
}

TEST(PublicTensor, BorrowedMemoryIsSharedAndReleased) {
  float memory[] = {1, 2, 3, 4};
  bool released = false;
  {
    torch::Tensor t = torch::from_blob(memory, {2, 2}, [&](void*) { released = true; });
    t.mul_(2);
    EXPECT_FALSE(released);
  }
  EXPECT_TRUE(released);
  EXPECT_EQ(memory[3], 8);
}

TEST(PublicTensor, PrintsRowsThenTheType) {
  std::ostringstream out;
  out << torch::ones({2, 2});
  EXPECT_EQ(out.str(), " 1  1\n 1  1\n[ CPUFloatType{2,2} ]");
}

}  // namespace
