#include "lohe/autograd.h"

#include <algorithm>

#include "autograd/tape.h"
#include "dispatch/public_call.h"

/// The tape behind the public names.
namespace lohe {

namespace autograd {
uint64_t new_sequence();
}

namespace {

std::vector<TensorPtr> to_internal_list(const std::vector<Tensor>& tensors) {
  std::vector<TensorPtr> list;
  for (const Tensor& t : tensors) list.push_back(to_internal(t));
  return list;
}
template <class List>
std::vector<Tensor> to_public_list(List tensors) {
  std::vector<Tensor> list;
  for (TensorPtr& t : tensors) list.push_back(to_public(std::move(t)));
  return list;
}
TensorImpl& checked(const Tensor& t, const char* what) { return *detail::required(t, what, "self").tensor; }

/// Lives as long as the tensor: what this file hangs on one.
struct ApiMeta {
  TensorImpl* tensor;
  std::vector<std::shared_ptr<std::function<Tensor(Tensor)>>> hooks;
};
std::shared_ptr<ApiMeta> api_meta(TensorImpl& t) {
  std::shared_ptr<void>& slot = autograd::meta_of(t).make_hooks().api;
  if (!slot) slot = std::make_shared<ApiMeta>(ApiMeta{&t, {}});
  return std::static_pointer_cast<ApiMeta>(slot);
}

}  // namespace

// --- modes

AutoGradMode::AutoGradMode(bool enabled) : saved_(dispatch::mode_word) { GradMode::set_enabled(enabled); }
AutoGradMode::~AutoGradMode() {
  dispatch::mode_word = (dispatch::mode_word & ~dispatch::kNoGrad) | (saved_ & dispatch::kNoGrad);
}
bool GradMode::is_enabled() { return dispatch::grad_enabled(); }
void GradMode::set_enabled(bool enabled) {
  dispatch::mode_word =
      enabled ? dispatch::mode_word & ~dispatch::kNoGrad : dispatch::mode_word | dispatch::kNoGrad;
}
InferenceMode::InferenceMode(bool enabled) : saved_(dispatch::mode_word) {
  dispatch::mode_word = enabled ? saved_ | dispatch::kInference : saved_ & ~dispatch::kInference;
}
InferenceMode::~InferenceMode() {
  dispatch::mode_word = (dispatch::mode_word & ~dispatch::kInference) | (saved_ & dispatch::kInference);
}

// --- what a tensor knows of its gradient

bool Tensor::requires_grad() const { return checked(*this, "requires_grad").requires_grad; }
Tensor& Tensor::set_requires_grad(bool value) {
  autograd::set_requires_grad(checked(*this, "set_requires_grad"), value);
  return *this;
}
const Tensor& Tensor::requires_grad_(bool value) const {
  autograd::set_requires_grad(checked(*this, "requires_grad_"), value);
  return *this;
}
const Tensor& Tensor::detach_() const {
  autograd::detach_in_place(checked(*this, "detach_"));
  return *this;
}
bool Tensor::is_leaf() const { return autograd::is_leaf(checked(*this, "is_leaf")); }
bool Tensor::retains_grad() const {
  const autograd::GradMeta* meta = autograd::meta_or_null(checked(*this, "retains_grad"));
  return meta != nullptr && meta->retains_grad;
}

void Tensor::retain_grad() const {
  TensorImpl& t = checked(*this, "retain_grad");
  LOHE_CHECK(t.requires_grad, "can't retain_grad on Tensor that has requires_grad=False");
  autograd::GradMeta& meta = autograd::meta_of(t);
  if (autograd::is_leaf(t) || meta.retains_grad) return;
  // The node may outlive the tensor, and may not keep what it made alive.
  autograd::grad_fn(to_internal(*this))
      ->make_hooks()
      .tensors.emplace_back(meta.output,
                            [weak = std::weak_ptr<ApiMeta>(api_meta(t))](const TensorPtr& g) -> TensorPtr {
                              if (const auto alive = weak.lock()) autograd::meta_of(*alive->tensor).grad = g;
                              return {};
                            });
  meta.retains_grad = true;
}

Tensor Tensor::grad() const {
  const autograd::GradMeta* meta = autograd::meta_or_null(checked(*this, "grad"));
  return meta == nullptr || !meta->grad ? Tensor() : to_public(meta->grad);
}

Tensor& Tensor::mutable_grad() {
  static_assert(sizeof(Tensor) == sizeof(TensorPtr));
  // Both are one owning pointer to the same counted object.
  static_assert(sizeof(Tensor) == sizeof(TensorPtr), "a Tensor is one counted pointer");
  void* slot = &autograd::meta_of(checked(*this, "mutable_grad")).grad;
  return *static_cast<Tensor*>(slot);
}

std::string Tensor::grad_fn_name() const {
  checked(*this, "grad_fn_name");
  const Intrusive<autograd::GradNode> node = autograd::grad_fn(to_internal(*this));
  return node ? node->name() : std::string();
}

void Tensor::backward(const Tensor& gradient, std::optional<bool> retain_graph, bool create_graph,
                      std::optional<std::vector<Tensor>> inputs) const {
  checked(*this, "backward");
  const TensorPtr root = to_internal(*this), cotangent = to_internal(gradient);
  autograd::run_backward({&root, 1}, {&cotangent, 1}, retain_graph.value_or(create_graph), create_graph,
                         inputs ? to_internal_list(*inputs) : std::vector<TensorPtr>(), true, true);
}

unsigned Tensor::register_hook(std::function<Tensor(Tensor)> hook) const {
  TensorImpl& t = checked(*this, "register_hook");
  LOHE_CHECK(t.requires_grad, "cannot register a hook on a tensor that doesn't require gradient");
  autograd::GradMeta& meta = autograd::meta_of(t);
  auto& hooks = api_meta(t)->hooks;
  hooks.push_back(std::make_shared<std::function<Tensor(Tensor)>>(std::move(hook)));
  // A removed hook stays in the node's list and does nothing.
  autograd::TensorHook run = [shared = hooks.back()](const TensorPtr& g) -> TensorPtr {
    return *shared ? to_internal((*shared)(to_public(g))) : TensorPtr();
  };
  const auto number = static_cast<unsigned>(hooks.size() - 1);
  if (autograd::is_leaf(t))
    meta.make_hooks().gradient.emplace_back(static_cast<int>(number), std::move(run));
  else
    autograd::grad_fn(to_internal(*this))->make_hooks().tensors.emplace_back(meta.output, std::move(run));
  return number;
}

void Tensor::remove_hook(unsigned number) const {
  auto& hooks = api_meta(checked(*this, "remove_hook"))->hooks;
  LOHE_CHECK_INDEX(number < hooks.size(), "remove_hook: there is no hook ", number, "; this tensor has had ",
                   hooks.size());
  *hooks[number] = nullptr;
}

// --- passes

namespace autograd {

void backward(const variable_list& tensors, const variable_list& grad_tensors,
              std::optional<bool> retain_graph, bool create_graph, const variable_list& inputs) {
  for (const Tensor& t : tensors) checked(t, "backward");
  run_backward(to_internal_list(tensors), to_internal_list(grad_tensors), retain_graph.value_or(create_graph),
               create_graph, to_internal_list(inputs), true, true);
}

variable_list grad(const variable_list& outputs, const variable_list& inputs,
                   const variable_list& grad_outputs, std::optional<bool> retain_graph, bool create_graph,
                   bool allow_unused) {
  for (const Tensor& t : outputs) checked(t, "grad");
  for (const Tensor& t : inputs) checked(t, "grad");
  return to_public_list(run_backward(to_internal_list(outputs), to_internal_list(grad_outputs),
                                     retain_graph.value_or(create_graph), create_graph,
                                     to_internal_list(inputs), allow_unused, false));
}

// --- functions with a gradient of their own

struct SavedVariables {
  std::vector<SavedTensor> tensors;
  GradNode* node = nullptr;
};

variable_list AutogradContext::get_saved_variables() const {
  if (!kept_) return saved_;
  variable_list list;
  for (const SavedTensor& t : kept_->tensors) list.push_back(to_public(t.unpack(kept_->node)));
  return list;
}

namespace {

class CppFunctionNode final : public GradNode {
 public:
  CppFunctionNode(const char* name, std::shared_ptr<AutogradContext> context, FunctionCall::Backward backward,
                  bool materialize)
      : name_(name), context_(std::move(context)), backward_(backward), materialize_(materialize) {}
  std::string name() const override { return name_; }

  GradList apply(GradList grads) override {
    LOHE_CHECK(
        context_, name_,
        ": Trying to backward through the graph a second time. Specify retain_graph=true if you need to.");
    static const ops::OpRef zeros("zeros");
    for (size_t i = 0; materialize_ && i < grads.size(); ++i) {
      if (!grads[i]) grads[i] = zeros(outputs[i].sizes, outputs[i].dtype);
    }
    variable_list given = backward_(context_.get(), to_public_list(std::move(grads)));
    LOHE_CHECK(given.size() >= next.size(), name_, ": backward gave ", given.size(), " gradients for ",
               next.size(), " arguments");
    for (size_t i = next.size(); i < given.size(); ++i) {
      LOHE_CHECK(!given[i].defined(), name_, ": backward gave a gradient for argument ", i,
                 ", which forward does not have");
    }
    GradList list;
    for (size_t i = 0; i < next.size(); ++i) list.push_back(to_internal(given[i]));
    return list;
  }

  void free_saved() override { context_.reset(); }

 private:
  std::string name_;
  std::shared_ptr<AutogradContext> context_;
  FunctionCall::Backward backward_;
  bool materialize_;
};

bool contains(const variable_list& list, const Tensor& t) {
  return std::any_of(list.begin(), list.end(), [&](const Tensor& o) { return o.is_same(t); });
}

}  // namespace

variable_list FunctionCall::run(const char* name, const variable_list& inputs, const Forward& forward,
                                Backward backward) {
  auto context = std::make_shared<AutogradContext>();
  bool wanted = false;
  decltype(GradNode::next) edges;
  for (const Tensor& t : inputs) {
    edges.push_back(t.defined() ? gradient_edge(to_internal(t)) : Edge{});
    context->needs_.push_back(t.defined() && t.requires_grad());
    wanted = wanted || context->needs_.back();
  }
  wanted = wanted && dispatch::grad_enabled();
  variable_list results;
  {
    const GradModeGuard no_grad(false);
    results = forward(context.get());
    for (Tensor& t : results) {
      // An input that is handed through keeps its own history: the result is another tensor of the same
      // memory.
      if (wanted && contains(inputs, t) && !contains(context->dirty_, t))
        t = to_public(ops::OpRef("alias")(to_internal(t)));
    }
  }
  for (const Tensor& t : context->dirty_) t.impl()->bump_version();
  if (!wanted) return results;
  auto node =
      Intrusive<GradNode>::adopt(new CppFunctionNode(name, context, backward, context->materialize_grads_));
  node->next = std::move(edges);
  node->sequence = new_sequence();
  for (const Tensor& t : results) {
    node->outputs.emplace_back(*t.impl());
  }
  for (size_t i = 0; i < results.size(); ++i) {
    TensorImpl& t = *results[i].impl();
    if (contains(context->non_differentiable_, results[i]) || !is_differentiable(t.dtype())) continue;
    if (contains(context->dirty_, results[i])) {
      rebase_history(to_internal(results[i]), node, static_cast<int>(i));
      continue;
    }
    t.view_base.reset();
    GradMeta& meta = meta_of(t);
    meta.grad_fn = node;
    meta.output = static_cast<int>(i);
    t.requires_grad = true;
  }
  context->kept_ = std::make_shared<SavedVariables>();
  context->kept_->node = node.get();
  for (const Tensor& t : context->saved_)
    context->kept_->tensors.emplace_back(to_internal(t), contains(results, t));
  context->saved_.clear();
  context->dirty_.clear();
  context->non_differentiable_.clear();
  return results;
}

}  // namespace autograd
}  // namespace lohe
