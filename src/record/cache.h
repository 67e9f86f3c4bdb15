#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>

#include "compile/compiled.h"

namespace lohe::record {

/// What traces that differ in sizes alone have in common: a function called with batches of any size. The
/// kernels take sizes as arguments; programs for further sizes join the same records, without looking for
/// what to join.
struct TraceKind {
  std::shared_ptr<const compiler::Trace> example;
  std::atomic<int> compiled{0};  ///< members with a program

  /// Whether sizes have changed so often that a program for the next ones is made at once.
  bool varies() const { return compiled.load(std::memory_order_relaxed) >= 2; }
  /// What was joined when these storages were observed; empty: nothing is known.
  compiler::Grouping grouping(const std::vector<bool>& observed, bool fuse);
  void note(const std::vector<bool>& observed, bool fuse, compiler::Grouping grouping);

 private:
  struct Known {
    std::vector<bool> observed;
    bool fuse;
    compiler::Grouping grouping;
  };
  std::mutex mutex_;
  std::vector<Known> groupings_;
};

/// What is known of one trace.
struct KnownTrace {
  std::shared_ptr<const compiler::Trace> trace;
  std::shared_ptr<TraceKind> kind;
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

/// The first difference of two traces, in words.
std::string difference(const compiler::Trace& a, const compiler::Trace& b);

/// Traces met in this process. Safe from many threads.
class TraceCache {
 public:
  static TraceCache& global();
  /// What is known of traces equal to this one, which counts as met.
  std::shared_ptr<KnownTrace> meet(const compiler::Trace& trace, uint64_t site);
  enum class Made { kNot, kForSizes, kCompiled };
  /// A program for `trace`, made if there is none; null where the compiler cannot make one. @param made set
  /// to how
  std::shared_ptr<const compiler::CompiledTrace> program(KnownTrace& known, const compiler::Trace& trace,
                                                         Made* made);
  void clear();
  /// All that are known, the one used last first.
  std::vector<std::shared_ptr<KnownTrace>> known();

 private:
  void make_room(size_t records);
  std::shared_ptr<TraceKind> kind_of(const std::shared_ptr<const compiler::Trace>& trace);

  std::mutex mutex_;  ///< of everything below
  std::unordered_multimap<uint64_t, std::shared_ptr<KnownTrace>> traces_;
  std::unordered_multimap<uint64_t, std::weak_ptr<TraceKind>> kinds_;  ///< by structure
  size_t records_ = 0;                                                 ///< of all traces
  uint64_t clock_ = 0;
};

}  // namespace lohe::record
