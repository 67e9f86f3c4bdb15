#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/allocator.h"
#include "base/segment_heap.h"
#include "lohe/error.h"

namespace lohe {
namespace {

#if defined(__SANITIZE_ADDRESS__)
constexpr bool kAddressSanitizer = true;
#else
constexpr bool kAddressSanitizer = false;
#endif
#if defined(__SANITIZE_THREAD__)
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

constexpr size_t kMiB = size_t{1} << 20;

size_t random_size(std::mt19937_64& random) {
  // Uniform in the logarithm: from a byte to 2 MiB.
  const double bits = std::uniform_real_distribution<double>(0, 21)(random);
  return static_cast<size_t>(std::exp2(bits));
}

TEST(Allocator, ZeroBytesAreANullPointer) {
  EXPECT_EQ(allocate(0), nullptr);
  deallocate(nullptr, 0);
  deallocate(nullptr, 100);
}

TEST(Allocator, BlocksAreAlignedWritableAndDisjoint) {
  struct Held {
    size_t bytes;
    unsigned char mark;
  };
  std::map<unsigned char*, Held> shadow;
  std::mt19937_64 random(1);
  const auto free_one = [&](auto entry) {
    const auto [address, held] = *entry;
    for (size_t i = 0; i < held.bytes; i += 97) ASSERT_EQ(address[i], held.mark);
    ASSERT_EQ(address[held.bytes - 1], held.mark);
    shadow.erase(entry);
    deallocate(address, held.bytes);
  };
  const MemoryStats before = memory_stats();
  int64_t live = 0;
  for (int step = 0; step < 20000; ++step) {
    if (shadow.size() < 200 && random() % 2 == 0) {
      const size_t bytes = random_size(random);
      auto* const block = static_cast<unsigned char*>(allocate(bytes));
      ASSERT_EQ(reinterpret_cast<uintptr_t>(block) % kAllocationAlignment, 0u);
      const auto next = shadow.lower_bound(block);
      ASSERT_TRUE(next == shadow.end() || block + bytes <= next->first);
      ASSERT_TRUE(next == shadow.begin() || std::prev(next)->first + std::prev(next)->second.bytes <= block);
      const auto mark = static_cast<unsigned char>(random());
      std::memset(block, mark, bytes);
      shadow[block] = {bytes, mark};
      live += static_cast<int64_t>(bytes);
    } else if (!shadow.empty()) {
      auto entry = std::next(shadow.begin(), static_cast<ptrdiff_t>(random() % shadow.size()));
      live -= static_cast<int64_t>(entry->second.bytes);
      free_one(entry);
    }
    if (step % 1000 == 0) {
      ASSERT_EQ(memory_stats().allocated_bytes - before.allocated_bytes, live);
      if (step % 5000 == 0) empty_cache();
    }
  }
  while (!shadow.empty()) free_one(shadow.begin());
  const MemoryStats after = memory_stats();
  EXPECT_EQ(after.allocated_bytes, before.allocated_bytes);
  EXPECT_EQ(after.allocations - before.allocations, after.frees - before.frees);
}

TEST(Allocator, FreedMemoryIsUsedAgain) {
  if (kAddressSanitizer) GTEST_SKIP() << "the caches are bypassed";
  for (const size_t bytes : {size_t{64}, size_t{5000}, size_t{32768}, size_t{32769}, 3 * kMiB, 100 * kMiB}) {
    void* const first = allocate(bytes);
    deallocate(first, bytes);
    void* const second = allocate(bytes);
    EXPECT_EQ(first, second) << bytes;
    deallocate(second, bytes);
  }
}

TEST(Allocator, PeaksAreExactForOneThread) {
  reset_peak_memory_stats();
  const int64_t start = memory_stats().allocated_bytes;
  void* const big = allocate(10 * kMiB);
  void* const small = allocate(1000);
  deallocate(big, 10 * kMiB);
  deallocate(small, 1000);
  MemoryStats stats = memory_stats();
  EXPECT_EQ(stats.allocated_bytes, start);
  EXPECT_EQ(stats.peak_allocated_bytes - start, static_cast<int64_t>(10 * kMiB + 1000));
  EXPECT_GE(stats.peak_reserved_bytes, stats.reserved_bytes);
  reset_peak_memory_stats();
  EXPECT_EQ(memory_stats().peak_allocated_bytes, start);
}

int64_t resident_bytes() {
  long pages = 0;
  long resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return resident * ::sysconf(_SC_PAGESIZE);
}

TEST(Allocator, EmptyCacheGivesMemoryBack) {
  if (kAddressSanitizer || kThreadSanitizer) GTEST_SKIP() << "resident size is the sanitizer's";
  empty_cache();
  const int64_t start = resident_bytes();
  std::vector<void*> small;
  for (int i = 0; i < 20000; ++i) small.push_back(std::memset(allocate(1024), 1, 1024));
  void* const big = std::memset(allocate(50 * kMiB), 1, 50 * kMiB);
  EXPECT_GT(resident_bytes() - start, static_cast<int64_t>(65 * kMiB));
  deallocate(big, 50 * kMiB);
  for (void* block : small) deallocate(block, 1024);
  EXPECT_GE(memory_stats().cached_bytes, static_cast<int64_t>(50 * kMiB));
  empty_cache();
  EXPECT_LT(resident_bytes() - start, static_cast<int64_t>(4 * kMiB));
  EXPECT_LT(memory_stats().cached_bytes, static_cast<int64_t>(kMiB));
}

TEST(Allocator, HeldMemoryFollowsThePeakInUseAcrossSizes) {
  if (kAddressSanitizer) GTEST_SKIP() << "the caches are bypassed";
  // A growing size fits no hole that its predecessors left; what is held must stay near what was ever in use.
  empty_cache();
  reset_peak_memory_stats();
  const int64_t start = memory_stats().reserved_bytes;
  std::vector<std::pair<void*, size_t>> pins;
  for (size_t megabytes = 8; megabytes <= 256; megabytes += 8) {
    void* const block = allocate(megabytes * kMiB);
    pins.emplace_back(allocate(100'000), 100'000);  // keeps the hole from joining the rest
    deallocate(block, megabytes * kMiB);
  }
  EXPECT_LT(memory_stats().peak_reserved_bytes - start, static_cast<int64_t>((256 + 16 + 80) * kMiB));
  for (const auto& [block, bytes] : pins) deallocate(block, bytes);
}

TEST(Allocator, BlocksMayBeFreedByOtherThreads) {
  const MemoryStats before = memory_stats();
  std::mutex mutex;
  std::deque<std::pair<unsigned char*, size_t>> exchange;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937_64 random(static_cast<uint64_t>(t));
      for (int step = 0; step < 4000; ++step) {
        const size_t bytes = random_size(random) / 8 + 1;
        auto* const block = static_cast<unsigned char*>(allocate(bytes));
        block[0] = block[bytes - 1] = static_cast<unsigned char>(bytes);
        std::pair<unsigned char*, size_t> taken{nullptr, 0};
        {
          const std::lock_guard lock(mutex);
          exchange.emplace_back(block, bytes);
          if (exchange.size() > 100) {
            taken = exchange.front();
            exchange.pop_front();
          }
        }
        if (taken.first) {
          ASSERT_EQ(taken.first[0], static_cast<unsigned char>(taken.second));
          ASSERT_EQ(taken.first[taken.second - 1], static_cast<unsigned char>(taken.second));
          deallocate(taken.first, taken.second);
        }
        if (step % 1000 == 0) empty_cache();
        if (step % 500 == 0) memory_stats();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const auto& [block, bytes] : exchange) deallocate(block, bytes);
  const MemoryStats after = memory_stats();
  EXPECT_EQ(after.allocated_bytes, before.allocated_bytes);
  EXPECT_EQ(after.allocations - before.allocations, 16000);
  EXPECT_EQ(after.frees - before.frees, 16000);
}

TEST(Allocator, AnEndingThreadReturnsItsLists) {
  if (kAddressSanitizer) GTEST_SKIP() << "the caches are bypassed";
  void* theirs = nullptr;
  std::thread([&] {
    theirs = allocate(28000);
    deallocate(theirs, 28000);
  }).join();
  // Everything of that class can be had by this thread, so the block turns up.
  std::vector<void*> blocks;
  while (blocks.size() < 100 && (blocks.empty() || blocks.back() != theirs))
    blocks.push_back(allocate(28000));
  EXPECT_EQ(blocks.back(), theirs);
  for (void* block : blocks) deallocate(block, 28000);
}

struct UsesAllocatorWhenTheThreadEnds {
  ~UsesAllocatorWhenTheThreadEnds() {
    void* const block = allocate(100);
    deallocate(block, 100);
    deallocate(held, 200);
  }
  void* held = nullptr;
};

TEST(Allocator, WorksInDestructorsOfThreadLocals) {
  const int64_t before = memory_stats().allocated_bytes;
  std::thread([] {
    thread_local UsesAllocatorWhenTheThreadEnds late;  // destroyed after the cache, which is made later
    late.held = allocate(200);
  }).join();
  EXPECT_EQ(memory_stats().allocated_bytes, before);
}

TEST(Allocator, ImpossibleRequestsFailAndNothingBreaks) {
  for (const size_t bytes : {size_t{1} << 45, size_t{1} << 47, size_t{1} << 62, SIZE_MAX}) {
    try {
      allocate(bytes);
      FAIL() << bytes;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kOutOfMemory);
      EXPECT_NE(error.message().find("tried to allocate " + std::to_string(bytes) + " bytes"),
                std::string::npos);
      EXPECT_NE(error.message().find("GiB"), std::string::npos);
    }
    void* const block = allocate(100'000);
    std::memset(block, 1, 100'000);
    deallocate(block, 100'000);
  }
}

class AllocatorDeath : public ::testing::Test {
 protected:
  // The child runs the test from its start in a fresh process, where the environment is read anew.
  void SetUp() override { GTEST_FLAG_SET(death_test_style, "threadsafe"); }
  void TearDown() override {
    unsetenv("LOHE_DEBUG_GUARD");
    unsetenv("LOHE_DEBUG_FILL");
  }
};

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST_F(AllocatorDeath, AtTheAddressSpaceLimitTheCachesAreEmptiedFirst) {
  const auto program = [] {
    // 400 MiB of cache in blocks of 40 MiB, then a limit that leaves no room for 300 MiB besides them.
    std::vector<void*> blocks;
    for (int i = 0; i < 10; ++i) blocks.push_back(allocate(40 * kMiB));
    for (void* block : blocks) deallocate(block, 40 * kMiB);
    long pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlim_t limit = static_cast<rlim_t>(pages) * 4096 + 100 * kMiB;
    const rlimit limits{limit, limit};
    if (setrlimit(RLIMIT_AS, &limits) != 0) return 2;
    void* const block = allocate(440 * kMiB);
    deallocate(block, 440 * kMiB);
    try {
      allocate(2048 * kMiB);
      return 3;
    } catch (const Error& error) {
      if (error.kind() != ErrorKind::kOutOfMemory) return 4;
    }
    deallocate(allocate(100 * kMiB), 100 * kMiB);
    return 0;
  };
  EXPECT_EXIT(std::_Exit(program()), ::testing::ExitedWithCode(0), "");
}

TEST_F(AllocatorDeath, FreeingALargeBlockTwiceStopsTheProcess) {
  EXPECT_DEATH(
      {
        void* const block = allocate(kMiB);
        deallocate(block, kMiB);
        deallocate(block, kMiB);
      },
      "freed twice");
}
#endif

TEST_F(AllocatorDeath, GuardStopsAWriteBehindTheEnd) {
  setenv("LOHE_DEBUG_GUARD", "1", 1);
  for (const size_t bytes : {size_t{4}, size_t{12}, size_t{4096}, size_t{100'000}}) {
    EXPECT_DEATH(
        {
          auto* const block = static_cast<volatile char*>(allocate(bytes));
          block[bytes] = 1;
        },
        "");
  }
}

TEST_F(AllocatorDeath, GuardStopsAnAccessAfterFree) {
  setenv("LOHE_DEBUG_GUARD", "1", 1);
  EXPECT_DEATH(
      {
        auto* const block = static_cast<volatile char*>(allocate(64));
        deallocate(const_cast<char*>(block), 64);
        block[0] = 1;
      },
      "");
}

TEST_F(AllocatorDeath, GuardedBlocksAreUsableUpToTheirEnd) {
  setenv("LOHE_DEBUG_GUARD", "1", 1);
  const auto program = [] {
    for (size_t bytes = 1; bytes < 20'000; bytes += 61) {
      void* const block = std::memset(allocate(bytes), 1, bytes);
      // What divides the size is aligned: elements of every dtype are.
      if (reinterpret_cast<uintptr_t>(block) % (bytes & -bytes) != 0) return 2;
      if (memory_stats().allocated_bytes != static_cast<int64_t>(bytes)) return 3;
      deallocate(block, bytes);
    }
    return memory_stats().reserved_bytes == 0 ? 0 : 4;
  };
  EXPECT_EXIT(std::_Exit(program()), ::testing::ExitedWithCode(0), "");
}

TEST_F(AllocatorDeath, FilledMemoryIsNaN) {
  setenv("LOHE_DEBUG_FILL", "1", 1);
  const auto program = [] {
    for (const size_t count : {size_t{1}, size_t{16}, size_t{100'000}}) {
      for (int round = 0; round < 3; ++round) {
        auto* const values = static_cast<float*>(allocate(count * sizeof(float)));
        for (size_t i = 0; i < count; ++i) {
          if (!std::isnan(values[i])) return 2;
          values[i] = 1;
        }
        deallocate(values, count * sizeof(float));
      }
    }
    return 0;
  };
  EXPECT_EXIT(std::_Exit(program()), ::testing::ExitedWithCode(0), "");
}

TEST_F(AllocatorDeath, AnUnreadableSettingIsAnError) {
  setenv("LOHE_DEBUG_FILL", "perhaps", 1);
  const auto program = [] {
    try {
      allocate(10);
    } catch (const Error& error) {
      return error.kind() == ErrorKind::kValue ? 0 : 2;
    }
    return 3;
  };
  EXPECT_EXIT(std::_Exit(program()), ::testing::ExitedWithCode(0), "");
}

TEST(Allocator, ForkWhileOtherThreadsAllocate) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's own allocator may be locked by the other thread, in the child for good";
#endif
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) {
      for (const size_t bytes : {size_t{100}, size_t{200'000}}) deallocate(allocate(bytes), bytes);
      empty_cache();
    }
  });
  for (int round = 0; round < 20; ++round) {
    const pid_t child = fork();
    if (child == 0) {
      for (const size_t bytes : {size_t{100}, size_t{30'000}, size_t{200'000}}) {
        for (int i = 0; i < 100; ++i) deallocate(std::memset(allocate(bytes), 1, bytes), bytes);
      }
      empty_cache();
      _exit(0);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  stop = true;
  other.join();
}

TEST(SegmentHeap, RandomTrafficKeepsTheHeapConsistentAndCoalescesToNothing) {
  detail::SegmentHeap heap;
  std::map<std::byte*, size_t> shadow;
  size_t in_use = 0;
  std::mt19937_64 random(7);
  for (int step = 0; step < 30000; ++step) {
    if (shadow.size() < 150 && random() % 2 == 0) {
      const size_t bytes = 32769 + static_cast<size_t>(std::exp2(random() % 2200 / 100.0));
      auto* const block = static_cast<std::byte*>(heap.allocate(bytes));
      ASSERT_NE(block, nullptr);
      const size_t size = detail::SegmentHeap::rounded(bytes);
      ASSERT_LE(size, bytes + bytes * 6 / 100);
      const auto next = shadow.lower_bound(block);
      ASSERT_TRUE(next == shadow.end() || block + size <= next->first);
      ASSERT_TRUE(next == shadow.begin() || std::prev(next)->first + std::prev(next)->second <= block);
      shadow[block] = size;
      in_use += size;
    } else if (!shadow.empty()) {
      const auto entry = std::next(shadow.begin(), static_cast<ptrdiff_t>(random() % shadow.size()));
      in_use -= entry->second;
      ASSERT_TRUE(heap.deallocate(entry->first, entry->second));
      shadow.erase(entry);
    }
    ASSERT_EQ(heap.in_use_bytes(), in_use);
    ASSERT_TRUE(step % 200 != 0 || heap.consistent()) << step;
    if (step % 7000 == 6999) {
      heap.empty();
      ASSERT_TRUE(heap.consistent());
    }
  }
  for (const auto& [block, size] : shadow) ASSERT_TRUE(heap.deallocate(block, size));
  EXPECT_TRUE(heap.consistent());
  EXPECT_EQ(heap.in_use_bytes(), 0u);
  // Each segment is one free block again, so that all of them can be unmapped.
  heap.empty();
  EXPECT_EQ(heap.segment_count(), 0u);
  EXPECT_EQ(heap.cached_bytes(), 0u);
}

TEST(SegmentHeap, NeighboursJoinSoThatTheirSumFits) {
  detail::SegmentHeap heap;
  std::vector<void*> blocks;
  for (int i = 0; i < 16; ++i) blocks.push_back(heap.allocate(2 * kMiB));
  EXPECT_EQ(heap.segment_count(), 1u);
  for (int i = 0; i < 16; i += 2) EXPECT_TRUE(heap.deallocate(blocks[static_cast<size_t>(i)], 2 * kMiB));
  for (int i = 1; i < 16; i += 2) EXPECT_TRUE(heap.deallocate(blocks[static_cast<size_t>(i)], 2 * kMiB));
  EXPECT_EQ(heap.allocate(32 * kMiB), blocks[0]);
  EXPECT_EQ(heap.segment_count(), 1u);
  EXPECT_TRUE(heap.deallocate(blocks[0], 32 * kMiB));
  heap.empty();
}

TEST(SegmentHeap, TheSmallestFittingHoleIsTaken) {
  detail::SegmentHeap heap;
  std::vector<std::pair<void*, size_t>> blocks;
  const std::vector<size_t> sizes{4 * kMiB, kMiB, 2 * kMiB, 3 * kMiB};
  std::vector<void*> holes;
  for (const size_t size : sizes) {
    holes.push_back(heap.allocate(size));
    blocks.emplace_back(heap.allocate(65536), 65536);
  }
  for (size_t i = 0; i < sizes.size(); ++i) EXPECT_TRUE(heap.deallocate(holes[i], sizes[i]));
  EXPECT_EQ(heap.allocate(2 * kMiB - 8192), holes[2]);
  EXPECT_FALSE(heap.deallocate(holes[2], kMiB)) << "not its size";
  EXPECT_TRUE(heap.deallocate(holes[2], 2 * kMiB - 8192));
  EXPECT_FALSE(heap.deallocate(holes[2], 2 * kMiB - 8192)) << "not in use";
  for (const auto& [block, size] : blocks) EXPECT_TRUE(heap.deallocate(block, size));
  heap.empty();
}

}  // namespace
}  // namespace lohe
