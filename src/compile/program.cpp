#include "compile/program.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstring>
#include <map>

#include "base/allocator.h"
#include "base/dump.h"
#include "base/fork.h"
#include "base/inline_vector.h"
#include "base/threads.h"
#include "compile/nest.h"
#include "ir/primitives.h"
#include "lohe/error.h"

namespace lohe::compiler {
namespace {

using namespace ir;

/// About 5 microseconds of simple instructions: what is worth handing to another core, whose worker waits
/// awake where regions come close together.
constexpr int64_t kGrainWork = 1 << 16;
/// From this many columns on their accumulators are kept in memory, and rows are read in order.
constexpr int64_t kByRows = 32;
/// Nodes of a graph times elements of a row that become straight code.
constexpr int64_t kUnrolledRow = 256;
/// Rows of so many elements at most are done together, if there are many.
constexpr int64_t kRowsTogetherOf = 128, kManyRows = 32;
constexpr size_t kMaxBuffers = 64, kMaxScratch = 32, kMostFlatParams = 64;

/// With vectors of 64 bytes a row is a quarter of the instructions, of which a processor then has those of
/// several rows in hand; what it does there with rows written side by side is not measured. Kernels that are
/// interpreted do it everywhere, so that the prebuilt ones do not depend on who builds them.
int rows_together() {
  static const bool side_by_side = codegen::cpu_level() != codegen::CpuLevel::kAvx512 ||
                                   codegen::KernelCacheOptions::from_environment().interpreter;
  return side_by_side ? 4 : 1;
}

Launch::Extent extent_of(const Loops& nest, size_t operand, int64_t itemsize) {
  int64_t span = 1, elements = 1;
  bool forward = nest[0].strides[operand] >= 0;
  for (size_t d = 1; d < nest.size(); ++d) {
    const int64_t stride = nest[d].strides[operand];
    forward = forward && stride >= 0;
    span += (nest[d].size - 1) * stride;
    elements *= nest[d].size;
  }
  return {nest[0].strides[operand] * itemsize, span * itemsize, forward, forward && elements == span};
}

}  // namespace

struct Program::Entry {
  KernelSpec spec;
  LoweredKernel lowered;
  const codegen::CompiledKernel* compiled = nullptr;
};

struct Program::Stage {
  Graph graph;
  ir::Space reduced = 0;
  bool uses_iota = false;
  std::vector<int32_t> inputs;  ///< operand numbers: program inputs, then temporaries
  std::vector<Dtype> input_dtypes;
  std::vector<int32_t>
      outputs;  ///< operand numbers: >= 0 temporaries (as input numbers), < 0: program output -1 - k
  std::vector<std::unique_ptr<Entry>> entries;
  std::atomic<Entry*> last{nullptr};
  std::vector<std::unique_ptr<Program>>
      folds;  ///< of a split step: each reduction's over the blocks; null: no reduction
  std::vector<int32_t>
      extremes;  ///< of a split step: the output with the values whose positions it folds; -1
};

Program::Program(Graph graph, std::string name) : graph_(std::move(graph)), name_(std::move(name)) {
  for (const GraphNode& n : graph_.nodes) {
    if (n.prim == Prim::kInput && n.imm < kUnread)
      input_count_ = std::max(input_count_, static_cast<size_t>(n.imm) + 1);
  }
  plan(false, steps_);
}

Program::~Program() = default;

void Program::plan(bool split, std::vector<std::unique_ptr<Stage>>& steps) {
  const size_t n = graph_.nodes.size();
  const std::vector<bool> needed = graph_.needed();
  // A reduction goes to the step of its level; a level ends where the next reduction runs over other groups
  // (or, split, where any reduction follows).
  using Key = std::pair<int, ir::Space>;
  std::vector<Key> upstream(n, {-1, 0});  // the last step that a node waits for
  std::vector<bool> mixed(n);             // waits for steps of one level but of different spans
  std::map<Key, std::vector<int32_t>> reductions, outputs;
  for (size_t i = 0; i < n; ++i) {
    if (!needed[i]) continue;
    const GraphNode& g = graph_.nodes[i];
    for (const int32_t x : {g.a, g.b, g.c}) {
      if (x < 0) continue;
      const Key k = upstream[static_cast<size_t>(x)];
      if (k.first == upstream[i].first && k.second != upstream[i].second) mixed[i] = true;
      if (mixed[static_cast<size_t>(x)] && k.first >= upstream[i].first) mixed[i] = true;
      if (k.first > upstream[i].first) {
        upstream[i] = k;
        mixed[i] = mixed[static_cast<size_t>(x)];
      }
    }
    if (is_reduction(g.prim)) {
      const Key before = upstream[i];
      int level = std::max(before.first, 0);
      if (before.first >= 0 && (before.second != g.span || mixed[i] || split)) level = before.first + 1;
      upstream[i] = {level, g.span};
      mixed[i] = false;
      reductions[upstream[i]].push_back(static_cast<int32_t>(i));
    }
  }
  const auto home = [&](int32_t id) {
    Key k = upstream[static_cast<size_t>(id)];
    // What waits for nothing is made in the first sweep; but only what varies along the rows where blocks of
    // them are separate calls.
    if (k.first < 0) {
      if (reductions.empty()) return Key{1000, 0};
      const Key first = reductions.begin()->first;
      const bool varies = (graph_.nodes[static_cast<size_t>(id)].space & first.second) != 0;
      return split && !varies ? Key{1000, 0} : first;
    }
    if (mixed[static_cast<size_t>(id)] || split) return Key{1000, 0};
    // A sum over samples that the classes have in common is not taken again for each class. (Reductions of
    // rows keep their loops: fusion counts on the ones that they go down alone.)
    const ir::Space space = graph_.nodes[static_cast<size_t>(id)].space;
    for (const int32_t r : reductions.at(k)) {
      const GraphNode& reduction = graph_.nodes[static_cast<size_t>(r)];
      const ir::Space operand = graph_.nodes[static_cast<size_t>(reduction.a)].space;
      if ((reduction.span & kOuter) != 0 && (space & ~reduction.span & ~operand) != 0) return Key{1000, 0};
    }
    return k;
  };
  for (size_t o = 0; o < graph_.outputs.size(); ++o)
    outputs[home(graph_.outputs[o])].push_back(static_cast<int32_t>(o));
  std::map<Key, std::vector<int32_t>> checks;
  for (size_t c = 0; c < graph_.checks.size(); ++c)
    checks[home(graph_.checks[c].condition)].push_back(static_cast<int32_t>(c));

  std::vector<Key> keys;
  for (const auto& [k, list] : reductions) keys.push_back(k);
  for (const auto& [k, list] : outputs) keys.push_back(k);
  for (const auto& [k, list] : checks) keys.push_back(k);
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());

  std::map<int32_t, int32_t> temporaries;  // reduction -> operand number
  auto next_operand = static_cast<int32_t>(input_count_);
  for (const Key& key : keys) {
    auto step = std::make_unique<Stage>();
    step->reduced = key.second;
    // Copy what this step needs; results of earlier steps become inputs.
    std::map<int32_t, Node> copied;
    std::map<int32_t, int32_t> input_number;
    const auto input = [&](int32_t operand, Dtype dtype, ir::Space space) {
      auto [at, added] = input_number.emplace(operand, static_cast<int32_t>(step->inputs.size()));
      if (added) {
        step->inputs.push_back(operand);
        step->input_dtypes.push_back(dtype);
      }
      return step->graph.input(at->second, dtype, space);
    };
    std::vector<int32_t> roots;
    const auto in_step = [&](int32_t id) {
      const auto found = reductions.find(key);
      return found != reductions.end() &&
             std::find(found->second.begin(), found->second.end(), id) != found->second.end();
    };
    std::vector<bool> want(n);
    if (reductions.contains(key))
      for (const int32_t r : reductions[key]) want[static_cast<size_t>(r)] = true;
    if (outputs.contains(key))
      for (const int32_t o : outputs[key])
        want[static_cast<size_t>(graph_.outputs[static_cast<size_t>(o)])] = true;
    if (checks.contains(key))
      for (const int32_t c : checks[key])
        want[static_cast<size_t>(graph_.checks[static_cast<size_t>(c)].condition)] = true;
    for (size_t i = n; i-- > 0;) {
      if (!want[i] || (is_reduction(graph_.nodes[i].prim) && !in_step(static_cast<int32_t>(i)))) continue;
      for (const int32_t x : {graph_.nodes[i].a, graph_.nodes[i].b, graph_.nodes[i].c}) {
        if (x >= 0) want[static_cast<size_t>(x)] = true;
      }
    }
    for (size_t i = 0; i < n; ++i) {
      if (!want[i]) continue;
      const GraphNode& g = graph_.nodes[i];
      const auto id = static_cast<int32_t>(i);
      const auto at = [&](int32_t x) { return x < 0 ? Node{} : copied.at(x); };
      Node c;
      if (g.prim == Prim::kInput) {
        c = input(static_cast<int32_t>(g.imm), g.dtype, g.space);
      } else if (g.prim == Prim::kInside) {
        c = step->graph.inside(input(static_cast<int32_t>(g.imm), Dtype::kBool, g.space));
      } else if (is_reduction(g.prim) && !in_step(id)) {
        c = input(temporaries.at(id), g.dtype, g.space);
      } else {
        GraphNode copy = g;
        copy.a = g.a < 0 ? -1 : at(g.a).id();
        copy.b = g.b < 0 ? -1 : at(g.b).id();
        copy.c = g.c < 0 ? -1 : at(g.c).id();
        step->graph.nodes.push_back(copy);
        c = step->graph.at(static_cast<int32_t>(step->graph.nodes.size()) - 1);
        step->uses_iota =
            step->uses_iota || g.prim == Prim::kIota || g.prim == Prim::kArgmax || g.prim == Prim::kArgmin;
      }
      copied.emplace(id, c);
    }
    if (reductions.contains(key)) {
      for (const int32_t r : reductions[key]) {
        // Used by another step (or by nobody here): write it out.
        bool outside = false;
        for (const Key& other : keys) {
          if (other == key) continue;
          std::vector<int32_t> targets;
          if (outputs.contains(other))
            for (const int32_t o : outputs[other]) targets.push_back(graph_.outputs[static_cast<size_t>(o)]);
          if (checks.contains(other))
            for (const int32_t k : checks[other])
              targets.push_back(graph_.checks[static_cast<size_t>(k)].condition);
          if (reductions.contains(other))
            for (const int32_t k : reductions[other]) targets.push_back(k);
          std::vector<bool> reach(n);
          for (const int32_t t : targets) reach[static_cast<size_t>(t)] = true;
          for (size_t i = n; i-- > 0;) {
            if (!reach[i]) continue;
            if (is_reduction(graph_.nodes[i].prim) && upstream[i] != other) continue;
            for (const int32_t x : {graph_.nodes[i].a, graph_.nodes[i].b, graph_.nodes[i].c}) {
              if (x >= 0) reach[static_cast<size_t>(x)] = true;
            }
          }
          outside = outside || reach[static_cast<size_t>(r)];
        }
        if (!outside) continue;
        temporaries[r] = next_operand;
        step->graph.output(copied.at(r));
        step->outputs.push_back(next_operand++);
      }
    }
    if (outputs.contains(key)) {
      for (const int32_t o : outputs[key]) {
        step->graph.output(copied.at(graph_.outputs[static_cast<size_t>(o)]));
        step->outputs.push_back(-1 - o);
      }
    }
    if (checks.contains(key)) {
      for (const int32_t c : checks[key]) {
        const Graph::Check& check = graph_.checks[static_cast<size_t>(c)];
        step->graph.check(copied.at(check.condition), check.message, check.index_error);
      }
    }
    if (split && key.second != 0) add_folds(*step, next_operand);
    steps.push_back(std::move(step));
  }
}

void Program::add_folds(Stage& step, int32_t& next_operand) {
  const auto finds_position = [](Prim p) { return p == Prim::kArgmax || p == Prim::kArgmin; };
  // Whose block has the extreme is told by the values, which are results, too.
  const size_t results = step.graph.outputs.size();
  for (size_t o = 0; o < results; ++o) {
    const GraphNode g = step.graph.node(step.graph.outputs[o]);
    step.extremes.push_back(-1);
    if (!finds_position(g.prim)) continue;
    const bool max = g.prim == Prim::kArgmax, boolean = step.graph.node(g.a).dtype == Dtype::kBool;
    const Prim extreme = max ? (boolean ? Prim::kAny : Prim::kAmax) : (boolean ? Prim::kAll : Prim::kAmin);
    for (size_t v = 0; v < step.graph.outputs.size() && step.extremes[o] < 0; ++v) {
      const GraphNode& found = step.graph.node(step.graph.outputs[v]);
      if (found.prim == extreme && found.a == g.a && found.span == g.span)
        step.extremes[o] = static_cast<int32_t>(v);
    }
    if (step.extremes[o] >= 0) continue;
    step.extremes[o] = static_cast<int32_t>(step.graph.outputs.size());
    step.graph.output(step.graph.reduce(extreme, step.graph.at(g.a), g.span));
    step.outputs.push_back(next_operand++);
  }
  step.extremes.resize(step.graph.outputs.size(), -1);
  for (size_t o = 0; o < step.graph.outputs.size(); ++o) {
    const GraphNode& g = step.graph.node(step.graph.outputs[o]);
    if (!is_reduction(g.prim)) {
      step.folds.push_back(nullptr);
      continue;
    }
    Graph fold;
    Node result;
    if (step.extremes[o] >= 0) {
      const Dtype values = step.graph.node(step.graph.outputs[static_cast<size_t>(step.extremes[o])]).dtype;
      const Node value = fold.input(0, values, kOuter | kRow),
                 position = fold.input(1, g.dtype, kOuter | kRow);
      result = fold.reduce(g.prim, value, kRow);
      fold.nodes.back().b = position.id();
    } else {
      result = fold.reduce(g.prim, fold.input(0, g.dtype, kOuter | kRow), kRow);
    }
    fold.output(result);
    step.folds.push_back(std::make_unique<Program>(std::move(fold), name_ + "_blocks"));
  }
}

Program::Entry& Program::entry(Stage& step, const KernelSpec& spec) {
  if (Entry* last = step.last.load(std::memory_order_acquire); last != nullptr && last->spec == spec)
    return *last;
  const ForkSection section;
  const std::lock_guard lock(mutex_);
  for (const auto& e : step.entries) {
    if (e->spec == spec) {
      step.last.store(e.get(), std::memory_order_release);
      return *e;
    }
  }
  auto e = std::make_unique<Entry>();
  e->spec = spec;
  e->lowered = lower(step.graph, spec, name_);
  LOHE_INTERNAL_ASSERT(
      e->lowered.scratch.size() <= kMaxScratch && e->lowered.kernel.buffers.size() <= kMaxBuffers, "kernel ",
      name_, " has too many buffers");
  ir::check(e->lowered.kernel);
  if (dumps_ir()) dump_ir(name_, "kernel", print(step.graph) + "\n" + print(e->lowered.kernel));
  e->compiled = codegen::KernelCache::global().get(e->lowered.kernel);
  Entry* made = e.get();
  step.entries.push_back(std::move(e));
  step.last.store(made, std::memory_order_release);
  return *made;
}

Program::Entry& Program::flat_entry(size_t operands, uint32_t moves) {
  std::atomic<Entry*>* cached = moves < flat_.size() ? &flat_[moves] : nullptr;
  if (Entry* e = cached != nullptr ? cached->load(std::memory_order_acquire) : nullptr) return *e;
  Stage& step = *steps_.front();
  const size_t inputs = step.inputs.size();
  KernelSpec spec;
  spec.dims = {{kOuter, false}};
  spec.unit_iota = step.uses_iota;
  for (size_t i = 0; i < operands; ++i) {
    Operand o;
    o.dims = moves >> flat_source(i) & 1;
    o.step = o.dims != 0 ? Step::kUnit : Step::kZero;
    if (i < inputs) {
      o.dtype = step.input_dtypes[i];
      spec.inputs.push_back(o);
    } else {
      o.dtype = step.graph.node(step.graph.outputs[i - inputs]).dtype;
      spec.outputs.push_back(o);
    }
  }
  Entry& e = entry(step, spec);
  if (cached != nullptr) cached->store(&e, std::memory_order_release);
  return e;
}

size_t Program::flat_source(size_t operand) const {
  const std::vector<int32_t>& inputs = steps_.front()->inputs;
  return operand < inputs.size() ? static_cast<size_t>(inputs[operand])
                                 : input_count_ + operand - inputs.size();
}

void Program::flat_params(const Entry& e, int64_t n, std::span<const Scalar> scalars, int64_t* params) {
  for (const Slot& s : e.lowered.slots) {
    switch (s.kind) {
      case Slot::kScalar:
        *params++ = scalar_bits(scalars[static_cast<size_t>(s.a)], s.dtype, s.b == 1);
        break;
      case Slot::kIotaBase:
        *params++ = 0;
        break;
      case Slot::kIotaStep:
        *params++ = 1;
        break;
      default:
        *params++ = n;
        break;
    }
  }
}

int64_t Program::flat_grain(const Entry& e) {
  return std::max<int64_t>((kGrainWork / (e.lowered.cost + 2) + 255) / 256 * 256, 256);
}

void Program::raise_flat(int32_t code) const {
  const Graph::Check& check = steps_.front()->graph.checks[static_cast<size_t>(code - 1)];
  raise(check.index_error ? ErrorKind::kIndex : ErrorKind::kRuntime, check.message);
}

void Program::run_flat(int64_t n, std::span<char* const> pointers, uint32_t moves,
                       std::span<const Scalar> scalars) {
  // The stage reads only those inputs that its results need.
  const size_t operands = steps_.front()->inputs.size() + pointers.size() - input_count_;
  const Entry& e = flat_entry(operands, moves);
  int64_t params[kMostFlatParams];
  LOHE_INTERNAL_ASSERT(e.lowered.slots.size() <= kMostFlatParams);
  flat_params(e, n, scalars, params);
  void* buffers[32];
  for (size_t i = 0; i < operands; ++i) buffers[i] = pointers[flat_source(i)];
  const codegen::CompiledKernel& kernel = *e.compiled;
  if (n * (e.lowered.cost + 2) <= 2 * kGrainWork) {
    if (const int32_t code = kernel(buffers, params, 0, n); code != 0) raise_flat(code);
    return;
  }
  std::atomic<int32_t> worst{0};
  parallel_for(
      n, flat_grain(e),
      [&](int64_t begin, int64_t end) {
        if (const int32_t c = kernel(buffers, params, begin, end); c != 0)
          worst.store(c, std::memory_order_relaxed);
      },
      Grain::kShort);
  if (const int32_t code = worst.load(); code != 0) raise_flat(code);
}

void Program::run_flat_list(std::span<const int64_t> counts, std::span<char* const> pointers,
                            std::span<const Scalar> scalars) {
  const size_t sets = counts.size(), given = pointers.size() / sets, numbers = scalars.size() / sets;
  const size_t operands = steps_.front()->inputs.size() + given - input_count_;
  const Entry& e = flat_entry(operands, (uint32_t{1} << given) - 1);
  const size_t slots = e.lowered.slots.size();
  const codegen::CompiledKernel& kernel = *e.compiled;
  std::vector<int64_t> params(sets * slots);
  std::vector<void*> buffers(sets * operands);
  for (size_t s = 0; s < sets; ++s) {
    flat_params(e, counts[s], scalars.subspan(s * numbers, numbers), params.data() + s * slots);
    for (size_t i = 0; i < operands; ++i) buffers[s * operands + i] = pointers[s * given + flat_source(i)];
  }
  SmallVector<Part, 32> parts;
  for (const int64_t n : counts) parts.push_back({n, flat_grain(e)});
  std::atomic<int32_t> worst{0};
  run_parts({parts.data(), parts.size()}, [&](size_t s, int64_t begin, int64_t end) {
    if (const int32_t c = kernel(buffers.data() + s * operands, params.data() + s * slots, begin, end);
        c != 0)
      worst.store(c, std::memory_order_relaxed);
  });
  if (const int32_t code = worst.load(); code != 0) raise_flat(code);
}

Program::Stages& Program::stages(const Space& space, bool* split) {
  int64_t kept = 1, row = 1;
  ir::Space reduced = 0;
  for (const auto& s : steps_) reduced |= s->reduced;
  for (size_t d = 0; d < space.sizes.size(); ++d)
    ((space.groups[d] & reduced) != 0 ? row : kept) *= space.sizes[d];
  // Few long rows: sum blocks of a fixed length side by side. Decided by the shape alone.
  *split = reduced == kRow && row >= 2 * kBlock && kept < 64;
  if (!*split) return steps_;
  const ForkSection section;
  std::call_once(split_once_, [this] { plan(true, split_steps_); });
  return split_steps_;
}

std::vector<int> Program::leaders(const Space& space) {
  bool split = false;
  std::vector<int> numbers;
  for (const auto& s : stages(space, &split)) {
    if (s->reduced == 0) continue;
    const bool own = s->inputs.empty() || static_cast<size_t>(s->inputs[0]) >= input_count_;
    numbers.push_back(own ? -1 : s->inputs[0]);
  }
  return numbers;
}

void Program::run(const Space& space, std::span<const Binding> inputs, std::span<const Binding> outputs,
                  std::span<const Scalar> scalars) {
  bool split = false;
  Stages& chosen = stages(space, &split);
  run_steps(chosen, split, space, inputs, outputs, scalars);
}

void Program::run_steps(std::vector<std::unique_ptr<Stage>>& steps, bool split, const Space& space,
                        std::span<const Binding> inputs, std::span<const Binding> outputs,
                        std::span<const Scalar> scalars) {
  struct Temporaries {
    InlineVector<Binding, 2> bindings;  ///< by operand number, from input_count_ on
    InlineVector<std::pair<char*, size_t>, 2> blocks;
    ~Temporaries() {
      for (const auto& [p, n] : blocks) deallocate(p, n);
    }
  } temporaries;
  for (const auto& step : steps) {
    // Operands of this step: inputs, then outputs.
    InlineVector<Binding, 8> bound;
    for (const int32_t i : step->inputs) {
      const auto number = static_cast<size_t>(i);
      bound.push_back(number < input_count_ ? inputs[number] : temporaries.bindings[number - input_count_]);
    }
    for (size_t o = 0; o < step->outputs.size(); ++o) {
      const int32_t number = step->outputs[o];
      if (number < 0) {
        bound.push_back(outputs[static_cast<size_t>(-1 - number)]);
        continue;
      }
      const GraphNode& g = step->graph.node(step->graph.outputs[o]);
      Binding t;
      t.strides.resize(space.sizes.size());
      int64_t count = 1;
      for (size_t d = space.sizes.size(); d-- > 0;) {
        if ((space.groups[d] & g.space) != 0) {
          t.strides[d] = count;
          count *= space.sizes[d];
        }
      }
      const auto bytes = static_cast<size_t>(count * itemsize(g.dtype));
      if (space.preparation != nullptr) {
        t.data = space.preparation->temporary(static_cast<int64_t>(bytes));
      } else {
        t.data = static_cast<char*>(allocate(bytes));
        temporaries.blocks.emplace_back(t.data, bytes);
      }
      const size_t at = static_cast<size_t>(number) - input_count_;
      if (temporaries.bindings.size() <= at) temporaries.bindings.resize(at + 1);
      temporaries.bindings[at] = t;
      bound.push_back(std::move(t));
    }
    run_kernel(*step, space, bound, scalars, split && step->reduced != 0);
  }
}

void Program::run_kernel(Stage& step, const Space& space, std::span<const Binding> operands,
                         std::span<const Scalar> scalars, bool split) {
  const size_t count = operands.size();
  // 1. Loops.
  Nest shape = make_nest(space, operands, step.inputs.size(), step.reduced, step.uses_iota);
  Loops& loops = shape.loops;
  size_t& kept = shape.kept;
  const size_t moving = loops[0].strides.size();

  const bool blocks = split && loops.size() == kept + 1 && loops.back().size >= 2 * kBlock;
  int64_t whole_blocks = 0, tail = 0;
  std::vector<Binding> partial(count);     // by operand; of reductions
  std::vector<Dims> final_strides(count);  // by operand: those of its result, along the kept loops
  std::vector<std::pair<char*, size_t>> partial_memory;
  if (blocks) {
    Loop& row = loops.back();
    whole_blocks = row.size / kBlock;
    tail = row.size % kBlock;
    Loop block{whole_blocks, row.group, false, Dims(moving), row.logical * kBlock, {}};
    for (size_t o = 0; o < count; ++o) block.strides[o] = row.strides[o] * kBlock;
    row.size = kBlock;
    put_first(loops, std::move(block));
    ++kept;
    // Reductions become [blocks (+ tail), kept...] buffers.
    const int64_t n = whole_blocks + (tail != 0 ? 1 : 0);
    for (size_t o = step.inputs.size(); o < count; ++o) {
      if (step.folds[o - step.inputs.size()] == nullptr) continue;
      const GraphNode& g = step.graph.node(step.graph.outputs[o - step.inputs.size()]);
      int64_t size = 1;
      Binding& p = partial[o];
      for (size_t d = 0; d < kept; ++d) final_strides[o].push_back(loops[d].strides[o]);
      for (size_t d = kept; d-- > 0;) {
        loops[d].strides[o] = size;
        size *= d == 0 ? n : loops[d].size;
      }
      const auto bytes = static_cast<size_t>(size * itemsize(g.dtype));
      if (space.preparation != nullptr) {
        p.data = space.preparation->temporary(static_cast<int64_t>(bytes));
      } else {
        p.data = static_cast<char*>(allocate(bytes));
        partial_memory.push_back({p.data, bytes});
      }
    }
  }

  // 2. The kernel of this class.
  if (step.reduced == 0 && loops.size() > 1) {
    put_best_last(loops, step.inputs.size(), count);
    kept = loops.size();
  }
  KernelSpec spec;
  for (const Loop& l : loops) spec.dims.push_back({l.group, l.reduced});
  const size_t last = loops.size() - 1;
  spec.vector_dim = static_cast<int>(last);
  if (shape.along_columns) {
    spec.vector_dim = static_cast<int>(kept) - 1;
    spec.by_rows = loops[kept - 1].size >= kByRows;
  }
  if (step.reduced == kRow && !split && !shape.along_columns &&
      has_short_rows(loops, kept, step.inputs.size(), count)) {
    const auto work = static_cast<int64_t>(step.graph.nodes.size()) * loops.back().size;
    if (work <= kUnrolledRow) {
      spec.row = static_cast<int>(loops.back().size);
      spec.vector_dim = static_cast<int>(kept) - 1;
    }
  }
  if (step.reduced == kRow && !split && !shape.along_columns && spec.row == 0 && loops.size() == kept + 1 &&
      loops.back().size <= kRowsTogetherOf && loops[kept - 1].size >= kManyRows)
    spec.rows_together = rows_together();
  const auto v = static_cast<size_t>(spec.vector_dim);
  spec.unit_iota = step.uses_iota && loops[v].logical == 1;
  for (size_t o = 0; o < count; ++o) {
    Operand operand;
    for (size_t d = 0; d < loops.size(); ++d) {
      if (loops[d].strides[o] != 0 && loops[d].size != 1) operand.dims |= uint32_t{1} << d;
    }
    if ((operand.dims >> v & 1) != 0) operand.step = loops[v].strides[o] == 1 ? Step::kUnit : Step::kStrided;
    for (size_t d = 0; d < loops.size(); ++d) {
      for (const Edge& e : loops[d].edges) {
        if (e.operand == o) operand.edges |= uint32_t{1} << d;
      }
    }
    if (spec.row > 0 && o < step.inputs.size() && operand.step == Step::kStrided && operand.edges == 0 &&
        !is_complex(step.input_dtypes[o]) && loops[last].strides[o] == 1) {
      spec.tile_dim = static_cast<int>(last);
      operand.step = Step::kTurned;
    }
    if (step.reduced == 0 && o < step.inputs.size() && operand.step == Step::kStrided && operand.edges == 0) {
      const int turned = dense_loop(loops, o);
      if (turned >= 0 && (spec.tile_dim < 0 || spec.tile_dim == turned)) {
        spec.tile_dim = turned;
        operand.step = Step::kTurned;
      }
    }
    if (o < step.inputs.size()) {
      operand.dtype = step.input_dtypes[o];
      // A complex number is two loads of half its size.
      if (is_complex(operand.dtype) && operand.step == Step::kTurned) operand.step = Step::kStrided;
      spec.inputs.push_back(operand);
    } else {
      operand.dtype = step.graph.node(step.graph.outputs[o - step.inputs.size()]).dtype;
      for (size_t i = 0; step.reduced != 0 && i < step.inputs.size(); ++i)
        operand.overwrites = operand.overwrites || operands[i].data == operands[o].data;
      spec.outputs.push_back(operand);
    }
  }
  Entry& e = entry(step, spec);

  const auto dtype_of = [&](size_t o) {
    return o < step.inputs.size() ? spec.inputs[o].dtype : spec.outputs[o - step.inputs.size()].dtype;
  };

  // 3. Parameters and the call.
  const auto launch = [&](const Loops& nest, std::span<char* const> pointers, int64_t row_base) {
    Launch l;
    for (const Slot& s : e.lowered.slots) {
      int64_t value = 0;
      switch (s.kind) {
        case Slot::kExtent:
          value = nest[static_cast<size_t>(s.a)].size;
          break;
        case Slot::kCount:
          value = 1;
          for (size_t d = 0; d < space.sizes.size(); ++d) {
            if ((space.groups[d] & s.a) != 0) value *= space.sizes[d];
          }
          break;
        case Slot::kIotaBase:
          value = (s.a & kOuter) != 0 ? space.iota_base : row_base;
          break;
        case Slot::kIotaStep:
          value = nest[static_cast<size_t>(s.a)].logical;
          break;
        case Slot::kStride:
          value = nest[static_cast<size_t>(s.b)].strides[static_cast<size_t>(s.a)];
          break;
        case Slot::kLow:
        case Slot::kHigh:
          for (const Edge& edge : nest[static_cast<size_t>(s.b)].edges) {
            if (edge.operand == static_cast<size_t>(s.a)) value = s.kind == Slot::kLow ? edge.low : edge.high;
          }
          break;
        case Slot::kScalar:
          l.numbers.push_back({static_cast<int16_t>(l.params.size()), s.a, s.dtype, s.b == 1});
          break;
      }
      l.params.push_back(value);
    }
    int64_t inner = 1, row = 1;
    for (size_t d = 1; d < nest.size(); ++d) {
      inner *= nest[d].size;
      if (nest[d].reduced) row *= nest[d].size;
    }
    if (nest[0].size == 0 || (inner == 0 && row != 0)) return;
    for (const Scratch& s : e.lowered.scratch) l.scratch.push_back(s.per_row ? s.bytes * row : s.bytes);
    const int64_t work = std::max<int64_t>(inner, 1) * (e.lowered.cost + 2);
    // Sweeps over near rows run at full vector speed, where the same count of simple instructions is soon
    // done.
    const int64_t worth = step.reduced != 0 ? 4 * kGrainWork : kGrainWork;
    l.grain = std::max<int64_t>(worth / std::max<int64_t>(work, 1), 1);
    // Where the ranges cut a tile, memory is read in pieces: they may be no narrower than that is worth.
    if (spec.tile_dim == 0) l.grain = (l.grain + kTurnedTile - 1) / kTurnedTile * kTurnedTile;
    // Rows are read in pieces as long as a range: one for each thread, where a tile is not shorter.
    if (spec.by_rows && spec.vector_dim == 0) {
      constexpr int64_t kLine = 32;  // elements that are not shared between threads
      const int64_t share = ((nest[0].size - 1) / num_threads() / kLine + 1) * kLine;
      l.grain = std::max(l.grain, std::clamp<int64_t>(share, kColumnTile / 16, kColumnTile));
    }
    if (l.grain * work > 2 * worth) l.length = Grain::kLong;
    l.kernel = e.compiled;
    l.graph = &step.graph;
    l.count = nest[0].size;
    if (space.preparation != nullptr) {
      for (size_t o = 0; o < pointers.size(); ++o) {
        l.buffers.push_back(Preparation::decode(pointers[o]));
        l.extents.push_back(extent_of(nest, o, itemsize(dtype_of(o))));
      }
      space.preparation->launches.push_back(std::move(l));
      return;
    }
    for (size_t i = 0; i < pointers.size(); ++i) l.buffers.push_back({static_cast<int32_t>(i), 0});
    compiler::run(l, pointers, scalars);
  };
  SmallVector<char*, 16> pointers;
  for (const Binding& b : operands) pointers.push_back(b.data);
  if (!blocks) {
    launch(loops, {pointers.data(), pointers.size()}, 0);
    return;
  }
  for (size_t o = 0; o < count; ++o) {
    if (o >= step.inputs.size() && step.folds[o - step.inputs.size()] != nullptr)
      pointers[o] = partial[o].data;
  }
  launch(loops, {pointers.data(), pointers.size()}, 0);
  if (tail != 0) {
    Loops rest = loops;
    for (size_t o = 0; o < count; ++o) {
      pointers[o] += rest[0].strides[o] * whole_blocks * itemsize(dtype_of(o));
    }
    rest[0].size = 1;
    rest.back().size = tail;
    launch(rest, {pointers.data(), pointers.size()}, whole_blocks * kBlock);
  }
  // 4. Over the blocks, one reduction at a time.
  const int64_t n = whole_blocks + (tail != 0 ? 1 : 0);
  for (size_t o = step.inputs.size(); o < count; ++o) {
    const std::unique_ptr<Program>& fold = step.folds[o - step.inputs.size()];
    if (fold == nullptr) continue;
    Space s;
    s.preparation = space.preparation;
    Binding in{partial[o].data, {}}, out{operands[o].data, {}};
    s.sizes.push_back(n);
    s.groups.push_back(kRow);
    in.strides.push_back(loops[0].strides[o]);
    out.strides.push_back(0);
    for (size_t d = 1; d < kept; ++d) {
      s.sizes.push_back(loops[d].size);
      s.groups.push_back(kOuter);
      in.strides.push_back(loops[d].strides[o]);
      out.strides.push_back(final_strides[o][d]);
    }
    if (const int32_t v = step.extremes[o - step.inputs.size()]; v >= 0) {
      const size_t values = step.inputs.size() + static_cast<size_t>(v);
      Binding by{partial[values].data, {}};
      for (size_t d = 0; d < kept; ++d) by.strides.push_back(loops[d].strides[values]);
      fold->run(s, std::array{by, in}, std::array{out}, {});
      continue;
    }
    fold->run(s, std::array{in}, std::array{out}, {});
  }
  for (const auto& [p, bytes] : partial_memory) deallocate(p, bytes);
}

}  // namespace lohe::compiler
