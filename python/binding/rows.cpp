#include "binding/tensor.h"
#include "ops/op_def.h"

/// Calls from the binding's own code into the op table.
namespace lohe::python {
namespace {

/// About 20 microseconds of elementwise work; below it, handing the interpreter over costs more than it
/// gives.
constexpr int64_t kGilGrain = 16384;

bool is_large(Args args) {
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor) {
      if (a.tensor->numel() > kGilGrain) return true;
    } else if (a.kind == Arg::kTensors) {
      int64_t total = 0;
      for (const TensorImpl* t : a.tensor_list()) total += t == nullptr ? 0 : t->numel();
      if (total > kGilGrain) return true;
    }
  }
  return false;
}

}  // namespace

Results run_op(const ops::OpDef& op, Args args, dispatch::Form form, std::span<TensorImpl* const> out) {
  if (!is_large(args)) [[likely]]
    return dispatch::call(op, args, form, out);
  const WithoutGil without;
  return dispatch::call(op, args, form, out);
}

Results call_row_all(std::string_view name, std::initializer_list<Arg> given, dispatch::Form form) {
  const ops::OpDef* op = ops::find_op_or_null(name);
  if (op == nullptr) raise(ErrorKind::kNotImplemented, "the op '", name, "' is not implemented");
  dispatch::ArgStack args;
  size_t n = 0;
  for (const Arg& a : given) args.slots[n++] = a;
  for (; n < op->schema.params.size(); ++n) args.slots[n] = op->schema.params[n].default_value;
  return run_op(*op, Args(args.slots, n), form);
}

TensorPtr call_row(std::string_view name, std::initializer_list<Arg> args) {
  return call_row_all(name, args)[0];
}

TensorPtr data_alias(TensorImpl* t) {
  if (Watcher* watcher = watcher_of_this_thread()) watcher->uses(*t);
  TensorPtr alias = TensorImpl::make(t->storage_ptr(), t->dtype(), t->sizes(), t->strides(), t->offset());
  alias->set_conj(t->conj());
  alias->set_neg(t->neg());
  alias->fresh_version();
  return alias;
}

TensorPtr materialized(TensorPtr t) {
  if (t->conj()) t = call_row("resolve_conj", {Arg(t.get())});
  if (t->neg()) t = call_row("resolve_neg", {Arg(t.get())});
  return t;
}

TensorPtr cast(const TensorPtr& t, Dtype dtype) {
  if (t->dtype() == dtype) return t;
  static const char* const row = ops::find_op_or_null("to.dtype") != nullptr ? "to.dtype" : "_to_copy";
  const ops::OpDef* op = ops::find_op_or_null(row);
  if (op == nullptr) raise(ErrorKind::kNotImplemented, "the op 'to.dtype' is not implemented");
  Arg args[64];
  for (size_t i = 0; i < op->schema.params.size(); ++i) args[i] = op->schema.params[i].default_value;
  args[0] = Arg(t.get());
  args[static_cast<size_t>(op->schema.index_of("dtype"))] = Arg(dtype);
  return run_op(*op, Args(args, op->schema.params.size()))[0];
}

}  // namespace lohe::python
