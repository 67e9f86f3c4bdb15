#pragma once

#include <optional>
#include <vector>

#include "lohe/serialize.h"

/// In which order the examples of a data set are taken.
namespace lohe::data::samplers {

template <class BatchRequest = std::vector<size_t>>
class Sampler {
 public:
  using BatchRequestType = BatchRequest;
  virtual ~Sampler() = default;
  /// Begins another pass, over `new_size` examples if given.
  virtual void reset(std::optional<size_t> new_size = std::nullopt) = 0;
  /// The numbers of the next examples, fewer at the end, then nothing.
  virtual std::optional<BatchRequest> next(size_t batch_size) = 0;
  virtual void save(serialize::OutputArchive& archive) const = 0;
  virtual void load(serialize::InputArchive& archive) = 0;
};

/// Every example once, in an order that the default generator draws at each reset.
class LOHE_API RandomSampler : public Sampler<> {
 public:
  explicit RandomSampler(int64_t size);
  void reset(std::optional<size_t> new_size = std::nullopt) override;
  std::optional<std::vector<size_t>> next(size_t batch_size) override;
  /// Order and place, so that a pass goes on where it was.
  void save(serialize::OutputArchive& archive) const override;
  void load(serialize::InputArchive& archive) override;
  size_t index() const { return index_; }

 private:
  std::vector<int64_t> order_;
  size_t index_ = 0;
};

/// Every example once, in order.
class LOHE_API SequentialSampler : public Sampler<> {
 public:
  explicit SequentialSampler(size_t size) : size_(size) {}
  void reset(std::optional<size_t> new_size = std::nullopt) override;
  std::optional<std::vector<size_t>> next(size_t batch_size) override;
  void save(serialize::OutputArchive& archive) const override;
  void load(serialize::InputArchive& archive) override;
  size_t index() const { return index_; }

 private:
  size_t size_, index_ = 0;
};

}  // namespace lohe::data::samplers
