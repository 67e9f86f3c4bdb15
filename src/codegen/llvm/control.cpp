#include "codegen/llvm/control.h"

#include <llvm/Analysis/VectorUtils.h>

namespace lohe::codegen {

llvm::BasicBlock* new_block(llvm::IRBuilder<>& b, const char* label) {
  return llvm::BasicBlock::Create(b.getContext(), label, b.GetInsertBlock()->getParent());
}

namespace {

/// Says that a loop begins with a line: short ones then are one entry of a processor's cache of decoded
/// instructions, wherever their kernel is put.
llvm::MDNode* at_a_line(llvm::LLVMContext& context) {
  auto* bytes = llvm::ConstantAsMetadata::get(llvm::ConstantInt::get(llvm::Type::getInt32Ty(context), 64));
  auto* align = llvm::MDNode::get(context, {llvm::MDString::get(context, "llvm.loop.align"), bytes});
  llvm::MDNode* loop = llvm::MDNode::getDistinct(context, {nullptr, align});
  loop->replaceOperandWith(0, loop);
  return loop;
}

}  // namespace

Values counted_loop(llvm::IRBuilder<>& b, llvm::Value* begin, llvm::Value* end, uint64_t step,
                    const Values& initial,
                    FunctionRef<Values(llvm::Value* index, const Values& carried)> body) {
  llvm::BasicBlock* before = b.GetInsertBlock();
  llvm::BasicBlock* inside = new_block(b, "loop");
  llvm::BasicBlock* after = new_block(b, "after");
  b.CreateCondBr(b.CreateICmpSLT(begin, end), inside, after);

  b.SetInsertPoint(inside);
  llvm::PHINode* index = b.CreatePHI(b.getInt64Ty(), 2);
  index->addIncoming(begin, before);
  Values carried;
  for (llvm::Value* value : initial) {
    llvm::PHINode* phi = b.CreatePHI(value->getType(), 2);
    phi->addIncoming(value, before);
    carried.push_back(phi);
  }
  const Values next = body(index, carried);
  llvm::Value* next_index = b.CreateAdd(index, b.getInt64(step), "", false, true);
  llvm::BasicBlock* latch = b.GetInsertBlock();
  llvm::BranchInst* again = b.CreateCondBr(b.CreateICmpSLT(next_index, end), inside, after);
  again->setMetadata(llvm::LLVMContext::MD_loop, at_a_line(b.getContext()));
  index->addIncoming(next_index, latch);

  b.SetInsertPoint(after);
  Values results;
  for (size_t i = 0; i < initial.size(); ++i) {
    llvm::cast<llvm::PHINode>(carried[i])->addIncoming(next[i], latch);
    llvm::PHINode* phi = b.CreatePHI(initial[i]->getType(), 2);
    phi->addIncoming(initial[i], before);
    phi->addIncoming(next[i], latch);
    results.push_back(phi);
  }
  return results;
}

namespace {

/// Rows to columns, of as many vectors as each has lanes. First within 16 bytes, then 16 bytes at a time, as
/// x86 moves elements without crossing and whole pieces across.
class Square {
 public:
  Square(llvm::IRBuilder<>& builder, unsigned lanes, unsigned element_bytes)
      : b_(builder),
        piece_(16 / static_cast<int>(element_bytes)),
        pieces_(static_cast<int>(lanes) / piece_) {}

  int piece() const { return piece_; }

  Values transposed(const Values& rows) {
    Values inner;
    for (auto row = rows.begin(); row != rows.end(); row += piece_) {
      const Values group = within({row, row + piece_});
      inner.insert(inner.end(), group.begin(), group.end());
    }
    Values columns(rows.size());
    for (int c = 0; c < piece_; ++c) {
      Values across;
      for (int k = 0; k < pieces_; ++k) across.push_back(inner[static_cast<size_t>(k * piece_ + c)]);
      across = exchanged(across);
      for (int k = 0; k < pieces_; ++k)
        columns[static_cast<size_t>(k * piece_ + c)] = across[static_cast<size_t>(k)];
    }
    return columns;
  }

  /// Of as many vectors as a piece has elements: element i of each piece of vector k to element k of that
  /// piece of vector i.
  Values within(const Values& v) {
    if (piece_ == 2) return {interleaved(v[0], v[1], 1, 0), interleaved(v[0], v[1], 1, 1)};
    Values result;
    for (const int half : {0, 1}) {
      llvm::Value* low = interleaved(v[0], v[1], 1, half);
      llvm::Value* high = interleaved(v[2], v[3], 1, half);
      for (const int second : {0, 1}) result.push_back(interleaved(low, high, 2, second));
    }
    return result;
  }

 private:
  /// Of every piece, the lower or upper half of `a` and of `b` in turn, `run` elements each.
  llvm::Value* interleaved(llvm::Value* a, llvm::Value* b, int run, int half) {
    std::vector<int> places;
    for (int p = 0; p < pieces_; ++p) {
      const int from = p * piece_ + half * piece_ / 2;
      for (int k = 0; k < piece_ / 2; k += run) {
        for (const int vector : {0, 1}) {
          for (int e = 0; e < run; ++e) places.push_back(vector * pieces_ * piece_ + from + k + e);
        }
      }
    }
    return b_.CreateShuffleVector(a, b, places);
  }

  /// The even or odd pieces of `a`, then those of `b`.
  llvm::Value* every_second(llvm::Value* a, llvm::Value* b, int odd) {
    std::vector<int> places;
    for (int p = odd; p < 2 * pieces_; p += 2) {
      for (int e = 0; e < piece_; ++e) places.push_back(p * piece_ + e);
    }
    return b_.CreateShuffleVector(a, b, places);
  }

  /// Piece i of vector k to piece k of vector i.
  Values exchanged(const Values& v) {
    if (pieces_ == 1) return v;
    if (pieces_ == 2) return {every_second(v[0], v[1], 0), every_second(v[0], v[1], 1)};
    Values result;
    for (const int second : {0, 1}) {
      for (const int first : {0, 1})
        result.push_back(
            every_second(every_second(v[0], v[1], first), every_second(v[2], v[3], first), second));
    }
    return result;
  }

  llvm::IRBuilder<>& b_;
  const int piece_, pieces_;
};

}  // namespace

void emit_transposed(llvm::IRBuilder<>& b, const TransposedTile& t, unsigned lanes) {
  const llvm::Align from_align(t.from_type->getPrimitiveSizeInBits() / 8);
  const llvm::Align to_align(t.to_type->getPrimitiveSizeInBits() / 8);
  llvm::Value* zero = b.getInt64(0);
  llvm::Value* last_row = b.CreateSub(t.rows, b.getInt64(1));
  Square square(b, lanes, static_cast<unsigned>(t.to_type->getPrimitiveSizeInBits() / 8));
  const auto piece = static_cast<unsigned>(square.piece());
  // `width` elements of a row; of rows beyond the last, that one's.
  const auto load = [&](llvm::Value* row, unsigned i, llvm::Value* column, unsigned width,
                        llvm::Value* mask) {
    auto* type = llvm::FixedVectorType::get(t.from_type, width);
    llvm::Value* at =
        b.CreateBinaryIntrinsic(llvm::Intrinsic::smin, b.CreateAdd(row, b.getInt64(i)), last_row);
    llvm::Value* index = b.CreateAdd(b.CreateMul(at, t.from_stride), column);
    llvm::Value* from = b.CreateGEP(t.from_type, t.from, index);
    llvm::Value* x = mask == nullptr ? static_cast<llvm::Value*>(b.CreateAlignedLoad(type, from, from_align))
                                     : b.CreateMaskedLoad(type, from, from_align, mask,
                                                          llvm::Constant::getNullValue(type));
    return t.from_type == t.to_type ? x : b.CreateZExt(x, llvm::FixedVectorType::get(t.to_type, width));
  };
  const auto store = [&](const Values& columns, llvm::Value* row, llvm::Value* column) {
    for (size_t i = 0; i < columns.size(); ++i) {
      llvm::Value* first = b.CreateMul(b.CreateAdd(column, b.getInt64(i)), b.getInt64(t.pitch));
      b.CreateAlignedStore(columns[i], b.CreateGEP(t.to_type, t.to, b.CreateAdd(first, row)), to_align);
    }
  };
  const auto over_rows = [&](llvm::Value* column, const auto& columns_of) {
    counted_loop(b, zero, t.rows, lanes, {}, [&](llvm::Value* row, const Values&) {
      store(columns_of(row), row, column);
      return Values{};
    });
  };
  const auto whole_vectors = [&](llvm::Value* column, llvm::Value* mask) {
    over_rows(column, [&](llvm::Value* row) {
      Values rows;
      for (unsigned i = 0; i < lanes; ++i) rows.push_back(load(row, i, column, lanes, mask));
      return square.transposed(rows);
    });
  };
  // Few columns are one piece of a row: vectors of pieces of every so many rows.
  const auto pieces = [&](llvm::Value* column, llvm::Value* mask) {
    over_rows(column, [&](llvm::Value* row) {
      Values vectors;
      for (unsigned first = 0; first < piece; ++first) {
        Values rows;
        for (unsigned i = first; i < lanes; i += piece) rows.push_back(load(row, i, column, piece, mask));
        vectors.push_back(llvm::concatenateVectors(b, rows));
      }
      return square.within(vectors);
    });
  };
  const auto below = [&](unsigned width, llvm::Value* limit) {
    std::vector<llvm::Constant*> numbers;
    for (unsigned i = 0; i < width; ++i) numbers.push_back(b.getInt32(i));
    return b.CreateICmpSLT(llvm::ConstantVector::get(numbers), b.CreateVectorSplat(width, limit));
  };

  llvm::Value* whole = b.CreateAnd(t.columns, b.getInt64(~uint64_t{lanes - 1}));
  counted_loop(b, zero, whole, lanes, {}, [&](llvm::Value* column, const Values&) {
    whole_vectors(column, nullptr);
    return Values{};
  });
  llvm::BasicBlock* rest = new_block(b, "last_columns");
  llvm::BasicBlock* few = new_block(b, "few_columns");
  llvm::BasicBlock* more = new_block(b, "more_columns");
  llvm::BasicBlock* after = new_block(b, "after_columns");
  b.CreateCondBr(b.CreateICmpSLT(whole, t.columns), rest, after);
  b.SetInsertPoint(rest);
  llvm::Value* left = b.CreateTrunc(b.CreateSub(t.columns, whole), b.getInt32Ty());
  b.CreateCondBr(b.CreateICmpSLE(left, b.getInt32(piece)), few, more);
  b.SetInsertPoint(few);
  pieces(whole, below(piece, left));
  b.CreateBr(after);
  b.SetInsertPoint(more);
  whole_vectors(whole, below(lanes, left));
  b.CreateBr(after);
  b.SetInsertPoint(after);
}

}  // namespace lohe::codegen
