#pragma once

#include <atomic>
#include <mutex>
#include <thread>

namespace lohe {

/// A mutex for what one thread, its owner, changes all the time in short sections and others seldom ask for.
/// The owner's section costs it two plain stores and a load, no locked instruction; whoever else locks it
/// makes all threads of the process pass a barrier (membarrier(2), microseconds) and then waits for the
/// section to end: the asymmetric form of Dekker's algorithm. Where the system has no such barrier, everybody
/// takes the mutex.
///
/// For others it is Lockable; so it is for its owner, who takes it for work that lasts, which others then
/// wait for asleep.
class OwnedMutex {
 public:
  /// @param asymmetric whether the owner may go without the mutex; see has_barrier()
  explicit OwnedMutex(bool asymmetric = has_barrier()) : asymmetric_(asymmetric) {}
  OwnedMutex(const OwnedMutex&) = delete;
  OwnedMutex& operator=(const OwnedMutex&) = delete;

  /// Makes the calling thread the owner. It holds the mutex, or nobody else knows it yet.
  void own() { owner_.store(std::this_thread::get_id(), std::memory_order_relaxed); }

  /// The owner begins a section; without success it must take the mutex, which another thread has or wants.
  /// It waits for nothing inside, and leaves soon.
  bool try_enter() noexcept {
    if (!asymmetric_) return false;
    inside_.store(true, std::memory_order_relaxed);
    // What this keeps the compiler from, the barrier of who sets `wanted_` keeps the processor from.
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (!wanted_.load(std::memory_order_acquire)) [[likely]]
      return true;
    leave();
    return false;
  }
  void leave() noexcept { inside_.store(false, std::memory_order_release); }

  void lock() {
    mutex_.lock();
    keep_owner_out();
  }
  bool try_lock() {
    if (!mutex_.try_lock()) return false;
    keep_owner_out();
    return true;
  }
  void unlock() {
    wanted_.store(false, std::memory_order_release);
    mutex_.unlock();
  }

  /// unlock() in the child of a fork by its holder: the owner, who is not there, may have been at the door.
  void unlock_after_fork() {
    inside_.store(false, std::memory_order_relaxed);
    unlock();
  }

  /// Whether this system has the barrier.
  static bool has_barrier();

 private:
  void keep_owner_out() {
    if (asymmetric_ && owner_.load(std::memory_order_relaxed) != std::this_thread::get_id()) wait_for_owner();
  }
  void wait_for_owner();

  std::mutex mutex_;
  std::atomic<bool> inside_{false};  ///< the owner is in a section without the mutex
  std::atomic<bool> wanted_{false};  ///< another thread holds the mutex; written by it alone
  const bool asymmetric_;
  std::atomic<std::thread::id> owner_{};
};

}  // namespace lohe
