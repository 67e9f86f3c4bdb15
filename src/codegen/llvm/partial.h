#pragma once

#include <llvm/IR/IRBuilder.h>

namespace lohe::codegen {

/// The first `count` elements of a vector in memory, 0 < count < its lanes, in pieces of half of its lanes, a
/// quarter, and so on: where masks are slow, as all stores under one are below AVX-512 (Zen 3: some 12
/// cycles), or there are none (elements of one and two bytes are then tested one by one: a row of 28 took 35
/// times as long as one of 32). A processor foresees the branches, as rows of a kind have one length.
llvm::Value* load_first(llvm::IRBuilder<>& builder, llvm::FixedVectorType* type, llvm::Value* from,
                        llvm::Align align, llvm::Value* count);  ///< zeros in the other lanes
void store_first(llvm::IRBuilder<>& builder, llvm::Value* value, llvm::Value* to, llvm::Align align,
                 llvm::Value* count);

}  // namespace lohe::codegen
