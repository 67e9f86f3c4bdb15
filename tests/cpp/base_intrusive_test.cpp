#include <gtest/gtest.h>

#include <thread>
#include <unordered_set>
#include <vector>

#include "base/intrusive.h"

namespace lohe {
namespace {

struct Counted : RefCounted<Counted> {
  explicit Counted(int* alive_count) : alive(alive_count) { ++*alive; }
  ~Counted() { --*alive; }
  int* alive;
};

struct Base : RefCounted<Base> {
  virtual ~Base() = default;
  virtual int id() const { return 1; }
};
struct Derived : Base {
  int id() const override { return 2; }
};

struct Recycled : RefCounted<Recycled> {
  inline static int destroyed = 0;
  static void destroy(Recycled* object) noexcept {
    ++destroyed;
    delete object;
  }
};

TEST(Intrusive, CopiesShareAndTheLastReleaseDestroys) {
  int alive = 0;
  {
    auto first = make_intrusive<Counted>(&alive);
    EXPECT_TRUE(first.unique());
    Intrusive<Counted> second = first;
    EXPECT_EQ(first.use_count(), 2u);
    EXPECT_EQ(first, second);
    Intrusive<Counted> third = std::move(first);
    EXPECT_EQ(first, nullptr);
    EXPECT_EQ(third.use_count(), 2u);
    second.reset();
    EXPECT_TRUE(third.unique());
    third = third;  // NOLINT: self-assignment keeps the object
    EXPECT_EQ(alive, 1);
    third = make_intrusive<Counted>(&alive);
    EXPECT_EQ(alive, 1);
  }
  EXPECT_EQ(alive, 0);
}

TEST(Intrusive, AdoptAndDetachMoveTheReference) {
  int alive = 0;
  auto owner = make_intrusive<Counted>(&alive);
  Counted* const raw = owner.detach();
  EXPECT_EQ(owner.use_count(), 0u);
  EXPECT_EQ(raw->use_count(), 1u);
  Intrusive<Counted> shared(raw);
  EXPECT_EQ(raw->use_count(), 2u);
  auto adopted = Intrusive<Counted>::adopt(raw);
  EXPECT_EQ(raw->use_count(), 2u);
  adopted.reset();
  shared.reset();
  EXPECT_EQ(alive, 0);
}

TEST(Intrusive, DerivedConvertsToBase) {
  Intrusive<Base> base = make_intrusive<Derived>();
  EXPECT_EQ(base->id(), 2);
  const auto derived = make_intrusive<Derived>();
  base = derived;
  EXPECT_EQ(derived.use_count(), 2u);
}

TEST(Intrusive, TheDestroyHookOfTheClassIsUsed) {
  make_intrusive<Recycled>().reset();
  EXPECT_EQ(Recycled::destroyed, 1);
}

TEST(Intrusive, ManyThreadsCountCorrectly) {
  int alive = 0;
  auto shared = make_intrusive<Counted>(&alive);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([shared] {
      for (int i = 0; i < 10000; ++i) Intrusive<Counted> copy = shared;
    });
  }
  shared.reset();
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(alive, 0);
}

TEST(Intrusive, WorksAsAKey) {
  int alive = 0;
  std::unordered_set<Intrusive<Counted>> set;
  const auto object = make_intrusive<Counted>(&alive);
  set.insert(object);
  set.insert(object);
  EXPECT_EQ(set.size(), 1u);
}

}  // namespace
}  // namespace lohe
