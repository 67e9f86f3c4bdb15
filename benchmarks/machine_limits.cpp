// What this machine can do at best, for the limits in the tables.
//   machine_limits flops THREADS          -> float32 FMA rate, FLOP/s
//   machine_limits bandwidth BYTES THREADS -> rate of a copy that moves BYTES (half read, half written), bytes/s
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

static double copy_rate(size_t bytes, int threads) {
  size_t count = std::max<size_t>(bytes / 2 / sizeof(float) / kLanes / threads * kLanes, kLanes);
  std::vector<float*> from, to;
  for (int i = 0; i < threads; ++i) {
    for (auto* side : {&from, &to}) {
      auto* p = static_cast<float*>(std::aligned_alloc(4096, (count * sizeof(float) + 4095) / 4096 * 4096));
      std::memset(p, 1, count * sizeof(float));
      side->push_back(p);
    }
  }
  long repeats = std::max<long>(1, (64L << 20) / static_cast<long>(bytes + 1));
  double best = 1e30;
  for (int trial = 0; trial < 12; ++trial) {
    bool streaming = trial % 2 == 1;
    double elapsed = on_threads(threads, [&](int i) {
      for (long r = 0; r < repeats; ++r) {
        if (streaming) {
          for (size_t k = 0; k < count; k += kLanes) stream(to[i] + k, load(from[i] + k));
        } else {
          std::memcpy(to[i], from[i], count * sizeof(float));
        }
        asm volatile("" ::: "memory");
      }
    });
    best = std::min(best, elapsed / repeats);
  }
  return 2.0 * sizeof(float) * count * threads / best;
}

int main(int argc, char** argv) {
  if (argc == 3 && std::string(argv[1]) == "flops") {
    std::printf("%.6e\n", fma_rate(std::atoi(argv[2])));
  } else if (argc == 4 && std::string(argv[1]) == "bandwidth") {
    std::printf("%.6e\n", copy_rate(std::strtoull(argv[2], nullptr, 10), std::atoi(argv[3])));
  } else {
    std::fprintf(stderr, "usage: machine_limits flops THREADS | bandwidth BYTES THREADS\n");
    return 2;
  }
}
