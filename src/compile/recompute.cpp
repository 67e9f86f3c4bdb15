#include "compile/recompute.h"

#include <algorithm>
#include <set>

#include "ir/primitives.h"

namespace lohe::compiler {
namespace {

/// In simple instructions an element; a store and a load from memory beyond the caches take about as long.
constexpr int kMostCost = 24;
constexpr size_t kMostChain = 12;

bool reads(const ir::Graph& graph, size_t input) {
  const std::vector<bool> needed = graph.needed();
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const ir::GraphNode& n = graph.nodes[i];
    if (needed[i] && n.prim == ir::Prim::kInput && n.imm == static_cast<int64_t>(input)) return true;
  }
  return false;
}

/// Backward finds an extreme again by comparing with it: what it was taken of must be what it was. Inexactly,
/// another kernel may round it differently.
bool takes_extremes(const ir::Graph& graph) {
  const std::vector<bool> needed = graph.needed();
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const ir::Prim p = graph.nodes[i].prim;
    if (needed[i] && (p == ir::Prim::kAmax || p == ir::Prim::kAmin)) return true;
  }
  return false;
}

/// Where a storage's bytes come from, as far as the records seen so far tell.
struct Source {
  bool in_memory = true;  ///< it is there when the trace is done
  bool made_again = false;
  std::vector<int32_t> chain;
  int cost = 0;
};

}  // namespace

int cost_of_repeating(const TraceRecord& r) {
  if (r.program == nullptr || r.space.iota_base != 0) return -1;
  const ir::Graph& graph = r.program->graph();
  if (!graph.checks.empty()) return -1;
  const std::vector<bool> needed = graph.needed();
  int cost = 0;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const ir::GraphNode& n = graph.nodes[i];
    if (!needed[i]) continue;
    if (ir::is_reduction(n.prim) || n.prim == ir::Prim::kIota || n.prim == ir::Prim::kExtent) return -1;
    // Sweeps of a reduction may repeat it.
    const bool slow = n.prim == ir::Prim::kDiv || n.prim == ir::Prim::kSqrt || n.prim == ir::Prim::kRsqrt;
    cost += slow ? kMostCost + 1 : ir::primitive(n.prim).cost;
  }
  return cost;
}

std::vector<Recipe> find_recipes(const Trace& trace, int64_t least_bytes) {
  const size_t count = trace.storages.size();
  if (std::none_of(trace.storages.begin(), trace.storages.end(),
                   [](const TraceStorage& s) { return s.kept; }))
    return {};
  std::vector<int> writers(count);
  // What a call reads is in memory anyway, and backward's calls may read it, too.
  std::vector<bool> called(count);
  for (const TraceRecord& r : trace.records) {
    if (r.program == nullptr) {
      for (const TraceOperand& o : trace.inputs(r)) {
        const auto s = static_cast<size_t>(o.storage);
        called[s] = true;
        writers[s] += writes(trace, r, o.storage) ? 2 : 0;
      }
    } else if (trace.inexact && takes_extremes(r.program->graph())) {
      for (const TraceOperand& o : trace.inputs(r)) called[static_cast<size_t>(o.storage)] = true;
    }
    for (const TraceOperand& o : trace.outputs(r)) ++writers[static_cast<size_t>(o.storage)];
  }
  std::vector<Source> sources(count);
  std::vector<Recipe> recipes;
  int64_t saved = 0;
  std::set<int32_t> leaves;
  for (size_t i = 0; i < trace.records.size(); ++i) {
    const TraceRecord& r = trace.records[i];
    int cost = cost_of_repeating(r);
    std::set<int32_t> chain;
    size_t input = 0;
    for (const TraceOperand& o : trace.inputs(r)) {
      const auto s = static_cast<size_t>(o.storage);
      // What an in-place operation overwrites unread.
      if (cost >= 0 && !reads(r.program->graph(), input++)) continue;
      const Source& from = sources[s];
      const bool steady = writers[s] == (trace.storages[s].fresh ? 1 : 0);
      if (cost < 0 || !steady || !(from.in_memory || from.made_again)) {
        cost = -1;
        break;
      }
      if (from.made_again) {
        if (std::none_of(from.chain.begin(), from.chain.end(), [&](int32_t c) { return chain.contains(c); }))
          cost += from.cost;
        chain.insert(from.chain.begin(), from.chain.end());
      }
    }
    chain.insert(static_cast<int32_t>(i));
    for (const TraceOperand& o : trace.outputs(r)) {
      const auto s = static_cast<size_t>(o.storage);
      const TraceStorage& storage = trace.storages[s];
      Source& source = sources[s];
      const bool whole = storage.fresh && writers[s] == 1 && r.outputs == 1 && !called[s];
      source.made_again = cost >= 0 && cost <= kMostCost && chain.size() <= kMostChain && whole &&
                          (storage.kept || !storage.observed);
      source.in_memory = !storage.fresh || (storage.observed && !source.made_again);
      if (!source.made_again) continue;
      source.chain.assign(chain.begin(), chain.end());
      source.cost = cost;
      if (!storage.kept) continue;
      recipes.push_back({o.storage, source.chain});
      saved += storage.nbytes;
      for (const int32_t c : chain) {
        for (const TraceOperand& in : trace.inputs(trace.records[static_cast<size_t>(c)])) {
          if (sources[static_cast<size_t>(in.storage)].in_memory) leaves.insert(in.storage);
        }
      }
    }
  }
  // What is held for the sake of the recipes alone may not be more than what they save.
  int64_t held = 0;
  for (const int32_t s : leaves) {
    const TraceStorage& storage = trace.storages[static_cast<size_t>(s)];
    held += storage.fresh || storage.kept ? 0 : storage.nbytes;
  }
  if (saved < least_bytes || held > saved) return {};
  return recipes;
}

}  // namespace lohe::compiler
