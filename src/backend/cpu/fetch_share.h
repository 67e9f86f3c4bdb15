#pragma once

#include <algorithm>
#include <cstdint>
#include <span>

#include "backend/cpu/gemm.h"
#include "backend/meanwhile.h"

namespace lohe::backend {

/// One thread's share of what a product fetches for the work that follows (see Meanwhile): of each piece of
/// memory the part that the same thread is likely to read, tile by tile.
template <class T>
class FetchShare {
 public:
  FetchShare() = default;
  /// @param tiles of `rows` rows that this thread is likely to compute
  FetchShare(std::span<const FarMemory> memory, int64_t share, int64_t shares, int64_t tiles, int rows)
      : memory_(memory), share_(share), shares_(shares) {
    int64_t lines = 0;
    for (const FarMemory& m : memory) lines += m.bytes / kLineBytes / shares;
    left_ = std::min(lines, Meanwhile::kMostBytes / kLineBytes);
    // Late, so that it is still near when the product ends, but not too late: threads take turns.
    const int64_t enough = std::max<int64_t>(tiles * 3 / 4, 1) * rows;
    lines_ = std::max<int64_t>((left_ + enough - 1) / enough, 1);
    idle_ = std::max<int64_t>(tiles * 7 / 8 - left_ / (rows * lines_), 0);
    open();
  }

  /// Whether nothing is left.
  bool empty() const { return left_ <= 0; }

  /// What a tile fetches of it.
  Fetch<T> share_of_tile(int rows, int64_t k) {
    if (left_ <= 0) return {};
    if (idle_ > 0) {
      --idle_;
      return {};
    }
    // A tile waits for what it asks for faster than memory gives it.
    const int64_t each = std::min(lines_, k / kWorkPerLine);
    if (each == 0) return {};
    const int64_t lines = rows * each, size = each * kLineBytes / static_cast<int64_t>(sizeof(T));
    const Fetch<T> share{reinterpret_cast<const T*>(at_), size, size};
    at_ += lines * kLineBytes;
    left_ -= lines;
    if (at_ >= end_) {
      ++part_;
      open();
    }
    return share;
  }

 private:
  static constexpr int64_t kLineBytes = 64;
  static constexpr int64_t kWorkPerLine = 32;  ///< values of k for each line that a row of a tile asks for

  void open() {
    if (part_ == memory_.size()) {
      left_ = 0;
      return;
    }
    const FarMemory& m = memory_[part_];
    const int64_t lines = m.bytes / kLineBytes;
    at_ = m.data + lines * share_ / shares_ * kLineBytes;
    end_ = m.data + lines * (share_ + 1) / shares_ * kLineBytes;
  }

  std::span<const FarMemory> memory_;
  int64_t share_ = 0, shares_ = 1;
  int64_t left_ = 0;   ///< lines
  int64_t lines_ = 1;  ///< for each row of a tile
  int64_t idle_ = 0;   ///< tiles that fetch nothing, before the first that does
  size_t part_ = 0;
  const char *at_ = nullptr, *end_ = nullptr;
};

}  // namespace lohe::backend
