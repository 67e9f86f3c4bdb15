#include "ir/builder.h"

#include <algorithm>
#include <bit>

#include "ir/eval.h"
#include "lohe/error.h"

namespace lohe::ir {
namespace {

uint64_t hash_of(const Inst& inst) {
  uint64_t hash = static_cast<uint64_t>(inst.op) << 8 | static_cast<uint64_t>(inst.type);
  for (const uint64_t word : {static_cast<uint64_t>(inst.buffer), static_cast<uint64_t>(inst.a),
                              static_cast<uint64_t>(inst.b), static_cast<uint64_t>(inst.c), inst.imm}) {
    hash = std::rotl((hash ^ word) * 0x9E3779B97F4A7C15, 29);
  }
  return hash;
}

bool same(const Inst& x, const Inst& y) {
  return x.op == y.op && x.type == y.type && x.buffer == y.buffer && x.a == y.a && x.b == y.b && x.c == y.c &&
         x.imm == y.imm;
}

uint64_t low_bits(Type type, uint64_t bits) {
  if (type == Type::kBool) return bits != 0 ? 1 : 0;
  return size_of(type) == 8 ? bits : bits & ((uint64_t{1} << size_of(type) * 8) - 1);
}

uint64_t bits_of_one(Type type) {
  if (type == Type::kF32) return std::bit_cast<uint32_t>(1.0f);
  return type == Type::kF64 ? std::bit_cast<uint64_t>(1.0) : 1;
}
uint64_t bits_of_minus_zero(Type type) { return type == Type::kF32 ? uint64_t{1} << 31 : uint64_t{1} << 63; }

}  // namespace

Type V::type() const { return builder->kernel_.insts[static_cast<size_t>(id)].type; }

int16_t Builder::buffer(Type type, bool written, bool scratch) {
  kernel_.buffers.push_back({type, written, scratch});
  return static_cast<int16_t>(kernel_.buffers.size() - 1);
}

V Builder::param(Type type) { return param(type, kernel_.params); }

V Builder::param(Type type, int slot) {
  kernel_.params = std::max(kernel_.params, slot + 1);
  return emit({.op = Op::kParam, .type = type, .imm = static_cast<uint64_t>(slot)});
}

V Builder::begin() { return emit({.op = Op::kBegin, .type = Type::kI64}); }
V Builder::end() { return emit({.op = Op::kEnd, .type = Type::kI64}); }

V Builder::constant_bits(Type type, uint64_t bits) {
  return emit({.op = Op::kConst, .type = type, .imm = low_bits(type, bits)});
}

V Builder::constant_int(Type type, int64_t value) {
  if (type == Type::kBool || is_int(type)) return constant_bits(type, static_cast<uint64_t>(value));
  const Type wide = is_half(type) ? Type::kF32 : type;
  uint64_t bits = evaluate(Op::kCast, wide, Type::kI64, static_cast<uint64_t>(value));
  if (wide != type) bits = evaluate(Op::kCast, type, wide, bits);
  return constant_bits(type, bits);
}

V Builder::constant(Type type, double value) {
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  if (type == Type::kF64) return constant_bits(type, bits);
  if (type == Type::kBool) return constant_bits(type, value != 0 ? 1 : 0);
  if (type == Type::kU64 && value >= 0x1p63 && value < 0x1p64) {
    return constant_bits(type, static_cast<uint64_t>(value));
  }
  if (is_int(type)) return constant_bits(type, evaluate(Op::kCast, Type::kI64, Type::kF64, bits));
  const uint64_t single = evaluate(Op::kCast, Type::kF32, Type::kF64, bits);
  return constant_bits(type, type == Type::kF32 ? single : evaluate(Op::kCast, type, Type::kF32, single));
}

V Builder::load(int16_t buffer, V index, V condition) {
  return emit({.op = Op::kLoad,
               .type = kernel_.buffers.at(static_cast<size_t>(buffer)).type,
               .buffer = buffer,
               .a = index.id,
               .c = condition.builder == nullptr ? kNoValue : condition.id});
}

V Builder::load_unit(int16_t buffer, V base, V next, V condition) {
  return emit({.op = Op::kLoadUnit,
               .type = kernel_.buffers.at(static_cast<size_t>(buffer)).type,
               .buffer = buffer,
               .a = base.id,
               .b = next.builder == nullptr ? kNoValue : next.id,
               .c = condition.builder == nullptr ? kNoValue : condition.id});
}

void Builder::transpose(const Transpose& tile) { blocks_.back().block->push_back(tile); }

void Builder::store(int16_t buffer, V index, V value) {
  blocks_.back().block->push_back(Store{buffer, false, index.id, value.id});
}

void Builder::store_unit(int16_t buffer, V base, V value, V next) {
  blocks_.back().block->push_back(
      Store{buffer, true, base.id, value.id, next.builder == nullptr ? kNoValue : next.id});
}

void Builder::check(V condition, int32_t code) { blocks_.back().block->push_back(Check{condition.id, code}); }

V Builder::cast(V x, Type type) {
  const Type from = x.type();
  if (from == type) return x;
  if (is_half(from) && type != Type::kF32) return cast(cast(x, Type::kF32), type);
  if (type == Type::kBool) return binary(Op::kNe, x, constant_bits(from, 0));
  if (is_half(type) && from != Type::kF32) return cast(cast(x, Type::kF32), type);
  if (is_float(from) && is_int(type) && type != Type::kI32 && type != Type::kI64) {
    return cast(cast(x, size_of(type) < 4 ? Type::kI32 : Type::kI64), type);
  }
  return emit({.op = Op::kCast, .type = type, .a = x.id});
}

V Builder::bitcast(V x, Type type) {
  return x.type() == type ? x : emit({.op = Op::kBitcast, .type = type, .a = x.id});
}

V Builder::select(V condition, V a, V b) {
  return emit({.op = Op::kSelect, .type = a.type(), .a = condition.id, .b = a.id, .c = b.id});
}

V Builder::unary(Op op, V a) { return emit({.op = op, .type = a.type(), .a = a.id}); }

V Builder::binary(Op op, V a, V b) {
  const bool compares = op == Op::kEq || op == Op::kNe || op == Op::kLt || op == Op::kLe;
  return emit({.op = op, .type = compares ? Type::kBool : a.type(), .a = a.id, .b = b.id});
}

V Builder::fma(V a, V b, V c) {
  return emit({.op = Op::kFma, .type = a.type(), .a = a.id, .b = b.id, .c = c.id});
}

V Builder::table(V index, const std::array<double, 16>& numbers) {
  Table table;
  for (size_t i = 0; i < table.size(); ++i)
    table[i] = std::bit_cast<uint32_t>(static_cast<float>(numbers[i]));
  const auto found = std::find(kernel_.tables.begin(), kernel_.tables.end(), table);
  const auto number = static_cast<uint64_t>(found - kernel_.tables.begin());
  if (found == kernel_.tables.end()) kernel_.tables.push_back(table);
  return emit({.op = Op::kTable, .type = Type::kF32, .a = index.id, .imm = number});
}

bool Builder::fold(const Inst& inst, uint64_t* bits) const {
  if (is_leaf(inst.op) || is_load(inst.op) || inst.op == Op::kTable) return false;
  uint64_t operands[3] = {};
  const Value ids[3] = {inst.a, inst.b, inst.c};
  for (int i = 0; i < operand_count(inst.op); ++i) {
    const Inst& operand = kernel_.insts[static_cast<size_t>(ids[i])];
    if (operand.op != Op::kConst) return false;
    operands[i] = operand.imm;
  }
  const Type operand = kernel_.insts[static_cast<size_t>(inst.op == Op::kSelect ? inst.b : inst.a)].type;
  *bits = evaluate(inst.op, inst.type, operand, operands[0], operands[1], operands[2]);
  return true;
}

namespace {

/// The operand that equals the whole instruction for every value of it, NaN and -0 included, or kNoValue.
Value identity(const std::vector<Inst>& insts, const Inst& inst) {
  const auto is = [&](Value v, uint64_t bits) {
    const Inst& x = insts[static_cast<size_t>(v)];
    return x.op == Op::kConst && x.imm == bits;
  };
  const bool real = is_float(inst.type);
  const uint64_t neutral = real ? bits_of_minus_zero(inst.type) : 0;  // x + +0 would turn -0 into +0.
  switch (inst.op) {
    case Op::kAdd:
      if (is(inst.b, neutral)) return inst.a;
      return is(inst.a, neutral) ? inst.b : kNoValue;
    case Op::kSub:
      return is(inst.b, 0) ? inst.a : kNoValue;
    case Op::kMul:
      if (is(inst.b, bits_of_one(inst.type))) return inst.a;
      if (is(inst.a, bits_of_one(inst.type))) return inst.b;
      if (!real && is(inst.a, 0)) return inst.a;
      return !real && is(inst.b, 0) ? inst.b : kNoValue;
    case Op::kDiv:
      return is(inst.b, bits_of_one(inst.type)) ? inst.a : kNoValue;
    case Op::kOr:
    case Op::kXor:
      if (is(inst.b, 0)) return inst.a;
      return is(inst.a, 0) ? inst.b : kNoValue;
    case Op::kShl:
    case Op::kShr:
      return is(inst.b, 0) ? inst.a : kNoValue;
    case Op::kSelect:
      if (inst.b == inst.c || is(inst.a, 1)) return inst.b;
      return is(inst.a, 0) ? inst.c : kNoValue;
    default:
      return kNoValue;
  }
}

}  // namespace

V Builder::emit(Inst inst) {
  if (!is_leaf(inst.op) && !is_load(inst.op)) {
    const Value ids[3] = {inst.a, inst.b, inst.c};
    const Type operand = kernel_.insts[static_cast<size_t>(inst.op == Op::kSelect ? inst.b : inst.a)].type;
    bool fits = lane_function(inst.op, inst.type, operand) != nullptr;
    for (int i = 0; i < operand_count(inst.op); ++i) {
      const Type type = kernel_.insts[static_cast<size_t>(ids[i])].type;
      fits = fits && type == (inst.op == Op::kSelect && i == 0 ? Type::kBool : operand);
      if (!fits) {
        raise(ErrorKind::kInternal, "kernel ", kernel_.name, ": ", name(inst.op), " to ", name(inst.type),
              " is not defined for operand ", i, " of type ", name(type), " (the first has type ",
              name(operand), ")");
      }
    }
    uint64_t bits = 0;
    if (fold(inst, &bits)) return constant_bits(inst.type, bits);
    if (const Value equal = identity(kernel_.insts, inst); equal != kNoValue) return wrap(equal);
  }
  // Only the contents of buffers that the kernel never writes are sure to stay.
  const bool reusable = !is_load(inst.op) || !kernel_.buffers[static_cast<size_t>(inst.buffer)].written;
  const uint64_t hash = hash_of(inst);
  if (reusable) {
    for (const Scope& scope : blocks_) {
      const auto [first, last] = scope.known.equal_range(hash);
      for (auto it = first; it != last; ++it) {
        if (same(kernel_.insts[static_cast<size_t>(it->second)], inst)) return wrap(it->second);
      }
    }
  }
  // Leaves are available everywhere: the outermost block, whose open loop is appended after them, holds each
  // once.
  Scope& scope = is_leaf(inst.op) ? blocks_.front() : blocks_.back();
  const auto id = static_cast<Value>(kernel_.insts.size());
  kernel_.insts.push_back(inst);
  scope.block->push_back(Define{id});
  if (reusable) scope.known.emplace(hash, id);
  return wrap(id);
}

V Builder::define_carry(Type type) {
  kernel_.insts.push_back({.op = Op::kCarry, .type = type});
  return wrap(static_cast<Value>(kernel_.insts.size() - 1));
}

V Builder::define_index() {
  kernel_.insts.push_back({.op = Op::kIndex, .type = Type::kI64});
  return wrap(static_cast<Value>(kernel_.insts.size() - 1));
}

void Builder::loop(const std::vector<std::pair<V, V>>& bounds, bool vector, const Body& body) {
  reduce(bounds, vector, {}, [&](const std::vector<V>& indices) {
    body(indices);
    return std::vector<std::vector<V>>{};
  });
}

namespace {

std::vector<Value> ids(const std::vector<V>& values) {
  std::vector<Value> result;
  for (const V& v : values) result.push_back(v.id);
  return result;
}

/// Whether two bodies of Rares compute the same; `renamed` maps values of the second to those of the first.
bool same(const std::vector<Inst>& insts, const Block& x, const Block& y,
          std::unordered_map<Value, Value>& renamed) {
  const auto mapped = [&](Value v) {
    const auto found = renamed.find(v);
    return found == renamed.end() ? v : found->second;
  };
  if (x.size() != y.size()) return false;
  for (size_t i = 0; i < x.size(); ++i) {
    const auto *first = std::get_if<Define>(&x[i]), *second = std::get_if<Define>(&y[i]);
    if (first == nullptr || second == nullptr) return false;
    Inst inst = insts[static_cast<size_t>(second->value)];
    inst.a = mapped(inst.a), inst.b = mapped(inst.b), inst.c = mapped(inst.c);
    if (!same(insts[static_cast<size_t>(first->value)], inst)) return false;
    renamed[second->value] = first->value;
  }
  return true;
}

bool same(const std::vector<Inst>& insts, const Rare& x, const Rare& y) {
  std::unordered_map<Value, Value> renamed;
  if (x.condition != y.condition || x.usual != y.usual || x.computed.size() != y.computed.size() ||
      !same(insts, x.body, y.body, renamed))
    return false;
  return std::equal(x.computed.begin(), x.computed.end(), y.computed.begin(), [&](Value a, Value b) {
    const auto found = renamed.find(b);
    return a == (found == renamed.end() ? b : found->second);
  });
}

}  // namespace

std::vector<V> Builder::rare(V condition, const std::vector<V>& usual,
                             const std::function<std::vector<V>()>& body) {
  const Inst& known = kernel_.insts[static_cast<size_t>(condition.id)];
  if (known.op == Op::kConst) return known.imm != 0 ? body() : usual;
  auto rare = std::make_unique<Rare>();
  rare->condition = condition.id;
  rare->usual = ids(usual);
  blocks_.push_back({&rare->body, {}, {}});
  rare->computed = ids(body());
  blocks_.pop_back();
  std::vector<V> results;
  for (const Scope& scope : blocks_) {
    for (const Rare* earlier : scope.rares) {
      if (!same(kernel_.insts, *earlier, *rare)) continue;
      for (const Value v : earlier->results) results.push_back(wrap(v));
      return results;
    }
  }
  for (const V& v : usual) results.push_back(define_carry(v.type()));
  rare->results = ids(results);
  blocks_.back().rares.push_back(rare.get());
  blocks_.back().block->push_back(std::move(rare));
  return results;
}

std::vector<std::vector<V>> Builder::reduce(
    const std::vector<std::pair<V, V>>& bounds, bool vector, const std::vector<Reduction>& reductions,
    const std::function<std::vector<std::vector<V>>(const std::vector<V>&)>& body) {
  auto loop = std::make_unique<Loop>();
  loop->vector = vector;
  std::vector<V> indices;
  for (const auto& [first, last] : bounds) {
    indices.push_back(define_index());
    loop->dims.push_back({indices.back().id, first.id, last.id});
  }
  blocks_.push_back({&loop->body, {}, {}});
  const std::vector<std::vector<V>> elements = body(indices);
  blocks_.pop_back();
  LOHE_INTERNAL_ASSERT(elements.size() == reductions.size(), "kernel ", kernel_.name,
                       ": the body of a loop with ", reductions.size(), " reductions gave elements for ",
                       elements.size());
  std::vector<std::vector<V>> results;
  for (size_t i = 0; i < reductions.size(); ++i) {
    Reduce& reduce = loop->reduces.emplace_back();
    reduce.lanes = reductions[i].lanes;
    reduce.init = ids(reductions[i].init);
    reduce.elements = ids(elements[i]);
    std::vector<V> left, right;
    for (const V& init : reductions[i].init) {
      left.push_back(define_carry(init.type()));
      right.push_back(define_carry(init.type()));
    }
    // Combining also happens after the loop, so the combine block sees what encloses the loop but not the
    // body.
    blocks_.push_back({&reduce.combine, {}, {}});
    reduce.combined = ids(reductions[i].combine(left, right));
    blocks_.pop_back();
    reduce.left = ids(left);
    reduce.right = ids(right);
    std::vector<V>& result = results.emplace_back();
    for (const V& init : reductions[i].init) result.push_back(define_carry(init.type()));
    reduce.results = ids(result);
  }
  blocks_.back().block->push_back(std::move(loop));
  return results;
}

V operator+(V a, V b) { return a.builder->binary(Op::kAdd, a, b); }
V operator-(V a, V b) { return a.builder->binary(Op::kSub, a, b); }
V operator*(V a, V b) { return a.builder->binary(Op::kMul, a, b); }
V operator/(V a, V b) { return a.builder->binary(Op::kDiv, a, b); }
V operator%(V a, V b) { return a.builder->binary(Op::kRem, a, b); }
V operator-(V a) { return a.builder->unary(Op::kNeg, a); }
V operator&(V a, V b) { return a.builder->binary(Op::kAnd, a, b); }
V operator|(V a, V b) { return a.builder->binary(Op::kOr, a, b); }
V operator^(V a, V b) { return a.builder->binary(Op::kXor, a, b); }
V operator~(V a) { return a.builder->unary(Op::kNot, a); }
V operator<<(V a, V b) { return a.builder->binary(Op::kShl, a, b); }
V operator>>(V a, V b) { return a.builder->binary(Op::kShr, a, b); }
V operator==(V a, V b) { return a.builder->binary(Op::kEq, a, b); }
V operator!=(V a, V b) { return a.builder->binary(Op::kNe, a, b); }
V operator<(V a, V b) { return a.builder->binary(Op::kLt, a, b); }
V operator<=(V a, V b) { return a.builder->binary(Op::kLe, a, b); }
V operator>(V a, V b) { return b < a; }
V operator>=(V a, V b) { return b <= a; }
V select(V condition, V a, V b) { return a.builder->select(condition, a, b); }
V fma(V a, V b, V c) { return a.builder->fma(a, b, c); }
V scale(V a, V b) { return a.builder->binary(Op::kScale, a, b); }
V sqrt(V a) { return a.builder->unary(Op::kSqrt, a); }
V abs(V a) { return a.builder->unary(Op::kAbs, a); }
V floor(V a) { return a.builder->unary(Op::kFloor, a); }
V ceil(V a) { return a.builder->unary(Op::kCeil, a); }
V trunc(V a) { return a.builder->unary(Op::kTrunc, a); }
V round_even(V a) { return a.builder->unary(Op::kRoundEven, a); }
V is_nan(V a) { return a != a; }

}  // namespace lohe::ir
