#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "compile/compiled.h"

/// Values that the tape keeps, not computed: a program of the forward pass left them out, see
/// compiler::find_recipes(). Whoever asks for their bytes has them computed; a trace that reads them (that of
/// the backward pass) takes over the records that make them, and joins those with its own.
namespace lohe::record {

class Recorder;

class Deferred final : public PendingWork {
 public:
  /// Those of the recipes of `program` that somebody holds. @param storages of the trace, by number
  /// @param trace without its numbers, which are `scalars`
  static void put_off(const std::shared_ptr<const compiler::CompiledTrace>& program,
                      const std::shared_ptr<const compiler::Trace>& trace, const std::vector<Scalar>& scalars,
                      const std::vector<Intrusive<Storage>>& storages);

  void settle() override;
  void hand_over(Storage& storage, PendingWork& taker) override;
  void forget(Storage& storage) override;

 private:
  Deferred() : PendingWork(false) {}
  friend class AllDeferred;
  bool reads(const Storage& storage);
  /// Whether records of its trace may become part of one of `recorder`.
  bool rounds_as(const Recorder& recorder);
  /// The records that make `storage`, which read what is claimed, become part of the recorder's trace unless
  /// somebody else has taken them over. Whether the claims held.
  bool add_to(Recorder& recorder, Storage& storage, std::span<Storage* const> claimed);
  void release_if_done();
  const Intrusive<Storage>* leaf(int32_t number) const;

  std::mutex mutex_;  ///< of everything below
  std::shared_ptr<const compiler::CompiledTrace> program_;
  std::shared_ptr<const compiler::Trace> trace_;
  std::vector<Scalar> scalars_;
  uint64_t occurrence_ = 0;                                     ///< of the trace, unlike any other
  std::vector<Storage*> waiting_;                               ///< by recipe; null: done, taken over or dead
  size_t left_ = 0;                                             ///< of `waiting_`
  std::vector<std::pair<int32_t, Intrusive<Storage>>> leaves_;  ///< by number in the trace
};

}  // namespace lohe::record
