#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

#include "autograd/tape.h"
#include "ops/call.h"

namespace lohe {
namespace {

using ops::OpRef;

TensorPtr tensor(std::vector<float> values, Dims sizes) {
  static const OpRef empty("empty");
  TensorPtr t = empty(sizes);
  std::copy(values.begin(), values.end(), reinterpret_cast<float*>(t->data()));
  return t;
}
std::vector<float> values(const TensorPtr& t) {
  static const OpRef contiguous("contiguous");
  const TensorPtr c = contiguous(t);
  const auto* p = reinterpret_cast<const float*>(c->data());
  return {p, p + c->numel()};
}

TEST(Call, AddsWithBroadcastAndAlpha) {
  static const OpRef add("add");
  const TensorPtr a = tensor({1, 2, 3, 4, 5, 6}, {2, 3}), b = tensor({10, 20, 30}, {3});
  EXPECT_EQ(values(add(a, b)), (std::vector<float>{11, 22, 33, 14, 25, 36}));
  EXPECT_EQ(values(add(a, 2.5, int64_t{2})), (std::vector<float>{6, 7, 8, 9, 10, 11}));
}

TEST(Call, TransposedOperandsGiveTransposedStrides) {
  static const OpRef mul("mul"), transpose("transpose.int");
  const TensorPtr a = transpose(tensor({1, 2, 3, 4, 5, 6}, {2, 3}), 0, 1);
  const TensorPtr y = mul(a, a);
  EXPECT_EQ(Dims(y->strides()), (Dims{1, 3}));
  EXPECT_EQ(values(y), (std::vector<float>{1, 16, 4, 25, 9, 36}));
}

TEST(Call, SoftmaxIsOneProgramOverAnyDim) {
  static const OpRef softmax("softmax.int"), sum("sum.dim_IntList");
  std::vector<float> v(5 * 37);
  for (size_t i = 0; i < v.size(); ++i) v[i] = std::sin(static_cast<float>(i));
  for (const int dim : {0, 1}) {
    const TensorPtr y = softmax(tensor(v, {5, 37}), dim);
    const Dims over{dim};
    for (const float s : values(sum(y, over))) EXPECT_NEAR(s, 1, 1e-6);
  }
}

TEST(Call, LongSumsAreSplitByShape) {
  static const OpRef sum("sum.dim_IntList");
  std::vector<float> v(100003, 1.0f);
  EXPECT_EQ(values(sum(tensor(v, {100003}), Dims{})), (std::vector<float>{100003}));
}

TEST(Backward, ProductRuleWithBroadcast) {
  static const OpRef mul("mul"), sum("sum.dim_IntList");
  const TensorPtr a = tensor({1, 2, 3, 4, 5, 6}, {2, 3}), b = tensor({10, 20, 30}, {3});
  autograd::set_requires_grad(*a, true);
  autograd::set_requires_grad(*b, true);
  const TensorPtr y = sum(mul(a, b), Dims{});
  autograd::run_backward(std::array{y}, {}, false, false, {}, false, true);
  EXPECT_EQ(values(autograd::meta_of(*a).grad), (std::vector<float>{10, 20, 30, 10, 20, 30}));
  EXPECT_EQ(values(autograd::meta_of(*b).grad), (std::vector<float>{5, 7, 9}));
}

TEST(Backward, SecondDerivativeOfACube) {
  static const OpRef mul("mul"), sum("sum.dim_IntList");
  const TensorPtr x = tensor({2, 3}, {2});
  autograd::set_requires_grad(*x, true);
  const TensorPtr y = sum(mul(mul(x, x), x), Dims{});
  const auto g = autograd::run_backward(std::array{y}, {}, true, true, std::array{x}, false, false);
  EXPECT_EQ(values(g[0]), (std::vector<float>{12, 27}));
  const auto gg =
      autograd::run_backward(std::array{sum(g[0], Dims{})}, {}, false, false, std::array{x}, false, false);
  EXPECT_EQ(values(gg[0]), (std::vector<float>{12, 18}));
}

TEST(Backward, ChainOfAMillionOps) {
  static const OpRef add("add");
  const TensorPtr x = tensor({1}, {1});
  autograd::set_requires_grad(*x, true);
  TensorPtr y = x;
  for (int i = 0; i < 1'000'000; ++i) y = add(y, 1.0);
  autograd::run_backward(std::array{y}, {}, false, false, {}, false, true);
  EXPECT_EQ(values(autograd::meta_of(*x).grad), (std::vector<float>{1}));
}

TEST(Backward, WriteThroughAViewGivesTheBaseHistory) {
  static const OpRef mul("mul"), as_strided("as_strided"), sum("sum.dim_IntList"), clone("clone");
  const TensorPtr x = tensor({1, 2, 3, 4}, {4});
  autograd::set_requires_grad(*x, true);
  const TensorPtr y = clone(x);
  const TensorPtr v = as_strided(y, Dims{2}, Dims{1}, int64_t{1});
  dispatch::call(mul.op(), std::array{Arg(v), Arg(10.0)}, dispatch::Form::kInPlace);
  EXPECT_EQ(values(y), (std::vector<float>{1, 20, 30, 4}));
  autograd::run_backward(std::array{sum(y, Dims{})}, {}, false, false, {}, false, true);
  EXPECT_EQ(values(autograd::meta_of(*x).grad), (std::vector<float>{1, 10, 10, 1}));
}

}  // namespace
}  // namespace lohe
