#pragma once

#include <cstdint>
#include <span>

namespace lohe::backend {

/// Memory that lies far from a core and is read by work that follows.
struct FarMemory {
  const char* data;
  int64_t bytes;
};

/// While it lives, library calls of its thread that compute much and read little (matrix products) fetch
/// these into their cores' second-level caches. The memory need not be there: nothing is loaded.
class Meanwhile {
 public:
  /// Bytes from one use of memory to the next after which it has left near caches.
  static constexpr int64_t kFar = 2 << 20;
  /// What a thread fetches at most: as much as a second-level cache holds.
  static constexpr int64_t kMostBytes = 1 << 20;

  explicit Meanwhile(std::span<const FarMemory> memory) { memory_ = memory; }
  ~Meanwhile() { memory_ = {}; }
  Meanwhile(const Meanwhile&) = delete;
  Meanwhile& operator=(const Meanwhile&) = delete;

  static std::span<const FarMemory> memory() { return memory_; }

 private:
  static inline thread_local std::span<const FarMemory> memory_;
};

}  // namespace lohe::backend
