#pragma once

#include "backend/cpu/gemm.h"
#include "backend/cpu/pack_simd.h"

/// The kernel, written once over a vector type. Each gemm_<level>.cpp declares before it includes this
/// header, in the unnamed namespace of lohe::backend:
///   Lanes<T>: kWidth; kRows of a tile, at most 14; kVectors = 2, columns of a tile / kWidth; kLastValues, 1
///     or 2, see below; Vector; Mask, mask(n) for the first n <= kWidth lanes; zero(), set1(x), load(p),
///     load(p, mask), store(p, v), store(p, v, mask); fma(a, b, c) = a * b + c, rounded once; add(a, b).
/// and what pack_simd.h asks for.

namespace lohe::backend {
namespace {

/// How a tile ends: so many values of k are left, and C = S or not. Of two values all rows' elements of B
/// find room in 32 registers, and a row has as much work as its stores take.
template <int kValues, bool kPlain>
struct Last {};

template <class T>
using TilesFunction = void (*)(const Strip<T>&, int64_t, int64_t, int);

/// Tiles [begin, end) of a strip, of R rows and V vectors of columns; the last vector holds `last` columns.
/// Packed: a_row_stride is 1, known here so that the R broadcasts need no address arithmetic. Full: last is
/// kWidth.
///
/// All of them in one function: a tile's stores wait until its last sum is there, and a core that holds 64
/// of them (Zen 4, a vector counting twice) goes on to the next tile meanwhile only if hardly any come
/// between.
template <class T, int R, int V, bool Packed, bool Full>
void multiply_tiles(const Strip<T>& strip, int64_t begin, int64_t end, int last) {
  using L = Lanes<T>;
  using Vector = typename L::Vector;
  constexpr int kColumns = L::kVectors * L::kWidth;
  constexpr int kLine = 64 / static_cast<int>(sizeof(T));  // elements of a cache line
  const auto mask = L::mask(last);
  const auto load = [&](const T* p, int v) { return Full || v + 1 < V ? L::load(p) : L::load(p, mask); };
  // Five rows share a base address, so that each broadcast's address is base + {0, 1, 2, 3, 4} strides.
  const int64_t row = Packed ? 1 : strip.a_row_stride, row3 = 3 * row;
  const int64_t a_k_stride = strip.a_k_stride, b_k_stride = strip.b_k_stride;
  // Panels of B come from the second-level cache, faster than its own prefetcher expects; columns of A may be
  // read where they lie, in rows that are far from one another. What is near needs no fetching, and what lies
  // behind it may be another thread's, who writes there.
  const bool near = strip.near;
  const int64_t b_ahead = near ? 0 : 16 * b_k_stride, a_ahead = near ? 0 : 16 * a_k_stride;
  // Fields are read once: for all the compiler knows, a store to C may change them.
  const int64_t c_row_stride = strip.c_row_stride, addend_row_stride = strip.addend_row_stride;
  const bool accumulate = strip.accumulate;

  for (int64_t tile = begin; tile < end; ++tile) {
    Vector acc[R][V];
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) acc[i][v] = L::zero();

    T* const c = strip.c + tile * kColumns;
    const T* base[3] = {strip.a, strip.a + 5 * row, strip.a + 10 * row};
    const auto row_of = [&](int i) { return base[i / 5] + (i % 5 == 3 ? row3 : i % 5 * row); };
    const T* b = strip.b + tile * strip.b_tile_stride;
    // C comes from far away, and so may what later tiles read. A core waits for a dozen lines at most: asked
    // for all at once they would stop the loads of B. So a row of each comes after every R-th of the work.
    const T* fetched = c;
    const T* next = strip.next.at + tile * strip.next_share;
    int64_t next_size = strip.next.size - tile * strip.next_share;
    if (next_size > strip.next_share) next_size = strip.next_share;
    const T* later = nullptr;
    int64_t later_size = 0, later_row_stride = 0;
    if (strip.later != nullptr) {
      later = strip.later[tile].at;
      later_size = strip.later[tile].size;
      later_row_stride = strip.later[tile].row_stride;
    }
    // The last values of k are left to finish().
    const bool one_value = strip.k < L::kLastValues;
    const int64_t k = strip.k - (one_value ? 1 : L::kLastValues);
    const bool spread = !near || later_size > 0;
    const int segments = spread ? R : 1;
    const int64_t part = spread ? k / R : 0;
    int64_t left = k - part * R;  // the first row's part is longer by the rest
    for (int segment = 0; segment < segments; ++segment) {
#pragma GCC unroll 4
      for (int at = 0; at < V * L::kWidth; at += kLine)
        if (!near) __builtin_prefetch(fetched + at, 1);
      for (int64_t at = 0; at < next_size; at += kLine) __builtin_prefetch(next + at, 0, 2);
      for (int64_t at = 0; at < later_size; at += kLine) __builtin_prefetch(later + at, 0, 2);
      fetched += c_row_stride;
      next += strip.next.row_stride;
      later += later_row_stride;
      for (left += part; left > 0; --left) {
        if constexpr (R > 4)
          for (int at = 0; at < V * L::kWidth; at += kLine) __builtin_prefetch(b + b_ahead + at);
        if constexpr (Packed && R > 6) {  // low tiles have no time for it, and pack their columns of A
          __builtin_prefetch(base[0] + a_ahead);
          __builtin_prefetch(base[0] + a_ahead + R - 1);
        }
        Vector bv[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) bv[v] = load(b + v * L::kWidth, v);
#pragma GCC unroll 16
        for (int i = 0; i < R; ++i) {
          const Vector av = L::set1(*row_of(i));
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) acc[i][v] = L::fma(av, bv[v], acc[i][v]);
        }
        base[0] += a_k_stride;
        if constexpr (R > 5) base[1] += a_k_stride;
        if constexpr (R > 10) base[2] += a_k_stride;
        b += b_k_stride;
      }
    }

    // Row by row, each of which is stored while the last terms of the next ones are added.
    const T* const addend = strip.addend == nullptr ? nullptr : strip.addend + tile * kColumns;
    const auto finish = [&]<int kValues, bool kPlain>(Last<kValues, kPlain>) __attribute__((always_inline)) {
      T* row_of_c = c;
      // Else the compiler works out all addresses, and stores them, before it knows how the tile ends.
      asm("" : "+r"(row_of_c), "+r"(base[0]), "+r"(base[1]), "+r"(base[2]));
      Vector bv[kValues][V];
#pragma GCC unroll 4
      for (int p = 0; p < kValues; ++p)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) bv[p][v] = load(b + p * b_k_stride + v * L::kWidth, v);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i, row_of_c += c_row_stride) {
#pragma GCC unroll 4
        for (int p = 0; p < kValues; ++p) {
          const Vector av = L::set1(row_of(i)[p * a_k_stride]);
#pragma GCC unroll 4
          for (int v = 0; v < V; ++v) acc[i][v] = L::fma(av, bv[p][v], acc[i][v]);
        }
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) {
          T* const at = row_of_c + v * L::kWidth;
          if (!kPlain && accumulate) acc[i][v] = L::add(load(at, v), acc[i][v]);
          if (!kPlain && addend != nullptr)
            acc[i][v] = L::add(acc[i][v], load(addend + i * addend_row_stride + v * L::kWidth, v));
          if (Full || v + 1 < V)
            L::store(at, acc[i][v]);
          else
            L::store(at, acc[i][v], mask);
        }
      }
    };
    if (one_value)
      finish(Last<1, false>{});
    else if (accumulate || addend != nullptr)
      finish(Last<L::kLastValues, false>{});
    else
      finish(Last<L::kLastValues, true>{});
  }
}

template <class T, int R>
TilesFunction<T> tiles_function(bool packed, bool full, int vectors) {
  static constexpr TilesFunction<T> functions[2][2][2] = {
      {{multiply_tiles<T, R, 1, false, false>, multiply_tiles<T, R, 2, false, false>},
       {multiply_tiles<T, R, 1, false, true>, multiply_tiles<T, R, 2, false, true>}},
      {{multiply_tiles<T, R, 1, true, false>, multiply_tiles<T, R, 2, true, false>},
       {multiply_tiles<T, R, 1, true, true>, multiply_tiles<T, R, 2, true, true>}}};
  return functions[packed][full][vectors - 1];
}

/// The kernel for so many rows; whole tiles are found first.
template <class T, int R = Lanes<T>::kRows>
TilesFunction<T> tiles_function_for(int rows, bool packed, bool full, int vectors) {
  if constexpr (R > 1) {
    if (rows < R) return tiles_function_for<T, R - 1>(rows, packed, full, vectors);
  }
  return tiles_function<T, R>(packed, full, vectors);
}

template <class T>
void multiply(const Strip<T>& strip) {
  using L = Lanes<T>;
  static_assert(L::kVectors == 2 && L::kRows <= 14);
  const bool packed = strip.a_row_stride == 1;
  const int64_t whole = strip.columns / (2 * L::kWidth);
  if (whole > 0) tiles_function_for<T>(strip.rows, packed, true, 2)(strip, 0, whole, L::kWidth);
  const int rest = static_cast<int>(strip.columns - whole * 2 * L::kWidth);
  if (rest == 0) return;
  const int vectors = rest > L::kWidth ? 2 : 1, last = rest - (vectors - 1) * L::kWidth;
  tiles_function_for<T>(strip.rows, packed, last == L::kWidth, vectors)(strip, whole, whole + 1, last);
}

template <class T>
constexpr GemmKernels<T> gemm_kernels() {
  return {Lanes<T>::kRows, Lanes<T>::kVectors * Lanes<T>::kWidth, multiply<T>, pack<T>, pack_panels<T>,
          copy_segments<T>};
}

}  // namespace
}  // namespace lohe::backend
