#include "codegen/llvm/memory.h"

#include <llvm/IR/Intrinsics.h>

#include "codegen/llvm/partial.h"
#include "lohe/error.h"

namespace lohe::codegen {

using ir::Op;
using ir::Type;

MemoryEmitter::MemoryEmitter(const ir::Kernel& kernel, CpuLevel level, llvm::Module& module)
    : kernel_(kernel),
      level_(level),
      b_(module.getContext()),
      arithmetic_(b_, module, level),
      varying_(find_varying(kernel)),
      values_(kernel.insts.size(), nullptr) {}

llvm::Value* MemoryEmitter::scalar(ir::Value v) {
  const ir::Inst& inst = kernel_.insts[v];
  if (inst.op == Op::kConst) return arithmetic_.constant(inst.type, inst.imm);
  if (inst.op == Op::kBegin) return function_->getArg(2);
  if (inst.op == Op::kEnd) return function_->getArg(3);
  LOHE_INTERNAL_ASSERT(values_[v] != nullptr, "value ", v, " of kernel ", kernel_.name,
                       " is used where it is not set");
  return values_[v];
}

llvm::Value* MemoryEmitter::vector(ir::Value v) {
  llvm::Value* x = scalar(v);
  return x->getType()->isVectorTy() ? x : arithmetic_.splat(x, step_.width);
}

llvm::Value* MemoryEmitter::operand(ir::Value v, bool as_vector) {
  if (v == ir::kNoValue) return nullptr;
  return as_vector ? vector(v) : scalar(v);
}

llvm::AllocaInst* MemoryEmitter::allocate(llvm::Type* type, uint64_t count) {
  llvm::IRBuilder<>::InsertPointGuard guard(b_);
  if (allocation_point_ != nullptr) b_.SetInsertPoint(allocation_point_);
  return b_.CreateAlloca(type, b_.getInt64(count));
}

llvm::Type* MemoryEmitter::memory_type(Type t, int width) const {
  return arithmetic_.type(t == Type::kBool ? Type::kU8 : t, width);
}

llvm::Value* MemoryEmitter::address(int16_t buffer, llvm::Value* index) {
  return b_.CreateGEP(memory_type(kernel_.buffers[buffer].type, 0), pointers_[buffer], index);
}

llvm::Value* MemoryEmitter::all_lanes() {
  return step_.mask != nullptr ? step_.mask
                               : llvm::Constant::getAllOnesValue(arithmetic_.type(Type::kBool, step_.width));
}

/// The lanes of a load; null: all.
llvm::Value* MemoryEmitter::loaded_lanes(ir::Value condition) {
  if (condition == ir::kNoValue) return step_.mask;
  llvm::Value* lanes = vector(condition);
  return step_.mask == nullptr ? lanes : b_.CreateAnd(step_.mask, lanes);
}

llvm::Value* MemoryEmitter::load(const ir::Inst& inst) {
  const Type t = kernel_.buffers[inst.buffer].type;
  const llvm::Align align(static_cast<uint64_t>(ir::size_of(t)));
  llvm::Value* index = scalar(inst.a);
  llvm::Value* result;
  if (inst.op == Op::kLoadUnit) {
    llvm::Type* type = memory_type(t, step_.width);
    llvm::Value* from = address(inst.buffer, b_.CreateAdd(index, step_.index));
    llvm::Value* lanes = loaded_lanes(inst.c);
    if (inst.b != ir::kNoValue) fetch(inst.buffer, inst.b, false);
    if (lanes == nullptr)
      result = b_.CreateAlignedLoad(type, from, align);
    else if (inst.c == ir::kNoValue && !stores_by_mask() && !masks_well(t))
      result = load_first(b_, llvm::cast<llvm::FixedVectorType>(type), from, align, step_.count);
    else
      result = b_.CreateMaskedLoad(type, from, align, lanes, llvm::Constant::getNullValue(type));
  } else if (index->getType()->isVectorTy()) {
    llvm::Type* type = memory_type(t, step_.width);
    llvm::Value* lanes = loaded_lanes(inst.c);
    const auto gathered = [&]() -> llvm::Value* {
      return b_.CreateMaskedGather(type, address(inst.buffer, index), align,
                                   lanes != nullptr ? lanes : all_lanes(),
                                   llvm::Constant::getNullValue(type));
    };
    const std::optional<Strided::Index> at = strided(inst.a);
    result = at && masks_well(t) ? strided_access(inst.buffer, type, *at, lanes).load(gathered) : gathered();
  } else {
    result = load_one(t, address(inst.buffer, index), inst.c);
  }
  return arithmetic_.from_memory(result, t);
}

/// One element, of lanes or for all of them.
llvm::Value* MemoryEmitter::load_one(Type t, llvm::Value* from, ir::Value condition) {
  llvm::Type* type = memory_type(t, 0);
  const llvm::Align align(static_cast<uint64_t>(ir::size_of(t)));
  if (condition == ir::kNoValue) return b_.CreateAlignedLoad(type, from, align);
  // A zero of our own is read instead of what may not be there.
  llvm::Value* lanes = scalar(condition);
  const bool wide = lanes->getType()->isVectorTy();
  llvm::Value* any = wide ? b_.CreateOrReduce(lanes) : lanes;
  llvm::AllocaInst* zero = allocate(type);
  b_.CreateAlignedStore(llvm::Constant::getNullValue(type), zero, align);
  llvm::Value* x = b_.CreateAlignedLoad(type, b_.CreateSelect(any, from, zero), align);
  if (!wide) return x;
  return b_.CreateSelect(lanes, b_.CreateVectorSplat(static_cast<unsigned>(step_.width), x),
                         llvm::Constant::getNullValue(memory_type(t, step_.width)));
}

/// The index of a load or store, if lanes are at equal distances.
std::optional<Strided::Index> MemoryEmitter::strided(ir::Value index) {
  return strided_index(b_, kernel_, varying_, {step_.number, step_.index}, index,
                       [this](ir::Value v) { return scalar(v); });
}

/// Whether single lanes of a vector of this type are loaded and stored by one instruction.
bool MemoryEmitter::masks_well(Type t) const { return level_ != CpuLevel::kV2 && ir::size_of(t) >= 4; }

Strided MemoryEmitter::strided_access(int16_t buffer, llvm::Type* type, const Strided::Index& at,
                                      llvm::Value* lanes) {
  return {b_, llvm::cast<llvm::FixedVectorType>(type), pointers_[buffer], at, lanes};
}

/// Into the first-level cache, to be read or written.
void MemoryEmitter::fetch(int16_t buffer, ir::Value base, bool written) {
  llvm::Value* at = address(buffer, b_.CreateAdd(scalar(base), step_.index));
  b_.CreateIntrinsic(llvm::Intrinsic::prefetch, {at->getType()},
                     {at, b_.getInt32(written ? 1 : 0), b_.getInt32(3), b_.getInt32(1)});
}

void MemoryEmitter::emit(const ir::Store& store) {
  const Type t = kernel_.buffers[store.buffer].type;
  const llvm::Align align(static_cast<uint64_t>(ir::size_of(t)));
  llvm::Value* index = scalar(store.index);
  if (store.unit) {
    llvm::Value* value = arithmetic_.to_memory(vector(store.value), t);
    llvm::Value* to = address(store.buffer, b_.CreateAdd(index, step_.index));
    if (store.next != ir::kNoValue) fetch(store.buffer, store.next, true);
    if (step_.mask == nullptr)
      b_.CreateAlignedStore(value, to, align);
    else if (stores_by_mask())
      b_.CreateMaskedStore(value, to, align, step_.mask);
    else
      store_first(b_, value, to, align, step_.count);
  } else if (index->getType()->isVectorTy()) {
    // Lanes are written from the lowest up, so that of two equal indices the later element stays.
    llvm::Value* value = arithmetic_.to_memory(vector(store.value), t);
    const auto scatter = [&] {
      b_.CreateMaskedScatter(value, address(store.buffer, index), align, all_lanes());
    };
    const std::optional<Strided::Index> at = strided(store.index);
    if (at && masks_well(t))
      strided_access(store.buffer, value->getType(), *at, step_.mask).store(value, stores_by_mask(), scatter);
    else
      scatter();
  } else {
    llvm::Value* value = scalar(store.value);
    if (value->getType()->isVectorTy()) {
      value = b_.CreateExtractElement(
          value, b_.CreateSub(step_.count == nullptr ? number(step_.width) : step_.count, number(1)));
    }
    b_.CreateAlignedStore(arithmetic_.to_memory(value, t), address(store.buffer, index), align);
  }
}

/// Where buffer[index] and buffer[next] are every second element and the ones behind them, as the parts of
/// complex numbers are.
std::optional<Strided> MemoryEmitter::pairs(int16_t buffer, ir::Value index, ir::Value next) {
  const ir::Inst& behind = kernel_.insts[next];
  const Type t = kernel_.buffers[buffer].type;
  if (behind.op != Op::kAdd || behind.a != index || !varying_[index] || !masks_well(t)) return {};
  const ir::Inst& by = kernel_.insts[behind.b];
  const std::optional<Strided::Index> at = strided(index);
  if (!at || by.op != Op::kConst || by.imm != 1) return {};
  Strided strided = strided_access(buffer, memory_type(t, step_.width), *at, step_.mask);
  return strided.every_second() ? std::optional(strided) : std::nullopt;
}

bool MemoryEmitter::emit_pairs(const ir::Stmt& first, const ir::Stmt& second) {
  if (const auto *s = std::get_if<ir::Store>(&first), *t = std::get_if<ir::Store>(&second); s && t) {
    if (s->buffer != t->buffer || s->unit || t->unit) return false;
    std::optional<Strided> to = pairs(s->buffer, s->index, t->index);
    const Type type = kernel_.buffers[s->buffer].type;
    if (to) {
      to->store_pairs(arithmetic_.to_memory(vector(s->value), type),
                      arithmetic_.to_memory(vector(t->value), type),
                      stores_by_mask() ? nullptr : step_.count);
    }
    return to.has_value();
  }
  const auto *d = std::get_if<ir::Define>(&first), *e = std::get_if<ir::Define>(&second);
  if (!d || !e) return false;
  const ir::Inst &x = kernel_.insts[d->value], &y = kernel_.insts[e->value];
  if (x.op != Op::kLoad || y.op != Op::kLoad || x.buffer != y.buffer || x.c != ir::kNoValue ||
      y.c != ir::kNoValue)
    return false;
  std::optional<Strided> from = pairs(x.buffer, x.a, y.a);
  if (!from) return false;
  const auto [re, im] = from->load_pairs();
  values_[d->value] = arithmetic_.from_memory(re, kernel_.buffers[x.buffer].type);
  values_[e->value] = arithmetic_.from_memory(im, kernel_.buffers[x.buffer].type);
  return true;
}

void MemoryEmitter::emit(const ir::Transpose& t) {
  const Type from = kernel_.buffers[t.from].type, to = kernel_.buffers[t.to].type;
  const int bits = 8 * ir::size_of(from), lanes = register_bytes(level_) / ir::size_of(to);
  llvm::Type* type = from == to ? memory_type(from, 0) : b_.getIntNTy(static_cast<unsigned>(bits));
  emit_transposed(b_,
                  {type, address(t.from, scalar(t.base)), scalar(t.stride), memory_type(to, 0),
                   pointers_[t.to], static_cast<uint64_t>(t.pitch), scalar(t.rows), scalar(t.columns)},
                  static_cast<unsigned>(lanes));
}

}  // namespace lohe::codegen
