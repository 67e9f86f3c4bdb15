#include <gtest/gtest.h>

#include "random_trace.h"

namespace lohe::testing {
namespace {

Outcome plain(uint64_t seed, bool large) { return RandomTrace(seed, large).run(false, 0, 0); }

class RandomTraces : public ::testing::Test {
 protected:
  void SetUp() override {
    record::settings().strict = true;
    record::settings().recompute_from = 0;
    set_num_threads(2);
  }
  void TearDown() override {
    record::settings().compile_at = 2;
    record::settings().fuse = record::settings().plan_memory = true;
    record::settings().strict = false;
    record::settings().recompute_from = 524288;
  }
  void compare(uint64_t first, uint64_t count, bool large, int settle_often) {
    for (uint64_t seed = first; seed < first + count; ++seed)
      EXPECT_EQ(RandomTrace(seed, large).run(true, settle_often, seed), plain(seed, large))
          << "seed " << seed;
    reset_compiler();
  }
};

TEST_F(RandomTraces, GiveTheSameBitsUnfusedWhereverTheyAreSettled) {
  record::settings().compile_at = 1'000'000'000;
  for (const int often : {0, 2, 6}) compare(static_cast<uint64_t>(often) * 1000, 150, false, often);
}

TEST_F(RandomTraces, GiveTheSameBitsAsPrograms) {
  record::settings().compile_at = 1;
  for (const int often : {0, 5}) compare(10'000 + static_cast<uint64_t>(often) * 1000, 40, false, often);
}

TEST_F(RandomTraces, GiveTheSameBitsAtOtherSizes) {
  record::settings().compile_at = 1;
  const record::Recorder::Counts before = record::Recorder::of_this_thread().counts();
  for (uint64_t seed = 50'000; seed < 50'030; ++seed) {
    for (const int sizes : {0, 1, 2}) {
      EXPECT_EQ(RandomTrace(seed, false, sizes).run(true, 0, seed),
                RandomTrace(seed, false, sizes).run(false, 0, 0))
          << "seed " << seed << ", sizes " << sizes;
    }
  }
  EXPECT_GT(record::Recorder::of_this_thread().counts().instances, before.instances);
  reset_compiler();
}

TEST_F(RandomTraces, GiveTheSameBitsAsProgramsOfUnfusedSteps) {
  record::settings().compile_at = 1;
  record::settings().fuse = false;
  compare(20'000, 40, false, 0);
}

TEST_F(RandomTraces, GiveTheSameBitsWhereNoBuffersShareMemory) {
  record::settings().compile_at = 1;
  record::settings().plan_memory = false;
  compare(30'000, 30, false, 0);
}

TEST_F(RandomTraces, GiveTheSameShapesAndErrorsInexactly) {
  record::settings().compile_at = 1;
  // Of each part dtype, sizes, strides and bytes, or an error's text.
  const auto lengths = [](const Outcome& o) {
    std::vector<size_t> list;
    for (const std::string& p : o.parts) list.push_back(p.size());
    return list;
  };
  for (uint64_t seed = 50'000; seed < 50'080; ++seed) {
    const bool large = seed % 8 == 0;
    const Outcome got = RandomTrace(seed, large).run(true, seed % 2 == 0 ? 0 : 5, seed, false);
    EXPECT_EQ(lengths(got), lengths(plain(seed, large))) << "seed " << seed;
  }
  reset_compiler();
}

TEST_F(RandomTraces, GiveTheSameBitsOnLongRows) {
  record::settings().compile_at = 1;
  compare(40'000, 15, true, 0);
}

TEST(Recorder, SettlesWhatHoldsBackTooManyBytes) {
  record::Settings& settings = record::settings();
  const int64_t most = settings.most_held;
  settings.most_held = 64 << 10;
  const auto traces = [] { return record::Recorder::of_this_thread().counts().traces; };
  std::vector<Tensor> batches;
  for (int i = 0; i < 20; ++i) batches.push_back(full({64, 64}, i, kFloat));
  const int64_t before = traces();
  {
    Lazy scope;
    Tensor sum = zeros({64, 64});
    for (int i = 0; i < 20; ++i) {
      sum = sum + batches[static_cast<size_t>(i)];
    }
    scope.end();
    EXPECT_EQ(sum.sum().item<float>(), 190.0f * 64 * 64);
  }
  EXPECT_GE(traces() - before, 4);
  settings.most_held = most;
}

}  // namespace
}  // namespace lohe::testing
