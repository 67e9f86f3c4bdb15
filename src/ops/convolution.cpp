#include "backend/library.h"
#include "lohe/error.h"
#include "ops/call.h"
#include "tensor/shape.h"

/// Convolutions over one to three spatial dims. The two derivatives are rows of their own, so that each can
/// be differentiated again: the three of them are closed under differentiation.
namespace lohe::ops {
namespace {

using Axes = backend::ConvolutionShape::Axes;

const OpRef& convolution_row() {
  static const OpRef r("convolution");
  return r;
}
const OpRef& input_gradient_row() {
  static const OpRef r("_convolution_input_gradient");
  return r;
}
const OpRef& weight_gradient_row() {
  static const OpRef r("_convolution_weight_gradient");
  return r;
}

/// Spatial axes sit at the end of the three; absent ones have size 1.
Axes axes(std::span<const int64_t> values, int64_t absent) {
  Axes a{absent, absent, absent};
  for (size_t i = 0; i < values.size(); ++i) a[3 - values.size() + i] = values[i];
  return a;
}

backend::Images images(const TensorImpl& t) {
  return {t.data(), t.strides()[0], t.strides()[1], axes(t.strides().subspan(2), 0)};
}

backend::ConvolutionShape shape_of(std::span<const int64_t> input, std::span<const int64_t> weight,
                                   std::span<const int64_t> output, const Arg& stride, const Arg& padding,
                                   const Arg& dilation, const Arg& groups) {
  backend::ConvolutionShape s;
  s.batch = input[0];
  s.in_channels = input[1];
  s.out_channels = weight[0];
  s.groups = groups.integer;
  s.input = axes(input.subspan(2), 1);
  s.kernel = axes(weight.subspan(2), 1);
  s.output = axes(output.subspan(2), 1);
  s.stride = axes(stride.int_list(), 1);
  s.padding = axes(padding.int_list(), 0);
  s.dilation = axes(dilation.int_list(), 1);
  return s;
}

Meta meta_like(Dtype dtype, Dims sizes, std::initializer_list<const TensorImpl*> operands) {
  Meta m;
  m.dtype = dtype;
  m.sizes = std::move(sizes);
  for (const TensorImpl* t : operands) {
    if (!t->contiguous() && is_channels_last(t->sizes(), t->strides())) {
      m.strides = channels_last_strides(m.sizes);
      break;
    }
  }
  return m;
}

void check_operands(const TensorImpl& x, const TensorImpl& w, const Arg& bias, Args a, size_t first) {
  const size_t spatial = w.sizes().size() - 2;
  LOHE_CHECK(x.dtype() == w.dtype(), "Input type (", x.dtype(), ") and weight type (", w.dtype(),
             ") should be the same");
  LOHE_CHECK(bias.none() || bias.tensor->dtype() == x.dtype(), "Input type (", x.dtype(), ") and bias type (",
             bias.none() ? x.dtype() : bias.tensor->dtype(), ") should be the same");
  LOHE_CHECK_KIND(kNotImplemented, x.dtype() != Dtype::kBool,
                  "\"convolution\" not implemented for 'Bool'; convert to a number dtype");
  const char* names[] = {"stride", "padding", "dilation"};
  for (size_t i = 0; i < 3; ++i) {
    const auto list = a[first + i].int_list();
    LOHE_CHECK(list.size() == spatial, "expected ", names[i], " to be a single integer value or a list of ",
               spatial, " values to match the convolution dimensions, but got ", names[i], "=",
               to_string(list));
    for (const int64_t v : list) {
      LOHE_CHECK(v >= 0 && (i == 1 || v > 0), i == 0   ? "non-positive stride is not supported"
                                              : i == 1 ? "negative padding is not supported"
                                                       : "dilation should be greater than zero");
    }
  }
}

std::vector<Meta> infer_convolution(Args a) {
  const TensorImpl &x = *a[0].tensor, &w = *a[1].tensor;
  const bool transposed = a[6].integer != 0;
  const int64_t groups = a[8].integer;
  LOHE_CHECK(w.dim() >= 3 && w.dim() <= 5, "convolution: expected a weight of 3 to 5 dims, got shape ",
             to_string(w.sizes()));
  LOHE_CHECK(x.dim() == w.dim(), "Expected ", w.dim() - 1, "D (unbatched) or ", w.dim(),
             "D (batched) input to conv", w.dim() - 2, "d, but got input of size: ", to_string(x.sizes()));
  check_operands(x, w, a[2], a, 3);
  LOHE_CHECK(groups > 0, "non-positive groups is not supported");
  LOHE_CHECK_KIND(kNotImplemented, !transposed || !is_integral(x.dtype(), true) || x.dtype() == Dtype::kInt64,
                  "transposed convolution is not implemented for '", x.dtype(),
                  "'; convert to int64 or a floating dtype");
  const int64_t out = transposed ? w.sizes()[1] * groups : w.sizes()[0];
  LOHE_CHECK(w.sizes()[0] >= groups && w.sizes()[0] % groups == 0, "Given groups=", groups,
             ", expected weight to be at least ", groups,
             " at dimension 0 and divisible by it, but got weight of size ", to_string(w.sizes()),
             " instead");
  if (transposed) {
    LOHE_CHECK(x.sizes()[1] == w.sizes()[0], "Given transposed=1, weight of size ", to_string(w.sizes()),
               ", expected input", to_string(x.sizes()), " to have ", w.sizes()[0], " channels, but got ",
               x.sizes()[1], " channels instead");
  } else {
    LOHE_CHECK(x.sizes()[1] == w.sizes()[1] * groups, "Given groups=", groups, ", weight of size ",
               to_string(w.sizes()), ", expected input", to_string(x.sizes()), " to have ",
               w.sizes()[1] * groups, " channels, but got ", x.sizes()[1], " channels instead");
  }
  LOHE_CHECK(a[2].none() || (a[2].tensor->dim() == 1 && a[2].tensor->sizes()[0] == out),
             "Given weight of size ", to_string(w.sizes()), ", expected bias to be 1-dimensional with ", out,
             " elements, but got bias of size ",
             a[2].none() ? std::string() : to_string(a[2].tensor->sizes()), " instead");
  Dims sizes{x.sizes()[0], out};
  const auto stride = a[3].int_list(), padding = a[4].int_list(), dilation = a[5].int_list(),
             extra = a[7].int_list();
  for (size_t i = 0; i + 2 < w.sizes().size(); ++i) {
    const int64_t in = x.sizes()[i + 2], k = w.sizes()[i + 2];
    int64_t n = 0;
    if (transposed) {
      LOHE_CHECK(extra.size() == stride.size(), "output_padding must have one value for each spatial dim");
      LOHE_CHECK(extra[i] < stride[i] || extra[i] < dilation[i],
                 "output padding must be smaller than either stride or dilation, but got "
                 "output_padding=",
                 extra[i], ", stride=", stride[i], ", dilation=", dilation[i]);
      n = (in - 1) * stride[i] - 2 * padding[i] + dilation[i] * (k - 1) + extra[i] + 1;
    } else {
      const int64_t span = dilation[i] * (k - 1) + 1;
      LOHE_CHECK(in + 2 * padding[i] >= span, "Calculated padded input size per channel: (",
                 in + 2 * padding[i], "). Kernel size: (", span,
                 "). Kernel size can't be greater than actual input size");
      n = (in + 2 * padding[i] - span) / stride[i] + 1;
    }
    LOHE_CHECK(n >= 0, "Given input size per channel: ", in, ". Calculated output size per channel: ", n,
               ". Output size is too small");
    sizes.push_back(n);
  }
  return {meta_like(x.dtype(), std::move(sizes), {&x, &w})};
}

TensorPtr dense_bias(const Arg& bias) {
  static const OpRef contiguous("contiguous");
  return bias.none() ? TensorPtr() : contiguous(bias.tensor);
}

void run_convolution(Args a, Results& r) {
  const TensorImpl &x = *a[0].tensor, &w = *a[1].tensor;
  const TensorPtr bias = dense_bias(a[2]);
  const void* b = bias ? bias->data() : nullptr;
  if (a[6].integer != 0) {
    // A transposed convolution is the derivative of the plain one whose input is this result.
    const auto s = shape_of(r[0]->sizes(), w.sizes(), x.sizes(), a[3], a[4], a[5], a[8]);
    backend::convolution_input_gradient(x.dtype(), s, images(x), images(w), b, images(*r[0]));
  } else {
    const auto s = shape_of(x.sizes(), w.sizes(), r[0]->sizes(), a[3], a[4], a[5], a[8]);
    backend::convolution(x.dtype(), s, images(x), images(w), b, images(*r[0]));
  }
}

TensorPtr conjugate(const TensorPtr& t) {
  static const OpRef conj("_conj_physical");
  return is_complex(t->dtype()) ? conj(t) : t;
}

/// The first sizes[d] elements of every spatial dim. An output_padding that reaches the stride leaves room
/// for positions behind the last input, which a plain convolution of the result meets again.
TensorPtr cropped(TensorPtr t, std::span<const int64_t> sizes) {
  static const OpRef narrow("narrow");
  for (size_t d = 2; d < sizes.size(); ++d) {
    if (t->sizes()[d] != sizes[d]) t = narrow(t, static_cast<int64_t>(d), int64_t{0}, sizes[d]);
  }
  return t;
}

void grad_convolution(Backward& b) {
  static const OpRef sum("sum.dim_IntList");
  const TensorPtr g = b.grad();
  const bool transposed = b.arg(6).integer != 0;
  const Arg &stride = b.arg(3), &padding = b.arg(4), &dilation = b.arg(5), &groups = b.arg(8);
  if (b.needs(0)) {
    const TensorPtr w = conjugate(b.tensor(1));
    const Dims none(stride.int_list().size());
    b.set(0, transposed
                 ? cropped(convolution_row()(g, w, Arg(), stride, padding, dilation, false, none, groups),
                           b.meta(0).sizes)
                 : input_gradient_row()(g, w, b.meta(0).sizes, stride, padding, dilation, groups));
  }
  if (b.needs(1)) {
    const TensorPtr x = conjugate(b.tensor(0));
    b.set(1, transposed ? weight_gradient_row()(g, x, b.meta(1).sizes, stride, padding, dilation, groups)
                        : weight_gradient_row()(x, g, b.meta(1).sizes, stride, padding, dilation, groups));
  }
  if (!b.arg(2).none() && b.needs(2)) {
    Dims dims;
    for (int64_t d = 0; d < g->dim(); ++d) {
      if (d != 1) dims.push_back(d);
    }
    b.set(2, sum(g, dims));
  }
}

/// One value for every spatial dim.
Dims per_axis(const Arg& a, size_t n, std::string_view name, std::string_view op) {
  const auto list = a.int_list();
  if (list.size() == 1) return Dims(n, list[0]);
  LOHE_CHECK(list.size() == n, op, ": expected ", name, " to be a single integer value or a list of ", n,
             " values, but got ", to_string(list));
  return Dims(list);
}

/// Adds the batch dim where it is missing, and takes it away again.
template <class F>
Results batched(const Arg& input, size_t spatial, std::string_view op, F body) {
  static const OpRef unsqueeze("unsqueeze"), squeeze("squeeze.dim");
  const int64_t rank = input.tensor->dim();
  LOHE_CHECK(rank == static_cast<int64_t>(spatial) + 1 || rank == static_cast<int64_t>(spatial) + 2,
             "Expected ", spatial + 1, "D (unbatched) or ", spatial + 2, "D (batched) input to ", op,
             ", but got input of size: ", to_string(input.tensor->sizes()));
  if (rank == static_cast<int64_t>(spatial) + 2) return Results(body(TensorPtr(input.tensor)));
  return Results(squeeze(body(unsqueeze(input.tensor, int64_t{0})), int64_t{0}));
}

template <size_t kSpatial>
Results conv(Args a) {
  const std::string op = "conv" + std::to_string(kSpatial) + "d";
  const Dims stride = per_axis(a[3], kSpatial, "stride", op),
             padding = per_axis(a[4], kSpatial, "padding", op);
  const Dims dilation = per_axis(a[5], kSpatial, "dilation", op), none(kSpatial);
  return batched(a[0], kSpatial, op, [&](const TensorPtr& x) {
    return convolution_row()(x, a[1], a[2], stride, padding, dilation, false, none, a[6]);
  });
}

template <size_t kSpatial>
Results conv_named_padding(Args a) {
  static const OpRef pad("constant_pad_nd");
  const std::string op = "conv" + std::to_string(kSpatial) + "d";
  const Dims stride = per_axis(a[3], kSpatial, "stride", op),
             dilation = per_axis(a[5], kSpatial, "dilation", op), none(kSpatial);
  const std::string_view mode = a[4].str();
  LOHE_CHECK(mode == "same" || mode == "valid", "Invalid padding string: '", mode,
             "'; use 'valid' or 'same'");
  Dims padding(kSpatial), extra(2 * kSpatial);
  bool uneven = false;
  if (mode == "same") {
    for (size_t i = 0; i < kSpatial; ++i) {
      LOHE_CHECK(stride[i] == 1, "padding='same' is not supported for strided convolutions");
      const int64_t total = dilation[i] * (a[1].tensor->sizes()[i + 2] - 1);
      padding[i] = total / 2;
      if (total % 2 != 0) {  // the odd one goes to the right
        extra[2 * (kSpatial - 1 - i) + 1] = 1;
        uneven = true;
      }
    }
  }
  return batched(a[0], kSpatial, op, [&](TensorPtr x) {
    if (uneven) x = pad(x, extra, int64_t{0});
    return convolution_row()(x, a[1], a[2], stride, padding, dilation, false, none, a[6]);
  });
}

template <size_t kSpatial>
Results conv_transpose(Args a) {
  const std::string op = "conv_transpose" + std::to_string(kSpatial) + "d";
  const Dims stride = per_axis(a[3], kSpatial, "stride", op),
             padding = per_axis(a[4], kSpatial, "padding", op);
  const Dims extra = per_axis(a[5], kSpatial, "output_padding", op),
             dilation = per_axis(a[7], kSpatial, "dilation", op);
  return batched(a[0], kSpatial, op, [&](const TensorPtr& x) {
    return convolution_row()(x, a[1], a[2], stride, padding, dilation, true, extra, a[6]);
  });
}

const OpFamily convolutions(
    "convolution",
    {
        primitive(
            "convolution(Tensor input, Tensor weight, Tensor? bias, int[] stride, int[] padding, int[] dilation, bool transposed, int[] output_padding, int groups) -> Tensor",
            infer_convolution, run_convolution)
            .grad(grad_convolution)
            .gradient_reads({"input", "weight"})
            .function_only()
            .describe("Cross-correlation over 1 to 3 spatial dims, or its transpose."),
        primitive(
            "_convolution_input_gradient(Tensor grad, Tensor weight, int[] input_size, int[] stride, int[] padding, int[] dilation, int groups) -> Tensor",
            [](Args a) {
              return std::vector<Meta>{
                  meta_like(a[0].tensor->dtype(), Dims(a[2].int_list()), {a[0].tensor, a[1].tensor})};
            },
            [](Args a, Results& r) {
              const auto s = shape_of(a[2].int_list(), a[1].tensor->sizes(), a[0].tensor->sizes(), a[3], a[4],
                                      a[5], a[6]);
              backend::convolution_input_gradient(a[0].tensor->dtype(), s, images(*a[0].tensor),
                                                  images(*a[1].tensor), nullptr, images(*r[0]));
            })
            .grad([](Backward& b) {
              const Dims none(b.arg(3).int_list().size());
              if (b.needs(0))
                b.set(0, convolution_row()(b.grad(), conjugate(b.tensor(1)), Arg(), b.arg(3), b.arg(4),
                                           b.arg(5), false, none, b.arg(6)));
              if (b.needs(1))
                b.set(1, weight_gradient_row()(b.grad(), conjugate(b.tensor(0)), b.meta(1).sizes, b.arg(3),
                                               b.arg(4), b.arg(5), b.arg(6)));
            })
            .in("_C")
            .describe("Derivative of convolution with respect to its input."),
        primitive(
            "_convolution_weight_gradient(Tensor input, Tensor grad, int[] weight_size, int[] stride, int[] padding, int[] dilation, int groups) -> Tensor",
            [](Args a) {
              return std::vector<Meta>{meta_like(a[0].tensor->dtype(), Dims(a[2].int_list()), {})};
            },
            [](Args a, Results& r) {
              const auto s = shape_of(a[0].tensor->sizes(), a[2].int_list(), a[1].tensor->sizes(), a[3], a[4],
                                      a[5], a[6]);
              backend::convolution_weight_gradient(a[0].tensor->dtype(), s, images(*a[0].tensor),
                                                   images(*a[1].tensor), images(*r[0]));
            })
            .grad([](Backward& b) {
              const Dims none(b.arg(3).int_list().size());
              if (b.needs(0))
                b.set(0, input_gradient_row()(conjugate(b.tensor(1)), b.grad(), b.meta(0).sizes, b.arg(3),
                                              b.arg(4), b.arg(5), b.arg(6)));
              if (b.needs(1))
                b.set(1, convolution_row()(conjugate(b.tensor(0)), b.grad(), Arg(), b.arg(3), b.arg(4),
                                           b.arg(5), false, none, b.arg(6)));
            })
            .in("_C")
            .describe("Derivative of convolution with respect to its weight."),
        function(
            "conv1d(Tensor input, Tensor weight, Tensor? bias=None, int[1] stride=1, int[1] padding=0, int[1] dilation=1, int groups=1) -> Tensor",
            conv<1>)
            .function_only()
            .describe("Convolution over one spatial dim."),
        function(
            "conv1d.padding(Tensor input, Tensor weight, Tensor? bias=None, int[1] stride=1, str padding='valid', int[1] dilation=1, int groups=1) -> Tensor",
            conv_named_padding<1>)
            .function_only()
            .describe("Convolution over one spatial dim with padding 'valid' or 'same'."),
        function(
            "conv2d(Tensor input, Tensor weight, Tensor? bias=None, int[2] stride=1, int[2] padding=0, int[2] dilation=1, int groups=1) -> Tensor",
            conv<2>)
            .function_only()
            .describe("Convolution over two spatial dims."),
        function(
            "conv2d.padding(Tensor input, Tensor weight, Tensor? bias=None, int[2] stride=1, str padding='valid', int[2] dilation=1, int groups=1) -> Tensor",
            conv_named_padding<2>)
            .function_only()
            .describe("Convolution over two spatial dims with padding 'valid' or 'same'."),
        function(
            "conv3d(Tensor input, Tensor weight, Tensor? bias=None, int[3] stride=1, int[3] padding=0, int[3] dilation=1, int groups=1) -> Tensor",
            conv<3>)
            .function_only()
            .describe("Convolution over three spatial dims."),
        function(
            "conv3d.padding(Tensor input, Tensor weight, Tensor? bias=None, int[3] stride=1, str padding='valid', int[3] dilation=1, int groups=1) -> Tensor",
            conv_named_padding<3>)
            .function_only()
            .describe("Convolution over three spatial dims with padding 'valid' or 'same'."),
        function(
            "conv_transpose1d(Tensor input, Tensor weight, Tensor? bias=None, int[1] stride=1, int[1] padding=0, int[1] output_padding=0, int groups=1, int[1] dilation=1) -> Tensor",
            conv_transpose<1>)
            .function_only()
            .describe("Transposed convolution over one spatial dim."),
        function(
            "conv_transpose2d(Tensor input, Tensor weight, Tensor? bias=None, int[2] stride=1, int[2] padding=0, int[2] output_padding=0, int groups=1, int[2] dilation=1) -> Tensor",
            conv_transpose<2>)
            .function_only()
            .describe("Transposed convolution over two spatial dims."),
        function(
            "conv_transpose3d(Tensor input, Tensor weight, Tensor? bias=None, int[3] stride=1, int[3] padding=0, int[3] output_padding=0, int groups=1, int[3] dilation=1) -> Tensor",
            conv_transpose<3>)
            .function_only()
            .describe("Transposed convolution over three spatial dims."),
    });

}  // namespace
}  // namespace lohe::ops
