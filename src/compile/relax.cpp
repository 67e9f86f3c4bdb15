#include "compile/relax.h"

#include <array>
#include <cmath>
#include <functional>
#include <map>

#include "ir/node.h"

namespace lohe::compiler {
namespace {

using namespace ir;

bool is_wide(Dtype d) { return d == Dtype::kFloat32 || d == Dtype::kFloat64; }

/// Copies a graph node by node.
class Copy {
 public:
  explicit Copy(const Graph& from) : from(from), needed(from.needed()), map_(from.nodes.size(), -1) {
    uses.resize(from.nodes.size());
    for (size_t i = 0; i < from.nodes.size(); ++i) {
      if (!needed[i]) continue;
      for (const int32_t x : operands_of(from.nodes[i])) {
        if (x >= 0) ++uses[static_cast<size_t>(x)];
      }
    }
    for (const int32_t o : from.outputs) ++uses[static_cast<size_t>(o)];
    for (const Graph::Check& c : from.checks) ++uses[static_cast<size_t>(c.condition)];
  }

  /// What stands for a node, given the node and itself with operands of the new graph; undefined: the latter.
  using Change = std::function<Node(const GraphNode& before, const GraphNode& now)>;

  Graph run(const Change& change) {
    for (size_t i = 0; i < from.nodes.size(); ++i) {
      const GraphNode& before = from.nodes[i];
      // Inputs keep their numbers, so that none is left out.
      if (!needed[i] && before.prim != Prim::kInput) continue;
      GraphNode now = before;
      now.a = mapped(before.a);
      now.b = mapped(before.b);
      now.c = mapped(before.c);
      const Node made = change(before, now);
      map_[i] = made.defined() ? made.id() : into.add(now).id();
    }
    for (const int32_t o : from.outputs) into.outputs.push_back(mapped(o));
    into.checks = from.checks;
    for (Graph::Check& c : into.checks) c.condition = mapped(c.condition);
    return std::move(into);
  }

  static std::array<int32_t, 3> operands_of(const GraphNode& n) { return {n.a, n.b, n.c}; }
  const GraphNode& node(int32_t id) const { return from.node(id); }
  int32_t mapped(int32_t id) const { return id < 0 ? -1 : map_[static_cast<size_t>(id)]; }

  const Graph& from;
  Graph into;
  std::vector<bool> needed;
  std::vector<int> uses;  ///< of needed nodes, by needed nodes, outputs and checks

 private:
  std::vector<int32_t> map_;
};

// --- Roundings

/// Where the least difference may be seen: what asks for equality, order or whole numbers reads rounded
/// operands. A maximum is found again by comparing with it.
bool jumps(const GraphNode& n) {
  switch (n.prim) {
    case Prim::kEq:
    case Prim::kNe:
    case Prim::kLt:
    case Prim::kLe:
    case Prim::kSign:
    case Prim::kFloor:
    case Prim::kCeil:
    case Prim::kTrunc:
    case Prim::kRound:
    case Prim::kFloorDiv:
    case Prim::kTruncDiv:
    case Prim::kRemainder:
    case Prim::kFmod:
    case Prim::kAmax:
    case Prim::kAmin:
    case Prim::kArgmax:
    case Prim::kArgmin:
      return true;
    case Prim::kCast:
      return !is_floating(n.dtype);
    default:
      return false;
  }
}

/// Leaves out half dtypes between two wider ones.
int leave_out_roundings(Graph& graph) {
  Copy copy(graph);
  // A cast from a half that was rounded in this kernel.
  const auto undoes = [&](const GraphNode& n) {
    if (n.prim != Prim::kCast || !is_floating(n.dtype)) return false;
    const GraphNode& half = graph.node(n.a);
    return half.prim == Prim::kCast && is_half(half.dtype) && is_wide(graph.node(half.a).dtype);
  };
  std::vector<bool> seen(graph.nodes.size());  // by something that does not jump
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    if (!copy.needed[i] || jumps(graph.nodes[i])) continue;
    for (const int32_t x : Copy::operands_of(graph.nodes[i])) {
      if (x >= 0) seen[static_cast<size_t>(x)] = true;
    }
  }
  for (const int32_t o : graph.outputs) seen[static_cast<size_t>(o)] = true;
  int count = 0;
  graph = copy.run([&](const GraphNode& before, const GraphNode& now) -> Node {
    if (undoes(before) && seen[static_cast<size_t>(&before - graph.nodes.data())]) {
      ++count;
      return cast(copy.into.at(copy.into.node(now.a).a), before.dtype);
    }
    if (!jumps(before)) return {};
    GraphNode rounded = now;
    const auto keep = [&](int32_t id, int32_t& slot) {
      if (id < 0 || !undoes(graph.node(id))) return;
      const GraphNode& n = graph.node(id);
      slot = copy.into.add({.prim = Prim::kCast, .dtype = n.dtype, .space = n.space, .a = copy.mapped(n.a)})
                 .id();
    };
    keep(before.a, rounded.a);
    keep(before.b, rounded.b);
    return copy.into.add(rounded);
  });
  return count;
}

// --- Divisions

/// Limits of a dtype: reciprocals of numbers within [least, greatest] are neither infinite nor denormal.
struct Range {
  double least, greatest, scale;
};
Range range_of(Dtype d) {
  return d == Dtype::kFloat32 ? Range{0x1p-126, 0x1p126, 0x1p64} : Range{0x1p-1022, 0x1p1022, 0x1p512};
}

/// x / c as (x * scale) * (1 / (c * scale)): the scale, a power of two, is 1 but for numbers c whose
/// reciprocal would overflow or be denormal.
struct Divisor {
  Node scale, reciprocal;  ///< undefined scale: 1
  Node divide(Node x) const { return (scale.defined() ? x * scale : x) * reciprocal; }
};

/// One reciprocal for all divisions by a number that stays the same along the innermost loop, and for two or
/// more by one that changes.
class Divisions {
 public:
  Divisions(Graph& graph, const std::vector<bool>& still) : graph_(graph), copy_(graph) {
    note_what_varies(still);
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      if (copy_.needed[i] && divides(graph.nodes[i])) ++divided_by_[divisor_of(graph.nodes[i])];
    }
  }

  int run() {
    graph_ = copy_.run([&](const GraphNode& before, const GraphNode& now) -> Node {
      if (!divides(before)) return {};
      const int32_t id = divisor_of(before);
      const GraphNode& c = graph_.node(id);
      if (varies(id) ? divided_by_[id] < 2 : !varies(before.a)) return {};
      if (c.prim == Prim::kConst && !has_reciprocal(c)) return {};
      ++count_;
      const Node by = copy_.into.at(copy_.mapped(id));
      return divisor(id, by).divide(before.prim == Prim::kDiv ? copy_.into.at(now.a) : by.literal(1));
    });
    return count_;
  }

 private:
  bool varies(int32_t id) const { return varies_[static_cast<size_t>(id)]; }
  static bool divides(const GraphNode& n) {
    return (n.prim == Prim::kDiv || n.prim == Prim::kReciprocal) && is_wide(n.dtype);
  }
  static int32_t divisor_of(const GraphNode& n) { return n.prim == Prim::kDiv ? n.b : n.a; }

  static double value(const GraphNode& n) {
    return n.dtype == Dtype::kFloat32 ? static_cast<double>(static_cast<float>(n.real)) : n.real;
  }
  static bool has_reciprocal(const GraphNode& c) {
    const Range r = range_of(c.dtype);
    return std::abs(value(c)) >= r.least && std::abs(value(c)) <= r.greatest;
  }

  /// By number in the old graph.
  const Divisor& divisor(int32_t id, Node c) {
    const auto [at, fresh] = divisors_.try_emplace(id);
    Divisor& d = at->second;
    if (!fresh) return d;
    const GraphNode& n = graph_.node(id);
    if (n.prim == Prim::kConst) {
      const double exact = 1 / value(n);
      d.reciprocal = c.literal(n.dtype == Dtype::kFloat32 ? static_cast<float>(exact) : exact);
    } else if (n.prim == Prim::kExtent) {
      d.reciprocal = reciprocal(c);
    } else {
      const Range r = range_of(c.dtype());
      const Node size = abs(c);
      d.scale =
          select(size < r.least, c.literal(r.scale), select(size > r.greatest, 1 / r.scale, c.literal(1)));
      d.reciprocal = reciprocal(c * d.scale);
    }
    return d;
  }

  void note_what_varies(const std::vector<bool>& still) {
    Space inner = 0;
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      if (copy_.needed[i] && is_reduction(graph_.nodes[i].prim)) inner |= graph_.nodes[i].span;
    }
    for (const GraphNode& n : graph_.nodes) {
      bool varies = false;
      if (inner != 0) {
        varies = (n.space & inner) != 0;
      } else if (n.prim == Prim::kInput) {
        const auto number = static_cast<size_t>(n.imm);
        varies = n.space != 0 && (number >= still.size() || !still[number]);
      } else if (n.prim == Prim::kIota) {
        varies = true;
      } else {
        for (const int32_t x : Copy::operands_of(n)) varies = varies || (x >= 0 && this->varies(x));
      }
      varies_.push_back(varies);
    }
  }

  Graph& graph_;
  Copy copy_;
  std::vector<bool> varies_;
  std::map<int32_t, int> divided_by_;  ///< how many divisions have this divisor
  std::map<int32_t, Divisor> divisors_;
  int count_ = 0;
};

// --- Products and sums

/// A product becomes part of the only sum that it is for. Sums are x + alpha * y with a number alpha that is
/// 1 most of the time: where y is such a product itself, alpha goes to one of its factors.
int fuse_products(Graph& graph) {
  Copy copy(graph);
  int count = 0;
  const auto is_product = [&](int32_t id, const GraphNode& sum) {
    if (id < 0) return false;
    const GraphNode& n = graph.node(id);
    return (n.prim == Prim::kMul || n.prim == Prim::kSquare) && n.space == sum.space &&
           copy.uses[static_cast<size_t>(id)] == 1;
  };
  const auto factors = [&](const GraphNode& now) {
    const Node x = copy.into.at(now.a);
    return std::pair(x, now.b < 0 ? x : copy.into.at(now.b));
  };
  graph = copy.run([&](const GraphNode& before, const GraphNode& now) -> Node {
    if ((before.prim != Prim::kAdd && before.prim != Prim::kSub) || !is_wide(before.dtype)) return {};
    const bool first = is_product(before.a, before);
    if (!first && !is_product(before.b, before)) return {};
    ++count;
    Graph& into = copy.into;
    const GraphNode& product = graph.node(first ? before.a : before.b);
    auto [x, y] = factors(into.node(first ? now.a : now.b));
    if (graph.node(product.a).prim == Prim::kScalar && is_product(product.b, before)) {
      const auto [p, q] = factors(into.node(copy.mapped(product.b)));
      const bool scale_q = q.space() == 0;
      y = scale_q ? p : q;
      x = x * (scale_q ? q : p);
    }
    Node rest = into.at(first ? now.b : now.a);
    if (before.prim == Prim::kSub) (first ? rest : y) = -(first ? rest : y);
    return fma(x, y, rest);
  });
  return count;
}

}  // namespace

Rewrites relax(Graph& graph, const std::vector<bool>& still) {
  Rewrites made;
  made.roundings = leave_out_roundings(graph);
  made.reciprocals = Divisions(graph, still).run();
  made.fmas = fuse_products(graph);
  return made;
}

}  // namespace lohe::compiler
