#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "base/inline_vector.h"
#include "ops/call.h"

/// The tape: nodes made by calls, edges to the nodes of their inputs.
namespace lohe::autograd {

class GradNode;

/// Where a gradient goes: input `index` of `node`.
struct Edge {
  Intrusive<GradNode> node;
  int index = 0;
  explicit operator bool() const { return static_cast<bool>(node); }
};

using TensorHook = std::function<TensorPtr(const TensorPtr& grad)>;  ///< null result: unchanged

/// Gradients on their way through a node: one an output, or one an input; null where nothing flows.
using GradList = InlineVector<TensorPtr, 3>;

/// Shape and dtype that a gradient must have.
struct GradShape {
  Dtype dtype = Dtype::kUndefined;
  Dims sizes;
  GradShape() = default;
  explicit GradShape(const TensorImpl& t) : dtype(t.dtype()), sizes(t.size_dims()) {}
};

/// What users hang on a node.
struct NodeHooks {
  using Before = std::function<std::vector<TensorPtr>(const std::vector<TensorPtr>&)>;
  using After = std::function<std::vector<TensorPtr>(const std::vector<TensorPtr>& in,
                                                     const std::vector<TensorPtr>& out)>;
  std::vector<std::pair<int, TensorHook>> tensors;  ///< (output number, hook) on incoming gradients
  std::vector<Before> before;
  std::vector<After> after;
};

/// One step of backward: from gradients of a call's outputs to gradients of its inputs.
class GradNode : public RefCounted<GradNode> {
 public:
  virtual ~GradNode();
  static void destroy(GradNode* node) noexcept;  ///< without recursion, however long the chain
  virtual GradList apply(GradList grads) = 0;
  virtual std::string name() const = 0;
  /// Hooks of the tensor that this node stands for (leaves): they see the gradient before anybody takes it.
  virtual void run_tensor_hooks(GradList& grads) { (void)grads; }
  /// The leaf to whose `.grad` the node adds; null for others.
  virtual TensorImpl* leaf() const { return nullptr; }
  /// Frees what is saved; a second backward through the node raises.
  virtual void free_saved() {}
  NodeHooks& make_hooks() {
    if (!hooks) hooks = std::make_unique<NodeHooks>();
    return *hooks;
  }

  InlineVector<Edge, 3> next;  ///< one for each input that may need a gradient; empty edge: none
  InlineVector<GradShape, 1> outputs;
  uint64_t sequence = 0;             ///< later calls run first
  bool recorded = false;             ///< made while work was recorded: its backward is recorded too
  bool inexact = false;              ///< and may round differently, as it may
  std::unique_ptr<NodeHooks> hooks;  ///< null: none
  void* python_object = nullptr;
};

/// Where a view came from, as far as it decides whether the view may be written while gradients are recorded.
/// Views of tensors that need no gradient when the view is made are not told apart: their history is rebuilt
/// from the base.
enum class ViewOrigin : uint8_t {
  kOne,     ///< of a call that gives one view
  kMany,    ///< of a call that gives several (split, unbind): may not be written
  kNoGrad,  ///< made while recording was off, of a base with history: may not be written
};

/// What a tensor carries when it has, or wants, a gradient.
struct GradMeta final : AutogradMeta {
  /// Of few tensors.
  struct Hooks {
    std::vector<std::pair<int, TensorHook>> gradient;  ///< of a leaf
    std::vector<std::pair<int, std::function<void(TensorImpl*)>>> post_accumulate;
    std::shared_ptr<void> api;  ///< of the public C++ API, see dispatch/api/autograd.cpp
  };
  Hooks& make_hooks() {
    if (!hooks) hooks = std::make_unique<Hooks>();
    return *hooks;
  }

  TensorPtr grad;                   ///< of leaves, and of others after retain_grad()
  Intrusive<GradNode> grad_fn;      ///< of non-leaves; of a view: valid while view_generation is the base's
  GradNode* accumulator = nullptr;  ///< of leaves, made when first needed; not owned
  std::unique_ptr<Hooks> hooks;     ///< null: none
  int output = 0;                   ///< which output of grad_fn this tensor is
  uint32_t history = 0;             ///< of a base: writes through the group of its views
  uint32_t view_history = 0;        ///< of a view: the base's history when grad_fn was made
  ViewOrigin origin = ViewOrigin::kOne;
  bool retains_grad = false;
  bool transform_leaf = false;  ///< a leaf that a function transform made for itself and is done with
};
GradMeta& meta_of(TensorImpl& t);  ///< makes it if needed
GradMeta* meta_or_null(const TensorImpl& t);

/// For a node: later ones run first.
uint64_t new_sequence();
/// Edge to give to a node that uses `t`: empty if t needs no gradient.
Edge gradient_edge(const TensorPtr& t);
/// grad_fn as the user sees it; rebuilt for a view whose base was written through another view.
Intrusive<GradNode> grad_fn(const TensorPtr& t);
bool is_leaf(const TensorImpl& t);
/// Whether `t` needs a gradient now: a view does once its base was written with something that needs one.
bool requires_grad(TensorImpl& t);
void set_requires_grad(TensorImpl& t,
                       bool value);  ///< @throws RuntimeError for non-leaves and for integer dtypes
/// Makes `t` a leaf that needs no gradient. @throws RuntimeError for a view.
void detach_in_place(TensorImpl& t);

/// Called by the dispatcher after an op ran: appends a node if an input needs a gradient.
/// @param original what the written first argument was before, for a gradient that reads it; null otherwise.
void record(const ops::OpDef& op, Args args, Results& results, dispatch::Form form,
            const TensorPtr& original = {});
/// A copy of the first argument, which is about to be written, if the gradient will read it; else null.
TensorPtr original_for_gradient(const ops::OpDef& op, Args args);
/// Before an op with these arguments writes into `t` in place: does what was put off and reads it. @throws
/// RuntimeError for a leaf that requires grad, and so on.
void check_inplace(TensorImpl& t, Args args);
/// `t` shows from now on what `view`, a view of it, shows: it takes over the view's history.
void adopt_history(TensorImpl& t, TensorImpl& view);
/// For a view made while nothing is recorded: what its base's history was.
void note_unrecorded_view(TensorImpl& view);
/// Makes `node` the history of `t`, which an op just wrote in place (through a view: of its base too).
void rebase_history(const TensorPtr& t, Intrusive<GradNode> node, int output);

/// Backward pass from `roots`. With `inputs`: gives their gradients and accumulates nothing; else accumulates
/// into leaves. No recursion. @throws RuntimeError with PyTorch's texts.
std::vector<TensorPtr> run_backward(std::span<const TensorPtr> roots, std::span<const TensorPtr> gradients,
                                    bool retain_graph, bool create_graph, std::span<const TensorPtr> inputs,
                                    bool allow_unused, bool accumulate);

/// A value kept for backward, checked against in-place writes when it is used.
class SavedTensor {
 public:
  SavedTensor() = default;
  /// @param written_since the call that saves `t` has already written its memory: what is read must be the
  /// value before
  SavedTensor(const TensorPtr& t, bool is_output, bool written_since = false);
  SavedTensor(SavedTensor&& other) noexcept { *this = std::move(other); }
  SavedTensor& operator=(SavedTensor&& other) noexcept;
  ~SavedTensor() { reset(); }
  /// @throws RuntimeError if it was modified in place or already freed. `owner`: the node whose output it is.
  TensorPtr unpack(GradNode* owner) const;
  explicit operator bool() const { return static_cast<bool>(tensor_); }
  void reset();

 private:
  void note();

  TensorPtr tensor_;  ///< an output of the node is held detached, to keep no cycle
  uint32_t version_ = 0;
  int output_ = -1;
  bool is_output_ = false;
  bool counted_ = false;  ///< among the tensor's saves
};

class GradModeGuard {
 public:
  explicit GradModeGuard(bool enabled) : saved_(dispatch::mode_word) {
    dispatch::mode_word = enabled ? saved_ & ~dispatch::kNoGrad : saved_ | dispatch::kNoGrad;
  }
  ~GradModeGuard() { dispatch::mode_word = saved_; }

 private:
  uint32_t saved_;
};

}  // namespace lohe::autograd
