#include "tensor/shape.h"

#include <numeric>
#include <sstream>

#include "lohe/error.h"

namespace lohe {

int64_t numel_of(std::span<const int64_t> sizes) {
  int64_t n = 1;
  bool empty = false;
  for (const int64_t s : sizes) {
    LOHE_CHECK(s >= 0, "Trying to create tensor with negative dimension ", s, ": ", to_string(sizes));
    empty |= s == 0;
  }
  if (empty) return 0;
  for (const int64_t s : sizes) {
    LOHE_CHECK(!__builtin_mul_overflow(n, s, &n), "the number of elements of a tensor of shape ",
               to_string(sizes), " does not fit in 63 bits");
  }
  return n;
}

Dims contiguous_strides(std::span<const int64_t> sizes) {
  Dims strides(sizes.size());
  int64_t step = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    strides[i] = step;
    step *= std::max<int64_t>(sizes[i], 1);
  }
  return strides;
}

Dims channels_last_strides(std::span<const int64_t> sizes) {
  Dims strides(sizes.size());
  int64_t step = 1;
  strides[1] = step;
  step *= std::max<int64_t>(sizes[1], 1);
  for (size_t i = sizes.size() - 1; i >= 2; --i) {
    strides[i] = step;
    step *= std::max<int64_t>(sizes[i], 1);
  }
  strides[0] = step;
  return strides;
}

bool is_contiguous(std::span<const int64_t> sizes, std::span<const int64_t> strides) {
  int64_t step = 1;
  for (size_t i = sizes.size(); i-- > 0;) {
    if (sizes[i] == 0) return true;
    if (sizes[i] != 1) {
      if (strides[i] != step) {
        for (size_t j = 0; j < i; ++j) {
          if (sizes[j] == 0) return true;
        }
        return false;
      }
      step *= sizes[i];
    }
  }
  return true;
}

bool is_channels_last(std::span<const int64_t> sizes, std::span<const int64_t> strides) {
  if (sizes.size() != 4 && sizes.size() != 5) return false;
  const Dims expected = channels_last_strides(sizes);
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] != 1 && strides[i] != expected[i]) return false;
  }
  return true;
}

namespace {

/// Dims of size > 1, smallest stride first.
Dims by_stride(std::span<const int64_t> sizes, std::span<const int64_t> strides) {
  Dims order;
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (sizes[i] > 1) order.push_back(static_cast<int64_t>(i));
  }
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
    return strides[static_cast<size_t>(a)] < strides[static_cast<size_t>(b)];
  });
  return order;
}

}  // namespace

bool is_non_overlapping_and_dense(std::span<const int64_t> sizes, std::span<const int64_t> strides) {
  int64_t step = 1;
  for (const int64_t s : sizes) {
    if (s == 0) return true;
  }
  for (const int64_t d : by_stride(sizes, strides)) {
    if (strides[static_cast<size_t>(d)] != step) return false;
    step *= sizes[static_cast<size_t>(d)];
  }
  return true;
}

bool may_overlap(std::span<const int64_t> sizes, std::span<const int64_t> strides) {
  for (const int64_t s : sizes) {
    if (s == 0) return false;
  }
  int64_t reach = 0;  // largest index that the faster dims name
  for (const int64_t d : by_stride(sizes, strides)) {
    const int64_t stride = strides[static_cast<size_t>(d)];
    if (stride <= reach) return true;
    reach += stride * (sizes[static_cast<size_t>(d)] - 1);
  }
  return false;
}

Dims broadcast_shapes(std::span<const int64_t> a, std::span<const int64_t> b) {
  const size_t rank = std::max(a.size(), b.size());
  Dims result(rank);
  for (size_t i = 0; i < rank; ++i) {
    const int64_t x = i < a.size() ? a[a.size() - 1 - i] : 1;
    const int64_t y = i < b.size() ? b[b.size() - 1 - i] : 1;
    LOHE_CHECK(x == y || x == 1 || y == 1, "The size of tensor a (", x, ") must match the size of tensor b (",
               y, ") at non-singleton dimension ", rank - 1 - i, " (shapes ", to_string(a), " and ",
               to_string(b), ")");
    result[rank - 1 - i] = x == 1 ? y : x;
  }
  return result;
}

Dims broadcast_strides(std::span<const int64_t> sizes, std::span<const int64_t> strides,
                       std::span<const int64_t> target) {
  Dims result(target.size());
  const size_t lead = target.size() - sizes.size();
  for (size_t i = 0; i < sizes.size(); ++i) {
    result[lead + i] = sizes[i] == 1 && target[lead + i] != 1 ? 0 : strides[i];
  }
  return result;
}

int64_t wrap_dim(int64_t dim, int64_t rank) {
  const int64_t n = std::max<int64_t>(rank, 1);
  LOHE_CHECK_INDEX(dim >= -n && dim < n, "Dimension out of range (expected to be in range of [", -n, ", ",
                   n - 1, "], but got ", dim, ")");
  return dim < 0 ? dim + n : dim;
}

uint64_t dim_mask(std::span<const int64_t> dims, int64_t rank, bool empty_is_all) {
  LOHE_CHECK(rank <= 64, "only tensors with up to 64 dims are supported, got ", rank);
  if (dims.empty() && empty_is_all) return rank >= 64 ? ~uint64_t{0} : (uint64_t{1} << rank) - 1;
  uint64_t mask = 0;
  for (const int64_t d : dims) {
    const uint64_t bit = uint64_t{1} << wrap_dim(d, rank);
    LOHE_CHECK((mask & bit) == 0, "dim ", wrap_dim(d, rank), " appears multiple times in the list of dims");
    mask |= bit;
  }
  return mask;
}

std::optional<Dims> view_strides(std::span<const int64_t> sizes, std::span<const int64_t> strides,
                                 std::span<const int64_t> target) {
  const int64_t numel = numel_of(sizes);
  Dims result(target.size());
  if (numel == 0) {
    // Nothing to address: keep the strides where the shape is unchanged, else row-major ones.
    if (std::equal(sizes.begin(), sizes.end(), target.begin(), target.end())) return Dims(strides);
    return contiguous_strides(target);
  }
  auto at = static_cast<int64_t>(target.size()) - 1;
  int64_t base_stride = sizes.empty() ? 1 : strides.back();
  int64_t chunk = 1, viewed = 1;
  if (sizes.empty()) {
    for (auto& s : result) s = 1;
    return result;
  }
  for (size_t i = sizes.size(); i-- > 0;) {
    chunk *= sizes[i];
    // A chunk ends where the next outer dim does not continue it.
    if (i == 0 || (sizes[i - 1] != 1 && strides[i - 1] != chunk * base_stride)) {
      while (at >= 0 && (viewed < chunk || target[static_cast<size_t>(at)] == 1)) {
        result[static_cast<size_t>(at)] = viewed * base_stride;
        viewed *= target[static_cast<size_t>(at)];
        --at;
      }
      if (viewed != chunk) return std::nullopt;
      if (i > 0) {
        base_stride = strides[i - 1];
        chunk = viewed = 1;
      }
    }
  }
  if (at != -1) return std::nullopt;
  return result;
}

Dims infer_size(std::span<const int64_t> shape, int64_t numel) {
  Dims result(shape);
  int64_t known = 1, unknown = -1;
  for (size_t i = 0; i < shape.size(); ++i) {
    if (shape[i] == -1) {
      LOHE_CHECK(unknown < 0, "only one dimension can be inferred, got shape ", to_string(shape));
      unknown = static_cast<int64_t>(i);
    } else {
      LOHE_CHECK(shape[i] >= 0, "invalid shape dimension ", shape[i], " in ", to_string(shape));
      known *= shape[i];
    }
  }
  if (unknown >= 0) {
    LOHE_CHECK(known != 0 || numel != 0, "cannot reshape tensor of 0 elements into shape ", to_string(shape),
               " because the unspecified dimension size -1 can be any value and is ambiguous");
    if (known != 0 && numel % known == 0) {
      result[static_cast<size_t>(unknown)] = numel / known;
      return result;
    }
  }
  LOHE_CHECK(unknown < 0 && known == numel, "shape '", to_string(shape), "' is invalid for input of size ",
             numel);
  return result;
}

std::string to_string(std::span<const int64_t> sizes) {
  std::ostringstream out;
  out << '[';
  for (size_t i = 0; i < sizes.size(); ++i) out << (i ? ", " : "") << sizes[i];
  out << ']';
  return out.str();
}

Dims elementwise_strides(std::span<const int64_t> sizes, std::span<const std::span<const int64_t>> operands) {
  const auto rank = static_cast<int64_t>(sizes.size());
  // Fastest dim first. Insertion sort with an undecided answer (0): comparing goes on past it, as the order
  // is partial.
  Dims perm(static_cast<size_t>(rank));
  for (int64_t i = 0; i < rank; ++i) perm[static_cast<size_t>(i)] = rank - 1 - i;
  const auto compare = [&](int64_t a, int64_t b) {  // 1: a must come after b
    for (const auto& strides : operands) {
      const int64_t x = strides[static_cast<size_t>(a)], y = strides[static_cast<size_t>(b)];
      if (x == 0 || y == 0) continue;
      if (x < y) return -1;
      if (x > y) return 1;
      if (sizes[static_cast<size_t>(a)] > sizes[static_cast<size_t>(b)]) return 1;
    }
    return 0;
  };
  for (int64_t i = 1; i < rank; ++i) {
    int64_t at = i;
    for (int64_t j = i - 1; j >= 0; --j) {
      const int order = compare(perm[static_cast<size_t>(j)], perm[static_cast<size_t>(at)]);
      if (order > 0) {
        std::swap(perm[static_cast<size_t>(j)], perm[static_cast<size_t>(at)]);
        at = j;
      } else if (order < 0) {
        break;
      }
    }
  }
  Dims strides(static_cast<size_t>(rank));
  int64_t step = 1;
  for (const int64_t d : perm) {
    strides[static_cast<size_t>(d)] = step;
    step *= std::max<int64_t>(sizes[static_cast<size_t>(d)], 1);
  }
  return strides;
}

}  // namespace lohe
