#pragma once

#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "record/run.h"
#include "tensor/tensor_impl.h"

/// What a trace depends on besides the bytes that it reads, and who sees it: see record/replay.h.
namespace lohe::record {

/// What a trace depends on in one of its tensors, but for its bytes.
struct TensorFacts {
  explicit TensorFacts(TensorImpl& t);
  bool hold_for(TensorImpl& t) const;

  Dims sizes, strides;
  int64_t offset = 0, nbytes = 0;  ///< in elements; of the storage
  uint32_t flags = 0;
  Dtype dtype = Dtype::kUndefined;
};

/// Its `.grad`, or null.
TensorImpl* grad_of(const TensorImpl& t);

/// A write into one single number that is known. It is done at once, before the trace.
struct Aside {
  using Redo = void (*)(const ops::OpDef& op, Args args, TensorImpl& target);
  const ops::OpDef* op;
  std::vector<Arg> args;  ///< plain ones; of kind kTensor: the target
  TensorPtr target;
  Redo redo;
  bool same_as(const Aside& other) const;
};

/// A NumberRule of a record, with its numbers' places in the trace.
struct TraceNumbers {
  std::vector<TensorPtr> sources;
  std::vector<double> constants;
  std::vector<int32_t> numbers;
  NumberRule::Function function;
  size_t after = 0;  ///< writes aside that come before it
  bool same_as(const TraceNumbers& other) const;
};

/// Counters of the default stream of random numbers that a call takes, and where in the trace's numbers its
/// records have the seed; the offset stands behind it.
struct TraceDraw {
  int64_t seed, offset, counters;
  std::vector<int32_t> numbers;
  bool same_as(const TraceDraw& o) const { return counters == o.counters && numbers == o.numbers; }
};

/// What a trace depends on in the thread and the process.
struct Modes {
  static Modes now();
  bool operator==(const Modes&) const = default;

  uint32_t word = 0;
  Dtype default_dtype = kFloat32;
  uint64_t epoch = 0;  ///< of forget_replays()
};
/// Nothing that was observed so far is replayed any more.
void forget_replays();

/// The tensors that a call is given: their facts, and which of them are one, share memory, or count their
/// writes together. Holds in the modes of the thread that made it.
class Signature {
 public:
  explicit Signature(std::span<TensorImpl* const> arguments);
  bool holds_for(std::span<TensorImpl* const> arguments) const;

 private:
  struct Ties {
    uint32_t tensor, storage, version;  ///< the first argument with the same
    bool operator==(const Ties&) const = default;
  };
  static Ties ties(std::span<TensorImpl* const> arguments, size_t i);

  Modes modes_;
  std::vector<TensorFacts> facts_;
  std::vector<Ties> ties_;
};

/// Sees one call of a function on this thread, from start() to stop(), and the settling of its trace after
/// that.
class Observer final : public Watcher {
 public:
  /// @param arguments the tensors that the call is given
  explicit Observer(std::span<TensorImpl* const> arguments);
  ~Observer() override;
  /// From here to stop() this thread's ops are its.
  void start();
  void note(const char* what) override;
  void uses(TensorImpl& tensor) override;
  bool holds(const TensorImpl& tensor) const override { return watching_ && numbers_.contains(&tensor); }
  void replaces_gradient(TensorImpl& tensor) override;
  void allocates(const Storage& storage) override { allocated_.insert(&storage); }
  void differentiates(uint64_t sequence) override;
  void follows(const NumberRule& rule) override;
  void draws(int64_t seed, int64_t offset, int64_t counters) override;
  /// The call of an op.
  void calls(const ops::OpDef& op, Args args);
  /// A write that is not to be part of the trace. @return false for memory that the call made: it is
  bool write_aside(Aside aside);
  /// Its recorder has written down a program's run.
  void recorded(const compiler::TraceRecord& record);
  /// The function has returned.
  void stop();
  /// A recorder is about to carry out what it holds.
  void settled(const compiler::Trace& trace, const Storages& storages,
               const std::shared_ptr<const compiler::CompiledTrace>& program);

  /// Whether another thread had the work done before the call returned: nothing is known of it, nor of the
  /// next ones like it.
  bool disturbed() const { return disturbed_; }
  /// Why this call cannot be replayed; empty: nothing speaks against it so far.
  const std::string& reason() const { return reason_; }
  /// The first reason is kept.
  void refuse(std::string reason);

  Observer(const Observer&) = delete;
  Observer& operator=(const Observer&) = delete;

 private:
  friend class Replay;
  void note_draw(const ops::OpDef& op, Args args);
  struct Use {
    explicit Use(TensorImpl& t);
    /// Whether the tensor is as it was.
    bool holds() const;
    TensorPtr tensor;
    TensorFacts facts;  ///< as those below: before the call, or before its first use in the call
    const Storage* storage;
    uint32_t version;
    uint64_t generation;
    const TensorImpl* grad;
    std::optional<TensorFacts> grad_facts;
    bool grad_replaced = false;
  };

  std::atomic<bool> watching_{false};
  std::atomic<bool> early_{false};  ///< work was carried out before the end
  std::atomic<bool> disturbed_{false};
  std::thread::id thread_;  ///< that the call is on
  bool started_ = false;
  Watcher* outer_ = nullptr;
  Modes modes_ = Modes::now();
  size_t arguments_;
  std::unordered_set<const Storage*> allocated_;  ///< in the call
  uint64_t first_node_ = 0;                       ///< calls before it are not this call's
  std::vector<Aside> asides_;
  std::vector<TraceNumbers> rules_;
  int rule_age_ = -1;  ///< how many ops were called since the last rule; -1: it has its record
  std::vector<TraceDraw> draws_;
  int drawing_ = -1;       ///< the draw of the op that was called last, whose record is still to come
  std::vector<Use> uses_;  ///< the arguments, then other tensors in the order of their first use
  std::unordered_map<const TensorImpl*, size_t> numbers_;  ///< of the uses
  std::optional<compiler::Trace> trace_;                   ///< none: nothing was recorded
  Storages inputs_;                                        ///< of the trace; null: made in the call
  std::vector<const Storage*> storages_;                   ///< of the trace
  std::shared_ptr<const compiler::CompiledTrace> program_;
  std::string reason_;
};

}  // namespace lohe::record
