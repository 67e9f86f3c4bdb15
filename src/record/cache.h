#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "compile/compiled.h"

namespace lohe::record {

/// What is known of one kind of trace.
struct KnownTrace {
  compiler::Trace trace;
  uint64_t site = 0;                  ///< the compiled function that met it first
  uint64_t used = 0;                  ///< the cache's clock when it was met last; guarded by the cache
  std::atomic<int64_t> met{1};        ///< how often
  std::atomic<bool> compiled{false};  ///< there is a program

  std::mutex mutex;  ///< of what follows
  /// For different sets of observed storages.
  std::vector<std::shared_ptr<const compiler::CompiledTrace>> programs;
  std::string reason;   ///< why it was compiled
  bool faulty = false;  ///< the compiler failed on it: it stays unfused
};

/// Traces met in this process. Safe from many threads.
class TraceCache {
 public:
  static TraceCache& global();
  /// What is known of traces equal to this one, which counts as met.
  std::shared_ptr<KnownTrace> meet(const compiler::Trace& trace, uint64_t site);
  /// A program for `trace`, made if there is none; null where the compiler cannot make one. @param made set
  /// if so
  std::shared_ptr<const compiler::CompiledTrace> program(KnownTrace& known, const compiler::Trace& trace,
                                                         bool* made);
  void clear();
  /// All that are known, the one used last first.
  std::vector<std::shared_ptr<KnownTrace>> known();

 private:
  void make_room(size_t records);

  std::mutex mutex_;  ///< of everything below
  std::unordered_multimap<uint64_t, std::shared_ptr<KnownTrace>> traces_;
  size_t records_ = 0;  ///< of all traces
  uint64_t clock_ = 0;
};

}  // namespace lohe::record
