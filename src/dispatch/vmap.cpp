#include "dispatch/vmap.h"

#include <algorithm>

#include "lohe/error.h"
#include "tensor/shape.h"

namespace lohe::dispatch {

using namespace ops;

namespace {

bool one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

/// Its mask is a function of positions and a seed.
bool is_dropout(const OpDef& op) { return op.root().schema.base == "_dropout"; }

bool is_random(const OpDef& op) {
  return (is_dropout(op) && op.primal == nullptr) || op.schema.index_of("generator") >= 0 ||
         one_of(op.schema.base,
                {"rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"});
}

/// Rows that make a tensor like another: as batched as their model.
bool is_factory(const OpDef& op) {
  return op.schema.base.ends_with("_like") || op.schema.base.starts_with("new_");
}

/// What a row's result, or the program's course, would owe to data.
bool depends_on_data(const OpDef& op) {
  return one_of(op.schema.name, {"_local_scalar_dense", "is_nonzero", "equal", "allclose", "nonzero",
                                 "nonzero_numpy", "argwhere", "where", "masked_select", "bincount",
                                 "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave.Tensor",
                                 "repeat_interleave.self_Tensor", "resize_", "resize_as_", "set_"});
}

/// Functions that look into memory rather than call rows: they run once for each example.
bool reads_memory(const OpDef& op) {
  return one_of(op.schema.base,
                {"embedding_bag", "searchsorted", "bucketize", "isin", "one_hot", "multinomial", "linspace",
                 "logspace", "histc", "histogram", "quantile", "nanquantile"}) ||
         one_of(op.schema.name, {"tensor_split.tensor_indices_or_sections", "narrow.Tensor"});
}

/// Primitives that work on lines along their `dim`, whatever the other dims are.
bool works_on_lines(const OpDef& op) {
  return op.primal == nullptr &&
         one_of(op.schema.base, {"sort", "topk", "kthvalue", "median", "nanmedian", "mode", "cumsum",
                                 "_reverse_cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"});
}

int64_t shifted(int64_t dim, int64_t rank, const OpDef& op) {
  LOHE_CHECK_INDEX(dim >= -std::max<int64_t>(rank, 1) && dim < std::max<int64_t>(rank, 1),
                   "Dimension out of range (expected to be in range of [", -std::max<int64_t>(rank, 1), ", ",
                   std::max<int64_t>(rank, 1) - 1, "], but got ", dim, ") in ", op.schema.base);
  return (dim < 0 ? dim + rank : dim) + 1;
}

}  // namespace

bool Vmap::wants(const OpDef& op, Args args) {
  if (is_random(op)) return true;
  if (op.kind == OpKind::kFunction && !is_factory(op) && !depends_on_data(op) && !reads_memory(op))
    return false;
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor && is_batched(a.tensor)) return true;
    if (a.kind != Arg::kTensors) continue;
    for (TensorImpl* t : a.tensor_list()) {
      if (is_batched(t)) return true;
    }
  }
  return false;
}

bool Vmap::records(const OpDef& op) const { return !is_dropout(op) || op.primal != nullptr; }

TensorPtr Vmap::value(TensorImpl* t) const {
  const Batched* b = batched_of(t, level_);
  return b != nullptr ? b->value : TensorPtr(t);
}

TensorPtr Vmap::with_batch(TensorImpl* t) const {
  static const OpRef expand("expand");
  if (is_batched(t)) return value(t);
  Dims sizes{batch_};
  for (const int64_t s : t->sizes()) sizes.push_back(s);
  return expand(t, sizes);
}

TensorPtr Vmap::with_rank(TensorImpl* t, int64_t rank) const {
  static const OpRef unsqueeze("unsqueeze");
  TensorPtr v = value(t);
  if (!is_batched(t)) return v;
  for (int64_t r = t->dim(); r < rank; ++r) v = unsqueeze(v, 1);
  return v;
}

Results Vmap::wrapped(Results results) const {
  for (int i = 0; i < results.size(); ++i) {
    if (results[i]) results[i] = wrap_batched(std::move(results[i]), level_);
  }
  return results;
}

void Vmap::adopt(TensorImpl& t, const TensorPtr& model) const {
  static const OpRef empty_strided("empty_strided"), copy("copy_");
  Dims sizes{batch_};
  if (t.contiguous() && model && model->extension) {
    for (const int64_t s : t.sizes()) sizes.push_back(s);
    TensorPtr plain = TensorImpl::make_contiguous(t.storage_ptr(), t.dtype(), t.sizes());
    TensorPtr v = buffer_for(model, plain, sizes);
    t.set_view(v->storage_ptr(), v->dtype(), v->sizes().subspan(1), v->strides().subspan(1), v->offset());
    t.extension = Intrusive<TensorExtension>(new Batched(level_, std::move(v)));
    return;
  }
  // The same layout for each example, so that offsets and strides keep their meaning.
  Dims strides{std::max<int64_t>(t.storage().nbytes() / t.itemsize(), 1)};
  for (size_t d = 0; d < t.sizes().size(); ++d) {
    sizes.push_back(t.sizes()[d]);
    strides.push_back(t.strides()[d]);
  }
  const TensorPtr v = empty_strided(sizes, strides, t.dtype());
  copy(v, TensorPtr(&t));
  t.set_view(v->storage_ptr(), v->dtype(), v->sizes().subspan(1), v->strides().subspan(1), v->offset());
  t.extension = Intrusive<TensorExtension>(new Batched(level_, v));
}

void Vmap::check_written(const OpDef& op, Args args, Form form) const {
  for (size_t i = 0; i < args.size(); ++i) {
    const bool written =
        (form == Form::kInPlace && i == 0) || (i < op.schema.params.size() && op.schema.params[i].written);
    if (!written || args[i].kind != Arg::kTensor || is_batched(args[i].tensor)) continue;
    TensorImpl& t = *args[i].tensor;
    if (is_fresh_buffer(t)) {
      TensorPtr model;
      for (const Arg& a : args) {
        if (a.kind == Arg::kTensor && is_batched(a.tensor) && (!model || value(a.tensor)->extension))
          model = value(a.tensor);
      }
      adopt(t, model);
      continue;
    }
    raise(
        ErrorKind::kRuntime,
        "vmap: inplace arithmetic(self, *extra_args) is not possible because there exists a Tensor `other` in "
        "extra_args that has more elements than `self`. This happened due to `other` being vmapped over but `self` not being vmapped "
        "over at level ",
        level_, " in ", op.schema.base,
        ". Please try to use out-of-place operators instead of inplace arithmetic. "
        "If said operator is being called inside the PyTorch framework, use new_zeros or new_empty to make `self`.");
  }
}

Results Vmap::call(const OpDef& op, Args args, Form form, std::span<TensorImpl* const>) {
  LOHE_CHECK(form != Form::kOut, "vmap: ", op.schema.base,
             "(out=...) is not supported: out= writes a tensor that is not vmapped over. "
             "Use the form without out=.");
  if (is_dropout(op) && op.primal == nullptr) return dropout(args, form);
  if (is_dropout(op)) return each(op, args, form);  // the forward's mask had an example's positions
  if (is_random(op)) return random(op, args, form);
  if (one_of(op.schema.name, {"_local_scalar_dense", "is_nonzero", "equal", "allclose"})) {
    raise(
        ErrorKind::kRuntime,
        "vmap: It looks like you're attempting to use a Tensor in some data-dependent control flow (",
        op.schema.base,
        " under vmap). We don't support that: the examples of a batch cannot take different ways. Use torch.where().");
  }
  LOHE_CHECK(
      !depends_on_data(op), "vmap: It looks like you called ", op.schema.base,
      ", whose result has a shape that depends on data: "
      "it may differ from example to example, which vmap does not support. Use torch.where() or a mask.");
  if (op.kind == OpKind::kFunction && is_factory(op)) return factory(op, args);
  if (op.schema.base == "empty_like") return factory(op, args);
  check_written(op, args, form);
  if ((op.kind == OpKind::kPointwise || op.schema.base == "copy_") && pointwise_fits(args))
    return pointwise(op, args, form);
  Results results;
  if (op.kind == OpKind::kView) {
    if (view(op, args, form, results)) return results;
  } else if (form == Form::kValue && !op.schema.mutates()) {
    if ((op.kind == OpKind::kComposed || works_on_lines(op)) && along_dim(op, args, results))
      return wrapped(std::move(results));
    if (op.kind == OpKind::kPrimitive && product(op, args, results)) return wrapped(std::move(results));
  }
  return each(op, args, form);
}

// --- rows that make tensors

namespace {

void check_randomness(Randomness mode) {
  LOHE_CHECK(
      mode != Randomness::kError,
      "vmap: called random operation while in randomness error mode. Please either use the "
      "'same' or 'different' randomness flags on vmap or perform the randomness operation out of vmap");
}

}  // namespace

/// A product with an explicit mask, so that its gradient, too, does not ask which positions the mask was made
/// for.
Results Vmap::dropout(Args args, Form form) {
  static const OpRef row("_dropout"), ones("ones"), mul("mul");
  check_randomness(randomness_);
  TensorImpl& t = *args[0].tensor;
  Dims sizes;
  if (randomness_ == Randomness::kDifferent) sizes.push_back(batch_);
  for (const int64_t s : t.sizes()) sizes.push_back(s);
  TensorPtr mask = row(ones(sizes, t.dtype()), args[1], args[2], args[3], args[4]);
  if (randomness_ == Randomness::kDifferent) mask = wrap_batched(std::move(mask), level_);
  // Recorded as any product is: with this transform on the stack again.
  push_interceptor(this);
  struct Pop {
    Vmap* self;
    ~Pop() { pop_interceptor(self); }
  } const pop{this};
  return dispatch::call(mul.op(), std::array{Arg(&t), Arg(mask)}, form);
}

Results Vmap::random(const OpDef& op, Args args, Form form) {
  check_randomness(randomness_);
  bool batched = false;
  for (const Arg& a : args) batched = batched || (a.kind == Arg::kTensor && is_batched(a.tensor));
  const bool writes = form == Form::kInPlace || op.schema.mutates();
  if (randomness_ == Randomness::kSame) {
    if (!batched) return dispatch::call(op, args, form);
    static const OpRef copy("copy_"), select("select.int");
    MappedArgs first(
        args, [&](TensorImpl* t, size_t) { return is_batched(t) ? select(value(t), 0, 0) : TensorPtr(t); });
    if (!writes) {
      LOHE_CHECK(op.schema.base.ends_with("_like"), "vmap: ", op.schema.base,
                 " of a batched tensor with randomness='same' is not "
                 "supported; use randomness='different'");
      return dispatch::call(op, first.args(), form);
    }
    dispatch::call(op, first.args(), form);
    copy(value(args[0].tensor), TensorPtr(first.args()[0].tensor));
    return TensorPtr(args[0].tensor);
  }
  if (writes && args[0].kind == Arg::kTensor && !is_batched(args[0].tensor)) {
    TensorImpl& t = *args[0].tensor;
    LOHE_CHECK(is_fresh_buffer(t),
               "vmap: We do not "
               "support calling out random in-place operations (",
               op.schema.base,
               ") on an unbatched tensor with "
               "randomness='different': it would need a value for each example");
    adopt(t, nullptr);
    batched = true;
  }
  if (batched) {
    bool others = false;
    for (size_t i = 1; i < args.size(); ++i) others = others || args[i].kind == Arg::kTensor;
    if (others || op.schema.base == "multinomial") return each(op, args, form);
    if (!writes && is_factory(op)) {
      MappedArgs whole(args, [&](TensorImpl* t, size_t) { return value(t); });
      return wrapped(dispatch::call(op, whole.args(), form));
    }
    MappedArgs whole(args, [&](TensorImpl* t, size_t) { return value(t); });
    Results r = dispatch::call(op, whole.args(), form);
    return writes ? Results(TensorPtr(args[0].tensor)) : wrapped(std::move(r));
  }
  const int size_at = op.schema.index_of("size");
  if (size_at >= 0 && args[static_cast<size_t>(size_at)].kind == Arg::kInts) {
    Dims sizes{batch_};
    for (const int64_t s : args[static_cast<size_t>(size_at)].int_list()) sizes.push_back(s);
    std::vector<Arg> with_batch(args.begin(), args.end());
    with_batch[static_cast<size_t>(size_at)] = Arg(sizes);
    return wrapped(dispatch::call(op, with_batch, form));
  }
  return each(op, args, form);
}

Results Vmap::factory(const OpDef& op, Args args) {
  std::vector<Arg> with(args.begin(), args.end());
  const TensorPtr model = value(args[0].tensor);
  with[0] = Arg(model);
  if (op.schema.base == "new_empty_strided") return each(op, args, Form::kValue);
  Dims sizes{batch_};
  if (const int at = op.schema.index_of("size"); at >= 0) {
    for (const int64_t s : args[static_cast<size_t>(at)].int_list()) sizes.push_back(s);
    with[static_cast<size_t>(at)] = Arg(sizes);
  }
  return wrapped(dispatch::call(op, with, Form::kValue));
}

// --- rules

/// Zero-dim tensors are weaker in type promotion than others, which the batch dim would hide.
bool Vmap::pointwise_fits(Args args) const {
  Dtype first = Dtype::kUndefined;
  bool zero_dim = false, differ = false;
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensors) return false;
    if (a.kind != Arg::kTensor) continue;
    if (first == Dtype::kUndefined) first = a.tensor->dtype();
    differ = differ || a.tensor->dtype() != first;
    zero_dim = zero_dim || a.tensor->dim() == 0;
  }
  for (const Arg& a : args) zero_dim = zero_dim || (a.is_number() && differ);
  return !(zero_dim && differ);
}

Results Vmap::pointwise(const OpDef& op, Args args, Form form) {
  int64_t rank = 0;
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor) rank = std::max(rank, a.tensor->dim());
  }
  MappedArgs aligned(args, [&](TensorImpl* t, size_t) { return with_rank(t, rank); });
  Results results = dispatch::call(op, aligned.args(), form);
  if (form == Form::kInPlace || op.schema.mutates()) return TensorPtr(args[0].tensor);
  return wrapped(std::move(results));
}

bool Vmap::view(const OpDef& op, Args args, Form form, Results& results) {
  TensorImpl& t = *args[0].tensor;
  const int64_t rank = t.dim();
  const std::string_view base = op.schema.base;
  const OpDef* row = &op;
  std::vector<Arg> with(args.begin(), args.end());
  TensorPtr v = value(&t);
  Dims list;
  if (one_of(base, {"detach", "alias", "_conj", "_neg_view", "view_as_real", "view_as_complex"}) ||
      (op.schema.name == "view.dtype" && rank > 0)) {
    // The batch dim passes through.
  } else if (one_of(base, {"transpose", "swapaxes", "swapdims"}) && rank > 0) {
    for (size_t i = 1; i <= 2; ++i) with[i] = Arg(shifted(args[i].integer, rank, op));
  } else if (base == "t" && rank < 3) {
    static const OpRef transpose("transpose.int"), alias("alias");
    row = rank == 2 ? &transpose.op() : &alias.op();
    with.resize(1);
    if (rank == 2) with.insert(with.end(), {Arg(1), Arg(2)});
  } else if (base == "permute") {
    list.push_back(0);
    for (const int64_t d : args[1].int_list()) list.push_back(shifted(d, rank, op));
    with[1] = Arg(list);
  } else if (one_of(base, {"select", "slice", "unfold"}) && rank > 0) {
    with[1] = Arg(shifted(args[1].integer, rank, op));
  } else if (base == "unsqueeze") {
    with[1] = Arg(shifted(args[1].integer, rank + 1, op));
  } else if (base == "squeeze") {
    static const OpRef squeeze_dims("squeeze.dims");
    row = &squeeze_dims.op();
    with.resize(1);
    if (args.size() == 1) {
      for (int64_t d = 0; d < rank; ++d) list.push_back(d + 1);
    } else if (args[1].kind == Arg::kInt) {
      if (rank > 0) list.push_back(shifted(args[1].integer, rank, op));
    } else {
      for (const int64_t d : args[1].int_list()) {
        if (rank > 0) list.push_back(shifted(d, rank, op));
      }
    }
    with.push_back(Arg(list));
  } else if (base == "expand") {
    const auto sizes = args[1].int_list();
    list.push_back(batch_);
    for (const int64_t s : sizes) list.push_back(s);
    with[1] = Arg(list);
    v = with_rank(&t, static_cast<int64_t>(sizes.size()));
  } else if (op.schema.name == "view") {
    list.push_back(batch_);
    int64_t known = 1;
    for (const int64_t s : args[1].int_list()) known *= s == -1 ? 1 : s;
    for (const int64_t s : args[1].int_list()) {
      LOHE_CHECK(s != -1 || (known != 0 && t.numel() % known == 0), "shape '", to_string(args[1].int_list()),
                 "' is invalid for input of size ", t.numel());
      list.push_back(s == -1 ? t.numel() / known : s);
    }
    with[1] = Arg(list);
  } else if (base == "diagonal" && rank >= 2) {
    for (size_t i = 2; i <= 3; ++i) with[i] = Arg(shifted(args[i].integer, rank, op));
  } else if (one_of(base, {"split", "split_with_sizes", "unbind"}) && rank > 0) {
    const auto at = static_cast<size_t>(op.schema.index_of("dim"));
    with[at] = Arg(shifted(args[at].integer, rank, op));
  } else if (base == "as_strided") {
    // Positions are those of the first example; the others follow at the batch's stride.
    Dims sizes{batch_};
    list.push_back(v->strides()[0]);
    for (const int64_t s : args[1].int_list()) sizes.push_back(s);
    for (const int64_t s : args[2].int_list()) list.push_back(s);
    results = wrapped(dispatch::call(op, std::array{Arg(v), Arg(sizes), Arg(list), args[3]}, Form::kValue));
    results[0]->view_base = t.view_base ? t.view_base : TensorPtr(&t);
    return form == Form::kValue;
  } else {
    return false;
  }
  with[0] = Arg(v);
  if (form == Form::kInPlace) {
    dispatch::call(*row, with, form);
    t.set_view(v->storage_ptr(), v->dtype(), v->sizes().subspan(1), v->strides().subspan(1), v->offset());
    results = Results(TensorPtr(&t));
    return true;
  }
  results = wrapped(dispatch::call(*row, with, form));
  for (int i = 0; op.differentiable && i < results.size(); ++i)
    results[i]->view_base = t.view_base ? t.view_base : TensorPtr(&t);
  return true;
}

bool Vmap::along_dim(const OpDef& op, Args args, Results& results) {
  static const OpRef sum("sum.dim_IntList"), mean("mean.dim");
  const std::string_view name = op.schema.name;
  const int64_t rank = args[0].kind == Arg::kTensor ? args[0].tensor->dim() : 0;
  if (op.primal != nullptr || rank == 0) return false;
  Dims dims;
  if (one_of(name, {"sum", "mean"})) {
    for (int64_t d = 0; d < rank; ++d) dims.push_back(d + 1);
    results = (name == "sum" ? sum : mean).all(value(args[0].tensor), dims, false, args[1]);
    return true;
  }
  if (name == "_native_layer_norm" || name == "_rms_norm") {
    for (size_t i = 1; i < args.size(); ++i) {
      if (args[i].kind == Arg::kTensor && is_batched(args[i].tensor)) return false;
    }
    MappedArgs with(args, [&](TensorImpl* t, size_t) { return value(t); });
    results = dispatch::call(op, with.args());
    return true;
  }
  const int at = op.schema.index_of("dim");
  if (at < 0) {
    if (!one_of(name, {"tril", "triu"}) || rank < 2) return false;
  } else {
    for (size_t i = 1; i < args.size(); ++i) {
      if (args[i].kind == Arg::kTensor || args[i].kind == Arg::kTensors) return false;
    }
  }
  MappedArgs with(args, [&](TensorImpl* t, size_t) { return value(t); });
  if (at >= 0) {
    const Arg& dim = args[static_cast<size_t>(at)];
    const ArgType type = op.schema.params[static_cast<size_t>(at)].type;
    if (type == ArgType::kInts) {
      if (dim.kind == Arg::kInts) {
        for (const int64_t d : dim.int_list()) dims.push_back(shifted(d, rank, op));
      }
      if (dims.empty()) {
        for (int64_t d = 0; d < rank; ++d) dims.push_back(d + 1);
      }
      with.args()[static_cast<size_t>(at)] = Arg(dims);
    } else {
      if (dim.kind != Arg::kInt) return false;
      with.args()[static_cast<size_t>(at)] = Arg(shifted(dim.integer, rank, op));
    }
  }
  results = dispatch::call(op, with.args());
  return true;
}

bool Vmap::product(const OpDef& op, Args args, Results& results) {
  static const OpRef matmul("matmul"), linear("linear"), transpose("transpose.int"), unsqueeze("unsqueeze"),
      squeeze("squeeze.dim"), add("add");
  const std::string_view base = op.schema.base;
  if (base == "mm" || base == "bmm" || base == "_nested_bmm") {
    const int64_t rank = base == "mm" ? 2 : base == "bmm" ? 3 : 4;
    for (size_t i = 0; i < 2; ++i) {
      LOHE_CHECK(args[i].tensor->dim() == rank, base, ": expected ", rank, "-D tensors, got ",
                 args[i].tensor->dim(), "-D under vmap");
    }
    LOHE_CHECK(args[0].tensor->sizes()[static_cast<size_t>(rank - 1)] ==
                       args[1].tensor->sizes()[static_cast<size_t>(rank - 2)] &&
                   (rank == 2 || args[0].tensor->sizes()[0] == args[1].tensor->sizes()[0]),
               base, ": shapes ", to_string(args[0].tensor->sizes()), " and ",
               to_string(args[1].tensor->sizes()), " cannot be multiplied");
    results = matmul(value(args[0].tensor), value(args[1].tensor));
    return true;
  }
  if (base == "linear") {
    TensorImpl *x = args[0].tensor, *w = args[1].tensor,
               *b = args[2].kind == Arg::kTensor ? args[2].tensor : nullptr;
    if (!is_batched(w) && !is_batched(b)) {
      results = linear(value(x), TensorPtr(w), args[2]);
      return true;
    }
    if (w->dim() != 2 || x->dim() == 0) return false;
    TensorPtr in = value(x), weight = transpose(value(w), -1, -2);
    if (x->dim() == 1) in = unsqueeze(in, -2);
    if (is_batched(w)) {
      for (int64_t r = 2; r < x->dim(); ++r) weight = unsqueeze(weight, 1);
    }
    TensorPtr y = matmul(in, weight);
    if (x->dim() == 1) y = squeeze(y, -2);
    if (b != nullptr) y = add(y, with_rank(b, x->dim()));
    results = std::move(y);
    return true;
  }
  if (base == "constant_pad_nd") {
    std::vector<Arg> with(args.begin(), args.end());
    if (args[1].count / 2 > args[0].tensor->dim()) return false;
    const TensorPtr v = value(args[0].tensor);
    with[0] = Arg(v);
    results = dispatch::call(op, with);
    return true;
  }
  if (base == "flip") {
    Dims dims;
    for (const int64_t d : args[1].int_list()) dims.push_back(shifted(d, args[0].tensor->dim(), op));
    results = dispatch::call(op, std::array{Arg(value(args[0].tensor).get()), Arg(dims)});
    return true;
  }
  if (base == "cat") {
    const auto list = args[0].tensor_list();
    for (TensorImpl* t : list) {
      if (t->dim() != list[0]->dim() || t->dim() == 0 || (t->dim() == 1 && t->numel() == 0)) return false;
    }
    MappedArgs with(args, [&](TensorImpl* t, size_t) { return with_batch(t); });
    with.args()[1] = Arg(shifted(args[1].integer, list[0]->dim(), op));
    results = dispatch::call(op, with.args());
    return true;
  }
  return false;
}

/// The general rule: one call for each example.
Results Vmap::each(const OpDef& op, Args args, Form form) {
  static const OpRef select("select.int"), stack("stack");
  LOHE_CHECK(batch_ > 0, "vmap: ", op.schema.base,
             " over a batch of size 0 is not supported: the shape of its result is not known");
  const bool writes = form == Form::kInPlace || op.schema.mutates();
  std::vector<std::vector<TensorPtr>> columns;
  std::vector<TensorPtr> written;
  bool list = false;
  for (int64_t b = 0; b < batch_; ++b) {
    MappedArgs one(
        args, [&](TensorImpl* t, size_t) { return is_batched(t) ? select(value(t), 0, b) : TensorPtr(t); });
    Results r = dispatch::call(op, one.args(), form);
    LOHE_CHECK(!r.is_number(), "vmap: ", op.schema.base,
               " gives a number, which would differ from example to example");
    if (b == 0) columns.resize(static_cast<size_t>(r.size()));
    LOHE_CHECK(columns.size() == static_cast<size_t>(r.size()), "vmap: ", op.schema.base,
               " gives a different number of tensors for "
               "different examples");
    for (int i = 0; i < r.size(); ++i) columns[static_cast<size_t>(i)].push_back(r[i]);
    list = !op.schema.returns.empty() && op.schema.returns[0].type == ArgType::kTensors;
  }
  std::vector<TensorPtr> results;
  for (size_t i = 0; i < columns.size(); ++i) {
    if (writes && form == Form::kInPlace) {
      results.emplace_back(args[0].tensor);
      continue;
    }
    if (writes && i < op.schema.returns.size() && op.schema.returns[i].written) {
      for (size_t p = 0; p < op.schema.params.size(); ++p) {
        if (op.schema.params[p].written && op.schema.params[p].alias == op.schema.returns[i].alias)
          results.emplace_back(args[p].tensor);
      }
      continue;
    }
    if (!columns[i][0]) {
      results.emplace_back();
      continue;
    }
    std::vector<TensorImpl*> column;
    for (const TensorPtr& t : columns[i]) column.push_back(t.get());
    results.push_back(wrap_batched(stack(std::span<TensorImpl* const>(column), 0), level_));
  }
  if (list) return Results(std::move(results));
  Results r;
  for (TensorPtr& t : results) r.push(std::move(t));
  return r;
}

}  // namespace lohe::dispatch
