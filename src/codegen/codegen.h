#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/hash.h"
#include "ir/kernel.h"

/// From kernel IR to functions that run. All levels, and the interpreter, give the same bits (NaN payloads
/// excepted).
namespace lohe::codegen {

/// Instruction set levels of x86-64, in the psABI's numbering: v2 (SSE4.2), v3 (AVX2, FMA, F16C), v4 (AVX-512
/// F, BW, DQ, VL, CD). A higher level includes the lower ones.
enum class CpuLevel : uint8_t { kV2, kAvx2, kAvx512 };
inline constexpr CpuLevel kCpuLevels[] = {CpuLevel::kV2, CpuLevel::kAvx2, CpuLevel::kAvx512};

/// "x86-64-v2", "avx2", "avx512": the words that LOHE_CPU_LEVEL takes.
const char* name(CpuLevel level);
/// What the processor and the operating system support, by CPUID and XCR0.
/// @throws NotImplementedError on a processor below x86-64-v2.
CpuLevel detected_cpu_level();
/// The level in use: the detected one, or a lower one that LOHE_CPU_LEVEL names. Read once.
/// @throws ValueError when LOHE_CPU_LEVEL names no level, or one that the machine lacks.
CpuLevel cpu_level();
/// The processor's own name, for reports.
const char* cpu_name();

/// Raised whenever the code made from equal kernel text may differ: old cache entries are then never found.
inline constexpr uint32_t kGeneratorVersion = 19;

/// A relocatable ELF object that defines `symbol` with the signature of ir::KernelFunction.
/// @throws internal error when the kernel is ill-formed.
std::string compile_to_object(const ir::Kernel& kernel, CpuLevel level, const std::string& symbol);

/// A kernel that can be called: machine code, or the interpreter where there is none.
struct CompiledKernel {
  ir::KernelFunction function = nullptr;
  const ir::Kernel* interpreted = nullptr;  ///< set if and only if `function` is null

  int32_t operator()(void* const* buffers, const int64_t* params, int64_t begin, int64_t end) const {
    return function != nullptr ? function(buffers, params, begin, end)
                               : ir::interpret(*interpreted, buffers, params, begin, end);
  }
};

/// A kernel linked into the library ahead of time.
struct PrebuiltKernel {
  uint64_t hash_first, hash_second;  ///< kernel_hash()
  CpuLevel level;
  ir::KernelFunction function;
};
/// Hash of the kernel's text and the generator's version; the same at every level and in every process.
Hash128 kernel_hash(const ir::Kernel& kernel);
/// Makes kernels known to all caches. Called by static initializers of the generated table; `kernels` must
/// live on.
void register_prebuilt(std::span<const PrebuiltKernel> kernels);
size_t prebuilt_count();

struct KernelCacheOptions {
  CpuLevel level;
  bool interpreter = false;         ///< never make machine code
  bool strict = false;              ///< raise where a kernel cannot be made machine code
  bool prebuilt = true;             ///< look among the kernels that the library carries
  std::filesystem::path directory;  ///< of the disk cache; empty: none
  uint64_t max_disk_bytes = uint64_t{256} << 20;
  /// From LOHE_CPU_LEVEL, LOHE_KERNELS, LOHE_COMPILE_STRICT, LOHE_CACHE_DIR, XDG_CACHE_HOME and HOME.
  static KernelCacheOptions from_environment();
};

struct KernelCacheStats {
  uint64_t memory_hits, prebuilt_hits, disk_hits, compiled, interpreted;
};

/// Finds or makes the function of a kernel: in memory, among the prebuilt ones, on disk, by LLVM, and last
/// the interpreter (with one warning). Thread-safe: a kernel is made once, and other threads that want it
/// wait.
class KernelCache {
 public:
  explicit KernelCache(KernelCacheOptions options);
  ~KernelCache();
  KernelCache(const KernelCache&) = delete;
  KernelCache& operator=(const KernelCache&) = delete;

  /// The process's cache, never destroyed. A fork waits until no kernel is being made, so that it works in
  /// the child.
  static KernelCache& global();

  /// The pointer stays valid for the life of the process, also after the cache is gone.
  const CompiledKernel* get(const ir::Kernel& kernel);
  KernelCacheStats stats() const;
  /// The kernels that this cache interprets, in the order of their hashes.
  std::vector<const ir::Kernel*> interpreted() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Compiles `kernels` for each level and writes into `directory` objects `prebuilt_<level>_<n>.o`, made side
/// by side by the process's threads, and `prebuilt_table.o`, whose constructor registers them all. Equal
/// kernels are written once. Linked into a library, the objects need nothing but this room; the levels of
/// other machines than the build's can be written too.
void write_prebuilt(std::span<const ir::Kernel* const> kernels, std::span<const CpuLevel> levels,
                    const std::filesystem::path& directory);

}  // namespace lohe::codegen
