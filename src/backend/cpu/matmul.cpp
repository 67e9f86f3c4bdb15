#include <algorithm>
#include <complex>
#include <limits>
#include <type_traits>
#include <utility>

#include "backend/cpu/ahead.h"
#include "backend/cpu/claims.h"
#include "backend/cpu/cut.h"
#include "backend/cpu/fetch_share.h"
#include "backend/cpu/packing.h"
#include "backend/cpu/scratch.h"
#include "backend/cpu/writer.h"
#include "backend/library.h"
#include "base/threads.h"
#include "lohe/error.h"

namespace lohe::backend {
namespace {

/// An operand as the tile kernels read it: panels of `width` lanes; element (lane, p) of panel i is at
/// data + i * panel_stride + lane * lane_stride + p * k_stride.
template <class T>
struct Panels {
  const T* data;
  int64_t panel_stride;
  int64_t lane_stride;
  int64_t k_stride;
};

/// What is added to a product once its last chunk is in: element (i, j) at data + i * row_stride + j.
template <class T>
struct Addend {
  const T* data = nullptr;
  int64_t row_stride = 0;
};

/// C = A B + addend with C in the compute type and its columns adjacent. The work is cut into blocks of C. No
/// bit depends on how, so the cutting may look at whatever is fast.
template <class T>
class Gemm {
 public:
  /// @param alone not one of many products, whose operands come from far away even where each is small
  Gemm(const GemmLevel& level, const Operand& a, const Operand& b, int64_t k, bool parallel, bool alone,
       Addend<T> addend = {})
      : level_(level),
        kernels_(level.get(T{})),
        a_(a),
        b_(b),
        k_(k),
        parallel_(parallel),
        near_(alone && fits(a.lanes * k + b.lanes * k + a.lanes * b.lanes)),
        addend_(addend) {
    plan();
  }

  /// Matrices of the same kind that lie elsewhere.
  void move_to(const char* a, const char* b) {
    a_.data = a;
    b_.data = b;
  }

  void run(T* c, int64_t c_row_stride) {
    const int64_t m = a_.lanes, n = b_.lanes;
    // Of thousands of small matrices what surrounds the tiles would take longer than they do.
    const bool lie_well = packing_a_ == Packing::kNone && packing_b_ == Packing::kNone && !rows_clash_;
    if (!parallel_ && lie_well && k_ <= kChunk) {
      Ahead<T> nothing;
      return tiles(m, n, k_, in_place(a_, kernels_.rows, 0, 0), in_place(b_, kernels_.columns, 0, 0), nullptr,
                   c, c_row_stride, false, addend_, nothing);
    }
    const int64_t k_block = std::min(k_, kBlockChunks * kChunk);
    const int64_t rows = shared_lanes(m, k_block, kernels_.rows, packing_a_);
    const int64_t columns = shared_lanes(n, k_block, kernels_.columns, packing_b_);
    Scratch<T> shared_a(packing_a_ == Packing::kShared ? packed_size(rows, kernels_.rows, k_block) : 0);
    Scratch<T> shared_b(packing_b_ == Packing::kShared ? packed_size(columns, kernels_.columns, k_block) : 0);
    for (int64_t k0 = 0; k0 < k_; k0 += k_block) {
      for (int64_t j = 0; j < n; j += columns) {
        for (int64_t i = 0; i < m; i += rows) {
          const Range row_range{i, std::min(rows, m - i)}, column_range{j, std::min(columns, n - j)};
          const int64_t k = std::min(k_block, k_ - k0);
          const bool packs_a = packing_a_ == Packing::kShared && (i > 0 || j == 0 || rows < m);
          const bool packs_b = packing_b_ == Packing::kShared && i == 0;
          if (packs_a || packs_b)
            pack_shared(row_range, column_range, k0, k, packs_a ? shared_a.data() : nullptr,
                        packs_b ? shared_b.data() : nullptr);
          multiply(
              jobs_of(row_range, column_range, k0, k, shared_a.data(), shared_b.data(), c, c_row_stride));
        }
      }
    }
  }

  /// Two products that have nothing to do with one another. @return false: they need more than one region
  static bool run_both(Gemm& x, T* cx, int64_t cx_row_stride, Gemm& y, T* cy, int64_t cy_row_stride) {
    if (!x.in_one_region() || !y.in_one_region()) return false;
    const Jobs first = x.all_jobs(cx, cx_row_stride), second = y.all_jobs(cy, cy_row_stride);
    Claims of_first(first.count()), of_second(second.count());
    parallel_for(num_threads(), 1, [&](int64_t begin, int64_t) {
      x.work(first, of_first, begin, {&y, &second});
      y.work(second, of_second, begin);
    });
    return true;
  }

 private:
  /// How an operand reaches the tile kernels: where it lies; in panels that are packed before the product
  /// starts and read by everybody; all of it packed by each thread for itself; or in panels that each block
  /// of C packs for itself, straight into its core's cache.
  enum class Packing : uint8_t { kNone, kShared, kByThread, kByBlock };

  /// Bounds the shared memory: 16 chunks of k, and lanes so that it is about 16 MiB.
  static constexpr int64_t kBlockChunks = 16;
  static constexpr int64_t kSharedBytes = 16 << 20;
  static constexpr int64_t kOwnBytes = 1 << 20;     ///< what each thread may pack for itself
  static constexpr int64_t kSmallBytes = 40 << 10;  ///< what fits into a first-level cache
  /// Panels of B (48 KiB each for AVX-512) that stay in a second-level cache while rows of A pass by.
  static constexpr int64_t kPanelsOfB = 12;
  static constexpr int64_t kPanelsOfA = 16;
  static constexpr int64_t kFewUses = 8;  ///< of a panel: not worth packing it where it can be read in place
  static constexpr int64_t kFewPanelsOfB = 24;
  static constexpr int64_t kWorthSharing = 128 << 10;    ///< bytes; less is packed by all threads together
  static constexpr int64_t kLine = 64 / sizeof(T);       ///< elements of a cache line
  static constexpr int64_t kCopiedRow = kChunk + kLine;  ///< from one row of a copied panel to the next
  static constexpr int64_t kNearBytes = 512 << 10;       ///< A that may be read again and again

  static int64_t round_up(int64_t n, int64_t to) { return ceil_div(n, to) * to; }

  /// From one packed panel to the next. Packing writes many panels side by side: with their size alone in
  /// between, which is a multiple of 2 KiB, they would share a few places of the first-level cache.
  static int64_t panel_stride(int width, int64_t k) { return width * k + 2 * kLine; }
  static int64_t packed_size(int64_t lanes, int width, int64_t k) {
    return ceil_div(lanes, width) * panel_stride(width, k);
  }

  static int64_t bytes_of(int64_t elements) { return elements * static_cast<int64_t>(sizeof(T)); }
  static bool fits(int64_t elements) { return bytes_of(elements) <= kSmallBytes; }

  static int64_t shared_lanes(int64_t lanes, int64_t k, int64_t width, Packing packing) {
    if (packing != Packing::kShared) return lanes;
    const int64_t most = std::max<int64_t>(
        kSharedBytes / static_cast<int64_t>(sizeof(T)) / std::max<int64_t>(k, 1) / width, 1);
    return std::min(most * width, lanes);
  }

  /// How many blocks of about `least` to `most` panels, as many for each thread. Some blocks a thread, if
  /// there can be, even out what threads meet on the way.
  static int64_t blocks_of(int64_t panels, int64_t threads, int64_t least, int64_t most, int64_t each = 3) {
    const int64_t fewest = ceil_div(panels, most);
    if (threads == 1) return fewest;
    const int64_t wanted = std::max(each * threads, round_up(fewest, threads));
    const int64_t possible = std::max<int64_t>(panels / least, 1);
    if (possible >= wanted) return wanted;
    return std::max(possible > threads ? possible / threads * threads : possible, fewest);
  }

  void plan() {
    const int64_t m = a_.lanes, n = b_.lanes;
    const int64_t panels_a = ceil_div(m, kernels_.rows), panels_b = ceil_div(n, kernels_.columns);
    // Panels that are small or used by few rows (of B) or columns (of A) are read where they lie; so are rows
    // of A with adjacent elements. Panels of B need adjacent columns.
    const bool small = fits((m + n) * k_);
    const bool few_rows = panels_a <= 4;
    const bool scattered_b = b_.form != Form::kPlain || (b_.lane_stride != 1 && n > 1);
    // Rows of B that lie close together are as good where they are, if a tile does enough with each.
    const bool close_b = !scattered_b && close_rows<T>(kernels_.rows, b_.k_stride);
    const bool pack_b = scattered_b || (!small && panels_a > kFewUses && !close_b);
    // So are columns of A, of which a tile reads adjacent elements, while few panels of B meet each. Rows 4
    // KiB apart share few places of the first-level cache, and there is none for rows of B that do, too.
    const bool pages = bytes_of(a_.k_stride) % 4096 == 0;
    const bool clash = pages && !pack_b && bytes_of(b_.k_stride) % 1024 == 0;
    const bool close_a = a_.form == Form::kPlain && a_.lane_stride == 1 && kernels_.rows >= kTallTile &&
                         panels_b <= (pages ? kFewPanelsOfB / 2 : kFewPanelsOfB) && !clash;
    const bool pack_a =
        a_.form != Form::kPlain || (a_.k_stride != 1 && !small && !few_rows && panels_b > 1 && !close_a);
    packing_a_ = pack_a ? Packing::kShared : Packing::kNone;
    packing_b_ = pack_b ? Packing::kShared : Packing::kNone;
    rows_clash_ =
        !pack_a && a_.k_stride == 1 && rows_clash<T>(std::min<int64_t>(m, kernels_.rows), a_.lane_stride);
    const int64_t threads = parallel_ ? num_threads() : 1;
    const int64_t enough = parallel_ ? 2 * threads : 1;
    // Who takes few columns reads all of A for little work, which matters where that comes from far away or
    // is packed by each thread; and columns may not be shared out evenly.
    const bool far = pack_a || bytes_of(m * k_) > kNearBytes;
    const int64_t least = few_rows ? 1 : (far ? 3 : 2);
    const int64_t blocks_b =
        std::max(blocks_of(panels_b, threads, least, kPanelsOfB, far ? 3 : 4), std::min(enough, panels_b));
    const int64_t blocks_a = blocks_of(panels_a, threads, 4, kPanelsOfA);
    const int64_t panels_of_b = ceil_div(panels_b, blocks_b);
    const int64_t most = ceil_div(ceil_div(blocks_b, threads) * panels_b, blocks_b);
    const bool uneven = 16 * most * threads > 17 * panels_b;
    const bool by_rows = panels_a > 8 * threads && (uneven || (panels_of_b < 3 && far));
    // Of two that must be packed, the one with fewer lanes stands beside; rows pass by at least three panels
    // of B.
    const bool by_columns = !pack_a || (n >= m && (panels_of_b >= 3 || blocks_a < threads));
    if (pack_b && by_columns && !by_rows && blocks_b >= enough) {
      // All rows of a few columns.
      packing_b_ = Packing::kByBlock;
      column_blocks_ = few_rows ? panels_b : blocks_b;
      if (pack_a) packing_a_ = packing_beside(n, m, threads);
    } else if (pack_a && blocks_a >= (pack_b || close_b ? threads : enough)) {
      packing_a_ = Packing::kByBlock;
      row_blocks_ = blocks_a;
      if (pack_b) packing_b_ = packing_beside(m, n, threads);
      if (packing_b_ == Packing::kByThread && !scattered_b && panels_a <= kFewUses * threads)
        packing_b_ = Packing::kNone;
    } else if (parallel_) {
      // With many rows to multiply, to pack B alone takes a thread less than to wait for the others that do.
      if (pack_b && !pack_a && bytes_of(n * k_) >= kWorthSharing)
        packing_b_ = packing_beside(m / 4, n, threads);
      // Where nothing is packed and all of B stays near, more of them cost nothing.
      const bool free = !pack_a && !pack_b && panels_b <= kPanelsOfB;
      row_blocks_ = free ? blocks_of(panels_a, threads, 2, kPanelsOfA, 6) : blocks_a;
      column_blocks_ = ceil_div(panels_b, by_rows ? kPanelsOfB : std::min<int64_t>(panels_of_b, 4));
    }
  }

  /// How to pack an operand, all of which meets every block of the other, which has the more lanes. What one
  /// core has packed comes slowly to another, which packs a small one more quickly itself: that is as much
  /// work as some 64 lanes of the other for each thread.
  Packing packing_beside(int64_t other_lanes, int64_t lanes, int64_t threads) const {
    const int64_t bytes = lanes * std::min(k_, kBlockChunks * kChunk) * static_cast<int64_t>(sizeof(T));
    return threads > 1 && other_lanes >= 64 * threads && bytes <= kOwnBytes ? Packing::kByThread
                                                                            : Packing::kShared;
  }

  void pack_shared(Range rows, Range columns, int64_t k0, int64_t k, T* to_a, T* to_b) {
    const int64_t jobs_a = to_a ? packing_jobs(rows, kernels_.rows, k) : 0;
    const int64_t jobs_b = to_b ? packing_jobs(columns, kernels_.columns, k) : 0;
    for_range(jobs_a + jobs_b, [&](int64_t begin, int64_t end) {
      Scratch<T> staging(staging_size());
      for (int64_t job = begin; job < end; ++job) {
        if (job < jobs_a)
          pack_part(a_, kernels_.rows, rows, k0, k, job, staging.data(), to_a);
        else
          pack_part(b_, kernels_.columns, columns, k0, k, job - jobs_a, staging.data(), to_b);
      }
    });
  }

  /// Panels that a packing job takes: so that it reads long runs where lanes are adjacent.
  static constexpr int64_t kPackedPanels = 4;

  static int64_t packing_jobs(Range lanes, int width, int64_t k) {
    return ceil_div(lanes.size, kPackedPanels * width) * ceil_div(k, kChunk);
  }
  void pack_part(const Operand& operand, int width, Range range, int64_t k0, int64_t k, int64_t job,
                 T* staging, T* to) {
    const int64_t chunks = ceil_div(k, kChunk), lanes = kPackedPanels * width;
    const int64_t offset = job % chunks * kChunk, lane = job / chunks * lanes;
    pack_lanes(level_, operand, range.begin + lane, std::min(lanes, range.size - lane), width, k0 + offset,
               std::min(kChunk, k - offset), staging,
               to + lane / width * panel_stride(width, k) + offset * width, panel_stride(width, k));
  }

  int64_t staging_size() const {
    return a_.form == Form::kPlain && b_.form == Form::kPlain
               ? 0
               : std::max(kernels_.rows, kernels_.columns) * kChunk;
  }

  /// Of C.
  struct Block {
    Range rows{}, columns{};
  };

  /// Rows and columns of C, for some values of k, in blocks.
  struct Jobs {
    Range rows, columns;
    int64_t k0, k;
    const T *shared_a, *shared_b;
    T* c;
    int64_t c_row_stride;
    Cut row_cut, column_cut;
    int64_t count() const { return row_cut.blocks * column_cut.blocks; }
    Block block(int64_t i) const {
      return {row_cut.block(i / column_cut.blocks), column_cut.block(i % column_cut.blocks)};
    }
  };
  Jobs jobs_of(Range rows, Range columns, int64_t k0, int64_t k, const T* shared_a, const T* shared_b, T* c,
               int64_t c_row_stride) const {
    const bool packed = packing_a_ == Packing::kShared || packing_a_ == Packing::kByThread;
    return {rows,
            columns,
            k0,
            k,
            shared_a,
            shared_b,
            c,
            c_row_stride,
            Cut(rows, a_.lanes, kernels_.rows, row_blocks_, packed),
            Cut(columns, b_.lanes, kernels_.columns, column_blocks_, true)};
  }

  /// One thread's part of a product: where operands are packed, and what it packed for itself so far.
  struct Mine {
    const T *all_a, *all_b;
    T *own_a, *own_b;
    T *staging, *copy;
    int64_t packed = 0;  ///< values of k of what it packs once, for all its blocks
    FetchShare<T> for_later{};
  };

  /// What a thread turns to when nothing is left to take.
  struct Then {
    const Gemm* gemm = nullptr;
    const Jobs* jobs = nullptr;
  };

  /// Takes blocks until none is left. @param share of the work, for each thread one; the first one takes
  /// blocks from the front
  void work(const Jobs& jobs, Claims& claims, int64_t share, Then then = {}) {
    const bool first = share == 0;
    int64_t job = claims.take(first);
    if (job >= jobs.count()) return;
    const auto scratch = [&](Packing packing, const Cut& cut, int64_t all, int width) {
      return packing == Packing::kByBlock    ? packed_size(cut.most_lanes(), width, std::min(jobs.k, kChunk))
             : packing == Packing::kByThread ? packed_size(all, width, jobs.k)
                                             : 0;
    };
    Scratch<T> own_a(scratch(packing_a_, jobs.row_cut, jobs.rows.size, kernels_.rows));
    Scratch<T> own_b(scratch(packing_b_, jobs.column_cut, jobs.columns.size, kernels_.columns));
    Scratch<T> staging(packing_a_ != Packing::kNone || packing_b_ != Packing::kNone ? staging_size() : 0);
    Scratch<T> copy(rows_clash_ ? kernels_.rows * kCopiedRow : 0);
    Mine mine{packing_a_ == Packing::kShared ? jobs.shared_a : own_a.data(),
              packing_b_ == Packing::kShared ? jobs.shared_b : own_b.data(),
              own_a.data(),
              own_b.data(),
              staging.data(),
              copy.data()};
    if (then.gemm == nullptr) mine.for_later = share_of_fetching(jobs, share);
    const int64_t fair = parallel_ ? ceil_div(jobs.count(), num_threads()) : jobs.count();
    for (int64_t done = 1; job < jobs.count(); job = claims.take(first), ++done) {
      // Probably.
      const int64_t next = done < fair ? (first ? job + 1 : job - 1) : -1;
      block(jobs, mine, jobs.block(job), next < 0 || next >= jobs.count() ? Block{} : jobs.block(next), first,
            done < fair ? Then{} : then);
    }
  }

  bool in_one_region() const {
    return parallel_ && packing_a_ != Packing::kShared && packing_b_ != Packing::kShared &&
           k_ <= kBlockChunks * kChunk;
  }
  Jobs all_jobs(T* c, int64_t c_row_stride) const {
    return jobs_of({0, a_.lanes}, {0, b_.lanes}, 0, k_, nullptr, nullptr, c, c_row_stride);
  }

  /// What a thread fetches beside the last jobs of all.
  FetchShare<T> share_of_fetching(const Jobs& jobs, int64_t share) const {
    const bool last = jobs.k0 + jobs.k == k_ && jobs.rows.end() == a_.lanes && jobs.columns.end() == b_.lanes;
    if (far_.empty() || !parallel_ || near_ || !last) return {};
    const int64_t tiles = ceil_div(jobs.rows.size, kernels_.rows) *
                          ceil_div(jobs.columns.size, kernels_.columns) * ceil_div(jobs.k, kChunk);
    return {far_, share, num_threads(), tiles / num_threads(), kernels_.rows};
  }

  void multiply(const Jobs& jobs) {
    Claims claims(jobs.count());
    for_range(std::min<int64_t>(num_threads(), jobs.count()),
              [&](int64_t begin, int64_t) { work(jobs, claims, begin); });
  }

  /// Of an operand that each thread packs for itself: values [p, p + kChunk) of k.
  void pack_chunk(const Operand& operand, int width, Range range, const Jobs& jobs, int64_t p, T* staging,
                  T* to) {
    const int64_t chunks = ceil_div(jobs.k, kChunk);
    for (int64_t job = p / kChunk; job < packing_jobs(range, width, jobs.k); job += chunks)
      pack_part(operand, width, range, jobs.k0, jobs.k, job, staging, to);
  }

  /// A block, chunk by chunk of k. @param next the block that follows @param then what follows, if no block
  void block(const Jobs& jobs, Mine& mine, const Block& at, const Block& next, bool first, Then then) {
    const Range r = at.rows, q = at.columns;
    const int64_t k0 = jobs.k0, k = jobs.k;
    for (int64_t p = 0; p < k; p += kChunk) {
      const int64_t length = std::min(kChunk, k - p);
      if (p == mine.packed) {
        if (packing_a_ == Packing::kByThread)
          pack_chunk(a_, kernels_.rows, jobs.rows, jobs, p, mine.staging, mine.own_a);
        if (packing_b_ == Packing::kByThread)
          pack_chunk(b_, kernels_.columns, jobs.columns, jobs, p, mine.staging, mine.own_b);
        mine.packed += length;
      }
      const Panels<T> a = panels(a_, packing_a_, kernels_.rows, r, r.begin - jobs.rows.begin, k0, k, p,
                                 length, mine.all_a, mine.own_a, mine.staging);
      const Panels<T> b = panels(b_, packing_b_, kernels_.columns, q, q.begin - jobs.columns.begin, k0, k, p,
                                 length, mine.all_b, mine.own_b, mine.staging);
      Addend<T> addend;
      if (addend_.data && k0 + p + length == k_)
        addend = {addend_.data + r.begin * addend_.row_stride + q.begin, addend_.row_stride};
      Ahead<T> ahead(mine.for_later);
      if (p + length < k)
        add_ahead(ahead, jobs, at, p + length, mine.packed);
      else if (then.gemm == nullptr)
        add_ahead(ahead, jobs, next, 0, mine.packed);
      else
        then.gemm->add_ahead(ahead, *then.jobs, then.jobs->block(first ? 0 : then.jobs->count() - 1), 0, 0);
      tiles(r.size, q.size, length, a, b, mine.copy, jobs.c + r.begin * jobs.c_row_stride + q.begin,
            jobs.c_row_stride, k0 + p > 0, addend, ahead);
    }
  }

  /// What a thread packs next, for values of k from `from` on: operands of the block, and what it packs once,
  /// of which it has `packed` values of k.
  void add_ahead(Ahead<T>& ahead, const Jobs& jobs, const Block& block, int64_t from, int64_t packed) const {
    const auto add = [&](const Operand& operand, Packing packing, Range all, Range lanes) {
      if (packing == Packing::kByThread && from == packed)
        lanes = all;
      else if (packing != Packing::kByBlock)
        return;
      if (operand.form != Form::kPlain) return;
      const T* data = reinterpret_cast<const T*>(operand.data) + lanes.begin * operand.lane_stride +
                      (jobs.k0 + from) * operand.k_stride;
      const int64_t length = std::min(kChunk, jobs.k - from);
      if (operand.lane_stride == 1)
        ahead.add(data, operand.k_stride, length, lanes.size);
      else if (operand.k_stride == 1)
        ahead.add(data, operand.lane_stride, lanes.size, length);
    };
    add(a_, packing_a_, jobs.rows, block.rows);
    add(b_, packing_b_, jobs.columns, block.columns);
  }

  /// The panels of `lanes`, which begin `offset` lanes into the shared memory, for `length` values of k from
  /// k0 + p on.
  Panels<T> panels(const Operand& operand, Packing packing, int width, Range lanes, int64_t offset,
                   int64_t k0, int64_t k, int64_t p, int64_t length, const T* all, T* own, T* staging) {
    switch (packing) {
      case Packing::kShared:
      case Packing::kByThread:
        return {all + offset / width * panel_stride(width, k) + p * width, panel_stride(width, k), 1, width};
      case Packing::kByBlock:
        pack_lanes(level_, operand, lanes.begin, lanes.size, width, k0 + p, length, staging, own,
                   panel_stride(width, length));
        return {own, panel_stride(width, length), 1, width};
      default:
        break;
    }
    return in_place(operand, width, lanes.begin, k0 + p);
  }
  static Panels<T> in_place(const Operand& operand, int width, int64_t lane, int64_t k) {
    const T* data =
        reinterpret_cast<const T*>(operand.data) + lane * operand.lane_stride + k * operand.k_stride;
    return {data, width * operand.lane_stride, operand.lane_stride, operand.k_stride};
  }

  /// A panel of A stays in the first-level cache while those of B pass by from the second, and the next panel
  /// of A is fetched. One whose rows could not all stay there is copied first.
  void tiles(int64_t rows, int64_t columns, int64_t k, const Panels<T>& a, const Panels<T>& b, T* copy, T* c,
             int64_t c_row_stride, bool accumulate, Addend<T> addend, Ahead<T>& ahead) {
    const int mr = kernels_.rows, nr = kernels_.columns;
    const int64_t group = kPanelsOfB * nr;
    const bool packed = a.lane_stride == 1 && a.k_stride == mr;
    for (int64_t first = 0; first < columns; first += group) {
      const int64_t end = std::min(first + group, columns);
      // A tile fetches so much of each of the next panel's rows; a packed panel counts as rows of k, too.
      const int64_t share = (packed && packing_a_ == Packing::kShared) || a.k_stride == 1
                                ? ceil_div(ceil_div(k, ceil_div(end - first, nr)), kLine) * kLine
                                : 0;
      for (int64_t i = 0; i < rows; i += mr) {
        const T* pa = a.data + i / mr * a.panel_stride;
        const int tile_rows = static_cast<int>(std::min<int64_t>(mr, rows - i));
        const bool last = i + mr >= rows;
        const T* read = pa;
        int64_t row_stride = a.lane_stride;
        if (rows_clash_) {
          for (int r = 0; r < tile_rows; ++r) std::copy_n(pa + r * a.lane_stride, k, copy + r * kCopiedRow);
          read = copy;
          row_stride = kCopiedRow;
        }
        Strip<T> strip{.rows = tile_rows,
                       .columns = end - first,
                       .k = k,
                       .a = read,
                       .a_row_stride = row_stride,
                       .a_k_stride = a.k_stride,
                       .b = b.data + first / nr * b.panel_stride,
                       .b_k_stride = b.k_stride,
                       .b_tile_stride = b.panel_stride,
                       .c = c + i * c_row_stride + first,
                       .c_row_stride = c_row_stride,
                       .accumulate = accumulate,
                       .addend = addend.data ? addend.data + i * addend.row_stride + first : nullptr,
                       .addend_row_stride = addend.row_stride,
                       .near = near_};
        std::array<Fetch<T>, kPanelsOfB> later;
        if (!near_ && !ahead.empty()) {
          for (int64_t j = first; j < end; j += nr)
            later[static_cast<size_t>((j - first) / nr)] = ahead.share_of_tile(tile_rows, k);
          strip.later = later.data();
        }
        if (!near_ && !last && share > 0) {
          strip.next = {pa + a.panel_stride, packed ? k : a.lane_stride, k};
          strip.next_share = share;
        }
        kernels_.multiply(strip);
      }
    }
  }

  void for_range(int64_t n, FunctionRef<void(int64_t, int64_t)> body) {
    if (n > 0) parallel_for(n, parallel_ ? 1 : n, body);
  }

  const GemmLevel& level_;
  const GemmKernels<T>& kernels_;
  Operand a_, b_;
  const int64_t k_;
  const bool parallel_;
  const bool near_;
  const Addend<T> addend_;
  const std::span<const FarMemory> far_ = Meanwhile::memory();
  Packing packing_a_, packing_b_;
  int64_t row_blocks_ = 1, column_blocks_ = 1;  ///< of all C
  bool rows_clash_ = false;                     ///< those of A, where they lie, in a first-level cache
};

/// One dtype: computed in T; E is the element of C as computed (T or its complex partner), D as stored.
template <class T, class E, class D>
class Product {
 public:
  Product(Dtype dtype, const MatmulShape& shape, const Matrix& a, const Matrix& b, const Matrix& c,
          const Epilogue& epilogue)
      : dtype_(dtype),
        shape_(shape),
        a_(a),
        b_(b),
        c_(c),
        epilogue_(epilogue),
        level_(level_in_use()),
        beta_is_zero_(as_element<E>(epilogue.beta) == E(0)),
        plain_(std::is_same_v<E, D> && beta_is_zero_ && as_element<E>(epilogue.alpha) == E(1)),
        plain_sum_(std::is_same_v<T, D> && as_element<E>(epilogue.beta) == E(1) &&
                   as_element<E>(epilogue.alpha) == E(1)) {}

  /// Both, if that can be done at once; `false`: nothing was done.
  static bool run_both(Product& x, Product& y) {
    if constexpr (!std::is_same_v<E, D>) {
      return false;
    } else {
      for (Product* p : {&x, &y}) {
        p->normalize();
        if (p->shape_.batch != 1 || p->shape_.k == 0 || !p->plain_ || p->c_.column_stride != 1 ||
            p->work() < kSerialWork)
          return false;
      }
      Gemm<T> gx = x.gemm(0, true), gy = y.gemm(0, true);
      return Gemm<T>::run_both(gx, reinterpret_cast<T*>(x.c_.data), x.c_.row_stride * kParts, gy,
                               reinterpret_cast<T*>(y.c_.data), y.c_.row_stride * kParts);
    }
  }

  void run() {
    normalize();
    const double work = this->work();
    // Many matrices are shared out whole; few or large ones one after the other, each by all threads.
    const bool many = shape_.batch >= 4 * num_threads() && work * sizeof(T) < 1e9;
    if (many || shape_.batch * work < kSerialWork) {
      const int64_t grain = shape_.batch * work < kSerialWork
                                ? shape_.batch
                                : std::max<int64_t>(1, static_cast<int64_t>(kSerialWork / 4 / work));
      parallel_for(shape_.batch, grain, [&](int64_t begin, int64_t end) {
        if (written_at_once()) {
          Gemm<T> gemm = this->gemm(begin, false);
          for (int64_t i = begin; i < end; ++i) {
            gemm.move_to(left(i).data, right(i).data);
            gemm.run(result(i), c_.row_stride * kParts);
          }
        } else {
          for (int64_t i = begin; i < end; ++i) one(i, false);
        }
      });
    } else {
      for (int64_t i = 0; i < shape_.batch; ++i) one(i, true);
    }
  }

 private:
  static constexpr bool kComplex = !std::is_same_v<T, E>;
  static constexpr int64_t kParts = kComplex ? 2 : 1;
  static constexpr Form kPlain = sizeof(D) == sizeof(E) ? Form::kPlain : Form::kWidened;
  /// Multiply-adds times two below which a second thread costs more than it brings.
  static constexpr double kSerialWork = 1.5e6;

  /// Of one matrix: multiply-adds times two.
  double work() const {
    return 2.0 * static_cast<double>(shape_.m) * static_cast<double>(shape_.n) *
           static_cast<double>(std::max<int64_t>(shape_.k, 1)) * kParts * kParts;
  }

  void normalize() {
    // A stack of A's rows against one B is one product.
    if (shape_.batch > 1 && shape_.inner >= shape_.batch && b_.batch_stride == 0 &&
        a_.batch_stride == shape_.m * a_.row_stride && c_.batch_stride == shape_.m * c_.row_stride &&
        (beta_is_zero_ || epilogue_.addend.batch_stride == shape_.m * epilogue_.addend.row_stride)) {
      shape_.m *= shape_.batch;
      shape_.batch = 1;
    }
    if (shape_.n == 1) c_.column_stride = 1;
    if (shape_.m == 1) c_.row_stride = std::max<int64_t>(shape_.n, 1);
    // The transposed product has the same chains, but for the order inside a complex imaginary part. It is
    // the better one when C's rows are adjacent, and when there are too few columns to fill a vector.
    if (!kComplex &&
        ((c_.column_stride != 1 && c_.row_stride == 1) || (shape_.n < 8 && shape_.m > shape_.n))) {
      std::swap(shape_.m, shape_.n);
      std::swap(a_, b_);
      a_ = a_.transposed();
      b_ = b_.transposed();
      c_ = c_.transposed();
      epilogue_.addend = epilogue_.addend.transposed();
      if (shape_.m == 1) c_.row_stride = std::max<int64_t>(shape_.n, 1);
    }
  }

  /// Where matrix `index` begins, in elements.
  int64_t offset(const Matrix& x, int64_t index) const {
    return index / shape_.inner * x.outer_stride + index % shape_.inner * x.batch_stride;
  }

  Operand left(int64_t index) const {
    return {static_cast<const char*>(a_.data) + offset(a_, index) * itemsize(dtype_),
            a_.row_stride,
            a_.column_stride,
            shape_.m,
            dtype_,
            kComplex ? Form::kComplexA : kPlain,
            a_.conjugate};
  }
  Operand right(int64_t index) const {
    return {static_cast<const char*>(b_.data) + offset(b_, index) * itemsize(dtype_),
            b_.column_stride,
            b_.row_stride,
            shape_.n * kParts,
            dtype_,
            kComplex ? Form::kComplexB : kPlain,
            b_.conjugate};
  }
  Gemm<T> gemm(int64_t index, bool parallel, Addend<T> addend = {}) const {
    return Gemm<T>(level_, left(index), right(index), shape_.k * kParts, parallel, shape_.batch == 1, addend);
  }

  /// Whether tiles are what C holds.
  bool written_at_once() const { return shape_.k > 0 && plain_ && c_.column_stride == 1; }
  T* result(int64_t index) const {
    return reinterpret_cast<T*>(static_cast<D*>(c_.data) + offset(c_, index));
  }

  void one(int64_t index, bool parallel) {
    if (written_at_once()) return gemm(index, parallel).run(result(index), c_.row_stride * kParts);
    D* const c = static_cast<D*>(c_.data) + offset(c_, index);
    const int64_t k = shape_.k * kParts;
    const D* addend = static_cast<const D*>(epilogue_.addend.data);
    if (!beta_is_zero_) addend += offset(epilogue_.addend, index);
    if constexpr (std::is_same_v<T, D>) {
      if (k > 0 && plain_sum_ && c_.column_stride == 1 && epilogue_.addend.column_stride == 1 &&
          !addend_may_be_c()) {
        gemm(index, parallel, {addend, epilogue_.addend.row_stride}).run(c, c_.row_stride);
        return;
      }
    }
    if constexpr (std::is_same_v<E, D>) {
      if (k > 0 && c_.column_stride == 1 && (beta_is_zero_ || !addend_may_be_c())) {
        gemm(index, parallel).run(reinterpret_cast<T*>(c), c_.row_stride * kParts);
        return finish(0, shape_.m, c, c_.row_stride, addend, c, parallel);
      }
    }
    // Rows at a time, so that the sums take little memory.
    const int64_t rows =
        std::clamp<int64_t>(kStagedBytes / static_cast<int64_t>(sizeof(E)) / shape_.n, 1, shape_.m);
    Scratch<E> sums(rows * shape_.n);
    for (int64_t i = 0; i < shape_.m; i += rows) {
      const int64_t count = std::min(rows, shape_.m - i);
      Operand part = left(index);
      part.data += i * part.lane_stride * itemsize(dtype_);
      part.lanes = count;
      if (k > 0)
        Gemm<T>(level_, part, right(index), k, parallel, shape_.batch == 1)
            .run(reinterpret_cast<T*>(sums.data()), shape_.n * kParts);
      else
        std::fill_n(sums.data(), count * shape_.n, E(0));
      finish(i, count, sums.data(), shape_.n, addend, c, parallel);
    }
  }

  /// The epilogue of `count` rows from row i on; `sums` begins at row i, the other two at row 0.
  void finish(int64_t i, int64_t count, E* sums, int64_t sums_row_stride, const D* addend, D* c,
              bool parallel) {
    parallel_for(
        count, parallel ? std::max<int64_t>(1, 16384 / shape_.n) : count, [&](int64_t begin, int64_t end) {
          Writer<E, D> writer(level_, dtype_, epilogue_);
          for (int64_t r = begin; r < end; ++r)
            writer.write_row(shape_.n, sums + r * sums_row_stride,
                             beta_is_zero_ ? nullptr : addend + (i + r) * epilogue_.addend.row_stride,
                             epilogue_.addend.column_stride, c + (i + r) * c_.row_stride, c_.column_stride);
        });
  }

  /// Whether the addend's memory may overlap C's: then C cannot hold the sums before the addend is read.
  bool addend_may_be_c() const {
    const auto extent = [this](const Matrix& x) {
      int64_t low = 0, high = 1;
      for (const auto& [size, stride] :
           {std::pair{std::min(shape_.batch, shape_.inner), x.batch_stride},
            std::pair{(shape_.batch - 1) / shape_.inner + 1, x.outer_stride},
            std::pair{shape_.m, x.row_stride}, std::pair{shape_.n, x.column_stride}})
        (stride < 0 ? low : high) += (size - 1) * stride;
      const auto* data = static_cast<const D*>(x.data);
      return std::pair{reinterpret_cast<uintptr_t>(data + low), reinterpret_cast<uintptr_t>(data + high)};
    };
    const auto [c_low, c_high] = extent(c_);
    const auto [addend_low, addend_high] = extent(epilogue_.addend);
    return addend_low < c_high && c_low < addend_high;
  }

  static constexpr int64_t kStagedBytes = 4 << 20;

  const Dtype dtype_;
  MatmulShape shape_;
  Matrix a_, b_, c_;
  Epilogue epilogue_;
  const GemmLevel& level_;
  const bool beta_is_zero_;
  const bool plain_;      ///< C = S
  const bool plain_sum_;  ///< C = S + addend
};

}  // namespace

namespace {

/// Calls `run` with the types in which a product of a dtype is computed, summed and stored.
template <class F>
auto with_types(Dtype dtype, const F& run) {
  switch (dtype) {
    case kFloat32:
      return run.template operator()<float, float, float>();
    case kFloat64:
      return run.template operator()<double, double, double>();
    case kComplex64:
      return run.template operator()<float, std::complex<float>, std::complex<float>>();
    case kComplex128:
      return run.template operator()<double, std::complex<double>, std::complex<double>>();
    case kFloat16:
    case kBFloat16:
      return run.template operator()<float, float, uint16_t>();
    case kUInt8:
    case kInt8:
      return run.template operator()<uint32_t, uint32_t, uint8_t>();
    case kInt16:
      return run.template operator()<uint32_t, uint32_t, uint16_t>();
    case kInt32:
      return run.template operator()<uint32_t, uint32_t, uint32_t>();
    default:
      return run.template operator()<uint64_t, uint64_t, uint64_t>();
  }
}

bool is_empty(const MatmulShape& shape) { return shape.batch == 0 || shape.m == 0 || shape.n == 0; }

}  // namespace

void matmul(Dtype dtype, const MatmulShape& shape, const Matrix& a, const Matrix& b, const Matrix& c,
            const Epilogue& epilogue) {
  LOHE_CHECK_KIND(kNotImplemented, dtype != kBool && dtype != Dtype::kUndefined,
                  "matmul: not defined for dtype ", dtype, "; convert the operands to a number type first");
  if (is_empty(shape)) return;
  with_types(dtype,
             [&]<class T, class E, class D>() { Product<T, E, D>(dtype, shape, a, b, c, epilogue).run(); });
}

void matmul(Dtype dtype, const Multiplication& first, const Multiplication& second) {
  const bool both = dtype == kFloat32 || dtype == kFloat64;
  if (both && !is_empty(first.shape) && !is_empty(second.shape) &&
      with_types(dtype, [&]<class T, class E, class D>() {
        Product<T, E, D> x(dtype, first.shape, first.a, first.b, first.c, {}),
            y(dtype, second.shape, second.a, second.b, second.c, {});
        return Product<T, E, D>::run_both(x, y);
      }))
    return;
  matmul(dtype, first);
  matmul(dtype, second);
}

}  // namespace lohe::backend
