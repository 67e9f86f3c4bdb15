#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/threads.h"
#include "lohe/error.h"
#include "ops/indexing.h"
#include "tensor/half.h"
#include "tensor/shape.h"

/// Distinct values, membership, places in sorted sequences, counts, and questions that a program asks of
/// values.
namespace lohe::ops {
namespace {

/// Calls f with the element type; complex numbers have no order.
template <class F>
void visit_ordered(std::string_view op, Dtype dtype, F&& f) {
  visit_dtype(dtype, [&](auto zero) {
    if constexpr (kIsComplex<decltype(zero)>) {
      raise(ErrorKind::kNotImplemented, "\"", op, "\" not implemented for '", type_word(dtype), "'");
    } else {
      f(zero);
    }
  });
}

template <class T>
bool before(T a, T b) {  // NaN behind all numbers
  if constexpr (std::is_integral_v<T>)
    return a < b;
  else
    return a < b || (b != b && a == a);
}

TensorPtr dense(TensorImpl* t) {
  static const OpRef contiguous("contiguous");
  const WithoutGrad guard;
  return contiguous(plain(t));
}
TensorPtr longs(const std::vector<int64_t>& values, const Dims& sizes) {
  static const OpRef empty("empty");
  const TensorPtr t = empty(sizes, Dtype::kInt64);
  std::copy(values.begin(), values.end(), reinterpret_cast<int64_t*>(t->data()));
  return t;
}
TensorPtr no_longs() { return longs({}, Dims{0}); }

/// Groups of equal neighbours in an order: first position of each group, group of each element, sizes.
struct Groups {
  std::vector<int64_t> first, inverse, counts;
  template <class Same>
  Groups(const std::vector<int64_t>& order, Same&& same) : inverse(order.size()) {
    for (size_t i = 0; i < order.size(); ++i) {
      if (i == 0 || !same(order[i - 1], order[i])) {
        first.push_back(order[i]);
        counts.push_back(0);
      }
      inverse[static_cast<size_t>(order[i])] = static_cast<int64_t>(first.size()) - 1;
      ++counts.back();
    }
  }
};

Results unique_values(TensorImpl* given, bool sorted, bool want_inverse, bool want_counts) {
  static const OpRef empty("empty");
  const TensorPtr self = dense(given);
  std::vector<int64_t> order(static_cast<size_t>(self->numel()));
  std::iota(order.begin(), order.end(), 0);
  TensorPtr values;
  std::vector<int64_t> inverse, counts;
  visit_ordered("unique", self->dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto* p = reinterpret_cast<const T*>(self->data());
    if (sorted)
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return before(p[a], p[b]); });
    Groups groups(order, [&](int64_t a, int64_t b) { return p[a] == p[b]; });
    values = empty(Dims{static_cast<int64_t>(groups.first.size())}, self->dtype());
    auto* out = reinterpret_cast<T*>(values->data());
    for (size_t i = 0; i < groups.first.size(); ++i) out[i] = p[groups.first[i]];
    inverse = std::move(groups.inverse);
    counts = std::move(groups.counts);
  });
  return Results(values, want_inverse ? longs(inverse, self->size_dims()) : no_longs(),
                 want_counts ? longs(counts, Dims{static_cast<int64_t>(counts.size())}) : no_longs());
}

Results unique_slices(TensorImpl* given, int64_t dim, bool sorted, bool want_counts) {
  static const OpRef permute("permute"), select("index_select");
  const TensorPtr self = plain(given);
  dim = wrap_dim(dim, self->dim());
  LOHE_CHECK(
      self->dim() > 0 && (numel_of(self->sizes()) != 0 || self->sizes()[static_cast<size_t>(dim)] == 0),
      "There are 0 sized dimensions, and they aren't selected, so unique cannot be applied");
  // The dim in front, so that its slices lie dense; the result keeps that order in memory.
  Dims front{dim}, back;
  for (int64_t d = 0; d < self->dim(); ++d) {
    if (d != dim) front.push_back(d);
    back.push_back(d < dim ? d + 1 : d == dim ? 0 : d);
  }
  const TensorPtr rows = dense(permute(self, front).get());
  const int64_t n = rows->sizes()[0], width = n == 0 ? 0 : rows->numel() / n;
  std::vector<int64_t> order(static_cast<size_t>(n)), inverse, counts, first;
  std::iota(order.begin(), order.end(), 0);
  visit_ordered("unique_dim", rows->dtype(), [&](auto zero) {
    using T = decltype(zero);
    const auto* p = reinterpret_cast<const T*>(rows->data());
    if (sorted) {
      std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
        return std::lexicographical_compare(p + a * width, p + (a + 1) * width, p + b * width,
                                            p + (b + 1) * width, before<T>);
      });
    }
    Groups groups(order, [&](int64_t a, int64_t b) {
      return std::equal(p + a * width, p + (a + 1) * width, p + b * width);
    });
    first = std::move(groups.first);
    inverse = std::move(groups.inverse);
    counts = std::move(groups.counts);
  });
  const auto groups = static_cast<int64_t>(first.size());
  return Results(permute(select(rows, int64_t{0}, longs(first, Dims{groups})), back), longs(inverse, Dims{n}),
                 want_counts ? longs(counts, Dims{groups}) : no_longs());
}

// --- sorted sequences

template <class T>
int64_t place(const T* p, int64_t n, T value, bool right, const int64_t* sorter) {
  int64_t low = 0, high = n;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    const T at = p[sorter == nullptr ? middle : sorter[middle]];
    if (right ? !(at > value) : !(at >= value))
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

TensorPtr search(TensorImpl* sequence, TensorImpl* values, bool narrow, bool right, TensorImpl* sorter) {
  static const OpRef empty("empty"), to("to.dtype");
  const WithoutGrad guard;
  const Dtype dtype = promote_types(sequence->dtype(), values->dtype());
  LOHE_CHECK_KIND(kNotImplemented, dtype != Dtype::kBool || values->numel() == 0,
                  "\"searchsorted_out_cpu\" not implemented for 'Bool'");
  const TensorPtr s = dense(to(sequence, dtype).get()), v = dense(to(values, dtype).get());
  const TensorPtr order = sorter == nullptr ? TensorPtr() : dense(sorter);
  const TensorPtr out = empty(v->sizes(), narrow ? Dtype::kInt32 : Dtype::kInt64);
  const int64_t n = s->dim() == 0 ? 1 : s->sizes().back();
  LOHE_CHECK(!narrow || n < INT32_MAX, "torch.searchsorted(): the size of input sequence must be less than ",
             INT32_MAX, ", but got ", n);
  if (v->numel() == 0) return out;
  const bool shared = s->dim() <= 1;
  const int64_t per_row = shared ? std::max<int64_t>(v->numel(), 1) : v->sizes().back();
  visit_ordered("searchsorted_out_cpu", dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto* p = reinterpret_cast<const T*>(s->data());
    const auto* x = reinterpret_cast<const T*>(v->data());
    const auto* o = order ? reinterpret_cast<const int64_t*>(order->data()) : nullptr;
    parallel_for(v->numel(), 2048, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t row = shared ? 0 : i / per_row * n;
        const int64_t found = place(p + row, n, x[i], right, o == nullptr ? nullptr : o + row);
        if (narrow)
          reinterpret_cast<int32_t*>(out->data())[i] = static_cast<int32_t>(found);
        else
          reinterpret_cast<int64_t*>(out->data())[i] = found;
      }
    });
  });
  return out;
}

TensorPtr number_tensor(const Arg& a) {
  static const OpRef full("full");
  return full(Dims{}, a);
}

Results searchsorted(Args a, TensorImpl* values) {
  TensorImpl& sequence = *a[0].tensor;
  TensorImpl* sorter = a[5].kind == Arg::kTensor ? a[5].tensor : nullptr;
  LOHE_CHECK(a[4].none() || a[4].str() == "left" || a[4].str() == "right",
             "torch.searchsorted(): side can only be 'left' or 'right' but got ",
             a[4].none() ? "" : a[4].str());
  LOHE_CHECK(a[4].none() || a[4].str() == "right" || a[3].integer == 0,
             "torch.searchsorted(): side and right can't be set to opposites, got "
             "side of left while right was True");
  bool fits = sequence.dim() == 1 || sequence.dim() == values->dim();
  for (int64_t d = 0; fits && sequence.dim() > 1 && d + 1 < sequence.dim(); ++d) {
    fits = sequence.sizes()[static_cast<size_t>(d)] == values->sizes()[static_cast<size_t>(d)];
  }
  LOHE_CHECK(sequence.dim() != 0 && fits,
             "torch.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 dimensions of "
             "boundaries tensor and input value tensor must match, but we got boundaries tensor ",
             to_string(sequence.sizes()), " and input value tensor ", to_string(values->sizes()));
  if (sorter != nullptr) {
    LOHE_CHECK(sorter->size_dims() == sequence.size_dims(),
               "torch.searchsorted(): boundary and sorter must have the same size, but got "
               "boundary tensor ",
               to_string(sequence.sizes()), "and got sorter tensor ", to_string(sorter->sizes()));
    LOHE_CHECK(sorter->dtype() == Dtype::kInt64,
               "torch.searchsorted(): sorter must be a tensor of long dtype but got dtype ",
               type_word(sorter->dtype()));
    const IndexRange range = index_range(*sorter);
    LOHE_CHECK_INDEX(sorter->numel() == 0 || (range.least >= 0 && range.greatest < sequence.sizes().back()),
                     "torch.searchsorted(): sorter index out of range");
  }
  return search(&sequence, values, a[2].integer != 0,
                a[3].integer != 0 || (!a[4].none() && a[4].str() == "right"), sorter);
}

Results bucketize(TensorImpl* values, Args a) {
  LOHE_CHECK(a[1].tensor->dim() == 1, "boundaries tensor must be 1 dimension, but got dim(",
             a[1].tensor->dim(), ")");
  return search(a[1].tensor, values, a[2].integer != 0, a[3].integer != 0, nullptr);
}

Results isin(TensorImpl* elements, TensorImpl* tests, bool invert) {
  static const OpRef empty("empty"), to("to.dtype");
  for (const TensorImpl* t : {elements, tests}) {
    LOHE_CHECK(t->dtype() != Dtype::kBool && !is_complex(t->dtype()),
               "Unsupported input type encountered for isin(): ", type_word(t->dtype()));
  }
  const WithoutGrad guard;
  const Dtype dtype = promote_types(elements->dtype(), tests->dtype());
  const TensorPtr e = dense(to(elements, dtype).get()), t = dense(to(tests, dtype).get());
  const TensorPtr out = empty(e->sizes(), Dtype::kBool);
  auto* result = reinterpret_cast<bool*>(out->data());
  visit_ordered("isin", dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto* p = reinterpret_cast<const T*>(t->data());
    std::unique_ptr<T[]> sorted(new T[static_cast<size_t>(t->numel())]);
    std::copy(p, p + t->numel(), sorted.get());
    T* end = sorted.get() + t->numel();
    std::sort(sorted.get(), end, before<T>);
    const auto* x = reinterpret_cast<const T*>(e->data());
    parallel_for(e->numel(), 2048, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const T* at = std::lower_bound(sorted.get(), end, x[i], before<T>);
        result[i] = (at != end && *at == x[i]) != invert;
      }
    });
  });
  return out;
}

Results bincount(Args a) {
  static const OpRef zeros("zeros"), to("to.dtype");
  const TensorImpl& self = *a[0].tensor;
  const int64_t minimum = a[2].integer;
  LOHE_CHECK(minimum >= 0, "minlength should be >= 0");
  LOHE_CHECK_KIND(kNotImplemented, is_integral(self.dtype(), false), "\"bincount_cpu\" not implemented for '",
                  type_word(self.dtype()), "'");
  const WithoutGrad guard;
  const TensorPtr index = dense(to(a[0].tensor, Dtype::kInt64).get());
  const IndexRange range = index_range(*index);
  LOHE_CHECK(self.dim() == 1 && (self.numel() == 0 || range.least >= 0),
             "bincount only supports 1-d non-negative integral inputs.");
  TensorImpl* weights = a[1].kind == Arg::kTensor ? a[1].tensor : nullptr;
  LOHE_CHECK(weights == nullptr || (weights->dim() == 1 && weights->numel() == self.numel()),
             "weights should be 1-d and have the same length as input");
  const Dims sizes{std::max(minimum, self.numel() == 0 ? 0 : range.greatest + 1)};
  const auto* at = reinterpret_cast<const int64_t*>(index->data());
  if (weights == nullptr) {
    const TensorPtr out = zeros(sizes, Dtype::kInt64);
    auto* counts = reinterpret_cast<int64_t*>(out->data());
    for (int64_t i = 0; i < self.numel(); ++i) ++counts[at[i]];
    return out;
  }
  const Dtype dtype = weights->dtype() == Dtype::kFloat32 ? Dtype::kFloat32 : Dtype::kFloat64;
  const TensorPtr w = dense(to(weights, dtype).get()), out = zeros(sizes, dtype);
  const auto add = [&](auto zero) {
    using T = decltype(zero);
    for (int64_t i = 0; i < self.numel(); ++i)
      reinterpret_cast<T*>(out->data())[at[i]] += reinterpret_cast<const T*>(w->data())[i];
  };
  dtype == Dtype::kFloat32 ? add(float{}) : add(double{});
  return out;
}

// --- questions

Scalar number_of(TensorImpl* t) {
  LOHE_CHECK(t->numel() == 1, "a Tensor with ", t->numel(), " elements cannot be converted to Scalar");
  const TensorPtr p = dense(t);
  return visit_dtype(p->dtype(), [&](auto zero) -> Scalar {
    using T = decltype(zero);
    const T v = *reinterpret_cast<const T*>(p->data());
    if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>)
      return Scalar(static_cast<double>(static_cast<float>(v)));
    else if constexpr (kIsComplex<T>)
      return Scalar(std::complex<double>(v));
    else
      return Scalar(v);
  });
}

bool all_equal(TensorImpl* a, TensorImpl* b) {
  if (a->size_dims() != b->size_dims()) return false;
  static const OpRef to("to.dtype");
  const WithoutGrad guard;
  const Dtype dtype = promote_types(a->dtype(), b->dtype());
  const TensorPtr x = dense(to(a, dtype).get()), y = dense(to(b, dtype).get());
  return visit_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    const auto *p = reinterpret_cast<const T*>(x->data()), *q = reinterpret_cast<const T*>(y->data());
    for (int64_t i = 0; i < x->numel(); ++i) {
      if (!(p[i] == q[i])) return false;
    }
    return true;
  });
}

const OpFamily searching(
    "searching",
    {
        function(
            "_unique2(Tensor self, bool sorted=True, bool return_inverse=False, bool return_counts=False) -> (Tensor, Tensor, Tensor)",
            [](Args a) { return unique_values(a[0].tensor, true, a[2].integer != 0, a[3].integer != 0); })
            .function_only()
            .not_differentiable()
            .describe("The distinct values in order, where each element went, and how many there were."),
        function(
            "unique_dim(Tensor self, int dim, bool sorted=True, bool return_inverse=False, bool return_counts=False) -> (Tensor, Tensor, Tensor)",
            [](Args a) { return unique_slices(a[0].tensor, a[1].integer, true, a[4].integer != 0); })
            .function_only()
            .not_differentiable()
            .describe("The distinct slices along dim in lexicographic order."),
        function(
            "unique_consecutive(Tensor self, bool return_inverse=False, bool return_counts=False, int? dim=None) -> (Tensor, Tensor, Tensor)",
            [](Args a) {
              if (a[3].none()) return unique_values(a[0].tensor, false, a[1].integer != 0, a[2].integer != 0);
              return unique_slices(a[0].tensor, a[3].integer, false, a[2].integer != 0);
            })
            .function_only()
            .not_differentiable()
            .describe("One of each run of equal neighbours."),
        function(
            "searchsorted.Tensor(Tensor sorted_sequence, Tensor self, *, bool out_int32=False, bool right=False, str? side=None, Tensor? sorter=None) -> Tensor",
            [](Args a) { return searchsorted(a, a[1].tensor); })
            .function_only()
            .exact_out()
            .describe("Where each value would go in a sorted sequence."),
        function(
            "searchsorted.Scalar(Tensor sorted_sequence, Scalar self, *, bool out_int32=False, bool right=False, str? side=None, Tensor? sorter=None) -> Tensor",
            [](Args a) { return searchsorted(a, number_tensor(a[1]).get()); })
            .function_only()
            .exact_out()
            .describe("Where a number would go in a sorted sequence."),
        function(
            "bucketize.Tensor(Tensor self, Tensor boundaries, *, bool out_int32=False, bool right=False) -> Tensor",
            [](Args a) { return bucketize(a[0].tensor, a); })
            .function_only()
            .exact_out()
            .describe("The bucket of each value between sorted boundaries."),
        function(
            "bucketize.Scalar(Scalar self, Tensor boundaries, *, bool out_int32=False, bool right=False) -> Tensor",
            [](Args a) { return bucketize(number_tensor(a[0]).get(), a); })
            .function_only()
            .exact_out()
            .describe("The bucket of a number between sorted boundaries."),
        function(
            "isin.Tensor_Tensor(Tensor elements, Tensor test_elements, *, bool assume_unique=False, bool invert=False) -> Tensor",
            [](Args a) { return isin(a[0].tensor, a[1].tensor, a[3].integer != 0); })
            .function_only()
            .exact_out()
            .describe("Whether each element is one of the others."),
        function(
            "isin.Tensor_Scalar(Tensor elements, Scalar test_element, *, bool assume_unique=False, bool invert=False) -> Tensor",
            [](Args a) { return isin(a[0].tensor, number_tensor(a[1]).get(), a[3].integer != 0); })
            .function_only()
            .exact_out()
            .describe("Whether each element is a number."),
        function(
            "isin.Scalar_Tensor(Scalar element, Tensor test_elements, *, bool assume_unique=False, bool invert=False) -> Tensor",
            [](Args a) { return isin(number_tensor(a[0]).get(), a[1].tensor, a[3].integer != 0); })
            .function_only()
            .exact_out()
            .describe("Whether a number is one of the elements."),
        function("bincount(Tensor self, Tensor? weights=None, int minlength=0) -> Tensor", bincount)
            .not_differentiable()
            .describe("How often each integer from 0 comes, or the sum of its weights, in order."),
        function("_local_scalar_dense(Tensor self) -> Scalar",
                 [](Args a) { return Results(number_of(a[0].tensor)); })
            .function_only()
            .describe("The number in a tensor of one element."),
        function("is_nonzero(Tensor self) -> bool",
                 [](Args a) {
                   const int64_t n = a[0].tensor->numel();
                   LOHE_CHECK(n != 0, "Boolean value of Tensor with no values is ambiguous");
                   LOHE_CHECK(n < 2, "Boolean value of Tensor with more than one value is ambiguous");
                   return Results(Scalar(number_of(a[0].tensor).to_bool()));
                 })
            .describe("Whether the one element is not zero."),
        function("equal(Tensor self, Tensor other) -> bool",
                 [](Args a) { return Results(Scalar(all_equal(a[0].tensor, a[1].tensor))); })
            .describe("Whether two tensors have the same shape and equal elements."),
        function(
            "allclose(Tensor self, Tensor other, float rtol=1e-05, float atol=1e-08, bool equal_nan=False) -> bool",
            [](Args a) {
              static const OpRef close("isclose"), contiguous("contiguous");
              const WithoutGrad guard;
              const TensorPtr each = contiguous(close(a[0].tensor, a[1].tensor, a[2], a[3], a[4]));
              const auto* p = reinterpret_cast<const bool*>(each->data());
              return Results(Scalar(std::all_of(p, p + each->numel(), [](bool b) { return b; })));
            })
            .describe("Whether |self - other| <= atol + rtol * |other| for all elements."),
    });

}  // namespace
}  // namespace lohe::ops
