#include "dispatch/jvp.h"

#include "autograd/tape.h"
#include "lohe/error.h"
#include "tensor/shape.h"

namespace lohe::dispatch {

using namespace ops;

namespace {

bool is_factory(const OpDef& op) {
  return op.schema.base.ends_with("_like") || op.schema.base.starts_with("new_");
}

TensorPtr zeros_for(const TensorPtr& t) {
  static const OpRef zeros_like("zeros_like");
  return zeros_like(t);
}

/// A tangent for `primal` into which tangents like `model` (may be null) can be written.
TensorPtr zero_tangent(const TensorPtr& primal, const TensorPtr& model) {
  static const OpRef new_zeros("new_zeros");
  return model && model->extension ? new_zeros(model, primal->sizes(), primal->dtype()) : zeros_for(primal);
}

/// Marks `results` of rows that keep lists as lists.
Results listed(const OpDef& op, std::vector<TensorPtr> list) {
  if (!op.schema.returns.empty() && op.schema.returns[0].type == ArgType::kTensors)
    return Results(std::move(list));
  Results r;
  for (TensorPtr& t : list) r.push(std::move(t));
  return r;
}

}  // namespace

bool Jvp::wants(const OpDef& op, Args args) {
  if (op.kind == OpKind::kFunction && !is_factory(op)) return false;
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor && dual_of(a.tensor, level_) != nullptr) return true;
    if (a.kind != Arg::kTensors) continue;
    for (TensorImpl* t : a.tensor_list()) {
      if (dual_of(t, level_) != nullptr) return true;
    }
  }
  return false;
}

TensorPtr Jvp::primal(TensorImpl* t) const {
  const Dual* d = dual_of(t, level_);
  return d != nullptr ? d->primal : TensorPtr(t);
}

Results Jvp::call(const OpDef& op, Args args, Form form, std::span<TensorImpl* const>) {
  LOHE_CHECK_KIND(kNotImplemented, form != Form::kOut, op.schema.base,
                  "(out=...) of tensors with a tangent is not implemented; use the form "
                  "without out=");
  if (is_factory(op)) {
    // A constant; dual all the same, so that duals can be written into it.
    MappedArgs plain(args, [&](TensorImpl* t, size_t) { return primal(t); });
    TensorPtr made = dispatch::call(op, plain.args(), form)[0];
    if (!is_differentiable(made->dtype())) return made;
    const Dual* model = dual_of(args[0].tensor, level_);
    TensorPtr tangent = zero_tangent(made, model != nullptr ? model->tangent : TensorPtr());
    return wrap_dual(std::move(made), std::move(tangent), level_);
  }
  if (op.kind == OpKind::kView) return view(op, args, form);
  if (form == Form::kInPlace || op.schema.mutates()) return in_place(op, args, form);
  auto [results, tangents] = differentiate(op, args);
  for (int i = 0; i < results.size(); ++i) {
    TensorPtr& t = tangents[static_cast<size_t>(i)];
    if (results[i] && t) results[i] = wrap_dual(std::move(results[i]), std::move(t), level_);
  }
  return results;
}

Results Jvp::view(const OpDef& op, Args args, Form form) {
  TensorImpl& t = *args[0].tensor;
  const Dual& d = *dual_of(&t, level_);
  std::vector<Arg> of_primal(args.begin(), args.end()), of_tangent(args.begin(), args.end());
  const TensorPtr p = d.primal, s = d.tangent;
  of_primal[0] = Arg(p);
  of_tangent[0] = Arg(s);
  LOHE_CHECK_KIND(
      kNotImplemented,
      op.schema.base != "as_strided" || (p->stride_dims() == s->stride_dims() && p->offset() == s->offset()),
      "as_strided of a tensor whose tangent lies differently in memory is not implemented; call contiguous() first");
  Results primals = dispatch::call(op, of_primal, form);
  if (form == Form::kInPlace) {
    dispatch::call(op, of_tangent, form);
    t.set_view(p->storage_ptr(), p->dtype(), p->sizes(), p->strides(), p->offset());
    return TensorPtr(&t);
  }
  if (op.schema.base == "detach") return primals;  // a constant
  static const OpRef reshape("reshape");
  const Results tangents =
      op.schema.name == "view" ? Results(reshape(s, args[1])) : dispatch::call(op, of_tangent, form);
  std::vector<TensorPtr> list;
  for (int i = 0; i < primals.size(); ++i) {
    list.push_back(is_differentiable(primals[i]->dtype()) ? wrap_dual(primals[i], tangents[i], level_)
                                                          : primals[i]);
    if (list.back()->extension && op.differentiable)
      list.back()->view_base = t.view_base ? t.view_base : TensorPtr(&t);
  }
  return listed(op, std::move(list));
}

Results Jvp::in_place(const OpDef& op, Args args, Form form) {
  static const OpRef copy("copy_"), clone("clone"), zero("zero_");
  LOHE_CHECK_KIND(kNotImplemented, args[0].kind == Arg::kTensor, op.schema.base,
                  ": writing a list of tensors that have tangents is not "
                  "implemented");
  TensorImpl& target = *args[0].tensor;
  // The row that gives what this one writes.
  const OpDef* pure = &op;
  const bool assigns = op.schema.base == "copy_" || op.schema.base == "fill_";
  if (form == Form::kValue && !assigns) {
    std::string name(op.schema.base.substr(0, op.schema.base.size() - 1));
    if (!op.schema.overload.empty()) name += "." + std::string(op.schema.overload);
    pure = op.schema.base.ends_with('_') ? find_op_or_null(name) : nullptr;
    LOHE_CHECK_KIND(kNotImplemented, pure != nullptr && pure->schema.params.size() == args.size(),
                    "the tangent of the in-place operation ", op.schema.base,
                    " is not implemented; use a form that gives a new tensor");
  }
  if (!is_differentiable(target.dtype())) {
    MappedArgs plain(args, [&](TensorImpl* t, size_t) { return primal(t); });
    dispatch::call(op, plain.args(), form);
    return TensorPtr(&target);
  }
  if (dual_of(&target, level_) == nullptr) {
    LOHE_CHECK_KIND(
        kNotImplemented, target.storage().holders() == 1 && !target.view_base && !target.requires_grad,
        op.schema.base,
        ": writing a value with a tangent into a tensor without one, of which there are other views, is not implemented; use "
        "an operation that gives a new tensor");
    TensorPtr model, tangent_model;
    for (const Arg& a : args) {
      if (a.kind != Arg::kTensor || dual_of(a.tensor, level_) == nullptr) continue;
      const Dual& d = *dual_of(a.tensor, level_);
      if (!model || d.primal->extension) model = d.primal;
      if (!tangent_model || d.tangent->extension) tangent_model = d.tangent;
    }
    TensorPtr plain = TensorImpl::make(target.storage_ptr(), target.dtype(), target.sizes(), target.strides(),
                                       target.offset());
    plain->share_version(target);
    plain->extension = target.extension;
    if (model && model->extension && !target.extension) {
      plain = buffer_for(model, plain, plain->sizes());
      target.set_view(plain->storage_ptr(), plain->dtype(), plain->sizes(), plain->strides(),
                      plain->offset());
    }
    TensorPtr tangent = zero_tangent(plain, tangent_model);
    target.extension = Intrusive<TensorExtension>(new Dual(level_, std::move(plain), std::move(tangent)));
  }
  const Dual& d = *dual_of(&target, level_);
  const TensorPtr p = d.primal, s = d.tangent;
  MappedArgs plain(args, [&](TensorImpl* t, size_t) { return primal(t); });
  if (assigns) {
    dispatch::call(op, plain.args(), form);
    const Dual* source = args[1].kind == Arg::kTensor ? dual_of(args[1].tensor, level_) : nullptr;
    if (source != nullptr)
      copy(s, source->tangent);
    else
      zero(s);
    return TensorPtr(&target);
  }
  // What is about to be written may be kept for the gradient: that keeps a copy.
  const TensorPtr before = wrap_dual(clone(p), clone(s), level_);
  MappedArgs kept(args, [&](TensorImpl* t, size_t) { return t == &target ? before : TensorPtr(t); });
  std::vector<TensorPtr> tangents = differentiate(*pure, kept.args()).second;
  dispatch::call(op, plain.args(), form);
  if (tangents[0])
    copy(s, tangents[0]);
  else
    zero(s);
  return TensorPtr(&target);
}

std::pair<Results, std::vector<TensorPtr>> Jvp::differentiate(const OpDef& op, Args args) {
  bool tracked = false;
  std::vector<TensorPtr> inputs, directions;
  const bool outer = grad_enabled();
  const autograd::GradModeGuard recording(true);
  MappedArgs local(args, [&](TensorImpl* t, size_t) -> TensorPtr {
    const Dual* d = dual_of(t, level_);
    tracked = tracked || needs_gradient_at_any_level(*t);
    if (d == nullptr) return TensorPtr(t);
    inputs.push_back(tracked_alias(d->primal));
    directions.push_back(d->tangent);
    return inputs.back();
  });
  tracked = tracked && outer;
  Results results = dispatch::call(op, local.args());
  std::vector<TensorPtr> tangents(static_cast<size_t>(results.size()));
  std::vector<TensorPtr> roots, cotangents, all;
  std::vector<size_t> from;
  for (int i = 0; i < results.size(); ++i) {
    if (!results[i] || !results[i]->requires_grad) continue;
    TensorPtr u = without_history(zeros_for(results[i]), {}, true);
    autograd::set_requires_grad(*u, true);
    roots.push_back(results[i]);
    cotangents.push_back(std::move(u));
    from.push_back(static_cast<size_t>(i));
  }
  if (!roots.empty()) {
    const std::vector<TensorPtr> g =
        autograd::run_backward(roots, cotangents, true, true, inputs, true, false);
    std::vector<TensorPtr> linear, along;
    for (size_t i = 0; i < g.size(); ++i) {
      if (!g[i] || !autograd::requires_grad(*g[i])) continue;
      linear.push_back(g[i]);
      along.push_back(directions[i]);
    }
    std::vector<TensorPtr> t(roots.size());
    if (!linear.empty()) t = autograd::run_backward(linear, along, true, true, cotangents, true, false);
    for (size_t i = 0; i < roots.size(); ++i) {
      TensorPtr tangent = t[i] ? t[i] : zeros_for(roots[i]);
      all = inputs;
      all.insert(all.end(), cotangents.begin(), cotangents.end());
      tangents[from[i]] = without_history(tangent, all, !tracked);
    }
  }
  for (int i = 0; i < results.size(); ++i) {
    if (results[i] && results[i]->requires_grad) results[i] = without_history(results[i], inputs, !tracked);
  }
  for (const TensorPtr& leaf : inputs) release_leaf(leaf);
  for (const TensorPtr& u : cotangents) release_leaf(u);
  return {std::move(results), std::move(tangents)};
}

}  // namespace lohe::dispatch
