#pragma once

#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
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
const TensorImpl* grad_of(const TensorImpl& t);

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
  /// The call of an op.
  void calls(Args args);
  /// The function has returned.
  void stop();
  /// A recorder is about to carry out what it holds.
  void settled(const compiler::Trace& trace, const Storages& storages,
               const std::shared_ptr<const compiler::CompiledTrace>& program);

  /// Why this call cannot be replayed; empty: nothing speaks against it so far.
  const std::string& reason() const { return reason_; }
  /// The first reason is kept.
  void refuse(std::string reason);

  Observer(const Observer&) = delete;
  Observer& operator=(const Observer&) = delete;

 private:
  friend class Replay;
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
  };

  std::atomic<bool> watching_{false};
  std::atomic<bool> early_{false};  ///< work was carried out before the end, by any thread
  bool started_ = false;
  Watcher* outer_ = nullptr;
  Modes modes_ = Modes::now();
  size_t arguments_;
  std::vector<Use> uses_;  ///< the arguments, then other tensors in the order of their first use
  std::unordered_map<const TensorImpl*, size_t> numbers_;  ///< of the uses
  std::optional<compiler::Trace> trace_;                   ///< none: nothing was recorded
  Storages inputs_;                                        ///< of the trace; null: fresh
  std::vector<const Storage*> storages_;                   ///< of the trace
  std::shared_ptr<const compiler::CompiledTrace> program_;
  std::string reason_;
};

}  // namespace lohe::record
