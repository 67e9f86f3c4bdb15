#include <sstream>

#include "ir/node.h"
#include "ir/primitives.h"
#include "lohe/error.h"

namespace lohe::ir {

Dtype Node::dtype() const { return graph_->node(id_).dtype; }
Space Node::space() const { return graph_->node(id_).space; }
Node Node::literal(double real, double imag) const { return graph_->constant(dtype(), real, imag); }

Node Graph::add(GraphNode n) {
  for (size_t i = nodes.size(); i-- > 0;) {
    if (nodes[i] == n) return at(static_cast<int32_t>(i));
  }
  nodes.push_back(n);
  return at(static_cast<int32_t>(nodes.size()) - 1);
}

Node Graph::input(int number, Dtype dtype, Space space) {
  return add({.prim = Prim::kInput, .dtype = dtype, .space = space, .imm = number});
}

Node Graph::scalar(int number, Dtype dtype) {
  return add({.prim = Prim::kScalar, .dtype = dtype, .imm = number});
}

Node Graph::constant(Dtype dtype, double real, double imag) {
  return add({.prim = Prim::kConst,
              .dtype = dtype,
              .imm = static_cast<int64_t>(is_integral(dtype, true) ? real : 0),
              .real = real,
              .imag = imag});
}

Node Graph::constant_int(Dtype dtype, int64_t value) {
  return add({.prim = Prim::kConst, .dtype = dtype, .imm = value, .real = static_cast<double>(value)});
}

Node Graph::extent(Dtype dtype, Space groups) {
  return add({.prim = Prim::kExtent, .dtype = dtype, .span = groups});
}

Node Graph::iota(Space group, Dtype dtype) {
  return add({.prim = Prim::kIota, .dtype = dtype, .space = group, .span = group});
}

Node Graph::inside(Node input) {
  const GraphNode& n = node(input.id());
  LOHE_INTERNAL_ASSERT(n.prim == Prim::kInput, "only inputs have windows");
  return add({.prim = Prim::kInside, .dtype = Dtype::kBool, .space = n.space, .imm = n.imm});
}

Node Graph::philox(Node counter, Node key, int word) {
  LOHE_INTERNAL_ASSERT(
      counter.dtype() == Dtype::kInt64 && key.dtype() == Dtype::kInt64 && word >= 0 && word < 4,
      "philox takes int64 counters and keys and a word from 0 to 3");
  return add({.prim = Prim::kPhilox,
              .dtype = Dtype::kInt64,
              .space = static_cast<Space>(counter.space() | key.space()),
              .a = counter.id(),
              .b = key.id(),
              .imm = word});
}

Node Graph::apply(Prim prim, Dtype result, Node a, Node b, Node c) {
  GraphNode n{.prim = prim, .dtype = result, .a = a.id()};
  n.space = a.space();
  if (b.defined()) {
    n.b = b.id();
    n.space |= b.space();
  }
  if (c.defined()) {
    n.c = c.id();
    n.space |= c.space();
  }
  return add(n);
}

Node Graph::reduce(Prim prim, Node a, Space groups) {
  const Dtype dtype = prim == Prim::kArgmax || prim == Prim::kArgmin ? Dtype::kInt64 : a.dtype();
  return add({.prim = prim,
              .dtype = dtype,
              .space = static_cast<Space>(a.space() & ~groups),
              .span = groups,
              .a = a.id()});
}

void Graph::check(Node condition, std::string message, bool index_error) {
  checks.push_back({condition.id(), std::move(message), index_error});
}

void Graph::mark_operands(std::vector<bool>& marked) const {
  for (size_t i = nodes.size(); i-- > 0;) {
    if (!marked[i]) continue;
    for (const int32_t x : {nodes[i].a, nodes[i].b, nodes[i].c}) {
      if (x >= 0) marked[static_cast<size_t>(x)] = true;
    }
  }
}

std::vector<bool> Graph::needed() const {
  std::vector<bool> marked(nodes.size());
  for (const int32_t o : outputs) marked[static_cast<size_t>(o)] = true;
  for (const Check& c : checks) marked[static_cast<size_t>(c.condition)] = true;
  mark_operands(marked);
  return marked;
}

std::vector<Node> inline_graph(const Graph& from, const std::vector<int32_t>& roots, Graph& into,
                               const std::vector<Node>& inputs, const std::vector<Node>& scalars) {
  std::vector<int32_t> map(from.nodes.size(), -1);
  std::vector<bool> needed(from.nodes.size());
  for (const int32_t r : roots) {
    if (r >= 0) needed[static_cast<size_t>(r)] = true;
  }
  from.mark_operands(needed);
  const auto mapped = [&](int32_t id) { return id < 0 ? Node{} : into.at(map[static_cast<size_t>(id)]); };
  for (size_t i = 0; i < from.nodes.size(); ++i) {
    if (!needed[i]) continue;
    const GraphNode& n = from.nodes[i];
    Node copy;
    if (n.prim == Prim::kInput) {
      copy = inputs[static_cast<size_t>(n.imm)];
    } else if (n.prim == Prim::kScalar) {
      copy = scalars[static_cast<size_t>(n.imm)];
    } else if (n.prim == Prim::kConst) {
      copy = is_integral(n.dtype, true) ? into.constant_int(n.dtype, n.imm)
                                        : into.constant(n.dtype, n.real, n.imag);
    } else if (n.prim == Prim::kExtent) {
      copy = into.extent(n.dtype, n.span);
    } else if (n.prim == Prim::kIota) {
      copy = into.iota(n.span, n.dtype);
    } else if (n.prim == Prim::kPhilox) {
      copy = into.philox(mapped(n.a), mapped(n.b), static_cast<int>(n.imm));
    } else if (is_reduction(n.prim)) {
      copy = into.reduce(n.prim, mapped(n.a), n.span);
    } else {
      copy = into.apply(n.prim, n.dtype, mapped(n.a), mapped(n.b), mapped(n.c));
      into.nodes[static_cast<size_t>(copy.id())].imm = n.imm;
    }
    map[i] = copy.id();
  }
  std::vector<Node> result;
  for (const int32_t r : roots) result.push_back(mapped(r));
  return result;
}

std::vector<Node> differentiate(Graph& graph, const std::vector<std::pair<int32_t, Node>>& cotangents,
                                const std::vector<int32_t>& wrt) {
  const size_t count = graph.nodes.size();  // the walk goes over these; new nodes come behind
  std::vector<Node> flow(count);
  std::vector<bool> relevant(count);
  for (const int32_t w : wrt) {
    if (w >= 0) relevant[static_cast<size_t>(w)] = true;
  }
  for (size_t i = 0; i < count; ++i) {
    const GraphNode& n = graph.nodes[i];
    for (const int32_t x : {n.a, n.b, n.c}) {
      if (x >= 0 && relevant[static_cast<size_t>(x)]) relevant[i] = true;
    }
    if (!is_differentiable(n.dtype)) relevant[i] = false;
  }
  const auto accumulate = [&](int32_t id, Node g) {
    // What was broadcast on the way forward is summed on the way back.
    const Space extra = static_cast<Space>(g.space() & ~graph.node(id).space);
    if (extra != 0) g = graph.reduce(Prim::kSum, g, extra);
    Node& slot = flow[static_cast<size_t>(id)];
    slot = slot.defined() ? slot + g : g;
  };
  for (const auto& [id, g] : cotangents) {
    if (g.defined() && relevant[static_cast<size_t>(id)]) accumulate(id, g);
  }
  for (size_t i = count; i-- > 0;) {
    if (!flow[i].defined() || !relevant[i]) continue;
    const GraphNode n = graph.nodes[i];
    const int32_t operands[] = {n.a, n.b, n.c};
    const auto node = [&](int32_t id) { return id < 0 ? Node{} : graph.at(id); };
    for (int which = 0; which < 3; ++which) {
      const int32_t x = operands[which];
      if (x < 0 || !relevant[static_cast<size_t>(x)]) continue;
      Node g = derivative(n.prim, which, flow[i], graph.at(static_cast<int32_t>(i)), node(n.a), node(n.b),
                          node(n.c));
      if (!g.defined()) continue;
      // Equal shares along what the operand was broadcast over: their sum is a multiple.
      const auto equal = static_cast<Space>(n.space & ~graph.node(x).space & ~g.space());
      if (equal != 0) g = g * graph.extent(g.dtype(), equal);
      accumulate(x, g);
    }
  }
  std::vector<Node> result;
  for (const int32_t w : wrt) {
    Node g = w < 0 ? Node{} : flow[static_cast<size_t>(w)];
    result.push_back(g);
  }
  return result;
}

std::string print(const Graph& graph) {
  std::ostringstream out;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const GraphNode& n = graph.nodes[i];
    out << '%' << i << " = " << primitive(n.prim).name << ' ' << n.dtype << " space=" << int{n.space};
    if (n.span != 0) out << " span=" << int{n.span};
    for (const int32_t x : {n.a, n.b, n.c}) {
      if (x >= 0) out << " %" << x;
    }
    if (n.imm != 0) out << " #" << n.imm;
    if (n.prim == Prim::kConst) out << ' ' << std::hexfloat << n.real << ' ' << n.imag << std::defaultfloat;
    out << '\n';
  }
  for (const int32_t o : graph.outputs) out << "output %" << o << '\n';
  for (const Graph::Check& c : graph.checks) out << "check %" << c.condition << '\n';
  return out.str();
}

// --- operators

namespace {

/// 1 or 0 exactly, where an identity lets us drop an instruction without changing a bit.
bool is_one(Node n) {
  const GraphNode& g = n.graph()->node(n.id());
  return g.prim == Prim::kConst && g.real == 1 && g.imag == 0 && g.dtype != Dtype::kBool;
}

}  // namespace

Node unary(Prim prim, Node a) { return a.graph()->apply(prim, result_dtype(prim, a.dtype()), a); }

Node binary(Prim prim, Node a, Node b) {
  LOHE_INTERNAL_ASSERT(a.dtype() == b.dtype(), primitive(prim).name, " of ", a.dtype(), " and ", b.dtype());
  return a.graph()->apply(prim, result_dtype(prim, a.dtype()), a, b);
}

Node operator+(Node a, Node b) { return binary(Prim::kAdd, a, b); }
Node operator-(Node a, Node b) { return binary(Prim::kSub, a, b); }
Node operator*(Node a, Node b) {
  if (!is_complex(a.dtype())) {
    if (is_one(b)) return a;
    if (is_one(a)) return b;
  }
  return binary(Prim::kMul, a, b);
}
Node operator/(Node a, Node b) { return is_one(b) && !is_complex(a.dtype()) ? a : binary(Prim::kDiv, a, b); }
Node operator-(Node a) { return unary(Prim::kNeg, a); }
Node operator&(Node a, Node b) { return binary(Prim::kAnd, a, b); }
Node operator|(Node a, Node b) { return binary(Prim::kOr, a, b); }
Node operator^(Node a, Node b) { return binary(Prim::kXor, a, b); }
Node operator~(Node a) { return unary(Prim::kNot, a); }
Node operator==(Node a, Node b) { return binary(Prim::kEq, a, b); }
Node operator!=(Node a, Node b) { return binary(Prim::kNe, a, b); }
Node operator<(Node a, Node b) { return binary(Prim::kLt, a, b); }
Node operator<=(Node a, Node b) { return binary(Prim::kLe, a, b); }
Node operator>(Node a, Node b) { return binary(Prim::kLt, b, a); }
Node operator>=(Node a, Node b) { return binary(Prim::kLe, b, a); }

Node select(Node condition, Node a, Node b) {
  LOHE_INTERNAL_ASSERT(condition.dtype() == Dtype::kBool && a.dtype() == b.dtype(), "select of ", a.dtype(),
                       " and ", b.dtype());
  return a.graph()->apply(Prim::kSelect, a.dtype(), condition, a, b);
}

Node cast(Node a, Dtype dtype) {
  if (a.dtype() == dtype) return a;
  // There and back again through a wider type is exact.
  const GraphNode& n = a.graph()->node(a.id());
  if (n.prim == Prim::kCast) {
    const Dtype from = a.graph()->node(n.a).dtype;
    if (from == dtype && is_differentiable(from) && itemsize(from) < itemsize(n.dtype))
      return a.graph()->at(n.a);
  }
  return a.graph()->apply(Prim::kCast, dtype, a);
}
Node is_nan(Node a) { return unary(Prim::kIsNan, a); }
Node conj(Node a) { return is_complex(a.dtype()) ? unary(Prim::kConj, a) : a; }
Node sum(Node a, Space groups) { return a.graph()->reduce(Prim::kSum, a, groups); }
Node prod(Node a, Space groups) { return a.graph()->reduce(Prim::kProd, a, groups); }
Node amax(Node a, Space groups) { return a.graph()->reduce(Prim::kAmax, a, groups); }
Node amin(Node a, Space groups) { return a.graph()->reduce(Prim::kAmin, a, groups); }
Node count(Node like, Space groups) { return like.graph()->extent(like.dtype(), groups); }

}  // namespace lohe::ir
