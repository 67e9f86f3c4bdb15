// Measures src/ir/math_*.cpp against references and prints a Markdown table of the largest error of every
// function.
//
//   math_accuracy [--stride N] [--samples N] [--seed N] [name...]
//
// float32 functions of one argument: every N-th of the 2^32 arguments (N = 1: all); the reference is the C
// library in float64. float64 and functions of two arguments: random arguments, half of them with uniformly
// random bits, half in the range where the function is interesting; the reference is libquadmath, which
// computes in 113 bits. ulp.h says how errors count.
//
// The functions' source text is compiled against the executing vocabulary in math_accuracy/ir/builder.h,
// which runs it natively instead of through a back end.
#include <quadmath.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "../../src/ir/math_exp.cpp"
#include "../../src/ir/math_log.cpp"
#include "../../src/ir/math_pow.cpp"
#include "../../src/ir/math_special.cpp"
#include "../../src/ir/math_trig.cpp"
#include "ulp.h"

namespace {

using lohe::ir::V;
using lohe::testing::ulps;
namespace math = lohe::ir::math;

struct Worst {
  double error = 0, x = 0, y = 0;
  void see(double e, double at, double at_y = 0) {
    if (!(e <= error)) *this = {e, at, at_y};
  }
};

struct Case {
  const char* name;
  std::function<Worst(uint32_t first, uint64_t count, uint32_t stride)> single;  ///< exhaustive float32
  std::function<Worst(uint64_t samples, uint64_t seed)> wide;  ///< float64, and float32 of two arguments
  const char* type;
};

double random_bits(std::mt19937_64& g) { return std::bit_cast<double>(g()); }
float random_bits_single(std::mt19937_64& g) { return std::bit_cast<float>(static_cast<uint32_t>(g())); }
double uniform(std::mt19937_64& g, double a, double b) {
  return std::uniform_real_distribution<double>(a, b)(g);
}

template <class F, class R>
__attribute__((noinline, flatten)) Worst run_single(F f, R reference, uint32_t first, uint64_t count,
                                                    uint32_t stride, double floor_at) {
  Worst worst;
  constexpr int block = 256;
  float in[block], out[block];
  for (uint64_t i = 0; i < count; i += block) {
    for (int j = 0; j < block; ++j)
      in[j] = std::bit_cast<float>(static_cast<uint32_t>(first + (i + j) * stride));
    for (int j = 0; j < block; ++j) out[j] = f(lohe::ir::of(in[j])).f;
    for (int j = 0; j < block; ++j) worst.see(ulps(out[j], reference(in[j]), floor_at), in[j]);
  }
  return worst;
}

template <class F, class R>
__attribute__((noinline, flatten)) Worst run_wide(F f, R reference, double a, double b, uint64_t samples,
                                                  uint64_t seed, double floor_at) {
  Worst worst;
  std::mt19937_64 g(seed);
  for (uint64_t i = 0; i < samples; ++i) {
    const double x = i % 2 ? uniform(g, a, b) : random_bits(g);
    worst.see(ulps(f(lohe::ir::of(x)).d, reference(static_cast<__float128>(x)), floor_at), x);
  }
  return worst;
}

std::vector<Case> cases;

template <class F, class R32, class R64>
void one(const char* name, F f, R32 r32, R64 r64, double a, double b, double floor_at = 0) {
  cases.push_back({name,
                   [=](uint32_t first, uint64_t count, uint32_t stride) {
                     return run_single(f, r32, first, count, stride, floor_at);
                   },
                   nullptr, "float32"});
  cases.push_back(
      {name, nullptr,
       [=](uint64_t samples, uint64_t seed) { return run_wide(f, r64, a, b, samples, seed, floor_at); },
       "float64"});
}

template <class F, class R>
void two(const char* name, F f, R r, double ax, double bx, double ay, double by) {
  cases.push_back({name, nullptr,
                   [=](uint64_t samples, uint64_t seed) {
                     Worst worst;
                     std::mt19937_64 g(seed);
                     for (uint64_t i = 0; i < samples; ++i) {
                       const bool raw = i % 2 == 0;
                       const float x = raw ? random_bits_single(g) : static_cast<float>(uniform(g, ax, bx));
                       const float y = raw ? random_bits_single(g) : static_cast<float>(uniform(g, ay, by));
                       worst.see(ulps(f(lohe::ir::of(x), lohe::ir::of(y)).f,
                                      r(static_cast<__float128>(x), static_cast<__float128>(y))),
                                 x, y);
                     }
                     return worst;
                   },
                   "float32"});
  cases.push_back({name, nullptr,
                   [=](uint64_t samples, uint64_t seed) {
                     Worst worst;
                     std::mt19937_64 g(seed);
                     for (uint64_t i = 0; i < samples; ++i) {
                       const bool raw = i % 2 == 0;
                       const double x = raw ? random_bits(g) : uniform(g, ax, bx);
                       const double y = raw ? random_bits(g) : uniform(g, ay, by);
                       worst.see(ulps(f(lohe::ir::of(x), lohe::ir::of(y)).d,
                                      r(static_cast<__float128>(x), static_cast<__float128>(y))),
                                 x, y);
                     }
                     return worst;
                   },
                   "float64"});
}

// References that the C libraries lack.
__float128 digamma_reference(__float128 x) {
  if (isnanq(x)) return x;
  if (isinfq(x)) return x > 0 ? x : nanq("");
  if (x == 0) return signbitq(x) ? HUGE_VALQ : -HUGE_VALQ;
  if (x < 0) {
    const __float128 f = x - rintq(x);
    if (f == 0) return nanq("");
    return digamma_reference(1 - x) - M_PIq * cosq(M_PIq * f) / sinq(M_PIq * f);
  }
  __float128 sum = 0;
  while (x < 30) sum -= 1 / x, x += 1;
  static const __float128 b[] = {1.0Q / 12,        -1.0Q / 120,       1.0Q / 252,    -1.0Q / 240,
                                 1.0Q / 132,       -691.0Q / 32760,   1.0Q / 12,     -3617.0Q / 8160,
                                 43867.0Q / 14364, -174611.0Q / 6600, 77683.0Q / 276};
  const __float128 s = 1 / (x * x);
  __float128 p = 0;
  for (int i = 10; i >= 0; --i) p = (p + b[i]) * s;
  return sum + logq(x) - 0.5Q / x - p;
}
__float128 erfinv_reference(__float128 x) {
  const __float128 a = fabsq(x);
  if (!(a < 1)) return a == 1 ? x * HUGE_VALQ : nanq("");
  if (a < 1e-30Q) return x * sqrtq(M_PIq) / 2;
  const __float128 w = -log1pq(-x * x);
  __float128 y = a < 0.5Q ? a * 0.9Q : sqrtq(w);
  for (int i = 0; i < 60; ++i) {  // Newton on the error or on the logarithm of the complement
    const __float128 slope = 2 / sqrtq(M_PIq) * expq(-y * y);
    const __float128 step = a < 0.5Q ? (erfq(y) - a) / slope : -logq(erfcq(y) / (1 - a)) * erfcq(y) / slope;
    y -= step;
    if (fabsq(step) < 1e-25Q * y) break;
  }
  return copysignq(y, x);
}

#define REFERENCE(name) \
  [](double x) { return std::name(static_cast<long double>(x)); }, [](__float128 x) { return name##q(x); }
#define FUNCTION(name) [](V x) { return math::name(x); }

void list_cases() {
  one(
      "exp", FUNCTION(exp), [](double x) { return std::exp(x); }, [](__float128 x) { return expq(x); }, -750,
      710);
  one(
      "exp2", FUNCTION(exp2), [](double x) { return std::exp2(x); }, [](__float128 x) { return exp2q(x); },
      -1080, 1024);
  one(
      "expm1", FUNCTION(expm1), [](double x) { return std::expm1(x); },
      [](__float128 x) { return expm1q(x); }, -3, 3);
  one("log", FUNCTION(log), [](double x) { return std::log(x); }, [](__float128 x) { return logq(x); }, 0, 3);
  one(
      "log2", FUNCTION(log2), [](double x) { return std::log2(x); }, [](__float128 x) { return log2q(x); }, 0,
      3);
  one(
      "log10", FUNCTION(log10), [](double x) { return std::log10(x); },
      [](__float128 x) { return log10q(x); }, 0, 3);
  one(
      "log1p", FUNCTION(log1p), [](double x) { return std::log1p(x); },
      [](__float128 x) { return log1pq(x); }, -1, 3);
  one(
      "sin", FUNCTION(sin), [](double x) { return std::sin(x); }, [](__float128 x) { return sinq(x); }, -100,
      100);
  one(
      "cos", FUNCTION(cos), [](double x) { return std::cos(x); }, [](__float128 x) { return cosq(x); }, -100,
      100);
  one(
      "tan", FUNCTION(tan), [](double x) { return std::tan(x); }, [](__float128 x) { return tanq(x); }, -100,
      100);
  one(
      "asin", FUNCTION(asin), [](double x) { return std::asin(x); }, [](__float128 x) { return asinq(x); },
      -1, 1);
  one(
      "acos", FUNCTION(acos), [](double x) { return std::acos(x); }, [](__float128 x) { return acosq(x); },
      -1, 1);
  one(
      "atan", FUNCTION(atan), [](double x) { return std::atan(x); }, [](__float128 x) { return atanq(x); },
      -3, 3);
  one(
      "sinh", FUNCTION(sinh), [](double x) { return std::sinh(x); }, [](__float128 x) { return sinhq(x); },
      -5, 5);
  one(
      "cosh", FUNCTION(cosh), [](double x) { return std::cosh(x); }, [](__float128 x) { return coshq(x); },
      -5, 5);
  one(
      "tanh", FUNCTION(tanh), [](double x) { return std::tanh(x); }, [](__float128 x) { return tanhq(x); },
      -5, 5);
  one(
      "asinh", FUNCTION(asinh), [](double x) { return std::asinh(x); },
      [](__float128 x) { return asinhq(x); }, -5, 5);
  one(
      "acosh", FUNCTION(acosh), [](double x) { return std::acosh(x); },
      [](__float128 x) { return acoshq(x); }, 1, 5);
  one(
      "atanh", FUNCTION(atanh), [](double x) { return std::atanh(x); },
      [](__float128 x) { return atanhq(x); }, -1, 1);
  one(
      "sigmoid", FUNCTION(sigmoid), [](double x) { return 1 / (1 + std::exp(-x)); },
      [](__float128 x) { return 1 / (1 + expq(-x)); }, -50, 50);
  one(
      "rsqrt", FUNCTION(rsqrt), [](double x) { return 1 / std::sqrt(x); },
      [](__float128 x) { return 1 / sqrtq(x); }, 0, 4);
  one(
      "erf", FUNCTION(erf), [](double x) { return std::erf(x); }, [](__float128 x) { return erfq(x); }, -6,
      6);
  one(
      "erfc", FUNCTION(erfc), [](double x) { return std::erfc(x); }, [](__float128 x) { return erfcq(x); },
      -5, 27.5);
  one(
      "erfinv", FUNCTION(erfinv), [](double x) { return static_cast<double>(erfinv_reference(x)); },
      [](__float128 x) { return erfinv_reference(x); }, -1, 1);
  one(
      "lgamma", FUNCTION(lgamma), [](double x) { return std::lgamma(x); },
      [](__float128 x) { return isinfq(x) ? fabsq(x) : lgammaq(x); }, -10, 30, 1.0);
  one(
      "digamma", FUNCTION(digamma), [](double x) { return static_cast<double>(digamma_reference(x)); },
      [](__float128 x) { return digamma_reference(x); }, -10, 30, 1.0);
  two(
      "pow", [](V x, V y) { return math::pow(x, y); }, [](__float128 x, __float128 y) { return powq(x, y); },
      0, 5, -300, 300);
  two(
      "atan2", [](V x, V y) { return math::atan2(x, y); },
      [](__float128 x, __float128 y) { return atan2q(x, y); }, -2, 2, -2, 2);
  two(
      "fmod", [](V x, V y) { return math::fmod(x, y); },
      [](__float128 x, __float128 y) { return fmodq(x, y); }, -100, 100, -3, 3);
  two(
      "hypot", [](V x, V y) { return math::hypot(x, y); },
      [](__float128 x, __float128 y) { return hypotq(x, y); }, -3, 3, -3, 3);
}

}  // namespace

int main(int argc, char** argv) {
  uint64_t stride = 1, samples = 10'000'000, seed = 1;
  std::vector<std::string> names;
  for (int i = 1; i < argc; ++i) {
    const auto number = [&](uint64_t* to) {
      if (i + 1 < argc) *to = std::strtoull(argv[++i], nullptr, 10);
    };
    if (!std::strcmp(argv[i], "--stride"))
      number(&stride);
    else if (!std::strcmp(argv[i], "--samples"))
      number(&samples);
    else if (!std::strcmp(argv[i], "--seed"))
      number(&seed);
    else
      names.push_back(argv[i]);
  }
  list_cases();
  std::printf("| function | type | arguments | max ulp | at |\n|---|---|---|---|---|\n");
  const unsigned threads = std::max(1u, std::thread::hardware_concurrency());
  for (const Case& c : cases) {
    if (!names.empty() && std::find(names.begin(), names.end(), c.name) == names.end()) continue;
    std::vector<Worst> worst(threads);
    std::vector<std::thread> pool;
    const uint64_t total = c.single ? (uint64_t{1} << 32) / stride : samples;
    for (unsigned t = 0; t < threads; ++t) {
      pool.emplace_back([&, t] {
        const uint64_t share = total / threads;
        worst[t] = c.single ? c.single(static_cast<uint32_t>(t * share * stride), share,
                                       static_cast<uint32_t>(stride))
                            : c.wide(share, seed * 1000 + t);
      });
    }
    for (auto& t : pool) t.join();
    Worst all;
    for (const Worst& w : worst) all.see(w.error, w.x, w.y);
    std::printf("| %s | %s | %.3g | %.3f | %.17g %.17g |\n", c.name, c.type, static_cast<double>(total),
                all.error, all.x, all.y);
    std::fflush(stdout);
  }
  return 0;
}
