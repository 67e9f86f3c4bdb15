#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace lohe::detail {

/// The heap of large blocks behind allocate(): mapped segments that are split and coalesced. Not thread-safe;
/// the allocator holds a lock around it. Sizes are in bytes.
///
/// Free blocks stand in bins by size, 32 bins per power of two, so that a search looks at blocks within 3 %
/// of each other and is the best fit to that precision, at a cost that does not depend on the number of
/// blocks. What describes a block lies outside of it, so that its pages can go back to the system.
class SegmentHeap {
 public:
  SegmentHeap() = default;
  SegmentHeap(const SegmentHeap&) = delete;
  SegmentHeap& operator=(const SegmentHeap&) = delete;

  /// nullptr when the system gives no more memory. Throws std::bad_alloc when there is none for the
  /// bookkeeping; the heap is unchanged then.
  void* allocate(size_t bytes);
  /// False, and nothing done, when `address` is no block of that size.
  bool deallocate(void* address, size_t bytes) noexcept;
  /// Unmaps segments that are free and gives back the pages of other free blocks.
  void empty() noexcept;

  /// What a request is rounded to.
  static size_t rounded(size_t bytes) noexcept;

  size_t in_use_bytes() const noexcept { return in_use_; }
  /// Of free blocks: what may hold pages.
  size_t cached_bytes() const noexcept { return cached_; }
  size_t segment_count() const noexcept { return segments_.size(); }
  size_t segment_bytes() const noexcept { return mapped_; }

  /// Whether neighbours, bins and sums agree; for tests.
  bool consistent() const;

 private:
  struct Segment;
  struct Block {
    std::byte* address;
    size_t size;
    size_t touched;  ///< free: no pages are held behind so many bytes from its start
    Block* before;   ///< the neighbours in the segment by address
    Block* after;
    Block* previous;  ///< free: in its bin
    Block* next;      ///< free: in its bin; used: in its bucket; spare: in the list of spares
    Segment* segment;
    bool free;
  };
  struct Segment {
    std::byte* base;
    size_t size;
    Block* first;
  };

  static constexpr size_t kBins = 32 + 34 * 32;
  static size_t bin_of(size_t size) noexcept;

  Block* find_fit(size_t size) const noexcept;
  Block* map_segment(size_t size);
  void unmap_segment(Segment* segment) noexcept;
  void insert_free(Block* block) noexcept;
  void remove_free(Block* block) noexcept;
  void absorb_next(Block* block) noexcept;
  void give_back_pages(Block* block, size_t unit) noexcept;
  void trim(size_t keep) noexcept;
  void reserve_bookkeeping();
  Block* take_spare() noexcept;
  void add_spare(Block* block) noexcept;
  size_t bucket_of(const void* address) const noexcept;

  size_t note_peak() noexcept;

  std::array<Block*, kBins> bins_{};
  std::array<uint64_t, kBins / 64 + 1> occupied_{};  ///< bit per bin
  std::vector<Block*> buckets_;                      ///< hash table of used blocks, by address
  size_t used_blocks_ = 0;
  std::vector<std::unique_ptr<Segment>> segments_;
  std::vector<std::unique_ptr<Block[]>> block_storage_;
  Block* spares_ = nullptr;
  size_t spare_count_ = 0;
  size_t in_use_ = 0;
  size_t cached_ = 0;
  size_t mapped_ = 0;
  size_t window_peak_ = 0;           ///< peak of in_use_ in the present window of time
  size_t previous_window_peak_ = 0;  ///< and in the one before
  int64_t window_end_ = 0;           ///< seconds
};

}  // namespace lohe::detail
