#include "dispatch/execute.h"

#include <algorithm>
#include <optional>

#include "autograd/tape.h"
#include "base/inline_vector.h"
#include "dispatch/instance.h"
#include "lohe/error.h"
#include "record/recorder.h"
#include "tensor/shape.h"

namespace lohe::dispatch {

using namespace ops;

namespace {

constexpr size_t kMostOperands = 16;  ///< of a pointwise row

/// What a tensor of this geometry needs from its first element on.
int64_t bytes_of(std::span<const int64_t> sizes, std::span<const int64_t> strides, Dtype dtype) {
  int64_t bytes = 0, last = 0;
  const int64_t numel = numel_of(sizes);
  LOHE_CHECK(!__builtin_mul_overflow(numel, itemsize(dtype), &bytes),
             "Storage size calculation overflowed with sizes=", to_string(sizes));
  for (size_t i = 0; i < sizes.size(); ++i) last += (sizes[i] - 1) * strides[i];
  return numel == 0 ? 0 : (last + 1) * itemsize(dtype);
}

}  // namespace

TensorPtr empty(std::span<const int64_t> sizes, Dtype dtype) {
  int64_t bytes = 0;
  LOHE_CHECK(!__builtin_mul_overflow(numel_of(sizes), itemsize(dtype), &bytes),
             "Storage size calculation overflowed with sizes=", to_string(sizes));
  return TensorImpl::make_contiguous(Storage::allocate(bytes), dtype, sizes);
}

TensorPtr empty_strided(std::span<const int64_t> sizes, std::span<const int64_t> strides, Dtype dtype) {
  return TensorImpl::make(Storage::allocate(bytes_of(sizes, strides, dtype)), dtype, sizes, strides, 0);
}

namespace {

bool same_sizes(const TensorImpl& a, const TensorImpl& b) { return a.size_dims() == b.size_dims(); }

enum class Overlap {
  kNone,
  kWhole,    ///< one view
  kPart,     ///< two blocks that intersect
  kPerhaps,  ///< views with gaps, in one range of memory
};

/// What two tensors share. As in PyTorch, views with gaps are not looked through, but for those of one shape.
Overlap overlap(const TensorImpl& a, const TensorImpl& b) {
  if (&a.storage() != &b.storage() || a.numel() == 0 || b.numel() == 0) return Overlap::kNone;
  const auto extent = [](const TensorImpl& x) {
    int64_t last = 0;
    for (size_t i = 0; i < x.sizes().size(); ++i) last += (x.sizes()[i] - 1) * x.strides()[i];
    return std::pair{x.offset() * x.itemsize(), (x.offset() + last + 1) * x.itemsize()};
  };
  const auto [a0, a1] = extent(a);
  const auto [b0, b1] = extent(b);
  if (a0 >= b1 || b0 >= a1) return Overlap::kNone;
  const bool alike = same_sizes(a, b) && a.stride_dims() == b.stride_dims() && a.dtype() == b.dtype();
  if (alike && a.offset() == b.offset()) return Overlap::kWhole;
  if (is_non_overlapping_and_dense(a.sizes(), a.strides()) &&
      is_non_overlapping_and_dense(b.sizes(), b.strides()))
    return Overlap::kPart;
  if (!alike) return Overlap::kPerhaps;
  // The two are one view with a dim more.
  Dims sizes = a.size_dims(), strides = a.stride_dims();
  sizes.push_back(2);
  strides.push_back(std::abs(a.offset() - b.offset()));
  return may_overlap(sizes, strides) ? Overlap::kPerhaps : Overlap::kNone;
}

/// Copies of the arguments that a call which writes `target` may write to before it has read them; `safe` is
/// set to the arguments with those.
InlineVector<TensorPtr, 2> safe_copies(const OpDef& op, Args args, const TensorImpl& target, ArgStack& safe) {
  static const OpRef clone("clone");
  const autograd::GradModeGuard no_grad(false);
  InlineVector<TensorPtr, 2> copies;
  for (size_t i = 0; i < args.size(); ++i) {
    safe.slots[i] = args[i];
    const bool read =
        args[i].kind == Arg::kTensor && args[i].tensor != &target && !op.schema.params[i].written;
    if (!read || overlap(*args[i].tensor, target) != Overlap::kPerhaps) continue;
    copies.push_back(clone(args[i].tensor));
    safe.slots[i] = Arg(copies.back());
  }
  return copies;
}

/// The target of an in-place form: its dtype takes the result, its shape is the result's.
void check_target(const OpDef& op, Args args, const TensorImpl& target, Dtype result,
                  std::span<const int64_t> sizes, bool one_value) {
  LOHE_CHECK(op.promotion != Promotion::kReal || !is_complex(target.dtype()), "In-place ", op.schema.base,
             " is not supported for complex tensors: its results are real; use the form without _");
  LOHE_CHECK(can_cast(result, target.dtype()), "result type ", info(result).name,
             " can't be cast to the desired output type ", info(target.dtype()).name, " in ", op.schema.base,
             "_; convert the written tensor, or cast the result");
  LOHE_CHECK(std::equal(sizes.begin(), sizes.end(), target.sizes().begin(), target.sizes().end()),
             "output with shape ", to_string(target.sizes()), " doesn't match the broadcast shape ",
             to_string(sizes), " in ", op.schema.base, "_");
  check_written_memory(op, args, target, true, nullptr, one_value);
}

/// The numbers that the instance's program takes.
inline InlineVector<Scalar, 8> numbers_for(const Instance& instance, Args args) {
  InlineVector<Scalar, 8> numbers;
  for (const int p : instance.scalars) numbers.emplace_back(args[static_cast<size_t>(p)].scalar());
  return numbers;
}

/// A result; its memory is promised where the work on it is recorded. Strides empty: row-major.
TensorPtr new_tensor(std::span<const int64_t> sizes, std::span<const int64_t> strides, Dtype dtype,
                     record::Recorder* recorder) {
  if (recorder == nullptr)
    return strides.empty() ? empty(sizes, dtype) : empty_strided(sizes, strides, dtype);
  const Dims dense = strides.empty() ? contiguous_strides(sizes) : Dims(strides);
  return TensorImpl::make(recorder->promise(bytes_of(sizes, dense, dtype)), dtype, sizes, dense, 0);
}

/// Before bytes are written at once: work on them that is recorded is done, and so is what that put off.
void settle_for_write(const TensorImpl& t) {
  t.storage().data();
  t.storage().before_write();
}

/// Runs a program, or writes down that it is to be run.
void launch(compiler::Program& program, const compiler::Space& space, std::span<const compiler::Place> places,
            size_t inputs, std::span<const Scalar> numbers, record::Recorder* recorder) {
  if (recorder != nullptr) return recorder->add(program, space, places, inputs, numbers);
  InlineVector<compiler::Binding, 8> bound;
  for (const compiler::Place& p : places) bound.push_back({p.tensor->data(), p.strides});
  const std::span<const compiler::Binding> all = bound;
  program.run(space, all.first(inputs), all.subspan(inputs), numbers);
}

}  // namespace

void check_written_memory(const OpDef& op, Args args, const TensorImpl& target, bool whole_overlap,
                          const TensorImpl* resized, bool one_value) {
  LOHE_CHECK(
      one_value || !may_overlap(target.sizes(), target.strides()),
      "unsupported operation: more than one element of the written-to "
      "tensor refers to a single memory location. Please clone() the tensor before performing the operation.");
  LOHE_CHECK(target.storage().writable(), op.schema.base,
             ": the memory of the written tensor is read-only; clone() it first");
  const auto check = [&](const TensorImpl& t) {
    const Overlap found = overlap(t, target);
    LOHE_CHECK(found == Overlap::kNone ? &t != resized : whole_overlap && found != Overlap::kPart,
               "unsupported operation: some elements of the input tensor and the written-to tensor refer "
               "to a single memory location. Please clone() the tensor before performing the operation.");
  };
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor && !(whole_overlap && (a.tensor == &target || a.tensor == resized)))
      check(*a.tensor);
    if (a.kind == Arg::kTensors) {
      for (const TensorImpl* t : a.tensor_list()) {
        if (t != nullptr) check(*t);
      }
    }
  }
}

/// What result `o` of a row with several `(a!)` parameters is written to: the o-th of them.
TensorImpl* written_argument(const OpDef& op, Args args, TensorImpl* target, size_t o) {
  if (target == nullptr || o == 0) return target;
  for (size_t p = 0; p < args.size(); ++p) {
    if (op.schema.params[p].written && o-- == 0) return args[p].tensor;
  }
  LOHE_INTERNAL_ASSERT(false, op.schema.name, " writes fewer arguments than it has results");
  return nullptr;
}

namespace {

/// Whether all tensors are row-major and of the first one's shape (null: there is none).
bool of_one_dense_shape(Args args, const TensorImpl** first) {
  bool dense = true;
  for (const Arg& a : args) {
    if (a.kind != Arg::kTensor) continue;
    const TensorImpl& t = *a.tensor;
    if (*first == nullptr) *first = &t;
    dense = dense && t.contiguous() && same_sizes(t, **first);
  }
  return dense;
}

/// New results from row-major operands of one shape, `like`'s: the usual case, and the fast one.
Results run_dense(const OpDef& op, Args args, const TensorImpl& like) {
  const Instance& instance = find_instance(op, args, nullptr, Dtype::kUndefined);
  const InlineVector<Scalar, 8> numbers = numbers_for(instance, args);
  const size_t inputs = instance.tensors.size(), outputs = instance.outputs.size();
  const bool any = like.numel() > 0;
  TensorImpl* tensors[kMostOperands];
  for (size_t i = 0; i < inputs; ++i) tensors[i] = args[static_cast<size_t>(instance.tensors[i])].tensor;
  const std::span<TensorImpl* const> read(tensors, inputs);
  if (record::Recorder* recorder = any ? record::recorder_for(read) : nullptr)
    return recorder->add_new(*instance.program, read, instance.outputs, like, numbers);
  Results results;
  char* pointers[kMostOperands];
  for (size_t i = 0; any && i < inputs; ++i) pointers[i] = tensors[i]->data();
  for (size_t o = 0; o < outputs; ++o) {
    results.push(empty(like.sizes(), instance.outputs[o]));
    if (any) pointers[inputs + o] = results[static_cast<int>(o)]->data();
  }
  const size_t operands = inputs + outputs;
  if (any) instance.program->run_flat(like.numel(), {pointers, operands}, (1u << operands) - 1, numbers);
  return results;
}

}  // namespace

Results run_pointwise(const OpDef& op, Args args, TensorImpl* target) {
  if (target != nullptr) {
    const bool shares = std::any_of(args.begin(), args.end(), [&](const Arg& a) {
      return a.kind == Arg::kTensor && a.tensor != target && &a.tensor->storage() == &target->storage();
    });
    ArgStack safe;
    if (shares) {
      if (const auto copies = safe_copies(op, args, *target, safe); !copies.empty())
        return run_pointwise(op, Args(safe.slots, args.size()), target);
    }
  }
  const TensorImpl* first = nullptr;
  bool flat = of_one_dense_shape(args, &first);
  if (target == nullptr && flat && first != nullptr) return run_dense(op, args, *first);
  if (target != nullptr)
    flat = flat && target->contiguous() && (first == nullptr || same_sizes(*target, *first));
  Dims sizes;
  if (first != nullptr) {
    sizes = first->size_dims();
    if (!flat) {
      for (const Arg& a : args) {
        if (a.kind == Arg::kTensor) sizes = broadcast_shapes(sizes, a.tensor->sizes());
      }
    }
  }
  const Instance& instance =
      find_instance(op, args, nullptr, target != nullptr ? target->dtype() : Dtype::kUndefined);
  if (target != nullptr) {
    for (size_t o = 0; o < instance.outputs.size(); ++o) {
      check_target(op, args, *written_argument(op, args, target, o), instance.result, sizes,
                   instance.output_spaces[o] == 0);
    }
  }

  const InlineVector<Scalar, 8> numbers = numbers_for(instance, args);
  const size_t inputs = instance.tensors.size(), outputs = instance.outputs.size();
  Results results;
  record::Recorder* recorder = record::recorder_for(args);
  std::optional<Unwatched> known;
  if (target != nullptr && recorder != nullptr && recorder->observed() &&
      recorder->write_aside(op, args, *target,
                            [](const OpDef& o, Args again, TensorImpl& t) { run_pointwise(o, again, &t); })) {
    recorder = nullptr;
    known.emplace();
  }
  if (target != nullptr && recorder == nullptr) {
    for (size_t o = 0; o < outputs; ++o) settle_for_write(*written_argument(op, args, target, o));
  }
  if (flat && recorder == nullptr) {
    char* pointers[kMostOperands];
    uint32_t moves = 0;
    const int64_t n = first != nullptr ? first->numel() : 1;
    for (size_t i = 0; i < inputs; ++i) {
      pointers[i] = args[static_cast<size_t>(instance.tensors[i])].tensor->data();
      moves |= 1u << i;
    }
    for (size_t o = 0; o < outputs; ++o) {
      if (target != nullptr) {
        results.push(TensorPtr(written_argument(op, args, target, o)));
      } else {
        results.push(empty(sizes, instance.outputs[o]));
      }
      pointers[inputs + o] = results[static_cast<int>(o)]->data();
      moves |= 1u << (inputs + o);
    }
    if (n > 0) instance.program->run_flat(n, {pointers, inputs + outputs}, moves, numbers);
    return results;
  }
  if (flat && target != nullptr && first != nullptr && first->numel() > 0) {
    InlineVector<TensorImpl*, 8> tensors;
    for (size_t i = 0; i < inputs; ++i)
      tensors.push_back(args[static_cast<size_t>(instance.tensors[i])].tensor);
    for (size_t o = 0; o < outputs; ++o) {
      results.push(TensorPtr(written_argument(op, args, target, o)));
      tensors.push_back(results[static_cast<int>(o)].get());
    }
    recorder->add_list(*instance.program, 1, tensors, inputs, numbers);
    return results;
  }
  InlineVector<compiler::Place, 8> places;
  InlineVector<std::span<const int64_t>, 4> order;
  for (size_t i = 0; i < inputs; ++i) {
    TensorImpl* t = args[static_cast<size_t>(instance.tensors[i])].tensor;
    places.push_back({t, broadcast_strides(t->sizes(), t->strides(), sizes)});
  }
  for (size_t i = 0; i < inputs; ++i) order.push_back(places[i].strides);
  for (size_t o = 0; o < outputs; ++o) {
    TensorPtr r = target != nullptr ? TensorPtr(written_argument(op, args, target, o))
                  : flat
                      ? new_tensor(sizes, {}, instance.outputs[o], recorder)
                      : new_tensor(sizes, elementwise_strides(sizes, order), instance.outputs[o], recorder);
    results.push(std::move(r));
  }
  for (int o = 0; o < results.size(); ++o) places.push_back({results[o].get(), Dims(results[o]->strides())});
  compiler::Space space;
  space.sizes = sizes;
  space.groups.resize(sizes.size(), ir::kOuter);
  if (numel_of(sizes) > 0) launch(*instance.program, space, places, inputs, numbers, recorder);
  return results;
}

Results run_composed(const OpDef& op, Args args) {
  const Domain domain = op.domain(op, args);
  const size_t rank = domain.sizes.size();
  ir::Space all = 0;
  for (size_t d = 0; d < rank; ++d) all |= domain.groups[d];
  SmallVector<ir::Space, 32> spaces(args.size());
  InlineVector<compiler::Place, 12> bindings(args.size());
  record::Recorder* const recorder = record::recorder_for(args);
  for (size_t i = 0; i < args.size(); ++i) {
    if (args[i].kind != Arg::kTensor) continue;
    const TensorImpl& t = *args[i].tensor;
    Dims strides(rank);
    ir::Space space = 0;
    const bool mapped = i < domain.dims_of.size() && !(domain.dims_of[i].empty() && t.dim() != 0);
    LOHE_CHECK(mapped || static_cast<size_t>(t.dim()) <= rank, op.schema.base, ": argument '",
               op.schema.params[i].name, "' of shape ", to_string(t.sizes()), " has more dims than ",
               to_string(domain.sizes));
    for (size_t d = 0; d < static_cast<size_t>(t.dim()); ++d) {
      const int64_t at =
          mapped ? domain.dims_of[i][d] : static_cast<int64_t>(rank) - t.dim() + static_cast<int64_t>(d);
      if (at < 0) {
        continue;
      }
      const auto k = static_cast<size_t>(at);
      LOHE_CHECK(t.sizes()[d] == domain.sizes[k] || t.sizes()[d] == 1, op.schema.base, ": argument '",
                 op.schema.params[i].name, "' of shape ", to_string(t.sizes()), " does not fit ",
                 to_string(domain.sizes), " at dim ", at);
      strides[k] = t.sizes()[d] == 1 ? 0 : t.strides()[d];
      space |= domain.groups[k];
    }
    spaces[i] = space;
    bindings[i] = {args[i].tensor, std::move(strides)};
  }
  const Instance& instance = find_instance(op, args, spaces.data(), Dtype::kUndefined);
  const InlineVector<Scalar, 8> numbers = numbers_for(instance, args);

  const int keep_at = op.schema.index_of("keepdim");
  const bool keepdim = keep_at >= 0 && args[static_cast<size_t>(keep_at)].kind == Arg::kBool &&
                       args[static_cast<size_t>(keep_at)].integer != 0;
  std::vector<Meta> metas;
  if (op.results) metas = op.results(op, args, domain, instance.result);
  InlineVector<compiler::Place, 8> places;
  for (const int p : instance.tensors) places.push_back(bindings[static_cast<size_t>(p)]);
  Results results;
  for (size_t o = 0; o < instance.outputs.size(); ++o) {
    const ir::Space space = instance.output_spaces[o];
    Dims sizes, strides_in_space(rank);
    TensorPtr t;
    if (!metas.empty()) {
      t = new_tensor(metas[o].sizes, metas[o].strides, instance.outputs[o], recorder);
      sizes = metas[o].sizes;
    } else {
      for (size_t d = 0; d < rank; ++d) {
        const bool varies = (domain.groups[d] & space) != 0 || (domain.groups[d] & all & ir::kOuter) != 0;
        if (varies)
          sizes.push_back(domain.sizes[d]);
        else if (keepdim)
          sizes.push_back(1);
      }
      if (op.strides == Strides::kElementwise) {
        Dims lead;
        for (size_t d = 0; d < rank; ++d) {
          const bool varies = (domain.groups[d] & space) != 0 || (domain.groups[d] & all & ir::kOuter) != 0;
          if (varies || keepdim) lead.push_back(varies ? bindings[0].strides[d] : 0);
        }
        const std::span<const int64_t> operand(lead);
        t = new_tensor(sizes, elementwise_strides(sizes, {&operand, 1}), instance.outputs[o], recorder);
      } else {
        t = new_tensor(sizes, {}, instance.outputs[o], recorder);
      }
    }
    // Where the result's dims lie in the space: as the row says, by position, or those that the value spans,
    // in order.
    if (!metas.empty() && !metas[o].dims.empty()) {
      for (size_t k = 0; k < sizes.size(); ++k) {
        if (metas[o].dims[k] >= 0) strides_in_space[static_cast<size_t>(metas[o].dims[k])] = t->strides()[k];
      }
    } else if (sizes.size() == rank) {
      for (size_t d = 0; d < rank; ++d)
        strides_in_space[d] = sizes[d] == domain.sizes[d] ? t->strides()[d] : 0;
    } else {
      size_t at = 0;
      for (size_t d = 0; d < rank; ++d) {
        const bool varies =
            (domain.groups[d] & space) != 0 || (metas.empty() && (domain.groups[d] & all & ir::kOuter) != 0);
        if (!varies) continue;
        while (at < sizes.size() && sizes[at] != domain.sizes[d]) ++at;
        LOHE_INTERNAL_ASSERT(at < sizes.size(), op.schema.name, ": result ", o, " does not follow its space");
        strides_in_space[d] = t->strides()[at++];
      }
    }
    places.push_back({t.get(), std::move(strides_in_space)});
    results.push(std::move(t));
  }
  compiler::Space space;
  space.sizes = domain.sizes;
  space.groups = domain.groups;
  bool empty_result = true;
  for (int o = 0; o < results.size(); ++o) empty_result = empty_result && results[o]->numel() == 0;
  if (!empty_result) launch(*instance.program, space, places, instance.tensors.size(), numbers, recorder);
  return results;
}

TensorPtr make_view(TensorImpl& base, const ViewSpec& spec) {
  const Dtype dtype = spec.dtype == Dtype::kUndefined ? base.dtype() : spec.dtype;
  TensorPtr t = TensorImpl::make(base.storage_ptr(), dtype, spec.sizes, spec.strides, spec.offset);
  t->share_version(base);
  t->set_conj(spec.conj);
  t->set_neg(spec.neg);
  t->view_base = base.view_base ? base.view_base : TensorPtr(&base);
  if (!grad_enabled() && t->view_base->requires_grad) [[unlikely]]
    autograd::note_unrecorded_view(*t);
  return t;
}

Results run_view(const OpDef& op, Args args) {
  if (op.view) {
    TensorPtr t = make_view(*args[0].tensor, op.view(args));
    if (!op.differentiable) t->view_base = nullptr;  // no history is shared: writes to it are nobody else's
    return t;
  }
  std::vector<TensorPtr> list;
  for (const ViewSpec& spec : op.views(args)) list.push_back(make_view(*args[0].tensor, spec));
  return Results(std::move(list));
}

/// Whether the parts of a recorded primitive are worth records of their own: a record takes as long as
/// copying some thousand numbers.
bool worth_parts(const OpDef& op, Args args, const Results& results) {
  constexpr int64_t kFewParts = 8, kManyNumbers = 16384;
  return op.by_ops && (args[0].kind != Arg::kTensors || args[0].count <= kFewParts) &&
         results[0]->numel() >= kManyNumbers;
}

Results run_primitive(const OpDef& op, Args args) {
  Results results;
  const bool at_once = op.by_values && ((mode_word & kRecording) == 0 || op.by_values(args));
  const bool inferred = op.infer && !at_once;
  record::Recorder* const recorder = inferred ? record::recorder_for(args) : nullptr;
  if (inferred) {
    for (const Meta& m : op.infer(args)) results.push(new_tensor(m.sizes, m.strides, m.dtype, recorder));
  }
  if (recorder != nullptr && !op.unfilled && !worth_parts(op, args, results)) {
    recorder->add_call(op, args, results);
    return op.schema.mutates() ? Results(TensorPtr(args[0].tensor)) : results;
  }
  for (size_t p = 0; op.schema.mutates() && p < args.size(); ++p) {
    if (!op.schema.params[p].written) continue;
    if (args[p].kind == Arg::kTensor) settle_for_write(*args[p].tensor);
    if (args[p].kind != Arg::kTensors) continue;
    for (const TensorImpl* t : args[p].tensor_list()) {
      if (t != nullptr) settle_for_write(*t);
    }
  }
  op.run(args, results);
  return results;
}

}  // namespace lohe::dispatch
