#include <llvm/ExecutionEngine/Orc/LLJIT.h>
#include <llvm/Support/TargetSelect.h>

#include <atomic>
#include <cmath>
#include <mutex>

#include "base/log.h"
#include "codegen/llvm/compiler.h"
#include "codegen/llvm/emitter.h"
#include "lohe/error.h"

/// Called from code for x86-64-v2, one lane at a time; also by prebuilt kernels, hence the C name.
extern "C" double lohe_kernel_fma(double a, double b, double c) { return std::fma(a, b, c); }

namespace lohe::codegen {
namespace {

namespace orc = llvm::orc;

void must(llvm::Error error) {
  if (error) raise(ErrorKind::kRuntime, "cannot load a kernel's code: ", llvm::toString(std::move(error)));
}
template <class T>
T must(llvm::Expected<T> result) {
  must(result.takeError());
  return static_cast<T>(std::forward<T>(*result));
}

class Loader {
 public:
  Loader() {
    llvm::InitializeNativeTarget();
    llvm::InitializeNativeTargetAsmPrinter();
    orc::LLJITBuilder builder;
    // The host is asked for nothing: objects are already made for their level.
    builder.setJITTargetMachineBuilder(
        orc::JITTargetMachineBuilder(llvm::Triple("x86_64-unknown-linux-gnu")));
    builder.setLinkProcessSymbolsByDefault(false);
    builder.setPlatformSetUp(orc::setUpInactivePlatform);
    builder.setNumCompileThreads(0);
    jit_ = must(builder.create());
    // The first cause; the lookup that fails for it says only that it failed.
    jit_->getExecutionSession().setErrorReporter([](llvm::Error error) {
      log(LogLevel::kInfo, "linking a kernel: ", llvm::toString(std::move(error)));
    });
    orc::SymbolMap symbols;
    const auto add = [&](const char* name, auto* function) {
      symbols[jit_->mangleAndIntern(name)] = {
          orc::ExecutorAddr::fromPtr(function),
          llvm::JITSymbolFlags::Exported | llvm::JITSymbolFlags::Callable};
    };
    add(kFmaSymbol, &lohe_kernel_fma);
    // What LLVM makes of a maximum of half numbers that are never NaN (a comparison's result, rounded).
    add("fmaxf", static_cast<float (*)(float, float)>(&std::fmax));
    add("fminf", static_cast<float (*)(float, float)>(&std::fmin));
    must(jit_->getMainJITDylib().define(orc::absoluteSymbols(std::move(symbols))));
  }

  /// A library of its own for each object: symbols of different caches in one process may be equal.
  ir::KernelFunction load(const std::string& object, const std::string& symbol) {
    orc::JITDylib& library = must(jit_->createJITDylib("kernel" + std::to_string(++count_)));
    library.addToLinkOrder(jit_->getMainJITDylib());
    must(jit_->addObjectFile(library, llvm::MemoryBuffer::getMemBufferCopy(object, symbol)));
    return must(jit_->lookup(library, symbol)).toPtr<ir::KernelFunction>();
  }

 private:
  std::unique_ptr<orc::LLJIT> jit_;
  std::atomic<uint64_t> count_{0};
};

}  // namespace

ir::KernelFunction load_object(const std::string& object, const std::string& symbol) {
  // Never destroyed: kernels may still run while static objects go.
  static Loader& loader = *new Loader;
  return loader.load(object, symbol);
}

}  // namespace lohe::codegen
