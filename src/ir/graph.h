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
  kLgamma,
  kDigamma,
  kSigmoid,
  kHypot,
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
inline bool is_leaf(Prim p) { return p <= Prim::kIota; }

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
  /// Word `word` (0 to 3) of Philox 4x32-10 at an int64 counter and key, as an int64 in [0, 2^32).
  Node philox(Node counter, Node key, int word);
  /// Elementwise; casts nothing. @throws internal error on mixed dtypes.
  Node apply(Prim prim, Dtype result, Node a, Node b = {}, Node c = {});
  Node reduce(Prim prim, Node a, Space groups);
  void output(Node n) { outputs.push_back(n.id()); }
  void check(Node condition, std::string message, bool index_error);

  Node at(int32_t id) { return {this, id}; }
  const GraphNode& node(int32_t id) const { return nodes[static_cast<size_t>(id)]; }

  std::vector<GraphNode> nodes;  ///< operands come before users
  std::vector<int32_t> outputs;
  std::vector<Check> checks;

 private:
  Node add(GraphNode n);  ///< reuses an equal node
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

// What a row's body is written with.
Node operator+(Node a, Node b);
Node operator-(Node a, Node b);
Node operator*(Node a, Node b);
Node operator/(Node a, Node b);
Node operator-(Node a);
Node operator&(Node a, Node b);
Node operator|(Node a, Node b);
Node operator^(Node a, Node b);
Node operator~(Node a);
Node operator==(Node a, Node b);
Node operator!=(Node a, Node b);
Node operator<(Node a, Node b);
Node operator<=(Node a, Node b);
Node operator>(Node a, Node b);
Node operator>=(Node a, Node b);
Node unary(Prim prim, Node a);  ///< result dtype follows from the table of primitives
Node binary(Prim prim, Node a, Node b);
Node select(Node condition, Node a, Node b);
Node cast(Node a, Dtype dtype);
Node is_nan(Node a);
Node conj(Node a);  ///< a itself for real dtypes
Node sum(Node a, Space groups = kRow);
Node prod(Node a, Space groups = kRow);
Node amax(Node a, Space groups = kRow);
Node amin(Node a, Space groups = kRow);
Node count(Node like, Space groups = kRow);  ///< number of elements, in like's dtype

#define LOHE_UNARY(function, prim) \
  inline Node function(Node a) { return unary(Prim::prim, a); }
LOHE_UNARY(abs, kAbs)
LOHE_UNARY(sign, kSign)
LOHE_UNARY(reciprocal, kReciprocal) LOHE_UNARY(square, kSquare) LOHE_UNARY(sqrt, kSqrt) LOHE_UNARY(
    rsqrt, kRsqrt) LOHE_UNARY(exp, kExp) LOHE_UNARY(exp2, kExp2) LOHE_UNARY(expm1, kExpm1)
    LOHE_UNARY(log, kLog) LOHE_UNARY(log2, kLog2) LOHE_UNARY(log10, kLog10) LOHE_UNARY(log1p, kLog1p)
        LOHE_UNARY(sin, kSin) LOHE_UNARY(cos, kCos) LOHE_UNARY(tan, kTan) LOHE_UNARY(asin, kAsin)
            LOHE_UNARY(acos, kAcos) LOHE_UNARY(atan, kAtan) LOHE_UNARY(sinh, kSinh) LOHE_UNARY(cosh, kCosh)
                LOHE_UNARY(tanh, kTanh) LOHE_UNARY(asinh, kAsinh) LOHE_UNARY(acosh, kAcosh)
                    LOHE_UNARY(atanh, kAtanh) LOHE_UNARY(erf, kErf) LOHE_UNARY(erfc, kErfc)
                        LOHE_UNARY(erfinv, kErfinv) LOHE_UNARY(lgamma, kLgamma) LOHE_UNARY(digamma, kDigamma)
                            LOHE_UNARY(sigmoid, kSigmoid) LOHE_UNARY(floor, kFloor) LOHE_UNARY(ceil, kCeil)
                                LOHE_UNARY(trunc, kTrunc) LOHE_UNARY(round, kRound) LOHE_UNARY(real, kReal)
                                    LOHE_UNARY(imag, kImag) LOHE_UNARY(angle, kAngle)
                                        LOHE_UNARY(signbit, kSignbit)
#undef LOHE_UNARY
#define LOHE_BINARY(function, prim) \
  inline Node function(Node a, Node b) { return binary(Prim::prim, a, b); }
                                            LOHE_BINARY(minimum, kMinimum) LOHE_BINARY(maximum, kMaximum)
                                                LOHE_BINARY(fmin, kFmin) LOHE_BINARY(fmax, kFmax)
                                                    LOHE_BINARY(pow, kPow) LOHE_BINARY(atan2, kAtan2)
                                                        LOHE_BINARY(hypot, kHypot) LOHE_BINARY(fmod, kFmod)
                                                            LOHE_BINARY(remainder, kRemainder)
                                                                LOHE_BINARY(floor_divide, kFloorDiv)
                                                                    LOHE_BINARY(trunc_divide, kTruncDiv)
                                                                        LOHE_BINARY(shift_left, kShl)
                                                                            LOHE_BINARY(shift_right, kShr)
#undef LOHE_BINARY

    // Node op number.
    template <class T>
    concept Number = std::is_arithmetic_v<T>;
#define LOHE_LITERAL(op)                           \
  template <Number T>                              \
  Node operator op(Node a, T b) {                  \
    return a op a.literal(static_cast<double>(b)); \
  }                                                \
  template <Number T>                              \
  Node operator op(T a, Node b) {                  \
    return b.literal(static_cast<double>(a)) op b; \
  }
LOHE_LITERAL(+)
LOHE_LITERAL(-)
LOHE_LITERAL(*) LOHE_LITERAL(/) LOHE_LITERAL(==) LOHE_LITERAL(!=) LOHE_LITERAL(<) LOHE_LITERAL(<=)
    LOHE_LITERAL(>) LOHE_LITERAL(>=)
#undef LOHE_LITERAL
        template <Number T>
        Node select(Node c, Node a, T b) {
  return select(c, a, a.literal(static_cast<double>(b)));
}
template <Number T>
Node select(Node c, T a, Node b) {
  return select(c, b.literal(static_cast<double>(a)), b);
}

}  // namespace lohe::ir
