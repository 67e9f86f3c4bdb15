#include <algorithm>

#include "lohe/error.h"
#include "ops/reductions.h"
#include "tensor/shape.h"

/// Cross and Kronecker products, and the trace.
namespace lohe::ops {
namespace {

/// self[i + 1] other[i + 2] - self[i + 2] other[i + 1] along a dim of three.
Results cross_along(std::string_view name, const Arg& a, const Arg& b, int64_t given) {
  static const OpRef roll("roll"), mul("mul"), sub("sub"), expand("expand");
  const TensorImpl &x = *a.tensor, &y = *b.tensor;
  LOHE_CHECK(x.dim() == y.dim(), name, ": inputs must have the same number of dimensions, got ", x.dim(),
             " and ", y.dim());
  const int64_t dim = wrap_dim(given, x.dim());
  const auto size = [dim](const TensorImpl& t) {
    return t.dim() == 0 ? 1 : t.sizes()[static_cast<size_t>(dim)];
  };
  LOHE_CHECK(size(x) == 3 && size(y) == 3, name, ": inputs dimension ", given, " must have length 3. Got ",
             size(x), " and ", size(y));
  LOHE_CHECK(x.dtype() == y.dtype(), name, ": expected both inputs to have the same dtype, but got ",
             info(x.dtype()).name, " and ", info(y.dtype()).name);
  LOHE_CHECK_KIND(kNotImplemented, x.dtype() != Dtype::kBool, name, " is not implemented for bool");
  const Dims sizes = broadcast_shapes(x.sizes(), y.sizes());
  const auto turned = [&](const Arg& t, int64_t by) { return roll(expand(t, sizes), Dims{-by}, Dims{dim}); };
  return sub(mul(turned(a, 1), turned(b, 2)), mul(turned(a, 2), turned(b, 1)));
}

Results cross(Args a) {
  if (!a[2].none()) return cross_along("linalg.cross", a[0], a[1], a[2].integer);
  const TensorImpl &x = *a[0].tensor, &y = *a[1].tensor;
  LOHE_CHECK(x.dim() == y.dim(), "linalg.cross: inputs must have the same number of dimensions, got ",
             x.dim(), " and ", y.dim());
  const Dims sizes = broadcast_shapes(x.sizes(), y.sizes());
  int64_t dim = 0;
  while (dim < x.dim() && sizes[static_cast<size_t>(dim)] != 3) ++dim;
  LOHE_CHECK(dim < x.dim(), "no dimension of size 3 in input: got shapes ", to_string(x.sizes()), " and ",
             to_string(y.sizes()));
  return cross_along("linalg.cross", a[0], a[1], dim);
}

Results kronecker(Args a) {
  static const OpRef reshape("reshape"), mul("mul");
  const TensorImpl &x = *a[0].tensor, &y = *a[1].tensor;
  const size_t rank = static_cast<size_t>(std::max(x.dim(), y.dim()));
  const auto size = [rank](const TensorImpl& t, size_t d) {
    const size_t missing = rank - t.sizes().size();
    return d < missing ? 1 : t.sizes()[d - missing];
  };
  Dims outer, inner, result;
  for (size_t d = 0; d < rank; ++d) {
    outer.push_back(size(x, d));
    outer.push_back(1);
    inner.push_back(1);
    inner.push_back(size(y, d));
    result.push_back(size(x, d) * size(y, d));
  }
  return reshape(mul(reshape(a[0], outer), reshape(a[1], inner)), result);
}

const OpFamily products(
    "products",
    {
        function("cross(Tensor self, Tensor other, int? dim=None) -> Tensor", cross)
            .exact_out()
            .describe("Cross product along dim, by default the first dim of size 3."),
        function("linalg_cross(Tensor self, Tensor other, *, int dim=-1) -> Tensor",
                 [](Args a) { return cross_along("linalg.cross", a[0], a[1], a[2].integer); })
            .in("linalg")
            .exact_out()
            .describe("Cross product along dim."),
        function("kron(Tensor self, Tensor other) -> Tensor", kronecker)
            .out()
            .describe("Kronecker product: every element of self times the whole of other."),
        function("trace(Tensor self) -> Tensor",
                 [](Args a) {
                   static const OpRef diagonal("diagonal"), sum("sum");
                   LOHE_CHECK(a[0].tensor->dim() == 2, "trace: expected a matrix, but got tensor with dim ",
                              a[0].tensor->dim());
                   LOHE_CHECK_KIND(kNotImplemented, a[0].tensor->dtype() != Dtype::kBool,
                                   "\"trace\" not implemented for 'Bool'; convert the matrix to int64");
                   return Results(sum(diagonal(a[0])));
                 })
            .describe("Sum of the diagonal of a matrix."),
    });

}  // namespace
}  // namespace lohe::ops
