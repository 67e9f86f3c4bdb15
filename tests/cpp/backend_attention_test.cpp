#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "backend/attention.h"
#include "base/threads.h"
#include "lohe/error.h"

namespace lohe::backend {
namespace {

/// Heads inside of positions (as a joint projection leaves them) or positions inside of heads, with room
/// between rows.
struct Heads {
  Heads(int64_t outer, int64_t inner, int64_t positions, int64_t features, bool interleaved, unsigned seed)
      : inner(inner), positions(positions), features(features) {
    const int64_t room = features + 3;
    row_stride = interleaved ? inner * room : room;
    batch_stride = interleaved ? room : positions * room;
    outer_stride = inner * positions * room;
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    data.resize(static_cast<size_t>(outer * outer_stride));
    for (float& x : data) x = seed == 0 ? std::nanf("") : normal(random);
  }
  Matrix matrix() { return {data.data(), row_stride, 1, batch_stride, false, outer_stride}; }
  float& at(int64_t head, int64_t i, int64_t p) {
    return data[static_cast<size_t>(head / inner * outer_stride + head % inner * batch_stride +
                                    i * row_stride + p)];
  }
  int64_t inner, positions, features, row_stride = 0, batch_stride = 0, outer_stride = 0;
  std::vector<float> data;
};

struct Case {
  int64_t outer, inner, queries, keys, width, value_width;
  bool causal, interleaved;
};

struct Problem {
  explicit Problem(const Case& c)
      : shape{.batch = c.outer * c.inner,
              .inner = c.inner,
              .queries = c.queries,
              .keys = c.keys,
              .width = c.width,
              .value_width = c.value_width,
              .scale = 0.3,
              .causal = c.causal},
        query(c.outer, c.inner, c.queries, c.width, c.interleaved, 1),
        key(c.outer, c.inner, c.keys, c.width, c.interleaved, 2),
        value(c.outer, c.inner, c.keys, c.value_width, c.interleaved, 3),
        grad(c.outer, c.inner, c.queries, c.value_width, c.interleaved, 4),
        output(c.outer, c.inner, c.queries, c.value_width, c.interleaved, 0),
        grad_query(c.outer, c.inner, c.queries, c.width, c.interleaved, 0),
        grad_key(c.outer, c.inner, c.keys, c.width, c.interleaved, 0),
        grad_value(c.outer, c.inner, c.keys, c.value_width, c.interleaved, 0),
        statistics(static_cast<size_t>(shape.batch * c.queries * 2)) {}

  void run() {
    attention(kFloat32, shape, query.matrix(), key.matrix(), value.matrix(), output.matrix(),
              statistics.data());
    attention_gradient(kFloat32, shape, query.matrix(), key.matrix(), value.matrix(), grad.matrix(),
                       statistics.data(), grad_query.matrix(), grad_key.matrix(), grad_value.matrix());
  }

  AttentionShape shape;
  Heads query, key, value, grad, output, grad_query, grad_key, grad_value;
  std::vector<float> statistics;
};

/// In float64, sums as they stand in the formula.
void check_head(Problem& x, int64_t head) {
  const AttentionShape& s = x.shape;
  const auto size = [](int64_t rows, int64_t columns) { return static_cast<size_t>(rows * columns); };
  std::vector<double> gq(size(s.queries, s.width)), gk(size(s.keys, s.width)),
      gv(size(s.keys, s.value_width));
  for (int64_t i = 0; i < s.queries; ++i) {
    const int64_t seen = s.causal ? std::min(i + 1, s.keys) : s.keys;
    std::vector<double> weight(static_cast<size_t>(seen)), to_weight(static_cast<size_t>(seen));
    double highest = -1e300, total = 0, mean = 0;
    for (int64_t j = 0; j < seen; ++j) {
      double score = 0;
      for (int64_t p = 0; p < s.width; ++p) score += double{x.query.at(head, i, p)} * x.key.at(head, j, p);
      weight[static_cast<size_t>(j)] = score * s.scale;
      highest = std::max(highest, score * s.scale);
    }
    for (double& w : weight) total += w = std::exp(w - highest);
    for (double& w : weight) w /= total;
    for (int64_t p = 0; p < s.value_width; ++p) {
      double sum = 0;
      for (int64_t j = 0; j < seen; ++j) {
        sum += weight[static_cast<size_t>(j)] * x.value.at(head, j, p);
        to_weight[static_cast<size_t>(j)] += double{x.grad.at(head, i, p)} * x.value.at(head, j, p);
        gv[static_cast<size_t>(j * s.value_width + p)] +=
            weight[static_cast<size_t>(j)] * x.grad.at(head, i, p);
      }
      ASSERT_NEAR(x.output.at(head, i, p), sum, 1e-5) << "head " << head << " query " << i;
    }
    for (int64_t j = 0; j < seen; ++j)
      mean += weight[static_cast<size_t>(j)] * to_weight[static_cast<size_t>(j)];
    for (int64_t j = 0; j < seen; ++j) {
      const double d = weight[static_cast<size_t>(j)] * (to_weight[static_cast<size_t>(j)] - mean) * s.scale;
      for (int64_t p = 0; p < s.width; ++p) {
        gq[static_cast<size_t>(i * s.width + p)] += d * x.key.at(head, j, p);
        gk[static_cast<size_t>(j * s.width + p)] += d * x.query.at(head, i, p);
      }
    }
  }
  for (int64_t p = 0; p < s.width; ++p) {
    for (int64_t i = 0; i < s.queries; ++i)
      ASSERT_NEAR(x.grad_query.at(head, i, p), gq[static_cast<size_t>(i * s.width + p)], 1e-4);
    for (int64_t j = 0; j < s.keys; ++j)
      ASSERT_NEAR(x.grad_key.at(head, j, p), gk[static_cast<size_t>(j * s.width + p)], 1e-4);
  }
  for (int64_t p = 0; p < s.value_width; ++p)
    for (int64_t j = 0; j < s.keys; ++j)
      ASSERT_NEAR(x.grad_value.at(head, j, p), gv[static_cast<size_t>(j * s.value_width + p)], 1e-4);
}

constexpr Case kCases[] = {
    {1, 1, 1, 1, 1, 1, false, false},     {2, 3, 17, 40, 5, 9, false, true},
    {1, 2, 64, 64, 32, 32, true, true},   {2, 2, 65, 65, 16, 33, true, false},
    {1, 1, 200, 90, 40, 8, true, true},   {1, 3, 90, 200, 8, 40, true, false},
    {1, 1, 70, 500, 24, 24, false, true}, {1, 16, 70, 70, 61, 61, true, true}};  // rows 4 KiB apart

TEST(Attention, MatchesItsFormula) {
  for (const Case& c : kCases) {
    Problem x(c);
    x.run();
    for (int64_t head = 0; head < x.shape.batch; ++head) check_head(x, head);
  }
}

TEST(Attention, BitsDependNotOnThreads) {
  const int before = num_threads();
  for (const Case& c : kCases) {
    Problem one(c), many(c);
    set_num_threads(1);
    one.run();
    set_num_threads(3);
    many.run();
    const auto same = [](const Heads& a, const Heads& b) {
      return std::memcmp(a.data.data(), b.data.data(), a.data.size() * sizeof(float)) == 0;
    };
    EXPECT_TRUE(same(one.output, many.output) && same(one.grad_query, many.grad_query) &&
                same(one.grad_key, many.grad_key) && same(one.grad_value, many.grad_value));
  }
  set_num_threads(before);
}

TEST(Attention, WhatNoQueryOfABlockSeesTakesNoPart) {
  constexpr int64_t kPositions = 130;  // blocks of 64, 64 and 2
  const Case c{1, 2, kPositions, kPositions, 8, 8, true, true};
  Problem x(c), y(c);
  for (int64_t p = 0; p < 8; ++p)
    y.value.at(1, kPositions - 1, p) = y.key.at(1, kPositions - 1, p) = std::nanf("");
  x.run();
  y.run();
  for (int64_t p = 0; p < 8; ++p) {
    for (int64_t i = 0; i < 128; ++i) {
      ASSERT_EQ(x.output.at(1, i, p), y.output.at(1, i, p)) << "query " << i;
      ASSERT_EQ(x.grad_query.at(1, i, p), y.grad_query.at(1, i, p)) << "query " << i;
    }
    EXPECT_TRUE(std::isnan(y.output.at(1, kPositions - 1, p)));
    for (int64_t i = 0; i < kPositions; ++i) ASSERT_EQ(x.output.at(0, i, p), y.output.at(0, i, p));
  }
}

TEST(Attention, RefusesWhatItDoesNotServe) {
  Problem x(kCases[0]);
  x.shape.width = AttentionShape::kMostWidth + 1;
  EXPECT_THROW(x.run(), Error);
  x.shape.width = 0;
  EXPECT_THROW(x.run(), Error);
}

}  // namespace
}  // namespace lohe::backend
