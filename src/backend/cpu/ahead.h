#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "backend/cpu/fetch_share.h"
#include "backend/cpu/gemm.h"

namespace lohe::backend {

/// What is read or written next: short rows far from one another, which a processor's own prefetching does
/// not foresee. The tiles that come before fetch some rows each, since a core drops what it is asked for all
/// at once.
template <class T>
class Ahead {
 public:
  /// Bytes that find room in a second-level cache beside the work that goes on.
  static constexpr int64_t kRoom = 256 << 10;

  Ahead() = default;
  /// @param then whom tiles fetch for when nothing of this is left
  explicit Ahead(FetchShare<T>& then) : then_(&then) {}

  /// `count` rows of `width` adjacent elements, or as many as there is room for.
  void add(const T* data, int64_t row_stride, int64_t count, int64_t width) {
    count = std::min(count, room_ / std::max<int64_t>(width * static_cast<int64_t>(sizeof(T)), 1));
    if (count == 0 || size_ == parts_.size()) return;
    parts_[size_++] = {data, row_stride, count, width};
    room_ -= count * width * static_cast<int64_t>(sizeof(T));
  }

  /// Whether nothing is left.
  bool empty() const { return part_ == size_ && (then_ == nullptr || then_->empty()); }

  /// What a tile fetches of it.
  Fetch<T> share_of_tile(int rows, int64_t k) {
    if (part_ == size_) return then_ != nullptr ? then_->share_of_tile(rows, k) : Fetch<T>{};
    const Part& p = parts_[part_];
    const Fetch<T> share{p.data + row_ * p.row_stride, p.row_stride, p.width};
    row_ += rows;
    if (row_ >= p.count) {
      row_ = 0;
      ++part_;
    }
    return share;
  }

 private:
  struct Part {
    const T* data;
    int64_t row_stride, count, width;
  };
  FetchShare<T>* then_ = nullptr;
  std::array<Part, 8> parts_;
  size_t size_ = 0, part_ = 0;
  int64_t row_ = 0, room_ = kRoom;
};

}  // namespace lohe::backend
