#include "lohe/data/samplers.h"

#include "lohe/creation.h"

namespace lohe::data::samplers {
namespace {

/// The numbers from `from` on, at most `count` below `end`.
std::pair<size_t, size_t> part(size_t from, size_t count, size_t end) {
  return {from, std::min(end, from + count)};
}

}  // namespace

RandomSampler::RandomSampler(int64_t size) : order_(static_cast<size_t>(size)) { reset(); }

void RandomSampler::reset(std::optional<size_t> new_size) {
  const auto size = static_cast<int64_t>(new_size.value_or(order_.size()));
  const Tensor drawn = randperm(size, kInt64);
  const auto* first = drawn.data_ptr<int64_t>();
  order_.assign(first, first + size);
  index_ = 0;
}

std::optional<std::vector<size_t>> RandomSampler::next(size_t batch_size) {
  const auto [begin, end] = part(index_, batch_size, order_.size());
  if (begin == end) return std::nullopt;
  index_ = end;
  return std::vector<size_t>(order_.begin() + static_cast<std::ptrdiff_t>(begin),
                             order_.begin() + static_cast<std::ptrdiff_t>(end));
}

void RandomSampler::save(serialize::OutputArchive& archive) const {
  archive.write("index", IValue(static_cast<int64_t>(index_)));
  archive.write("indices", lohe::tensor(order_, kInt64), true);
}

void RandomSampler::load(serialize::InputArchive& archive) {
  Tensor order;
  IValue index;
  archive.read("indices", order, true);
  archive.read("index", index);
  order = order.contiguous();
  LOHE_CHECK_VALUE(order.dim() == 1 && index.toInt() >= 0 && index.toInt() <= order.numel(),
                   "RandomSampler: a saved place ", index.toInt(), " does not lie in an order of ",
                   order.numel());
  const auto* first = order.data_ptr<int64_t>();
  order_.assign(first, first + order.numel());
  index_ = static_cast<size_t>(index.toInt());
}

void SequentialSampler::reset(std::optional<size_t> new_size) {
  size_ = new_size.value_or(size_);
  index_ = 0;
}

std::optional<std::vector<size_t>> SequentialSampler::next(size_t batch_size) {
  const auto [begin, end] = part(index_, batch_size, size_);
  if (begin == end) return std::nullopt;
  index_ = end;
  std::vector<size_t> list;
  for (size_t i = begin; i < end; ++i) list.push_back(i);
  return list;
}

void SequentialSampler::save(serialize::OutputArchive& archive) const {
  archive.write("index", IValue(static_cast<int64_t>(index_)));
}

void SequentialSampler::load(serialize::InputArchive& archive) {
  IValue index;
  archive.read("index", index);
  LOHE_CHECK_VALUE(index.toInt() >= 0 && static_cast<size_t>(index.toInt()) <= size_,
                   "SequentialSampler: a saved place ", index.toInt(), " does not lie in ", size_,
                   " examples");
  index_ = static_cast<size_t>(index.toInt());
}

}  // namespace lohe::data::samplers
