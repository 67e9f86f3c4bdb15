#pragma once

#include <atomic>
#include <cstdint>

namespace lohe::backend {

/// Jobs that nobody has taken yet. The caller of a parallel region takes them from the front and others from
/// the back, as parallel_for() does, so that a core meets again what its cache holds.
class Claims {
 public:
  explicit Claims(int64_t jobs) : jobs_(jobs) {}
  /// A job, or the number of all.
  int64_t take(bool from_front) {
    if (taken_.fetch_add(1) >= jobs_) return jobs_;
    return from_front ? front_.fetch_add(1) : jobs_ - 1 - back_.fetch_add(1);
  }

 private:
  const int64_t jobs_;
  std::atomic<int64_t> taken_{0}, front_{0}, back_{0};
};

}  // namespace lohe::backend
