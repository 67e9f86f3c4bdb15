#include "lohe/compile.h"

#include <atomic>
#include <cstdio>

#include "record/cache.h"
#include "record/recorder.h"
#include "record/run.h"
#include "tensor/shape.h"

namespace lohe {
namespace {

ProgramReport::Step report_of(const compiler::Trace& trace, const compiler::CompiledTrace& program,
                              size_t i) {
  const compiler::FusedStep& step = program.steps[i];
  const int64_t runs = std::max<int64_t>(program.times.runs, 1);
  ProgramReport::Step s{.name = step.program != nullptr ? step.program->name() : std::string(),
                        .kernel = step.program != nullptr,
                        .operations = static_cast<int>(step.records.size()),
                        .sizes = {step.space.sizes.begin(), step.space.sizes.end()},
                        .bytes = 0,
                        .nanoseconds = program.times.step_ns[i] / runs,
                        .rewrites = {step.rewrites.reciprocals, step.rewrites.fmas, step.rewrites.roundings}};
  if (!s.kernel) {
    const compiler::TraceRecord& record = trace.records[static_cast<size_t>(step.call)];
    const compiler::TraceCall& call = trace.calls[static_cast<size_t>(record.call)];
    s.name = name_of(trace, record);
    if (!call.results.empty()) s.sizes.assign(call.results[0].sizes.begin(), call.results[0].sizes.end());
  }
  std::vector<bool> counted(trace.storages.size());
  for (const compiler::TraceOperand& o : step.operands) {
    const auto number = static_cast<size_t>(o.storage);
    if (!counted[number]) s.bytes += trace.storages[number].nbytes;
    counted[number] = true;
  }
  return s;
}

std::string padded(std::string text, size_t width) {
  text.resize(std::max(width, text.size()), ' ');
  return text;
}

}  // namespace

Lazy::Lazy(uint64_t site, bool exact) : scope_(std::make_unique<record::Scope>(site, exact)) {}
Lazy::~Lazy() = default;
void Lazy::end() { scope_->end(); }

uint64_t new_compile_site() {
  static std::atomic<uint64_t> next{1};
  return next.fetch_add(1, std::memory_order_relaxed);
}

std::vector<ProgramReport> compile_report(uint64_t site) {
  std::vector<ProgramReport> reports;
  for (const auto& known : record::TraceCache::global().known()) {
    if (site != 0 && known->site != site) continue;
    const std::lock_guard lock(known->mutex);
    for (const auto& program : known->programs) {
      ProgramReport r{.site = known->site,
                      .reason = known->reason,
                      .exact = !known->trace->inexact,
                      .met = known->met,
                      .operations = static_cast<int64_t>(known->trace->records.size()),
                      .arena_bytes = program->arena_bytes,
                      .compile_nanoseconds = program->compile_ns,
                      .profiled_runs = program->times.runs,
                      .steps = {},
                      .buffers = {}};
      for (size_t i = 0; i < program->steps.size(); ++i)
        r.steps.push_back(report_of(*known->trace, *program, i));
      for (const compiler::CompiledTrace::Placement& p : program->storages) {
        if (p.home != compiler::CompiledTrace::kArena) continue;
        r.buffers.push_back(
            {p.offset, p.bytes, static_cast<int>(p.first_step), static_cast<int>(p.last_step)});
      }
      reports.push_back(std::move(r));
    }
  }
  return reports;
}

std::string to_string(const std::vector<ProgramReport>& programs) {
  std::string text;
  char line[256];
  for (size_t p = 0; p < programs.size(); ++p) {
    const ProgramReport& r = programs[p];
    int64_t total = 0, kernels = 0;
    for (const ProgramReport::Step& s : r.steps) {
      total += s.nanoseconds;
      kernels += s.kernel ? 1 : 0;
    }
    std::snprintf(line, sizeof line,
                  "program %zu: %lld operations as %lld kernels and %lld calls; compiled because: ", p + 1,
                  static_cast<long long>(r.operations), static_cast<long long>(kernels),
                  static_cast<long long>(static_cast<int64_t>(r.steps.size()) - kernels));
    text += line + r.reason + "\n";
    std::snprintf(line, sizeof line, "  met %lld times, compiled in %.1f ms, arena of %.1f KiB",
                  static_cast<long long>(r.met), static_cast<double>(r.compile_nanoseconds) * 1e-6,
                  static_cast<double>(r.arena_bytes) / 1024);
    text += line;
    if (r.profiled_runs > 0) {
      std::snprintf(line, sizeof line, ", %.1f us a run (mean of %lld)", static_cast<double>(total) * 1e-3,
                    static_cast<long long>(r.profiled_runs));
      text += line;
    }
    if (!r.exact) {
      ProgramReport::Rewrites all;
      for (const ProgramReport::Step& s : r.steps) {
        all.reciprocals += s.rewrites.reciprocals;
        all.fmas += s.rewrites.fmas;
        all.roundings += s.rewrites.roundings;
      }
      std::snprintf(line, sizeof line,
                    "\n  inexact: %d divisions as products, %d fused multiply-adds, %d roundings left out",
                    all.reciprocals, all.fmas, all.roundings);
      text += line;
    }
    text += "\n      us   share     MiB    GB/s  ops  step\n";
    for (const ProgramReport::Step& s : r.steps) {
      const double us = static_cast<double>(s.nanoseconds) * 1e-3;
      std::snprintf(
          line, sizeof line, "%8.1f  %5.1f%%  %6.2f  %6.1f  %3d  ", us,
          total > 0 ? 100 * static_cast<double>(s.nanoseconds) / static_cast<double>(total) : 0.0,
          static_cast<double>(s.bytes) / 1048576,
          s.nanoseconds > 0 ? static_cast<double>(s.bytes) / static_cast<double>(s.nanoseconds) : 0.0,
          s.operations);
      text += line + padded(s.kernel ? "kernel" : "call", 7) + s.name + " " +
              to_string(Dims(std::span(s.sizes))) + "\n";
    }
  }
  return text.empty() ? "no compiled program: a trace is compiled when it comes for the second time\n" : text;
}

bool profile_programs(bool on) { return record::profiling.exchange(on); }
void reset_compiler() { record::TraceCache::global().clear(); }

}  // namespace lohe
