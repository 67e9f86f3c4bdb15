#include "compile/sweeps.h"

#include <algorithm>

#include "ir/primitives.h"

namespace lohe::compiler {

using namespace ir;

size_t kept_dims(const KernelSpec& spec) {
  size_t kept = 0;
  while (kept < spec.dims.size() && !spec.dims[kept].reduced) ++kept;
  return kept;
}

Sweeps::Sweeps(const Graph& graph, const KernelSpec& spec)
    : row(graph.nodes.size()), depth(graph.nodes.size()), needed(graph.needed()), graph_(graph), spec_(spec) {
  ir::Space reduced = 0;
  for (const LoopDim& d : spec.dims) {
    if (d.reduced) reduced |= d.group;
  }
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const GraphNode& g = graph.nodes[i];
    if (is_leaf(g.prim)) {
      row[i] = (g.space & reduced) != 0;
      continue;
    }
    for (const int32_t x : {g.a, g.b, g.c}) {
      if (x < 0) continue;
      row[i] = row[i] || row[static_cast<size_t>(x)];
      depth[i] = std::max(depth[i], depth[static_cast<size_t>(x)]);
    }
    if (needed[i]) cost += primitive(g.prim).cost;
    if (!is_reduction(g.prim)) continue;
    // A reduction of what does not vary still counts its terms.
    row[i] = false;
    ++depth[i];
    count = std::max(count, depth[i]);
  }
}

int Sweeps::sweep_of(int32_t value, bool in_row) const {
  return in_row ? depth[static_cast<size_t>(value)] + 1 : kAfter;
}

int Sweeps::sweep_of_output(size_t o) const {
  // A result is written in the last sweep if its memory moves along reduced dims, even where its value does
  // not.
  const int32_t value = graph_.outputs[o];
  const bool in_row = row[static_cast<size_t>(value)] != 0 || spec_.outputs[o].dims >> kept_dims(spec_) != 0;
  return in_row && spec_.outputs[o].overwrites ? count + 1 : sweep_of(value, in_row);
}

int Sweeps::sweep_of_check(const Graph::Check& c) const {
  return sweep_of(c.condition, row[static_cast<size_t>(c.condition)] != 0);
}

std::vector<int32_t> Sweeps::finished_in(int sweep) const {
  std::vector<int32_t> targets;
  for (size_t o = 0; o < graph_.outputs.size(); ++o) {
    if (sweep_of_output(o) == sweep) targets.push_back(graph_.outputs[o]);
  }
  for (const Graph::Check& c : graph_.checks) {
    if (sweep_of_check(c) == sweep) targets.push_back(c.condition);
  }
  return targets;
}

std::vector<int32_t> Sweeps::reductions_of(int sweep) const {
  std::vector<int32_t> found;
  for (size_t i = 0; i < graph_.nodes.size(); ++i) {
    if (needed[i] && is_reduction(graph_.nodes[i].prim) && depth[i] == sweep)
      found.push_back(static_cast<int32_t>(i));
  }
  return found;
}

std::vector<int32_t> Sweeps::targets_of(int sweep) const {
  std::vector<int32_t> targets;
  for (const int32_t r : reductions_of(sweep)) {
    const GraphNode& g = graph_.node(r);
    targets.push_back(g.a);
    if (g.b >= 0) targets.push_back(g.b);
  }
  const std::vector<int32_t> finished = finished_in(sweep);
  targets.insert(targets.end(), finished.begin(), finished.end());
  return targets;
}

std::vector<int32_t> Sweeps::targets_after(int sweep) const {
  std::vector<int32_t> all;
  for (int s = sweep + 1; s <= count + 1; ++s) {
    const std::vector<int32_t> targets = targets_of(s);
    all.insert(all.end(), targets.begin(), targets.end());
  }
  return all;
}

}  // namespace lohe::compiler
