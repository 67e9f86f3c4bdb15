#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <filesystem>

#include "codegen/codegen.h"
#include "usual_ops.h"

/// lohe_prebuild_kernels --output DIR: writes the object files of the kernels that the library carries.
/// lohe_prebuild_kernels --list: prints the hashes of their texts.
/// Which they are follows from the op table: the usual ops are called, in the interpreter, and the kernels
/// that they ask for are taken from the cache.
int main(int argc, char** argv) {
  const bool list = argc == 2 && std::strcmp(argv[1], "--list") == 0;
  if (!list && (argc != 3 || std::strcmp(argv[1], "--output") != 0)) {
    std::fprintf(stderr, "usage: %s --output DIR | --list\n", argv[0]);
    return 2;
  }
  // No machine code is wanted here, only its source; and nothing of this user's settings.
  for (const char* name : {"LOHE_CPU_LEVEL", "LOHE_CACHE_DIR", "LOHE_DEBUG_FILL", "LOHE_DEBUG_GUARD"})
    ::unsetenv(name);
  ::setenv("LOHE_KERNELS", "interpreter", 1);
  try {
    lohe::gen::run_usual_ops();
    const auto kernels = lohe::codegen::KernelCache::global().interpreted();
    if (list) {
      for (const lohe::ir::Kernel* kernel : kernels)
        std::printf("%s\n", lohe::codegen::kernel_hash(*kernel).hex().c_str());
      return 0;
    }
    lohe::codegen::write_prebuilt(kernels, lohe::codegen::kCpuLevels, argv[2]);
    uintmax_t bytes = 0;
    for (const auto& file : std::filesystem::directory_iterator(argv[2])) bytes += file.file_size();
    std::printf("%zu kernels for %zu levels, %.1f MB of object files\n", kernels.size(),
                std::size(lohe::codegen::kCpuLevels), static_cast<double>(bytes) * 1e-6);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", argv[0], error.what());
    return 1;
  }
  return 0;
}
