// Measures the elementary functions, as ops run them, against references and prints a Markdown table of the
// largest error of every function.
//
//   math_accuracy [--stride N] [--samples N] [--seed N] [--threads N] [--type TYPE] [name...]
//
// float16, bfloat16: all arguments. float32 functions of one argument: every N-th of the 2^32 arguments (N =
// 1: all). float64 functions, and those of two arguments: stratified samples, one at a random place of each
// of N equal cells; half of the cells divide the bit patterns, so that every magnitude has its share, half
// the range where the function is interesting. ulp.h says how errors count.
//
// References in three steps, each asked only where the one before cannot exclude a new largest error: for
// float32 the vector functions of the C library in float64, then its scalar ones; for float64 its 80-bit
// functions, then libquadmath's 113 bits.
#include <lohe/lohe.h>
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

#include "math_references.h"
#include "ulp.h"

namespace {

using lohe::Tensor;
using lohe::testing::Format;
using lohe::testing::ulps;

constexpr int64_t kBlock = 1 << 14;

struct Worst {
  double error = 0, x = 0, y = 0;
  void see(double e, double at, double at_y = 0) {
    if (!(e <= error)) *this = {e, at, at_y};
  }
};

struct Options {
  uint64_t stride = 1, samples = 100'000'000, seed = 1;
  unsigned threads = std::max(1u, std::thread::hardware_concurrency());
};

/// A part of the arguments: those with index first, first + 1, ... below last of `count` in all.
struct Share {
  uint64_t first, last, count, seed;
};

using UnaryOp = std::function<Tensor(const Tensor&)>;
using BinaryOp = std::function<Tensor(const Tensor&, const Tensor&)>;

template <class T>
constexpr lohe::Dtype kDtypeOf = std::is_same_v<T, float> ? lohe::kFloat32 : lohe::kFloat64;

template <class T>
Tensor view(T* data, int64_t n) {
  return lohe::from_blob(data, {n}, kDtypeOf<T>);
}

/// The number whose bits are `place` of the way (0 to 1, in units of 2^-64) through all patterns.
template <class T>
T of_pattern(uint64_t place) {
  if constexpr (sizeof(T) == 4)
    return std::bit_cast<float>(static_cast<uint32_t>(place >> 32));
  else
    return std::bit_cast<double>(place);
}

/// Which cell the i-th of `count` samples is in, as a fraction of all, with a random place inside the cell.
uint64_t place_in_cell(uint64_t i, uint64_t count, std::mt19937_64& random) {
  const __uint128_t width = ((__uint128_t{1} << 64) + count - 1) / count;
  const __uint128_t at = width * i + width * (random() >> 32) / (uint64_t{1} << 32);
  return static_cast<uint64_t>(std::min(at, (__uint128_t{1} << 64) - 1));
}

/// The i-th of `count` samples.
template <class T>
T stratified(uint64_t i, uint64_t count, double low, double high, std::mt19937_64& random) {
  const uint64_t half = count / 2;
  if (i < half) return of_pattern<T>(place_in_cell(i, half, random));
  const double place = static_cast<double>(place_in_cell(i - half, count - half, random)) * 0x1p-64;
  return static_cast<T>(low + (high - low) * place);
}

// ---- functions of one argument

Worst run_single(const UnaryOp& op, const References& reference, double least, Share share, uint64_t stride) {
  Worst worst;
  std::vector<float> in(kBlock);
  std::vector<double> wide(kBlock), want(kBlock), error(kBlock);
  for (uint64_t i = share.first; i < share.last; i += kBlock) {
    const int64_t n = std::min<int64_t>(kBlock, static_cast<int64_t>(share.last - i));
    for (int64_t j = 0; j < n; ++j) {
      in[j] = std::bit_cast<float>(static_cast<uint32_t>((i + static_cast<uint64_t>(j)) * stride));
      wide[j] = in[j];
    }
    const Tensor result = op(view(in.data(), n));
    const float* out = result.const_data_ptr<float>();
    reference.block(wide.data(), out, want.data(), n);
    if (float_errors(out, want.data(), least, error.data(), n) <= worst.error) continue;
    for (int64_t j = 0; j < n; ++j)
      if (!(error[j] <= worst.error)) worst.see(ulps(out[j], reference.scalar(in[j]), least), in[j]);
  }
  return worst;
}

Worst run_half(const UnaryOp& op, const References& reference, double least, lohe::Dtype dtype) {
  Worst worst;
  std::vector<int16_t> bits(65536);
  for (int i = 0; i < 65536; ++i) bits[i] = static_cast<int16_t>(i);
  const Tensor x = lohe::from_blob(bits.data(), {65536}, dtype);
  const Tensor in = x.to(lohe::kFloat32), out = op(x).to(lohe::kFloat32);
  const Format format = dtype == lohe::kFloat16 ? Format{11, -13, 16} : Format{8, -125, 128};
  for (int i = 0; i < 65536; ++i) {
    const double at = in.const_data_ptr<float>()[i];
    worst.see(ulps(format, out.const_data_ptr<float>()[i], reference.scalar(at), least), at);
  }
  return worst;
}

Worst run_double(const UnaryOp& op, const References& reference, double low, double high, double least,
                 Share share) {
  Worst worst;
  std::mt19937_64 random(share.seed);
  std::vector<double> in(kBlock);
  for (uint64_t i = share.first; i < share.last; i += kBlock) {
    const int64_t n = std::min<int64_t>(kBlock, static_cast<int64_t>(share.last - i));
    for (int64_t j = 0; j < n; ++j)
      in[j] = stratified<double>(i + static_cast<uint64_t>(j), share.count, low, high, random);
    const Tensor result = op(view(in.data(), n));
    const double* out = result.const_data_ptr<double>();
    for (int64_t j = 0; j < n; ++j) {
      // The 80-bit functions err by a few units of 2^-11 ulp.
      if (reference.extended &&
          ulps(out[j], reference.extended(static_cast<long double>(in[j])), least) < worst.error - 0x1p-8)
        continue;
      worst.see(ulps(out[j], reference.quad(static_cast<__float128>(in[j])), least), in[j]);
    }
  }
  return worst;
}

// ---- functions of two arguments

template <class T, class Near, class Exact>
Worst run_two(const BinaryOp& op, const Near& near, const Exact& exact, const double (&range)[4],
              Share share) {
  Worst worst;
  std::mt19937_64 random(share.seed);
  std::vector<T> x(kBlock), y(kBlock);
  const auto side = static_cast<uint64_t>(std::sqrt(static_cast<double>(share.count)));
  for (uint64_t i = share.first; i < share.last; i += kBlock) {
    const int64_t n = std::min<int64_t>(kBlock, static_cast<int64_t>(share.last - i));
    for (int64_t j = 0; j < n; ++j) {  // a square of cells
      const uint64_t cell = i + static_cast<uint64_t>(j);
      x[j] = stratified<T>(cell / side % side, side, range[0], range[1], random);
      y[j] = stratified<T>(cell % side, side, range[2], range[3], random);
    }
    const Tensor result = op(view(x.data(), n), view(y.data(), n));
    const T* out = result.template const_data_ptr<T>();
    for (int64_t j = 0; j < n; ++j) {
      if (ulps(out[j], near(x[j], y[j])) < worst.error - 0x1p-8) continue;
      worst.see(ulps(out[j], exact(static_cast<__float128>(x[j]), static_cast<__float128>(y[j]))), x[j],
                y[j]);
    }
  }
  return worst;
}

// ---- the table

struct Row {
  std::string name, type;
  uint64_t arguments;
  std::function<Worst(Share)> run;
};

std::vector<Row> rows(const Options& options) {
  std::vector<Row> all;
  const uint64_t exhaustive = (uint64_t{1} << 32) / options.stride;
  const auto one = [&](const char* name, UnaryOp op, References reference, double low, double high,
                       double least = 0) {
    for (const lohe::Dtype dtype : {lohe::kFloat16, lohe::kBFloat16})
      all.push_back({name, dtype == lohe::kFloat16 ? "float16" : "bfloat16", 65536, [=](Share share) {
                       return share.first ? Worst() : run_half(op, reference, least, dtype);
                     }});
    all.push_back({name, "float32", exhaustive,
                   [=](Share share) { return run_single(op, reference, least, share, options.stride); }});
    all.push_back({name, "float64", options.samples,
                   [=](Share share) { return run_double(op, reference, low, high, least, share); }});
  };
  const auto two = [&](const char* name, BinaryOp op, auto near32, auto near64, auto exact, double ax,
                       double bx, double ay, double by) {
    all.push_back({name, "float32", options.samples,
                   [=](Share share) { return run_two<float>(op, near32, exact, {ax, bx, ay, by}, share); }});
    all.push_back({name, "float64", options.samples,
                   [=](Share share) { return run_two<double>(op, near64, exact, {ax, bx, ay, by}, share); }});
  };
#define ONE(name, ...) \
  one(#name, [](const Tensor& x) { return lohe::name(x); }, references_##name(), __VA_ARGS__)
#define TWO(name, ...)                                                          \
  two(                                                                          \
      #name, [](const Tensor& x, const Tensor& y) { return lohe::name(x, y); }, \
      [](double x, double y) { return std::name(x, y); },                       \
      [](long double x, long double y) { return std::name(x, y); },             \
      [](__float128 x, __float128 y) { return name##q(x, y); }, __VA_ARGS__)
  ONE(exp, -750, 710);
  ONE(exp2, -1080, 1024);
  ONE(expm1, -3, 3);
  ONE(log, 0, 3);
  ONE(log2, 0, 3);
  ONE(log10, 0, 3);
  ONE(log1p, -1, 3);
  ONE(sin, -100, 100);
  ONE(cos, -100, 100);
  ONE(tan, -100, 100);
  ONE(asin, -1, 1);
  ONE(acos, -1, 1);
  ONE(atan, -3, 3);
  ONE(sinh, -5, 5);
  ONE(cosh, -5, 5);
  ONE(tanh, -5, 5);
  ONE(asinh, -5, 5);
  ONE(acosh, 1, 5);
  ONE(atanh, -1, 1);
  ONE(sigmoid, -50, 50);
  ONE(rsqrt, 0, 4);
  ONE(erf, -6, 6);
  ONE(erfc, -5, 27.5);
  ONE(erfinv, -1, 1);
  ONE(lgamma, -10, 30, 1.0);
  ONE(digamma, -10, 30, 1.0);
  TWO(pow, 0, 5, -300, 300);
  TWO(atan2, -2, 2, -2, 2);
  TWO(fmod, -100, 100, -3, 3);
  TWO(hypot, -3, 3, -3, 3);
#undef ONE
#undef TWO
  return all;
}

Worst measure(const Row& row, const Options& options) {
  std::vector<Worst> worst(options.threads);
  std::vector<std::thread> pool;
  for (unsigned t = 0; t < options.threads; ++t) {
    const uint64_t first = row.arguments / options.threads * t;
    const uint64_t last =
        t + 1 == options.threads ? row.arguments : row.arguments / options.threads * (t + 1);
    pool.emplace_back([&, t, first, last] {
      const lohe::NoGradGuard no_gradient;
      worst[t] = row.run({first, last, row.arguments, options.seed * 1000 + t});
    });
  }
  for (auto& t : pool) t.join();
  Worst all;
  for (const Worst& w : worst) all.see(w.error, w.x, w.y);
  return all;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  std::vector<std::string> names, types;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const bool last = i + 1 == argc;
    const auto number = [&] { return std::strtoull(argv[++i], nullptr, 10); };
    if (word == "--stride" && !last)
      options.stride = std::max<uint64_t>(number(), 1);
    else if (word == "--samples" && !last)
      options.samples = number();
    else if (word == "--seed" && !last)
      options.seed = number();
    else if (word == "--threads" && !last)
      options.threads = std::max(1u, static_cast<unsigned>(number()));
    else if (word == "--type" && !last)
      types.emplace_back(argv[++i]);
    else
      names.push_back(word);
  }
  const auto wanted = [](const std::vector<std::string>& list, const std::string& x) {
    return list.empty() || std::find(list.begin(), list.end(), x) != list.end();
  };
  const std::vector<Row> table = rows(options);
  for (const std::string& name : names) {
    if (std::any_of(table.begin(), table.end(), [&](const Row& row) { return row.name == name; })) continue;
    std::fprintf(stderr, "math_accuracy: no function or option '%s'\n", name.c_str());
    return 2;
  }
  lohe::set_num_threads(1);  // the threads here each run ops of their own
  std::printf("| function | type | arguments | max ulp | at |\n|---|---|---|---|---|\n");
  for (const Row& row : table) {
    if (!wanted(names, row.name) || !wanted(types, row.type)) continue;
    const Worst worst = measure(row, options);
    std::printf("| %s | %s | %llu | %.3f | %.17g %.17g |\n", row.name.c_str(), row.type.c_str(),
                static_cast<unsigned long long>(row.arguments), worst.error, worst.x, worst.y);
    std::fflush(stdout);
  }
  return 0;
}
