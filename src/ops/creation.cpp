#include <algorithm>
#include <cmath>

#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// New tensors.
namespace lohe::ops {
namespace {

using namespace ir;

Dtype dtype_or_default(const Arg& a) { return a.kind == Arg::kDtype ? a.dtype : default_dtype(); }

Results with_requires_grad(TensorPtr t, const Arg& flag) {
  if (flag.kind == Arg::kBool && flag.integer != 0) {
    LOHE_CHECK(is_differentiable(t->dtype()),
               "Only Tensors of floating point and complex dtype can require gradients");
    t->requires_grad = true;
  }
  return t;
}

TensorPtr filled(const Arg& size, Dtype dtype, Scalar value) {
  static const OpRef empty("empty"), fill("fill_");
  TensorPtr t = empty(size.int_list(), dtype);
  const NoGrad no_grad;
  fill(t, Arg(value));
  return t;
}

std::vector<Meta> like(Args a) {
  Meta m;
  const TensorImpl& t = *a[0].tensor;
  m.dtype = a[1].kind == Arg::kDtype ? a[1].dtype : t.dtype();
  m.sizes = t.size_dims();
  const Arg& format = a[4];
  if (format.none() || format.integer == 1) {
    if (is_non_overlapping_and_dense(t.sizes(), t.strides())) {
      m.strides = t.stride_dims();
    } else {
      const std::span<const int64_t> operand(t.strides());
      m.strides = elementwise_strides(t.sizes(), {&operand, 1});
    }
  } else if (format.integer >= 2) {
    m.strides = channels_last_strides(t.sizes());
  }
  return {m};
}

Results like_filled(Args a, Scalar value) {
  static const OpRef empty_like("empty_like"), fill("fill_");
  const NoGrad no_grad;
  const TensorPtr t = empty_like(a[0].tensor, a[1], a[2], a[3], a[4]);
  fill(t, Arg(value));
  return with_requires_grad(t, a[5]);
}

void nothing(Args, Results&) {}

Dtype dtype_like(const Arg& dtype, const Arg& self) {
  return dtype.kind == Arg::kDtype ? dtype.dtype : self.tensor->dtype();
}

TensorPtr permuted_memory(std::span<const int64_t> sizes, std::span<const int64_t> layout, Dtype dtype) {
  static const OpRef empty_strided("empty_strided");
  const auto rank = static_cast<int64_t>(sizes.size());
  LOHE_CHECK(
      layout.size() == sizes.size(),
      "Number of dimensions in size does not match the length of the physical_layout; i.e. len(size) = ",
      rank, " is not equal to len(physical_layout) = ", layout.size());
  Dims strides(sizes.size());
  int64_t step = 1;
  uint64_t seen = 0;
  for (size_t k = layout.size(); k-- > 0;) {
    const int64_t d = layout[k];
    LOHE_CHECK(d >= 0 && d < rank, "Dimension out of range (expected to be between 0 and ", rank - 1,
               ", but got ", d, " at index ", k,
               ").  NB: negative dims not currently supported; file an issue if you want it.");
    LOHE_CHECK((seen >> d & 1) == 0, "Duplicate dim not allowed");
    seen |= uint64_t{1} << d;
    strides[static_cast<size_t>(d)] = step;
    step *= std::max<int64_t>(sizes[static_cast<size_t>(d)], 1);
  }
  return empty_strided(sizes, strides, dtype);
}

TensorPtr identity(int64_t rows, int64_t columns, Dtype dtype) {
  static const OpRef diagonal("diagonal"), fill("fill_");
  LOHE_CHECK(rows >= 0, "n must be greater or equal to 0, got ", rows);
  LOHE_CHECK(columns >= 0, "m must be greater or equal to 0, got ", columns);
  const NoGrad no_grad;
  TensorPtr t = filled(Dims{rows, columns}, dtype, int64_t{0});
  fill(diagonal(t), int64_t{1});
  return t;
}

void check_parts(const TensorImpl& x, const TensorImpl& y, const char* name) {
  LOHE_CHECK(
      is_floating(x.dtype()) && is_floating(y.dtype()) && x.dtype() != kBFloat16 && y.dtype() != kBFloat16,
      "Expected both inputs to be "
      "Half, Float or Double tensors but got ",
      x.dtype(), " and ", y.dtype());
  LOHE_CHECK(x.dtype() == y.dtype(), "Expected object of scalar type ", x.dtype(), " but got scalar type ",
             y.dtype(), " for second argument");
  LOHE_CHECK_KIND(kNotImplemented, !is_half(x.dtype()), "\"", name,
                  "\" is not implemented for 'Half': there is no complex dtype of that precision");
}

/// The parts side by side in a new last dim, seen as complex numbers.
TensorPtr complex_of(TensorImpl* x, TensorImpl* y) {
  static const OpRef broadcast("expand"), stack("stack"), view("view_as_complex");
  check_parts(*x, *y, "complex");
  const Dims shape = broadcast_shapes(x->sizes(), y->sizes());
  const TensorPtr re = broadcast(x, shape), im = broadcast(y, shape);
  TensorImpl* const parts[] = {re.get(), im.get()};
  return view(stack(std::span<TensorImpl* const>(parts), int64_t{-1}));
}

const OpFamily creation(
    "creation",
    {
        primitive(
            "empty(int[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              Meta m;
              m.dtype = dtype_or_default(a[1]);
              m.sizes = Dims(a[0].int_list());
              if (a[4].kind == Arg::kInt && a[4].integer >= 2) m.strides = channels_last_strides(m.sizes);
              return std::vector<Meta>{m};
            },
            [](Args a, Results& r) { with_requires_grad(r[0], a[5]); })
            .unfilled_result()
            .function_only()
            .out()
            .not_differentiable()
            .describe("Memory that nothing has been written to."),
        primitive(
            "empty_strided(int[] size, int[] stride, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              Meta m;
              m.dtype = dtype_or_default(a[2]);
              m.sizes = Dims(a[0].int_list());
              m.strides = Dims(a[1].int_list());
              LOHE_CHECK(m.sizes.size() == m.strides.size(), "empty_strided: dimensionality of sizes (",
                         m.sizes.size(), ") must match dimensionality of strides (", m.strides.size(), ")");
              return std::vector<Meta>{m};
            },
            [](Args a, Results& r) { with_requires_grad(r[0], a[5]); })
            .unfilled_result()
            .function_only()
            .not_differentiable()
            .describe("Memory with given strides that nothing has been written to."),
        primitive(
            "empty_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool requires_grad=False) -> Tensor",
            like, nothing)
            .unfilled_result()
            .function_only()
            .not_differentiable()
            .describe("As empty, with another tensor's shape, dtype and layout."),
        function(
            "zeros(int[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
            [](Args a) { return with_requires_grad(filled(a[0], dtype_or_default(a[1]), int64_t{0}), a[4]); })
            .function_only()
            .out()
            .describe("Zeros."),
        function(
            "ones(int[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
            [](Args a) { return with_requires_grad(filled(a[0], dtype_or_default(a[1]), int64_t{1}), a[4]); })
            .function_only()
            .out()
            .describe("Ones."),
        function(
            "full(int[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              const Dtype d = a[2].kind == Arg::kDtype ? a[2].dtype : a[1].scalar().dtype();
              return with_requires_grad(filled(a[0], d, a[1].scalar()), a[5]);
            })
            .function_only()
            .out()
            .describe("One number everywhere; the dtype follows from the number."),
        function(
            "zeros_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool requires_grad=False) -> Tensor",
            [](Args a) { return like_filled(a, int64_t{0}); })
            .function_only()
            .describe("Zeros like another tensor."),
        function(
            "ones_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool requires_grad=False) -> Tensor",
            [](Args a) { return like_filled(a, int64_t{1}); })
            .function_only()
            .describe("Ones like another tensor."),
        function(
            "full_like(Tensor self, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              const Arg rest[] = {a[0], a[2], a[3], a[4], a[5], a[6]};
              return like_filled(rest, a[1].scalar());
            })
            .function_only()
            .describe("One number everywhere, like another tensor."),
        function(
            "new_empty(Tensor self, int[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              static const OpRef empty("empty");
              return with_requires_grad(empty(a[1].int_list(), dtype_like(a[2], a[0])), a[5]);
            })
            .method_only()
            .describe("As empty, with self's dtype."),
        function(
            "new_empty_strided(Tensor self, int[] size, int[] stride, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              static const OpRef empty_strided("empty_strided");
              return with_requires_grad(
                  empty_strided(a[1].int_list(), a[2].int_list(), dtype_like(a[3], a[0])), a[6]);
            })
            .method_only()
            .describe("As empty_strided, with self's dtype."),
        function(
            "new_zeros(Tensor self, int[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
            [](Args a) { return with_requires_grad(filled(a[1], dtype_like(a[2], a[0]), int64_t{0}), a[5]); })
            .method_only()
            .describe("Zeros of self's dtype."),
        function(
            "new_ones(Tensor self, int[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
            [](Args a) { return with_requires_grad(filled(a[1], dtype_like(a[2], a[0]), int64_t{1}), a[5]); })
            .method_only()
            .describe("Ones of self's dtype."),
        function(
            "new_full(Tensor self, int[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              return with_requires_grad(filled(a[1], dtype_like(a[3], a[0]), a[2].scalar()), a[6]);
            })
            .method_only()
            .describe("One number everywhere, of self's dtype."),
        function(
            "scalar_tensor(Scalar s, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              return with_requires_grad(filled(Dims(), dtype_or_default(a[1]), a[0].scalar()), a[4]);
            })
            .function_only()
            .describe("A number as a 0-dim tensor of the default dtype."),
        function(
            "empty_permuted(int[] size, int[] physical_layout, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              return with_requires_grad(
                  permuted_memory(a[0].int_list(), a[1].int_list(), dtype_or_default(a[2])), a[5]);
            })
            .function_only()
            .describe("Dense memory whose dims follow each other in the given order."),
        function(
            "eye(int n, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              return with_requires_grad(identity(a[0].integer, a[0].integer, dtype_or_default(a[1])), a[4]);
            })
            .function_only()
            .out()
            .describe("Ones on the diagonal of zeros."),
        function(
            "eye.m(int n, int m, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              return with_requires_grad(identity(a[0].integer, a[1].integer, dtype_or_default(a[2])), a[5]);
            })
            .function_only()
            .out()
            .describe("Ones on the diagonal of zeros, n rows and m columns."),
        function("complex(Tensor real, Tensor imag) -> Tensor",
                 [](Args a) { return Results(complex_of(a[0].tensor, a[1].tensor)); })
            .function_only()
            .out(OutDtype::kSame)
            .describe("Complex numbers from their parts."),
        function("polar(Tensor abs, Tensor angle) -> Tensor",
                 [](Args a) {
                   static const OpRef mul("mul"), cos("cos"), sin("sin");
                   check_parts(*a[0].tensor, *a[1].tensor, "polar");
                   const TensorPtr x = mul(a[0].tensor, cos(a[1].tensor)),
                                   y = mul(a[0].tensor, sin(a[1].tensor));
                   return Results(complex_of(x.get(), y.get()));
                 })
            .function_only()
            .out(OutDtype::kSame)
            .describe("Complex numbers from absolute values and angles in radians."),
    });

}  // namespace
}  // namespace lohe::ops
