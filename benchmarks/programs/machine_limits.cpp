// What this machine can do at best, for the limits in the tables.
//   machine_limits flops THREADS          -> float32 FMA rate, FLOP/s
//   machine_limits traffic READ WRITTEN THREADS -> time of a loop that reads and writes so many bytes, s
// The best of many short repetitions: a limit, not an average.
#include <immintrin.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#if defined(__AVX512F__)
using Vector = __m512;
inline Vector fma(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
inline Vector load(const float* p) { return _mm512_loadu_ps(p); }
inline void stream(float* p, Vector v) { _mm512_stream_ps(p, v); }
#elif defined(__AVX2__) && defined(__FMA__)
using Vector = __m256;
inline Vector fma(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
inline Vector load(const float* p) { return _mm256_loadu_ps(p); }
inline void stream(float* p, Vector v) { _mm256_stream_ps(p, v); }
#else
using Vector = __m128;
inline Vector fma(Vector a, Vector b, Vector c) { return _mm_add_ps(_mm_mul_ps(a, b), c); }
inline Vector load(const float* p) { return _mm_loadu_ps(p); }
inline void stream(float* p, Vector v) { _mm_stream_ps(p, v); }
#endif

constexpr size_t kLanes = sizeof(Vector) / sizeof(float);

static double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

static double on_threads(int threads, const std::function<void(int)>& body) {
  std::vector<std::thread> others;
  double start = seconds();
  for (int i = 1; i < threads; ++i) others.emplace_back(body, i);
  body(0);
  for (auto& t : others) t.join();
  return seconds() - start;
}

static double fma_rate(int threads) {
  // 12 independent chains cover the latency of two FMA units; more would not fit 16 registers.
  constexpr int kChains = 12;
  constexpr long kSteps = 20'000'000;
  std::vector<float> start(kLanes, 0.5F);
  double best = 1e30;
  for (int repeat = 0; repeat < 5; ++repeat) {
    best = std::min(best, on_threads(threads, [&](int) {
                      Vector acc[kChains];
                      Vector a = load(start.data());
                      for (auto& v : acc) v = a;
                      for (long i = 0; i < kSteps; ++i) {
#pragma GCC unroll 12
                        for (int c = 0; c < kChains; ++c) acc[c] = fma(acc[c], a, a);
                      }
                      for (auto& v : acc) asm volatile("" ::"x"(v));
                    }));
  }
  return 2.0 * kChains * kLanes * kSteps * threads / best;
}

static float* filled(size_t count) {
  size_t bytes = std::max<size_t>(4096, (count * sizeof(float) + 4095) / 4096 * 4096);
  auto* p = static_cast<float*>(std::aligned_alloc(4096, bytes));
  std::memset(p, 1, bytes);
  return p;
}

// The part that is both read and written is copied; what is left of either is summed or filled.
static double traffic_time(size_t read, size_t written, int threads) {
  auto share = [&](size_t bytes) { return bytes / sizeof(float) / kLanes / threads * kLanes; };
  size_t in = share(read);
  size_t out = share(written);
  size_t both = std::min(in, out);
  std::vector<float*> from, to;
  for (int i = 0; i < threads; ++i) {
    from.push_back(filled(in));
    to.push_back(filled(out));
  }
  long repeats = std::max<long>(1, (64L << 20) / static_cast<long>(read + written + 1));
  double best = 1e30;
  for (int trial = 0; trial < 12; ++trial) {
    bool streaming = trial % 2 == 1;
    double elapsed = on_threads(threads, [&](int i) {
      const float* source = from[i];
      float* target = to[i];
      for (long r = 0; r < repeats; ++r) {
        if (streaming) {
          for (size_t k = 0; k < both; k += kLanes) stream(target + k, load(source + k));
          for (size_t k = both; k < out; k += kLanes) stream(target + k, Vector{});
        } else {
          std::memcpy(target, source, both * sizeof(float));
          std::memset(target + both, 0, (out - both) * sizeof(float));
        }
        Vector sums[4] = {};
        size_t k = both;
        for (; k + 4 * kLanes <= in; k += 4 * kLanes) {
          for (size_t c = 0; c < 4; ++c) sums[c] += load(source + k + c * kLanes);
        }
        for (auto& v : sums) asm volatile("" ::"x"(v) : "memory");
      }
    });
    best = std::min(best, elapsed / repeats);
  }
  return best;
}

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "flops") {
    std::printf("%.6e\n", fma_rate(std::atoi(argv[2])));
  } else if (argc == 5 && std::string(argv[1]) == "traffic") {
    size_t read = std::strtoull(argv[2], nullptr, 10);
    std::printf("%.6e\n", traffic_time(read, std::strtoull(argv[3], nullptr, 10), std::atoi(argv[4])));
  } else {
    std::fprintf(stderr, "usage: machine_limits flops THREADS | traffic READ WRITTEN THREADS\n");
    return 2;
  }
}
