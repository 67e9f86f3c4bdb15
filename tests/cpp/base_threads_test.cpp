#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cfenv>
#include <chrono>
#include <cmath>
#include <mutex>
#include <numeric>
#include <set>
#include <thread>
#include <vector>

#include "base/fork.h"
#include "base/threads.h"
#include "lohe/error.h"

namespace lohe {
namespace {

class Threads : public ::testing::Test {
 protected:
  void SetUp() override { before_ = num_threads(); }
  void TearDown() override { set_num_threads(before_); }

 private:
  int before_ = 1;
};

TEST_F(Threads, EveryIndexRunsExactlyOnceInAlignedRanges) {
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    for (const int64_t n : {1, 2, 7, 64, 1000, 65537}) {
      for (const int64_t grain : {1, 3, 64, 1000}) {
        std::vector<std::atomic<int>> hits(static_cast<size_t>(n));
        std::atomic<bool> aligned{true};
        parallel_for(n, grain, [&](int64_t begin, int64_t end) {
          if (begin % grain != 0 || (end % grain != 0 && end != n) || begin >= end) aligned = false;
          for (int64_t i = begin; i < end; ++i) hits[static_cast<size_t>(i)]++;
        });
        EXPECT_TRUE(aligned);
        EXPECT_TRUE(std::all_of(hits.begin(), hits.end(), [](const auto& hit) { return hit == 1; }))
            << "threads " << threads << " n " << n << " grain " << grain;
      }
    }
  }
}

TEST_F(Threads, EmptyAndHugeRanges) {
  set_num_threads(2);
  parallel_for(0, 1, [](int64_t, int64_t) { FAIL() << "nothing to run"; });
  parallel_for(-5, 1, [](int64_t, int64_t) { FAIL() << "nothing to run"; });
  std::atomic<uint64_t> covered{0};
  for (const int64_t grain : {int64_t{1}, INT64_MAX / 3, INT64_MAX - 1}) {
    covered = 0;
    parallel_for(INT64_MAX, grain,
                 [&](int64_t begin, int64_t end) { covered += static_cast<uint64_t>(end - begin); });
    EXPECT_EQ(covered, static_cast<uint64_t>(INT64_MAX));
  }
}

TEST_F(Threads, WritesOfWorkersAreVisibleToTheCallerAndTheNextRegion) {
  set_num_threads(4);
  std::vector<int64_t> values(4096, 0);
  for (int round = 1; round <= 500; ++round) {
    parallel_for(4096, 64, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) values[static_cast<size_t>(i)] += i;
    });
    ASSERT_EQ(std::accumulate(values.begin(), values.end(), int64_t{0}), round * int64_t{4095} * 4096 / 2);
  }
}

TEST_F(Threads, SeveralThreadsAreUsed) {
  set_num_threads(2);
  std::mutex mutex;
  std::set<std::thread::id> seen;
  std::set<std::string> names;
  // A range waits a while for company, so that the worker has the time to arrive.
  for (int attempt = 0; attempt < 100 && seen.size() < 2; ++attempt) {
    parallel_for(16, 1, [&](int64_t, int64_t) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      char name[16];
      pthread_getname_np(pthread_self(), name, sizeof name);
      const std::lock_guard lock(mutex);
      if (seen.insert(std::this_thread::get_id()).second) names.insert(name);
    });
  }
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_TRUE(names.contains("lohe-worker"));
}

TEST_F(Threads, NestedRegionsRunInline) {
  set_num_threads(4);
  EXPECT_FALSE(in_parallel_region());
  std::atomic<int64_t> sum{0};
  parallel_for(64, 1, [&](int64_t begin, int64_t end) {
    EXPECT_TRUE(in_parallel_region());
    const auto self = std::this_thread::get_id();
    for (int64_t i = begin; i < end; ++i) {
      int calls = 0;
      parallel_for(100, 1, [&](int64_t inner_begin, int64_t inner_end) {
        ++calls;
        EXPECT_EQ(std::this_thread::get_id(), self);
        sum += inner_end - inner_begin;
      });
      EXPECT_EQ(calls, 1);
    }
  });
  EXPECT_FALSE(in_parallel_region());
  EXPECT_EQ(sum, 6400);
}

TEST_F(Threads, ManyCallersAtOnce) {
  set_num_threads(3);
  std::vector<std::thread> callers;
  std::atomic<int64_t> total{0};
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int round = 0; round < 1000; ++round) {
        std::atomic<int64_t> own{0};
        parallel_for(100, 5, [&](int64_t begin, int64_t end) { own += end - begin; });
        EXPECT_EQ(own, 100);
        total += own;
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total, 4 * 1000 * 100);
}

TEST_F(Threads, ChangingTheNumberOfThreadsBetweenRegions) {
  for (int round = 0; round < 300; ++round) {
    set_num_threads(1 + round % 5);
    EXPECT_EQ(num_threads(), 1 + round % 5);
    std::atomic<int64_t> sum{0};
    parallel_for(1000, 10, [&](int64_t begin, int64_t end) { sum += end - begin; });
    ASSERT_EQ(sum, 1000);
  }
}

TEST_F(Threads, NumbersOutOfRangeAreRejected) {
  for (const int n : {0, -1, kMaxThreads + 1}) {
    try {
      set_num_threads(n);
      FAIL() << n;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kRuntime);
      EXPECT_NE(error.message().find("set_num_threads"), std::string::npos);
    }
  }
}

TEST_F(Threads, TheFirstFailingRangeIsReportedWhateverTheTiming) {
  set_num_threads(4);
  for (int round = 0; round < 200; ++round) {
    std::string message;
    try {
      parallel_for(1000, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) LOHE_CHECK(i < 300, "index ", i);
      });
    } catch (const Error& error) {
      message = error.message();
    }
    ASSERT_EQ(message, "index 300");
    // The pool works on.
    std::atomic<int64_t> sum{0};
    parallel_for(1000, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
    ASSERT_EQ(sum, 1000);
    ASSERT_FALSE(in_parallel_region());
  }
}

TEST_F(Threads, WorkersTakeOverTheRoundingMode) {
  set_num_threads(3);
  for (const int mode : {FE_UPWARD, FE_TONEAREST, FE_DOWNWARD, FE_TONEAREST}) {
    std::fesetround(mode);
    std::atomic<int> wrong{0};
    for (int round = 0; round < 20; ++round) {
      parallel_for(64, 1, [&](int64_t, int64_t) {
        if (std::fegetround() != mode) ++wrong;
        std::this_thread::yield();
      });
    }
    EXPECT_EQ(wrong, 0);
  }
  std::fesetround(FE_TONEAREST);
}

#ifndef __SANITIZE_THREAD__  // its run-time starts no threads after a fork of several
TEST_F(Threads, AForkedChildStartsItsOwnWorkers) {
  set_num_threads(3);
  const auto region_is_right = [] {
    std::atomic<int64_t> sum{0};
    parallel_for(10000, 7, [&](int64_t begin, int64_t end) { sum += end - begin; });
    return sum == 10000;
  };
  EXPECT_TRUE(region_is_right());
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) region_is_right();
  });
  for (int round = 0; round < 20; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      bool right = true;
      for (int i = 0; i < 100; ++i) right = right && region_is_right();
      _exit(right ? 0 : 1);
    }
    int status = -1;
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
    EXPECT_TRUE(region_is_right());
  }
  stop = true;
  other.join();
}
#endif

std::string fork_trace;  // written by handlers that are registered for the life of the process

TEST_F(Threads, AForkWaitsForSectionsOfOtherThreads) {
  std::mutex mutex;
  std::atomic<bool> stop{false};
  std::vector<std::thread> others;
  for (int t = 0; t < 3; ++t) {
    others.emplace_back([&] {
      while (!stop) {
        const ForkSection section, nested;
        const std::lock_guard lock(mutex);
        for (int i = 0; i < 200; ++i) std::atomic_signal_fence(std::memory_order_seq_cst);
      }
    });
  }
  for (int round = 0; round < 50; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      ::alarm(20);
      for (int i = 0; i < 3; ++i) {
        const ForkSection section;
        const std::lock_guard lock(mutex);
      }
      const pid_t grandchild = ::fork();
      if (grandchild == 0) ::_exit(0);
      int status = 1;
      ::waitpid(grandchild, &status, 0);
      ::_exit(status);
    }
    int status = 1;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_EQ(status, 0) << "round " << round;
  }
  stop = true;
  for (std::thread& other : others) other.join();
}

TEST_F(Threads, ForkHandlersRunInTheDocumentedOrder) {
  at_fork([] { fork_trace += "p1 "; }, [] { fork_trace += "P1 "; }, [] { fork_trace += "C1 "; });
  at_fork([] { fork_trace += "p2 "; }, nullptr, [] { fork_trace += "C2 "; });
  fork_trace.clear();
  const pid_t child = fork();
  if (child == 0) _exit(fork_trace == "p2 p1 C1 C2 " ? 0 : 1);
  int status = -1;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(fork_trace, "p2 p1 P1 ");
}

TEST_F(Threads, ShortRegionsStayShortOnABusyMachine) {
  set_num_threads(2);
  std::atomic<bool> stop{false};
  std::vector<std::thread> load;
  for (int i = 0; i < 4; ++i) {
    load.emplace_back([&] {
      while (!stop) {
      }
    });
  }
  std::vector<double> microseconds;
  for (int round = 0; round < 300; ++round) {
    std::this_thread::sleep_for(std::chrono::microseconds(50));  // lets the worker fall asleep
    const auto start = std::chrono::steady_clock::now();
    parallel_for(16, 1, [](int64_t, int64_t) {});
    microseconds.push_back(
        std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start).count());
  }
  stop = true;
  for (std::thread& thread : load) thread.join();
  std::nth_element(microseconds.begin(), microseconds.begin() + 150, microseconds.end());
  EXPECT_LT(microseconds[150], 1000.0);
  RecordProperty("median_us", std::to_string(microseconds[150]));
}

}  // namespace
}  // namespace lohe
