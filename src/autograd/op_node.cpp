#include <cstring>
#include <forward_list>
#include <memory>

#include "autograd/derive.h"
#include "autograd/tape.h"
#include "lohe/error.h"
#include "tensor/shape.h"

/// The tape node of an op: one class for all rows.
namespace lohe::autograd {
namespace {

using namespace ops;

const OpRef& sum_row() {
  static const OpRef r("sum.dim_IntList");
  return r;
}

/// Undoes broadcasting: sums `g` down to `sizes`.
TensorPtr sum_to(TensorPtr g, std::span<const int64_t> sizes) {
  const size_t rank = g->sizes().size();
  if (rank == sizes.size() && std::equal(sizes.begin(), sizes.end(), g->sizes().begin())) return g;
  Dims dims;
  const size_t lead = rank - sizes.size();
  for (size_t d = 0; d < rank; ++d) {
    if (d < lead || (sizes[d - lead] == 1 && g->sizes()[d] != 1)) dims.push_back(static_cast<int64_t>(d));
  }
  static const OpRef view("view");
  if (!dims.empty()) g = sum_row()(g, dims, true);
  return lead > 0 ? view(g, sizes) : g;
}

/// A tensor argument, or an entry of a list argument: one for each edge of the node.
struct Operand {
  SavedTensor saved;  ///< empty where the gradient does not read it
  GradShape shape;
};

class OpNode final : public GradNode {
 public:
  /// @param written_since see SavedTensor, for operands that share the memory of a written first argument
  OpNode(const OpDef& op, Args args, Results& results, uint64_t wanted, bool in_place,
         const TensorPtr& original)
      : op_(op), wanted_(wanted), args_(args) {
    uint64_t reads = op.saves_declared ? op.saved_params : ~uint64_t{0};
    reads_results_ = op.saved_results;
    if (!op.gradient) {
      reads = reads_results_ = 0;
      if (op.kind != OpKind::kView) {
        for (int o = 0; o < results.size(); ++o) {
          if (results[o] && is_differentiable(results[o]->dtype())) derived_for_ |= uint64_t{1} << o;
        }
        derived_ = &derivative_of(op, wanted, derived_for_, args);
        reads = derived_->reads_params;
        reads_results_ = derived_->reads_results;
      }
    }
    const Version* written = in_place && args[0].kind == Arg::kTensor ? &args[0].tensor->version() : nullptr;
    for (size_t i = 0; i < args.size(); ++i) {
      const bool read = (reads >> i & 1) != 0;
      if (args[i].kind == Arg::kTensor) {
        TensorImpl& t = *args[i].tensor;
        next.push_back(t.requires_grad ? gradient_edge(TensorPtr(&t)) : Edge{});
        Operand& operand = operands_.emplace_back();
        operand.shape = GradShape(t);
        // An operand that shares the written memory was read before the write: backward must notice.
        if (read)
          operand.saved = SavedTensor(i == 0 && original ? original : TensorPtr(&t), false,
                                      i > 0 && &t.version() == written);
      } else if (args[i].kind == Arg::kTensors) {
        for (TensorImpl* t : args[i].tensor_list()) {
          next.push_back(t != nullptr && t->requires_grad ? gradient_edge(TensorPtr(t)) : Edge{});
          Operand& operand = operands_.emplace_back();
          if (t == nullptr) continue;
          operand.shape = GradShape(*t);
          if (read) operand.saved = SavedTensor(TensorPtr(t), false);
        }
      }
    }
    if (op.kind == OpKind::kView) {
      base_strides_ = args[0].tensor->stride_dims();
      base_offset_ = args[0].tensor->offset();
    }
    for (int o = 0; o < results.size(); ++o) {
      if (results[o])
        outputs.emplace_back(*results[o]);
      else
        outputs.emplace_back();
    }
    lists_ = own_lists({args_.data(), args_.size()});
  }

  /// Results are saved once they know this node.
  void save_results(Results& results) {
    if (reads_results_ == 0) return;
    saved_results_.resize(static_cast<size_t>(results.size()));
    for (int o = 0; o < results.size() && o < 64; ++o) {
      if ((reads_results_ >> o & 1) != 0 && results[o])
        saved_results_[static_cast<size_t>(o)] = SavedTensor(results[o], true);
    }
  }

  std::string name() const override {
    std::string n(op_.alias_of.empty() ? std::string_view(op_.schema.base) : op_.alias_of);
    if (!n.empty()) n[0] = static_cast<char>(toupper(n[0]));
    // "native_layer_norm" is NativeLayerNormBackward0 to a PyTorch user.
    std::string camel;
    for (size_t i = 0; i < n.size(); ++i) {
      if (n[i] == '_' && i + 1 < n.size())
        camel += static_cast<char>(toupper(n[++i]));
      else if (n[i] != '_')
        camel += n[i];
    }
    return camel + "Backward0";
  }

  void free_saved() override {
    for (Operand& o : operands_) o.saved.reset();
    for (SavedTensor& s : saved_results_) s.reset();
    released_ = true;
  }

  GradList apply(GradList grads) override;

 private:
  class Pass;

  static size_t edges(const Arg& a) {
    return a.kind == Arg::kTensor ? 1 : a.kind == Arg::kTensors ? static_cast<size_t>(a.count) : 0;
  }
  /// The first edge of a parameter.
  size_t edge_of(size_t param) const {
    size_t at = 0;
    for (size_t i = 0; i < param; ++i) at += edges(args_[i]);
    return at;
  }
  /// The shape of a parameter that is one tensor; undefined for all others.
  GradShape shape_of(size_t param) const {
    return args_[param].kind == Arg::kTensor ? operands_[edge_of(param)].shape : GradShape();
  }
  Dtype compute_dtype() const;

  const OpDef& op_;
  uint64_t wanted_, reads_results_ = 0;
  uint64_t derived_for_ = 0;             ///< outputs that `derived_` expects a cotangent of
  const Derivative* derived_ = nullptr;  ///< of rows whose gradient is derived
  SmallVector<Arg, 6> args_;             ///< what tensors are in it may be gone: only their kind counts
  InlineVector<Operand, 3> operands_;
  InlineVector<SavedTensor, 1> saved_results_;
  std::unique_ptr<int64_t[]> lists_;
  Dims base_strides_;  ///< of a view's first argument
  int64_t base_offset_ = 0;
  bool released_ = false;
};

/// One run of a node: what a row's gradient sees.
class OpNode::Pass final : public Backward {
 public:
  Pass(OpNode& node, GradList& grads) : node_(node), grads_(grads), given_(node.next.size()) {}

  GradList run() {
    if (node_.op_.gradient)
      node_.op_.gradient(*this);
    else if (node_.op_.kind == OpKind::kView)
      view_backward();
    else
      graph_backward();
    for (size_t i = 0; i < given_.size(); ++i) {
      if (given_[i] && node_.next[i])
        given_[i] = sum_to(std::move(given_[i]), node_.operands_[i].shape.sizes);
    }
    return std::move(given_);
  }

  const TensorPtr& grad(int output) override { return grads_[static_cast<size_t>(output)]; }
  const Arg& arg(int p) override { return node_.args_[static_cast<size_t>(p)]; }
  TensorPtr tensor(int p, int entry) override {
    const Arg& a = arg(p);
    if (static_cast<size_t>(entry) >= edges(a)) return {};
    return operand(p, entry).saved.unpack(&node_);
  }
  TensorPtr result(int o) override { return node_.saved_results_[static_cast<size_t>(o)].unpack(&node_); }
  bool needs(int p) const override { return (node_.wanted_ >> p & 1) != 0; }
  const Meta& meta(int p, int entry) override {
    Meta& m = metas_.emplace_front();
    if (static_cast<size_t>(entry) >= edges(arg(p))) return m;
    const GradShape& shape = operand(p, entry).shape;
    m.dtype = shape.dtype;
    m.sizes = shape.sizes;
    if (p == 0 && node_.op_.kind == OpKind::kView) {
      m.strides = node_.base_strides_;
      m.offset = node_.base_offset_;
    }
    return m;
  }
  void set(int p, TensorPtr g) override { given_[node_.edge_of(static_cast<size_t>(p))] = std::move(g); }
  void set_list(int p, std::vector<TensorPtr> list) override {
    const size_t at = node_.edge_of(static_cast<size_t>(p));
    for (size_t i = 0; i < list.size(); ++i) given_[at + i] = std::move(list[i]);
  }

 private:
  const Operand& operand(int p, int entry) const {
    return node_.operands_[node_.edge_of(static_cast<size_t>(p)) + static_cast<size_t>(entry)];
  }

  /// The derived row, called with the arguments, the cotangents and the results that it reads.
  void graph_backward() {
    uint64_t present = 0;
    for (size_t o = 0; o < grads_.size(); ++o) {
      if (grads_[o]) present |= uint64_t{1} << o;
    }
    if (present == 0) return;
    const OpDef& op = node_.op_;
    const size_t params = op.schema.params.size(), results = op.schema.returns.size();
    SmallVector<Arg, 16> full;
    GradList owned;
    const auto own = [&](TensorPtr t) { return Arg(owned.emplace_back(std::move(t))); };
    // What the forward saved was decided for all outputs; fewer cotangents read no more.
    const Derivative* d = node_.derived_;
    if (present != node_.derived_for_) {
      for (size_t p = 0; p < params; ++p)
        full.push_back(node_.args_[p].kind == Arg::kTensor ? own(tensor_or_shape(p)) : node_.args_[p]);
      d = &derivative_of(op, node_.wanted_, present, full);
      full.clear();
    }
    // What passes is not computed; the rest is, by a row that gives no more than that.
    const uint64_t passed = pass_through(*d), wanted = node_.wanted_ & ~passed;
    if (wanted == 0) return;
    if (passed != 0) {
      for (size_t p = 0; p < params; ++p)
        full.push_back(node_.args_[p].kind == Arg::kTensor ? own(tensor_or_shape(p)) : node_.args_[p]);
      d = &derivative_of(op, wanted, present, full);
      full.clear();
    }
    for (size_t p = 0; p < params; ++p) {
      if (node_.args_[p].kind != Arg::kTensor)
        full.push_back(node_.args_[p]);
      else
        full.push_back((d->reads_params >> p & 1) != 0 || op.domain ? own(tensor_or_shape(p)) : Arg());
    }
    for (size_t o = 0; o < results; ++o) full.push_back(Arg(grads_[o]));
    for (size_t o = 0; o < results; ++o)
      full.push_back((d->reads_results >> o & 1) != 0 ? own(result(static_cast<int>(o))) : Arg());
    full.push_back(Arg(node_.compute_dtype()));
    for (size_t p = 0; p < params; ++p) {
      if ((wanted >> p & 1) != 0) full.push_back(Arg(node_.shape_of(p).dtype));
    }
    Results r = dispatch::call(d->op, full);
    int k = 0;
    for (size_t p = 0; p < params; ++p) {
      if ((wanted >> p & 1) != 0) given_[node_.edge_of(p)] = std::move(r[k++]);
    }
  }

  /// Sets the gradients that are cotangents as they came (of a sum, of a copy). @return their parameters
  uint64_t pass_through(const Derivative& d) {
    uint64_t passed = 0;
    for (size_t p = 0; p < d.passes.size(); ++p) {
      const auto [output, unless] = d.passes[p];
      if (!needs(static_cast<int>(p)) || output < 0) continue;
      const TensorPtr& g = grads_[static_cast<size_t>(output)];
      if (g->dtype() != node_.shape_of(p).dtype) continue;
      if (unless >= 0) {
        const Scalar factor = node_.args_[static_cast<size_t>(unless)].scalar();
        if (factor.is_complex() || factor.to_double() != 1) continue;
      }
      given_[node_.edge_of(p)] = g;
      passed |= uint64_t{1} << p;
    }
    return passed;
  }

  /// Rows with a domain rule look at shapes: an operand that was not kept is stood for by a view of nothing.
  TensorPtr tensor_or_shape(size_t p) {
    const Operand& o = node_.operands_[node_.edge_of(p)];
    if (o.saved) return o.saved.unpack(&node_);
    const Dims zero(o.shape.sizes.size());
    return TensorImpl::make(Storage::allocate(itemsize(o.shape.dtype)), o.shape.dtype, o.shape.sizes, zero,
                            0);
  }

  /// The same view of a zero tensor, written with the cotangent.
  void view_backward() {
    static const OpRef zeros("zeros"), new_zeros("new_zeros"), copy("copy_");
    const GradShape& base = node_.operands_[0].shape;
    // What a transform wraps can only be written into what it wraps too.
    TensorPtr model;
    for (const TensorPtr& g : grads_) {
      if (g && g->extension) model = g;
    }
    const TensorPtr into = model ? new_zeros(model, base.sizes, base.dtype) : zeros(base.sizes, base.dtype);
    SmallVector<Arg, 6> args = node_.args_;
    args[0] = Arg(into);
    const Results views = dispatch::call(node_.op_, args);
    for (int o = 0; o < views.size(); ++o) {
      if (grads_[static_cast<size_t>(o)]) copy(views[o], grads_[static_cast<size_t>(o)]);
    }
    given_[0] = into;
  }

  OpNode& node_;
  GradList& grads_;
  GradList given_;
  std::forward_list<Meta> metas_;  ///< that were asked for
};

GradList OpNode::apply(GradList grads) {
  LOHE_CHECK(
      !released_,
      "Trying to backward through the graph a second time (or directly access saved tensors after they have "
      "already been freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). "
      "Specify retain_graph=True if you need to backward through the graph a second time or if you need to access saved "
      "tensors after calling backward.");
  return Pass(*this, grads).run();
}

Dtype OpNode::compute_dtype() const {
  Dtype d = Dtype::kUndefined;
  if (op_.promotion == Promotion::kFirst) {
    d = shape_of(0).dtype;
    // A gradient may not have kept its first operand: it computes in the dtype that it was given.
    if (const int at = op_.schema.index_of("compute_dtype"); d == Dtype::kUndefined && at >= 0)
      d = args_[static_cast<size_t>(at)].dtype;
  } else {
    for (size_t p = 0, edge = 0; p < args_.size(); edge += edges(args_[p++])) {
      if (args_[p].kind == Arg::kTensor) d = promote_types(d, operands_[edge].shape.dtype);
    }
    // A complex number beside real tensors computes in complex.
    for (const GradShape& o : outputs) {
      if (is_complex(o.dtype)) d = promote_types(d, o.dtype);
    }
    if (const int at = op_.schema.index_of("dtype");
        at >= 0 && args_[static_cast<size_t>(at)].kind == Arg::kDtype) {
      d = args_[static_cast<size_t>(at)].dtype;
    }
    if (is_integral(d, true)) d = outputs[0].dtype;
  }
  return is_complex(d) ? d : info(d).compute_dtype;
}

std::atomic<uint64_t> next_sequence{1};

}  // namespace

uint64_t new_sequence() { return next_sequence.fetch_add(1, std::memory_order_relaxed); }

namespace {

/// Parameters that need a gradient, as bits.
uint64_t wanted_params(Args args) {
  uint64_t wanted = 0;
  for (size_t i = 0; i < args.size(); ++i) {
    const Arg& a = args[i];
    if (a.kind == Arg::kTensor) {
      if (requires_grad(*a.tensor) && is_differentiable(a.tensor->dtype())) wanted |= uint64_t{1} << i;
    } else if (a.kind == Arg::kTensors) {
      for (TensorImpl* t : a.tensor_list()) {
        if (t != nullptr && requires_grad(*t)) wanted |= uint64_t{1} << i;
      }
    }
  }
  return wanted;
}

}  // namespace

TensorPtr original_for_gradient(const OpDef& op, Args args) {
  static const OpRef clone("clone");
  if (!op.differentiable || !is_differentiable(args[0].tensor->dtype())) return {};
  const uint64_t wanted = wanted_params(args);
  if (wanted == 0) return {};
  const uint64_t reads = op.gradient                    ? (op.saves_declared ? op.saved_params : ~uint64_t{0})
                         : op.body                      ? derivative_of(op, wanted, 1, args).reads_params
                         : op.kind == OpKind::kFunction ? ~uint64_t{0}  // the rows that it calls may
                                                        : 0;
  return (reads & 1) != 0 ? clone(args[0].tensor) : TensorPtr();
}

void record(const OpDef& op, Args args, Results& results, dispatch::Form form, const TensorPtr& original) {
  const uint64_t wanted = wanted_params(args);
  if (wanted == 0 || !op.differentiable) return;
  bool float_result = false;
  for (int o = 0; o < results.size(); ++o)
    float_result = float_result || (results[o] && is_differentiable(results[o]->dtype()));
  if (!float_result) return;
  // A row without kernel graph or gradient of its own, that is not a view, has no derivative.
  LOHE_CHECK_KIND(kNotImplemented, op.gradient || op.body || op.kind == OpKind::kView, "the derivative for '",
                  op.schema.base, "' is not implemented");
  const Intrusive<OpNode> node = Intrusive<OpNode>::adopt(
      new OpNode(op, args, results, wanted, form == dispatch::Form::kInPlace, original));
  node->sequence = new_sequence();
  node->recorded = (dispatch::mode_word & dispatch::kRecording) != 0;
  node->inexact = (dispatch::mode_word & dispatch::kInexact) != 0;
  for (int o = 0; o < results.size(); ++o) {
    if (!results[o] || !is_differentiable(results[o]->dtype())) continue;
    if (form == dispatch::Form::kInPlace) {
      rebase_history(results[o], node, o);
    } else {
      TensorImpl& t = *results[o];
      GradMeta& m = meta_of(t);
      m.grad_fn = node;
      m.output = o;
      t.requires_grad = true;
      if (t.view_base) {
        GradMeta& base = meta_of(*t.view_base);
        m.view_history = base.history;
        // A view of a view that may not be written may not be written either.
        const GradMeta* parent = args[0].kind == Arg::kTensor ? meta_or_null(*args[0].tensor) : nullptr;
        if (parent != nullptr && args[0].tensor->view_base) m.origin = parent->origin;
        if (m.origin == ViewOrigin::kOne && op.views) m.origin = ViewOrigin::kMany;
      }
    }
  }
  node->save_results(results);
}

}  // namespace lohe::autograd
