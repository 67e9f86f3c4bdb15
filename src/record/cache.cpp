#include "record/cache.h"

#include <algorithm>

#include "base/env.h"
#include "base/fork.h"
#include "base/log.h"

namespace lohe::record {
namespace {

/// The least recently used go first.
constexpr size_t kMostTraces = 512, kMostVariants = 8;

bool strict() {
  static const bool on = env_bool("LOHE_COMPILE_STRICT", false);
  return on;
}

}  // namespace

TraceCache& TraceCache::global() {
  static auto* cache = new TraceCache;  // threads may end after main()
  return *cache;
}

std::shared_ptr<KnownTrace> TraceCache::meet(const compile::Trace& trace) {
  const ForkSection section;
  const std::lock_guard lock(mutex_);
  const auto [begin, end] = traces_.equal_range(trace.hash);
  for (auto i = begin; i != end; ++i) {
    if (!i->second->trace.same_work(trace)) continue;
    i->second->used = ++clock_;
    ++i->second->met;
    return i->second;
  }
  if (traces_.size() >= kMostTraces) {
    traces_.erase(std::min_element(traces_.begin(), traces_.end(), [](const auto& a, const auto& b) {
      return a.second->used < b.second->used;
    }));
  }
  auto known = std::make_shared<KnownTrace>();
  known->trace = trace.without_numbers();
  known->used = ++clock_;
  known->met = 1;
  traces_.emplace(trace.hash, known);
  return known;
}

std::shared_ptr<const compile::CompiledTrace> TraceCache::program(KnownTrace& known, const compile::Trace& trace,
                                                                  bool* made) {
  const ForkSection section;
  const std::lock_guard lock(compiler_);
  if (known.faulty) return nullptr;
  for (const auto& p : known.programs) {
    if (p->serves(trace)) return p;
  }
  const compile::CompileOptions options{.fuse = env_bool("LOHE_COMPILE_FUSE", true),
                                        .plan_memory = env_bool("LOHE_COMPILE_PLAN_MEMORY", true)};
  try {
    if (known.programs.size() >= kMostVariants) known.programs.erase(known.programs.begin());
    known.programs.push_back(compile::compile_trace(trace, options));
  } catch (const std::exception& e) {
    if (strict()) throw;
    known.faulty = true;
    log_warning_once("compile", "compile() failed and goes on with eager kernels, which give the same results; please "
                     "report this message: ", e.what());
    return nullptr;
  }
  *made = true;
  return known.programs.back();
}

void TraceCache::clear() {
  const std::lock_guard lock(mutex_);
  traces_.clear();
}

std::vector<std::shared_ptr<KnownTrace>> TraceCache::known() {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<KnownTrace>> list;
  for (const auto& [hash, trace] : traces_) list.push_back(trace);
  std::sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a->used > b->used; });
  return list;
}

}  // namespace lohe::record
