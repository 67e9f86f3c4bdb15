// Random programs under recording: `tools/fuzz traces` runs it. Prints the seeds whose results differ.

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "lohe/compile.h"
#include "random_trace.h"

namespace {

using lohe::testing::Outcome;
using lohe::testing::RandomTrace;

struct Options {
  uint64_t first = 0, count = 1000;
  bool compiled = false, large = false;
  int threads = 1;
};

/// Whether the program of a seed comes out alike; every run of a compiled one is met anew, or found.
bool same(uint64_t seed, const Options& o, int sizes) {
  lohe::record::Settings& s = lohe::record::settings();
  lohe::set_num_threads(1);
  Outcome want;
  try {
    want = RandomTrace(seed, o.large, sizes).run(false, 0, 0);
  } catch (const std::exception& e) {
    // A program now and then broadcasts and joins until nothing can hold what it asks for.
    if (std::strstr(e.what(), "out of CPU memory") == nullptr) throw;
    std::printf("seed %llu asks for more memory than there is\n", static_cast<unsigned long long>(seed));
    return true;
  }
  s.compile_at = o.compiled ? 1 : 1'000'000'000;
  s.strict = true;
  s.recompute_from = 0;
  s.fuse = seed % 8 != 7;
  s.plan_memory = seed % 8 != 6;
  static constexpr int often[] = {0, 0, 8, 3};
  lohe::set_num_threads(o.threads);
  const Outcome got = RandomTrace(seed, o.large, sizes).run(true, often[seed % 4], seed);
  return got == want;
}
/// Compiled: also on other sizes, for some.
bool same(uint64_t seed, const Options& o) {
  const int variants = o.compiled && seed % 4 < 2 ? 3 : 1;
  for (int sizes = 0; sizes < variants; ++sizes) {
    if (!same(seed, o, sizes)) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Options o;
  for (int i = 1; i < argc; ++i) {
    const auto number = [&] { return i + 1 < argc ? std::strtoull(argv[++i], nullptr, 10) : 0; };
    if (std::strcmp(argv[i], "--first") == 0)
      o.first = number();
    else if (std::strcmp(argv[i], "--count") == 0)
      o.count = number();
    else if (std::strcmp(argv[i], "--threads") == 0)
      o.threads = static_cast<int>(number());
    else if (std::strcmp(argv[i], "--compiled") == 0)
      o.compiled = true;
    else if (std::strcmp(argv[i], "--large") == 0)
      o.large = true;
    else {
      std::printf("usage: trace_fuzz_tool [--first SEED] [--count N] [--compiled] [--large] [--threads N]\n");
      return 2;
    }
  }
  uint64_t wrong = 0;
  for (uint64_t seed = o.first; seed < o.first + o.count; ++seed) {
    bool ok = false;
    try {
      ok = same(seed, o);
    } catch (const std::exception& e) {
      std::printf("seed %llu: %s\n", static_cast<unsigned long long>(seed), e.what());
    }
    if (!ok && ++wrong <= 20) std::printf("seed %llu differs\n", static_cast<unsigned long long>(seed));
    if (seed % 64 == 0) lohe::reset_compiler();
  }
  std::printf("%llu programs, %llu differ\n", static_cast<unsigned long long>(o.count),
              static_cast<unsigned long long>(wrong));
  return wrong == 0 ? 0 : 1;
}
