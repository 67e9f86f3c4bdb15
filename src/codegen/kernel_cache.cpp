#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "base/env.h"
#include "base/fork.h"
#include "base/log.h"
#include "codegen/codegen.h"
#include "codegen/disk_cache.h"
#include "codegen/llvm/compiler.h"
#include "lohe/error.h"

// Where a kernel's function comes from, cheapest first. A kernel is known by its text: equal text, equal
// code. The hash finds it, the full text decides in memory and on disk; among prebuilt kernels, which are
// made by the build from the same generator, 128 bits are trusted.

namespace lohe::codegen {
namespace {

std::string hashed_text(const std::string& text) {
  return "generator " + std::to_string(kGeneratorVersion) + "\n" + text;
}

/// Everything that decides an object's bytes. Code for a level runs on every processor of that level, so the
/// level stands for the features; it is a level that this machine has.
std::string disk_key(const std::string& text, CpuLevel level) {
  return std::string("llvm ") + llvm_version() + "\nlevel " + name(level) + "\n" + hashed_text(text);
}

struct PrebuiltTable {
  std::mutex mutex;
  std::unordered_map<Hash128, ir::KernelFunction> functions[std::size(kCpuLevels)];
};

PrebuiltTable& prebuilt_table() {
  static PrebuiltTable& table = *new PrebuiltTable;
  return table;
}

ir::KernelFunction find_prebuilt(const Hash128& hash, CpuLevel level) {
  PrebuiltTable& table = prebuilt_table();
  const std::lock_guard lock(table.mutex);
  const auto& functions = table.functions[static_cast<size_t>(level)];
  const auto found = functions.find(hash);
  return found == functions.end() ? nullptr : found->second;
}

ir::Block copy(const ir::Block& block);

std::unique_ptr<ir::Loop> copy(const ir::Loop& loop) {
  auto result = std::make_unique<ir::Loop>();
  result->dims = loop.dims;
  result->vector = loop.vector;
  result->body = copy(loop.body);
  for (const ir::Reduce& from : loop.reduces) {
    ir::Reduce& to = result->reduces.emplace_back();
    to.init = from.init;
    to.elements = from.elements;
    to.left = from.left;
    to.right = from.right;
    to.combine = copy(from.combine);
    to.combined = from.combined;
    to.results = from.results;
    to.lanes = from.lanes;
  }
  return result;
}

std::unique_ptr<ir::Rare> copy(const ir::Rare& rare) {
  return std::make_unique<ir::Rare>(
      ir::Rare{rare.condition, copy(rare.body), rare.computed, rare.usual, rare.results});
}

ir::Block copy(const ir::Block& block) {
  ir::Block result;
  for (const ir::Stmt& stmt : block) {
    std::visit(
        [&](const auto& s) {
          if constexpr (std::is_copy_constructible_v<std::decay_t<decltype(s)>>) {
            result.emplace_back(s);
          } else {
            result.emplace_back(copy(*s));
          }
        },
        stmt);
  }
  return result;
}

/// The interpreter needs the kernel for as long as the function is used.
const ir::Kernel* lasting_copy(const ir::Kernel& kernel) {
  auto* result = new ir::Kernel;
  result->name = kernel.name;
  result->buffers = kernel.buffers;
  result->insts = kernel.insts;
  result->tables = kernel.tables;
  result->body = copy(kernel.body);
  result->params = kernel.params;
  return result;
}

}  // namespace

Hash128 kernel_hash(const ir::Kernel& kernel) { return hash_bytes(hashed_text(ir::print(kernel))); }

void register_prebuilt(std::span<const PrebuiltKernel> kernels) {
  PrebuiltTable& table = prebuilt_table();
  const std::lock_guard lock(table.mutex);
  for (const PrebuiltKernel& kernel : kernels) {
    table.functions[static_cast<size_t>(kernel.level)].emplace(Hash128{kernel.hash_first, kernel.hash_second},
                                                               kernel.function);
  }
}

/// What the constructor in the generated registration object calls.
extern "C" void lohe_register_prebuilt(const PrebuiltKernel* kernels, size_t count) {
  register_prebuilt(std::span(kernels, count));
}

size_t prebuilt_count() {
  PrebuiltTable& table = prebuilt_table();
  const std::lock_guard lock(table.mutex);
  size_t count = 0;
  for (const auto& functions : table.functions) count += functions.size();
  return count;
}

KernelCacheOptions KernelCacheOptions::from_environment() {
  KernelCacheOptions options{};
  options.level = cpu_level();
  const std::string kernels = env_choice("LOHE_KERNELS", "llvm");
  options.interpreter = kernels == "interpreter";
  options.strict = env_bool("LOHE_COMPILE_STRICT", false);
  options.prebuilt = kernels != "generated";
  std::filesystem::path base = env_string("LOHE_CACHE_DIR", "");
  if (base.empty()) {
    const char* cache = std::getenv("XDG_CACHE_HOME");
    const char* home = std::getenv("HOME");
    // The XDG specification has relative paths ignored.
    if (cache != nullptr && *cache == '/') {
      base = std::filesystem::path(cache) / "lohe";
    } else if (home != nullptr && *home == '/') {
      base = std::filesystem::path(home) / ".cache" / "lohe";
    }
  }
  if (!base.empty()) options.directory = base / "kernels-v1";
  return options;
}

struct KernelCache::Impl {
  /// Lives for ever: callers keep pointers to `compiled`.
  struct Entry {
    std::string text;
    CompiledKernel compiled;
    bool ready = false;
    std::unique_ptr<Entry> next;  ///< another kernel of the same hash
  };

  explicit Impl(KernelCacheOptions o)
      : options(std::move(o)), disk(options.directory, options.max_disk_bytes) {}

  ~Impl() {
    static std::mutex kept_mutex;
    static auto& kept = *new std::vector<std::unique_ptr<Entry>>();
    const std::lock_guard lock(kept_mutex);
    for (auto& [hash, entry] : entries) kept.push_back(std::move(entry));
  }

  /// The child gets neither a half-made entry, which nobody would finish there, nor a lock that LLVM holds: a
  /// fork waits until nobody makes a kernel, and holds the lock that starting to make one takes.
  void before_fork() {
    std::unique_lock lock(mutex);
    while (makers != 0) made->wait(lock);
    lock.release();
  }
  void after_fork_in_child() {
    // Threads of the parent that waited for the old condition are counted in it and never leave; it is not
    // reused.
    made.release();
    made = std::make_unique<std::condition_variable>();
    mutex.unlock();
  }

  /// Without the lock.
  CompiledKernel make(const ir::Kernel& kernel, const Entry& entry, const Hash128& hash);
  ir::KernelFunction machine_code(const ir::Kernel& kernel, const Entry& entry, const Hash128& hash);

  KernelCacheOptions options;
  DiskCache disk;
  std::mutex mutex;
  int makers = 0;  ///< threads in make()
  std::unique_ptr<std::condition_variable> made = std::make_unique<std::condition_variable>();
  std::unordered_map<Hash128, std::unique_ptr<Entry>> entries;
  /// Kernels in a row whose code could not be loaded. A system that denies memory for code denies all of it:
  /// not every kernel tries. One alone has a fault of its own.
  static constexpr int kMostRefused = 3;
  std::atomic<int> refused{0};
  std::atomic<uint64_t> memory_hits{0}, prebuilt_hits{0}, disk_hits{0}, compiled{0}, interpreted{0};
};

ir::KernelFunction KernelCache::Impl::machine_code(const ir::Kernel& kernel, const Entry& entry,
                                                   const Hash128& hash) {
  if (options.prebuilt) {
    if (ir::KernelFunction function = find_prebuilt(hash, options.level)) {
      ++prebuilt_hits;
      return function;
    }
  }
  const std::string symbol = "lohe_kernel_" + hash.hex();
  const std::string key = disk_key(entry.text, options.level);
  if (const std::optional<std::string> object = disk.load(key)) {
    try {
      const ir::KernelFunction function = load_object(*object, symbol);
      ++disk_hits;
      return function;
    } catch (const Error& error) {
      log(LogLevel::kDebug, "kernel cache: ", error.message());
    }
  }
  const std::string object = compile_to_object(kernel, options.level, symbol);
  ir::KernelFunction function = nullptr;
  try {
    function = load_object(object, symbol);
  } catch (const Error&) {
    ++refused;
    throw;
  }
  refused = 0;
  ++compiled;
  disk.store(key, object);
  return function;
}

CompiledKernel KernelCache::Impl::make(const ir::Kernel& kernel, const Entry& entry, const Hash128& hash) {
  if (!options.interpreter && refused < kMostRefused) {
    try {
      return {machine_code(kernel, entry, hash), nullptr};
    } catch (const std::exception& error) {
      if (options.strict) throw;
      log_warning_once("kernel-code", "kernel '", kernel.name,
                       "' has no machine code and is interpreted, which is slow: ", error.what());
    }
  }
  ++interpreted;
  return {nullptr, lasting_copy(kernel)};
}

KernelCache::KernelCache(KernelCacheOptions options) : impl_(std::make_unique<Impl>(std::move(options))) {
  LOHE_CHECK_VALUE(impl_->options.level <= detected_cpu_level(), "KernelCache: level ",
                   name(impl_->options.level), " on a machine that goes up to ", name(detected_cpu_level()));
}

KernelCache::~KernelCache() = default;

KernelCache& KernelCache::global() {
  static KernelCache& cache = []() -> KernelCache& {
    auto& made = *new KernelCache(KernelCacheOptions::from_environment());
    at_fork([] { global().impl_->before_fork(); }, [] { global().impl_->mutex.unlock(); },
            [] { global().impl_->after_fork_in_child(); });
    return made;
  }();
  return cache;
}

const CompiledKernel* KernelCache::get(const ir::Kernel& kernel) {
  Impl& impl = *impl_;
  std::string text = ir::print(kernel);
  const Hash128 hash = hash_bytes(hashed_text(text));
  Impl::Entry* mine = nullptr;
  {
    std::unique_lock lock(impl.mutex);
    std::unique_ptr<Impl::Entry>* slot = &impl.entries[hash];
    while (*slot != nullptr && (*slot)->text != text) slot = &(*slot)->next;
    if (*slot != nullptr) {
      Impl::Entry* entry = slot->get();
      while (!entry->ready) impl.made->wait(lock);
      ++impl.memory_hits;
      return &entry->compiled;
    }
    *slot = std::make_unique<Impl::Entry>();
    mine = slot->get();
    mine->text = std::move(text);
    ++impl.makers;
  }
  const CompiledKernel compiled = impl.make(kernel, *mine, hash);
  {
    const std::lock_guard lock(impl.mutex);
    mine->compiled = compiled;
    mine->ready = true;
    --impl.makers;
  }
  impl.made->notify_all();
  return &mine->compiled;
}

KernelCacheStats KernelCache::stats() const {
  return {impl_->memory_hits, impl_->prebuilt_hits, impl_->disk_hits, impl_->compiled, impl_->interpreted};
}

std::vector<const ir::Kernel*> KernelCache::interpreted() const {
  std::vector<std::pair<std::string, const ir::Kernel*>> found;
  {
    const std::lock_guard lock(impl_->mutex);
    for (const auto& [hash, first] : impl_->entries) {
      for (const Impl::Entry* entry = first.get(); entry != nullptr; entry = entry->next.get()) {
        if (entry->ready && entry->compiled.interpreted != nullptr)
          found.emplace_back(hash.hex(), entry->compiled.interpreted);
      }
    }
  }
  std::sort(found.begin(), found.end());
  std::vector<const ir::Kernel*> kernels;
  for (const auto& [hash, kernel] : found) kernels.push_back(kernel);
  return kernels;
}

}  // namespace lohe::codegen
