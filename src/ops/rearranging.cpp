#include <algorithm>

#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// The same elements in another order, or repeated.
namespace lohe::ops {
namespace {

using Tensors = std::span<TensorImpl* const>;

/// repeats[i] copies along dim i; more repeats than dims make new dims in front.
TensorPtr repeated(TensorImpl* t, std::span<const int64_t> repeats) {
  static const OpRef view("view"), expand("expand"), clone("clone");
  LOHE_CHECK(static_cast<int64_t>(repeats.size()) >= t->dim(),
             "Number of dimensions of repeat dims can not be smaller than number of "
             "dimensions of tensor");
  const size_t lead = repeats.size() - t->sizes().size();
  Dims own, spread, result;
  for (size_t i = 0; i < repeats.size(); ++i) {
    LOHE_CHECK(repeats[i] >= 0, "Trying to create tensor with negative dimension ", repeats[i], " in repeat ",
               to_string(repeats));
    const int64_t size = i < lead ? 1 : t->sizes()[i - lead];
    own.push_back(1);
    own.push_back(size);
    spread.push_back(repeats[i]);
    spread.push_back(size);
    result.push_back(repeats[i] * size);
  }
  static const OpRef reshape("reshape");
  return view(clone(expand(reshape(t, own), spread), int64_t{0}), result);
}

Results tiled(Args a) {
  const auto dims = a[1].int_list();
  const size_t rank = a[0].tensor->sizes().size();
  Dims repeats;
  for (size_t i = dims.size(); i < rank; ++i) repeats.push_back(1);
  for (const int64_t d : dims) repeats.push_back(d);
  return repeated(a[0].tensor, repeats);
}

/// Position i repeats[i] times: the index vector of repeat_interleave.
TensorPtr repeated_positions(const TensorImpl& repeats, const Arg& output_size) {
  static const OpRef empty("empty"), to("to.dtype"), contiguous("contiguous");
  LOHE_CHECK(repeats.dim() == 1, "repeat_interleave only accept 1D vector as repeat");
  LOHE_CHECK(repeats.dtype() == kInt64 || repeats.dtype() == kInt32, "repeats has to be Long or Int tensor");
  const NoGrad no_grad;
  const TensorPtr counts = contiguous(to(const_cast<TensorImpl*>(&repeats), kInt64));
  const auto* n = reinterpret_cast<const int64_t*>(counts->data());
  int64_t total = 0;
  for (int64_t i = 0; i < counts->numel(); ++i) {
    LOHE_CHECK(n[i] >= 0, "repeats can not be negative");
    total += n[i];
  }
  LOHE_CHECK(output_size.none() || output_size.integer == total,
             "allocated size does not match required size: output_size is ",
             output_size.none() ? 0 : output_size.integer, ", the repeats sum to ", total);
  TensorPtr index = empty(Dims{total}, repeats.dtype());
  const auto fill = [&](auto* out) {
    for (int64_t i = 0; i < counts->numel(); ++i) {
      for (int64_t k = 0; k < n[i]; ++k) *out++ = static_cast<std::remove_pointer_t<decltype(out)>>(i);
    }
  };
  if (repeats.dtype() == kInt64)
    fill(reinterpret_cast<int64_t*>(index->data()));
  else
    fill(reinterpret_cast<int32_t*>(index->data()));
  return index;
}

Results interleaved_by(Args a) {
  static const OpRef flatten("flatten.using_ints"), select("index_select"), expand("expand"),
      reshape("reshape");
  TensorPtr t(a[0].tensor), repeats(a[1].tensor);
  if (a[2].none()) t = flatten(t);
  const int64_t dim = a[2].none() ? 0 : wrap_dim(a[2].integer, t->dim());
  if (t->dim() == 0) t = reshape(t, Dims{1});
  const int64_t size = t->sizes()[static_cast<size_t>(dim)];
  if (repeats->dim() == 0 || (repeats->dim() == 1 && repeats->numel() == 1))
    repeats = expand(reshape(repeats, Dims{1}), Dims{size});
  LOHE_CHECK(repeats->dim() != 1 || repeats->numel() == size,
             "repeats must have the same size as input along dim, but got repeats.size(0) = ",
             repeats->numel(), " and input.size(", dim, ") = ", size);
  return select(t, dim, repeated_positions(*repeats, a[3]));
}

Results interleaved(Args a) {
  static const OpRef flatten("flatten.using_ints"), unsqueeze("unsqueeze"), expand("expand"), clone("clone"),
      view("view"), reshape("reshape");
  TensorPtr t(a[0].tensor);
  const int64_t repeats = a[1].integer;
  LOHE_CHECK(repeats >= 0, "repeats must be non-negative, got ", repeats);
  if (a[2].none()) t = flatten(t);
  const int64_t dim = a[2].none() ? 0 : wrap_dim(a[2].integer, t->dim());
  if (t->dim() == 0) t = reshape(t, Dims{1});
  Dims spread, result = t->size_dims();
  for (size_t i = 0; i < t->sizes().size(); ++i) {
    spread.push_back(t->sizes()[i]);
    if (static_cast<int64_t>(i) == dim) spread.push_back(repeats);
  }
  result[static_cast<size_t>(dim)] *= repeats;
  LOHE_CHECK(a[3].none() || a[3].integer == result[static_cast<size_t>(dim)],
             "repeat_interleave: Invalid output_size, expected ", result[static_cast<size_t>(dim)],
             " but got ", a[3].none() ? 0 : a[3].integer);
  return view(clone(expand(unsqueeze(t, dim + 1), spread), int64_t{0}), result);
}

TensorPtr rolled_along(const TensorPtr& t, int64_t shift, int64_t dim) {
  static const OpRef slice("slice.Tensor"), cat("cat"), clone("clone");
  const int64_t d = wrap_dim(dim, t->dim());
  const int64_t size = t->sizes()[static_cast<size_t>(d)];
  if (t->numel() == 0) return clone(t, int64_t{0});
  const int64_t start = ((-shift) % size + size) % size;
  if (start == 0) return clone(t, int64_t{0});
  const TensorPtr parts[] = {slice(t, d, start, size), slice(t, d, int64_t{0}, start)};
  TensorImpl* const raw[] = {parts[0].get(), parts[1].get()};
  return cat(Tensors(raw), d);
}

Results rolled(Args a) {
  static const OpRef flatten("flatten.using_ints"), view("view"), clone("clone");
  TensorPtr t(a[0].tensor);
  const auto shifts = a[1].int_list(), dims = a[2].int_list();
  LOHE_CHECK(!shifts.empty(), "`shifts` required");
  if (dims.empty() && shifts.size() == 1) {
    if (t->dim() == 0) return clone(t);
    return view(rolled_along(flatten(t), shifts[0], 0), t->sizes());
  }
  LOHE_CHECK(shifts.size() == dims.size(), "shifts and dimensions must align. shifts: ", shifts.size(),
             ", dims:", dims.size());
  if (t->dim() == 0) {
    LOHE_CHECK_INDEX(false, "Dimension specified as ", dims[0], " but tensor has no dimensions");
  }
  for (size_t i = 0; i < shifts.size(); ++i) t = rolled_along(t, shifts[i], dims[i]);
  return t;
}

std::vector<Meta> flipped(Args a) {
  const TensorImpl& t = *a[0].tensor;
  dim_mask(a[1].int_list(), t.dim(), false);
  Meta m;
  m.dtype = t.dtype();
  m.sizes = t.size_dims();
  if (is_non_overlapping_and_dense(t.sizes(), t.strides())) {
    m.strides = t.stride_dims();
  } else {
    const std::span<const int64_t> operand(t.strides());
    m.strides = elementwise_strides(t.sizes(), {&operand, 1});
  }
  return {m};
}

/// A copy of the input read backwards: no view of the table has negative strides, kernels have no trouble
/// with them.
void flip(Args a, Results& r) {
  static const OpRef copy("copy_");
  const NoGrad no_grad;
  TensorImpl& t = *a[0].tensor;
  if (t.numel() == 0) return;
  const uint64_t mask = dim_mask(a[1].int_list(), t.dim(), false);
  Dims strides = t.stride_dims();
  int64_t offset = t.offset();
  for (size_t d = 0; d < strides.size(); ++d) {
    if ((mask >> d & 1) == 0 || t.sizes()[d] <= 1) continue;
    offset += (t.sizes()[d] - 1) * strides[d];
    strides[d] = -strides[d];
  }
  copy(r[0], TensorImpl::make(t.storage_ptr(), t.dtype(), t.sizes(), strides, offset));
}

Results turned(Args a) {
  static const OpRef flip("flip"), transpose("transpose.int"), clone("clone");
  TensorImpl* t = a[0].tensor;
  const auto dims = a[2].int_list();
  LOHE_CHECK(dims.size() == 2, "expected total rotation dims == 2, but got dims = ", dims.size());
  LOHE_CHECK(t->dim() >= 2, "expected total dims >= 2, but got total dims = ", t->dim());
  LOHE_CHECK(dims[0] != dims[1] && std::abs(dims[0] - dims[1]) != t->dim(),
             "expected rotation dims to be different, but got dim0 = ", dims[0], " and dim1 = ", dims[1]);
  for (const int64_t d : dims) {
    LOHE_CHECK_INDEX(d < t->dim() && d >= -t->dim(), "Rotation dim ", &d == dims.data() ? 0 : 1,
                     " out of range, dim = ", d);
  }
  switch (((a[1].integer % 4) + 4) % 4) {
    case 1:
      return transpose(flip(t, Dims{dims[1]}), dims[0], dims[1]);
    case 2:
      return flip(t, dims);
    case 3:
      return transpose(flip(t, Dims{dims[0]}), dims[0], dims[1]);
    default:
      return clone(t, int64_t{0});
  }
}

Results shuffled_up(Args a) {
  static const OpRef view("reshape"), permute("permute");
  TensorImpl* t = a[0].tensor;
  const int64_t r = a[1].integer, rank = t->dim();
  LOHE_CHECK(rank >= 3, "pixel_shuffle expects input to have at least 3 dimensions, but got input with ",
             rank, " dimension(s)");
  LOHE_CHECK(r > 0, "pixel_shuffle expects a positive upscale_factor, but got ", r);
  Dims lead(t->sizes().first(static_cast<size_t>(rank - 3)));
  const int64_t c = t->sizes()[static_cast<size_t>(rank - 3)], h = t->sizes()[static_cast<size_t>(rank - 2)],
                w = t->sizes()[static_cast<size_t>(rank - 1)];
  LOHE_CHECK(
      c % (r * r) == 0,
      "pixel_shuffle expects its input's 'channel' dimension to be divisible by the square of upscale_factor, but "
      "input.size(-3)=",
      c, " is not divisible by ", r * r);
  Dims parts = lead, order, result = lead;
  for (const int64_t s : {c / (r * r), r, r, h, w}) parts.push_back(s);
  for (int64_t i = 0; i < rank - 3; ++i) order.push_back(i);
  for (const int64_t d : {0, 3, 1, 4, 2}) order.push_back(rank - 3 + d);
  for (const int64_t s : {c / (r * r), h * r, w * r}) result.push_back(s);
  static const OpRef clone("clone");
  return view(clone(permute(view(t, parts), order), int64_t{0}), result);
}

Results shuffled_down(Args a) {
  static const OpRef view("reshape"), permute("permute"), clone("clone");
  TensorImpl* t = a[0].tensor;
  const int64_t r = a[1].integer, rank = t->dim();
  LOHE_CHECK(rank >= 3, "pixel_unshuffle expects input to have at least 3 dimensions, but got input with ",
             rank, " dimension(s)");
  LOHE_CHECK(r > 0, "pixel_unshuffle expects a positive downscale_factor, but got ", r);
  Dims lead(t->sizes().first(static_cast<size_t>(rank - 3)));
  const int64_t c = t->sizes()[static_cast<size_t>(rank - 3)], h = t->sizes()[static_cast<size_t>(rank - 2)],
                w = t->sizes()[static_cast<size_t>(rank - 1)];
  LOHE_CHECK(h % r == 0,
             "pixel_unshuffle expects height to be divisible by downscale_factor, but input.size(-2)=", h,
             " is not divisible by ", r);
  LOHE_CHECK(w % r == 0,
             "pixel_unshuffle expects width to be divisible by downscale_factor, but input.size(-1)=", w,
             " is not divisible by ", r);
  Dims parts = lead, order, result = lead;
  for (const int64_t s : {c, h / r, r, w / r, r}) parts.push_back(s);
  for (int64_t i = 0; i < rank - 3; ++i) order.push_back(i);
  for (const int64_t d : {0, 2, 4, 1, 3}) order.push_back(rank - 3 + d);
  for (const int64_t s : {c * r * r, h / r, w / r}) result.push_back(s);
  return view(clone(permute(view(t, parts), order), int64_t{0}), result);
}

Results shuffled_channels(Args a) {
  static const OpRef view("reshape"), transpose("transpose.int"), clone("clone");
  TensorImpl* t = a[0].tensor;
  const int64_t groups = a[1].integer;
  LOHE_CHECK(t->dim() > 2, "channel_shuffle expects input with > 2 dims, but got input with sizes ",
             to_string(t->sizes()));
  const int64_t c = t->sizes()[1];
  LOHE_CHECK(groups > 0, "Number of groups to divide channels in must be positive. Value of groups:", groups);
  LOHE_CHECK(c % groups == 0, "Number of channels must be divisible by groups. Got ", c, " channels and ",
             groups, " groups.");
  Dims parts{t->sizes()[0], groups, c / groups};
  for (size_t i = 2; i < t->sizes().size(); ++i) parts.push_back(t->sizes()[i]);
  return view(clone(transpose(view(t, parts), int64_t{1}, int64_t{2}), int64_t{0}), t->sizes());
}

const OpFamily rearranging(
    "rearranging",
    {
        function("repeat(Tensor self, int[] repeats) -> Tensor",
                 [](Args a) { return Results(repeated(a[0].tensor, a[1].int_list())); })
            .method_only()
            .describe("The whole tensor repeated along its dims."),
        function("tile(Tensor self, int[] dims) -> Tensor", tiled)
            .describe("The whole tensor repeated along its last dims."),
        function("repeat_interleave.Tensor(Tensor repeats, *, int? output_size=None) -> Tensor",
                 [](Args a) { return Results(repeated_positions(*a[0].tensor, a[1])); })
            .function_only()
            .describe("Position i repeats[i] times."),
        function(
            "repeat_interleave.self_Tensor(Tensor self, Tensor repeats, int? dim=None, *, int? output_size=None) -> Tensor",
            interleaved_by)
            .describe("Every position of a dim repeated by its own number."),
        function(
            "repeat_interleave.self_int(Tensor self, int repeats, int? dim=None, *, int? output_size=None) -> Tensor",
            interleaved)
            .describe("Every position of a dim repeated."),
        function("roll(Tensor self, int[1] shifts, int[1] dims=[]) -> Tensor", rolled)
            .describe("Elements moved along dims; what leaves at one end enters at the other."),
        primitive("flip(Tensor self, int[] dims) -> Tensor", flipped, flip)
            .grad([](Backward& b) {
              static const OpRef flip("flip");
              b.set(0, flip(b.grad(), b.arg(1)));
            })
            .gradient_reads({})
            .describe("Reversed along dims."),
        function("fliplr(Tensor self) -> Tensor",
                 [](Args a) {
                   static const OpRef flip("flip");
                   LOHE_CHECK(a[0].tensor->dim() >= 2, "Input must be >= 2-d.");
                   return Results(flip(a[0].tensor, Dims{1}));
                 })
            .describe("Reversed along dim 1."),
        function("flipud(Tensor self) -> Tensor",
                 [](Args a) {
                   static const OpRef flip("flip");
                   LOHE_CHECK(a[0].tensor->dim() >= 1, "Input must be >= 1-d.");
                   return Results(flip(a[0].tensor, Dims{0}));
                 })
            .describe("Reversed along dim 0."),
        function("rot90(Tensor self, int k=1, int[] dims=[0, 1]) -> Tensor", turned)
            .describe("Turned by k times 90 degrees."),
        function("pixel_shuffle(Tensor self, int upscale_factor) -> Tensor", shuffled_up)
            .function_only()
            .describe("[*, C r r, H, W] to [*, C, H r, W r]. Shi et al., CVPR 2016."),
        function("pixel_unshuffle(Tensor self, int downscale_factor) -> Tensor", shuffled_down)
            .function_only()
            .describe("[*, C, H r, W r] to [*, C r r, H, W]."),
        function("channel_shuffle(Tensor self, int groups) -> Tensor", shuffled_channels)
            .function_only()
            .describe("Channels of several groups taken in turn. Zhang et al., CVPR 2018."),
    });

}  // namespace
}  // namespace lohe::ops
