#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/threads.h"
#include "lohe/error.h"
#include "ops/indexing.h"
#include "ops/random.h"
#include "tensor/half.h"
#include "tensor/philox.h"
#include "tensor/shape.h"

/// Random choices that are made one after another: permutations, samples of categories, Poisson numbers.
namespace lohe::ops {
namespace {

/// Uniform over [0, n), n > 0: multiplication of 64 random bits (Lemire, 2019, without its rejection step,
/// whose bias is below n / 2^64).
int64_t below(uint32_t high, uint32_t low, int64_t n) {
  const uint64_t bits = uint64_t{high} << 32 | low;
  return static_cast<int64_t>((static_cast<unsigned __int128>(bits) * static_cast<uint64_t>(n)) >> 64);
}

Results randperm(Args a) {
  static const OpRef empty("empty");
  const int64_t n = a[0].integer;
  LOHE_CHECK(n >= 0, "Trying to create tensor with negative dimension ", n, ": [", n, "]");
  const Dtype dtype = a[2].kind == Arg::kDtype ? a[2].dtype : Dtype::kInt64;
  const TensorPtr t = empty(Dims{n}, dtype);
  const Draw at = draw(a[1], n);
  visit_dtype(dtype, [&](auto zero) {
    using T = decltype(zero);
    if constexpr (std::is_same_v<T, bool> || std::is_same_v<T, std::complex<float>> ||
                  std::is_same_v<T, std::complex<double>>) {
      raise(ErrorKind::kNotImplemented, "\"randperm\" not implemented for '", type_word(dtype), "'");
    } else {
      int64_t most = INT64_MAX;
      if constexpr (std::is_integral_v<T>) most = static_cast<int64_t>(std::numeric_limits<T>::max());
      if (dtype == Dtype::kFloat16) most = (1 << 11) + 1;
      if (dtype == Dtype::kBFloat16) most = (1 << 8) + 1;
      if (dtype == Dtype::kFloat32) most = (1 << 24) + 1;
      if (dtype == Dtype::kFloat64) most = (int64_t{1} << 53) + 1;
      LOHE_CHECK(n - 1 <= most, "n is too large for result tensor type: '", type_word(dtype), "'");
      auto* p = reinterpret_cast<T*>(t->data());
      for (int64_t i = 0; i < n; ++i) {
        if constexpr (std::is_integral_v<T>)
          p[i] = static_cast<T>(i);
        else
          p[i] = T(static_cast<float>(i));
      }
      if constexpr (std::is_same_v<T, double>) std::iota(p, p + n, 0.0);
      // Fisher and Yates, in Durstenfeld's form.
      for (int64_t i = 0; i + 1 < n; ++i) {
        const auto w = philox(static_cast<uint64_t>(at.seed), static_cast<uint64_t>(at.offset + i));
        std::swap(p[i], p[i + below(w[0], w[1], n - i)]);
      }
    }
  });
  if (a[6].kind == Arg::kBool && a[6].integer != 0) {
    LOHE_CHECK(is_differentiable(dtype),
               "Only Tensors of floating point and complex dtype can require gradients");
    t->requires_grad = true;
  }
  return t;
}

Results multinomial(Args a) {
  static const OpRef empty("empty"), to("to.dtype"), contiguous("contiguous");
  const WithoutGrad guard;
  const TensorImpl& self = *a[0].tensor;
  const int64_t samples = a[1].integer;
  const bool replacement = a[2].integer != 0;
  LOHE_CHECK(self.dim() == 1 || self.dim() == 2, "prob_dist must be 1 or 2 dim");
  LOHE_CHECK(is_floating(self.dtype()),
             "multinomial only supports floating-point dtypes for input, got: ", type_word(self.dtype()));
  const int64_t n = self.sizes().back(), rows = self.dim() == 2 ? self.sizes()[0] : 1;
  LOHE_CHECK(samples > 0, "cannot sample n_sample <= 0 samples");
  LOHE_CHECK(replacement || samples <= n,
             "cannot sample n_sample > prob_dist.size(-1) samples without replacement");
  LOHE_CHECK(n <= int64_t{1} << 24, "number of categories cannot exceed 2^24");
  const TensorPtr weights = contiguous(to(a[0].tensor, Dtype::kFloat64));
  Dims sizes = self.dim() == 2 ? Dims{rows, samples} : Dims{samples};
  const TensorPtr result = empty(sizes, Dtype::kInt64);
  auto* out = reinterpret_cast<int64_t*>(result->data());
  const auto* all = reinterpret_cast<const double*>(weights->data());
  const int64_t per_row = replacement ? samples : n;
  const Draw at = draw(a[3], rows * per_row);
  parallel_for(rows, 1, [&](int64_t begin, int64_t end) {
    std::vector<std::pair<double, int64_t>> keys;
    std::vector<double> sums;
    for (int64_t r = begin; r < end; ++r) {
      const double* w = all + r * n;
      double total = 0;
      int64_t positive = 0;
      for (int64_t i = 0; i < n; ++i) {
        LOHE_CHECK(w[i] >= 0 && std::isfinite(w[i]),
                   "probability tensor contains either `inf`, `nan` or element < 0");
        total += w[i];
        positive += w[i] > 0 ? 1 : 0;
      }
      LOHE_CHECK(total > 0, "invalid multinomial distribution (sum of probabilities <= 0)");
      LOHE_CHECK(
          replacement || positive >= samples,
          "invalid multinomial distribution (with replacement=False, not enough non-negative category to sample)");
      const auto counter = [&](int64_t i) { return static_cast<uint64_t>(at.offset + r * per_row + i); };
      if (replacement) {
        sums.resize(static_cast<size_t>(n));
        std::partial_sum(w, w + n, sums.begin());
        for (int64_t s = 0; s < samples; ++s) {
          const auto bits = philox(static_cast<uint64_t>(at.seed), counter(s));
          const double u = unit_double(bits[0], bits[1]) * sums.back();
          // The first sum beyond u: a category of weight zero adds nothing and is never it.
          auto found = std::upper_bound(sums.begin(), sums.end(), u) - sums.begin();
          if (found == n)
            for (found = n - 1; w[found] == 0;) --found;
          out[r * samples + s] = found;
        }
      } else {
        // The categories in the order of exponential arrival times of rate w (Efraimidis and Spirakis, 2006).
        keys.clear();
        for (int64_t i = 0; i < n; ++i) {
          if (w[i] == 0) continue;
          const auto bits = philox(static_cast<uint64_t>(at.seed), counter(i));
          keys.push_back({-std::log(open_unit_double(bits[0], bits[1])) / w[i], i});
        }
        std::partial_sort(keys.begin(), keys.begin() + samples, keys.end());
        for (int64_t s = 0; s < samples; ++s) out[r * samples + s] = keys[static_cast<size_t>(s)].second;
      }
    }
  });
  return result;
}

/// One Poisson number: products of uniforms for small rates (Knuth), else transformed rejection (Hörmann,
/// "The transformed rejection method for generating Poisson random variables", 1993: PTRS).
double poisson_number(double rate, PhiloxStream& stream) {
  if (rate == 0) return 0;
  if (rate < 10) {
    const double limit = std::exp(-rate);
    int64_t count = 0;
    for (double product = stream.uniform(); product > limit; product *= stream.uniform()) ++count;
    return static_cast<double>(count);
  }
  const double log_rate = std::log(rate), b = 0.931 + 2.53 * std::sqrt(rate), a = -0.059 + 0.02483 * b;
  const double inverse_alpha = 1.1239 + 1.1328 / (b - 3.4), vr = 0.9277 - 3.6224 / (b - 2);
  for (;;) {
    const double u = stream.uniform() - 0.5, v = stream.uniform();
    const double us = 0.5 - std::fabs(u), k = std::floor((2 * a / us + b) * u + rate + 0.43);
    if (us >= 0.07 && v <= vr) return k;
    if (k < 0 || (us < 0.013 && v > us)) continue;
    int sign = 0;  // lgamma would write it into a variable that all threads share
    if (std::log(v) + std::log(inverse_alpha) - std::log(a / (us * us) + b) <=
        -rate + k * log_rate - ::lgamma_r(k + 1, &sign))
      return k;
  }
}

void run_poisson(Args a, Results& r) {
  static const OpRef contiguous("contiguous"), empty("empty");
  const WithoutGrad guard;
  const TensorPtr rates = contiguous(a[0].tensor);
  LOHE_CHECK_KIND(kNotImplemented, is_floating(rates->dtype()), "\"poisson_cpu\" not implemented for '",
                  type_word(rates->dtype()), "'");
  const TensorPtr out = empty(rates->sizes(), rates->dtype());
  const Draw at = draw(a[1], rates->numel());
  visit_dtype(rates->dtype(), [&](auto zero) {
    using T = decltype(zero);
    if constexpr (!std::is_integral_v<T> && !std::is_same_v<T, std::complex<float>> &&
                  !std::is_same_v<T, std::complex<double>>) {
      const auto* rate = reinterpret_cast<const T*>(rates->data());
      auto* to = reinterpret_cast<T*>(out->data());
      parallel_for(rates->numel(), 256, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const auto value = static_cast<double>(rate[i]);
          LOHE_CHECK(value >= 0, "invalid Poisson rate, expected rate to be non-negative");
          PhiloxStream stream(static_cast<uint64_t>(at.seed), static_cast<uint64_t>(at.offset + i));
          const double k = poisson_number(value, stream);
          if constexpr (std::is_same_v<T, double>)
            to[i] = k;
          else
            to[i] = T(static_cast<float>(k));
        }
      });
    }
  });
  r.push(out);
}

const OpFamily sampling(
    "sampling",
    {
        function(
            "randperm(int n, *, Generator? generator=None, ScalarType? dtype=None, Layout? layout=None, Device? device=None, bool? pin_memory=None, bool requires_grad=False) -> Tensor",
            randperm)
            .function_only()
            .out()
            .describe("The integers from 0 to n - 1 in random order."),
        function(
            "multinomial(Tensor self, int num_samples, bool replacement=False, *, Generator? generator=None) -> Tensor",
            multinomial)
            .not_differentiable()
            .exact_out()
            .describe("Categories drawn with the probabilities that each row is proportional to."),
        primitive("poisson(Tensor self, Generator? generator=None) -> Tensor", nullptr, run_poisson)
            .gradient_reads({})
            .grad([](Backward& b) {
              static const OpRef zeros("zeros");
              if (b.needs(0)) b.set(0, zeros(b.meta(0).sizes, b.meta(0).dtype));
            })
            .function_only()
            .describe("Poisson numbers with the rates in self."),
    });

}  // namespace
}  // namespace lohe::ops
