#include "record/observer.h"

#include <algorithm>
#include <bit>

#include "autograd/tape.h"
#include "record/recorder.h"

namespace lohe::record {
namespace {

std::atomic<uint64_t> current_epoch{0};

constexpr const char* kUnseenDraw = "it draws random numbers in an operation that is not part of a program";

enum Flag : uint32_t {
  kRequiresGrad = 1,
  kConj = 2,
  kNeg = 4,
  kInference = 8,
  kWrappedNumber = 16,
  kExposed = 32,
  kWritable = 64,
  kView = 128,
  kOwnVersion = 256,
  kMayNotBeWritten = 512,
  kExtension = 1024,
  kHooks = 2048,
};

uint32_t flags_of(TensorImpl& t) {
  const Storage& s = t.storage();
  // While gradients are recorded, a view may need one since its base was written.
  const bool grad =
      t.requires_grad || (t.view_base && dispatch::grad_enabled() && autograd::requires_grad(t));
  const autograd::GradMeta* meta = autograd::meta_or_null(t);
  return (grad ? kRequiresGrad : 0u) | (t.conj() ? kConj : 0u) | (t.neg() ? kNeg : 0u) |
         (t.inference ? kInference : 0u) | (t.wrapped_number ? kWrappedNumber : 0u) |
         (s.exposed() ? kExposed : 0u) | (s.writable() ? kWritable : 0u) | (t.view_base ? kView : 0u) |
         (&t.version() != &s.version ? kOwnVersion : 0u) |
         (meta != nullptr && meta->origin != autograd::ViewOrigin::kOne ? kMayNotBeWritten : 0u) |
         (t.extension ? kExtension : 0u) |
         (meta != nullptr && meta->hooks &&
                  !(meta->hooks->gradient.empty() && meta->hooks->post_accumulate.empty())
              ? kHooks
              : 0u);
}

}  // namespace

bool Aside::same_as(const Aside& o) const {
  const auto same_arg = [](const Arg& a, const Arg& b) {
    return a.kind == b.kind && (a.kind == Arg::kTensor || a.kind == Arg::kNone || a.integer == b.integer);
  };
  return op == o.op && target.get() == o.target.get() && redo == o.redo &&
         std::equal(args.begin(), args.end(), o.args.begin(), o.args.end(), same_arg);
}

bool TraceNumbers::same_as(const TraceNumbers& o) const {
  const auto same_source = [](const TensorPtr& a, const TensorPtr& b) { return a.get() == b.get(); };
  const auto same_bits = [](double a, double b) {
    return std::bit_cast<uint64_t>(a) == std::bit_cast<uint64_t>(b);
  };
  return function == o.function && numbers == o.numbers && after == o.after &&
         std::equal(sources.begin(), sources.end(), o.sources.begin(), o.sources.end(), same_source) &&
         std::equal(constants.begin(), constants.end(), o.constants.begin(), o.constants.end(), same_bits);
}

TensorImpl* grad_of(const TensorImpl& t) {
  const autograd::GradMeta* meta = autograd::meta_or_null(t);
  return meta == nullptr ? nullptr : meta->grad.get();
}

TensorFacts::TensorFacts(TensorImpl& t)
    : sizes(t.size_dims()),
      strides(t.stride_dims()),
      offset(t.offset()),
      nbytes(t.storage().nbytes()),
      flags(flags_of(t)),
      dtype(t.dtype()) {}

bool TensorFacts::hold_for(TensorImpl& t) const {
  return dtype == t.dtype() && offset == t.offset() && sizes == t.size_dims() && strides == t.stride_dims() &&
         nbytes == t.storage().nbytes() && flags == flags_of(t);
}

Modes Modes::now() {
  return {dispatch::mode_word, lohe::default_dtype(), current_epoch.load(std::memory_order_relaxed)};
}

void forget_replays() { ++current_epoch; }

Signature::Signature(std::span<TensorImpl* const> arguments) : modes_(Modes::now()) {
  for (size_t i = 0; i < arguments.size(); ++i) {
    facts_.emplace_back(*arguments[i]);
    ties_.push_back(ties(arguments, i));
  }
}

Signature::Ties Signature::ties(std::span<TensorImpl* const> arguments, size_t i) {
  const auto first = [&](auto&& same) {
    uint32_t at = 0;
    while (at < i && !same(*arguments[at])) ++at;
    return at;
  };
  TensorImpl& t = *arguments[i];
  return {first([&](TensorImpl& o) { return &o == &t; }),
          first([&](TensorImpl& o) { return &o.storage() == &t.storage(); }),
          first([&](TensorImpl& o) { return &o.version() == &t.version(); })};
}

bool Signature::holds_for(std::span<TensorImpl* const> arguments) const {
  if (arguments.size() != facts_.size() || modes_ != Modes::now()) return false;
  for (size_t i = 0; i < arguments.size(); ++i) {
    if (!facts_[i].hold_for(*arguments[i])) return false;
  }
  for (size_t i = 1; i < arguments.size(); ++i) {
    if (ties(arguments, i) != ties_[i]) return false;
  }
  return true;
}

Observer::Use::Use(TensorImpl& t)
    : tensor(&t),
      facts(t),
      storage(&t.storage()),
      version(t.version().value.load(std::memory_order_relaxed)),
      generation(t.storage().generation.load(std::memory_order_relaxed)),
      grad(grad_of(t)) {
  if (grad != nullptr) grad_facts.emplace(*grad_of(t));
}

bool Observer::Use::holds() const { return facts.hold_for(*tensor) && storage == &tensor->storage(); }

Observer::Observer(std::span<TensorImpl* const> arguments) : arguments_(arguments.size()) {
  for (TensorImpl* t : arguments) {
    numbers_.try_emplace(t, uses_.size());
    uses_.emplace_back(*t);
  }
}

void Observer::start() {
  started_ = watching_ = true;
  thread_ = std::this_thread::get_id();
  first_node_ = autograd::new_sequence();
  outer_ = set_watcher(this);
  if (outer_ != nullptr) outer_->note("it calls another function that is to be replayed");
  Recorder::of_this_thread().set_observer(this);
}

void Observer::refuse(std::string reason) {
  if (reason_.empty()) reason_ = std::move(reason);
}

void Observer::note(const char* what) {
  if (watching_ && reason_.empty()) reason_ = what;
}

void Observer::uses(TensorImpl& t) {
  // What the call makes is left alone: one more reference to it would show.
  if (!watching_ || numbers_.contains(&t) || Recorder::of_this_thread().makes(t.storage())) return;
  numbers_[&t] = uses_.size();
  uses_.emplace_back(t);
  if (t.extension) refuse("a function transform works on its tensors");
}

void Observer::replaces_gradient(TensorImpl& t) {
  uses(t);
  if (const auto known = numbers_.find(&t); watching_ && known != numbers_.end())
    uses_[known->second].grad_replaced = true;
}

void Observer::differentiates(uint64_t sequence) {
  if (watching_ && sequence < first_node_) refuse("a backward pass goes into calls that were made before it");
}

void Observer::follows(const NumberRule& rule) {
  if (!watching_) return;
  for (TensorImpl* t : rule.sources) uses(*t);
  rules_.push_back({{}, {rule.constants.begin(), rule.constants.end()}, {}, rule.function, asides_.size()});
  for (TensorImpl* t : rule.sources) rules_.back().sources.emplace_back(t);
  rules_.back().numbers.assign(rule.numbers.begin(), rule.numbers.end());
  rule_age_ = 0;
}

void Observer::draws(int64_t seed, int64_t offset, int64_t counters) {
  if (watching_ && counters > 0) draws_.push_back({seed, offset, counters, {}});
}

void Observer::note_draw(const ops::OpDef& op, Args args) {
  if (drawing_ >= 0) refuse(kUnseenDraw);
  drawing_ = -1;
  const int at = op.schema.index_of("seed");
  if (at < 0 || op.kind == ops::OpKind::kFunction) return;
  const auto seed = static_cast<size_t>(at);
  for (size_t d = draws_.size(); d-- > 0 && drawing_ < 0;) {
    if (draws_[d].seed == args[seed].integer && draws_[d].offset == args[seed + 1].integer)
      drawing_ = static_cast<int>(d);
  }
  const bool nothing = args[0].kind == Arg::kTensor && args[0].tensor->numel() == 0;
  if (drawing_ < 0 && !nothing) refuse("it works with random numbers that were drawn before the call");
}

bool Observer::write_aside(Aside aside) {
  if (!watching_ || drawing_ >= 0 || allocated_.contains(&aside.target->storage())) return false;
  asides_.push_back(std::move(aside));
  return true;
}

void Observer::recorded(const compiler::TraceRecord& record) {
  if (!watching_) return;
  if (drawing_ >= 0) {
    draws_[static_cast<size_t>(drawing_)].numbers.push_back(record.scalar + record.scalars - 2);
    drawing_ = -1;
  }
  if (rule_age_ < 0) return;
  for (int32_t& number : rules_.back().numbers) number += record.scalar;
  rule_age_ = -1;
}

void Observer::calls(const ops::OpDef& op, Args args) {
  if (!watching_) return;
  note_draw(op, args);
  // A call without work, of tensors without elements, left no record.
  if (rule_age_ >= 0 && rule_age_++ > 0) {
    rules_.pop_back();
    rule_age_ = -1;
  }
  const auto look = [&](TensorImpl* t) {
    if (t != nullptr) uses(*t);
  };
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor) look(a.tensor);
    if (a.kind == Arg::kTensors) {
      for (TensorImpl* t : a.tensor_list()) look(t);
    }
  }
}

Observer::~Observer() {
  stop();
  if (started_) Recorder::of_this_thread().set_observer(nullptr);
}

void Observer::stop() {
  if (!watching_.exchange(false)) return;
  set_watcher(outer_);
  if (early_) refuse("its work is done before it returns");
  if (disturbed_) refuse("another thread has its work done before it returns");
  if (rule_age_ >= 0) rules_.pop_back();
  if (drawing_ >= 0 ||
      std::any_of(draws_.begin(), draws_.end(), [](const TraceDraw& d) { return d.numbers.empty(); }))
    refuse(kUnseenDraw);
  if (const Modes now = Modes::now();
      (now.word | dispatch::kRecording) != (modes_.word | dispatch::kRecording) ||
      now.default_dtype != modes_.default_dtype)
    refuse("it changes a mode (recording of gradients, default dtype) and leaves it changed");
  // What nobody else holds was made on the way. A view is met after what it is a view of.
  for (size_t i = uses_.size(); i-- > arguments_;) {
    if (uses_[i].tensor.unique()) uses_[i].tensor.reset();
  }
  uses_.erase(std::remove_if(uses_.begin() + static_cast<ptrdiff_t>(arguments_), uses_.end(),
                             [](const Use& u) { return !u.tensor; }),
              uses_.end());
  numbers_.clear();
}

void Observer::settled(const compiler::Trace& trace, const Storages& storages,
                       const std::shared_ptr<const compiler::CompiledTrace>& program) {
  if (watching_ && std::this_thread::get_id() != thread_) disturbed_ = true;
  // A program that leaves values to the tape has made a node.
  if ((watching_ && !disturbed_) || (program && !program->recipes.empty())) early_ = true;
  if (early_ || disturbed_) return;
  trace_ = trace;
  program_ = program;
  for (const TraceDraw& d : draws_) {
    for (const int32_t n : d.numbers) {
      const auto number = static_cast<size_t>(n);
      if (n < 0 || number + 1 >= trace.scalars.size() || trace.scalars[number].to_int() != d.seed ||
          trace.scalars[number + 1].to_int() != d.offset)
        refuse(kUnseenDraw);
    }
  }
  for (size_t s = 0; s < storages.size(); ++s) {
    storages_.push_back(storages[s].get());
    const bool made = trace.storages[s].fresh || allocated_.contains(storages[s].get());
    inputs_.push_back(made ? nullptr : storages[s]);
  }
}

}  // namespace lohe::record
