#pragma once

#include <llvm/IR/IRBuilder.h>
#include <llvm/IR/Module.h>

#include <functional>
#include <string>
#include <vector>

#include "codegen/codegen.h"

namespace lohe::codegen {

/// The name of the C function for a double-precision fma where the processor has none.
inline constexpr const char* kFmaSymbol = "lohe_kernel_fma";

/// Bytes of a vector register at a level.
constexpr int register_bytes(CpuLevel level) { return 16 << static_cast<int>(level); }

/// The arithmetic of the kernel IR on LLVM values, scalars and vectors alike. Half types live in i16
/// registers, so that LLVM never gets to choose how they convert.
class Arithmetic {
 public:
  Arithmetic(llvm::IRBuilder<>& builder, llvm::Module& module, CpuLevel level)
      : b_(builder), module_(module), level_(level) {}

  /// `width` 0: the scalar type.
  llvm::Type* type(ir::Type t, int width) const;
  llvm::Constant* constant(ir::Type t, uint64_t bits) const;
  llvm::Value* splat(llvm::Value* x, int width);
  /// The lanes of a vector whose numbers are below `limit`.
  llvm::Value* lanes_below(llvm::Value* limit, int width);
  /// Operands of one shape; `from` is the type of the first operand of casts, bitcasts and comparisons.
  llvm::Value* apply(ir::Op op, ir::Type type, ir::Type from, llvm::Value* a, llvm::Value* b, llvm::Value* c);
  llvm::Value* cast(llvm::Value* x, ir::Type from, ir::Type to);
  /// table[index % 16].
  llvm::Value* look_up(const ir::Table& table, llvm::Value* index);
  /// Bool <-> the byte that memory holds.
  llvm::Value* to_memory(llvm::Value* x, ir::Type t);
  llvm::Value* from_memory(llvm::Value* x, ir::Type t);

 private:
  llvm::Value* divide(ir::Op op, ir::Type t, llvm::Value* a, llvm::Value* b);
  llvm::Value* shift(ir::Op op, ir::Type t, llvm::Value* a, llvm::Value* b);
  llvm::Value* compare(ir::Op op, ir::Type t, llvm::Value* a, llvm::Value* b);
  llvm::Value* scale(ir::Type t, llvm::Value* a, llvm::Value* b);
  llvm::Value* fma(ir::Type t, llvm::Value* a, llvm::Value* b, llvm::Value* c);
  llvm::Value* fma_by_double(llvm::Value* a, llvm::Value* b, llvm::Value* c);
  llvm::Value* float_to_int(llvm::Value* x, ir::Type from, ir::Type to);
  llvm::Value* more_extreme(llvm::Value* condition, llvm::Value* a, llvm::Value* b);
  llvm::Value* half_to_float(llvm::Value* x);
  llvm::Value* float_to_half(llvm::Value* x);
  llvm::Value* float_to_bfloat(llvm::Value* x);
  llvm::Value* int_like(llvm::Value* like, int bits, uint64_t value) const;

  llvm::IRBuilder<>& b_;
  llvm::Module& module_;
  CpuLevel level_;
};

/// Adds the function `symbol` for `kernel` to `module`.
void emit_kernel(const ir::Kernel& kernel, CpuLevel level, const std::string& symbol, llvm::Module& module);

/// Facts about values that hold wherever they are used: which differ from lane to lane of the enclosing
/// vector loop.
std::vector<bool> find_varying(const ir::Kernel& kernel);
/// Instructions in a block, those of its inner loops included.
int count_instructions(const ir::Block& block);
bool has_checks(const ir::Block& block);
/// One block of code, without scatters: its steps may be done side by side, see ir::Loop.
bool is_straight(const ir::Block& block);
/// Lanes of a vector loop: a register of the widest type that its varying values and memory have.
int vector_width(const ir::Kernel& kernel, const std::vector<bool>& varying, const ir::Loop& loop,
                 CpuLevel level);

}  // namespace lohe::codegen
