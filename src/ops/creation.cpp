#include "lohe/error.h"
#include "ops/call.h"
#include "tensor/shape.h"

/// New tensors.
namespace lohe::ops {
namespace {

using namespace ir;

Dtype dtype_or_default(const Arg& a) { return a.kind == Arg::kDtype ? a.dtype : default_dtype(); }

Results with_requires_grad(TensorPtr t, const Arg& flag) {
  if (flag.kind == Arg::kBool && flag.integer != 0) {
    LOHE_CHECK(is_differentiable(t->dtype()), "Only Tensors of floating point and complex dtype can require gradients");
    t->requires_grad = true;
  }
  return t;
}

TensorPtr filled(const Arg& size, Dtype dtype, Scalar value) {
  static const OpRef empty("empty"), fill("fill_");
  TensorPtr t = empty(size.int_list(), dtype);
  const uint32_t mode = dispatch::mode_word;
  dispatch::mode_word |= dispatch::kNoGrad;
  fill(t, Arg(value));
  dispatch::mode_word = mode;
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
  const uint32_t mode = dispatch::mode_word;
  dispatch::mode_word |= dispatch::kNoGrad;
  const TensorPtr t = empty_like(a[0].tensor, a[1], a[2], a[3], a[4]);
  fill(t, Arg(value));
  dispatch::mode_word = mode;
  return with_requires_grad(t, a[5]);
}

void nothing(Args, Results&) {}

const OpFamily creation("creation", {
    primitive("empty(int[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool requires_grad=False) -> Tensor",
              [](Args a) {
                Meta m;
                m.dtype = dtype_or_default(a[1]);
                m.sizes = Dims(a[0].int_list());
                if (a[4].kind == Arg::kInt && a[4].integer >= 2) m.strides = channels_last_strides(m.sizes);
                return std::vector<Meta>{m};
              },
              [](Args a, Results& r) { with_requires_grad(r[0], a[5]); })
        .function_only().not_differentiable().describe("Memory that nothing has been written to."),
    primitive("empty_strided(int[] size, int[] stride, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
              [](Args a) {
                Meta m;
                m.dtype = dtype_or_default(a[2]);
                m.sizes = Dims(a[0].int_list());
                m.strides = Dims(a[1].int_list());
                LOHE_CHECK(m.sizes.size() == m.strides.size(), "empty_strided: dimensionality of sizes (", m.sizes.size(),
                           ") must match dimensionality of strides (", m.strides.size(), ")");
                return std::vector<Meta>{m};
              },
              [](Args a, Results& r) { with_requires_grad(r[0], a[5]); })
        .function_only().not_differentiable().describe("Memory with given strides that nothing has been written to."),
    primitive("empty_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool requires_grad=False) -> Tensor",
              like, nothing)
        .function_only().not_differentiable().describe("As empty, with another tensor's shape, dtype and layout."),
    function("zeros(int[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
             [](Args a) { return with_requires_grad(filled(a[0], dtype_or_default(a[1]), int64_t{0}), a[4]); })
        .function_only().describe("Zeros."),
    function("ones(int[] size, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
             [](Args a) { return with_requires_grad(filled(a[0], dtype_or_default(a[1]), int64_t{1}), a[4]); })
        .function_only().describe("Ones."),
    function("full(int[] size, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool requires_grad=False) -> Tensor",
             [](Args a) {
               const Dtype d = a[2].kind == Arg::kDtype ? a[2].dtype : a[1].scalar().dtype();
               return with_requires_grad(filled(a[0], d, a[1].scalar()), a[5]);
             })
        .function_only().describe("One number everywhere; the dtype follows from the number."),
    function("zeros_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool requires_grad=False) -> Tensor",
             [](Args a) { return like_filled(a, int64_t{0}); }).function_only().describe("Zeros like another tensor."),
    function("ones_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool requires_grad=False) -> Tensor",
             [](Args a) { return like_filled(a, int64_t{1}); }).function_only().describe("Ones like another tensor."),
    function("full_like(Tensor self, Scalar fill_value, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool requires_grad=False) -> Tensor",
             [](Args a) {
               const Arg rest[] = {a[0], a[2], a[3], a[4], a[5], a[6]};
               return like_filled(rest, a[1].scalar());
             })
        .function_only().describe("One number everywhere, like another tensor."),
});

}  // namespace
}  // namespace lohe::ops
