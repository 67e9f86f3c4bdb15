#include <algorithm>
#include <cmath>
#include <map>

#include "lohe/error.h"
#include "ops/indexing.h"
#include "tensor/half.h"
#include "tensor/shape.h"

/// Tables looked up by index.
namespace lohe::ops {
namespace {

using namespace ir;
using backend::Combine;

void check_indices(std::string_view op, const TensorImpl& indices) {
  LOHE_CHECK(indices.dtype() == Dtype::kInt64 || indices.dtype() == Dtype::kInt32,
             "Expected tensor for argument #1 'indices' to have one "
             "of the following scalar types: Long, Int; but got torch.",
             info(indices.dtype()).tensor_type, " instead (while checking arguments for ", op, ")");
}

Dims row_shape(const TensorImpl& indices, int64_t width) {
  Dims sizes = indices.size_dims();
  sizes.push_back(width);
  return sizes;
}

/// Rows of a table beside rows that follow one another.
backend::SliceIndex row_walk(TensorImpl& table, const std::vector<int64_t>& offsets, const TensorImpl& rows) {
  backend::SliceIndex x;
  x.self = table.data();
  x.other = rows.data();
  x.at = offsets.data();
  x.positions = static_cast<int64_t>(offsets.size());
  x.other_step = table.sizes()[1] * table.itemsize();
  x.slice.add(table.sizes()[1], {table.strides()[1] * table.itemsize(), table.itemsize()});
  return x;
}

std::vector<Meta> infer_embedding(Args a) {
  const TensorImpl &weight = *a[0].tensor, &indices = *a[1].tensor;
  LOHE_CHECK(weight.dim() == 2, "'weight' must be 2-D");
  check_indices("embedding", indices);
  return {row_major(weight.dtype(), row_shape(indices, weight.sizes()[1]))};
}

void run_embedding(Args a, Results& r) {
  TensorImpl& weight = *a[0].tensor;
  const TensorImpl& indices = *a[1].tensor;
  const IndexRange range = index_range(indices);
  LOHE_CHECK_INDEX(indices.numel() == 0 || (range.least >= 0 && range.greatest < weight.sizes()[0]),
                   "index out of range in self");
  const std::vector<int64_t> offsets =
      offsets_along(indices, weight.strides()[0] * weight.itemsize(), weight.sizes()[0]);
  if (r[0]->numel() != 0) backend::gather_slices(row_walk(weight, offsets, *r[0]), weight.itemsize());
}

/// Values of an index tensor in row-major order.
std::vector<int64_t> values_of(const TensorImpl& index) { return offsets_along(index, 1, 0); }

std::vector<Meta> infer_embedding_backward(Args a) {
  check_indices("embedding_backward", *a[1].tensor);
  return {row_major(a[0].tensor->dtype(), Dims{a[2].integer, a[0].tensor->sizes().back()})};
}

void run_embedding_backward(Args a, Results& r) {
  static const OpRef zeros("zeros"), zero("zero_"), contiguous("contiguous"), div("div");
  const WithoutGrad guard;
  const TensorPtr grad = contiguous(plain(a[0].tensor));
  const TensorImpl& indices = *a[1].tensor;
  const int64_t rows = a[2].integer, padding = a[3].integer, width = grad->sizes().back();
  const TensorPtr& out = r[0];
  zero(out);
  // Rows of the padding index are left out, and so are those of indices that are in no table.
  std::vector<int64_t> to = values_of(indices), from;
  const IndexRange range = index_range(indices);
  const bool all = to.empty() || (range.least >= 0 && range.greatest < rows &&
                                  (padding < range.least || padding > range.greatest));
  const int64_t row_bytes = width * grad->itemsize();
  if (!all) {
    size_t kept = 0;
    from.resize(to.size());
    for (size_t p = 0; p < to.size(); ++p) {
      if (to[p] == padding || to[p] < 0 || to[p] >= rows) continue;
      to[kept] = to[p];
      from[kept++] = static_cast<int64_t>(p) * row_bytes;
    }
    to.resize(kept);
  }
  std::vector<int64_t> counts;
  if (a[4].integer != 0) {
    counts.resize(static_cast<size_t>(rows));
    for (const int64_t i : to) ++counts[static_cast<size_t>(i)];
  }
  for (int64_t& at : to) at *= row_bytes;
  if (to.empty() || width == 0) return;
  backend::SliceIndex x = row_walk(*out, to, *grad);
  if (!all) x.other_at = from.data();
  backend::scatter_slices(x, grad->dtype(), Combine::kAdd);
  if (!counts.empty()) {
    const TensorPtr scale = zeros(Dims{rows, 1}, grad->dtype());
    visit_dtype(grad->dtype(), [&](auto zero) {
      using T = decltype(zero);
      if constexpr (!std::is_same_v<T, bool>) {
        auto* p = reinterpret_cast<T*>(scale->data());
        for (size_t i = 0; i < counts.size(); ++i)
          p[i] = T(static_cast<float>(std::max<int64_t>(counts[i], 1)));
      }
    });
    dispatch::call(div.op(), std::array{Arg(out), Arg(scale)}, dispatch::Form::kInPlace);
  }
}

void run_embedding_renorm(Args a, Results& r) {
  const TensorImpl& indices = *a[1].tensor;
  LOHE_CHECK(a[0].tensor->dim() == 2, "'self' must be 2-D");
  check_indices("embedding_renorm_", indices);
  const double most = a[2].scalar().to_double(), power = a[3].scalar().to_double();
  std::vector<int64_t> rows = values_of(indices);
  std::sort(rows.begin(), rows.end());
  rows.erase(std::unique(rows.begin(), rows.end()), rows.end());
  TensorImpl& self = *a[0].tensor;
  LOHE_CHECK_INDEX(rows.empty() || (rows.front() >= 0 && rows.back() < self.sizes()[0]),
                   "index out of range in self");
  check_written("embedding_renorm_", self, {&indices});
  visit_dtype(self.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_integral_v<T> || std::is_same_v<T, std::complex<float>> ||
                  std::is_same_v<T, std::complex<double>>) {
      raise(ErrorKind::kNotImplemented, "\"embedding_renorm_\" not implemented for '",
            type_word(self.dtype()), "'");
    } else {
      const int64_t step = self.strides()[1];
      for (const int64_t row : rows) {
        auto* p = reinterpret_cast<T*>(self.data()) + row * self.strides()[0];
        double norm = 0;
        for (int64_t i = 0; i < self.sizes()[1]; ++i) {
          const double v = std::fabs(static_cast<double>(p[i * step]));
          if (std::isinf(power))
            norm = std::max(norm, v);
          else
            norm += power == 2 ? v * v : std::pow(v, power);
        }
        if (!std::isinf(power)) norm = power == 2 ? std::sqrt(norm) : std::pow(norm, 1 / power);
        if (norm <= most) continue;
        const double scale = most / (norm + 1e-7);
        for (int64_t i = 0; i < self.sizes()[1]; ++i) {
          if constexpr (std::is_same_v<T, double>)
            p[i * step] *= scale;
          else
            p[i * step] = T(static_cast<float>(static_cast<double>(p[i * step]) * scale));
        }
      }
    }
  });
  r.push(TensorPtr(&self));
}

TensorPtr index_tensor(const std::vector<int64_t>& values, Dims sizes) {
  static const OpRef empty("empty");
  const TensorPtr t = empty(sizes, Dtype::kInt64);
  std::copy(values.begin(), values.end(), reinterpret_cast<int64_t*>(t->data()));
  return t;
}

enum BagMode : int64_t { kBagSum, kBagMean, kBagMax };

/// Bags as sums, means or maxima of looked-up rows, made of rows that have gradients.
Results embedding_bag(Args a) {
  static const OpRef select("index_select"), add("index_add"), mul("mul"), div("div"), gather("gather"),
      zeros("zeros"), view("view"), to("to.dtype"), masked("_nonzero_or_one");
  TensorImpl& weight = *a[0].tensor;
  const TensorImpl &indices = *a[1].tensor, &offsets = *a[2].tensor;
  check_indices("embedding_bag", indices);
  LOHE_CHECK(is_floating(weight.dtype()),
             "Expected tensor for argument #1 'weight' to have one of the following scalar types: Half, "
             "BFloat16, Float, Double; but got torch.",
             info(weight.dtype()).tensor_type, " instead (while checking arguments for embedding_bag)");
  LOHE_CHECK(weight.dim() == 2, "embedding_bag: weight has to be a 2D Tensor, but got Tensor of dimension ",
             weight.dim());
  LOHE_CHECK(indices.dim() == 1, "embedding_bag: input has to be a 1D Tensor, but got Tensor of dimension ",
             indices.dim());
  LOHE_CHECK(offsets.dim() == 1, "embedding_bag: offsets has to be a 1D Tensor, but got Tensor of dimension ",
             offsets.dim());
  const int64_t mode = a[4].integer;
  TensorImpl* scale = a[6].kind == Arg::kTensor ? a[6].tensor : nullptr;
  const bool last = a[7].integer != 0;
  int64_t padding = a[8].none() ? -1 : a[8].integer;
  LOHE_CHECK(scale == nullptr || mode == kBagSum,
             "embedding_bag: per_sample_weights was not None, but only mode='sum' supports it");
  LOHE_CHECK(scale == nullptr || scale->size_dims() == indices.size_dims(),
             "expected per_sample_weights to have the same shape as indices");
  if (!a[8].none()) padding = wrap_dim(padding, weight.sizes()[0]);
  const std::vector<int64_t> at = values_of(indices), starts = values_of(offsets);
  const auto total = static_cast<int64_t>(at.size());
  LOHE_CHECK(!last || !starts.empty(), "embedding_bag: include_last_offset needs at least one offset");
  LOHE_CHECK(starts.empty() || starts[0] == 0,
             "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from "
             "position 0. However, got ",
             starts.empty() ? 0 : starts[0]);
  LOHE_CHECK(starts.empty() || starts.back() <= total,
             "offsets[-1] can not be greater than input's length: ", total, " but got offsets[-1] of ",
             starts.empty() ? 0 : starts.back());
  const auto bags = static_cast<int64_t>(starts.size()) - (last ? 1 : 0), width = weight.sizes()[1];
  std::vector<int64_t> bag_of(at.size()), kept, kept_bag, kept_rows, sizes(static_cast<size_t>(bags));
  for (int64_t b = 0; b < bags; ++b) {
    const auto k = static_cast<size_t>(b);
    const int64_t end = k + 1 < starts.size() ? starts[k + 1] : total;
    for (int64_t p = starts[k]; p < end; ++p) {
      const int64_t row = at[static_cast<size_t>(p)];
      LOHE_CHECK_INDEX(row >= 0 && row < weight.sizes()[0],
                       "embedding_bag: Expected idx >= 0 && idx < num_embeddings but found idx to be ", row);
      bag_of[static_cast<size_t>(p)] = b;
      if (row == padding) continue;
      kept.push_back(p);
      kept_bag.push_back(b);
      kept_rows.push_back(row);
      ++sizes[k];
    }
  }
  const auto n = static_cast<int64_t>(kept.size());
  const TensorPtr bag_sizes = index_tensor(sizes, {bags}), bag_index = index_tensor(kept_bag, {n});
  const TensorPtr looked_up = select(TensorPtr(&weight), int64_t{0}, index_tensor(kept_rows, {n}));
  TensorPtr result, extremes;
  if (mode == kBagMax) {
    // The first of the greatest, by column; its gradient goes to that row alone.
    extremes = zeros(Dims{bags, width}, Dtype::kInt64);
    auto* best = reinterpret_cast<int64_t*>(extremes->data());
    std::vector<bool> seen(static_cast<size_t>(bags));
    visit_dtype(weight.dtype(), [&](auto zero) {
      using T = decltype(zero);
      if constexpr (!std::is_same_v<T, std::complex<float>> && !std::is_same_v<T, std::complex<double>>) {
        const auto value = [&](int64_t row, int64_t c) {
          return reinterpret_cast<const T*>(
              weight.data())[row * weight.strides()[0] + c * weight.strides()[1]];
        };
        for (size_t i = 0; i < kept.size(); ++i) {
          const auto b = static_cast<size_t>(kept_bag[i]);
          for (int64_t c = 0; c < width; ++c) {
            int64_t& slot = best[kept_bag[i] * width + c];
            if (!seen[b] || value(slot, c) < value(kept_rows[i], c)) slot = kept_rows[i];
          }
          seen[b] = true;
        }
      }
    });
    result = gather(TensorPtr(&weight), int64_t{0}, extremes);
    const TensorPtr filled = zeros(Dims{bags, 1}, Dtype::kBool);
    for (int64_t b = 0; b < bags; ++b)
      reinterpret_cast<bool*>(filled->data())[b] = seen[static_cast<size_t>(b)];
    result = mul(result, filled);
  } else {
    TensorPtr rows = looked_up;
    if (scale != nullptr)
      rows = mul(rows, view(select(scale, int64_t{0}, index_tensor(kept, {n})), Dims{n, 1}));
    result = add(zeros(Dims{bags, width}, weight.dtype()), int64_t{0}, bag_index, rows);
    if (mode == kBagMean) result = div(result, masked(to(view(bag_sizes, Dims{bags, 1}), weight.dtype())));
    extremes = zeros(Dims{bags}, Dtype::kInt64);
  }
  return Results(std::vector<TensorPtr>{result, index_tensor(bag_of, {total}), bag_sizes, extremes});
}

const OpFamily embedding(
    "embedding",
    {
        primitive(
            "embedding(Tensor weight, Tensor indices, int padding_idx=-1, bool scale_grad_by_freq=False, bool sparse=False) -> Tensor",
            infer_embedding, run_embedding)
            .checked([](const OpDef&, Args a) {
              LOHE_CHECK_KIND(kNotImplemented, a[4].integer == 0,
                              "embedding: sparse gradients are not supported; pass sparse=False");
            })
            .gradient_reads({"indices"})
            .grad([](Backward& b) {
              static const OpRef row("embedding_dense_backward");
              if (b.needs(0)) b.set(0, row(b.grad(), b.tensor(1), b.meta(0).sizes[0], b.arg(2), b.arg(3)));
            })
            .function_only()
            .describe("Rows of weight at indices; the row at padding_idx gets no gradient."),
        primitive(
            "embedding_dense_backward(Tensor grad_output, Tensor indices, int num_weights, int padding_idx, bool scale_grad_by_freq) -> Tensor",
            infer_embedding_backward, run_embedding_backward)
            .gradient_reads({"indices"})
            .grad([](Backward& b) {
              static const OpRef row("embedding"), equal("_embedding_kept"), unsqueeze("view");
              LOHE_CHECK(b.arg(4).integer == 0,
                         "double backward of embedding with scale_grad_by_freq is not supported");
              if (!b.needs(0)) return;
              const TensorPtr g = row(b.grad(), b.tensor(1));
              Dims sizes = b.tensor(1)->size_dims();
              sizes.push_back(1);
              static const OpRef reshape("reshape");
              b.set(0, b.arg(3).integer >= 0 ? equal(g, reshape(b.tensor(1), sizes), b.arg(3)) : g);
            })
            .function_only()
            .describe("The gradient of embedding: rows of grad_output added where they came from, in order."),
        pointwise("_embedding_kept(Tensor self, Tensor indices, int padding_idx) -> Tensor",
                  [](Value x, Value indices, Value padding) {
                    return select(indices == padding, x.literal(0), x);
                  })
            .promote(Promotion::kFirst)
            .runtime({"padding_idx"})
            .gradient_reads({"indices"})
            .derivative([](Value g, Value, Value, Value indices, Value padding) {
              return std::array<Value, 2>{select(indices == padding, g.literal(0), g), Value{}};
            })
            .function_only()
            .in("_C")
            .describe("self without the rows of the padding index."),
        primitive(
            "embedding_renorm_(Tensor(a!) self, Tensor indices, float max_norm, float norm_type) -> Tensor(a!)",
            nullptr, run_embedding_renorm)
            .function_only()
            .describe("Scales the rows at indices whose norm is above max_norm down to it."),
        function(
            "embedding_bag(Tensor weight, Tensor indices, Tensor offsets, bool scale_grad_by_freq=False, int mode=0, bool sparse=False, Tensor? per_sample_weights=None, bool include_last_offset=False, int? padding_idx=None) -> (Tensor, Tensor, Tensor, Tensor)",
            embedding_bag)
            .checked([](const OpDef&, Args a) {
              LOHE_CHECK_KIND(kNotImplemented, a[5].integer == 0,
                              "embedding_bag: sparse gradients are not supported; pass sparse=False");
              LOHE_CHECK_KIND(kNotImplemented, a[3].integer == 0,
                              "embedding_bag: scale_grad_by_freq is not supported");
            })
            .function_only()
            .describe(
                "Sums, means or maxima of the rows of each bag: result, bag of each index, bag sizes, rows of the maxima."),
        function("one_hot(Tensor self, int num_classes=-1) -> Tensor",
                 [](Args a) {
                   static const OpRef zeros("zeros"), scatter("scatter_.value"), reshape("reshape");
                   const TensorImpl& self = *a[0].tensor;
                   int64_t classes = a[1].integer;
                   LOHE_CHECK(self.dtype() == Dtype::kInt64,
                              "one_hot is only applicable to index tensor of type LongTensor.");
                   LOHE_CHECK(self.numel() != 0 || classes > 0,
                              "Can not infer total number of classes from empty tensor.");
                   const IndexRange range = index_range(self);
                   LOHE_CHECK(self.numel() == 0 || range.least >= 0, "Class values must be non-negative.");
                   if (classes == -1) classes = range.greatest + 1;
                   LOHE_CHECK(classes > 0 && range.greatest < classes,
                              "Class values must be smaller than num_classes.");
                   const TensorPtr out = zeros(row_shape(self, classes), Dtype::kInt64);
                   if (self.numel() == 0) return Results(out);
                   return Results(
                       scatter(out, self.dim(), reshape(a[0].tensor, row_shape(self, 1)), int64_t{1}));
                 })
            .in("nn")
            .describe("1 at the position that each index names, else 0."),
    });

}  // namespace
}  // namespace lohe::ops
