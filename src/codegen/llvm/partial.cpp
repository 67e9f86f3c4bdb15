#include "codegen/llvm/partial.h"

#include <numeric>
#include <vector>

#include "codegen/llvm/control.h"

namespace lohe::codegen {
namespace {

llvm::Value* lanes_of(llvm::IRBuilder<>& b, llvm::Value* x, int first, int count) {
  std::vector<int> places(static_cast<size_t>(count));
  std::iota(places.begin(), places.end(), first);
  return b.CreateShuffleVector(x, places);
}

llvm::Value* joined(llvm::IRBuilder<>& b, llvm::Value* low, llvm::Value* high, int lanes) {
  std::vector<int> places(static_cast<size_t>(2 * lanes));
  std::iota(places.begin(), places.end(), 0);
  return b.CreateShuffleVector(low, high, places);
}

/// Whether a piece of so many lanes is among them.
llvm::Value* has_piece(llvm::IRBuilder<>& b, llvm::Value* count, int lanes) {
  return b.CreateICmpNE(b.CreateAnd(count, b.getInt64(static_cast<uint64_t>(lanes))), b.getInt64(0));
}

}  // namespace

llvm::Value* load_first(llvm::IRBuilder<>& b, llvm::FixedVectorType* type, llvm::Value* from,
                        llvm::Align align, llvm::Value* count) {
  llvm::Type* element = type->getElementType();
  const int width = static_cast<int>(type->getNumElements());
  // The largest piece lies first; the smallest, which is last, is taken first.
  llvm::Value* read = llvm::Constant::getNullValue(llvm::FixedVectorType::get(element, 1));
  for (int lanes = 1; lanes < width; lanes *= 2) {
    auto* piece_type = llvm::FixedVectorType::get(element, static_cast<unsigned>(lanes));
    llvm::Value* nothing = llvm::Constant::getNullValue(piece_type);
    llvm::BasicBlock* before = b.GetInsertBlock();
    llvm::BasicBlock* there = new_block(b, "piece");
    llvm::BasicBlock* after = new_block(b, "after_piece");
    b.CreateCondBr(has_piece(b, count, lanes), there, after);
    b.SetInsertPoint(there);
    llvm::Value* place = b.CreateAnd(count, b.getInt64(~static_cast<uint64_t>(2 * lanes - 1)));
    llvm::Value* piece = b.CreateAlignedLoad(piece_type, b.CreateGEP(element, from, place), align);
    llvm::Value* with = joined(b, piece, read, lanes);
    b.CreateBr(after);
    b.SetInsertPoint(before->getTerminator());
    llvm::Value* without = joined(b, read, nothing, lanes);
    b.SetInsertPoint(after);
    llvm::PHINode* phi = b.CreatePHI(with->getType(), 2);
    phi->addIncoming(with, there);
    phi->addIncoming(without, before);
    read = phi;
  }
  return read;
}

void store_first(llvm::IRBuilder<>& b, llvm::Value* value, llvm::Value* to, llvm::Align align,
                 llvm::Value* count) {
  auto* type = llvm::cast<llvm::FixedVectorType>(value->getType());
  for (int lanes = static_cast<int>(type->getNumElements()) / 2; lanes >= 1; lanes /= 2) {
    llvm::BasicBlock* before = b.GetInsertBlock();
    llvm::BasicBlock* there = new_block(b, "piece");
    llvm::BasicBlock* after = new_block(b, "after_piece");
    llvm::Value* low = lanes_of(b, value, 0, lanes);
    b.CreateCondBr(has_piece(b, count, lanes), there, after);
    b.SetInsertPoint(there);
    b.CreateAlignedStore(low, to, align);
    llvm::Value* high = lanes_of(b, value, lanes, lanes);
    llvm::Value* next = b.CreateGEP(type->getElementType(), to, b.getInt64(static_cast<uint64_t>(lanes)));
    b.CreateBr(after);
    b.SetInsertPoint(after);
    llvm::PHINode* left = b.CreatePHI(low->getType(), 2);
    left->addIncoming(high, there);
    left->addIncoming(low, before);
    llvm::PHINode* place = b.CreatePHI(to->getType(), 2);
    place->addIncoming(next, there);
    place->addIncoming(to, before);
    value = left;
    to = place;
  }
}

}  // namespace lohe::codegen
