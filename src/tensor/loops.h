#pragma once

#include <array>
#include <cstdint>
#include <span>

#include "base/small_vector.h"
#include "tensor/tensor_impl.h"

namespace lohe {

/// Loops over the elements of a shape in row-major order, for host code that walks N strided operands
/// together. Strides are bytes. Neighbouring dims are merged where no operand minds.
template <size_t N>
class Loops {
 public:
  Loops() = default;

  /// Appends the next inner dim; dims come slowest first.
  void add(int64_t size, const std::array<int64_t, N>& strides) {
    count_ *= size;
    if (size == 1) return;
    if (!dims_.empty()) {
      Dim& p = dims_[dims_.size() - 1];
      bool merges = true;
      for (size_t k = 0; k < N; ++k) merges = merges && p.strides[k] == strides[k] * size;
      if (merges) {
        p.size *= size;
        p.strides = strides;
        return;
      }
    }
    dims_.push_back(Dim{size, strides});
  }

  int64_t count() const { return count_; }
  /// Length and strides of the innermost runs.
  int64_t run() const { return dims_.empty() ? 1 : dims_.back().size; }
  std::array<int64_t, N> run_strides() const {
    return dims_.empty() ? std::array<int64_t, N>{} : dims_.back().strides;
  }
  /// One run covers everything.
  bool flat() const { return dims_.size() <= 1; }

  /// Calls body(offsets, n) for runs of n elements that lie run_strides() apart, over elements [begin, end).
  template <class F>
  void range(int64_t begin, int64_t end, F&& body) const {
    if (begin >= end) return;
    std::array<int64_t, N> at{};
    if (dims_.empty()) {
      body(at, int64_t{1});
      return;
    }
    SmallVector<int64_t, 8> index(dims_.size());
    int64_t rest = begin;
    for (size_t d = dims_.size(); d-- > 0;) {
      index[d] = rest % dims_[d].size;
      rest /= dims_[d].size;
      for (size_t k = 0; k < N; ++k) at[k] += index[d] * dims_[d].strides[k];
    }
    const size_t last = dims_.size() - 1;
    for (int64_t left = end - begin;;) {
      const int64_t n = std::min(left, dims_[last].size - index[last]);
      body(at, n);
      left -= n;
      if (left == 0) return;
      for (size_t k = 0; k < N; ++k) at[k] -= index[last] * dims_[last].strides[k];
      index[last] = 0;
      for (size_t d = last; d-- > 0;) {
        for (size_t k = 0; k < N; ++k) at[k] += dims_[d].strides[k];
        if (++index[d] < dims_[d].size) break;
        for (size_t k = 0; k < N; ++k) at[k] -= index[d] * dims_[d].strides[k];
        index[d] = 0;
      }
    }
  }

 private:
  struct Dim {
    int64_t size;
    std::array<int64_t, N> strides;
  };
  SmallVector<Dim, 6> dims_;
  int64_t count_ = 1;
};

/// Loops over `sizes` with element strides scaled by item sizes.
template <size_t N>
Loops<N> make_loops(std::span<const int64_t> sizes, const std::array<std::span<const int64_t>, N>& strides,
                    const std::array<int64_t, N>& itemsizes) {
  Loops<N> loops;
  for (size_t d = 0; d < sizes.size(); ++d) {
    std::array<int64_t, N> s{};
    for (size_t k = 0; k < N; ++k) s[k] = strides[k][d] * itemsizes[k];
    loops.add(sizes[d], s);
  }
  return loops;
}

inline Loops<1> make_loops(const TensorImpl& t) {
  return make_loops<1>(t.sizes(), {t.strides()}, {t.itemsize()});
}

}  // namespace lohe
