#include "ops/random.h"

#include <cmath>
#include <limits>
#include <optional>

#include "lohe/error.h"
#include "ops/indexing.h"
#include "tensor/shape.h"
#include "tensor/watcher.h"

/// Tensors filled in place from a distribution, and the factories that do it for fresh ones. The kernels draw
/// from Philox at counter = offset + row-major position of the element, so the numbers depend on neither
/// strides nor threads.
namespace lohe::ops {
namespace {

using namespace ir;

/// The words of the element at hand.
struct Words {
  Graph& graph;
  Node key, counter;

  Words(GraphCall& c, size_t seed) : graph(c.graph), key(c.nodes[seed]) {
    counter = c.nodes[seed + 1] + graph.iota(kOuter, Dtype::kInt64);
  }
  Node word(int i) const { return graph.philox(counter, key, i); }
  /// The upper `bits` of word i, at most 31, as a floating number.
  Node upper(int i, int bits, Dtype dtype) const {
    const Node w = word(i);
    return cast(cast(shift_right(w, w.literal(32 - bits)), Dtype::kInt32), dtype);
  }
  /// The upper bits of words i and i + 1 together, 33 to 63 of them.
  Node wide(int i, int bits) const {
    const Node high = word(i), low = word(i + 1);
    return shift_left(high, high.literal(bits - 32)) | shift_right(low, low.literal(64 - bits));
  }
  /// [0, 1) on the grid of the result's own precision, so that rounding to it never gives 1.
  Node unit(Dtype compute, Dtype result) const {
    if (compute == Dtype::kFloat64) return cast(wide(0, 53), compute) * 0x1p-53;
    const int bits = result == Dtype::kFloat16 ? 11 : result == Dtype::kBFloat16 ? 8 : 24;
    return upper(0, bits, compute) * std::ldexp(1.0, -bits);
  }
  /// (0, 1), neither end included.
  Node open(Dtype compute) const {
    if (compute == Dtype::kFloat64) return (cast(wide(0, 52), compute) + 0.5) * 0x1p-52;
    return (upper(0, 23, compute) + 0.5) * 0x1p-23;
  }
  /// Standard normal (Box and Muller, 1958): one of the pair, so that an element needs its own counter only.
  Node normal(Dtype compute) const {
    constexpr double kTwoPi = 6.283185307179586476925;
    if (compute == Dtype::kFloat64) {
      return sqrt(log(open(compute)) * -2.0) * cos(cast(wide(2, 53), compute) * (0x1p-53 * kTwoPi));
    }
    const Node u = (upper(0, 31, compute) + 0.5) * 0x1p-31;
    return sqrt(log(minimum(u.literal(1), u)) * -2.0) * cos(upper(1, 24, compute) * (0x1p-24 * kTwoPi));
  }
};

/// Parameters of these rows: self, then the distribution's, then seed and offset.
Node number(GraphCall& c, size_t p) { return cast(c.nodes[p], c.compute_dtype); }
Dtype working_dtype(const GraphCall& c) {
  return is_differentiable(c.compute_dtype) ? c.compute_dtype : Dtype::kFloat64;
}

/// In place on self, whose old value does not count.
template <class F>
OpDef filler(std::string_view schema, DtypeSet dtypes, F body) {
  return pointwise(schema, body)
      .promote(Promotion::kFirst)
      .dtypes_are(dtypes)
      .in("_C")
      .gradient_reads({})
      .derivative([](GraphCall& c) { return std::vector<Node>{c.graph.constant(c.compute_dtype, 0)}; });
}

}  // namespace

Generator& generator_of(const Arg& a) {
  return a.kind == Arg::kGenerator ? *a.generator : default_generator();
}

Draw draw(const Arg& generator, int64_t counters) {
  Generator& from = generator_of(generator);
  Watcher* const watcher = &from == &default_generator() ? current_watcher() : nullptr;
  std::optional<Unwatched> told;
  if (watcher != nullptr) told.emplace();
  const Generator::State s = from.reserve(counters);
  const Draw at{static_cast<int64_t>(s.seed), static_cast<int64_t>(s.offset)};
  if (watcher != nullptr) watcher->draws(at.seed, at.offset, counters);
  return at;
}

namespace {

/// The parts of a complex tensor as one more dim; other tensors as they are.
TensorPtr parts(TensorImpl* t) {
  if (!is_complex(t->dtype())) return TensorPtr(t);
  Dims sizes = t->size_dims(), strides = t->stride_dims();
  for (int64_t& s : strides) s *= 2;
  sizes.push_back(2);
  strides.push_back(1);
  TensorPtr real =
      TensorImpl::make(t->storage_ptr(), info(t->dtype()).value_dtype, sizes, strides, t->offset() * 2);
  real->share_version(*t);
  return real;
}

Results uniform(TensorImpl* self, double from, double to, const Arg& generator) {
  static const OpRef row("_uniform_");
  const DtypeInfo& d = info(self->dtype());
  LOHE_CHECK_KIND(kNotImplemented, is_differentiable(self->dtype()),
                  "\"check_uniform_bounds\" not implemented for '", type_word(self->dtype()),
                  "'; use random_ for integers");
  const double limit = d.value_dtype == Dtype::kFloat64 ? std::numeric_limits<double>::max()
                       : d.value_dtype == Dtype::kFloat16
                           ? 65504.0
                           : static_cast<double>(std::numeric_limits<float>::max());
  LOHE_CHECK(from <= to, "uniform_ expects to return a [from, to) range, but found from=", from,
             " > to=", to);
  LOHE_CHECK(to - from <= limit, "uniform_ expects to-from <= std::numeric_limits<", d.name,
             ">::max(), but found to=", to, " and from=", from,
             " which result in to-from to exceed the limit");
  const TensorPtr t = parts(self);
  const Draw at = draw(generator, t->numel());
  row(t, from, to, at.seed, at.offset);
  return TensorPtr(self);
}

Results normal(TensorImpl* self, double mean, double std, const Arg& generator) {
  static const OpRef row("_normal_");
  LOHE_CHECK_KIND(kNotImplemented, is_differentiable(self->dtype()),
                  "\"normal_kernel_cpu\" not implemented for '", type_word(self->dtype()), "'");
  LOHE_CHECK(std >= 0, "normal expects std >= 0.0, but found std ", std);
  const TensorPtr t = parts(self);
  const Draw at = draw(generator, t->numel());
  // A complex number of variance std^2 has parts of half of it.
  row(t, mean, is_complex(self->dtype()) ? std * 0.70710678118654752440 : std, at.seed, at.offset);
  return TensorPtr(self);
}

/// Largest integer up to which a floating dtype holds all of them.
int64_t exact_integers(Dtype d) {
  switch (d) {
    case Dtype::kFloat64:
      return int64_t{1} << 53;
    case Dtype::kFloat32:
      return int64_t{1} << 24;
    case Dtype::kFloat16:
      return int64_t{1} << 11;
    default:
      return int64_t{1} << 8;
  }
}
std::pair<int64_t, int64_t> integer_limits(Dtype d) {
  if (d == Dtype::kBool) return {0, 1};
  if (d == Dtype::kUInt8) return {0, 255};
  if (is_floating(d)) {
    const double limit = d == Dtype::kFloat16 ? 65504.0 : 0x1p63;
    return {limit < 0x1p63 ? -65504 : INT64_MIN, limit < 0x1p63 ? 65504 : INT64_MAX};
  }
  const int64_t high = itemsize(d) == 8 ? INT64_MAX : (int64_t{1} << (itemsize(d) * 8 - 1)) - 1;
  return {~high, high};
}

enum IntegerMode : int64_t { kNarrow, kWide, kFull };

/// Integers in [low, last].
Results integers(TensorImpl* self, int64_t low, int64_t last, const Arg& generator) {
  static const OpRef row("_random_");
  LOHE_CHECK_KIND(kNotImplemented, !is_complex(self->dtype()), "\"random_\" not implemented for '",
                  type_word(self->dtype()), "'");
  // 0 stands for 2^64.
  const uint64_t range = static_cast<uint64_t>(last) - static_cast<uint64_t>(low) + 1;
  const IntegerMode mode = range != 0 && range <= (uint64_t{1} << 31) ? kNarrow
                           : range != 0 && range <= INT64_MAX         ? kWide
                                                                      : kFull;
  const Draw at = draw(generator, self->numel());
  row(self, low, static_cast<int64_t>(range), static_cast<int64_t>(mode), at.seed, at.offset);
  return TensorPtr(self);
}

Results integers_between(TensorImpl* self, int64_t from, int64_t to, const Arg& generator) {
  LOHE_CHECK(from < to, "random_ expects 'from' to be less than 'to', but got from=", from, " >= to=", to);
  LOHE_CHECK(!is_complex(self->dtype()),
             "random_ between bounds handles only integral, floating-point and "
             "boolean types, but got ",
             self->dtype());
  const auto [least, greatest] = integer_limits(self->dtype());
  LOHE_CHECK(from >= least && from <= greatest, "from is out of bounds for ", info(self->dtype()).name);
  LOHE_CHECK(to - 1 >= least && to - 1 <= greatest, "to - 1 is out of bounds for ", info(self->dtype()).name);
  return integers(self, from, to - 1, generator);
}

void need_floating(std::string_view op, const TensorImpl& t) {
  LOHE_CHECK_KIND(kNotImplemented, is_floating(t.dtype()), "\"", op, "\" not implemented for '",
                  type_word(t.dtype()), "'");
}

Results bernoulli_number(TensorImpl* self, double p, const Arg& generator) {
  static const OpRef row("_bernoulli_");
  LOHE_CHECK(p >= 0 && p <= 1, "bernoulli_ expects p to be in [0, 1], but got p=", p);
  LOHE_CHECK_KIND(kNotImplemented, !is_complex(self->dtype()),
                  "\"bernoulli_scalar_cpu_\" not implemented for '", type_word(self->dtype()), "'");
  const Draw at = draw(generator, self->numel());
  row(self, static_cast<int64_t>(std::nearbyint(p * 0x1p32)), at.seed, at.offset);
  return TensorPtr(self);
}

TensorPtr bernoulli_tensor(TensorImpl* p, const Arg& generator) {
  static const OpRef row("_bernoulli");
  LOHE_CHECK_KIND(kNotImplemented, is_floating(p->dtype()),
                  "\"bernoulli_tensor_cpu_p_\" not implemented for '", type_word(p->dtype()), "'");
  const Draw at = draw(generator, p->numel());
  return row(p, at.seed, at.offset);
}

const OpFamily random_rows(
    "random",
    {
        filler("_uniform_(Tensor(a!) self, float from, float to, int seed, int offset) -> Tensor(a!)",
               kFloating,
               [](GraphCall& c) {
                 const Node from = number(c, 1), to = number(c, 2);
                 return Words(c, 3).unit(c.compute_dtype, c.result_dtype) * (to - from) + from;
               })
            .runtime({"from", "to", "seed", "offset"}),
        filler("_normal_(Tensor(a!) self, float mean, float std, int seed, int offset) -> Tensor(a!)",
               kFloating,
               [](GraphCall& c) { return Words(c, 3).normal(c.compute_dtype) * number(c, 2) + number(c, 1); })
            .runtime({"mean", "std", "seed", "offset"}),
        filler("_log_normal_(Tensor(a!) self, float mean, float std, int seed, int offset) -> Tensor(a!)",
               kFloating,
               [](GraphCall& c) {
                 return exp(Words(c, 3).normal(c.compute_dtype) * number(c, 2) + number(c, 1));
               })
            .runtime({"mean", "std", "seed", "offset"}),
        filler("_exponential_(Tensor(a!) self, float lambd, int seed, int offset) -> Tensor(a!)", kFloating,
               [](GraphCall& c) { return -log(Words(c, 2).open(c.compute_dtype)) / number(c, 1); })
            .runtime({"lambd", "seed", "offset"}),
        filler("_cauchy_(Tensor(a!) self, float median, float sigma, int seed, int offset) -> Tensor(a!)",
               kFloating,
               [](GraphCall& c) {
                 const Node u = Words(c, 3).open(c.compute_dtype);
                 return tan((u - 0.5) * 3.14159265358979323846) * number(c, 2) + number(c, 1);
               })
            .runtime({"median", "sigma", "seed", "offset"}),
        filler("_geometric_(Tensor(a!) self, float log_failure, int seed, int offset) -> Tensor(a!)", kReals,
               [](GraphCall& c) {
                 const Dtype d = working_dtype(c);
                 return maximum(ceil(log(Words(c, 2).open(d)) / cast(c.nodes[1], d)), c.graph.constant(d, 1));
               })
            .runtime({"log_failure", "seed", "offset"}),
        filler("_bernoulli_(Tensor(a!) self, int threshold, int seed, int offset) -> Tensor(a!)", kAllReals,
               [](GraphCall& c) { return cast(Words(c, 2).word(0) < c.nodes[1], c.compute_dtype); })
            .runtime({"threshold", "seed", "offset"}),
        filler("_random_(Tensor(a!) self, int low, int range, int mode, int seed, int offset) -> Tensor(a!)",
               kAllReals,
               [](GraphCall& c) {
                 const Words w(c, 4);
                 const Node low = c.nodes[1], range = c.nodes[2];
                 if (c.attributes[3].integer == kNarrow) {
                   const Node product = w.word(0) * range;
                   return low + shift_right(product, product.literal(32));
                 }
                 if (c.attributes[3].integer == kWide) return low + remainder(w.wide(0, 63), range);
                 // Ranges beyond 2^63: 64 bits, taken down by the range once if they reach it. Unsigned order
                 // is the signed order of the numbers with the top bit flipped.
                 const Node high = w.word(0), bits = shift_left(high, high.literal(32)) | w.word(1);
                 const Node top = c.graph.constant_int(Dtype::kInt64, INT64_MIN);
                 const Node inside = ((bits ^ top) < (range ^ top)) | (range == 0);
                 return low + select(inside, bits, bits - range);
               })
            .runtime({"low", "range", "seed", "offset"}),
        pointwise("_bernoulli(Tensor p, int seed, int offset) -> Tensor",
                  [](GraphCall& c) {
                    const Node p = c.nodes[0];
                    c.graph.check((p >= 0) & (p <= 1),
                                  "Expected p_in >= 0 && p_in <= 1 to be true, but got false.", false);
                    const Node u = c.compute_dtype == Dtype::kFloat64
                                       ? Words(c, 1).unit(c.compute_dtype, c.compute_dtype)
                                       : Words(c, 1).upper(0, 24, c.compute_dtype) * 0x1p-24;
                    return select(u < p, p.literal(1), p.literal(0));
                  })
            .dtypes_are(kFloating)
            .runtime({"seed", "offset"})
            .gradient_reads({})
            .derivative([](Value g) { return g.literal(0); })
            .function_only()
            .in("_C")
            .describe("1 with probability p, else 0."),
        pointwise("_normal(Tensor mean, Tensor std, int seed, int offset) -> Tensor",
                  [](GraphCall& c) {
                    const Node std = c.nodes[1];
                    c.graph.check(std >= 0, "normal expects all elements of std >= 0.0", false);
                    return Words(c, 2).normal(c.compute_dtype) * std + c.nodes[0];
                  })
            .dtypes_are(kFloating)
            .checked([](const OpDef&, Args a) {
              for (const Arg& x : a.first(2)) {
                LOHE_CHECK(x.kind != Arg::kTensor || !is_complex(x.tensor->dtype()),
                           "normal expects means and standard deviations to be non-complex");
              }
            })
            .runtime({"seed", "offset"})
            .gradient_reads({})
            .derivative([](Value g) { return std::array<Value, 2>{g.literal(0), g.literal(0)}; })
            .function_only()
            .in("_C")
            .describe("Normal numbers with tensors of means and standard deviations."),
        function(
            "uniform_(Tensor(a!) self, float from=0, float to=1, *, Generator? generator=None) -> Tensor(a!)",
            [](Args a) {
              return uniform(a[0].tensor, a[1].scalar().to_double(), a[2].scalar().to_double(), a[3]);
            })
            .method_only()
            .describe("Fills self from the uniform distribution over [from, to)."),
        function(
            "normal_(Tensor(a!) self, float mean=0, float std=1, *, Generator? generator=None) -> Tensor(a!)",
            [](Args a) {
              return normal(a[0].tensor, a[1].scalar().to_double(), a[2].scalar().to_double(), a[3]);
            })
            .method_only()
            .describe("Fills self from the normal distribution."),
        function(
            "log_normal_(Tensor(a!) self, float mean=1, float std=2, *, Generator? generator=None) -> Tensor(a!)",
            [](Args a) {
              static const OpRef row("_log_normal_");
              const double std = a[2].scalar().to_double();
              LOHE_CHECK(std > 0, "log_normal_ expects std > 0.0, but found std=", std);
              need_floating("log_normal_", *a[0].tensor);
              const Draw at = draw(a[3], a[0].tensor->numel());
              return Results(row(a[0].tensor, a[1].scalar().to_double(), std, at.seed, at.offset));
            })
            .method_only()
            .describe("Fills self with exponentials of normal numbers."),
        function("exponential_(Tensor(a!) self, float lambd=1, *, Generator? generator=None) -> Tensor(a!)",
                 [](Args a) {
                   static const OpRef row("_exponential_");
                   const double lambda = a[1].scalar().to_double();
                   LOHE_CHECK(lambda > 0, "exponential_ expects lambda > 0.0, but found lambda=", lambda);
                   LOHE_CHECK(
                       is_floating(a[0].tensor->dtype()),
                       "Exponential distribution is a continuous probability distribution. dtype must be "
                       "a floating point but you specified ",
                       info(a[0].tensor->dtype()).name);
                   const Draw at = draw(a[2], a[0].tensor->numel());
                   return Results(row(a[0].tensor, lambda, at.seed, at.offset));
                 })
            .method_only()
            .describe("Fills self from the exponential distribution of rate lambd."),
        function(
            "cauchy_(Tensor(a!) self, float median=0, float sigma=1, *, Generator? generator=None) -> Tensor(a!)",
            [](Args a) {
              static const OpRef row("_cauchy_");
              const double sigma = a[2].scalar().to_double();
              LOHE_CHECK(sigma > 0, "cauchy_ expects sigma > 0.0, but found sigma=", sigma);
              LOHE_CHECK(is_floating(a[0].tensor->dtype()),
                         "Cauchy distribution is a continuous probability distribution. dtype must be a "
                         "floating point but you specified ",
                         info(a[0].tensor->dtype()).name);
              const Draw at = draw(a[3], a[0].tensor->numel());
              return Results(row(a[0].tensor, a[1].scalar().to_double(), sigma, at.seed, at.offset));
            })
            .method_only()
            .describe("Fills self from the Cauchy distribution."),
        function("geometric_(Tensor(a!) self, float p, *, Generator? generator=None) -> Tensor(a!)",
                 [](Args a) {
                   static const OpRef row("_geometric_");
                   const double p = a[1].scalar().to_double();
                   LOHE_CHECK(p > 0 && p < 1, "geometric_ expects p to be in (0, 1), but got p=", p);
                   const Draw at = draw(a[2], a[0].tensor->numel());
                   return Results(row(a[0].tensor, std::log1p(-p), at.seed, at.offset));
                 })
            .method_only()
            .describe("Fills self with numbers of trials up to the first success."),
        function(
            "random_.from(Tensor(a!) self, int from, int? to, *, Generator? generator=None) -> Tensor(a!)",
            [](Args a) {
              TensorImpl* t = a[0].tensor;
              if (!a[2].none()) return integers_between(t, a[1].integer, a[2].integer, a[3]);
              const int64_t last =
                  is_floating(t->dtype()) ? exact_integers(t->dtype()) : integer_limits(t->dtype()).second;
              LOHE_CHECK(a[1].integer <= last,
                         "random_ expects 'from' to be less than or equal to 'to_inc', but got from=",
                         a[1].integer, " > to_inc=", last);
              return integers(t, a[1].integer, last, a[3]);
            })
            .method_only()
            .describe("Fills self with integers in [from, to)."),
        function("random_.to(Tensor(a!) self, int to, *, Generator? generator=None) -> Tensor(a!)",
                 [](Args a) { return integers_between(a[0].tensor, 0, a[1].integer, a[2]); })
            .method_only()
            .describe("Fills self with integers in [0, to)."),
        function("random_(Tensor(a!) self, *, Generator? generator=None) -> Tensor(a!)",
                 [](Args a) {
                   TensorImpl* t = a[0].tensor;
                   return integers(t, 0,
                                   is_floating(t->dtype()) ? exact_integers(t->dtype())
                                                           : integer_limits(t->dtype()).second,
                                   a[1]);
                 })
            .method_only()
            .describe("Fills self with integers from 0 to the greatest that its dtype holds exactly."),
        function("bernoulli_.Tensor(Tensor(a!) self, Tensor p, *, Generator? generator=None) -> Tensor(a!)",
                 [](Args a) {
                   static const OpRef copy("copy_"), expand("expand"), to("to.dtype");
                   const WithoutGrad guard;
                   TensorPtr p = expand(a[1].tensor, a[0].tensor->sizes());
                   if (!is_floating(p->dtype())) p = to(p, Dtype::kFloat32);
                   return Results(copy(a[0].tensor, bernoulli_tensor(p.get(), a[2])));
                 })
            .method_only()
            .describe("1 with the probabilities in p, else 0."),
        function("bernoulli_.float(Tensor(a!) self, float p=0.5, *, Generator? generator=None) -> Tensor(a!)",
                 [](Args a) { return bernoulli_number(a[0].tensor, a[1].scalar().to_double(), a[2]); })
            .method_only()
            .describe("1 with probability p, else 0."),
        function("bernoulli(Tensor self, *, Generator? generator=None) -> Tensor",
                 [](Args a) { return Results(bernoulli_tensor(a[0].tensor, a[1])); })
            .out(OutDtype::kAny)
            .describe("1 with the probabilities in self, else 0."),
        function("bernoulli.p(Tensor self, float p, *, Generator? generator=None) -> Tensor",
                 [](Args a) {
                   static const OpRef empty_like("empty_like");
                   return bernoulli_number(empty_like(a[0].tensor).get(), a[1].scalar().to_double(), a[2]);
                 })
            .describe("1 with probability p, else 0, in the shape of self."),
        function("normal.Tensor_float(Tensor mean, float std=1, *, Generator? generator=None) -> Tensor",
                 [](Args a) {
                   static const OpRef row("_normal");
                   LOHE_CHECK(a[1].scalar().to_double() >= 0, "normal expects std >= 0.0, but found std ",
                              a[1].scalar().to_double());
                   const Draw at = draw(a[2], a[0].tensor->numel());
                   return Results(row(a[0].tensor, a[1].scalar().to_double(), at.seed, at.offset));
                 })
            .function_only()
            .out(OutDtype::kFloating)
            .describe("Normal numbers with a tensor of means."),
        function("normal.float_Tensor(float mean, Tensor std, *, Generator? generator=None) -> Tensor",
                 [](Args a) {
                   static const OpRef row("_normal");
                   const Draw at = draw(a[2], a[1].tensor->numel());
                   return Results(row(a[0].scalar().to_double(), a[1].tensor, at.seed, at.offset));
                 })
            .function_only()
            .out(OutDtype::kFloating)
            .describe("Normal numbers with a tensor of standard deviations."),
        function("normal.Tensor_Tensor(Tensor mean, Tensor std, *, Generator? generator=None) -> Tensor",
                 [](Args a) {
                   static const OpRef row("_normal");
                   const Draw at =
                       draw(a[2], numel_of(broadcast_shapes(a[0].tensor->sizes(), a[1].tensor->sizes())));
                   return Results(row(a[0].tensor, a[1].tensor, at.seed, at.offset));
                 })
            .function_only()
            .out(OutDtype::kFloating)
            .describe("Normal numbers with tensors of means and standard deviations."),
    });

// --- fresh tensors

TensorPtr fresh(const Arg& size, const Arg& dtype, Dtype otherwise) {
  static const OpRef empty("empty");
  return empty(size.int_list(), dtype.kind == Arg::kDtype ? dtype.dtype : otherwise);
}

/// As another tensor: parameters dtype, layout, device, memory format begin at `at`.
TensorPtr fresh_like(Args a, size_t at) {
  static const OpRef empty_like("empty_like");
  return empty_like(a[0].tensor, a[at], a[at + 1], a[at + 2], a[at + 3]);
}

Results tracked(Results r, const Arg& flag) {
  if (flag.kind == Arg::kBool && flag.integer != 0) {
    LOHE_CHECK(is_differentiable(r[0]->dtype()),
               "Only Tensors of floating point and complex dtype can require gradients");
    r[0]->requires_grad = true;
  }
  return r;
}

const OpFamily random_factories(
    "random",
    {
        function(
            "rand(int[] size, *, Generator? generator=None, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              return tracked(uniform(fresh(a[0], a[2], default_dtype()).get(), 0, 1, a[1]), a[6]);
            })
            .function_only()
            .out()
            .describe("Uniform numbers in [0, 1)."),
        function(
            "randn(int[] size, *, Generator? generator=None, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              return tracked(normal(fresh(a[0], a[2], default_dtype()).get(), 0, 1, a[1]), a[6]);
            })
            .function_only()
            .out()
            .describe("Standard normal numbers."),
        function(
            "randint(int high, int[] size, *, Generator? generator=None, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              return tracked(integers_between(fresh(a[1], a[3], Dtype::kInt64).get(), 0, a[0].integer, a[2]),
                             a[7]);
            })
            .function_only()
            .out()
            .describe("Integers in [0, high)."),
        function(
            "randint.low(int low, int high, int[] size, *, Generator? generator=None, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              return tracked(
                  integers_between(fresh(a[2], a[4], Dtype::kInt64).get(), a[0].integer, a[1].integer, a[3]),
                  a[8]);
            })
            .function_only()
            .out()
            .describe("Integers in [low, high)."),
        function(
            "rand_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool? pin_memory=None, bool requires_grad=False, Generator? generator=None) -> Tensor",
            [](Args a) { return tracked(uniform(fresh_like(a, 1).get(), 0, 1, a[7]), a[6]); })
            .function_only()
            .describe("Uniform numbers in [0, 1), like another tensor."),
        function(
            "randn_like(Tensor self, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool? pin_memory=None, bool requires_grad=False, Generator? generator=None) -> Tensor",
            [](Args a) { return tracked(normal(fresh_like(a, 1).get(), 0, 1, a[7]), a[6]); })
            .function_only()
            .describe("Standard normal numbers, like another tensor."),
        function(
            "randint_like(Tensor self, int high, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool? pin_memory=None, bool requires_grad=False, Generator? generator=None) -> Tensor",
            [](Args a) {
              return tracked(integers_between(fresh_like(a, 2).get(), 0, a[1].integer, a[8]), a[7]);
            })
            .function_only()
            .describe("Integers in [0, high), like another tensor."),
        function(
            "randint_like.low_dtype(Tensor self, int low, int high, *, ScalarType? dtype=None, Layout? layout=None, Device? device=None, MemoryFormat? memory_format=None, bool? pin_memory=None, bool requires_grad=False, Generator? generator=None) -> Tensor",
            [](Args a) {
              return tracked(integers_between(fresh_like(a, 3).get(), a[1].integer, a[2].integer, a[9]),
                             a[8]);
            })
            .function_only()
            .describe("Integers in [low, high), like another tensor."),
        function(
            "normal.float_float(float mean, float std, int[] size, *, Generator? generator=None, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, bool requires_grad=False) -> Tensor",
            [](Args a) {
              return tracked(normal(fresh(a[2], a[4], default_dtype()).get(), a[0].scalar().to_double(),
                                    a[1].scalar().to_double(), a[3]),
                             a[8]);
            })
            .function_only()
            .out()
            .describe("Normal numbers."),
    });

}  // namespace
}  // namespace lohe::ops
