#pragma once

#include "dispatch/transform.h"

namespace lohe::dispatch {

/// Forward-mode differentiation: calls on dual tensors give dual tensors. A view's tangent is the same view
/// of the tangent; the tangent of any other row comes from its gradient, which is linear in the cotangent u:
/// J t is the derivative of u -> J^T u in direction t (J. Townsend, "A new trick for calculating Jacobian
/// vector products", 2017). Every row with a gradient therefore has a tangent, to any order.
class Jvp final : public Interceptor {
 public:
  Jvp() : level_(new_transform_level()) {}
  uint64_t level() const { return level_; }
  bool wants(const ops::OpDef& op, Args args) override;
  bool records(const ops::OpDef&) const override { return true; }
  /// @throws NotImplementedError for rows without gradient that should have one, and for rows that write
  /// several tensors.
  Results call(const ops::OpDef& op, Args args, Form form, std::span<TensorImpl* const> out) override;

 private:
  TensorPtr primal(TensorImpl* t) const;
  Results view(const ops::OpDef& op, Args args, Form form);
  Results in_place(const ops::OpDef& op, Args args, Form form);
  /// Primal results and their tangents (null: none).
  std::pair<Results, std::vector<TensorPtr>> differentiate(const ops::OpDef& op, Args args);

  uint64_t level_;
};

}  // namespace lohe::dispatch
