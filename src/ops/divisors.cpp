#include <utility>

#include "base/threads.h"
#include "lohe/error.h"
#include "ops/indexing.h"
#include "tensor/half.h"
#include "tensor/loops.h"
#include "tensor/shape.h"

/// Greatest common divisors and least common multiples of integers.
namespace lohe::ops {
namespace {

/// |x| without overflow.
template <class T>
uint64_t magnitude(T x) {
  return x < 0 ? 0 - static_cast<uint64_t>(x) : static_cast<uint64_t>(x);
}

template <class T>
T greatest_divisor(T x, T y) {
  uint64_t a = magnitude(x), b = magnitude(y);
  while (a != 0) b = std::exchange(a, b % a);
  return static_cast<T>(b);  // of the lowest number: itself
}

template <class T>
T least_multiple(T x, T y) {
  const T divisor = greatest_divisor(x, y);
  if (divisor == 0) return 0;
  const auto product =
      static_cast<T>(static_cast<uint64_t>(static_cast<int64_t>(x) / divisor) * static_cast<uint64_t>(y));
  return static_cast<T>(magnitude(product));
}

std::vector<Meta> like_first(Args a) {
  Meta m;
  m.dtype = a[0].tensor->dtype();
  m.sizes = a[0].tensor->size_dims();
  m.strides = a[0].tensor->stride_dims();
  return {m};
}

/// result = f(self, other) for integers of one dtype and shape.
template <class F>
void each_pair(Args a, Results& r, F&& f) {
  const TensorImpl &x = *a[0].tensor, &y = *a[1].tensor, &out = *r[0];
  const Loops<3> loops = make_loops<3>(x.sizes(), {x.strides(), y.strides(), out.strides()},
                                       {x.itemsize(), y.itemsize(), out.itemsize()});
  const auto [i, j, k] = loops.run_strides();
  visit_dtype(x.dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_integral_v<T> && !std::is_same_v<T, bool>) {
      parallel_for(loops.count(), 4096, [&](int64_t begin, int64_t end) {
        loops.range(begin, end, [&, i = i, j = j, k = k](const std::array<int64_t, 3>& at, int64_t n) {
          for (int64_t e = 0; e < n; ++e) {
            *reinterpret_cast<T*>(out.data() + at[2] + e * k) =
                f(*reinterpret_cast<const T*>(x.data() + at[0] + e * i),
                  *reinterpret_cast<const T*>(y.data() + at[1] + e * j));
          }
        });
      });
    }
  });
}

/// Both operands in their common dtype and shape, for the row that computes.
Results on_common(std::string_view name, const OpRef& row, Args a) {
  static const OpRef left("_broadcast_left"), right("_broadcast_right");
  const TensorPtr x = left(a[0], a[1]);
  LOHE_CHECK_KIND(kNotImplemented, is_integral(x->dtype(), false), "\"", name, "_cpu\" not implemented for '",
                  type_word(x->dtype()), "'; it takes integers");
  return row(x, right(a[0], a[1]));
}

const OpFamily divisors(
    "divisors",
    {
        primitive("_gcd(Tensor self, Tensor other) -> Tensor", like_first,
                  [](Args a, Results& r) {
                    each_pair(a, r, [](auto x, auto y) { return greatest_divisor(x, y); });
                  })
            .function_only()
            .in("_C")
            .not_differentiable()
            .describe("gcd of operands of one dtype and shape."),
        primitive("_lcm(Tensor self, Tensor other) -> Tensor", like_first,
                  [](Args a, Results& r) {
                    each_pair(a, r, [](auto x, auto y) { return least_multiple(x, y); });
                  })
            .function_only()
            .in("_C")
            .not_differentiable()
            .describe("lcm of operands of one dtype and shape."),
        pointwise("_broadcast_left(Tensor self, Tensor other) -> Tensor", [](Value x, Value) { return x; })
            .function_only()
            .in("_C")
            .describe("self in the common shape and dtype."),
        pointwise("_broadcast_right(Tensor self, Tensor other) -> Tensor", [](Value, Value y) { return y; })
            .function_only()
            .in("_C")
            .describe("other in the common shape and dtype."),
        function("gcd(Tensor self, Tensor other) -> Tensor",
                 [](Args a) {
                   static const OpRef row("_gcd");
                   return on_common("gcd", row, a);
                 })
            .inplace()
            .out()
            .not_differentiable()
            .describe("Greatest common divisor, not negative; gcd(0, 0) is 0."),
        function("lcm(Tensor self, Tensor other) -> Tensor",
                 [](Args a) {
                   static const OpRef row("_lcm");
                   return on_common("lcm", row, a);
                 })
            .inplace()
            .out()
            .not_differentiable()
            .describe("Least common multiple, not negative; lcm(0, x) is 0."),
    });

}  // namespace
}  // namespace lohe::ops
