#include <array>

#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// Images sampled at the points of a grid: per point a few neighbours, gathered and weighted. Made of rows
/// that have gradients, so that gradients of any order follow; half types compute in float32 and round once.
namespace lohe::ops {
namespace {

enum Interpolation : int64_t { kLinear = 0, kNearest = 1, kCubic = 2 };
enum Padding : int64_t { kZeros = 0, kBorder = 1, kReflection = 2 };

TensorPtr plus(const TensorPtr& a, const Arg& b) {
  static const OpRef row("add");
  return row(a, b);
}
TensorPtr times(const TensorPtr& a, const Arg& b) {
  static const OpRef row("mul");
  return row(a, b);
}
TensorPtr choose(const TensorPtr& condition, const Arg& a, const Arg& b) {
  static const OpRef row("where.self");
  return row(condition, a, b);
}
TensorPtr clipped(const TensorPtr& x, double low, double high) {
  static const OpRef row("clamp");
  return row(x, low, high);
}

/// One spatial axis of the image.
struct Axis {
  int64_t size;
  bool corners;
  int64_t padding;

  /// Grid coordinates in [-1, 1] to positions.
  TensorPtr positions(const TensorPtr& g) const {
    const auto n = static_cast<double>(size);
    return corners ? times(plus(g, 1.0), (n - 1) / 2) : times(plus(times(plus(g, 1.0), n), -1.0), 0.5);
  }

  /// Positions brought into the image by the padding mode; kZeros leaves them.
  TensorPtr inside(TensorPtr x) const {
    if (padding == kZeros) return x;
    const double last = static_cast<double>(size) - 1;
    if (padding == kReflection) x = reflected(x);
    return clipped(x, 0, last);
  }

 private:
  /// Mirrored at the centres (corners) or at the outer edges of the first and last element until it is
  /// inside.
  TensorPtr reflected(const TensorPtr& x) const {
    static const OpRef abs("abs"), fmod("fmod"), floor("floor"), remainder("remainder"), eq("eq"), neg("neg");
    const double low = corners ? 0 : -0.5,
                 span = corners ? static_cast<double>(size) - 1 : static_cast<double>(size);
    if (span == 0) return times(x, 0.0);
    const TensorPtr distance = abs(plus(x, -low));
    const TensorPtr rest = fmod(distance, span);
    const TensorPtr flips = floor(times(distance, 1 / span));
    const TensorPtr even = eq(remainder(flips, 2.0), 0.0);
    return choose(even, plus(rest, low), plus(neg(rest), span + low));
  }
};

/// Whole-numbered neighbours along one axis with their weights.
struct Neighbour {
  TensorPtr at, weight;
};

std::vector<Neighbour> neighbours(const Axis& axis, const TensorPtr& grid, int64_t mode) {
  static const OpRef floor("floor"), round("round"), sub("sub"), rsub("rsub"), detach("detach");
  const TensorPtr x = axis.positions(grid);
  if (mode == kNearest) {
    // The weight is 1 whatever the position, but belongs to it: its gradient is zero, not absent.
    const TensorPtr at = round(axis.inside(x));
    return {{at, plus(times(at, 0.0), 1.0)}};
  }
  if (mode == kLinear) {
    const TensorPtr inside = axis.inside(x), low = detach(floor(inside)), right = sub(inside, low);
    return {{low, rsub(right, 1.0)}, {plus(low, 1.0), right}};
  }
  // Cubic convolution (Keys 1981) with a = -3/4 of unpadded positions; each neighbour is padded on its own.
  constexpr double a = -0.75;
  const TensorPtr low = detach(floor(x)), t = sub(x, low);
  const auto near = [](const TensorPtr& d) {
    return plus(times(times(plus(times(d, a + 2), -(a + 3)), d), d), 1.0);
  };
  const auto far = [](const TensorPtr& d) {
    return plus(times(plus(times(plus(times(d, a), -5 * a), d), 8 * a), d), -4 * a);
  };
  const TensorPtr right = rsub(t, 1.0);
  return {{axis.inside(plus(low, -1.0)), far(plus(t, 1.0))},
          {axis.inside(low), near(t)},
          {axis.inside(plus(low, 1.0)), near(right)},
          {axis.inside(plus(low, 2.0)), far(plus(right, 1.0))}};
}

void check(const TensorImpl& x, const TensorImpl& grid, int64_t mode, int64_t padding, size_t rank) {
  LOHE_CHECK(x.dtype() == grid.dtype(), "grid_sampler(): expected input and grid of one dtype, but got ",
             x.dtype(), " and ", grid.dtype());
  const auto n = x.sizes().size();
  LOHE_CHECK(
      n >= 2 && n == grid.sizes().size() && x.sizes()[0] == grid.sizes()[0],
      "grid_sampler(): expected grid and input to have same number of dimensions and same batch size, but got "
      "input with sizes ",
      to_string(x.sizes()), " and grid with sizes ", to_string(grid.sizes()));
  LOHE_CHECK(grid.sizes().back() == static_cast<int64_t>(n) - 2,
             "grid_sampler(): expected grid to have size ", static_cast<int64_t>(n) - 2,
             " in last dimension, but got grid with sizes ", to_string(grid.sizes()));
  LOHE_CHECK((n == 4 || n == 5) && (rank == 0 || n == rank), "grid_sampler(): expected ",
             rank == 0 ? std::string("4D or 5D") : std::to_string(rank) + "D",
             " input, but got input with sizes ", to_string(x.sizes()));
  for (size_t d = 2; d < n; ++d) {
    LOHE_CHECK(x.sizes()[d] > 0,
               "grid_sampler(): expected input to have non-empty spatial dimensions, but input has "
               "sizes ",
               to_string(x.sizes()), " with dimension ", d, " being empty");
  }
  LOHE_CHECK(mode >= kLinear && mode <= kCubic && padding >= kZeros && padding <= kReflection,
             "grid_sampler(): interpolation_mode and padding_mode are 0, 1 or 2, but got ", mode, " and ",
             padding);
  LOHE_CHECK(n == 4 || mode != kCubic, "grid_sampler(): bicubic interpolation only supports 4D input");
  LOHE_CHECK_KIND(kNotImplemented, is_floating(x.dtype()), "\"grid_sampler\" not implemented for '",
                  x.dtype(), "'; convert to a floating dtype");
}

/// input, grid, interpolation_mode, padding_mode, align_corners
Results sampled(Args a, size_t rank) {
  static const OpRef to("to.dtype"), select("select.int"), reshape("reshape"), expand("expand"),
      gather("gather"), ge("ge"), le("le"), both("logical_and"), detach("detach"), view("view");
  check(*a[0].tensor, *a[1].tensor, a[2].integer, a[3].integer, rank);
  const Dtype dtype = a[0].tensor->dtype(), compute = info(dtype).compute_dtype;
  const TensorPtr x = to(a[0].tensor, compute), grid = to(a[1].tensor, compute);
  const size_t spatial = x->sizes().size() - 2;
  const int64_t batch = x->sizes()[0], channels = x->sizes()[1];
  const bool corners = a[4].integer != 0;

  int64_t points = 1, area = 1;
  Dims result{batch, channels};
  for (size_t d = 0; d < spatial; ++d) {
    points *= grid->sizes()[d + 1];
    area *= x->sizes()[d + 2];
    result.push_back(grid->sizes()[d + 1]);
  }
  const TensorPtr planes = reshape(x, Dims{batch, channels, area});
  const TensorPtr coordinates = reshape(grid, Dims{batch, points, static_cast<int64_t>(spatial)});
  std::array<std::vector<Neighbour>, 3> axes;
  for (size_t d = 0; d < spatial; ++d) {
    const Axis axis{x->sizes()[d + 2], corners, a[3].integer};
    // The last coordinate belongs to the first spatial dim.
    axes[d] = neighbours(axis, select(coordinates, int64_t{2}, static_cast<int64_t>(spatial - 1 - d)),
                         a[2].integer);
  }
  size_t combinations = 1;
  for (size_t d = 0; d < spatial; ++d) combinations *= axes[d].size();
  TensorPtr sum;
  for (size_t c = 0; c < combinations; ++c) {
    TensorPtr valid, weight, index;
    size_t rest = c;
    for (size_t d = spatial; d-- > 0;) {
      const Neighbour& n = axes[d][rest % axes[d].size()];
      rest /= axes[d].size();
      const TensorPtr at = detach(n.at);
      const TensorPtr fits = both(ge(at, 0.0), le(at, static_cast<double>(x->sizes()[d + 2] - 1)));
      valid = valid ? TensorPtr(both(valid, fits)) : fits;
      weight = weight ? times(weight, n.weight) : n.weight;
    }
    rest = c;
    int64_t stride = 1;
    for (size_t d = spatial; d-- > 0;) {
      const Neighbour& n = axes[d][rest % axes[d].size()];
      rest /= axes[d].size();
      // What is outside, NaN included, reads element 0 and weighs nothing.
      const TensorPtr step = times(to(choose(valid, detach(n.at), 0.0), kInt64), stride);
      index = index ? plus(index, step) : step;
      stride *= x->sizes()[d + 2];
    }
    weight = choose(valid, weight, 0.0);
    index = expand(reshape(index, Dims{batch, 1, points}), Dims{batch, channels, points});
    const TensorPtr part = times(gather(planes, int64_t{2}, index), reshape(weight, Dims{batch, 1, points}));
    sum = sum ? plus(sum, part) : part;
  }
  return Results(view(to(sum, dtype), result));
}

const OpFamily grid_sampling(
    "grid_sampling",
    {
        function(
            "grid_sampler(Tensor input, Tensor grid, int interpolation_mode, int padding_mode, bool align_corners) -> Tensor",
            [](Args a) { return sampled(a, 0); })
            .function_only()
            .describe(
                "(N, C, H, W) or (N, C, D, H, W) sampled at a grid of (x, y) or (x, y, z) in [-1, 1]; modes: 0 "
                "linear, 1 nearest, 2 cubic; paddings: 0 zeros, 1 border, 2 reflection."),
        function(
            "grid_sampler_2d(Tensor input, Tensor grid, int interpolation_mode, int padding_mode, bool align_corners) -> Tensor",
            [](Args a) { return sampled(a, 4); })
            .function_only()
            .describe("grid_sampler of (N, C, H, W)."),
        function(
            "grid_sampler_3d(Tensor input, Tensor grid, int interpolation_mode, int padding_mode, bool align_corners) -> Tensor",
            [](Args a) { return sampled(a, 5); })
            .function_only()
            .describe("grid_sampler of (N, C, D, H, W)."),
        function(
            "affine_grid_generator(Tensor theta, int[] size, bool align_corners) -> Tensor",
            [](Args a) {
              static const OpRef linspace("linspace"), ones("ones"), stack("stack"), reshape("reshape"),
                  expand("expand"), matmul("matmul"), transpose("transpose.int"), view("view");
              const TensorImpl& theta = *a[0].tensor;
              const auto size = a[1].int_list();
              LOHE_CHECK(
                  (size.size() == 4 || size.size() == 5) && theta.dim() == 3,
                  "AffineGridGenerator needs 4d (spatial) or 5d (volumetric) sizes and a 3-D theta, but got "
                  "size ",
                  to_string(size), " and theta ", to_string(theta.sizes()));
              const size_t n = size.size() - 2;
              const Dims spatial(size.last(n));
              Dims result{size[0]};
              int64_t points = 1;
              for (const int64_t s : spatial) {
                points *= s;
                result.push_back(s);
              }
              result.push_back(static_cast<int64_t>(n));
              // Homogeneous coordinates (x, y, [z,] 1) of every point.
              std::vector<TensorPtr> columns;
              for (size_t k = n; k-- > 0;) {
                const int64_t s = spatial[k];
                const double edge =
                    a[2].integer != 0 ? 1 : static_cast<double>(s - 1) / static_cast<double>(s);
                const TensorPtr line = s > 1 ? TensorPtr(linspace(-edge, edge, s, theta.dtype()))
                                             : times(TensorPtr(ones(Dims{1}, theta.dtype())), 0.0);
                Dims along(n);
                for (auto& d : along) d = 1;
                along[k] = s;
                columns.push_back(reshape(expand(reshape(line, along), spatial), Dims{points}));
              }
              columns.push_back(ones(Dims{points}, theta.dtype()));
              const auto raw = pointers_of(columns);
              const TensorPtr base = stack(std::span<TensorImpl* const>(raw), int64_t{1});
              return Results(view(matmul(base, transpose(a[0], int64_t{1}, int64_t{2})), result));
            })
            .function_only()
            .describe(
                "The grid of points that the affine maps theta, (N, 2, 3) or (N, 3, 4), make of an image's."),
    });

}  // namespace
}  // namespace lohe::ops
