#include <algorithm>

#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// Borders. Paddings are pairs (before, after), the last dim's first; negative ones cut.
namespace lohe::ops {
namespace {

using Tensors = std::span<TensorImpl* const>;

TensorPtr joined(std::vector<TensorPtr> parts, int64_t dim) {
  static const OpRef cat("cat");
  if (parts.size() == 1) return parts[0];
  const auto raw = pointers_of(parts);
  return cat(Tensors(raw), dim);
}

std::vector<Meta> padded(Args a) {
  const TensorImpl& t = *a[0].tensor;
  const auto pad = a[1].int_list();
  LOHE_CHECK(pad.size() % 2 == 0, "Length of pad must be even but instead it equals ", pad.size());
  LOHE_CHECK(static_cast<int64_t>(pad.size()) <= 2 * t.dim(),
             "Length of pad should be no more than twice the number of dimensions of the "
             "input. Pad length is ",
             pad.size(), " while the input has ", t.dim(), " dimensions.");
  Meta m;
  m.dtype = t.dtype();
  m.sizes = t.size_dims();
  for (size_t i = 0; i < pad.size() / 2; ++i) {
    const size_t d = m.sizes.size() - 1 - i;
    m.sizes[d] += pad[2 * i] + pad[2 * i + 1];
    LOHE_CHECK(m.sizes[d] >= 0, "The input size ", t.sizes()[d], ", plus negative padding ", pad[2 * i],
               " and ", pad[2 * i + 1],
               " resulted in a negative output size, which is invalid. Check dimension ", d,
               " of your input.");
  }
  if (!t.contiguous() && is_channels_last(t.sizes(), t.strides())) m.strides = channels_last_strides(m.sizes);
  return {m};
}

void fill_and_copy(Args a, Results& r) {
  static const OpRef fill("fill_"), slice("slice.Tensor"), copy("copy_");
  const NoGrad no_grad;
  const auto pad = a[1].int_list();
  TensorPtr from(a[0].tensor), to = r[0];
  bool grows = false;
  for (const int64_t p : pad) grows = grows || p > 0;
  if (grows) fill(r[0], a[2]);
  for (size_t i = 0; i < pad.size() / 2; ++i) {
    const auto d = static_cast<int64_t>(a[0].tensor->sizes().size() - 1 - i);
    const int64_t before = pad[2 * i], after = pad[2 * i + 1];
    const int64_t n = from->sizes()[static_cast<size_t>(d)], m = to->sizes()[static_cast<size_t>(d)];
    from = slice(from, d, std::max<int64_t>(-before, 0), n + std::min<int64_t>(after, 0));
    to = slice(to, d, std::max<int64_t>(before, 0), m - std::max<int64_t>(after, 0));
  }
  copy(to, from);
}

enum class Border { kReflect, kReplicate, kWrap };

/// One dim with its borders: pieces joined, so that gradients follow from theirs.
TensorPtr bordered(const TensorPtr& t, int64_t dim, int64_t before, int64_t after, Border border) {
  static const OpRef slice("slice.Tensor"), flip("flip"), expand("expand");
  const int64_t size = t->sizes()[static_cast<size_t>(dim)];
  const auto part = [&](int64_t from, int64_t to) { return slice(t, dim, from, to); };
  std::vector<TensorPtr> parts;
  // A negative border cuts first: what wraps around is what is left.
  const int64_t first = std::max<int64_t>(-before, 0), last = size + std::min<int64_t>(after, 0);
  const TensorPtr kept = before < 0 || after < 0 ? part(first, last) : t;
  const auto repeated = [&](int64_t at, int64_t times) {
    Dims sizes = t->size_dims();
    sizes[static_cast<size_t>(dim)] = times;
    return expand(part(at, at + 1), sizes);
  };
  const Dims along{dim};
  if (before > 0) {
    parts.push_back(border == Border::kReflect ? flip(part(1, before + 1), along)
                    : border == Border::kWrap  ? part(last - before, last)
                                               : repeated(0, before));
  }
  parts.push_back(kept);
  if (after > 0) {
    parts.push_back(border == Border::kReflect ? flip(part(size - 1 - after, size - 1), along)
                    : border == Border::kWrap  ? part(first, first + after)
                                               : repeated(size - 1, after));
  }
  return joined(std::move(parts), dim);
}

TensorPtr with_borders(TensorImpl* t, std::span<const int64_t> pad, Border border) {
  TensorPtr result(t);
  for (size_t i = 0; i < pad.size() / 2; ++i) {
    const auto d = static_cast<int64_t>(t->sizes().size() - 1 - i);
    if (pad[2 * i] != 0 || pad[2 * i + 1] != 0)
      result = bordered(result, d, pad[2 * i], pad[2 * i + 1], border);
  }
  return result;
}

/// reflection_padNd and replication_padNd: N padded dims behind a batch (optional) and channels.
Results checked_borders(Args a, int64_t dims, Border border) {
  TensorImpl* t = a[0].tensor;
  const auto pad = a[1].int_list();
  const char* name = border == Border::kReflect ? "reflection_pad" : "replication_pad";
  LOHE_CHECK(static_cast<int64_t>(pad.size()) == 2 * dims, name, dims, "d: padding size is expected to be ",
             2 * dims, ", but got: ", pad.size());
  LOHE_CHECK_KIND(kNotImplemented, t->dtype() != Dtype::kBool, "\"", name, dims,
                  "d\" not implemented for 'Bool'; convert to a number dtype");
  const int64_t rank = t->dim();
  bool fits = rank == dims + 1 || rank == dims + 2;
  for (int64_t d = rank == dims + 2 ? 1 : 0; d < rank && fits; ++d)
    fits = t->sizes()[static_cast<size_t>(d)] != 0;
  LOHE_CHECK(fits, "Expected ", dims + 1, "D or ", dims + 2,
             "D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions "
             "for input, but got: ",
             to_string(t->sizes()));
  for (int64_t i = 0; i < dims; ++i) {
    const int64_t before = pad[static_cast<size_t>(2 * i)], after = pad[static_cast<size_t>(2 * i + 1)],
                  d = rank - 1 - i;
    const int64_t size = t->sizes()[static_cast<size_t>(d)];
    LOHE_CHECK(border != Border::kReflect || (before < size && after < size),
               "Argument #4: Padding size should be less than the "
               "corresponding input dimension, but got: padding (",
               before, ", ", after, ") at dimension ", d, " of input ", to_string(t->sizes()));
    LOHE_CHECK(size + before + after >= 1, "input (size: ", size,
               ") is too small. Calculated output size: ", size + before + after, " at dimension ", d);
  }
  static const OpRef clone("clone");
  TensorPtr result = with_borders(t, pad, border);
  if (result.get() == t || &result->storage() == &t->storage()) return clone(result, int64_t{0});
  return result;
}

Results wrapped(Args a) {
  static const OpRef clone("clone");
  TensorImpl* t = a[0].tensor;
  const auto pad = a[1].int_list();
  const int64_t spatial = t->dim() - 2;
  LOHE_CHECK(static_cast<int64_t>(pad.size()) == 2 * spatial, "Invalid padding size, expected ", 2 * spatial,
             " but got ", pad.size());
  for (int64_t i = 0; i < spatial; ++i) {
    const int64_t before = pad[static_cast<size_t>(2 * i)], after = pad[static_cast<size_t>(2 * i + 1)];
    const int64_t size = t->sizes()[static_cast<size_t>(t->dim() - 1 - i)];
    LOHE_CHECK(before <= size && after <= size, "Padding value causes wrapping around more than once.");
    LOHE_CHECK(size + before + after >= 0, "Negative padding value is resulting in an empty dimension");
  }
  const TensorPtr result = with_borders(t, pad, Border::kWrap);
  if (result.get() == t || &result->storage() == &t->storage()) return clone(result, int64_t{0});
  return result;
}

Results padded_by_mode(Args a) {
  static const OpRef constant("constant_pad_nd"), circular("_pad_circular");
  static const OpRef reflection[] = {OpRef("reflection_pad1d"), OpRef("reflection_pad2d"),
                                     OpRef("reflection_pad3d")};
  static const OpRef replication[] = {OpRef("replication_pad1d"), OpRef("replication_pad2d"),
                                      OpRef("replication_pad3d")};
  const auto pad = a[1].int_list();
  const std::string_view mode = a[2].str();
  LOHE_CHECK(pad.size() % 2 == 0, "Padding length must be divisible by 2");
  LOHE_CHECK(static_cast<int64_t>(pad.size()) <= 2 * a[0].tensor->dim(),
             "Padding length should be less than or equal to two times the input "
             "dimension but got padding length ",
             pad.size(), " and input of dimension ", a[0].tensor->dim());
  if (mode == "constant") return constant(a[0].tensor, pad, a[3].none() ? Arg(int64_t{0}) : a[3]);
  LOHE_CHECK(a[3].none() || a[3].scalar().to_double() == 0, "Padding mode \"", mode,
             "\" doesn't take in value argument");
  const auto rank = static_cast<size_t>(a[0].tensor->dim());
  const size_t dims = pad.size() / 2;
  if (dims >= 1 && dims <= 3 && (rank == dims + 1 || rank == dims + 2)) {
    if (mode == "reflect") return reflection[dims - 1](a[0].tensor, pad);
    if (mode == "replicate") return replication[dims - 1](a[0].tensor, pad);
    if (mode == "circular") return circular(a[0].tensor, pad);
    raise(ErrorKind::kNotImplemented, "Unrecognised padding mode ", mode);
  }
  raise(ErrorKind::kNotImplemented,
        "Only 2D, 3D, 4D, 5D padding with non-constant padding are supported for now");
}

const OpFamily padding(
    "padding",
    {
        primitive("constant_pad_nd(Tensor self, int[] pad, Scalar value=0) -> Tensor", padded, fill_and_copy)
            .grad([](Backward& b) {
              static const OpRef pad("constant_pad_nd");
              Dims back(b.arg(1).int_list());
              for (auto& p : back) p = -p;
              b.set(0, pad(b.grad(), back));
            })
            .gradient_reads({})
            .filled_by_ops()
            .function_only()
            .describe("A border of one number."),
        function("reflection_pad1d(Tensor self, int[2] padding) -> Tensor",
                 [](Args a) { return checked_borders(a, 1, Border::kReflect); })
            .in("nn")
            .out()
            .describe("A border that mirrors the last dim at its edges, edges once."),
        function("reflection_pad2d(Tensor self, int[4] padding) -> Tensor",
                 [](Args a) { return checked_borders(a, 2, Border::kReflect); })
            .in("nn")
            .out()
            .describe("A border that mirrors the last two dims."),
        function("reflection_pad3d(Tensor self, int[6] padding) -> Tensor",
                 [](Args a) { return checked_borders(a, 3, Border::kReflect); })
            .in("nn")
            .out()
            .describe("A border that mirrors the last three dims."),
        function("replication_pad1d(Tensor self, int[2] padding) -> Tensor",
                 [](Args a) { return checked_borders(a, 1, Border::kReplicate); })
            .in("nn")
            .out()
            .describe("A border that repeats the edges of the last dim."),
        function("replication_pad2d(Tensor self, int[4] padding) -> Tensor",
                 [](Args a) { return checked_borders(a, 2, Border::kReplicate); })
            .in("nn")
            .out()
            .describe("A border that repeats the edges of the last two dims."),
        function("replication_pad3d(Tensor self, int[6] padding) -> Tensor",
                 [](Args a) { return checked_borders(a, 3, Border::kReplicate); })
            .in("nn")
            .out()
            .describe("A border that repeats the edges of the last three dims."),
        function("_pad_circular(Tensor self, int[] pad) -> Tensor", wrapped)
            .in("nn")
            .describe("A border taken from the other end of each dim."),
        function("pad(Tensor self, int[] pad, str mode='constant', float? value=None) -> Tensor",
                 padded_by_mode)
            .in("nn")
            .describe("A border: 'constant', 'reflect', 'replicate' or 'circular'."),
    });

}  // namespace
}  // namespace lohe::ops
