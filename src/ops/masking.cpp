#include <cstring>

#include "base/threads.h"
#include "lohe/error.h"
#include "ops/indexing.h"
#include "tensor/shape.h"

/// Elements under a mask, in row-major order.
namespace lohe::ops {
namespace {

constexpr int64_t kBlock = 16384;

/// Runs of two operands laid over a shape, beside the number of True elements before each block.
struct MaskWalk {
  Loops<2> loops;  ///< strides of the operand, of the mask
  std::vector<int64_t> before;
  const char* mask;

  MaskWalk(const TensorImpl& operand, const TensorImpl& m, const Dims& shape) : mask(m.data()) {
    const Dims a = broadcast_strides(operand.sizes(), operand.strides(), shape),
               b = broadcast_strides(m.sizes(), m.strides(), shape);
    loops = make_loops<2>(shape, {std::span<const int64_t>(a), std::span<const int64_t>(b)},
                          {operand.itemsize(), 1});
    const int64_t total = loops.count(), blocks = (total + kBlock - 1) / kBlock,
                  step = loops.run_strides()[1];
    before.resize(static_cast<size_t>(blocks) + 1);
    parallel_for(blocks, 1, [&](int64_t b0, int64_t b1) {
      for (int64_t k = b0; k < b1; ++k) {
        int64_t found = 0;
        loops.range(k * kBlock, std::min(total, (k + 1) * kBlock),
                    [&](const std::array<int64_t, 2>& at, int64_t n) {
                      for (int64_t i = 0; i < n; ++i) found += mask[at[1] + i * step] != 0 ? 1 : 0;
                    });
        before[static_cast<size_t>(k) + 1] = found;
      }
    });
    for (size_t k = 1; k < before.size(); ++k) before[k] += before[k - 1];
  }
  int64_t found() const { return before.back(); }

  /// move(operand offset, number of the True element) for each of them.
  template <class F>
  void each(F&& move) const {
    const int64_t total = loops.count(), blocks = static_cast<int64_t>(before.size()) - 1;
    const auto [a, b] = loops.run_strides();
    parallel_for(blocks, 1, [&](int64_t b0, int64_t b1) {
      int64_t number = before[static_cast<size_t>(b0)];
      loops.range(b0 * kBlock, std::min(total, b1 * kBlock),
                  [&](const std::array<int64_t, 2>& at, int64_t n) {
                    for (int64_t i = 0; i < n; ++i) {
                      if (mask[at[1] + i * b] != 0) move(at[0] + i * a, number++);
                    }
                  });
    });
  }
};

void copy_element(char* to, const char* from, int64_t size) {
  switch (size) {
    case 1:
      std::memcpy(to, from, 1);
      return;
    case 2:
      std::memcpy(to, from, 2);
      return;
    case 4:
      std::memcpy(to, from, 4);
      return;
    case 8:
      std::memcpy(to, from, 8);
      return;
    default:
      std::memcpy(to, from, 16);
      return;
  }
}

void run_masked_select(Args a, Results& r) {
  static const OpRef empty("empty");
  const TensorImpl &self = *a[0].tensor, &mask = *a[1].tensor;
  LOHE_CHECK(mask.dtype() == Dtype::kBool, "masked_select: expected BoolTensor for mask");
  const MaskWalk walk(self, mask, broadcast_shapes(self.sizes(), mask.sizes()));
  const TensorPtr out = empty(Dims{walk.found()}, self.dtype());
  const int64_t size = self.itemsize();
  char *from = self.data(), *to = out->data();
  walk.each([&](int64_t at, int64_t number) { copy_element(to + number * size, from + at, size); });
  r.push(out);
}

std::vector<Meta> check_masked_scatter(Args a) {
  const TensorImpl &self = *a[0].tensor, &mask = *a[1].tensor;
  LOHE_CHECK(mask.dtype() == Dtype::kBool,
             "masked_scatter_ only supports boolean masks, but got mask with dtype ",
             type_word(mask.dtype()));
  LOHE_CHECK(a[0].tensor->dtype() == a[2].tensor->dtype(),
             "masked_scatter: expected self and source to have same dtypes but got",
             type_word(a[0].tensor->dtype()), " and ", type_word(a[2].tensor->dtype()));
  LOHE_CHECK(broadcast_shapes(self.sizes(), mask.sizes()) == self.size_dims(),
             "The expanded size of the tensor ", to_string(self.sizes()), " must match the mask's ",
             to_string(mask.sizes()), " in masked_scatter_");
  // A source that is not dense is copied first.
  check_written("masked_scatter_", self, {&mask, a[2].tensor->contiguous() ? a[2].tensor : nullptr});
  return {};
}

void run_masked_scatter(Args a, Results& r) {
  static const OpRef contiguous("contiguous");
  const TensorImpl& mask = *a[1].tensor;
  const WithoutGrad guard;
  const TensorPtr source = contiguous(plain(a[2].tensor));
  r = write_to(a[0].tensor, [&](TensorImpl& self) {
    const MaskWalk walk(self, mask, self.size_dims());
    LOHE_CHECK(source->numel() >= walk.found(), "Number of elements of source < number of ones in mask");
    const int64_t size = self.itemsize();
    char *to = self.data(), *from = source->data();
    walk.each([&](int64_t at, int64_t number) { copy_element(to + at, from + number * size, size); });
  });
}

const OpFamily masking(
    "masking",
    {
        primitive("masked_select(Tensor self, Tensor mask) -> Tensor", nullptr, run_masked_select)
            .exact_out()
            .gradient_reads({"mask"})
            .grad([](Backward& b) {
              static const OpRef zeros("zeros"), scatter("masked_scatter_");
              if (!b.needs(0)) return;
              const TensorPtr mask = b.tensor(1);
              b.set(0, scatter(zeros(broadcast_shapes(b.meta(0).sizes, mask->sizes()), b.meta(0).dtype), mask,
                               b.grad()));
            })
            .describe("The elements where the mask is True, in one row."),
        primitive("masked_scatter_(Tensor(a!) self, Tensor mask, Tensor source) -> Tensor(a!)",
                  check_masked_scatter, run_masked_scatter)
            .method_only()
            .gradient_reads({"mask"})
            .grad([](Backward& b) {
              static const OpRef fill("masked_fill"), select("masked_select"), zeros("zeros"), view("view"),
                  as_strided("as_strided"), copy("copy_"), expand("expand");
              const TensorPtr mask = b.tensor(1);
              if (b.needs(0)) b.set(0, fill(b.grad(), mask, 0.0));
              if (!b.needs(2)) return;
              const TensorPtr used = select(b.grad(), expand(mask, b.meta(0).sizes));
              const TensorPtr whole = zeros(Dims{numel_of(b.meta(2).sizes)}, b.meta(2).dtype);
              copy(as_strided(whole, used->sizes(), Dims{1}), used);
              b.set(2, view(whole, b.meta(2).sizes));
            })
            .describe("Writes the elements of source, in order, where the mask is True."),
        function("masked_scatter(Tensor self, Tensor mask, Tensor source) -> Tensor",
                 [](Args a) {
                   static const OpRef clone("clone"), expand("expand"), row("masked_scatter_");
                   const Dims shape = broadcast_shapes(a[0].tensor->sizes(), a[1].tensor->sizes());
                   return Results(row(clone(expand(a[0].tensor, shape), int64_t{0}),
                                      expand(a[1].tensor, shape), a[2].tensor));
                 })
            .describe("A copy of self with the elements of source, in order, where the mask is True."),
    });

}  // namespace
}  // namespace lohe::ops
