#include "backend/cpu/index.h"

#include <cmath>
#include <cstring>

#include "backend/cpu/element.h"
#include "base/threads.h"
#include "tensor/half.h"

namespace lohe::backend {
namespace {

/// Elements that are worth a thread.
constexpr int64_t kGrain = 8192;

struct alignas(8) Bytes16 {
  uint64_t words[2];
};

/// Calls f with an element type of `itemsize` bytes.
template <class F>
void visit_size(int64_t itemsize, F&& f) {
  switch (itemsize) {
    case 1:
      f(uint8_t{});
      return;
    case 2:
      f(uint16_t{});
      return;
    case 4:
      f(uint32_t{});
      return;
    case 8:
      f(uint64_t{});
      return;
    case 16:
      f(Bytes16{});
      return;
    default:
      raise(ErrorKind::kInternal, "an element of ", itemsize, " bytes");
  }
}

/// other = self
template <class T>
struct Gather {
  static void one(char* self, char* other) { store(other, load<T>(self)); }
  static void run(char* self, char* other, int64_t n, int64_t a, int64_t b) {
    constexpr auto size = static_cast<int64_t>(sizeof(T));
    if (a == size && b == size) {
      std::memcpy(other, self, static_cast<size_t>(n * size));
      return;
    }
    for (int64_t i = 0; i < n; ++i) one(self + i * a, other + i * b);
  }
};

/// self = other
template <class T>
struct Put {
  static void one(char* self, char* other) { store(self, load<T>(other)); }
  static void run(char* self, char* other, int64_t n, int64_t a, int64_t b) {
    Gather<T>::run(other, self, n, b, a);
  }
};

template <class T>
T added(T x, T y) {
  if constexpr (std::is_same_v<T, bool>)
    return x || y;
  else if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>)
    return T(static_cast<float>(x) + static_cast<float>(y));
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(static_cast<uint64_t>(x) + static_cast<uint64_t>(y));
  else
    return x + y;
}
template <class T>
T multiplied(T x, T y) {
  if constexpr (std::is_same_v<T, bool>)
    return x && y;
  else if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>)
    return T(static_cast<float>(x) * static_cast<float>(y));
  else if constexpr (std::is_integral_v<T>)
    return static_cast<T>(static_cast<uint64_t>(x) * static_cast<uint64_t>(y));
  else
    return x * y;
}
template <class T>
bool not_a_number(T x) {
  if constexpr (std::is_integral_v<T>)
    return false;
  else
    return std::isnan(static_cast<double>(x));
}

/// self = combine(self, other); NaN wins in maximum and minimum.
template <class T, Combine kCombine>
struct Fold {
  static T combine(T x, T y) {
    if constexpr (kCombine == Combine::kAdd)
      return added(x, y);
    else if constexpr (kCombine == Combine::kMultiply)
      return multiplied(x, y);
    else if constexpr (kCombine == Combine::kMaximum)
      return not_a_number(x) || !(x < y || not_a_number(y)) ? x : y;
    else
      return not_a_number(x) || !(y < x || not_a_number(y)) ? x : y;
  }
  static void one(char* self, char* other) { store(self, combine(load<T>(self), load<T>(other))); }
  /// Integers wrap around.
  static auto number(T x) {
    if constexpr (std::is_integral_v<T>)
      return std::make_unsigned_t<T>();
    else
      return x;
  }
  static void run(char* self, char* other, int64_t n, int64_t a, int64_t b) {
    constexpr auto size = static_cast<int64_t>(sizeof(T));
    int64_t i = 0;
    if (a == size && b == size) {
      constexpr bool kNumber = std::is_arithmetic_v<T> && !std::is_same_v<T, bool>;
      if constexpr (kNumber && (kCombine == Combine::kAdd || kCombine == Combine::kMultiply)) {
        constexpr int64_t kBytes = 64;
        using Vector [[gnu::vector_size(kBytes)]] = decltype(number(T{}));
        for (; i + kBytes / size <= n; i += kBytes / size) {
          Vector x, y;
          std::memcpy(&x, self + i * size, kBytes);
          std::memcpy(&y, other + i * size, kBytes);
          x = kCombine == Combine::kAdd ? x + y : x * y;
          std::memcpy(self + i * size, &x, kBytes);
        }
      } else {
        // So many at a time become vectors.
        constexpr int64_t kBlock = 16;
        for (T x[kBlock], y[kBlock]; i + kBlock <= n; i += kBlock) {
          std::memcpy(x, self + i * size, sizeof x);
          std::memcpy(y, other + i * size, sizeof y);
          for (int64_t k = 0; k < kBlock; ++k) x[k] = combine(x[k], y[k]);
          std::memcpy(self + i * size, x, sizeof x);
        }
      }
    }
    for (; i < n; ++i) one(self + i * a, other + i * b);
  }
};

template <class Move>
void walk_slices(const SliceIndex& x, int64_t p0, int64_t p1, int64_t s0, int64_t s1, bool positions_inside) {
  const auto [a, b] = x.slice.run_strides();
  const auto other_offset = [&](int64_t p) {
    return x.other_at != nullptr ? x.other_at[p] : p * x.other_step;
  };
  if (positions_inside) {
    x.slice.range(s0, s1, [&](const std::array<int64_t, 2>& at, int64_t n) {
      for (int64_t i = 0; i < n; ++i) {
        char* self = x.self + at[0] + i * a;
        char* other = x.other + at[1] + i * b;
        if (x.other_at != nullptr) {
          for (int64_t p = p0; p < p1; ++p) Move::one(self + x.at[p], other + x.other_at[p]);
        } else {
          for (int64_t p = p0; p < p1; ++p) Move::one(self + x.at[p], other + p * x.other_step);
        }
      }
    });
    return;
  }
  if (x.slice.flat()) {
    for (int64_t p = p0; p < p1; ++p)
      Move::run(x.self + x.at[p] + s0 * a, x.other + other_offset(p) + s0 * b, s1 - s0, a, b);
    return;
  }
  for (int64_t p = p0; p < p1; ++p) {
    char* self = x.self + x.at[p];
    char* other = x.other + other_offset(p);
    x.slice.range(s0, s1, [&](const std::array<int64_t, 2>& at, int64_t n) {
      Move::run(self + at[0], other + at[1], n, a, b);
    });
  }
}

template <class Move>
void run_slices(const SliceIndex& x, bool destinations_are_positions) {
  const int64_t slices = x.slice.count();
  if (slices == 0 || x.positions == 0) return;
  // The denser walk of `other` goes inside.
  const bool inside =
      slices == 1 || (x.other_at == nullptr && std::abs(x.other_step) < std::abs(x.slice.run_strides()[1]));
  if (destinations_are_positions && x.positions >= slices) {
    parallel_for(x.positions, std::max<int64_t>(kGrain / slices, 1),
                 [&](int64_t p0, int64_t p1) { walk_slices<Move>(x, p0, p1, 0, slices, inside); });
  } else {
    // Long runs of each slice, which the hardware fetches ahead, rather than many ranges.
    const int64_t run = std::clamp<int64_t>(slices / (2 * num_threads()) / 16 * 16, 16, 512);
    parallel_for(slices, std::max(kGrain / x.positions, run),
                 [&](int64_t s0, int64_t s1) { walk_slices<Move>(x, 0, x.positions, s0, s1, inside); });
  }
}

/// One line, or the elements across neighbouring ones: `n` of them, from numbers to addresses. @return how
/// many came before an index that is not in [0, size); scatters know that there is none
template <class Move, class Index, bool kChecked>
int64_t walk_line(char* self, int64_t self_step, int64_t self_next, char* other, int64_t other_step,
                  const char* index, int64_t index_step, int64_t n, int64_t size) {
  for (int64_t i = 0; i < n; ++i) {
    const auto to = static_cast<int64_t>(load<Index>(index + i * index_step));
    if (kChecked && static_cast<uint64_t>(to) >= static_cast<uint64_t>(size)) [[unlikely]]
      return i;
    Move::one(self + i * self_next + to * self_step, other + i * other_step);
  }
  return n;
}

/// @param outside is called with an index that is not inside, and throws
template <class Move, class Index, bool kChecked>
void run_lines(const LineIndex& x, int64_t size, FunctionRef<void(int64_t)> outside) {
  const int64_t lines = x.lines.count();
  if (lines == 0 || x.length == 0) return;
  const auto [a, b, c] = x.lines.run_strides();
  // Along neighbouring lines where these lie denser than the elements of one line.
  const bool across = x.lines.run() >= 4 && std::abs(c) < std::abs(x.index_step);
  parallel_for(lines, std::max<int64_t>(kGrain / x.length, 1), [&](int64_t begin, int64_t end) {
    x.lines.range(begin, end, [&](const std::array<int64_t, 3>& at, int64_t n) {
      char* self = x.self + at[0];
      char* other = x.other + at[1];
      const char* index = x.index + at[2];
      // Steps by value: a store through a char pointer may change anything that lies in memory.
      const auto walk = [&](char* from, int64_t self_step, int64_t self_next, char* to, int64_t other_step,
                            const char* number, int64_t index_step, int64_t count) {
        const int64_t done = walk_line<Move, Index, kChecked>(from, self_step, self_next, to, other_step,
                                                              number, index_step, count, size);
        if (done < count) outside(static_cast<int64_t>(load<Index>(number + done * index_step)));
      };
      if (across) {
        for (int64_t k = 0; k < x.length; ++k)
          walk(self, x.self_step, a, other + k * x.other_step, b, index + k * x.index_step, c, n);
      } else {
        for (int64_t i = 0; i < n; ++i)
          walk(self + i * a, x.self_step, 0, other + i * b, x.other_step, index + i * c, x.index_step,
               x.length);
      }
    });
  });
}

/// Calls f with the Fold of a dtype and a way to combine.
template <class F>
void visit_fold(Dtype dtype, Combine combine, F&& f) {
  visit_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    switch (combine) {
      case Combine::kAdd:
        f(Fold<T, Combine::kAdd>{});
        return;
      case Combine::kMultiply:
        f(Fold<T, Combine::kMultiply>{});
        return;
      default:
        break;
    }
    if constexpr (std::is_same_v<T, std::complex<float>> || std::is_same_v<T, std::complex<double>>) {
      raise(ErrorKind::kInternal, "complex numbers have no order");
    } else {
      if (combine == Combine::kMaximum)
        f(Fold<T, Combine::kMaximum>{});
      else
        f(Fold<T, Combine::kMinimum>{});
    }
  });
}

}  // namespace

void gather_slices(const SliceIndex& x, int64_t itemsize) {
  visit_size(itemsize, [&](auto zero) { run_slices<Gather<decltype(zero)>>(x, true); });
}

void scatter_slices(const SliceIndex& x, Dtype dtype, Combine combine) {
  if (combine == Combine::kCopy) {
    visit_size(itemsize(dtype), [&](auto zero) { run_slices<Put<decltype(zero)>>(x, false); });
  } else {
    visit_fold(dtype, combine, [&](auto fold) { run_slices<decltype(fold)>(x, false); });
  }
}

void gather_lines(const LineIndex& x, int64_t itemsize, int64_t size,
                  FunctionRef<void(int64_t index)> outside) {
  visit_size(itemsize, [&](auto zero) {
    using Move = Gather<decltype(zero)>;
    x.wide ? run_lines<Move, int64_t, true>(x, size, outside)
           : run_lines<Move, int32_t, true>(x, size, outside);
  });
}

void scatter_lines(const LineIndex& x, Dtype dtype, Combine combine) {
  const auto run = [&](auto move) {
    const auto none = [](int64_t) {};
    x.wide ? run_lines<decltype(move), int64_t, false>(x, 0, none)
           : run_lines<decltype(move), int32_t, false>(x, 0, none);
  };
  if (combine == Combine::kCopy) {
    visit_size(itemsize(dtype), [&](auto zero) { run(Put<decltype(zero)>{}); });
  } else {
    visit_fold(dtype, combine, run);
  }
}

}  // namespace lohe::backend
