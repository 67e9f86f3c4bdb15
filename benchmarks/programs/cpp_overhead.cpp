// The overhead of small calls from C++, one source for both systems. Prints "name<TAB>nanoseconds" a line.
// Compiled with -DLOHE_BENCHMARK against Lohe, without it against libtorch.
#ifdef LOHE_BENCHMARK
#include <lohe/lohe.h>
namespace torch = lohe;
#else
#include <torch/torch.h>
#endif

#include <algorithm>
#include <chrono>
#include <cstdio>

template <class Body>
static void measure(const char* name, Body body) {
  using Clock = std::chrono::steady_clock;
  constexpr long kBlockNanoseconds = 50'000'000;
  long repetitions = 1000;
  for (long round = 0; round < 2; ++round) {  // the first round warms up and finds the number of repetitions
    auto start = Clock::now();
    for (long i = 0; i < repetitions; ++i) body();
    double elapsed = std::chrono::duration<double, std::nano>(Clock::now() - start).count();
    if (round == 1) std::printf("%s\t%.3f\n", name, elapsed / static_cast<double>(repetitions));
    repetitions = std::max<long>(1000, static_cast<long>(kBlockNanoseconds / (elapsed / repetitions)));
  }
}

int main() {
  torch::set_num_threads(1);
  auto a = torch::randn({4});
  auto b = torch::randn({4});
  auto m = torch::randn({2, 2});
  measure("a + b", [&] { auto c = a + b; });
  measure("a * 2.0", [&] { auto c = a * 2.0; });
  measure("a.slice(0, 1, 3)", [&] { auto c = a.slice(0, 1, 3); });
  measure("a.view({2, 2})", [&] { auto c = a.view({2, 2}); });
  measure("m.transpose(0, 1)", [&] { auto c = m.transpose(0, 1); });
  measure("a.add_(b)", [&] { a.add_(b); });
  measure("torch::empty({4})", [&] { auto c = torch::empty({4}); });
  auto leaf = torch::randn({4}).requires_grad_(true);
  measure("a + b with gradient", [&] { auto c = leaf + b; });
  torch::nn::Linear layer(8, 8);
  auto x = torch::randn({1, 8});
  measure("Linear(8, 8)(x)", [&] { auto y = layer->forward(x); });
  torch::nn::Linear first(8, 8);
  torch::nn::Linear second(8, 8);
  auto batch = torch::randn({8, 8});
  measure("MLP 8-8-8 forward and backward",
          [&] { second->forward(torch::relu(first->forward(batch))).sum().backward(); });
}
