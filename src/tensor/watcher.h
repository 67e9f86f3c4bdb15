#pragma once

#include <atomic>
#include <cstdint>
#include <span>

/// Who is told of what a thread does that a trace of its ops does not hold (src/record/observer.h).
namespace lohe {

class Storage;
class TensorImpl;

/// Numbers of a call that follow from single numbers in tensors: an optimizer's rates from its count of
/// steps.
struct NumberRule {
  using Function = void (*)(std::span<const double> constants, std::span<TensorImpl* const> sources,
                            std::span<double> numbers);
  std::span<TensorImpl* const> sources;
  std::span<const double> constants;
  std::span<const int> numbers;  ///< which ones, among the call's numbers
  Function function;
};

class Watcher {
 public:
  virtual ~Watcher() = default;
  /// Something happened besides ops: `what`, a part of a sentence that lives as long as the process.
  virtual void note(const char* what) = 0;
  /// The tensor takes part in something.
  virtual void uses(TensorImpl& tensor) = 0;
  /// Whether it holds one reference to the tensor, which nobody else is to see.
  virtual bool holds(const TensorImpl& tensor) const = 0;
  /// The tensor is about to get another gradient, or none.
  virtual void replaces_gradient(TensorImpl& tensor) = 0;
  /// New memory, whose bytes do not count.
  virtual void allocates(const Storage& storage) = 0;
  /// A backward pass runs the node of the process's `sequence`-th call.
  virtual void differentiates(uint64_t sequence) = 0;
  /// The next op that is called has these numbers.
  virtual void follows(const NumberRule& rule) = 0;
  /// A call takes `counters` counters of the default stream of random numbers. Ops whose arguments `seed` and
  /// `offset` are these draw from there.
  virtual void draws(int64_t seed, int64_t offset, int64_t counters) = 0;
};

/// This thread's watcher from now on (null: none); gives the one before.
Watcher* set_watcher(Watcher* watcher);
Watcher* watcher_of_this_thread();
extern std::atomic<int> watchers;  ///< how many threads have one: what everybody else reads

/// This thread's watcher, quickly null.
inline Watcher* current_watcher() {
  return watchers.load(std::memory_order_relaxed) == 0 ? nullptr : watcher_of_this_thread();
}
inline void tell_watcher(const char* what) {
  if (Watcher* watcher = current_watcher()) [[unlikely]]
    watcher->note(what);
}

/// What is done in its life is known to the watcher otherwise.
class Unwatched {
 public:
  Unwatched() : watcher_(current_watcher() != nullptr ? set_watcher(nullptr) : nullptr) {}
  ~Unwatched() {
    if (watcher_ != nullptr) set_watcher(watcher_);
  }
  Unwatched(const Unwatched&) = delete;
  Unwatched& operator=(const Unwatched&) = delete;

 private:
  Watcher* watcher_;
};

}  // namespace lohe
