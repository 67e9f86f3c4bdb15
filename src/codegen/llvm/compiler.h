#pragma once

#include <span>
#include <string>

#include "codegen/codegen.h"

namespace lohe::codegen {

/// A function to make: `symbol` for `kernel`.
struct NamedKernel {
  const ir::Kernel* kernel;
  std::string symbol;
};
/// One object file that defines all of them.
std::string compile_to_object(std::span<const NamedKernel> kernels, CpuLevel level);

/// An object whose constructor hands a table of prebuilt kernels, functions of other objects, to the
/// registry.
struct PrebuiltRow {
  Hash128 hash;
  CpuLevel level;
  std::string symbol;
};
std::string compile_registration(std::span<const PrebuiltRow> rows);

/// Links an object into this process and returns the address of `symbol`. Nothing is ever unloaded.
/// @throws RuntimeError when the object is no object, or executable memory is denied.
ir::KernelFunction load_object(const std::string& object, const std::string& symbol);

/// "19.1.7": what made the code, part of a cache entry's key.
const char* llvm_version();

}  // namespace lohe::codegen
