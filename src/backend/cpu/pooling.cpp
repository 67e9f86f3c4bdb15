#include "backend/pooling.h"

#include <algorithm>
#include <limits>
#include <type_traits>

#include "base/threads.h"
#include "tensor/half.h"

namespace lohe::backend {
namespace {

template <class T>
using Compute = std::conditional_t<std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>, float, T>;

int64_t product(const PoolingShape::Axes& a) { return a[0] * a[1] * a[2]; }

/// Calls f with a value of the dtype, if it is a real number type.
template <class F>
void visit_real(const char* op, Dtype dtype, F&& f) {
  visit_dtype(dtype, [&](auto value) {
    using T = decltype(value);
    if constexpr (std::is_arithmetic_v<T> || std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>) {
      if constexpr (!std::is_same_v<T, bool>) return f(value);
    }
    raise(ErrorKind::kNotImplemented, "\"", op, "\" not implemented for '", dtype,
          "'; use a real number dtype");
  });
}

/// Runs f(plane) for all planes, some to a thread.
template <class F>
void over_planes(const PoolingShape& s, F&& f) {
  const int64_t work = std::max<int64_t>(product(s.input), product(s.output));
  parallel_for(s.planes, std::max<int64_t>(1, 32768 / std::max<int64_t>(work, 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t p = begin; p < end; ++p) f(p);
               });
}

/// Calls f(output position, windows of the three axes) in order.
template <class F>
void over_windows(const PoolingShape& s, F&& f) {
  int64_t at = 0;
  for (const Window& d : s.windows[0]) {
    for (const Window& h : s.windows[1]) {
      for (const Window& w : s.windows[2]) f(at++, d, h, w);
    }
  }
}

template <class F>
void over_positions(const PoolingShape& s, const Window& d, const Window& h, const Window& w, F&& f) {
  for (int64_t z = d.start; z < d.end; z += d.step) {
    for (int64_t y = h.start; y < h.end; y += h.step) {
      const int64_t row = (z * s.input[1] + y) * s.input[2];
      for (int64_t x = w.start; x < w.end; x += w.step) f(row + x);
    }
  }
}

int64_t divisor_of(const AverageRule& rule, const Window& d, const Window& h, const Window& w) {
  if (rule.divisor != 0) return rule.divisor;
  if (rule.count_padding) return d.padded * h.padded * w.padded;
  return (d.end - d.start) * (h.end - h.start) * (w.end - w.start);
}

}  // namespace

void max_pool(Dtype dtype, const PoolingShape& s, const void* input, void* output, int64_t* indices) {
  visit_real("max_pool", dtype, [&](auto value) {
    using T = decltype(value);
    using C = Compute<T>;
    constexpr C lowest = std::numeric_limits<C>::has_infinity ? -std::numeric_limits<C>::infinity()
                                                              : std::numeric_limits<C>::lowest();
    over_planes(s, [&](int64_t plane) {
      const T* in = static_cast<const T*>(input) + plane * product(s.input);
      T* out = static_cast<T*>(output) + plane * product(s.output);
      int64_t* index = indices + plane * product(s.output);
      over_windows(s, [&](int64_t at, const Window& d, const Window& h, const Window& w) {
        C best = lowest;
        int64_t where = (d.start * s.input[1] + h.start) * s.input[2] + w.start;
        over_positions(s, d, h, w, [&](int64_t p) {
          const C v = static_cast<C>(in[p]);
          if (v > best || v != v) {
            best = v;
            where = p;
          }
        });
        out[at] = static_cast<T>(best);
        index[at] = where;
      });
    });
  });
}

void max_pool_gradient(Dtype dtype, const PoolingShape& s, const void* grad, const int64_t* indices,
                       void* grad_input) {
  visit_real("max_pool_backward", dtype, [&](auto value) {
    using T = decltype(value);
    using C = Compute<T>;
    over_planes(s, [&](int64_t plane) {
      const int64_t n = product(s.output);
      const T* g = static_cast<const T*>(grad) + plane * n;
      const int64_t* index = indices + plane * n;
      T* out = static_cast<T*>(grad_input) + plane * product(s.input);
      std::vector<C> sums(static_cast<size_t>(product(s.input)));
      for (int64_t i = 0; i < n; ++i) {
        if (index[i] >= 0 && index[i] < product(s.input))
          sums[static_cast<size_t>(index[i])] += static_cast<C>(g[i]);
      }
      for (size_t i = 0; i < sums.size(); ++i) out[i] = static_cast<T>(sums[i]);
    });
  });
}

void average_pool(Dtype dtype, const PoolingShape& s, const AverageRule& rule, const void* input,
                  void* output) {
  visit_real("avg_pool", dtype, [&](auto value) {
    using T = decltype(value);
    using C = Compute<T>;
    over_planes(s, [&](int64_t plane) {
      const T* in = static_cast<const T*>(input) + plane * product(s.input);
      T* out = static_cast<T*>(output) + plane * product(s.output);
      over_windows(s, [&](int64_t at, const Window& d, const Window& h, const Window& w) {
        C sum = 0;
        over_positions(s, d, h, w, [&](int64_t p) { sum += static_cast<C>(in[p]); });
        const int64_t n = divisor_of(rule, d, h, w);
        out[at] =
            static_cast<T>(std::is_integral_v<C> && n == 0 ? C(0) : static_cast<C>(sum / static_cast<C>(n)));
      });
    });
  });
}

void average_pool_gradient(Dtype dtype, const PoolingShape& s, const AverageRule& rule, const void* grad,
                           void* grad_input) {
  visit_real("avg_pool_backward", dtype, [&](auto value) {
    using T = decltype(value);
    using C = Compute<T>;
    over_planes(s, [&](int64_t plane) {
      const T* g = static_cast<const T*>(grad) + plane * product(s.output);
      T* out = static_cast<T*>(grad_input) + plane * product(s.input);
      std::vector<C> sums(static_cast<size_t>(product(s.input)));
      over_windows(s, [&](int64_t at, const Window& d, const Window& h, const Window& w) {
        const int64_t n = divisor_of(rule, d, h, w);
        const C share = static_cast<C>(static_cast<C>(g[at]) / static_cast<C>(n == 0 ? 1 : n));
        over_positions(s, d, h, w, [&](int64_t p) { sums[static_cast<size_t>(p)] += share; });
      });
      for (size_t i = 0; i < sums.size(); ++i) out[i] = static_cast<T>(sums[i]);
    });
  });
}

}  // namespace lohe::backend
