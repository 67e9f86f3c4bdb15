#include <algorithm>
#include <cmath>
#include <vector>

#include "base/threads.h"
#include "lohe/error.h"
#include "ops/indexing.h"
#include "ops/reductions.h"
#include "tensor/half.h"
#include "tensor/shape.h"

/// Counts of elements between edges.
namespace lohe::ops {
namespace {

/// How an element finds its bin.
enum class Search : uint8_t {
  kLinear,    ///< by its distance from the first edge
  kAdjusted,  ///< the same, then compared with the edges around
  kBinary,    ///< among the edges
};

constexpr int64_t kBlock = 65536;

template <class T>
using Number = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
struct Bins {
  std::vector<Number<T>> edges;
  Search search;

  static Number<T> rounded(Number<T> v) { return static_cast<Number<T>>(T(v)); }

  /// -1: outside of all bins, or NaN. The last bin holds its right edge.
  int64_t of(Number<T> v) const {
    const Number<T> left = edges.front(), right = edges.back();
    if (!(v >= left && v <= right)) return -1;
    const auto bins = static_cast<int64_t>(edges.size()) - 1;
    int64_t from = 0, to = bins + 1;
    if (search != Search::kBinary) {
      // Every step is rounded to the elements' dtype.
      const Number<T> part = rounded(rounded(v - left) * rounded(static_cast<Number<T>>(bins)));
      const auto near = static_cast<int64_t>(rounded(part / rounded(right - left)));
      if (search == Search::kLinear) return std::min(near, bins - 1);
      from = std::max<int64_t>(0, near - 1);
      to = std::min(near + 2, bins + 1);
    }
    const int64_t at = std::upper_bound(edges.begin() + from, edges.begin() + to, v) - edges.begin() - 1;
    return std::min(at, bins - 1);
  }
};

/// How many elements fall into each bin, or the sum of their weights in order.
template <class T>
void count(const TensorImpl& self, const TensorImpl* weight, const Bins<T>& bins, T* out) {
  const auto* p = reinterpret_cast<const T*>(self.data());
  const int64_t n = self.numel();
  const size_t size = bins.edges.size() - 1;
  if (weight != nullptr) {
    const auto* w = reinterpret_cast<const T*>(weight->data());
    std::vector<double> sums(size);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t bin = bins.of(static_cast<Number<T>>(p[i]));
      if (bin >= 0) sums[static_cast<size_t>(bin)] += static_cast<double>(static_cast<Number<T>>(w[i]));
    }
    for (size_t b = 0; b < size; ++b) out[b] = T(static_cast<Number<T>>(sums[b]));
    return;
  }
  const auto blocks =
      std::max<int64_t>(std::min((n + kBlock - 1) / kBlock, kBlock * 16 / static_cast<int64_t>(size)), 1);
  const int64_t step = (n + blocks - 1) / blocks;
  std::vector<int64_t> counts(static_cast<size_t>(blocks) * size);
  parallel_for(blocks, 1, [&](int64_t b0, int64_t b1) {
    for (int64_t b = b0; b < b1; ++b) {
      int64_t* own = counts.data() + b * static_cast<int64_t>(size);
      for (int64_t i = b * step; i < std::min(n, (b + 1) * step); ++i) {
        const int64_t bin = bins.of(static_cast<Number<T>>(p[i]));
        if (bin >= 0) ++own[bin];
      }
    }
  });
  for (size_t b = 0; b < size; ++b) {
    int64_t total = 0;
    for (size_t k = 0; k < static_cast<size_t>(blocks); ++k) total += counts[k * size + b];
    out[b] = T(static_cast<Number<T>>(total));
  }
}

TensorPtr dense(TensorImpl* t) {
  static const OpRef contiguous("contiguous");
  return contiguous(plain(t));
}

TensorPtr counted(TensorImpl* given, TensorImpl* weight, TensorImpl* edges, Search search) {
  static const OpRef empty("empty");
  const TensorPtr self = dense(given), borders = dense(edges),
                  weights = weight == nullptr ? TensorPtr() : dense(weight);
  const TensorPtr out = empty(Dims{borders->numel() - 1}, self->dtype());
  visit_dtype(self->dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_floating_point_v<T> || std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>) {
      Bins<T> bins{{}, search};
      const auto* e = reinterpret_cast<const T*>(borders->data());
      for (int64_t i = 0; i < borders->numel(); ++i) bins.edges.push_back(static_cast<Number<T>>(e[i]));
      count<T>(*self, weights.get(), bins, reinterpret_cast<T*>(out->data()));
    }
  });
  return out;
}

struct Range {
  double low, high;
};

Range range_of(TensorImpl* self) {
  static const OpRef extremes("aminmax");
  const Results r = extremes.all(self);
  const auto number = [](const TensorPtr& t) {
    return *reinterpret_cast<const double*>(to_dtype(t, Dtype::kFloat64)->data());
  };
  return {number(r[0]), number(r[1])};
}

TensorPtr even_edges(Range range, int64_t bins, Dtype dtype) {
  static const OpRef linspace("linspace");
  return linspace(range.low, range.high, bins + 1, dtype);
}

void check_bins(int64_t bins) {
  LOHE_CHECK(bins > 0, "torch.histogram(): bins must be > 0, but got ", bins, " for dimension 0");
}

Results even_histogram(Args a) {
  const NoGrad guard;
  TensorImpl* self = a[0].tensor;
  LOHE_CHECK_KIND(kNotImplemented, is_floating(self->dtype()), "\"histogram_cpu\" not implemented for '",
                  type_word(self->dtype()), "'; convert to a floating dtype");
  check_bins(a[1].integer);
  LOHE_CHECK(a[2].kind != Arg::kComplex && a[3].kind != Arg::kComplex,
             "torch.histc: min and max must be real");
  Range range{a[2].scalar().to_double(), a[3].scalar().to_double()};
  if (range.low == range.high && self->numel() > 0) range = range_of(self);
  LOHE_CHECK(std::isfinite(range.low) && std::isfinite(range.high), "torch.histc: range of [", range.low,
             ", ", range.high, "] is not finite");
  if (range.low == range.high) range = {range.low - 1, range.high + 1};
  LOHE_CHECK(range.low < range.high, "torch.histc: max must be larger than min, got [", range.low, ", ",
             range.high, "]");
  return counted(self, nullptr, even_edges(range, a[1].integer, self->dtype()).get(), Search::kLinear);
}

/// Shared by both rows: what the edges leave to check, counts, density.
Results histogram(TensorImpl* self, const TensorPtr& edges, const Arg& weight, bool density, Search search) {
  static const OpRef sum("sum"), div("div"), diff("diff");
  TensorImpl* weights = weight.kind == Arg::kTensor ? weight.tensor : nullptr;
  if (weights != nullptr) {
    LOHE_CHECK(
        weights->dtype() == self->dtype(),
        "torch.histogramdd: if weight tensor is provided, input tensor and weight tensor should have the same "
        "dtype, but got input(",
        info(self->dtype()).name, "), and weight(", info(weights->dtype()).name, ")");
    LOHE_CHECK(
        weights->numel() == self->numel(),
        "torch.histogramdd: if weight tensor is provided it should have as many elements as the input, got ",
        weights->numel(), " and ", self->numel());
  }
  TensorPtr hist = counted(self, weights, edges.get(), search);
  if (density) hist = div(div(hist, sum(hist)), diff(edges));
  return Results(hist, edges);
}

void check_histogram(const TensorImpl& self) {
  LOHE_CHECK_KIND(kNotImplemented, self.dtype() == Dtype::kFloat32 || self.dtype() == Dtype::kFloat64,
                  "\"histogramdd\" not implemented for '", type_word(self.dtype()), "'; convert to float32");
}

const OpFamily histograms(
    "histograms",
    {
        function("histc(Tensor self, int bins=100, Scalar min=0, Scalar max=0) -> Tensor", even_histogram)
            .exact_out()
            .not_differentiable()
            .describe(
                "How many elements fall into each of `bins` equal bins from min to max; without them, from the "
                "smallest to the largest element."),
        function(
            "histogram.bins_tensor(Tensor self, Tensor bins, *, Tensor? weight=None, bool density=False) -> (Tensor hist, Tensor bin_edges)",
            [](Args a) {
              static const OpRef clone("clone");
              const NoGrad guard;
              TensorImpl &self = *a[0].tensor, &bins = *a[1].tensor;
              LOHE_CHECK(bins.dim() == 1,
                         "torch.histogramdd: bins tensor should have one dimension, but got ", bins.dim(),
                         " dimensions in the bins tensor for dimension 0");
              LOHE_CHECK(
                  bins.numel() > 0,
                  "torch.histogramdd: bins tensor should have at least 1 element, but got 0 elements in the "
                  "bins tensor for dimension 0");
              LOHE_CHECK(
                  bins.dtype() == self.dtype(),
                  "torch.histogramdd: input tensor and bins tensors should have the same dtype, but got input "
                  "with dtype ",
                  info(self.dtype()).name, " and bins for dimension 0 with dtype ", info(bins.dtype()).name);
              check_bins(bins.numel() - 1);
              check_histogram(self);
              return histogram(&self, clone(&bins), a[2], a[3].integer != 0, Search::kBinary);
            })
            .exact_out()
            .not_differentiable()
            .describe("How many elements fall between ascending edges, or the sum of their weights."),
        function(
            "histogram.bin_ct(Tensor self, int bins=100, *, float[]? range=None, Tensor? weight=None, bool density=False) -> (Tensor hist, Tensor bin_edges)",
            [](Args a) {
              const NoGrad guard;
              TensorImpl& self = *a[0].tensor;
              check_bins(a[1].integer);
              check_histogram(self);
              Range range{0, 1};
              if (!a[2].none()) {
                const auto given = a[2].float_list();
                LOHE_CHECK(
                    given.size() == 2,
                    "torch.histogramdd: for a 1-dimensional histogram range should have 2 elements, but got ",
                    given.size());
                range = {given[0], given[1]};
              } else if (self.numel() > 0) {
                range = range_of(&self);
              }
              LOHE_CHECK(std::isfinite(range.low) && std::isfinite(range.high),
                         "torch.histogramdd: dimension 0's range [", range.low, ", ", range.high,
                         "] is not finite");
              LOHE_CHECK(range.low <= range.high,
                         "torch.histogramdd: min should not exceed max, but got min ", range.low, " max ",
                         range.high, " for dimension 0");
              if (range.low == range.high) range = {range.low - 0.5, range.high + 0.5};
              return histogram(&self, even_edges(range, a[1].integer, self.dtype()), a[3], a[4].integer != 0,
                               Search::kAdjusted);
            })
            .exact_out()
            .not_differentiable()
            .describe(
                "How many elements fall into each of `bins` equal bins of the range, or the sum of their weights."),
    });

}  // namespace
}  // namespace lohe::ops
