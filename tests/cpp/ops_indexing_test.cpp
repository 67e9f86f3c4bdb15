#include <gtest/gtest.h>

#include <numeric>

#include "base/threads.h"
#include "lohe/error.h"
#include "lohe/generator.h"
#include "ops/call.h"

namespace lohe {
namespace {

using ops::OpRef;

TensorPtr range(Dims sizes) {
  static const OpRef empty("empty");
  const TensorPtr t = empty(sizes);
  auto* p = reinterpret_cast<float*>(t->data());
  std::iota(p, p + t->numel(), 0.0f);
  return t;
}
TensorPtr index(std::vector<int64_t> values, Dims sizes) {
  static const OpRef empty("empty");
  const TensorPtr t = empty(sizes, Dtype::kInt64);
  std::copy(values.begin(), values.end(), reinterpret_cast<int64_t*>(t->data()));
  return t;
}
std::vector<float> values(const TensorPtr& t) {
  static const OpRef contiguous("contiguous");
  const TensorPtr c = contiguous(t);
  const auto* p = reinterpret_cast<const float*>(c->data());
  return {p, p + c->numel()};
}
TensorPtr at(const TensorPtr& self, std::vector<TensorImpl*> indices) {
  static const OpRef row("index.Tensor");
  return row(self, std::span<TensorImpl* const>(indices));
}

TEST(Index, AdjacentIndicesStandWhereTheyWereOthersInFront) {
  const TensorPtr x = range({2, 3, 4, 5}), i = index({0, 1, -1}, {3}), j = index({2, 0, 1}, {3});
  EXPECT_EQ(at(x, {nullptr, i.get(), j.get()})->size_dims(), (Dims{2, 3, 5}));
  EXPECT_EQ(at(x, {nullptr, i.get(), nullptr, j.get()})->size_dims(), (Dims{3, 2, 4}));
  EXPECT_EQ(values(at(range({3, 4}), {i.get(), j.get()})), (std::vector<float>{2, 4, 9}));
}

TEST(Index, ErrorsNameTheIndexAndTheDim) {
  const TensorPtr i = index({3}, {1});
  try {
    at(range({2, 3}), {nullptr, i.get()});
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::kIndex);
    EXPECT_EQ(e.message(), "index 3 is out of bounds for dimension 1 with size 3");
  }
}

TEST(Index, EqualIndicesAccumulateInOrderOnAnyNumberOfThreads) {
  static const OpRef zeros("zeros"), normal("normal_"), put("index_put_"), add("index_add_"),
      scatter("scatter_add_"), from("random_.from");
  const int before = num_threads();
  std::vector<std::vector<float>> first;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    manual_seed(11);
    const TensorPtr source = normal(zeros(Dims{5000, 33}));
    const TensorPtr rows = from(index(std::vector<int64_t>(5000), {5000}), int64_t{0}, int64_t{40});
    const TensorPtr wide = from(index(std::vector<int64_t>(5000 * 33), {5000, 33}), int64_t{0}, int64_t{40});
    std::vector<TensorImpl*> list{rows.get()};
    std::vector<std::vector<float>> got;
    got.push_back(values(put(zeros(Dims{40, 33}), std::span<TensorImpl* const>(list), source, true)));
    got.push_back(values(add(zeros(Dims{40, 33}), int64_t{0}, rows, source)));
    got.push_back(values(scatter(zeros(Dims{40, 33}), int64_t{0}, wide, source)));
    if (first.empty()) first = got;
    EXPECT_EQ(got, first);
    EXPECT_EQ(got[0], got[1]);
  }
  set_num_threads(before);
}

TEST(Scatter, TheLastOfEqualIndicesStays) {
  static const OpRef zeros("zeros"), scatter("scatter_.src");
  const TensorPtr y = scatter(zeros(Dims{3}), int64_t{0}, index({1, 1, 2}, {3}), range({3}));
  EXPECT_EQ(values(y), (std::vector<float>{0, 1, 2}));
}

TEST(Scatter, AnIndexOutOfRangeLeavesTheTensorAsItWas) {
  static const OpRef zeros("zeros"), scatter("scatter_.src");
  const TensorPtr t = zeros(Dims{3});
  EXPECT_THROW(scatter(t, int64_t{0}, index({0, 7, 2}, {3}), range({3})), Error);
  EXPECT_EQ(values(t), (std::vector<float>{0, 0, 0}));
}

}  // namespace
}  // namespace lohe
