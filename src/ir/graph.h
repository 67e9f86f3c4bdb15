#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lohe/dtype.h"
#include "lohe/scalar.h"

/// The graph of primitives: what an op means. A node is an elementwise expression, a reduction over groups of
/// dims, or a leaf. Sizes are symbolic: dims are sorted into groups (what a row's domain rule says), a node
/// knows only which groups it spans, and combining nodes of different span broadcasts. So one graph serves
/// every rank and size.
namespace lohe::ir {

/// Groups of dims. kOuter is what is kept, kRow what is reduced, in rows with a single reduction.
enum Group : uint8_t { kOuter = 1, kRow = 2, kGroupA = 4, kGroupB = 8 };
using Space = uint8_t;  ///< bit set of Groups

enum class Prim : uint8_t {
  // Leaves
  kInput,   ///< imm: input number; dtype is the tensor's own
  kScalar,  ///< imm: run-time scalar number
  kConst,   ///< real, imag
  kExtent,  ///< number of elements of the groups in `span`, as `dtype`
  kIota,    ///< position within the group in `span` (row-major over its dims)
  kInside,  ///< imm: input number; whether its operand's window has the element; kBool
  // Elementwise, arithmetic. Operands have one dtype (except kCast, kSelect's condition, complex parts).
  kAdd,
  kSub,
  kMul,
  kDiv,
  kNeg,
  kAbs,
  kSign,
  kReciprocal,
  kSquare,
  kFloorDiv,
  kTruncDiv,
  kRemainder,
  kFmod,
  kMinimum,
  kMaximum,
  kFmin,
  kFmax,  ///< NaN-propagating, NaN-ignoring
  kPow,
  kSqrt,
  kRsqrt,
  kExp,
  kExp2,
  kExpm1,
  kLog,
  kLog2,
  kLog10,
  kLog1p,
  kSin,
  kCos,
  kTan,
  kAsin,
  kAcos,
  kAtan,
  kAtan2,
  kSinh,
  kCosh,
  kTanh,
  kAsinh,
  kAcosh,
  kAtanh,
  kErf,
  kErfc,
  kErfinv,
  kGeluSlope,  ///< d/da a Phi(a), Phi the distribution function of the normal distribution
  kLgamma,
  kDigamma,
  kSigmoid,
  kHypot,
  kFma,  ///< a * b + c with one rounding; float32 and float64
  kFloor,
  kCeil,
  kTrunc,
  kRound,
  // Integers and bool
  kAnd,
  kOr,
  kXor,
  kNot,
  kShl,
  kShr,
  // Comparisons: kBool
  kEq,
  kNe,
  kLt,
  kLe,
  kIsNan,
  kSignbit,
  kSelect,   ///< a (kBool) ? b : c
  kCast,     ///< to dtype, PyTorch's conversion rules
  kBitcast,  ///< same size
  // Complex
  kReal,
  kImag,
  kConj,
  kComplex,
  kAngle,
  // Random bits: word `imm` of Philox 4x32-10 at counter `a` and key `b` (int64); gives 32 bits as int64
  kPhilox,
  // Reductions over the groups in `span`
  kSum,
  kProd,
  kAmax,
  kAmin,
  kAny,
  kAll,
  kArgmax,
  kArgmin,  ///< int64 position within the span of the first extreme; NaN counts as extreme
  kCount
};

inline bool is_reduction(Prim p) { return p >= Prim::kSum && p < Prim::kCount; }
inline bool is_leaf(Prim p) { return p <= Prim::kInside; }

struct GraphNode {
  Prim prim;
  Dtype dtype;
  Space space = 0;  ///< groups that the node's value varies over
  Space span = 0;   ///< reductions, kExtent, kIota: groups they speak of
  int32_t a = -1, b = -1, c = -1;
  int64_t imm = 0;
  double real = 0, imag = 0;
  bool operator==(const GraphNode&) const = default;
};

class Graph;

/// A symbolic value inside a row's body. Converts to neither number nor bool: a choice is made by select().
class Node {
 public:
  Node() = default;
  Node(Graph* graph, int32_t id) : graph_(graph), id_(id) {}
  Dtype dtype() const;
  Space space() const;
  Graph* graph() const { return graph_; }
  int32_t id() const { return id_; }
  bool defined() const { return graph_ != nullptr; }
  /// A constant of this node's dtype.
  Node literal(double real, double imag = 0) const;
  bool operator!() const = delete;
  explicit operator bool() const = delete;

 private:
  Graph* graph_ = nullptr;
  int32_t id_ = -1;
};

class Graph {
 public:
  struct Check {
    int32_t condition;
    std::string message;  ///< raised as IndexError or RuntimeError when the condition fails for any element
    bool index_error;
  };

  Node input(int number, Dtype dtype, Space space);
  Node scalar(int number, Dtype dtype);
  Node constant(Dtype dtype, double real, double imag = 0);
  Node constant_int(Dtype dtype, int64_t value);
  Node extent(Dtype dtype, Space groups);
  Node iota(Space group, Dtype dtype);
  /// Of an input, for the sake of whose window alone it may be one.
  Node inside(Node input);
  /// Word `word` (0 to 3) of Philox 4x32-10 at an int64 counter and key, as an int64 in [0, 2^32).
  Node philox(Node counter, Node key, int word);
  /// Elementwise; casts nothing. @throws internal error on mixed dtypes.
  Node apply(Prim prim, Dtype result, Node a, Node b = {}, Node c = {});
  Node reduce(Prim prim, Node a, Space groups);
  Node add(GraphNode n);  ///< reuses an equal node
  void output(Node n) { outputs.push_back(n.id()); }
  void check(Node condition, std::string message, bool index_error);

  /// Which nodes the outputs and checks come from.
  std::vector<bool> needed() const;
  /// Marks what marked nodes come from.
  void mark_operands(std::vector<bool>& marked) const;

  Node at(int32_t id) { return {this, id}; }
  const GraphNode& node(int32_t id) const { return nodes[static_cast<size_t>(id)]; }

  std::vector<GraphNode> nodes;  ///< operands come before users
  std::vector<int32_t> outputs;
  std::vector<Check> checks;
};

/// A structural copy of the nodes that `roots` need into `into`; `leaf` maps inputs and scalars. Returns the
/// new roots.
std::vector<Node> inline_graph(const Graph& from, const std::vector<int32_t>& roots, Graph& into,
                               const std::vector<Node>& inputs, const std::vector<Node>& scalars);

/// Reverse mode on the graph: cotangents of `wrt` given those of the outputs (undefined: none). A result
/// spans the groups of its node: broadcasting is undone by sums. Undefined where nothing flows.
std::vector<Node> differentiate(Graph& graph, const std::vector<std::pair<int32_t, Node>>& cotangents,
                                const std::vector<int32_t>& wrt);

/// Text form, one line a node.
std::string print(const Graph& graph);

}  // namespace lohe::ir
