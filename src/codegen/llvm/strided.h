#pragma once

#include <llvm/IR/IRBuilder.h>

#include <optional>
#include <utility>
#include <vector>

#include "base/function_ref.h"
#include "ir/kernel.h"

namespace lohe::codegen {

/// A vector of elements at equal distances in memory. A gather or scatter takes an instruction's time for
/// each element; every other element (pairs of numbers, the two halves of interleaved ones) and a row read
/// backwards, the distances that programs have besides rows of a matrix, take one or two loads and a
/// permutation. Where the distance is known only when the kernel runs, the code asks each time, and the
/// processor foresees the answer.
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

  /// Whether lanes are known to lie two elements apart.
  bool every_second() const;
  /// What such lanes hold, and the elements behind them.
  std::pair<llvm::Value*, llvm::Value*> load_pairs();
  /// Lane i of `first` and of `second` side by side, where lanes lie two elements apart. @param count of the
  /// lanes stored, if there is a mask and stores under one are slow; else null
  void store_pairs(llvm::Value* first, llvm::Value* second, llvm::Value* count);

 private:
  llvm::BasicBlock* new_block(const char* label);
  llvm::Value* address(llvm::Value* index);
  llvm::Value* load_every_second();
  llvm::Value* load_backwards();
  void store_every_second(llvm::Value* value, bool by_mask);
  llvm::Value* in_turn(llvm::Value* lanes, llvm::Value* others);
  llvm::Value* mask_of_even_places();

  llvm::IRBuilder<>& b_;
  llvm::FixedVectorType* const type_;
  llvm::Value* const buffer_;
  const Index index_;
  llvm::Value* const mask_;
  const int width_;
  const llvm::Align align_;
};

/// The loop index whose steps are lanes, and its value in lane 0.
struct LaneNumber {
  ir::Value number;
  llvm::Value* first;
};
/// Where a load or store of a vector loop begins and how far its lanes lie apart, if that is the same for
/// all. @param value of an instruction that does not vary over lanes
std::optional<Strided::Index> strided_index(llvm::IRBuilder<>& builder, const ir::Kernel& kernel,
                                            const std::vector<bool>& varying, const LaneNumber& lanes,
                                            ir::Value index, FunctionRef<llvm::Value*(ir::Value)> value);

}  // namespace lohe::codegen
