#include <cmath>
#include <limits>

#include "lohe/error.h"
#include "ops/reductions.h"
#include "tensor/shape.h"

/// Norms of vectors and matrices, and what is made of them.
namespace lohe::ops {
namespace {

using namespace ir;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Node power_norm(Node x, double p) {
  const Node a = abs(x);
  if (p == 2) return sqrt(sum(is_complex(x.dtype()) ? square(real(x)) + square(imag(x)) : square(x)));
  if (p == 1) return sum(a);
  if (p == 0) return sum(select(x != 0, a.literal(1), a.literal(0)));
  if (p == kInfinity) return amax(a);
  if (p == -kInfinity) return amin(a);
  return pow(sum(pow(a, a.literal(p))), a.literal(1 / p));
}

/// Zero where the norm or the element is zero, as subgradient.
Node power_norm_gradient(Node g, Node x, double p, Node y) {
  if (p == 0) return x.literal(0);
  const Node a = abs(x);
  if (is_complex(g.dtype())) g = real(g);
  if (is_complex(y.dtype())) y = real(y);
  const Node zero = g.literal(0);
  if (p == 2) return x * cast(select(y == 0, zero, g / y), x.dtype());
  if (p == 1) return sign(x) * cast(g, x.dtype());
  if (std::isinf(p)) {
    const Node hit = (a == y) | (is_nan(a) & is_nan(y));
    const Node hits = sum(select(hit, a.literal(1), zero));
    return sign(x) * cast(select(hit, g / hits, zero), x.dtype());
  }
  const Node slope = select(a == 0, zero, pow(a, a.literal(p - 1)));
  return sign(x) * cast(slope * select(y == 0, zero, g / pow(y, y.literal(p - 1))), x.dtype());
}

void has_elements(const OpDef& op, Args a) {
  (void)op;
  const double p = a[1].real;
  const TensorImpl& x = *a[0].tensor;
  if (x.numel() != 0 || (p >= 0 && p != kInfinity)) return;
  const auto dims = a[2].none() ? std::span<const int64_t>() : a[2].int_list();
  LOHE_CHECK(!dims.empty(), "linalg.vector_norm cannot compute the ", p,
             " norm on an empty tensor because the operation does not "
             "have an identity");
  for (const int64_t d : dims) {
    LOHE_CHECK(x.dim() == 0 || x.sizes()[static_cast<size_t>(wrap_dim(d, x.dim()))] != 0,
               "linalg.vector_norm cannot compute the ", p, " norm on the dimension ", d,
               " because this dimension is empty and the operation does not have an identity");
  }
}

double order_of(const Arg& p) { return p.none() ? 2.0 : p.scalar().to_double(); }

Results vector_norm(const Arg& x, double p, const Arg& dim, bool keepdim, const Arg& dtype) {
  static const OpRef row("_vector_norm");
  const Dtype d = x.tensor->dtype();
  LOHE_CHECK(is_differentiable(d),
             "linalg.vector_norm: Expected a floating point or complex tensor as input. Got ", d);
  if (dtype.kind == Arg::kDtype) {
    LOHE_CHECK(is_differentiable(dtype.dtype) && is_complex(dtype.dtype) == is_complex(d),
               "linalg.vector_norm: dtype should be ", is_complex(d) ? "complex" : "floating point",
               " as self is, but got ", dtype.dtype);
    return row.all(to_dtype(TensorPtr(x.tensor), dtype.dtype), p, dim, keepdim);
  }
  return row.all(x, p, dim, keepdim);
}

/// The sum (p = 0), the largest (2) or the smallest (-2) of the singular values.
Results singular_norm(const TensorPtr& x, double p, const Dims& dims, bool keepdim) {
  static const OpRef values("linalg_svdvals"), movedim("movedim.intlist"), sum("sum.dim_IntList"),
      amax("amax"), amin("amin"), unsqueeze("unsqueeze");
  const int64_t row = wrap_dim(dims[0], x->dim()), column = wrap_dim(dims[1], x->dim());
  LOHE_CHECK(row != column, "linalg.matrix_norm: dims must be different. Got ", to_string(dims));
  LOHE_CHECK(itemsize(info(x->dtype()).value_dtype) >= 4,
             "linalg.matrix_norm: Low precision dtypes not supported. Got ", x->dtype(),
             "; convert it to float32 or float64");
  const TensorPtr s = values(movedim(x, dims, Dims{-2, -1}));
  TensorPtr r = p == 0 ? sum(s, Dims{-1}) : p > 0 ? amax(s, Dims{-1}) : amin(s, Dims{-1});
  if (!keepdim) return r;
  return unsqueeze(unsqueeze(r, std::min(row, column)), std::max(row, column));
}

Results matrix_norm(TensorPtr x, const Arg& order, Dims dims, bool keepdim, const Arg& dtype) {
  static const OpRef sum("sum.dim_IntList"), absolute("abs"), amax("amax"), amin("amin"),
      squeeze("squeeze.dim");
  LOHE_CHECK(dims.size() == 2, "linalg.matrix_norm: dim must be a 2-tuple. Got ", to_string(dims));
  if (dtype.kind == Arg::kDtype) x = to_dtype(x, dtype.dtype);
  LOHE_CHECK(is_differentiable(x->dtype()),
             "linalg.matrix_norm: Expected a floating point or complex tensor as input. Got ", x->dtype());
  const bool nuclear = order.kind == Arg::kStr && order.str() == "nuc";
  if (order.kind == Arg::kStr && !nuclear) {
    LOHE_CHECK(order.str() == "fro", "linalg.matrix_norm: Order ", order.str(), " not supported.");
    return vector_norm(Arg(x), 2, Arg(dims), keepdim, Arg());
  }
  const double p = nuclear ? 0 : order.scalar().to_double();
  LOHE_CHECK(nuclear || std::abs(p) == 1 || std::abs(p) == 2 || std::isinf(p), "linalg.matrix_norm: Order ",
             p, " not supported.");
  if (nuclear || std::abs(p) == 2) return singular_norm(x, p, dims, keepdim);
  const int64_t row = wrap_dim(dims[0], x->dim()), column = wrap_dim(dims[1], x->dim());
  const int64_t inner = std::isinf(p) ? column : row, outer = std::isinf(p) ? row : column;
  TensorPtr s = (p > 0 ? amax : amin)(sum(absolute(x), Dims{inner}, true), Dims{outer}, true);
  if (!keepdim) {
    s = squeeze(s, std::max(row, column));
    s = squeeze(s, std::min(row, column));
  }
  return s;
}

Results linalg_norm(Args a) {
  static const OpRef flatten("flatten.using_ints");
  TensorPtr x(a[0].tensor);
  const Arg &order = a[1], &dim = a[2], &dtype = a[4];
  const bool keepdim = a[3].integer != 0;
  if (!dim.none()) {
    LOHE_CHECK(dim.count == 1 || dim.count == 2,
               "linalg.norm: If dim is specified, it must be of length 1 or 2. Got ",
               to_string(dim.int_list()));
  } else if (!order.none()) {
    LOHE_CHECK(x->dim() == 1 || x->dim() == 2,
               "linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got ", x->dim(),
               "D.");
  }
  const bool matrix =
      order.kind == Arg::kStr || (!order.none() && (dim.none() ? x->dim() == 2 : dim.count == 2));
  if (matrix) return matrix_norm(x, order, dim.none() ? Dims{-2, -1} : Dims(dim.int_list()), keepdim, dtype);
  return vector_norm(a[0], order_of(order), dim, keepdim, dtype);
}

Results cosine(Args a) {
  static const OpRef mul("mul"), sum("sum.dim_IntList"), broadcast("broadcast_tensors"), clamp("clamp_min"),
      div("div"), unsqueeze("unsqueeze");
  const Dtype common = promote_types(a[0].tensor->dtype(), a[1].tensor->dtype());
  LOHE_CHECK(is_floating(common), "expected common dtype to be floating point, yet common dtype is ", common);
  const TensorPtr given[] = {to_dtype(TensorPtr(a[0].tensor), common),
                             to_dtype(TensorPtr(a[1].tensor), common)};
  TensorImpl* pair[] = {given[0].get(), given[1].get()};
  const Results x = broadcast.all(std::span<TensorImpl* const>(pair));
  const Dims dim{a[2].integer};
  TensorPtr unit[2];
  for (int i = 0; i < 2; ++i) {
    const TensorPtr length = vector_norm(Arg(x[i]), 2, Arg(dim), true, Arg())[0];
    unit[i] = div(x[i], clamp(length, a[3].scalar()));
  }
  return sum(mul(unit[0], unit[1]), dim);
}

// --- distances between all pairs

/// x1: [..., P, M], x2: [..., R, M], of one batch. kGroupA: P, kGroupB: R, kRow: M.
Domain pairs(const OpDef& op, Args a) {
  Domain d;
  d.sizes = a[0].tensor->size_dims();
  const size_t rows = d.sizes.size() - 2;
  d.sizes.insert(d.sizes.begin() + static_cast<std::ptrdiff_t>(rows) + 1, a[1].tensor->sizes()[rows]);
  d.dims_of.resize(op.schema.params.size());
  for (size_t i = 0; i < d.sizes.size(); ++i) {
    d.groups.push_back(i < rows ? kOuter : i == rows ? kGroupA : i == rows + 1 ? kGroupB : kRow);
    if (i != rows + 1) d.dims_of[0].push_back(static_cast<int8_t>(i));
    if (i != rows) d.dims_of[1].push_back(static_cast<int8_t>(i));
  }
  return d;
}

std::vector<Meta> pair_results(const OpDef&, Args, const Domain& d, Dtype) {
  Meta m;
  for (size_t i = 0; i + 1 < d.sizes.size(); ++i) {
    m.sizes.push_back(d.sizes[i]);
    m.dims.push_back(static_cast<int8_t>(i));
  }
  return {m};
}

/// As power_norm_gradient, but the largest difference of an infinite order is not shared among equal ones.
std::array<Node, 2> pair_gradient(Node g, Node y, Node x1, Node x2, double p) {
  const Node d = x1 - x2;
  const Node to_first =
      p == kInfinity ? select(abs(d) == y, sign(d) * g, g.literal(0)) : power_norm_gradient(g, d, p, y);
  return {to_first, -to_first};
}

void check_points(std::string_view op, const TensorImpl& x, std::string_view name) {
  LOHE_CHECK(is_floating(x.dtype()), op, " only supports floating-point dtypes, ", name, " got: ", x.dtype());
}

Results pair_distances(Args a) {
  static const OpRef row("_cdist"), expand("expand"), zeros("zeros"), sum("sum.dim_IntList"), add("add");
  const TensorImpl &x1 = *a[0].tensor, &x2 = *a[1].tensor;
  const double p = a[2].scalar().to_double();
  LOHE_CHECK(x1.dim() >= 2, "cdist only supports at least 2D tensors, X1 got: ", x1.dim(), "D");
  LOHE_CHECK(x2.dim() >= 2, "cdist only supports at least 2D tensors, X2 got: ", x2.dim(), "D");
  LOHE_CHECK(x1.sizes().back() == x2.sizes().back(),
             "X1 and X2 must have the same number of columns. X1: ", x1.sizes().back(),
             " X2: ", x2.sizes().back());
  check_points("cdist", x1, "X1");
  check_points("cdist", x2, "X2");
  LOHE_CHECK(p >= 0, "cdist only supports non-negative p values, got ", p);
  LOHE_CHECK(a[3].none() || (a[3].integer >= 0 && a[3].integer <= 2),
             "possible modes: 0, 1, 2, but was: ", a[3].none() ? 0 : a[3].integer);
  const auto part = [](const TensorImpl& x, size_t from, size_t to) {
    const size_t n = x.sizes().size();
    return Dims(x.sizes().subspan(from, n - to - from));
  };
  Dims first = broadcast_shapes(part(x1, 0, 2), part(x2, 0, 2)), second = first, result = first;
  const int64_t columns = x1.sizes().back();
  for (const int64_t s : {x1.sizes()[x1.sizes().size() - 2], columns}) first.push_back(s);
  for (const int64_t s : {x2.sizes()[x2.sizes().size() - 2], columns}) second.push_back(s);
  const TensorPtr left = expand(a[0], first), right = expand(a[1], second);
  if (columns == 0 || left->numel() == 0 || right->numel() == 0) {
    // Zeros that depend on both operands.
    result.push_back(first[first.size() - 2]);
    result.push_back(second[second.size() - 2]);
    static const OpRef unsqueeze("unsqueeze");
    return expand(
        add(unsqueeze(sum(left, Dims{-1}), int64_t{-1}), unsqueeze(sum(right, Dims{-1}), int64_t{-2})),
        result);
  }
  return row(left, right, p);
}

Results neighbour_distances(Args a) {
  static const OpRef pairs("triu_indices"), select("index_select"), part("select.int"), sub("sub");
  const TensorImpl& x = *a[0].tensor;
  const double p = a[1].scalar().to_double();
  LOHE_CHECK(x.dim() == 2, "pdist only supports 2D tensors, got: ", x.dim(), "D");
  check_points("pdist", x, "X");
  LOHE_CHECK_KIND(kNotImplemented, x.dtype() == kFloat32 || x.dtype() == kFloat64,
                  "pdist is not implemented for ", x.dtype(), "; convert to float32");
  LOHE_CHECK(p >= 0, "pdist only supports non-negative p values");
  const int64_t n = x.sizes()[0];
  const TensorPtr at = pairs(n, n, int64_t{1});
  const TensorPtr d = sub(select(a[0], int64_t{0}, part(at, int64_t{0}, int64_t{0})),
                          select(a[0], int64_t{0}, part(at, int64_t{0}, int64_t{1})));
  if (x.sizes()[1] == 0) {
    static const OpRef sum("sum.dim_IntList");
    return sum(d, Dims{1});
  }
  const Dims columns{1};
  return vector_norm(Arg(d), p, Arg(columns), false, Arg());
}

/// Slices along dim whose p-norm is above maxnorm are scaled down to it.
Results scaled_down(Args a) {
  static const OpRef above("gt"), where("where.self"), div("div"), add("add"), mul("mul"), ones("ones_like");
  const TensorImpl& x = *a[0].tensor;
  LOHE_CHECK(a[1].kind != Arg::kComplex, "renorm: p must be real-valued");
  const double p = a[1].scalar().to_double();
  LOHE_CHECK(p > 0, "renorm: non-positive-norm not supported, got p = ", p);
  LOHE_CHECK(a[3].kind != Arg::kComplex, "renorm: maxnorm must be real-valued");
  const double limit = a[3].scalar().to_double();
  LOHE_CHECK(limit >= 0, "renorm: expected maxnorm to be >= 0 but got ", limit);
  LOHE_CHECK(x.dim() > 1, "renorm: input needs at least 2 dimensions, got ", x.dim(), " dimensions");
  const int64_t dim = wrap_dim(a[2].integer, x.dim());
  Dims others;
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (d != dim) others.push_back(d);
  }
  const bool half = x.dtype() == kFloat16 || x.dtype() == kBFloat16;
  const TensorPtr norm = vector_norm(a[0], p, Arg(others), true, half ? Arg(kFloat32) : Arg())[0];
  const TensorPtr factor = where(above(norm, limit), div(limit, add(norm, 1e-7)), ones(norm));
  return mul(a[0], to_dtype(factor, info(x.dtype()).value_dtype));
}

const OpFamily norms(
    "norms",
    {
        composed("_vector_norm(Tensor self, float ord, int[1]? dim, bool keepdim) -> Tensor",
                 [](Node x, Arg ord) { return power_norm(x, ord.real); })
            .over(reduce_over(2))
            .promote(Promotion::kReal)
            .dtypes_are(kFloatingOrComplex)
            .checked(has_elements)
            .in("_C")
            .gradient_reads({"self", "result"})
            .derivative([](Node g, Node y, Node x, Arg ord) {
              return power_norm_gradient(g, x, ord.real, y);
            })
            .describe("The ord-norm over dims."),
        function(
            "linalg_vector_norm(Tensor self, Scalar ord=2, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
            [](Args a) { return vector_norm(a[0], order_of(a[1]), a[2], a[3].integer != 0, a[4]); })
            .in("linalg")
            .out(OutDtype::kSame)
            .describe(
                "sum(abs(self) ** ord) ** (1 / ord) over dims; inf and -inf: extremes, 0: count of nonzeros."),
        function(
            "linalg_matrix_norm(Tensor self, Scalar ord, int[] dim=[-2,-1], bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
            [](Args a) {
              return matrix_norm(TensorPtr(a[0].tensor), a[1], Dims(a[2].int_list()), a[3].integer != 0,
                                 a[4]);
            })
            .in("linalg")
            .out(OutDtype::kSame)
            .describe("Norms of matrices: 1, -1, inf and -inf by sums, 2 and -2 by singular values."),
        function(
            "linalg_matrix_norm.str_ord(Tensor self, str ord='fro', int[] dim=[-2,-1], bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
            [](Args a) {
              return matrix_norm(TensorPtr(a[0].tensor), a[1], Dims(a[2].int_list()), a[3].integer != 0,
                                 a[4]);
            })
            .in("linalg")
            .out(OutDtype::kSame)
            .describe("Frobenius (fro) or nuclear (nuc) norm of matrices."),
        function(
            "linalg_norm(Tensor self, Scalar? ord=None, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
            linalg_norm)
            .in("linalg")
            .out(OutDtype::kSame)
            .describe("Norm of vectors, or of matrices where two dims are meant and ord is given."),
        function(
            "linalg_norm.ord_str(Tensor self, str ord, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
            linalg_norm)
            .in("linalg")
            .out(OutDtype::kSame)
            .describe("Frobenius norm of matrices."),
        function(
            "norm.ord(Tensor self, Scalar? p, int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
            [](Args a) { return vector_norm(a[0], order_of(a[1]), a[2], a[3].integer != 0, a[4]); })
            .out(OutDtype::kSame)
            .describe("The p-norm over dims, or of all elements."),
        function(
            "norm.str_ord(Tensor self, str p='fro', int[1]? dim=None, bool keepdim=False, *, ScalarType? dtype=None) -> Tensor",
            [](Args a) {
              const bool keepdim = a[3].integer != 0;
              if (a[1].str() == "fro" && (a[2].none() || a[2].count <= 2))
                return vector_norm(a[0], 2, a[2], keepdim, a[4]);
              Dims all;
              for (int64_t d = 0; d < a[0].tensor->dim(); ++d) all.push_back(d);
              return matrix_norm(TensorPtr(a[0].tensor), a[1], a[2].none() ? all : Dims(a[2].int_list()),
                                 keepdim, a[4]);
            })
            .out(OutDtype::kSame)
            .describe("The Frobenius or nuclear norm of matrices."),
        composed("linalg_vecdot(Tensor x, Tensor y, *, int dim=-1) -> Tensor",
                 [](Node x, Node y) { return sum(conj(x) * y); })
            .over([](const OpDef&, Args a) {
              Domain d;
              d.sizes = broadcast_shapes(a[0].tensor->sizes(), a[1].tensor->sizes());
              const int64_t row = wrap_dim(a[2].integer, static_cast<int64_t>(d.sizes.size()));
              for (size_t i = 0; i < d.sizes.size(); ++i)
                d.groups.push_back(static_cast<int64_t>(i) == row ? ir::kRow : ir::kOuter);
              return d;
            })
            .dtypes_are(kFloatingOrComplex, ErrorKind::kRuntime)
            .in("linalg")
            .exact_out()
            .describe("Scalar products of vectors along dim; x is conjugated."),
        function("cosine_similarity(Tensor x1, Tensor x2, int dim=1, float eps=1e-08) -> Tensor", cosine)
            .function_only()
            .describe("Scalar product of x1 and x2 along dim, each divided by its length (at least eps)."),
        function(
            "pairwise_distance(Tensor x1, Tensor x2, float p=2, float eps=1e-06, bool keepdim=False) -> Tensor",
            [](Args a) {
              static const OpRef sub("sub"), add("add");
              const TensorPtr d = add(sub(a[0], a[1]), a[3]);
              const Dims last{-1};
              return vector_norm(Arg(d), order_of(a[2]), Arg(last), a[4].integer != 0, Arg());
            })
            .function_only()
            .describe("The p-norm of x1 - x2 + eps along the last dim."),
        composed("_cdist(Tensor x1, Tensor x2, float p) -> Tensor",
                 [](Node x1, Node x2, Arg p) { return power_norm(x1 - x2, p.real); })
            .over(pairs)
            .shaped(pair_results)
            .dtypes_are(kFloats)
            .in("_C")
            .gradient_reads({"x1", "x2", "result"})
            .derivative([](Node g, Node y, Node x1, Node x2, Arg p) {
              return pair_gradient(g, y, x1, x2, p.real);
            })
            .describe("The p-norm of the difference of every row of x1 and every row of x2."),
        function("cdist(Tensor x1, Tensor x2, float p=2, int? compute_mode=None) -> Tensor", pair_distances)
            .function_only()
            .describe(
                "The p-norm of the difference of every row of x1 and every row of x2; always computed from the "
                "differences, whatever the mode."),
        function("pdist(Tensor self, float p=2) -> Tensor", neighbour_distances)
            .function_only()
            .describe("The p-norm of the difference of every pair of rows, those of row 0 first."),
        function("renorm(Tensor self, Scalar p, int dim, Scalar maxnorm) -> Tensor", scaled_down)
            .inplace()
            .out()
            .describe(
                "self with slices along dim scaled down to a p-norm of maxnorm where theirs is larger."),
        function("dist(Tensor self, Tensor other, Scalar p=2) -> Tensor",
                 [](Args a) {
                   static const OpRef sub("sub");
                   const TensorPtr d = sub(a[0], a[1]);
                   return vector_norm(Arg(d), order_of(a[2]), Arg(), false, Arg());
                 })
            .describe("The p-norm of self - other."),
    });

}  // namespace
}  // namespace lohe::ops
