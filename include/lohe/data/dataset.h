#pragma once

#include <optional>
#include <utility>
#include <vector>

#include "lohe/functions.h"

/// Data sets: examples by their number, alone or in batches.
namespace lohe::data {

namespace example {
struct NoTarget {};
}  // namespace example

/// One example, or a batch of them.
template <class Data = Tensor, class Target = Tensor>
struct Example {
  using DataType = Data;
  using TargetType = Target;
  Example() = default;
  Example(Data data, Target target) : data(std::move(data)), target(std::move(target)) {}
  Data data;
  Target target;
};
template <class Data>
struct Example<Data, example::NoTarget> {
  using DataType = Data;
  using TargetType = example::NoTarget;
  Example() = default;
  Example(Data data) : data(std::move(data)) {}
  operator const Data&() const { return data; }
  Data data;
};
using TensorExample = Example<Tensor, example::NoTarget>;

namespace datasets {

template <class Source, class AppliedTransform>
class MapDataset;

/// Gives a batch for a request, usually the numbers of its examples. `Self` is the class itself.
template <class Self, class Batch, class Request = ArrayRef<size_t>>
class BatchDataset {
 public:
  using SelfType = Self;
  using BatchType = Batch;
  using BatchRequestType = Request;
  virtual ~BatchDataset() = default;
  virtual Batch get_batch(Request request) = 0;
  /// How many examples there are.
  virtual std::optional<size_t> size() const = 0;
  /// This data set, with a transform applied to every batch.
  template <class Transform>
  MapDataset<Self, Transform> map(Transform transform) & {
    return {static_cast<Self&>(*this), std::move(transform)};
  }
  template <class Transform>
  MapDataset<Self, Transform> map(Transform transform) && {
    return {std::move(static_cast<Self&>(*this)), std::move(transform)};
  }
};

/// Gives one example for a number below size().
template <class Self, class SingleExample = Example<>>
class Dataset : public BatchDataset<Self, std::vector<SingleExample>> {
 public:
  using ExampleType = SingleExample;
  virtual ExampleType get(size_t index) = 0;
  std::vector<ExampleType> get_batch(ArrayRef<size_t> indices) override {
    std::vector<ExampleType> batch;
    batch.reserve(indices.size());
    for (const size_t i : indices) batch.push_back(get(i));
    return batch;
  }
};

/// A data set with a transform applied to its batches.
template <class Source, class AppliedTransform>
class MapDataset
    : public BatchDataset<MapDataset<Source, AppliedTransform>, typename AppliedTransform::OutputBatchType,
                          typename Source::BatchRequestType> {
 public:
  using DatasetType = Source;
  using TransformType = AppliedTransform;
  MapDataset(Source source, AppliedTransform transform)
      : source_(std::move(source)), transform_(std::move(transform)) {}
  typename AppliedTransform::OutputBatchType get_batch(typename Source::BatchRequestType request) override {
    return transform_.apply_batch(source_.get_batch(std::move(request)));
  }
  std::optional<size_t> size() const override { return source_.size(); }
  const Source& dataset() const { return source_; }
  const AppliedTransform& transform() const { return transform_; }

 private:
  Source source_;
  AppliedTransform transform_;
};

/// The rows of a tensor.
class TensorDataset : public Dataset<TensorDataset, TensorExample> {
 public:
  explicit TensorDataset(Tensor tensor) : tensor_(std::move(tensor)) {}
  explicit TensorDataset(const std::vector<Tensor>& tensors) : tensor_(stack(tensors)) {}
  TensorExample get(size_t index) override { return tensor_[static_cast<int64_t>(index)]; }
  std::optional<size_t> size() const override { return static_cast<size_t>(tensor_.size(0)); }

 private:
  Tensor tensor_;
};

/// Handwritten digits in the files of the MNIST database (LeCun et al., 1998), which a folder holds unpacked:
/// images (1, 28, 28) of float32 from 0 to 1, and int64 labels.
class LOHE_API MNIST : public Dataset<MNIST> {
 public:
  enum class Mode { kTrain, kTest };
  /// @throws Error(kIo) for a file that cannot be read, RuntimeError for one that is not of the format.
  explicit MNIST(const std::string& root, Mode mode = Mode::kTrain);
  Example<> get(size_t index) override;
  std::optional<size_t> size() const override { return static_cast<size_t>(images_.size(0)); }
  bool is_train() const { return train_; }
  const Tensor& images() const { return images_; }
  const Tensor& targets() const { return targets_; }

 private:
  Tensor images_, targets_;
  bool train_;
};

}  // namespace datasets
}  // namespace lohe::data
