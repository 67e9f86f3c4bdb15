#include "backend/pooling.h"

#include <algorithm>
#include <bit>
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

/// Windows [begin, end) of an axis that are alike: window begin + i takes `count` positions from first +
/// i * stride on, `step` apart. What lies in them is taken for a row of windows at a time, one position of
/// each after the other: without a jump that depends on data, and by vectors.
struct Alike {
  int64_t begin = 0, end = 0, first = 0, stride = 1, count = 0, step = 1;
  int64_t size() const { return end - begin; }
};

int64_t positions(const Window& w) { return w.end > w.start ? (w.end - w.start + w.step - 1) / w.step : 0; }

/// The longest such run.
Alike alike(const std::vector<Window>& windows) {
  Alike best;
  const auto size = static_cast<int64_t>(windows.size());
  for (int64_t begin = 0, end; begin < size; begin = end) {
    const auto window = [&](int64_t i) -> const Window& { return windows[static_cast<size_t>(i)]; };
    const Window& w = window(begin);
    const int64_t stride = begin + 1 < size ? window(begin + 1).start - w.start : 1;
    end = begin + 1;
    while (end < size && window(end).start - window(end - 1).start == stride && window(end).step == w.step &&
           positions(window(end)) == positions(w))
      ++end;
    if (end - begin > best.size()) best = {begin, end, w.start, stride, positions(w), w.step};
  }
  return best;
}

/// Calls f(the stride) with the usual ones as constants, so that loops over it become vectors.
template <class F>
void with_stride(int64_t stride, F&& f) {
  if (stride == 1) return f(std::integral_constant<int64_t, 1>());
  if (stride == 2) return f(std::integral_constant<int64_t, 2>());
  f(stride);
}

/// Goes over output rows: `row(first output position, d, h)` for the windows of `run`, f(output position, d,
/// h, w) for each of the others.
template <class Row, class F>
void over_rows(const PoolingShape& s, const Alike& run, Row&& row, F&& f) {
  int64_t at = 0;
  for (const Window& d : s.windows[0]) {
    for (const Window& h : s.windows[1]) {
      const std::vector<Window>& all = s.windows[2];
      for (int64_t x = 0; x < run.begin; ++x) f(at + x, d, h, all[static_cast<size_t>(x)]);
      if (run.size() > 0) row(at + run.begin, d, h);
      for (int64_t x = run.end; x < s.output[2]; ++x) f(at + x, d, h, all[static_cast<size_t>(x)]);
      at += s.output[2];
    }
  }
}

/// Positions of the windows of a row that are alike: f(the first one's, for each in order).
template <class F>
void over_offsets(const PoolingShape& s, const Alike& run, const Window& d, const Window& h, F&& f) {
  for (int64_t z = d.start; z < d.end; z += d.step) {
    for (int64_t y = h.start; y < h.end; y += h.step) {
      const int64_t row = (z * s.input[1] + y) * s.input[2];
      for (int64_t j = 0; j < run.count; ++j) f(row + run.first + j * run.step);
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

/// best[i] = the larger of it and source[i * stride], at place + i * stride, NaN counting as largest. Chosen
/// by bits: a jump for what random numbers are like is mispredicted every other time.
template <class T, class C, class Stride>
void take_larger(const T* source, Stride stride, int32_t place, int64_t n, C* __restrict best,
                 int32_t* __restrict where) {
  using Bits = std::conditional_t<
      sizeof(C) == 8, uint64_t,
      std::conditional_t<sizeof(C) == 4, uint32_t, std::conditional_t<sizeof(C) == 2, uint16_t, uint8_t>>>;
  for (int64_t i = 0; i < n; ++i) {
    const C v = static_cast<C>(source[i * stride]);
    const bool larger = (v > best[i]) | (v != v);
    const auto old = std::bit_cast<Bits>(best[i]), bits = std::bit_cast<Bits>(v);
    best[i] = std::bit_cast<C>(static_cast<Bits>(old ^ ((old ^ bits) & static_cast<Bits>(-Bits{larger}))));
    where[i] ^= (where[i] ^ (place + static_cast<int32_t>(i * stride))) & -int32_t{larger};
  }
}

template <class T, class C, class Stride>
void add_to(const T* source, Stride stride, int64_t n, C* __restrict sums) {
  for (int64_t i = 0; i < n; ++i) sums[i] += static_cast<C>(source[i * stride]);
}

template <class C, class Stride>
void add_from(const C* __restrict source, int64_t n, C* __restrict sums, Stride stride) {
  for (int64_t i = 0; i < n; ++i) sums[i * stride] += source[i];
}

}  // namespace

void max_pool(Dtype dtype, const PoolingShape& s, const void* input, void* output, int64_t* indices) {
  visit_real("max_pool", dtype, [&](auto value) {
    using T = decltype(value);
    using C = Compute<T>;
    constexpr C lowest = std::numeric_limits<C>::has_infinity ? -std::numeric_limits<C>::infinity()
                                                              : std::numeric_limits<C>::lowest();
    // Positions are counted in 32 bits in a row of windows.
    const Alike run = product(s.input) < std::numeric_limits<int32_t>::max() ? alike(s.windows[2]) : Alike{};
    over_planes(s, [&](int64_t plane) {
      const T* in = static_cast<const T*>(input) + plane * product(s.input);
      T* out = static_cast<T*>(output) + plane * product(s.output);
      int64_t* index = indices + plane * product(s.output);
      const auto size = static_cast<size_t>(run.size());
      std::vector<C> most(size);
      std::vector<int32_t> places(size);
      const auto row = [&](int64_t at, const Window& d, const Window& h) {
        C* const best = most.data();
        int32_t* const where = places.data();
        const auto start = static_cast<int32_t>((d.start * s.input[1] + h.start) * s.input[2] + run.first);
        for (int64_t i = 0; i < run.size(); ++i) {
          best[i] = lowest;
          where[i] = start + static_cast<int32_t>(i * run.stride);
        }
        over_offsets(s, run, d, h, [&](int64_t offset) {
          with_stride(run.stride, [&](auto stride) {
            take_larger(in + offset, stride, static_cast<int32_t>(offset), run.size(), best, where);
          });
        });
        for (int64_t i = 0; i < run.size(); ++i) {
          out[at + i] = static_cast<T>(best[i]);
          index[at + i] = where[i];
        }
      };
      over_rows(s, run, row, [&](int64_t at, const Window& d, const Window& h, const Window& w) {
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
    const Alike run = alike(s.windows[2]);
    over_planes(s, [&](int64_t plane) {
      const T* in = static_cast<const T*>(input) + plane * product(s.input);
      T* out = static_cast<T*>(output) + plane * product(s.output);
      const auto mean = [](C sum, int64_t n) {
        return static_cast<T>(std::is_integral_v<C> && n == 0 ? C(0)
                                                              : static_cast<C>(sum / static_cast<C>(n)));
      };
      std::vector<C> row_sums(static_cast<size_t>(run.size()));
      const auto row = [&](int64_t at, const Window& d, const Window& h) {
        C* const sums = row_sums.data();
        std::fill_n(sums, run.size(), C(0));
        over_offsets(s, run, d, h, [&](int64_t offset) {
          with_stride(run.stride, [&](auto stride) { add_to(in + offset, stride, run.size(), sums); });
        });
        for (int64_t i = 0; i < run.size(); ++i)
          out[at + i] =
              mean(sums[i], divisor_of(rule, d, h, s.windows[2][static_cast<size_t>(run.begin + i)]));
      };
      over_rows(s, run, row, [&](int64_t at, const Window& d, const Window& h, const Window& w) {
        C sum = 0;
        over_positions(s, d, h, w, [&](int64_t p) { sum += static_cast<C>(in[p]); });
        out[at] = mean(sum, divisor_of(rule, d, h, w));
      });
    });
  });
}

void average_pool_gradient(Dtype dtype, const PoolingShape& s, const AverageRule& rule, const void* grad,
                           void* grad_input) {
  visit_real("avg_pool_backward", dtype, [&](auto value) {
    using T = decltype(value);
    using C = Compute<T>;
    const Alike run = alike(s.windows[2]);
    over_planes(s, [&](int64_t plane) {
      const T* g = static_cast<const T*>(grad) + plane * product(s.output);
      T* out = static_cast<T*>(grad_input) + plane * product(s.input);
      std::vector<C> sums(static_cast<size_t>(product(s.input))), shares(static_cast<size_t>(run.size()));
      const auto share = [&](int64_t at, int64_t n) {
        return static_cast<C>(static_cast<C>(g[at]) / static_cast<C>(n == 0 ? 1 : n));
      };
      const auto row = [&](int64_t at, const Window& d, const Window& h) {
        for (int64_t i = 0; i < run.size(); ++i) {
          const Window& w = s.windows[2][static_cast<size_t>(run.begin + i)];
          shares[static_cast<size_t>(i)] = share(at + i, divisor_of(rule, d, h, w));
        }
        over_offsets(s, run, d, h, [&](int64_t offset) {
          with_stride(run.stride, [&](auto stride) {
            add_from(shares.data(), run.size(), sums.data() + offset, stride);
          });
        });
      };
      over_rows(s, run, row, [&](int64_t at, const Window& d, const Window& h, const Window& w) {
        const C one = share(at, divisor_of(rule, d, h, w));
        over_positions(s, d, h, w, [&](int64_t p) { sums[static_cast<size_t>(p)] += one; });
      });
      for (size_t i = 0; i < sums.size(); ++i) out[i] = static_cast<T>(sums[i]);
    });
  });
}

}  // namespace lohe::backend
