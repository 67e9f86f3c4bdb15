#include "codegen/llvm/strided.h"

#include "codegen/llvm/partial.h"

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

/// `lanes` at the even places of twice as many, `others` at the odd ones.
llvm::Value* Strided::in_turn(llvm::Value* lanes, llvm::Value* others) {
  std::vector<int> places;
  for (int i = 0; i < width_; ++i) places.insert(places.end(), {i, width_ + i});
  return b_.CreateShuffleVector(lanes, others, places);
}

llvm::Value* Strided::mask_of_even_places() {
  auto* type = llvm::FixedVectorType::get(b_.getInt1Ty(), static_cast<unsigned>(width_));
  llvm::Value* lanes = mask_ != nullptr ? mask_ : llvm::Constant::getAllOnesValue(type);
  return in_turn(lanes, llvm::Constant::getNullValue(type));
}

llvm::Value* Strided::load_every_second() {
  std::vector<int> places;
  for (int i = 0; i < width_; ++i) places.push_back(2 * i);
  if (mask_ == nullptr) {
    // The second vector begins an element early and so ends with the last lane.
    llvm::Value* low = b_.CreateAlignedLoad(type_, address(index_.first), align_);
    llvm::Value* from = address(b_.CreateAdd(index_.first, b_.getInt64(static_cast<uint64_t>(width_ - 1))));
    llvm::Value* high = b_.CreateAlignedLoad(type_, from, align_);
    for (int i = width_ / 2; i < width_; ++i) places[static_cast<size_t>(i)] += 1;
    return b_.CreateShuffleVector(low, high, places);
  }
  auto* twice = llvm::FixedVectorType::get(type_->getScalarType(), 2 * type_->getNumElements());
  llvm::Value* pairs = b_.CreateMaskedLoad(twice, address(index_.first), align_, mask_of_even_places(),
                                           llvm::Constant::getNullValue(twice));
  return b_.CreateShuffleVector(pairs, places);
}

llvm::Value* Strided::load_backwards() {
  std::vector<int> reversed;
  for (int i = 0; i < width_; ++i) reversed.push_back(width_ - 1 - i);
  llvm::Value* lowest = address(b_.CreateSub(index_.first, b_.getInt64(static_cast<uint64_t>(width_ - 1))));
  llvm::Value* row = mask_ == nullptr
                         ? static_cast<llvm::Value*>(b_.CreateAlignedLoad(type_, lowest, align_))
                         : b_.CreateMaskedLoad(type_, lowest, align_, b_.CreateShuffleVector(mask_, reversed),
                                               llvm::Constant::getNullValue(type_));
  return b_.CreateShuffleVector(row, reversed);
}

bool Strided::every_second() const {
  const auto* distance = llvm::dyn_cast<llvm::ConstantInt>(index_.distance);
  return distance != nullptr && distance->equalsInt(2);
}

llvm::Value* Strided::load(FunctionRef<llvm::Value*()> gather) {
  if (llvm::isa<llvm::ConstantInt>(index_.distance)) return every_second() ? load_every_second() : gather();
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
  end_way(load_every_second());
  b_.SetInsertPoint(back);
  end_way(load_backwards());
  b_.SetInsertPoint(any);
  end_way(gather());
  b_.SetInsertPoint(after);
  llvm::PHINode* phi = b_.CreatePHI(type_, 3);
  for (const auto& [result, block] : ways) phi->addIncoming(result, block);
  return phi;
}

std::pair<llvm::Value*, llvm::Value*> Strided::load_pairs() {
  auto* twice = llvm::FixedVectorType::get(type_->getScalarType(), 2 * type_->getNumElements());
  llvm::Value* from = address(index_.first);
  llvm::Value* pairs = mask_ == nullptr ? static_cast<llvm::Value*>(b_.CreateAlignedLoad(twice, from, align_))
                                        : b_.CreateMaskedLoad(twice, from, align_, in_turn(mask_, mask_),
                                                              llvm::Constant::getNullValue(twice));
  std::vector<int> even, odd;
  for (int i = 0; i < width_; ++i) {
    even.push_back(2 * i);
    odd.push_back(2 * i + 1);
  }
  return {b_.CreateShuffleVector(pairs, even), b_.CreateShuffleVector(pairs, odd)};
}

void Strided::store_pairs(llvm::Value* first, llvm::Value* second, llvm::Value* count) {
  llvm::Value* pairs = in_turn(first, second);
  llvm::Value* to = address(index_.first);
  if (mask_ == nullptr)
    b_.CreateAlignedStore(pairs, to, align_);
  else if (count != nullptr)
    store_first(b_, pairs, to, align_, b_.CreateShl(count, 1));
  else
    b_.CreateMaskedStore(pairs, to, align_, in_turn(mask_, mask_));
}

void Strided::store_every_second(llvm::Value* value, bool by_mask) {
  if (mask_ == nullptr && !by_mask) {
    for (uint64_t lane = 0; lane < static_cast<uint64_t>(width_); ++lane)
      b_.CreateAlignedStore(b_.CreateExtractElement(value, lane),
                            address(b_.CreateAdd(index_.first, b_.getInt64(2 * lane))), align_);
  } else {
    b_.CreateMaskedStore(in_turn(value, llvm::PoisonValue::get(value->getType())), address(index_.first),
                         align_, mask_of_even_places());
  }
}

void Strided::store(llvm::Value* value, bool by_mask, FunctionRef<void()> scatter) {
  if (llvm::isa<llvm::ConstantInt>(index_.distance))
    return every_second() ? store_every_second(value, by_mask) : scatter();
  llvm::BasicBlock* second = new_block("every_second");
  llvm::BasicBlock* any = new_block("any_distance");
  llvm::BasicBlock* after = new_block("after_store");
  b_.CreateCondBr(b_.CreateICmpEQ(index_.distance, b_.getInt64(2)), second, any);
  b_.SetInsertPoint(second);
  store_every_second(value, by_mask);
  b_.CreateBr(after);
  b_.SetInsertPoint(any);
  scatter();
  b_.CreateBr(after);
  b_.SetInsertPoint(after);
}

std::optional<Strided::Index> strided_index(llvm::IRBuilder<>& b, const ir::Kernel& kernel,
                                            const std::vector<bool>& varying, const LaneNumber& lanes,
                                            ir::Value index, FunctionRef<llvm::Value*(ir::Value)> value) {
  using ir::Op;
  if (index == lanes.number) return Strided::Index{lanes.first, b.getInt64(1)};
  const ir::Inst& inst = kernel.insts[index];
  const auto of = [&](ir::Value v) { return strided_index(b, kernel, varying, lanes, v, value); };
  if (inst.op == Op::kAdd && inst.a == inst.b) {
    std::optional<Strided::Index> at = of(inst.a);
    if (at) at = {b.CreateShl(at->first, 1), b.CreateShl(at->distance, 1)};
    return at;
  }
  for (const auto& [uniform, rest] : {std::pair{inst.a, inst.b}, {inst.b, inst.a}}) {
    if (inst.op == Op::kAdd && !varying[uniform]) {
      std::optional<Strided::Index> at = of(rest);
      if (at) at->first = b.CreateAdd(value(uniform), at->first);
      return at;
    }
    if (inst.op == Op::kMul && !varying[uniform] && rest == lanes.number)
      return Strided::Index{b.CreateMul(lanes.first, value(uniform)), value(uniform)};
  }
  return {};
}

}  // namespace lohe::codegen
