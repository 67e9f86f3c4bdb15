#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "compile/trace.h"
#include "ops/call.h"
#include "record/locks.h"

/// Recording: inside a Scope, ops are checked and their results described at once, but the work on memory is
/// written down. It is done, all of it and in order, when anybody asks a storage that it concerns for its
/// bytes, when the trace has grown to its limit, or when the scope ends.
namespace lohe::record {

class Observer;

/// One thread's trace. Other threads may settle it; its own thread alone adds to it.
class Recorder final : public PendingWork {
 public:
  static Recorder& of_this_thread() { return mine != nullptr ? *mine : first_of_this_thread(); }

  void settle() override;
  void hand_over(Storage& storage, PendingWork& taker) override;
  void note_saved(const Intrusive<TensorImpl>& t) override;

  /// Memory for a result of recorded work.
  Intrusive<Storage> promise(int64_t nbytes);
  /// A program; `places` has its inputs first, then its outputs.
  void add(compiler::Program& program, const compiler::Space& space, std::span<const compiler::Place> places,
           size_t inputs, std::span<const Scalar> numbers);
  /// add() for each of `count` sets of row-major tensors of one size, which stand one behind the other, and
  /// so do their numbers.
  void add_list(compiler::Program& program, size_t count, std::span<TensorImpl* const> tensors, size_t inputs,
                std::span<const Scalar> numbers);
  /// The usual pointwise call: row-major inputs of `like`'s sizes, and results like them, which it gives.
  Results add_new(compiler::Program& program, std::span<TensorImpl* const> inputs,
                  std::span<const Dtype> outputs, const TensorImpl& like, std::span<const Scalar> numbers);
  /// Makes this the work that the storages name, before they become part of the trace; what other recorders
  /// have on them is done first. Until they do, another recorder may claim them: under the lock has() tells.
  /// @throws what that work raises; nothing is claimed then.
  void claim(std::span<Storage* const> storages);
  bool has(std::span<Storage* const> storages) const;
  /// Those that did not become part of the trace. Needs the lock.
  void give_up(std::span<Storage* const> storages);
  /// For add_again(). Taken before any lock of what is handed over, inside a fork section, by a thread that
  /// does not hold the interpreter.
  [[nodiscard]] std::unique_lock<OwnedMutex> lock() { return std::unique_lock(mutex_); }
  /// A program's record of an earlier trace, for these storages; those without memory are results. A number
  /// of the earlier trace becomes one number of this one, however many records use it. Needs lock().
  /// @param occurrence tells runs of one trace apart: `numbers` are those of this one
  void add_again(const compiler::Trace& from, uint64_t occurrence, const compiler::TraceRecord& record,
                 std::span<const Intrusive<Storage>> storages, std::span<const Scalar> numbers);
  /// A primitive; its results are promised.
  void add_call(const ops::OpDef& op, Args args, const Results& results);

  /// Whose work is recorded from here on, for reports.
  void set_site(uint64_t site);
  /// For what this thread records next. A trace is exact or not as a whole: work of the other kind is done
  /// first.
  void set_inexact(bool inexact) {
    if (inexact != inexact_) change_inexact(inexact);
  }
  bool inexact() const { return inexact_; }

  /// Who sees what this thread records (null: nobody).
  void set_observer(Observer* observer);
  bool observed() const { return observer_ != nullptr; }
  /// Whether this call, which writes `target` in place, is to be done at once, for its observer knows how to
  /// do it again: it changes one known number by plain ones.
  bool write_aside(const ops::OpDef& op, Args args, TensorImpl& target,
                   void (*redo)(const ops::OpDef&, Args, TensorImpl&));
  /// Whether the trace so far makes this storage.
  bool makes(const Storage& storage);

  /// How often a trace was carried out, by how.
  struct Counts {
    int64_t traces = 0, records = 0, unfused = 0, compiled = 0, compilations = 0;
    int64_t instances = 0;  ///< programs made for other sizes of what was compiled before
  };
  Counts counts();

 private:
  /// Inside the section, the storages of these (tensors, places or storages) are this recorder's from here
  /// on.
  /// @throws as claim(); the section has ended then.
  template <class Parts>
  void claim_in(Section& section, const Parts& parts);
  Recorder() : PendingWork(true) {}
  static Recorder& first_of_this_thread();
  static thread_local Recorder* mine __attribute__((tls_model("initial-exec")));
  int32_t number_of(const Intrusive<Storage>& storage, bool fresh);
  int32_t new_number(Intrusive<Storage> storage, bool fresh);
  /// A new storage, which is in the trace.
  Intrusive<Storage> promised(int64_t nbytes);
  /// Gives the hash of the record so far.
  uint64_t add_operand(uint64_t hash, int32_t storage, int64_t offset, const Dims& strides);
  uint64_t add_operand(uint64_t hash, const TensorImpl& t);
  /// A record without program and operands, which come next; then finish_record(), which tells whether the
  /// trace has grown to its limit.
  compiler::TraceRecord& new_record(size_t inputs, size_t outputs, std::span<const Scalar> numbers);
  bool finish_record(const compiler::TraceRecord& record, uint64_t hash);
  /// The record of a program over row-major tensors of `like`'s sizes.
  compiler::TraceRecord& new_dense_record(compiler::Program& program, const TensorImpl& like, size_t inputs,
                                          size_t outputs, std::span<const Scalar> numbers);
  /// Finds the storages that only the tape holds.
  void note_kept();
  void change_inexact(bool inexact);
  void run();
  friend class Recorders;

  /// Of everything below; taken inside a fork section by whoever carries the trace out. Its own thread is the
  /// owner.
  OwnedMutex mutex_;
  compiler::Trace trace_;
  std::vector<Intrusive<Storage>> storages_;  ///< by number in the trace
  std::vector<Intrusive<TensorImpl>> saved_;  ///< that the tape keeps
  int64_t held_ = 0;                          ///< bytes of storages that were there before the trace
  bool holds_much_ = false;                   ///< more than may be held
  std::atomic<std::thread::id> runner_{};     ///< the thread that is in run()
  Counts counts_;
  uint64_t site_ = 0;
  /// Where numbers that came by add_again() lie: by occurrence, and place in the earlier trace.
  std::map<std::pair<uint64_t, int32_t>, int32_t> repeated_numbers_;
  bool inexact_ = false;  ///< what the trace is; written by its own thread alone, under the lock
  Observer* observer_ = nullptr;
};

/// This thread's recorder while it records and every tensor of the call can be part of a trace; else null.
Recorder* recorder_of(Args args);
Recorder* recorder_of(std::span<TensorImpl* const> tensors);
/// @param what a call's arguments, or its tensors where no other argument matters
template <class What>
Recorder* recorder_for(const What& what) {
  return (dispatch::mode_word & dispatch::kRecording) == 0 ? nullptr : recorder_of(what);
}

/// Records until it ends, then settles. Scopes nest: the outermost one settles, and says whether what is
/// recorded may round differently.
class Scope {
 public:
  explicit Scope(uint64_t site = 0, bool exact = true);
  /// Settles what an exception left.
  ~Scope();
  /// @throws what the recorded work raises.
  void end();
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

 private:
  bool open_ = true, outer_;
  uint32_t before_ = 0;  ///< dispatch::kInexact, where that held outside
};

}  // namespace lohe::record
