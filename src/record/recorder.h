#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "compile/trace.h"
#include "ops/call.h"

/// Recording: inside a Scope, ops are checked and their results described at once, but the work on memory is
/// written down. It is done, all of it and in order, when anybody asks a storage that it concerns for its
/// bytes, when the trace has grown to its limit, or when the scope ends.
namespace lohe::record {

class Observer;

/// One thread's trace. Other threads may settle it; its own thread alone adds to it.
class Recorder final : public PendingWork {
 public:
  static Recorder& of_this_thread();

  void settle() override;
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
  /// The usual pointwise call: row-major inputs of one size, and results like them, which it gives.
  Results add_new(compiler::Program& program, std::span<TensorImpl* const> inputs,
                  std::span<const Dtype> outputs, std::span<const int64_t> sizes,
                  std::span<const Scalar> numbers);
  /// Makes this the work that the storages name, before they become part of the trace; what other recorders
  /// have on them is done first. @throws what that raises; nothing is claimed then.
  void claim(std::span<Storage* const> storages);
  /// Those that did not become part of the trace.
  void give_up(std::span<Storage* const> storages);
  /// For add_again(). Taken before any lock of what is handed over, inside a fork section, by a thread that
  /// does not hold the interpreter.
  [[nodiscard]] std::unique_lock<std::mutex> lock();
  /// A program's record of an earlier trace, for these storages; those without memory are results. Needs
  /// lock().
  void add_again(const compiler::Trace& from, const compiler::TraceRecord& record,
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
  /// The lock, with these storages claimed. @throws as claim().
  std::unique_lock<std::mutex> claimed(std::span<Storage* const> storages);
  Recorder() : PendingWork(true) {}
  int32_t number_of(const Intrusive<Storage>& storage, bool fresh) {
    if (storage->pending.load(std::memory_order_relaxed) == this && storage->pending_number > 0)
      return storage->pending_number - 1;
    return new_number(Intrusive<Storage>(storage), fresh);
  }
  int32_t new_number(Intrusive<Storage> storage, bool fresh);
  /// A new storage, which is in the trace.
  Intrusive<Storage> promised(int64_t nbytes);
  /// Each gives the hash of the record so far.
  uint64_t add_operand(uint64_t hash, const TensorImpl& t, std::span<const int64_t> strides) {
    return add_operand(hash, number_of(t.storage_ptr(), false), t.offset() * t.itemsize(), strides);
  }
  uint64_t add_operand(uint64_t hash, int32_t storage, int64_t offset, std::span<const int64_t> strides);
  /// A record without program and operands, which come next; then finish_record(), which tells whether the
  /// trace has grown to its limit.
  compiler::TraceRecord& new_record(size_t inputs, size_t outputs, std::span<const Scalar> numbers);
  bool finish_record(const compiler::TraceRecord& record, uint64_t hash);
  /// A program over row-major tensors of one size. @return see finish_record()
  bool add_dense(compiler::Program& program, std::span<TensorImpl* const> tensors, size_t inputs,
                 std::span<const Scalar> numbers);
  /// Finds the storages that only the tape holds.
  void note_kept();
  void change_inexact(bool inexact);
  void run();
  friend class Recorders;

  std::mutex mutex_;  ///< of everything below; taken inside a fork section by whoever carries the trace out
  compiler::Trace trace_;
  std::vector<Intrusive<Storage>> storages_;  ///< by number in the trace
  std::vector<Intrusive<TensorImpl>> saved_;  ///< that the tape keeps
  int64_t held_ = 0;                          ///< bytes of storages that were there before the trace
  std::atomic<std::thread::id> runner_{};     ///< the thread that is in run()
  Counts counts_;
  uint64_t site_ = 0;
  bool inexact_ = false;  ///< what the trace is; written by its own thread alone, under the lock
  Observer* observer_ = nullptr;
};

/// This thread's recorder while it records and every tensor of the call can be part of a trace; else null.
Recorder* recorder_of(Args args);
inline Recorder* recorder_for(Args args) {
  return (dispatch::mode_word & dispatch::kRecording) == 0 ? nullptr : recorder_of(args);
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
