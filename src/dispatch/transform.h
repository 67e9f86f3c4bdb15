#pragma once

#include "dispatch/call.h"

/// What the function transforms (vmap, jvp) share: a tensor under a transform is a *wrapper*, a TensorImpl
/// with the shape that the transformed function sees, whose `extension` holds the tensors that it stands for.
/// Its history is its own: gradients inside the transform are recorded on wrappers, gradients outside of it
/// on what they hold.
namespace lohe::dispatch {

/// Stands for `value` with its first dim, the batch, hidden.
struct Batched final : TensorExtension {
  Batched(uint64_t l, TensorPtr v) : level(l), value(std::move(v)) {}
  uint64_t level;
  TensorPtr value;  ///< shape (batch, sizes of the wrapper...)
};

/// Stands for `primal` and a direction `tangent` of the same shape.
struct Dual final : TensorExtension {
  Dual(uint64_t l, TensorPtr p, TensorPtr t) : level(l), primal(std::move(p)), tangent(std::move(t)) {}
  uint64_t level;
  TensorPtr primal, tangent;
};

/// Of another transform on the stack no two are equal.
uint64_t new_transform_level();
/// Null where `t` is none of this level's.
Batched* batched_of(const TensorImpl* t, uint64_t level);
Dual* dual_of(const TensorImpl* t, uint64_t level);
TensorPtr wrap_batched(TensorPtr value, uint64_t level);
TensorPtr wrap_dual(TensorPtr primal, TensorPtr tangent, uint64_t level);

/// Whether reading memory through `t` would show one example of a batch only.
bool holds_batch(const TensorImpl& t);
/// Whether `t`, or a tensor that it stands for, needs a gradient.
bool needs_gradient_at_any_level(TensorImpl& t);
/// A buffer that a row or a gradient just made: nobody else sees it, so that it may become a wrapper in
/// place.
bool is_fresh_buffer(const TensorImpl& t);
/// `t`'s numbers in new memory, wrapped at all levels at which `model` is: `model` can be written into it.
/// @param sizes broadcast from those of `t`
TensorPtr buffer_for(const TensorPtr& model, const TensorPtr& t, std::span<const int64_t> sizes);
/// A view of `t` that needs a gradient: a leaf where `t` needs none.
TensorPtr tracked_alias(const TensorPtr& t);
/// History that leads to such leaves alone counts as none from now on: the transform that made them is over.
void release_leaf(const TensorPtr& leaf);
/// `t` without the history, at every level, that leads to nothing but `leaves`. With `all`: without any
/// history.
TensorPtr without_history(const TensorPtr& t, std::span<const TensorPtr> leaves, bool all);

/// Applies `f` to every tensor of the arguments (entries of lists too); what it gives is kept alive here.
class MappedArgs {
 public:
  template <class F>
  MappedArgs(Args args, F f) : args_(args.begin(), args.end()) {
    for (size_t i = 0; i < args_.size(); ++i) {
      if (args_[i].kind == Arg::kTensor) {
        args_[i] = keep(f(args_[i].tensor, i));
      } else if (args_[i].kind == Arg::kTensors) {
        std::vector<TensorImpl*> list;
        for (TensorImpl* t : args_[i].tensor_list())
          list.push_back(t == nullptr ? nullptr : keep(f(t, i)).tensor);
        lists_.push_back(std::make_unique<std::vector<TensorImpl*>>(std::move(list)));
        args_[i] = Arg(std::span<TensorImpl* const>(*lists_.back()));
      }
    }
  }
  std::vector<Arg>& args() { return args_; }

 private:
  Arg keep(TensorPtr t) {
    owned_.push_back(std::move(t));
    return Arg(owned_.back());
  }
  std::vector<Arg> args_;
  std::vector<TensorPtr> owned_;
  std::vector<std::unique_ptr<std::vector<TensorImpl*>>> lists_;
};

}  // namespace lohe::dispatch
