#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "record/observer.h"

/// Replay: the program of a function's trace is run again without running the function, as long as everything
/// that the trace depended on is as it was. An Observer sees a call of the function, a Replay is what it saw,
/// and two calls that give equal Replays are enough to run the second one's program from then on. What the
/// host's code does besides calling ops is not seen: it must be pure, which the user vouches for.
namespace lohe::record {

/// A call that can be done again. Immutable; any number of threads may run it at the same time.
class Replay {
 public:
  /// What the observer saw, given the tensors that the function returned; they must be held by nobody but the
  /// caller, once each. Null when the call cannot be replayed: the observer then has the reason.
  static std::shared_ptr<const Replay> make(Observer& observer, std::span<TensorImpl* const> results);

  /// Whether the tensors that the trace found by itself (parameters, closures) are as they were. The
  /// arguments' Signature is the caller's to check.
  bool fits(std::span<TensorImpl* const> arguments) const;
  /// Whether a tensor that the trace found by itself is held by nobody else any more.
  bool stale() const;
  /// Whether there is a program.
  bool ready() const { return program_ != nullptr || trace_.storages.empty(); }
  /// How the other call differs, in words; empty: not at all.
  std::string difference(const Replay& other) const;
  /// Does the work and gives new results. @throws what the work raises.
  std::vector<TensorPtr> run(std::span<TensorImpl* const> arguments) const;

 private:
  /// One reference for all replays, so that it shows whether anybody else has one.
  using Kept = std::shared_ptr<const TensorPtr>;
  /// What must hold of a tensor's `.grad` before the call.
  struct GradFact {
    bool fits(const TensorImpl& t) const;
    const TensorImpl* same = nullptr;   ///< it is this one
    bool replaced = false;              ///< the call gives another one, whatever it is; only counts:
    std::optional<TensorFacts> before;  ///< none: there is none
  };
  struct Implicit {
    Kept tensor;
    TensorFacts facts;
    const Storage* storage;
    GradFact grad;
  };
  /// Of a tensor that was there before: arguments come first.
  struct Write {
    uint32_t source = 0, versions = 0;
    uint64_t generations = 0;
    bool operator==(const Write&) const = default;
  };
  /// A source's `.grad` that the call replaces.
  struct GradWrite {
    int32_t source = 0, recipe = -1;  ///< -1: none any more
    bool operator==(const GradWrite&) const = default;
  };
  /// How a result, or a tensor that one is a view of, is made.
  struct Recipe {
    int32_t argument = -1;        ///< it is this argument; nothing else counts then
    int32_t base = -1;            ///< the recipe that it is a view of
    int32_t source_base = -1;     ///< the source that it is a view of
    int32_t source = -1;          ///< it lies in this source's memory
    int32_t storage = -1;         ///< or in this new one
    int32_t version_source = -1;  ///< it counts writes together with this source
    uint32_t version = 0;         ///< of new memory
    Dtype dtype = Dtype::kUndefined;
    bool conj = false, neg = false, inference = false, wrapped_number = false;
    int64_t offset = 0;
    Dims sizes, strides;
    bool operator==(const Recipe&) const = default;
  };
  class Maker;

  class Undo;
  /// Changes what is changed aside, and draws. @return the trace's numbers, with those that follow from these
  std::vector<Scalar> write_asides(std::span<TensorImpl* const> arguments, Undo& undo) const;
  /// Runs the program. @param storages of the trace
  void work(std::span<const Scalar> numbers, Storages& storages) const;
  TensorImpl& source(int32_t number, std::span<TensorImpl* const> arguments) const;
  static Kept keep(const TensorPtr& tensor);
  bool among_implicit(const Storage* storage) const;

  size_t arguments_ = 0;
  std::vector<Implicit> implicit_;
  std::vector<const Storage*> implicit_storages_;  ///< sorted
  std::vector<const Storage*> shared_;  ///< by argument: the implicit storage that it shares, or null
  std::vector<GradFact> grads_;         ///< of the arguments
  compiler::Trace trace_;
  std::shared_ptr<const compiler::CompiledTrace> program_;
  std::vector<int32_t> sources_;  ///< by storage of the trace; -1: fresh
  std::vector<bool> written_;     ///< by storage of the trace
  size_t empty_storages_ = 0;     ///< of results, after those of the trace
  std::vector<Write> writes_;
  std::vector<GradWrite> grad_writes_;
  std::vector<Aside> asides_;           ///< their targets are not held
  std::vector<int32_t> aside_targets_;  ///< sources
  std::vector<TraceNumbers> rules_;
  std::vector<std::vector<int32_t>> rule_sources_;
  std::vector<TraceDraw> draws_;
  std::vector<Recipe> recipes_;   ///< bases before their views
  std::vector<int32_t> results_;  ///< recipes
};

}  // namespace lohe::record
