#pragma once

#include <functional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "ir/kernel.h"

namespace lohe::ir {

class Builder;

/// A value under construction, with operators. Operands of one type only; literals take the other operand's
/// type.
struct V {
  Builder* builder = nullptr;
  Value id = kNoValue;
  Type type() const;
};

/// Appends instructions to a kernel, folding constants and reusing equal instructions of the enclosing
/// blocks.
class Builder {
 public:
  explicit Builder(std::string name) {
    kernel_.name = std::move(name);
    blocks_.push_back({&kernel_.body, {}, {}});
  }
  Builder(const Builder&) = delete;
  Builder& operator=(const Builder&) = delete;

  int16_t buffer(Type type, bool written, bool scratch = false);
  V param(Type type);            ///< the next parameter slot
  V param(Type type, int slot);  ///< a given slot
  V begin();
  V end();
  V constant(Type type, double value);  ///< rounded to the type
  V constant_int(Type type, int64_t value);
  V constant_bits(Type type, uint64_t bits);

  /// Bool buffers hold bytes; any non-zero byte is true. @param condition, if given: else zero
  V load(int16_t buffer, V index, V condition = {});
  /// In a vector loop: buffer[base + i]. @param next base of what will be read soon, a hint
  V load_unit(int16_t buffer, V base, V next = {}, V condition = {});
  void transpose(const Transpose& tile);
  void store(int16_t buffer, V index, V value);
  void store_unit(int16_t buffer, V base, V value, V next = {});  ///< as load_unit()
  void check(V condition, int32_t code);

  /// Any type to any type. Float to integer truncates toward zero and gives the type's minimum for NaN and
  /// values out of range (x86), only for kI32 and kI64; smaller integers come from those. Half types convert
  /// through kF32 only; float to bool is x != 0; bool to number 0 or 1.
  V cast(V x, Type type);
  V bitcast(V x, Type type);
  V select(V condition, V a, V b);
  V unary(Op op, V a);
  V binary(Op op, V a, V b);
  V fma(V a, V b, V c);
  /// numbers[index % 16], each rounded to kF32; the index is kU32.
  V table(V index, const std::array<double, 16>& numbers);

  /// condition ? body() : usual, value by value: see Rare. An equal Rare of the enclosing blocks is reused.
  std::vector<V> rare(V condition, const std::vector<V>& usual, const std::function<std::vector<V>()>& body);

  /// A loop over [begin, end) of every dim; `body` gets the indices and may return elements for reductions.
  using Body = std::function<void(const std::vector<V>& indices)>;
  void loop(const std::vector<std::pair<V, V>>& bounds, bool vector, const Body& body);

  struct Reduction {
    std::vector<V> init;
    int lanes = 0;
    std::function<std::vector<V>(const std::vector<V>& left, const std::vector<V>& right)> combine;
  };
  /// A loop with reductions: `body` returns, for each reduction, its elements of this iteration; the result
  /// holds, for each reduction, its results.
  std::vector<std::vector<V>> reduce(
      const std::vector<std::pair<V, V>>& bounds, bool vector, const std::vector<Reduction>& reductions,
      const std::function<std::vector<std::vector<V>>(const std::vector<V>&)>& body);

  Kernel finish() { return std::move(kernel_); }
  const Kernel& kernel() const { return kernel_; }

 private:
  friend struct V;
  struct Scope {
    Block* block;
    std::unordered_multimap<uint64_t, Value> known;  ///< for reuse of equal instructions
    std::vector<const Rare*> rares;
  };
  V emit(Inst inst);  ///< folds, reuses or appends
  V define_carry(Type type);
  V define_index();
  V wrap(Value id) { return {this, id}; }
  bool fold(const Inst& inst, uint64_t* bits) const;

  Kernel kernel_;
  std::vector<Scope> blocks_;
};

V operator+(V a, V b);
V operator-(V a, V b);
V operator*(V a, V b);
V operator/(V a, V b);
V operator%(V a, V b);
V operator-(V a);
V operator&(V a, V b);
V operator|(V a, V b);
V operator^(V a, V b);
V operator~(V a);
V operator<<(V a, V b);
V operator>>(V a, V b);
V operator==(V a, V b);
V operator!=(V a, V b);
V operator<(V a, V b);
V operator<=(V a, V b);
V operator>(V a, V b);
V operator>=(V a, V b);
V select(V condition, V a, V b);
V fma(V a, V b, V c);
V scale(V a, V b);  ///< Op::kScale
V sqrt(V a);
V abs(V a);  ///< clears the sign bit of floats; integers wrap at the minimum
V floor(V a);
V ceil(V a);
V trunc(V a);
V round_even(V a);
V is_nan(V a);

// Literals: V op double. The literal is a constant of V's type.
template <class T>
concept Literal = std::is_arithmetic_v<T>;
inline V literal(V like, double x) { return like.builder->constant(like.type(), x); }
template <Literal T>
V operator+(V a, T b) {
  return a + literal(a, static_cast<double>(b));
}
template <Literal T>
V operator+(T a, V b) {
  return literal(b, static_cast<double>(a)) + b;
}
template <Literal T>
V operator-(V a, T b) {
  return a - literal(a, static_cast<double>(b));
}
template <Literal T>
V operator-(T a, V b) {
  return literal(b, static_cast<double>(a)) - b;
}
template <Literal T>
V operator*(V a, T b) {
  return a * literal(a, static_cast<double>(b));
}
template <Literal T>
V operator*(T a, V b) {
  return literal(b, static_cast<double>(a)) * b;
}
template <Literal T>
V operator/(V a, T b) {
  return a / literal(a, static_cast<double>(b));
}
template <Literal T>
V operator/(T a, V b) {
  return literal(b, static_cast<double>(a)) / b;
}
template <Literal T>
V operator<(V a, T b) {
  return a < literal(a, static_cast<double>(b));
}
template <Literal T>
V operator<=(V a, T b) {
  return a <= literal(a, static_cast<double>(b));
}
template <Literal T>
V operator>(V a, T b) {
  return a > literal(a, static_cast<double>(b));
}
template <Literal T>
V operator>=(V a, T b) {
  return a >= literal(a, static_cast<double>(b));
}
template <Literal T>
V operator==(V a, T b) {
  return a == literal(a, static_cast<double>(b));
}
template <Literal T>
V operator!=(V a, T b) {
  return a != literal(a, static_cast<double>(b));
}

}  // namespace lohe::ir
