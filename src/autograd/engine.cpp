#include <queue>
#include <unordered_map>
#include <unordered_set>

#include "autograd/tape.h"
#include "lohe/error.h"
#include "tensor/shape.h"

/// The backward pass: later calls first, each node once all its cotangents have arrived.
namespace lohe::autograd {
namespace {

using namespace ops;

struct Later {
  bool operator()(const GradNode* a, const GradNode* b) const { return a->sequence < b->sequence; }
};

TensorPtr sum_of(TensorPtr a, TensorPtr b) {
  static const OpRef add("add");
  if (!dispatch::grad_enabled() && a.unique() && a->storage_ptr().use_count() == 1 &&
      a->dtype() == b->dtype() && a->size_dims() == b->size_dims() && a->contiguous()) {
    dispatch::call(add.op(), std::array{Arg(a), Arg(b), Arg(int64_t{1})}, dispatch::Form::kInPlace);
    return a;
  }
  return add(a, b);
}

/// A cotangent must look like the output that it belongs to.
TensorPtr validated(TensorPtr g, const Meta& expected, const GradNode& node) {
  if (!g || expected.dtype == Dtype::kUndefined) return g;
  if (g->size_dims() != expected.sizes) {
    static const OpRef expand("expand");
    static const OpRef sum("sum.dim_IntList"), view("view");
    LOHE_CHECK(g->dim() <= static_cast<int64_t>(expected.sizes.size()) || true, node.name());
    raise(ErrorKind::kRuntime, "Function ", node.name(), " returned an invalid gradient at index 0 - got ",
          to_string(g->sizes()), " but expected shape compatible with ", to_string(expected.sizes));
  }
  if (g->dtype() != expected.dtype) {
    static const OpRef to("to.dtype"), real("real");
    if (is_complex(g->dtype()) && !is_complex(expected.dtype)) g = real(g);
    if (g->dtype() != expected.dtype) g = to(g, expected.dtype);
  }
  return g;
}

}  // namespace

std::vector<TensorPtr> run_backward(std::vector<TensorPtr> roots, std::vector<TensorPtr> gradients,
                                    bool retain_graph, bool create_graph,
                                    const std::vector<TensorPtr>& inputs, bool allow_unused,
                                    bool accumulate) {
  // 1. The starting cotangents.
  std::unordered_map<GradNode*, std::vector<TensorPtr>> waiting;
  std::vector<Intrusive<GradNode>> alive;
  std::vector<GradNode*> starts;
  {
    const GradModeGuard mode(create_graph);
    static const OpRef ones_like("ones_like");
    for (size_t i = 0; i < roots.size(); ++i) {
      const TensorPtr& root = roots[i];
      LOHE_CHECK(root->requires_grad, "element ", i,
                 " of tensors does not require grad and does not have a grad_fn");
      TensorPtr g = i < gradients.size() ? gradients[i] : TensorPtr();
      if (!g) {
        LOHE_CHECK(root->numel() == 1, "grad can be implicitly created only for scalar outputs");
        LOHE_CHECK(!is_complex(root->dtype()),
                   "grad can be implicitly created only for real scalar outputs but got ", root->dtype());
        g = ones_like(root);
      } else {
        LOHE_CHECK(g->size_dims() == root->size_dims(), "Mismatch in shape: grad_output[", i,
                   "] has a shape of ", to_string(g->sizes()), " and output[", i, "] has a shape of ",
                   to_string(root->sizes()), ".");
      }
      const Edge e = gradient_edge(root);
      auto& slots = waiting[e.node.get()];
      slots.resize(
          std::max(slots.size(), std::max(e.node->outputs.size(), static_cast<size_t>(e.index) + 1)));
      TensorPtr& slot = slots[static_cast<size_t>(e.index)];
      slot = slot ? sum_of(std::move(slot), std::move(g)) : std::move(g);
      alive.push_back(e.node);
      starts.push_back(e.node.get());
    }
  }
  // 2. How many cotangents each node waits for, over everything that the roots reach.
  std::unordered_map<GradNode*, int> expected;
  std::unordered_set<GradNode*> seen;
  std::vector<GradNode*> stack, found;
  for (GradNode* n : starts) {
    if (seen.insert(n).second) stack.push_back(n);
  }
  while (!stack.empty()) {
    GradNode* n = stack.back();
    stack.pop_back();
    found.push_back(n);
    for (const Edge& e : n->next) {
      if (!e) continue;
      ++expected[e.node.get()];
      if (seen.insert(e.node.get()).second) stack.push_back(e.node.get());
    }
  }
  // 3. With inputs: only nodes on a way to them run.
  struct Capture {
    int output;
    size_t input;
  };
  std::unordered_map<GradNode*, std::vector<Capture>> captures;
  std::unordered_set<GradNode*> useful;
  std::vector<TensorPtr> captured(inputs.size());
  std::vector<Edge> input_edges;
  for (size_t i = 0; i < inputs.size(); ++i) {
    LOHE_CHECK(inputs[i]->requires_grad, "One of the differentiated Tensors does not require grad");
    Edge e = gradient_edge(inputs[i]);
    captures[e.node.get()].push_back({e.index, i});
    useful.insert(e.node.get());
    input_edges.push_back(std::move(e));
  }
  if (!inputs.empty()) {
    // Against the edges: users of a useful node are useful.
    std::unordered_map<GradNode*, std::vector<GradNode*>> users;
    for (GradNode* n : found) {
      for (const Edge& e : n->next) {
        if (e) users[e.node.get()].push_back(n);
      }
    }
    std::vector<GradNode*> todo(useful.begin(), useful.end());
    while (!todo.empty()) {
      GradNode* n = todo.back();
      todo.pop_back();
      for (GradNode* u : users[n]) {
        if (useful.insert(u).second) todo.push_back(u);
      }
    }
  }
  // 4. Run.
  const GradModeGuard mode(create_graph);
  std::priority_queue<GradNode*, std::vector<GradNode*>, Later> ready;
  for (GradNode* n : std::unordered_set<GradNode*>(starts.begin(), starts.end())) {
    if (expected[n] == 0) ready.push(n);
  }
  while (!ready.empty()) {
    GradNode* n = ready.top();
    ready.pop();
    std::vector<TensorPtr> grads = std::move(waiting[n]);
    waiting.erase(n);
    grads.resize(std::max(grads.size(), n->outputs.size()));
    for (size_t o = 0; o < n->outputs.size(); ++o)
      grads[o] = validated(std::move(grads[o]), n->outputs[o], *n);
    n->run_tensor_hooks(grads);
    for (const auto& [output, hook] : n->pre_hooks) {
      TensorPtr& g = grads[static_cast<size_t>(output)];
      if (!g) continue;
      if (TensorPtr changed = hook(g)) g = std::move(changed);
    }
    for (const auto& hook : n->node_pre_hooks) {
      if (std::vector<TensorPtr> changed = hook(grads); !changed.empty()) grads = std::move(changed);
    }
    const auto wanted_here = captures.find(n);
    if (wanted_here != captures.end()) {
      for (const Capture& c : wanted_here->second) captured[c.input] = grads[static_cast<size_t>(c.output)];
    }
    const bool leaf = n->sequence == std::numeric_limits<uint64_t>::max();
    const bool runs = inputs.empty() || (leaf ? accumulate && wanted_here != captures.end() : [&] {
                        for (const Edge& e : n->next) {
                          if (e && useful.contains(e.node.get())) return true;
                        }
                        return false;
                      }());
    std::vector<TensorPtr> next_grads;
    if (runs) {
      bool any = false;
      for (const TensorPtr& g : grads) any = any || g;
      std::vector<TensorPtr> kept;
      if (!n->post_hooks.empty()) kept = grads;
      if (any) next_grads = n->apply(std::move(grads));
      for (const auto& hook : n->post_hooks) {
        if (std::vector<TensorPtr> changed = hook(next_grads, kept); !changed.empty())
          next_grads = std::move(changed);
      }
      if (!retain_graph) n->free_saved();
    }
    for (size_t i = 0; i < n->next.size(); ++i) {
      const Edge& e = n->next[i];
      if (!e) continue;
      GradNode* to = e.node.get();
      if (i < next_grads.size() && next_grads[i]) {
        auto& slots = waiting[to];
        slots.resize(std::max(slots.size(), std::max(to->outputs.size(), static_cast<size_t>(e.index) + 1)));
        TensorPtr& slot = slots[static_cast<size_t>(e.index)];
        slot = slot ? sum_of(std::move(slot), std::move(next_grads[i])) : std::move(next_grads[i]);
      }
      if (--expected[to] == 0) ready.push(to);
    }
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    LOHE_CHECK(captured[i] || allow_unused,
               "One of the differentiated Tensors appears to not have been used in the graph. Set "
               "allow_unused=True if this is the desired behavior.");
  }
  return captured;
}

}  // namespace lohe::autograd
