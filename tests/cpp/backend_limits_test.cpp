#include <gtest/gtest.h>

#include "backend/limits.h"
#include "base/threads.h"

namespace lohe::backend {
namespace {

TEST(Limits, AreMeasuredOnceForEverySizeAndNumberOfThreads) {
  for (const int64_t bytes : {int64_t{100}, int64_t{64} << 10, int64_t{1} << 20}) {
    const double read = least_seconds_to_move(bytes, 0), written = least_seconds_to_move(0, bytes),
                 both = least_seconds_to_move(bytes / 2, bytes / 2);
    for (const double seconds : {read, written, both}) {
      EXPECT_GT(seconds, 0) << bytes;
      EXPECT_LT(seconds, static_cast<double>(bytes) * 1e-7) << bytes;  // 10 MB/s
    }
    EXPECT_EQ(least_seconds_to_move(bytes, 0), read);
    EXPECT_EQ(least_seconds_to_move(0, bytes), written);
    EXPECT_EQ(least_seconds_to_move(bytes / 2, bytes / 2), both);
  }
  const double narrow = flops_a_second(Dtype::kFloat32), wide = flops_a_second(Dtype::kFloat64);
  EXPECT_GT(narrow, 1e6);
  EXPECT_GT(wide, 1e6);
  EXPECT_EQ(flops_a_second(Dtype::kFloat32), narrow);
  EXPECT_EQ(flops_a_second(Dtype::kFloat64), wide);
  const int threads = num_threads();
  set_num_threads(threads + 1);
  EXPECT_GT(flops_a_second(Dtype::kFloat32), 1e6);
  set_num_threads(threads);
  EXPECT_EQ(flops_a_second(Dtype::kFloat32), narrow);
}

TEST(Limits, NothingTakesNoTime) { EXPECT_EQ(least_seconds_to_move(0, 0), 0); }

TEST(Limits, WhatIsCopiedSummedAndFilledAddsUp) {
  // Of one working set of 1 MiB: its reading, writing and copying, each a byte's time times the bytes.
  constexpr int64_t kBytes = 1 << 20;
  const double copy = least_seconds_to_move(kBytes / 2, kBytes / 2), sum = least_seconds_to_move(kBytes, 0);
  EXPECT_NEAR(least_seconds_to_move(kBytes * 3 / 4, kBytes / 4), (copy + sum) / 2, 1e-12);
}

}  // namespace
}  // namespace lohe::backend
