// Prints how long a store takes to be answered by the process's second processor, to and fro, in nanoseconds:
// the least of some rounds. Nothing is printed where there is one processor only.
#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <thread>

namespace {

alignas(128) std::atomic<int> asked{0};
alignas(128) std::atomic<int> answered{0};

void pin(int processor) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(processor, &set);
  pthread_setaffinity_np(pthread_self(), sizeof set, &set);
}

}  // namespace

int main() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0 || CPU_COUNT(&allowed) < 2) return 0;
  int processors[2], found = 0;
  for (int i = 0; found < 2; ++i) {
    if (CPU_ISSET(i, &allowed)) processors[found++] = i;
  }
  constexpr int kRounds = 5, kTrips = 1000;
  std::thread other([&] {
    pin(processors[1]);
    for (int n = 0; n < kRounds * kTrips;) {
      if (const int now = asked.load(); now != n) answered.store(n = now);
    }
  });
  pin(processors[0]);
  double least = 1e9;
  for (int round = 0, n = 0; round < kRounds; ++round) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kTrips; ++i) {
      asked.store(++n);
      while (answered.load() != n) {
      }
    }
    const auto time = std::chrono::steady_clock::now() - start;
    least = std::min(least, std::chrono::duration<double, std::nano>(time).count() / kTrips);
  }
  other.join();
  std::printf("%.0f\n", least);
}
