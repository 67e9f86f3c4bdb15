#include "autograd/derive.h"

#include <atomic>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "base/fork.h"
#include "lohe/error.h"

namespace lohe::autograd {
namespace {

using namespace ops;

/// Gradients of the wanted parameters, in a graph in which `c.nodes` are the row's parameters, cotangents and
/// results.
std::vector<Node> gradients(const OpDef& op, GraphCall& c, uint64_t wanted) {
  const size_t params = op.schema.params.size(), outputs = op.schema.returns.size();
  std::vector<Node> by_param(params);
  if (op.graph_gradient) {
    // It is written for all parameters at once. A result that only the unwanted ones read was not kept: a
    // constant stands for it, and goes away with them.
    GraphCall whole = c;
    for (size_t i = params + outputs; i < params + 2 * outputs; ++i) {
      if (!whole.nodes[i].defined()) whole.nodes[i] = c.graph.constant(c.compute_dtype, 0);
    }
    std::vector<Node> given = op.graph_gradient(whole);
    // One a tensor parameter, in order; or one a parameter.
    size_t at = 0;
    for (size_t p = 0; p < params; ++p) {
      if (given.size() == params)
        by_param[p] = given[p];
      else if (op.schema.params[p].type == ArgType::kTensor && at < given.size())
        by_param[p] = given[at++];
    }
  } else {
    GraphCall forward{c.graph,
                      op,
                      {c.nodes.begin(), c.nodes.begin() + static_cast<long>(params)},
                      {c.attributes.begin(), c.attributes.begin() + static_cast<long>(params)},
                      c.compute_dtype,
                      c.result_dtype};
    const std::vector<Node> results = op.body(forward);
    std::vector<std::pair<int32_t, Node>> cotangents;
    for (size_t o = 0; o < outputs; ++o) {
      Node g = c.nodes[params + o];
      // A result that spans less than its shape was broadcast when it was written.
      if (g.defined()) {
        if (const auto extra = static_cast<ir::Space>(g.space() & ~results[o].space()); extra != 0)
          g = sum(g, extra);
      }
      if (g.defined() && is_differentiable(results[o].dtype())) {
        cotangents.push_back({results[o].id(), is_complex(g.dtype()) && !is_complex(results[o].dtype())
                                                   ? ir::real(g)
                                                   : cast(g, results[o].dtype())});
      }
    }
    std::vector<int32_t> wrt;
    for (size_t p = 0; p < params; ++p)
      wrt.push_back((wanted >> p & 1) != 0 && c.nodes[p].defined() ? c.nodes[p].id() : -1);
    by_param = differentiate(c.graph, cotangents, wrt);
  }
  std::vector<Node> list;
  for (size_t p = 0; p < params; ++p) {
    if ((wanted >> p & 1) == 0) continue;
    Node g = by_param[p];
    if (!g.defined()) g = c.graph.constant(c.compute_dtype, 0);
    // What a given gradient varies over beyond its parameter was broadcast on the way forward.
    if (const auto extra = static_cast<ir::Space>(g.space() & ~c.nodes[p].space()); extra != 0)
      g = sum(g, extra);
    list.push_back(g);
  }
  return list;
}

/// What the gradient of a composed row's operand `t` looks like before the tape sums it to t's shape. It lies
/// in the space as t does, by the rule's own map or (null) aligned at the right, but has the full size where
/// t was broadcast along dims of a group that it spans: the graph sums whole groups only.
Meta gradient_meta(const TensorImpl& t, const Domain& domain, const SmallVector<int8_t, 6>* map) {
  const size_t rank = domain.sizes.size(), n = t.sizes().size();
  Meta m;
  ir::Space spanned = 0;
  for (size_t d = 0; d < n; ++d) {
    m.dims.push_back(map != nullptr ? (*map)[d] : static_cast<int8_t>(rank - n + d));
    if (m.dims[d] >= 0) spanned |= domain.groups[static_cast<size_t>(m.dims[d])];
  }
  m.sizes = t.size_dims();
  bool leads = false;
  for (size_t k = 0; map == nullptr && k < rank - n; ++k)
    leads = leads || ((domain.groups[k] & spanned) != 0 && domain.sizes[k] != 1);
  if (leads) {
    m.sizes.clear();
    m.dims.clear();
    for (size_t k = 0; k < rank; ++k) {
      const bool has = k >= rank - n || (domain.groups[k] & spanned) != 0;
      m.sizes.push_back(has ? domain.sizes[k] : 1);
      m.dims.push_back(has ? static_cast<int8_t>(k) : static_cast<int8_t>(-1));
    }
    return m;
  }
  for (size_t d = 0; d < n; ++d) {
    if (m.dims[d] >= 0) m.sizes[d] = domain.sizes[static_cast<size_t>(m.dims[d])];
  }
  return m;
}

/// Finds the gradients that are a cotangent, or a number times one. Called in several dtypes: all must agree.
void note_passes(Derivative& d, const ir::Graph& graph, const std::vector<Node>& roots, uint64_t wanted,
                 size_t params, size_t results) {
  const bool again = !d.passes.empty();
  if (!again) d.passes.resize(params);
  const auto input = [&](int32_t id) {
    return id >= 0 && graph.node(id).prim == ir::Prim::kInput ? graph.node(id).imm : -1;
  };
  const auto output = [&](int32_t id) {
    const int64_t at = input(id) - static_cast<int64_t>(params);
    return static_cast<int8_t>(at >= 0 && at < static_cast<int64_t>(results) ? at : -1);
  };
  const auto number = [&](int32_t id) {
    const bool conjugated = id >= 0 && graph.node(id).prim == ir::Prim::kConj;  // of 1: nothing
    const int64_t at = input(conjugated ? graph.node(id).a : id);
    const bool is = at >= 0 && at < static_cast<int64_t>(params) &&
                    d.op.schema.params[static_cast<size_t>(at)].type == ArgType::kScalar;
    return static_cast<int8_t>(is ? at : -1);
  };
  size_t at = 0;
  for (size_t p = 0; p < params; ++p) {
    if ((wanted >> p & 1) == 0) continue;
    const int32_t root = roots[at++].id();
    const ir::GraphNode& n = graph.node(root);
    Derivative::Pass pass{output(root), -1};
    if (n.prim == ir::Prim::kMul) {
      for (const auto& [g, factor] : {std::pair{n.a, n.b}, std::pair{n.b, n.a}}) {
        if (output(g) >= 0 && number(factor) >= 0) pass = {output(g), number(factor)};
      }
    }
    if (!again)
      d.passes[p] = pass;
    else if (d.passes[p] != pass)
      d.passes[p] = {};
  }
}

/// Adds what the gradients of `op` read to `d`: the inputs that they reach, tried on a graph in dtype
/// `number`.
void note_reads(Derivative& d, const OpDef& op, uint64_t wanted, uint64_t outputs, Args args, Dtype number) {
  const size_t params = op.schema.params.size(), results = op.schema.returns.size();
  ir::Graph graph;
  GraphCall c{graph, d.op, {}, {}, number, number};
  for (size_t p = 0; p < params; ++p) {
    const Arg& a = args[p];
    Node n;
    if (a.kind == Arg::kTensor || (a.is_number() && op.is_operand(p))) {
      const bool index = a.kind == Arg::kTensor &&
                         ((op.mask_params >> p & 1) != 0 ||
                          (!is_differentiable(a.tensor->dtype()) && p > 0 &&
                           (op.promotion == Promotion::kFirst || p >= op.root().schema.params.size())));
      const Dtype dtype = index ? a.tensor->dtype() : op.number_dtype(p, number);
      n = graph.input(static_cast<int>(p), dtype, ir::kOuter | ir::kRow);
    } else if (a.none() && op.primal != nullptr && !op.domain && p < op.primal->schema.params.size() &&
               op.is_operand(p)) {
      // An operand of a gradient that nothing reads: the gradient's own derivative still names it.
      n = graph.input(static_cast<int>(p), number, ir::kOuter | ir::kRow);
    }
    c.nodes.push_back(n);
    c.attributes.push_back(a);
  }
  for (size_t o = 0; o < 2 * results; ++o) {
    const bool present = o >= results || (outputs >> o & 1) != 0;
    c.nodes.push_back(present ? graph.input(static_cast<int>(params + o), number, ir::kOuter | ir::kRow)
                              : Node{});
    c.attributes.push_back(Arg());
  }
  const std::vector<Node> roots = gradients(op, c, wanted);
  if (op.kind == OpKind::kPointwise) note_passes(d, graph, roots, wanted, params, results);
  std::vector<bool> reach(graph.nodes.size());
  for (const Node& r : roots) reach[static_cast<size_t>(r.id())] = true;
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    if (!reach[i]) continue;
    const ir::GraphNode& g = graph.nodes[i];
    if (g.prim == ir::Prim::kInput) {
      const auto input = static_cast<size_t>(g.imm);
      if (input < params)
        d.reads_params |= uint64_t{1} << input;
      else if (input >= params + results)
        d.reads_results |= uint64_t{1} << (input - params - results);
    }
    for (const int32_t x : {g.a, g.b, g.c}) {
      if (x >= 0) reach[static_cast<size_t>(x)] = true;
    }
  }
}

std::unique_ptr<Derivative> make(const OpDef& op, uint64_t wanted, uint64_t outputs, Args args) {
  auto d = std::make_unique<Derivative>();
  d->wanted = wanted;
  OpDef& row = d->op;
  row.kind = op.kind;
  row.family = op.family;
  row.primal = &op;
  row.runtime_params = op.runtime_params;
  row.mask_params = op.mask_params;
  if (op.promotion == Promotion::kFirst) row.promotion = op.promotion;
  row.dtypes = kAll;
  row.has_function = row.has_method = false;
  row.strides = Strides::kElementwise;
  row.schema.base = op.schema.base + "_backward";
  row.schema.name = row.schema.base;
  row.schema.params = op.schema.params;
  const size_t params = op.schema.params.size(), results = op.schema.returns.size();
  for (const char* kind : {"grad", "result"}) {
    for (size_t o = 0; o < results; ++o) {
      Param p;
      p.name = std::string(kind) + std::to_string(o);
      p.type = ArgType::kTensor;
      p.optional = true;
      row.schema.params.push_back(p);
    }
  }
  const auto dtype_param = [&](const std::string& name) {
    Param p;
    p.name = name;
    p.type = ArgType::kDtype;
    row.schema.params.push_back(p);
  };
  dtype_param("compute_dtype");
  for (size_t p = 0; p < params; ++p) {
    if ((wanted >> p & 1) == 0) continue;
    dtype_param("dtype_of_" + op.schema.params[p].name);
    row.schema.returns.push_back({op.schema.params[p].name, ArgType::kTensor});
  }
  const OpDef* primal = &op;
  row.body = [primal, wanted](GraphCall& c) { return gradients(*primal, c, wanted); };
  if (op.domain) {
    // The forward's space; cotangents and results are laid over it as the results were.
    row.domain = [primal, params, results](const OpDef&, Args a) {
      Domain domain = primal->domain(*primal, a.first(params));
      const size_t rank = domain.sizes.size();
      std::vector<Meta> metas;
      if (primal->results) metas = primal->results(*primal, a.first(params), domain, Dtype::kUndefined);
      domain.dims_of.resize(a.size());
      for (size_t i = params; i < params + 2 * results; ++i) {
        if (a[i].kind != Arg::kTensor) continue;
        const TensorImpl& t = *a[i].tensor;
        const Meta* meta = metas.empty() ? nullptr : &metas[(i - params) % results];
        SmallVector<int8_t, 6>& dims = domain.dims_of[i];
        const auto n = static_cast<size_t>(t.dim());
        if (n == rank || (meta != nullptr && !meta->dims.empty())) {
          // A dim of one may be a reduced dim that was kept: taking it for spanned would count its group
          // twice.
          for (size_t k = 0; k < n; ++k) {
            const auto at = n == rank ? static_cast<int8_t>(k) : meta->dims[k];
            dims.push_back(t.sizes()[k] != 1 ? at : static_cast<int8_t>(-1));
          }
        } else {
          // Without the reduced dims: the kept ones in order.
          for (size_t k = 0; k < rank && dims.size() < n; ++k) {
            if ((domain.groups[k] & ir::kRow) == 0) dims.push_back(static_cast<int8_t>(k));
          }
          while (dims.size() < n) dims.push_back(-1);
        }
      }
      return domain;
    };
    row.results = [primal, params, wanted](const OpDef&, Args a, const Domain& domain, Dtype) {
      std::vector<Meta> metas;
      for (size_t p = 0; p < params; ++p) {
        if ((wanted >> p & 1) == 0) continue;
        const bool mapped = p < domain.dims_of.size() && !domain.dims_of[p].empty();
        metas.push_back(gradient_meta(*a[p].tensor, domain, mapped ? &domain.dims_of[p] : nullptr));
      }
      return metas;
    };
  }
  if (op.saves_declared) {
    d->reads_params = op.saved_params;
    d->reads_results = op.saved_results;
    return d;
  }
  note_reads(*d, op, wanted, outputs, args, Dtype::kFloat32);
  // The derivative of an absolute value reads more in complex numbers.
  if (contains(op.root().dtypes, Dtype::kComplex64))
    note_reads(*d, op, wanted, outputs, args, Dtype::kComplex64);
  return d;
}

/// Every gradient that was made, by key. Entries are never freed.
using Table = std::map<std::string, std::unique_ptr<Derivative>, std::less<>>;

}  // namespace

const Derivative& derivative_of(const OpDef& op, uint64_t wanted, uint64_t outputs, Args args) {
  // Presence of optional operands and static attributes may change what is read.
  char key[256];
  size_t n = 0;
  const auto add = [&](const void* p, size_t bytes) {
    if (n + bytes <= sizeof(key)) std::memcpy(key + n, p, bytes);
    n = std::min(n + bytes, sizeof(key));
  };
  const auto address = reinterpret_cast<uintptr_t>(&op);
  add(&address, sizeof(address));
  add(&wanted, 8);
  add(&outputs, 8);
  if (op.variant) {
    const uint8_t variant = op.variant(args);
    add(&variant, 1);
  }
  for (size_t i = 0; i < args.size(); ++i) {
    add(&args[i].kind, 1);
    if (args[i].kind == Arg::kStr)
      add(args[i].chars, static_cast<size_t>(args[i].count));
    else if (args[i].is_number() && !op.is_operand(i))
      add(&args[i].integer, 8);
  }
  const std::string_view text(key, n);
  // The last one found of each row and set of parameters, about, is read without a lock.
  static std::atomic<const Table::value_type*> recent[256];
  auto& slot = recent[((address / alignof(OpDef)) + wanted) * 0x9e3779b1u >> 8 & (std::size(recent) - 1)];
  if (const auto* entry = slot.load(std::memory_order_acquire); entry != nullptr && entry->first == text)
    return *entry->second;
  static std::mutex mutex;
  static auto& table = *new Table();
  const ForkSection section;
  const std::lock_guard lock(mutex);
  auto found = table.find(text);
  if (found == table.end()) found = table.emplace(std::string(text), make(op, wanted, outputs, args)).first;
  slot.store(&*found, std::memory_order_release);
  return *found->second;
}

}  // namespace lohe::autograd
