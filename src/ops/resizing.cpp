#include <algorithm>

#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// Which memory a tensor shows: resize_ and set_.
namespace lohe::ops {
namespace {

constexpr int64_t kPreserveFormat = 1;

int64_t bytes_for(const Dims& sizes, const Dims& strides, int64_t offset, int64_t itemsize) {
  int64_t last = offset;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == 0) return 0;
    last += (sizes[i] - 1) * strides[i];
  }
  return (last + 1) * itemsize;
}

Results resized(TensorImpl* t, std::span<const int64_t> size, const Arg& format) {
  LOHE_CHECK(!t->requires_grad, "cannot resize variables that require grad");
  const Dims sizes(size);
  numel_of(sizes);  // its checks
  const int64_t f = format.none() ? 0 : format.integer;
  LOHE_CHECK(f != kPreserveFormat, "Unsupported memory format for resize_: preserve_format");
  if (f == 0 && t->size_dims() == sizes) return TensorPtr(t);
  LOHE_CHECK(f < 2 || sizes.size() == (f == 2 ? 4 : 5), "required rank ", f == 2 ? 4 : 5,
             " tensor to use channels_last format");
  const Dims strides = f >= 2 ? channels_last_strides(sizes) : contiguous_strides(sizes);
  const int64_t bytes = bytes_for(sizes, strides, t->offset(), t->itemsize());
  if (bytes > t->storage().nbytes()) t->storage().resize(bytes);
  t->set_view(t->storage_ptr(), t->dtype(), sizes, strides, t->offset());
  t->bump_version();
  return TensorPtr(t);
}

Results set_to(TensorImpl* t, const Intrusive<Storage>& storage, const Dims& sizes, const Dims& strides,
               int64_t offset) {
  LOHE_CHECK(offset >= 0, "Tensor: invalid storage offset ", offset);
  LOHE_CHECK(sizes.size() == strides.size(), "unequal size length (", sizes.size(), ") and stride length (",
             strides.size(), ")");
  const int64_t bytes = bytes_for(sizes, strides, offset, t->itemsize());
  const Intrusive<Storage> keep = storage;
  if (bytes > keep->nbytes()) keep->resize(bytes);
  const uint32_t version = t->version().value.load(std::memory_order_relaxed);
  t->set_view(keep, t->dtype(), sizes, strides, offset);
  // Other memory, another count of writes.
  t->fresh_version();
  t->version().value.store(version + 1, std::memory_order_relaxed);
  t->view_base = nullptr;
  return TensorPtr(t);
}

void check_dtypes(const TensorImpl& t, const TensorImpl& source) {
  LOHE_CHECK(t.dtype() == source.dtype(), "Could not set tensor of type ", source.dtype(),
             " to a tensor of type ", t.dtype());
}

const OpFamily resizing(
    "resizing",
    {
        function("resize_(Tensor(a!) self, int[] size, *, MemoryFormat? memory_format=None) -> Tensor(a!)",
                 [](Args a) { return resized(a[0].tensor, a[1].int_list(), a[2]); })
            .method_only()
            .describe(
                "Another shape for the same storage, which grows if needed; new elements are not initialised."),
        function(
            "resize_as_(Tensor(a!) self, Tensor the_template, *, MemoryFormat? memory_format=None) -> Tensor(a!)",
            [](Args a) {
              const TensorImpl& like = *a[1].tensor;
              Arg format = a[2];
              if (format.kind == Arg::kInt && format.integer == kPreserveFormat) {
                const bool last = !like.contiguous() && is_channels_last(like.sizes(), like.strides());
                format = Arg(int64_t{!last ? 0 : like.dim() == 4 ? 2 : 3});
              }
              return resized(a[0].tensor, like.sizes(), format);
            })
            .describe("As resize_, to the other tensor's shape."),
        function("set_(Tensor(a!) self) -> Tensor(a!)",
                 [](Args a) { return set_to(a[0].tensor, Storage::allocate(0), Dims{0}, Dims{1}, 0); })
            .method_only()
            .describe("An empty tensor with a storage of its own."),
        function("set_.source_Tensor(Tensor(a!) self, Tensor source) -> Tensor(a!)",
                 [](Args a) {
                   const TensorImpl& s = *a[1].tensor;
                   check_dtypes(*a[0].tensor, s);
                   return set_to(a[0].tensor, s.storage_ptr(), s.size_dims(), s.stride_dims(), s.offset());
                 })
            .method_only()
            .describe("The same memory as source."),
        function(
            "set_.source_Tensor_storage_offset(Tensor(a!) self, Tensor source, int storage_offset, int[] size, int[] stride=[]) -> Tensor(a!)",
            [](Args a) {
              check_dtypes(*a[0].tensor, *a[1].tensor);
              const Dims sizes(a[3].int_list());
              const Dims strides =
                  a[4].count == 0 && !sizes.empty() ? contiguous_strides(sizes) : Dims(a[4].int_list());
              return set_to(a[0].tensor, a[1].tensor->storage_ptr(), sizes, strides, a[2].integer);
            })
            .method_only()
            .describe("A geometry in the storage of source."),
    });

}  // namespace
}  // namespace lohe::ops
