#pragma once

#include <functional>
#include <string_view>
#include <vector>

#include "ir/node.h"
#include "lohe/error.h"
#include "ops/arg.h"
#include "ops/schema.h"

/// The words in which a row of the op table is written.
namespace lohe::ops {

struct OpDef;

using ir::Node;
using Value = ir::Node;  ///< a Node in a pointwise row
using Str = std::string_view;

enum class OpKind : uint8_t {
  kPointwise,  ///< one expression per element over broadcast operands
  kComposed,   ///< a graph of primitives with reductions over groups of dims
  kView,       ///< an affine map from result index to storage
  kPrimitive,  ///< a result rule and a kernel of its own, or a library call
  kFunction,   ///< C++ that calls other ops; no kernel and no gradient of its own
};

/// How the result dtype follows from the operands.
enum class Promotion : uint8_t {
  kSame,       ///< promoted dtype of the operands
  kFloat,      ///< the same, integers to the default dtype
  kBool,       ///< computed in the promoted dtype, result bool
  kReal,       ///< complex operands give their real dtype
  kRealFloat,  ///< kFloat, then kReal
  kSum,        ///< small integers and bool to int64; a `dtype` argument overrides
  kIndex,      ///< computed in the operand's dtype, result int64
  kFirst,      ///< the first tensor's dtype, whatever the others are
};

/// Sets of dtypes that a row computes in.
enum DtypeSet : uint16_t {
  kBools = 1,
  kInts = 2,
  kHalfs = 4,
  kFloats = 8,
  kComplexes = 16,
  kFloating = kHalfs | kFloats,
  kReals = kInts | kFloating,
  kNumbers = kReals | kComplexes,
  kFloatingOrComplex = kFloating | kComplexes,
  kAllReals = kBools | kReals,
  kAll = kBools | kNumbers,
  kIntegral = kBools | kInts,
};
bool contains(DtypeSet set, Dtype dtype);

/// Which dtypes a tensor given as out= may have.
enum class OutDtype : uint8_t {
  kCastable,      ///< what the result can be cast to; others are a RuntimeError
  kCastableType,  ///< the same; others are a TypeError
  kSame,          ///< the result's own
  kTruth,         ///< bool and uint8: the result is a truth value
  kGiven,         ///< any: it stands for a dtype argument that is not given, the result is computed in it
  kFloating,      ///< any floating dtype; others are a NotImplementedError
  kAny,           ///< any: the result is converted
};

enum class Strides : uint8_t { kElementwise, kContiguous };

/// What a tensor result will look like.
struct Meta {
  Dtype dtype = Dtype::kUndefined;
  Dims sizes;
  Dims strides;  ///< empty with non-empty sizes: contiguous
  /// Composed rows: iteration dim of each result dim (-1: size 1); empty: by position or span.
  SmallVector<int8_t, 6> dims;
  /// Of an argument seen by a view's gradient: its storage offset (strides are given there too).
  int64_t offset = 0;
};

/// How a composed row's dims fall into groups.
struct Domain {
  Dims sizes;                      ///< of the iteration space, in the first operand's dim order
  SmallVector<uint8_t, 6> groups;  ///< ir::Group of every dim
  /// For every tensor parameter: the iteration dim of each of its own dims (-1: must be 1). Empty:
  /// right-aligned broadcast.
  std::vector<SmallVector<int8_t, 6>> dims_of;
};

/// A geometry for a view: no data moves.
struct ViewSpec {
  Dims sizes, strides;
  int64_t offset = 0;
  Dtype dtype = Dtype::kUndefined;  ///< kUndefined: as the input's
  bool conj = false, neg = false;
};

/// What a row's body sees while its graph is made, once for each combination of dtypes and static attributes.
struct GraphCall {
  ir::Graph& graph;
  const OpDef& op;
  std::vector<Node> nodes;      ///< by parameter; undefined for None and for attributes
  std::vector<Arg> attributes;  ///< by parameter: bool, int, str, dtype arguments as given
  Dtype compute_dtype = Dtype::kUndefined;
  Dtype result_dtype = Dtype::kUndefined;
};
using GraphBody = std::function<std::vector<Node>(GraphCall&)>;

/// What a gradient on tensors sees. `grad(i)` is null when nothing flows into output i.
class Backward {
 public:
  virtual ~Backward() = default;
  virtual const TensorPtr& grad(int output = 0) = 0;
  virtual const Arg& arg(int param) = 0;  ///< tensors only if the row saves them
  /// A saved argument; of a list: its entry, null for None.
  virtual TensorPtr tensor(int param, int entry = 0) = 0;
  virtual TensorPtr result(int output = 0) = 0;  ///< saved result
  virtual bool needs(int param) const = 0;       ///< somebody wants this gradient
  /// Shape and dtype of a tensor argument (entry of a list), saved or not.
  virtual const Meta& meta(int param, int entry = 0) = 0;
  virtual void set(int param, TensorPtr gradient) = 0;
  virtual void set_list(int param, std::vector<TensorPtr> gradients) = 0;
};
using TensorGradient = std::function<void(Backward&)>;

}  // namespace lohe::ops
