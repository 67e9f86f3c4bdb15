#include "record/cache.h"

#include <unistd.h>

#include <algorithm>

#include "base/env.h"
#include "base/fork.h"
#include "base/log.h"
#include "record/settings.h"
#include "tensor/shape.h"

namespace lohe::record {
namespace {

/// The least recently used go first. A record, with its part of a program, takes about a kilobyte.
constexpr size_t kMostTraces = 512, kMostRecords = 100'000, kMostVariants = 8;

}  // namespace

std::string difference(const compiler::Trace& a, const compiler::Trace& b) {
  if (a.inexact != b.inexact) return a.inexact ? "now exact" : "no longer exact";
  for (size_t i = 0; i < std::min(a.records.size(), b.records.size()); ++i) {
    const compiler::TraceRecord &x = a.records[i], &y = b.records[i];
    const std::string name(name_of(b, y)), at = "operation " + std::to_string(i + 1) + ", " + name + ": ";
    if (name_of(a, x) != name) return at + "was " + std::string(name_of(a, x));
    if (x.program != y.program) return at + "other dtypes or attributes";
    if (x.space.sizes != y.space.sizes)
      return at + "sizes " + to_string(x.space.sizes) + " became " + to_string(y.space.sizes);
    const auto p = a.operands_of(x), q = b.operands_of(y);
    if (!std::equal(p.begin(), p.end(), q.begin(), q.end())) return at + "operands lie differently in memory";
    if (x.scalar != y.scalar) return at + "other numbers are the same";
  }
  if (a.records.size() != b.records.size())
    return std::to_string(b.records.size()) + " operations instead of " + std::to_string(a.records.size());
  return "other arguments of a call, or other sizes of its tensors";
}

Settings& settings() {
  static Settings values{env_int("LOHE_COMPILE_AT", 2, 1, 1'000'000'000),
                         env_bool("LOHE_COMPILE_FUSE", true),
                         env_bool("LOHE_COMPILE_PLAN_MEMORY", true),
                         env_bool("LOHE_COMPILE_STRICT", false),
                         env_int("LOHE_COMPILE_RECOMPUTE_FROM", 524288, 0, INT64_MAX),
                         sysconf(_SC_PHYS_PAGES) / 2 * sysconf(_SC_PAGESIZE)};
  return values;
}

TraceCache& TraceCache::global() {
  static auto* cache = new TraceCache;  // threads may end after main()
  return *cache;
}

std::shared_ptr<KnownTrace> TraceCache::meet(const compiler::Trace& trace, uint64_t site) {
  const ForkSection section;
  const std::lock_guard lock(mutex_);
  const auto [begin, end] = traces_.equal_range(trace.hash);
  for (auto i = begin; i != end; ++i) {
    if (!i->second->trace->same_work(trace)) continue;
    i->second->used = ++clock_;
    ++i->second->met;
    return i->second;
  }
  make_room(trace.records.size());
  auto known = std::make_shared<KnownTrace>();
  known->trace = std::make_shared<const compiler::Trace>(trace.without_numbers());
  known->kind = kind_of(known->trace);
  known->site = site;
  known->used = ++clock_;
  records_ += trace.records.size();
  traces_.emplace(trace.hash, known);
  return known;
}

std::shared_ptr<TraceKind> TraceCache::kind_of(const std::shared_ptr<const compiler::Trace>& trace) {
  const uint64_t hash = trace->structure_hash();
  const auto [begin, end] = kinds_.equal_range(hash);
  for (auto i = begin; i != end; ++i) {
    if (auto kind = i->second.lock(); kind != nullptr && kind->example->same_structure(*trace)) return kind;
  }
  if (kinds_.size() >= 2 * kMostTraces)
    std::erase_if(kinds_, [](const auto& k) { return k.second.expired(); });
  auto kind = std::make_shared<TraceKind>();
  kind->example = trace;
  kinds_.emplace(hash, kind);
  return kind;
}

void TraceCache::make_room(size_t records) {
  while (!traces_.empty() && (traces_.size() >= kMostTraces || records_ + records > kMostRecords)) {
    const auto oldest = std::min_element(traces_.begin(), traces_.end(), [](const auto& a, const auto& b) {
      return a.second->used < b.second->used;
    });
    records_ -= oldest->second->trace->records.size();
    traces_.erase(oldest);
  }
}

std::shared_ptr<const compiler::CompiledTrace> TraceCache::program(KnownTrace& known,
                                                                   const compiler::Trace& trace, Made* made) {
  const ForkSection section;
  const std::lock_guard lock(known.mutex);
  if (known.faulty) return nullptr;
  for (const auto& p : known.programs) {
    if (p->serves(trace)) return p;
  }
  const compiler::CompileOptions options{.fuse = settings().fuse, .plan_memory = settings().plan_memory};
  // What backward can as well compute again is not observed.
  std::vector<compiler::Recipe> recipes;
  if (options.fuse) recipes = compiler::find_recipes(trace, settings().recompute_from);
  compiler::Trace changed;
  if (!recipes.empty()) {
    changed = trace;
    for (const compiler::Recipe& r : recipes)
      changed.storages[static_cast<size_t>(r.storage)].observed = false;
  }
  const compiler::Trace& work = recipes.empty() ? trace : changed;
  std::vector<bool> observed;
  for (const compiler::TraceStorage& s : work.storages) observed.push_back(s.observed);
  compiler::Grouping grouping = known.kind->grouping(observed, options.fuse);
  const compiler::Grouping before = grouping;
  std::shared_ptr<const compiler::CompiledTrace> program;
  try {
    std::unique_ptr<compiler::CompiledTrace> compiled = compiler::compile_trace(work, options, grouping);
    compiled->recipes = std::move(recipes);
    program = std::move(compiled);
  } catch (const std::exception& e) {
    if (settings().strict) throw;
    known.faulty = true;
    log_warning_once("compile",
                     "compile() failed and goes on with eager kernels, which give the same results; please "
                     "report this message: ",
                     e.what());
    return nullptr;
  }
  const bool followed = !before.empty() && grouping == before;
  *made = followed ? Made::kForSizes : Made::kCompiled;
  if (!followed) known.kind->note(observed, options.fuse, std::move(grouping));
  if (!known.programs.empty()) {
    known.reason = "other results are used";
  } else {
    ++known.kind->compiled;
    known.reason = "first";
    for (const auto& other : this->known()) {
      if (other.get() == &known || other->site != known.site || !other->compiled) continue;
      known.reason = (followed ? "the same at other sizes: " : "") + difference(*other->trace, *known.trace);
      break;
    }
  }
  if (known.programs.size() >= kMostVariants) known.programs.erase(known.programs.begin());
  known.programs.push_back(program);
  known.compiled = true;
  return program;
}

compiler::Grouping TraceKind::grouping(const std::vector<bool>& observed, bool fuse) {
  const ForkSection section;
  const std::lock_guard lock(mutex_);
  for (const Known& k : groupings_) {
    if (k.observed == observed && k.fuse == fuse) return k.grouping;
  }
  return {};
}

void TraceKind::note(const std::vector<bool>& observed, bool fuse, compiler::Grouping grouping) {
  const ForkSection section;
  const std::lock_guard lock(mutex_);
  std::erase_if(groupings_, [&](const Known& k) { return k.observed == observed && k.fuse == fuse; });
  if (groupings_.size() >= kMostVariants) groupings_.erase(groupings_.begin());
  groupings_.push_back({observed, fuse, std::move(grouping)});
}

void TraceCache::clear() {
  const ForkSection section;
  const std::lock_guard lock(mutex_);
  traces_.clear();
  kinds_.clear();
  records_ = 0;
}

std::vector<std::shared_ptr<KnownTrace>> TraceCache::known() {
  const ForkSection section;
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<KnownTrace>> list;
  for (const auto& [hash, trace] : traces_) list.push_back(trace);
  std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a->used > b->used; });
  return list;
}

}  // namespace lohe::record
