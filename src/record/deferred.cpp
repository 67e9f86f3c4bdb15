#include "record/deferred.h"

#include <algorithm>
#include <map>
#include <set>

#include "base/fork.h"
#include "record/locks.h"
#include "record/recorder.h"
#include "record/run.h"

namespace lohe::record {

using compiler::Recipe;
using compiler::Trace;
using compiler::TraceOperand;
using compiler::TraceRecord;

/// They are handed on, never freed: another thread may be about to settle one that is done.
class AllDeferred {
 public:
  static AllDeferred& global() {
    static auto* all = new AllDeferred;  // threads may end after main()
    return *all;
  }
  Deferred* take() {
    const std::lock_guard lock(mutex_);
    if (free_.empty()) {
      all_.push_back(new Deferred);
      return all_.back();
    }
    Deferred* d = free_.back();
    free_.pop_back();
    return d;
  }
  void give_back(Deferred* d) {
    const std::lock_guard lock(mutex_);
    free_.push_back(d);
  }
  static void settle_readers(Storage& storage) {
    std::vector<Deferred*> all;
    {
      const ForkSection section;
      const std::lock_guard lock(global().mutex_);
      all = global().all_;
    }
    for (Deferred* d : all) {
      if (d->reads(storage)) d->settle();
    }
  }

 private:
  AllDeferred() { Storage::settle_readers = settle_readers; }
  std::mutex mutex_;
  std::vector<Deferred*> all_, free_;
};

void Deferred::put_off(const std::shared_ptr<const compiler::CompiledTrace>& program,
                       const std::shared_ptr<const Trace>& trace, const std::vector<Scalar>& scalars,
                       const std::vector<Intrusive<Storage>>& storages) {
  Deferred* d = AllDeferred::global().take();
  const std::lock_guard lock(d->mutex_);
  d->program_ = program;
  d->trace_ = trace;
  d->scalars_ = scalars;
  static std::atomic<uint64_t> occurrences{0};
  d->occurrence_ = ++occurrences;
  std::set<int32_t> leaves;
  for (const Recipe& r : program->recipes) {
    Storage* storage = storages[static_cast<size_t>(r.storage)].get();
    d->waiting_.push_back(storage);
    storage->pending_number = static_cast<int32_t>(d->left_++);
    storage->pending.store(d, std::memory_order_release);
    std::set<int32_t> made;
    for (const int32_t record : r.records) {
      for (const TraceOperand& o : trace->outputs(trace->records[static_cast<size_t>(record)]))
        made.insert(o.storage);
    }
    for (const int32_t record : r.records) {
      for (const TraceOperand& o : trace->inputs(trace->records[static_cast<size_t>(record)])) {
        if (!made.contains(o.storage)) leaves.insert(o.storage);
      }
    }
  }
  for (const int32_t l : leaves) {
    const Intrusive<Storage>& storage = storages[static_cast<size_t>(l)];
    storage->readers.fetch_add(1);
    d->leaves_.emplace_back(l, storage);
  }
}

bool Deferred::reads(const Storage& storage) {
  const ForkSection section;
  const std::lock_guard lock(mutex_);
  return std::any_of(leaves_.begin(), leaves_.end(),
                     [&](const auto& l) { return l.second.get() == &storage; });
}

bool Deferred::rounds_as(const Recorder& recorder) {
  const ForkSection section;
  const std::lock_guard lock(mutex_);
  return trace_ == nullptr || trace_->inexact == recorder.inexact();
}

const Intrusive<Storage>* Deferred::leaf(int32_t number) const {
  for (const auto& [n, storage] : leaves_) {
    if (n == number) return &storage;
  }
  return nullptr;
}

void Deferred::release_if_done() {
  if (left_ > 0) return;
  for (const auto& [number, storage] : leaves_) storage->readers.fetch_sub(1);
  leaves_.clear();
  waiting_.clear();
  scalars_.clear();
  program_ = nullptr;
  trace_ = nullptr;
  AllDeferred::global().give_back(this);
}

void Deferred::settle() {
  const WithoutInterpreter working;
  const ForkSection section;
  Storages storages;  // let go without the lock: the last holder of one may have gone meanwhile
  const std::lock_guard lock(mutex_);
  if (left_ == 0) return;
  Trace work;
  std::map<int32_t, int32_t> numbers;
  std::set<int32_t> records;
  const auto add = [&](Intrusive<Storage> storage, bool fresh, bool observed) {
    work.storages.push_back({storage->nbytes(), fresh, observed});
    storages.push_back(std::move(storage));
    return static_cast<int32_t>(storages.size()) - 1;
  };
  for (const auto& [number, storage] : leaves_) numbers[number] = add(storage, false, true);
  std::vector<Storage*> made;
  for (size_t i = 0; i < waiting_.size(); ++i) {
    if (waiting_[i] == nullptr) continue;
    const Recipe& r = program_->recipes[i];
    records.insert(r.records.begin(), r.records.end());
    // One that is dying meanwhile waits in forget(); nobody needs its bytes.
    if (!waiting_[i]->try_retain()) continue;
    numbers[r.storage] = add(Intrusive<Storage>::adopt(waiting_[i]), true, true);
    made.push_back(waiting_[i]);
  }
  work.scalars = scalars_;
  for (const int32_t number : records) {
    TraceRecord r = trace_->records[static_cast<size_t>(number)];
    const auto operands = trace_->operands_of(r);
    r.operand = static_cast<int32_t>(work.operands.size());
    for (TraceOperand o : operands) {
      auto known = numbers.find(o.storage);
      if (known == numbers.end()) {
        const int64_t bytes = trace_->storages[static_cast<size_t>(o.storage)].nbytes;
        known = numbers.emplace(o.storage, add(Storage::promise(bytes), true, false)).first;
      }
      o.storage = known->second;
      work.operands.push_back(std::move(o));
    }
    work.records.push_back(std::move(r));
  }
  std::vector<bool> done(work.records.size());
  run_unfused(work, storages, done);
  for (Storage* s : made) {
    s->pending_number = 0;
    s->pending.store(nullptr, std::memory_order_release);
  }
  left_ = 0;
  release_if_done();
}

void Deferred::hand_over(Storage& storage, PendingWork& taker) {
  auto& recorder = static_cast<Recorder&>(taker);
  // Exact values are computed exactly, and the other way round.
  if (!rounds_as(recorder)) return settle();
  std::vector<Intrusive<Storage>> sources;
  std::vector<Storage*> claimed;
  {
    const ForkSection section;
    const std::lock_guard lock(mutex_);
    if (storage.pending.load(std::memory_order_acquire) != this) return;
    for (const int32_t record : program_->recipes[static_cast<size_t>(storage.pending_number)].records) {
      for (const TraceOperand& o : trace_->operands_of(trace_->records[static_cast<size_t>(record)])) {
        if (const Intrusive<Storage>* there = leaf(o.storage); there != nullptr) sources.push_back(*there);
      }
    }
  }
  for (const Intrusive<Storage>& s : sources) claimed.push_back(s.get());
  do recorder.claim(claimed);
  while (!add_to(recorder, storage, claimed));
}

bool Deferred::add_to(Recorder& recorder, Storage& storage, std::span<Storage* const> claimed) {
  const WithoutInterpreter waiting;
  const ForkSection section;
  const auto recording = recorder.lock();
  if (!recorder.has(claimed)) return false;
  const std::lock_guard lock(mutex_);
  if (storage.pending.load(std::memory_order_acquire) != this) {
    recorder.give_up(claimed);
    return true;
  }
  const auto number = static_cast<size_t>(storage.pending_number);
  const Recipe& recipe = program_->recipes[number];
  std::map<int32_t, Intrusive<Storage>> known;
  known.emplace(recipe.storage, Intrusive<Storage>(&storage));
  std::vector<Intrusive<Storage>> operands;
  for (const int32_t record : recipe.records) {
    const TraceRecord& r = trace_->records[static_cast<size_t>(record)];
    operands.clear();
    for (const TraceOperand& o : trace_->operands_of(r)) {
      if (const Intrusive<Storage>* there = leaf(o.storage); there != nullptr && !known.contains(o.storage)) {
        operands.push_back(*there);
        continue;
      }
      // What else the recipe makes on the way is made for it alone.
      Intrusive<Storage>& made = known[o.storage];
      if (!made) made = Storage::promise(trace_->storages[static_cast<size_t>(o.storage)].nbytes);
      operands.push_back(made);
    }
    recorder.add_again(*trace_, occurrence_, r, operands, scalars_);
  }
  waiting_[number] = nullptr;
  --left_;
  release_if_done();
  return true;
}

void Deferred::forget(Storage& storage) {
  const ForkSection section;
  const std::lock_guard lock(mutex_);
  if (storage.pending.load(std::memory_order_acquire) != this) return;
  const auto number = static_cast<size_t>(storage.pending_number);
  if (number >= waiting_.size() || waiting_[number] != &storage) return;
  waiting_[number] = nullptr;
  --left_;
  release_if_done();
}

}  // namespace lohe::record
