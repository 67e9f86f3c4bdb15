#include "compile/fuse.h"

#include <algorithm>
#include <functional>
#include <optional>

#include "compile/group.h"
#include "ir/node.h"
#include "ir/primitives.h"
#include "lohe/error.h"
#include "tensor/shape.h"

/// Greedy and in program order: a record joins the latest group that makes what it reads, if nothing between
/// the two forbids to move it there; in the end groups are joined that read the same. Only what keeps every
/// bit is joined: a reduction goes down the same loops in the same order, whatever is computed beside it, or
/// stays alone.
namespace lohe::compiler {
namespace {

using namespace ir;

/// Groups looked at before a record starts one of its own.
constexpr size_t kWindow = 24;
/// Beyond these a kernel takes long to make, and spills.
constexpr size_t kMostNodes = 192, kMostOperands = 32;

/// What is placed: a record, or, of an elementwise one with several results, what makes one of them. The two
/// gradients of a product, say, are needed by different sums.
struct Unit {
  int32_t record;
  int32_t output = -1;  ///< -1: all
};

/// The nodes that output `output` (-1: all of them, and the checks) comes from.
std::vector<bool> needed_for(const Graph& g, int32_t output) {
  if (output < 0) return g.needed();
  std::vector<bool> needed(g.nodes.size());
  needed[static_cast<size_t>(g.outputs[static_cast<size_t>(output)])] = true;
  g.mark_operands(needed);
  return needed;
}

/// Whether it is made of a reduction of columns.
bool reduces_columns(const Graph& g, int32_t output) {
  const std::vector<bool> needed = needed_for(g, output);
  for (size_t i = 0; i < g.nodes.size(); ++i) {
    if (needed[i] && is_reduction(g.nodes[i].prim) && (g.nodes[i].span & kOuter) != 0) return true;
  }
  return false;
}

class Fusion {
 public:
  Fusion(const Trace& trace, bool fuse) : trace_(trace), fuse_(fuse) {
    for (size_t r = 0; r < trace.records.size(); ++r) {
      const auto record = static_cast<int32_t>(r);
      const int32_t parts = fuse && falls_apart(trace.records[r]) ? trace.records[r].outputs : 0;
      if (parts == 0) units_.push_back({record});
      for (int32_t o = 0; o < parts; ++o) units_.push_back({record, o});
    }
    if (fuse) find_assemblies();
    note_uses();
  }

  /// Those whose readers may join others when they read pieces: a reduction keeps its loops.
  void find_assemblies() {
    assemblies_.emplace(trace_);
    for (size_t u = 0; u < units_.size();) {
      const int32_t record = units_[u].record;
      const auto number = static_cast<int32_t>(u++);
      if (is_spared(number) || !assemblies_->reads_assembly(record)) continue;
      const Group reader = single(number);
      if (reader.open && reader.nodes <= kMostNodes && loads(reader) + reader.stores.size() <= kMostOperands)
        continue;
      assemblies_->make_whole_for(record);
      u = 0;
    }
  }

  std::vector<FusedStep> run(Grouping& grouping) {
    if (!follow(grouping)) {
      groups_.clear();
      for (size_t u = 0; u < units_.size(); ++u) {
        if (!is_spared(static_cast<int32_t>(u))) place(static_cast<int32_t>(u));
      }
      join_readers();
      grouping.clear();
      for (const Group& g : groups_) {
        grouping.emplace_back();
        for (const Member& m : g.members) grouping.back().push_back(m.unit);
      }
    }
    // What later steps use of each storage.
    std::vector<bool> used(trace_.storages.size());
    std::vector<FusedStep> steps(groups_.size());
    for (size_t g = groups_.size(); g-- > 0;) {
      steps[g] = finish(groups_[g], used);
      for (const TraceOperand& o : steps[g].operands) used[static_cast<size_t>(o.storage)] = true;
    }
    std::erase_if(steps, [](const FusedStep& s) { return s.program == nullptr && s.call < 0; });
    if (assemblies_) finish_spared(steps);
    return steps;
  }

  /// A spared record is done when the last step is that reads what it would have written.
  void finish_spared(std::vector<FusedStep>& steps) const {
    std::vector<size_t> last(trace_.records.size(), SIZE_MAX);
    for (size_t s = 0; s < steps.size(); ++s) {
      for (const int32_t r : steps[s].records) last[static_cast<size_t>(r)] = s;
    }
    // Readers come after writers.
    for (size_t r = trace_.records.size(); r-- > 0;) {
      const auto record = static_cast<int32_t>(r);
      if (!assemblies_->spares(record)) continue;
      for (const int32_t reader : assemblies_->readers(record)) {
        const size_t step = last[static_cast<size_t>(reader)];
        if (step != SIZE_MAX && (last[r] == SIZE_MAX || last[r] < step)) last[r] = step;
      }
      if (last[r] != SIZE_MAX) steps[last[r]].records.push_back(record);
    }
  }

 private:
  const TraceRecord& record_of(int32_t unit) const {
    return trace_.records[static_cast<size_t>(units_[static_cast<size_t>(unit)].record)];
  }

  /// Whether each result of a record may be made on its own: elementwise work that writes fresh memory.
  bool falls_apart(const TraceRecord& record) const {
    if (record.program == nullptr || record.outputs < 2) return false;
    const Graph& graph = record.program->graph();
    if (!graph.checks.empty()) return false;
    for (const GraphNode& n : graph.nodes) {
      if (is_reduction(n.prim)) return false;
    }
    const auto operands = trace_.operands_of(record);
    for (const TraceOperand& o : trace_.outputs(record)) {
      const auto same = [&](const TraceOperand& x) { return x.storage == o.storage; };
      if (!trace_.storages[static_cast<size_t>(o.storage)].fresh ||
          std::count_if(operands.begin(), operands.end(), same) > 1)
        return false;
    }
    return true;
  }

  /// A unit as a group of its own.
  Group single(int32_t number) const {
    const Unit& unit = units_[static_cast<size_t>(number)];
    const TraceRecord& record = record_of(number);
    Group g;
    Member m{number, {}, {}};
    const bool program = record.program != nullptr;
    if (program) {
      g.sizes = moving_sizes(record);
      for (const int64_t d : moving_dims(record))
        g.groups.push_back(record.space.groups[static_cast<size_t>(d)]);
    }
    const std::vector<bool> needed =
        program ? needed_for(record.program->graph(), unit.output) : std::vector<bool>();
    const std::vector<Dtype> dtypes =
        program ? input_dtypes(record.program->graph(), needed, static_cast<size_t>(record.inputs))
                : std::vector<Dtype>();
    int at = 0;
    for (const TraceOperand& o : trace_.inputs(record)) {
      Source source{access_of(record, o, program ? dtypes[static_cast<size_t>(at++)] : Dtype::kUndefined),
                    {}};
      if (source.access.dtype != Dtype::kUndefined && assemblies_ &&
          assemblies_->reads_assembly(unit.record, o.storage)) {
        source.pieces = assemblies_->pieces(source.access, g.sizes);
        count_nodes(source.pieces, g);
      }
      if (!program) add(g.reads, o.storage);
      m.inputs.push_back(std::move(source));
    }
    for (int32_t i = 0; i < record.outputs; ++i) {
      if (unit.output >= 0 && unit.output != i) continue;
      const TraceOperand& o = trace_.outputs(record)[static_cast<size_t>(i)];
      const Graph* graph = program ? &record.program->graph() : nullptr;
      m.outputs.push_back(access_of(
          record, o,
          graph != nullptr ? graph->node(graph->outputs[static_cast<size_t>(i)]).dtype : Dtype::kUndefined));
      add(g.writes, o.storage);
    }
    each_load(m.inputs, [&](const Access& a) {
      if (!has(g.loads, a)) g.loads.push_back(a);
      add(g.reads, a.storage);
    });
    g.stores = m.outputs;
    g.open = program && fuse_;
    if (!program) {
      g.may_raise = true;
      // Arguments that a call writes are outputs too.
      for (const TraceOperand& o : trace_.inputs(record)) {
        if (writes(trace_, record, o.storage)) add(g.writes, o.storage);
      }
    } else {
      const Graph& graph = record.program->graph();
      g.nodes += static_cast<size_t>(std::count(needed.begin(), needed.end(), true));
      g.may_raise = !graph.checks.empty();
      if (g.may_raise || record.space.iota_base != 0) g.open = false;
      // Reductions of nothing.
      if (std::find(g.sizes.begin(), g.sizes.end(), 0) != g.sizes.end()) g.open = false;
      for (size_t i = 0; i < graph.nodes.size(); ++i) {
        const GraphNode& n = graph.nodes[i];
        if (!needed[i]) continue;
        g.reduces = g.reduces || is_reduction(n.prim);
        g.both_ways = g.both_ways || (is_reduction(n.prim) && (n.span & kOuter) != 0);
        g.counts = g.counts || n.prim == Prim::kIota || n.prim == Prim::kExtent || n.prim == Prim::kArgmax ||
                   n.prim == Prim::kArgmin;
      }
      for (const uint8_t group : g.groups) {
        if (group != kOuter && group != kRow) g.open = false;
      }
      // An output that overlaps itself (fill_() of an expanded tensor) writes what an earlier element's reads
      // came from: as it is.
      for (size_t o = 0; o < m.outputs.size(); ++o) {
        const size_t number = unit.output >= 0 ? static_cast<size_t>(unit.output) : o;
        const bool columns = g.both_ways && reduces_columns(graph, static_cast<int32_t>(number));
        const ir::Space spans = (columns ? 0 : kOuter) | graph.node(graph.outputs[number]).space;
        Dims sizes = g.sizes;
        for (size_t d = 0; d < sizes.size(); ++d) {
          if ((g.groups[d] & spans) == 0) sizes[d] = 1;  // reduced
        }
        if (may_overlap(sizes, m.outputs[o].strides)) g.open = false;
      }
      // Two outputs in one place, or an output over a differently laid out input: as it is.
      for (const Access& o : m.outputs) {
        if (std::count_if(m.outputs.begin(), m.outputs.end(),
                          [&](const Access& x) { return x.storage == o.storage; }) > 1)
          g.open = false;
        for (const Access& i : g.loads) {
          if (i.storage == o.storage && (i != o || g.reduces) && !apart(i, o, g.sizes)) g.open = false;
        }
      }
      if (g.reduces) g.late = g.writes;
      if (g.reduces && has_windows(g) && (g.both_ways || !reduces_at_once(g))) g.open = false;
      if (g.reduces && g.open) lead(record, m, g);
    }
    g.members.push_back(std::move(m));
    return g;
  }

  void count_nodes(const std::vector<Piece>& pieces, Group& g) const {
    for (const Piece& p : pieces) {
      g.nodes += trace_.records[static_cast<size_t>(p.record)].program->graph().nodes.size() + 1;
      for (const Source& s : p.inputs) count_nodes(s.pieces, g);
    }
  }

  bool is_spared(int32_t unit) const {
    return assemblies_ && assemblies_->spares(units_[static_cast<size_t>(unit)].record);
  }

  /// Finds what the loops of a reduction are ordered by; closes the group where that is not one operand.
  void lead(const TraceRecord& record, const Member& m, Group& g) const {
    for (const int leader : record.program->leaders(record.space)) {
      if (leader < 0) {
        g.open = false;
        return;
      }
      const Dims& strides = m.inputs[static_cast<size_t>(leader)].access.strides;
      if (g.leader.empty()) g.leader = strides;
      g.open = g.open && g.leader == strides;
    }
    g.open = g.open && steady(g);
  }

  /// Whether `later` may not run before `earlier`.
  bool ordered(const Group& earlier, const Group& later) const {
    for (const int32_t s : later.writes) {
      if (has(earlier.writes, s) || has(earlier.reads, s)) return true;
      // A write to what was there before must not come before a check that may fail.
      if (earlier.may_raise && !trace_.storages[static_cast<size_t>(s)].fresh) return true;
    }
    for (const int32_t s : later.reads) {
      if (has(earlier.writes, s)) return true;
    }
    return false;
  }

  void place(int32_t number) {
    Group alone = single(number);
    if (alone.open) {
      const size_t first = groups_.size() > kWindow ? groups_.size() - kWindow : 0;
      for (size_t g = groups_.size(); g-- > first;) {
        if (groups_[g].open && feeds(groups_[g], alone)) {
          if (std::optional<Group> both = joined(groups_[g], alone)) {
            groups_[g] = std::move(*both);
            gather(g, alone);
            return;
          }
        }
        if (ordered(groups_[g], alone)) break;
      }
    }
    groups_.push_back(alone);
    if (alone.open) gather(groups_.size() - 1, alone);
  }

  /// Moves earlier groups that made what `record` reads down into its group `g`.
  void gather(size_t g, const Group& record) {
    const size_t first = g > kWindow ? g - kWindow : 0;
    for (size_t h = g; h-- > first;) {
      const Group& maker = groups_[h];
      const bool makes = std::any_of(record.reads.begin(), record.reads.end(),
                                     [&](int32_t s) { return has(maker.writes, s); });
      if (maker.open && makes && move_down(h, g)) --g;
    }
  }

  /// Joins groups that read the same memory.
  void join_readers() {
    for (size_t g = 1; g < groups_.size(); ++g) {
      const size_t first = g > kWindow ? g - kWindow : 0;
      for (size_t h = g; h-- > first;) {
        if (!groups_[g].open) break;
        if (groups_[h].open && shares_loads(groups_[h], groups_[g]) && move_down(h, g)) --g;
      }
    }
  }

  /// Joins group `h` with the later one `g`, in its place; false where it may not.
  bool move_down(size_t h, size_t g) {
    const Group& maker = groups_[h];
    for (size_t k = h + 1; k < g; ++k) {
      if (ordered(maker, groups_[k])) return false;
      if (groups_[k].may_raise &&
          std::any_of(maker.writes.begin(), maker.writes.end(), [&](int32_t s) { return lasts(s); }))
        return false;
    }
    std::optional<Group> both = maker;
    for (const Member& m : groups_[g].members) {
      both = joined(*both, single(m.unit));
      if (!both) return false;
    }
    groups_[g] = std::move(*both);
    groups_.erase(groups_.begin() + static_cast<std::ptrdiff_t>(h));
    return true;
  }

  static bool shares_loads(const Group& a, const Group& b) {
    return std::any_of(b.loads.begin(), b.loads.end(), [&](const Access& x) {
      return std::any_of(a.loads.begin(), a.loads.end(),
                         [&](const Access& y) { return x.storage == y.storage && x.offset == y.offset; });
    });
  }

  /// Whether `b` reads what `a` makes, or writes what it uses.
  static bool feeds(const Group& a, const Group& b) {
    return std::any_of(b.reads.begin(), b.reads.end(), [&](int32_t s) { return has(a.writes, s); }) ||
           std::any_of(b.writes.begin(), b.writes.end(),
                       [&](int32_t s) { return has(a.writes, s) || has(a.reads, s); });
  }

  /// The two as one group, or nothing. `r` has one member.
  std::optional<Group> joined(const Group& g, const Group& r) const {
    if (g.nodes + r.nodes > kMostNodes) return std::nullopt;
    if (r.both_ways || (g.both_ways && (has_windows(r) || !goes_on_with_elements(g, r)))) return std::nullopt;
    Group a = g, b = r;
    if (!align(a, b)) return std::nullopt;
    const Member& m = b.members[0];
    // Every read of what the group wrote is of exactly that place, or of none of it; so is a place that is
    // written.
    for (const Access& i : b.loads) {
      if (has(a.writes, i.storage) && !has(a.stores, i) && !apart(i, a.stores, a.sizes)) return std::nullopt;
    }
    const bool reduces = a.reduces || b.reduces;
    for (const Access& o : m.outputs) {
      for (const Access& l : a.loads) {
        if (l.storage == o.storage && (l != o || reduces) && !apart(l, o, a.sizes)) return std::nullopt;
      }
      for (const Access& s : a.stores) {
        if (s.storage == o.storage && s != o && !apart(s, o, a.sizes)) return std::nullopt;
      }
    }
    if (reduces) {
      // A load from memory that is written: sweeps would see both values. An element in the very place that
      // it is written to is read for the new value alone, in the sweep that writes it; if it is not the same
      // one for all of a row.
      for (const Access& i : b.loads) {
        if (has(b.writes, i.storage) && !has(a.stores, i) && !(has(m.outputs, i) && moves(i)))
          return std::nullopt;
      }
      if (!worth_sweeping(a, b) || (!reduces_at_once(a) && (has_windows(a) || has_windows(b))))
        return std::nullopt;
    }
    for (const Access& i : b.loads) {
      if (!has(a.stores, i) && !has(a.loads, i)) a.loads.push_back(i);
    }
    for (const Access& o : m.outputs) {
      if (!has(a.stores, o)) a.stores.push_back(o);
      add(a.writes, o.storage);
    }
    for (const int32_t s : b.reads) add(a.reads, s);
    if (b.reduces || waits(b, a.late)) {
      for (const int32_t s : b.writes) add(a.late, s);
    }
    a.counts = a.counts || b.counts;
    a.nodes += b.nodes;
    if (reduces) {
      if (a.leader.empty() && !a.reduces) a.leader = b.leader;
      if (a.reduces && b.reduces && a.leader != b.leader) return std::nullopt;
      a.reduces = true;
      if (!steady(a)) return std::nullopt;
    }
    a.members.push_back(m);
    if (operands(a) > kMostOperands) return std::nullopt;
    return a;
  }

  /// A window may be an operand beside what is read in it.
  static size_t loads(const Group& g) {
    const auto windows =
        std::count_if(g.loads.begin(), g.loads.end(), [](const Access& x) { return !x.window.everywhere(); });
    return g.loads.size() + static_cast<size_t>(windows);
  }

  /// Places that the group's kernel has to know: a result that only its own members use never gets to memory.
  size_t operands(const Group& g) const {
    size_t count = loads(g);
    for (const Access& o : g.stores)
      count += inner_users(g, o.storage) < users_[static_cast<size_t>(o.storage)] || lasts(o.storage) ? 1 : 0;
    return count;
  }
  /// Whether what is in the storage outlives the trace.
  bool lasts(int32_t storage) const {
    const TraceStorage& s = trace_.storages[static_cast<size_t>(storage)];
    return s.observed || !s.fresh;
  }
  int32_t inner_users(const Group& g, int32_t storage) const {
    return static_cast<int32_t>(std::count_if(g.members.begin(), g.members.end(),
                                              [&](const Member& m) { return uses(m.unit, storage); }));
  }

  /// Joins as `grouping` says; false where there is none, or sizes forbid it here. The order of steps does
  /// not depend on sizes.
  bool follow(const Grouping& grouping) {
    std::vector<bool> placed(units_.size());
    for (const std::vector<int32_t>& members : grouping) {
      for (const int32_t u : members) placed[static_cast<size_t>(u)] = true;
    }
    // What puts an assembly together there may have to be in memory here.
    for (size_t u = 0; u < placed.size() && !grouping.empty(); ++u) {
      if (!placed[u] && !is_spared(static_cast<int32_t>(u))) return false;
    }
    for (const std::vector<int32_t>& members : grouping) {
      std::optional<Group> g = single(members[0]);
      for (size_t i = 1; i < members.size(); ++i) {
        Group next = single(members[i]);
        if (!g->open || !next.open) return false;
        g = joined(*g, next);
        if (!g) return false;
      }
      groups_.push_back(std::move(*g));
    }
    return !grouping.empty();
  }

  /// Brings both to one space with the same groups.
  bool align(Group& a, Group& b) const {
    if (a.sizes != b.sizes && !onto_kept(a, b) && !onto_all(a, b)) {
      const std::optional<Dims> fine = common_refinement(a.sizes, b.sizes);
      if (!fine || fine->size() > 8 || !refine(a, *fine) || !refine(b, *fine)) return false;
    }
    if (a.groups == b.groups) return true;
    // Whoever speaks of groups keeps them.
    const bool a_fixed = a.reduces || a.counts, b_fixed = b.reduces || b.counts;
    if (a_fixed && b_fixed) return false;
    (a_fixed ? b : a).groups = a_fixed ? a.groups : b.groups;
    return true;
  }

  /// Single numbers that nobody else needs are made wherever they are used.
  bool onto_all(Group& a, const Group& b) const {
    if (!a.sizes.empty() || b.sizes.empty() || a.reduces || a.counts) return false;
    for (const Access& o : a.stores) {
      const int32_t inner = inner_users(a, o.storage) + (uses(b.members[0].unit, o.storage) ? 1 : 0);
      if (lasts(o.storage) || inner < users_[static_cast<size_t>(o.storage)]) return false;
    }
    const auto hold = [still = Dims(b.sizes.size())](Access& x) {
      x.strides = still;
      return true;
    };
    each_access(a, hold);
    a.sizes = b.sizes;
    a.groups = b.groups;
    return true;
  }

  /// Calls `f` with every storage that a unit reads or writes.
  void each_storage(int32_t unit, auto&& f) const {
    const TraceRecord& record = record_of(unit);
    const auto [number, output] = units_[static_cast<size_t>(unit)];
    for (const TraceOperand& o : trace_.inputs(record)) {
      if (!assemblies_ || o.storage < 0 || !assemblies_->reads_assembly(number, o.storage)) {
        f(o.storage);
      } else {
        for (const int32_t s : assemblies_->sources(o.storage)) f(s);
      }
    }
    for (int32_t i = 0; i < record.outputs; ++i) {
      if (output < 0 || output == i) f(trace_.outputs(record)[static_cast<size_t>(i)].storage);
    }
  }

  bool uses(int32_t unit, int32_t storage) const {
    bool found = false;
    each_storage(unit, [&](int32_t s) { found = found || s == storage; });
    return found;
  }

  void note_uses() {
    users_.assign(trace_.storages.size(), 0);
    std::vector<int32_t> last(trace_.storages.size(), -1);
    for (size_t u = 0; u < units_.size(); ++u) {
      if (is_spared(static_cast<int32_t>(u))) continue;
      each_storage(static_cast<int32_t>(u), [&](int32_t storage) {
        const auto s = static_cast<size_t>(storage);
        if (last[s] != static_cast<int32_t>(u)) ++users_[s];
        last[s] = static_cast<int32_t>(u);
      });
    }
  }

  FusedStep finish(const Group& g, const std::vector<bool>& used) const {
    FusedStep step;
    for (const Member& m : g.members) add(step.records, units_[static_cast<size_t>(m.unit)].record);
    const Unit& unit = units_[static_cast<size_t>(g.members[0].unit)];
    const TraceRecord& first = record_of(g.members[0].unit);
    if (is_dead(g, used)) return step;
    const bool in_pieces = std::any_of(g.members[0].inputs.begin(), g.members[0].inputs.end(),
                                       [](const Source& s) { return !s.pieces.empty(); });
    if (g.members.size() == 1 && unit.output < 0 && !in_pieces && !may_make_less(g, used)) {
      step.program = first.program;
      if (first.program == nullptr) step.call = unit.record;
      step.space = first.space;
      for (const TraceOperand& o : trace_.inputs(first)) step.operands.push_back(o);
      for (const TraceOperand& o : trace_.outputs(first)) step.operands.push_back(o);
      step.inputs = first.inputs;
      for (int32_t s = 0; s < first.scalars; ++s) step.scalars.push_back(first.scalar + s);
      if (trace_.inexact && first.program != nullptr) {
        Graph graph = first.program->graph();
        step.rewrites = relax(graph, still_inputs(step));
        if (step.rewrites.any()) own(step, std::move(graph), first.program->name());
      }
      return step;
    }
    build(g, used, step);
    return step;
  }

  /// Whether some results of a group are not needed, and the others are the same without them: the largest
  /// elements of rows without their places, say, which takes a third of the time. Without places the loops
  /// may get another order, which a row that lies dense, or the only loop beside it, does not show.
  bool may_make_less(const Group& g, const std::vector<bool>& used) const {
    if (!g.open || std::none_of(g.stores.begin(), g.stores.end(), [&](const Access& a) {
          return is_dead(static_cast<size_t>(a.storage), used);
        }))
      return false;
    if (!g.counts || std::count(g.groups.begin(), g.groups.end(), kOuter) <= 1) return true;
    for (size_t d = 0; d < g.leader.size(); ++d) {
      if (g.groups[d] == kRow && g.leader[d] != 1) return false;
    }
    return true;
  }

  static void own(FusedStep& step, Graph graph, const std::string& name) {
    step.own = shared_program(std::move(graph), name);
    step.program = step.own.get();
  }

  /// Which inputs stay where they are along the innermost loop of a kernel that reduces nothing.
  static std::vector<bool> still_inputs(const FusedStep& step) {
    const auto inputs = static_cast<size_t>(step.inputs);
    std::vector<bool> still(inputs);
    if (step.operands.size() == inputs) return still;
    const Dims& lead = step.operands[inputs].strides;
    size_t inner = step.space.sizes.size();
    for (size_t d = 0; d < step.space.sizes.size(); ++d) {
      if (step.space.sizes[d] == 1) continue;
      if (inner == step.space.sizes.size() || std::abs(lead[d]) <= std::abs(lead[inner])) inner = d;
    }
    if (inner == step.space.sizes.size()) return still;
    for (size_t i = 0; i < inputs; ++i) still[i] = step.operands[i].strides[inner] == 0;
    return still;
  }

  /// Nobody reads what is written there.
  bool is_dead(size_t storage, const std::vector<bool>& used) const {
    return !lasts(static_cast<int32_t>(storage)) && !used[storage];
  }
  bool is_dead(const Group& g, const std::vector<bool>& used) const {
    return !g.may_raise && std::all_of(g.writes.begin(), g.writes.end(),
                                       [&](int32_t s) { return is_dead(static_cast<size_t>(s), used); });
  }

  /// The members' graphs as one.
  void build(const Group& g, const std::vector<bool>& used, FusedStep& step) const {
    Graph graph;
    std::vector<std::pair<Access, Node>> known;  // what a place holds by now
    std::vector<Access> inputs;
    const auto value_at = [&](const Access& a) {
      for (const auto& [place, node] : known) {
        if (place == a) return node;
      }
      ir::Space space = 0;
      for (size_t d = 0; d < g.sizes.size(); ++d) {
        if (a.strides[d] != 0 || a.window.has_edge(d, g.sizes[d])) space |= g.groups[d];
      }
      const Node node = graph.input(static_cast<int>(inputs.size()), a.dtype, space);
      inputs.push_back(a);
      known.emplace_back(a, node);
      return node;
    };
    std::function<std::vector<Node>(const TraceRecord&, const std::vector<Source>&, int32_t)> results_of;
    const auto value_of = [&](const Source& s) {
      if (s.access.dtype == Dtype::kUndefined) return Node{};
      if (s.pieces.empty()) return value_at(s.access);
      Node value;
      for (const Piece& p : s.pieces) {
        const Node piece = results_of(trace_.records[static_cast<size_t>(p.record)], p.inputs, -1)[0];
        if (!value.defined()) {
          value = piece;
          continue;
        }
        // Nothing is loaded for the sake of the window, so that any place will do.
        const int32_t place = g.loads.empty() ? g.stores[0].storage : g.loads[0].storage;
        const Access window{place, 0, Dims(g.sizes.size()), Dtype::kBool, p.place.window};
        const Node mask = value_at(window);
        value = select(graph.inside(mask), piece, value);
      }
      return value;
    };
    results_of = [&](const TraceRecord& record, const std::vector<Source>& sources, int32_t output) {
      const Graph& from = record.program->graph();
      std::vector<Node> in, numbers;
      for (const Source& s : sources) in.push_back(value_of(s));
      for (int32_t s = 0; s < record.scalars; ++s) {
        Dtype dtype = Dtype::kFloat64;
        for (const GraphNode& n : from.nodes) {
          if (n.prim == Prim::kScalar && n.imm == s) dtype = n.dtype;
        }
        // Another part of the record may have brought it, or a record with the same numbers.
        const auto known = std::find(step.scalars.begin(), step.scalars.end(), record.scalar + s);
        numbers.push_back(graph.scalar(static_cast<int>(known - step.scalars.begin()), dtype));
        if (known == step.scalars.end()) step.scalars.push_back(record.scalar + s);
      }
      std::vector<int32_t> roots = from.outputs;
      if (output >= 0) roots = {from.outputs[static_cast<size_t>(output)]};
      return inline_graph(from, roots, graph, in, numbers);
    };
    std::string name = "fused";
    for (const Member& m : g.members) {
      const TraceRecord& record = record_of(m.unit);
      const std::vector<Node> out = results_of(record, m.inputs, units_[static_cast<size_t>(m.unit)].output);
      for (size_t o = 0; o < out.size(); ++o) {
        const Access& a = m.outputs[o];
        const auto old =
            std::find_if(known.begin(), known.end(), [&](const auto& k) { return k.first == a; });
        if (old != known.end())
          old->second = out[o];
        else
          known.emplace_back(a, out[o]);
      }
      if (name.size() < 48) name += "_" + record.program->name();
    }
    for (const Access& a : inputs) {
      step.operands.push_back({a.storage, a.offset, a.strides});
      step.windows.push_back(a.window);
    }
    if (std::all_of(step.windows.begin(), step.windows.end(), [](const Window& w) { return w.everywhere(); }))
      step.windows.clear();
    step.inputs = static_cast<int32_t>(inputs.size());
    for (const Access& a : g.stores) {
      const auto s = static_cast<size_t>(a.storage);
      if (is_dead(s, used)) continue;
      for (const auto& [place, node] : known) {
        if (place == a) graph.output(node);
      }
      step.operands.push_back({a.storage, a.offset, a.strides});
    }
    step.space.sizes = g.sizes;
    step.space.groups = g.groups;
    step.space.leader = g.leader;
    if (trace_.inexact) step.rewrites = relax(graph, still_inputs(step));
    own(step, std::move(graph), name);
  }

  const Trace& trace_;
  bool fuse_;
  std::vector<Unit> units_;
  std::optional<Assemblies> assemblies_;
  std::vector<Group> groups_;
  std::vector<int32_t> users_;  ///< how many units use a storage
};

}  // namespace

std::vector<FusedStep> fuse(const Trace& trace, bool fuse, Grouping& grouping) {
  return Fusion(trace, fuse).run(grouping);
}

}  // namespace lohe::compiler
