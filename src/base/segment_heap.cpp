#include "base/segment_heap.h"

#include <sys/mman.h>
#include <time.h>

#include <algorithm>
#include <bit>
#include <utility>

namespace lohe::detail {
namespace {

constexpr size_t kMiB = size_t{1} << 20;
constexpr size_t kGranule = 512;
constexpr size_t kPage = 4096;
constexpr size_t kHugePage = 2 * kMiB;
constexpr size_t kSmallestSegment = 32 * kMiB;
constexpr size_t kLargestSlack = 1024 * kMiB;
constexpr size_t kSparesPerRefill = 64;
constexpr int64_t kWindowSeconds = 10;
/// How many blocks of a bin are compared; they differ by 3 % at most.
constexpr int kCompared = 16;

size_t round_up(size_t value, size_t unit) noexcept { return (value + unit - 1) / unit * unit; }

std::byte* align_up(std::byte* address, size_t unit) noexcept {
  return address + (-reinterpret_cast<uintptr_t>(address) & (unit - 1));
}

int64_t coarse_seconds() noexcept {
  timespec now;
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return now.tv_sec;
}

}  // namespace

size_t SegmentHeap::rounded(size_t bytes) noexcept {
  return round_up(bytes, bytes < kMiB ? kGranule : kPage);
}

size_t SegmentHeap::bin_of(size_t size) noexcept {
  const size_t granules = size / kGranule;
  if (granules < 32) return granules;
  const int shift = std::bit_width(granules) - 6;
  return 32 + static_cast<size_t>(shift) * 32 + ((granules >> shift) & 31);
}

size_t SegmentHeap::bucket_of(const void* address) const noexcept {
  return (reinterpret_cast<uintptr_t>(address) / kGranule * 0x9E3779B97F4A7C15u >> 20) &
         (buckets_.size() - 1);
}

// ---- Bookkeeping ------------------------------------------------------------------------------------------

void SegmentHeap::reserve_bookkeeping() {
  // One allocation needs at most three blocks: a new segment's and the rest of a split.
  if (spare_count_ < 4) {
    block_storage_.reserve(block_storage_.size() + 1);
    block_storage_.push_back(std::make_unique<Block[]>(kSparesPerRefill));
    for (size_t i = 0; i < kSparesPerRefill; ++i) add_spare(&block_storage_.back()[i]);
  }
  if (segments_.size() == segments_.capacity()) segments_.reserve(2 * segments_.size() + 8);
  if (used_blocks_ >= buckets_.size()) {
    std::vector<Block*> old(std::max<size_t>(2 * buckets_.size(), 256));
    old.swap(buckets_);
    for (Block* block : old) {
      while (block != nullptr) {
        Block* const next = block->next;
        Block*& bucket = buckets_[bucket_of(block->address)];
        block->next = std::exchange(bucket, block);
        block = next;
      }
    }
  }
}

SegmentHeap::Block* SegmentHeap::take_spare() noexcept {
  --spare_count_;
  return std::exchange(spares_, spares_->next);
}

void SegmentHeap::add_spare(Block* block) noexcept {
  ++spare_count_;
  block->next = std::exchange(spares_, block);
}

void SegmentHeap::insert_free(Block* block) noexcept {
  const size_t bin = bin_of(block->size);
  block->free = true;
  block->previous = nullptr;
  block->next = bins_[bin];
  if (block->next) block->next->previous = block;
  bins_[bin] = block;
  occupied_[bin / 64] |= uint64_t{1} << bin % 64;
  cached_ += block->touched;
}

void SegmentHeap::remove_free(Block* block) noexcept {
  const size_t bin = bin_of(block->size);
  if (block->next) block->next->previous = block->previous;
  if (block->previous) {
    block->previous->next = block->next;
  } else {
    bins_[bin] = block->next;
    if (bins_[bin] == nullptr) occupied_[bin / 64] &= ~(uint64_t{1} << bin % 64);
  }
  cached_ -= block->touched;
  block->free = false;
}

/// Joins a block that is in no bin with its neighbour behind, which is in none either.
void SegmentHeap::absorb_next(Block* block) noexcept {
  Block* const other = block->after;
  if (other->touched != 0) block->touched = block->size + other->touched;
  block->size += other->size;
  block->after = other->after;
  if (block->after) block->after->before = block;
  add_spare(other);
}

SegmentHeap::Block* SegmentHeap::find_fit(size_t size) const noexcept {
  const auto smallest_fit = [&](Block* block) {
    Block* best = nullptr;
    for (int i = 0; i < kCompared && block != nullptr; ++i, block = block->next) {
      if (block->size >= size && (best == nullptr || block->size < best->size)) best = block;
    }
    return best;
  };
  const size_t own = bin_of(size);
  if (Block* block = smallest_fit(bins_[own])) return block;
  // Any block of a later bin fits.
  size_t word = (own + 1) / 64;
  uint64_t bits = occupied_[word] & (~uint64_t{0} << (own + 1) % 64);
  while (bits == 0) {
    if (++word == occupied_.size()) return nullptr;
    bits = occupied_[word];
  }
  return smallest_fit(bins_[word * 64 + static_cast<size_t>(std::countr_zero(bits))]);
}

// ---- The system's side ------------------------------------------------------------------------------------

SegmentHeap::Block* SegmentHeap::map_segment(size_t size) {
  const size_t least = round_up(size, kHugePage);
  // Growing in proportion keeps the number of segments, beyond which nothing coalesces, small. Address space
  // that is not touched costs nothing.
  size_t wanted =
      std::max(least, round_up(std::clamp(mapped_ / 4, kSmallestSegment, kLargestSlack), kHugePage));
  void* mapped;
  while (true) {
    mapped = ::mmap(nullptr, wanted + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped != MAP_FAILED) break;
    if (wanted == least) return nullptr;
    wanted = least;
  }
  auto* const start = static_cast<std::byte*>(mapped);
  std::byte* const base = align_up(start, kHugePage);
  if (base != start) ::munmap(start, static_cast<size_t>(base - start));
  if (base != start + kHugePage) ::munmap(base + wanted, static_cast<size_t>(start + kHugePage - base));
  // One fault for 512 pages; where the kernel has no huge pages this is refused and nothing is lost.
  ::madvise(base, wanted, MADV_HUGEPAGE);

  segments_.push_back(std::make_unique<Segment>(Segment{base, wanted, nullptr}));
  Block* const block = take_spare();
  *block = {base, wanted, 0, nullptr, nullptr, nullptr, nullptr, segments_.back().get(), false};
  segments_.back()->first = block;
  mapped_ += wanted;
  return block;
}

void SegmentHeap::unmap_segment(Segment* segment) noexcept {
  ::munmap(segment->base, segment->size);
  mapped_ -= segment->size;
  add_spare(segment->first);
  segments_.erase(std::find_if(segments_.begin(), segments_.end(),
                               [&](const auto& entry) { return entry.get() == segment; }));
}

/// Only whole units of pages are given back, so that huge pages are not split for small gains. What stays at
/// the block's end, less than a unit, is not counted until the block is used again.
void SegmentHeap::give_back_pages(Block* block, size_t unit) noexcept {
  std::byte* const begin = align_up(block->address, unit);
  std::byte* const end = align_up(block->address + block->size - (unit - 1), unit);
  if (end <= begin) return;
  ::madvise(begin, static_cast<size_t>(end - begin), MADV_DONTNEED);
  const size_t touched = std::min(block->touched, static_cast<size_t>(begin - block->address));
  cached_ -= block->touched - touched;
  block->touched = touched;
}

/// Gives back memory, large blocks first, until at most `keep` bytes are cached or no block of 4 MiB is left.
void SegmentHeap::trim(size_t keep) noexcept {
  for (size_t bin = kBins; bin-- > bin_of(2 * kHugePage) && cached_ > keep;) {
    for (Block* block = bins_[bin]; block != nullptr && cached_ > keep;) {
      Block* const next = block->next;
      if (block->size == block->segment->size) {
        remove_free(block);
        unmap_segment(block->segment);
      } else if (block->touched >= kHugePage) {
        give_back_pages(block, kHugePage);
      }
      block = next;
    }
  }
}

void SegmentHeap::empty() noexcept {
  for (size_t bin = 0; bin < kBins; ++bin) {
    for (Block* block = bins_[bin]; block != nullptr;) {
      Block* const next = block->next;
      if (block->size == block->segment->size) {
        remove_free(block);
        unmap_segment(block->segment);
      } else {
        give_back_pages(block, kPage);
      }
      block = next;
    }
  }
  window_peak_ = previous_window_peak_ = in_use_;
}

/// Brings the record of the recent peak up to date and returns how many bytes may be held: used and cached.
size_t SegmentHeap::note_peak() noexcept {
  if (const int64_t now = coarse_seconds(); now >= window_end_) {
    // After a pause of two windows nothing of the record is recent.
    previous_window_peak_ = now < window_end_ + kWindowSeconds ? window_peak_ : in_use_;
    window_peak_ = in_use_;
    window_end_ = now + kWindowSeconds;
  }
  window_peak_ = std::max(window_peak_, in_use_);
  const size_t peak = std::max(window_peak_, previous_window_peak_);
  return peak + peak / 16 + 64 * kMiB;
}

// ---- Blocks -----------------------------------------------------------------------------------------------

void* SegmentHeap::allocate(size_t bytes) {
  const size_t size = rounded(bytes);
  reserve_bookkeeping();
  Block* block = find_fit(size);
  if (block != nullptr) {
    remove_free(block);
  } else {
    block = map_segment(size);
    if (block == nullptr) return nullptr;
  }

  const size_t reused = std::min(size, block->touched);
  if (block->size > size) {
    Block* const rest = take_spare();
    *rest = {block->address + size,
             block->size - size,
             block->touched - reused,
             block,
             block->after,
             nullptr,
             nullptr,
             block->segment,
             false};
    if (rest->after) rest->after->before = rest;
    block->after = rest;
    block->size = size;
    insert_free(rest);
  }
  in_use_ += size;
  Block*& bucket = buckets_[bucket_of(block->address)];
  block->next = std::exchange(bucket, block);
  ++used_blocks_;

  const size_t may_hold = note_peak();
  if (in_use_ + cached_ > may_hold) trim(may_hold > in_use_ ? may_hold - in_use_ : 0);
  return block->address;
}

bool SegmentHeap::deallocate(void* address, size_t bytes) noexcept {
  if (buckets_.empty()) return false;
  Block** link = &buckets_[bucket_of(address)];
  while (*link != nullptr && (*link)->address != address) link = &(*link)->next;
  Block* block = *link;
  if (block == nullptr || block->size != rounded(bytes)) return false;
  *link = block->next;
  --used_blocks_;
  in_use_ -= block->size;
  block->touched = block->size;
  if (block->after && block->after->free) {
    remove_free(block->after);
    absorb_next(block);
  }
  if (block->before && block->before->free) {
    block = block->before;
    remove_free(block);
    absorb_next(block);
  }
  insert_free(block);
  const size_t may_hold = note_peak();
  if (in_use_ + cached_ > may_hold) trim(may_hold - in_use_);
  return true;
}

bool SegmentHeap::consistent() const {
  size_t in_use = 0;
  size_t cached = 0;
  size_t used = 0;
  size_t free_blocks = 0;
  for (const auto& segment : segments_) {
    const std::byte* expected = segment->base;
    const Block* before = nullptr;
    for (const Block* block = segment->first; block != nullptr; before = block, block = block->after) {
      if (block->address != expected || block->before != before || block->segment != segment.get())
        return false;
      if (block->free && before != nullptr && before->free) return false;  // should have been joined
      if (block->free && block->touched > block->size) return false;
      (block->free ? cached : in_use) += block->free ? block->touched : block->size;
      ++(block->free ? free_blocks : used);
      expected += block->size;
    }
    if (expected != segment->base + segment->size) return false;
  }
  size_t binned = 0;
  for (size_t bin = 0; bin < kBins; ++bin) {
    const bool bit = (occupied_[bin / 64] >> bin % 64 & 1) != 0;
    if (bit != (bins_[bin] != nullptr)) return false;
    for (const Block* block = bins_[bin]; block != nullptr; block = block->next, ++binned) {
      if (!block->free || bin_of(block->size) != bin) return false;
    }
  }
  return in_use == in_use_ && cached == cached_ && used == used_blocks_ && binned == free_blocks;
}

}  // namespace lohe::detail
