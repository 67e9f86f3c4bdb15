#include "base/owned_mutex.h"

#include <linux/membarrier.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>

#include "lohe/error.h"

namespace lohe {
namespace {

long membarrier(int command) { return ::syscall(SYS_membarrier, command, 0, 0); }

/// When it returns, every other thread of the process has passed a full barrier.
void barrier_of_all_threads() {
  if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0) return;
  // A process registers once, which can take as long as a tick of the scheduler: not before it is needed.
  LOHE_INTERNAL_ASSERT(errno == EPERM && membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED) == 0 &&
                           membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED) == 0,
                       "membarrier failed with error ", errno, " though the system offers it");
}

}  // namespace

bool OwnedMutex::has_barrier() {
  static const bool has = [] {
    constexpr long kNeeded = MEMBARRIER_CMD_PRIVATE_EXPEDITED | MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;
    const long offered = membarrier(MEMBARRIER_CMD_QUERY);
    return offered > 0 && (offered & kNeeded) == kNeeded;
  }();
  return has;
}

void OwnedMutex::wait_for_owner() {
  wanted_.store(true, std::memory_order_relaxed);
  barrier_of_all_threads();
  while (inside_.load(std::memory_order_acquire)) std::this_thread::yield();
}

}  // namespace lohe
