#pragma once

#include "dispatch/transform.h"

namespace lohe::dispatch {

/// What random rows do under vmap.
enum class Randomness : uint8_t { kError, kSame, kDifferent };

/// Vectorization: a call on batched tensors becomes one call, on tensors with one dim more, where a rule for
/// the row is known, and one call for each example else.
class Vmap final : public Interceptor {
 public:
  Vmap(int64_t batch, Randomness randomness)
      : level_(new_transform_level()), batch_(batch), randomness_(randomness) {}
  uint64_t level() const { return level_; }
  int64_t batch() const { return batch_; }
  bool wants(const ops::OpDef& op, Args args) override;
  bool records(const ops::OpDef& op) const override;
  /// @throws RuntimeError for rows whose result shape or control flow depends on data, for writes of batched
  /// values into unbatched tensors, for random rows under Randomness::kError and for out=.
  Results call(const ops::OpDef& op, Args args, Form form, std::span<TensorImpl* const> out) override;

 private:
  TensorPtr value(TensorImpl* t) const;  ///< with the batch dim first; unbatched tensors as they are
  bool is_batched(const TensorImpl* t) const { return batched_of(t, level_) != nullptr; }
  TensorPtr with_batch(TensorImpl* t) const;               ///< value, expanded where unbatched
  TensorPtr with_rank(TensorImpl* t, int64_t rank) const;  ///< value, with dims of one behind the batch dim
  Results wrapped(Results results) const;
  void check_written(const ops::OpDef& op, Args args, Form form) const;
  /// Makes an unbatched tensor that nobody else sees a batched one, into which `model` (may be null) can be
  /// written.
  void adopt(TensorImpl& t, const TensorPtr& model) const;

  Results random(const ops::OpDef& op, Args args, Form form);
  Results dropout(Args args, Form form);
  Results factory(const ops::OpDef& op, Args args);
  bool pointwise_fits(Args args) const;
  Results pointwise(const ops::OpDef& op, Args args, Form form);
  bool view(const ops::OpDef& op, Args args, Form form, Results& results);
  bool along_dim(const ops::OpDef& op, Args args, Results& results);
  bool product(const ops::OpDef& op, Args args, Results& results);
  Results each(const ops::OpDef& op, Args args, Form form);

  uint64_t level_;
  int64_t batch_;
  Randomness randomness_;
};

}  // namespace lohe::dispatch
