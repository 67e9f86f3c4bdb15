#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "autograd/tape.h"
#include "base/threads.h"
#include "lohe/error.h"
#include "lohe/generator.h"
#include "ops/call.h"
#include "tensor/philox.h"

namespace lohe {
namespace {

using ops::OpRef;

TensorPtr empty(Dims sizes, Dtype dtype = Dtype::kFloat32) {
  static const OpRef row("empty");
  return row(sizes, dtype);
}
template <class T>
std::vector<T> values(const TensorPtr& t) {
  static const OpRef contiguous("contiguous");
  const TensorPtr c = contiguous(t);
  const auto* p = reinterpret_cast<const T*>(c->data());
  return {p, p + c->numel()};
}

/// Largest distance between the empirical distribution and `cdf`, times sqrt(n); above 2 it is no such
/// distribution.
template <class F>
double kolmogorov_smirnov(std::vector<float> v, F cdf) {
  std::sort(v.begin(), v.end());
  double worst = 0;
  for (size_t i = 0; i < v.size(); ++i) {
    const double c = cdf(v[i]);
    worst = std::max({worst, std::fabs(c - static_cast<double>(i) / v.size()),
                      std::fabs(c - static_cast<double>(i + 1) / v.size())});
  }
  return worst * std::sqrt(static_cast<double>(v.size()));
}

constexpr int64_t kCount = 100000;

TEST(Philox, KnownAnswers) {
  // From the reference implementation's kat_vectors (Random123).
  EXPECT_EQ(philox(0, 0), (std::array<uint32_t, 4>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox(~uint64_t{0}, ~uint64_t{0}, ~uint64_t{0}),
            (std::array<uint32_t, 4>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
}

TEST(Philox, KernelsDrawTheSameWordsAsTheHost) {
  static const OpRef random("_random_");
  const TensorPtr t = empty({1000}, Dtype::kInt64);
  random(t, int64_t{5}, int64_t{1000}, int64_t{0}, int64_t{123456789012}, int64_t{77});
  const auto v = values<int64_t>(t);
  for (size_t i = 0; i < v.size(); ++i) {
    EXPECT_EQ(v[i], 5 + static_cast<int64_t>(uint64_t{philox(123456789012, 77 + i)[0]} * 1000 >> 32));
  }
}

TEST(Random, UniformIsUniform) {
  static const OpRef row("uniform_");
  manual_seed(1);
  const auto v = values<float>(row(empty({kCount}), 2.0, 5.0));
  EXPECT_LT(kolmogorov_smirnov(v, [](double x) { return std::clamp((x - 2) / 3, 0.0, 1.0); }), 2);
  EXPECT_GE(*std::min_element(v.begin(), v.end()), 2);
  EXPECT_LT(*std::max_element(v.begin(), v.end()), 5);
}

TEST(Random, NormalIsNormal) {
  static const OpRef row("normal_");
  manual_seed(2);
  const auto v = values<float>(row(empty({kCount}), 1.0, 2.0));
  EXPECT_LT(
      kolmogorov_smirnov(v, [](double x) { return 0.5 * std::erfc(-(x - 1) / 2 * 0.70710678118654752); }), 2);
}

TEST(Random, ExponentialAndCauchy) {
  static const OpRef exponential("exponential_"), cauchy("cauchy_");
  manual_seed(3);
  EXPECT_LT(kolmogorov_smirnov(values<float>(exponential(empty({kCount}), 1.5)),
                               [](double x) { return 1 - std::exp(-1.5 * x); }),
            2);
  EXPECT_LT(kolmogorov_smirnov(values<float>(cauchy(empty({kCount}), 1.0, 2.0)),
                               [](double x) { return 0.5 + std::atan((x - 1) / 2) / 3.14159265358979; }),
            2);
}

TEST(Random, BitsDependOnPositionAloneNotOnStridesOrThreads) {
  static const OpRef uniform("uniform_"), transpose("transpose.int");
  const int before = num_threads();
  std::vector<float> first;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    manual_seed(4);
    const auto v = values<float>(uniform(empty({700, 300})));
    if (first.empty()) first = v;
    EXPECT_EQ(v, first);
    manual_seed(4);
    const TensorPtr t = transpose(empty({300, 700}), 0, 1);
    uniform(t);
    EXPECT_EQ(values<float>(t), first);
  }
  set_num_threads(before);
}

TEST(Random, StateGoesOnWhereItWas) {
  static const OpRef uniform("uniform_");
  manual_seed(5);
  uniform(empty({10}));
  const auto state = default_generator().state_bytes();
  const auto a = values<float>(uniform(empty({10})));
  default_generator().set_state_bytes(state);
  EXPECT_EQ(values<float>(uniform(empty({10}))), a);
  EXPECT_THROW(default_generator().set_state_bytes(std::span(state).first(3)), Error);
}

TEST(Random, IntegersCoverTheirRange) {
  static const OpRef from("random_.from");
  manual_seed(6);
  const auto v = values<int64_t>(from(empty({kCount}, Dtype::kInt64), int64_t{-3}, int64_t{4}));
  std::array<int64_t, 7> seen{};
  for (const int64_t x : v) ++seen.at(static_cast<size_t>(x + 3));
  for (const int64_t s : seen) EXPECT_NEAR(static_cast<double>(s), kCount / 7.0, 600);
  const auto wide = values<int64_t>(from(empty({1000}, Dtype::kInt64), INT64_MIN, Arg()));
  EXPECT_LT(*std::min_element(wide.begin(), wide.end()), 0);
  EXPECT_GT(*std::max_element(wide.begin(), wide.end()), 0);
}

TEST(Random, PermutationHasEveryNumber) {
  static const OpRef row("randperm");
  manual_seed(7);
  auto v = values<int64_t>(row(int64_t{1000}));
  EXPECT_FALSE(std::is_sorted(v.begin(), v.end()));
  std::sort(v.begin(), v.end());
  for (size_t i = 0; i < v.size(); ++i) EXPECT_EQ(v[i], static_cast<int64_t>(i));
}

TEST(Random, PoissonMeanAndVariance) {
  static const OpRef row("poisson"), full("full");
  manual_seed(8);
  for (const double rate : {0.5, 4.0, 30.0, 500.0}) {
    const auto v = values<float>(row(full(Dims{kCount}, rate)));
    double mean = 0, square = 0;
    for (const float x : v) {
      mean += x;
      square += static_cast<double>(x) * x;
    }
    mean /= kCount;
    EXPECT_NEAR(mean, rate, 5 * std::sqrt(rate / kCount));
    EXPECT_NEAR(square / kCount - mean * mean, rate, rate * 0.05);
  }
}

TEST(Random, MultinomialFollowsItsWeights) {
  static const OpRef row("multinomial");
  manual_seed(9);
  const TensorPtr w = empty({4});
  const float weights[] = {1, 0, 3, 4};
  std::memcpy(w->data(), weights, sizeof(weights));
  std::array<double, 4> seen{};
  for (const int64_t x : values<int64_t>(row(w, kCount, true))) ++seen.at(static_cast<size_t>(x));
  EXPECT_EQ(seen[1], 0);
  EXPECT_NEAR(seen[0] / kCount, 0.125, 0.01);
  EXPECT_NEAR(seen[3] / kCount, 0.5, 0.01);
  EXPECT_THROW(row(w, int64_t{4}), Error);
}

TEST(Dropout, GradientSeesTheMaskOfTheForward) {
  static const OpRef dropout("dropout"), full("full"), sum("sum.dim_IntList");
  manual_seed(10);
  const TensorPtr x = full(Dims{1000, 37}, 3.0);
  autograd::set_requires_grad(*x, true);
  const TensorPtr y = dropout(x, 0.25, true);
  autograd::run_backward(std::array{sum(y, Dims{})}, {}, false, false, {}, false, true);
  const auto out = values<float>(y), g = values<float>(autograd::meta_of(*x).grad);
  int64_t kept = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    EXPECT_FLOAT_EQ(out[i], 3 * g[i]);
    kept += g[i] != 0 ? 1 : 0;
  }
  EXPECT_NEAR(static_cast<double>(kept) / 37000, 0.75, 0.01);
  EXPECT_EQ(dropout(x, 0.25, false).get(), x.get());
}

}  // namespace
}  // namespace lohe
