#include <gtest/gtest.h>

#include <algorithm>
#include <limits>

#include "compile/relax.h"
#include "ir/node.h"

namespace lohe::compiler {
namespace {

using namespace ir;

Node input(Graph& g, int number, Dtype dtype = Dtype::kFloat32, ir::Space space = kOuter) {
  return g.input(number, dtype, space);
}

/// How many needed nodes have this primitive.
int64_t count_of(const Graph& g, Prim prim) {
  const std::vector<bool> needed = g.needed();
  int64_t count = 0;
  for (size_t i = 0; i < needed.size(); ++i) count += needed[i] && g.nodes[i].prim == prim ? 1 : 0;
  return count;
}

TEST(Relax, ADivisionByALiteralBecomesAProductWhereItsReciprocalIsOrdinary) {
  for (const double c : {3.7, -0.25, 0x1p126, 0x1p-126}) {
    Graph g;
    g.output(input(g, 0) / c);
    EXPECT_EQ(relax(g, {false}).reciprocals, 1) << c;
    EXPECT_EQ(count_of(g, Prim::kDiv), 0);
    EXPECT_EQ(count_of(g, Prim::kReciprocal), 0) << "a literal's reciprocal is a literal";
  }
  for (const double c : {0.0, 0x1p-127, 0x1.8p126, std::numeric_limits<double>::infinity(),
                         std::numeric_limits<double>::quiet_NaN()}) {
    Graph g;
    g.output(input(g, 0) / c);
    EXPECT_FALSE(relax(g, {false}).any()) << c;
    EXPECT_EQ(count_of(g, Prim::kDiv), 1);
  }
}

TEST(Relax, ADivisionByWhatChangesStays) {
  Graph g;
  g.output(input(g, 0) / input(g, 1));
  EXPECT_FALSE(relax(g, {false, false}).any());
  EXPECT_EQ(relax(g, {false, true}).reciprocals, 1);
}

TEST(Relax, ARowIsDividedByOneReciprocal) {
  Graph g;
  const Node x = input(g, 0, Dtype::kFloat32, kOuter | kRow);
  g.output(x / sqrt(sum(x * x)));
  EXPECT_EQ(relax(g, {false}).reciprocals, 1);
  EXPECT_EQ(count_of(g, Prim::kDiv), 0);
  ASSERT_EQ(count_of(g, Prim::kReciprocal), 1);
  for (const GraphNode& n : g.nodes) {
    if (n.prim != Prim::kReciprocal) continue;
    EXPECT_EQ(n.space, kOuter) << "once a row";
  }
}

TEST(Relax, AProductWithOneUseJoinsItsSum) {
  Graph g;
  const Node a = input(g, 0), b = input(g, 1), c = input(g, 2);
  g.output(a * b - c);
  g.output(c - square(a));
  const Node shared = b * c;
  g.output(shared + a);
  g.output(shared);
  EXPECT_EQ(relax(g, {false, false, false}).fmas, 2);
  EXPECT_EQ(count_of(g, Prim::kFma), 2);
  EXPECT_EQ(count_of(g, Prim::kAdd), 1);
}

TEST(Relax, IntegersAndComplexNumbersStay) {
  for (const Dtype d : {Dtype::kInt32, Dtype::kComplex64}) {
    Graph g;
    g.output(input(g, 0, d) * input(g, 1, d) + input(g, 2, d));
    EXPECT_FALSE(relax(g, {false, false, false}).any());
  }
}

TEST(Relax, AHalfTypeBetweenTwoOpsGoesUnlessItIsComparedWith) {
  const auto rounded = [](Node x) { return cast(cast(x, Dtype::kBFloat16), Dtype::kFloat32); };
  Graph g;
  const Node x = cast(input(g, 0, Dtype::kBFloat16), Dtype::kFloat32);
  const Node y = rounded(exp(x));
  g.output(cast(exp(y), Dtype::kBFloat16));
  EXPECT_EQ(relax(g, {false}).roundings, 1);
  EXPECT_EQ(count_of(g, Prim::kCast), 2);
  Graph compared;
  const Node z = cast(input(compared, 0, Dtype::kBFloat16), Dtype::kFloat32);
  const Node w = rounded(exp(z));
  compared.output(select(w == 1.0, exp(w), z));
  EXPECT_EQ(relax(compared, {false}).roundings, 1);
  EXPECT_EQ(count_of(compared, Prim::kCast), 3) << "the comparison reads the rounded value";
}

TEST(Relax, InputsKeepTheirOrderEvenIfNothingNeedsThem) {
  Graph g;
  for (int i : {2, 0, 1}) input(g, i);
  g.output(input(g, 0) / 3);
  relax(g, {false, false, false});
  std::vector<int64_t> order;
  for (const GraphNode& n : g.nodes) {
    if (n.prim == Prim::kInput) order.push_back(n.imm);
  }
  EXPECT_EQ(order, (std::vector<int64_t>{2, 0, 1}));
}

TEST(Relax, AGraphWithNothingToRewriteStaysAsItIs) {
  Graph g;
  g.output(exp(input(g, 0)) + input(g, 1));
  const std::string before = print(g);
  EXPECT_FALSE(relax(g, {false, false}).any());
  EXPECT_EQ(print(g), before);
}

}  // namespace
}  // namespace lohe::compiler
