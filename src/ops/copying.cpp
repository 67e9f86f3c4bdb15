#include "lohe/error.h"
#include "ops/indexing.h"
#include "tensor/shape.h"

/// Copies, conversions and fills.
namespace lohe::ops {
namespace {

using namespace ir;

constexpr int64_t kContiguousFormat = 0, kPreserveFormat = 1, kChannelsLast = 2, kChannelsLast3d = 3;

/// Strides of a copy in a memory format (None: preserve).
Dims strides_for(const TensorImpl& t, const Arg& format) {
  const int64_t f = format.none() ? kPreserveFormat : format.integer;
  if (f == kChannelsLast || f == kChannelsLast3d) {
    LOHE_CHECK(t.dim() == (f == kChannelsLast ? 4 : 5), "required rank ", f == kChannelsLast ? 4 : 5,
               " tensor to use channels_last format");
    return channels_last_strides(t.sizes());
  }
  if (f == kPreserveFormat) {
    if (is_non_overlapping_and_dense(t.sizes(), t.strides())) return t.stride_dims();
    const std::span<const int64_t> operand(t.strides());
    return elementwise_strides(t.sizes(), {&operand, 1});
  }
  return contiguous_strides(t.sizes());
}

Results copy_of(TensorImpl* self, Dtype dtype, const Arg& format) {
  static const OpRef empty_strided("empty_strided"), copy("copy_");
  const TensorPtr result = empty_strided(self->sizes(), strides_for(*self, format), dtype);
  copy(result, TensorPtr(self));
  return result;
}

const OpFamily copying(
    "copying",
    {
        pointwise("copy_(Tensor(a!) self, Tensor src, bool non_blocking=False) -> Tensor(a!)",
                  [](Value, Value src, bool) { return src; })
            .promote(Promotion::kFirst)
            .method_only()
            .no_inplace()
            .describe("Writes src, broadcast and converted, into self."),
        pointwise("fill_.Tensor(Tensor(a!) self, Tensor value) -> Tensor(a!)",
                  [](Value, Value v) { return v; })
            .promote(Promotion::kFirst)
            .no_inplace()
            .describe("Writes one number everywhere."),
        pointwise("fill_(Tensor(a!) self, Scalar value) -> Tensor(a!)", [](Value, Value v) { return v; })
            .promote(Promotion::kFirst)
            .no_inplace()
            .describe("Writes one number everywhere."),
        function("fill.Tensor(Tensor self, Tensor value) -> Tensor",
                 [](Args a) {
                   static const OpRef row("fill_.Tensor");
                   return through_copy(row, a, false);
                 })
            .describe("One number in the shape, dtype and layout of self."),
        function("fill.Scalar(Tensor self, Scalar value) -> Tensor",
                 [](Args a) {
                   static const OpRef row("fill_");
                   return through_copy(row, a, false);
                 })
            .describe("One number in the shape, dtype and layout of self."),
        function("zero_(Tensor(a!) self) -> Tensor(a!)",
                 [](Args a) {
                   static const OpRef fill("fill_");
                   return Results(fill(a[0].tensor, int64_t{0}));
                 })
            .describe("Writes zeros."),
        function("clone(Tensor self, *, MemoryFormat? memory_format=None) -> Tensor",
                 [](Args a) { return copy_of(a[0].tensor, a[0].tensor->dtype(), a[1]); })
            .describe("A copy that gradients flow through."),
        function("contiguous(Tensor(a) self, *, MemoryFormat memory_format=0) -> Tensor(a)",
                 [](Args a) -> Results {
                   TensorImpl* t = a[0].tensor;
                   const bool last = a[1].integer == kChannelsLast || a[1].integer == kChannelsLast3d;
                   if (last ? is_channels_last(t->sizes(), t->strides()) : t->contiguous())
                     return TensorPtr(t);
                   return copy_of(t, t->dtype(), a[1]);
                 })
            .method_only()
            .describe("self, or a copy in the given memory format."),
        function(
            "to.dtype(Tensor(a) self, ScalarType dtype, bool non_blocking=False, bool copy=False, MemoryFormat? memory_format=None) -> Tensor(a)",
            [](Args a) -> Results {
              TensorImpl* t = a[0].tensor;
              if (t->dtype() == a[1].dtype && a[3].integer == 0 && a[4].none()) return TensorPtr(t);
              return copy_of(t, a[1].dtype, a[4]);
            })
            .method_only()
            .describe("self converted to a dtype; self itself if it already has it."),
        function(
            "_to_copy(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, bool non_blocking=False, MemoryFormat? memory_format=None) -> Tensor",
            [](Args a) {
              return copy_of(a[0].tensor, a[1].kind == Arg::kDtype ? a[1].dtype : a[0].tensor->dtype(), a[6]);
            })
            .in("_C")
            .describe("A copy, converted to a dtype and memory format."),
        function("type_as(Tensor(a) self, Tensor other) -> Tensor(a)",
                 [](Args a) -> Results {
                   if (a[0].tensor->dtype() == a[1].tensor->dtype()) return TensorPtr(a[0].tensor);
                   return copy_of(a[0].tensor, a[1].tensor->dtype(), Arg());
                 })
            .method_only()
            .describe("self converted to other's dtype; self itself if it already has it."),
        pointwise("_conj_physical(Tensor self) -> Tensor", [](Value x) { return conj(x); })
            .in("_C")
            .describe("The complex conjugate, computed at once."),
        function("conj_physical(Tensor self) -> Tensor",
                 [](Args a) -> Results {
                   static const OpRef row("_conj_physical");
                   if (!is_complex(a[0].tensor->dtype())) return TensorPtr(a[0].tensor);
                   return row(a[0].tensor);
                 })
            .out(OutDtype::kSame)
            .describe("The complex conjugate, computed at once; of real numbers self."),
        function("conj_physical_(Tensor(a!) self) -> Tensor(a!)",
                 [](Args a) -> Results {
                   static const OpRef row("_conj_physical");
                   if (!is_complex(a[0].tensor->dtype())) return TensorPtr(a[0].tensor);
                   return dispatch::call(row.op(), a, dispatch::Form::kInPlace);
                 })
            .describe("The complex conjugate, written into self."),
        function("resolve_conj(Tensor(a) self) -> Tensor(a)",
                 [](Args a) -> Results {
                   if (!a[0].tensor->conj()) return TensorPtr(a[0].tensor);
                   return copy_of(a[0].tensor, a[0].tensor->dtype(), Arg());
                 })
            .describe("self without a pending conjugation."),
        function("resolve_neg(Tensor(a) self) -> Tensor(a)",
                 [](Args a) -> Results {
                   if (!a[0].tensor->neg()) return TensorPtr(a[0].tensor);
                   return copy_of(a[0].tensor, a[0].tensor->dtype(), Arg());
                 })
            .describe("self without a pending negation."),
    });

}  // namespace
}  // namespace lohe::ops
