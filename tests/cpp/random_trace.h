#pragma once

#include <lohe/lohe.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "record/recorder.h"
#include "record/settings.h"

/// Random programs for compile(): the same seed makes the same calls whether they are recorded or not, and
/// what they leave must have the same bits.
namespace lohe::testing {

/// Everything that a run leaves: bytes of tensors and gradients, in order, and the texts of errors.
struct Outcome {
  std::vector<std::string> parts;
  bool operator==(const Outcome&) const = default;
};

class RandomTrace {
 public:
  /// @param sizes one of three: the same program, as a rule, on tensors of other sizes
  explicit RandomTrace(uint64_t seed, bool large, int sizes = 0)
      : rng_(seed), large_(large), sizes_(static_cast<size_t>(sizes)) {
    manual_seed(seed);
  }

  /// @param settle_often one of so many steps settles; 0: none
  /// @param exact whether what is recorded keeps its bits
  Outcome run(bool recorded, int settle_often, uint64_t settle_seed, bool exact = true) {
    std::mt19937_64 settle(settle_seed);
    {
      std::unique_ptr<Lazy> scope;
      make_leaves();
      if (recorded) scope = std::make_unique<Lazy>(0, exact);
      const int64_t steps = pick(4, 24);
      for (int64_t i = 0; i < steps; ++i) {
        try {
          step();
        } catch (const Error& e) {
          // Recorded, the lack of memory shows when the work is done.
          if (std::string_view(e.what()).find("out of CPU memory") != std::string_view::npos) throw;
          outcome_.parts.emplace_back("refused");
        }
        if (settle_often > 0 && recorded && settle() % static_cast<uint64_t>(settle_often) == 0)
          record::Recorder::of_this_thread().settle();
      }
      try {
        backward();
      } catch (const Error& e) {
        outcome_.parts.emplace_back("backward refused");
      }
      if (scope) scope->end();
    }
    for (const Tensor& t : values_) note(t);
    for (const Tensor& t : leaves_) {
      note(t);
      if (t.grad().defined()) note(t.grad());
    }
    return std::move(outcome_);
  }

 private:
  int64_t pick(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(rng_() % static_cast<uint64_t>(high - low + 1));
  }
  bool chance(int percent) { return pick(0, 99) < percent; }

  std::vector<int64_t> shape() {
    static constexpr int64_t small[][8] = {
        {1, 2, 3, 4, 5, 8, 17, 33}, {1, 3, 4, 5, 6, 9, 18, 37}, {1, 2, 4, 7, 3, 5, 8, 64}};
    if (large_ && chance(30)) {
      const int64_t kind = pick(0, 2);
      if (kind == 0) return {pick(40000, 70000)};
      if (kind == 1) return {pick(100, 300), pick(60, 260)};
      return {pick(3000, 9000), pick(2, 18)};
    }
    std::vector<int64_t> sizes;
    for (int64_t d = pick(0, 3); d > 0; --d) sizes.push_back(small[sizes_][pick(0, 7)]);
    return sizes;
  }
  Tensor fresh(const std::vector<int64_t>& sizes, ScalarType dtype) {
    return (randint(-24, 25, sizes, kFloat) / 8).to(dtype);
  }
  ScalarType float_type() {
    static constexpr ScalarType types[] = {kFloat, kFloat, kFloat, kDouble, kBFloat16, kHalf};
    return types[pick(0, 5)];
  }

  void make_leaves() {
    for (int64_t i = pick(1, 3); i > 0; --i) {
      Tensor t = fresh(shape(), float_type());
      if (chance(50)) t.set_requires_grad(true);
      leaves_.push_back(t);
    }
    for (int64_t i = pick(1, 3); i > 0; --i) values_.push_back(fresh(shape(), float_type()));
    if (chance(30)) values_.push_back(randint(0, 5, shape(), kLong));
  }

  const Tensor& any() {
    const size_t n = leaves_.size() + values_.size();
    const auto i = static_cast<size_t>(pick(0, static_cast<int64_t>(n) - 1));
    return i < leaves_.size() ? leaves_[i] : values_[i - leaves_.size()];
  }
  /// Something that the shapes of `t` go with.
  Tensor partner(const Tensor& t) {
    for (int i = 0; i < 4; ++i) {
      const Tensor& other = any();
      if (fits(t, other)) return other;
    }
    std::vector<int64_t> sizes(t.sizes().begin(), t.sizes().end());
    for (int64_t& s : sizes) {
      if (chance(25)) s = 1;
    }
    return fresh(sizes, chance(60) ? kFloat : float_type());
  }
  static bool fits(const Tensor& a, const Tensor& b) {
    for (int64_t d = 1; d <= std::min(a.dim(), b.dim()); ++d) {
      const int64_t x = a.size(-d), y = b.size(-d);
      if (x != y && x != 1 && y != 1) return false;
    }
    return true;
  }
  void keep(Tensor t) {
    if (t.numel() > 400'000) return;
    if (values_.size() > 8 || (values_.size() > 3 && chance(30)))
      values_[static_cast<size_t>(pick(0, static_cast<int64_t>(values_.size()) - 1))] = std::move(t);
    else
      values_.push_back(std::move(t));
  }

  Tensor pointwise(const Tensor& x) {
    switch (pick(0, 13)) {
      case 0:
        return x.tanh();
      case 1:
        return x.exp();
      case 2:
        return -x;
      case 3:
        return relu(x);
      case 4:
        return x.sigmoid();
      case 5:
        return x.abs() + 1;
      case 6:
        return x * 1.5 - 0.25;
      case 7:
        return x.square();
      case 8:
        return x.clamp(-1, 1.5);
      case 9:
        return x / 3;
      case 10:
        return 2 - x;
      case 11:
        return gelu(x);
      case 12:
        return x.round();
      default:
        return x.sin();
    }
  }
  Tensor pairwise(const Tensor& x) {
    const Tensor y = partner(x);
    switch (pick(0, 8)) {
      case 0:
        return x + y;
      case 1:
        return x - y;
      case 2:
        return x * y;
      case 3:
        return x / (y.abs() + 1);
      case 4:
        return maximum(x, y);
      case 5:
        return where(x > y, x, y);
      case 6:
        return x < y;
      case 7:
        return add(x, y, 0.5);
      default:
        return x.masked_fill(y > 0, 2);
    }
  }
  Tensor reduction(const Tensor& x) {
    if (x.dim() == 0) return x.sum();
    const int64_t d = pick(0, x.dim() - 1);
    const bool keepdim = chance(40);
    switch (pick(0, 10)) {
      case 0:
        return x.sum();
      case 1:
        return x.sum({d}, keepdim);
      case 2:
        return x.mean({d}, keepdim);
      case 3:
        return x.amax({d}, keepdim);
      case 4:
        return softmax(x, d);
      case 5:
        return log_softmax(x, d);
      case 6:
        return x.mean();
      case 7:
        return logsumexp(x, {d}, keepdim);
      case 8:
        return x - x.mean({d}, true);
      case 9:
        return x.argmax(d, keepdim);
      default:
        return layer_norm(x, {x.size(-1)});
    }
  }
  Tensor view(const Tensor& x) {
    if (x.dim() == 0) return x.unsqueeze(0);
    const int64_t d = pick(0, x.dim() - 1);
    switch (pick(0, 7)) {
      case 0:
        return x.transpose(d, pick(0, x.dim() - 1));
      case 1:
        return x.select(d, pick(0, x.size(d) - 1));
      case 2: {
        const int64_t start = pick(0, x.size(d) - 1);
        return x.narrow(d, start, pick(1, x.size(d) - start));
      }
      case 3:
        return x.reshape({-1});
      case 4:
        return x.unsqueeze(d);
      case 5:
        return x.slice(d, 0, x.size(d), pick(1, 3));
      case 6:
        return x.unsqueeze(0).expand({pick(1, 3), -1, -1, -1}).slice(0, 0, 2);
      default:
        return x.flatten();
    }
  }
  /// A border around `x`, pieces side by side, or both: fills and copies into parts of fresh memory.
  Tensor assembled(const Tensor& x) {
    std::vector<int64_t> sizes;
    for (const int64_t n : x.sizes()) sizes.push_back(n + pick(0, 2));
    if (x.dim() > 0 && chance(40)) sizes[static_cast<size_t>(pick(0, x.dim() - 1))] *= 2;
    Tensor y = full(sizes, chance(50) ? 0.0 : 0.75, x.scalar_type());
    const int64_t pieces = pick(1, 3);
    for (int64_t i = 0; i < pieces; ++i) {
      Tensor part = y;
      for (int64_t d = 0; d < x.dim(); ++d) part = part.narrow(d, pick(0, y.size(d) - x.size(d)), x.size(d));
      part.copy_(chance(60) ? x : pointwise(x));
      if (x.dim() > 0 && chance(15)) part.slice(0, 0, part.size(0), 2).fill_(0.5);
    }
    return y;
  }
  void write(const Tensor& target) {
    Tensor t = target;
    switch (pick(0, 8)) {
      case 0:
        t.add_(partner(t));
        break;
      case 1:
        t.mul_(0.5);
        break;
      case 2:
        t.copy_(partner(t));
        break;
      case 3:
        t.zero_();
        break;
      case 4:
        t.fill_(1.25);
        break;
      case 5:
        t.clamp_(-1, 1);
        break;
      case 6:
        t.masked_fill_(t > 0, -0.5);
        break;
      case 7:
        t.sub_(t.mean());
        break;
      default:
        t.tanh_();
        break;
    }
  }
  /// Some tensors, perhaps views of one memory or one of them twice, written by one call.
  void write_list() {
    std::vector<Tensor> list, others;
    for (int64_t i = pick(2, 6); i > 0; --i) {
      list.push_back(chance(15) ? view(any()) : any());
      others.push_back(chance(70) ? fresh({list.back().sizes().begin(), list.back().sizes().end()},
                                          list.back().scalar_type())
                                  : partner(list.back()));
    }
    std::unique_ptr<NoGradGuard> guard;
    if (chance(80)) guard = std::make_unique<NoGradGuard>();
    switch (pick(0, 3)) {
      case 0:
        _foreach_add_(list, others);
        break;
      case 1:
        _foreach_mul_(list, Scalar(0.75));
        break;
      case 2:
        _foreach_lerp_(list, others, 0.25);
        break;
      default:
        _foreach_neg_(list);
        break;
    }
  }
  void primitive(const Tensor& x) {
    switch (pick(0, 9)) {
      case 8:
        if (x.dim() > 0) keep(x.index({randint(-x.size(0), x.size(0), {pick(1, 4)}, kLong)}));
        break;
      case 9:
        if (x.dim() > 0) {
          const Tensor at = randint(0, x.size(0), {pick(1, 4)}, kLong);
          const Tensor rows = x.index_select(0, at).detach() * 0.5;
          Tensor t = chance(50) ? x : x.detach().clone();
          if (chance(50))
            t.index_add_(0, at, rows);
          else
            t.index_put_({at}, rows);
          keep(t);
        }
        break;
      case 0:
        if (x.dim() == 2) keep(matmul(x, fresh({x.size(1), pick(1, 6)}, x.scalar_type())));
        break;
      case 1:
        keep(cat({x, x * 2}, 0));
        break;
      case 2:
        keep(x.cumsum(0));
        break;
      case 3:
        keep(std::get<0>(x.sort(-1)));
        break;
      case 4:
        if (x.dim() > 0) keep(x.index_select(0, randint(0, x.size(0), {pick(1, 4)}, kLong)));
        break;
      case 5:
        keep(dropout(x, 0.4, true));
        break;
      case 6:
        keep(x + rand_like(x));
        break;
      default:
        keep(x.flip({0}));
        break;
    }
  }

  void step() {
    const Tensor x = any();
    const int64_t kind = pick(0, 99);
    if (kind < 24)
      keep(pointwise(x));
    else if (kind < 44)
      keep(pairwise(x));
    else if (kind < 60)
      keep(reduction(x));
    else if (kind < 72)
      keep(view(x));
    else if (kind < 84)
      write(chance(40) ? view(x) : x);
    else if (kind < 88)
      primitive(x);
    else if (kind < 91) {
      const Tensor y = assembled(x);
      keep(chance(70) ? chance(60) ? pairwise(y) : reduction(y) : y);
    } else if (kind < 93)
      keep(x.to(chance(80) ? float_type() : kInt));
    else if (kind < 95)
      keep(x.detach());
    else if (kind < 96 && chance(50))
      write_list();
    else if (kind < 96)
      keep(zeros(x.sizes(), kFloat) + ones({}));
    else if (kind < 98) {
      // The program goes on by what it reads.
      if (x.to(kFloat).sum().item<float>() > 0)
        keep(x * 2);
      else
        keep(x + 1);
    } else {
      NoGradGuard guard;
      for (Tensor& leaf : leaves_) {
        if (leaf.grad().defined()) leaf.sub_(leaf.grad() * 0.1);
      }
    }
  }

  void backward() {
    Tensor total;
    for (const Tensor& t : values_) {
      if (!t.requires_grad() || !t.is_floating_point()) continue;
      const Tensor part = (t * t).sum().to(kDouble);
      total = total.defined() ? total + part : part;
    }
    if (total.defined()) total.backward();
  }

  void note(const Tensor& value) {
    std::string bytes;
    try {
      NoGradGuard guard;
      Tensor t = value.detach().contiguous();
      bytes = std::to_string(static_cast<int>(t.scalar_type())) + "[";
      for (const int64_t s : t.sizes()) bytes += std::to_string(s) + ",";
      for (const int64_t s : value.strides()) bytes += ";" + std::to_string(s);
      // A NaN equals every NaN.
      if (t.is_floating_point()) t = where(isnan(t), full({}, 7.625, t.scalar_type()), t);
      bytes.append(static_cast<const char*>(t.data_ptr()), static_cast<size_t>(t.numel()) * t.element_size());
    } catch (const Error& e) {
      bytes = e.what();
    }
    outcome_.parts.push_back(std::move(bytes));
  }

  std::mt19937_64 rng_;
  bool large_;
  size_t sizes_;
  std::vector<Tensor> leaves_, values_;
  Outcome outcome_;
};

}  // namespace lohe::testing
