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

class OpNode final : public GradNode, public Backward {
 public:
  OpNode(const OpDef& op, Args args, Results& results, uint64_t wanted, bool in_place,
         const TensorPtr& original)
      : op_(op), wanted_(wanted) {
    const size_t n = args.size();
    args_.assign(args.begin(), args.end());
    saved_.resize(n);
    metas_.resize(n);
    uint64_t reads = op.saved_params, reads_results = op.saved_results;
    if (!op.gradient && op.kind != OpKind::kView) {
      uint64_t outputs_mask = 0;
      for (int o = 0; o < results.size(); ++o) {
        if (results[o] && is_differentiable(results[o]->dtype())) outputs_mask |= uint64_t{1} << o;
      }
      const Derivative& d = derivative_of(op, wanted, outputs_mask, args);
      reads = d.reads_params;
      reads_results = d.reads_results;
      outputs_mask_ = outputs_mask;
    } else if (op.gradient && !op.saves_declared) {
      reads = ~uint64_t{0};
    }
    for (size_t i = 0; i < n; ++i) {
      Arg& a = args_[i];
      switch (a.kind) {
        case Arg::kTensor:
          metas_[i].dtype = a.tensor->dtype();
          metas_[i].sizes = a.tensor->size_dims();
          if (op.kind == OpKind::kView) {
            metas_[i].strides = a.tensor->stride_dims();
            metas_[i].offset = a.tensor->offset();
          }
          if ((reads >> i & 1) != 0) {
            // An operand that shares the written memory was read before the write: backward must notice.
            const bool written = in_place && i > 0 && args[0].kind == Arg::kTensor &&
                                 &a.tensor->version() == &args[0].tensor->version();
            saved_[i].push_back(
                SavedTensor(i == 0 && original ? original : TensorPtr(a.tensor), false, written));
          }
          break;
        case Arg::kTensors:
          for (TensorImpl* t : a.tensor_list()) {
            list_metas_.emplace_back();
            if (t != nullptr) {
              list_metas_.back().dtype = t->dtype();
              list_metas_.back().sizes = t->size_dims();
            }
            if ((reads >> i & 1) != 0)
              saved_[i].push_back(t == nullptr ? SavedTensor() : SavedTensor(TensorPtr(t), false));
          }
          break;
        case Arg::kInts: {
          auto& copy = ints_.emplace_back(new int64_t[static_cast<size_t>(a.count) + 1]);
          std::copy_n(a.ints, a.count, copy.get());
          a.ints = copy.get();
          break;
        }
        case Arg::kFloats: {
          auto& copy = floats_.emplace_back(new double[static_cast<size_t>(a.count) + 1]);
          std::copy_n(a.floats, a.count, copy.get());
          a.floats = copy.get();
          break;
        }
        case Arg::kStr: {
          auto& copy = texts_.emplace_back(new char[static_cast<size_t>(a.count) + 1]);
          std::copy_n(a.chars, a.count, copy.get());
          a.chars = copy.get();
          break;
        }
        default:
          break;
      }
    }
    for (int o = 0; o < results.size(); ++o) {
      ops::Meta m;
      if (results[o]) {
        m.dtype = results[o]->dtype();
        m.sizes = results[o]->size_dims();
      }
      outputs.push_back(std::move(m));
    }
    reads_results_ = reads_results;
  }

  /// Results are saved once they know this node.
  void save_results(Results& results) {
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
    for (auto& list : saved_) list.clear();
    for (auto& s : saved_results_) s.reset();
    released_ = true;
  }

  std::vector<TensorPtr> apply(std::vector<TensorPtr> grads) override {
    LOHE_CHECK(
        !released_,
        "Trying to backward through the graph a second time (or directly access saved tensors after they have "
        "already been freed). Saved intermediate values of the graph are freed when you call .backward() or autograd.grad(). "
        "Specify retain_graph=True if you need to backward through the graph a second time or if you need to access saved "
        "tensors after calling backward.");
    grads_ = std::move(grads);
    given_.assign(next.size(), {});
    if (op_.gradient) {
      op_.gradient(*this);
    } else if (op_.kind == OpKind::kView) {
      view_backward();
    } else {
      graph_backward();
    }
    grads_.clear();
    for (size_t i = 0; i < given_.size(); ++i) {
      if (given_[i] && next[i]) given_[i] = sum_to(std::move(given_[i]), meta_of_edge(i).sizes);
    }
    return std::move(given_);
  }

  // --- Backward
  const TensorPtr& grad(int output) override { return grads_[static_cast<size_t>(output)]; }
  const Arg& arg(int p) override { return args_[static_cast<size_t>(p)]; }
  TensorPtr tensor(int p, int entry) override {
    const auto i = static_cast<size_t>(p), e = static_cast<size_t>(entry);
    return e < saved_[i].size() ? saved_[i][e].unpack(this) : TensorPtr();
  }
  TensorPtr result(int o) override { return saved_results_[static_cast<size_t>(o)].unpack(this); }
  bool needs(int p) const override { return (wanted_ >> p & 1) != 0; }
  const ops::Meta& meta(int p, int entry) override {
    if (args_[static_cast<size_t>(p)].kind != Arg::kTensors) return metas_[static_cast<size_t>(p)];
    size_t at = static_cast<size_t>(entry);
    for (size_t i = 0; i < static_cast<size_t>(p); ++i)
      at += args_[i].kind == Arg::kTensors ? edges(args_[i]) : 0;
    return list_metas_[at];
  }
  void set(int p, TensorPtr g) override { given_[edge_of(p)] = std::move(g); }
  void set_list(int p, std::vector<TensorPtr> list) override {
    const size_t at = edge_of(p);
    for (size_t i = 0; i < list.size(); ++i) given_[at + i] = std::move(list[i]);
  }

 private:
  /// Edges: one for every tensor parameter, one for every entry of a list parameter, in order.
  size_t edge_of(int param) const {
    size_t at = 0;
    for (size_t i = 0; i < static_cast<size_t>(param); ++i) at += edges(args_[i]);
    return at;
  }
  static size_t edges(const Arg& a) {
    return a.kind == Arg::kTensor ? 1 : a.kind == Arg::kTensors ? static_cast<size_t>(a.count) : 0;
  }
  const ops::Meta& meta_of_edge(size_t edge) const {
    size_t list_at = 0;
    for (size_t i = 0; i < args_.size(); ++i) {
      const size_t n = edges(args_[i]);
      if (edge < n) return args_[i].kind == Arg::kTensor ? metas_[i] : list_metas_[list_at + edge];
      edge -= n;
      if (args_[i].kind == Arg::kTensors) list_at += n;
    }
    return metas_[0];
  }

  void graph_backward() {
    uint64_t present = 0;
    for (size_t o = 0; o < grads_.size(); ++o) {
      if (grads_[o]) present |= uint64_t{1} << o;
    }
    if (present == 0) return;
    // What the forward saved was decided for all outputs; fewer cotangents read no more.
    const Derivative& d = derivative_of(op_, wanted_, present, args_);
    const size_t params = op_.schema.params.size(), outputs_n = op_.schema.returns.size();
    std::vector<Arg> full(params + 2 * outputs_n);
    std::vector<TensorPtr> owned;
    for (size_t p = 0; p < params; ++p) {
      full[p] = args_[p];
      if (args_[p].kind == Arg::kTensor) {
        owned.push_back((d.reads_params >> p & 1) != 0 || op_.domain ? tensor_or_shape(p) : TensorPtr());
        full[p] = Arg(owned.back());
      }
    }
    for (size_t o = 0; o < outputs_n; ++o) {
      full[params + o] = Arg(grads_[o]);
      if ((d.reads_results >> o & 1) != 0) {
        owned.push_back(result(static_cast<int>(o)));
        full[params + outputs_n + o] = Arg(owned.back());
      }
    }
    full.push_back(Arg(compute_dtype()));
    for (size_t p = 0; p < params; ++p) {
      if ((wanted_ >> p & 1) != 0) full.push_back(Arg(metas_[p].dtype));
    }
    Results r = dispatch::call(d.op, full);
    int k = 0;
    for (size_t p = 0; p < params; ++p) {
      if ((wanted_ >> p & 1) != 0) given_[edge_of(static_cast<int>(p))] = std::move(r[k++]);
    }
  }

  /// Rows with a domain rule look at shapes: an operand that was not kept is stood for by a view of nothing.
  TensorPtr tensor_or_shape(size_t p) {
    if (!saved_[p].empty()) return saved_[p][0].unpack(this);
    const Dims zero(metas_[p].sizes.size());
    return TensorImpl::make(Storage::allocate(itemsize(metas_[p].dtype)), metas_[p].dtype, metas_[p].sizes,
                            zero, 0);
  }

  Dtype compute_dtype() const {
    Dtype d = Dtype::kUndefined;
    if (op_.promotion == Promotion::kFirst) {
      d = metas_[0].dtype;
      // A gradient may not have kept its first operand: it computes in the dtype that it was given.
      if (const int at = op_.schema.index_of("compute_dtype"); d == Dtype::kUndefined && at >= 0)
        d = args_[static_cast<size_t>(at)].dtype;
    } else {
      for (size_t p = 0; p < args_.size(); ++p) {
        if (op_.schema.params[p].type == ArgType::kTensor && metas_[p].dtype != Dtype::kUndefined)
          d = promote_types(d, metas_[p].dtype);
      }
      // A complex number beside real tensors computes in complex.
      for (const ops::Meta& m : outputs) {
        if (is_complex(m.dtype)) d = promote_types(d, m.dtype);
      }
      if (const int at = op_.schema.index_of("dtype");
          at >= 0 && args_[static_cast<size_t>(at)].kind == Arg::kDtype) {
        d = args_[static_cast<size_t>(at)].dtype;
      }
      if (is_integral(d, true)) d = outputs[0].dtype;
    }
    return is_complex(d) ? d : info(d).compute_dtype;
  }

  /// The same view of a zero tensor, written with the cotangent.
  void view_backward() {
    static const OpRef zeros("zeros"), new_zeros("new_zeros"), copy("copy_");
    // What a transform wraps can only be written into what it wraps too.
    TensorPtr model;
    for (const TensorPtr& g : grads_) {
      if (g && g->extension) model = g;
    }
    const TensorPtr into =
        model ? new_zeros(model, metas_[0].sizes, metas_[0].dtype) : zeros(metas_[0].sizes, metas_[0].dtype);
    std::vector<Arg> args = args_;
    args[0] = Arg(into);
    const Results views = dispatch::call(op_, args);
    for (int o = 0; o < views.size(); ++o) {
      if (grads_[static_cast<size_t>(o)]) copy(views[o], grads_[static_cast<size_t>(o)]);
    }
    given_[0] = into;
  }

  const OpDef& op_;
  uint64_t wanted_, reads_results_ = 0, outputs_mask_ = 0;
  std::vector<Arg> args_;
  std::vector<std::vector<SavedTensor>> saved_;
  std::vector<SavedTensor> saved_results_;
  std::vector<ops::Meta> metas_, list_metas_;
  std::vector<std::unique_ptr<int64_t[]>> ints_;
  std::vector<std::unique_ptr<double[]>> floats_;
  std::vector<std::unique_ptr<char[]>> texts_;
  std::vector<TensorPtr> grads_, given_;
  bool released_ = false;
};

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
  Intrusive<GradNode> node = Intrusive<GradNode>::adopt(
      new OpNode(op, args, results, wanted, form == dispatch::Form::kInPlace, original));
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor) {
      node->next.push_back(a.tensor->requires_grad ? gradient_edge(TensorPtr(a.tensor)) : Edge{});
    } else if (a.kind == Arg::kTensors) {
      for (TensorImpl* t : a.tensor_list())
        node->next.push_back(t != nullptr && t->requires_grad ? gradient_edge(TensorPtr(t)) : Edge{});
    }
  }
  node->sequence = new_sequence();
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
  static_cast<OpNode*>(node.get())->save_results(results);
}

}  // namespace lohe::autograd
