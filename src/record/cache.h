#pragma once

#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "compile/compiled.h"

namespace lohe::record {

/// What is known of one kind of trace.
struct KnownTrace {
  compiler::Trace trace;
  /// For different sets of observed storages.
  std::vector<std::shared_ptr<const compiler::CompiledTrace>> programs;
  bool faulty = false;  ///< the compiler failed on it: it stays unfused
  uint64_t site = 0;    ///< the compiled function that met it first
  std::string reason;   ///< why it was compiled
  uint64_t used = 0;
  int64_t met = 0;  ///< how often
};

/// Traces met in this process. Safe from many threads.
class TraceCache {
 public:
  static TraceCache& global();
  /// What is known of traces equal to this one, which counts as met.
  std::shared_ptr<KnownTrace> meet(const compiler::Trace& trace, uint64_t site);
  /// A program for `trace`, made if there is none; null where the compiler cannot make one. @param made set
  /// if so
  std::shared_ptr<const compiler::CompiledTrace> program(const std::shared_ptr<KnownTrace>& known,
                                                         const compiler::Trace& trace, bool* made);
  void clear();
  /// All that are known, the one used last first.
  std::vector<std::shared_ptr<KnownTrace>> known();

 private:
  std::mutex mutex_, compiler_;
  std::unordered_multimap<uint64_t, std::shared_ptr<KnownTrace>> traces_;
  uint64_t clock_ = 0;
};

}  // namespace lohe::record
