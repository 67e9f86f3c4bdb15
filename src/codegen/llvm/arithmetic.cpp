#include <llvm/IR/IntrinsicInst.h>
#include <llvm/IR/Intrinsics.h>
#include <llvm/IR/IntrinsicsX86.h>

#include <algorithm>

#include "codegen/llvm/emitter.h"
#include "lohe/error.h"

// Exactness decides every choice here. LLVM's own operations are IEEE-exact as long as no fast-math flag is
// set, so most of this file is the places where LLVM leaves a result undefined (shifts and conversions out of
// range, division by zero) or would call a library function (fma, half types at x86-64-v2).

namespace lohe::codegen {

using ir::Op;
using ir::Type;

namespace {

int bits_of(llvm::Value* x) { return static_cast<int>(x->getType()->getScalarSizeInBits()); }

int width_of(llvm::Value* x) {
  const auto* vector = llvm::dyn_cast<llvm::FixedVectorType>(x->getType());
  return vector == nullptr ? 0 : static_cast<int>(vector->getNumElements());
}

/// The type `element`, as often as `x` has lanes.
llvm::Type* shaped(llvm::Type* element, llvm::Value* x) {
  const int width = width_of(x);
  return width == 0 ? element : llvm::FixedVectorType::get(element, static_cast<unsigned>(width));
}

}  // namespace

llvm::Type* Arithmetic::type(Type t, int width) const {
  llvm::Type* element = nullptr;
  switch (t) {
    case Type::kBool:
      element = b_.getInt1Ty();
      break;
    case Type::kF32:
      element = b_.getFloatTy();
      break;
    case Type::kF64:
      element = b_.getDoubleTy();
      break;
    default:
      element = b_.getIntNTy(static_cast<unsigned>(8 * ir::size_of(t)));
      break;
  }
  return width == 0 ? element : llvm::FixedVectorType::get(element, static_cast<unsigned>(width));
}

llvm::Constant* Arithmetic::constant(Type t, uint64_t bits) const {
  if (t == Type::kBool) return b_.getInt1(bits != 0);
  if (t == Type::kF32) {
    return llvm::ConstantFP::get(
        b_.getContext(), llvm::APFloat(llvm::APFloat::IEEEsingle(), llvm::APInt(32, bits & 0xFFFFFFFFu)));
  }
  if (t == Type::kF64) {
    return llvm::ConstantFP::get(b_.getContext(),
                                 llvm::APFloat(llvm::APFloat::IEEEdouble(), llvm::APInt(64, bits)));
  }
  const unsigned size = static_cast<unsigned>(8 * ir::size_of(t));
  return llvm::ConstantInt::get(b_.getContext(), llvm::APInt(64, bits).trunc(size));
}

llvm::Value* Arithmetic::splat(llvm::Value* x, int width) {
  return b_.CreateVectorSplat(static_cast<unsigned>(width), x);
}

llvm::Value* Arithmetic::lanes_below(llvm::Value* limit, int width) {
  // Lane numbers as wide as a lane, so that the comparison already has the mask's shape.
  const unsigned bits = width > 16 ? 8 : 32;
  std::vector<llvm::Constant*> lanes;
  for (int i = 0; i < width; ++i) lanes.push_back(b_.getIntN(bits, static_cast<uint64_t>(i)));
  llvm::Value* all = splat(b_.CreateTrunc(limit, b_.getIntNTy(bits)), width);
  return b_.CreateICmpULT(llvm::ConstantVector::get(lanes), all);
}

llvm::Value* Arithmetic::int_like(llvm::Value* like, int bits, uint64_t value) const {
  return llvm::ConstantInt::get(shaped(b_.getIntNTy(static_cast<unsigned>(bits)), like),
                                llvm::APInt(64, value).trunc(static_cast<unsigned>(bits)));
}

llvm::Value* Arithmetic::to_memory(llvm::Value* x, Type t) {
  return t == Type::kBool ? b_.CreateZExt(x, shaped(b_.getInt8Ty(), x)) : x;
}

llvm::Value* Arithmetic::from_memory(llvm::Value* x, Type t) {
  return t == Type::kBool ? b_.CreateICmpNE(x, int_like(x, 8, 0)) : x;
}

llvm::Value* Arithmetic::apply(Op op, Type t, Type from, llvm::Value* a, llvm::Value* b, llvm::Value* c) {
  const bool floating = ir::is_float(t);
  const auto unary = [&](llvm::Intrinsic::ID id) { return b_.CreateUnaryIntrinsic(id, a); };
  const auto binary = [&](llvm::Intrinsic::ID id) { return b_.CreateBinaryIntrinsic(id, a, b); };
  const bool is_signed = ir::is_signed_int(t);
  switch (op) {
    case Op::kAdd:
      return floating ? b_.CreateFAdd(a, b) : b_.CreateAdd(a, b);
    case Op::kSub:
      return floating ? b_.CreateFSub(a, b) : b_.CreateSub(a, b);
    case Op::kMul:
      return floating ? b_.CreateFMul(a, b) : b_.CreateMul(a, b);
    case Op::kNeg:
      return floating ? b_.CreateFNeg(a) : b_.CreateNeg(a);
    case Op::kAbs:
      if (floating) return unary(llvm::Intrinsic::fabs);
      return is_signed ? b_.CreateBinaryIntrinsic(llvm::Intrinsic::abs, a, b_.getFalse()) : a;
    case Op::kMin:
      if (floating) return more_extreme(b_.CreateFCmpOLT(b, a), b, a);
      return binary(is_signed ? llvm::Intrinsic::smin : llvm::Intrinsic::umin);
    case Op::kMax:
      if (floating) return more_extreme(b_.CreateFCmpOGT(b, a), b, a);
      return binary(is_signed ? llvm::Intrinsic::smax : llvm::Intrinsic::umax);
    case Op::kDiv:
    case Op::kRem:
      return divide(op, t, a, b);
    case Op::kFma:
      return fma(t, a, b, c);
    case Op::kScale:
      return scale(t, a, b);
    case Op::kSqrt:
      return unary(llvm::Intrinsic::sqrt);
    case Op::kFloor:
      return unary(llvm::Intrinsic::floor);
    case Op::kCeil:
      return unary(llvm::Intrinsic::ceil);
    case Op::kTrunc:
      return unary(llvm::Intrinsic::trunc);
    case Op::kRoundEven:
      return unary(llvm::Intrinsic::roundeven);
    case Op::kAnd:
      return b_.CreateAnd(a, b);
    case Op::kOr:
      return b_.CreateOr(a, b);
    case Op::kXor:
      return b_.CreateXor(a, b);
    case Op::kNot:
      return b_.CreateNot(a);
    case Op::kShl:
    case Op::kShr:
      return shift(op, t, a, b);
    case Op::kEq:
    case Op::kNe:
    case Op::kLt:
    case Op::kLe:
      return compare(op, from, a, b);
    case Op::kSelect:
      return b_.CreateSelect(a, b, c);
    case Op::kCast:
      return cast(a, from, t);
    case Op::kBitcast:
      return from_memory(
          b_.CreateBitCast(to_memory(a, from), type(t == Type::kBool ? Type::kU8 : t, width_of(a))), t);
    default:
      break;
  }
  LOHE_INTERNAL_ASSERT(false, "not an arithmetic instruction");
}

/// The select of a minimum or maximum, which is one instruction of the machine. A select for NaN around it
/// would be joined with it, and the instruction gone, if there were no fence in between.
llvm::Value* Arithmetic::more_extreme(llvm::Value* condition, llvm::Value* a, llvm::Value* b) {
  llvm::Value* chosen = b_.CreateSelect(condition, a, b);
  return b_.CreateIntrinsic(llvm::Intrinsic::arithmetic_fence, {chosen->getType()}, {chosen});
}

llvm::Value* Arithmetic::compare(Op op, Type t, llvm::Value* a, llvm::Value* b) {
  using P = llvm::CmpInst::Predicate;
  if (ir::is_float(t)) {
    const P p = op == Op::kEq   ? P::FCMP_OEQ
                : op == Op::kNe ? P::FCMP_UNE
                : op == Op::kLt ? P::FCMP_OLT
                                : P::FCMP_OLE;
    return b_.CreateFCmp(p, a, b);
  }
  if (op == Op::kEq || op == Op::kNe) return b_.CreateICmp(op == Op::kEq ? P::ICMP_EQ : P::ICMP_NE, a, b);
  if (ir::is_signed_int(t)) return b_.CreateICmp(op == Op::kLt ? P::ICMP_SLT : P::ICMP_SLE, a, b);
  return b_.CreateICmp(op == Op::kLt ? P::ICMP_ULT : P::ICMP_ULE, a, b);
}

llvm::Value* Arithmetic::shift(Op op, Type t, llvm::Value* a, llvm::Value* b) {
  const int bits = bits_of(a);
  llvm::Value* inside = b_.CreateICmpULT(b, int_like(a, bits, static_cast<uint64_t>(bits)));
  if (op == Op::kShr && ir::is_signed_int(t)) {
    // Any count outside gives the sign, as does the largest count inside.
    return b_.CreateAShr(a, b_.CreateSelect(inside, b, int_like(a, bits, static_cast<uint64_t>(bits - 1))));
  }
  llvm::Value* zero = int_like(a, bits, 0);
  llvm::Value* count = b_.CreateSelect(inside, b, zero);
  return b_.CreateSelect(inside, op == Op::kShl ? b_.CreateShl(a, count) : b_.CreateLShr(a, count), zero);
}

llvm::Value* Arithmetic::divide(Op op, Type t, llvm::Value* a, llvm::Value* b) {
  if (ir::is_float(t)) return b_.CreateFDiv(a, b);
  const int bits = bits_of(a);
  const bool is_signed = ir::is_signed_int(t);
  llvm::Value* zero = int_like(a, bits, 0);
  llvm::Value* one = int_like(a, bits, 1);
  llvm::Value* is_zero = b_.CreateICmpEQ(b, zero);
  // The two divisors that trap or overflow are replaced by 1, and their results selected afterwards.
  llvm::Value* divisor = b_.CreateSelect(is_zero, one, b);
  llvm::Value* is_minus_one = nullptr;
  if (is_signed) {
    is_minus_one = b_.CreateICmpEQ(b, int_like(a, bits, ~uint64_t{0}));
    divisor = b_.CreateSelect(is_minus_one, one, divisor);
  }
  llvm::Value* quotient;
  if (width_of(a) != 0 && bits <= 32) {
    // x86 has no vector integer division. For |a| < 2^32 a quotient k - d has d / k >= 2^-32, so the rounding
    // of a 53-bit division never reaches the next integer, and truncation is exact; 24 bits serve |a| < 2^16
    // likewise.
    llvm::Type* real = shaped(bits == 32 ? b_.getDoubleTy() : b_.getFloatTy(), a);
    llvm::Type* wide = shaped(b_.getIntNTy(bits == 32 && !is_signed ? 64 : 32), a);
    const auto to_real = [&](llvm::Value* x) {
      return is_signed ? b_.CreateSIToFP(x, real) : b_.CreateUIToFP(x, real);
    };
    llvm::Value* q = b_.CreateFPToSI(b_.CreateFDiv(to_real(a), to_real(divisor)), wide);
    quotient = q->getType() == a->getType() ? q : b_.CreateTrunc(q, a->getType());
  } else {
    quotient = is_signed ? b_.CreateSDiv(a, divisor) : b_.CreateUDiv(a, divisor);
  }
  if (op == Op::kDiv) {
    if (is_signed) quotient = b_.CreateSelect(is_minus_one, b_.CreateNeg(a), quotient);
    return b_.CreateSelect(is_zero, zero, quotient);
  }
  // a - (a / 1) * 1 = 0, which is right for -1 and must be `a` for 0.
  llvm::Value* remainder = b_.CreateSub(a, b_.CreateMul(quotient, divisor));
  return b_.CreateSelect(is_zero, a, remainder);
}

llvm::Value* Arithmetic::fma(Type t, llvm::Value* a, llvm::Value* b, llvm::Value* c) {
  if (level_ != CpuLevel::kV2) {
    return b_.CreateIntrinsic(llvm::Intrinsic::fma, {a->getType()}, {a, b, c});
  }
  if (t == Type::kF32) return fma_by_double(a, b, c);
  llvm::Type* real = b_.getDoubleTy();
  llvm::FunctionCallee function =
      module_.getOrInsertFunction(kFmaSymbol, llvm::FunctionType::get(real, {real, real, real}, false));
  auto* declaration = llvm::cast<llvm::Function>(function.getCallee());
  declaration->setDoesNotAccessMemory();
  declaration->setDoesNotThrow();
  declaration->setWillReturn();
  const int width = width_of(a);
  if (width == 0) return b_.CreateCall(function, {a, b, c});
  llvm::Value* result = llvm::PoisonValue::get(a->getType());
  for (uint64_t i = 0; i < static_cast<uint64_t>(width); ++i) {
    llvm::Value* lane = b_.CreateCall(function, {b_.CreateExtractElement(a, i), b_.CreateExtractElement(b, i),
                                                 b_.CreateExtractElement(c, i)});
    result = b_.CreateInsertElement(result, lane, i);
  }
  return result;
}

/// One instruction at AVX-512. Elsewhere two multiplications by powers of two, half the exponent each: the
/// first is exact because a is near 1.
llvm::Value* Arithmetic::scale(Type t, llvm::Value* a, llvm::Value* b) {
  const bool single = t == Type::kF32;
  if (const int bits = width_of(a) * 8 * ir::size_of(t); level_ == CpuLevel::kAvx512 && bits == 512) {
    const auto id = single ? llvm::Intrinsic::x86_avx512_mask_scalef_ps_512
                           : llvm::Intrinsic::x86_avx512_mask_scalef_pd_512;
    llvm::Type* mask = b_.getIntNTy(static_cast<unsigned>(width_of(a)));
    constexpr uint32_t kCurrentRounding = 4;
    return b_.CreateIntrinsic(id, {},
                              {a, b, llvm::PoisonValue::get(a->getType()),
                               llvm::Constant::getAllOnesValue(mask), b_.getInt32(kCurrentRounding)});
  }
  // Adding this number leaves b + 2 * bias in the low bits.
  const double magic = single ? 0x1.8p23 + 254 : 0x1.8p52 + 2046;
  const int size = single ? 32 : 64;
  const uint64_t mantissa = single ? 23 : 52;
  llvm::Type* word = shaped(b_.getIntNTy(static_cast<unsigned>(size)), a);
  llvm::Value* biased = b_.CreateBitCast(b_.CreateFAdd(b, llvm::ConstantFP::get(a->getType(), magic)), word);
  llvm::Value* half = b_.CreateLShr(biased, int_like(a, size, 1));
  const auto power = [&](llvm::Value* exponent) {
    return b_.CreateBitCast(b_.CreateShl(exponent, int_like(a, size, mantissa)), a->getType());
  };
  return b_.CreateFMul(b_.CreateFMul(a, power(half)), power(b_.CreateSub(biased, half)));
}

/// A single-precision fma in double precision. The product is exact; the sum is rounded to odd (its error,
/// from the two-sum of Knuth, moves an inexact even result by one unit toward the exact one), after which
/// rounding to 24 bits is the only rounding that counts (Boldo and Melquiond, "Emulation of FMA and correctly
/// rounded sums", 2008).
llvm::Value* Arithmetic::fma_by_double(llvm::Value* a, llvm::Value* b, llvm::Value* c) {
  llvm::Type* real = shaped(b_.getDoubleTy(), a);
  llvm::Type* word = shaped(b_.getInt64Ty(), a);
  llvm::Value* product = b_.CreateFMul(b_.CreateFPExt(a, real), b_.CreateFPExt(b, real));
  llvm::Value* addend = b_.CreateFPExt(c, real);
  llvm::Value* sum = b_.CreateFAdd(product, addend);
  llvm::Value* part = b_.CreateFSub(sum, product);
  llvm::Value* error =
      b_.CreateFAdd(b_.CreateFSub(product, b_.CreateFSub(sum, part)), b_.CreateFSub(addend, part));
  // Ordered: where the sum is infinite or NaN the error is NaN and nothing moves.
  llvm::Value* inexact = b_.CreateFCmpONE(error, llvm::ConstantFP::get(real, 0.0));
  llvm::Value* bits = b_.CreateBitCast(sum, word);
  llvm::Value* zero = llvm::ConstantInt::get(word, 0);
  llvm::Value* one = llvm::ConstantInt::get(word, 1);
  llvm::Value* even = b_.CreateICmpEQ(b_.CreateAnd(bits, one), zero);
  // Away from zero where error and sum have one sign: +1 on the bits, else -1.
  llvm::Value* signs = b_.CreateXor(bits, b_.CreateBitCast(error, word));
  llvm::Value* step = b_.CreateOr(b_.CreateAShr(signs, llvm::ConstantInt::get(word, 63)), one);
  llvm::Value* moved = b_.CreateAdd(bits, step);
  llvm::Value* odd = b_.CreateSelect(b_.CreateAnd(inexact, even), moved, bits);
  return b_.CreateFPTrunc(b_.CreateBitCast(odd, real), a->getType());
}

llvm::Value* Arithmetic::cast(llvm::Value* x, Type from, Type to) {
  if (from == to) return x;
  if (from == Type::kF16) return cast(half_to_float(x), Type::kF32, to);
  if (from == Type::kBF16) {
    llvm::Type* word = shaped(b_.getInt32Ty(), x);
    llvm::Value* bits = b_.CreateShl(b_.CreateZExt(x, word), int_like(x, 32, 16));
    return cast(b_.CreateBitCast(bits, shaped(b_.getFloatTy(), x)), Type::kF32, to);
  }
  if (to == Type::kF16) return float_to_half(cast(x, from, Type::kF32));
  if (to == Type::kBF16) return float_to_bfloat(cast(x, from, Type::kF32));
  llvm::Type* target = type(to, width_of(x));
  if (to == Type::kBool) {
    if (ir::is_float(from)) return b_.CreateFCmpUNE(x, llvm::ConstantFP::get(x->getType(), 0.0));
    return b_.CreateICmpNE(x, llvm::ConstantInt::get(x->getType(), 0));
  }
  if (ir::is_float(from)) {
    if (ir::is_float(to)) return to == Type::kF64 ? b_.CreateFPExt(x, target) : b_.CreateFPTrunc(x, target);
    return float_to_int(x, from, to);
  }
  if (ir::is_float(to)) {
    if (from == Type::kBool) {
      return b_.CreateSelect(x, llvm::ConstantFP::get(target, 1.0), llvm::ConstantFP::get(target, 0.0));
    }
    return ir::is_signed_int(from) ? b_.CreateSIToFP(x, target) : b_.CreateUIToFP(x, target);
  }
  return ir::is_signed_int(from) ? b_.CreateSExtOrTrunc(x, target) : b_.CreateZExtOrTrunc(x, target);
}

llvm::Value* Arithmetic::look_up(const ir::Table& table, llvm::Value* index) {
  const auto part = [&](size_t begin, size_t end) {
    std::vector<llvm::Constant*> numbers;
    for (size_t i = begin; i < end; ++i) numbers.push_back(constant(Type::kF32, table[i]));
    return llvm::ConstantVector::get(numbers);
  };
  const int width = width_of(index);
  if (width == 16 && level_ == CpuLevel::kAvx512)  // uses four bits of the index
    return b_.CreateIntrinsic(llvm::Intrinsic::x86_avx512_permvar_sf_512, {}, {part(0, 16), index});
  if (width == 8 && level_ != CpuLevel::kV2) {  // three
    const auto look_in = [&](llvm::Constant* half) {
      return b_.CreateIntrinsic(llvm::Intrinsic::x86_avx2_permps, {}, {half, index});
    };
    if (std::equal(table.begin(), table.begin() + 8, table.begin() + 8)) return look_in(part(0, 8));
    // The fourth says whether the first half's entry is changed into the second's.
    std::vector<llvm::Constant*> change;
    for (size_t k = 0; k < 8; ++k) change.push_back(constant(Type::kF32, table[k] ^ table[k + 8]));
    const auto look = [&](llvm::Constant* half) { return b_.CreateBitCast(look_in(half), index->getType()); };
    llvm::Value* second =
        b_.CreateAShr(b_.CreateShl(index, int_like(index, 32, 28)), int_like(index, 32, 31));
    llvm::Value* changes = b_.CreateAnd(look(llvm::ConstantVector::get(change)), second);
    return b_.CreateBitCast(b_.CreateXor(look(part(0, 8)), changes), shaped(b_.getFloatTy(), index));
  }
  llvm::Constant* numbers = part(0, 16);
  auto* memory = new llvm::GlobalVariable(module_, numbers->getType(), true,
                                          llvm::GlobalValue::PrivateLinkage, numbers, "table");
  memory->setUnnamedAddr(llvm::GlobalValue::UnnamedAddr::Global);
  llvm::Type* element = b_.getFloatTy();
  llvm::Value* at = b_.CreateGEP(element, memory, b_.CreateAnd(index, int_like(index, 32, 15)));
  const llvm::Align align(sizeof(float));
  if (width == 0) return b_.CreateAlignedLoad(element, at, align);
  return b_.CreateMaskedGather(shaped(element, index), at, align);
}

llvm::Value* Arithmetic::float_to_int(llvm::Value* x, Type from, Type to) {
  LOHE_INTERNAL_ASSERT(to == Type::kI32 || to == Type::kI64, "float to ", ir::name(to),
                       " goes through i32 or i64");
  const int width = width_of(x);
  if (from == Type::kF32 && to == Type::kI32) {
    // The instruction itself gives the minimum for NaN and values out of range.
    if (width == 4) return b_.CreateIntrinsic(llvm::Intrinsic::x86_sse2_cvttps2dq, {}, {x});
    if (width == 8 && level_ != CpuLevel::kV2) {
      return b_.CreateIntrinsic(llvm::Intrinsic::x86_avx_cvtt_ps2dq_256, {}, {x});
    }
    if (width == 16 && level_ == CpuLevel::kAvx512) {
      return b_.CreateIntrinsic(
          llvm::Intrinsic::x86_avx512_mask_cvttps2dq_512, {},
          {x, llvm::Constant::getNullValue(type(to, width)), b_.getInt16(0xFFFF), b_.getInt32(4)});
    }
  }
  const int bits = 8 * ir::size_of(to);
  const double limit = bits == 32 ? 2147483648.0 : 9223372036854775808.0;
  // A double between -2^31 - 1 and -2^31 truncates to the minimum, which is what it gets as a value out of
  // range.
  llvm::Value* above = b_.CreateFCmpOGE(x, llvm::ConstantFP::get(x->getType(), -limit));
  llvm::Value* inside = b_.CreateAnd(above, b_.CreateFCmpOLT(x, llvm::ConstantFP::get(x->getType(), limit)));
  return b_.CreateSelect(inside, b_.CreateFPToSI(x, type(to, width)),
                         int_like(x, bits, uint64_t{1} << (bits - 1)));
}

llvm::Value* Arithmetic::half_to_float(llvm::Value* x) {
  llvm::Type* real = shaped(b_.getFloatTy(), x);
  if (width_of(x) == 16 && level_ == CpuLevel::kAvx512) {
    return b_.CreateIntrinsic(llvm::Intrinsic::x86_avx512_mask_vcvtph2ps_512, {},
                              {x, llvm::Constant::getNullValue(real), b_.getInt16(0xFFFF), b_.getInt32(4)});
  }
  // One instruction of what is loaded or has just been rounded; what is computed in other ways LLVM would
  // take apart, lane by lane.
  const auto* call = llvm::dyn_cast<llvm::IntrinsicInst>(x);
  const auto id = call == nullptr ? llvm::Intrinsic::not_intrinsic : call->getIntrinsicID();
  const bool whole = llvm::isa<llvm::LoadInst>(x) || id == llvm::Intrinsic::masked_load ||
                     id == llvm::Intrinsic::x86_vcvtps2ph_256;
  if (level_ != CpuLevel::kV2 && (whole || width_of(x) == 0)) {
    return b_.CreateFPExt(b_.CreateBitCast(x, shaped(b_.getHalfTy(), x)), real);
  }
  // Exponent and mantissa move up by 13 bits; multiplying by 2^112 rebases the exponent and normalises
  // denormals, all exactly. Only the exponent of infinities and NaN then still has to be filled.
  llvm::Type* word = shaped(b_.getInt32Ty(), x);
  llvm::Value* bits = b_.CreateZExt(x, word);
  llvm::Value* magnitude = b_.CreateAnd(bits, int_like(x, 32, 0x7FFF));
  llvm::Value* shifted = b_.CreateShl(magnitude, int_like(x, 32, 13));
  llvm::Value* scaled = b_.CreateFMul(b_.CreateBitCast(shifted, real), llvm::ConstantFP::get(real, 0x1p112));
  llvm::Value* special = b_.CreateICmpUGE(magnitude, int_like(x, 32, 0x7C00));
  llvm::Value* value = b_.CreateSelect(special, b_.CreateOr(shifted, int_like(x, 32, 0x7F800000)),
                                       b_.CreateBitCast(scaled, word));
  llvm::Value* sign = b_.CreateShl(b_.CreateAnd(bits, int_like(x, 32, 0x8000)), int_like(x, 32, 16));
  return b_.CreateBitCast(b_.CreateOr(value, sign), real);
}

llvm::Value* Arithmetic::float_to_half(llvm::Value* x) {
  llvm::Type* short_word = shaped(b_.getInt16Ty(), x);
  if (level_ != CpuLevel::kV2) {
    const int width = width_of(x);
    if (width == 16 && level_ == CpuLevel::kAvx512) {
      return b_.CreateIntrinsic(
          llvm::Intrinsic::x86_avx512_mask_vcvtps2ph_512, {},
          {x, b_.getInt32(0), llvm::Constant::getNullValue(short_word), b_.getInt16(0xFFFF)});
    }
    if (width == 8) return b_.CreateIntrinsic(llvm::Intrinsic::x86_vcvtps2ph_256, {}, {x, b_.getInt32(0)});
    if (width == 4) {
      llvm::Value* eight = b_.CreateIntrinsic(llvm::Intrinsic::x86_vcvtps2ph_128, {}, {x, b_.getInt32(0)});
      return b_.CreateExtractVector(short_word, eight, b_.getInt64(0));
    }
    return b_.CreateBitCast(b_.CreateFPTrunc(x, shaped(b_.getHalfTy(), x)), short_word);
  }
  llvm::Type* real = x->getType();
  llvm::Type* word = shaped(b_.getInt32Ty(), x);
  llvm::Value* bits = b_.CreateBitCast(x, word);
  llvm::Value* sign = b_.CreateAnd(b_.CreateLShr(bits, int_like(x, 32, 16)), int_like(x, 32, 0x8000));
  llvm::Value* magnitude = b_.CreateAnd(bits, int_like(x, 32, 0x7FFFFFFF));
  // Normal results: rebase the exponent and round to nearest even on the 13 bits that go.
  llvm::Value* lowest = b_.CreateAnd(b_.CreateLShr(magnitude, int_like(x, 32, 13)), int_like(x, 32, 1));
  llvm::Value* rounded = b_.CreateAdd(b_.CreateAdd(magnitude, int_like(x, 32, 0xC8000FFF)), lowest);
  llvm::Value* normal = b_.CreateLShr(rounded, int_like(x, 32, 13));
  // Denormal results: adding 0.5 puts the unit of the half's denormals (2^-24) at the last place of the sum,
  // so that the addition itself rounds.
  llvm::Value* sum = b_.CreateFAdd(b_.CreateBitCast(magnitude, real), llvm::ConstantFP::get(real, 0.5));
  llvm::Value* denormal = b_.CreateSub(b_.CreateBitCast(sum, word), int_like(x, 32, 0x3F000000));
  llvm::Value* finite =
      b_.CreateSelect(b_.CreateICmpULT(magnitude, int_like(x, 32, 0x38800000)), denormal, normal);
  // 65520 and above rounds to infinity; NaN keeps the top of its payload and is quieted.
  llvm::Value* nan =
      b_.CreateOr(b_.CreateAnd(b_.CreateLShr(magnitude, int_like(x, 32, 13)), int_like(x, 32, 0x3FF)),
                  int_like(x, 32, 0x7E00));
  llvm::Value* special =
      b_.CreateSelect(b_.CreateICmpUGT(magnitude, int_like(x, 32, 0x7F800000)), nan, int_like(x, 32, 0x7C00));
  llvm::Value* value =
      b_.CreateSelect(b_.CreateICmpUGE(magnitude, int_like(x, 32, 0x477FF000)), special, finite);
  return b_.CreateTrunc(b_.CreateOr(value, sign), short_word);
}

llvm::Value* Arithmetic::float_to_bfloat(llvm::Value* x) {
  llvm::Value* bits = b_.CreateBitCast(x, shaped(b_.getInt32Ty(), x));
  if (width_of(x) == 16 && level_ == CpuLevel::kAvx512) {
    llvm::Value* odd_place =
        b_.CreateICmpNE(b_.CreateAnd(bits, int_like(x, 32, 0x10000)), int_like(x, 32, 0));
    llvm::Value* half = b_.CreateSelect(odd_place, int_like(x, 32, 0x8000), int_like(x, 32, 0x7FFF));
    llvm::Value* rounded = b_.CreateBitCast(b_.CreateAdd(bits, half), x->getType());
    // Table of the classes quiet and signalling NaN: x, made quiet; of all others: what is there.
    llvm::Value* value = b_.CreateIntrinsic(
        llvm::Intrinsic::x86_avx512_mask_fixupimm_ps_512, {},
        {rounded, x, int_like(x, 32, 0x22), b_.getInt32(0), b_.getInt16(0xFFFF), b_.getInt32(4)});
    // A shift and a truncation are three instructions.
    std::vector<llvm::Constant*> odd;
    for (int i = 0; i < 32; ++i) odd.push_back(b_.getInt16(static_cast<uint16_t>((2 * i + 1) % 32)));
    llvm::Value* shorts = b_.CreateBitCast(value, llvm::FixedVectorType::get(b_.getInt16Ty(), 32));
    llvm::Value* upper = b_.CreateIntrinsic(llvm::Intrinsic::x86_avx512_permvar_hi_512, {},
                                            {shorts, llvm::ConstantVector::get(odd)});
    return b_.CreateExtractVector(shaped(b_.getInt16Ty(), x), upper, b_.getInt64(0));
  }
  llvm::Value* lowest = b_.CreateAnd(b_.CreateLShr(bits, int_like(x, 32, 16)), int_like(x, 32, 1));
  llvm::Value* rounded = b_.CreateAdd(b_.CreateAdd(bits, int_like(x, 32, 0x7FFF)), lowest);
  llvm::Value* quiet = b_.CreateOr(bits, int_like(x, 32, 0x00400000));
  llvm::Value* value = b_.CreateSelect(b_.CreateFCmpUNO(x, x), quiet, rounded);
  return b_.CreateTrunc(b_.CreateLShr(value, int_like(x, 32, 16)), shaped(b_.getInt16Ty(), x));
}

}  // namespace lohe::codegen
