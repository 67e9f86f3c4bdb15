#include "codegen/llvm/partial.h"

#include <llvm/Analysis/VectorUtils.h>

#include "codegen/llvm/control.h"

namespace lohe::codegen {
namespace {

/// Whether a piece of so many lanes is among them.
llvm::Value* has_piece(llvm::IRBuilder<>& b, llvm::Value* count, unsigned lanes) {
  return b.CreateICmpNE(b.CreateAnd(count, b.getInt64(lanes)), b.getInt64(0));
}

}  // namespace

llvm::Value* load_first(llvm::IRBuilder<>& b, llvm::FixedVectorType* type, llvm::Value* from,
                        llvm::Align align, llvm::Value* count) {
  llvm::Type* element = type->getElementType();
  // The largest piece lies first; the smallest, which is last, is taken first.
  llvm::Value* read = llvm::Constant::getNullValue(llvm::FixedVectorType::get(element, 1));
  for (unsigned lanes = 1; lanes < type->getNumElements(); lanes *= 2) {
    auto* piece_type = llvm::FixedVectorType::get(element, lanes);
    llvm::Value* nothing = llvm::Constant::getNullValue(piece_type);
    llvm::BasicBlock* before = b.GetInsertBlock();
    llvm::BasicBlock* there = new_block(b, "piece");
    llvm::BasicBlock* after = new_block(b, "after_piece");
    b.CreateCondBr(has_piece(b, count, lanes), there, after);
    b.SetInsertPoint(there);
    llvm::Value* place = b.CreateAnd(count, b.getInt64(~uint64_t{2 * lanes - 1}));
    llvm::Value* piece = b.CreateAlignedLoad(piece_type, b.CreateGEP(element, from, place), align);
    llvm::Value* with = llvm::concatenateVectors(b, {piece, read});
    b.CreateBr(after);
    b.SetInsertPoint(before->getTerminator());
    llvm::Value* without = llvm::concatenateVectors(b, {read, nothing});
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
  for (unsigned lanes = type->getNumElements() / 2; lanes >= 1; lanes /= 2) {
    llvm::BasicBlock* before = b.GetInsertBlock();
    llvm::BasicBlock* there = new_block(b, "piece");
    llvm::BasicBlock* after = new_block(b, "after_piece");
    llvm::Value* low = b.CreateShuffleVector(value, llvm::createSequentialMask(0, lanes, 0));
    b.CreateCondBr(has_piece(b, count, lanes), there, after);
    b.SetInsertPoint(there);
    b.CreateAlignedStore(low, to, align);
    llvm::Value* high = b.CreateShuffleVector(value, llvm::createSequentialMask(lanes, lanes, 0));
    llvm::Value* next = b.CreateGEP(type->getElementType(), to, b.getInt64(lanes));
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
