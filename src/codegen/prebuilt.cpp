#include <unordered_set>
#include <vector>

#include "base/file.h"
#include "codegen/codegen.h"
#include "codegen/llvm/compiler.h"

namespace lohe::codegen {

void write_prebuilt(std::span<const ir::Kernel> kernels, std::span<const CpuLevel> levels,
                    const std::filesystem::path& directory) {
  std::vector<std::pair<Hash128, const ir::Kernel*>> unique;
  std::unordered_set<Hash128> seen;
  for (const ir::Kernel& kernel : kernels) {
    const Hash128 hash = kernel_hash(kernel);
    if (seen.insert(hash).second) unique.emplace_back(hash, &kernel);
  }
  std::filesystem::create_directories(directory);
  std::vector<PrebuiltRow> rows;
  for (CpuLevel level : levels) {
    std::vector<NamedKernel> named;
    for (const auto& [hash, kernel] : unique) {
      rows.push_back({hash, level, "lohe_prebuilt_" + hash.hex() + "_" + name(level)});
      named.push_back({kernel, rows.back().symbol});
    }
    write_file_atomically(directory / (std::string("prebuilt_") + name(level) + ".o"),
                          compile_to_object(named, level));
  }
  write_file_atomically(directory / "prebuilt_table.o", compile_registration(rows));
}

}  // namespace lohe::codegen
