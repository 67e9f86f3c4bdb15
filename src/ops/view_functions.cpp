#include <algorithm>

#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// Shapes by other names: functions that come to one of the views, and complex tensors seen in parts.
namespace lohe::ops {
namespace {

Results reshaped(TensorImpl* t, std::span<const int64_t> wanted) {
  static const OpRef view("view"), clone("clone");
  const Dims shape = infer_size(wanted, t->numel());
  if (view_strides(t->sizes(), t->strides(), shape)) return view(t, shape);
  return view(clone(t, int64_t{0}), shape);
}

Results moved(TensorImpl* t, std::span<const int64_t> source, std::span<const int64_t> destination) {
  static const OpRef permute("permute");
  LOHE_CHECK(source.size() == destination.size(), "movedim: Invalid source or destination dims: source (",
             to_string(source), " dims) should contain the same number of dims as destination (",
             to_string(destination), " dims)");
  const int64_t rank = t->dim();
  Dims order(static_cast<size_t>(rank));
  for (auto& d : order) d = -1;
  uint64_t taken = 0, placed = 0;
  for (size_t i = 0; i < source.size(); ++i) {
    const int64_t from = wrap_dim(source[i], rank), to = wrap_dim(destination[i], rank);
    LOHE_CHECK((taken >> from & 1) == 0, "movedim: repeated dim in `source` (", to_string(source), ")");
    LOHE_CHECK((placed >> to & 1) == 0, "movedim: repeated dim in `destination` (", to_string(destination),
               ")");
    taken |= uint64_t{1} << from;
    placed |= uint64_t{1} << to;
    if (rank > 0) order[static_cast<size_t>(to)] = from;
  }
  if (rank == 0) {
    static const OpRef alias("alias");
    return alias(t);
  }
  int64_t next = 0;
  for (auto& d : order) {
    if (d >= 0) continue;
    while ((taken >> next & 1) != 0) ++next;
    d = next++;
  }
  return permute(t, order);
}

Results moved_one(TensorImpl* t, int64_t source, int64_t destination) {
  return moved(t, {&source, 1}, {&destination, 1});
}

Results flattened(Args a) {
  TensorImpl* t = a[0].tensor;
  const int64_t start = wrap_dim(a[1].integer, t->dim()), end = wrap_dim(a[2].integer, t->dim());
  LOHE_CHECK(start <= end, "flatten() has invalid args: start_dim cannot come after end_dim");
  if (t->dim() == 0) return reshaped(t, Dims{1});
  if (start == end) return TensorPtr(t);
  Dims shape;
  int64_t joined = 1;
  for (int64_t d = 0; d < t->dim(); ++d) {
    const int64_t size = t->sizes()[static_cast<size_t>(d)];
    if (d < start || d > end)
      shape.push_back(size);
    else
      joined *= size;
    if (d == end) shape.push_back(joined);
  }
  return reshaped(t, shape);
}

Results unflattened(Args a) {
  static const OpRef view("view");
  TensorImpl* t = a[0].tensor;
  const auto d = static_cast<size_t>(wrap_dim(a[1].integer, t->dim()));
  const auto sizes = a[2].int_list();
  LOHE_CHECK(!sizes.empty(), "unflatten: sizes must be non-empty");
  LOHE_CHECK_INDEX(t->dim() > 0, "unflatten: a tensor of no dims has none to unflatten");
  Dims inner(sizes);
  int64_t known = 1, unknown = -1;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] == -1 && unknown < 0)
      unknown = static_cast<int64_t>(i);
    else
      known *= sizes[i];
  }
  const int64_t whole_size = t->sizes()[d];
  if (unknown >= 0 && known > 0 && whole_size % known == 0) {
    inner[static_cast<size_t>(unknown)] = whole_size / known;
    known = whole_size;
  }
  LOHE_CHECK(known == whole_size, "unflatten: Provided sizes ", to_string(sizes),
             " don't multiply up to the size of dim ", d, " (", whole_size, ") in the input tensor");
  Dims shape;
  for (size_t i = 0; i < t->sizes().size(); ++i) {
    if (i != d)
      shape.push_back(t->sizes()[i]);
    else
      for (const int64_t s : inner) shape.push_back(s);
  }
  return view(t, shape);
}

Results adjoint_of(TensorImpl* t) {
  static const OpRef transpose("transpose.int"), conj("conj");
  LOHE_CHECK(t->dim() != 1,
             "tensor.adjoint() is only supported on matrices or batches of matrices. Got 1-D tensor.");
  if (t->dim() == 0) return conj(t);
  return conj(transpose(t, int64_t{-2}, int64_t{-1}));
}

/// Real or imaginary part of a complex tensor, as a view: a pending conjugation turns the sign of the
/// imaginary one.
Results part_of(TensorImpl* t, int64_t part) {
  static const OpRef conj("_conj"), parts("view_as_real"), select("select.int"), negative("_neg_view");
  if (!t->conj()) return select(parts(t), int64_t{-1}, part);
  const TensorPtr value = select(parts(conj(t)), int64_t{-1}, part);
  return part == 0 ? value : negative(value);
}

ViewSpec as_real(const TensorImpl& t) {
  LOHE_CHECK(is_complex(t.dtype()), "view_as_real is only supported for complex tensors");
  LOHE_CHECK(
      !t.conj(),
      "view_as_real doesn't work on unresolved conjugated tensors.  To resolve the conjugate tensor so you can view "
      "it as real, use self.resolve_conj(); however, be warned that the resulting tensor will not alias the original.");
  ViewSpec v = whole(t);
  v.dtype = info(t.dtype()).value_dtype;
  v.offset *= 2;
  for (auto& s : v.strides) s *= 2;
  v.sizes.push_back(2);
  v.strides.push_back(1);
  return v;
}

ViewSpec as_complex(const TensorImpl& t) {
  LOHE_CHECK(t.dtype() == kFloat32 || t.dtype() == kFloat64,
             "view_as_complex is only supported for half, float and double tensors, but "
             "got a tensor of scalar type: ",
             t.dtype());
  LOHE_CHECK(t.dim() > 0, "Input tensor must have one or more dimensions");
  LOHE_CHECK(t.sizes().back() == 2, "Tensor must have a last dimension of size 2");
  LOHE_CHECK(t.strides().back() == 1, "Tensor must have a last dimension with stride 1");
  ViewSpec v = whole(t);
  v.dtype = to_complex(t.dtype());
  const size_t last = v.sizes.size() - 1;
  Dims sizes, strides;
  for (size_t i = 0; i < last; ++i) {
    LOHE_CHECK(t.strides()[i] % 2 == 0,
               "Tensor must have a stride divisible by 2 for all but last dimension");
    sizes.push_back(t.sizes()[i]);
    strides.push_back(t.strides()[i] / 2);
  }
  LOHE_CHECK(t.offset() % 2 == 0, "Tensor must have a storage_offset divisible by 2");
  v.offset /= 2;
  v.sizes = std::move(sizes);
  v.strides = std::move(strides);
  return v;
}

/// A tensor of at least `rank` dims. 3: [n] becomes [1, n, 1], [m, n] becomes [m, n, 1].
TensorPtr at_least(TensorImpl* t, int64_t rank) {
  static const OpRef reshape("reshape"), unsqueeze("unsqueeze");
  if (t->dim() >= rank) return TensorPtr(t);
  if (t->dim() == 0) {
    Dims ones(static_cast<size_t>(rank));
    for (auto& s : ones) s = 1;
    return reshape(t, ones);
  }
  if (rank == 2) return unsqueeze(t, int64_t{0});
  return t->dim() == 1 ? unsqueeze(unsqueeze(t, int64_t{0}), int64_t{-1}) : unsqueeze(t, int64_t{-1});
}

Results at_least_all(const Arg& list, int64_t rank) {
  std::vector<TensorPtr> result;
  for (TensorImpl* t : list.tensor_list()) result.push_back(at_least(t, rank));
  return Results(std::move(result));
}

const OpFamily view_functions(
    "view_functions",
    {
        function("reshape(Tensor(a) self, int[] shape) -> Tensor(a)",
                 [](Args a) { return reshaped(a[0].tensor, a[1].int_list()); })
            .describe("The same elements in another shape; copied where a view cannot do it."),
        function("reshape_as(Tensor(a) self, Tensor other) -> Tensor(a)",
                 [](Args a) { return reshaped(a[0].tensor, a[1].tensor->sizes()); })
            .method_only()
            .describe("As reshape, to the other tensor's shape."),
        function("view_as(Tensor(a) self, Tensor other) -> Tensor(a)",
                 [](Args a) {
                   static const OpRef view("view");
                   return Results(view(a[0].tensor, a[1].tensor->sizes()));
                 })
            .method_only()
            .describe("As view, to the other tensor's shape."),
        function("expand_as(Tensor(a) self, Tensor other) -> Tensor(a)",
                 [](Args a) {
                   static const OpRef expand("expand");
                   return Results(expand(a[0].tensor, a[1].tensor->sizes()));
                 })
            .method_only()
            .describe("As expand, to the other tensor's shape."),
        function("sum_to_size(Tensor self, int[] size) -> Tensor",
                 [](Args a) {
                   static const OpRef sum("sum.dim_IntList"), view("view");
                   TensorPtr t(a[0].tensor);
                   const auto size = a[1].int_list();
                   if (size.empty()) return Results(sum(t, Dims{}));
                   const size_t rank = t->sizes().size();
                   bool fits = size.size() <= rank;
                   Dims over;
                   for (size_t d = 0; d < rank && fits; ++d) {
                     const size_t lead = rank - size.size();
                     const int64_t want = d < lead ? 1 : size[d - lead];
                     fits = want == 1 || want == t->sizes()[d];
                     if (d < lead || (want == 1 && t->sizes()[d] != 1))
                       over.push_back(static_cast<int64_t>(d));
                   }
                   LOHE_CHECK(fits, "size {", to_string(size), "} is not expandable to size {",
                              to_string(t->sizes()), "}.");
                   if (!over.empty()) t = sum(t, over, true);
                   return Results(rank == size.size() ? t : view(t, size));
                 })
            .method_only()
            .describe("Summed down to a shape that broadcasts to self's."),
        function("broadcast_to(Tensor(a) self, int[] size) -> Tensor(a)",
                 [](Args a) {
                   static const OpRef expand("expand");
                   return Results(expand(a[0].tensor, a[1].int_list()));
                 })
            .describe("Dims of size 1, or missing on the left, repeated without a copy."),
        function("broadcast_tensors(Tensor[] tensors) -> Tensor[]",
                 [](Args a) {
                   static const OpRef expand("expand");
                   Dims shape;
                   for (const TensorImpl* t : a[0].tensor_list()) shape = broadcast_shapes(shape, t->sizes());
                   std::vector<TensorPtr> list;
                   for (TensorImpl* t : a[0].tensor_list()) list.push_back(expand(t, shape));
                   return Results(std::move(list));
                 })
            .function_only()
            .describe("The tensors as views of the shape that they broadcast to."),
        function("movedim.int(Tensor(a) self, int source, int destination) -> Tensor(a)",
                 [](Args a) { return moved_one(a[0].tensor, a[1].integer, a[2].integer); })
            .describe("One dim at another place."),
        function("movedim.intlist(Tensor(a) self, int[] source, int[] destination) -> Tensor(a)",
                 [](Args a) { return moved(a[0].tensor, a[1].int_list(), a[2].int_list()); })
            .describe("Dims at other places, the others in order."),
        function("moveaxis.int(Tensor(a) self, int source, int destination) -> Tensor(a)",
                 [](Args a) { return moved_one(a[0].tensor, a[1].integer, a[2].integer); })
            .describe("One dim at another place."),
        function("moveaxis.intlist(Tensor(a) self, int[] source, int[] destination) -> Tensor(a)",
                 [](Args a) { return moved(a[0].tensor, a[1].int_list(), a[2].int_list()); })
            .describe("Dims at other places, the others in order."),
        function("narrow(Tensor(a) self, int dim, int start, int length) -> Tensor(a)",
                 [](Args a) {
                   static const OpRef slice("slice.Tensor");
                   narrowed(*a[0].tensor, a[1].integer, a[2].integer, a[3].integer);  // its checks
                   const int64_t size =
                       a[0].tensor->sizes()[static_cast<size_t>(wrap_dim(a[1].integer, a[0].tensor->dim()))];
                   const int64_t start = a[2].integer < 0 ? a[2].integer + size : a[2].integer;
                   return Results(slice(a[0].tensor, a[1], start, start + a[3].integer, int64_t{1}));
                 })
            .describe("Positions [start, start + length) of a dim."),
        function("narrow.Tensor(Tensor(a) self, int dim, Tensor start, int length) -> Tensor(a)",
                 [](Args a) {
                   static const OpRef narrow("narrow"), to("to.dtype");
                   LOHE_CHECK(a[2].tensor->dim() == 0 && is_integral(a[2].tensor->dtype(), false),
                              "start must be an 0-dim integral Tensor.");
                   const TensorPtr start = to(a[2].tensor, kInt64);
                   return Results(
                       narrow(a[0].tensor, a[1], *reinterpret_cast<const int64_t*>(start->data()), a[3]));
                 })
            .describe("Positions [start, start + length) of a dim."),
        function("narrow_copy(Tensor self, int dim, int start, int length) -> Tensor",
                 [](Args a) {
                   static const OpRef narrow("narrow"), clone("clone");
                   return Results(clone(narrow(a[0].tensor, a[1], a[2], a[3]), int64_t{0}));
                 })
            .out(OutDtype::kSame)
            .describe("As narrow, copied."),
        function("flatten.using_ints(Tensor(a) self, int start_dim=0, int end_dim=-1) -> Tensor(a)",
                 flattened)
            .describe("Neighbouring dims made one."),
        function("unflatten.int(Tensor(a) self, int dim, int[] sizes) -> Tensor(a)", unflattened)
            .describe("One dim made several."),
        function("ravel(Tensor(a) self) -> Tensor(a)",
                 [](Args a) {
                   static const OpRef contiguous("contiguous");
                   return reshaped(contiguous(a[0].tensor).get(), Dims{-1});
                 })
            .describe("All elements in one contiguous dim."),
        function("adjoint(Tensor(a) self) -> Tensor(a)", [](Args a) { return adjoint_of(a[0].tensor); })
            .describe("The last two dims swapped, conjugated."),
        function("matrix_H(Tensor(a) self) -> Tensor(a)",
                 [](Args a) {
                   LOHE_CHECK(a[0].tensor->dim() == 2 || a[0].tensor->dim() == 0,
                              "tensor.H is only supported on matrices (2-D tensors). Got ",
                              a[0].tensor->dim(), "-D tensor.");
                   return adjoint_of(a[0].tensor);
                 })
            .in("_C")
            .describe("The conjugated transpose of a matrix."),
        function("linalg_diagonal(Tensor(a) A, *, int offset=0, int dim1=-2, int dim2=-1) -> Tensor(a)",
                 [](Args a) {
                   static const OpRef diagonal("diagonal");
                   return Results(diagonal(a[0].tensor, a[1], a[2], a[3]));
                 })
            .in("linalg")
            .describe("The diagonals of matrices."),
        function("atleast_1d(Tensor self) -> Tensor",
                 [](Args a) { return Results(at_least(a[0].tensor, 1)); })
            .function_only()
            .describe("A 0-dim tensor as [1]."),
        function("atleast_1d.Sequence(Tensor[] tensors) -> Tensor[]",
                 [](Args a) { return at_least_all(a[0], 1); })
            .function_only()
            .describe("atleast_1d of each."),
        function("atleast_2d(Tensor self) -> Tensor",
                 [](Args a) { return Results(at_least(a[0].tensor, 2)); })
            .function_only()
            .describe("At least two dims, new ones in front."),
        function("atleast_2d.Sequence(Tensor[] tensors) -> Tensor[]",
                 [](Args a) { return at_least_all(a[0], 2); })
            .function_only()
            .describe("atleast_2d of each."),
        function("atleast_3d(Tensor self) -> Tensor",
                 [](Args a) { return Results(at_least(a[0].tensor, 3)); })
            .function_only()
            .describe("At least three dims: [n] as [1, n, 1], [m, n] as [m, n, 1]."),
        function("atleast_3d.Sequence(Tensor[] tensors) -> Tensor[]",
                 [](Args a) { return at_least_all(a[0], 3); })
            .function_only()
            .describe("atleast_3d of each."),
        view("view_as_real(Tensor(a) self) -> Tensor(a)", [](Args a) { return as_real(*a[0].tensor); })
            .grad([](Backward& b) {
              static const OpRef view_as_complex("view_as_complex"), contiguous("contiguous"),
                  resolve_neg("resolve_neg");
              b.set(0, view_as_complex(contiguous(resolve_neg(b.grad()))));
            })
            .gradient_reads({})
            .function_only()
            .describe("Real and imaginary parts as a new last dim of size 2."),
        view("view_as_complex(Tensor(a) self) -> Tensor(a)", [](Args a) { return as_complex(*a[0].tensor); })
            .grad([](Backward& b) {
              static const OpRef view_as_real("view_as_real"), resolve_conj("resolve_conj"),
                  contiguous("contiguous");
              b.set(0, view_as_real(contiguous(resolve_conj(b.grad()))));
            })
            .gradient_reads({})
            .function_only()
            .describe("A last dim of size 2 as complex numbers."),
        function("real(Tensor(a) self) -> Tensor(a)",
                 [](Args a) {
                   return is_complex(a[0].tensor->dtype()) ? part_of(a[0].tensor, 0)
                                                           : Results(TensorPtr(a[0].tensor));
                 })
            .function_only()
            .describe("The real part as a view; real tensors themselves."),
        function("imag(Tensor(a) self) -> Tensor(a)",
                 [](Args a) {
                   LOHE_CHECK(is_complex(a[0].tensor->dtype()),
                              "imag is not implemented for tensors with non-complex dtypes.");
                   return part_of(a[0].tensor, 1);
                 })
            .function_only()
            .describe("The imaginary part of a complex tensor as a view."),
        view("_conj(Tensor(a) self) -> Tensor(a)",
             [](Args a) {
               ViewSpec v = whole(*a[0].tensor);
               if (is_complex(a[0].tensor->dtype())) v.conj = !v.conj;
               return v;
             })
            .grad([](Backward& b) {
              static const OpRef conj("conj");
              b.set(0, conj(b.grad()));
            })
            .gradient_reads({})
            .in("_C")
            .describe("The conjugate as a view: computed when it is read."),
        view("_neg_view(Tensor(a) self) -> Tensor(a)",
             [](Args a) {
               ViewSpec v = whole(*a[0].tensor);
               v.neg = !v.neg;
               return v;
             })
            .grad([](Backward& b) {
              static const OpRef neg("neg");
              b.set(0, neg(b.grad()));
            })
            .gradient_reads({})
            .in("_C")
            .describe("The negative as a view: computed when it is read."),
        function("conj(Tensor(a) self) -> Tensor(a)",
                 [](Args a) -> Results {
                   static const OpRef conj("_conj");
                   if (!is_complex(a[0].tensor->dtype())) return TensorPtr(a[0].tensor);
                   return conj(a[0].tensor);
                 })
            .describe("The complex conjugate as a view; real tensors themselves."),
    });

}  // namespace
}  // namespace lohe::ops
