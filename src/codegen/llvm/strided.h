#pragma once

#include <llvm/IR/IRBuilder.h>

#include "base/function_ref.h"

namespace lohe::codegen {

/// A vector of elements at equal distances in memory. A gather or scatter takes an instruction's time for
/// each element; every other element (pairs of numbers, the two halves of interleaved ones) and a row read
/// backwards, the distances that programs have besides rows of a matrix, take one or two loads and a
/// permutation. The distance is known when the kernel runs: the code asks each time, and the processor
/// foresees the answer.
class Strided {
 public:
  /// Lane i of the index is `first` + i * `distance`.
  struct Index {
    llvm::Value *first, *distance;
  };

  /// @param mask null: all lanes
  Strided(llvm::IRBuilder<>& builder, llvm::FixedVectorType* type, llvm::Value* buffer, const Index& index,
          llvm::Value* mask);

  /// @param gather loads what lies at any distance
  llvm::Value* load(FunctionRef<llvm::Value*()> gather);
  /// @param by_mask whether a store under a mask takes less time than one for each lane
  void store(llvm::Value* value, bool by_mask, FunctionRef<void()> scatter);

 private:
  llvm::BasicBlock* new_block(const char* label);
  llvm::Value* address(llvm::Value* index);
  llvm::Value* at_even_places(llvm::Value* lanes, llvm::Value* others);
  llvm::Value* mask_of_even_places();

  llvm::IRBuilder<>& b_;
  llvm::FixedVectorType* const type_;
  llvm::Value* const buffer_;
  const Index index_;
  llvm::Value* const mask_;
  const int width_;
  const llvm::Align align_;
};

}  // namespace lohe::codegen
