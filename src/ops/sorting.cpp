#include <algorithm>

#include "backend/cpu/sort.h"
#include "lohe/error.h"
#include "ops/indexing.h"
#include "ops/reductions.h"
#include "tensor/shape.h"

/// Order along a dim: sorted values, the largest ones, ranks, medians, modes and quantiles. A NaN is larger
/// than every number; of equal elements the earlier position comes first.
namespace lohe::ops {
namespace {

int64_t size_at(const TensorImpl& t, int64_t dim) {
  return t.dim() == 0 ? 1 : t.sizes()[static_cast<size_t>(dim)];
}

/// Lines of self along `dim` beside results that have the same dims (`reduced`: all but `dim`, or 1 there).
backend::OrderLines order_lines(const TensorImpl& self, int64_t dim, const TensorImpl& values,
                                const TensorImpl& indices, bool reduced) {
  backend::OrderLines x;
  x.self = self.data();
  x.values = values.data();
  x.indices = indices.data();
  x.length = size_at(self, dim);
  x.self_step = x.values_step = self.itemsize();
  x.index_step = indices.itemsize();
  const bool dropped = reduced && values.dim() != self.dim();
  for (int64_t d = 0; d < self.dim(); ++d) {
    const auto k = static_cast<size_t>(d);
    const size_t at = dropped && d > dim ? k - 1 : k;
    if (d == dim) {
      x.self_step = self.strides()[k] * self.itemsize();
      if (reduced) continue;
      x.values_step = values.strides()[k] * values.itemsize();
      x.index_step = indices.strides()[k] * indices.itemsize();
    } else {
      x.lines.add(self.sizes()[k],
                  {self.strides()[k] * self.itemsize(), values.strides()[at] * values.itemsize(),
                   indices.strides()[at] * indices.itemsize()});
    }
  }
  return x;
}

std::vector<Meta> values_and_indices(Dtype dtype, Dims sizes, Dims strides = {}) {
  Meta values, indices;
  values.dtype = dtype;
  indices.dtype = Dtype::kInt64;
  values.sizes = indices.sizes = std::move(sizes);
  values.strides = indices.strides = std::move(strides);
  return {values, indices};
}

void refuse_complex(std::string_view name, const TensorImpl& self) {
  LOHE_CHECK(!is_complex(self.dtype()), name, " does not support complex dtypes on CPU: got ",
             info(self.dtype()).name, ", which has no order");
}

// --- sort, topk

std::vector<Meta> sort_meta(const TensorImpl& self) {
  refuse_complex("Sort", self);
  const std::span<const int64_t> own = self.strides();
  Dims strides = is_non_overlapping_and_dense(self.sizes(), own)
                     ? self.stride_dims()
                     : elementwise_strides(self.sizes(), std::span<const std::span<const int64_t>>(&own, 1));
  return values_and_indices(self.dtype(), self.size_dims(), std::move(strides));
}

void run_sort(const TensorImpl& self, int64_t dim, bool descending, Results& r) {
  dim = wrap_dim(dim, self.dim());
  if (self.numel() == 0) return;
  backend::sort_lines(order_lines(self, dim, *r[0], *r[1], false), self.dtype(), size_at(self, dim),
                      descending);
}

std::vector<Meta> topk_meta(Args a) {
  const TensorImpl& self = *a[0].tensor;
  const int64_t dim = wrap_dim(a[2].integer, self.dim()), k = a[1].integer;
  LOHE_CHECK(k >= 0 && k <= size_at(self, dim), "selected index k out of range: got k = ", k,
             ", expected 0 to ", size_at(self, dim), " for dim ", dim);
  refuse_complex("topk", self);
  LOHE_CHECK(self.dtype() != Dtype::kBool,
             "topk does not support bool dtypes on CPU: convert the tensor first");
  Dims sizes = self.size_dims();
  if (!sizes.empty()) sizes[static_cast<size_t>(dim)] = k;
  return values_and_indices(self.dtype(), std::move(sizes));
}

/// Cotangents of elements that were moved go back to where these came from; 0-dim tensors are their own
/// element.
void to_origin(Backward& b, int64_t dim, bool reduced_without_dim) {
  if (!b.needs(0) || !b.grad()) return;
  const Meta& self = b.meta(0);
  if (self.sizes.empty()) {
    b.set(0, b.grad());
    return;
  }
  dim = wrap_dim(dim, static_cast<int64_t>(self.sizes.size()));
  b.set(0, scatter_to(with_dim(b.grad(), dim, !reduced_without_dim, 1),
                      with_dim(b.result(1), dim, !reduced_without_dim, 1), dim, self));
}

// --- one element of each line

Dims reduced_sizes(const TensorImpl& self, int64_t dim, bool keepdim) {
  Dims sizes;
  for (int64_t d = 0; d < self.dim(); ++d) {
    if (d != dim)
      sizes.push_back(self.sizes()[static_cast<size_t>(d)]);
    else if (keepdim)
      sizes.push_back(1);
  }
  return sizes;
}

void check_ordered(std::string_view name, const TensorImpl& self, bool bools) {
  LOHE_CHECK_KIND(kNotImplemented, !is_complex(self.dtype()) && (bools || self.dtype() != Dtype::kBool), "\"",
                  name, "\" not implemented for '", type_word(self.dtype()), "'");
}

/// Shapes of rows (self, ..., dim, keepdim) that pick an element of each line.
std::vector<Meta> pick_meta(std::string_view name, Args a, size_t dim_at, bool bools) {
  const TensorImpl& self = *a[0].tensor;
  const int64_t dim = wrap_dim(a[dim_at].integer, self.dim());
  check_nonempty(name, self, std::span<const int64_t>(&dim, 1));
  check_ordered(name, self, bools);
  return values_and_indices(self.dtype(), reduced_sizes(self, dim, a[dim_at + 1].integer != 0));
}

void run_pick(Args a, size_t dim_at, Results& r, backend::Pick pick, int64_t rank = 0) {
  const TensorImpl& self = *a[0].tensor;
  const int64_t dim = wrap_dim(a[dim_at].integer, self.dim());
  if (self.numel() == 0) return;
  backend::select_lines(order_lines(self, dim, *r[0], *r[1], true), self.dtype(), pick, rank);
}

TensorGradient pick_gradient(int dim_at) {
  return [dim_at](Backward& b) { to_origin(b, b.arg(dim_at).integer, b.arg(dim_at + 1).integer == 0); };
}

std::vector<Meta> kth_meta(Args a) {
  const TensorImpl& self = *a[0].tensor;
  const int64_t dim = wrap_dim(a[2].integer, self.dim());
  check_nonempty("kthvalue()", self, std::span<const int64_t>(&dim, 1));
  const int64_t n = size_at(self, dim);
  LOHE_CHECK(a[1].integer >= 1 && a[1].integer <= n,
             "kthvalue(): selected number k out of range for dimension ", dim, ": got ", a[1].integer,
             ", expected 1 to ", n);
  check_ordered("kthvalue_cpu", self, false);
  return values_and_indices(self.dtype(), reduced_sizes(self, dim, a[3].integer != 0));
}

// --- medians of everything

std::vector<Meta> scalar_meta(Args a) {
  check_ordered("median_cpu", *a[0].tensor, false);
  Meta m;
  m.dtype = a[0].tensor->dtype();
  return {m};
}

void run_median(Args a, Results& r, backend::Pick pick) {
  static const OpRef contiguous("contiguous"), full("full"), copy("copy_"), empty("empty");
  const NoGrad guard;
  if (a[0].tensor->numel() == 0) {
    copy(r[0], full(Dims{}, __builtin_nan(""), Dtype::kFloat64));
    return;
  }
  const TensorPtr self = contiguous(a[0].tensor), index = empty(Dims{}, Dtype::kInt64);
  backend::OrderLines x;
  x.self = self->data();
  x.values = r[0]->data();
  x.indices = index->data();
  x.length = self->numel();
  x.self_step = self->itemsize();
  backend::select_lines(x, self->dtype(), pick);
}

/// Elements that are the result share its cotangent.
void share_evenly(Backward& b) {
  static const OpRef is_result("_same_value"), sum("sum"), div("div"), mul("mul");
  if (!b.needs(0)) return;
  const TensorPtr mask = is_result(b.tensor(0), b.result());
  b.set(0, mul(mask, div(b.grad(), sum(mask))));
}

// --- quantiles

void check_quantile(std::string_view name, const TensorImpl& self, const TensorImpl& q) {
  LOHE_CHECK(self.numel() > 0, name, "() input tensor must be non-empty");
  LOHE_CHECK(q.dim() <= 1, name, "() q must be a scalar or 1D tensor, but got ", q.dim(), " dims");
  LOHE_CHECK(self.dtype() == Dtype::kFloat32 || self.dtype() == Dtype::kFloat64, name,
             "() input tensor must be either float or double dtype, but got ", info(self.dtype()).name);
  LOHE_CHECK(self.dtype() == q.dtype(), name, "() q tensor must be same dtype as the input tensor: got ",
             info(q.dtype()).name, ", expected ", info(self.dtype()).name);
}

bool in_unit_interval(const TensorPtr& q) {
  static const OpRef contiguous("contiguous");
  const NoGrad guard;
  const TensorPtr dense = contiguous(to_dtype(q, Dtype::kFloat64));
  const auto* p = reinterpret_cast<const double*>(dense->data());
  return std::all_of(p, p + dense->numel(), [](double v) { return v >= 0 && v <= 1; });
}

/// The row's (self, q, dim, keepdim, interpolation).
Results quantiles(std::string_view name, Args a, const TensorPtr& q, bool ignore_nan) {
  static const OpRef reshape("reshape"), transpose("transpose.int"), unsqueeze("unsqueeze"),
      squeeze("squeeze.dim"), sort("sort"), is_nan("isnan"), sum("sum.dim_IntList"), any("any.dim"),
      sub("sub"), mul("mul"), clamp("clamp_min"), gather("gather"), lerp("lerp"), full_like("full_like"),
      floor("floor"), ceil("ceil"), round("round"), expand("expand"), logical_not("logical_not"),
      to("to.dtype"), mask_fill("masked_fill");
  TensorImpl& self = *a[0].tensor;
  const std::string_view how = a[4].str();
  check_quantile(name, self, *q);
  LOHE_CHECK(how == "linear" || how == "lower" || how == "higher" || how == "midpoint" || how == "nearest",
             name, "() interpolation must be one of linear, lower, higher, midpoint or nearest, but got ",
             how);
  LOHE_CHECK(in_unit_interval(q), name, "() q values must be in the range [0, 1]");
  const bool all = a[2].none(), keepdim = a[3].integer != 0;
  const int64_t dim = all ? 0 : wrap_dim(a[2].integer, self.dim());

  // The reduced dim comes last; what stays of it with keepdim is a dim of 1 in its place.
  TensorPtr lines = all               ? reshape(&self, Dims{-1})
                    : self.dim() == 0 ? reshape(&self, Dims{-1})
                                      : transpose(unsqueeze(&self, int64_t{-1}), dim, int64_t{-1});
  const TensorPtr sorted = sort(lines, int64_t{-1});
  const int64_t n = sorted->sizes().back();
  Dims out;
  if (keepdim) {
    for (int64_t d = 0; d < self.dim(); ++d)
      out.push_back(all || d == dim ? 1 : self.sizes()[static_cast<size_t>(d)]);
  } else if (!all) {
    for (int64_t d = 0; d < self.dim(); ++d) {
      if (d != dim) out.push_back(self.sizes()[static_cast<size_t>(d)]);
    }
  }
  Dims row_sizes = out, rank_sizes = out;
  row_sizes.push_back(n);
  rank_sizes.push_back(q->numel());
  const TensorPtr rows = reshape(sorted, row_sizes), nans = is_nan(rows);
  TensorPtr ranks;
  if (ignore_nan) {
    const TensorPtr last = sub(sum(logical_not(nans), Dims{-1}, true), int64_t{1});
    ranks = clamp(mul(q, to_dtype(last, q->dtype())), int64_t{0});
  } else {
    ranks = mask_fill(expand(mul(q, n - 1), rank_sizes), any(nans, int64_t{-1}, true), n - 1);
  }
  if (how == "lower") ranks = floor(ranks);
  if (how == "higher") ranks = ceil(ranks);
  if (how == "nearest") ranks = round(ranks);
  const TensorPtr below = to(ranks, Dtype::kInt64);
  TensorPtr values = gather(rows, int64_t{-1}, below);
  if (how == "linear" || how == "midpoint") {
    const TensorPtr above = gather(rows, int64_t{-1}, to(ceil(ranks), Dtype::kInt64));
    values = lerp(values, above, how == "midpoint" ? full_like(ranks, 0.5) : sub(ranks, below));
  }
  if (q->dim() == 0) return squeeze(values, int64_t{-1});
  return squeeze(transpose(unsqueeze(values, int64_t{0}), int64_t{0}, int64_t{-1}), int64_t{-1});
}

Results quantiles_at(std::string_view name, Args a, bool ignore_nan) {
  static const OpRef full("full");
  if (a[1].kind == Arg::kTensor) return quantiles(name, a, TensorPtr(a[1].tensor), ignore_nan);
  const double q = a[1].scalar().to_double();
  LOHE_CHECK(q >= 0 && q <= 1, name, "() q must be in the range [0, 1] but got ", q);
  const Dtype dtype = a[0].tensor->dtype();
  return quantiles(name, a, full(Dims{}, q, is_floating(dtype) ? dtype : kFloat32), ignore_nan);
}

const OpFamily sorting(
    "sorting",
    {
        primitive(
            "sort(Tensor self, int dim=-1, bool descending=False) -> (Tensor values, Tensor indices)",
            [](Args a) { return sort_meta(*a[0].tensor); },
            [](Args a, Results& r) { run_sort(*a[0].tensor, a[1].integer, a[2].integer != 0, r); })
            .exact_out()
            .gradient_reads({"result1"})
            .grad([](Backward& b) { to_origin(b, b.arg(1).integer, false); })
            .describe("Elements in order along dim and where they were; equal ones keep their order."),
        primitive(
            "sort.stable(Tensor self, *, bool? stable, int dim=-1, bool descending=False) -> (Tensor values, Tensor indices)",
            [](Args a) { return sort_meta(*a[0].tensor); },
            [](Args a, Results& r) { run_sort(*a[0].tensor, a[2].integer, a[3].integer != 0, r); })
            .exact_out()
            .gradient_reads({"result1"})
            .grad([](Backward& b) { to_origin(b, b.arg(2).integer, false); })
            .describe("Elements in order along dim and where they were; every sort is stable."),
        function("argsort(Tensor self, int dim=-1, bool descending=False) -> Tensor",
                 [](Args a) {
                   static const OpRef sort("sort");
                   return Results(sort.all(a[0], a[1], a[2])[1]);
                 })
            .not_differentiable()
            .describe("Positions in the order of the elements along dim."),
        function("argsort.stable(Tensor self, *, bool stable, int dim=-1, bool descending=False) -> Tensor",
                 [](Args a) {
                   static const OpRef sort("sort");
                   return Results(sort.all(a[0], a[2], a[3])[1]);
                 })
            .out()
            .not_differentiable()
            .describe("Positions in the order of the elements along dim; every sort is stable."),
        function("msort(Tensor self) -> Tensor",
                 [](Args a) {
                   static const OpRef sort("sort");
                   return Results(sort.all(a[0], int64_t{0})[0]);
                 })
            .exact_out()
            .describe("Elements in ascending order along dim 0."),
        primitive(
            "topk(Tensor self, int k, int dim=-1, bool largest=True, bool sorted=True) -> (Tensor values, Tensor indices)",
            topk_meta,
            [](Args a, Results& r) {
              const TensorImpl& self = *a[0].tensor;
              const int64_t dim = wrap_dim(a[2].integer, self.dim());
              if (self.numel() == 0) return;
              // A 0-dim tensor is its own element, whatever k is.
              backend::sort_lines(order_lines(self, dim, *r[0], *r[1], false), self.dtype(),
                                  self.dim() == 0 ? 1 : a[1].integer, a[3].integer != 0);
            })
            .exact_out()
            .gradient_reads({"result1"})
            .grad([](Backward& b) { to_origin(b, b.arg(2).integer, false); })
            .describe("The k largest (smallest) elements along dim, in order, and where they were."),
        primitive(
            "kthvalue(Tensor self, int k, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor indices)",
            kth_meta, [](Args a, Results& r) { run_pick(a, 2, r, backend::Pick::kRank, a[1].integer - 1); })
            .exact_out()
            .gradient_reads({"result1"})
            .grad(pick_gradient(2))
            .describe("The k-th smallest element along dim and where it was."),
        primitive("median(Tensor self) -> Tensor", scalar_meta,
                  [](Args a, Results& r) { run_median(a, r, backend::Pick::kMedian); })
            .gradient_reads({"self", "result"})
            .grad(share_evenly)
            .describe("The lower median of all elements; NaN if there is one."),
        primitive("nanmedian(Tensor self) -> Tensor", scalar_meta,
                  [](Args a, Results& r) { run_median(a, r, backend::Pick::kNanMedian); })
            .gradient_reads({"self", "result"})
            .grad(share_evenly)
            .describe("The lower median of all elements that are not NaN."),
        primitive(
            "median.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)",
            [](Args a) { return pick_meta("median()", a, 1, false); },
            [](Args a, Results& r) { run_pick(a, 1, r, backend::Pick::kMedian); })
            .exact_out()
            .gradient_reads({"result1"})
            .grad(pick_gradient(1))
            .describe("The lower median along dim and where it was; the first NaN if there is one."),
        primitive(
            "nanmedian.dim(Tensor self, int dim, bool keepdim=False) -> (Tensor values, Tensor indices)",
            [](Args a) { return pick_meta("median()", a, 1, false); },
            [](Args a, Results& r) { run_pick(a, 1, r, backend::Pick::kNanMedian); })
            .exact_out()
            .gradient_reads({"result1"})
            .grad(pick_gradient(1))
            .describe("The lower median along dim of what is not NaN, and where it was."),
        primitive(
            "mode(Tensor self, int dim=-1, bool keepdim=False) -> (Tensor values, Tensor indices)",
            [](Args a) { return pick_meta("mode()", a, 1, true); },
            [](Args a, Results& r) { run_pick(a, 1, r, backend::Pick::kMode); })
            .exact_out()
            .gradient_reads({"result1"})
            .grad(pick_gradient(1))
            .describe("The most frequent element along dim, the smallest of these, and its last position."),
        pointwise("_same_value(Tensor self, Tensor other) -> Tensor",
                  [](Value x, Value y) {
                    return select((x == y) | (is_nan(x) & is_nan(y)), x.literal(1), x.literal(0));
                  })
            .gradient_reads({})
            .derivative([](Value g) { return std::array<Value, 2>{g.literal(0), g.literal(0)}; })
            .function_only()
            .in("_C")
            .describe("1 where both are equal or NaN, else 0, in their own dtype."),
        function(
            "quantile(Tensor self, Tensor q, int? dim=None, bool keepdim=False, *, str interpolation='linear') -> Tensor",
            [](Args a) { return quantiles_at("quantile", a, false); })
            .exact_out()
            .describe("Values below which the parts q of the elements lie; NaN where there is one."),
        function(
            "quantile.scalar(Tensor self, float q, int? dim=None, bool keepdim=False, *, str interpolation='linear') -> Tensor",
            [](Args a) { return quantiles_at("quantile", a, false); })
            .exact_out()
            .describe("The value below which the part q of the elements lies; NaN where there is one."),
        function(
            "nanquantile(Tensor self, Tensor q, int? dim=None, bool keepdim=False, *, str interpolation='linear') -> Tensor",
            [](Args a) { return quantiles_at("nanquantile", a, true); })
            .exact_out()
            .describe("Values below which the parts q of the elements that are not NaN lie."),
        function(
            "nanquantile.scalar(Tensor self, float q, int? dim=None, bool keepdim=False, *, str interpolation='linear') -> Tensor",
            [](Args a) { return quantiles_at("nanquantile", a, true); })
            .exact_out()
            .describe("The value below which the part q of the elements that are not NaN lies."),
    });

}  // namespace
}  // namespace lohe::ops
