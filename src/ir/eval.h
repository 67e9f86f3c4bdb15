#pragma once

#include "ir/kernel.h"

/// The exact meaning of every arithmetic instruction, in one place: the builder folds constants with it, the
/// interpreter runs on it and the checker takes its type rules from it.
namespace lohe::ir {

/// Values in memory and in lanes: bool as a byte 0 or 1, half types as their 16 bits, all others as the C++
/// type. r[i] = op(a[i], b[i], c[i]) for i < n; operands that the op lacks are not read. r may be one of the
/// operands.
using LaneFunction = void (*)(void* r, const void* a, const void* b, const void* c, int n);

/// The function of an arithmetic op (kAdd ... kBitcast), or null where the op is not defined for these types.
/// `operand` is the type of the operands; kSelect's condition is a bool and its `operand` the type of the two
/// others. NaN results follow x86 up to the order of operands, which compilers may exchange.
LaneFunction lane_function(Op op, Type result, Type operand);

/// The result's bits, zero extended, from operands given in the same way.
/// @throws internal error where the op is not defined for these types.
uint64_t evaluate(Op op, Type result, Type operand, uint64_t a, uint64_t b = 0, uint64_t c = 0);

constexpr bool is_leaf(Op op) { return op <= Op::kCarry; }
constexpr bool is_load(Op op) { return op == Op::kLoad || op == Op::kLoadUnit; }
/// Operands an arithmetic op takes (1 to 3); loads take one, leaves none.
int operand_count(Op op);
const char* name(Op op);

/// Exact. A signalling NaN becomes quiet; the payload is kept.
float float_from_half(uint16_t bits);
float float_from_bfloat(uint16_t bits);
/// Rounded to nearest even; overflow gives infinity; NaN keeps its sign and the upper bits of its payload,
/// and is quiet.
uint16_t half_from_float(float x);
uint16_t bfloat_from_float(float x);

}  // namespace lohe::ir
