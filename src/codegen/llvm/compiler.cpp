#include "codegen/llvm/compiler.h"

#include <llvm/Analysis/TargetLibraryInfo.h>
#include <llvm/Analysis/TargetTransformInfo.h>
#include <llvm/Config/llvm-config.h>
#include <llvm/IR/LegacyPassManager.h>
#include <llvm/IR/Verifier.h>
#include <llvm/MC/TargetRegistry.h>
#include <llvm/Support/TargetSelect.h>
#include <llvm/Target/TargetMachine.h>
#include <llvm/Transforms/InstCombine/InstCombine.h>
#include <llvm/Transforms/Scalar.h>
#include <llvm/Transforms/Utils/ModuleUtils.h>

#include <array>
#include <cstddef>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "base/dump.h"
#include "codegen/llvm/emitter.h"
#include "lohe/error.h"

// Five passes are enough because the emitter already chose vectors, unrolling and the place of every load:
// accumulators in registers, common subexpressions across unrolled bodies, folding, hoisting of what is
// uniform, and straightening of empty loops. The whole O2 pipeline took two to three times as long for the
// same machine code.

namespace lohe::codegen {
namespace {

constexpr const char* kTriple = "x86_64-unknown-linux-gnu";

std::unique_ptr<llvm::TargetMachine> make_target(CpuLevel level) {
  static std::once_flag once;
  std::call_once(once, [] {
    llvm::InitializeNativeTarget();
    llvm::InitializeNativeTargetAsmPrinter();
  });
  std::string error;
  const llvm::Target* target = llvm::TargetRegistry::lookupTarget(kTriple, error);
  LOHE_INTERNAL_ASSERT(target != nullptr, "no code generator: ", error);
  llvm::TargetOptions options;
  // Never form an fma that the kernel does not spell out.
  options.AllowFPOpFusion = llvm::FPOpFusion::Strict;
  options.FunctionSections = true;
  // Off by default, and no linker runs the constructors of .ctors any more.
  options.UseInitArray = true;
  // Lines that will be written are fetched as such; older processors take the instruction for none.
  constexpr const char* cpus[] = {"x86-64-v2", "x86-64-v3", "x86-64-v4"};
  return std::unique_ptr<llvm::TargetMachine>(
      target->createTargetMachine(kTriple, cpus[static_cast<int>(level)], "+prfchw", options,
                                  llvm::Reloc::PIC_, llvm::CodeModel::Small, llvm::CodeGenOptLevel::Default));
}

void prepare(llvm::Module& module, llvm::TargetMachine& target) {
  module.setTargetTriple(kTriple);
  module.setDataLayout(target.createDataLayout());
  module.setPICLevel(llvm::PICLevel::BigPIC);
}

std::string emit_object(llvm::Module& module, llvm::TargetMachine& target) {
  std::string problem;
  llvm::raw_string_ostream stream(problem);
  const bool broken = llvm::verifyModule(module, &stream);
  LOHE_INTERNAL_ASSERT(!broken, "generated code: ", problem);
  llvm::SmallVector<char, 0> bytes;
  llvm::raw_svector_ostream out(bytes);
  llvm::legacy::PassManager passes;
  llvm::TargetLibraryInfoImpl library{llvm::Triple(kTriple)};
  library.disableAllFunctions();
  passes.add(new llvm::TargetLibraryInfoWrapperPass(library));
  passes.add(llvm::createTargetTransformInfoWrapperPass(target.getTargetIRAnalysis()));
  passes.add(llvm::createSROAPass());
  passes.add(llvm::createEarlyCSEPass());
  passes.add(llvm::createInstructionCombiningPass());
  passes.add(llvm::createLICMPass());
  passes.add(llvm::createCFGSimplificationPass());
  const bool failed = target.addPassesToEmitFile(passes, out, nullptr, llvm::CodeGenFileType::ObjectFile);
  LOHE_INTERNAL_ASSERT(!failed, "the target cannot write object files");
  passes.run(module);
  return std::string(bytes.begin(), bytes.end());
}

using Targets = std::array<std::unique_ptr<llvm::TargetMachine>, std::size(kCpuLevels)>;
constinit thread_local Targets* own_targets = nullptr;
constinit thread_local bool thread_is_ending = false;

struct TargetsOwner {
  ~TargetsOwner() {
    thread_is_ending = true;
    delete std::exchange(own_targets, nullptr);
  }
};

/// Neither a context nor a target machine may be shared between threads. The machine, dear to make, lasts as
/// long as its thread; contexts are made for each object, since types and constants of earlier kernels pile
/// up in a lasting one. What other destructors compile while the thread ends, with work that was left for
/// then, gets machines that nobody frees.
llvm::TargetMachine& thread_target(CpuLevel level) {
  if (own_targets == nullptr) {
    own_targets = new Targets;
    if (!thread_is_ending) {
      static thread_local TargetsOwner owner;
      static_cast<void>(&owner);
    }
  }
  auto& machine = (*own_targets)[static_cast<size_t>(level)];
  if (machine == nullptr) machine = make_target(level);
  return *machine;
}

}  // namespace

const char* llvm_version() { return LLVM_VERSION_STRING; }

std::string compile_to_object(std::span<const NamedKernel> kernels, CpuLevel level) {
  llvm::TargetMachine& target = thread_target(level);
  llvm::LLVMContext context;
  llvm::Module module("lohe_kernels", context);
  prepare(module, target);
  for (const NamedKernel& named : kernels) emit_kernel(*named.kernel, level, named.symbol, module);
  if (dumps_ir()) {
    std::string text;
    llvm::raw_string_ostream stream(text);
    module.print(stream, nullptr);
    dump_ir(kernels.empty() ? "module" : kernels[0].kernel->name, "ll", text);
  }
  return emit_object(module, target);
}

std::string compile_registration(std::span<const PrebuiltRow> rows) {
  llvm::TargetMachine& target = thread_target(CpuLevel::kV2);
  llvm::LLVMContext context;
  llvm::Module module("lohe_prebuilt", context);
  prepare(module, target);
  llvm::IRBuilder<> b(context);
  auto* kernel_type = llvm::FunctionType::get(
      b.getInt32Ty(), {b.getPtrTy(), b.getPtrTy(), b.getInt64Ty(), b.getInt64Ty()}, false);
  // PrebuiltKernel: two words, a byte padded to a word, a pointer.
  auto* row_type = llvm::StructType::get(b.getInt64Ty(), b.getInt64Ty(), b.getInt64Ty(), b.getPtrTy());
  static_assert(sizeof(PrebuiltKernel) == 32 && offsetof(PrebuiltKernel, level) == 16 &&
                offsetof(PrebuiltKernel, function) == 24);
  std::vector<llvm::Constant*> values;
  for (const PrebuiltRow& row : rows) {
    values.push_back(llvm::ConstantStruct::get(
        row_type, b.getInt64(row.hash.first), b.getInt64(row.hash.second),
        b.getInt64(static_cast<uint64_t>(row.level)),
        llvm::cast<llvm::Constant>(module.getOrInsertFunction(row.symbol, kernel_type).getCallee())));
  }
  auto* table_type = llvm::ArrayType::get(row_type, values.size());
  auto* table = new llvm::GlobalVariable(module, table_type, true, llvm::GlobalValue::InternalLinkage,
                                         llvm::ConstantArray::get(table_type, values), "table");
  llvm::FunctionCallee registry = module.getOrInsertFunction(
      "lohe_register_prebuilt",
      llvm::FunctionType::get(b.getVoidTy(), {b.getPtrTy(), b.getInt64Ty()}, false));
  auto* constructor = llvm::Function::Create(llvm::FunctionType::get(b.getVoidTy(), false),
                                             llvm::GlobalValue::InternalLinkage, "register_table", module);
  b.SetInsertPoint(llvm::BasicBlock::Create(context, "entry", constructor));
  b.CreateCall(registry, {table, b.getInt64(values.size())});
  b.CreateRetVoid();
  llvm::appendToGlobalCtors(module, constructor, 65535);
  return emit_object(module, target);
}

std::string compile_to_object(const ir::Kernel& kernel, CpuLevel level, const std::string& symbol) {
  const NamedKernel named{&kernel, symbol};
  return compile_to_object(std::span(&named, 1), level);
}

}  // namespace lohe::codegen
