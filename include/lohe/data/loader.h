#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <thread>

#include "lohe/data/samplers.h"
#include "lohe/data/transforms.h"

/// Batches of a data set, prepared ahead by threads.
namespace lohe::data {

struct DataLoaderOptions {
  DataLoaderOptions() = default;
  DataLoaderOptions(size_t batch_size) : batch_size_(batch_size) {}
  LOHE_ARG(size_t, batch_size) = 1;
  /// Threads, each with a copy of the data set; 0 prepares a batch when it is asked for.
  LOHE_ARG(size_t, workers) = 0;
  /// Batches prepared ahead; twice as many as workers unless given.
  LOHE_ARG(std::optional<size_t>, max_jobs);
  /// Whether batches come in the sampler's order.
  LOHE_ARG(bool, enforce_ordering) = true;
  /// Whether a last batch of fewer examples is left out.
  LOHE_ARG(bool, drop_last) = false;
};

/// `for (auto& batch : *loader)` is a pass over the data set. One pass goes on at a time. An error of the
/// data set comes out where its batch would.
template <class Dataset, class Sampler>
class DataLoader {
 public:
  using BatchType = typename Dataset::BatchType;

  DataLoader(Dataset dataset, Sampler sampler, DataLoaderOptions options)
      : dataset_(std::move(dataset)), sampler_(std::move(sampler)), options_(std::move(options)) {
    LOHE_CHECK_VALUE(options_.batch_size() > 0, "DataLoader: batch_size must be positive");
    for (size_t i = 0; i < options_.workers(); ++i) threads_.emplace_back([this] { work(); });
  }
  DataLoader(const DataLoader&) = delete;
  DataLoader& operator=(const DataLoader&) = delete;
  ~DataLoader() {
    {
      const std::lock_guard lock(mutex_);
      stopped_ = true;
    }
    changed_.notify_all();
    for (std::thread& t : threads_) t.join();
  }

  /// A place in a pass.
  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = BatchType;
    using difference_type = std::ptrdiff_t;
    using pointer = BatchType*;
    using reference = BatchType&;
    explicit Iterator(DataLoader* loader) : loader_(loader) {
      if (loader_ != nullptr) ++*this;
    }
    BatchType& operator*() { return *batch_; }
    BatchType* operator->() { return &*batch_; }
    Iterator& operator++() {
      batch_ = loader_->next();
      if (!batch_.has_value()) loader_ = nullptr;
      return *this;
    }
    bool operator==(const Iterator& other) const { return loader_ == other.loader_; }

   private:
    DataLoader* loader_;
    std::optional<BatchType> batch_;
  };
  /// Begins a pass; what is left of an earlier one is dropped.
  Iterator begin() {
    drain();
    sampler_.reset();
    exhausted_ = false;
    return Iterator(this);
  }
  Iterator end() { return Iterator(nullptr); }
  const DataLoaderOptions& options() const { return options_; }
  Sampler& sampler() { return sampler_; }

 private:
  struct Job {
    size_t number;
    typename Sampler::BatchRequestType request;
  };
  struct Outcome {
    std::optional<BatchType> batch;
    std::exception_ptr error;
  };

  std::optional<typename Sampler::BatchRequestType> request() {
    if (exhausted_) return std::nullopt;
    auto made = sampler_.next(options_.batch_size());
    if (!made.has_value() || (options_.drop_last() && made->size() < options_.batch_size())) {
      exhausted_ = true;
      return std::nullopt;
    }
    return made;
  }

  std::optional<BatchType> next() {
    if (options_.workers() == 0) {
      auto wanted = request();
      return wanted.has_value() ? std::optional<BatchType>(dataset_.get_batch(*wanted)) : std::nullopt;
    }
    std::unique_lock lock(mutex_);
    const size_t ahead = std::max<size_t>(1, options_.max_jobs().value_or(2 * options_.workers()));
    while (given_ - taken_ < ahead) {
      auto wanted = request();
      if (!wanted.has_value()) break;
      jobs_.push_back({given_++, std::move(*wanted)});
    }
    if (given_ == taken_) return std::nullopt;
    changed_.notify_all();
    changed_.wait(lock,
                  [&] { return options_.enforce_ordering() ? done_.contains(taken_) : !done_.empty(); });
    auto place = options_.enforce_ordering() ? done_.find(taken_) : done_.begin();
    Outcome outcome = std::move(place->second);
    done_.erase(place);
    ++taken_;
    lock.unlock();
    if (outcome.error) std::rethrow_exception(outcome.error);
    return std::move(outcome.batch);
  }

  /// Waits for what is under way and forgets it.
  void drain() {
    std::unique_lock lock(mutex_);
    taken_ += jobs_.size();
    jobs_.clear();
    changed_.wait(lock, [&] { return running_ == 0; });
    done_.clear();
    taken_ = given_;
  }

  void work() {
    Dataset own = dataset_;
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [&] { return stopped_ || !jobs_.empty(); });
      if (stopped_) return;
      Job job = std::move(jobs_.front());
      jobs_.pop_front();
      ++running_;
      lock.unlock();
      Outcome outcome;
      try {
        outcome.batch = own.get_batch(job.request);
      } catch (...) {
        outcome.error = std::current_exception();
      }
      lock.lock();
      --running_;
      done_.emplace(job.number, std::move(outcome));
      changed_.notify_all();
    }
  }

  Dataset dataset_;
  Sampler sampler_;
  DataLoaderOptions options_;
  bool exhausted_ = true;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Job> jobs_;
  std::map<size_t, Outcome> done_;
  size_t given_ = 0, taken_ = 0, running_ = 0;
  bool stopped_ = false;
  std::vector<std::thread> threads_;
};

/// A loader with a sampler that is made for the data set's size, or one that is given.
template <class Sampler = samplers::RandomSampler, class Dataset>
std::unique_ptr<DataLoader<Dataset, Sampler>> make_data_loader(Dataset dataset,
                                                               DataLoaderOptions options = {}) {
  const std::optional<size_t> size = dataset.size();
  LOHE_CHECK(size.has_value(), "Expected the dataset to be sized in order to construct the Sampler");
  return std::make_unique<DataLoader<Dataset, Sampler>>(std::move(dataset), Sampler(*size),
                                                        std::move(options));
}
template <class Dataset, class Sampler>
std::unique_ptr<DataLoader<Dataset, Sampler>> make_data_loader(Dataset dataset, Sampler sampler,
                                                               DataLoaderOptions options)
  requires requires(Sampler s) { s.next(1); }
{
  return std::make_unique<DataLoader<Dataset, Sampler>>(std::move(dataset), std::move(sampler),
                                                        std::move(options));
}

}  // namespace lohe::data
