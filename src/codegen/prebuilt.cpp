#include <string>
#include <unordered_set>
#include <vector>

#include "base/file.h"
#include "base/threads.h"
#include "codegen/codegen.h"
#include "codegen/llvm/compiler.h"

namespace lohe::codegen {

void write_prebuilt(std::span<const ir::Kernel* const> kernels, std::span<const CpuLevel> levels,
                    const std::filesystem::path& directory) {
  std::vector<std::pair<Hash128, const ir::Kernel*>> unique;
  std::unordered_set<Hash128> seen;
  for (const ir::Kernel* kernel : kernels) {
    const Hash128 hash = kernel_hash(*kernel);
    if (seen.insert(hash).second) unique.emplace_back(hash, kernel);
  }
  std::filesystem::create_directories(directory);
  // An object holds a number of kernels that does not depend on the machine, so neither does what is written.
  constexpr size_t kKernelsPerObject = 32;
  struct Job {
    CpuLevel level;
    std::string path;
    std::vector<NamedKernel> kernels;
  };
  std::vector<PrebuiltRow> rows;
  std::vector<Job> jobs;
  for (const CpuLevel level : levels) {
    for (size_t i = 0; i < unique.size(); ++i) {
      if (i % kKernelsPerObject == 0) {
        const std::string number = std::to_string(i / kKernelsPerObject);
        jobs.push_back(
            {level, directory / (std::string("prebuilt_") + name(level) + "_" + number + ".o"), {}});
      }
      rows.push_back({unique[i].first, level, "lohe_prebuilt_" + unique[i].first.hex() + "_" + name(level)});
      jobs.back().kernels.push_back({unique[i].second, rows.back().symbol});
    }
  }
  parallel_for(static_cast<int64_t>(jobs.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Job& job = jobs[static_cast<size_t>(i)];
      write_file_atomically(job.path, compile_to_object(job.kernels, job.level));
    }
  });
  write_file_atomically(directory / "prebuilt_table.o", compile_registration(rows));
}

}  // namespace lohe::codegen
