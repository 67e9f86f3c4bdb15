// The elementary functions of the kernel IR, run by the interpreter: within their bounds on samples of all
// magnitudes, and exact at special values. tests/cpp/math_accuracy.cpp goes through all float32 arguments.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <numbers>
#include <random>
#include <vector>

#include "ir/math.h"
#include "ulp.h"

namespace lohe::ir {
namespace {

using lohe::testing::ulps;
using Unary = V (*)(V);
using Binary = V (*)(V, V);

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// One vector loop that applies `f` to the elements of the buffers; `memory` is the buffers' type, `compute`
/// that of f.
template <class F>
Kernel elementwise(Type memory, Type compute, int operands, const F& f) {
  Builder b("elementwise");
  std::vector<int16_t> in;
  for (int i = 0; i < operands; ++i) in.push_back(b.buffer(memory, false));
  const int16_t out = b.buffer(memory, true);
  b.loop({{b.begin(), b.end()}}, true, [&](const std::vector<V>& index) {
    std::vector<V> x;
    for (int16_t buffer : in) x.push_back(b.cast(b.load(buffer, index[0]), compute));
    b.store(out, index[0], b.cast(f(x), memory));
  });
  return b.finish();
}

template <class T, class F>
std::vector<T> run(Type memory, Type compute, const std::vector<std::vector<T>>& in, const F& f) {
  const Kernel kernel = elementwise(memory, compute, static_cast<int>(in.size()), f);
  check(kernel);
  std::vector<T> out(in[0].size());
  std::vector<void*> buffers;
  for (const auto& x : in) buffers.push_back(const_cast<T*>(x.data()));
  buffers.push_back(out.data());
  EXPECT_EQ(interpret(kernel, buffers.data(), nullptr, 0, static_cast<int64_t>(out.size())), 0);
  return out;
}

template <class T>
constexpr Type kTypeOf = std::is_same_v<T, float> ? Type::kF32 : Type::kF64;

template <class T>
std::vector<T> evaluate(Unary f, const std::vector<T>& x) {
  return run<T>(kTypeOf<T>, kTypeOf<T>, {x}, [&](const std::vector<V>& v) { return f(v[0]); });
}
template <class T>
std::vector<T> evaluate(Binary f, const std::vector<T>& x, const std::vector<T>& y) {
  return run<T>(kTypeOf<T>, kTypeOf<T>, {x, y}, [&](const std::vector<V>& v) { return f(v[0], v[1]); });
}

struct Function {
  const char* name;
  Unary function;
  long double (*reference)(long double);
  double low, high;  ///< where the function is interesting
  double bound = 2;  ///< ulp
  double least = 0;  ///< errors count absolutely below this
};

long double sigmoid_reference(long double x) { return 1 / (1 + std::exp(-x)); }
long double rsqrt_reference(long double x) { return 1 / std::sqrt(x); }

long double gelu_slope_reference(long double x) {
  const long double half = std::numbers::sqrt2_v<long double> / 2;
  const long double density = std::exp(-x * x / 2) * half * std::numbers::inv_sqrtpi_v<long double>;
  return std::erfc(-x * half) / 2 + (std::isinf(x) ? 0 : x * density);
}

const Function kFunctions[] = {
    {"exp", math::exp, [](long double x) { return std::exp(x); }, -760, 720},
    {"exp2", math::exp2, [](long double x) { return std::exp2(x); }, -1080, 1030},
    {"expm1", math::expm1, [](long double x) { return std::expm1(x); }, -3, 3},
    {"log", math::log, [](long double x) { return std::log(x); }, 0, 3},
    {"log2", math::log2, [](long double x) { return std::log2(x); }, 0, 3},
    {"log10", math::log10, [](long double x) { return std::log10(x); }, 0, 3},
    {"log1p", math::log1p, [](long double x) { return std::log1p(x); }, -1, 3},
    {"sin", math::sin, [](long double x) { return std::sin(x); }, -100, 100},
    {"cos", math::cos, [](long double x) { return std::cos(x); }, -100, 100},
    {"tan", math::tan, [](long double x) { return std::tan(x); }, -100, 100},
    {"asin", math::asin, [](long double x) { return std::asin(x); }, -1, 1},
    {"acos", math::acos, [](long double x) { return std::acos(x); }, -1, 1},
    {"atan", math::atan, [](long double x) { return std::atan(x); }, -3, 3},
    {"sinh", math::sinh, [](long double x) { return std::sinh(x); }, -3, 3},
    {"cosh", math::cosh, [](long double x) { return std::cosh(x); }, -3, 3},
    {"tanh", math::tanh, [](long double x) { return std::tanh(x); }, -3, 3},
    {"asinh", math::asinh, [](long double x) { return std::asinh(x); }, -3, 3},
    {"acosh", math::acosh, [](long double x) { return std::acosh(x); }, 1, 3},
    {"atanh", math::atanh, [](long double x) { return std::atanh(x); }, -1, 1},
    {"sigmoid", math::sigmoid, sigmoid_reference, -30, 30},
    {"rsqrt", math::rsqrt, rsqrt_reference, 0, 4},
    {"erf", math::erf, [](long double x) { return std::erf(x); }, -6, 6},
    {"erfc", math::erfc, [](long double x) { return std::erfc(x); }, -6, 28},
    {"lgamma", math::lgamma, [](long double x) { return std::lgamma(x); }, -5, 30, 2, 1},
    {"gelu_slope", math::gelu_slope, gelu_slope_reference, -8, 8, 2, 1},
};

/// Arguments with random bits: all magnitudes and signs alike. x87's own sine loses bits of huge arguments,
/// so those that the reference cannot judge stay with math_accuracy.
template <class T>
std::vector<T> sample(const Function& f, int count) {
  std::mt19937_64 random(7);
  std::uniform_real_distribution<double> inside(f.low, f.high);
  std::vector<T> x;
  for (int i = 0; i < count; ++i) {
    if (i % 2 == 0) {
      x.push_back(static_cast<T>(inside(random)));
    } else if constexpr (std::is_same_v<T, float>) {
      x.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
    } else {
      x.push_back(std::bit_cast<double>(random()));
    }
  }
  return x;
}

template <class T>
void expect_bounds() {
  if (std::numeric_limits<T>::digits == 53 && std::numeric_limits<long double>::digits <= 53)
    GTEST_SKIP() << "long double is no reference for float64 here";
  for (const Function& f : kFunctions) {
    const std::vector<T> x = sample<T>(f, 20000);
    const std::vector<T> y = evaluate(f.function, x);
    double worst = 0;
    T at = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      const double error = ulps(y[i], f.reference(x[i]), f.least);
      if (!(error <= worst)) worst = error, at = x[i];
    }
    EXPECT_LE(worst, f.bound) << f.name << " at " << at;
  }
}

TEST(IrMath, Float32FunctionsStayWithinTheirBounds) { expect_bounds<float>(); }
TEST(IrMath, Float64FunctionsStayWithinTheirBounds) { expect_bounds<double>(); }

TEST(IrMath, NextToOverflowResultsAreInfiniteOrTheLargestPowers) {
  std::vector<double> x;
  for (double at = 709.5; at < 712; at += 0x1p-7) x.push_back(at);
  const auto e = evaluate(Unary{math::exp}, x), less = evaluate(Unary{math::expm1}, x);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_LE(ulps(e[i], std::exp(static_cast<long double>(x[i]))), 2) << x[i];
    EXPECT_LE(ulps(less[i], std::exp(static_cast<long double>(x[i]))), 2) << x[i];
  }
}

TEST(IrMath, HalfTypesRoundOnceFromFloat32) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i) all[i] = static_cast<uint16_t>(i);
  // float16 and bfloat16 have few enough bits that the float32 error matters only next to a tie: 0.5 ulp and
  // a little.
  const auto value = [](Type type, uint16_t bits) -> double {
    if (type == Type::kBF16) return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const double magnitude = exponent == 31 ? (fraction ? kNan : kInf)
                             : exponent     ? std::ldexp(1024 + fraction, exponent - 25)
                                            : std::ldexp(fraction, -24);
    return bits >> 15 ? -magnitude : magnitude;
  };
  for (Type type : {Type::kF16, Type::kBF16}) {
    const int digits = type == Type::kF16 ? 11 : 8, lowest = type == Type::kF16 ? -24 : -133;
    const double largest = type == Type::kF16 ? 65504 : 0x1.FEp127;
    for (const Function& f : kFunctions) {
      if (f.least > 0) continue;
      const std::vector<uint16_t> out =
          run<uint16_t>(type, Type::kF32, {all}, [&](const std::vector<V>& v) { return f.function(v[0]); });
      for (size_t i = 0; i < all.size(); ++i) {
        const double want = static_cast<double>(f.reference(value(type, all[i])));
        const double got = value(type, out[i]);
        if (std::isnan(want) || std::isnan(got)) {
          ASSERT_EQ(std::isnan(want), std::isnan(got)) << f.name << "(" << value(type, all[i]) << ")";
        } else if (std::isinf(got)) {
          ASSERT_TRUE(std::fabs(want) > largest && (want > 0) == (got > 0))
              << f.name << "(" << value(type, all[i]) << ")";
        } else {
          int exponent;
          std::frexp(want, &exponent);
          const double unit = std::ldexp(1.0, std::max(exponent - digits, lowest));
          ASSERT_LE(std::fabs(got - want), 0.501 * unit) << f.name << "(" << value(type, all[i]) << ")";
        }
      }
    }
  }
}

struct Special {
  const char* name;
  Unary function;
  std::vector<std::pair<double, double>> values;  ///< argument, exact result
};

const Special kSpecials[] = {
    {"exp", math::exp, {{0.0, 1}, {-0.0, 1}, {kInf, kInf}, {-kInf, 0.0}, {1e4, kInf}, {-1e4, 0.0}}},
    {"exp2",
     math::exp2,
     {{0.0, 1}, {-0.0, 1}, {kInf, kInf}, {-kInf, 0.0}, {3, 8}, {-1, 0.5}, {127, 0x1p127}, {-149, 0x1p-149}}},
    {"expm1",
     math::expm1,
     {{0.0, 0.0}, {-0.0, -0.0}, {kInf, kInf}, {-kInf, -1}, {0x1p-149, 0x1p-149}, {-1e4, -1}}},
    {"log", math::log, {{0.0, -kInf}, {-0.0, -kInf}, {1, 0.0}, {kInf, kInf}, {-1, kNan}, {-kInf, kNan}}},
    {"log2",
     math::log2,
     {{0.0, -kInf}, {1, 0.0}, {8, 3}, {0x1p-149, -149}, {0x1p127, 127}, {kInf, kInf}, {-1, kNan}}},
    {"log10",
     math::log10,
     {{0.0, -kInf},
      {1, 0.0},
      {10, 1},
      {100, 2},
      {1000, 3},
      {1e4, 4},
      {1e5, 5},
      {1e6, 6},
      {kInf, kInf},
      {-1, kNan}}},
    {"log1p",
     math::log1p,
     {{0.0, 0.0}, {-0.0, -0.0}, {-1, -kInf}, {kInf, kInf}, {-2, kNan}, {0x1p-149, 0x1p-149}}},
    {"sin", math::sin, {{0.0, 0.0}, {-0.0, -0.0}, {kInf, kNan}, {-kInf, kNan}, {0x1p-149, 0x1p-149}}},
    {"cos", math::cos, {{0.0, 1}, {-0.0, 1}, {kInf, kNan}, {-kInf, kNan}}},
    {"tan", math::tan, {{0.0, 0.0}, {-0.0, -0.0}, {kInf, kNan}, {-kInf, kNan}, {0x1p-149, 0x1p-149}}},
    {"asin", math::asin, {{0.0, 0.0}, {-0.0, -0.0}, {1.5, kNan}, {-1.5, kNan}, {kInf, kNan}}},
    {"acos", math::acos, {{1, 0.0}, {1.5, kNan}, {-1.5, kNan}, {kInf, kNan}}},
    {"atan", math::atan, {{0.0, 0.0}, {-0.0, -0.0}, {0x1p-149, 0x1p-149}}},
    {"sinh",
     math::sinh,
     {{0.0, 0.0}, {-0.0, -0.0}, {kInf, kInf}, {-kInf, -kInf}, {1e4, kInf}, {-1e4, -kInf}}},
    {"cosh", math::cosh, {{0.0, 1}, {kInf, kInf}, {-kInf, kInf}, {1e4, kInf}}},
    {"tanh", math::tanh, {{0.0, 0.0}, {-0.0, -0.0}, {kInf, 1}, {-kInf, -1}, {1e4, 1}, {0x1p-149, 0x1p-149}}},
    {"asinh", math::asinh, {{0.0, 0.0}, {-0.0, -0.0}, {kInf, kInf}, {-kInf, -kInf}}},
    {"acosh", math::acosh, {{1, 0.0}, {0.5, kNan}, {-2, kNan}, {kInf, kInf}, {-kInf, kNan}}},
    {"atanh", math::atanh, {{0.0, 0.0}, {-0.0, -0.0}, {1, kInf}, {-1, -kInf}, {2, kNan}, {-kInf, kNan}}},
    {"sigmoid", math::sigmoid, {{0.0, 0.5}, {kInf, 1}, {-kInf, 0.0}}},
    {"rsqrt", math::rsqrt, {{0.0, kInf}, {-0.0, -kInf}, {4, 0.5}, {kInf, 0.0}, {-1, kNan}}},
    {"erf", math::erf, {{0.0, 0.0}, {-0.0, -0.0}, {kInf, 1}, {-kInf, -1}}},
    {"gelu_slope", math::gelu_slope, {{0.0, 0.5}, {-0.0, 0.5}, {kInf, 1}, {-kInf, 0.0}, {-1e4, 0.0}}},
    {"erfc", math::erfc, {{0.0, 1}, {kInf, 0.0}, {-kInf, 2}, {1e4, 0.0}}},
    {"erfinv", math::erfinv, {{0.0, 0.0}, {-0.0, -0.0}, {1, kInf}, {-1, -kInf}, {1.5, kNan}, {kInf, kNan}}},
    {"lgamma",
     math::lgamma,
     {{0.0, kInf}, {-0.0, kInf}, {1, 0.0}, {2, 0.0}, {-1, kInf}, {-7, kInf}, {kInf, kInf}, {-kInf, kInf}}},
    {"digamma",
     math::digamma,
     {{0.0, -kInf}, {-0.0, kInf}, {-1, kNan}, {-7, kNan}, {kInf, kInf}, {-kInf, kNan}}},
};

template <class T>
void expect_specials() {
  for (const Special& s : kSpecials) {
    std::vector<T> x = {static_cast<T>(kNan)};
    for (const auto& value : s.values) x.push_back(static_cast<T>(value.first));
    const std::vector<T> y = evaluate(s.function, x);
    EXPECT_TRUE(std::isnan(y[0])) << s.name << "(nan) = " << y[0];
    for (size_t i = 0; i < s.values.size(); ++i) {
      const double want = s.values[i].second;
      const T got = y[i + 1];
      const bool right = std::isnan(want)
                             ? std::isnan(got)
                             : got == static_cast<T>(want) && std::signbit(got) == std::signbit(want);
      EXPECT_TRUE(right) << s.name << "(" << s.values[i].first << ") = " << got << ", expected " << want;
    }
  }
}

TEST(IrMath, Float32SpecialValuesAreExact) { expect_specials<float>(); }
TEST(IrMath, Float64SpecialValuesAreExact) { expect_specials<double>(); }

/// Every pair of these, against the C library.
template <class T>
std::pair<std::vector<T>, std::vector<T>> pairs() {
  std::vector<T> values = {0,
                           0.5,
                           1,
                           1.5,
                           2,
                           3,
                           4,
                           7.25,
                           1e-3,
                           1e10,
                           1e30,
                           std::numeric_limits<T>::denorm_min(),
                           std::numeric_limits<T>::min(),
                           std::numeric_limits<T>::max(),
                           static_cast<T>(kInf),
                           static_cast<T>(0x1.fffffep23),
                           static_cast<T>(0x1p24),
                           static_cast<T>(0.9999)};
  for (size_t i = 0, n = values.size(); i < n; ++i) values.push_back(-values[i]);
  values.push_back(static_cast<T>(kNan));
  std::mt19937_64 random(11);
  for (int i = 0; i < 40; ++i) {
    if constexpr (std::is_same_v<T, float>)
      values.push_back(std::bit_cast<float>(static_cast<uint32_t>(random())));
    else
      values.push_back(std::bit_cast<double>(random()));
  }
  std::pair<std::vector<T>, std::vector<T>> result;
  for (T x : values) {
    for (T y : values) {
      result.first.push_back(x);
      result.second.push_back(y);
    }
  }
  return result;
}

template <class T>
void expect_binary(const char* name, Binary f, long double (*reference)(long double, long double),
                   double bound) {
  const auto [x, y] = pairs<T>();
  const std::vector<T> out = evaluate(f, x, y);
  for (size_t i = 0; i < x.size(); ++i)
    EXPECT_LE(ulps(out[i], reference(x[i], y[i])), bound)
        << name << "(" << x[i] << ", " << y[i] << ") = " << out[i];
}

template <class T>
void expect_all_binary() {
  expect_binary<T>("pow", math::pow, [](long double x, long double y) { return std::pow(x, y); }, 2);
  expect_binary<T>("atan2", math::atan2, [](long double y, long double x) { return std::atan2(y, x); }, 2);
  expect_binary<T>("hypot", math::hypot, [](long double x, long double y) { return std::hypot(x, y); }, 2);
  expect_binary<T>("fmod", math::fmod, [](long double x, long double y) { return std::fmod(x, y); }, 0);
}

TEST(IrMath, Float32FunctionsOfTwoOperandsMatchTheCLibrary) { expect_all_binary<float>(); }
TEST(IrMath, Float64FunctionsOfTwoOperandsMatchTheCLibrary) { expect_all_binary<double>(); }

TEST(IrMath, SinesNextToTheEndOfTheEasyReductionAreOneFunction) {
  const auto expect = [](auto bound) {
    using T = decltype(bound);
    std::vector<T> x = {bound};
    for (int i = 0; i < 500; ++i) {
      x.push_back(std::nextafter(x[x.size() - 1], T{0}));
      x.insert(x.begin(), std::nextafter(x[0], 2 * bound));
    }
    const std::vector<T> s = evaluate(math::sin, x), c = evaluate(math::cos, x), t = evaluate(math::tan, x);
    for (size_t i = 0; i < x.size(); ++i) {
      EXPECT_LE(ulps(s[i], std::sin(static_cast<long double>(x[i]))), 2) << x[i];
      EXPECT_LE(ulps(c[i], std::cos(static_cast<long double>(x[i]))), 2) << x[i];
      EXPECT_LE(ulps(t[i], std::tan(static_cast<long double>(x[i]))), 2) << x[i];
      // Alone, and not next to larger ones.
      EXPECT_EQ(evaluate(math::sin, std::vector<T>{x[i]})[0], s[i]) << x[i];
      EXPECT_EQ(evaluate(math::sin, std::vector<T>{-x[i]})[0], -s[i]) << x[i];
    }
  };
  expect(0x1p20f);
  expect(0x1p30);
}

TEST(IrMath, SinesOfHugeArgumentsAreReducedExactly) {
  // Exact values by 1200-bit arithmetic (mpmath).
  const std::vector<double> x = {1e22, 0x1.fffffffffffffp1023, 6381956970095103.0 * 0x1p797, 0x1p500};
  const std::vector<double> sine = {-0.8522008497671888, 0.004961954789184062, 1.0, 0.42925739234242827};
  const std::vector<double> cosine = {0.523214785395139, -0.9999876894265599, -4.687165924254628e-19,
                                      0.9031822026143886};
  const std::vector<double> s = evaluate(math::sin, x), c = evaluate(math::cos, x);
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_LE(ulps(s[i], sine[i]), 1) << x[i];
    EXPECT_LE(ulps(c[i], cosine[i]), 1) << x[i];
  }
}

}  // namespace
}  // namespace lohe::ir
