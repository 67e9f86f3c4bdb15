#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "backend/cpu/ahead.h"
#include "backend/library.h"

namespace lohe::backend {
namespace {

constexpr int kRows = 14;
const char* const kNowhere = reinterpret_cast<const char*>(uintptr_t{1} << 46);

/// Lines that one thread fetches beside `tiles` tiles, by their number in the memory; and before which tile
/// it fetched the first.
struct Fetched {
  Fetched(std::span<const FarMemory> memory, const char* begin, int64_t share, int64_t shares, int64_t tiles,
          int64_t k = kChunk) {
    FetchShare<float> part(memory, share, shares, tiles, kRows);
    for (int64_t t = 0; t < tiles; ++t) {
      const Fetch<float> fetch = part.share_of_tile(kRows, k);
      if (fetch.size > 0 && first < 0) first = t;
      for (int r = 0; r < kRows && fetch.size > 0; ++r) {
        for (int64_t at = 0; at < fetch.size; at += 16) {
          const char* line = reinterpret_cast<const char*>(fetch.at + r * fetch.row_stride + at);
          lines.push_back((line - begin) / 64);
        }
      }
    }
  }
  std::vector<int64_t> lines;
  int64_t first = -1;
};

TEST(FetchShare, ThreadsFetchAllOfWhatIsSmallAndEachItsPart) {
  std::vector<char> memory(300 * 64);
  const std::array<FarMemory, 2> far{FarMemory{memory.data(), 200 * 64},
                                     FarMemory{memory.data() + 200 * 64, 100 * 64}};
  std::vector<int> times(300);
  for (int64_t share = 0; share < 3; ++share) {
    for (const int64_t line : Fetched(far, memory.data(), share, 3, 40).lines) {
      // The last tile of a piece runs into what lies behind it.
      if (line < 300) ++times[static_cast<size_t>(line)];
    }
  }
  for (const int n : times) EXPECT_GE(n, 1);
}

TEST(FetchShare, BeginsLateSoThatItIsStillNear) {
  std::vector<char> memory(140 * 64);
  const std::array<FarMemory, 1> far{FarMemory{memory.data(), 140 * 64}};
  const Fetched fetched(far, memory.data(), 0, 1, 1000);
  EXPECT_EQ(fetched.lines.size(), 140u);
  EXPECT_EQ(fetched.first, 1000 * 7 / 8 - 10);
}

TEST(FetchShare, LeavesOffAtWhatACacheHolds) {
  const std::array<FarMemory, 1> far{FarMemory{kNowhere, int64_t{1} << 40}};
  const Fetched fetched(far, kNowhere, 0, 2, 500);
  EXPECT_GE(static_cast<int64_t>(fetched.lines.size()) * 64, Meanwhile::kMostBytes);
  EXPECT_LT(static_cast<int64_t>(fetched.lines.size()) * 64, Meanwhile::kMostBytes * 5 / 4);
}

TEST(FetchShare, FewTilesFetchNoMoreThanTheyHaveTimeFor) {
  const std::array<FarMemory, 1> far{FarMemory{kNowhere, 1 << 20}};
  EXPECT_EQ(Fetched(far, kNowhere, 0, 2, 0).lines.size(), 0u);
  EXPECT_EQ(Fetched(far, kNowhere, 0, 2, 1).lines.size(), static_cast<size_t>(kRows * kChunk / 32));
  EXPECT_EQ(Fetched(far, kNowhere, 0, 2, 1, 40).lines.size(), static_cast<size_t>(kRows));
  EXPECT_EQ(Fetched(far, kNowhere, 0, 2, 10, 20).lines.size(), 0u);
}

TEST(Ahead, ComesBeforeWhatLaterStepsRead) {
  const std::array<FarMemory, 1> far{FarMemory{kNowhere, 64 * 64}};
  FetchShare<float> part(far, 0, 1, 1, kRows);
  Ahead<float> ahead(part);
  const float own[16] = {};
  ahead.add(own, 16, 1, 16);
  for (const void* wanted : {static_cast<const void*>(own), static_cast<const void*>(kNowhere)}) {
    EXPECT_FALSE(ahead.empty());
    EXPECT_EQ(ahead.share_of_tile(kRows, kChunk).at, wanted);
  }
}

TEST(FetchShare, HasNothingToFetchForNoMemory) {
  for (FetchShare<float> part : {FetchShare<float>(), FetchShare<float>({}, 1, 2, 100, kRows)}) {
    EXPECT_TRUE(part.empty());
    EXPECT_EQ(part.share_of_tile(kRows, kChunk).size, 0);
  }
}

/// Products of the rows of `a` with 300 columns, and of its columns with themselves.
std::vector<float> products(std::vector<float>& a, int64_t rows, int64_t columns) {
  constexpr int64_t kWidth = 300;
  std::vector<float> c(static_cast<size_t>(rows * kWidth + columns * columns));
  const Matrix rows_of_a{a.data(), columns, 1};
  matmul(kFloat32, {1, rows, kWidth, columns}, rows_of_a, {a.data(), kWidth, 1}, {c.data(), kWidth, 1});
  const Multiplication squares{
      {1, columns, columns, rows}, rows_of_a.transposed(), rows_of_a, {c.data() + rows * kWidth, columns, 1}};
  const Multiplication nothing{{1, 0, 1, 1}, rows_of_a, rows_of_a, rows_of_a};
  matmul(kFloat32, squares, nothing);
  return c;
}

TEST(Meanwhile, ProductsAreTheSameAndMemoryNeedNotBeThere) {
  constexpr int64_t kRows = 500, kColumns = 420;
  std::vector<float> a(kRows * kColumns);
  for (size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(i % 997) * 0.01f - 4;
  const std::vector<float> alone = products(a, kRows, kColumns);
  std::vector<char> there(100 * 64);
  const std::array<FarMemory, 4> far{FarMemory{there.data(), static_cast<int64_t>(there.size())},
                                     FarMemory{kNowhere, 1 << 20}, FarMemory{nullptr, 0},
                                     FarMemory{there.data(), 3}};
  const Meanwhile meanwhile(far);
  EXPECT_EQ(products(a, kRows, kColumns), alone);
}

TEST(Meanwhile, HoldsForItsScope) {
  const std::array<FarMemory, 1> far{FarMemory{kNowhere, 64}};
  {
    const Meanwhile meanwhile(far);
    EXPECT_EQ(Meanwhile::memory().size(), 1u);
  }
  EXPECT_TRUE(Meanwhile::memory().empty());
}

}  // namespace
}  // namespace lohe::backend
