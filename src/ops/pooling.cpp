#include "backend/pooling.h"

#include "lohe/error.h"
#include "lohe/options.h"
#include "ops/call.h"
#include "tensor/shape.h"

/// Pooling over one to three spatial dims, with windows of a fixed kernel or (adaptive) of a fixed number of
/// results.
namespace lohe::ops {
namespace {

using backend::PoolingShape;
using backend::Window;

const OpRef& contiguous_row() {
  static const OpRef r("contiguous");
  return r;
}

/// What the internal rows are told: kernel, stride, padding, dilation (empty: adaptive) and result sizes.
struct Rule {
  Dims kernel, stride, padding, dilation, adaptive;
  bool ceil = false;
};

Dims per_axis(const Arg& a, size_t n, const Dims& fallback, std::string_view name, std::string_view op) {
  if (a.none() || a.count == 0) return fallback;
  const auto list = a.int_list();
  if (list.size() == 1) return Dims(n, list[0]);
  LOHE_CHECK(list.size() == n, op, ": ", name, " must either be omitted, a single int, or a tuple of ", n,
             " ints, got ", to_string(list));
  return Dims(list);
}

int64_t output_size(int64_t in, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation,
                    bool ceil) {
  const int64_t reach = in + 2 * padding - dilation * (kernel - 1) - 1 + (ceil ? stride - 1 : 0);
  int64_t out = (reach >= 0 ? reach / stride : -((-reach + stride - 1) / stride)) + 1;
  // The last window must begin inside the input or its left padding.
  if (ceil && (out - 1) * stride >= in + padding) --out;
  return out;
}

/// Windows of every spatial dim; the last `n` dims of `sizes` are spatial.
PoolingShape shape_of(std::span<const int64_t> sizes, const Rule& rule) {
  const size_t n = rule.adaptive.empty() ? rule.kernel.size() : rule.adaptive.size();
  PoolingShape s;
  for (size_t d = 0; d + n < sizes.size(); ++d) s.planes *= sizes[d];
  for (size_t i = 0; i < 3; ++i) {
    if (i + n < 3) {
      s.windows[i] = {{0, 1, 1, 1}};
      continue;
    }
    const size_t k = i + n - 3;
    const int64_t in = sizes[sizes.size() - n + k];
    s.input[i] = in;
    if (!rule.adaptive.empty()) {
      const int64_t out = rule.adaptive[k];
      for (int64_t o = 0; o < out; ++o) {
        const int64_t start = o * in / out, end = ((o + 1) * in + out - 1) / out;
        s.windows[i].push_back({start, end, 1, end - start});
      }
    } else {
      const int64_t out =
          output_size(in, rule.kernel[k], rule.stride[k], rule.padding[k], rule.dilation[k], rule.ceil);
      for (int64_t o = 0; o < out; ++o) {
        int64_t start = o * rule.stride[k] - rule.padding[k];
        int64_t end = start + (rule.kernel[k] - 1) * rule.dilation[k] + 1;
        const int64_t padded = std::min(end, in + rule.padding[k]) - start;
        while (start < 0) start += rule.dilation[k];
        s.windows[i].push_back({start, std::min(end, in), rule.dilation[k], padded});
      }
    }
    s.output[i] = static_cast<int64_t>(s.windows[i].size());
  }
  return s;
}

Rule rule_of(Args a, size_t first) {
  return {Dims(a[first].int_list()),     Dims(a[first + 1].int_list()), Dims(a[first + 2].int_list()),
          Dims(a[first + 3].int_list()), Dims(a[first + 5].int_list()), a[first + 4].integer != 0};
}

Dims result_sizes(std::span<const int64_t> sizes, const Rule& rule) {
  const PoolingShape s = shape_of(sizes, rule);
  const size_t n = rule.adaptive.empty() ? rule.kernel.size() : rule.adaptive.size();
  Dims out(sizes);
  for (size_t k = 0; k < n; ++k) out[sizes.size() - n + k] = s.output[3 - n + k];
  return out;
}

Meta meta_of(const TensorImpl& like, Dims sizes, Dtype dtype) {
  Meta m;
  m.dtype = dtype;
  m.sizes = std::move(sizes);
  if (!like.contiguous() && is_channels_last(like.sizes(), like.strides()))
    m.strides = channels_last_strides(m.sizes);
  return m;
}

/// Dense memory to compute into, copied to `result` at the end if that is laid out otherwise.
class Dense {
 public:
  explicit Dense(const TensorPtr& result) : result_(result), dense_(result) {
    static const OpRef empty("empty");
    if (!result->contiguous()) dense_ = empty(result->sizes(), result->dtype());
  }
  void* data() const { return dense_->data(); }
  void finish() const {
    static const OpRef copy("copy_");
    if (dense_.get() != result_.get()) copy(result_, dense_);
  }

 private:
  TensorPtr result_, dense_;
};

backend::AverageRule average_rule(Args a, size_t at) {
  return {a[at].integer != 0, a[at + 1].none() ? 0 : a[at + 1].integer};
}

// --- what users call

struct Checked {
  Rule rule;
  size_t spatial;
};

Checked fixed_rule(const TensorImpl& x, std::string_view op, size_t n, const Arg& kernel, const Arg& stride,
                   const Arg& padding, const Arg& dilation, bool ceil) {
  Rule r;
  r.kernel = per_axis(kernel, n, {}, "kernel_size", op);
  LOHE_CHECK(r.kernel.size() == n, op, ": kernel_size must either be a single int, or a tuple of ", n,
             " ints");
  r.stride = per_axis(stride, n, r.kernel, "stride", op);
  r.padding = per_axis(padding, n, Dims(n, 0), "padding", op);
  r.dilation = per_axis(dilation, n, Dims(n, 1), "dilation", op);
  r.ceil = ceil;
  const auto rank = static_cast<size_t>(x.dim());
  LOHE_CHECK(rank == n + 1 || rank == n + 2, op, ": Expected ", n + 1, "D or ", n + 2,
             "D (batch mode) tensor with optional 0 dim batch size for "
             "input, but got: ",
             to_string(x.sizes()));
  for (size_t d = rank == n + 2 ? 1 : 0; d < rank; ++d) {
    LOHE_CHECK(x.sizes()[d] > 0, op,
               ": Expected input's non-batch dimensions to have positive length, but input has a shape of ",
               to_string(x.sizes()), " and non-batch dimension ", d, " has length zero!");
  }
  for (size_t k = 0; k < n; ++k) {
    LOHE_CHECK(r.kernel[k] > 0, op, ": kernel size should be greater than zero, but got ",
               to_string(r.kernel));
    LOHE_CHECK(r.stride[k] > 0, op, ": stride should not be zero, but got ", to_string(r.stride));
    LOHE_CHECK(r.dilation[k] > 0, op, ": dilation should be greater than zero, but got ",
               to_string(r.dilation));
    LOHE_CHECK(r.padding[k] >= 0, op, ": pad must be non-negative, but got pad: ", r.padding[k]);
    LOHE_CHECK(r.padding[k] <= ((r.kernel[k] - 1) * r.dilation[k] + 1) / 2, op,
               ": pad should be at most half of effective kernel size, but got pad=", r.padding[k],
               ", kernel_size=", r.kernel[k], " and dilation=", r.dilation[k]);
    const int64_t out =
        output_size(x.sizes()[rank - n + k], r.kernel[k], r.stride[k], r.padding[k], r.dilation[k], ceil);
    LOHE_CHECK(out >= 1, op, ": Given input size: ", to_string(x.sizes()), ". Calculated output size: ", out,
               " in spatial dim ", k, ". Output size is too small");
  }
  return {r, n};
}

Checked adaptive_rule(const TensorImpl& x, std::string_view op, size_t n, const Arg& output) {
  Rule r;
  r.adaptive = per_axis(output, n, {}, "output_size", op);
  LOHE_CHECK(r.adaptive.size() == n, op, ": output_size must be ", n, " ints");
  const auto rank = static_cast<size_t>(x.dim());
  LOHE_CHECK(rank == n + 1 || rank == n + 2, op, ": Expected ", n + 1, "D or ", n + 2, "D tensor, but got ",
             to_string(x.sizes()));
  for (size_t k = 0; k < n; ++k) {
    LOHE_CHECK(r.adaptive[k] >= 0, op,
               ": elements of output_size must be greater than or equal to 0 but received ",
               to_string(r.adaptive));
  }
  for (size_t d = rank == n + 2 ? 1 : 0; d < rank; ++d) {
    LOHE_CHECK(x.sizes()[d] > 0, op,
               "(): Expected input to have non-zero size for non-batch dimensions, but input has sizes ",
               to_string(x.sizes()), " with dimension ", d, " being empty");
  }
  return {r, n};
}

Results max_pool_call(const Arg& x, const Checked& c) {
  static const OpRef row("_max_pool");
  return row.all(x, c.rule.kernel, c.rule.stride, c.rule.padding, c.rule.dilation, c.rule.ceil,
                 c.rule.adaptive);
}

Results average_call(const Arg& x, const Checked& c, bool count_padding, const Arg& divisor) {
  static const OpRef row("_avg_pool");
  return Results(row(x, c.rule.kernel, c.rule.stride, c.rule.padding, c.rule.dilation, c.rule.ceil,
                     c.rule.adaptive, count_padding, divisor));
}

void check_floating(const TensorImpl& x, std::string_view op) {
  LOHE_CHECK_KIND(kNotImplemented, is_floating(x.dtype()), "\"", op, "\" not implemented for '", x.dtype(),
                  "'; convert to a floating dtype");
}

template <size_t kSpatial>
Results max_pool_with_indices(Args a) {
  const std::string op = "max_pool" + std::to_string(kSpatial) + "d";
  return max_pool_call(a[0],
                       fixed_rule(*a[0].tensor, op, kSpatial, a[1], a[2], a[3], a[4], a[5].integer != 0));
}
template <size_t kSpatial>
Results max_pool_values(Args a) {
  return Results(max_pool_with_indices<kSpatial>(a)[0]);
}

template <size_t kSpatial>
Results average_pool_call(Args a) {
  const std::string op = "avg_pool" + std::to_string(kSpatial) + "d";
  const Arg divisor = a.size() > 6 ? a[6] : Arg();
  LOHE_CHECK(divisor.none() || divisor.integer != 0, "divisor must be not zero");
  const Dtype dtype = a[0].tensor->dtype();
  LOHE_CHECK_KIND(kNotImplemented, is_floating(dtype) || dtype == Dtype::kInt64, "\"", op,
                  "\" not implemented for '", dtype, "'; use a floating dtype or int64");
  return average_call(a[0],
                      fixed_rule(*a[0].tensor, op, kSpatial, a[1], a[2], a[3], Arg(), a[4].integer != 0),
                      a[5].integer != 0, divisor);
}

/// One window that is everything: a sum of rows, which other work may join.
Results whole_average(const Arg& x, size_t spatial) {
  static const OpRef mean("mean.dim"), clone("clone");
  const TensorImpl& t = *x.tensor;
  Dims dims;
  for (size_t k = 0; k < spatial; ++k) dims.push_back(t.dim() - 1 - static_cast<int64_t>(k));
  const TensorPtr result = mean(x, dims, true);
  if (t.contiguous() || !is_channels_last(t.sizes(), t.strides())) return Results(result);
  return Results(clone(result, static_cast<int64_t>(t.dim() == 5 ? MemoryFormat::kChannelsLast3d
                                                                 : MemoryFormat::kChannelsLast)));
}

template <size_t kSpatial>
Results adaptive_average(Args a) {
  const std::string op = "adaptive_avg_pool" + std::to_string(kSpatial) + "d";
  const TensorImpl& x = *a[0].tensor;
  const Checked rule = adaptive_rule(x, op, kSpatial, a[1]);
  if (kSpatial == 1 && x.numel() == 0 && !is_floating(x.dtype())) {
    // Nothing to average: any dtype will do.
    static const OpRef empty("new_empty");
    return Results(empty(a[0], result_sizes(x.sizes(), rule.rule)));
  }
  check_floating(x, op);
  if (x.numel() > 0 && std::all_of(rule.rule.adaptive.begin(), rule.rule.adaptive.end(),
                                   [](int64_t size) { return size == 1; }))
    return whole_average(a[0], kSpatial);
  return average_call(a[0], rule, true, Arg());
}
template <size_t kSpatial>
Results adaptive_max(Args a) {
  const std::string op = "adaptive_max_pool" + std::to_string(kSpatial) + "d";
  const Checked rule = adaptive_rule(*a[0].tensor, op, kSpatial, a[1]);
  check_floating(*a[0].tensor, op);
  return max_pool_call(a[0], rule);
}

/// result = 0, then every element of `grad` added at its index within its plane (the last n dims).
void add_at_maxima(TensorImpl* grad, TensorImpl* index, size_t n, const TensorPtr& result) {
  const TensorPtr g = contiguous_row()(grad), indices = contiguous_row()(index);
  const auto sizes = result->sizes();
  PoolingShape s;
  for (size_t k = 0; k < n; ++k) {
    s.input[3 - n + k] = sizes[sizes.size() - n + k];
    s.output[3 - n + k] = g->sizes()[g->sizes().size() - n + k];
  }
  for (size_t d = 0; d + n < g->sizes().size(); ++d) s.planes *= g->sizes()[d];
  const Dense out(result);
  backend::max_pool_gradient(g->dtype(), s, g->data(), reinterpret_cast<const int64_t*>(indices->data()),
                             out.data());
  out.finish();
}

/// The elements of `t` at the indices within their planes (the last n dims).
TensorPtr take_maxima(const TensorPtr& t, const TensorPtr& indices, size_t n) {
  static const OpRef gather("gather"), reshape("reshape");
  const auto flat = [&](const TensorPtr& x) {
    Dims sizes(x->sizes().first(x->sizes().size() - n));
    int64_t plane = 1;
    for (const int64_t size : x->sizes().last(n)) plane *= size;
    sizes.push_back(plane);
    return reshape(x, sizes);
  };
  return reshape(gather(flat(t), int64_t{-1}, flat(indices)), indices->sizes());
}

std::vector<Meta> infer_max_pool2d_backward(Args a) {
  const TensorImpl &grad = *a[0].tensor, &x = *a[1].tensor, &indices = *a[7].tensor;
  const Rule rule =
      fixed_rule(x, "max_pool2d_with_indices_backward", 2, a[2], a[3], a[4], a[5], a[6].integer != 0).rule;
  const Dims expected = result_sizes(x.sizes(), rule);
  LOHE_CHECK(grad.dtype() == x.dtype(), "expected dtype ", x.dtype(), " for `grad_output` but got dtype ",
             grad.dtype());
  LOHE_CHECK(grad.size_dims() == expected && indices.size_dims() == expected,
             "max_pool2d_with_indices_backward: expected grad_output and indices of shape ",
             to_string(expected), ", got ", to_string(grad.sizes()), " and ", to_string(indices.sizes()));
  LOHE_CHECK(indices.dtype() == Dtype::kInt64, "expected indices of dtype int64, got ", indices.dtype());
  check_floating(x, "max_pool2d_backward");
  return {meta_of(grad, x.size_dims(), grad.dtype())};
}

const OpFamily pooling(
    "pooling",
    {
        primitive(
            "_max_pool(Tensor self, int[] kernel_size, int[] stride, int[] padding, int[] dilation, bool ceil_mode, int[] output_size) -> (Tensor, Tensor)",
            [](Args a) {
              const Dims sizes = result_sizes(a[0].tensor->sizes(), rule_of(a, 1));
              const Dtype dtype = a[0].tensor->dtype();
              LOHE_CHECK_KIND(kNotImplemented, dtype != Dtype::kBool && !is_complex(dtype),
                              "\"max_pool\" not implemented for '", dtype, "'; use a real number dtype");
              return std::vector<Meta>{meta_of(*a[0].tensor, sizes, a[0].tensor->dtype()),
                                       meta_of(*a[0].tensor, sizes, Dtype::kInt64)};
            },
            [](Args a, Results& r) {
              const TensorPtr x = contiguous_row()(a[0].tensor);
              const Dense values(r[0]), indices(r[1]);
              backend::max_pool(x->dtype(), shape_of(x->sizes(), rule_of(a, 1)), x->data(), values.data(),
                                static_cast<int64_t*>(indices.data()));
              values.finish();
              indices.finish();
            })
            .grad([](Backward& b) {
              static const OpRef row("_max_pool_gradient");
              const size_t n = std::max(b.arg(1).count, b.arg(6).count);
              if (b.needs(0)) b.set(0, row(b.grad(0), b.result(1), b.meta(0).sizes, static_cast<int64_t>(n)));
            })
            .gradient_reads({"result1"})
            .in("_C")
            .describe("Largest value of every window and where it stands in its plane."),
        primitive(
            "_max_pool_gradient(Tensor grad, Tensor indices, int[] input_size, int spatial) -> Tensor",
            [](Args a) {
              return std::vector<Meta>{meta_of(*a[0].tensor, Dims(a[2].int_list()), a[0].tensor->dtype())};
            },
            [](Args a, Results& r) {
              add_at_maxima(a[0].tensor, a[1].tensor, static_cast<size_t>(a[3].integer), r[0]);
            })
            .grad([](Backward& b) {
              if (b.needs(0))
                b.set(0, take_maxima(b.grad(), b.tensor(1), static_cast<size_t>(b.arg(3).integer)));
            })
            .gradient_reads({"indices"})
            .in("_C")
            .describe("Adds every gradient at its index within the plane."),
        primitive(
            "_avg_pool(Tensor self, int[] kernel_size, int[] stride, int[] padding, int[] dilation, bool ceil_mode, int[] output_size, bool count_include_pad, int? divisor_override) -> Tensor",
            [](Args a) {
              return std::vector<Meta>{meta_of(
                  *a[0].tensor, result_sizes(a[0].tensor->sizes(), rule_of(a, 1)), a[0].tensor->dtype())};
            },
            [](Args a, Results& r) {
              const TensorPtr x = contiguous_row()(a[0].tensor);
              const Dense out(r[0]);
              backend::average_pool(x->dtype(), shape_of(x->sizes(), rule_of(a, 1)), average_rule(a, 7),
                                    x->data(), out.data());
              out.finish();
            })
            .grad([](Backward& b) {
              static const OpRef row("_avg_pool_gradient");
              if (b.needs(0)) {
                b.set(0, row(b.grad(), b.meta(0).sizes, b.arg(1), b.arg(2), b.arg(3), b.arg(4), b.arg(5),
                             b.arg(6), b.arg(7), b.arg(8)));
              }
            })
            .gradient_reads({})
            .in("_C")
            .describe("Mean of every window."),
        primitive(
            "_avg_pool_gradient(Tensor grad, int[] input_size, int[] kernel_size, int[] stride, int[] padding, int[] dilation, bool ceil_mode, int[] output_size, bool count_include_pad, int? divisor_override) -> Tensor",
            [](Args a) {
              return std::vector<Meta>{meta_of(*a[0].tensor, Dims(a[1].int_list()), a[0].tensor->dtype())};
            },
            [](Args a, Results& r) {
              const TensorPtr g = contiguous_row()(a[0].tensor);
              const Dense out(r[0]);
              backend::average_pool_gradient(g->dtype(), shape_of(a[1].int_list(), rule_of(a, 2)),
                                             average_rule(a, 8), g->data(), out.data());
              out.finish();
            })
            .grad([](Backward& b) {
              static const OpRef row("_avg_pool");
              if (b.needs(0))
                b.set(0, row(b.grad(), b.arg(2), b.arg(3), b.arg(4), b.arg(5), b.arg(6), b.arg(7), b.arg(8),
                             b.arg(9)));
            })
            .gradient_reads({})
            .in("_C")
            .describe("Spreads every gradient over its window."),
        primitive(
            "max_pool2d_with_indices_backward(Tensor grad_output, Tensor self, int[2] kernel_size, int[2] stride, int[2] padding, int[2] dilation, bool ceil_mode, Tensor indices) -> Tensor",
            infer_max_pool2d_backward,
            [](Args a, Results& r) { add_at_maxima(a[0].tensor, a[7].tensor, 2, r[0]); })
            .grad([](Backward& b) {
              static const OpRef zeros("zeros");
              if (b.needs(0)) b.set(0, take_maxima(b.grad(), b.tensor(7), 2));
              if (b.needs(1)) b.set(1, zeros(b.meta(1).sizes, b.meta(1).dtype));  // it only gives the shape
            })
            .gradient_reads({"indices"})
            .in("nn")
            .exact_out()
            .describe("Adds every gradient at the index of its window's maximum."),
        function(
            "max_pool1d_with_indices(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, int[1] dilation=1, bool ceil_mode=False) -> (Tensor, Tensor)",
            max_pool_with_indices<1>)
            .in("nn")
            .describe("Largest value of every window, and its index."),
        function(
            "max_pool2d_with_indices(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, int[2] dilation=1, bool ceil_mode=False) -> (Tensor, Tensor)",
            max_pool_with_indices<2>)
            .in("nn")
            .describe("Largest value of every window, and its index."),
        function(
            "max_pool3d_with_indices(Tensor self, int[3] kernel_size, int[3] stride=[], int[3] padding=0, int[3] dilation=1, bool ceil_mode=False) -> (Tensor, Tensor)",
            max_pool_with_indices<3>)
            .in("nn")
            .describe("Largest value of every window, and its index."),
        function(
            "max_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, int[1] dilation=1, bool ceil_mode=False) -> Tensor",
            max_pool_values<1>)
            .function_only()
            .describe("Largest value of every window."),
        function(
            "max_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, int[2] dilation=1, bool ceil_mode=False) -> Tensor",
            max_pool_values<2>)
            .function_only()
            .describe("Largest value of every window."),
        function(
            "max_pool3d(Tensor self, int[3] kernel_size, int[3] stride=[], int[3] padding=0, int[3] dilation=1, bool ceil_mode=False) -> Tensor",
            max_pool_values<3>)
            .function_only()
            .describe("Largest value of every window."),
        function(
            "avg_pool1d(Tensor self, int[1] kernel_size, int[1] stride=[], int[1] padding=0, bool ceil_mode=False, bool count_include_pad=True) -> Tensor",
            average_pool_call<1>)
            .function_only()
            .describe("Mean of every window."),
        function(
            "avg_pool2d(Tensor self, int[2] kernel_size, int[2] stride=[], int[2] padding=0, bool ceil_mode=False, bool count_include_pad=True, int? divisor_override=None) -> Tensor",
            average_pool_call<2>)
            .in("nn")
            .exact_out()
            .describe("Mean of every window."),
        function(
            "avg_pool3d(Tensor self, int[3] kernel_size, int[3] stride=[], int[3] padding=0, bool ceil_mode=False, bool count_include_pad=True, int? divisor_override=None) -> Tensor",
            average_pool_call<3>)
            .in("nn")
            .exact_out()
            .describe("Mean of every window."),
        function("adaptive_avg_pool1d(Tensor self, int[1] output_size) -> Tensor", adaptive_average<1>)
            .function_only()
            .describe("Mean of windows that give a fixed number of results."),
        function("adaptive_avg_pool2d(Tensor self, int[2] output_size) -> Tensor", adaptive_average<2>)
            .in("nn")
            .exact_out()
            .describe("Mean of windows that give a fixed number of results."),
        function("adaptive_avg_pool3d(Tensor self, int[3] output_size) -> Tensor", adaptive_average<3>)
            .in("nn")
            .exact_out()
            .describe("Mean of windows that give a fixed number of results."),
        function("adaptive_max_pool1d(Tensor self, int[1] output_size) -> (Tensor, Tensor)", adaptive_max<1>)
            .function_only()
            .describe("Largest value of windows that give a fixed number of results, and its index."),
        function("adaptive_max_pool2d(Tensor self, int[2] output_size) -> (Tensor, Tensor)", adaptive_max<2>)
            .in("nn")
            .describe("Largest value of windows that give a fixed number of results, and its index."),
        function("adaptive_max_pool3d(Tensor self, int[3] output_size) -> (Tensor, Tensor)", adaptive_max<3>)
            .in("nn")
            .describe("Largest value of windows that give a fixed number of results, and its index."),
    });

}  // namespace
}  // namespace lohe::ops
