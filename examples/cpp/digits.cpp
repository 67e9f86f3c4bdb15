// Trains a convolutional network on handwritten digits, as examples/digits_cnn.py does.
//
//   digits --data DIRECTORY --out DIRECTORY [--steps N] [--quick] [--fresh] [--checkpoint-every N] [--die-at
//   N]
//
// DIRECTORY holds train_images.npy, train_labels.npy, test_images.npy and test_labels.npy. Killed at any
// moment and started again, it goes on from its last checkpoint and ends with the losses and weights of a run
// that was left alone.

#ifdef DIGITS_WITH_LIBTORCH
#include <torch/torch.h>
namespace lohe = torch;
#else
#include <lohe/lohe.h>
#endif

#include <csignal>
#include <cstdlib>
#include <iostream>
#include <numbers>
#include <random>
#include <string_view>

#include "npy.h"
#include "run.h"

namespace nn = lohe::nn;
namespace F = lohe::nn::functional;
using lohe::Tensor;
namespace fs = std::filesystem;

namespace {

constexpr int64_t kBatch = 64, kChannels = 32, kSeed = 1;
constexpr double kRate = 3e-3;

/// Images (n, 1, 8, 8) with values 0 to 1, to logits (n, 10).
struct DigitsNet : nn::Module {
  explicit DigitsNet(int64_t channels)
      : features(nn::Conv2d(nn::Conv2dOptions(1, channels, 3).padding(1)), nn::BatchNorm2d(channels),
                 nn::ReLU(), nn::Conv2d(nn::Conv2dOptions(channels, channels, 3).padding(1)),
                 nn::BatchNorm2d(channels), nn::ReLU(), nn::MaxPool2d(2),
                 nn::Conv2d(nn::Conv2dOptions(channels, 2 * channels, 3).padding(1)),
                 nn::BatchNorm2d(2 * channels), nn::ReLU(), nn::MaxPool2d(2)),
        dropout(0.25),
        classify(2 * channels * 2 * 2, 10) {
    register_module("features", features);
    register_module("dropout", dropout);
    register_module("classify", classify);
  }

  Tensor forward(const Tensor& images) { return classify(dropout(features->forward(images).flatten(1))); }

  nn::Sequential features;
  nn::Dropout dropout;
  nn::Linear classify;
};

struct Options {
  fs::path data, out;
  int64_t steps = 0, checkpoint_every = 100, die_at = -1;
  bool fresh = false;
};

Options parse(int argc, char** argv) {
  Options options;
  bool quick = false;
  for (int i = 1; i < argc; ++i) {
    const std::string_view word = argv[i];
    const auto value = [&]() -> std::string {
      if (++i == argc) throw std::invalid_argument(std::string(word) + " needs a value");
      return argv[i];
    };
    const auto count = [&] {
      const std::string text = value();
      size_t used = 0;
      const int64_t n = std::stoll(text, &used);
      if (used != text.size() || n < 1) {
        throw std::invalid_argument(std::string(word) + " got " + text + ", expected a positive number");
      }
      return n;
    };
    if (word == "--data") {
      options.data = value();
    } else if (word == "--out") {
      options.out = value();
    } else if (word == "--steps") {
      options.steps = count();
    } else if (word == "--checkpoint-every") {
      options.checkpoint_every = count();
    } else if (word == "--die-at") {
      options.die_at = count();
    } else if (word == "--quick") {
      quick = true;
    } else if (word == "--fresh") {
      options.fresh = true;
    } else {
      throw std::invalid_argument(
          "unknown option " + std::string(word) +
          "; there are --data --out --steps --checkpoint-every --die-at --quick --fresh");
    }
  }
  if (options.data.empty() || options.out.empty()) throw std::invalid_argument("--data and --out are needed");
  if (options.steps == 0) options.steps = quick ? 100 : 900;
  return options;
}

struct Split {
  Tensor images, labels;
};

Split load(const fs::path& folder, const std::string& name) {
  npy::Array<float> images = npy::read<float>(folder / (name + "_images.npy"));
  npy::Array<int64_t> labels = npy::read<int64_t>(folder / (name + "_labels.npy"));
  if (images.shape.size() != 4 || labels.shape != std::vector<int64_t>{images.shape[0]}) {
    throw std::runtime_error(name + ": expected images (n, 1, 8, 8) and labels (n)");
  }
  return {lohe::from_blob(images.values.data(), images.shape, lohe::kFloat32).clone(),
          lohe::from_blob(labels.values.data(), labels.shape, lohe::kInt64).clone()};
}

/// The samples of batch `step`: epochs are permutations drawn from the epoch's number alone, so that the
/// position in the data is the step. The bounded draws are made here because the standard leaves its
/// distributions open.
std::vector<int64_t> samples_of(int64_t step, int64_t samples) {
  const int64_t per_epoch = samples / kBatch;
  std::mt19937_64 random(static_cast<uint64_t>(kSeed + step / per_epoch));
  std::vector<int64_t> order(static_cast<size_t>(samples));
  for (size_t i = 0; i < order.size(); ++i) {
    const size_t j = random() % (i + 1);
    order[i] = order[j];
    order[j] = static_cast<int64_t>(i);
  }
  const auto first = order.begin() + step % per_epoch * kBatch;
  return {first, first + kBatch};
}

/// The batch moved by -1, 0 or 1 pixel in either direction, as hands do.
Tensor shifted(const Tensor& images) {
  const Tensor offset = lohe::randint(0, 3, {2}, lohe::kInt64);
  return F::pad(images, F::PadFuncOptions({1, 1, 1, 1}))
      .narrow(2, offset[0].item<int64_t>(), 8)
      .narrow(3, offset[1].item<int64_t>(), 8);
}

/// Mean cross-entropy in nats, and the share of images whose most likely class is right.
std::pair<double, double> evaluate(DigitsNet& model, const Split& test) {
  const lohe::NoGradGuard no_grad;
  model.eval();
  const Tensor logits = model.forward(test.images);
  model.train();
  return {F::cross_entropy(logits, test.labels).item<double>(),
          logits.argmax(1).eq(test.labels).to(lohe::kFloat32).mean().item<double>()};
}

#ifdef DIGITS_WITH_LIBTORCH
Tensor random_state() { return at::detail::getDefaultCPUGenerator().get_state(); }
void set_random_state(const Tensor& state) {
  at::Generator(at::detail::getDefaultCPUGenerator()).set_state(state);
}
#else
Tensor random_state() { return lohe::get_rng_state(); }
void set_random_state(const Tensor& state) { lohe::set_rng_state(state); }
#endif

/// A run and all that changes from step to step.
struct Training {
  DigitsNet model{kChannels};
  lohe::optim::AdamW optimizer{model.parameters(), lohe::optim::AdamWOptions(kRate).weight_decay(1e-2)};
  int64_t step = 0;
  std::vector<float> losses;
  std::vector<std::pair<int64_t, double>> validation;
  run::Clock clock;

  static Tensor configuration(int64_t steps) {
    return lohe::tensor(std::vector<int64_t>{steps, kBatch, kChannels, kSeed});
  }

  void save(const fs::path& path, int64_t steps) {
    lohe::serialize::OutputArchive archive, model_archive, optimizer_archive;
    model.save(model_archive);
    optimizer.save(optimizer_archive);
    archive.write("model", model_archive);
    archive.write("optimizer", optimizer_archive);
    archive.write("configuration", configuration(steps), /*is_buffer=*/true);
    archive.write("losses", lohe::tensor(losses), true);
    std::vector<double> pairs;
    for (const auto& [at, loss] : validation) pairs.insert(pairs.end(), {static_cast<double>(at), loss});
    archive.write("validation", lohe::tensor(pairs, lohe::kFloat64), true);
    archive.write("seconds", lohe::tensor(std::vector<double>{clock.seconds}, lohe::kFloat64), true);
    archive.write("random", random_state(), true);
    run::write_whole(path, [&](const fs::path& temporary) { archive.save_to(temporary.string()); });
  }

  /// Goes on from `path`, unless that run came to its end. @throws std::runtime_error where it is of another
  /// run.
  void resume(const fs::path& path, int64_t steps) {
    lohe::serialize::InputArchive archive, model_archive, optimizer_archive;
    archive.load_from(path.string());
    const auto read = [&](const std::string& name) {
      Tensor value;
      archive.read(name, value, /*is_buffer=*/true);
      return value;
    };
    if (!lohe::equal(read("configuration"), configuration(steps))) {
      throw std::runtime_error(path.string() + " is of a run with other settings; --fresh starts over");
    }
    const Tensor done = read("losses");
    if (done.numel() >= steps) return;
    archive.read("model", model_archive);
    archive.read("optimizer", optimizer_archive);
    model.load(model_archive);
    optimizer.load(optimizer_archive);
    step = done.numel();
    losses.assign(done.data_ptr<float>(), done.data_ptr<float>() + step);
    const Tensor pairs = read("validation");
    for (int64_t i = 0; i < pairs.numel(); i += 2) {
      validation.emplace_back(pairs[i].item<int64_t>(), pairs[i + 1].item<double>());
    }
    clock.seconds = read("seconds")[0].item<double>();
    set_random_state(read("random"));
    std::cerr << "digits_cpp: going on after step " << step << " of " << steps << "\n";
  }

  /// FNV-1a over the bytes of all parameters and buffers: two runs with one fingerprint have the same bits.
  std::string fingerprint() {
    uint64_t hash = 14695981039346656037u;
    const auto add = [&](const Tensor& tensor) {
      const Tensor whole = tensor.detach().contiguous();
      const auto* bytes = static_cast<const unsigned char*>(whole.data_ptr());
      for (size_t i = 0; i < whole.nbytes(); ++i) hash = (hash ^ bytes[i]) * 1099511628211u;
    };
    for (const Tensor& parameter : model.parameters()) add(parameter);
    for (const Tensor& buffer : model.buffers()) add(buffer);
    char text[17];
    std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
    return text;
  }

  void write_result(const fs::path& path, double accuracy, int64_t peak, int64_t steps) {
    run::write_whole(path, [&](const fs::path& temporary) {
      std::ofstream out(temporary);
      out.precision(9);  // enough to give every float32 back
#ifdef DIGITS_WITH_LIBTORCH
      const char* framework = "torch";
#else
      const char* framework = "lohe";
#endif
      out << "{\"program\": \"digits_cpp\", \"framework\": \"" << framework
          << "\", \"version\": \"" DIGITS_VERSION << "\", \"threads\": " << lohe::get_num_threads()
          << ", \"unit\": \"images\", \"per_second\": " << static_cast<double>(kBatch * steps) / clock.seconds
          << ", \"seconds\": " << clock.seconds << ", \"peak_bytes\": " << peak
          << ", \"quality\": {\"test accuracy\": " << accuracy << "}, \"fingerprint\": \"" << fingerprint()
          << "\", \"losses\": [";
      for (size_t i = 0; i < losses.size(); ++i) out << (i == 0 ? "" : ", ") << losses[i];
      out << "], \"validation\": [";
      for (size_t i = 0; i < validation.size(); ++i) {
        out << (i == 0 ? "[" : ", [") << validation[i].first << ", " << validation[i].second << "]";
      }
      out << "]}\n";
      if (!out.flush()) throw std::runtime_error(temporary.string() + ": could not be written");
    });
  }
};

void train(const Options& options) {
  const int64_t memory = run::status_bytes("VmRSS");
  lohe::manual_seed(kSeed);
  const Split train = load(options.data, "train"), test = load(options.data, "test");
  fs::create_directories(options.out);
  const fs::path checkpoint = options.out / "checkpoint.pt";
  Training training;
  if (fs::exists(checkpoint) && !options.fresh) training.resume(checkpoint, options.steps);

  run::Progress progress("digits_cpp", training.step, options.steps);
  while (training.step < options.steps) {
    training.clock.start();
    // The cosine schedule is a function of the step.
    const double turn =
        std::numbers::pi * static_cast<double>(training.step) / static_cast<double>(options.steps);
    for (auto& group : training.optimizer.param_groups())
      group.options().set_lr(kRate * 0.5 * (1 + std::cos(turn)));
    std::vector<int64_t> samples = samples_of(training.step, train.images.size(0));
    const Tensor index = lohe::from_blob(samples.data(), {kBatch}, lohe::kInt64);
    const Tensor logits = training.model.forward(shifted(train.images.index_select(0, index)));
    const Tensor loss = F::cross_entropy(logits, train.labels.index_select(0, index));
    training.optimizer.zero_grad();
    loss.backward();
    training.optimizer.step();
    training.losses.push_back(loss.item<float>());
    ++training.step;
    training.clock.stop();

    const bool last = training.step == options.steps;
    if (training.step % std::max<int64_t>(1, options.steps / 10) == 0 || last) {
      training.validation.emplace_back(training.step, evaluate(training.model, test).first);
    }
    progress.step(training.step, training.losses.back());
    if (training.step % options.checkpoint_every == 0 || last) training.save(checkpoint, options.steps);
    if (training.step == options.die_at) std::raise(SIGKILL);
  }

  const double accuracy = evaluate(training.model, test).second;
  training.write_result(options.out / "result.json", accuracy, run::status_bytes("VmHWM") - memory,
                        options.steps);
  std::cout << "digits_cpp: test accuracy " << accuracy << ", "
            << kBatch * options.steps / training.clock.seconds << " images/s, weights "
            << training.fingerprint() << "\n";
}

}  // namespace

int main(int argc, char** argv) {
  try {
    train(parse(argc, argv));
  } catch (const std::exception& error) {
    std::cerr << "digits: " << error.what() << "\n";
    return 1;
  }
}
