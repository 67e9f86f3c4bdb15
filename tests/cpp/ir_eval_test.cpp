// Edge cases of every arithmetic instruction, by the scalar evaluation that the builder and the interpreter
// share.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "ir/eval.h"

namespace lohe::ir {
namespace {

uint64_t f32(float x) { return std::bit_cast<uint32_t>(x); }
uint64_t f64(double x) { return std::bit_cast<uint64_t>(x); }
float as_f32(uint64_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits)); }
uint64_t same(Op op, Type t, uint64_t a, uint64_t b = 0, uint64_t c = 0) {
  return evaluate(op, t, t, a, b, c);
}
uint64_t cast(Type to, Type from, uint64_t a) { return evaluate(Op::kCast, to, from, a); }

TEST(IrEval, DivisionByZeroAndOfTheMinimumIsDefined) {
  for (const Type t : {Type::kI8, Type::kI16, Type::kI32, Type::kI64}) {
    const int bits = size_of(t) * 8;
    const uint64_t mask = bits == 64 ? ~uint64_t{0} : (uint64_t{1} << bits) - 1,
                   least = uint64_t{1} << (bits - 1);
    EXPECT_EQ(same(Op::kDiv, t, least, mask), least) << name(t);
    EXPECT_EQ(same(Op::kRem, t, least, mask), 0u) << name(t);
    EXPECT_EQ(same(Op::kDiv, t, 7, 0), 0u) << name(t);
    EXPECT_EQ(same(Op::kRem, t, 7, 0), 7u) << name(t);
    EXPECT_EQ(same(Op::kAbs, t, least), least) << name(t);
    EXPECT_EQ(same(Op::kNeg, t, least), least) << name(t);
    EXPECT_EQ(same(Op::kDiv, t, mask - 6, 2), mask - 2) << name(t);  // -7 / 2 = -3
    EXPECT_EQ(same(Op::kRem, t, mask - 6, 2), mask) << name(t);      // -7 % 2 = -1
    EXPECT_EQ(same(Op::kMin, t, least, 1), least) << name(t);
    EXPECT_EQ(same(Op::kMax, t, least, 1), 1u) << name(t);
    EXPECT_EQ(same(Op::kMul, t, mask, mask), 1u) << name(t);
    EXPECT_EQ(same(Op::kAdd, t, least, least), 0u) << name(t);
  }
  EXPECT_EQ(same(Op::kDiv, Type::kU8, 255, 255), 1u);
  EXPECT_EQ(same(Op::kMul, Type::kU8, 255, 255), 1u);
  EXPECT_EQ(same(Op::kMul, Type::kI16, 0xFFFF, 0x8000), 0x8000u);
}

TEST(IrEval, FloatMinimaAndMaximaKeepTheFirstOfEqualsAndOfNumbersThatDoNotCompare) {
  const uint64_t nan = f32(std::nanf("")), zero = f32(0.0f), minus_zero = f32(-0.0f);
  for (const Op op : {Op::kMin, Op::kMax}) {
    EXPECT_EQ(same(op, Type::kF32, zero, minus_zero), zero);
    EXPECT_EQ(same(op, Type::kF32, minus_zero, zero), minus_zero);
    EXPECT_EQ(same(op, Type::kF32, f32(1.0f), nan), f32(1.0f));
    EXPECT_EQ(same(op, Type::kF32, nan, f32(1.0f)), nan);
  }
  EXPECT_EQ(same(Op::kMin, Type::kF64, f64(2.0), f64(-3.0)), f64(-3.0));
  EXPECT_EQ(same(Op::kMax, Type::kF64, f64(2.0), f64(-3.0)), f64(2.0));
}

TEST(IrEval, ShiftCountsOutsideTheWidthShiftEverythingOut) {
  EXPECT_EQ(same(Op::kShl, Type::kI32, 1, 31), 0x80000000u);
  EXPECT_EQ(same(Op::kShl, Type::kI32, 1, 32), 0u);
  EXPECT_EQ(same(Op::kShl, Type::kI32, 1, 0xFFFFFFFF), 0u);
  EXPECT_EQ(same(Op::kShr, Type::kI32, 0x80000000, 4), 0xF8000000u);
  EXPECT_EQ(same(Op::kShr, Type::kI32, 0x80000000, 32), 0xFFFFFFFFu);
  EXPECT_EQ(same(Op::kShr, Type::kI32, 0x7FFFFFFF, 0x80000000), 0u);
  EXPECT_EQ(same(Op::kShr, Type::kU32, 0x80000000, 4), 0x08000000u);
  EXPECT_EQ(same(Op::kShr, Type::kU32, 0x80000000, 32), 0u);
  EXPECT_EQ(same(Op::kShl, Type::kU8, 0x81, 1), 0x02u);
  EXPECT_EQ(same(Op::kShr, Type::kI8, 0x81, 8), 0xFFu);
  EXPECT_EQ(same(Op::kShr, Type::kI64, ~uint64_t{0}, 64), ~uint64_t{0});
}

TEST(IrEval, FloatToIntegerGivesTheMinimumForWhatDoesNotFit) {
  const uint64_t least32 = 0x80000000, least64 = uint64_t{1} << 63;
  for (const float x : {NAN, INFINITY, -INFINITY, 2147483648.0f, -2147483904.0f}) {
    EXPECT_EQ(cast(Type::kI32, Type::kF32, f32(x)), least32) << x;
  }
  EXPECT_EQ(cast(Type::kI32, Type::kF32, f32(-2147483648.0f)), least32);
  EXPECT_EQ(cast(Type::kI32, Type::kF64, f64(-2147483648.9)), least32);
  EXPECT_EQ(cast(Type::kI32, Type::kF64, f64(2147483647.9)), 0x7FFFFFFFu);
  EXPECT_EQ(cast(Type::kI32, Type::kF64, f64(-1.9)), 0xFFFFFFFFu);
  for (const double x : {double{NAN}, 0x1p63, -0x1.0000000000001p63}) {
    EXPECT_EQ(cast(Type::kI64, Type::kF64, f64(x)), least64) << x;
  }
  EXPECT_EQ(cast(Type::kI64, Type::kF64, f64(0x1.fffffffffffffp62)), 0x7FFFFFFFFFFFFC00u);
  EXPECT_EQ(lane_function(Op::kCast, Type::kI8, Type::kF32), nullptr);
}

TEST(IrEval, IntegersRoundToNearestEvenInFloats) {
  EXPECT_EQ(cast(Type::kF32, Type::kI32, 16777217), f32(16777216.0f));
  EXPECT_EQ(cast(Type::kF32, Type::kU64, ~uint64_t{0}), f32(0x1p64f));
  EXPECT_EQ(cast(Type::kF64, Type::kI64, (uint64_t{1} << 53) + 3), f64(0x1p53 + 4));
  EXPECT_EQ(cast(Type::kI64, Type::kI8, 0x80), 0xFFFFFFFFFFFFFF80u);
  EXPECT_EQ(cast(Type::kI64, Type::kU8, 0x80), 0x80u);
  EXPECT_EQ(cast(Type::kF32, Type::kBool, 1), f32(1));
}

TEST(IrEval, ComparisonsWithNanAreFalseExceptNotEqual) {
  const uint64_t nan = f32(NAN), one = f32(1);
  const auto compare = [](Op op, uint64_t a, uint64_t b) {
    return evaluate(op, Type::kBool, Type::kF32, a, b);
  };
  EXPECT_EQ(compare(Op::kEq, nan, nan), 0u);
  EXPECT_EQ(compare(Op::kNe, nan, nan), 1u);
  EXPECT_EQ(compare(Op::kLt, nan, one), 0u);
  EXPECT_EQ(compare(Op::kLe, one, nan), 0u);
  EXPECT_EQ(compare(Op::kEq, f32(0.0f), f32(-0.0f)), 1u);
}

TEST(IrEval, FloatOperationsRoundOnceInTheirOwnType) {
  EXPECT_EQ(same(Op::kAdd, Type::kF32, f32(16777216.0f), f32(1.0f)), f32(16777216.0f));
  const float x = 1.0f + 0x1p-23f;
  EXPECT_EQ(same(Op::kFma, Type::kF32, f32(x), f32(x), f32(-1.0f - 0x1p-22f)), f32(0x1p-46f));
  EXPECT_EQ(same(Op::kScale, Type::kF32, f32(1.5f), f32(127.0f)), f32(0x1.8p127f));
  EXPECT_EQ(same(Op::kScale, Type::kF32, f32(1.0f + 0x1p-23f), f32(-149.0f)), f32(0x1p-149f));
  EXPECT_EQ(same(Op::kScale, Type::kF32, f32(1.5f), f32(128.0f)), f32(INFINITY));
  EXPECT_EQ(same(Op::kScale, Type::kF64, f64(-1.0), f64(-1075.0)), f64(-0.0));
  EXPECT_EQ(same(Op::kRoundEven, Type::kF32, f32(2.5f)), f32(2.0f));
  EXPECT_EQ(same(Op::kRoundEven, Type::kF32, f32(-0.5f)), f32(-0.0f));
  EXPECT_EQ(same(Op::kFloor, Type::kF64, f64(-0.5)), f64(-1.0));
  EXPECT_EQ(same(Op::kCeil, Type::kF64, f64(-0.5)), f64(-0.0));
  EXPECT_EQ(same(Op::kTrunc, Type::kF64, f64(-1.5)), f64(-1.0));
  EXPECT_EQ(same(Op::kSqrt, Type::kF32, f32(-0.0f)), f32(-0.0f));
  EXPECT_TRUE(std::isnan(as_f32(same(Op::kSqrt, Type::kF32, f32(-1.0f)))));
  EXPECT_EQ(same(Op::kDiv, Type::kF32, f32(1.0f), f32(-0.0f)), f32(-INFINITY));
  EXPECT_EQ(same(Op::kNeg, Type::kF32, f32(0.0f)), f32(-0.0f));
  EXPECT_EQ(same(Op::kAbs, Type::kF64, f64(-0.0)), 0u);
}

/// The value of a finite half, by its definition.
double value_of(uint16_t h, int exponent_bits, int mantissa_bits) {
  const int exponent = h >> mantissa_bits & ((1 << exponent_bits) - 1),
            mantissa = h & ((1 << mantissa_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const double magnitude = exponent == 0
                               ? std::ldexp(mantissa, 1 - bias - mantissa_bits)
                               : std::ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
  return (h & 0x8000) != 0 ? -magnitude : magnitude;
}

TEST(IrEval, EveryHalfConvertsExactlyAndBack) {
  for (int i = 0; i < 0x10000; ++i) {
    const auto h = static_cast<uint16_t>(i);
    const float wide = float_from_half(h), brain = float_from_bfloat(h);
    if ((h & 0x7C00) != 0x7C00) {
      EXPECT_EQ(f32(wide), f32(static_cast<float>(value_of(h, 5, 10))));
    }
    if ((h & 0x7F80) != 0x7F80) {
      EXPECT_EQ(f32(brain), f32(static_cast<float>(value_of(h, 8, 7))));
    }
    EXPECT_EQ(std::isnan(wide), (h & 0x7FFF) > 0x7C00);
    EXPECT_EQ(half_from_float(wide), std::isnan(wide) ? h | 0x200 : h);
    EXPECT_EQ(bfloat_from_float(brain), std::isnan(brain) ? h | 0x40 : h);
  }
}

TEST(IrEval, HalvesRoundToNearestEvenBetweenEveryTwoNeighbours) {
  for (int i = 0; i < 0x7BFF; ++i) {
    const auto h = static_cast<uint16_t>(i);
    const float low = float_from_half(h), high = float_from_half(static_cast<uint16_t>(h + 1));
    const float middle = static_cast<float>((static_cast<double>(low) + high) / 2);
    EXPECT_EQ(half_from_float(middle), (h & 1) == 0 ? h : h + 1);
    EXPECT_EQ(half_from_float(std::nextafter(middle, low)), h);
    EXPECT_EQ(half_from_float(std::nextafter(middle, high)), h + 1);
    EXPECT_EQ(half_from_float(-middle), half_from_float(middle) | 0x8000);
  }
  EXPECT_EQ(half_from_float(65519.996f), 0x7BFF);
  EXPECT_EQ(half_from_float(65520.0f), 0x7C00);
  EXPECT_EQ(half_from_float(0x1p-25f), 0);
  EXPECT_EQ(half_from_float(0x1.000002p-25f), 1);
  for (int i = 0; i < 0x7F7F; ++i) {
    const uint32_t middle = static_cast<uint32_t>(i) << 16 | 0x8000;
    EXPECT_EQ(bfloat_from_float(std::bit_cast<float>(middle)), (i & 1) == 0 ? i : i + 1);
    EXPECT_EQ(bfloat_from_float(std::bit_cast<float>(middle - 1)), i);
    EXPECT_EQ(bfloat_from_float(std::bit_cast<float>(middle + 1)), i + 1);
  }
  EXPECT_EQ(bfloat_from_float(std::numeric_limits<float>::max()), 0x7F80);
}

}  // namespace
}  // namespace lohe::ir
