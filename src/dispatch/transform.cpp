#include "dispatch/transform.h"

#include <unordered_set>

#include "autograd/tape.h"
#include "lohe/error.h"

namespace lohe::dispatch {

using ops::OpRef;

uint64_t new_transform_level() {
  static std::atomic<uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

Batched* batched_of(const TensorImpl* t, uint64_t level) {
  if (t == nullptr || !t->extension) return nullptr;
  auto* b = dynamic_cast<Batched*>(t->extension.get());
  return b != nullptr && b->level == level ? b : nullptr;
}

Dual* dual_of(const TensorImpl* t, uint64_t level) {
  if (t == nullptr || !t->extension) return nullptr;
  auto* d = dynamic_cast<Dual*>(t->extension.get());
  return d != nullptr && d->level == level ? d : nullptr;
}

TensorPtr wrap_batched(TensorPtr value, uint64_t level) {
  TensorPtr t = TensorImpl::make(value->storage_ptr(), value->dtype(), value->sizes().subspan(1),
                                 value->strides().subspan(1), value->offset());
  t->share_version(*value);
  t->set_conj(value->conj());
  t->set_neg(value->neg());
  t->extension = Intrusive<TensorExtension>(new Batched(level, std::move(value)));
  return t;
}

TensorPtr wrap_dual(TensorPtr primal, TensorPtr tangent, uint64_t level) {
  TensorPtr t = TensorImpl::make(primal->storage_ptr(), primal->dtype(), primal->sizes(), primal->strides(),
                                 primal->offset());
  t->share_version(*primal);
  t->set_conj(primal->conj());
  t->set_neg(primal->neg());
  t->extension = Intrusive<TensorExtension>(new Dual(level, std::move(primal), std::move(tangent)));
  return t;
}

bool holds_batch(const TensorImpl& t) {
  if (!t.extension) return false;
  if (const auto* d = dynamic_cast<const Dual*>(t.extension.get())) return holds_batch(*d->primal);
  return dynamic_cast<const Batched*>(t.extension.get()) != nullptr;
}

bool needs_gradient_at_any_level(TensorImpl& t) {
  if (autograd::requires_grad(t)) return true;
  if (!t.extension) return false;
  if (auto* b = dynamic_cast<Batched*>(t.extension.get())) return needs_gradient_at_any_level(*b->value);
  if (auto* d = dynamic_cast<Dual*>(t.extension.get())) {
    return needs_gradient_at_any_level(*d->primal) || needs_gradient_at_any_level(*d->tangent);
  }
  return false;
}

bool is_fresh_buffer(const TensorImpl& t) {
  return t.python_object.load() == nullptr && !t.view_base && !t.requires_grad &&
         t.storage().holders() == 1 && t.offset() == 0;
}

TensorPtr buffer_for(const TensorPtr& model, const TensorPtr& t, std::span<const int64_t> sizes) {
  static const OpRef new_zeros("new_zeros"), copy("copy_");
  TensorPtr made = new_zeros(model, sizes, t->dtype());
  copy(made, t);
  return made;
}

TensorPtr tracked_alias(const TensorPtr& t) {
  static const OpRef alias("alias");
  TensorPtr a = alias(t);
  if (!autograd::requires_grad(*a)) {
    a->view_base = nullptr;  // a leaf of its own
    autograd::set_requires_grad(*a, true);
  }
  return a;
}

void release_leaf(const TensorPtr& leaf) {
  if (autograd::is_leaf(*leaf) && leaf->requires_grad) autograd::meta_of(*leaf).transform_leaf = true;
}

namespace {

/// Whether `t` has history that leads to a leaf other than those.
bool leads_elsewhere(const TensorPtr& t, const std::unordered_set<autograd::GradNode*>& leaves) {
  const autograd::Edge start = autograd::gradient_edge(t);
  if (!start) return false;
  std::vector<autograd::GradNode*> todo{start.node.get()};
  std::unordered_set<autograd::GradNode*> seen{start.node.get()};
  while (!todo.empty()) {
    autograd::GradNode* n = todo.back();
    todo.pop_back();
    if (TensorImpl* leaf = n->leaf();
        leaf != nullptr && !leaves.contains(n) && !autograd::meta_of(*leaf).transform_leaf)
      return true;
    for (const autograd::Edge& e : n->next) {
      if (e && seen.insert(e.node.get()).second) todo.push_back(e.node.get());
    }
  }
  return false;
}

TensorPtr stripped(const TensorPtr& t, const std::unordered_set<autograd::GradNode*>& leaves, bool all) {
  const bool tracked = autograd::requires_grad(*t);
  if (tracked && !all && leads_elsewhere(t, leaves)) return t;
  if (t->extension) {
    if (const auto* b = dynamic_cast<const Batched*>(t->extension.get())) {
      TensorPtr value = stripped(b->value, leaves, all);
      return !tracked && value == b->value ? t : wrap_batched(std::move(value), b->level);
    }
    if (const auto* d = dynamic_cast<const Dual*>(t->extension.get())) {
      TensorPtr primal = stripped(d->primal, leaves, all), tangent = stripped(d->tangent, leaves, all);
      return !tracked && primal == d->primal && tangent == d->tangent
                 ? t
                 : wrap_dual(std::move(primal), std::move(tangent), d->level);
    }
  }
  if (!tracked) return t;
  TensorPtr plain = TensorImpl::make(t->storage_ptr(), t->dtype(), t->sizes(), t->strides(), t->offset());
  plain->share_version(*t);
  plain->set_conj(t->conj());
  plain->set_neg(t->neg());
  plain->extension = t->extension;
  return plain;
}

}  // namespace

TensorPtr without_history(const TensorPtr& t, std::span<const TensorPtr> leaves, bool all) {
  std::vector<autograd::Edge> alive;
  std::unordered_set<autograd::GradNode*> nodes;
  for (const TensorPtr& leaf : leaves) {
    if (!autograd::is_leaf(*leaf) || !leaf->requires_grad) continue;
    alive.push_back(autograd::gradient_edge(leaf));
    nodes.insert(alive.back().node.get());
  }
  return stripped(t, nodes, all);
}

}  // namespace lohe::dispatch
