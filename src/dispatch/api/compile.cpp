#include "lohe/compile.h"

#include <atomic>
#include <cstdio>

#include "backend/limits.h"
#include "record/cache.h"
#include "record/observer.h"
#include "record/recorder.h"
#include "record/run.h"
#include "tensor/shape.h"

namespace lohe {
namespace {

int64_t count(std::span<const int64_t> sizes) {
  int64_t n = 1;
  for (const int64_t s : sizes) n *= s;
  return n;
}

/// Bytes that an operand of a kernel moves: no more than its storage has, and once for what it stands still
/// along.
int64_t moved(const compiler::Trace& trace, const compiler::Space& space, const compiler::TraceOperand& o,
              Dtype dtype) {
  int64_t n = itemsize(dtype);
  for (size_t d = 0; d < space.sizes.size(); ++d) n *= o.strides[d] != 0 ? space.sizes[d] : 1;
  return std::min(n, trace.storages[static_cast<size_t>(o.storage)].nbytes);
}

void note_kernel_bytes(const compiler::Trace& trace, const compiler::FusedStep& step,
                       ProgramReport::Step& s) {
  const ir::Graph& graph = step.program->graph();
  const std::vector<bool> needed = graph.needed();
  const auto inputs = static_cast<size_t>(step.inputs);
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const ir::GraphNode& n = graph.nodes[i];
    if (!needed[i] || n.prim != ir::Prim::kInput) continue;
    s.read += moved(trace, step.space, step.operands[static_cast<size_t>(n.imm)], n.dtype);
  }
  for (size_t o = inputs; o < step.operands.size(); ++o)
    s.written += moved(trace, step.space, step.operands[o], graph.node(graph.outputs[o - inputs]).dtype);
}

void note_call_bytes(const compiler::TraceCall& call, ProgramReport::Step& s) {
  for (const compiler::TraceCall::Tensor& t : call.tensors) {
    if (t.operand >= 0) s.read += count(t.sizes) * itemsize(t.dtype);
  }
  for (const compiler::TraceCall::Tensor& t : call.results) s.written += count(t.sizes) * itemsize(t.dtype);
}

/// Floating-point operations of a matrix product, attention or convolution; 0: it is none, or not in a
/// floating dtype.
int64_t flops_of(const compiler::TraceCall& call) {
  if (call.results.empty() || !is_floating(call.results[0].dtype)) return 0;
  const std::string_view name = call.op->schema.name;
  const auto numel = [](const compiler::TraceCall::Tensor& t) { return count(t.sizes); };
  const compiler::TraceCall::Tensor &first = call.tensors[0], &result = call.results[0];
  if (name == "mm" || name == "bmm" || name == "_nested_bmm" || name == "linear")
    return 2 * numel(result) * first.sizes.back();
  if (name == "addmm" || name == "baddbmm") return 2 * numel(result) * call.tensors[1].sizes.back();
  if (name == "_linear_backward")
    return 2 * numel(first) * call.tensors[2].sizes.back() * static_cast<int64_t>(call.results.size());
  // Query, key, value: two products forward, five backward; of a causal one about half of each.
  const auto attention = [&](size_t query, int64_t products, const Arg& causal) {
    const int64_t keys = call.tensors[query + 1].sizes[2], queries = call.tensors[query].sizes[2];
    const int64_t widths = products == 2
                               ? call.tensors[query].sizes[3] + call.tensors[query + 2].sizes[3]
                               : 3 * call.tensors[query].sizes[3] + 2 * call.tensors[query + 2].sizes[3];
    const int64_t seen = causal.integer == 0 ? queries * keys
                         : queries <= keys   ? queries * (queries + 1) / 2
                                             : keys * (keys + 1) / 2 + (queries - keys) * keys;
    return 2 * call.tensors[query].sizes[0] * call.tensors[query].sizes[1] * seen * widths;
  };
  if (name == "_attention") return attention(0, 2, call.args[4]);
  if (name == "_attention_backward") return attention(1, 5, call.args[6]);
  // Every element of the side that has a channel for each of the weight's first dim meets the rest of it.
  const auto convolution = [&](const compiler::TraceCall::Tensor& side,
                               const compiler::TraceCall::Tensor& weight) {
    return weight.sizes[0] == 0 ? 0 : 2 * numel(side) * (numel(weight) / weight.sizes[0]);
  };
  constexpr size_t kTransposed = 6;
  if (name == "convolution")
    return convolution(call.args[kTransposed].integer != 0 ? first : result, call.tensors[1]);
  if (name == "_convolution_input_gradient") return convolution(first, call.tensors[1]);
  if (name == "_convolution_weight_gradient") return convolution(call.tensors[1], result);
  return 0;
}

ProgramReport::Step report_of(const compiler::Trace& trace, const compiler::CompiledTrace& program,
                              size_t t) {
  const compiler::CompiledTrace::Turn& turn = program.turns[t];
  const compiler::FusedStep& step = program.steps[turn.first];
  const int64_t runs = std::max<int64_t>(program.times.runs, 1);
  ProgramReport::Step s{.name = step.program != nullptr ? step.program->name() : std::string(),
                        .kernel = step.program != nullptr,
                        .operations = 0,
                        .sizes = {step.space.sizes.begin(), step.space.sizes.end()},
                        .read = 0,
                        .written = 0,
                        .far = 0,
                        .flops = 0,
                        .nanoseconds = program.times.turn_ns[t] / runs,
                        .share = 0,
                        .rewrites = {step.rewrites.reciprocals, step.rewrites.fmas, step.rewrites.roundings}};
  for (size_t i = turn.first; i < turn.first + turn.count; ++i) {
    s.operations += static_cast<int>(program.steps[i].records.size());
    if (s.kernel) note_kernel_bytes(trace, program.steps[i], s);
  }
  if (turn.count > 1) s.name += " x" + std::to_string(turn.count);
  if (s.kernel) return s;
  for (const int32_t storage : turn.far) s.far += trace.storages[static_cast<size_t>(storage)].nbytes;
  const compiler::TraceRecord& record = trace.records[static_cast<size_t>(step.call)];
  const compiler::TraceCall& call = trace.calls[static_cast<size_t>(record.call)];
  s.name = name_of(trace, record);
  if (!call.results.empty()) s.sizes.assign(call.results[0].sizes.begin(), call.results[0].sizes.end());
  note_call_bytes(call, s);
  s.flops = flops_of(call);
  return s;
}

/// The least time of a step that takes some, in seconds; 0: not known. Half types are multiplied in float32.
double least_seconds(const ProgramReport::Step& s, Dtype dtype) {
  if (!s.kernel && s.flops == 0) return 0;
  const double moving = backend::least_seconds_to_move(s.read, s.written);
  if (s.flops == 0) return moving;
  const Dtype computed = dtype == Dtype::kFloat64 ? Dtype::kFloat64 : Dtype::kFloat32;
  return std::max(moving, static_cast<double>(s.flops) / backend::flops_a_second(computed));
}

/// Limits are measured where there is a time to compare with them.
void note_shares(const compiler::Trace& trace, const compiler::CompiledTrace& program, ProgramReport& r) {
  double least = 0, measured = 0;
  for (size_t i = 0; i < r.steps.size(); ++i) {
    ProgramReport::Step& s = r.steps[i];
    if (s.nanoseconds == 0) continue;
    Dtype dtype = Dtype::kFloat32;
    if (s.flops > 0) {
      const compiler::TraceRecord& record =
          trace.records[static_cast<size_t>(program.steps[program.turns[i].first].call)];
      dtype = trace.calls[static_cast<size_t>(record.call)].results[0].dtype;
    }
    const double seconds = least_seconds(s, dtype), time = static_cast<double>(s.nanoseconds) * 1e-9;
    s.share = seconds / time;
    if (seconds == 0) continue;
    least += seconds;
    measured += time;
  }
  if (measured > 0) r.share = least / measured;
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
    std::vector<std::shared_ptr<const compiler::CompiledTrace>> programs;
    std::string reason;
    {
      const std::lock_guard lock(known->mutex);  // not while limits are measured
      programs = known->programs;
      reason = known->reason;
    }
    for (const auto& program : programs) {
      ProgramReport r{.site = known->site,
                      .reason = reason,
                      .exact = !known->trace->inexact,
                      .met = known->met,
                      .operations = static_cast<int64_t>(known->trace->records.size()),
                      .arena_bytes = program->arena_bytes,
                      .block_bytes = program->block_bytes,
                      .compile_nanoseconds = program->compile_ns,
                      .profiled_runs = program->times.runs,
                      .share = 0,
                      .steps = {},
                      .buffers = {}};
      for (size_t t = 0; t < program->turns.size(); ++t)
        r.steps.push_back(report_of(*known->trace, *program, t));
      note_shares(*known->trace, *program, r);
      for (const compiler::CompiledTrace::Placement& p : program->storages) {
        const bool block = p.home == compiler::CompiledTrace::kBlock;
        if (!block && p.home != compiler::CompiledTrace::kArena) continue;
        r.buffers.push_back({p.offset + (block ? program->arena_bytes : 0), p.bytes,
                             static_cast<int>(p.first_turn), static_cast<int>(p.last_turn)});
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
    std::snprintf(line, sizeof line, "  met %lld times, compiled in %.1f ms, buffers of %.1f KiB",
                  static_cast<long long>(r.met), static_cast<double>(r.compile_nanoseconds) * 1e-6,
                  static_cast<double>(r.arena_bytes + r.block_bytes) / 1024);
    text += line;
    if (r.profiled_runs > 0) {
      std::snprintf(line, sizeof line, ", %.1f us a run (mean of %lld)", static_cast<double>(total) * 1e-3,
                    static_cast<long long>(r.profiled_runs));
      text += line;
    }
    if (r.share > 0) {
      std::snprintf(line, sizeof line, ", %.0f %% of the machine's limit", 100 * r.share);
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
    text += "\n      us    time     MiB    GB/s   limit  ops  step\n";
    for (const ProgramReport::Step& s : r.steps) {
      const auto time = static_cast<double>(s.nanoseconds), bytes = static_cast<double>(s.read + s.written);
      char limit[32] = "       ";
      if (s.share > 0) std::snprintf(limit, sizeof limit, "%5.0f %%", 100 * s.share);
      std::snprintf(line, sizeof line, "%8.1f  %5.1f%%  %6.2f  %6.1f %s  %3d  ", time * 1e-3,
                    total > 0 ? 100 * time / static_cast<double>(total) : 0.0, bytes / 1048576,
                    s.nanoseconds > 0 ? bytes / time : 0.0, limit, s.operations);
      text += line + padded(s.kernel ? "kernel" : "call", 7) + s.name + " " +
              to_string(Dims(std::span(s.sizes))) + "\n";
    }
  }
  return text.empty() ? "no compiled program: a trace is compiled when it comes for the second time\n" : text;
}

bool profile_programs(bool on) { return record::profiling.exchange(on); }
void reset_compiler() {
  record::TraceCache::global().clear();
  record::forget_replays();
}

}  // namespace lohe
