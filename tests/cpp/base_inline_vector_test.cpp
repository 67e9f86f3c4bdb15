#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "base/inline_vector.h"

namespace lohe {
namespace {

using Shared = std::shared_ptr<int>;

TEST(InlineVector, GrowsBeyondItsInlineElements) {
  InlineVector<std::string, 2> list;
  EXPECT_TRUE(list.empty());
  for (int i = 0; i < 20; ++i) list.emplace_back(30, static_cast<char>('a' + i));
  ASSERT_EQ(list.size(), 20u);
  EXPECT_EQ(list.front(), std::string(30, 'a'));
  EXPECT_EQ(list.back(), std::string(30, 't'));
  list.pop_back();
  list.resize(25);
  EXPECT_EQ(list[18], std::string(30, 's'));
  EXPECT_EQ(list[24], "");
  list.clear();
  EXPECT_TRUE(list.empty());
}

TEST(InlineVector, MovesAndCopiesInlineAndHeapElements) {
  for (const size_t n : {0, 1, 2, 3, 9}) {
    const Shared value = std::make_shared<int>(1);
    InlineVector<Shared, 2> list;
    for (size_t i = 0; i < n; ++i) list.push_back(value);
    EXPECT_EQ(value.use_count(), static_cast<long>(n) + 1);

    InlineVector<Shared, 2> moved(std::move(list));
    EXPECT_EQ(list.size(), 0u);  // NOLINT(bugprone-use-after-move): a moved-from list is empty
    EXPECT_EQ(moved.size(), n);
    EXPECT_EQ(value.use_count(), static_cast<long>(n) + 1);
    list.push_back(value);
    EXPECT_EQ(list.size(), 1u);

    const InlineVector<Shared, 2> copied(moved);
    EXPECT_EQ(value.use_count(), 2 * static_cast<long>(n) + 2);
    list = std::move(moved);
    EXPECT_EQ(value.use_count(), 2 * static_cast<long>(n) + 1);
    list = copied;
    EXPECT_EQ(value.use_count(), 2 * static_cast<long>(n) + 1);
    list.clear();
    EXPECT_EQ(value.use_count(), static_cast<long>(n) + 1);
  }
}

TEST(InlineVector, IsASpan) {
  InlineVector<Shared, 3> list{std::make_shared<int>(4), std::make_shared<int>(5)};
  int total = 0;
  for (const Shared& v : std::span<const Shared>(list)) total += *v;
  EXPECT_EQ(total, 9);
}

}  // namespace
}  // namespace lohe
