#include "profile/session.h"

#include <chrono>
#include <utility>

#include "base/allocator.h"

namespace lohe::profile {
namespace {

thread_local Session* own_session = nullptr;

int64_t now() {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Session* current() { return own_session; }
Session* set_current(Session* session) { return std::exchange(own_session, session); }

int32_t Session::open(std::string name, Event::Kind kind) {
  const auto number = static_cast<int32_t>(events_.size());
  Event& e = events_.emplace_back();
  e.name = std::move(name);
  e.kind = kind;
  e.parent = std::exchange(innermost_, number);
  if (memory_) e.bytes = -memory_stats().allocated_bytes;
  e.begin = now();
  return number;
}

void Session::close(int32_t number) {
  const int64_t end = now();
  const int64_t allocated = memory_ ? memory_stats().allocated_bytes : 0;
  // An exception may have passed events whose end nobody told; an event that has ended is not around us.
  int32_t at = innermost_;
  while (at >= 0 && at != number) at = event(at).parent;
  if (at != number) return;
  while (innermost_ >= 0) {
    Event& e = event(innermost_);
    const bool last = innermost_ == number;
    e.end = end;
    e.bytes += allocated;
    innermost_ = e.parent;
    if (last) break;
  }
}

std::vector<Event> Session::take() {
  while (innermost_ >= 0) close(innermost_);
  return std::exchange(events_, {});
}

}  // namespace lohe::profile
