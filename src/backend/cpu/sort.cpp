#include "backend/cpu/sort.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <vector>

#include "backend/cpu/scratch.h"
#include "base/threads.h"
#include "tensor/half.h"

namespace lohe::backend {
namespace {

/// Elements that are worth a thread.
constexpr int64_t kGrain = 4096;
/// Items that are sorted in the second-level cache before they are merged.
constexpr int64_t kChunk = 65536;
/// Below this a comparison sort is faster than passes over 256 counters each.
constexpr int64_t kFew = 48;

// --- keys: unsigned numbers in the order of the elements

template <class T>
constexpr bool kIsFloat = std::is_floating_point_v<T> || kIsHalf<T>;

template <int64_t kSize>
struct UnsignedOf;
template <>
struct UnsignedOf<1> {
  using type = uint8_t;
};
template <>
struct UnsignedOf<2> {
  using type = uint16_t;
};
template <>
struct UnsignedOf<4> {
  using type = uint32_t;
};
template <>
struct UnsignedOf<8> {
  using type = uint64_t;
};
template <class T>
using Key = typename UnsignedOf<sizeof(T)>::type;

template <class T>
constexpr int kMantissa = std::is_same_v<T, double>    ? 52
                          : std::is_same_v<T, float>   ? 23
                          : std::is_same_v<T, Float16> ? 10
                                                       : 7;

template <class T>
Key<T> bits_of(const char* p) {
  Key<T> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

/// Numbers of both signs; all NaN give the largest key, both zeros the same.
template <class T>
Key<T> key_of(Key<T> bits) {
  using K = Key<T>;
  constexpr K top = K(K{1} << (sizeof(K) * 8 - 1));
  if constexpr (kIsFloat<T>) {
    constexpr K infinity = K(K(top - 1) >> kMantissa<T> << kMantissa<T>);
    const K magnitude = K(bits & K(~top));
    K key = (bits & top) != 0 ? K(~bits) : K(bits | top);
    key = magnitude == 0 ? top : key;
    return magnitude > infinity ? K(~K{0}) : key;
  } else if constexpr (std::is_signed_v<T>) {
    return K(bits ^ top);
  } else {
    return bits;
  }
}

// --- items: a key and the position it came from, all different

/// Keys of up to 32 bits above positions of 32.
template <class T>
struct Narrow {
  using Item = uint64_t;
  static constexpr int kKeyBytes = sizeof(T);
  static Item make(Key<T> key, int64_t at) { return Item{key} << 32 | static_cast<uint32_t>(at); }
  static Key<T> key(Item i) { return static_cast<Key<T>>(i >> 32); }
  static int64_t at(Item i) { return static_cast<int64_t>(i & 0xffffffffu); }
  static unsigned digit(Item i, int byte) { return static_cast<unsigned>(i >> (32 + 8 * byte) & 255); }
  static bool less(Item a, Item b) { return a < b; }
};

template <class T>
struct Wide {
  struct Item {
    uint64_t key, position;
  };
  static constexpr int kKeyBytes = sizeof(T);
  static Item make(Key<T> key, int64_t at) { return {key, static_cast<uint64_t>(at)}; }
  static Key<T> key(const Item& i) { return static_cast<Key<T>>(i.key); }
  static int64_t at(const Item& i) { return static_cast<int64_t>(i.position); }
  static unsigned digit(const Item& i, int byte) { return static_cast<unsigned>(i.key >> (8 * byte) & 255); }
  static bool less(const Item& a, const Item& b) {
    return a.key < b.key || (a.key == b.key && a.position < b.position);
  }
};

/// Sorts by key, byte by byte from the lowest; positions stay in order. Gives the buffer that holds the
/// result.
template <class Form, class Item = typename Form::Item>
Item* radix_sort(Item* from, Item* to, int64_t n) {
  uint32_t counts[Form::kKeyBytes][256] = {};
  for (int64_t i = 0; i < n; ++i) {
    for (int b = 0; b < Form::kKeyBytes; ++b) ++counts[b][Form::digit(from[i], b)];
  }
  for (int b = 0; b < Form::kKeyBytes; ++b) {
    uint32_t* count = counts[b];
    if (count[Form::digit(from[0], b)] == n) continue;  // all have this digit
    uint32_t start = 0;
    for (int d = 0; d < 256; ++d) {
      const uint32_t here = count[d];
      count[d] = start;
      start += here;
    }
    for (int64_t i = 0; i < n; ++i) to[count[Form::digit(from[i], b)]++] = from[i];
    std::swap(from, to);
  }
  return from;
}

/// How many of the first `k` items of the merged sequence come from `a`.
template <class Form, class Item = typename Form::Item>
int64_t taken_from_first(const Item* a, int64_t na, const Item* b, int64_t nb, int64_t k) {
  int64_t low = std::max<int64_t>(0, k - nb), high = std::min(k, na);
  while (low < high) {
    const int64_t i = low + (high - low) / 2;
    if (Form::less(a[i], b[k - i - 1]))
      low = i + 1;
    else
      high = i;
  }
  return low;
}

/// Outputs [begin, end) of the merged sequence.
template <class Form, class Item = typename Form::Item>
void merge_part(const Item* a, int64_t na, const Item* b, int64_t nb, Item* out, int64_t begin, int64_t end) {
  int64_t i = taken_from_first<Form>(a, na, b, nb, begin), j = begin - i;
  for (int64_t k = begin; k < end; ++k) {
    const bool first = j >= nb || (i < na && Form::less(a[i], b[j]));
    out[k] = first ? a[i] : b[j];
    i += first ? 1 : 0;
    j += first ? 0 : 1;
  }
}

template <class Form, class Item = typename Form::Item>
Item* sort_items(Item* items, Item* spare, int64_t n) {
  if (n < kFew) {
    std::sort(items, items + n, Form::less);
    return items;
  }
  if (n <= 2 * kChunk) return radix_sort<Form>(items, spare, n);
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  parallel_for(chunks, 1, [&](int64_t c0, int64_t c1) {
    for (int64_t c = c0; c < c1; ++c) {
      const int64_t begin = c * kChunk, size = std::min(kChunk, n - begin);
      Item* sorted = radix_sort<Form>(items + begin, spare + begin, size);
      if (sorted != items + begin) std::copy(sorted, sorted + size, items + begin);
    }
  });
  for (int64_t width = kChunk; width < n; width *= 2) {
    // Every chunk of the result is merged on its own: `width` is a multiple of its size.
    parallel_for(chunks, 1, [&](int64_t c0, int64_t c1) {
      for (int64_t c = c0; c < c1; ++c) {
        const int64_t begin = c * kChunk, pair = begin / (2 * width) * (2 * width);
        const int64_t na = std::min(width, n - pair), nb = std::min(width, n - pair - na);
        const int64_t end = std::min(begin + kChunk, n);
        merge_part<Form>(items + pair, na, items + pair + na, nb, spare + pair, begin - pair, end - pair);
      }
    });
    std::swap(items, spare);
  }
  return items;
}

// --- lines

/// Reads the elements of lines; a line that is not dense is copied, several neighbours at a time where these
/// lie closer together than its elements.
template <class T>
class LineReader {
 public:
  static constexpr int64_t kTogether = 8;

  LineReader(const OrderLines& x, int64_t line_stride)
      : x_(x),
        stride_(line_stride),
        dense_(x.self_step == static_cast<int64_t>(sizeof(T))),
        together_(dense_ || std::abs(line_stride) >= std::abs(x.self_step) ? 1 : kTogether),
        copies_(dense_ ? 0 : x.length * together_) {}

  /// Calls body(bits of the line's elements, number of the line) for lines first, first + 1, ... of a run.
  template <class F>
  void each(const char* first, int64_t n, F&& body) {
    for (int64_t i = 0; i < n; i += together_) {
      const int64_t m = std::min(together_, n - i);
      if (dense_) {
        body(reinterpret_cast<const Key<T>*>(first + i * stride_), i);
        continue;
      }
      for (int64_t k = 0; k < x_.length; ++k) {
        for (int64_t l = 0; l < m; ++l)
          copies_.data()[l * x_.length + k] = bits_of<T>(first + (i + l) * stride_ + k * x_.self_step);
      }
      for (int64_t l = 0; l < m; ++l) body(copies_.data() + l * x_.length, i + l);
    }
  }

 private:
  const OrderLines& x_;
  const int64_t stride_;
  const bool dense_;
  const int64_t together_;
  Scratch<Key<T>> copies_;
};

template <class T, class Form>
void make_items(const Key<T>* line, int64_t n, bool descending, typename Form::Item* items) {
  const auto flip = static_cast<Key<T>>(descending ? ~Key<T>{0} : Key<T>{0});
  for (int64_t i = 0; i < n; ++i) items[i] = Form::make(static_cast<Key<T>>(key_of<T>(line[i]) ^ flip), i);
}

/// The `count` items that come first, in order: only elements that come before the last item kept so far can
/// still be among them. A few are kept in order; more are gathered and cut back from time to time.
template <class T, class Form>
class Front {
 public:
  using Item = typename Form::Item;
  static constexpr int64_t kBlock = 256, kOrdered = 16;

  static bool pays(int64_t n, int64_t count) {
    return count > 0 && (count <= kOrdered ? count < n : count < n / 16);
  }
  static int64_t room(int64_t count) { return count <= kOrdered ? count : 2 * count + kBlock; }

  explicit Front(Item* kept, int64_t count) : kept_(kept), count_(count) {}

  const Item* find(const Key<T>* line, int64_t n, bool descending) {
    const auto flip = static_cast<Key<T>>(descending ? ~Key<T>{0} : Key<T>{0});
    size_ = 0;
    full_ = false;
    Key<T> keys[kBlock];
    for (int64_t begin = 0; begin < n; begin += kBlock) {
      const int64_t m = std::min(kBlock, n - begin);
      if (m == kBlock) {
        Key<T> least = static_cast<Key<T>>(~Key<T>{0});
        for (int64_t i = 0; i < kBlock; ++i) {
          keys[i] = static_cast<Key<T>>(key_of<T>(line[begin + i]) ^ flip);
          least = std::min(least, keys[i]);
        }
        if (full_ && least >= last_) continue;
      } else {
        for (int64_t i = 0; i < m; ++i) keys[i] = static_cast<Key<T>>(key_of<T>(line[begin + i]) ^ flip);
      }
      for (int64_t i = 0; i < m; ++i) {
        if (full_ && keys[i] >= last_) continue;
        if (count_ <= kOrdered)
          insert(keys[i], begin + i);
        else
          kept_[size_++] = Form::make(keys[i], begin + i);
      }
      if (count_ > kOrdered && size_ + kBlock > room(count_)) cut();
    }
    if (count_ > kOrdered) {
      cut();
      std::sort(kept_, kept_ + count_, Form::less);
    }
    return kept_;
  }

 private:
  void insert(Key<T> key, int64_t position) {
    int64_t at = full_ ? count_ - 1 : size_++;
    for (; at > 0 && key < Form::key(kept_[at - 1]); --at) kept_[at] = kept_[at - 1];
    kept_[at] = Form::make(key, position);
    full_ = size_ == count_;
    last_ = Form::key(kept_[size_ - 1]);
  }
  void cut() {
    if (size_ > count_) std::nth_element(kept_, kept_ + count_ - 1, kept_ + size_, Form::less);
    size_ = count_;
    full_ = true;
    last_ = Form::key(kept_[count_ - 1]);
  }

  Item* const kept_;
  const int64_t count_;
  int64_t size_ = 0;
  bool full_ = false;
  Key<T> last_ = 0;  ///< of the last item kept, once `full_`
};

template <class T, class Form>
void sort_typed(const OrderLines& x, int64_t count, bool descending) {
  using Item = typename Form::Item;
  const auto [a, b, c] = x.lines.run_strides();
  // Few of many: one pass that keeps the best. Otherwise everything is sorted.
  const bool few = Front<T, Form>::pays(x.length, count);
  const int64_t room = few ? Front<T, Form>::room(count) : x.length;
  parallel_for(x.lines.count(), std::max<int64_t>(kGrain / x.length, 1), [&](int64_t begin, int64_t end) {
    LineReader<T> reader(x, a);
    Scratch<Item> items(room), spare(few ? 0 : room);
    x.lines.range(begin, end, [&](const std::array<int64_t, 3>& at, int64_t n) {
      reader.each(x.self + at[0], n, [&](const Key<T>* line, int64_t l) {
        const Item* sorted = items.data();
        if (few) {
          sorted = Front<T, Form>(items.data(), count).find(line, x.length, descending);
        } else {
          make_items<T, Form>(line, x.length, descending, items.data());
          sorted = sort_items<Form>(items.data(), spare.data(), x.length);
        }
        char* values = x.values + at[1] + l * b;
        char* indices = x.indices + at[2] + l * c;
        for (int64_t i = 0; i < count; ++i) {
          const int64_t from = Form::at(sorted[i]);
          std::memcpy(values + i * x.values_step, line + from, sizeof(T));
          std::memcpy(indices + i * x.index_step, &from, sizeof(from));
        }
      });
    });
  });
}

template <class T>
bool is_nan_key(Key<T> key) {
  return kIsFloat<T> && key == static_cast<Key<T>>(~Key<T>{0});
}

template <class Form, class T>
int64_t mode_of(typename Form::Item* items, typename Form::Item* spare, int64_t n) {
  const auto* sorted = sort_items<Form>(items, spare, n);
  int64_t best = 0, longest = 0;
  for (int64_t i = 0; i < n;) {
    int64_t end = i + 1;
    if (!is_nan_key<T>(Form::key(sorted[i]))) {
      while (end < n && Form::key(sorted[end]) == Form::key(sorted[i])) ++end;
    }
    if (end - i > longest) {
      longest = end - i;
      best = Form::at(sorted[end - 1]);
    }
    i = end;
  }
  return best;
}

/// The position that `pick` chooses.
template <class T, class Form>
int64_t position(const Key<T>* line, int64_t n, Pick pick, int64_t rank, typename Form::Item* items,
                 typename Form::Item* spare) {
  make_items<T, Form>(line, n, false, items);
  if (pick == Pick::kMode) return mode_of<Form, T>(items, spare, n);
  if (pick != Pick::kRank) {
    int64_t numbers = n;
    if (kIsFloat<T>) {
      int64_t first = n;
      numbers = 0;
      for (int64_t i = 0; i < n; ++i) {
        const bool nan = is_nan_key<T>(Form::key(items[i]));
        numbers += nan ? 0 : 1;
        if (nan && first == n) first = i;
      }
      if (pick == Pick::kMedian && first < n) return first;
    }
    rank = numbers == 0 ? 0 : (numbers - 1) / 2;
  }
  std::nth_element(items, items + rank, items + n, Form::less);
  return Form::at(items[rank]);
}

template <class T, class Form>
void select_typed(const OrderLines& x, Pick pick, int64_t rank) {
  using Item = typename Form::Item;
  const auto [a, b, c] = x.lines.run_strides();
  parallel_for(x.lines.count(), std::max<int64_t>(kGrain / x.length, 1), [&](int64_t begin, int64_t end) {
    LineReader<T> reader(x, a);
    Scratch<Item> items(x.length), spare(pick == Pick::kMode ? x.length : 0);
    x.lines.range(begin, end, [&](const std::array<int64_t, 3>& at, int64_t n) {
      reader.each(x.self + at[0], n, [&](const Key<T>* line, int64_t l) {
        const int64_t found = position<T, Form>(line, x.length, pick, rank, items.data(), spare.data());
        std::memcpy(x.values + at[1] + l * b, line + found, sizeof(T));
        std::memcpy(x.indices + at[2] + l * c, &found, sizeof(found));
      });
    });
  });
}

/// Calls f with the element type and the form of its items.
template <class F>
void visit_form(Dtype dtype, int64_t length, F&& f) {
  visit_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_arithmetic_v<T> || kIsHalf<T>) {
      if constexpr (sizeof(T) <= 4) {
        if (length <= int64_t{1} << 32) {
          f(zero, Narrow<T>{});
          return;
        }
      }
      f(zero, Wide<T>{});
    } else {
      raise(ErrorKind::kInternal, "complex numbers have no order");
    }
  });
}

}  // namespace

void sort_lines(const OrderLines& x, Dtype dtype, int64_t count, bool descending) {
  if (x.lines.count() == 0 || count == 0) return;
  visit_form(dtype, x.length,
             [&](auto zero, auto form) { sort_typed<decltype(zero), decltype(form)>(x, count, descending); });
}

void select_lines(const OrderLines& x, Dtype dtype, Pick pick, int64_t rank) {
  if (x.lines.count() == 0) return;
  visit_form(dtype, x.length,
             [&](auto zero, auto form) { select_typed<decltype(zero), decltype(form)>(x, pick, rank); });
}

}  // namespace lohe::backend
