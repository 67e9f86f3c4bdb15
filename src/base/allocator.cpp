#include "base/allocator.h"

#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <mutex>
#include <new>
#include <utility>

#include "base/env.h"
#include "base/fork.h"
#include "base/segment_heap.h"
#include "base/threads.h"
#include "lohe/error.h"

#if defined(__SANITIZE_ADDRESS__)
#define LOHE_ALLOCATOR_IS_MALLOC 1
#else
#define LOHE_ALLOCATOR_IS_MALLOC 0
#endif

namespace lohe {
namespace {

using std::memory_order_relaxed;

constexpr size_t kSmallLimit = 32 * 1024;
constexpr size_t kAddressSpace = size_t{1} << 47;

// ---- Size classes of small blocks -------------------------------------------------------------------------

/// Steps of 64 bytes up to 1 KiB, then four steps per power of two.
constexpr int kClasses = 16 + 5 * 4;

constexpr std::array<uint32_t, kClasses> class_sizes() {
  std::array<uint32_t, kClasses> sizes{};
  int count = 0;
  for (uint32_t size = 64; size <= 1024; size += 64) sizes[count++] = size;
  for (uint32_t base = 1024; base < kSmallLimit; base *= 2) {
    for (uint32_t step = 1; step <= 4; ++step) sizes[count++] = base + step * base / 4;
  }
  return sizes;
}
constexpr std::array<uint32_t, kClasses> kClassSizes = class_sizes();
static_assert(kClassSizes.back() == kSmallLimit);

constexpr std::array<uint8_t, kSmallLimit / 64> class_table() {
  std::array<uint8_t, kSmallLimit / 64> table{};
  uint8_t size_class = 0;
  for (size_t i = 0; i < table.size(); ++i) {
    while (kClassSizes[size_class] < (i + 1) * 64) ++size_class;
    table[i] = size_class;
  }
  return table;
}
constexpr std::array<uint8_t, kSmallLimit / 64> kClassTable = class_table();

/// `bytes` from 1 to kSmallLimit.
inline int class_of(size_t bytes) noexcept { return kClassTable[(bytes - 1) / 64]; }

/// Blocks of a class that one thread keeps, and half of that: how many move at a time.
constexpr uint32_t thread_limit(int size_class) noexcept {
  return std::clamp<uint32_t>(64 * 1024 / kClassSizes[size_class], 4, 256);
}

struct FreeBlock {
  FreeBlock* next;
};

// ---- Counting ---------------------------------------------------------------------------------------------

constexpr int64_t kCountingSlack = 64 * 1024;

/// Adds to a counter that only the calling thread writes; others may read it at any time.
template <class T>
void add_own(std::atomic<T>& counter, T value) noexcept {
  counter.store(counter.load(memory_order_relaxed) + value, memory_order_relaxed);
}

void raise_to(std::atomic<int64_t>& peak, int64_t value) noexcept {
  int64_t known = peak.load(memory_order_relaxed);
  while (known < value && !peak.compare_exchange_weak(known, value, memory_order_relaxed)) {
  }
}

/// What one thread keeps: free blocks by class, and counts that it has not added to the totals yet.
struct ThreadCache {
  struct List {
    FreeBlock* head = nullptr;
    uint32_t count = 0;
  };
  std::array<List, kClasses> lists;
  std::atomic<int64_t> delta{0};       ///< allocated bytes, relative to the total
  std::atomic<int64_t> delta_peak{0};  ///< its peak since the last transfer
  std::atomic<int64_t> allocations{0};
  std::atomic<int64_t> frees{0};
  ThreadCache* previous = nullptr;  ///< in the registry
  ThreadCache* next = nullptr;
};

enum class Mode : unsigned char { kCaching, kGuard, kMalloc };

// ---- Slabs: where small blocks come from ------------------------------------------------------------------

constexpr size_t kSlabSize = 256 * 1024;
constexpr size_t kRegionSize = 4 * 1024 * 1024;
constexpr size_t kRegionHeader = 4096;

struct Slab {
  std::byte* begin;
  size_t size;
  uint32_t carved;      ///< blocks cut so far
  uint32_t free_count;  ///< scratch of the release: blocks found in the central lists
  uint32_t block_size;
  Slab* next_empty;
};

/// The first page of each region, which is aligned to its size, so that a block's slab follows from its
/// address.
struct Region {
  std::array<Slab, kRegionSize / kSlabSize> slabs;
  Region* next;
};
static_assert(sizeof(Region) <= kRegionHeader);

Slab& slab_of(const void* block) noexcept {
  const auto address = reinterpret_cast<uintptr_t>(block);
  auto* const region = reinterpret_cast<Region*>(address & ~(kRegionSize - 1));
  return region->slabs[address % kRegionSize / kSlabSize];
}

/// The blocks of all threads; its functions are called with the mutex held.
class SmallHeap {
 public:
  std::mutex mutex;

  /// A list of up to `wanted` blocks, at least one; {nullptr, 0} when the system has no more memory.
  std::pair<FreeBlock*, uint32_t> take(int size_class, uint32_t wanted) noexcept {
    Central& central = central_[size_class];
    FreeBlock* head = nullptr;
    uint32_t count = 0;
    for (; count < wanted && central.free; ++count) {
      FreeBlock* const block = central.free;
      central.free = block->next;
      block->next = std::exchange(head, block);
    }
    if (count != 0) return {head, count};
    // New blocks are cut only as they are needed, because cutting touches their pages.
    const size_t size = kClassSizes[size_class];
    const uint32_t cut = std::min<uint32_t>(wanted, std::max<uint32_t>(1, 8192 / size));
    for (; count < cut; ++count) {
      Slab* slab = central.slab;
      if (slab == nullptr || (slab->carved + 1) * size > slab->size) {
        slab = central.slab = take_slab();
        if (slab == nullptr) break;
        slab->carved = 0;
        slab->block_size = static_cast<uint32_t>(size);
      }
      auto* const block = new (slab->begin + slab->carved++ * size) FreeBlock{head};
      head = block;
    }
    reserved_ += count * size;
    return {head, count};
  }

  void give(int size_class, FreeBlock* head, FreeBlock* tail) noexcept {
    tail->next = central_[size_class].free;
    central_[size_class].free = head;
  }

  /// Gives the pages of slabs without a block in use back to the system.
  void release_empty_slabs() noexcept {
    for (Region* region = regions_; region; region = region->next) {
      for (Slab& slab : region->slabs) slab.free_count = 0;
    }
    for (Central& central : central_) {
      for (FreeBlock* block = central.free; block; block = block->next) ++slab_of(block).free_count;
    }
    for (Central& central : central_) {
      FreeBlock** link = &central.free;
      while (*link) {
        const Slab& slab = slab_of(*link);
        if (slab.free_count == slab.carved) {
          *link = (*link)->next;
        } else {
          link = &(*link)->next;
        }
      }
      if (central.slab && central.slab->free_count == central.slab->carved) central.slab = nullptr;
    }
    for (Region* region = regions_; region; region = region->next) {
      for (Slab& slab : region->slabs) {
        if (slab.carved == 0 || slab.free_count != slab.carved) continue;
        ::madvise(slab.begin, slab.size, MADV_DONTNEED);
        reserved_ -= size_t{slab.carved} * slab.block_size;
        slab.carved = 0;
        slab.next_empty = std::exchange(empty_, &slab);
      }
    }
  }

  size_t reserved_bytes() const noexcept { return reserved_; }
  size_t region_count() const noexcept { return region_count_; }

  ThreadCache* caches = nullptr;  ///< the registry
  int64_t ended_allocations = 0;  ///< counts of threads that have ended
  int64_t ended_frees = 0;

 private:
  struct Central {
    FreeBlock* free = nullptr;
    Slab* slab = nullptr;  ///< where new blocks are cut from
  };

  Slab* take_slab() noexcept {
    if (empty_ == nullptr && !map_region()) return nullptr;
    return std::exchange(empty_, empty_->next_empty);
  }

  bool map_region() noexcept {
    void* const mapped =
        ::mmap(nullptr, 2 * kRegionSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) return false;
    auto* const start = static_cast<std::byte*>(mapped);
    const size_t before = -reinterpret_cast<uintptr_t>(start) & (kRegionSize - 1);
    if (before != 0) ::munmap(start, before);
    ::munmap(start + before + kRegionSize, kRegionSize - before);
    std::byte* const base = start + before;
    auto* const region = new (base) Region{};
    for (size_t i = region->slabs.size(); i-- > 0;) {
      const size_t header = i == 0 ? kRegionHeader : 0;
      region->slabs[i] = {base + i * kSlabSize + header, kSlabSize - header, 0, 0, 0, empty_};
      empty_ = &region->slabs[i];
    }
    region->next = std::exchange(regions_, region);
    ++region_count_;
    return true;
  }

  std::array<Central, kClasses> central_;
  Slab* empty_ = nullptr;
  Region* regions_ = nullptr;
  size_t region_count_ = 0;
  size_t reserved_ = 0;
};

// ---- The allocator's state --------------------------------------------------------------------------------

/// Memory that the machine and the process's control group allow.
size_t physical_limit() {
  struct sysinfo info;
  size_t limit = kAddressSpace;
  if (::sysinfo(&info) == 0) limit = (size_t{info.totalram} + info.totalswap) * info.mem_unit;
  for (const char* path : {"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"}) {
    std::ifstream file(path);
    size_t group_limit = 0;
    if (file >> group_limit && group_limit != 0) limit = std::min(limit, group_limit);  // "max" is no number
  }
  return limit;
}

struct State {
  Mode mode = Mode::kCaching;
  bool fill = false;
  size_t page = 4096;
  size_t limit = kAddressSpace;

  SmallHeap small;
  std::mutex large_mutex;
  detail::SegmentHeap large;

  std::atomic<int64_t> allocated{0};
  std::atomic<int64_t> peak_allocated{0};
  std::atomic<int64_t> peak_reserved{0};
  std::atomic<int64_t> small_reserved{0};
  std::atomic<int64_t> large_reserved{0};
  std::atomic<int64_t> allocations{0};  ///< those that no thread cache counts
  std::atomic<int64_t> frees{0};
  std::atomic<int64_t> guarded{0};  ///< bytes mapped by guarded blocks, guard pages left out
  std::atomic<int64_t> guarded_count{0};

  State() {
    if (LOHE_ALLOCATOR_IS_MALLOC) mode = Mode::kMalloc;
    if (env_bool("LOHE_DEBUG_GUARD", false)) mode = Mode::kGuard;
    fill = env_bool("LOHE_DEBUG_FILL", false);
    page = static_cast<size_t>(::sysconf(_SC_PAGESIZE));
    limit = physical_limit();
  }
};

/// Never destroyed: blocks may be freed until the process has gone.
State& state() {
  alignas(State) static char storage[sizeof(State)];
  static State* const instance = [] {
    State* const created = new (storage) State;
    at_fork(
        [] {
          state().small.mutex.lock();
          state().large_mutex.lock();
        },
        [] {
          state().large_mutex.unlock();
          state().small.mutex.unlock();
        },
        [] {
          state().large_mutex.unlock();
          state().small.mutex.unlock();
        });
    return created;
  }();
  return *instance;
}

/// The calling thread's cache: null before its first use, in the debugging modes, and once the thread ends.
/// The initial-exec model saves a call in a shared library; it takes 8 bytes of the loader's reserve.
__attribute__((tls_model("initial-exec"))) constinit thread_local ThreadCache* own_cache = nullptr;
constinit thread_local bool thread_is_ending = false;

void transfer_counts(State& s, ThreadCache& cache) noexcept {
  const int64_t delta = cache.delta.load(memory_order_relaxed);
  const int64_t before = s.allocated.fetch_add(delta, memory_order_relaxed);
  raise_to(s.peak_allocated, before + cache.delta_peak.load(memory_order_relaxed));
  cache.delta.store(0, memory_order_relaxed);
  cache.delta_peak.store(0, memory_order_relaxed);
}

inline void count_allocation(ThreadCache& cache, size_t bytes) noexcept {
  add_own(cache.allocations, int64_t{1});
  const int64_t delta = cache.delta.load(memory_order_relaxed) + static_cast<int64_t>(bytes);
  cache.delta.store(delta, memory_order_relaxed);
  if (delta > cache.delta_peak.load(memory_order_relaxed)) {
    cache.delta_peak.store(delta, memory_order_relaxed);
    if (delta > kCountingSlack) [[unlikely]]
      transfer_counts(state(), cache);
  }
}

inline void count_free(ThreadCache& cache, size_t bytes) noexcept {
  add_own(cache.frees, int64_t{1});
  const int64_t delta = cache.delta.load(memory_order_relaxed) - static_cast<int64_t>(bytes);
  cache.delta.store(delta, memory_order_relaxed);
  if (delta < -kCountingSlack) [[unlikely]]
    transfer_counts(state(), cache);
}

void count_allocation_without_cache(State& s, size_t bytes) noexcept {
  s.allocations.fetch_add(1, memory_order_relaxed);
  const auto size = static_cast<int64_t>(bytes);
  raise_to(s.peak_allocated, s.allocated.fetch_add(size, memory_order_relaxed) + size);
}

void count_free_without_cache(State& s, size_t bytes) noexcept {
  s.frees.fetch_add(1, memory_order_relaxed);
  s.allocated.fetch_sub(static_cast<int64_t>(bytes), memory_order_relaxed);
}

/// Gives the first `count` blocks of a thread's list to the central one.
void give_to_central(State& s, ThreadCache::List& list, int size_class, uint32_t count) noexcept {
  if (count == 0) return;
  FreeBlock* const head = list.head;
  FreeBlock* tail = head;
  for (uint32_t i = 1; i < count; ++i) tail = tail->next;
  list.head = tail->next;
  list.count -= count;
  const std::lock_guard lock(s.small.mutex);
  s.small.give(size_class, head, tail);
}

void flush_cache(State& s, ThreadCache& cache) noexcept {
  for (int c = 0; c < kClasses; ++c) give_to_central(s, cache.lists[c], c, cache.lists[c].count);
  transfer_counts(s, cache);
}

/// Its destructor runs when the thread ends.
struct CacheOwner {
  ~CacheOwner() {
    thread_is_ending = true;
    ThreadCache* const cache = std::exchange(own_cache, nullptr);
    if (cache == nullptr) return;
    State& s = state();
    flush_cache(s, *cache);
    const std::lock_guard lock(s.small.mutex);
    s.small.ended_allocations += cache->allocations.load(memory_order_relaxed);
    s.small.ended_frees += cache->frees.load(memory_order_relaxed);
    (cache->previous ? cache->previous->next : s.small.caches) = cache->next;
    if (cache->next) cache->next->previous = cache->previous;
    delete cache;
  }
};

/// The calling thread's cache, made if it has none yet; null when it cannot have one.
ThreadCache* cache_of_thread(State& s) noexcept {
  if (own_cache != nullptr || thread_is_ending || s.mode != Mode::kCaching || s.fill) return own_cache;
  auto* const cache = new (std::nothrow) ThreadCache;
  if (cache == nullptr) return nullptr;
  static thread_local CacheOwner owner;
  static_cast<void>(&owner);
  const std::lock_guard lock(s.small.mutex);
  cache->next = std::exchange(s.small.caches, cache);
  if (cache->next) cache->next->previous = cache;
  return own_cache = cache;
}

/// Called with the heap's mutex held, with what that heap holds; the other heap's part is read without its
/// mutex.
void note_reserved(State& s, std::atomic<int64_t>& part, size_t bytes,
                   const std::atomic<int64_t>& other) noexcept {
  part.store(static_cast<int64_t>(bytes), memory_order_relaxed);
  raise_to(s.peak_reserved, static_cast<int64_t>(bytes) + other.load(memory_order_relaxed));
}

// ---- Debugging modes --------------------------------------------------------------------------------------

void* allocate_guarded(State& s, size_t bytes) noexcept {
  const size_t usable = (bytes + s.page - 1) / s.page * s.page;
  void* const mapped =
      ::mmap(nullptr, usable + s.page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  auto* const end = static_cast<std::byte*>(mapped) + usable;
  if (::mprotect(end, s.page, PROT_NONE) != 0) {
    ::munmap(mapped, usable + s.page);
    return nullptr;
  }
  s.guarded_count.fetch_add(1, memory_order_relaxed);
  const auto size = static_cast<int64_t>(usable);
  raise_to(s.peak_reserved, s.guarded.fetch_add(size, memory_order_relaxed) + size);
  return end - bytes;
}

void deallocate_guarded(State& s, void* block, size_t bytes) noexcept {
  const size_t usable = (bytes + s.page - 1) / s.page * s.page;
  s.guarded_count.fetch_sub(1, memory_order_relaxed);
  s.guarded.fetch_sub(static_cast<int64_t>(usable), memory_order_relaxed);
  ::munmap(static_cast<std::byte*>(block) + bytes - usable, usable + s.page);
}

// ---- The slow paths ---------------------------------------------------------------------------------------

[[noreturn]] void raise_out_of_memory(State& s, size_t bytes) {
  const MemoryStats stats = memory_stats();
  const auto gib = [](auto value) { return static_cast<double>(value) / (1 << 30); };
  std::array<char, 512> text;
  std::snprintf(
      text.data(), text.size(),
      "allocate: out of CPU memory: tried to allocate %zu bytes (%.2f GiB); in use %.2f GiB (peak %.2f GiB), "
      "cached %.2f GiB, limit of this machine or control group %.2f GiB. Free tensors that are no longer "
      "needed, use smaller batches or a smaller dtype; empty_cache() has been tried.",
      bytes, gib(bytes), gib(stats.allocated_bytes), gib(stats.peak_allocated_bytes), gib(stats.cached_bytes),
      gib(s.limit));
  raise(ErrorKind::kOutOfMemory, text.data());
}

/// A block of more than kSmallLimit; nullptr when there is no memory.
void* try_allocate_large(State& s, size_t bytes) noexcept {
  const std::lock_guard lock(s.large_mutex);
  if (s.large.in_use_bytes() + bytes > s.limit) return nullptr;
  try {
    void* const block = s.large.allocate(bytes);
    note_reserved(s, s.large_reserved, s.large.in_use_bytes() + s.large.cached_bytes(), s.small_reserved);
    return block;
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

/// A block of up to kSmallLimit; the thread's list is empty, or it has none.
void* try_allocate_small(State& s, size_t bytes) noexcept {
  const int size_class = class_of(bytes);
  ThreadCache* const cache = cache_of_thread(s);
  const std::lock_guard lock(s.small.mutex);
  auto [block, count] = s.small.take(size_class, cache ? thread_limit(size_class) / 2 : 1);
  note_reserved(s, s.small_reserved, s.small.reserved_bytes(), s.large_reserved);
  if (block && cache) cache->lists[size_class] = {block->next, count - 1};
  return block;
}

void* try_allocate(State& s, size_t bytes) noexcept {
  switch (s.mode) {
    case Mode::kGuard:
      return allocate_guarded(s, bytes);
    case Mode::kMalloc: {
      void* block = nullptr;
      return ::posix_memalign(&block, kAllocationAlignment, bytes) == 0 ? block : nullptr;
    }
    case Mode::kCaching:
      break;
  }
  return bytes <= kSmallLimit ? try_allocate_small(s, bytes) : try_allocate_large(s, bytes);
}

[[gnu::noinline]] void* allocate_slowly(size_t bytes) {
  if (bytes == 0) return nullptr;
  State& s = state();
  void* block = nullptr;
  if (bytes < kAddressSpace && bytes <= s.limit) {
    block = try_allocate(s, bytes);
    if (block == nullptr) {
      empty_cache();
      block = try_allocate(s, bytes);
    }
  }
  if (block == nullptr) raise_out_of_memory(s, bytes);
  if (ThreadCache* const cache = own_cache) {
    count_allocation(*cache, bytes);
  } else {
    count_allocation_without_cache(s, bytes);
  }
  if (s.fill) std::memset(block, 0xFF, bytes);
  return block;
}

[[noreturn]] void die_of_bad_free(const void* block, size_t bytes) noexcept {
  // The heap of the caller cannot be trusted any more, and this function's contract knows no error.
  std::fprintf(
      stderr,
      "lohe: deallocate(%p, %zu): no block of that address and size is in use (freed twice, or with another "
      "size?). Run with LOHE_DEBUG_GUARD=1 to find the cause.\n",
      block, bytes);
  std::abort();
}

[[gnu::noinline]] void deallocate_slowly(void* block, size_t bytes) noexcept {
  if (block == nullptr || bytes == 0) return;
  State& s = state();
  if (s.mode == Mode::kGuard) {
    deallocate_guarded(s, block, bytes);
  } else if (s.mode == Mode::kMalloc) {
    std::free(block);
  } else if (bytes > kSmallLimit) {
    const std::lock_guard lock(s.large_mutex);
    if (!s.large.deallocate(block, bytes)) die_of_bad_free(block, bytes);
  } else if (ThreadCache* const cache = cache_of_thread(s)) {
    const int size_class = class_of(bytes);
    ThreadCache::List& list = cache->lists[size_class];
    if (list.count >= thread_limit(size_class)) give_to_central(s, list, size_class, list.count / 2);
    list.head = new (block) FreeBlock{list.head};
    ++list.count;
  } else {
    auto* const freed = new (block) FreeBlock{nullptr};
    const std::lock_guard lock(s.small.mutex);
    s.small.give(class_of(bytes), freed, freed);
  }
  if (ThreadCache* const cache = own_cache) {
    count_free(*cache, bytes);
  } else {
    count_free_without_cache(s, bytes);
  }
}

}  // namespace

// ---- The interface ----------------------------------------------------------------------------------------

void* allocate(size_t bytes) {
  ThreadCache* const cache = own_cache;
  if (cache == nullptr || bytes - 1 >= kSmallLimit) return allocate_slowly(bytes);
  ThreadCache::List& list = cache->lists[class_of(bytes)];
  FreeBlock* const block = list.head;
  if (block == nullptr) return allocate_slowly(bytes);
  list.head = block->next;
  --list.count;
  count_allocation(*cache, bytes);
  return block;
}

void deallocate(void* block, size_t bytes) noexcept {
  ThreadCache* const cache = own_cache;
  if (cache == nullptr || block == nullptr || bytes - 1 >= kSmallLimit)
    return deallocate_slowly(block, bytes);
  const int size_class = class_of(bytes);
  ThreadCache::List& list = cache->lists[size_class];
  if (list.count >= thread_limit(size_class)) return deallocate_slowly(block, bytes);
  list.head = new (block) FreeBlock{list.head};
  ++list.count;
  count_free(*cache, bytes);
}

void empty_cache() {
  State& s = state();
  if (s.mode != Mode::kCaching) return;
  if (ThreadCache* const cache = own_cache) flush_cache(s, *cache);
  {
    const std::lock_guard lock(s.small.mutex);
    s.small.release_empty_slabs();
  }
  const std::lock_guard lock(s.large_mutex);
  s.large.empty();
}

MemoryStats memory_stats() {
  State& s = state();
  if (ThreadCache* const cache = own_cache) transfer_counts(s, *cache);
  MemoryStats stats;
  stats.allocated_bytes = s.allocated.load(memory_order_relaxed);
  stats.allocations = s.allocations.load(memory_order_relaxed);
  stats.frees = s.frees.load(memory_order_relaxed);
  {
    const std::lock_guard lock(s.small.mutex);
    for (const ThreadCache* cache = s.small.caches; cache; cache = cache->next) {
      stats.allocated_bytes += cache->delta.load(memory_order_relaxed);
      stats.allocations += cache->allocations.load(memory_order_relaxed);
      stats.frees += cache->frees.load(memory_order_relaxed);
    }
    stats.allocations += s.small.ended_allocations;
    stats.frees += s.small.ended_frees;
    stats.reserved_bytes = static_cast<int64_t>(s.small.reserved_bytes());
    stats.segments = static_cast<int64_t>(s.small.region_count());
  }
  {
    const std::lock_guard lock(s.large_mutex);
    stats.cached_bytes = static_cast<int64_t>(s.large.cached_bytes());
    stats.reserved_bytes += static_cast<int64_t>(s.large.in_use_bytes() + s.large.cached_bytes());
    stats.segment_bytes =
        static_cast<int64_t>(s.large.segment_bytes()) + stats.segments * int64_t{kRegionSize};
    stats.segments += static_cast<int64_t>(s.large.segment_count());
  }
  if (s.mode == Mode::kMalloc) stats.reserved_bytes = stats.allocated_bytes;
  if (s.mode == Mode::kGuard) {
    stats.reserved_bytes = stats.segment_bytes = s.guarded.load(memory_order_relaxed);
    stats.segments = s.guarded_count.load(memory_order_relaxed);
  }
  raise_to(s.peak_allocated, stats.allocated_bytes);
  raise_to(s.peak_reserved, stats.reserved_bytes);
  stats.peak_allocated_bytes = s.peak_allocated.load(memory_order_relaxed);
  stats.peak_reserved_bytes = s.peak_reserved.load(memory_order_relaxed);
  return stats;
}

void reset_peak_memory_stats() {
  const MemoryStats stats = memory_stats();
  State& s = state();
  s.peak_allocated.store(stats.allocated_bytes, memory_order_relaxed);
  s.peak_reserved.store(stats.reserved_bytes, memory_order_relaxed);
}

}  // namespace lohe
