#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "ir/builder.h"

/// Random kernels with data to run them on, for tests that compare two ways to run a kernel bit for bit. All
/// loads and stores are in bounds, no element is written twice, and no NaN's payload reaches an integer, so
/// that any two correct implementations agree in every bit but those of NaNs.
namespace lohe::ir::test {

/// SplitMix64: the same numbers on every platform.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15 + 0x1234567) {}
  uint64_t bits() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9;
    z = (z ^ z >> 27) * 0x94D049BB133111EB;
    return z ^ z >> 31;
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(bits() % static_cast<uint64_t>(n)); }
  bool chance(int percent) { return below(100) < percent; }
  template <class T>
  const T& pick(const std::vector<T>& from) {
    return from[static_cast<size_t>(below(static_cast<int64_t>(from.size())))];
  }

 private:
  uint64_t state_;
};

/// `n` elements: ordinary values, and every eighth or so an edge case of the type.
inline std::vector<uint8_t> random_data(Random& random, Type type, int64_t n) {
  const auto size = static_cast<size_t>(size_of(type));
  std::vector<uint8_t> data(static_cast<size_t>(n) * size);
  for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
    uint64_t bits = random.bits();
    const bool edge = random.chance(12);
    if (type == Type::kBool) {
      bits = edge ? bits & 0xFF : bits & 1;
    } else if (type == Type::kF32 || type == Type::kF64) {
      const double edges[] = {0.0,          -0.0,  1.0,     -1.0, HUGE_VAL, -HUGE_VAL,
                              std::nan(""), 1e-40, -1e-310, 3e38, 1e308,    0.5};
      const double ordinary = (static_cast<double>(bits >> 11) * 0x1p-53 - 0.5) * 16;
      const double value = edge ? edges[random.below(std::size(edges))] : ordinary;
      const auto single = static_cast<float>(value);
      std::memcpy(&bits, type == Type::kF32 ? static_cast<const void*>(&single) : &value, size);
    } else if (is_half(type) && !edge) {
      bits = (bits & 0x83FF) | (type == Type::kF16 ? 0x3C00 : 0x3F00);
    } else if (is_int(type) && edge) {
      const uint64_t top = uint64_t{1} << (size * 8 - 1);
      const uint64_t edges[] = {0, 1, ~uint64_t{0}, top, top - 1, 2};
      bits = edges[random.below(std::size(edges))];
    } else if (is_int(type) && random.chance(50)) {
      bits = static_cast<uint64_t>(random.below(64) - 16);
    }
    std::memcpy(data.data() + i * size, &bits, size);
  }
  return data;
}

/// Equal bits, or both NaN.
inline bool same_element(Type type, const void* a, const void* b) {
  if (std::memcmp(a, b, static_cast<size_t>(size_of(type))) == 0) return true;
  const auto magnitude = [](const void* p, int size) {
    uint64_t bits = 0;
    std::memcpy(&bits, p, static_cast<size_t>(size));
    return bits & ~(uint64_t{1} << (size * 8 - 1));
  };
  uint64_t infinity;
  switch (type) {
    case Type::kF16:
      infinity = 0x7C00;
      break;
    case Type::kBF16:
      infinity = 0x7F80;
      break;
    case Type::kF32:
      infinity = 0x7F800000;
      break;
    case Type::kF64:
      infinity = 0x7FF0000000000000;
      break;
    default:
      return false;
  }
  return magnitude(a, size_of(type)) > infinity && magnitude(b, size_of(type)) > infinity;
}

struct RandomKernel {
  Kernel kernel;
  std::vector<std::vector<uint8_t>>
      buffers;  ///< contents before a call; copy them for each way to run the kernel
  std::vector<int64_t> params;
  int64_t outer = 0;  ///< outer iterations: calls cover [0, outer)

  std::vector<void*> pointers(std::vector<std::vector<uint8_t>>& copy) const {
    std::vector<void*> result;
    for (auto& b : copy) result.push_back(b.data());
    return result;
  }
  /// Empty if `a` and `b` agree, else the first difference.
  std::string difference(const std::vector<std::vector<uint8_t>>& a,
                         const std::vector<std::vector<uint8_t>>& b) const {
    for (size_t i = 0; i < kernel.buffers.size(); ++i) {
      const Type type = kernel.buffers[i].type;
      const auto size = static_cast<size_t>(size_of(type));
      for (size_t at = 0; at < a[i].size(); at += size) {
        if (same_element(type, &a[i][at], &b[i][at])) continue;
        uint64_t x = 0, y = 0;
        std::memcpy(&x, &a[i][at], size);
        std::memcpy(&y, &b[i][at], size);
        return "buffer " + std::to_string(i) + " (" + name(type) + ") element " + std::to_string(at / size) +
               ": bits " + std::to_string(x) + " and " + std::to_string(y);
      }
    }
    return {};
  }
};

class RandomKernelMaker {
 public:
  explicit RandomKernelMaker(uint64_t seed) : random_(seed), b_("random" + std::to_string(seed)) {}

  RandomKernel make() {
    static const int64_t kExtents[] = {0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100, 130};
    made_.outer = kExtents[random_.below(std::size(kExtents))];
    inner_ = kExtents[random_.below(std::size(kExtents))];
    elements_ = made_.outer * std::max<int64_t>(inner_, 1) + 1;
    for (int i = 0; i < 4; ++i) add_buffer(kTypes[random_.below(std::size(kTypes))], false);
    extent_ = param(Type::kI64, static_cast<uint64_t>(inner_));
    size_ = param(Type::kU64, static_cast<uint64_t>(elements_));
    for (const Type t : {Type::kF32, Type::kI32, Type::kF64}) {
      uint64_t bits = 0;
      const std::vector<uint8_t> data = random_data(random_, t, 1);
      std::memcpy(&bits, data.data(), data.size());
      uniform_.push_back(param(t, bits));
    }
    zero_ = b_.constant_int(Type::kI64, 0);
    switch (random_.below(4)) {
      case 0:
        pointwise();
        break;
      case 1:
        nest();
        break;
      case 2:
        rows();
        break;
      default:
        columns();
        break;
    }
    made_.kernel = b_.finish();
    return std::move(made_);
  }

 private:
  static constexpr Type kTypes[] = {Type::kBool, Type::kU8,  Type::kI8,  Type::kI16, Type::kI32,
                                    Type::kU32,  Type::kI64, Type::kU64, Type::kF16, Type::kBF16,
                                    Type::kF32,  Type::kF64, Type::kF32, Type::kF32, Type::kI64};

  V param(Type type, uint64_t bits) {
    made_.params.push_back(static_cast<int64_t>(bits));
    return b_.param(type);
  }
  int16_t add_buffer(Type type, bool written, bool scratch = false) {
    made_.buffers.push_back(random_data(random_, type, elements_));
    return b_.buffer(type, written, scratch);
  }

  // What each form gives to expressions: the values in scope, and how to load.
  void pointwise() {
    b_.loop({{b_.begin(), b_.end()}}, true, [&](const std::vector<V>& at) {
      pool_ = uniform_;
      pool_.push_back(at[0]);
      load_some(zero_, at[0]);
      store_some(zero_, at[0]);
    });
  }

  void nest() {
    b_.loop({{b_.begin(), b_.end()}, {zero_, extent_}}, true, [&](const std::vector<V>& at) {
      pool_ = uniform_;
      pool_.insert(pool_.end(), at.begin(), at.end());
      const V row = at[0] * extent_;
      load_some(row, row + at[1]);
      store_some(row, row + at[1]);
    });
  }

  /// Each row is reduced by a vector loop, then written with the results at hand.
  void rows() {
    b_.loop({{b_.begin(), b_.end()}}, false, [&](const std::vector<V>& at) {
      const V row = at[0] * extent_;
      const std::vector<V> results = reduce(true, [&](const std::vector<V>& inner) {
        pool_ = uniform_;
        pool_.push_back(inner[0]);
        load_some(row, row + inner[0]);
      });
      b_.store(add_buffer(results[0].type(), true), at[0], results[0]);
      b_.loop({{zero_, extent_}}, true, [&](const std::vector<V>& inner) {
        pool_ = uniform_;
        pool_.insert(pool_.end(), results.begin(), results.end());
        load_some(row, row + inner[0]);
        store_some(row, row + inner[0]);
      });
    });
  }

  /// Lanes over the outer iterations, a serial reduction in each.
  void columns() {
    b_.loop({{b_.begin(), b_.end()}}, true, [&](const std::vector<V>& at) {
      const std::vector<V> results = reduce(false, [&](const std::vector<V>& inner) {
        pool_ = uniform_;
        pool_.push_back(inner[0]);
        pool_.push_back(at[0]);
        load_some(zero_, at[0] * extent_ + inner[0]);
      });
      pool_ = uniform_;
      pool_.insert(pool_.end(), results.begin(), results.end());
      load_some(zero_, at[0]);
      store_some(zero_, at[0]);
    });
  }

  template <class Fill>
  std::vector<V> reduce(bool vector, const Fill& enter) {
    static const Type kReduced[] = {Type::kF32, Type::kF64, Type::kI32, Type::kI64, Type::kU8, Type::kBool};
    const int64_t count = 1 + random_.below(2);
    std::vector<Builder::Reduction> reductions;
    std::vector<Type> types;
    for (int64_t i = 0; i < count; ++i) {
      const Type type = kReduced[random_.below(std::size(kReduced))];
      types.push_back(type);
      Builder::Reduction r;
      const bool pair = random_.chance(25);
      r.init = {b_.constant_int(type, random_.below(2))};
      if (pair) r.init.push_back(b_.constant_int(Type::kI64, 0));
      r.lanes = vector ? 16 << random_.below(3) : 0;
      const int64_t kind = random_.below(3);
      r.combine = [this, kind, type, pair](const std::vector<V>& l, const std::vector<V>& x) {
        if (pair) {  // The least value with its place; the first of equals.
          const V left = (l[0] < x[0]) | ((l[0] == x[0]) & (l[1] <= x[1]));
          return std::vector<V>{select(left, l[0], x[0]), select(left, l[1], x[1])};
        }
        if (type == Type::kBool)
          return std::vector<V>{kind == 0 ? l[0] & x[0] : kind == 1 ? l[0] | x[0] : l[0] ^ x[0]};
        if (kind == 0) return std::vector<V>{l[0] + x[0]};
        if (kind == 1) return std::vector<V>{select(x[0] < l[0], x[0], l[0])};
        return std::vector<V>{is_float(type) ? fma(l[0], b_.constant(type, 0.75), x[0]) : l[0] * x[0] + x[0]};
      };
      reductions.push_back(std::move(r));
    }
    const auto results = b_.reduce({{zero_, extent_}}, vector, reductions, [&](const std::vector<V>& at) {
      enter(at);
      std::vector<std::vector<V>> elements;
      for (size_t i = 0; i < types.size(); ++i) {
        grow(4);
        elements.push_back({as(types[i])});
        if (reductions[i].init.size() > 1) elements.back().push_back(at[0]);
      }
      return elements;
    });
    std::vector<V> flat;
    for (const auto& r : results) flat.insert(flat.end(), r.begin(), r.end());
    return flat;
  }

  /// `base` + lane = `index`; loads of both kinds, and gathers.
  void load_some(V base, V index) {
    const int64_t inputs = 4;
    for (int64_t i = 0; i < inputs; ++i) {
      const auto buffer = static_cast<int16_t>(i);
      // In a column form `index` does not step with the lane, so only the gather is right there.
      const bool unit = random_.chance(60) && steps_with_lane(base, index);
      const V next = random_.chance(25) ? base + extent_ : V{};
      const V there = random_.chance(20) ? b_.constant_int(ir::Type::kI64, random_.below(40)) < index : V{};
      add(unit ? b_.load_unit(buffer, base, next, there) : b_.load(buffer, index, there));
    }
    if (random_.chance(40)) add(b_.load(static_cast<int16_t>(random_.below(inputs)), wild_index()));
  }

  bool steps_with_lane(V base, V index) const {
    const std::vector<Inst>& insts = b_.kernel().insts;
    const Inst& i = insts[static_cast<size_t>(index.id)];
    if (base.id == zero_.id) return i.op == Op::kIndex;
    return i.op == Op::kAdd && i.a == base.id;
  }

  void store_some(V base, V index) {
    grow(4 + random_.below(20));
    const int64_t outputs = 1 + random_.below(2);
    for (int64_t i = 0; i < outputs; ++i) {
      const V value = random_.pick(pool_);
      const Type type = random_.chance(60) ? value.type() : kTypes[random_.below(std::size(kTypes))];
      const V stored = b_.cast(value, type);
      const int16_t buffer = add_buffer(type, true);
      if (random_.chance(60) && steps_with_lane(base, index)) {
        b_.store_unit(buffer, base, stored);
      } else {
        b_.store(buffer, index, stored);
      }
    }
    if (random_.chance(30)) b_.check(as(Type::kBool), static_cast<int32_t>(1 + random_.below(3)));
  }

  V wild_index() { return b_.cast(as(Type::kU64) % size_, Type::kI64); }

  void add(V v) { pool_.push_back(is_half(v.type()) ? b_.cast(v, Type::kF32) : v); }

  /// A value of the type: one from the pool, cast if there is none of it.
  V as(Type type) {
    std::vector<V> fitting;
    for (const V& v : pool_) {
      if (v.type() == type) fitting.push_back(v);
    }
    if (!fitting.empty() && random_.chance(80)) return random_.pick(fitting);
    const V any = random_.pick(pool_);
    return b_.cast(any, type);
  }

  void grow(int64_t count) {
    for (int64_t i = 0; i < count; ++i) add(expression());
  }

  V expression() {
    static const Type kComputed[] = {Type::kF32, Type::kF32, Type::kF32, Type::kF64, Type::kF64,
                                     Type::kI64, Type::kI32, Type::kU8,  Type::kI8,  Type::kI16,
                                     Type::kU32, Type::kU64, Type::kBool};
    const Type type = kComputed[random_.below(std::size(kComputed))];
    const V x = as(type);
    const int64_t form = random_.below(11);
    if (form == 10) return rare(x);
    if (form == 0) {
      const V condition = as(Type::kBool), y = as(type);
      return select(condition, x, y);
    }
    if (form == 1) return b_.cast(x, kTypes[random_.below(std::size(kTypes))]);
    const V y = as(type);
    if (form == 2) {
      static const Op kCompare[] = {Op::kEq, Op::kNe, Op::kLt, Op::kLe};
      return b_.binary(kCompare[random_.below(4)], x, y);
    }
    if (type == Type::kBool) {
      static const Op kLogic[] = {Op::kAnd, Op::kOr, Op::kXor};
      return form == 3 ? ~x : b_.binary(kLogic[random_.below(3)], x, y);
    }
    if (is_float(type)) {
      if (form == 3) {  // A NaN's payload must not become a number.
        const V clean = select(x == x, x, b_.constant(type, 0));
        return b_.bitcast(clean, type == Type::kF32 ? Type::kI32 : Type::kI64);
      }
      if (form <= 5) {
        static const Op kUnary[] = {Op::kNeg,  Op::kAbs,   Op::kSqrt,     Op::kFloor,
                                    Op::kCeil, Op::kTrunc, Op::kRoundEven};
        return b_.unary(kUnary[random_.below(7)], x);
      }
      if (form == 6) {
        const V z = as(type);
        return fma(x, y, z);
      }
      static const Op kBinary[] = {Op::kAdd, Op::kSub, Op::kMul, Op::kDiv, Op::kMin, Op::kMax};
      return b_.binary(kBinary[random_.below(std::size(kBinary))], x, y);
    }
    if (form == 3) {
      static const Op kUnary[] = {Op::kNeg, Op::kAbs, Op::kNot};
      return b_.unary(kUnary[random_.below(3)], x);
    }
    if (form == 5 && type == Type::kU32) {
      std::array<double, 16> numbers;
      for (double& n : numbers) n = static_cast<double>(random_.below(1 << 20)) * 0x1p-18 - 2;
      return b_.table(x, numbers);
    }
    if (form == 4) {
      const bool left = random_.chance(50);
      const V count = b_.constant_int(type, random_.below(70));
      return left ? x << count : x >> count;
    }
    static const Op kBinary[] = {Op::kAdd, Op::kSub, Op::kMul, Op::kMin, Op::kMax, Op::kDiv,
                                 Op::kRem, Op::kAnd, Op::kOr,  Op::kXor, Op::kShl, Op::kShr};
    return b_.binary(kBinary[random_.below(std::size(kBinary))], x, y);
  }

  V rare(V usual) {
    const V condition = as(Type::kBool);
    const std::vector<V> outside = pool_;
    const V result = b_.rare(condition, {usual}, [&] {
      grow(3);
      return std::vector<V>{as(usual.type())};
    })[0];
    pool_ = outside;
    return result;
  }

  Random random_;
  Builder b_;
  RandomKernel made_;
  int64_t inner_ = 0, elements_ = 0;
  V extent_, size_, zero_;
  std::vector<V> uniform_, pool_;
};

inline RandomKernel random_kernel(uint64_t seed) { return RandomKernelMaker(seed).make(); }

}  // namespace lohe::ir::test
