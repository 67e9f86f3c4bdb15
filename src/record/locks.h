#pragma once

#include <mutex>

#include "base/owned_mutex.h"
#include "tensor/tensor_impl.h"

namespace lohe::record {

/// Without the interpreter: whoever waits for a recorder's lock, or works under it, may be what another
/// thread that needs the interpreter waits for.
class WithoutInterpreter {
 public:
  WithoutInterpreter() : state_(python_hooks.leave != nullptr ? python_hooks.leave() : nullptr) {}
  ~WithoutInterpreter() {
    if (state_ != nullptr) python_hooks.enter(state_);
  }
  WithoutInterpreter(const WithoutInterpreter&) = delete;
  WithoutInterpreter& operator=(const WithoutInterpreter&) = delete;

 private:
  void* state_;
};

/// A lock is never held by a thread that waits for the interpreter: a thread that forks has the interpreter,
/// and takes all locks.
inline std::unique_lock<OwnedMutex> locked(OwnedMutex& mutex) {
  std::unique_lock lock(mutex, std::try_to_lock);
  while (!lock.owns_lock()) {
    {
      const WithoutInterpreter waiting;
      const std::lock_guard other(mutex);
    }
    lock.try_lock();
  }
  return lock;
}

/// The same for a short section of the owner's.
class Section {
 public:
  explicit Section(OwnedMutex& mutex) : mutex_(mutex) { begin(); }
  ~Section() {
    if (state_ != State::kOutside) end();
  }
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;

  void begin() {
    if (mutex_.try_enter()) [[likely]] {
      state_ = State::kEntered;
    } else {
      locked(mutex_).release();
      state_ = State::kLocked;
    }
  }
  void end() {
    if (state_ == State::kEntered) [[likely]]
      mutex_.leave();
    else
      mutex_.unlock();
    state_ = State::kOutside;
  }

 private:
  enum class State : uint8_t { kOutside, kEntered, kLocked };

  OwnedMutex& mutex_;
  State state_ = State::kOutside;
};

}  // namespace lohe::record
