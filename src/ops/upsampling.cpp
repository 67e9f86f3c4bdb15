#include <algorithm>
#include <cmath>

#include "backend/resampling.h"
#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// Images resized by interpolation. Every mode is a separable linear map: a table of positions and weights
/// for each spatial axis, so there is one kernel and one transposed kernel, and each is the other's gradient.
namespace lohe::ops {
namespace {

using backend::AxisTaps;
using backend::ResamplingShape;

/// Input positions an output position, with PyTorch's conventions; `Real` is the type that coordinates are
/// computed in, which decides which side of a boundary they fall on.
template <class Real>
struct Axis {
  int64_t in, out;
  bool align;
  double given;  ///< scale factor, 0: none

  Real step() const {
    if (align) return out > 1 ? static_cast<Real>(in - 1) / static_cast<Real>(out - 1) : Real(0);
    return given > 0 ? static_cast<Real>(1.0 / given) : static_cast<Real>(in) / static_cast<Real>(out);
  }
  /// Centre of output position o in the input.
  Real centre(Real scale, int64_t o) const {
    const auto x = static_cast<Real>(o);
    return align ? scale * x : scale * (x + Real(0.5)) - Real(0.5);
  }

  AxisTaps nearest(bool exact) const {
    AxisTaps t;
    const Axis<float> coarse{in, out, false, given};
    const float scale = coarse.step();
    for (int64_t o = 0; o < out; ++o) {
      const float x = std::floor((static_cast<float>(o) + (exact ? 0.5F : 0.0F)) * scale);
      t.at.push_back(std::min(static_cast<int64_t>(x), in - 1));
    }
    return t;
  }

  AxisTaps linear() const {
    AxisTaps t;
    t.count = 2;
    const Real scale = step();
    for (int64_t o = 0; o < out; ++o) {
      const Real x = std::max(in == out ? static_cast<Real>(o) : centre(scale, o), Real(0));
      const int64_t low = std::min(static_cast<int64_t>(x), in - 1);
      const Real right = std::clamp(x - static_cast<Real>(low), Real(0), Real(1));
      t.at.push_back(low);
      t.at.push_back(std::min(low + 1, in - 1));
      t.weights.push_back(Real(1) - right);
      t.weights.push_back(right);
    }
    return t;
  }

  /// Cubic convolution (Keys 1981) with a = -3/4.
  AxisTaps cubic() const {
    AxisTaps t;
    t.count = 4;
    const Real scale = step(), a = Real(-0.75);
    const auto near = [a](Real d) { return ((a + 2) * d - (a + 3)) * d * d + 1; };
    const auto far = [a](Real d) { return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a; };
    for (int64_t o = 0; o < out; ++o) {
      const Real x = centre(scale, o);
      const auto low = std::min(static_cast<int64_t>(std::floor(x)), in - 1);
      const Real d = std::clamp(x - static_cast<Real>(low), Real(0), Real(1));
      const Real weights[] = {far(d + 1), near(d), near(1 - d), far(2 - d)};
      for (int64_t k = 0; k < 4; ++k) {
        t.at.push_back(std::clamp(low - 1 + k, int64_t{0}, in - 1));
        t.weights.push_back(weights[k]);
      }
    }
    return t;
  }

  /// The filter stretched to the output's spacing where the axis shrinks, so that every input position
  /// counts.
  AxisTaps antialiased(bool is_cubic) const {
    const Real scale = step(), stretch = scale >= 1 ? scale : Real(1);
    const Real support = (is_cubic ? Real(2) : Real(1)) * stretch;
    const auto filter = [is_cubic](Real x) {
      x = std::abs(x);
      if (!is_cubic) return x < 1 ? 1 - x : Real(0);
      constexpr Real a = Real(-0.5);
      if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
      return x < 2 ? ((a * x - 5 * a) * x + 8 * a) * x - 4 * a : Real(0);
    };
    AxisTaps t;
    t.count = static_cast<int64_t>(std::ceil(support)) * 2 + 1;
    for (int64_t o = 0; o < out; ++o) {
      const Real x = scale * (static_cast<Real>(o) + Real(0.5));
      const int64_t first = std::max(static_cast<int64_t>(x - support + Real(0.5)), int64_t{0});
      const int64_t n = std::clamp(std::min(static_cast<int64_t>(x + support + Real(0.5)), in) - first,
                                   int64_t{0}, t.count);
      Real total = 0;
      std::vector<Real> weights(static_cast<size_t>(t.count));
      for (int64_t k = 0; k < n; ++k) {
        Real& w = weights[static_cast<size_t>(k)];
        w = filter((static_cast<Real>(first + k) - x + Real(0.5)) / stretch);
        total += w;
      }
      for (int64_t k = 0; k < t.count; ++k) {
        t.at.push_back(std::clamp(first + k, int64_t{0}, in - 1));
        t.weights.push_back(total != 0 ? weights[static_cast<size_t>(k)] / total : Real(0));
      }
    }
    return t;
  }

  AxisTaps taps(std::string_view mode) const {
    if (mode == "nearest" || mode == "nearest-exact") return nearest(mode == "nearest-exact");
    if (mode == "linear") return linear();
    if (mode == "cubic") return cubic();
    return antialiased(mode == "cubic-antialias");
  }
};

/// Weights at one position are one weight: what is rounded to fixed point is their sum.
void merge_equal_positions(AxisTaps& t) {
  for (size_t o = 0; !t.weights.empty() && o < t.at.size(); o += static_cast<size_t>(t.count)) {
    for (size_t k = o + 1; k < o + static_cast<size_t>(t.count); ++k) {
      const auto same =
          std::find(t.at.begin() + static_cast<long>(o), t.at.begin() + static_cast<long>(k), t.at[k]);
      if (same == t.at.begin() + static_cast<long>(k)) continue;
      t.weights[static_cast<size_t>(same - t.at.begin())] += t.weights[k];
      t.weights[k] = 0;
    }
  }
}

/// Arguments of both rows: tensor, sizes, mode, align_corners, scales.
ResamplingShape shape_of(std::span<const int64_t> input, std::span<const int64_t> output, Args a,
                         Dtype dtype) {
  ResamplingShape s;
  const auto scales = a[4].float_list();
  const size_t n = scales.size();
  for (size_t d = 0; d + n < input.size(); ++d) s.planes *= input[d];
  for (size_t i = 0; i < 3; ++i) s.taps[i].at = {0};
  for (size_t k = 0; k < n; ++k) {
    const size_t axis = 3 - n + k, d = input.size() - n + k;
    s.input[axis] = input[d];
    s.output[axis] = output[d];
    const bool align = a[3].integer != 0;
    const bool wide = dtype == Dtype::kFloat64 || dtype == Dtype::kUInt8;
    s.taps[axis] = wide ? Axis<double>{input[d], output[d], align, scales[k]}.taps(a[2].str())
                        : Axis<float>{input[d], output[d], align, scales[k]}.taps(a[2].str());
    if (dtype == Dtype::kUInt8) merge_equal_positions(s.taps[axis]);
  }
  return s;
}

Meta meta_like(const TensorImpl& t, Dims sizes) {
  Meta m;
  m.dtype = t.dtype();
  m.sizes = std::move(sizes);
  if (!t.contiguous() && is_channels_last(t.sizes(), t.strides())) m.strides = channels_last_strides(m.sizes);
  return m;
}

/// Runs `kernel(from, to)` on dense memory; the result may be laid out otherwise.
template <class F>
void on_dense(TensorImpl* t, const TensorPtr& result, F&& kernel) {
  static const OpRef contiguous("contiguous"), empty("empty"), copy("copy_");
  const TensorPtr from = contiguous(t);
  const TensorPtr to = result->contiguous() ? result : empty(result->sizes(), result->dtype());
  kernel(from->data(), to->data());
  if (to.get() != result.get()) copy(result, to);
}

struct Mode {
  std::string_view name, filter;
  bool corners;  ///< has align_corners
};

template <size_t kSpatial>
Results upsampled(Args a, Mode mode) {
  static const OpRef row("_resample");
  const TensorImpl& x = *a[0].tensor;
  const Arg &size = a[1], &factors = mode.corners ? a[3] : a[2];
  LOHE_CHECK(size.none() != factors.none(), "Must specify exactly one of output_size and scale_factors");
  LOHE_CHECK(x.dim() == static_cast<int64_t>(kSpatial) + 2, mode.name, ": expected a ", kSpatial + 2,
             "D input (N, C, ...), got shape ", to_string(x.sizes()));
  const auto given = static_cast<size_t>(size.none() ? factors.count : size.count);
  LOHE_CHECK(given == kSpatial, "It is expected ", size.none() ? "scale_factors" : "output_size",
             " equals to ", kSpatial, ", but got size ", given);
  Dims sizes = x.size_dims();
  std::vector<double> scales(kSpatial);
  for (size_t k = 0; k < kSpatial; ++k) {
    const auto in = static_cast<double>(x.sizes()[k + 2]);
    if (!factors.none()) scales[k] = factors.float_list()[k];
    sizes[k + 2] = size.none() ? static_cast<int64_t>(in * scales[k]) : size.int_list()[k];
    LOHE_CHECK(x.sizes()[k + 2] > 0 && sizes[k + 2] > 0,
               "Input and output sizes should be greater than 0, but got input ", to_string(x.sizes()),
               " and output ", to_string(sizes), " in ", mode.name);
  }
  LOHE_CHECK(x.sizes()[1] > 0, mode.name, ": non-empty tensor expected but got a tensor with sizes ",
             to_string(x.sizes()), "; only the batch may be empty");
  const Dtype d = x.dtype();
  const bool bytes = d == Dtype::kUInt8 && (mode.filter.starts_with("nearest") || kSpatial == 2);
  LOHE_CHECK_KIND(kNotImplemented, is_floating(d) || bytes, "\"", mode.name, "\" not implemented for '", d,
                  "'; convert to a floating dtype");
  return row(a[0], sizes, mode.filter, mode.corners && a[2].integer != 0, std::span<const double>(scales));
}

const OpFamily upsampling(
    "upsampling",
    {
        primitive(
            "_resample(Tensor self, int[] output_size, str mode, bool align_corners, float[] scales) -> Tensor",
            [](Args a) { return std::vector<Meta>{meta_like(*a[0].tensor, Dims(a[1].int_list()))}; },
            [](Args a, Results& r) {
              const TensorImpl& x = *a[0].tensor;
              const ResamplingShape s = shape_of(x.sizes(), a[1].int_list(), a, x.dtype());
              on_dense(a[0].tensor, r[0],
                       [&](const void* from, void* to) { backend::resample(x.dtype(), s, from, to); });
            })
            .grad([](Backward& b) {
              static const OpRef row("_resample_gradient");
              if (b.needs(0)) b.set(0, row(b.grad(), b.meta(0).sizes, b.arg(2), b.arg(3), b.arg(4)));
            })
            .gradient_reads({})
            .in("_C")
            .describe("The last dims resized; one scale (0: none) for each of them."),
        primitive(
            "_resample_gradient(Tensor grad, int[] input_size, str mode, bool align_corners, float[] scales) -> Tensor",
            [](Args a) { return std::vector<Meta>{meta_like(*a[0].tensor, Dims(a[1].int_list()))}; },
            [](Args a, Results& r) {
              const TensorImpl& g = *a[0].tensor;
              const ResamplingShape s = shape_of(a[1].int_list(), g.sizes(), a, g.dtype());
              on_dense(a[0].tensor, r[0], [&](const void* from, void* to) {
                backend::resample_gradient(g.dtype(), s, from, to);
              });
            })
            .grad([](Backward& b) {
              static const OpRef row("_resample");
              if (b.needs(0)) b.set(0, row(b.grad(), b.meta(0).sizes, b.arg(2), b.arg(3), b.arg(4)));
            })
            .gradient_reads({})
            .in("_C")
            .describe("The transposed map of _resample."),
        function("upsample_nearest1d(Tensor input, int[]? output_size, float[]? scale_factors) -> Tensor",
                 [](Args a) { return upsampled<1>(a, {"upsample_nearest1d", "nearest", false}); })
            .in("nn")
            .describe("The input position below each output position, of (N, C, L)."),
        function("upsample_nearest2d(Tensor input, int[]? output_size, float[]? scale_factors) -> Tensor",
                 [](Args a) { return upsampled<2>(a, {"upsample_nearest2d", "nearest", false}); })
            .in("nn")
            .describe("The input position below each output position, of (N, C, H, W)."),
        function("upsample_nearest3d(Tensor input, int[]? output_size, float[]? scale_factors) -> Tensor",
                 [](Args a) { return upsampled<3>(a, {"upsample_nearest3d", "nearest", false}); })
            .in("nn")
            .describe("The input position below each output position, of (N, C, D, H, W)."),
        function(
            "_upsample_nearest_exact1d(Tensor input, int[]? output_size, float[]? scale_factors) -> Tensor",
            [](Args a) { return upsampled<1>(a, {"_upsample_nearest_exact1d", "nearest-exact", false}); })
            .in("nn")
            .describe("The input position nearest to each output position's centre, of (N, C, L)."),
        function(
            "_upsample_nearest_exact2d(Tensor input, int[]? output_size, float[]? scale_factors) -> Tensor",
            [](Args a) { return upsampled<2>(a, {"_upsample_nearest_exact2d", "nearest-exact", false}); })
            .in("nn")
            .describe("The input position nearest to each output position's centre, of (N, C, H, W)."),
        function(
            "_upsample_nearest_exact3d(Tensor input, int[]? output_size, float[]? scale_factors) -> Tensor",
            [](Args a) { return upsampled<3>(a, {"_upsample_nearest_exact3d", "nearest-exact", false}); })
            .in("nn")
            .describe("The input position nearest to each output position's centre, of (N, C, D, H, W)."),
        function(
            "upsample_linear1d(Tensor input, int[]? output_size, bool align_corners, float[]? scale_factors) -> Tensor",
            [](Args a) { return upsampled<1>(a, {"upsample_linear1d", "linear", true}); })
            .in("nn")
            .describe("Linear interpolation of (N, C, L)."),
        function(
            "upsample_bilinear2d(Tensor input, int[]? output_size, bool align_corners, float[]? scale_factors) -> Tensor",
            [](Args a) { return upsampled<2>(a, {"upsample_bilinear2d", "linear", true}); })
            .in("nn")
            .describe("Linear interpolation of (N, C, H, W)."),
        function(
            "upsample_trilinear3d(Tensor input, int[]? output_size, bool align_corners, float[]? scale_factors) -> Tensor",
            [](Args a) { return upsampled<3>(a, {"upsample_trilinear3d", "linear", true}); })
            .in("nn")
            .describe("Linear interpolation of (N, C, D, H, W)."),
        function(
            "upsample_bicubic2d(Tensor input, int[]? output_size, bool align_corners, float[]? scale_factors) -> Tensor",
            [](Args a) { return upsampled<2>(a, {"upsample_bicubic2d", "cubic", true}); })
            .in("nn")
            .describe("Cubic convolution of (N, C, H, W) (Keys 1981)."),
        function(
            "_upsample_bilinear2d_aa(Tensor input, int[]? output_size, bool align_corners, float[]? scale_factors) -> Tensor",
            [](Args a) { return upsampled<2>(a, {"_upsample_bilinear2d_aa", "linear-antialias", true}); })
            .in("nn")
            .describe("upsample_bilinear2d whose filter covers all input positions where the image shrinks."),
        function(
            "_upsample_bicubic2d_aa(Tensor input, int[]? output_size, bool align_corners, float[]? scale_factors) -> Tensor",
            [](Args a) { return upsampled<2>(a, {"_upsample_bicubic2d_aa", "cubic-antialias", true}); })
            .in("nn")
            .describe("upsample_bicubic2d whose filter covers all input positions where the image shrinks."),
    });

}  // namespace
}  // namespace lohe::ops
