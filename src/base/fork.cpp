#include "base/fork.h"

#include <pthread.h>

#include <mutex>
#include <vector>

namespace lohe {
namespace {

struct ForkHandler {
  void (*prepare)();
  void (*parent)();
  void (*child)();
};

std::vector<ForkHandler>& fork_handlers() {
  static auto& handlers = *new std::vector<ForkHandler>;
  return handlers;
}
std::mutex& fork_mutex() {
  static auto& mutex = *new std::mutex;
  return mutex;
}

/// Held shared by sections and alone by a fork, which goes first: threads that enter sections all the time
/// would keep it waiting.
pthread_rwlock_t sections;

void make_sections() {
  pthread_rwlockattr_t attributes;
  ::pthread_rwlockattr_init(&attributes);
  ::pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
  ::pthread_rwlock_init(&sections, &attributes);
  ::pthread_rwlockattr_destroy(&attributes);
}

/// Sections that the thread is inside of; only the outermost takes the lock.
thread_local int depth = 0;

void before_fork() {
  // A thread that forks inside a section would wait for itself; its child knows what it interrupted.
  if (depth == 0) ::pthread_rwlock_wrlock(&sections);
  fork_mutex().lock();
  auto& handlers = fork_handlers();
  for (auto handler = handlers.rbegin(); handler != handlers.rend(); ++handler) {
    if (handler->prepare) handler->prepare();
  }
}

void after_fork_in_parent() {
  for (const ForkHandler& handler : fork_handlers()) {
    if (handler.parent) handler.parent();
  }
  fork_mutex().unlock();
  if (depth == 0) ::pthread_rwlock_unlock(&sections);
}

void after_fork_in_child() {
  for (const ForkHandler& handler : fork_handlers()) {
    if (handler.child) handler.child();
  }
  fork_mutex().unlock();
  // Threads of the parent that waited to enter a section are counted in the lock and never leave: it is made
  // anew.
  if (depth == 0) {
    ::pthread_rwlock_unlock(&sections);
    make_sections();
  }
}

void watch_forks() {
  [[maybe_unused]] static const int registered =
      (make_sections(), ::pthread_atfork(before_fork, after_fork_in_parent, after_fork_in_child));
}

}  // namespace

void at_fork(void (*prepare)(), void (*parent)(), void (*child)()) {
  watch_forks();
  const std::lock_guard lock(fork_mutex());
  fork_handlers().push_back({prepare, parent, child});
}

ForkSection::ForkSection() {
  if (depth++ != 0) return;
  watch_forks();
  ::pthread_rwlock_rdlock(&sections);
}

ForkSection::~ForkSection() {
  if (--depth == 0) ::pthread_rwlock_unlock(&sections);
}

}  // namespace lohe
