#include <algorithm>
#include <limits>

#include "autograd/tape.h"
#include "lohe/error.h"
#include "profile/session.h"
#include "tensor/shape.h"

/// The backward pass: later calls first, each node once all its cotangents have arrived.
namespace lohe::autograd {
namespace {

using namespace ops;

TensorPtr sum_of(TensorPtr a, TensorPtr b) {
  static const OpRef add("add");
  // Into the memory of one that nobody else holds: a + b and b + a are the same bits.
  const auto takes = [&](const TensorPtr& t) {
    return !dispatch::grad_enabled() && t.unique() && t->storage().holders() == 1 &&
           a->dtype() == b->dtype() && a->size_dims() == b->size_dims() && t->contiguous();
  };
  if (!takes(a)) std::swap(a, b);
  if (!takes(a)) return add(b, a);
  dispatch::call(add.op(), std::array{Arg(a), Arg(b), Arg(int64_t{1})}, dispatch::Form::kInPlace);
  return a;
}

/// A cotangent must look like the output that it belongs to.
void validate(TensorPtr& g, const GradShape& expected, const GradNode& node) {
  if (!g || expected.dtype == Dtype::kUndefined) return;
  LOHE_CHECK(g->size_dims() == expected.sizes, "Function ", node.name(),
             " returned an invalid gradient at index 0 - got ", to_string(g->sizes()),
             " but expected shape compatible with ", to_string(expected.sizes));
  if (g->dtype() == expected.dtype) return;
  static const OpRef to("to.dtype"), real("real");
  if (is_complex(g->dtype()) && !is_complex(expected.dtype)) g = real(g);
  if (g->dtype() != expected.dtype) g = to(g, expected.dtype);
}

/// What the pass knows of a node.
struct Task {
  explicit Task(GradNode* n) : node(n) {}
  GradNode* node;
  int expected = 0;     ///< edges to it whose cotangent is still to come
  int capture = -1;     ///< the first of the captures at this node
  bool useful = false;  ///< with inputs: on a way to one of them
  GradList grads;
};

/// An output of a node whose cotangent is the gradient of an input.
struct Capture {
  int output;
  size_t input;
  int next;  ///< at the same node, or -1
};

/// The tasks by node: a hash table of task numbers that needs no heap memory for small graphs.
class Tasks {
 public:
  Tasks() { slots_.resize(kFirstSlots, kFree); }

  uint32_t size() const { return static_cast<uint32_t>(tasks_.size()); }
  Task& operator[](uint32_t i) { return tasks_[i]; }

  /// The task of `node`; made if there is none.
  uint32_t of(GradNode* node) {
    if (2 * (tasks_.size() + 1) > slots_.size()) enlarge();
    uint32_t& number = slots_[slot(node)];
    if (number == kFree) {
      number = size();
      tasks_.emplace_back(node);
    }
    return number;
  }

 private:
  static constexpr size_t kFirstSlots = 64;
  static constexpr uint32_t kFree = ~uint32_t{0};

  /// Where `node` is, or a free slot.
  size_t slot(const GradNode* node) const {
    const size_t mask = slots_.size() - 1;
    size_t at = (reinterpret_cast<uintptr_t>(node) >> 4) * 0x9e3779b97f4a7c15u >> 32 & mask;
    while (slots_[at] != kFree && tasks_[slots_[at]].node != node) at = (at + 1) & mask;
    return at;
  }
  void enlarge() {
    const size_t count = slots_.size() * 4;
    slots_.clear();
    slots_.resize(count, kFree);
    for (uint32_t i = 0; i < size(); ++i) slots_[slot(tasks_[i].node)] = i;
  }

  InlineVector<Task, 16> tasks_;
  SmallVector<uint32_t, kFirstSlots> slots_;
};

/// The backward pass of a compiled function's results is a trace of its own, from the first node on that was
/// recorded; where the caller records, it is part of the caller's.
class Recording {
 public:
  ~Recording() { stop(); }
  void begin(bool inexact) {
    if (!on_) {
      if ((dispatch::mode_word & dispatch::kRecording) != 0) return;
      on_ = true;
      before_ = dispatch::mode_word & dispatch::kInexact;
    }
    dispatch::mode_word &= ~dispatch::kInexact;
    dispatch::mode_word |= dispatch::kRecording | (inexact ? dispatch::kInexact : 0u);
  }
  /// Not the tensor: nobody may hold it when the work is done, or it has to be in memory.
  void note(const TensorPtr& t) {
    PendingWork* work = on_ ? t->storage().pending.load(std::memory_order_relaxed) : nullptr;
    if (work != nullptr && work->holds_storages) recorder_ = work;
  }
  /// Does the work. @throws what it raises.
  void end() {
    if (!on_) return;
    stop();
    if (recorder_ != nullptr) recorder_->settle();
  }

 private:
  void stop() {
    if (on_)
      dispatch::mode_word = (dispatch::mode_word & ~(dispatch::kRecording | dispatch::kInexact)) | before_;
    on_ = false;
  }
  bool on_ = false;
  uint32_t before_ = 0;              ///< dispatch::kInexact, where that held outside
  PendingWork* recorder_ = nullptr;  ///< a thread's; those live as long as the process
};

constexpr const char* kHooks = "a backward pass runs hooks";

class BackwardPass {
 public:
  BackwardPass(bool retain_graph, bool create_graph)
      : retain_graph_(retain_graph), create_graph_(create_graph) {}

  /// 1. The starting cotangents.
  void start(std::span<const TensorPtr> roots, std::span<const TensorPtr> gradients) {
    const GradModeGuard mode(create_graph_);
    for (size_t i = 0; i < roots.size(); ++i) {
      const TensorPtr& root = roots[i];
      LOHE_CHECK(root->requires_grad, "element ", i,
                 " of tensors does not require grad and does not have a grad_fn");
      TensorPtr g = i < gradients.size() ? gradients[i] : TensorPtr();
      if (!g) {
        g = implicit_cotangent(root);
      } else {
        LOHE_CHECK(g->size_dims() == root->size_dims(), "Mismatch in shape: grad_output[", i,
                   "] has a shape of ", to_string(g->sizes()), " and output[", i, "] has a shape of ",
                   to_string(root->sizes()), ".");
      }
      Edge& e = edges_.emplace_back(gradient_edge(root));
      tasks_.of(e.node.get());
      add(e, std::move(g));
    }
    starts_ = tasks_.size();
  }

  /// 2. How many cotangents each node waits for, over everything that the roots reach.
  void count() {
    for (uint32_t i = 0; i < tasks_.size(); ++i) {
      // By number: the loop makes tasks, and those are looked at in their turn.
      const GradNode* n = tasks_[i].node;
      for (const Edge& e : n->next) {
        if (e) ++tasks_[tasks_.of(e.node.get())].expected;
      }
    }
  }

  /// 3. With inputs: only nodes on a way to them run.
  void restrict_to(std::span<const TensorPtr> inputs) {
    const uint32_t reached = tasks_.size();
    captured_.resize(inputs.size());
    std::vector<uint32_t> todo;
    for (size_t i = 0; i < inputs.size(); ++i) {
      LOHE_CHECK(inputs[i]->requires_grad, "One of the differentiated Tensors does not require grad");
      Edge& e = edges_.emplace_back(gradient_edge(inputs[i]));
      const uint32_t number = tasks_.of(e.node.get());
      Task& t = tasks_[number];
      captures_.push_back({e.index, i, std::exchange(t.capture, static_cast<int>(captures_.size()))});
      if (!std::exchange(t.useful, true)) todo.push_back(number);
    }
    // Against the edges: users of a useful node are useful.
    std::vector<std::vector<uint32_t>> users(tasks_.size());
    for (uint32_t n = 0; n < reached; ++n) {
      for (const Edge& e : tasks_[n].node->next) {
        if (e) users[tasks_.of(e.node.get())].push_back(n);
      }
    }
    while (!todo.empty()) {
      const uint32_t n = todo.back();
      todo.pop_back();
      for (const uint32_t u : users[n]) {
        if (!std::exchange(tasks_[u].useful, true)) todo.push_back(u);
      }
    }
  }

  /// 4. Later calls first.
  void run(bool restricted, bool accumulate) {
    const GradModeGuard mode(create_graph_);
    Recording recording;
    for (uint32_t i = 0; i < starts_; ++i) {
      if (tasks_[i].expected == 0) ready(i);
    }
    while (!ready_.empty()) {
      std::pop_heap(ready_.begin(), ready_.end());
      const uint32_t number = ready_.back().second;
      ready_.pop_back();
      Task& task = tasks_[number];
      GradNode& n = *task.node;
      if (Watcher* watcher = current_watcher(); watcher != nullptr && !is_leaf(n))
        watcher->differentiates(n.sequence);
      if (n.recorded) recording.begin(n.inexact);
      GradList grads = incoming(n, std::move(task.grads));
      for (int c = task.capture; c >= 0; c = captures_[static_cast<size_t>(c)].next) {
        const Capture& capture = captures_[static_cast<size_t>(c)];
        captured_[capture.input] = grads[static_cast<size_t>(capture.output)];
      }
      GradList given;
      if (!restricted || (is_leaf(n) ? accumulate && task.capture >= 0 : leads_to_input(n)))
        given = outgoing(n, std::move(grads));
      for (size_t i = 0; i < n.next.size(); ++i) {
        const Edge& e = n.next[i];
        if (!e) continue;
        const uint32_t to = tasks_.of(e.node.get());
        if (i < given.size() && given[i]) {
          recording.note(given[i]);
          add(e, std::move(given[i]));
        }
        if (--tasks_[to].expected == 0) ready(to);
      }
    }
    recording.end();
  }

  std::vector<TensorPtr> captured(bool allow_unused) {
    for (const TensorPtr& g : captured_) {
      LOHE_CHECK(g || allow_unused,
                 "One of the differentiated Tensors appears to not have been used in the graph. Set "
                 "allow_unused=True if this is the desired behavior.");
    }
    return std::move(captured_);
  }

 private:
  static TensorPtr implicit_cotangent(const TensorPtr& root) {
    static const OpRef ones_like("ones_like");
    LOHE_CHECK(root->numel() == 1, "grad can be implicitly created only for scalar outputs");
    LOHE_CHECK(!is_complex(root->dtype()),
               "grad can be implicitly created only for real scalar outputs but got ", root->dtype());
    return ones_like(root);
  }

  static bool is_leaf(const GradNode& n) { return n.sequence == std::numeric_limits<uint64_t>::max(); }
  bool leads_to_input(const GradNode& n) {
    for (const Edge& e : n.next) {
      if (e && tasks_[tasks_.of(e.node.get())].useful) return true;
    }
    return false;
  }

  void ready(uint32_t number) {
    ready_.push_back({tasks_[number].node->sequence, number});
    std::push_heap(ready_.begin(), ready_.end());
  }

  /// Adds to the cotangent at the end of `e`.
  void add(const Edge& e, TensorPtr g) {
    GradList& grads = tasks_[tasks_.of(e.node.get())].grads;
    const auto at = static_cast<size_t>(e.index);
    if (grads.size() <= at) grads.resize(std::max(e.node->outputs.size(), at + 1));
    grads[at] = grads[at] ? sum_of(std::move(grads[at]), std::move(g)) : std::move(g);
  }

  /// The cotangents of a node, as its hooks leave them.
  static GradList incoming(GradNode& n, GradList grads) {
    if (grads.size() < n.outputs.size()) grads.resize(n.outputs.size());
    for (size_t o = 0; o < n.outputs.size(); ++o) validate(grads[o], n.outputs[o], n);
    n.run_tensor_hooks(grads);
    if (!n.hooks) return grads;
    tell_watcher(kHooks);
    for (const auto& [output, hook] : n.hooks->tensors) {
      TensorPtr& g = grads[static_cast<size_t>(output)];
      if (!g) continue;
      if (TensorPtr changed = hook(g)) g = std::move(changed);
    }
    for (const auto& hook : n.hooks->before) {
      const std::vector<TensorPtr> changed = hook({grads.begin(), grads.end()});
      if (!changed.empty()) assign(grads, changed);
    }
    return grads;
  }

  /// Runs the node: the cotangents of its inputs, as its hooks leave them.
  GradList outgoing(GradNode& n, GradList grads) {
    profile::Session* session =
        (dispatch::mode_word & dispatch::kProfiling) != 0 ? profile::current() : nullptr;
    const profile::Scope scope(session, profile::Event::kNode, [&] { return n.name(); });
    bool any = false;
    for (const TensorPtr& g : grads) any = any || g;
    GradList given;
    if (!n.hooks || n.hooks->after.empty()) {
      if (any) given = n.apply(std::move(grads));
    } else {
      const std::vector<TensorPtr> kept(grads.begin(), grads.end());
      if (any) given = n.apply(std::move(grads));
      for (const auto& hook : n.hooks->after) {
        const std::vector<TensorPtr> changed = hook({given.begin(), given.end()}, kept);
        if (!changed.empty()) assign(given, changed);
      }
    }
    if (!retain_graph_) n.free_saved();
    return given;
  }

  static void assign(GradList& list, const std::vector<TensorPtr>& values) {
    list.clear();
    for (const TensorPtr& v : values) list.push_back(v);
  }

  const bool retain_graph_, create_graph_;
  InlineVector<Edge, 2> edges_;  ///< to roots and inputs; they keep the nodes alive
  Tasks tasks_;
  uint32_t starts_ = 0;  ///< the first tasks are those of the roots
  std::vector<Capture> captures_;
  std::vector<TensorPtr> captured_;
  InlineVector<std::pair<uint64_t, uint32_t>, 16> ready_;  ///< a heap of (sequence, task)
};

}  // namespace

std::vector<TensorPtr> run_backward(std::span<const TensorPtr> roots, std::span<const TensorPtr> gradients,
                                    bool retain_graph, bool create_graph, std::span<const TensorPtr> inputs,
                                    bool allow_unused, bool accumulate) {
  BackwardPass pass(retain_graph, create_graph);
  pass.start(roots, gradients);
  pass.count();
  if (!inputs.empty()) pass.restrict_to(inputs);
  pass.run(!inputs.empty(), accumulate);
  return pass.captured(allow_unused);
}

}  // namespace lohe::autograd
