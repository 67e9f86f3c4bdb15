#pragma once

#include <atomic>
#include <cstdint>

namespace lohe::record {

/// How traces are carried out, for the whole process. They begin as the environment says.
struct Settings {
  std::atomic<int64_t> compile_at;  ///< occurrence of a trace from which on it runs as a program
  std::atomic<bool> fuse, plan_memory;
  std::atomic<bool> strict;  ///< a fault of the compiler raises
  /// Bytes that a trace must leave out of what the tape keeps for it to compute them again in backward.
  std::atomic<int64_t> recompute_from;
  /// Bytes of tensors from before a trace that it may hold back; more are settled at once. Half of the
  /// machine's memory.
  std::atomic<int64_t> most_held;
};
Settings& settings();

}  // namespace lohe::record
