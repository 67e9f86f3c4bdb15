#pragma once

#include "backend/cpu/gemm.h"

/// The tile kernel and the packing, written once over a vector type. Each gemm_<level>.cpp declares before it
/// includes this header, in the unnamed namespace of lohe::backend:
///   Lanes<T>: kWidth; kRows of a tile, at most 14; kVectors = 2, columns of a tile / kWidth; Vector; Mask,
///     mask(n) for the first n <= kWidth lanes; kMaskIsFree, whether a masked load costs what a plain one
///     costs; zero(), set1(x), load(p), load(p, mask), store(p, v), store(p, v, mask); fma(a, b, c) = a * b +
///     c, rounded once; add(a, b).
///   pack_transposed(lanes, width, k, source, lane_stride, packed): GemmKernels::pack for k_stride 1.

namespace lohe::backend {
namespace {

template <class T>
using TileFunction = void (*)(const Tile<T>&, int);

/// R rows and V vectors of columns; the last vector holds `last` columns. Packed: a_row_stride is 1, known
/// here so that the R broadcasts need no address arithmetic. Full: last is kWidth.
template <class T, int R, int V, bool Packed, bool Full>
void tile_kernel(const Tile<T>& tile, int last) {
  using L = Lanes<T>;
  using Vector = typename L::Vector;
  const auto mask = L::mask(last);
  const auto load = [&](const T* p, int v) { return Full || v + 1 < V ? L::load(p) : L::load(p, mask); };
  Vector acc[R][V];
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) acc[i][v] = L::zero();

  // Five rows share a base address, so that each broadcast's address is base + {0, 1, 2, 3, 4} strides.
  const int64_t row = Packed ? 1 : tile.a_row_stride, row3 = 3 * row;
  const int64_t a_k_stride = tile.a_k_stride, b_k_stride = tile.b_k_stride;
  const T* base[3] = {tile.a, tile.a + 5 * row, tile.a + 10 * row};
  const T* b = tile.b;
  // C comes from far away, and so may what later tiles read. A core waits for a dozen lines at most: asked
  // for all at once they would stop the loads of B. So a row of each comes after every R-th of the work.
  const T* fetched = tile.c;
  const T* next = tile.next.at;
  const T* later = tile.later.at;
  const bool spread = !tile.near || tile.later.size > 0;
  const int segments = spread ? R : 1;
  const int64_t part = spread ? tile.k / R : 0;
  int64_t left = tile.k - part * R;  // the first row's part is longer by the rest
  // Panels of B come from the second-level cache, faster than its own prefetcher expects; columns of A may be
  // read where they lie, in rows that are far from one another. What is near needs no fetching, and what lies
  // behind it may be another thread's, who writes there.
  const int64_t b_ahead = tile.near ? 0 : 16 * b_k_stride, a_ahead = tile.near ? 0 : 16 * a_k_stride;
  for (int segment = 0; segment < segments; ++segment) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v)
      if (!tile.near) __builtin_prefetch(fetched + v * L::kWidth, 1);
    for (int64_t at = 0; at < tile.next.size; at += 64 / static_cast<int64_t>(sizeof(T)))
      __builtin_prefetch(next + at, 0, 2);
    for (int64_t at = 0; at < tile.later.size; at += 64 / static_cast<int64_t>(sizeof(T)))
      __builtin_prefetch(later + at, 0, 2);
    fetched += tile.c_row_stride;
    next += tile.next.row_stride;
    later += tile.later.row_stride;
    for (left += part; left > 0; --left) {
      if constexpr (R > 4)
        for (int v = 0; v < V; ++v) __builtin_prefetch(b + b_ahead + v * L::kWidth);
      if constexpr (Packed && R > 6) {  // low tiles have no time for it, and pack their columns of A
        __builtin_prefetch(base[0] + a_ahead);
        __builtin_prefetch(base[0] + a_ahead + R - 1);
      }
      Vector bv[V];
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v) bv[v] = load(b + v * L::kWidth, v);
#pragma GCC unroll 16
      for (int i = 0; i < R; ++i) {
        const T* const at = base[i / 5] + (i % 5 == 3 ? row3 : i % 5 * row);
        const Vector av = L::set1(*at);
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) acc[i][v] = L::fma(av, bv[v], acc[i][v]);
      }
      base[0] += a_k_stride;
      if constexpr (R > 5) base[1] += a_k_stride;
      if constexpr (R > 10) base[2] += a_k_stride;
      b += b_k_stride;
    }
  }

  // Fields are read once: for all the compiler knows, a store to C may change them.
  T* const c = tile.c;
  const int64_t c_row_stride = tile.c_row_stride;
  if (tile.accumulate) {
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        acc[i][v] = L::add(load(c + i * c_row_stride + v * L::kWidth, v), acc[i][v]);
  }
  if (const T* const addend = tile.addend) {
    const int64_t addend_row_stride = tile.addend_row_stride;
#pragma GCC unroll 16
    for (int i = 0; i < R; ++i)
#pragma GCC unroll 4
      for (int v = 0; v < V; ++v)
        acc[i][v] = L::add(acc[i][v], load(addend + i * addend_row_stride + v * L::kWidth, v));
  }
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < V; ++v) {
      T* const at = c + i * c_row_stride + v * L::kWidth;
      if (Full || v + 1 < V)
        L::store(at, acc[i][v]);
      else
        L::store(at, acc[i][v], mask);
    }
  }
}

template <class T, int R>
TileFunction<T> tile_function(bool packed, bool full, int vectors) {
  constexpr bool kFull = !Lanes<T>::kMaskIsFree;  // else one kernel serves both
  static constexpr TileFunction<T> functions[2][2][2] = {
      {{tile_kernel<T, R, 1, false, false>, tile_kernel<T, R, 2, false, false>},
       {tile_kernel<T, R, 1, false, kFull>, tile_kernel<T, R, 2, false, kFull>}},
      {{tile_kernel<T, R, 1, true, false>, tile_kernel<T, R, 2, true, false>},
       {tile_kernel<T, R, 1, true, kFull>, tile_kernel<T, R, 2, true, kFull>}}};
  return functions[packed][full][vectors - 1];
}

/// The kernel for so many rows; whole tiles are found first.
template <class T, int R = Lanes<T>::kRows>
TileFunction<T> tile_function_for(int rows, bool packed, bool full, int vectors) {
  if constexpr (R > 1) {
    if (rows < R) return tile_function_for<T, R - 1>(rows, packed, full, vectors);
  }
  return tile_function<T, R>(packed, full, vectors);
}

template <class T>
void run_tile(const Tile<T>& tile) {
  using L = Lanes<T>;
  static_assert(L::kVectors == 2 && L::kRows <= 14);
  const int vectors = tile.columns > L::kWidth ? 2 : 1;
  const int last = tile.columns - (vectors - 1) * L::kWidth;
  tile_function_for<T>(tile.rows, tile.a_row_stride == 1, last == L::kWidth, vectors)(tile, last);
}

template <class T>
void pack(int lanes, int width, int64_t k, const T* source, int64_t lane_stride, int64_t k_stride,
          T* packed) {
  using L = Lanes<T>;
  if (lane_stride == 1) {
    for (int64_t p = 0; p < k; ++p, source += k_stride, packed += width) {
      for (int lane = 0; lane < width; lane += L::kWidth) {
        const int stored = width - lane < L::kWidth ? width - lane : L::kWidth;
        const int loaded = lanes - lane < stored ? (lanes - lane > 0 ? lanes - lane : 0) : stored;
        L::store(packed + lane, L::load(source + lane, L::mask(loaded)), L::mask(stored));
      }
    }
    return;
  }
  if (k_stride == 1) {
    pack_transposed(lanes, width, k, source, lane_stride, packed);
    return;
  }
  for (int64_t p = 0; p < k; ++p)
    for (int lane = 0; lane < width; ++lane)
      packed[p * width + lane] = lane < lanes ? source[lane * lane_stride + p * k_stride] : T{0};
}

template <class T>
void pack_panels(int64_t lanes, int width, int64_t k, const T* source, int64_t lane_stride, int64_t k_stride,
                 T* packed, int64_t panel_stride) {
  using L = Lanes<T>;
  if (lane_stride != 1) {
    for (; lanes > 0; lanes -= width, source += width * lane_stride, packed += panel_stride)
      pack(static_cast<int>(lanes < width ? lanes : width), width, k, source, lane_stride, k_stride, packed);
    return;
  }
  // Row by row through all panels: the source is read in long runs. They may be short for a processor's own
  // prefetching, so that what comes from the third-level cache is asked for in time.
  constexpr int64_t kRowsAhead = 16, kLine = 64 / static_cast<int64_t>(sizeof(T));
  for (int64_t p = 0; p < k; ++p, source += k_stride, packed += width) {
    const T* from = source;
    T* to = packed;
    int64_t left = lanes;
    for (; left >= width; left -= width, from += width, to += panel_stride) {
      for (int64_t at = 0; at < width; at += kLine) __builtin_prefetch(from + at + kRowsAhead * k_stride);
      int lane = 0;
      for (; lane + L::kWidth <= width; lane += L::kWidth) L::store(to + lane, L::load(from + lane));
      if (lane < width) {
        const auto mask = L::mask(width - lane);
        L::store(to + lane, L::load(from + lane, mask), mask);
      }
    }
    if (left > 0) pack(static_cast<int>(left), width, 1, from, 1, k_stride, to);
  }
}

template <class T>
void copy_segments(const Segment* segments, int count, int width, int64_t rows, const T* source,
                   int64_t source_stride, T* packed, int64_t packed_stride) {
  using L = Lanes<T>;
  for (int64_t r = 0; r < rows; ++r, source += source_stride, packed += packed_stride) {
    for (int lane = 0; lane < width; lane += L::kWidth) L::store(packed + lane, L::zero());
    for (int s = 0; s < count; ++s) {
      const Segment segment = segments[s];
      const T* from = source + segment.offset;
      T* to = packed + segment.lane;
      int length = segment.length;
      for (; length >= L::kWidth; length -= L::kWidth, from += L::kWidth, to += L::kWidth)
        L::store(to, L::load(from));
      if (length > 0) L::store(to, L::load(from, L::mask(length)), L::mask(length));
    }
  }
}

template <class T>
constexpr GemmKernels<T> gemm_kernels() {
  return {Lanes<T>::kRows, Lanes<T>::kVectors * Lanes<T>::kWidth, run_tile<T>, pack<T>, pack_panels<T>,
          copy_segments<T>};
}

}  // namespace
}  // namespace lohe::backend
