#pragma once

#include <optional>
#include <vector>

#include "codegen/llvm/control.h"
#include "codegen/llvm/emitter.h"
#include "codegen/llvm/strided.h"
#include "ir/kernel.h"

namespace lohe::codegen {

/// The values of a kernel's instructions while its code is written, and what it reads and writes: the half of
/// the emitter that does not know of loops. Nothing beyond the last element is ever touched, because buffers
/// may end at an inaccessible page.
class MemoryEmitter {
 public:
  MemoryEmitter(const ir::Kernel& kernel, CpuLevel level, llvm::Module& module);

 protected:
  /// The current step of the vector loop that encloses what is emitted.
  struct Step {
    int width = 0;                    ///< 0: outside vector loops
    ir::Value number = ir::kNoValue;  ///< the loop's index
    llvm::Value* index = nullptr;     ///< index of lane 0
    llvm::Value* count = nullptr;     ///< of active lanes, the first ones; null: all
    llvm::Value* mask = nullptr;      ///< of them; null: all
  };

  llvm::Value* scalar(ir::Value v);
  /// As `width` lanes, whatever the value is.
  llvm::Value* vector(ir::Value v);
  llvm::Value* operand(ir::Value v, bool as_vector);
  llvm::Type* memory_type(ir::Type t, int width) const;
  /// Whether a store under a mask costs little more than another; see partial.h.
  bool stores_by_mask() const { return level_ == CpuLevel::kAvx512; }
  llvm::Value* number(int n) { return b_.getInt64(static_cast<uint64_t>(n)); }
  /// In the entry block, so that the frame has a fixed size.
  llvm::AllocaInst* allocate(llvm::Type* type, uint64_t count = 1);

  llvm::Value* load(const ir::Inst& inst);
  void emit(const ir::Store& store);
  void emit(const ir::Transpose& t);
  /// The two parts of complex numbers, read or written by one statement each.
  /// @return false: these are not both of them
  bool emit_pairs(const ir::Stmt& first, const ir::Stmt& second);

  const ir::Kernel& kernel_;
  const CpuLevel level_;
  llvm::IRBuilder<> b_;
  Arithmetic arithmetic_;
  const std::vector<bool> varying_;
  Values values_;  ///< of the step that is being emitted
  Values pointers_;
  Step step_;
  llvm::Function* function_ = nullptr;
  llvm::Instruction* allocation_point_ = nullptr;

 private:
  llvm::Value* address(int16_t buffer, llvm::Value* index);
  llvm::Value* all_lanes();
  llvm::Value* loaded_lanes(ir::Value condition);
  llvm::Value* load_one(ir::Type t, llvm::Value* from, ir::Value condition);
  bool masks_well(ir::Type t) const;
  std::optional<Strided::Index> strided(ir::Value index);
  Strided strided_access(int16_t buffer, llvm::Type* type, const Strided::Index& at, llvm::Value* lanes);
  std::optional<Strided> pairs(int16_t buffer, ir::Value index, ir::Value next);
  void fetch(int16_t buffer, ir::Value base, bool written);
};

}  // namespace lohe::codegen
