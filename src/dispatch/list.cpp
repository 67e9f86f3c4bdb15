#include <algorithm>
#include <bit>

#include "autograd/tape.h"
#include "base/inline_vector.h"
#include "dispatch/execute.h"
#include "dispatch/instance.h"
#include "record/recorder.h"

/// One row over lists of tensors.
namespace lohe::dispatch {

using namespace ops;

namespace {

/// A set of storages, with who writes them.
class Uses {
 public:
  explicit Uses(size_t most) : slots_(std::bit_ceil(2 * most + 1)) {}
  /// @return false where one use of the storage is a write and it has another one
  bool add(const Storage& storage, bool written) {
    const size_t mask = slots_.size() - 1;
    const auto address = reinterpret_cast<uintptr_t>(&storage);
    size_t at = (address >> 4 ^ address >> 13) & mask;
    for (; slots_[at].storage != nullptr; at = (at + 1) & mask) {
      if (slots_[at].storage == &storage) return !written && !slots_[at].written;
    }
    slots_[at] = {&storage, written};
    return true;
  }

 private:
  struct Slot {
    const Storage* storage = nullptr;
    bool written = false;
  };
  std::vector<Slot> slots_;
};

/// Calls of one pointwise row whose tensors are dense, of the dtypes of the first call's, and apart from
/// those of the other calls.
class ListCall {
 public:
  ListCall(const OpDef& op, Args args, size_t count, Form form)
      : op_(op), args_(args), count_(count), params_(args.size() / count), form_(form) {}

  /// @return false, with nothing done, where the calls have to be made one by one
  bool run() {
    if (count_ < 2 || op_.kind != OpKind::kPointwise || grad_enabled() ||
        (mode_word & (kIntercepted | kProfiling)) != 0 || !find_written() || !alike())
      return false;
    for (size_t s = 0; s < count_ && op_.checks; ++s) op_.checks(op_, set(s));
    const bool recording = (mode_word & kRecording) != 0;
    record::Recorder* recorder = recording ? record::recorder_of(args_) : nullptr;
    // Single numbers that are known are computed at once.
    if (recording && recorder == nullptr && !single_numbers_) return false;
    TensorImpl* target = args_[written_[0]].tensor;
    const Instance& instance = find_instance(op_, set(0), nullptr, target->dtype());
    if (instance.outputs.size() != written_.size()) return false;
    for (const size_t p : written_) {
      if (!can_cast(instance.result, args_[p].tensor->dtype())) return false;
    }
    if (!same_attributes(instance)) return false;
    for (size_t s = 0; s < count_; ++s) {
      for (const size_t p : written_) autograd::check_inplace(*set(s)[p].tensor, set(s));
    }
    std::vector<Scalar> numbers;
    numbers.reserve(count_ * instance.scalars.size());
    for (size_t s = 0; s < count_; ++s) {
      for (const int p : instance.scalars) numbers.push_back(set(s)[static_cast<size_t>(p)].scalar());
    }
    if (recorder != nullptr) {
      std::vector<TensorImpl*> tensors;
      tensors.reserve(count_ * (instance.tensors.size() + written_.size()));
      each_operand(instance, [&](TensorImpl* t) { tensors.push_back(t); });
      recorder->add_list(*instance.program, count_, tensors, instance.tensors.size(), numbers);
    } else {
      std::vector<char*> pointers;
      pointers.reserve(count_ * (instance.tensors.size() + written_.size()));
      each_operand(instance, [&](TensorImpl* t) { pointers.push_back(t->data()); });
      for (size_t s = 0; s < count_; ++s) {
        for (const size_t p : written_) set(s)[p].tensor->storage().before_write();
      }
      std::vector<int64_t> counts;
      counts.reserve(count_);
      for (size_t s = 0; s < count_; ++s) counts.push_back(set(s)[written_[0]].tensor->numel());
      instance.program->run_flat_list(counts, pointers, numbers);
    }
    for (size_t s = 0; s < count_; ++s) {
      for (const size_t p : written_) set(s)[p].tensor->bump_version();
    }
    return true;
  }

 private:
  Args set(size_t s) const { return args_.subspan(s * params_, params_); }

  bool find_written() {
    if (form_ == Form::kInPlace) {
      written_.push_back(0);
    } else {
      for (size_t p = 0; p < params_; ++p) {
        if (op_.schema.params[p].written) written_.push_back(p);
      }
    }
    return !written_.empty() && std::all_of(written_.begin(), written_.end(),
                                            [&](size_t p) { return args_[p].kind == Arg::kTensor; });
  }

  bool alike() {
    Uses uses(args_.size());
    const Args first = set(0);
    for (size_t s = 0; s < count_; ++s) {
      const Args args = set(s);
      const TensorImpl& target = *args[written_[0]].tensor;
      if (target.numel() == 0) return false;
      single_numbers_ = single_numbers_ && target.numel() == 1;
      for (size_t p = 0; p < params_; ++p) {
        const Arg &a = args[p], &b = first[p];
        if (a.kind != b.kind) return false;
        if (a.kind == Arg::kFloat || a.kind == Arg::kNone) continue;
        // Attributes make programs of their own.
        if (a.kind == Arg::kBool || a.kind == Arg::kInt) {
          if (a.integer != b.integer) return false;
          continue;
        }
        if (a.kind != Arg::kTensor) return false;
        const TensorImpl& t = *a.tensor;
        const bool written = std::find(written_.begin(), written_.end(), p) != written_.end();
        if (!t.contiguous() || t.conj() || t.neg() || t.extension || t.wrapped_number || t.inference ||
            t.dtype() != b.tensor->dtype() || t.size_dims() != target.size_dims() ||
            (written && !t.storage().writable()) || !uses.add(t.storage(), written))
          return false;
      }
    }
    return true;
  }

  /// Whether only numbers that the program takes at run time differ.
  bool same_attributes(const Instance& instance) const {
    for (size_t p = 0; p < params_; ++p) {
      const auto at_run_time = [&](int scalar) { return static_cast<size_t>(scalar) == p; };
      if (args_[p].kind != Arg::kFloat ||
          std::any_of(instance.scalars.begin(), instance.scalars.end(), at_run_time))
        continue;
      for (size_t s = 1; s < count_; ++s) {
        if (set(s)[p].integer != args_[p].integer) return false;
      }
    }
    return true;
  }

  /// Of set after set: inputs, then what is written.
  void each_operand(const Instance& instance, auto&& f) const {
    for (size_t s = 0; s < count_; ++s) {
      for (const int p : instance.tensors) f(set(s)[static_cast<size_t>(p)].tensor);
      for (const size_t p : written_) f(set(s)[p].tensor);
    }
  }

  const OpDef& op_;
  Args args_;
  size_t count_, params_;
  Form form_;
  InlineVector<size_t, 4> written_;  ///< parameters
  bool single_numbers_ = true;
};

}  // namespace

void call_each(const OpDef& op, Args args, size_t count, Form form) {
  if (count == 0 || ListCall(op, args, count, form).run()) return;
  const size_t params = args.size() / count;
  for (size_t s = 0; s < count; ++s) call(op, args.subspan(s * params, params), form);
}

}  // namespace lohe::dispatch
