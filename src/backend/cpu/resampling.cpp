#include "backend/resampling.h"

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "base/threads.h"
#include "tensor/half.h"

namespace lohe::backend {
namespace {

template <class T>
using Compute = std::conditional_t<std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>, float, T>;

int64_t product(const ResamplingShape::Axes& a) { return a[0] * a[1] * a[2]; }

/// Calls f with a value of the dtype.
template <class F>
void visit_samples(const char* op, bool bytes, Dtype dtype, F&& f) {
  visit_dtype(dtype, [&](auto value) {
    using T = decltype(value);
    if constexpr (std::is_floating_point_v<Compute<T>>) return f(value);
    if constexpr (std::is_same_v<T, uint8_t>) {
      if (bytes) return f(value);
    }
    raise(ErrorKind::kNotImplemented, "\"", op, "\" not implemented for '", dtype,
          bytes ? "'; use a floating dtype or uint8" : "'; use a floating dtype");
  });
}

/// Weights of one axis in the type that a pass multiplies with.
template <class C>
struct Weights {
  std::vector<C> values;
  int shift = 0;
};
template <class C>
Weights<C> weights_for(const AxisTaps& taps) {
  return {std::vector<C>(taps.weights.begin(), taps.weights.end()), 0};
}
/// Fixed point with as many bits as keep the largest weight below 2^15.
template <>
Weights<int32_t> weights_for<int32_t>(const AxisTaps& taps) {
  double largest = 0;
  for (const double w : taps.weights) largest = std::max(largest, w);
  Weights<int32_t> fixed;
  while (fixed.shift < 22 &&
         static_cast<int32_t>(0.5 + largest * static_cast<double>(int64_t{1} << (fixed.shift + 1))) < 1 << 15)
    ++fixed.shift;
  const auto unit = static_cast<double>(int64_t{1} << fixed.shift);
  for (const double w : taps.weights)
    fixed.values.push_back(static_cast<int32_t>(w < 0 ? -0.5 + w * unit : 0.5 + w * unit));
  return fixed;
}

/// [outer, in, inner] to [outer, out, inner] along one axis.
struct Pass {
  int64_t outer, in, out, inner;
};

template <class To, class C>
To finished(C sum, int shift) {
  if constexpr (std::is_same_v<C, int32_t>)
    return static_cast<To>(std::clamp(sum >> shift, 0, 255));
  else
    return static_cast<To>(sum);
}

/// One axis at a time; how many positions an output has is a constant where it is one of the usual numbers.
template <class From, class C, class To, class Count>
class AxisPass {
 public:
  AxisPass(const Pass& p, const AxisTaps& taps, const Weights<C>& weights, Count count)
      : p_(p),
        at_(taps.at.data()),
        weights_(weights.values.data()),
        taken_as_it_is_(taps.weights.empty()),
        shift_(weights.shift),
        half_(std::is_same_v<C, int32_t> && shift_ > 0 ? static_cast<C>(1 << (shift_ - 1)) : C(0)),
        count_(count),
        sums_(static_cast<size_t>(p.inner)) {}

  void run(const From* from, To* to) {
    for (int64_t i = 0; i < p_.outer; ++i, from += p_.in * p_.inner, to += p_.out * p_.inner) {
      if (p_.inner == 1)
        line(from, to);
      else
        for (int64_t o = 0; o < p_.out; ++o) lines(from, o, to + o * p_.inner);
    }
  }

 private:
  C first(const From* from, const C* w) const {
    const C product = static_cast<C>(*from) * w[0];
    return std::is_same_v<C, int32_t> ? static_cast<C>(half_ + product) : product;
  }
  C sum(const From* from, const int64_t* at, int64_t stride, const C* w) const {
    C sum = first(from + at[0] * stride, w);
    for (int64_t t = 1; t < count_; ++t) sum += static_cast<C>(from[at[t] * stride]) * w[t];
    return sum;
  }

  /// Outputs that lie side by side.
  void line(const From* from, To* to) const {
    if (taken_as_it_is_) {
      for (int64_t o = 0; o < p_.out; ++o) to[o] = static_cast<To>(from[at_[o]]);
    } else {
      for (int64_t o = 0; o < p_.out; ++o)
        to[o] = finished<To>(sum(from, at_ + o * count_, 1, weights_ + o * count_), shift_);
    }
  }
  /// Output o of each of the lines that lie side by side.
  void lines(const From* from, int64_t o, To* to) {
    const int64_t n = p_.inner, *at = at_ + o * count_;
    const C* w = weights_ + o * count_;
    if (taken_as_it_is_) {
      const From* line = from + at[0] * n;
      for (int64_t k = 0; k < n; ++k) to[k] = static_cast<To>(line[k]);
    } else if (!std::is_same_v<Count, int64_t>) {
      for (int64_t k = 0; k < n; ++k) to[k] = finished<To>(sum(from + k, at, n, w), shift_);
    } else {
      C* const sums = sums_.data();
      for (int64_t k = 0; k < n; ++k) sums[k] = first(from + at[0] * n + k, w);
      for (int64_t t = 1; t < count_; ++t) {
        const From* const line = from + at[t] * n;
        for (int64_t k = 0; k < n; ++k) sums[k] += static_cast<C>(line[k]) * w[t];
      }
      for (int64_t k = 0; k < n; ++k) to[k] = finished<To>(sums[k], shift_);
    }
  }

  const Pass& p_;
  const int64_t* const at_;
  const C* const weights_;
  const bool taken_as_it_is_;
  const int shift_;
  const C half_;
  const Count count_;
  std::vector<C> sums_;
};

template <class From, class C, class To>
void run_pass(const Pass& p, const AxisTaps& taps, const Weights<C>& weights, const From* from, To* to) {
  const auto run = [&]<class Count>(Count count) {
    AxisPass<From, C, To, Count>(p, taps, weights, count).run(from, to);
  };
  if (taps.count == 1) return run(std::integral_constant<int64_t, 1>());
  if (taps.count == 2) return run(std::integral_constant<int64_t, 2>());
  run(taps.count);
}

template <class C>
void run_transposed(const Pass& p, const AxisTaps& taps, const Weights<C>& weights, const C* from, C* to) {
  std::fill_n(to, p.outer * p.in * p.inner, C(0));
  for (int64_t i = 0; i < p.outer; ++i, to += p.in * p.inner) {
    for (int64_t o = 0; o < p.out; ++o, from += p.inner) {
      for (int64_t t = 0; t < taps.count; ++t) {
        C* line = to + taps.at[static_cast<size_t>(o * taps.count + t)] * p.inner;
        const C w = taps.weights.empty() ? C(1) : weights.values[static_cast<size_t>(o * taps.count + t)];
        for (int64_t k = 0; k < p.inner; ++k) line[k] += w * from[k];
      }
    }
  }
}

bool same_positions(const AxisTaps& taps, int64_t in) {
  if (taps.count != 1 || static_cast<int64_t>(taps.at.size()) != in || !taps.weights.empty()) return false;
  for (int64_t i = 0; i < in; ++i) {
    if (taps.at[static_cast<size_t>(i)] != i) return false;
  }
  return true;
}

/// Axes with anything to do, the last first, and sizes before each pass.
std::vector<std::pair<size_t, Pass>> passes(const ResamplingShape& s) {
  std::vector<std::pair<size_t, Pass>> list;
  ResamplingShape::Axes sizes = s.input;
  for (const size_t axis : {size_t{2}, size_t{1}, size_t{0}}) {
    if (same_positions(s.taps[axis], s.input[axis])) continue;
    Pass p{1, s.input[axis], s.output[axis], 1};
    for (size_t d = 0; d < axis; ++d) p.outer *= sizes[d];
    for (size_t d = axis + 1; d < 3; ++d) p.inner *= sizes[d];
    sizes[axis] = s.output[axis];
    list.emplace_back(axis, p);
  }
  return list;
}

/// Runs f(plane) for all planes, some to a thread.
template <class F>
void over_planes(const ResamplingShape& s, F&& f) {
  const int64_t work = std::max<int64_t>({product(s.input), product(s.output), 1});
  parallel_for(s.planes, std::max<int64_t>(1, 32768 / work), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) f(p);
  });
}

}  // namespace

void resample(Dtype dtype, const ResamplingShape& s, const void* input, void* output) {
  visit_samples("upsample", true, dtype, [&](auto value) {
    using T = decltype(value);
    using C = std::conditional_t<std::is_same_v<T, uint8_t>, int32_t, Compute<T>>;
    using Between = std::conditional_t<std::is_same_v<T, uint8_t>, uint8_t, C>;  // what a pass leaves behind
    const auto list = passes(s);
    Weights<C> weights[3];
    for (const auto& [axis, pass] : list) weights[axis] = weights_for<C>(s.taps[axis]);
    over_planes(s, [&](int64_t plane) {
      const T* in = static_cast<const T*>(input) + plane * product(s.input);
      T* out = static_cast<T*>(output) + plane * product(s.output);
      if (list.empty()) {
        std::copy_n(in, product(s.input), out);
        return;
      }
      std::vector<Between> before, after;
      for (size_t i = 0; i < list.size(); ++i) {
        const auto& [axis, p] = list[i];
        const AxisTaps& taps = s.taps[axis];
        const bool first = i == 0, last = i + 1 == list.size();
        if (!last) after.resize(static_cast<size_t>(p.outer * p.out * p.inner));
        if (first && last)
          run_pass(p, taps, weights[axis], in, out);
        else if (first)
          run_pass(p, taps, weights[axis], in, after.data());
        else if (last)
          run_pass(p, taps, weights[axis], before.data(), out);
        else
          run_pass(p, taps, weights[axis], before.data(), after.data());
        before.swap(after);
      }
    });
  });
}

void resample_gradient(Dtype dtype, const ResamplingShape& s, const void* grad, void* grad_input) {
  visit_samples("upsample_backward", false, dtype, [&](auto value) {
    using T = decltype(value);
    using C = Compute<T>;
    if constexpr (std::is_floating_point_v<C>) {
      auto list = passes(s);
      std::reverse(list.begin(), list.end());
      Weights<C> weights[3];
      for (const auto& [axis, pass] : list) weights[axis] = weights_for<C>(s.taps[axis]);
      over_planes(s, [&](int64_t plane) {
        const T* g = static_cast<const T*>(grad) + plane * product(s.output);
        T* out = static_cast<T*>(grad_input) + plane * product(s.input);
        std::vector<C> before(g, g + product(s.output)), after;
        for (const auto& [axis, p] : list) {
          after.resize(static_cast<size_t>(p.outer * p.in * p.inner));
          run_transposed(p, s.taps[axis], weights[axis], before.data(), after.data());
          before.swap(after);
        }
        for (int64_t i = 0; i < product(s.input); ++i)
          out[i] = static_cast<T>(before[static_cast<size_t>(i)]);
      });
    }
  });
}

}  // namespace lohe::backend
