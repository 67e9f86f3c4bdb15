#pragma once

namespace lohe {

/// Registers handlers that run around every fork() of the process, any of them may be null: `prepare` before
/// it, the last registered first; `parent` and `child` after it, the first registered first. A room that
/// keeps locks takes them in `prepare`; it registers after the rooms whose functions it calls with a lock
/// held. A child forked by the body of a region can only go on to exec or _exit.
void at_fork(void (*prepare)(), void (*parent)(), void (*child)());

/// A stretch of work that holds locks of objects too many to register, or changes what they guard. A fork
/// waits until no other thread is inside one, before it runs any `prepare`. Sections may nest, and may call
/// whatever registers with at_fork(); they do not wait for an interpreter's lock, which the forking thread
/// may hold.
class ForkSection {
 public:
  ForkSection();
  ~ForkSection();
  ForkSection(const ForkSection&) = delete;
  ForkSection& operator=(const ForkSection&) = delete;
};

}  // namespace lohe
