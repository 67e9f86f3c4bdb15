#pragma once

#include <cstddef>
#include <cstdint>

namespace lohe {

/// The caching allocator of CPU memory. Small blocks (up to 32 KiB) come from free lists of the calling
/// thread, one per size class; large ones are split from mapped segments, best fit first, and coalesce when
/// freed. Freed memory stays with the process, so that its pages need not be faulted in again, as long as
/// what is held (in use and cached) does not exceed the recent peak in use by more than 1/16 plus 64 MiB;
/// what nobody has needed for some seconds goes back to the system.
///
/// All functions may be called from any thread, and a block may be freed by another thread than its
/// allocator. After a fork the child goes on with its copy; small blocks cached by threads that it does not
/// have are lost to it.

/// Alignment of every block in bytes. Under LOHE_DEBUG_GUARD it is the largest power of two that divides the
/// size, because blocks then end exactly at a guard page.
inline constexpr size_t kAllocationAlignment = 64;

/// `bytes` of uninitialised memory; nullptr for 0. When the system has no more memory, the caches are emptied
/// and the request tried again; then Error(kOutOfMemory) is thrown and everything stays usable.
void* allocate(size_t bytes);

/// Frees a block of allocate(bytes), with the same number of bytes. nullptr is ignored.
void deallocate(void* block, size_t bytes) noexcept;

/// Gives all cached memory back to the system, except for small blocks cached by other threads.
void empty_cache();

struct MemoryStats {
  int64_t allocated_bytes = 0;  ///< in use, as asked for
  int64_t peak_allocated_bytes =
      0;                       ///< with several threads it may be short by at most 64 KiB for each of them
  int64_t reserved_bytes = 0;  ///< got from the system and not given back: in use, cached, lost to rounding
  int64_t peak_reserved_bytes = 0;
  int64_t cached_bytes = 0;  ///< of reserved_bytes: free blocks of more than 32 KiB that hold pages
  int64_t allocations = 0;   ///< calls since the start that returned a block
  int64_t frees = 0;
  int64_t segments = 0;       ///< mapped address ranges
  int64_t segment_bytes = 0;  ///< their total size; address space, not memory
};

MemoryStats memory_stats();
/// Starts both peaks anew from the present values.
void reset_peak_memory_stats();

}  // namespace lohe
