#pragma once

#include <cstdint>
#include <string>
#include <vector>

/// What a thread's work consists of, measured: the events behind `profiler.profile`. A thread that has a
/// session records in it; the mode word says so (dispatch::kProfiling), so that nobody else pays for it.
namespace lohe::profile {

struct Event {
  enum Kind : uint8_t {
    kOp,      ///< a call of a row of the op table
    kNode,    ///< a node of the backward pass
    kRange,   ///< record_function()
    kKernel,  ///< a generated kernel of recorded work
    kCall     ///< a library call of recorded work
  };
  std::string name;
  Kind kind = kOp;
  int32_t parent = -1;  ///< number of the event around it; -1: none
  int64_t begin = 0;    ///< nanoseconds of the steady clock
  int64_t end = 0;
  int64_t bytes = 0;                         ///< allocated in it, less freed; with `memory`
  std::vector<std::vector<int64_t>> shapes;  ///< of tensor arguments; with `shapes`
};

class Session {
 public:
  Session(bool shapes, bool memory) : shapes_(shapes), memory_(memory) {}

  bool shapes() const { return shapes_; }
  /// Begins an event inside the one that is open. @return its number
  int32_t open(std::string name, Event::Kind kind);
  /// Ends it, and whatever was left open inside it.
  void close(int32_t number);
  Event& event(int32_t number) { return events_[static_cast<size_t>(number)]; }
  /// All events in the order of their beginnings; what is open ends now.
  std::vector<Event> take();

 private:
  bool shapes_, memory_;
  int32_t innermost_ = -1;
  std::vector<Event> events_;
};

/// The calling thread's session, or null.
Session* current();
/// @return the one before
Session* set_current(Session* session);

/// One event, as long as the scope lives; nothing without a session.
class Scope {
 public:
  template <class Name>
  Scope(Session* session, Event::Kind kind, const Name& name) : session_(session) {
    if (session_ != nullptr) number_ = session_->open(std::string(name()), kind);
  }
  ~Scope() {
    if (session_ != nullptr) session_->close(number_);
  }
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;
  int32_t number() const { return number_; }

 private:
  Session* session_;
  int32_t number_ = -1;
};

}  // namespace lohe::profile
