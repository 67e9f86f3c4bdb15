#include "codegen/llvm/strided.h"

#include <utility>
#include <vector>

namespace lohe::codegen {

Strided::Strided(llvm::IRBuilder<>& builder, llvm::FixedVectorType* type, llvm::Value* buffer,
                 const Index& index, llvm::Value* mask)
    : b_(builder),
      type_(type),
      buffer_(buffer),
      index_(index),
      mask_(mask),
      width_(static_cast<int>(type->getNumElements())),
      align_(type->getScalarSizeInBits() / 8) {}

llvm::BasicBlock* Strided::new_block(const char* label) {
  return llvm::BasicBlock::Create(b_.getContext(), label, b_.GetInsertBlock()->getParent());
}

llvm::Value* Strided::address(llvm::Value* index) {
  return b_.CreateGEP(type_->getScalarType(), buffer_, index);
}

/// `lanes` at the even places of twice as many.
llvm::Value* Strided::at_even_places(llvm::Value* lanes, llvm::Value* others) {
  std::vector<int> places;
  for (int i = 0; i < width_; ++i) places.insert(places.end(), {i, width_ + i});
  return b_.CreateShuffleVector(lanes, others, places);
}

llvm::Value* Strided::mask_of_even_places() {
  auto* type = llvm::FixedVectorType::get(b_.getInt1Ty(), static_cast<unsigned>(width_));
  llvm::Value* lanes = mask_ != nullptr ? mask_ : llvm::Constant::getAllOnesValue(type);
  return at_even_places(lanes, llvm::Constant::getNullValue(type));
}

llvm::Value* Strided::load(FunctionRef<llvm::Value*()> gather) {
  llvm::BasicBlock* second = new_block("every_second");
  llvm::BasicBlock* back = new_block("backwards");
  llvm::BasicBlock* any = new_block("any_distance");
  llvm::BasicBlock* after = new_block("after_load");
  llvm::SwitchInst* by_distance = b_.CreateSwitch(index_.distance, any, 2);
  by_distance->addCase(b_.getInt64(2), second);
  by_distance->addCase(llvm::ConstantInt::getSigned(b_.getInt64Ty(), -1), back);
  std::vector<std::pair<llvm::Value*, llvm::BasicBlock*>> ways;
  const auto end_way = [&](llvm::Value* result) {
    ways.emplace_back(result, b_.GetInsertBlock());
    b_.CreateBr(after);
  };
  b_.SetInsertPoint(second);
  std::vector<int> even, reversed;
  for (int i = 0; i < width_; ++i) {
    even.push_back(2 * i);
    reversed.push_back(width_ - 1 - i);
  }
  if (mask_ == nullptr) {
    // The second vector begins an element early and so ends with the last lane.
    llvm::Value* low = b_.CreateAlignedLoad(type_, address(index_.first), align_);
    llvm::Value* from = address(b_.CreateAdd(index_.first, b_.getInt64(static_cast<uint64_t>(width_ - 1))));
    llvm::Value* high = b_.CreateAlignedLoad(type_, from, align_);
    std::vector<int> places = even;
    for (int i = width_ / 2; i < width_; ++i) places[static_cast<size_t>(i)] += 1;
    end_way(b_.CreateShuffleVector(low, high, places));
  } else {
    auto* twice = llvm::FixedVectorType::get(type_->getScalarType(), 2 * type_->getNumElements());
    llvm::Value* pairs = b_.CreateMaskedLoad(twice, address(index_.first), align_, mask_of_even_places(),
                                             llvm::Constant::getNullValue(twice));
    end_way(b_.CreateShuffleVector(pairs, even));
  }
  b_.SetInsertPoint(back);
  llvm::Value* lowest = address(b_.CreateSub(index_.first, b_.getInt64(static_cast<uint64_t>(width_ - 1))));
  llvm::Value* row = mask_ == nullptr
                         ? static_cast<llvm::Value*>(b_.CreateAlignedLoad(type_, lowest, align_))
                         : b_.CreateMaskedLoad(type_, lowest, align_, b_.CreateShuffleVector(mask_, reversed),
                                               llvm::Constant::getNullValue(type_));
  end_way(b_.CreateShuffleVector(row, reversed));
  b_.SetInsertPoint(any);
  end_way(gather());
  b_.SetInsertPoint(after);
  llvm::PHINode* phi = b_.CreatePHI(type_, 3);
  for (const auto& [result, block] : ways) phi->addIncoming(result, block);
  return phi;
}

void Strided::store(llvm::Value* value, bool by_mask, FunctionRef<void()> scatter) {
  llvm::BasicBlock* second = new_block("every_second");
  llvm::BasicBlock* any = new_block("any_distance");
  llvm::BasicBlock* after = new_block("after_store");
  b_.CreateCondBr(b_.CreateICmpEQ(index_.distance, b_.getInt64(2)), second, any);
  b_.SetInsertPoint(second);
  if (mask_ == nullptr && !by_mask) {
    for (uint64_t lane = 0; lane < static_cast<uint64_t>(width_); ++lane)
      b_.CreateAlignedStore(b_.CreateExtractElement(value, lane),
                            address(b_.CreateAdd(index_.first, b_.getInt64(2 * lane))), align_);
  } else {
    b_.CreateMaskedStore(at_even_places(value, llvm::PoisonValue::get(value->getType())),
                         address(index_.first), align_, mask_of_even_places());
  }
  b_.CreateBr(after);
  b_.SetInsertPoint(any);
  scatter();
  b_.CreateBr(after);
  b_.SetInsertPoint(after);
}

}  // namespace lohe::codegen
