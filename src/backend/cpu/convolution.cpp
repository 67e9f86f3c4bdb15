#include <algorithm>
#include <complex>
#include <span>
#include <type_traits>
#include <vector>

#include "backend/cpu/packing.h"
#include "backend/cpu/scratch.h"
#include "backend/cpu/writer.h"
#include "backend/library.h"
#include "base/threads.h"
#include "lohe/error.h"

namespace lohe::backend {
namespace {

using Axes = ConvolutionShape::Axes;

// All three computations are matrix products one operand of which is read from images through a map of
// indices. No matrix of patches is ever in memory: the panels that the tile kernels take are filled straight
// from the image, a chunk of k and a block of columns at a time.

/// A kernel position: where its weight is, and what it adds to the image coordinate that a place reads.
struct Tap {
  int64_t weight_offset;
  Axes shift;
};

/// A grid of places in one or more images; place p reads the image at p * step + tap.shift.
struct Grid {
  Axes size;
  Axes step;
  int64_t places() const { return size[0] * size[1] * size[2]; }
};

/// `count` places (n, p) from number `first` on, in row-major order, as rows: places with the same image and
/// the same coordinates but the last.
class Places {
 public:
  Places(const Grid& grid, int64_t first, int64_t count) {
    Row row{0, 0, 0, {}};
    for (int axis = 2; axis >= 0; --axis) {
      row.at[axis] = first % grid.size[axis];
      first /= grid.size[axis];
    }
    row.image = first;
    while (row.lane < count) {
      row.length = std::min(grid.size[2] - row.at[2], count - row.lane);
      rows_.push_back(row);
      row.lane += row.length;
      row.at[2] = 0;
      if (++row.at[1] < grid.size[1]) continue;
      row.at[1] = 0;
      if (++row.at[0] < grid.size[0]) continue;
      row.at[0] = 0;
      ++row.image;
    }
  }

  /// The places [begin, begin + count) for which the image has a pixel under the tap, as runs of pixels that
  /// are grid.step[2] * image.strides[2] apart; lanes count from `begin`.
  void segments(const Grid& grid, const Images& image, const Axes& image_size, const Axes& shift,
                int64_t begin, int64_t count, std::vector<Segment>& result) const {
    const int64_t step = grid.step[2];
    const int64_t pixel_step = step * image.strides[2];
    // w * step + shift lies in [0, size) for w in [low, high).
    const int64_t low = ceil_div(std::max<int64_t>(-shift[2], 0), step);
    const int64_t high = ceil_div(std::max<int64_t>(image_size[2] - shift[2], 0), step);
    auto row = std::upper_bound(rows_.begin(), rows_.end(), begin,
                                [](int64_t lane, const Row& r) { return lane < r.lane + r.length; });
    for (; row != rows_.end() && row->lane < begin + count; ++row) {
      const int64_t d = row->at[0] * grid.step[0] + shift[0], h = row->at[1] * grid.step[1] + shift[1];
      if (d < 0 || d >= image_size[0] || h < 0 || h >= image_size[1]) continue;
      const int64_t to_lane = row->lane - row->at[2];  // from w to a lane
      const int64_t from = std::max({low, row->at[2], begin - to_lane});
      const int64_t to = std::min({high, row->at[2] + row->length, begin + count - to_lane});
      if (from >= to) continue;
      const int lane = static_cast<int>(from + to_lane - begin), length = static_cast<int>(to - from);
      const int64_t offset = row->image * image.outer_stride + d * image.strides[0] + h * image.strides[1] +
                             (from * step + shift[2]) * image.strides[2];
      if (!result.empty() && result.back().lane + result.back().length == lane &&
          result.back().offset + result.back().length * pixel_step == offset)
        result.back().length += length;
      else
        result.push_back({lane, length, offset});
    }
  }

 private:
  struct Row {
    int64_t lane;
    int64_t length;
    int64_t image;
    Axes at;
  };
  std::vector<Row> rows_;
};

/// How a dtype is computed: T of the tile kernels, E an element as computed, D as stored.
template <class T, class E, class D>
struct Types {
  static constexpr bool kComplex = !std::is_same_v<T, E>;
  static constexpr bool kWidened = !std::is_same_v<E, D>;
  static constexpr int kParts = kComplex ? 2 : 1;
  static constexpr Form kFormOfA = kComplex ? Form::kComplexA : kWidened ? Form::kWidened : Form::kPlain;

  /// A row of `width` elements as D into a packed row (two for complex types, the form of B in packing.h).
  static void place_row(const GemmLevel& level, Dtype dtype, int width, const D* row, T* packed) {
    if constexpr (kComplex) {
      for (int lane = 0; lane < width; ++lane) {
        const T real = row[lane].real(), imag = row[lane].imag();
        packed[2 * lane] = real;
        packed[2 * lane + 1] = imag;
        packed[2 * width + 2 * lane] = -imag;
        packed[2 * width + 2 * lane + 1] = real;
      }
    } else if constexpr (kWidened) {
      widen<T>(level, dtype, reinterpret_cast<const char*>(row), 1, width, packed);
    } else {
      std::copy_n(row, width, packed);
    }
  }
};

/// Runs of an image's pixels as rows of packed panels or as they are. Segments are `step` apart in the
/// source.
template <class D>
void copy_strided(std::span<const Segment> segments, int width, const D* source, int64_t step, D* row) {
  std::fill_n(row, width, D{});
  for (const Segment& segment : segments)
    for (int i = 0; i < segment.length; ++i) row[segment.lane + i] = source[segment.offset + i * step];
}

/// result[n, m, place * result_step + result_start] = bias[m] + sum over c, tap of
///   weight[m, c, tap] * image[n, c, place * grid.step + tap.shift], for one group's channels after the
///   other.
/// Forward it is the convolution itself; the input's gradient is one such job for every remainder of the
/// coordinate by the stride.
struct GatherJob {
  Dtype dtype;
  int64_t batch;
  int64_t groups;
  int64_t rows;      ///< result channels of a group
  int64_t channels;  ///< image channels of a group
  Grid grid;
  std::vector<Tap> taps;
  Images image;
  Axes image_size;
  const void* weight;
  int64_t weight_group_stride;
  int64_t weight_row_stride;
  int64_t weight_channel_stride;
  const void* bias;
  Images result;
  Axes result_start;
  Axes result_step;
};

template <class T, class E, class D>
class GatherConvolution : Types<T, E, D> {
  using Types<T, E, D>::kParts;

 public:
  explicit GatherConvolution(const GatherJob& job)
      : job_(job),
        level_(level_in_use()),
        kernels_(level_.get(T{})),
        taps_(static_cast<int64_t>(job.taps.size())),
        k_(job.channels * taps_ * kParts),
        panels_(ceil_div(job.rows, kernels_.rows)),
        lane_block_(kPanelsOfBlock * kernels_.columns / kParts) {}

  void run() {
    const int64_t lanes = job_.batch * job_.grid.places();
    if (lanes == 0 || job_.rows == 0 || job_.groups == 0) return;
    Scratch<T> weights(job_.groups * panels_ * kernels_.rows * k_);
    pack_weights(weights.data());
    const int64_t blocks = ceil_div(lanes, lane_block_);
    // Few blocks of lanes are cut by rows too, so that every thread has work.
    const int64_t wanted = ceil_div(4 * num_threads(), blocks * job_.groups);
    const int64_t panels_of_cut = ceil_div(panels_, std::clamp<int64_t>(wanted, 1, panels_));
    const int64_t cuts = ceil_div(panels_, panels_of_cut);
    // Small groups go together, since they read the same places.
    const int64_t group_work = job_.rows * k_ * lane_block_ * kParts;
    const int64_t groups_of_job = std::clamp<int64_t>(kJobWork / std::max<int64_t>(group_work, 1), 1,
                                                      ceil_div(job_.groups * blocks, 4 * num_threads()));
    const int64_t group_jobs = ceil_div(job_.groups, std::min(groups_of_job, job_.groups));
    const int64_t per_job = ceil_div(job_.groups, group_jobs);
    parallel_for(group_jobs * blocks * cuts, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t group = i / (blocks * cuts) * per_job, block = i / cuts % blocks, cut = i % cuts;
        const int64_t first = block * lane_block_;
        multiply(group, std::min(per_job, job_.groups - group), first, std::min(lane_block_, lanes - first),
                 cut * panels_of_cut, std::min(panels_of_cut, panels_ - cut * panels_of_cut), weights.data());
      }
    });
  }

 private:
  static constexpr int64_t kPanelsOfBlock = 8;
  static constexpr int64_t kJobWork = 1 << 20;  ///< multiply-adds

  void pack_weights(T* packed) {
    const int width = kernels_.rows;
    // The weights of a row, in the order of k, are runs of `run` equally spaced elements.
    const int64_t step = taps_ > 1 ? job_.taps[1].weight_offset - job_.taps[0].weight_offset : 1;
    bool even = true;
    for (int64_t t = 1; t < taps_; ++t)
      even &= job_.taps[t].weight_offset == job_.taps[0].weight_offset + t * step;
    const bool one_run = even && (taps_ == 1 || job_.weight_channel_stride == taps_ * step);
    const int64_t k_step = taps_ == 1 ? job_.weight_channel_stride : step;
    const int64_t run = one_run ? job_.channels * taps_ : even ? taps_ : 1;
    parallel_for(job_.groups * panels_, 1, [&](int64_t begin, int64_t end) {
      Scratch<T> staged(width * kChunk);
      for (int64_t i = begin; i < end; ++i) {
        const int64_t group = i / panels_, row = i % panels_ * width;
        T* const to = packed + i * width * k_;
        const int lanes = static_cast<int>(std::min<int64_t>(width, job_.rows - row));
        for (int64_t k = 0; k < job_.channels * taps_; k += run) {
          const int64_t offset = group * job_.weight_group_stride + k / taps_ * job_.weight_channel_stride +
                                 job_.taps[k % taps_].weight_offset;
          const Operand operand{static_cast<const char*>(job_.weight) + offset * int64_t{sizeof(D)},
                                job_.weight_row_stride,
                                k_step,
                                job_.rows,
                                job_.dtype,
                                Types<T, E, D>::kFormOfA,
                                false};
          for (int64_t k0 = 0; k0 < run * kParts; k0 += kChunk)
            pack_panel(level_, operand, row, lanes, width, k0, std::min(kChunk, run * kParts - k0),
                       staged.data(), to + (k * kParts + k0) * width);
        }
      }
    });
  }

  /// The lanes [first, first + lanes) of some panels of rows of the groups [group, group + groups).
  void multiply(int64_t group, int64_t groups, int64_t first, int64_t lanes, int64_t first_panel,
                int64_t panels, const T* weights) {
    const int mr = kernels_.rows, nr = kernels_.columns;
    const int64_t columns = lane_block_ * kParts;
    const int64_t first_row = first_panel * mr;
    const int64_t rows = std::min(panels * mr, job_.rows - first_row);
    const Places places(job_.grid, first, lanes);
    const int64_t lane_panels = ceil_div(lanes * kParts, nr);
    // The segments of (panel, tap) number i are [starts[i], starts[i + 1]).
    std::vector<Segment> segments;
    std::vector<size_t> starts{0};
    std::vector<Segment> found;
    for (int64_t panel = 0; panel < lane_panels; ++panel) {
      const int64_t begin = panel * nr / kParts;
      for (const Tap& tap : job_.taps) {
        found.clear();
        places.segments(job_.grid, job_.image, job_.image_size, tap.shift, begin,
                        std::min<int64_t>(nr / kParts, lanes - begin), found);
        segments.insert(segments.end(), found.begin(), found.end());
        starts.push_back(segments.size());
      }
    }
    std::vector<Segment> runs;
    result_places(places, lanes, runs);
    Scratch<T> packed(std::min(kChunk, k_) * columns);
    Scratch<T> sums(rows * columns);
    for (const int64_t end = group + groups; group < end; ++group) {
      const D* image =
          static_cast<const D*>(job_.image.data) + group * job_.channels * job_.image.channel_stride;
      const T* const of_group = weights + group * panels_ * mr * k_;
      // Places that no tap reaches hold the bias alone; write() leaves it in the sums.
      if (k_ == 0) std::fill_n(sums.data(), rows * columns, T(0));
      for (int64_t k0 = 0; k0 < k_; k0 += kChunk) {
        const int64_t k = std::min(kChunk, k_ - k0);
        for (int64_t panel = 0; panel < lane_panels; ++panel)
          for (int64_t t = 0; t < taps_; ++t) {
            const size_t i = static_cast<size_t>(panel * taps_ + t);
            fill(image, {segments.data() + starts[i], starts[i + 1] - starts[i]}, t, k0 / kParts, k / kParts,
                 packed.data() + panel * nr * k);
          }
        for (int64_t i = 0; i < rows; i += mr)
          kernels_.multiply({.rows = static_cast<int>(std::min<int64_t>(mr, rows - i)),
                             .columns = lanes * kParts,
                             .k = k,
                             .a = of_group + (first_row + i) * k_ + k0 * mr,
                             .a_row_stride = 1,
                             .a_k_stride = mr,
                             .b = packed.data(),
                             .b_k_stride = nr,
                             .b_tile_stride = nr * k,
                             .c = sums.data() + i * columns,
                             .c_row_stride = columns,
                             .accumulate = k0 > 0,
                             .near = true});
      }
      write(group, runs, first_row, rows, sums.data());
    }
  }

  /// The rows of a chunk that belong to tap t, for all channels in it.
  void fill(const D* image, std::span<const Segment> segments, int64_t t, int64_t k0, int64_t k, T* packed) {
    const int width = kernels_.columns / kParts;
    const int64_t step = job_.grid.step[2] * job_.image.strides[2];
    int64_t channel = ceil_div(std::max<int64_t>(k0 - t, 0), taps_);
    const int64_t end = ceil_div(std::max<int64_t>(k0 + k - t, 0), taps_);
    if constexpr (std::is_same_v<T, D>) {
      if (step == 1) {
        kernels_.copy_segments(segments.data(), static_cast<int>(segments.size()), width, end - channel,
                               image + channel * job_.image.channel_stride, job_.image.channel_stride,
                               packed + (channel * taps_ + t - k0) * width, taps_ * width);
        return;
      }
    }
    if constexpr (std::is_same_v<T, D>) {
      for (; channel < end; ++channel)
        copy_strided(segments, width, image + channel * job_.image.channel_stride, step,
                     packed + (channel * taps_ + t - k0) * width);
      return;
    }
    D row[kMostColumns];
    for (; channel < end; ++channel) {
      copy_strided(segments, width, image + channel * job_.image.channel_stride, step, row);
      Types<T, E, D>::place_row(level_, job_.dtype, width, row,
                                packed + (channel * taps_ + t - k0) * kernels_.columns * kParts);
    }
  }

  /// The result as seen by places: where place 0 is, and how far apart places are.
  Images result_images() const {
    Images target = job_.result;
    D* data = static_cast<D*>(target.data);
    for (int axis = 0; axis < 3; ++axis) {
      data += job_.result_start[axis] * target.strides[axis];
      target.strides[axis] *= job_.result_step[axis];
    }
    target.data = data;
    return target;
  }

  void result_places(const Places& places, int64_t lanes, std::vector<Segment>& runs) const {
    places.segments({job_.grid.size, {1, 1, 1}}, result_images(), job_.grid.size, {0, 0, 0}, 0, lanes, runs);
  }

  void write(int64_t group, const std::vector<Segment>& runs, int64_t first_row, int64_t rows, T* sums) {
    const Images target = result_images();
    Epilogue epilogue;
    epilogue.beta = job_.bias ? 1 : 0;
    Writer<E, D> writer(level_, job_.dtype, epilogue);
    for (int64_t i = 0; i < rows; ++i) {
      const int64_t channel = group * job_.rows + first_row + i;
      const D* bias = job_.bias ? static_cast<const D*>(job_.bias) + channel : nullptr;
      D* const to = static_cast<D*>(target.data) + channel * target.channel_stride;
      E* const row = reinterpret_cast<E*>(sums + i * lane_block_ * kParts);
      for (const Segment& run : runs)
        writer.write_row(run.length, row + run.lane, bias, 0, to + run.offset, target.strides[2]);
    }
  }

  static constexpr int kMostColumns = 64;

  const GatherJob& job_;
  const GemmLevel& level_;
  const GemmKernels<T>& kernels_;
  const int64_t taps_;
  const int64_t k_;
  const int64_t panels_;
  const int64_t lane_block_;  ///< in elements
};

/// grad_weight: rows are out_channels, columns are (ci, tap), k runs over the places (n, o).
template <class T, class E, class D>
class WeightGradient : Types<T, E, D> {
  using Types<T, E, D>::kParts;

 public:
  WeightGradient(Dtype dtype, const ConvolutionShape& shape, const std::vector<Tap>& taps,
                 const Images& input, const Images& grad_output, const Images& grad_weight)
      : dtype_(dtype),
        shape_(shape),
        taps_(taps),
        input_(input),
        grad_output_(grad_output),
        grad_weight_(grad_weight),
        grid_{shape.output, shape.stride},
        level_(level_in_use()),
        kernels_(level_.get(T{})),
        rows_(shape.out_channels / shape.groups),
        channels_(shape.in_channels / shape.groups),
        columns_(channels_ * static_cast<int64_t>(taps.size())) {}

  void run() {
    if (rows_ == 0 || columns_ == 0) return;
    // Wide blocks pack the other operand less often; enough of them keep every thread busy.
    const int64_t width = kernels_.columns / kParts;
    const int64_t panels = ceil_div(columns_, width);
    const int64_t wanted = ceil_div(4 * num_threads(), shape_.groups);
    const int64_t block = std::clamp<int64_t>(ceil_div(panels, wanted), 1, 8) * width;
    const int64_t blocks = ceil_div(columns_, block);
    const int64_t row_block = 16 * kernels_.rows;
    const int64_t row_blocks = ceil_div(rows_, row_block);
    parallel_for(shape_.groups * blocks * row_blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t column = i / row_blocks % blocks * block, row = i % row_blocks * row_block;
        multiply(i / (blocks * row_blocks), row, std::min(row_block, rows_ - row), column,
                 std::min(block, columns_ - column));
      }
    });
  }

 private:
  void multiply(int64_t group, int64_t row, int64_t rows, int64_t column, int64_t columns) {
    const int mr = kernels_.rows, nr = kernels_.columns;
    const int64_t places_in_all = shape_.batch * grid_.places();
    const int64_t row_panels = ceil_div(rows, mr), column_panels = ceil_div(columns * kParts, nr);
    const int64_t sums_stride = column_panels * nr;
    Scratch<T> a(row_panels * mr * kChunk), b(column_panels * nr * kChunk), sums(rows * sums_stride);
    Scratch<T> staged(std::max(mr, nr) * kChunk);
    Scratch<D> pixels(nr * kChunk);
    if (places_in_all == 0) std::fill_n(sums.data(), rows * sums_stride, T(0));
    constexpr int64_t kPlaces = kChunk / kParts;
    for (int64_t first = 0; first < places_in_all; first += kPlaces) {
      const int64_t count = std::min(kPlaces, places_in_all - first);
      const int64_t k = count * kParts;
      const Places places(grid_, first, count);
      pack_gradient(places, group, row, rows, count, staged.data(), a.data());
      pack_pixels(places, group, column, columns, count, pixels.data(), staged.data(), b.data());
      for (int64_t i = 0; i < row_panels; ++i)
        kernels_.multiply({.rows = static_cast<int>(std::min<int64_t>(mr, rows - i * mr)),
                           .columns = columns * kParts,
                           .k = k,
                           .a = a.data() + i * mr * k,
                           .a_row_stride = 1,
                           .a_k_stride = mr,
                           .b = b.data(),
                           .b_k_stride = nr,
                           .b_tile_stride = nr * k,
                           .c = sums.data() + i * mr * sums_stride,
                           .c_row_stride = sums_stride,
                           .accumulate = first > 0,
                           .near = true});
    }
    Writer<E, D> writer(level_, dtype_, Epilogue{});
    const auto taps = static_cast<int64_t>(taps_.size());
    bool adjacent = grad_weight_.channel_stride == taps;
    for (int64_t t = 0; t < taps; ++t) adjacent &= taps_[static_cast<size_t>(t)].weight_offset == t;
    for (int64_t i = 0; i < rows; ++i) {
      D* const target =
          static_cast<D*>(grad_weight_.data) + (group * rows_ + row + i) * grad_weight_.outer_stride;
      E* const from = reinterpret_cast<E*>(sums.data() + i * sums_stride);
      if (adjacent) {
        writer.write_row(columns, from, nullptr, 0, target + column, 1);
        continue;
      }
      for (int64_t j = 0; j < columns; ++j)
        writer.write_row(1, from + j, nullptr, 0,
                         target + (column + j) / taps * grad_weight_.channel_stride +
                             taps_[static_cast<size_t>((column + j) % taps)].weight_offset,
                         1);
    }
  }

  void pack_gradient(const Places& places, int64_t group, int64_t row, int64_t rows, int64_t count, T* staged,
                     T* packed) {
    const int mr = kernels_.rows;
    std::vector<Segment> runs;
    places.segments({grid_.size, {1, 1, 1}}, grad_output_, grid_.size, {0, 0, 0}, 0, static_cast<int>(count),
                    runs);
    for (int64_t i = 0; i < rows; i += mr) {
      for (const Segment& run : runs) {
        const Operand operand{
            static_cast<const char*>(grad_output_.data) +
                (run.offset + (group * rows_ + row + i) * grad_output_.channel_stride) * int64_t{sizeof(D)},
            grad_output_.channel_stride,
            grad_output_.strides[2],
            rows,
            dtype_,
            Types<T, E, D>::kFormOfA,
            false};
        pack_panel(level_, operand, 0, static_cast<int>(std::min<int64_t>(mr, rows - i)), mr, 0,
                   int64_t{run.length} * kParts, staged, packed + (i * count + run.lane * mr) * kParts);
      }
    }
  }

  /// A column's pixels lie along k: they are gathered as rows of `pixels` and packed transposed from there.
  void pack_pixels(const Places& places, int64_t group, int64_t column, int64_t columns, int64_t count,
                   D* pixels, T* staged, T* packed) {
    const int width = kernels_.columns / kParts;
    const auto taps = static_cast<int64_t>(taps_.size());
    const int64_t step = grid_.step[2] * input_.strides[2];
    std::vector<std::vector<Segment>> segments(taps_.size());
    for (size_t t = 0; t < taps_.size(); ++t)
      places.segments(grid_, input_, shape_.input, taps_[t].shift, 0, count, segments[t]);
    constexpr Form form = Types<T, E, D>::kComplex   ? Form::kComplexB
                          : Types<T, E, D>::kWidened ? Form::kWidened
                                                     : Form::kPlain;
    for (int64_t j = 0; j < columns; j += width) {
      const int lanes = static_cast<int>(std::min<int64_t>(width, columns - j));
      for (int lane = 0; lane < lanes; ++lane) {
        const int64_t index = column + j + lane;
        const D* source =
            static_cast<const D*>(input_.data) + (group * channels_ + index / taps) * input_.channel_stride;
        const auto& runs = segments[static_cast<size_t>(index % taps)];
        D* const to = pixels + lane * count;
        if (step == 1) {
          std::fill_n(to, count, D{});
          for (const Segment& run : runs) std::copy_n(source + run.offset, run.length, to + run.lane);
        } else {
          copy_strided(runs, static_cast<int>(count), source, step, to);
        }
      }
      const Operand operand{reinterpret_cast<const char*>(pixels), count, 1, lanes, dtype_, form, false};
      pack_panel(level_, operand, 0, lanes * kParts, kernels_.columns, 0, count * kParts, staged,
                 packed + j * count * kParts * kParts);
    }
  }

  const Dtype dtype_;
  const ConvolutionShape& shape_;
  const std::vector<Tap>& taps_;
  const Images &input_, &grad_output_, &grad_weight_;
  const Grid grid_;
  const GemmLevel& level_;
  const GemmKernels<T>& kernels_;
  const int64_t rows_;
  const int64_t channels_;
  const int64_t columns_;
};

template <class F>
void for_dtype(Dtype dtype, F&& run) {
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
    case kInt64:
      return run.template operator()<uint64_t, uint64_t, uint64_t>();
    default:
      raise(ErrorKind::kNotImplemented, "convolution: not defined for dtype ", dtype,
            "; convert the operands to a number type first");
  }
}

void gather(const GatherJob& job) {
  for_dtype(job.dtype, [&]<class T, class E, class D>() { GatherConvolution<T, E, D>(job).run(); });
}

/// Every kernel position in row-major order, with the shift r * dilation - padding.
std::vector<Tap> forward_taps(const ConvolutionShape& shape, const Images& weight) {
  std::vector<Tap> taps;
  Axes r;
  for (r[0] = 0; r[0] < shape.kernel[0]; ++r[0]) {
    for (r[1] = 0; r[1] < shape.kernel[1]; ++r[1]) {
      for (r[2] = 0; r[2] < shape.kernel[2]; ++r[2]) {
        Tap tap{0, {}};
        for (int axis = 0; axis < 3; ++axis) {
          tap.weight_offset += r[axis] * weight.strides[axis];
          tap.shift[axis] = r[axis] * shape.dilation[axis] - shape.padding[axis];
        }
        taps.push_back(tap);
      }
    }
  }
  return taps;
}

}  // namespace

void convolution(Dtype dtype, const ConvolutionShape& shape, const Images& input, const Images& weight,
                 const void* bias, const Images& output) {
  const int64_t rows = shape.out_channels / shape.groups;
  gather({dtype,
          shape.batch,
          shape.groups,
          rows,
          shape.in_channels / shape.groups,
          {shape.output, shape.stride},
          forward_taps(shape, weight),
          input,
          shape.input,
          weight.data,
          rows * weight.outer_stride,
          weight.outer_stride,
          weight.channel_stride,
          bias,
          output,
          {0, 0, 0},
          {1, 1, 1}});
}

void convolution_input_gradient(Dtype dtype, const ConvolutionShape& shape, const Images& grad_output,
                                const Images& weight, const void* bias, const Images& grad_input) {
  const std::vector<Tap> all = forward_taps(shape, weight);
  const int64_t channels = shape.out_channels / shape.groups;
  // Input coordinates i = start + stride * place: only taps with (start - shift) divisible by the stride
  // reach an output, at (start - shift) / stride + place.
  Axes start;
  for (start[0] = 0; start[0] < std::min(shape.stride[0], shape.input[0]); ++start[0]) {
    for (start[1] = 0; start[1] < std::min(shape.stride[1], shape.input[1]); ++start[1]) {
      for (start[2] = 0; start[2] < std::min(shape.stride[2], shape.input[2]); ++start[2]) {
        Grid grid{{}, {1, 1, 1}};
        for (int axis = 0; axis < 3; ++axis)
          grid.size[axis] = ceil_div(shape.input[axis] - start[axis], shape.stride[axis]);
        std::vector<Tap> taps;
        for (const Tap& tap : all) {
          Tap reached = tap;
          bool reaches = true;
          for (int axis = 0; axis < 3; ++axis) {
            const int64_t distance = start[axis] - tap.shift[axis];
            reaches &= distance % shape.stride[axis] == 0;
            reached.shift[axis] = distance / shape.stride[axis];
          }
          if (reaches) taps.push_back(reached);
        }
        gather({dtype, shape.batch, shape.groups, shape.in_channels / shape.groups, channels, grid,
                std::move(taps), grad_output, shape.output, weight.data, channels * weight.outer_stride,
                weight.channel_stride, weight.outer_stride, bias, grad_input, start, shape.stride});
      }
    }
  }
}

void convolution_weight_gradient(Dtype dtype, const ConvolutionShape& shape, const Images& input,
                                 const Images& grad_output, const Images& grad_weight) {
  const std::vector<Tap> taps = forward_taps(shape, grad_weight);
  for_dtype(dtype, [&]<class T, class E, class D>() {
    WeightGradient<T, E, D>(dtype, shape, taps, input, grad_output, grad_weight).run();
  });
}

}  // namespace lohe::backend
