#pragma once

#include <memory>
#include <string>
#include <vector>

#include "compile/program.h"
#include "ops/call.h"

/// Pointwise and composed rows made concrete for the dtypes and static attributes of a call.
namespace lohe::dispatch {

struct Instance {
  std::unique_ptr<compiler::Program> program;
  Dtype compute = Dtype::kUndefined, result = Dtype::kUndefined;
  std::vector<int> tensors;    ///< parameter of every program input
  std::vector<int> scalars;    ///< parameter of every program scalar
  std::vector<Dtype> outputs;  ///< dtypes as the program writes them
  std::vector<ir::Space> output_spaces;
  std::vector<int> passed_through;  ///< output k is exactly input number passed_through[k], or -1
};

/// Result dtype by PyTorch's rules: tensors with dims, 0-dim tensors and numbers count by category.
/// @throws TypeError where no operand has a dtype.
Dtype promoted_dtype(Args args);
/// Dtype that the row computes in and that its result has. @throws NotImplementedError for a dtype the row
/// does not know.
void resolve_dtypes(const ops::OpDef& op, Args args, Dtype* compute, Dtype* result);

/// Finds or makes the instance. @param spaces of every parameter's tensor (composed rows); null: kOuter.
/// @param out_dtype dtype of the memory written to, or kUndefined: the result dtype.
const Instance& find_instance(const ops::OpDef& op, Args args, const ir::Space* spaces, Dtype out_dtype);

}  // namespace lohe::dispatch
