#include "record/replay.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <mutex>

#include "autograd/tape.h"
#include "base/fork.h"
#include "base/inline_vector.h"
#include "lohe/error.h"
#include "lohe/generator.h"
#include "record/cache.h"
#include "record/locks.h"

namespace lohe::record {
namespace {

/// Memory of so many bytes comes with the step that first needs it.
constexpr int64_t kLate = 1 << 16;

/// Equal in every bit: numbers go into results as they are.
bool same_number(const Scalar& a, const Scalar& b) {
  if (a.kind() != b.kind()) return false;
  if (a.is_integral()) return a.to_int() == b.to_int();
  const auto bits = [](double v) { return std::bit_cast<uint64_t>(v); };
  return bits(a.to_double()) == bits(b.to_double()) && bits(a.imag()) == bits(b.imag());
}

/// Tensors that replays keep, by address.
struct KeptTensors {
  static KeptTensors& global() {
    static auto* kept = new KeptTensors;  // threads may end after main()
    return *kept;
  }
  std::mutex mutex;
  std::unordered_map<const TensorImpl*, std::weak_ptr<const TensorPtr>> by_address;
};

}  // namespace

Replay::Kept Replay::keep(const TensorPtr& tensor) {
  KeptTensors& all = KeptTensors::global();
  const ForkSection section;
  const std::lock_guard lock(all.mutex);
  std::weak_ptr<const TensorPtr>& known = all.by_address[tensor.get()];
  if (Kept kept = known.lock()) return kept;
  Kept kept(new TensorPtr(tensor), [](const TensorPtr* last) {
    KeptTensors& kept_tensors = KeptTensors::global();
    {
      const ForkSection forgetting;
      const std::lock_guard its_lock(kept_tensors.mutex);
      const auto found = kept_tensors.by_address.find(last->get());
      if (found != kept_tensors.by_address.end() && found->second.expired())
        kept_tensors.by_address.erase(found);
    }
    delete last;
  });
  known = kept;
  return kept;
}

/// Makes a Replay of what an observer saw.
class Replay::Maker {
 public:
  Maker(Observer& observer, std::span<TensorImpl* const> results)
      : seen_(observer), given_(results), made_(std::make_shared<Replay>()) {}

  std::shared_ptr<const Replay> make() {
    Replay& r = *made_;
    r.arguments_ = seen_.arguments_;
    if (seen_.trace_) r.trace_ = std::move(*seen_.trace_);
    r.program_ = seen_.program_;
    const bool fine = seen_.reason_.empty() && sort_uses() && find_sources() && find_gradients() &&
                      describe_results() && describe_gradients() && keep_to_itself() && number_asides() &&
                      count_writes();
    if (!fine) return nullptr;
    for (size_t u = r.arguments_; u < seen_.uses_.size(); ++u) {
      const Observer::Use& use = seen_.uses_[u];
      r.implicit_.push_back({keep(use.tensor), use.facts, use.storage, fact_of(use)});
      r.implicit_storages_.push_back(use.storage);
    }
    std::sort(r.implicit_storages_.begin(), r.implicit_storages_.end());
    for (size_t a = 0; a < r.arguments_; ++a) {
      const Observer::Use& use = seen_.uses_[a];
      r.shared_.push_back(r.among_implicit(use.storage) ? use.storage : nullptr);
      r.grads_.push_back(fact_of(use));
    }
    return made_;
  }

 private:
  bool refuse(std::string reason) {
    seen_.refuse(std::move(reason));
    return false;
  }
  bool is_result(const TensorImpl* t) const {
    return std::find(given_.begin(), given_.end(), t) != given_.end();
  }
  static GradFact fact_of(const Observer::Use& use) {
    if (!use.grad_replaced) return {use.grad, false, {}};
    return {nullptr, true, use.grad_facts};
  }
  bool is_argument(const TensorImpl* t) const { return argument(t) >= 0; }
  int32_t argument(const TensorImpl* t) const {
    for (size_t a = 0; a < seen_.arguments_; ++a) {
      if (seen_.uses_[a].tensor.get() == t) return static_cast<int32_t>(a);
    }
    return -1;
  }
  /// Whether a storage of the trace was made in the call: by the trace, or as memory for it to fill.
  bool made_inside(size_t s) const {
    return made_->trace_.storages[s].fresh || seen_.allocated_.contains(seen_.storages_[s]);
  }
  /// The number of a storage in the trace, if the call made it; else -1.
  int32_t fresh(const Storage* s) const {
    for (size_t i = 0; i < seen_.storages_.size(); ++i) {
      if (seen_.storages_[i] == s && made_inside(i)) return static_cast<int32_t>(i);
    }
    return -1;
  }
  uint32_t views_among_results(const TensorImpl* base) const {
    uint32_t count = 0;
    for (size_t i = 0; i < given_.size(); ++i) {
      const bool first = std::find(given_.begin(), given_.begin() + static_cast<ptrdiff_t>(i), given_[i]) ==
                         given_.begin() + static_cast<ptrdiff_t>(i);
      count += first && given_[i]->view_base.get() == base ? 1 : 0;
    }
    return count;
  }
  /// The source whose memory this is; -1: nobody's.
  int32_t source_of(const Storage* s) const {
    for (size_t u = 0; u < seen_.uses_.size(); ++u) {
      if (seen_.uses_[u].storage == s) return static_cast<int32_t>(u);
    }
    return -1;
  }

  /// Leaves the arguments and what was there before the call among the uses.
  bool sort_uses() {
    std::vector<Observer::Use>& uses = seen_.uses_;
    const auto made_inside = [&](Observer::Use& u) {
      const TensorImpl* t = u.tensor.get();
      if (is_argument(t)) return false;
      return is_result(t) || fresh(&t->storage()) >= 0 ||
             u.tensor.use_count() == 1 + views_among_results(t);  // what a result is a view of
    };
    uses.erase(
        std::remove_if(uses.begin() + static_cast<ptrdiff_t>(seen_.arguments_), uses.end(), made_inside),
        uses.end());
    for (const Observer::Use& u : uses) {
      if (!u.holds())
        return refuse("it changes what a tensor from outside shows, its gradient, or whether it needs one");
    }
    return true;
  }

  bool find_sources() {
    const compiler::Trace& trace = made_->trace_;
    for (size_t s = 0; s < trace.storages.size(); ++s) {
      const int32_t source = made_inside(s) ? -1 : source_of(seen_.storages_[s]);
      if (source < 0 && !made_inside(s))
        return refuse(
            "it works on memory that belongs neither to an argument nor to a tensor that outlives the call");
      made_->sources_.push_back(source);
    }
    made_->written_.resize(trace.storages.size());
    for (const compiler::TraceRecord& r : trace.records) {
      for (const compiler::TraceOperand& o : trace.outputs(r)) note_write(o);
      // Calls may write what they are given.
      for (const compiler::TraceOperand& o : trace.inputs(r)) {
        if (r.program == nullptr) note_write(o);
      }
    }
    return true;
  }

  void note_write(const compiler::TraceOperand& o) {
    if (o.storage >= 0) made_->written_[static_cast<size_t>(o.storage)] = true;
  }

  /// The gradients that the call replaces.
  bool find_gradients() {
    for (size_t u = 0; u < seen_.uses_.size(); ++u) {
      const Observer::Use& use = seen_.uses_[u];
      if (!use.grad_replaced) continue;
      TensorImpl* after = grad_of(*use.tensor);
      made_->grad_writes_.push_back({static_cast<int32_t>(u), -1});
      if (after != nullptr) ++slots_[after];
    }
    return true;
  }

  bool describe_gradients() {
    for (GradWrite& w : made_->grad_writes_) {
      TensorImpl* after = grad_of(*seen_.uses_[static_cast<size_t>(w.source)].tensor);
      if (after == nullptr) continue;
      w.recipe = recipe_of(after, is_result(after));
      if (w.recipe < 0) return false;
    }
    return true;
  }

  /// What is done aside, and numbers that follow from others, work on what outlives the call.
  bool number_asides() {
    for (Aside& a : seen_.asides_) {
      const int32_t target = source_tensor(a.target.get());
      if (target < 0) return refuse("it changes a number that does not outlive the call");
      made_->aside_targets_.push_back(target);
      made_->asides_.push_back(std::move(a));
    }
    for (TraceNumbers& rule : seen_.rules_) {
      std::vector<int32_t>& numbers = made_->rule_sources_.emplace_back();
      for (const TensorPtr& t : rule.sources) {
        numbers.push_back(source_tensor(t.get()));
        if (numbers.back() < 0) return refuse("its numbers follow from one that does not outlive the call");
      }
      made_->rules_.push_back(std::move(rule));
    }
    made_->draws_ = std::move(seen_.draws_);
    // The tensors themselves are among the sources.
    for (Aside& a : made_->asides_) a.target.reset();
    for (TraceNumbers& rule : made_->rules_) rule.sources.clear();
    return true;
  }

  int32_t source_tensor(const TensorImpl* t) const {
    for (size_t u = 0; u < seen_.uses_.size(); ++u) {
      if (seen_.uses_[u].tensor.get() == t) return static_cast<int32_t>(u);
    }
    return -1;
  }

  bool describe_results() {
    for (TensorImpl* t : given_) {
      const int32_t recipe = recipe_of(t, true);
      if (recipe < 0) return false;
      made_->results_.push_back(recipe);
    }
    return true;
  }

  /// @return the recipe of `t`; -1: refused
  int32_t recipe_of(TensorImpl* t, bool result) {
    if (const auto known = recipes_.find(t); known != recipes_.end()) return known->second;
    Recipe r;
    r.argument = argument(t);
    if (r.argument < 0) {
      if (t->requires_grad || t->autograd || t->extension) {
        refuse(result ? "a result needs a gradient, or is a view of what does; return its detach()"
                      : "a gradient that it makes needs one itself");
        return -1;
      }
      // The caller's reference, and those of its views among the results.
      const auto slots = slots_.find(t);
      const uint32_t holders =
          (result ? 1 : 0) + views_among_results(t) + (slots != slots_.end() ? slots->second : 0);
      if (t->use_count() != holders) {
        refuse(result ? "a result is also kept elsewhere"
                      : "a gradient that it makes is also kept elsewhere");
        return -1;
      }
      Storage& storage = t->storage();
      r.storage = new_storage(storage);
      if (r.storage < 0) r.source = source_of(&storage);
      if (r.storage < 0 && r.source < 0) {
        refuse("a result lies in memory that it neither made nor was given");
        return -1;
      }
      if (t->view_base) {
        TensorImpl* base = t->view_base.get();
        for (size_t u = 0; u < seen_.uses_.size() && r.source_base < 0; ++u) {
          if (seen_.uses_[u].tensor.get() == base) r.source_base = static_cast<int32_t>(u);
        }
        if (r.source_base < 0) {
          r.base = recipe_of(base, is_result(base));
          if (r.base < 0) return -1;
        }
      }
      if (&t->version() != &storage.version) {
        for (size_t u = 0; u < seen_.uses_.size() && r.version_source < 0; ++u) {
          if (&seen_.uses_[u].tensor->version() == &t->version()) r.version_source = static_cast<int32_t>(u);
        }
        if (r.version_source < 0) {
          refuse("a result counts its writes apart from its memory (.data)");
          return -1;
        }
      } else if (r.storage >= 0) {
        r.version = t->version().value.load(std::memory_order_relaxed);
      }
      r.dtype = t->dtype();
      r.conj = t->conj();
      r.neg = t->neg();
      r.inference = t->inference;
      r.wrapped_number = t->wrapped_number;
      r.offset = t->offset();
      r.sizes = t->size_dims();
      r.strides = t->stride_dims();
    }
    const auto number = static_cast<int32_t>(made_->recipes_.size());
    made_->recipes_.push_back(std::move(r));
    recipes_[t] = number;
    return number;
  }

  /// Counts the tensors on new memory. @return its number; -1: the memory was there before
  int32_t new_storage(const Storage& s) {
    int32_t number = fresh(&s);
    if (number < 0 && s.nbytes() == 0 && source_of(&s) < 0) {
      const auto known = std::find(empty_.begin(), empty_.end(), &s);
      number =
          static_cast<int32_t>(made_->trace_.storages.size()) + static_cast<int32_t>(known - empty_.begin());
      if (known == empty_.end()) empty_.push_back(&s);
      made_->empty_storages_ = empty_.size();
    }
    if (number >= 0) ++holders_[&s];
    return number;
  }

  /// What the call made must be in its results only: nobody would make it anew in a replay.
  bool keep_to_itself() {
    for (size_t s = 0; s < seen_.storages_.size(); ++s) {
      const compiler::TraceStorage& t = made_->trace_.storages[s];
      if (made_inside(s) && t.observed && !holders_.contains(seen_.storages_[s]))
        return refuse("it keeps a tensor that it makes in some place besides its results");
    }
    for (const auto& [storage, holders] : holders_) {
      if (storage->use_count() != holders) return refuse("the memory of a result is also kept elsewhere");
    }
    return true;
  }

  bool count_writes() {
    std::vector<const void*> counted;
    const auto first = [&](const void* p) {
      if (std::find(counted.begin(), counted.end(), p) != counted.end()) return false;
      counted.push_back(p);
      return true;
    };
    for (size_t u = 0; u < seen_.uses_.size(); ++u) {
      const Observer::Use& use = seen_.uses_[u];
      Version& version = use.tensor->version();
      Write w;
      w.source = static_cast<uint32_t>(u);
      if (first(&version)) w.versions = version.value.load(std::memory_order_relaxed) - use.version;
      if (first(use.storage))
        w.generations = use.tensor->storage().generation.load(std::memory_order_relaxed) - use.generation;
      if (w.versions != 0 || w.generations != 0) made_->writes_.push_back(w);
    }
    return true;
  }

  Observer& seen_;
  std::span<TensorImpl* const> given_;
  std::shared_ptr<Replay> made_;
  std::unordered_map<const TensorImpl*, int32_t> recipes_;
  std::unordered_map<const TensorImpl*, uint32_t> slots_;  ///< as whose gradients they are held
  std::unordered_map<const Storage*, uint32_t> holders_;   ///< of new memory: results and their bases
  std::vector<const Storage*> empty_;                      ///< of results without elements
};

std::shared_ptr<const Replay> Replay::make(Observer& observer, std::span<TensorImpl* const> results) {
  return Maker(observer, results).make();
}

bool Replay::GradFact::fits(const TensorImpl& t) const {
  TensorImpl* grad = grad_of(t);
  if (!replaced) return grad == same;
  return before ? grad != nullptr && before->hold_for(*grad) : grad == nullptr;
}

bool Replay::among_implicit(const Storage* s) const {
  return std::binary_search(implicit_storages_.begin(), implicit_storages_.end(), s);
}

bool Replay::fits(std::span<TensorImpl* const> arguments) const {
  for (const Implicit& i : implicit_) {
    TensorImpl& t = **i.tensor;
    if (t.unique() || &t.storage() != i.storage || !i.facts.hold_for(t)) return false;
    if (!i.grad.fits(t)) return false;
  }
  for (size_t a = 0; a < arguments.size(); ++a) {
    if (!grads_[a].fits(*arguments[a])) return false;
    const Storage* s = &arguments[a]->storage();
    if (shared_[a] != nullptr ? s != shared_[a] : among_implicit(s)) return false;
  }
  return true;
}

bool Replay::stale() const {
  return std::any_of(implicit_.begin(), implicit_.end(),
                     [](const Implicit& i) { return i.tensor->unique(); });
}

std::string Replay::difference(const Replay& o) const {
  if (!trace_.same_work(o.trace_)) return record::difference(trace_, o.trace_);
  const auto same = [](const auto& a, const auto& b) { return a.same_as(b); };
  if (rule_sources_ != o.rule_sources_ || aside_targets_ != o.aside_targets_ ||
      !std::equal(rules_.begin(), rules_.end(), o.rules_.begin(), o.rules_.end(), same) ||
      !std::equal(asides_.begin(), asides_.end(), o.asides_.begin(), o.asides_.end(), same))
    return "what it does with single numbers changes";
  if (!std::equal(draws_.begin(), draws_.end(), o.draws_.begin(), o.draws_.end(), same))
    return "it draws other random numbers";
  std::vector<bool> follows(trace_.scalars.size());
  for (const TraceNumbers& rule : rules_) {
    for (const int32_t n : rule.numbers) follows[static_cast<size_t>(n)] = true;
  }
  for (const TraceDraw& draw : draws_) {
    for (const int32_t n : draw.numbers)
      follows[static_cast<size_t>(n)] = follows[static_cast<size_t>(n) + 1] = true;
  }
  bool same_numbers = trace_.scalars.size() == o.trace_.scalars.size();
  for (size_t n = 0; same_numbers && n < follows.size(); ++n)
    same_numbers = follows[n] || same_number(trace_.scalars[n], o.trace_.scalars[n]);
  if (!same_numbers) return "a number that goes into its operations changes";
  const auto same_implicit = [](const Implicit& a, const Implicit& b) {
    return a.tensor->get() == b.tensor->get() && a.storage == b.storage;
  };
  if (!std::equal(implicit_.begin(), implicit_.end(), o.implicit_.begin(), o.implicit_.end(),
                  same_implicit) ||
      sources_ != o.sources_ || shared_ != o.shared_)
    return "it works on other tensors from outside";
  if (grad_writes_ != o.grad_writes_) return "it gives gradients to other tensors";
  if (writes_ != o.writes_) return "it writes tensors from outside another number of times";
  if (recipes_ != o.recipes_ || results_ != o.results_ || empty_storages_ != o.empty_storages_)
    return "its results have another layout, or share memory in another way";
  const auto same_view = [](const compiler::TraceStorage& a, const compiler::TraceStorage& b) {
    return a.observed == b.observed;
  };
  if (!std::equal(trace_.storages.begin(), trace_.storages.end(), o.trace_.storages.begin(),
                  o.trace_.storages.end(), same_view))
    return "other intermediate results are kept";
  return {};
}

TensorImpl& Replay::source(int32_t number, std::span<TensorImpl* const> arguments) const {
  const auto n = static_cast<size_t>(number);
  return n < arguments_ ? *arguments[n] : **implicit_[n - arguments_].tensor;
}

/// Single numbers that are changed aside, to be put back where the work after them fails.
class Replay::Undo {
 public:
  void keep(TensorImpl& t) {
    Old old{TensorPtr(&t), {}};
    std::memcpy(old.bytes.data(), t.data(), static_cast<size_t>(t.itemsize()));
    old_.push_back(std::move(old));
  }
  void undo() {
    for (size_t i = old_.size(); i-- > 0;)
      std::memcpy(old_[i].tensor->data(), old_[i].bytes.data(),
                  static_cast<size_t>(old_[i].tensor->itemsize()));
  }

 private:
  struct Old {
    TensorPtr tensor;
    std::array<std::byte, 16> bytes;
  };
  std::vector<Old> old_;
};

std::vector<Scalar> Replay::write_asides(std::span<TensorImpl* const> arguments, Undo& undo) const {
  std::vector<Scalar> all = trace_.scalars;
  for (const TraceDraw& draw : draws_) {
    const Generator::State from = default_generator().reserve(draw.counters);
    for (const int32_t n : draw.numbers) {
      all[static_cast<size_t>(n)] = static_cast<int64_t>(from.seed);
      all[static_cast<size_t>(n) + 1] = static_cast<int64_t>(from.offset);
    }
  }
  size_t next = 0;
  const auto follow = [&](size_t asides) {
    for (; next < rules_.size() && rules_[next].after <= asides; ++next) {
      const TraceNumbers& rule = rules_[next];
      InlineVector<TensorImpl*, 4> from;
      for (const int32_t s : rule_sources_[next]) from.push_back(&source(s, arguments));
      std::array<double, 8> to{};
      rule.function(rule.constants, from, to);
      for (size_t n = 0; n < rule.numbers.size(); ++n) all[static_cast<size_t>(rule.numbers[n])] = to[n];
    }
  };
  for (size_t a = 0; a < asides_.size(); ++a) {
    follow(a);
    const Aside& aside = asides_[a];
    TensorImpl& target = source(aside_targets_[a], arguments);
    undo.keep(target);
    std::vector<Arg> args = aside.args;
    for (Arg& arg : args) {
      if (arg.kind == Arg::kTensor) arg.tensor = &target;
    }
    aside.redo(*aside.op, args, target);
  }
  follow(asides_.size());
  return all;
}

std::vector<TensorPtr> Replay::run(std::span<TensorImpl* const> arguments) const {
  tell_watcher("it calls another function that is replayed");
  const size_t count = sources_.size();
  // Those that are replaced go first, as the function lets them go before it makes others.
  for (const GradWrite& w : grad_writes_) {
    if (autograd::GradMeta* meta = autograd::meta_or_null(source(w.source, arguments))) meta->grad = nullptr;
  }
  Storages storages(count), empty(empty_storages_);
  for (size_t s = 0; s < count; ++s) {
    if (sources_[s] >= 0)
      storages[s] = source(sources_[s], arguments).storage_ptr();
    else if (program_->storages[s].home == compiler::CompiledTrace::kOwn)
      storages[s] = trace_.storages[s].nbytes < kLate ? Storage::allocate(trace_.storages[s].nbytes)
                                                      : Storage::promise(trace_.storages[s].nbytes);
  }
  for (Intrusive<Storage>& s : empty) s = Storage::allocate(0);
  // Tensors are described while the interpreter is held: other threads may change them later.
  std::vector<TensorPtr> made;
  for (const Recipe& r : recipes_) {
    if (r.argument >= 0) {
      made.emplace_back(arguments[static_cast<size_t>(r.argument)]);
      continue;
    }
    const auto number = static_cast<size_t>(r.storage);
    const Intrusive<Storage> storage = r.source >= 0    ? source(r.source, arguments).storage_ptr()
                                       : number < count ? storages[number]
                                                        : empty[number - count];
    TensorPtr t = TensorImpl::make(storage, r.dtype, r.sizes, r.strides, r.offset);
    if (r.version_source >= 0) t->share_version(source(r.version_source, arguments));
    if (r.storage >= 0) t->version().value.store(r.version, std::memory_order_relaxed);
    if (r.base >= 0) t->view_base = made[static_cast<size_t>(r.base)];
    if (r.source_base >= 0) t->view_base = TensorPtr(&source(r.source_base, arguments));
    t->set_conj(r.conj);
    t->set_neg(r.neg);
    t->inference = r.inference;
    t->wrapped_number = r.wrapped_number;
    made.push_back(std::move(t));
  }
  for (const Write& w : writes_) {
    TensorImpl& t = source(static_cast<int32_t>(w.source), arguments);
    t.version().value.fetch_add(w.versions, std::memory_order_relaxed);
    t.storage().generation.fetch_add(w.generations, std::memory_order_relaxed);
  }
  for (const GradWrite& w : grad_writes_) {
    if (w.recipe >= 0)
      autograd::meta_of(source(w.source, arguments)).grad = made[static_cast<size_t>(w.recipe)];
  }
  Undo undo;
  try {
    const std::vector<Scalar> numbers = write_asides(arguments, undo);
    if (program_ != nullptr) work(numbers, storages);
  } catch (...) {
    // Gradients that were not computed are none.
    for (const GradWrite& w : grad_writes_) {
      if (w.recipe >= 0) autograd::meta_of(source(w.source, arguments)).grad = nullptr;
    }
    undo.undo();
    throw;
  }
  std::vector<TensorPtr> results;
  for (const int32_t r : results_) results.push_back(made[static_cast<size_t>(r)]);
  return results;
}

void Replay::work(std::span<const Scalar> numbers, Storages& storages) const {
  const WithoutInterpreter working;
  for (size_t s = 0; s < storages.size(); ++s) {
    if (sources_[s] < 0) continue;
    storages[s]->data();  // after what others have recorded on it
    if (written_[s]) storages[s]->before_write();
  }
  const ForkSection section;
  struct Plain {
    uint32_t mode = std::exchange(dispatch::mode_word, dispatch::kNoGrad);
    ~Plain() { dispatch::mode_word = mode; }
  } const plain;
  std::vector<bool> done(trace_.records.size());
  run_compiled(*program_, trace_, numbers, storages, done);
}

}  // namespace lohe::record
