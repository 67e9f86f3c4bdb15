#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "backend/cpu/fetch_share.h"

namespace lohe::backend {
namespace {

constexpr int kRows = 14;

/// Lines that one thread fetches beside `tiles` tiles, by their number in the memory; and before which tile
/// it fetched the first.
struct Fetched {
  Fetched(std::span<const FarMemory> memory, const char* begin, int64_t share, int64_t shares,
          int64_t tiles) {
    FetchShare<float> part(memory, share, shares, tiles, kRows);
    for (int64_t t = 0; t < tiles; ++t) {
      Tile<float> tile{};
      tile.rows = kRows;
      part.fetch_beside(tile);
      if (tile.later.size > 0 && first < 0) first = t;
      for (int r = 0; r < tile.rows && tile.later.size > 0; ++r) {
        for (int64_t at = 0; at < tile.later.size; at += 16) {
          const char* line = reinterpret_cast<const char*>(tile.later.at + r * tile.later.row_stride + at);
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
  const std::array<FarMemory, 1> far{FarMemory{nullptr, int64_t{1} << 40}};
  const Fetched fetched(far, nullptr, 0, 2, 500);
  EXPECT_GE(static_cast<int64_t>(fetched.lines.size()) * 64, Meanwhile::kMostBytes);
  EXPECT_LT(static_cast<int64_t>(fetched.lines.size()) * 64, Meanwhile::kMostBytes * 5 / 4);
}

TEST(FetchShare, LeavesTilesAloneThatFetchForThemselves) {
  std::vector<char> memory(64 * 64);
  const std::array<FarMemory, 1> far{FarMemory{memory.data(), 64 * 64}};
  FetchShare<float> part(far, 0, 1, 1, kRows);
  const float own = 0;
  Tile<float> tile{};
  tile.rows = kRows;
  tile.later = {&own, 1, 1};
  part.fetch_beside(tile);
  EXPECT_EQ(tile.later.at, &own);
}

TEST(FetchShare, HasNothingToFetchForNoMemory) {
  for (FetchShare<float> part : {FetchShare<float>(), FetchShare<float>({}, 1, 2, 100, kRows)}) {
    Tile<float> tile{};
    tile.rows = kRows;
    part.fetch_beside(tile);
    EXPECT_EQ(tile.later.size, 0);
  }
}

TEST(Meanwhile, HoldsForItsScope) {
  const std::array<FarMemory, 1> far{FarMemory{nullptr, 64}};
  {
    const Meanwhile meanwhile(far);
    EXPECT_EQ(Meanwhile::memory().size(), 1u);
  }
  EXPECT_TRUE(Meanwhile::memory().empty());
}

}  // namespace
}  // namespace lohe::backend
