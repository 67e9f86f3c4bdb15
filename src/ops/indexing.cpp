#include "ops/indexing.h"

#include <algorithm>
#include <cstring>
#include <mutex>

#include "base/threads.h"
#include "lohe/error.h"
#include "tensor/half.h"
#include "tensor/shape.h"

/// tensor[index] and tensor[index] = values, and the positions of what is not zero.
namespace lohe::ops {

TensorPtr plain(TensorImpl* t) {
  static const OpRef resolve_conj("resolve_conj"), resolve_neg("resolve_neg");
  if (!t->conj() && !t->neg()) return TensorPtr(t);
  return resolve_neg(resolve_conj(t));
}

TensorPtr zeros_as(const Meta& m) {
  static const OpRef zeros("zeros");
  return zeros(m.sizes, m.dtype);
}

TensorPtr number_tensor(const Arg& value, Dtype dtype) {
  static const OpRef full("full");
  const WithoutGrad guard;
  return full(Dims{}, value, dtype);
}

std::string type_word(Dtype dtype) {
  const std::string_view t = info(dtype).tensor_type;
  return std::string(t.substr(0, t.size() - 6));
}

void check_written(std::string_view op, const TensorImpl& self,
                   std::initializer_list<const TensorImpl*> sources) {
  LOHE_CHECK(!may_overlap(self.sizes(), self.strides()),
             "unsupported operation: more than one element of the written-to tensor refers "
             "to a single memory location. Please clone() the tensor before performing the operation.");
  LOHE_CHECK(self.storage().writable(), op,
             ": the memory of the written tensor is read-only; clone() it first");
  const auto extent = [](const TensorImpl& x) {  // of one storage: recorded work is not waited for
    int64_t last = 0;
    for (size_t i = 0; i < x.sizes().size(); ++i) last += (x.sizes()[i] - 1) * x.strides()[i];
    return std::pair{x.offset() * x.itemsize(), (x.offset() + last + 1) * x.itemsize()};
  };
  for (const TensorImpl* s : sources) {
    if (s == nullptr || &s->storage() != &self.storage() || s->numel() == 0 || self.numel() == 0) continue;
    const auto [a0, a1] = extent(*s);
    const auto [b0, b1] = extent(self);
    LOHE_CHECK(
        a1 <= b0 || b1 <= a0,
        "unsupported operation: some elements of the input tensor and the written-to tensor refer to a "
        "single memory location. Please clone() the tensor before performing the operation.");
  }
}

IndexRange index_range(const TensorImpl& index) {
  constexpr int64_t kGrain = 1 << 15;
  if (index.numel() == 0) return {};
  const Loops<1> loops = make_loops(index);
  const bool wide = is_wide(index);
  const int64_t step = loops.run_strides()[0];
  IndexRange all{INT64_MAX, INT64_MIN};
  std::mutex mutex;
  parallel_for(loops.count(), kGrain, [&](int64_t begin, int64_t end) {
    IndexRange r{INT64_MAX, INT64_MIN};
    loops.range(begin, end, [&](const std::array<int64_t, 1>& at, int64_t n) {
      const char* p = index.data() + at[0];
      for (int64_t i = 0; i < n; ++i) {
        const int64_t v = read_index(p + i * step, wide);
        r.least = std::min(r.least, v);
        r.greatest = std::max(r.greatest, v);
      }
    });
    const std::lock_guard lock(mutex);
    all.least = std::min(all.least, r.least);
    all.greatest = std::max(all.greatest, r.greatest);
  });
  return all;
}

std::vector<int64_t> offsets_along(const TensorImpl& index, int64_t step, int64_t size) {
  std::vector<int64_t> offsets(static_cast<size_t>(index.numel()));
  const Loops<1> loops = make_loops(index);
  const bool wide = is_wide(index);
  const int64_t stride = loops.run_strides()[0];
  size_t to = 0;
  loops.range(0, loops.count(), [&](const std::array<int64_t, 1>& at, int64_t n) {
    if (offsets.empty()) return;
    const char* p = index.data() + at[0];
    for (int64_t i = 0; i < n; ++i) {
      const int64_t v = read_index(p + i * stride, wide);
      offsets[to++] = (v < 0 ? v + size : v) * step;
    }
  });
  return offsets;
}

Results through_copy(const OpRef& row, Args args, bool contiguous) {
  static const OpRef clone("clone");
  const TensorPtr copy = contiguous ? clone(args[0].tensor, int64_t{0}) : clone(args[0].tensor);
  Arg all[64];
  std::copy(args.begin(), args.end(), all);
  all[0] = Arg(copy);
  return dispatch::call(row.op(), Args(all, args.size()));
}

TensorPtr nonzero_of(const TensorImpl& t) {
  static const OpRef empty("empty"), transpose("transpose.int");
  const Loops<1> loops = make_loops(t);
  constexpr int64_t kBlock = 16384;
  const int64_t total = t.numel(), blocks = (total + kBlock - 1) / kBlock;
  std::vector<int64_t> first(static_cast<size_t>(blocks) + 1);
  const int64_t rank = t.dim();
  return visit_dtype(t.dtype(), [&](auto zero) {
    using T = decltype(zero);
    const int64_t step = loops.run_strides()[0];
    const auto is_set = [](const char* p) {
      if constexpr (std::is_same_v<T, bool>)
        return *reinterpret_cast<const uint8_t*>(p) != 0;
      else if constexpr (std::is_same_v<T, Float16> || std::is_same_v<T, BFloat16>)
        return static_cast<float>(*reinterpret_cast<const T*>(p)) != 0;
      else
        return *reinterpret_cast<const T*>(p) != T{};
    };
    parallel_for(blocks, 1, [&](int64_t b0, int64_t b1) {
      for (int64_t b = b0; b < b1; ++b) {
        int64_t found = 0;
        loops.range(b * kBlock, std::min(total, (b + 1) * kBlock),
                    [&](const std::array<int64_t, 1>& at, int64_t n) {
                      const char* p = t.data() + at[0];
                      for (int64_t i = 0; i < n; ++i) found += is_set(p + i * step) ? 1 : 0;
                    });
        first[static_cast<size_t>(b) + 1] = found;
      }
    });
    for (size_t b = 0; b < static_cast<size_t>(blocks); ++b) first[b + 1] += first[b];
    const int64_t count = first.back();
    const Dims sizes{rank, count};
    const TensorPtr columns = empty(sizes, Dtype::kInt64);
    auto* out = reinterpret_cast<int64_t*>(columns->data());
    parallel_for(blocks, 1, [&](int64_t b0, int64_t b1) {
      for (int64_t b = b0; b < b1; ++b) {
        int64_t to = first[static_cast<size_t>(b)], logical = b * kBlock;
        loops.range(b * kBlock, std::min(total, (b + 1) * kBlock),
                    [&](const std::array<int64_t, 1>& at, int64_t n) {
                      const char* p = t.data() + at[0];
                      for (int64_t i = 0; i < n; ++i, ++logical) {
                        if (!is_set(p + i * step)) continue;
                        int64_t rest = logical;
                        for (int64_t d = rank; d-- > 0;) {
                          const int64_t size = t.sizes()[static_cast<size_t>(d)];
                          out[d * count + to] = rest % size;
                          rest /= size;
                        }
                        ++to;
                      }
                    });
      }
    });
    return transpose(columns, 0, 1);
  });
}

namespace {

/// Index tensors of a call, masks turned into positions, broadcast together.
struct AdvancedIndex {
  std::vector<TensorPtr> kept;     ///< by dim of self, null where there is none
  std::vector<size_t> dims;        ///< indexed dims
  Dims shape;                      ///< of the positions
  Dims result;                     ///< of self[index]
  size_t at = 0;                   ///< where `shape` stands in `result`
  std::vector<size_t> slice_dims;  ///< dims of self that are not indexed
  std::vector<int64_t> offsets;    ///< bytes in self, by position; see locate()

  /// Looks at the values of masks alone.
  AdvancedIndex(const TensorImpl& self, std::span<TensorImpl* const> indices) {
    expand_masks(self, indices);
    const auto rank = static_cast<size_t>(self.dim());
    kept.resize(rank);
    for (size_t d = 0; d < rank; ++d) (kept[d] ? dims : slice_dims).push_back(d);
    for (const size_t d : dims) broadcast(*kept[d]);
    for (const size_t d : dims) {
      LOHE_CHECK_INDEX(numel_of(shape) == 0 || self.sizes()[d] != 0,
                       "index is out of bounds for dimension with size 0");
    }
    bool adjacent = true;
    for (size_t i = 1; i < dims.size(); ++i) adjacent = adjacent && dims[i] == dims[i - 1] + 1;
    at = adjacent && !dims.empty() ? dims[0] : 0;
    for (size_t i = 0; i < slice_dims.size(); ++i) {
      if (i == at) insert_shape();
      result.push_back(self.sizes()[slice_dims[i]]);
    }
    if (slice_dims.size() <= at) insert_shape();
  }

  /// Finds the positions. @throws IndexError.
  void locate(const TensorImpl& self) {
    const int64_t total = numel_of(shape);
    offsets.resize(static_cast<size_t>(total));
    if (total == 0 || numel_of(result) == 0) return;
    for (const size_t d : dims) {
      const TensorImpl& t = *kept[d];
      const int64_t size = self.sizes()[d], stride = self.strides()[d] * self.itemsize();
      const IndexRange range = index_range(t);
      if (range.greatest >= size || range.least < -size) {
        raise(ErrorKind::kIndex, "index ", range.greatest >= size ? range.greatest : range.least,
              " is out of bounds for dimension ", d, " with size ", size);
      }
      const Dims strides = broadcast_strides(t.sizes(), t.strides(), shape);
      const Loops<1> loops = make_loops<1>(shape, {std::span<const int64_t>(strides)}, {t.itemsize()});
      const bool wide = is_wide(t);
      const int64_t step = loops.run_strides()[0];
      parallel_for(total, 32768, [&](int64_t begin, int64_t end) {
        int64_t* to = offsets.data() + begin;
        loops.range(begin, end, [&](const std::array<int64_t, 1>& from, int64_t n) {
          const char* p = t.data() + from[0];
          for (int64_t i = 0; i < n; ++i) {
            const int64_t v = read_index(p + i * step, wide);
            *to++ += (v < 0 ? v + size : v) * stride;
          }
        });
      });
    }
  }

  /// Element strides of self in the result's dims; 0 along the positions.
  Dims restrided(const TensorImpl& self) const {
    Dims s(result.size());
    for (size_t i = 0; i < slice_dims.size(); ++i)
      s[i < at ? i : i + shape.size()] = self.strides()[slice_dims[i]];
    return s;
  }

  /// The walk between self and a tensor laid over the result. @param strides elements, by result dim.
  backend::SliceIndex walk(TensorImpl& self, char* other, std::span<const int64_t> strides,
                           std::vector<int64_t>& storage) const {
    backend::SliceIndex x;
    x.self = self.data();
    x.other = other;
    x.at = offsets.data();
    x.positions = static_cast<int64_t>(offsets.size());
    const int64_t size = self.itemsize();
    for (size_t i = 0; i < slice_dims.size(); ++i) {
      x.slice.add(self.sizes()[slice_dims[i]],
                  {self.strides()[slice_dims[i]] * size, strides[i < at ? i : i + shape.size()] * size});
    }
    Loops<1> positions;
    for (size_t i = 0; i < shape.size(); ++i) positions.add(shape[i], {strides[at + i] * size});
    if (positions.flat()) {
      x.other_step = positions.run_strides()[0];
    } else {
      storage.resize(offsets.size());
      size_t to = 0;
      const int64_t step = positions.run_strides()[0];
      positions.range(0, positions.count(), [&](const std::array<int64_t, 1>& from, int64_t n) {
        for (int64_t k = 0; k < n; ++k) storage[to++] = from[0] + k * step;
      });
      x.other_at = storage.data();
    }
    return x;
  }

 private:
  void insert_shape() {
    for (const int64_t s : shape) result.push_back(s);
  }

  void expand_masks(const TensorImpl& self, std::span<TensorImpl* const> indices) {
    static const OpRef select("as_strided");
    const auto rank = static_cast<size_t>(self.dim());
    LOHE_CHECK_INDEX(indices.size() <= rank, "too many indices for tensor of dimension ", rank, " (got ",
                     indices.size(), ")");
    for (TensorImpl* t : indices) {
      if (t == nullptr) {
        kept.push_back(nullptr);
        continue;
      }
      const Dtype d = t->dtype();
      LOHE_CHECK_INDEX(d == Dtype::kInt64 || d == Dtype::kInt32 || d == Dtype::kBool || d == Dtype::kUInt8,
                       "tensors used as indices must be long, int, byte or bool tensors");
      if (d == Dtype::kInt64 || d == Dtype::kInt32) {
        kept.push_back(TensorPtr(t));
        continue;
      }
      const size_t first = kept.size();
      for (size_t k = 0; k < static_cast<size_t>(t->dim()); ++k) {
        LOHE_CHECK_INDEX(first + k < rank && t->sizes()[k] == self.sizes()[first + k],
                         "The shape of the mask ", to_string(t->sizes()), " at index ", k,
                         " does not match the shape of the indexed tensor ", to_string(self.sizes()),
                         " at index ", first + k);
      }
      const TensorPtr positions = nonzero_of(*t);
      const int64_t n = positions->sizes()[0];
      for (int64_t k = 0; k < t->dim(); ++k) {
        kept.push_back(select(positions, Dims{n}, Dims{1}, k * n));
      }
    }
    LOHE_CHECK_INDEX(kept.size() <= rank, "too many indices for tensor of dimension ", rank, " (got ",
                     kept.size(), ")");
  }

  void broadcast(const TensorImpl& t) {
    try {
      shape = broadcast_shapes(shape, t.sizes());
    } catch (const Error&) {
      std::string all;
      for (const size_t d : dims) all += (all.empty() ? "" : ", ") + to_string(kept[d]->sizes());
      raise(ErrorKind::kIndex,
            "shape mismatch: indexing tensors could not be broadcast together with shapes ", all);
    }
  }
};

bool has_mask(Args a) {
  const auto list = a[1].tensor_list();
  return std::any_of(list.begin(), list.end(), [](const TensorImpl* t) {
    return t != nullptr && (t->dtype() == Dtype::kBool || t->dtype() == Dtype::kUInt8);
  });
}

Meta index_result(const TensorImpl& self, const AdvancedIndex& index) {
  // Strides follow those of self, then those of the indices, as an elementwise operation's would.
  std::vector<Dims> laid{index.restrided(self)};
  for (const size_t d : index.dims) {
    Dims s(index.result.size());
    const Dims own = broadcast_strides(index.kept[d]->sizes(), index.kept[d]->strides(), index.shape);
    for (size_t i = 0; i < own.size(); ++i) s[index.at + i] = own[i];
    laid.push_back(std::move(s));
  }
  const std::vector<std::span<const int64_t>> operands(laid.begin(), laid.end());
  Meta m = row_major(self.dtype(), index.result);
  m.strides = elementwise_strides(index.result, operands);
  return m;
}

std::vector<Meta> infer_index(Args a) {
  return {index_result(*a[0].tensor, AdvancedIndex(*a[0].tensor, a[1].tensor_list()))};
}

void run_index(Args a, Results& r) {
  static const OpRef empty_strided("empty_strided");
  TensorImpl& self = *a[0].tensor;
  AdvancedIndex index(self, a[1].tensor_list());
  index.locate(self);
  if (r.size() == 0) {
    const Meta m = index_result(self, index);
    r.push(empty_strided(m.sizes, m.strides, m.dtype));
  }
  std::vector<int64_t> storage;
  if (r[0]->numel() != 0)
    backend::gather_slices(index.walk(self, r[0]->data(), r[0]->strides(), storage), self.itemsize());
}

void check_values(const AdvancedIndex& index, const TensorImpl& values) {
  bool fits = values.sizes().size() <= index.result.size();
  for (size_t i = 0; fits && i < values.sizes().size(); ++i) {
    const int64_t v = values.sizes()[i], want = index.result[index.result.size() - values.sizes().size() + i];
    fits = v == 1 || v == want;
  }
  LOHE_CHECK(fits, "shape mismatch: value tensor of shape ", to_string(values.sizes()),
             " cannot be broadcast to indexing result of shape ", to_string(index.result));
}

void check_target(const TensorImpl& self, const TensorImpl& values) {
  LOHE_CHECK(values.dtype() == self.dtype(),
             "Index put requires the source and destination dtypes match, got ", type_word(self.dtype()),
             " for the destination and ", type_word(values.dtype()), " for the source.");
  check_written("index_put_", self, {});
}

std::vector<Meta> check_index_put(Args a) {
  check_target(*a[0].tensor, *a[2].tensor);
  check_values(AdvancedIndex(*a[0].tensor, a[1].tensor_list()), *a[2].tensor);
  return {};
}

void run_index_put(Args a, Results& r) {
  check_target(*a[0].tensor, *a[2].tensor);
  const TensorPtr values = plain(a[2].tensor);
  const bool accumulate = a[3].integer != 0;
  r = write_to(a[0].tensor, [&](TensorImpl& self) {
    TensorPtr source = values;
    if (&values->storage() == &self.storage()) {
      static const OpRef clone("clone");
      source = clone(values);
    }
    AdvancedIndex index(self, a[1].tensor_list());
    check_values(index, *values);
    index.locate(self);
    const Dims strides = broadcast_strides(source->sizes(), source->strides(), index.result);
    std::vector<int64_t> storage;
    if (numel_of(index.result) == 0) return;
    backend::scatter_slices(index.walk(self, source->data(), strides, storage), self.dtype(),
                            accumulate ? backend::Combine::kAdd : backend::Combine::kCopy);
  });
}

/// Index tensors that a node saved, as an argument again.
struct SavedIndices {
  std::vector<TensorPtr> owned;
  std::vector<TensorImpl*> raw;
  SavedIndices(Backward& b, int param) {
    for (int i = 0; i < b.arg(param).count; ++i) {
      owned.push_back(b.tensor(param, i));
      raw.push_back(owned.back().get());
    }
  }
  Arg arg() const { return Arg(std::span<TensorImpl* const>(raw)); }
};

/// A number as a 0-dim tensor.
TensorPtr zero_of(Dtype dtype) {
  static const OpRef zeros("zeros");
  return zeros(Dims{}, dtype);
}

TensorPtr column(const TensorPtr& positions, int64_t k) {
  static const OpRef as_strided("as_strided");
  const int64_t n = positions->sizes()[0];
  return as_strided(positions, Dims{n}, Dims{1}, positions->offset() + k * n);
}

void check_not_empty(const TensorImpl& self, const TensorImpl& index) {
  LOHE_CHECK_INDEX(self.numel() != 0 || index.numel() == 0, "take(): tried to take from an empty tensor");
}

/// Offsets of flat positions in a tensor that may have any strides.
std::vector<int64_t> flat_offsets(const TensorImpl& self, const TensorImpl& index) {
  const int64_t size = self.numel();
  const IndexRange range = index_range(index);
  LOHE_CHECK_INDEX(range.greatest < size && range.least >= -size, "out of range: tried to access index ",
                   range.greatest >= size ? range.greatest : range.least, " on a tensor of ", size,
                   " elements.");
  std::vector<int64_t> offsets = offsets_along(index, 1, size);
  for (int64_t& o : offsets) {
    if (self.contiguous()) {
      o *= self.itemsize();
      continue;
    }
    int64_t rest = o, at = 0;
    for (size_t d = self.sizes().size(); d-- > 0;) {
      at += rest % self.sizes()[d] * self.strides()[d];
      rest /= self.sizes()[d];
    }
    o = at * self.itemsize();
  }
  return offsets;
}

/// A list of single elements of self beside the elements of `other` in row-major order.
backend::SliceIndex element_walk(TensorImpl& self, const std::vector<int64_t>& offsets,
                                 const TensorImpl& other, std::vector<int64_t>& storage) {
  backend::SliceIndex x;
  x.self = self.data();
  x.other = other.data();
  x.at = offsets.data();
  x.positions = static_cast<int64_t>(offsets.size());
  const Loops<1> loops = make_loops(other);
  if (loops.flat()) {
    x.other_step = loops.run_strides()[0];
  } else {
    const int64_t step = loops.run_strides()[0];
    loops.range(0, loops.count(), [&](const std::array<int64_t, 1>& from, int64_t n) {
      for (int64_t k = 0; k < n; ++k) storage.push_back(from[0] + k * step);
    });
    x.other_at = storage.data();
  }
  return x;
}

std::vector<Meta> infer_take(Args a) {
  const TensorImpl &self = *a[0].tensor, &index = *a[1].tensor;
  LOHE_CHECK(index.dtype() == Dtype::kInt64, "take(): Expected a long tensor for index, but got ",
             type_word(index.dtype()));
  check_not_empty(self, index);
  return {row_major(self.dtype(), index.size_dims())};
}

void run_take(Args a, Results& r) {
  TensorImpl& self = *a[0].tensor;
  const std::vector<int64_t> offsets = flat_offsets(self, *a[1].tensor);
  std::vector<int64_t> storage;
  if (r[0]->numel() != 0)
    backend::gather_slices(element_walk(self, offsets, *r[0], storage), self.itemsize());
}

std::vector<Meta> check_put(Args a) {
  const TensorImpl &self = *a[0].tensor, &index = *a[1].tensor, &source = *a[2].tensor;
  LOHE_CHECK(index.dtype() == Dtype::kInt64, "put_(): Expected a long tensor for index, but got ",
             type_word(index.dtype()));
  LOHE_CHECK(source.dtype() == self.dtype(),
             "put_(): self and source expected to have the same dtype, but got self.dtype = ",
             type_word(self.dtype()), " and source.dtype = ", type_word(source.dtype()));
  LOHE_CHECK_INDEX(source.numel() == index.numel(),
                   "put_(): Expected source and index to have the same number of elements, but got "
                   "source.numel() = ",
                   source.numel(), ", index.numel() = ", index.numel());
  check_written("put_", self, {&index, &source});
  check_not_empty(self, index);
  return {};
}

void run_put(Args a, Results& r) {
  const TensorPtr source = plain(a[2].tensor);
  r = write_to(a[0].tensor, [&](TensorImpl& self) {
    const std::vector<int64_t> offsets = flat_offsets(self, *a[1].tensor);
    std::vector<int64_t> storage;
    if (offsets.empty()) return;
    backend::scatter_slices(element_walk(self, offsets, *source, storage), self.dtype(),
                            a[3].integer != 0 ? backend::Combine::kAdd : backend::Combine::kCopy);
  });
}

const OpFamily indexing(
    "indexing",
    {
        primitive("index.Tensor(Tensor self, Tensor?[] indices) -> Tensor", infer_index, run_index)
            .shaped_by_values(has_mask)
            .gradient_reads({"indices"})
            .grad([](Backward& b) {
              static const OpRef index_put("index_put_");
              if (!b.needs(0)) return;
              const SavedIndices indices(b, 1);
              b.set(0, index_put(zeros_as(b.meta(0)), indices.arg(), b.grad(), true));
            })
            .function_only()
            .in("_C")
            .describe(
                "self[indices]: index tensors broadcast together; masks stand for the positions of True."),
        primitive(
            "index_put_(Tensor(a!) self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor(a!)",
            check_index_put, run_index_put)
            .shaped_by_values(has_mask)
            .gradient_reads({"indices"})
            .grad([](Backward& b) {
              static const OpRef index_put("index_put"), index("index.Tensor");
              const SavedIndices indices(b, 1);
              if (b.needs(0)) {
                b.set(0, b.arg(3).integer != 0
                             ? b.grad()
                             : index_put(b.grad(), indices.arg(), zero_of(b.meta(0).dtype), false));
              }
              if (b.needs(2)) b.set(2, index(b.grad(), indices.arg()));
            })
            .describe("self[indices] = values, or += with accumulate; the last of equal positions stays."),
        function("index_put(Tensor self, Tensor?[] indices, Tensor values, bool accumulate=False) -> Tensor",
                 [](Args a) {
                   static const OpRef row("index_put_");
                   return through_copy(row, a, false);
                 })
            .describe("A copy of self with self[indices] = values."),
        function(
            "_index_put_impl_(Tensor(a!) self, Tensor?[] indices, Tensor values, bool accumulate=False, bool unsafe=False) -> Tensor(a!)",
            [](Args a) {
              static const OpRef row("index_put_");
              return dispatch::call(row.op(), a.first(4));
            })
            .function_only()
            .describe("As index_put_."),
        primitive("take(Tensor self, Tensor index) -> Tensor", infer_take, run_take)
            .exact_out()
            .gradient_reads({"index"})
            .grad([](Backward& b) {
              static const OpRef put("put_");
              if (b.needs(0)) b.set(0, put(zeros_as(b.meta(0)), b.tensor(1), b.grad(), true));
            })
            .describe("Elements at positions of self seen as one row."),
        primitive("put_(Tensor(a!) self, Tensor index, Tensor source, bool accumulate=False) -> Tensor(a!)",
                  check_put, run_put)
            .method_only()
            .gradient_reads({"index"})
            .grad([](Backward& b) {
              static const OpRef put("put"), take("take"), reshape("reshape");
              if (b.needs(0)) {
                Meta m = b.meta(2);
                b.set(0, b.arg(3).integer != 0 ? b.grad() : put(b.grad(), b.tensor(1), zeros_as(m), false));
              }
              if (b.needs(2)) b.set(2, reshape(take(b.grad(), b.tensor(1)), b.meta(2).sizes));
            })
            .describe("Writes source at positions of self seen as one row."),
        function("put(Tensor self, Tensor index, Tensor source, bool accumulate=False) -> Tensor",
                 [](Args a) {
                   static const OpRef row("put_");
                   return through_copy(row, a, false);
                 })
            .describe("A copy of self with source at the given positions."),
        primitive("nonzero(Tensor self) -> Tensor", nullptr,
                  [](Args a, Results& r) { r.push(nonzero_of(*a[0].tensor)); })
            .not_differentiable()
            .exact_out()
            .describe("Indices of the elements that are not zero, one row each."),
        function("nonzero_numpy(Tensor self) -> Tensor[]",
                 [](Args a) {
                   static const OpRef reshape("reshape");
                   const TensorPtr self =
                       a[0].tensor->dim() == 0 ? reshape(a[0].tensor, Dims{1}) : TensorPtr(a[0].tensor);
                   const TensorPtr positions = nonzero_of(*self);
                   std::vector<TensorPtr> columns;
                   for (int64_t k = 0; k < self->dim(); ++k) columns.push_back(column(positions, k));
                   return Results(std::move(columns));
                 })
            .not_differentiable()
            .describe("Indices of the elements that are not zero, one tensor a dim."),
        function("argwhere(Tensor self) -> Tensor",
                 [](Args a) {
                   static const OpRef nonzero("nonzero");
                   return Results(nonzero(a[0].tensor));
                 })
            .not_differentiable()
            .describe("Indices of the elements that are not zero, one row each."),
        function("where(Tensor condition) -> Tensor[]",
                 [](Args a) {
                   static const OpRef row("nonzero_numpy");
                   return row.all(a[0].tensor);
                 })
            .not_differentiable()
            .function_only()
            .describe("Indices of the elements that are not zero, one tensor a dim."),
    });

}  // namespace
}  // namespace lohe::ops
