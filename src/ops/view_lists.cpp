#include <algorithm>

#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// A tensor cut into views along a dim.
namespace lohe::ops {
namespace {

int64_t size_along(const TensorImpl& t, int64_t dim) {
  return t.sizes()[static_cast<size_t>(wrap_dim(dim, t.dim()))];
}

std::vector<ViewSpec> pieces(const TensorImpl& t, int64_t dim, std::span<const int64_t> lengths) {
  LOHE_CHECK(t.dim() > 0, "split expects at least a 1-dimensional tensor");
  int64_t total = 0;
  for (const int64_t n : lengths) {
    LOHE_CHECK(n >= 0,
               "split_with_sizes expects split_sizes have only non-negative entries, but got split_sizes=",
               to_string(lengths));
    total += n;
  }
  const int64_t size = size_along(t, dim);
  LOHE_CHECK(total == size, "split_with_sizes expects split_sizes to sum exactly to ", size,
             " (input tensor's size at dimension ", wrap_dim(dim, t.dim()),
             "), but got split_sizes=", to_string(lengths));
  std::vector<ViewSpec> list;
  int64_t at = 0;
  for (const int64_t n : lengths) {
    list.push_back(narrowed(t, dim, at, n));
    at += n;
  }
  return list;
}

std::vector<ViewSpec> equal_pieces(const TensorImpl& t, int64_t length, int64_t dim) {
  LOHE_CHECK(t.dim() > 0, "split expects at least a 1-dimensional tensor");
  LOHE_CHECK(length >= 0, "split expects split_size be non-negative, but got split_size=", length);
  const int64_t size = size_along(t, dim);
  LOHE_CHECK(length > 0 || size == 0,
             "split_size can only be 0 if dimension size is 0, but got dimension size of ", size);
  const int64_t count = length == 0 ? 1 : std::max<int64_t>((size + length - 1) / length, 1);
  std::vector<ViewSpec> list;
  for (int64_t i = 0; i < count; ++i)
    list.push_back(narrowed(t, dim, i * length, std::min(length, size - i * length)));
  return list;
}

/// What did not get a cotangent stands for zeros.
void joined_gradient(Backward& b, int64_t dim, const std::vector<int64_t>& lengths) {
  static const OpRef zeros("zeros"), cat("cat");
  const Meta& input = b.meta(0);
  std::vector<TensorPtr> parts;
  for (size_t i = 0; i < lengths.size(); ++i) {
    TensorPtr g = b.grad(static_cast<int>(i));
    if (!g) {
      Dims sizes = input.sizes;
      sizes[static_cast<size_t>(wrap_dim(dim, static_cast<int64_t>(sizes.size())))] = lengths[i];
      g = zeros(sizes, input.dtype);
    }
    parts.push_back(std::move(g));
  }
  const auto raw = pointers_of(parts);
  b.set(0, cat(std::span<TensorImpl* const>(raw), dim));
}

int64_t length_of(const Meta& m, int64_t dim) {
  return m.sizes[static_cast<size_t>(wrap_dim(dim, static_cast<int64_t>(m.sizes.size())))];
}

Results chunks_of(TensorImpl* t, int64_t chunks, int64_t dim) {
  static const OpRef split("split.Tensor"), with_sizes("split_with_sizes");
  LOHE_CHECK(t->dim() > 0, "chunk expects at least a 1-dimensional tensor");
  LOHE_CHECK(chunks > 0, "chunk expects `chunks` to be greater than 0, got: ", chunks);
  const int64_t size = size_along(*t, dim);
  if (size == 0) {
    Dims none(static_cast<size_t>(chunks));
    return with_sizes.all(t, none, dim);
  }
  return split.all(t, (size + chunks - 1) / chunks, dim);
}

/// Cut before each of `at`, which may lie outside and out of order as in Python's slices.
Results cut_at(TensorImpl* t, std::span<const int64_t> at, int64_t dim) {
  static const OpRef slice("slice.Tensor");
  LOHE_CHECK(t->dim() > 0, "tensor_split expected at least a 1-dimensional tensor, but got a tensor with ",
             t->dim(), " dims");
  const int64_t d = wrap_dim(dim, t->dim());
  std::vector<TensorPtr> list;
  int64_t start = 0;
  for (const int64_t end : at) {
    list.push_back(slice(t, d, start, end));
    start = end;
  }
  list.push_back(slice(t, d, start, t->sizes()[static_cast<size_t>(d)]));
  return Results(std::move(list));
}

Results cut_evenly(TensorImpl* t, int64_t sections, int64_t dim) {
  LOHE_CHECK(t->dim() > 0, "tensor_split expected at least a 1-dimensional tensor, but got a tensor with ",
             t->dim(), " dims");
  const int64_t size = size_along(*t, dim);
  LOHE_CHECK(sections > 0, "number of sections must be larger than 0, got ", sections);
  std::vector<int64_t> at;
  int64_t end = 0;
  for (int64_t i = 0; i + 1 < sections; ++i)
    at.push_back(end += size / sections + (i < size % sections ? 1 : 0));
  return cut_at(t, at, dim);
}

Results cut_by_tensor(Args a) {
  static const OpRef to("to.dtype"), contiguous("contiguous");
  const TensorImpl& given = *a[1].tensor;
  LOHE_CHECK(given.dtype() == kInt64,
             "tensor_split expected tensor_indices_or_sections to have dtype of long, but got ",
             given.dtype());
  LOHE_CHECK(
      given.dim() <= 1,
      "tensor_split expected tensor_indices_or_sections to be a zero-dimensional or one-dimensional tensor, but got "
      "a tensor with ",
      given.dim(), " dims");
  const TensorPtr values = contiguous(a[1].tensor);
  const auto* p = reinterpret_cast<const int64_t*>(values->data());
  if (given.dim() == 0) return cut_evenly(a[0].tensor, *p, a[2].integer);
  return cut_at(a[0].tensor, {p, static_cast<size_t>(values->numel())}, a[2].integer);
}

/// hsplit, vsplit and dsplit: tensor_split of a fixed dim, into equal sections.
struct FixedSplit {
  const char* name;
  int64_t rank;
  int64_t dim(const TensorImpl& t) const {
    LOHE_CHECK(t.dim() >= rank, "torch.", name, " requires a tensor with at least ", rank, " dimension",
               rank == 1 ? "" : "s", ", but got a tensor with ", t.dim(), " dimensions!");
    return name[0] == 'h' ? (t.dim() == 1 ? 0 : 1) : name[0] == 'v' ? 0 : 2;
  }
  Results sections(Args a) const {
    const int64_t d = dim(*a[0].tensor), n = a[1].integer,
                  size = a[0].tensor->sizes()[static_cast<size_t>(d)];
    LOHE_CHECK(n > 0 && size % n == 0, "torch.", name, " attempted to split along dimension ", d,
               ", but the size of the dimension ", size, " is not divisible by the split_size ", n, "!");
    return cut_evenly(a[0].tensor, n, d);
  }
  Results indices(Args a) const { return cut_at(a[0].tensor, a[1].int_list(), dim(*a[0].tensor)); }
};
constexpr FixedSplit kHorizontal{"hsplit", 1}, kVertical{"vsplit", 2}, kDepth{"dsplit", 3};

const OpFamily view_lists(
    "view_lists",
    {
        multi_view("split.Tensor(Tensor(a) self, int split_size, int dim=0) -> Tensor(a)[]",
                   [](Args a) { return equal_pieces(*a[0].tensor, a[1].integer, a[2].integer); })
            .grad([](Backward& b) {
              const int64_t dim = b.arg(2).integer, size = length_of(b.meta(0), dim),
                            length = b.arg(1).integer;
              std::vector<int64_t> lengths;
              int64_t at = 0;
              do {
                lengths.push_back(std::min(length, size - at));
                at += length;
              } while (at < size);
              joined_gradient(b, dim, lengths);
            })
            .gradient_reads({})
            .describe("Pieces of one length along a dim; the last may be shorter."),
        function("split.sizes(Tensor(a) self, int[] split_size, int dim=0) -> Tensor(a)[]",
                 [](Args a) {
                   static const OpRef split("split_with_sizes");
                   return split.all(a[0].tensor, a[1], a[2]);
                 })
            .describe("Pieces of given lengths along a dim."),
        multi_view("split_with_sizes(Tensor(a) self, int[] split_sizes, int dim=0) -> Tensor(a)[]",
                   [](Args a) { return pieces(*a[0].tensor, a[2].integer, a[1].int_list()); })
            .grad([](Backward& b) {
              const auto lengths = b.arg(1).int_list();
              joined_gradient(b, b.arg(2).integer, {lengths.begin(), lengths.end()});
            })
            .gradient_reads({})
            .describe("Pieces of given lengths along a dim."),
        function("chunk(Tensor(a) self, int chunks, int dim=0) -> Tensor(a)[]",
                 [](Args a) { return chunks_of(a[0].tensor, a[1].integer, a[2].integer); })
            .describe("At most `chunks` pieces along a dim."),
        function("unsafe_chunk(Tensor self, int chunks, int dim=0) -> Tensor[]",
                 [](Args a) { return chunks_of(a[0].tensor, a[1].integer, a[2].integer); })
            .describe("Another name of chunk."),
        function("unsafe_split.Tensor(Tensor self, int split_size, int dim=0) -> Tensor[]",
                 [](Args a) {
                   static const OpRef split("split.Tensor");
                   return split.all(a[0].tensor, a[1], a[2]);
                 })
            .describe("Another name of split."),
        function("unsafe_split_with_sizes(Tensor self, int[] split_sizes, int dim=0) -> Tensor[]",
                 [](Args a) {
                   static const OpRef split("split_with_sizes");
                   return split.all(a[0].tensor, a[1], a[2]);
                 })
            .describe("Another name of split_with_sizes."),
        multi_view("unbind.int(Tensor(a) self, int dim=0) -> Tensor(a)[]",
                   [](Args a) {
                     const TensorImpl& t = *a[0].tensor;
                     LOHE_CHECK_INDEX(t.dim() > 0, "Dimension specified as ", a[1].integer,
                                      " but tensor has no dimensions");
                     std::vector<ViewSpec> list;
                     const int64_t n = size_along(t, a[1].integer);
                     for (int64_t i = 0; i < n; ++i) list.push_back(selected(t, a[1].integer, i));
                     return list;
                   })
            .grad([](Backward& b) {
              static const OpRef zeros("zeros"), stack("stack");
              const Meta& input = b.meta(0);
              const int64_t n = length_of(input, b.arg(1).integer),
                            dim = wrap_dim(b.arg(1).integer, static_cast<int64_t>(input.sizes.size()));
              Dims sizes;
              for (size_t i = 0; i < input.sizes.size(); ++i) {
                if (static_cast<int64_t>(i) != dim) sizes.push_back(input.sizes[i]);
              }
              std::vector<TensorPtr> parts;
              for (int64_t i = 0; i < n; ++i) {
                TensorPtr g = b.grad(static_cast<int>(i));
                parts.push_back(g ? g : zeros(sizes, input.dtype));
              }
              const auto raw = pointers_of(parts);
              b.set(0, stack(std::span<TensorImpl* const>(raw), dim));
            })
            .gradient_reads({})
            .describe("Every position of a dim."),
        function("tensor_split.indices(Tensor(a) self, int[] indices, int dim=0) -> Tensor(a)[]",
                 [](Args a) { return cut_at(a[0].tensor, a[1].int_list(), a[2].integer); })
            .describe("Cut before each of the positions."),
        function("tensor_split.sections(Tensor(a) self, int sections, int dim=0) -> Tensor(a)[]",
                 [](Args a) { return cut_evenly(a[0].tensor, a[1].integer, a[2].integer); })
            .describe("Sections whose lengths differ by at most one."),
        function(
            "tensor_split.tensor_indices_or_sections(Tensor(a) self, Tensor tensor_indices_or_sections, int dim=0) -> Tensor(a)[]",
            cut_by_tensor)
            .describe("Positions or number of sections from a tensor."),
        function("hsplit.int(Tensor(a) self, int sections) -> Tensor(a)[]",
                 [](Args a) { return kHorizontal.sections(a); })
            .describe("Equal sections of dim 1 (of a vector: dim 0)."),
        function("hsplit.list(Tensor(a) self, int[] indices) -> Tensor(a)[]",
                 [](Args a) { return kHorizontal.indices(a); })
            .describe("Dim 1 (of a vector: dim 0) cut before each of the positions."),
        function("vsplit.int(Tensor(a) self, int sections) -> Tensor(a)[]",
                 [](Args a) { return kVertical.sections(a); })
            .describe("Equal sections of dim 0."),
        function("vsplit.list(Tensor(a) self, int[] indices) -> Tensor(a)[]",
                 [](Args a) { return kVertical.indices(a); })
            .describe("Dim 0 cut before each of the positions."),
        function("dsplit.int(Tensor(a) self, int sections) -> Tensor(a)[]",
                 [](Args a) { return kDepth.sections(a); })
            .describe("Equal sections of dim 2."),
        function("dsplit.list(Tensor(a) self, int[] indices) -> Tensor(a)[]",
                 [](Args a) { return kDepth.indices(a); })
            .describe("Dim 2 cut before each of the positions."),
    });

}  // namespace
}  // namespace lohe::ops
