#pragma once

#include <memory>
#include <mutex>
#include <unordered_map>

#include "compile/compiled.h"

namespace lohe::record {

/// What is known of one kind of trace.
struct KnownTrace {
  compile::Trace trace;
  /// For different sets of observed storages.
  std::vector<std::shared_ptr<const compile::CompiledTrace>> programs;
  bool faulty = false;  ///< the compiler failed on it: it stays unfused
  uint64_t used = 0;
  int64_t met = 0;  ///< how often
};

/// Traces met in this process. Safe from many threads.
class TraceCache {
 public:
  static TraceCache& global();
  /// What is known of traces equal to this one, which counts as met.
  std::shared_ptr<KnownTrace> meet(const compile::Trace& trace);
  /// A program for `trace`, made if there is none; null where the compiler cannot make one. @param made set if so
  std::shared_ptr<const compile::CompiledTrace> program(KnownTrace& known, const compile::Trace& trace, bool* made);
  void clear();
  /// All that are known, the one used last first.
  std::vector<std::shared_ptr<KnownTrace>> known();

 private:
  std::mutex mutex_, compiler_;
  std::unordered_multimap<uint64_t, std::shared_ptr<KnownTrace>> traces_;
  uint64_t clock_ = 0;
};

}  // namespace lohe::record
