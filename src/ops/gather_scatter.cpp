#include <algorithm>

#include "lohe/error.h"
#include "ops/indexing.h"
#include "tensor/shape.h"

/// Rows with one index for each element along a dim.
namespace lohe::ops {
namespace {

using namespace ir;
using backend::Combine;

int64_t rank_of(const TensorImpl& t) { return std::max<int64_t>(t.dim(), 1); }

/// Lines of `index` along `dim`. @param other_strides elements, by dim of index.
backend::LineIndex line_walk(TensorImpl& self, int64_t dim, const TensorImpl& index, char* other,
                             std::span<const int64_t> other_strides) {
  backend::LineIndex x;
  const int64_t size = self.itemsize(), index_size = index.itemsize();
  x.self = self.data();
  x.other = other;
  x.index = index.data();
  x.wide = is_wide(index);
  x.length = size_at(index, dim);
  x.self_step = stride_at(self, dim) * size;
  x.other_step = (index.dim() == 0 ? 1 : other_strides[static_cast<size_t>(dim)]) * size;
  x.index_step = stride_at(index, dim) * index_size;
  for (int64_t d = 0; d < index.dim(); ++d) {
    const auto k = static_cast<size_t>(d);
    if (d == dim) continue;
    x.lines.add(index.sizes()[k], {(self.dim() == 0 ? 0 : self.strides()[k]) * size, other_strides[k] * size,
                                   index.strides()[k] * index_size});
  }
  return x;
}

void check_index_dtype(std::string_view op, const TensorImpl& index) {
  LOHE_CHECK(index.numel() == 0 || index.dtype() == Dtype::kInt64 || index.dtype() == Dtype::kInt32, op,
             "(): Expected dtype int32/int64 for index");
}

void check_index(int64_t index, int64_t size, int64_t dim) {
  LOHE_CHECK(index >= 0 && index < size, "index ", index, " is out of bounds for dimension ", dim,
             " with size ", size);
}
void check_index_range(const TensorImpl& index, int64_t size, int64_t dim) {
  const IndexRange range = index_range(index);
  if (index.numel() != 0) check_index(range.greatest >= size ? range.greatest : range.least, size, dim);
}

std::vector<Meta> infer_gather(Args a) {
  const TensorImpl &self = *a[0].tensor, &index = *a[2].tensor;
  const int64_t dim = wrap_dim(a[1].integer, self.dim());
  check_index_dtype("gather", index);
  const std::vector<Meta> result{row_major(self.dtype(), index.size_dims())};
  if (index.numel() == 0) return result;
  LOHE_CHECK(rank_of(self) == rank_of(index),
             "Index tensor must have the same number of dimensions as input tensor");
  for (int64_t d = 0; d < self.dim() && index.dim() > 0; ++d) {
    const auto k = static_cast<size_t>(d);
    LOHE_CHECK(d == dim || index.sizes()[k] <= self.sizes()[k], "Size does not match at dimension ", d,
               " expected index ", to_string(index.sizes()), " to be no larger than self ",
               to_string(self.sizes()), " apart from dimension ", dim);
  }
  return result;
}

void run_gather(Args a, Results& r) {
  TensorImpl& self = *a[0].tensor;
  const TensorImpl& index = *a[2].tensor;
  const int64_t dim = wrap_dim(a[1].integer, self.dim());
  if (index.numel() == 0) return;
  const int64_t size = size_at(self, dim);
  backend::gather_lines(line_walk(self, dim, index, r[0]->data(), r[0]->strides()), self.itemsize(), size,
                        [&](int64_t outside) { check_index(outside, size, dim); });
}

void check_scatter(std::string_view op, const TensorImpl& self, int64_t dim, const TensorImpl& index,
                   const TensorImpl* src) {
  check_index_dtype(op, index);
  LOHE_CHECK(src == nullptr || src->dtype() == self.dtype(), op,
             "(): Expected self.dtype to be equal to src.dtype");
  if (index.numel() == 0) return;
  LOHE_CHECK(rank_of(self) == rank_of(index),
             "Index tensor must have the same number of dimensions as self tensor");
  LOHE_CHECK(src == nullptr || rank_of(*src) == rank_of(index),
             "Index tensor must have the same number of dimensions as src tensor");
  bool fits = true;
  const auto size = [](const TensorImpl& t, int64_t d) {
    return t.dim() == 0 ? 1 : t.sizes()[static_cast<size_t>(d)];
  };
  for (int64_t d = 0; d < rank_of(self); ++d) {
    fits = fits && (d == dim || size(index, d) <= size(self, d)) &&
           (src == nullptr || size(index, d) <= size(*src, d));
  }
  if (src != nullptr) {
    LOHE_CHECK(fits, "Expected index ", to_string(index.sizes()), " to be no larger than self ",
               to_string(self.sizes()), " apart from dimension ", dim, " and to be no larger size than src ",
               to_string(src->sizes()));
  } else {
    LOHE_CHECK(fits, "Expected index ", to_string(index.sizes()), " to be no larger than self ",
               to_string(self.sizes()), " apart from dimension ", dim);
  }
}

/// check_scatter() of a row that writes in place, whose source is its argument number 3 (`number`: a number).
std::vector<Meta> check_scatter_(Args a, bool number, std::string_view name = "scatter") {
  const int64_t dim = wrap_dim(a[1].integer, a[0].tensor->dim());
  const TensorImpl &self = *a[0].tensor, &index = *a[2].tensor, *const src = number ? nullptr : a[3].tensor;
  check_scatter("scatter", self, dim, index, src);
  LOHE_CHECK(!number || a[3].kind != Arg::kComplex || is_complex(self.dtype()),
             "value cannot be converted to type ", info(self.dtype()).name, " without overflow");
  check_written(name, self, {&index, src});
  return {};
}
std::vector<Meta> check_scatter_source(Args a) { return check_scatter_(a, false); }
std::vector<Meta> check_scatter_number(Args a) { return check_scatter_(a, true); }

/// self[..., index, ...] = combine(self[...], src). A 0-dim src stands everywhere if `number`.
void scatter_into(Args a, TensorImpl* given, bool number, Combine combine, Results& r) {
  const int64_t dim = wrap_dim(a[1].integer, a[0].tensor->dim());
  const TensorImpl& index = *a[2].tensor;
  check_index_range(index, size_at(*a[0].tensor, dim), dim);
  const TensorPtr src = plain(given);
  r = write_to(a[0].tensor, [&](TensorImpl& self) {
    if (index.numel() == 0 || self.numel() == 0) return;
    const Dims still(index.sizes().size());
    backend::LineIndex x =
        line_walk(self, dim, index, src->data(),
                  number || src->dim() == 0 ? std::span<const int64_t>(still) : src->strides());
    if (number) x.other_step = 0;
    backend::scatter_lines(x, self.dtype(), combine);
  });
}

Combine reduce_word(const Arg& reduce) {
  if (reduce.str() == "add") return Combine::kAdd;
  LOHE_CHECK(reduce.str() == "multiply", "reduce argument must be either add or multiply.");
  return Combine::kMultiply;
}

/// What reached src, which may be larger than the index: the rest gets nothing.
TensorPtr to_source(Backward& b, int src, const TensorPtr& g) {
  static const OpRef as_strided("as_strided"), copy("copy_");
  const Dims& sizes = b.meta(src).sizes;
  if (g->size_dims() == sizes || sizes.empty()) return g;
  const TensorPtr whole = zeros_as(b.meta(src));
  copy(as_strided(whole, g->sizes(), whole->strides()), g);
  return whole;
}

TensorPtr gathered(Backward& b, int src) {
  static const OpRef gather("gather");
  return to_source(b, src, gather(b.grad(), b.arg(1), b.tensor(2)));
}

TensorPtr without_written(Backward& b) {
  static const OpRef scatter("scatter.value");
  return scatter(b.grad(), b.arg(1), b.tensor(2), int64_t{0});
}

// --- scatter_reduce

bool is_order(std::string_view reduce) { return reduce == "amax" || reduce == "amin"; }

/// The number that a destination starts from when its own value does not count.
Scalar neutral(std::string_view reduce, Dtype dtype) {
  if (reduce == "prod") return int64_t{1};
  if (!is_order(reduce)) return int64_t{0};
  const bool low = reduce == "amax";
  if (is_floating(dtype)) return low ? -__builtin_inf() : __builtin_inf();
  if (dtype == Dtype::kBool) return !low;
  const int bits = static_cast<int>(itemsize(dtype)) * 8;
  if (dtype == Dtype::kUInt8) return int64_t{low ? 0 : 255};
  const int64_t least = bits == 64 ? INT64_MIN : -(int64_t{1} << (bits - 1));
  return low ? least : ~least;
}

std::vector<Meta> check_scatter_reduce(Args a) {
  const std::string_view reduce = a[4].str();
  const Dtype dtype = a[0].tensor->dtype();
  LOHE_CHECK(reduce == "sum" || reduce == "prod" || reduce == "mean" || is_order(reduce),
             "reduce argument must be either sum, prod, mean, amax or amin, got ", reduce);
  LOHE_CHECK_KIND(kNotImplemented, !is_order(reduce) || !is_complex(dtype),
                  "\"scatter_reduce\" not implemented for '", type_word(dtype), "'");
  LOHE_CHECK_KIND(kNotImplemented, reduce != "mean" || dtype != Dtype::kBool || a[2].tensor->numel() == 0,
                  "\"scatter_reduce\" with reduce='mean' not implemented for 'Bool'");
  return check_scatter_(a, false, "scatter_reduce_");
}

void run_scatter_reduce(Args a, Results& r) {
  static const OpRef scatter("scatter_.value"), add("scatter_add_"), zeros("zeros"), ones("ones"), div("div"),
      copy("copy_"), floor_div("div.Tensor_mode"), dense("_nonzero_or_one");
  const std::string_view reduce = a[4].str();
  const bool include = a[5].integer != 0;
  TensorImpl* self = a[0].tensor;
  const int64_t dim = wrap_dim(a[1].integer, self->dim());
  check_index_range(*a[2].tensor, size_at(*self, dim), dim);
  const WithoutGrad guard;
  if (!include && a[2].tensor->numel() != 0)
    scatter(self, dim, a[2].tensor, Arg(neutral(reduce, self->dtype())));
  const Combine how = reduce == "prod"   ? Combine::kMultiply
                      : reduce == "amax" ? Combine::kMaximum
                      : reduce == "amin" ? Combine::kMinimum
                                         : Combine::kAdd;
  scatter_into(a, a[3].tensor, false, how, r);
  if (reduce != "mean" || a[2].tensor->numel() == 0) return;
  const TensorPtr counts = include ? ones(self->sizes(), self->dtype()) : zeros(self->sizes(), self->dtype());
  const TensorPtr one = ones(a[2].tensor->sizes(), self->dtype());
  add(counts, dim, a[2].tensor, one);
  const TensorPtr n = dense(counts);
  copy(self, is_integral(self->dtype(), true) ? floor_div(self, n, "floor") : div(self, n));
}

void scatter_reduce_backward(Backward& b) {
  static const OpRef gather("gather"), add("scatter_add"), reduce_row("scatter_reduce.two"), mul("mul"),
      div("div"), zeros("zeros"), ones("ones"), at_least_one("_nonzero_or_one"), equal("_equal_as"),
      nonzero("_nonzero_or_one"), prod_source("_prod_source_gradient");
  const std::string_view reduce = b.arg(4).str();
  const bool include = b.arg(5).integer != 0;
  const Arg dim = b.arg(1);
  const TensorPtr index = b.tensor(2), self = b.tensor(0), src = b.tensor(3), &g = b.grad();
  TensorPtr to_self, to_src;
  const auto fitted = [&](const TensorPtr& t) {  // src laid over the index
    static const OpRef as_strided("as_strided");
    return t->size_dims() == index->size_dims() ? t
                                                : as_strided(t, index->sizes(), t->strides(), t->offset());
  };
  if (reduce == "sum") {
    to_self = g;
    to_src = gather(g, dim, index);
  } else if (reduce == "mean") {
    const TensorPtr start = include ? ones(g->sizes(), g->dtype()) : zeros(g->sizes(), g->dtype());
    const TensorPtr n = at_least_one(add(start, dim, index, ones(index->sizes(), g->dtype())));
    to_self = div(g, n);
    to_src = gather(to_self, dim, index);
  } else if (reduce == "prod") {
    const TensorPtr result = b.result();
    const TensorPtr dense = nonzero(self);
    to_self = div(mul(g, reduce_row(dense, dim, index, src, "prod", include)), dense);
    const TensorPtr is_zero = equal(fitted(src), 0.0);
    const TensorPtr zero_count =
        gather(add(zeros(self->sizes(), self->dtype()), dim, index, is_zero), dim, index);
    // Where a single factor is zero the others' product still reaches it.
    const TensorPtr others = reduce_row(self, dim, index, nonzero(src), "prod", include);
    to_src = prod_source(gather(mul(g, others), dim, index), gather(mul(g, result), dim, index), fitted(src),
                         zero_count);
  } else {
    const TensorPtr result = b.result();
    const TensorPtr self_wins = equal(self, result),
                    src_wins = equal(fitted(src), gather(result, dim, index));
    const TensorPtr share = div(g, at_least_one(add(self_wins, dim, index, src_wins)));
    to_self = mul(self_wins, share);
    to_src = mul(src_wins, gather(share, dim, index));
  }
  static const OpRef scatter("scatter.value");
  if (b.needs(0)) b.set(0, include ? to_self : scatter(to_self, dim, index, int64_t{0}));
  if (b.needs(3)) b.set(3, to_source(b, 3, to_src));
}

const OpFamily gather_scatter(
    "gather_scatter",
    {
        primitive("gather(Tensor self, int dim, Tensor index, *, bool sparse_grad=False) -> Tensor",
                  infer_gather, run_gather)
            .exact_out()
            .gradient_reads({"index"})
            .grad([](Backward& b) {
              static const OpRef add("scatter_add_");
              if (b.needs(0)) b.set(0, add(zeros_as(b.meta(0)), b.arg(1), b.tensor(2), b.grad()));
            })
            .describe("result[i][j] = self[index[i][j]][j] for dim 0, and so on."),
        primitive("scatter_.src(Tensor(a!) self, int dim, Tensor index, Tensor src) -> Tensor(a!)",
                  check_scatter_source,
                  [](Args a, Results& r) { scatter_into(a, a[3].tensor, false, Combine::kCopy, r); })
            .method_only()
            .gradient_reads({"index"})
            .grad([](Backward& b) {
              if (b.needs(0)) b.set(0, without_written(b));
              if (b.needs(3)) b.set(3, gathered(b, 3));
            })
            .describe("self[index[i][j]][j] = src[i][j] for dim 0; the last of equal indices stays."),
        primitive("scatter_.value(Tensor(a!) self, int dim, Tensor index, Scalar value) -> Tensor(a!)",
                  check_scatter_number,
                  [](Args a, Results& r) {
                    const TensorPtr n = number_tensor(a[3], a[0].tensor->dtype());
                    scatter_into(a, n.get(), true, Combine::kCopy, r);
                  })
            .method_only()
            .gradient_reads({"index"})
            .grad([](Backward& b) {
              if (b.needs(0)) b.set(0, without_written(b));
            })
            .describe("Writes one number where index names an element."),
        primitive(
            "scatter_.reduce(Tensor(a!) self, int dim, Tensor index, Tensor src, *, str reduce) -> Tensor(a!)",
            [](Args a) {
              reduce_word(a[4]);
              return check_scatter_source(a);
            },
            [](Args a, Results& r) {
              const Combine how = reduce_word(a[4]);
              scatter_into(a, a[3].tensor, false, how, r);
            })
            .method_only()
            .describe("Adds or multiplies src into the elements that index names."),
        primitive(
            "scatter_.value_reduce(Tensor(a!) self, int dim, Tensor index, Scalar value, *, str reduce) -> Tensor(a!)",
            [](Args a) {
              reduce_word(a[4]);
              return check_scatter_number(a);
            },
            [](Args a, Results& r) {
              const Combine how = reduce_word(a[4]);
              const TensorPtr n = number_tensor(a[3], a[0].tensor->dtype());
              scatter_into(a, n.get(), true, how, r);
            })
            .method_only()
            .describe("Adds or multiplies one number into the elements that index names."),
        function("scatter.src(Tensor self, int dim, Tensor index, Tensor src) -> Tensor",
                 [](Args a) {
                   static const OpRef row("scatter_.src");
                   return through_copy(row, a, true);
                 })
            .exact_out()
            .describe("A copy of self with src where index names an element."),
        function("scatter.value(Tensor self, int dim, Tensor index, Scalar value) -> Tensor",
                 [](Args a) {
                   static const OpRef row("scatter_.value");
                   return through_copy(row, a, true);
                 })
            .exact_out()
            .describe("A copy of self with one number where index names an element."),
        function("scatter.reduce(Tensor self, int dim, Tensor index, Tensor src, *, str reduce) -> Tensor",
                 [](Args a) {
                   static const OpRef row("scatter_.reduce");
                   return through_copy(row, a, true);
                 })
            .exact_out()
            .describe("A copy of self with src added or multiplied in."),
        function(
            "scatter.value_reduce(Tensor self, int dim, Tensor index, Scalar value, *, str reduce) -> Tensor",
            [](Args a) {
              static const OpRef row("scatter_.value_reduce");
              return through_copy(row, a, true);
            })
            .exact_out()
            .describe("A copy of self with one number added or multiplied in."),
        primitive("scatter_add_(Tensor(a!) self, int dim, Tensor index, Tensor src) -> Tensor(a!)",
                  check_scatter_source,
                  [](Args a, Results& r) { scatter_into(a, a[3].tensor, false, Combine::kAdd, r); })
            .method_only()
            .gradient_reads({"index"})
            .grad([](Backward& b) {
              if (b.needs(0)) b.set(0, b.grad());
              if (b.needs(3)) b.set(3, gathered(b, 3));
            })
            .describe("self[index[i][j]][j] += src[i][j] for dim 0; equal indices add up in order."),
        function("scatter_add(Tensor self, int dim, Tensor index, Tensor src) -> Tensor",
                 [](Args a) {
                   static const OpRef row("scatter_add_");
                   return through_copy(row, a, true);
                 })
            .exact_out()
            .describe("A copy of self with src added where index names an element."),
        primitive(
            "_scatter_reduce_(Tensor(a!) self, int dim, Tensor index, Tensor src, str reduce, *, bool include_self=True) -> Tensor(a!)",
            check_scatter_reduce, run_scatter_reduce)
            .function_only()
            .in("_C")
            .describe("scatter_reduce_ without gradient."),
        function(
            "scatter_reduce_.two(Tensor(a!) self, int dim, Tensor index, Tensor src, str reduce, *, bool include_self=True) -> Tensor(a!)",
            [](Args a) {
              static const OpRef plain_row("_scatter_reduce_"), row("scatter_reduce.two"), copy("copy_"),
                  clone("clone");
              const bool tracked =
                  dispatch::grad_enabled() && (a[0].tensor->requires_grad || a[3].tensor->requires_grad);
              if (!tracked) return dispatch::call(plain_row.op(), a);
              // The gradient reads the old values, which the write would destroy.
              const TensorPtr old = clone(a[0].tensor);
              return Results(copy(a[0].tensor, row(old, a[1], a[2], a[3], a[4], a[5])));
            })
            .method_only()
            .describe(
                "Sum, product, mean or extreme of what index sends to each element, with or without its own value."),
        primitive(
            "scatter_reduce.two(Tensor self, int dim, Tensor index, Tensor src, str reduce, *, bool include_self=True) -> Tensor",
            nullptr,
            [](Args a, Results& r) {
              static const OpRef row("_scatter_reduce_");
              const WithoutGrad guard;
              r = through_copy(row, a, true);
            })
            .exact_out()
            .gradient_reads({"self", "index", "src", "result"})
            .grad(scatter_reduce_backward)
            .describe(
                "Sum, product, mean or extreme of what index sends to each element, with or without its own value."),
        function("take_along_dim(Tensor self, Tensor indices, int? dim=None) -> Tensor",
                 [](Args a) {
                   static const OpRef gather("gather"), reshape("reshape"), expand("expand");
                   const TensorImpl &self = *a[0].tensor, &index = *a[1].tensor;
                   LOHE_CHECK(index.dtype() == Dtype::kInt64 || index.dtype() == Dtype::kInt32,
                              "gather(): Expected dtype int32/int64 for index");
                   static const OpRef wrapped("_wrapped_index");
                   if (a[2].none()) {
                     return Results(gather(reshape(a[0].tensor, Dims{-1}), int64_t{0},
                                           reshape(wrapped(a[1].tensor, self.numel()), Dims{-1})));
                   }
                   LOHE_CHECK(
                       self.dim() == index.dim(),
                       "torch.take_along_dim(): input and indices should have the same number of dimensions, "
                       "but got ",
                       self.dim(), " dimensions for input, and ", index.dim(), " dimensions for indices");
                   const int64_t dim = wrap_dim(a[2].integer, self.dim());
                   Dims s = self.size_dims(), i = index.size_dims();
                   if (self.dim() > 0) {
                     s[static_cast<size_t>(dim)] = i[static_cast<size_t>(dim)] = 1;
                     const Dims common = broadcast_shapes(s, i);
                     s = i = common;
                     s[static_cast<size_t>(dim)] = self.sizes()[static_cast<size_t>(dim)];
                     i[static_cast<size_t>(dim)] = index.sizes()[static_cast<size_t>(dim)];
                   }
                   return Results(gather(expand(a[0].tensor, s), dim,
                                         expand(wrapped(a[1].tensor, size_at(self, dim)), i)));
                 })
            .exact_out()
            .describe("Elements along dim at broadcast indices; without dim, of self seen as one row."),
        pointwise("_wrapped_index(Tensor self, int size) -> Tensor",
                  [](Value x, Value size) { return select(x < 0, x + cast(size, x.dtype()), x); })
            .dtypes_are(kInts)
            .runtime({"size"})
            .not_differentiable()
            .function_only()
            .in("_C")
            .describe("Negative indices counted from the end."),
        pointwise("_equal_as(Tensor self, Tensor other) -> Tensor",
                  [](Value x, Value y) { return select(x == y, x.literal(1), x.literal(0)); })
            .gradient_reads({})
            .derivative([](Value g) { return std::array<Value, 2>{g.literal(0), g.literal(0)}; })
            .function_only()
            .in("_C")
            .describe("1 where both are equal, else 0, in their own dtype."),
        pointwise("_nonzero_or_one(Tensor self) -> Tensor",
                  [](Value x) { return select(x == 0, x.literal(1), x); })
            .function_only()
            .in("_C")
            .describe("self with 1 in place of 0."),
        pointwise("_prod_source_gradient(Tensor others, Tensor all, Tensor src, Tensor zeros) -> Tensor",
                  [](Value others, Value all, Value src, Value zeros) {
                    const Value dense = select(src == 0, src.literal(1), src);
                    return select((src == 0) & (zeros == 1), others, all / dense);
                  })
            .function_only()
            .in("_C")
            .describe("The gradient of a factor of a product."),
    });

}  // namespace
}  // namespace lohe::ops
