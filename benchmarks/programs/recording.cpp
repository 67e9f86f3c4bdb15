// What compile() costs beside its kernels, from C++. Prints "name<TAB>nanoseconds" a line.
#include <lohe/lohe.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <limits>

namespace torch = lohe;

static double now() {
  return std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

int main() {
  torch::set_num_threads(1);
  const torch::NoGradGuard no_grad;
  const auto x = torch::randn({64}), y = torch::randn({64}), z = torch::randn({64});

  // A step's worth of operations is written down; doing them is not measured.
  constexpr int kOperations = 300, kRounds = 400;
  double best = std::numeric_limits<double>::infinity();
  for (int round = 0; round < kRounds; ++round) {
    torch::Lazy lazy;
    torch::Tensor value = x;
    const double start = now();
    for (int i = 0; i < kOperations; ++i) value = value + y;
    best = std::min(best, (now() - start) / kOperations);
    lazy.end();
  }
  std::printf("record an operation\t%.3f\n", best);

  auto three = torch::compile([&](const torch::Tensor& t) { return torch::relu(t * y + z); });
  const auto eager = [&](const torch::Tensor& t) { return torch::relu(t * y + z); };
  const auto time = [&](auto& f) {
    constexpr int kCalls = 200;
    double fastest = std::numeric_limits<double>::infinity();
    for (int round = 0; round < kRounds; ++round) {
      const double start = now();
      for (int i = 0; i < kCalls; ++i) f(x);
      fastest = std::min(fastest, (now() - start) / kCalls);
    }
    return fastest;
  };
  std::printf("call a compiled function of three operations\t%.3f\n", time(three));
  std::printf("the same function, eager\t%.3f\n", time(eager));
}
