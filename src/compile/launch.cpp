#include "compile/launch.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <optional>
#include <utility>

#include "base/allocator.h"
#include "base/inline_vector.h"
#include "base/threads.h"
#include "lohe/error.h"

namespace lohe::compiler {

int64_t scalar_bits(const Scalar& s, Dtype dtype, bool imaginary) {
  const Dtype part = info(dtype).value_dtype;
  if (is_integral(part, false)) return s.to_int();
  if (part == Dtype::kBool) return s.to_bool() ? 1 : 0;
  const double v = imaginary ? s.imag() : s.to_double();
  if (part == Dtype::kFloat64) return std::bit_cast<int64_t>(v);
  return std::bit_cast<int32_t>(static_cast<float>(v));
}

namespace {

/// Addresses and parameters of one run of a launch.
struct Bound {
  SmallVector<void*, 64> buffers;
  SmallVector<int64_t, 64> patched;  ///< empty: no parameter is a run-time number
  const int64_t* params;

  Bound(const Launch& launch, std::span<char* const> bases, std::span<const Scalar> numbers)
      : buffers(launch.buffers.size() + launch.scratch.size()), params(launch.params.data()) {
    for (size_t i = 0; i < launch.buffers.size(); ++i) {
      const Launch::Buffer& b = launch.buffers[i];
      if (b.base != Launch::kFed) buffers[i] = bases[static_cast<size_t>(b.base)] + b.offset;
    }
    if (launch.numbers.empty()) return;
    patched.assign(launch.params.data(), launch.params.size());
    for (const Launch::Number& n : launch.numbers) {
      patched[static_cast<size_t>(n.param)] =
          scalar_bits(numbers[static_cast<size_t>(n.scalar)], n.dtype, n.imaginary);
    }
    params = patched.data();
  }
  Bound(const Bound&) = delete;
  Bound& operator=(const Bound&) = delete;
};

/// Memory of one range.
class Memory {
 public:
  explicit Memory(int64_t bytes) : bytes_(static_cast<size_t>(bytes)), data_(allocate(bytes_)) {}
  ~Memory() {
    if (data_ != nullptr) deallocate(data_, bytes_);
  }
  Memory(Memory&& o) noexcept : bytes_(o.bytes_), data_(std::exchange(o.data_, nullptr)) {}
  Memory& operator=(Memory&&) = delete;
  void* data() const { return data_; }

 private:
  size_t bytes_;
  void* data_;
};

/// Indices [begin, end) of a fed launch, whose buffers are `own`.
int32_t run_pieces(const Launch& launch, const Bound& maker, SmallVector<void*, 64>& own,
                   const int64_t* params, int64_t begin, int64_t end) {
  const Launch::Feed& feed = launch.feed;
  const Launch::Extent& read = launch.extents[feed.read];
  const auto step = static_cast<uint64_t>(feed.maker->extents[feed.made].step);
  const int64_t count = std::max<int64_t>(Launch::Feed::kPiece / std::max<int64_t>(read.step, 1), 1);
  const Memory memory((count - 1) * read.step + read.span + 2 * static_cast<int64_t>(step));
  SmallVector<void*, 64> making = maker.buffers;
  int32_t worst = 0;
  for (int64_t at = begin; at < end; at += count) {
    const int64_t to = std::min(at + count, end);
    const auto first = static_cast<uint64_t>(feed.begin + at * read.step);
    const auto last = static_cast<uint64_t>(feed.begin + (to - 1) * read.step + read.span);
    const uint64_t from = first / step;
    // Where all of it would begin; only the piece is there.
    const uintptr_t all = reinterpret_cast<uintptr_t>(memory.data()) - from * step;
    making[feed.made] = reinterpret_cast<void*>(all);
    (*feed.maker->kernel)(making.data(), maker.params, static_cast<int64_t>(from),
                          static_cast<int64_t>((last - 1) / step + 1));
    own[feed.read] = reinterpret_cast<void*>(all + static_cast<uint64_t>(feed.begin));
    if (const int32_t c = (*launch.kernel)(own.data(), params, at, to); c != 0) worst = c;
  }
  return worst;
}

}  // namespace

void run(const Launch& launch, std::span<char* const> bases, std::span<const Scalar> numbers) {
  Bound bound(launch, bases, numbers);
  const codegen::CompiledKernel& kernel = *launch.kernel;
  std::optional<Bound> maker;
  if (launch.feed.maker != nullptr) maker.emplace(*launch.feed.maker, bases, numbers);
  const auto call = [&](SmallVector<void*, 64>& buffers, int64_t begin, int64_t end) {
    return maker ? run_pieces(launch, *maker, buffers, bound.params, begin, end)
                 : kernel(buffers.data(), bound.params, begin, end);
  };
  int32_t code = 0;
  if (launch.count <= launch.grain && launch.scratch.empty()) {
    code = call(bound.buffers, 0, launch.count);
  } else {
    std::atomic<int32_t> worst{0};
    parallel_for(
        launch.count, launch.grain,
        [&](int64_t begin, int64_t end) {
          SmallVector<void*, 64> own = bound.buffers;
          InlineVector<Memory, 2> scratch;
          size_t at = launch.buffers.size();
          for (const int64_t bytes : launch.scratch) {
            scratch.emplace_back(bytes);
            own[at++] = scratch.back().data();
          }
          if (const int32_t c = call(own, begin, end); c != 0) worst.store(c, std::memory_order_relaxed);
        },
        launch.length);
    code = worst.load();
  }
  if (code == 0) return;
  const ir::Graph::Check& check = launch.graph->checks[static_cast<size_t>(code - 1)];
  raise(check.index_error ? ErrorKind::kIndex : ErrorKind::kRuntime, check.message);
}

void run_together(std::span<const Launch* const> launches, std::span<char* const> bases,
                  std::span<const Scalar> numbers) {
  SmallVector<Part, 32> parts;
  for (const Launch* l : launches) parts.push_back({l->count, l->grain});
  run_parts({parts.data(), parts.size()}, [&](size_t part, int64_t begin, int64_t end) {
    const Launch& l = *launches[part];
    const Bound bound(l, bases, numbers);
    (*l.kernel)(bound.buffers.data(), bound.params, begin, end);
  });
}

void run_parts(std::span<const Part> parts, FunctionRef<void(size_t part, int64_t begin, int64_t end)> body) {
  // Parts are cut by weight: so much of it is worth a thread.
  constexpr int64_t kShare = 256, kCut = 64;  // a long part is cut at multiples of kCut
  SmallVector<int64_t, 64> ends;
  int64_t total = 0;
  for (const Part& p : parts) {
    // With something for the call, so that a part has a weight if it is not empty.
    const auto weight =
        static_cast<int64_t>(static_cast<double>(p.count) / static_cast<double>(p.grain) * kShare);
    total += p.count == 0 ? 0 : weight + kShare / 64;
    ends.push_back(total);
  }
  if (total <= 2 * kShare) {
    for (size_t p = 0; p < parts.size(); ++p) {
      if (parts[p].count > 0) body(p, 0, parts[p].count);
    }
    return;
  }
  parallel_for(
      total, kShare,
      [&](int64_t begin, int64_t end) {
        auto p = static_cast<size_t>(std::upper_bound(ends.begin(), ends.end(), begin) - ends.begin());
        for (int64_t from = begin; from < end; ++p) {
          const int64_t first = p == 0 ? 0 : ends[p - 1], weight = ends[p] - first;
          const int64_t count = parts[p].count, to = std::min(end, ends[p]);
          const auto place = [&](int64_t at) {
            if (at == weight) return count;
            const auto cut = static_cast<int64_t>(static_cast<double>(count) * static_cast<double>(at) /
                                                  static_cast<double>(weight));
            return parts[p].grain >= kCut ? cut / kCut * kCut : cut;
          };
          if (const int64_t b = place(from - first), e = place(to - first); b < e) body(p, b, e);
          from = to;
        }
      },
      Grain::kShort);
}

}  // namespace lohe::compiler
