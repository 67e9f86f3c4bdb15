#pragma once

#include <memory>
#include <string>
#include <unordered_map>

#include "lohe/ivalue.h"

/// Gradients: modes, backward passes, functions with a gradient of their own.
namespace lohe {

/// Turns recording on or off for this thread until the guard ends.
class LOHE_API AutoGradMode {
 public:
  explicit AutoGradMode(bool enabled);
  ~AutoGradMode();
  AutoGradMode(const AutoGradMode&) = delete;
  AutoGradMode& operator=(const AutoGradMode&) = delete;

 private:
  uint32_t saved_;
};
struct NoGradGuard : AutoGradMode {
  NoGradGuard() : AutoGradMode(false) {}
};
struct EnableGradGuard : AutoGradMode {
  EnableGradGuard() : AutoGradMode(true) {}
};

/// Nothing is recorded, and tensors made inside can never be used in recorded work.
class LOHE_API InferenceMode {
 public:
  explicit InferenceMode(bool enabled = true);
  ~InferenceMode();
  InferenceMode(const InferenceMode&) = delete;
  InferenceMode& operator=(const InferenceMode&) = delete;

 private:
  uint32_t saved_;
};

struct LOHE_API GradMode {
  static bool is_enabled();
  static void set_enabled(bool enabled);
};

namespace autograd {

using Variable = Tensor;
using variable_list = std::vector<Tensor>;

/// Accumulates the gradients of `tensors` into the leaves that they depend on (or into `inputs` only).
/// @throws RuntimeError where a gradient is not given for a tensor of more than one element.
LOHE_API void backward(const variable_list& tensors, const variable_list& grad_tensors = {},
                       std::optional<bool> retain_graph = std::nullopt, bool create_graph = false,
                       const variable_list& inputs = {});

/// d outputs / d inputs, one tensor for each input; undefined for an unused one where `allow_unused`. Nothing
/// is accumulated.
LOHE_API variable_list grad(const variable_list& outputs, const variable_list& inputs,
                            const variable_list& grad_outputs = {},
                            std::optional<bool> retain_graph = std::nullopt, bool create_graph = false,
                            bool allow_unused = false);

/// What a Function's forward keeps for its backward.
class LOHE_API AutogradContext {
 public:
  std::unordered_map<std::string, IValue> saved_data;
  void save_for_backward(variable_list tensors) { saved_ = std::move(tensors); }
  /// @throws RuntimeError if one was written in place since.
  variable_list get_saved_variables() const;
  void mark_non_differentiable(const variable_list& outputs) { non_differentiable_ = outputs; }
  void mark_dirty(const variable_list& inputs) { dirty_ = inputs; }
  void set_materialize_grads(bool value) { materialize_grads_ = value; }
  bool needs_input_grad(size_t input) const { return input < needs_.size() && needs_[input]; }

 private:
  friend struct FunctionCall;
  variable_list saved_, non_differentiable_, dirty_;
  std::shared_ptr<struct SavedVariables> kept_;
  std::vector<bool> needs_;
  bool materialize_grads_ = true;
};

/// Runs a Function's forward without recording and appends its backward to the tape.
struct LOHE_API FunctionCall {
  using Forward = std::function<variable_list(AutogradContext*)>;
  using Backward = variable_list (*)(AutogradContext*, variable_list);
  /// `inputs`: one for each argument of forward, undefined for those that are not tensors.
  static variable_list run(const char* name, const variable_list& inputs, const Forward& forward,
                           Backward backward);
};

namespace detail {
inline Tensor tensor_or_none(const Tensor& t) { return t; }
template <class T>
Tensor tensor_or_none(const T&) {
  return {};
}
inline variable_list as_list(Tensor t) { return {std::move(t)}; }
inline variable_list as_list(variable_list list) { return list; }
}  // namespace detail

/// A step with a gradient of one's own:
///   struct Cube : autograd::Function<Cube> {
///     static Tensor forward(AutogradContext* ctx, Tensor x) { ctx->save_for_backward({x}); return x * x * x;
///     } static variable_list backward(AutogradContext* ctx, variable_list grads) { ... }
///   };
///   Tensor y = Cube::apply(x);
/// `backward` gives one gradient for each argument of `forward`, undefined for those that need none.
template <class T>
struct Function {
  template <class... Args>
  static auto apply(Args&&... args) {
    using Result = decltype(T::forward(std::declval<AutogradContext*>(), args...));
    variable_list results = FunctionCall::run(
        "CppFunction", {detail::tensor_or_none(args)...},
        [&](AutogradContext* ctx) { return detail::as_list(T::forward(ctx, args...)); }, &T::backward);
    if constexpr (std::is_same_v<Result, Tensor>) {
      return std::move(results[0]);
    } else {
      return results;
    }
  }
};

}  // namespace autograd
}  // namespace lohe
