#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ops/arg.h"

/// Signatures in the field's usual notation: `name(Tensor self, *, Scalar alpha=1) -> Tensor`. `(a)` marks an
/// argument that a result aliases, `(a!)` one that is written.
namespace lohe::ops {

enum class ArgType : uint8_t {
  kTensor,
  kTensors,
  kScalar,
  kInt,
  kFloat,
  kBool,
  kStr,
  kInts,
  kFloats,
  kDtype,
  kDevice,
  kLayout,
  kMemoryFormat,
  kGenerator
};

struct Param {
  std::string name;
  ArgType type;
  bool optional = false;  ///< may be None
  bool keyword_only = false;
  bool written = false;  ///< (a!)
  char alias = 0;        ///< 'a' of (a) and (a!)
  int list_size = 0;     ///< int[2]: a single int stands for two
  bool has_default = false;
  Arg default_value;         ///< points into the schema's own storage
  std::string default_text;  ///< as written
};

struct Return {
  std::string name;  ///< may be empty
  ArgType type;
  bool written = false;
  char alias = 0;
};

struct Schema {
  std::string name;      ///< "add", "max.dim": the part after the dot tells overloads apart
  std::string base;      ///< "max"
  std::string overload;  ///< "dim"
  std::vector<Param> params;
  std::vector<Return> returns;
  int positional = 0;     ///< parameters before `*`
  bool mutating = false;  ///< a parameter is written
  std::string text;

  /// @throws internal error naming the text: schemas are literals of this library.
  static Schema parse(std::string_view text);
  int index_of(std::string_view param) const;  ///< -1 if there is none
  bool mutates() const { return mutating; }
};

}  // namespace lohe::ops
