#include "autograd/tape.h"

#include <limits>
#include <memory>
#include <mutex>
#include <thread>

#include "autograd/derive.h"
#include "base/fork.h"
#include "lohe/error.h"
#include "tensor/shape.h"

namespace lohe::autograd {

namespace {

using namespace ops;

/// Nodes that wait to be freed: chains are taken apart in a loop, never by recursion.
using NodeQueue = SmallVector<GradNode*, 32>;
thread_local NodeQueue* dying __attribute__((tls_model("initial-exec"))) = nullptr;

/// Guards GradMeta::accumulator against a node that dies meanwhile. Held for some instructions, twice for
/// each leaf of a graph: whoever meets it spins.
class SpinLock {
 public:
  void lock() {
    while (held_.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
  }
  void unlock() { held_.clear(std::memory_order_release); }

 private:
  std::atomic_flag held_;
};
SpinLock accumulators;
[[maybe_unused]] const bool forks_wait = [] {
  at_fork([] { accumulators.lock(); }, [] { accumulators.unlock(); }, [] { accumulators.unlock(); });
  return true;
}();

/// Gradients of one leaf are added by one thread at a time. Whoever waits does so without the interpreter,
/// which the thread that adds may be waiting for.
class AddingTo {
 public:
  explicit AddingTo(const TensorImpl* leaf)
      : mutex_(mutexes()[(reinterpret_cast<uintptr_t>(leaf) >> 6) % kCount]) {
    if (mutex_.try_lock()) return;
    void* state = python_hooks.leave != nullptr ? python_hooks.leave() : nullptr;
    mutex_.lock();
    if (state != nullptr) python_hooks.enter(state);
  }
  ~AddingTo() { mutex_.unlock(); }
  AddingTo(const AddingTo&) = delete;
  AddingTo& operator=(const AddingTo&) = delete;

 private:
  static constexpr size_t kCount = 64;
  /// A child starts with free ones: threads that held some are not there.
  static std::recursive_mutex* mutexes() {
    static std::recursive_mutex* const all = [] {
      at_fork(nullptr, nullptr, [] { std::uninitialized_default_construct_n(mutexes(), kCount); });
      return new std::recursive_mutex[kCount];
    }();
    return all;
  }
  std::recursive_mutex& mutex_;  ///< what adds may run a program's own code, which runs backward
};

constexpr const char* kHooks = "hooks of a gradient run";

/// Adds what reaches a leaf to its `.grad`.
class AccumulateGrad final : public GradNode {
 public:
  explicit AccumulateGrad(TensorPtr leaf) : leaf_(std::move(leaf)) {
    sequence = std::numeric_limits<uint64_t>::max();
    outputs.emplace_back(*leaf_);
  }
  ~AccumulateGrad() override {
    GradMeta* m = meta_or_null(*leaf_);
    if (m == nullptr) return;
    const std::lock_guard lock(accumulators);
    if (m->accumulator == this) m->accumulator = nullptr;
  }
  std::string name() const override { return "AccumulateGrad"; }
  TensorImpl* leaf() const override { return leaf_.get(); }

  void run_tensor_hooks(GradList& grads) override {
    const GradMeta& m = meta_of(*leaf_);
    if (!grads[0] || !m.hooks) return;
    if (!m.hooks->gradient.empty()) tell_watcher(kHooks);
    for (const auto& [id, hook] : m.hooks->gradient) {
      if (TensorPtr changed = hook(grads[0])) grads[0] = std::move(changed);
    }
  }

  GradList apply(GradList grads) override {
    TensorPtr g = std::move(grads[0]);
    if (!g) return {};
    GradMeta& m = meta_of(*leaf_);
    add_to(m, std::move(g));
    if (m.hooks && !m.hooks->post_accumulate.empty()) {
      tell_watcher(kHooks);
      for (const auto& [id, hook] : m.hooks->post_accumulate) hook(leaf_.get());
    }
    return {};
  }

 private:
  void add_to(GradMeta& m, TensorPtr g) {
    static const OpRef add("add"), clone("clone"), detach("detach");
    if (Watcher* watcher = current_watcher(); watcher != nullptr && (!m.grad || dispatch::grad_enabled()))
      watcher->replaces_gradient(*leaf_);
    const AddingTo turn(leaf_.get());
    if (!m.grad) {
      // The engine's own buffer becomes the gradient where nobody else holds it; else a copy does.
      if (dispatch::grad_enabled() && g->requires_grad)
        m.grad = clone(g);
      else
        m.grad = g.unique() && g->storage().holders() == 1 && g->contiguous() ? g : clone(detach(g));
    } else if (dispatch::grad_enabled()) {
      m.grad = add(m.grad, g);
    } else {
      dispatch::call(add.op(), std::array{Arg(m.grad), Arg(g), Arg(int64_t{1})}, dispatch::Form::kInPlace);
    }
  }

  TensorPtr leaf_;
};

/// Where a view lies in its base: an affine map of elements, between dtypes of one real type, with pending
/// signs.
struct Geometry {
  Dims sizes, strides;
  int64_t offset = 0;  ///< from the base's first element, in elements of the view
  Dtype dtype = Dtype::kUndefined;
  bool conj = false, neg = false;
  Dims base_sizes, base_strides;
  Dtype base_dtype = Dtype::kUndefined;
};

/// How many elements of the view's dtype one of the base's is (complex bases seen as real: 2), for offsets.
int64_t in_view_units(int64_t elements, Dtype base, Dtype view) {
  return elements * itemsize(base) / itemsize(view);
}

Geometry geometry_of(const TensorImpl& view, const TensorImpl& base) {
  return {view.size_dims(),
          view.stride_dims(),
          view.offset() - in_view_units(base.offset(), base.dtype(), view.dtype()),
          view.dtype(),
          view.conj(),
          view.neg(),
          base.size_dims(),
          base.stride_dims(),
          base.dtype()};
}

TensorPtr base_shaped(const Geometry& g, Dtype dtype) {
  static const OpRef zero("zero_");
  static const OpRef empty_strided("empty_strided");
  TensorPtr t = empty_strided(g.base_sizes, g.base_strides, dtype);
  zero(t);
  return t;
}

/// The view of `base` that `g` describes, by recorded rows. @param start of `base` in its storage, in
/// elements of its dtype
TensorPtr view_of(TensorPtr base, const Geometry& g, int64_t start) {
  static const OpRef as_strided("as_strided"), as_real("view_as_real"), as_complex("view_as_complex"),
      conj("_conj"), neg("_neg_view");
  const int64_t offset = in_view_units(start, g.base_dtype, g.dtype) + g.offset;
  if (is_complex(g.base_dtype) && !is_complex(g.dtype)) {
    base = as_real(base);
  } else if (!is_complex(g.base_dtype) && is_complex(g.dtype)) {
    // Pairs of all numbers from the first on.
    int64_t last = 0;
    for (size_t i = 0; i < g.base_sizes.size(); ++i) last += (g.base_sizes[i] - 1) * g.base_strides[i];
    base = as_complex(as_strided(base, Dims{(last + 1) / 2, 2}, Dims{2, 1}, start));
  }
  base = as_strided(base, g.sizes, g.strides, offset);
  if (g.conj) base = conj(base);
  if (g.neg) base = neg(base);
  return base;
}

/// History of a base after a write through one of its views: `inner` is the history of the written part.
class CopySlicesNode final : public GradNode {
 public:
  CopySlicesNode(Geometry g, Intrusive<GradNode> inner, int output)
      : geometry_(std::move(g)), inner_(std::move(inner)), output_(output) {}
  std::string name() const override { return "CopySlices"; }
  void free_saved() override { inner_->free_saved(); }
  GradList apply(GradList grads) override {
    GradList result(next.size());
    if (!grads[0]) return result;
    static const OpRef copy("copy_"), zero("zero_"), clone("clone");
    TensorPtr whole = base_shaped(geometry_, grads[0]->dtype());
    copy(whole, grads[0]);
    const TensorPtr part = view_of(whole, geometry_, 0);
    GradList incoming(inner_->outputs.size());
    incoming[static_cast<size_t>(output_)] = clone(part);
    GradList inner = inner_->apply(std::move(incoming));
    // Its first input was the view's old value: what flows there replaces the written part.
    for (size_t i = 1; i < result.size() && i < inner.size(); ++i) result[i] = inner[i];
    if (!inner.empty() && inner[0])
      copy(part, inner[0]);
    else
      zero(part);
    result[0] = whole;
    return result;
  }

 private:
  Geometry geometry_;
  Intrusive<GradNode> inner_;
  int output_;
};

}  // namespace

GradNode::~GradNode() = default;

void GradNode::destroy(GradNode* node) noexcept {
  if (dying != nullptr) {
    dying->push_back(node);
    return;
  }
  NodeQueue queue{node};
  dying = &queue;
  while (!queue.empty()) {
    GradNode* n = queue.back();
    queue.pop_back();
    delete n;
  }
  dying = nullptr;
}

GradMeta& meta_of(TensorImpl& t) {
  if (!t.autograd) t.autograd = std::make_unique<GradMeta>();
  return static_cast<GradMeta&>(*t.autograd);
}

GradMeta* meta_or_null(const TensorImpl& t) { return static_cast<GradMeta*>(t.autograd.get()); }

bool is_leaf(const TensorImpl& t) {
  if (!t.requires_grad) return true;
  const GradMeta* m = meta_or_null(t);
  if (m != nullptr && m->grad_fn) return false;
  // A view of a base that has history since it was made is no leaf either.
  if (t.view_base) {
    const GradMeta* base = meta_or_null(*t.view_base);
    return base == nullptr || !base->grad_fn;
  }
  return true;
}

namespace {

/// @param indirect the base, or another view of it, was written rather than the view itself
void check_origin(const TensorImpl& t, bool indirect) {
  const GradMeta* m = meta_or_null(t);
  if (m == nullptr || m->origin == ViewOrigin::kOne) return;
  std::string what = "A view was created in no_grad mode";
  if (m->origin == ViewOrigin::kMany && m->grad_fn) {
    what = lohe::detail::concat("Output ", m->output, " of ", m->grad_fn->name(), " is a view");
  }
  raise(
      ErrorKind::kRuntime, what,
      indirect ? " and its base or another view of its base has been modified inplace. "
               : " and is being modified inplace. ",
      m->origin == ViewOrigin::kMany
          ? "This view is the output of a function that returns multiple views. Such functions do not allow the output views to be "
            "modified inplace. You should replace the inplace operation by an out-of-place one."
          : "Given that this use case is ambiguous and error-prone, it is forbidden. You can clarify your code by moving both the view "
            "and the inplace either both inside the no_grad block (if you don't want the inplace to be tracked) or both outside (if you "
            "want the inplace to be tracked).");
}

}  // namespace

Intrusive<GradNode> grad_fn(const TensorPtr& t) {
  GradMeta* m = meta_or_null(*t);
  if (t->view_base && !t->inference) {
    GradMeta* base = meta_or_null(*t->view_base);
    if (base != nullptr && base->history != (m == nullptr ? 0 : m->view_history) &&
        t->view_base->requires_grad) {
      // Written through a sibling since: this view is what the base holds now.
      check_origin(*t, true);
      const GradModeGuard recording(true);
      const TensorPtr twin = view_of(t->view_base, geometry_of(*t, *t->view_base), t->view_base->offset());
      const GradMeta& made = meta_of(*twin);
      GradMeta& mine = meta_of(*t);
      mine.grad_fn = made.grad_fn;
      mine.output = made.output;
      mine.view_history = base->history;
      t->requires_grad = true;
      return mine.grad_fn;
    }
  }
  return m == nullptr ? nullptr : m->grad_fn;
}

Edge gradient_edge(const TensorPtr& t) {
  if (Intrusive<GradNode> fn = grad_fn(t)) return {std::move(fn), meta_of(*t).output};
  if (!t->requires_grad) return {};
  GradMeta& m = meta_of(*t);
  const std::lock_guard lock(accumulators);
  if (m.accumulator != nullptr && m.accumulator->try_retain())
    return {Intrusive<GradNode>::adopt(m.accumulator), 0};
  auto made = Intrusive<GradNode>::adopt(new AccumulateGrad(t));
  m.accumulator = made.get();
  return {std::move(made), 0};
}

void set_requires_grad(TensorImpl& t, bool value) {
  if (value != t.requires_grad) tell_watcher("it sets requires_grad");
  LOHE_CHECK(!value || is_differentiable(t.dtype()),
             "only Tensors of floating point and complex dtype can require gradients, got ", t.dtype());
  LOHE_CHECK(
      is_leaf(t) || value,
      "you can only change requires_grad flags of leaf variables. If you want to use a computed variable in "
      "a subgraph that doesn't require differentiation use var_no_grad = var.detach().");
  LOHE_CHECK(!(value && t.inference && (dispatch::mode_word & dispatch::kInference) == 0),
             "Setting requires_grad=True on inference tensor outside InferenceMode is not allowed.");
  if (is_leaf(t)) t.requires_grad = value;
  if (value) meta_of(t);
}

void detach_in_place(TensorImpl& t) {
  tell_watcher("it detaches a tensor in place");
  LOHE_CHECK(!t.view_base,
             "detach_: can't detach views in-place: the history belongs to the base and all its views. "
             "Use detach() instead.");
  t.requires_grad = false;
  if (GradMeta* meta = meta_or_null(t)) {
    meta->grad_fn = {};
    meta->output = 0;
  }
}

bool requires_grad(TensorImpl& t) {
  if (!t.requires_grad && t.view_base && t.view_base->requires_grad) grad_fn(TensorPtr(&t));
  return t.requires_grad;
}

void check_inplace(TensorImpl& t, Args args) {
  t.storage().before_write();
  LOHE_CHECK(
      !t.inference || (dispatch::mode_word & dispatch::kInference) != 0,
      "Inplace update to inference tensor outside InferenceMode is not allowed. You can make a clone to get a normal tensor "
      "before doing inplace update.");
  if (!dispatch::grad_enabled()) return;
  bool tracked = false;
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor) tracked = tracked || requires_grad(*a.tensor);
    if (a.kind != Arg::kTensors) continue;
    for (TensorImpl* x : a.tensor_list()) tracked = tracked || (x != nullptr && requires_grad(*x));
  }
  if (!tracked) return;
  if (t.view_base) {
    check_origin(t, false);
    LOHE_CHECK(!t.requires_grad || !is_leaf(*t.view_base),
               "a view of a leaf Variable that requires grad is being used in an in-place operation.");
  }
  LOHE_CHECK(!t.requires_grad || !is_leaf(t),
             "a leaf Variable that requires grad is being used in an in-place operation.");
}

void adopt_history(TensorImpl& t, TensorImpl& view) {
  GradMeta& from = meta_of(view);
  if (!from.grad_fn) return;
  GradMeta& m = meta_of(t);
  m.grad_fn = from.grad_fn;
  m.output = from.output;
  if (t.view_base) {
    m.view_history = meta_of(*t.view_base).history;
  } else {
    ++m.history;  // its views' geometry is told from its new shape
  }
}

void note_unrecorded_view(TensorImpl& view) {
  const GradMeta* base = meta_or_null(*view.view_base);
  if (base == nullptr || !view.view_base->requires_grad) return;
  GradMeta& m = meta_of(view);
  m.view_history = base->history;
  m.origin = ViewOrigin::kNoGrad;
}

void rebase_history(const TensorPtr& t, Intrusive<GradNode> node, int output) {
  GradMeta& m = meta_of(*t);
  if (!t->view_base) {
    m.grad_fn = std::move(node);
    m.output = output;
    ++m.history;
    t->requires_grad = true;
    return;
  }
  const TensorPtr base = t->view_base;
  Intrusive<GradNode> slices =
      Intrusive<GradNode>::adopt(new CopySlicesNode(geometry_of(*t, *base), node, output));
  // The base's old value, then what the write used besides the view itself.
  slices->next.push_back(gradient_edge(base));
  for (size_t i = 1; i < node->next.size(); ++i) slices->next.push_back(node->next[i]);
  slices->sequence = new_sequence();
  slices->outputs.emplace_back(*base);
  GradMeta& b = meta_of(*base);
  b.grad_fn = std::move(slices);
  b.output = 0;
  ++b.history;
  base->requires_grad = true;
  t->requires_grad = true;
  m.grad_fn = nullptr;
  m.view_history = b.history - 1;  // rebuilt from the base when next asked for
}

SavedTensor::SavedTensor(const TensorPtr& t, bool is_output, bool written_since)
    : version_(t->version().value.load(std::memory_order_relaxed) - (written_since ? 1 : 0)),
      is_output_(is_output) {
  if (!is_output) {
    tensor_ = t;
    note();
    return;
  }
  // The node must not own its own output.
  tensor_ = TensorImpl::make(t->storage_ptr(), t->dtype(), t->sizes(), t->strides(), t->offset());
  tensor_->share_version(*t);
  tensor_->set_conj(t->conj());
  tensor_->set_neg(t->neg());
  tensor_->extension = t->extension;
  output_ = meta_of(*t).output;
  note();
}

void SavedTensor::note() {
  PendingWork* work = tensor_->storage().pending.load(std::memory_order_relaxed);
  if ((dispatch::mode_word & dispatch::kRecording) == 0 || work == nullptr) return;
  tensor_->saves.fetch_add(1, std::memory_order_relaxed);
  counted_ = true;
  work->note_saved(tensor_);
}

TensorPtr SavedTensor::unpack(GradNode* owner) const {
  if (!tensor_) return {};
  const uint32_t now = tensor_->version().value.load(std::memory_order_relaxed);
  LOHE_CHECK(
      now == version_,
      "one of the variables needed for gradient computation has been modified by an inplace operation: [",
      info(tensor_->dtype()).tensor_type, " ", to_string(tensor_->sizes()), "], which is output ",
      std::max(output_, 0), " of ", owner->name(), ", is at version ", now, "; expected version ", version_,
      " instead. Hint: enable anomaly detection to find the operation that failed to compute its gradient, with "
      "torch.autograd.set_detect_anomaly(True).");
  if (!is_output_) return tensor_;
  TensorPtr t = TensorImpl::make(tensor_->storage_ptr(), tensor_->dtype(), tensor_->sizes(),
                                 tensor_->strides(), tensor_->offset());
  t->share_version(*tensor_);
  t->set_conj(tensor_->conj());
  t->set_neg(tensor_->neg());
  t->extension = tensor_->extension;
  GradMeta& m = meta_of(*t);
  m.grad_fn = Intrusive<GradNode>(owner);
  m.output = output_;
  t->requires_grad = true;
  return t;
}

void SavedTensor::reset() {
  if (counted_) tensor_->saves.fetch_sub(1, std::memory_order_relaxed);
  counted_ = false;
  tensor_ = nullptr;
}

SavedTensor& SavedTensor::operator=(SavedTensor&& other) noexcept {
  reset();
  tensor_ = std::move(other.tensor_);
  version_ = other.version_;
  output_ = other.output_;
  is_output_ = other.is_output_;
  counted_ = std::exchange(other.counted_, false);
  return *this;
}

}  // namespace lohe::autograd
