#include <gtest/gtest.h>
#include <lohe/lohe.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "record/recorder.h"

namespace torch = lohe;

namespace {

using lohe::Storage;
using lohe::record::Recorder;

float twice_recorded(const torch::Tensor& x) {
  torch::Lazy lazy;
  return (x * 2)[0].item<float>();
}

TEST(Recorder, RecordsOnWhatAnotherThreadHasClaimedAndNotUsed) {
  const torch::Tensor x = torch::ones({3});
  Storage* const claimed[] = {&x.impl()->storage()};
  Recorder& mine = Recorder::of_this_thread();  // before the thread's, which would be handed on
  std::thread([&] { Recorder::of_this_thread().claim(claimed); }).join();
  EXPECT_FALSE(mine.has(claimed));
  EXPECT_EQ(twice_recorded(x), 2);
}

TEST(Recorder, AClaimThatAnotherThreadTookIsMadeAgain) {
  const torch::Tensor x = torch::ones({3});
  Storage* const claimed[] = {&x.impl()->storage()};
  Recorder& mine = Recorder::of_this_thread();
  mine.claim(claimed);
  EXPECT_TRUE(mine.has(claimed));
  std::thread([&] {
    Recorder::of_this_thread().claim(claimed);
    EXPECT_TRUE(Recorder::of_this_thread().has(claimed));
  }).join();
  EXPECT_FALSE(mine.has(claimed));
  EXPECT_EQ(twice_recorded(x), 2);
}

TEST(Recorder, AForkedChildRecordsOnWhatAMissingThreadHasClaimed) {
  const torch::Tensor x = torch::ones({3});
  Storage* const claimed[] = {&x.impl()->storage()};
  std::atomic<bool> ready{false}, stop{false};
  std::thread thread([&] {
    Recorder::of_this_thread().claim(claimed);
    ready = true;
    while (!stop) std::this_thread::yield();
  });
  while (!ready) std::this_thread::yield();
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    ::_exit(twice_recorded(x) == 2 ? 0 : 1);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  stop = true;
  thread.join();
}

TEST(Recorder, ThreadsThatRecordOnTheSameTensorsAllComeThrough) {
  const torch::NoGradGuard no_grad;
  const torch::Tensor a = torch::ones({5}), b = torch::ones({5});
  std::atomic<int> wrong{0};
  const auto work = [&](bool a_first) {
    for (int i = 0; i < 3000; ++i) {
      torch::Lazy lazy;
      const torch::Tensor sum = a_first ? a + b * i : b * i + a;
      if (i % 3 == 0 && sum[1].item<float>() != static_cast<float>(1 + i)) ++wrong;
    }
  };
  std::thread first(work, true), second(work, false), third(work, true);
  first.join();
  second.join();
  third.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace
