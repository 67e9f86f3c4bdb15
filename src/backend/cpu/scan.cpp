#include "backend/cpu/scan.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "backend/cpu/element.h"
#include "base/threads.h"
#include "lohe/error.h"
#include "tensor/half.h"

namespace lohe::backend {
namespace {

/// Elements that are worth a thread.
constexpr int64_t kGrain = 16384;
/// Neighbouring lines that run beside each other.
constexpr int64_t kTogether = 256;
/// Lines far apart: as many as hide the latency of an addition.
constexpr int64_t kFarTogether = 4;

/// What running values are kept in.
template <class T>
struct Running {
  using type = std::conditional_t<std::is_integral_v<T>, uint64_t, T>;
};
template <>
struct Running<Float16> {
  using type = float;
};
template <>
struct Running<BFloat16> {
  using type = float;
};
template <>
struct Running<float> {
  using type = double;
};
template <>
struct Running<std::complex<float>> {
  using type = std::complex<double>;
};

template <class T, class R = typename Running<T>::type>
R widened(T v) {
  if constexpr (kIsHalf<T>)
    return static_cast<float>(v);
  else
    return static_cast<R>(v);
}
template <class T, class R>
T rounded(R v) {
  return static_cast<T>(v);
}

template <class R>
R product(R a, R b) {
  if constexpr (kIsComplex<R>)  // std::complex would look for infinities
    return R(a.real() * b.real() - a.imag() * b.imag(), a.real() * b.imag() + a.imag() * b.real());
  else
    return a * b;
}

// A scan says what is carried from element to element (State) and how an element changes it. `position` is
// written where kPositions says so; `second` is the second input where there are two.

template <class T>
struct Sum {
  using State = typename Running<T>::type;
  static constexpr bool kTwoInputs = false, kPositions = false;
  static State start() { return State(0); }
  static void step(State& s, T in, T, T& out, int64_t&, int64_t) {
    s += widened(in);
    out = rounded<T>(s);
  }
};

template <class T>
struct Product {
  using State = typename Running<T>::type;
  static constexpr bool kTwoInputs = false, kPositions = false;
  static State start() { return State(1); }
  static void step(State& s, T in, T, T& out, int64_t&, int64_t) {
    s = product(s, widened(in));
    out = rounded<T>(s);
  }
};

template <class T>
struct Recurrence {
  using State = typename Running<T>::type;
  static constexpr bool kTwoInputs = true, kPositions = false;
  static State start() { return State(0); }
  static void step(State& s, T factor, T term, T& out, int64_t&, int64_t i) {
    s = i == 0 ? widened(term) : product(s, widened(factor)) + widened(term);
    out = rounded<T>(s);
  }
};

template <class T>
bool not_a_number(T v) {
  if constexpr (std::is_integral_v<T>)
    return false;
  else
    return v != v;
}

template <class T, bool kLargest>
struct Extreme {
  using Number = std::conditional_t<kIsHalf<T>, float, T>;
  static constexpr bool kTwoInputs = false, kPositions = true;
  struct State {
    T value;
    int64_t position;
  };
  static State start() { return {T{}, -1}; }
  static void step(State& s, T in, T, T& out, int64_t& position, int64_t i) {
    const auto now = static_cast<Number>(in), best = static_cast<Number>(s.value);
    const bool wins = kLargest ? now >= best : now <= best;
    if (i == 0 || not_a_number(now) || (!not_a_number(best) && wins)) s = {in, i};
    out = s.value;
    position = s.position;
  }
};

template <class T>
struct Branch {
  using State = typename Running<T>::type;
  static constexpr bool kTwoInputs = true, kPositions = false;
  static State start() { return State(0); }
  static void step(State& s, T addend, T principal, T& out, int64_t&, int64_t i) {
    constexpr double turn = 6.283185307179586;
    const State x = widened(addend), y = widened(principal);
    const double near = i == 0 || x.real() >= s.real() ? x.imag() : s.imag();
    const double turns = std::nearbyint((near - y.imag()) / turn);
    s = State(y.real(), std::isfinite(turns) ? y.imag() + turn * turns : y.imag());
    out = rounded<T>(s);
  }
};

/// Where the elements of the lines at `at` lie, one after the other.
struct Place {
  const char* in;
  const char* second;
  char* out;
  char* positions;
  std::array<int64_t, 4> steps;

  Place(const ScanLines& x, const std::array<int64_t, 4>& at) : steps(x.steps) {
    const int64_t first = x.reverse ? x.length - 1 : 0;
    in = x.input[0] + at[0] + first * steps[0];
    second = x.input[1] + at[1] + first * steps[1];
    out = x.output[0] + at[2] + first * steps[2];
    positions = x.output[1] + at[3] + first * steps[3];
    for (int64_t& step : steps) step = x.reverse ? -step : step;
  }
  void next() {
    in += steps[0];
    second += steps[1];
    out += steps[2];
    positions += steps[3];
  }
};

/// Running values of `n` lines that lie line_strides apart, beside each other; kLines is n where that is
/// known to the compiler, so that the values stay in registers, and otherwise 0.
template <class Scan, class T, int64_t kLines>
void run_beside(const ScanLines& x, const std::array<int64_t, 4>& at, int64_t n,
                const std::array<int64_t, 4>& line_strides) {
  constexpr int64_t room = kLines == 0 ? kTogether : kLines;
  if (kLines != 0) n = kLines;
  typename Scan::State states[room];
  for (int64_t l = 0; l < n; ++l) states[l] = Scan::start();
  const auto [a, b, c, d] = line_strides;
  Place p(x, at);
  for (int64_t i = 0; i < x.length; ++i, p.next()) {
#pragma GCC unroll 4
    for (int64_t l = 0; l < n; ++l) {
      T out, second{};
      int64_t position = 0;
      if constexpr (Scan::kTwoInputs) second = load<T>(p.second + l * b);
      Scan::step(states[l], load<T>(p.in + l * a), second, out, position, i);
      store(p.out + l * c, out);
      if constexpr (Scan::kPositions) store(p.positions + l * d, position);
    }
  }
}

/// The same for kTogether dense neighbours. They pass through local memory, which nothing can alias, so that
/// the compiler makes vectors of them.
template <class Scan, class T>
void run_dense(const ScanLines& x, const std::array<int64_t, 4>& at) {
  typename Scan::State states[kTogether];
  for (int64_t l = 0; l < kTogether; ++l) states[l] = Scan::start();
  T in[kTogether], second[Scan::kTwoInputs ? kTogether : 1] = {}, out[kTogether];
  int64_t positions[Scan::kPositions ? kTogether : 1];
  Place p(x, at);
  for (int64_t i = 0; i < x.length; ++i, p.next()) {
    std::memcpy(in, p.in, sizeof(in));
    if constexpr (Scan::kTwoInputs) std::memcpy(second, p.second, sizeof(second));
    for (int64_t l = 0; l < kTogether; ++l)
      Scan::step(states[l], in[l], second[Scan::kTwoInputs ? l : 0], out[l],
                 positions[Scan::kPositions ? l : 0], i);
    std::memcpy(p.out, out, sizeof(out));
    if constexpr (Scan::kPositions) std::memcpy(p.positions, positions, sizeof(positions));
  }
}

template <class Scan, class T>
void run(const ScanLines& x) {
  if (x.lines.count() == 0 || x.length == 0) return;
  constexpr auto size = static_cast<int64_t>(sizeof(T));
  const std::array<int64_t, 4> strides = x.lines.run_strides();
  const bool across = std::abs(strides[0]) < std::abs(x.steps[0]);
  const bool dense = across && strides[0] == size && strides[2] == size &&
                     (x.input[1] == nullptr || strides[1] == size) &&
                     (x.output[1] == nullptr || strides[3] == 8);
  const int64_t together = across ? kTogether : kFarTogether;
  parallel_for(x.lines.count(), std::max<int64_t>(kGrain / x.length, 1), [&](int64_t begin, int64_t end) {
    x.lines.range(begin, end, [&](std::array<int64_t, 4> at, int64_t n) {
      while (n > 0) {
        const int64_t m = std::min(together, n);
        if (dense && m == kTogether)
          run_dense<Scan, T>(x, at);
        else if (m == kFarTogether)
          run_beside<Scan, T, kFarTogether>(x, at, m, strides);
        else if (m == 1)
          run_beside<Scan, T, 1>(x, at, m, strides);
        else
          run_beside<Scan, T, 0>(x, at, m, strides);
        for (size_t k = 0; k < 4; ++k) at[k] += m * strides[k];
        n -= m;
      }
    });
  });
}

template <template <class> class Scan>
void visit_sums(const ScanLines& x, Dtype dtype) {
  visit_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_same_v<T, bool>)
      raise(ErrorKind::kInternal, "bool has no running sum");
    else
      run<Scan<T>, T>(x);
  });
}

}  // namespace

void running_sum(const ScanLines& x, Dtype dtype) { visit_sums<Sum>(x, dtype); }

void running_product(const ScanLines& x, Dtype dtype) { visit_sums<Product>(x, dtype); }

void running_extreme(const ScanLines& x, Dtype dtype, bool largest) {
  visit_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (kIsComplex<T>)
      raise(ErrorKind::kInternal, "complex numbers have no order");
    else if (largest)
      run<Extreme<T, true>, T>(x);
    else
      run<Extreme<T, false>, T>(x);
  });
}

void linear_recurrence(const ScanLines& x, Dtype dtype) {
  visit_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_integral_v<T>)
      raise(ErrorKind::kInternal, "a recurrence of integers");
    else
      run<Recurrence<T>, T>(x);
  });
}

void continue_branch(const ScanLines& x, Dtype dtype) {
  visit_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (kIsComplex<T>)
      run<Branch<T>, T>(x);
    else
      raise(ErrorKind::kInternal, "real logarithms have one branch");
  });
}

}  // namespace lohe::backend
