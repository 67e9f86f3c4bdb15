#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "base/owned_mutex.h"

namespace lohe {
namespace {

/// Runs with the barrier, where the system has it, and without.
class Owned : public ::testing::TestWithParam<bool> {
 protected:
  Owned() : mutex_(GetParam() && OwnedMutex::has_barrier()) { mutex_.own(); }

  void begin() {
    entered_ = mutex_.try_enter();
    if (!entered_) mutex_.lock();
  }
  void end() { entered_ ? mutex_.leave() : mutex_.unlock(); }

  OwnedMutex mutex_;
  bool entered_ = false;
};

TEST_P(Owned, OwnerAndOthersAreNeverInsideTogether) {
  constexpr int64_t kTimes = 2000;
  int64_t first = 0, second = 0;  // equal whenever nobody is inside
  std::atomic<bool> equal{true}, done{false};
  const auto change = [&] {
    if (first != second) equal = false;
    ++first;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    ++second;
  };
  std::vector<std::thread> others;
  for (int t = 0; t < 2; ++t) {
    others.emplace_back([&] {
      for (int64_t i = 0; i < kTimes; ++i) {
        if (i % 3 == 0 && mutex_.try_lock()) {
          change();
          mutex_.unlock();
        }
        const std::lock_guard lock(mutex_);
        change();
      }
    });
  }
  std::thread waiter([&] {
    for (std::thread& t : others) t.join();
    done = true;
  });
  int64_t sections = 0;
  while (!done) {
    if (++sections % 1000 == 0) {
      const std::lock_guard lock(mutex_);
      change();
      continue;
    }
    begin();
    change();
    end();
  }
  waiter.join();
  EXPECT_TRUE(equal);
  EXPECT_EQ(first, second);
  EXPECT_GE(first, 2 * kTimes + sections);
}

TEST_P(Owned, OwnerIsKeptOutWhileAnotherHasIt) {
  std::atomic<int> step{0};
  std::thread other([&] {
    const std::lock_guard lock(mutex_);
    step = 1;
    while (step != 2) std::this_thread::yield();
  });
  while (step != 1) std::this_thread::yield();
  EXPECT_FALSE(mutex_.try_enter());
  EXPECT_FALSE(mutex_.try_lock());
  step = 2;
  other.join();
  begin();
  EXPECT_EQ(entered_, GetParam() && OwnedMutex::has_barrier());
  end();
}

TEST_P(Owned, AnotherWaitsForTheSectionToEnd) {
  begin();
  std::atomic<bool> inside{false};
  std::thread other([&] {
    const std::lock_guard lock(mutex_);
    inside = true;
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_FALSE(inside);
  end();
  other.join();
  EXPECT_TRUE(inside);
}

TEST_P(Owned, ForkedChildGoesOnWithIt) {
  {
    std::thread other([&] { const std::lock_guard lock(mutex_); });  // the process has registered
    other.join();
  }
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    begin();
    std::atomic<bool> inside{false};
    std::thread other([&] {
      const std::lock_guard lock(mutex_);
      inside = true;
    });
    const bool alone = !inside;
    end();
    other.join();
    ::_exit(alone && inside ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

TEST_P(Owned, ForkedChildDoesNotWaitForAnOwnerAtTheDoor) {
  std::atomic<bool> done{false};
  std::thread owner([&] {
    mutex_.own();
    while (!done) {
      if (mutex_.try_enter()) mutex_.leave();
    }
  });
  int failed = 0;
  for (int i = 0; i < 200; ++i) {
    mutex_.lock();
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(20);
      mutex_.unlock_after_fork();
      mutex_.lock();
      ::_exit(0);
    }
    mutex_.unlock();
    int status = -1;
    ::waitpid(child, &status, 0);
    failed += status != 0 ? 1 : 0;
  }
  done = true;
  owner.join();
  EXPECT_EQ(failed, 0);
}

INSTANTIATE_TEST_SUITE_P(Barrier, Owned, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "WithBarrier" : "WithMutexAlone"; });

}  // namespace
}  // namespace lohe
