#include <cmath>
#include <limits>

#include "codegen_fixture.h"
#include "ir/builder.h"

namespace lohe::codegen::testing {
namespace {

using ir::Builder;
using ir::Op;
using ir::Type;
using ir::V;

constexpr int64_t kCount = 1500;
const Type kIntTypes[] = {Type::kU8, Type::kI8, Type::kI16, Type::kI32, Type::kU32, Type::kI64, Type::kU64};
const Type kFloatTypes[] = {Type::kF32, Type::kF64};

/// out[i] = f(x[i], y[i], z[i]), once in a vector loop and once in a serial one.
void expect_op(const std::string& name, std::vector<Type> in, Type out,
               const std::function<V(const std::vector<V>&)>& f, int64_t count = kCount,
               std::vector<Bytes> given = {}) {
  for (bool vector : {true, false}) {
    Builder b(name + (vector ? "_vector" : "_serial"));
    for (Type t : in) b.buffer(t, false);
    const int16_t result = b.buffer(out, true);
    V zero = b.constant_int(Type::kI64, 0);
    b.loop({{b.begin(), b.end()}}, vector, [&](const std::vector<V>& i) {
      std::vector<V> x;
      for (size_t k = 0; k < in.size(); ++k) {
        const auto buffer = static_cast<int16_t>(k);
        x.push_back(vector ? b.load_unit(buffer, zero) : b.load(buffer, i[0]));
      }
      vector ? b.store_unit(result, zero, f(x)) : b.store(result, i[0], f(x));
    });
    const ir::Kernel kernel = b.finish();
    Launch run;
    for (size_t k = 0; k < in.size(); ++k) {
      run.buffers.push_back(k < given.size() ? given[k]
                                             : interesting(in[k], static_cast<size_t>(count), 17 * k + 5));
    }
    run.buffers.push_back(zeros(out, count));
    run.end = count;
    expect_all_levels_agree(kernel, {run});
  }
}

void expect_unary(const std::string& name, Op op, Type t) {
  expect_op(name + "_" + ir::name(t), {t}, t,
            [&](const std::vector<V>& x) { return x[0].builder->unary(op, x[0]); });
}
void expect_binary(const std::string& name, Op op, Type t, Type out) {
  expect_op(name + "_" + ir::name(t), {t, t}, out,
            [&](const std::vector<V>& x) { return x[0].builder->binary(op, x[0], x[1]); });
}

TEST(CodegenOps, FloatArithmeticAgreesWithTheInterpreter) {
  for (Type t : kFloatTypes) {
    expect_binary("add", Op::kAdd, t, t);
    expect_binary("sub", Op::kSub, t, t);
    expect_binary("mul", Op::kMul, t, t);
    expect_binary("div", Op::kDiv, t, t);
    expect_unary("neg", Op::kNeg, t);
    expect_unary("abs", Op::kAbs, t);
    expect_unary("sqrt", Op::kSqrt, t);
    expect_unary("floor", Op::kFloor, t);
    expect_unary("ceil", Op::kCeil, t);
    expect_unary("trunc", Op::kTrunc, t);
    expect_unary("round_even", Op::kRoundEven, t);
    expect_binary("min", Op::kMin, t, t);
    expect_binary("max", Op::kMax, t, t);
  }
}

template <class T>
void expect_scale(Type t, int exponents) {
  // Denormal results and those on either side of overflow included.
  std::vector<T> factors{T{1}, T{0.25}, T{4}, T{-1.5}, std::nextafter(T{2}, T{0}), T{0}, T{-0.0}};
  factors.push_back(std::numeric_limits<T>::infinity());
  factors.push_back(std::numeric_limits<T>::quiet_NaN());
  std::vector<T> x, y;
  for (int n = -exponents; n <= exponents; ++n) {
    for (const T factor : factors) {
      x.push_back(factor);
      y.push_back(static_cast<T>(n));
    }
  }
  const auto bytes = [](const std::vector<T>& v) {
    const auto* begin = reinterpret_cast<const unsigned char*>(v.data());
    return Bytes(begin, begin + v.size() * sizeof(T));
  };
  expect_op("scale", {t, t}, t, [](const std::vector<V>& v) { return scale(v[0], v[1]); },
            static_cast<int>(x.size()), {bytes(x), bytes(y)});
}

TEST(CodegenOps, ScalingByPowersOfTwoRoundsOnce) {
  expect_scale<float>(Type::kF32, 252);
  expect_scale<double>(Type::kF64, 2044);
}

TEST(CodegenOps, IntegerArithmeticAgreesWithTheInterpreter) {
  for (Type t : kIntTypes) {
    for (auto [name, op] : {std::pair{"add", Op::kAdd},
                            {"sub", Op::kSub},
                            {"mul", Op::kMul},
                            {"min", Op::kMin},
                            {"max", Op::kMax},
                            {"div", Op::kDiv},
                            {"rem", Op::kRem},
                            {"and", Op::kAnd},
                            {"or", Op::kOr},
                            {"xor", Op::kXor},
                            {"shl", Op::kShl},
                            {"shr", Op::kShr}}) {
      expect_binary(name, op, t, t);
    }
    expect_unary("neg", Op::kNeg, t);
    expect_unary("abs", Op::kAbs, t);
    expect_unary("not", Op::kNot, t);
  }
}

TEST(CodegenOps, DivisionIsExactForAllPairsOfBytes) {
  Bytes x, y;
  for (int i = 0; i < 256; ++i) {
    for (int j = 0; j < 256; ++j) {
      x.push_back(static_cast<unsigned char>(i));
      y.push_back(static_cast<unsigned char>(j));
    }
  }
  for (Type t : {Type::kU8, Type::kI8}) {
    for (Op op : {Op::kDiv, Op::kRem}) {
      expect_op("bytes", {t, t}, t,
                [&](const std::vector<V>& v) { return v[0].builder->binary(op, v[0], v[1]); }, 65536, {x, y});
    }
  }
}

TEST(CodegenOps, BoolLogicAgreesWithTheInterpreter) {
  for (auto [name, op] :
       {std::pair{"and", Op::kAnd}, {"or", Op::kOr}, {"xor", Op::kXor}, {"eq", Op::kEq}, {"ne", Op::kNe}}) {
    expect_binary(name, op, Type::kBool, Type::kBool);
  }
  expect_unary("not", Op::kNot, Type::kBool);
}

TEST(CodegenOps, BoolBytesOtherThanZeroAreTrue) {
  expect_op("truth", {Type::kBool}, Type::kF32,
            [](const std::vector<V>& x) { return x[0].builder->cast(x[0], Type::kF32); }, 4,
            {Bytes{0, 1, 2, 255}});
}

TEST(CodegenOps, ComparisonsAgreeWithTheInterpreter) {
  for (Op op : {Op::kEq, Op::kNe, Op::kLt, Op::kLe}) {
    for (Type t : kIntTypes) expect_binary("compare", op, t, Type::kBool);
    for (Type t : kFloatTypes) expect_binary("compare", op, t, Type::kBool);
  }
}

TEST(CodegenOps, SelectTakesEveryType) {
  for (Type t : {Type::kBool, Type::kU8, Type::kI16, Type::kI32, Type::kI64, Type::kF32, Type::kF64}) {
    expect_op(std::string("select_") + ir::name(t), {Type::kBool, t, t}, t,
              [](const std::vector<V>& x) { return select(x[0], x[1], x[2]); });
  }
}

TEST(CodegenOps, MaximaOfNumbersThatAreNeverNanAgreeWithTheInterpreter) {
  // Where it knows that, LLVM makes them maxima of C's kind, even calls of fmaxf().
  for (Type in : {Type::kBool, Type::kU8, Type::kI8, Type::kI32}) {
    for (Type half : {Type::kF16, Type::kBF16, Type::kF32, Type::kF64}) {
      for (double bound : {0.0, -0.0, 0.5}) {
        for (bool maximum : {false, true}) {
          const std::string name =
              std::string(maximum ? "maximum_" : "minimum_") + ir::name(in) + "_" + ir::name(half);
          const Type wide = half == Type::kF64 ? Type::kF64 : Type::kF32;
          expect_op(name, {in}, half, [&](const std::vector<V>& v) {
            Builder& b = *v[0].builder;
            const V x = b.cast(b.cast(b.cast(v[0], wide), half), wide), limit = b.constant(wide, bound);
            const V first = maximum ? b.binary(Op::kLt, limit, x) : b.binary(Op::kLt, x, limit);
            const V y = select(first, x, limit);
            return b.cast(select(b.binary(Op::kNe, x, x), x, y), half);
          });
        }
      }
    }
  }
}

TEST(CodegenOps, FmaRoundsOnceAtEveryLevel) {
  for (Type t : kFloatTypes) {
    expect_op(
        std::string("fma_") + ir::name(t), {t, t, t}, t,
        [](const std::vector<V>& x) { return fma(x[0], x[1], x[2]); }, 20000);
    // Sums near the product's negative, where a second rounding shows.
    expect_op(
        std::string("fma_cancel_") + ir::name(t), {t, t, t}, t,
        [](const std::vector<V>& x) {
          V half_ulp = x[2] * 5.9604644775390625e-08;
          return fma(x[0], x[1], -(x[0] * x[1])) + fma(x[0], x[1], half_ulp);
        },
        20000);
  }
}

TEST(CodegenOps, FloatFmaIsExactNearTiesOfTheSecondRounding) {
  // a * b + c where the double sum is a tie between floats and the lost part decides.
  std::vector<float> a, b, c;
  std::mt19937_64 random(3);
  for (int i = 0; i < 40000; ++i) {
    const float x = 1.0f + static_cast<float>(random() % 4096) * 0x1p-12f;
    const float y = 1.0f + static_cast<float>(random() % 4096) * 0x1p-12f;
    const int scale = static_cast<int>(random() % 70) - 35;
    a.push_back(x);
    b.push_back(y);
    c.push_back(std::ldexp(1.0f + static_cast<float>(random() % 16) * 0x1p-23f, scale) *
                (random() % 2 ? 1.0f : -1.0f));
    if (i % 3 == 0) {
      a.back() *= 0x1p-70f;
      b.back() *= 0x1p-60f;
      c.back() = std::ldexp(1.0f, -126 - static_cast<int>(random() % 23));
    }
  }
  const auto bytes = [](const std::vector<float>& v) {
    Bytes result(v.size() * 4);
    std::memcpy(result.data(), v.data(), result.size());
    return result;
  };
  expect_op("fma_ties", {Type::kF32, Type::kF32, Type::kF32}, Type::kF32,
            [](const std::vector<V>& x) { return fma(x[0], x[1], x[2]); }, 40000,
            {bytes(a), bytes(b), bytes(c)});
}

TEST(CodegenOps, CastsAgreeWithTheInterpreter) {
  const Type all[] = {Type::kBool, Type::kU8,  Type::kI8,  Type::kI16,  Type::kI32, Type::kU32,
                      Type::kI64,  Type::kU64, Type::kF16, Type::kBF16, Type::kF32, Type::kF64};
  for (Type from : all) {
    for (Type to : all) {
      expect_op(std::string("cast_") + ir::name(from) + "_" + ir::name(to), {from}, to,
                [&](const std::vector<V>& x) {
                  Builder& b = *x[0].builder;
                  V y = x[0];
                  if (ir::is_half(from) && to != from) y = b.cast(y, Type::kF32);
                  const bool narrow = ir::is_int(to) && to != Type::kI32 && to != Type::kI64;
                  if (ir::is_float(y.type()) && narrow) y = b.cast(y, Type::kI64);
                  if (ir::is_half(to) && to != from) y = b.cast(y, Type::kF32);
                  return b.cast(y, to);
                });
    }
  }
}

TEST(CodegenOps, BitcastsKeepBits) {
  for (auto [from, to] : {std::pair{Type::kF32, Type::kI32},
                          {Type::kI32, Type::kF32},
                          {Type::kF32, Type::kU32},
                          {Type::kF64, Type::kI64},
                          {Type::kU64, Type::kF64},
                          {Type::kU8, Type::kI8},
                          {Type::kI32, Type::kU32}}) {
    expect_op("bitcast", {from}, to,
              [to = to](const std::vector<V>& x) { return x[0].builder->bitcast(x[0], to); });
  }
}

TEST(CodegenOps, TablesAreLookedUpByTheIndexsLowestBitsAtEveryWidth) {
  std::array<double, 16> numbers;
  for (size_t i = 0; i < numbers.size(); ++i)
    numbers[i] = (i % 2 == 0 ? 1.0 : -1.0) / static_cast<double>(i + 3);
  numbers[7] = -0.0;
  expect_op("table", {Type::kU32}, Type::kF32,
            [&](const std::vector<V>& x) { return x[0].builder->table(x[0], numbers); });
  // Elements of eight bytes halve the number of lanes.
  expect_op("table_wide", {Type::kU32}, Type::kF64, [&](const std::vector<V>& x) {
    return x[0].builder->cast(x[0].builder->table(x[0], numbers), Type::kF64);
  });
}

TEST(CodegenOps, EveryHalfConvertsExactly) {
  Bytes every(65536 * 2);
  for (uint32_t i = 0; i < 65536; ++i) {
    const auto word = static_cast<uint16_t>(i);
    std::memcpy(&every[2 * i], &word, 2);
  }
  for (Type t : {Type::kF16, Type::kBF16}) {
    expect_op("from_half", {t}, Type::kF32,
              [](const std::vector<V>& x) { return x[0].builder->cast(x[0], Type::kF32); }, 65536, {every});
  }
}

TEST(CodegenOps, FloatsRoundToHalfTypesLikeTheInterpreter) {
  // Around every half: the value, the midpoint to the next, and both neighbours of the midpoint.
  Bytes floats;
  const auto push = [&](uint32_t bits) {
    const size_t at = floats.size();
    floats.resize(at + 4);
    std::memcpy(&floats[at], &bits, 4);
  };
  for (uint32_t exponent = 95; exponent < 160; ++exponent) {
    for (uint32_t mantissa = 0; mantissa < 1024; mantissa += 31) {
      for (uint32_t low : {0u, 1u, 0xFFFu, 0x1000u, 0x1001u, 0x1FFFu}) {
        push(exponent << 23 | mantissa << 13 | low);
        push(0x80000000u | exponent << 23 | mantissa << 13 | low);
      }
    }
  }
  for (uint32_t i = 0; i < 60000; ++i) push(i * 71582u + 7u);
  const auto count = static_cast<int64_t>(floats.size() / 4);
  for (Type t : {Type::kF16, Type::kBF16}) {
    expect_op("to_half", {Type::kF32}, t,
              [t](const std::vector<V>& x) { return x[0].builder->cast(x[0], t); }, count, {floats});
    expect_op("to_half_and_back", {Type::kF32}, Type::kF32,
              [t](const std::vector<V>& x) {
                Builder& b = *x[0].builder;
                return b.cast(b.cast(x[0], t), Type::kF32);
              },
              count, {floats});
  }
}

TEST(CodegenOps, ParametersAndUniformOperandsBroadcast) {
  for (Type t : {Type::kBool, Type::kI8, Type::kI32, Type::kI64, Type::kF32, Type::kF64}) {
    Builder b("params");
    const int16_t in = b.buffer(t, false), out = b.buffer(t, true);
    V p = b.param(t);
    V one = b.load(in, b.constant_int(Type::kI64, 0));
    b.loop({{b.begin(), b.end()}}, true, [&](const std::vector<V>& i) {
      V zero = b.constant_int(Type::kI64, 0);
      V x = b.load_unit(in, zero);
      V chosen = select(i[0] < 7, select(p == one, x, p), one);
      b.store_unit(out, zero, select(p != one, chosen, x));
    });
    Launch run;
    run.buffers = {interesting(t, 100, 3), zeros(t, 100)};
    run.params = {0x3FF0000040000001};
    run.end = 100;
    expect_all_levels_agree(b.finish(), {run});
  }
}

}  // namespace
}  // namespace lohe::codegen::testing
