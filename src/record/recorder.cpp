#include "record/recorder.h"

#include <algorithm>
#include <optional>

#include "base/allocator.h"
#include "base/fork.h"
#include "base/hash.h"
#include "base/inline_vector.h"
#include "base/log.h"
#include "lohe/error.h"
#include "record/cache.h"
#include "record/deferred.h"
#include "record/locks.h"
#include "record/observer.h"
#include "record/run.h"
#include "record/settings.h"
#include "tensor/shape.h"

namespace lohe::record {

using compiler::Trace;
using compiler::TraceCall;
using compiler::TraceOperand;
using compiler::TraceRecord;

namespace {

/// So many records are done at once, wherever the program is: what they hold back stays bounded. So do the
/// bytes that they keep from being freed, see Settings::most_held.
constexpr size_t kMostRecords = 20'000;

/// One multiplication, where hash_combine() takes three that wait for each other: an operation adds a dozen
/// numbers. The sum is spread over the word when the record is finished.
constexpr uint64_t add_to_hash(uint64_t hash, uint64_t value) { return (hash + value) * 0x9E3779B97F4A7C15u; }
uint64_t hash_of(const compiler::Program& program) { return reinterpret_cast<uintptr_t>(&program); }

/// What the work of a failed trace would have written.
class Failed final : public PendingWork {
 public:
  Failed() : PendingWork(false) {}
  void settle() override {
    raise(
        ErrorKind::kRuntime,
        "this tensor was never computed: an operation that was recorded before it raised an error; run the program "
        "without compile() to see the error at its own line");
  }
};
Failed failed;

}  // namespace

/// All recorders, so that a fork finds none in the middle of a change. Work that a thread had recorded is
/// still there in a child that the thread did not reach, and is done there when its results are asked for:
/// that is why recorders do not lie in the memory of their threads, which a child uses again. They are handed
/// on, never freed: another thread may be about to settle one whose thread ends.
class Recorders {
 public:
  static Recorders& global() {
    static auto* recorders = new Recorders;  // threads may end after main()
    return *recorders;
  }
  Recorder* take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) {
      all_.push_back(new Recorder);
      all_.back()->mutex_.own();
      return all_.back();
    }
    Recorder* recorder = free_.back();
    free_.pop_back();
    const std::lock_guard its_lock(recorder->mutex_);
    recorder->mutex_.own();
    recorder->counts_ = {};
    recorder->site_ = 0;
    recorder->inexact_ = false;
    return recorder;
  }
  void give_back(Recorder* recorder) {
    try {
      recorder->settle();
    } catch (const std::exception& e) {
      log(LogLevel::kError, "recorded work failed while its thread ended: ", e.what());
    }
    const std::lock_guard lock(mutex_);
    free_.push_back(recorder);
  }

 private:
  Recorders() {
    at_fork([] { global().lock(); }, [] { global().unlock(); }, [] { global().unlock_in_child(); });
  }
  void lock() {
    mutex_.lock();
    for (Recorder* r : all_) r->mutex_.lock();
  }
  void unlock() {
    for (Recorder* r : all_) r->mutex_.unlock();
    mutex_.unlock();
  }
  void unlock_in_child() {
    for (Recorder* r : all_) r->mutex_.unlock_after_fork();
    mutex_.unlock();
  }

  std::mutex mutex_;
  std::vector<Recorder*> all_, free_;
};

thread_local Recorder* Recorder::mine __attribute__((tls_model("initial-exec"))) = nullptr;

Recorder& Recorder::first_of_this_thread() {
  struct Own {
    Recorder* recorder = Recorders::global().take();
    ~Own() {
      mine = nullptr;
      Recorders::global().give_back(std::exchange(recorder, nullptr));
    }
  };
  static thread_local Own own;
  // What other destructors record while the thread ends keeps its recorder.
  mine = own.recorder != nullptr ? own.recorder : Recorders::global().take();
  return *mine;
}

int32_t Recorder::new_number(Intrusive<Storage> storage, bool fresh) {
  const auto number = static_cast<int32_t>(storages_.size());
  const int64_t nbytes = storage->nbytes();
  if (!fresh) {
    held_ += nbytes;
    holds_much_ = held_ > settings().most_held;
  }
  trace_.storages.push_back({nbytes, fresh, false});
  // A plain sum, so that what is combined next does not wait for it.
  trace_.hash +=
      add_to_hash(static_cast<uint64_t>(number), static_cast<uint64_t>(nbytes) * 2 + (fresh ? 1 : 0));
  storage->pending_number = number + 1;  // 0: nobody's, or claimed and not used yet
  storage->pending.store(this, std::memory_order_release);
  storages_.push_back(std::move(storage));
  return number;
}

Intrusive<Storage> Recorder::promised(int64_t nbytes) {
  Intrusive<Storage> storage = Storage::promise(nbytes);
  storage->retain_unshared();
  new_number(Intrusive<Storage>::adopt(storage.get()), true);
  return storage;
}

Intrusive<Storage> Recorder::promise(int64_t nbytes) {
  if (nbytes == 0) return Storage::allocate(0);
  const Section section(mutex_);
  return promised(nbytes);
}

// What an operation costs when it is recorded is instructions: these are inline wherever they are called.

[[gnu::always_inline]] inline int32_t Recorder::number_of(const Intrusive<Storage>& storage, bool fresh) {
  if (storage->pending.load(std::memory_order_relaxed) == this && storage->pending_number > 0)
    return storage->pending_number - 1;
  return new_number(Intrusive<Storage>(storage), fresh);
}

[[gnu::always_inline]] inline uint64_t Recorder::add_operand(uint64_t hash, int32_t storage, int64_t offset,
                                                             const Dims& strides) {
  TraceOperand& operand = trace_.operands.emplace_back();
  operand.storage = storage;
  operand.offset = offset;
  operand.strides = strides;
  // The operand's own first: it need not wait for those before it.
  auto own = add_to_hash(static_cast<uint64_t>(storage), static_cast<uint64_t>(offset));
  for (const int64_t s : strides) own = add_to_hash(own, static_cast<uint64_t>(s));
  return add_to_hash(hash, own);
}

[[gnu::always_inline]] inline uint64_t Recorder::add_operand(uint64_t hash, const TensorImpl& t) {
  return add_operand(hash, number_of(t.storage_ptr(), false), t.offset() * t.itemsize(), t.stride_dims());
}

[[gnu::always_inline]] inline TraceRecord& Recorder::new_record(size_t inputs, size_t outputs,
                                                                std::span<const Scalar> numbers) {
  TraceRecord& record = trace_.records.emplace_back();
  record.operand = static_cast<int32_t>(trace_.operands.size());
  record.inputs = static_cast<int32_t>(inputs);
  record.outputs = static_cast<int32_t>(outputs);
  record.scalar = static_cast<int32_t>(trace_.scalars.size());
  record.scalars = static_cast<int32_t>(numbers.size());
  for (const Scalar& s : numbers) trace_.scalars.push_back(s);
  return record;
}

[[gnu::always_inline]] inline TraceRecord& Recorder::new_dense_record(compiler::Program& program,
                                                                      const TensorImpl& like, size_t inputs,
                                                                      size_t outputs,
                                                                      std::span<const Scalar> numbers) {
  TraceRecord& record = new_record(inputs, outputs, numbers);
  record.program = &program;
  record.space.sizes = like.size_dims();
  record.space.groups.resize(record.space.sizes.size(), ir::kOuter);
  return record;
}

[[gnu::always_inline]] inline bool Recorder::finish_record(const TraceRecord& record, uint64_t hash) {
  for (const int64_t s : record.space.sizes) hash = add_to_hash(hash, static_cast<uint64_t>(s));
  trace_.hash = hash_combine(trace_.hash, hash);
  if (observer_ != nullptr && record.program != nullptr) observer_->recorded(record);
  ++counts_.records;
  return trace_.records.size() >= kMostRecords || holds_much_;
}

void Recorder::set_site(uint64_t site) {
  const Section section(mutex_);
  site_ = site;
}

void Recorder::change_inexact(bool inexact) {
  settle();
  const Section section(mutex_);
  inexact_ = inexact;
}

bool Recorder::write_aside(const ops::OpDef& op, Args args, TensorImpl& target,
                           void (*redo)(const ops::OpDef&, Args, TensorImpl&)) {
  const bool plain = std::all_of(args.begin(), args.end(), [&](const Arg& a) {
    return a.kind == Arg::kTensor
               ? a.tensor == &target
               : a.kind == Arg::kNone || a.kind == Arg::kBool || a.kind == Arg::kInt || a.kind == Arg::kFloat;
  });
  if (observer_ == nullptr || !plain || target.numel() != 1 ||
      target.storage().pending.load(std::memory_order_acquire) != nullptr)
    return false;
  return observer_->write_aside({&op, {args.begin(), args.end()}, TensorPtr(&target), redo});
}

void Recorder::set_observer(Observer* observer) {
  const Section section(mutex_);
  observer_ = observer;
}

bool Recorder::makes(const Storage& storage) {
  const Section section(mutex_);
  return storage.pending.load(std::memory_order_relaxed) == this && storage.pending_number > 0 &&
         trace_.storages[static_cast<size_t>(storage.pending_number - 1)].fresh;
}

Recorder::Counts Recorder::counts() {
  const Section section(mutex_);
  return counts_;
}

namespace {

Storage& storage_of(Storage* s) { return *s; }
Storage& storage_of(const TensorImpl* t) { return t->storage(); }
Storage& storage_of(const compiler::Place& p) { return p.tensor->storage(); }

}  // namespace

template <class Parts>
[[gnu::always_inline]] inline void Recorder::claim_in(Section& section, const Parts& parts) {
  // Most of them name this recorder already, or none. Inside the section they go on to: nobody can do its
  // work.
  const auto mine = [&](const auto& part) {
    std::atomic<PendingWork*>& pending = storage_of(part).pending;
    PendingWork* work = pending.load(std::memory_order_acquire);
    return work == this ||
           (work == nullptr && pending.compare_exchange_strong(work, this, std::memory_order_acq_rel));
  };
  while (!std::all_of(parts.begin(), parts.end(), mine)) [[unlikely]] {
    section.end();
    InlineVector<Storage*, 16> storages;
    for (const auto& part : parts) storages.push_back(&storage_of(part));
    claim(storages);
    section.begin();
  }
}

void Recorder::add(compiler::Program& program, const compiler::Space& space,
                   std::span<const compiler::Place> places, size_t inputs, std::span<const Scalar> numbers) {
  Section section(mutex_);
  claim_in(section, places);
  TraceRecord& record = new_record(inputs, places.size() - inputs, numbers);
  record.program = &program;
  record.space = space;
  uint64_t hash = hash_of(program);
  for (const compiler::Place& p : places) {
    const TensorImpl& t = *p.tensor;
    hash = add_operand(hash, number_of(t.storage_ptr(), false), t.offset() * t.itemsize(), p.strides);
  }
  const bool full = finish_record(record, hash);
  section.end();
  if (full) settle();
}

void Recorder::add_list(compiler::Program& program, size_t count, std::span<TensorImpl* const> tensors,
                        size_t inputs, std::span<const Scalar> numbers) {
  Section section(mutex_);
  claim_in(section, tensors);
  const size_t operands = tensors.size() / count, scalars = numbers.size() / count;
  bool full = false;
  for (size_t i = 0; i < count; ++i) {
    const auto own = tensors.subspan(i * operands, operands);
    const TraceRecord& record =
        new_dense_record(program, *own[0], inputs, operands - inputs, numbers.subspan(i * scalars, scalars));
    uint64_t hash = hash_of(program);
    for (const TensorImpl* t : own) hash = add_operand(hash, *t);
    full = finish_record(record, hash) || full;
  }
  section.end();
  if (full) settle();
}

Results Recorder::add_new(compiler::Program& program, std::span<TensorImpl* const> inputs,
                          std::span<const Dtype> outputs, const TensorImpl& like,
                          std::span<const Scalar> numbers) {
  Results results;
  Section section(mutex_);
  claim_in(section, inputs);
  // Memory that could be missing comes before the record.
  for (const Dtype dtype : outputs)
    results.push(TensorImpl::make_like(promised(like.numel() * itemsize(dtype)), dtype, like));
  const TraceRecord& record = new_dense_record(program, like, inputs.size(), outputs.size(), numbers);
  uint64_t hash = hash_of(program);
  for (const TensorImpl* t : inputs) hash = add_operand(hash, *t);
  for (int o = 0; o < results.size(); ++o) {
    const TensorImpl& t = *results[o];
    hash = add_operand(hash, t.storage().pending_number - 1, 0, t.stride_dims());
  }
  const bool full = finish_record(record, hash);
  section.end();
  if (full) settle();
  return results;
}

void Recorder::claim(std::span<Storage* const> storages) {
  try {
    for (Storage* s : storages) {
      PendingWork* work = nullptr;
      while (!s->pending.compare_exchange_strong(work, this, std::memory_order_acq_rel) && work != this) {
        work->hand_over(*s, *this);
        work = nullptr;
      }
    }
  } catch (...) {
    const auto lock = locked(mutex_);
    give_up(storages);
    throw;
  }
}

bool Recorder::has(std::span<Storage* const> storages) const {
  return std::all_of(storages.begin(), storages.end(),
                     [&](const Storage* s) { return s->pending.load(std::memory_order_acquire) == this; });
}

void Recorder::give_up(std::span<Storage* const> storages) {
  for (Storage* s : storages) {
    PendingWork* work = s->pending.load(std::memory_order_acquire);
    if (work == this && s->pending_number == 0)
      s->pending.compare_exchange_strong(work, nullptr, std::memory_order_acq_rel);
  }
}

void Recorder::hand_over(Storage& storage, PendingWork&) {
  settle();
  // What is claimed and not used yet is not waited for: after a fork its thread may be missing.
  Storage* const claimed[] = {&storage};
  const auto lock = locked(mutex_);
  give_up(claimed);
}

void Recorder::add_again(const Trace& from, uint64_t occurrence, const TraceRecord& record,
                         std::span<const Intrusive<Storage>> storages, std::span<const Scalar> numbers) {
  const auto known = repeated_numbers_.find({occurrence, record.scalar});
  const bool repeated = record.scalars > 0 && known != repeated_numbers_.end();
  const auto own = numbers.subspan(static_cast<size_t>(record.scalar), static_cast<size_t>(record.scalars));
  TraceRecord& again = new_record(static_cast<size_t>(record.inputs), static_cast<size_t>(record.outputs),
                                  repeated ? std::span<const Scalar>() : own);
  if (repeated) {
    again.scalar = known->second;
    again.scalars = record.scalars;
  } else if (record.scalars > 0) {
    repeated_numbers_[{occurrence, record.scalar}] = again.scalar;
  }
  again.program = record.program;
  again.space = record.space;
  const auto operands = from.operands_of(record);
  uint64_t hash = add_to_hash(hash_of(*record.program), static_cast<uint64_t>(again.scalar));
  for (size_t i = 0; i < operands.size(); ++i) {
    const int32_t number = number_of(storages[i], storages[i]->memory() == nullptr);
    hash = add_operand(hash, number, operands[i].offset, operands[i].strides);
  }
  finish_record(again, hash);
}

void Recorder::add_call(const ops::OpDef& op, Args args, const Results& results) {
  InlineVector<Storage*, 8> used;
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor && a.tensor != nullptr) used.push_back(&a.tensor->storage());
    if (a.kind != Arg::kTensors) continue;
    for (const TensorImpl* t : a.tensor_list()) {
      if (t != nullptr) used.push_back(&t->storage());
    }
  }
  Section section(mutex_);
  claim_in(section, used);
  TraceRecord& record = new_record(0, 0, {});
  record.call = static_cast<int32_t>(trace_.calls.size());
  TraceCall call = compiler::make_call(op, args);
  call.tensors.reserve(used.size());
  call.results.reserve(static_cast<size_t>(results.size()));
  auto hash = static_cast<uint64_t>(op.id);
  const auto add = [&](const TensorImpl* t, std::vector<TraceCall::Tensor>& list) {
    TraceCall::Tensor& d = list.emplace_back();
    if (t == nullptr) return;
    d.operand = static_cast<int32_t>(trace_.operands.size()) - record.operand;
    d.dtype = t->dtype();
    d.conj = t->conj();
    d.neg = t->neg();
    d.wrapped_number = t->wrapped_number;
    d.sizes = t->size_dims();
    hash = add_operand(hash, *t);
  };
  // What is read only stands before what is written.
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor) add(a.tensor, call.tensors);
    if (a.kind == Arg::kTensors) {
      for (const TensorImpl* t : a.tensor_list()) add(t, call.tensors);
    }
  }
  record.inputs = static_cast<int32_t>(trace_.operands.size()) - record.operand;
  for (int o = 0; o < results.size(); ++o) add(results[o].get(), call.results);
  record.outputs = static_cast<int32_t>(trace_.operands.size()) - record.operand - record.inputs;
  trace_.calls.push_back(std::move(call));
  const bool full = finish_record(record, hash);
  section.end();
  if (full) settle();
}

void Recorder::note_saved(const Intrusive<TensorImpl>& t) {
  const Section section(mutex_);
  saved_.push_back(t);
}

void Recorder::note_kept() {
  std::vector<Intrusive<TensorImpl>> saved;  // let go without the lock: Python objects may hang on them
  const auto lock = locked(mutex_);
  saved.swap(saved_);
  std::sort(saved.begin(), saved.end(), [](const auto& a, const auto& b) { return a.get() < b.get(); });
  saved.erase(std::unique(saved.begin(), saved.end()), saved.end());
  // Of each storage: tensors that nobody holds but this list, and, with it, the tape.
  std::vector<std::pair<uint32_t, uint32_t>> counts(saved.empty() ? 0 : storages_.size());
  for (const Intrusive<TensorImpl>& t : saved) {
    const Storage& storage = t->storage();
    if (storage.pending.load(std::memory_order_acquire) != this || storage.pending_number == 0) continue;
    auto& [dead, kept] = counts[static_cast<size_t>(storage.pending_number - 1)];
    const uint32_t saves = t->saves.load(std::memory_order_relaxed);
    if (t.use_count() == saves + 1) ++(saves == 0 ? dead : kept);
  }
  for (size_t s = 0; s < counts.size(); ++s) {
    const auto [dead, kept] = counts[s];
    trace_.storages[s].kept = kept > 0 && storages_[s].use_count() == 1 + dead + kept;
  }
}

void Recorder::settle() {
  if (runner_.load() == std::this_thread::get_id()) return;
  // Another thread's work is not what this one's watcher asks about.
  std::optional<Unwatched> others;
  if (this != mine) others.emplace();
  note_kept();
  const WithoutInterpreter working;
  const ForkSection section;
  const std::lock_guard lock(mutex_);
  run();
}

void Recorder::run() {
  if (storages_.empty()) return;
  Trace trace = std::move(trace_);
  std::vector<Intrusive<Storage>> storages = std::move(storages_);
  trace_.clear();
  storages_.clear();
  repeated_numbers_.clear();
  held_ = 0;
  holds_much_ = false;
  for (size_t i = 0; i < storages.size(); ++i) trace.storages[i].observed = storages[i]->use_count() > 1;
  trace.inexact = inexact_;
  if (inexact_) trace.hash = hash_combine(trace.hash, 1);
  runner_ = std::this_thread::get_id();
  // Whoever settles may be in any mode; the work was checked and taped when it was recorded.
  const uint32_t mode = dispatch::mode_word;
  dispatch::mode_word = dispatch::kNoGrad;
  ++counts_.traces;
  const auto leave = [&](auto&& next_of) {
    dispatch::mode_word = mode;
    runner_ = std::thread::id();
    for (size_t s = 0; s < storages.size(); ++s) {
      if (!storages[s] || storages[s]->pending.load(std::memory_order_relaxed) != this) continue;
      storages[s]->pending_number = 0;
      storages[s]->pending.store(next_of(s), std::memory_order_release);
    }
  };
  const std::shared_ptr<KnownTrace> known = TraceCache::global().meet(trace, site_);
  std::vector<bool> done(trace.records.size());
  std::shared_ptr<const compiler::CompiledTrace> program;
  try {
    // The first time unfused: a trace that never comes again costs no compiling.
    auto made = TraceCache::Made::kNot;
    if (known->met >= settings().compile_at || known->kind->varies())
      program = TraceCache::global().program(*known, trace, &made);
    counts_.compilations += made == TraceCache::Made::kCompiled ? 1 : 0;
    counts_.instances += made == TraceCache::Made::kForSizes ? 1 : 0;
    ++(program ? counts_.compiled : counts_.unfused);
    if (observer_ != nullptr) observer_->settled(trace, storages, program);
    if (program)
      run_compiled(*program, trace, trace.scalars, storages, done);
    else
      run_unfused(trace, storages, done);
  } catch (...) {
    const auto failed_at = static_cast<size_t>(std::find(done.begin(), done.end(), false) - done.begin());
    if (failed_at < trace.records.size())
      log(LogLevel::kInfo, "recorded work raised an error at ",
          compiler::name_of(trace, trace.records[failed_at]));
    // Work that was not reached leaves old values as they are; what it would have made first may not be read.
    std::vector<bool> made(storages.size()), lost(storages.size());
    for (size_t r = 0; r < trace.records.size(); ++r) {
      for (const TraceOperand& o : trace.outputs(trace.records[r])) {
        const auto s = static_cast<size_t>(o.storage);
        if (done[r])
          made[s] = true;
        else
          lost[s] = !made[s] && trace.storages[s].fresh;
      }
    }
    if (program) {
      for (const compiler::Recipe& r : program->recipes) lost[static_cast<size_t>(r.storage)] = true;
    }
    for (size_t s = 0; s < storages.size(); ++s) {
      if (!storages[s] || lost[s]) continue;
      try {
        storages[s]->provide();  // torch.empty(): nothing was to be written
      } catch (const std::exception&) {
        lost[s] = true;
      }
    }
    leave([&](size_t s) -> PendingWork* { return lost[s] ? &failed : nullptr; });
    throw;
  }
  if (program && !program->recipes.empty()) Deferred::put_off(program, known->trace, trace.scalars, storages);
  leave([](size_t) -> PendingWork* { return nullptr; });
  // The next trace is as long, most of the time: it gets the memory of this one.
  trace.clear();
  storages.clear();
  trace_ = std::move(trace);
  storages_ = std::move(storages);
}

namespace {

/// Looks at the tensors of a call that is about to be recorded.
class Looked {
 public:
  Looked() : mine_(Recorder::of_this_thread()) {
    mine_.set_inexact((dispatch::mode_word & dispatch::kInexact) != 0);
  }
  void at(const TensorImpl& t) {
    Storage& storage = t.storage();
    any_ = true;
    fits_ = fits_ && !storage.exposed() && !t.extension;
    PendingWork* work = storage.pending.load(std::memory_order_acquire);
    numbers_ = numbers_ && work == nullptr && t.numel() == 1;
    if (work != nullptr && work != &mine_) [[unlikely]]
      take_over(storage);
  }
  void unfit() { fits_ = false; }
  Recorder* recorder() const {
    // Single numbers that are known (an optimizer's count of steps) are as quickly computed as written down,
    // and the program may ask for them. What is to be replayed must be written down.
    return fits_ && !(any_ && numbers_ && !mine_.observed()) ? &mine_ : nullptr;
  }

 private:
  /// Another thread's work comes first.
  [[gnu::noinline]] void take_over(Storage& storage) {
    for (;;) {
      PendingWork* work = storage.pending.load(std::memory_order_acquire);
      if (work == nullptr || work == &mine_) return;
      work->hand_over(storage, mine_);
    }
  }

  Recorder& mine_;
  bool fits_ = true, numbers_ = true, any_ = false;
};

}  // namespace

Recorder* recorder_of(Args args) {
  Looked looked;
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor) looked.at(*a.tensor);
    if (a.kind == Arg::kTensors) {
      for (const TensorImpl* t : a.tensor_list()) {
        if (t != nullptr) looked.at(*t);
      }
    }
    if (a.kind == Arg::kGenerator) looked.unfit();
  }
  return looked.recorder();
}

Recorder* recorder_of(std::span<TensorImpl* const> tensors) {
  Looked looked;
  for (const TensorImpl* t : tensors) looked.at(*t);
  return looked.recorder();
}

Scope::Scope(uint64_t site, bool exact) : outer_((dispatch::mode_word & dispatch::kRecording) == 0) {
  if (!outer_) return;
  Recorder::of_this_thread().set_site(site);
  before_ = dispatch::mode_word & dispatch::kInexact;
  dispatch::mode_word &= ~dispatch::kInexact;
  dispatch::mode_word |= dispatch::kRecording | (exact ? 0u : dispatch::kInexact);
}

void Scope::end() {
  if (!open_) return;
  open_ = false;
  if (!outer_) return;
  dispatch::mode_word &= ~(dispatch::kRecording | dispatch::kInexact);
  dispatch::mode_word |= before_;
  Recorder::of_this_thread().settle();
}

Scope::~Scope() {
  try {
    end();
  } catch (const std::exception& e) {
    log(LogLevel::kWarning, "recorded work failed after another error: ", e.what());
  }
}

}  // namespace lohe::record
