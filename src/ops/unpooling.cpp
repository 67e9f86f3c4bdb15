#include <algorithm>

#include "backend/pooling.h"
#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// Pooling by windows at random places, and what undoes pooling by the indices of the maxima.
namespace lohe::ops {
namespace {

Dims flat_sizes(std::span<const int64_t> sizes, size_t spatial) {
  Dims flat(sizes.first(sizes.size() - spatial));
  int64_t plane = 1;
  for (const int64_t s : sizes.last(spatial)) plane *= s;
  flat.push_back(plane);
  return flat;
}

/// Each value at its index within a plane of `output_size`, zero elsewhere.
Results unpooled(const char* op, Args a, size_t spatial) {
  static const OpRef new_zeros("new_zeros"), reshape("reshape"), scatter("scatter.src"), view("view");
  const TensorImpl &x = *a[0].tensor, &indices = *a[1].tensor;
  const auto size = a[2].int_list();
  LOHE_CHECK(indices.dtype() == kInt64,
             "elements in indices should be type int64 but got: ", indices.dtype());
  LOHE_CHECK(size.size() == spatial, "There should be exactly ", spatial,
             " elements in output_size, but got ", size.size(), " in ", op);
  const auto rank = static_cast<size_t>(x.dim());
  LOHE_CHECK(rank == spatial + 1 || rank == spatial + 2, "Input to ", op, " should be a ", spatial + 1,
             "d or ", spatial + 2, "d Tensor, but got a tensor with ", rank, " dimensions.");
  LOHE_CHECK(x.size_dims() == indices.size_dims(),
             "Expected shape of indices to be same as that of the input tensor (", to_string(x.sizes()),
             ") but got indices tensor with shape: ", to_string(indices.sizes()));
  for (size_t d = rank == spatial + 2 ? 1 : 0; d < rank; ++d) {
    LOHE_CHECK(x.sizes()[d] > 0, op,
               "(): Expected input to have non-zero size for non-batch dimensions, but got ",
               to_string(x.sizes()), " with dimension ", d, " being empty.");
  }
  LOHE_CHECK_KIND(kNotImplemented, is_floating(x.dtype()), "\"", op, "\" not implemented for '", x.dtype(),
                  "'; convert to a floating dtype");
  Dims sizes(x.sizes().first(rank - spatial));
  for (const int64_t s : size) sizes.push_back(s);
  const TensorPtr planes = new_zeros(a[0], flat_sizes(sizes, spatial));
  const Dims flat = flat_sizes(x.sizes(), spatial);
  return Results(view(scatter(planes, int64_t{-1}, reshape(a[1], flat), reshape(a[0], flat)), sizes));
}

// --- fractional max pooling

/// Where the windows of one axis begin: pseudo-random steps of one of two lengths (Graham 2014).
std::vector<backend::Window> fractional_windows(double sample, int64_t in, int64_t out, int64_t pool) {
  std::vector<backend::Window> windows;
  const double step = out > 1 ? static_cast<double>(in - pool) / static_cast<double>(out - 1) : 0;
  for (int64_t o = 0; o < out; ++o) {
    const int64_t start = o + 1 == out ? in - pool
                                       : static_cast<int64_t>((static_cast<double>(o) + sample) * step) -
                                             static_cast<int64_t>(sample * step);
    windows.push_back({start, start + pool, 1, pool});
  }
  return windows;
}

/// input, kernel_size, output_size, random_samples
std::vector<Meta> fractional_meta(Args a) {
  const TensorImpl &x = *a[0].tensor, &samples = *a[3].tensor;
  const auto kernel = a[1].int_list(), size = a[2].int_list();
  const size_t n = kernel.size(), rank = x.sizes().size();
  LOHE_CHECK(size.size() == n, "fractional_max_pool: output_size must have ", n, " numbers, got ",
             size.size());
  LOHE_CHECK(rank == n + 1 || rank == n + 2, "fractional_max_pool", n, "d(): Expected ", n + 1, "D or ",
             n + 2, "D tensor, but got: ", to_string(x.sizes()));
  LOHE_CHECK_KIND(kNotImplemented, is_floating(x.dtype()), "\"fractional_max_pool", n,
                  "d\" not implemented for '", x.dtype(), "'; convert to a floating dtype");
  LOHE_CHECK(samples.dtype() == x.dtype(), "Expect _random_samples to have the same dtype as input, got ",
             samples.dtype(), " and ", x.dtype());
  const int64_t batch = rank == n + 2 ? x.sizes()[0] : 1, channels = x.sizes()[rank - n - 1];
  const Dims expected{batch, channels, static_cast<int64_t>(n)};
  LOHE_CHECK(samples.size_dims() == expected, "Expect _random_samples of shape ", to_string(expected),
             ", got ", to_string(samples.sizes()));
  Meta m;
  m.dtype = x.dtype();
  m.sizes = x.size_dims();
  for (size_t d = rank == n + 2 ? 1 : 0; d < rank; ++d) {
    LOHE_CHECK(x.sizes()[d] > 0, "fractional_max_pool", n,
               "d(): Expected input to have non-zero size for non-batch dimensions, but got ",
               to_string(x.sizes()), " with dimension ", d, " being empty.");
  }
  for (size_t k = 0; k < n; ++k) {
    const int64_t in = x.sizes()[rank - n + k];
    LOHE_CHECK(kernel[k] > 0 && size[k] > 0, "fractional_max_pool", n,
               "d(): kernel_size and output_size must be positive, got ", to_string(kernel), " and ",
               to_string(size));
    LOHE_CHECK(size[k] + kernel[k] - 1 <= in, "fractional_max_pool", n, "d(): pool size ", kernel[k],
               " too large relative to input size ", in, " in spatial dim ", k);
    m.sizes[rank - n + k] = size[k];
  }
  Meta indices = m;
  indices.dtype = kInt64;
  return {m, indices};
}

void pool_fractions(Args a, Results& r) {
  static const OpRef contiguous("contiguous"), to("to.dtype");
  const NoGrad no_grad;
  const auto kernel = a[1].int_list(), size = a[2].int_list();
  const size_t n = kernel.size();
  const TensorPtr x = contiguous(a[0].tensor), samples = contiguous(to(a[3].tensor, kFloat64));
  const auto* sample = reinterpret_cast<const double*>(samples->data());
  backend::PoolingShape s;
  for (size_t k = 0; k < n; ++k) {
    s.input[3 - n + k] = x->sizes()[x->sizes().size() - n + k];
    s.output[3 - n + k] = size[k];
  }
  const int64_t in = s.input[0] * s.input[1] * s.input[2], out = s.output[0] * s.output[1] * s.output[2];
  const int64_t planes = samples->numel() / static_cast<int64_t>(n);
  for (int64_t p = 0; p < planes; ++p) {
    for (size_t i = 0; i < 3; ++i) s.windows[i] = {{0, 1, 1, 1}};
    for (size_t k = 0; k < n; ++k) {
      // Two samples are (width, height), three (depth, height, width).
      const size_t of = n == 2 ? 1 - k : k;
      s.windows[3 - n + k] =
          fractional_windows(sample[static_cast<size_t>(p) * n + of], s.input[3 - n + k], size[k], kernel[k]);
    }
    backend::max_pool(x->dtype(), s, x->data() + p * in * x->itemsize(),
                      r[0]->data() + p * out * x->itemsize(),
                      reinterpret_cast<int64_t*>(r[1]->data()) + p * out);
  }
}

void fractional_gradient(Backward& b) {
  static const OpRef row("_max_pool_gradient");
  if (b.needs(0))
    b.set(0, row(b.grad(0), b.result(1), b.meta(0).sizes, static_cast<int64_t>(b.arg(1).count)));
}

const OpFamily unpooling(
    "unpooling",
    {
        function("max_unpool2d(Tensor self, Tensor indices, int[2] output_size) -> Tensor",
                 [](Args a) { return unpooled("max_unpool2d", a, 2); })
            .in("nn")
            .describe("Each value at its index within the plane, zero elsewhere."),
        function(
            "max_unpool3d(Tensor self, Tensor indices, int[3] output_size, int[3] stride, int[3] padding) -> Tensor",
            [](Args a) {
              const auto stride = a[3].int_list();
              LOHE_CHECK(
                  stride.size() == 3 && a[4].count == 3,
                  "max_unpool3d: there should be exactly three elements in stride and in padding, but got ",
                  stride.size(), " and ", a[4].count);
              LOHE_CHECK(std::all_of(stride.begin(), stride.end(), [](int64_t s) { return s > 0; }),
                         "strides should be greater than zero, but got stride: ", to_string(stride));
              return unpooled("max_unpool3d", a, 3);
            })
            .in("nn")
            .describe("Each value at its index within the volume, zero elsewhere."),
        primitive(
            "fractional_max_pool2d(Tensor self, int[2] kernel_size, int[2] output_size, Tensor random_samples) -> (Tensor, Tensor)",
            fractional_meta, pool_fractions)
            .grad(fractional_gradient)
            .gradient_reads({"result1"})
            .in("nn")
            .describe("Largest values of windows at pseudo-random steps, and their indices (Graham 2014)."),
        primitive(
            "fractional_max_pool3d(Tensor self, int[3] kernel_size, int[3] output_size, Tensor random_samples) -> (Tensor, Tensor)",
            fractional_meta, pool_fractions)
            .grad(fractional_gradient)
            .gradient_reads({"result1"})
            .in("nn")
            .describe("Largest values of windows at pseudo-random steps, and their indices (Graham 2014)."),
    });

}  // namespace
}  // namespace lohe::ops
