#pragma once

#include <llvm/IR/IRBuilder.h>

#include <vector>

#include "base/function_ref.h"

namespace lohe::codegen {

using Values = std::vector<llvm::Value*>;

llvm::BasicBlock* new_block(llvm::IRBuilder<>& builder, const char* label);

/// for (i = begin; i < end; i += step), carrying values; already rotated, so that LICM has a place to hoist
/// to. `body` gives what the next iteration begins with.
Values counted_loop(llvm::IRBuilder<>& builder, llvm::Value* begin, llvm::Value* end, uint64_t step,
                    const Values& initial,
                    FunctionRef<Values(llvm::Value* index, const Values& carried)> body);

/// Copies a tile of memory, rows to columns, through registers: blocks of as many rows as a vector has lanes,
/// whose elements pairwise interleaving puts in order.
struct TransposedTile {
  llvm::Type* from_type;  ///< of an element: an integer if it is narrower than `to_type`
  llvm::Value *from, *from_stride;
  llvm::Type* to_type;
  llvm::Value* to;  ///< dense along rows; room for whole blocks
  uint64_t pitch;   ///< of a column there
  llvm::Value *rows, *columns;
};
void emit_transposed(llvm::IRBuilder<>& builder, const TransposedTile& tile, unsigned lanes);

}  // namespace lohe::codegen
