#include "dispatch/call.h"

#include "autograd/tape.h"
#include "dispatch/execute.h"
#include "dispatch/instance.h"
#include "lohe/error.h"
#include "profile/session.h"
#include "tensor/shape.h"

namespace lohe::dispatch {

using namespace ops;

thread_local uint32_t mode_word __attribute__((tls_model("initial-exec"))) = 0;

namespace {

thread_local std::vector<Interceptor*> interceptors;

Results intercepted(const OpDef& op, Args args, Form form, std::span<TensorImpl* const> out, bool* taken) {
  for (size_t i = interceptors.size(); i-- > 0;) {
    if (!interceptors[i]->wants(op, args)) continue;
    *taken = true;
    Interceptor* chosen = interceptors[i];
    const bool records =
        chosen->records(op) && grad_enabled() && op.kind != OpKind::kFunction && form != Form::kOut;
    const bool in_place = form == Form::kInPlace || op.schema.mutates();
    TensorPtr original;
    if (records && in_place && args[0].kind == Arg::kTensor) {
      autograd::check_inplace(*args[0].tensor, args);
      original = autograd::original_for_gradient(op, args);
    }
    Results results;
    {
      const BelowInterceptor below(chosen);
      results = chosen->call(op, args, form, out);
    }
    if (records) autograd::record(op, args, results, in_place ? Form::kInPlace : form, original);
    return results;
  }
  return {};
}

/// Lazy conjugation and negation are views' business; every other row reads plain values.
bool is_lazy(const TensorImpl* t) { return t != nullptr && (t->conj() || t->neg()); }
bool has_lazy_bits(Args args) {
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor && is_lazy(a.tensor)) return true;
    if (a.kind == Arg::kTensors) {
      for (const TensorImpl* t : a.tensor_list()) {
        if (is_lazy(t)) return true;
      }
    }
  }
  return false;
}

/// The value that a lazy tensor stands for, recorded.
TensorPtr resolve_recorded(TensorImpl* t) {
  static const OpRef conj("_conj"), neg("_neg_view"), physical_conj("_conj_physical"), negative("neg");
  const bool conjugated = t->conj(), negated = t->neg();
  TensorPtr plain(t);
  if (conjugated) plain = conj(plain);
  if (negated) plain = neg(plain);
  if (conjugated) plain = physical_conj(plain);
  return negated ? negative(plain) : plain;
}

TensorPtr resolve_lazy(TensorImpl* t) {
  static const OpRef physical_conj("_conj_physical"), negative("neg");
  // A plain twin of the same memory, then the operation that the bits stood for.
  TensorPtr twin = TensorImpl::make(t->storage_ptr(), t->dtype(), t->sizes(), t->strides(), t->offset());
  if (t->conj()) twin = run_pointwise(physical_conj.op(), std::array{Arg(twin)}, nullptr)[0];
  if (t->neg()) twin = run_pointwise(negative.op(), std::array{Arg(twin)}, nullptr)[0];
  return twin;
}

/// Arguments with every lazy tensor replaced by a plain one, and the call with those.
[[gnu::noinline]] Results call_on_plain_values(const OpDef& op, Args args, Form form,
                                               std::span<TensorImpl* const> out) {
  static const OpRef copy("copy_"), conj("_conj"), neg("_neg_view"), physical_conj("_conj_physical"),
      negative("neg"), clone("clone");
  const bool writes_first = form == Form::kInPlace || (op.schema.mutates() && op.schema.params[0].written);
  if (writes_first && args[0].kind == Arg::kTensor && is_lazy(args[0].tensor)) {
    TensorImpl* target = args[0].tensor;
    if (&op == &copy.op()) {
      // What the plain view of the same memory must hold.
      TensorPtr plain(target), value(args[1].tensor);
      if (is_lazy(value.get())) value = resolve_recorded(value.get());
      if (target->conj()) {
        plain = conj(plain);
        value = physical_conj(value);
      }
      if (target->neg()) {
        plain = neg(plain);
        value = negative(value);
      }
      copy(plain, value);
      return TensorPtr(target);
    }
    // Compute on plain values, then write back through the lazy view.
    std::vector<Arg> on_copy(args.begin(), args.end());
    const TensorPtr value = clone(target);
    on_copy[0] = Arg(value);
    call(op, on_copy, form);
    copy(target, value);
    return TensorPtr(target);
  }
  bool tracked = false;
  for (const Arg& a : args)
    tracked = tracked || (a.kind == Arg::kTensor && autograd::requires_grad(*a.tensor));
  ArgStack plain;
  std::vector<TensorPtr> owned;
  std::vector<std::vector<TensorImpl*>> lists;
  for (size_t i = 0; i < args.size(); ++i) {
    plain.slots[i] = args[i];
    if (args[i].kind == Arg::kTensor && is_lazy(args[i].tensor)) {
      owned.push_back(tracked ? resolve_recorded(args[i].tensor) : resolve_lazy(args[i].tensor));
      plain.slots[i] = Arg(owned.back());
    } else if (args[i].kind == Arg::kTensors) {
      std::vector<TensorImpl*> list;
      for (TensorImpl* t : args[i].tensor_list()) {
        if (is_lazy(t)) owned.push_back(resolve_recorded(t));
        list.push_back(is_lazy(t) ? owned.back().get() : t);
      }
      lists.push_back(std::move(list));
      plain.slots[i] = Arg(std::span<TensorImpl* const>(lists.back()));
    }
  }
  return call(op, Args(plain.slots, args.size()), form, out);
}

/// The in-place form of a view: the tensor itself shows what the view would.
Results change_view(const OpDef& op, Args args) {
  TensorImpl& t = *args[0].tensor;
  const Results viewed = call(op, args, Form::kValue);
  TensorImpl& v = *viewed[0];
  t.set_view(v.storage_ptr(), v.dtype(), v.sizes(), v.strides(), v.offset());
  if (grad_enabled()) autograd::adopt_history(t, v);
  t.bump_version();
  return TensorPtr(&t);
}

void check_out_dtype(const OpDef& op, Dtype result, Dtype out) {
  switch (op.out_dtype) {
    case OutDtype::kSame:
      LOHE_CHECK(result == out, op.schema.base, "(): Expected out tensor to have dtype ", info(result).name,
                 ", but got ", info(out).name, " instead");
      return;
    case OutDtype::kTruth:
      LOHE_CHECK(out == Dtype::kBool || out == Dtype::kUInt8, op.schema.base,
                 "(): Expected out tensor to have dtype bool or uint8, but got ", info(out).name);
      return;
    case OutDtype::kCastable:
    case OutDtype::kCastableType:
    case OutDtype::kGiven:
      if (can_cast(result, out)) return;
      raise(op.out_dtype == OutDtype::kCastableType ? ErrorKind::kType : ErrorKind::kRuntime, "result type ",
            info(result).name, " can't be cast to the desired output type ", info(out).name, " in ",
            op.schema.base, "(out=)");
    case OutDtype::kFloating:
      LOHE_CHECK_KIND(kNotImplemented, is_floating(out), op.schema.base,
                      "(): out= is implemented for floating dtypes, but got ", info(out).name);
      return;
    case OutDtype::kAny:
      return;
  }
}

/// out= of ops that cannot write there directly: the result is copied, the tensor resized where its shape
/// differs.
void copy_to_out(const OpDef& op, Args args, TensorImpl* out, const TensorPtr& value) {
  static const OpRef copy("copy_"), resize("resize_");
  check_out_dtype(op, value->dtype(), out->dtype());
  const bool fits = out->size_dims() == value->size_dims();
  if (op.apart || op.kind == OpKind::kPointwise) {
    // Before anything is resized: the memory that the result will take.
    const TensorPtr written = fits ? TensorPtr(out)
                                   : TensorImpl::make(out->storage_ptr(), out->dtype(), value->sizes(),
                                                      contiguous_strides(value->sizes()), out->offset());
    check_written_memory(op, args, *written, !op.apart, out);
  }
  if (!fits) {
    resize(out, value->sizes());
    // Memory that was laid out for this result has its layout.
    if (op.kind != OpKind::kFunction && out->stride_dims() != value->stride_dims() &&
        is_non_overlapping_and_dense(value->sizes(), value->strides())) {
      out->set_view(out->storage_ptr(), out->dtype(), out->sizes(), value->strides(), out->offset());
    }
  }
  copy(out, value);
}

/// Whether a pointwise op can write its one result where out= asks for it: of its dtype and shape.
bool takes_result(const OpDef& op, Args args, TensorImpl& out) {
  if (op.kind != OpKind::kPointwise || op.apart || op.out_dtype == OutDtype::kFloating || out.conj() ||
      out.neg())
    return false;
  const Instance& instance = find_instance(op, args, nullptr, Dtype::kUndefined);
  if (instance.outputs.size() != 1 || instance.outputs[0] != out.dtype() || instance.result != out.dtype())
    return false;
  Dims sizes;
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor) sizes = broadcast_shapes(sizes, a.tensor->sizes());
  }
  return sizes == out.size_dims();
}

Results execute(const OpDef& op, Args args, TensorImpl* target) {
  switch (op.kind) {
    case OpKind::kPointwise:
      return run_pointwise(op, args, target);
    case OpKind::kComposed:
      return run_composed(op, args);
    case OpKind::kView:
      return run_view(op, args);
    case OpKind::kPrimitive:
      return run_primitive(op, args);
    case OpKind::kFunction:
      return op.call(args);
  }
  return {};
}

/// A result that nobody else has seen counts the writes from now on, however many its making took.
void count_from_here(Results& results) {
  for (int i = 0; i < results.size(); ++i) {
    const TensorPtr& t = results[i];
    if (!t || t->storage().holders() != 1 || t.use_count() > 2) continue;
    const Watcher* const watcher = t.unique() ? nullptr : current_watcher();
    if (t.unique() || (watcher != nullptr && watcher->holds(*t)))
      t->version().value.store(0, std::memory_order_relaxed);
  }
}

}  // namespace

void push_interceptor(Interceptor* interceptor) {
  tell_watcher("a function transform or a mode takes its calls");
  interceptors.push_back(interceptor);
  mode_word |= kIntercepted;
}

void pop_interceptor(Interceptor* interceptor) {
  LOHE_INTERNAL_ASSERT(!interceptors.empty() && interceptors.back() == interceptor,
                       "interceptors are popped in reverse order");
  remove_interceptor(interceptor);
}

void remove_interceptor(Interceptor* interceptor) {
  std::erase(interceptors, interceptor);
  if (interceptors.empty()) mode_word &= ~kIntercepted;
}

BelowInterceptor::BelowInterceptor(Interceptor* interceptor) : saved_(interceptors), mode_(mode_word) {
  while (!interceptors.empty()) {
    const bool found = interceptors.back() == interceptor;
    interceptors.pop_back();
    if (found) break;
  }
  if (interceptors.empty()) mode_word &= ~kIntercepted;
}

BelowInterceptor::~BelowInterceptor() {
  interceptors = std::move(saved_);
  mode_word = (mode_word & ~kIntercepted) | (mode_ & kIntercepted);
}

namespace {

/// `out` is a reference so that all arguments are in registers.
Results call_unprofiled(const OpDef& op, Args args, Form form, const std::span<TensorImpl* const>& out);

[[gnu::noinline]] Results call_profiled(const OpDef& op, Args args, Form form,
                                        std::span<TensorImpl* const> out) {
  profile::Session* session = profile::current();
  const profile::Scope scope(session, profile::Event::kOp, [&] {
    return "aten::" + std::string(op.schema.base) + (form == Form::kInPlace ? "_" : "");
  });
  if (session != nullptr && session->shapes()) {
    for (const Arg& a : args) {
      if (a.kind == Arg::kTensor && a.tensor != nullptr)
        session->event(scope.number())
            .shapes.emplace_back(a.tensor->sizes().begin(), a.tensor->sizes().end());
    }
  }
  return call_unprofiled(op, args, form, out);
}

}  // namespace

Results call(const OpDef& op, Args args, Form form, std::span<TensorImpl* const> out) {
  if ((mode_word & kProfiling) != 0) [[unlikely]]
    return call_profiled(op, args, form, out);
  return call_unprofiled(op, args, form, out);
}

namespace {

// Functions of their own, so that their one variable is built where the caller wants it.

Results call_function(const OpDef& op, Args args) {
  Results results = op.call(args);
  count_from_here(results);
  return results;
}

Results call_for_value(const OpDef& op, Args args) {
  // 3. Result rule, kernel, run.
  Results results = execute(op, args, nullptr);
  if (op.kind == OpKind::kPrimitive) count_from_here(results);
  // 4. Tape.
  if (grad_enabled()) {
    autograd::record(op, args, results, Form::kValue);
  } else if ((mode_word & kInference) != 0) {
    for (int i = 0; i < results.size(); ++i) {
      if (results[i]) results[i]->inference = true;
    }
  }
  return results;
}

Results call_unprofiled(const OpDef& op, Args args, Form form, const std::span<TensorImpl* const>& out) {
  // 1. Modes.
  if ((mode_word & kIntercepted) != 0) [[unlikely]] {
    bool taken = false;
    Results r = intercepted(op, args, form, out, &taken);
    if (taken) return r;
  }
  // 2. What the row itself demands of its arguments.
  if (op.checks) op.checks(op, args);
  // Functions call other rows; those have kernels and gradients.
  if (op.kind == OpKind::kFunction && form == Form::kValue && !op.gradient) return call_function(op, args);

  if (op.kind != OpKind::kView && op.kind != OpKind::kFunction && has_lazy_bits(args)) [[unlikely]] {
    return call_on_plain_values(op, args, form, out);
  }

  if (form == Form::kValue && !op.schema.mutates()) [[likely]]
    return call_for_value(op, args);
  if (form == Form::kOut) {
    for (TensorImpl* t : out) {
      LOHE_CHECK(!grad_enabled() || !t->requires_grad, op.schema.base,
                 "(): functions with out=... arguments don't support automatic "
                 "differentiation, but one of the arguments requires grad.");
    }
    for (const Arg& a : args) {
      LOHE_CHECK(
          !(grad_enabled() && a.kind == Arg::kTensor && a.tensor->requires_grad), op.schema.base,
          "(): functions with out=... arguments don't support automatic differentiation, but one of the arguments requires grad.");
    }
    const autograd::GradModeGuard no_grad(false);
    // New tensors are made in the dtype of the given one, and some reductions compute in it.
    ArgStack typed;
    const int dtype = op.schema.index_of("dtype");
    const bool made_new = dtype >= 0 && op.schema.index_of("device") >= 0;
    if ((made_new || op.out_dtype == OutDtype::kGiven) && !out.empty()) {
      const Arg& asked = args[static_cast<size_t>(dtype)];
      LOHE_CHECK(asked.none() || asked.dtype == out[0]->dtype(), "dtype ",
                 info(asked.none() ? kFloat32 : asked.dtype).name, " does not match dtype of out parameter (",
                 info(out[0]->dtype()).name, ")");
      std::copy(args.begin(), args.end(), typed.slots);
      typed.slots[dtype] = Arg(out[0]->dtype());
      args = Args(typed.slots, args.size());
      if (op.checks) op.checks(op, args);
    }
    if (out.size() == 1 && takes_result(op, args, *out[0])) {
      check_written_memory(op, args, *out[0], true, out[0]);
      run_pointwise(op, args, out[0]);
      out[0]->bump_version();
      return TensorPtr(out[0]);
    }
    Results value = execute(op, args, nullptr);
    for (int i = 0; i < value.size() && i < static_cast<int>(out.size()); ++i) {
      copy_to_out(op, args, out[static_cast<size_t>(i)], value[i]);
      value[i] = TensorPtr(out[static_cast<size_t>(i)]);
    }
    return value;
  }
  // In place: the row's own `(a!)` argument, or the first one of a derived form.
  TensorImpl* target = args[0].tensor;
  if (form == Form::kInPlace) {
    LOHE_CHECK_TYPE(args[0].kind == Arg::kTensor, op.schema.base, "_: the first argument must be a tensor");
    autograd::check_inplace(*target, args);
    if (op.kind == OpKind::kView) return change_view(op, args);
    if (op.kind == OpKind::kPointwise) {
      const TensorPtr original = grad_enabled() ? autograd::original_for_gradient(op, args) : TensorPtr();
      Results results = execute(op, args, target);
      target->bump_version();
      if (grad_enabled()) autograd::record(op, args, results, form, original);
      return results;
    }
    static const OpRef copy("copy_");
    ArgStack changed;
    std::copy(args.begin(), args.end(), changed.slots);
    if (op.out_dtype == OutDtype::kGiven && op.schema.index_of("dtype") >= 0) {
      Arg& dtype = changed.slots[static_cast<size_t>(op.schema.index_of("dtype"))];
      LOHE_CHECK(dtype.none() || dtype.dtype == target->dtype(), op.schema.base,
                 "_: expected a tensor of dtype ", info(dtype.none() ? target->dtype() : dtype.dtype).name,
                 ", but got ", info(target->dtype()).name);
      dtype = Arg(target->dtype());
    }
    // The gradient reads what the write below destroys.
    const TensorPtr original = grad_enabled() ? autograd::original_for_gradient(op, args) : TensorPtr();
    if (original) changed.slots[0] = Arg(original);
    args = Args(changed.slots, args.size());
    const Results value = call(op, args, Form::kValue);
    LOHE_CHECK(value[0]->size_dims() == target->size_dims(), op.schema.base, "_: the result of shape ",
               to_string(value[0]->sizes()), " does not fit the written tensor of shape ",
               to_string(target->sizes()));
    LOHE_CHECK(can_cast(value[0]->dtype(), target->dtype()), "result type ", info(value[0]->dtype()).name,
               " can't be cast to the desired output type ", info(target->dtype()).name);
    copy(target, value[0]);
    return TensorPtr(target);
  }
  for (size_t p = 0; p < op.schema.params.size(); ++p) {
    if (!op.schema.params[p].written) continue;
    if (args[p].kind == Arg::kTensor) autograd::check_inplace(*args[p].tensor, args);
    if (args[p].kind == Arg::kTensors) {
      for (TensorImpl* t : args[p].tensor_list()) {
        if (t != nullptr) autograd::check_inplace(*t, args);
      }
    }
  }
  Results results;
  if (op.kind == OpKind::kFunction) {
    results = op.call(args);  // its calls do the book-keeping
    return results;
  }
  const bool first_written = op.schema.params[0].written && args[0].kind == Arg::kTensor;
  const TensorPtr original =
      grad_enabled() && first_written ? autograd::original_for_gradient(op, args) : TensorPtr();
  results = execute(op, args, op.kind == OpKind::kPointwise ? target : nullptr);
  for (size_t p = 0; p < op.schema.params.size(); ++p) {
    if (!op.schema.params[p].written) continue;
    if (args[p].kind == Arg::kTensor) args[p].tensor->bump_version();
    if (args[p].kind == Arg::kTensors) {
      for (TensorImpl* t : args[p].tensor_list()) {
        if (t != nullptr) t->bump_version();
      }
    }
  }
  if (grad_enabled()) autograd::record(op, args, results, Form::kInPlace, original);
  return results;
}

}  // namespace

}  // namespace lohe::dispatch
