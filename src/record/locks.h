#pragma once

#include <mutex>

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
inline std::unique_lock<std::mutex> locked(std::mutex& mutex) {
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

}  // namespace lohe::record
