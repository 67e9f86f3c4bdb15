// A program as users of PyTorch's C++ frontend write it, against lohe under the name torch.

#include <gtest/gtest.h>
#include <lohe/lohe.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace torch = lohe;
namespace F = torch::nn::functional;

namespace {

constexpr int64_t kTrainImages = 256, kTestImages = 64;

/// Images of a bright square whose place is the label, in the format of the MNIST database.
void write_database(const std::filesystem::path& folder, const std::string& prefix, int64_t count) {
  const auto word = [](std::ostream& out, int64_t v) {
    for (int shift = 24; shift >= 0; shift -= 8) out.put(static_cast<char>(v >> shift));
  };
  std::ofstream images(folder / (prefix + "-images-idx3-ubyte"), std::ios::binary);
  std::ofstream labels(folder / (prefix + "-labels-idx1-ubyte"), std::ios::binary);
  for (const int64_t v : {int64_t{2051}, count, int64_t{28}, int64_t{28}}) word(images, v);
  for (const int64_t v : {int64_t{2049}, count}) word(labels, v);
  uint32_t noise = 1;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t label = i % 10, top = label / 4 * 9, left = label % 4 * 7;
    for (int64_t y = 0; y < 28; ++y) {
      for (int64_t x = 0; x < 28; ++x) {
        noise = noise * 1664525 + 1013904223;
        const bool inside = y >= top && y < top + 7 && x >= left && x < left + 7;
        images.put(static_cast<char>((inside ? 180 : 0) + (noise >> 24) % 60));
      }
    }
    labels.put(static_cast<char>(label));
  }
}

struct Net : torch::nn::Module {
  Net()
      : conv1(torch::nn::Conv2dOptions(1, 4, /*kernel_size=*/5)),
        conv2(torch::nn::Conv2dOptions(4, 8, 5)),
        fc1(128, 24),
        fc2(24, 10) {
    register_module("conv1", conv1);
    register_module("conv2", conv2);
    register_module("conv2_drop", conv2_drop);
    register_module("fc1", fc1);
    register_module("fc2", fc2);
  }
  torch::Tensor forward(torch::Tensor x) {
    x = torch::relu(torch::max_pool2d(conv1->forward(x), 2));
    x = F::max_pool2d(conv2_drop->forward(conv2->forward(x)), F::MaxPool2dFuncOptions(2));
    x = torch::relu(x).view({-1, 128});
    x = torch::relu(fc1->forward(x));
    x = F::dropout(x, F::DropoutFuncOptions().p(0.1).training(is_training()));
    return torch::log_softmax(fc2->forward(x), /*dim=*/1);
  }
  torch::nn::Conv2d conv1;
  torch::nn::Conv2d conv2;
  torch::nn::Dropout2d conv2_drop{0.1};
  torch::nn::Linear fc1;
  torch::nn::Linear fc2;
};

template <typename DataLoader>
float train(Net& model, torch::Device device, DataLoader& data_loader, torch::optim::Optimizer& optimizer) {
  model.train();
  float last = 0;
  for (auto& batch : data_loader) {
    auto data = batch.data.to(device), targets = batch.target.to(device);
    optimizer.zero_grad();
    auto output = model.forward(data);
    auto loss = torch::nll_loss(output, targets);
    EXPECT_FALSE(std::isnan(loss.template item<float>()));
    loss.backward();
    optimizer.step();
    last = loss.template item<float>();
  }
  return last;
}

template <typename DataLoader>
double accuracy(Net& model, torch::Device device, DataLoader& data_loader, int64_t size) {
  torch::NoGradGuard no_grad;
  model.eval();
  double test_loss = 0;
  int64_t correct = 0;
  for (const auto& batch : data_loader) {
    auto data = batch.data.to(device), targets = batch.target.to(device);
    auto output = model.forward(data);
    test_loss +=
        torch::nll_loss(output, targets, /*weight=*/{}, torch::Reduction::Sum).template item<float>();
    correct += output.argmax(1).eq(targets).sum().template item<int64_t>();
  }
  EXPECT_TRUE(std::isfinite(test_loss));
  return static_cast<double>(correct) / static_cast<double>(size);
}

class Program : public testing::Test {
 protected:
  void SetUp() override {
    folder = std::filesystem::temp_directory_path() / ("lohe_program_" + std::to_string(getpid()));
    std::filesystem::create_directories(folder);
    write_database(folder, "train", kTrainImages);
    write_database(folder, "t10k", kTestImages);
  }
  void TearDown() override { std::filesystem::remove_all(folder); }
  std::filesystem::path folder;
};

TEST_F(Program, TrainsOnADatabaseOfDigitsSavesAndGoesOn) {
  torch::manual_seed(1);
  torch::DeviceType device_type;
  if (torch::cuda::is_available()) {
    device_type = torch::kCUDA;
  } else {
    device_type = torch::kCPU;
  }
  torch::Device device(device_type);

  Net model;
  model.to(device);
  auto train_dataset = torch::data::datasets::MNIST(folder.string())
                           .map(torch::data::transforms::Normalize<>(0.1307, 0.3081))
                           .map(torch::data::transforms::Stack<>());
  ASSERT_EQ(train_dataset.size().value(), static_cast<size_t>(kTrainImages));
  auto train_loader = torch::data::make_data_loader<torch::data::samplers::RandomSampler>(
      std::move(train_dataset), torch::data::DataLoaderOptions().batch_size(32).workers(2));
  auto test_loader = torch::data::make_data_loader<torch::data::samplers::SequentialSampler>(
      torch::data::datasets::MNIST(folder.string(), torch::data::datasets::MNIST::Mode::kTest)
          .map(torch::data::transforms::Normalize<>(0.1307, 0.3081))
          .map(torch::data::transforms::Stack<>()),
      /*batch_size=*/50);

  torch::optim::Adam optimizer(model.parameters(), torch::optim::AdamOptions(1e-2).betas({0.9, 0.99}));
  torch::optim::StepLR scheduler(optimizer, /*step_size=*/2, /*gamma=*/0.5);
  for (size_t epoch = 0; epoch < 3; ++epoch) {
    train(model, device, *train_loader, optimizer);
    scheduler.step();
  }
  EXPECT_EQ(static_cast<torch::optim::AdamOptions&>(optimizer.param_groups()[0].options()).lr(), 5e-3);
  EXPECT_GT(accuracy(model, device, *test_loader, kTestImages), 0.95);

  const std::string model_path = (folder / "net.pt").string(), state_path = (folder / "adam.pt").string();
  torch::save(std::make_shared<Net>(model), model_path);
  torch::save(optimizer, state_path);
  auto loaded = std::make_shared<Net>();
  torch::load(loaded, model_path);
  for (const auto& item : loaded->named_parameters()) {
    EXPECT_TRUE(torch::equal(item.value(), model.named_parameters()[item.key()])) << item.key();
  }
  EXPECT_GT(accuracy(*loaded, device, *test_loader, kTestImages), 0.95);
  torch::optim::Adam again(loaded->parameters(), torch::optim::AdamOptions(1e-2));
  torch::load(again, state_path);
  EXPECT_EQ(again.param_groups()[0].options().get_lr(), 5e-3);
  EXPECT_TRUE(torch::equal(again.state(loaded->fc1->weight)["exp_avg"],
                           optimizer.state(model.fc1->weight)["exp_avg"]));
}

TEST_F(Program, ARefusedFileSaysWhatIsWrong) {
  std::ofstream(folder / "t10k-images-idx3-ubyte", std::ios::binary) << "no images";
  EXPECT_THROW(torch::data::datasets::MNIST(folder.string(), torch::data::datasets::MNIST::Mode::kTest),
               torch::Error);
  std::filesystem::resize_file(folder / "train-images-idx3-ubyte", 1000);
  EXPECT_THROW(torch::data::datasets::MNIST(folder.string()), torch::Error);
  torch::save(torch::nn::Linear(3, 2), (folder / "linear.pt").string());
  torch::nn::Linear other(3, 4);
  const torch::Tensor before = other->weight.clone();
  try {
    torch::load(other, (folder / "linear.pt").string());
    ADD_FAILURE() << "a file of other sizes was loaded";
  } catch (const torch::Error& error) {
    EXPECT_NE(error.message().find("size mismatch for weight"), std::string::npos) << error.what();
  }
  EXPECT_TRUE(torch::equal(other->weight, before));
}

/// A generator and a discriminator, with a loop over both, as in an adversarial training.
TEST(ProgramParts, AdversarialModelsOfSequentialLayers) {
  torch::manual_seed(2);
  struct GeneratorImpl : torch::nn::Module {
    explicit GeneratorImpl(int64_t noise)
        : up1(torch::nn::ConvTranspose2dOptions(noise, 8, 4).bias(false)),
          norm(8),
          up2(torch::nn::ConvTranspose2dOptions(8, 1, 4).stride(2).padding(1).bias(false)) {
      register_module("up1", up1);
      register_module("norm", norm);
      register_module("up2", up2);
    }
    torch::Tensor forward(torch::Tensor x) { return torch::tanh(up2(torch::relu(norm(up1(x))))); }
    torch::nn::ConvTranspose2d up1;
    torch::nn::BatchNorm2d norm;
    torch::nn::ConvTranspose2d up2;
  };
  torch::nn::ModuleHolder<GeneratorImpl> generator(int64_t{6});
  torch::nn::Sequential discriminator(
      torch::nn::Conv2d(torch::nn::Conv2dOptions(1, 4, 4).stride(2).padding(1).bias(false)),
      torch::nn::LeakyReLU(torch::nn::LeakyReLUOptions().negative_slope(0.2)), torch::nn::Flatten(),
      torch::nn::Linear(64, 1), torch::nn::Sigmoid());
  torch::optim::Adam g_optimizer(generator->parameters(),
                                 torch::optim::AdamOptions(2e-4).betas({0.5, 0.999}));
  torch::optim::SGD d_optimizer(discriminator->parameters(), torch::optim::SGDOptions(0.05).momentum(0.5));
  for (int i = 0; i < 2; ++i) {
    discriminator->zero_grad();
    torch::Tensor real = torch::rand({4, 1, 8, 8}), labels = torch::empty({4}).uniform_(0.8, 1.0);
    torch::Tensor real_loss = torch::binary_cross_entropy(discriminator->forward(real).view(-1), labels);
    real_loss.backward();
    torch::Tensor fake = generator->forward(torch::randn({4, 6, 1, 1}));
    torch::Tensor fake_loss =
        torch::binary_cross_entropy(discriminator->forward(fake.detach()).view(-1), torch::zeros({4}));
    fake_loss.backward();
    d_optimizer.step();
    generator->zero_grad();
    torch::Tensor g_loss =
        torch::binary_cross_entropy(discriminator->forward(fake).view(-1), torch::ones({4}));
    g_loss.backward();
    g_optimizer.step();
    EXPECT_TRUE(std::isfinite((real_loss + fake_loss + g_loss).item<double>()));
  }
}

struct Mlp : torch::nn::Cloneable<Mlp> {
  explicit Mlp(int64_t width) : width(width) { Mlp::reset(); }
  void reset() override {
    layers = register_module("layers", torch::nn::ModuleList());
    for (int i = 0; i < 2; ++i) layers->push_back(torch::nn::Linear(width, width));
    scale = register_parameter("scale", torch::ones({1}));
    register_buffer("steps", torch::zeros({1}, torch::kInt64));
  }
  torch::Tensor forward(torch::Tensor x) {
    for (const auto& layer : *layers) x = torch::relu(layer->as<torch::nn::Linear>()->forward(x));
    return x * scale;
  }
  int64_t width;
  torch::nn::ModuleList layers{nullptr};
  torch::Tensor scale;
};

TEST(ProgramParts, ModulesAreClonedInitialisedFrozenAndGrouped) {
  auto model = std::make_shared<Mlp>(3);
  model->apply([](torch::nn::Module& module) {
    torch::NoGradGuard no_grad;
    if (auto* linear = module.as<torch::nn::Linear>()) {
      torch::nn::init::xavier_uniform_(linear->weight);
      torch::nn::init::constant_(linear->bias, 0.01);
    }
  });
  auto copy = std::dynamic_pointer_cast<Mlp>(model->clone());
  ASSERT_NE(copy, nullptr);
  const torch::Tensor x = torch::ones({2, 3});
  EXPECT_TRUE(torch::equal(copy->forward(x), model->forward(x)));
  {
    torch::NoGradGuard no_grad;
    copy->scale.mul_(2);
  }
  EXPECT_FALSE(torch::equal(copy->forward(x), model->forward(x)));

  model->scale.set_requires_grad(false);
  std::vector<torch::Tensor> weights, biases;
  for (const auto& pair : model->named_parameters()) {
    if (!pair.value().requires_grad()) continue;
    (pair.key().ends_with("bias") ? biases : weights).push_back(pair.value());
  }
  std::vector<torch::optim::OptimizerParamGroup> groups;
  groups.emplace_back(weights, std::make_unique<torch::optim::SGDOptions>(0.5));
  groups.emplace_back(biases);
  torch::optim::SGD sgd(groups, torch::optim::SGDOptions(0.25));
  EXPECT_EQ(sgd.param_groups()[0].options().get_lr(), 0.5);
  EXPECT_EQ(sgd.param_groups()[1].options().get_lr(), 0.25);
  model->forward(x).sum().backward();
  const torch::Tensor before = biases[1].clone(), slope = biases[1].grad().clone();
  sgd.step();
  EXPECT_TRUE(torch::equal(biases[1], before - slope * 0.25));
}

TEST(ProgramParts, ContainersNameFindAndPrintTheirModules) {
  torch::nn::Sequential net({{"fc", torch::nn::Linear(2, 3)},
                             {"act", torch::nn::Functional(torch::leaky_relu, 0.1)},
                             {"norm", torch::nn::LayerNorm(torch::nn::LayerNormOptions({3}))}});
  EXPECT_TRUE(net->named_parameters().contains("fc.weight"));
  EXPECT_EQ(net->at<torch::nn::LinearImpl>(0).options.out_features(), 3);
  std::ostringstream text;
  text << net;
  EXPECT_EQ(text.str(),
            "Sequential(\n  (fc): Linear(in_features=2, out_features=3, bias=True)\n  (act): Functional()\n"
            "  (norm): LayerNorm((3,), eps=1e-05, elementwise_affine=True, bias=True)\n)");
  torch::nn::ModuleDict dict;
  dict->insert("a", torch::nn::Linear(1, 1));
  dict->insert("b", torch::nn::ReLU());
  dict->insert("a", torch::nn::Linear(1, 2));
  EXPECT_EQ(dict->keys(), (std::vector<std::string>{"b", "a"}));
  EXPECT_EQ(dict->at<torch::nn::LinearImpl>("a").weight.size(0), 2);
  EXPECT_THROW(dict["c"], torch::Error);
  torch::nn::AnyModule any(torch::nn::Linear(2, 5));
  EXPECT_EQ(any.forward(torch::ones({1, 2})).size(1), 5);
  EXPECT_EQ(any.get<torch::nn::Linear>()->options.in_features(), 2);
  EXPECT_THROW(any.get<torch::nn::ReLU>(), torch::Error);
}

TEST(ProgramParts, ValuesAndTensorsGoThroughStreamsAndSafetensors) {
  std::stringstream stream;
  torch::save(std::vector<torch::Tensor>{torch::ones({2}), torch::arange(3)}, stream);
  std::vector<torch::Tensor> list;
  torch::load(list, stream);
  ASSERT_EQ(list.size(), 2u);
  EXPECT_TRUE(torch::equal(list[1], torch::arange(3)));
  const torch::IValue value(torch::IValue::Dict{{"epoch", 3}, {"name", "x"}, {"w", list[0]}});
  const torch::IValue back = torch::pickle_load(torch::pickle_save(value));
  EXPECT_EQ(back.find("epoch")->toInt(), 3);
  EXPECT_EQ(back.find("name")->toStringRef(), "x");
  EXPECT_THROW(back.find("name")->toInt(), torch::Error);
  const std::string path =
      (std::filesystem::temp_directory_path() / ("lohe_st_" + std::to_string(getpid()) + ".safetensors"))
          .string();
  torch::safetensors::save_file({{"a", list[0]}, {"b", list[1]}}, path, {{"format", "pt"}});
  std::map<std::string, std::string> metadata;
  const auto tensors = torch::safetensors::load_file(path, &metadata);
  EXPECT_TRUE(torch::equal(tensors.at("b"), list[1]));
  EXPECT_EQ(metadata.at("format"), "pt");
  std::remove(path.c_str());
}

/// Counts; number 7 fails where `broken` says so.
struct Numbers : torch::data::datasets::Dataset<Numbers> {
  explicit Numbers(bool broken = false) : broken(broken) {}
  torch::data::Example<> get(size_t index) override {
    if (broken && index == 7) throw std::runtime_error("number 7");
    const auto i = static_cast<int64_t>(index);
    return {torch::full({2}, i, torch::kInt64), torch::tensor(i)};
  }
  std::optional<size_t> size() const override { return 11; }
  bool broken;
};

TEST(ProgramParts, LoadersWithAndWithoutThreadsGiveTheSameBatches) {
  for (const size_t workers : {0, 1, 3}) {
    auto loader = torch::data::make_data_loader<torch::data::samplers::SequentialSampler>(
        Numbers().map(torch::data::transforms::Stack<>()),
        torch::data::DataLoaderOptions().batch_size(4).workers(workers));
    for (int pass = 0; pass < 2; ++pass) {
      int64_t next = 0;
      for (auto& batch : *loader) {
        EXPECT_EQ(batch.data.sizes(), (std::vector<int64_t>{next == 8 ? 3 : 4, 2}));
        for (int64_t i = 0; i < batch.target.size(0); ++i) EXPECT_EQ(batch.target[i].item<int64_t>(), next++);
      }
      EXPECT_EQ(next, 11);
    }
    auto dropping = torch::data::make_data_loader(
        Numbers(),
        torch::data::DataLoaderOptions(4).workers(workers).drop_last(true).enforce_ordering(false));
    size_t seen = 0;
    for (auto& batch : *dropping) seen += batch.size();
    EXPECT_EQ(seen, 8u);
    auto failing = torch::data::make_data_loader<torch::data::samplers::SequentialSampler>(
        Numbers(true), torch::data::DataLoaderOptions(4).workers(workers));
    int batches = 0;
    EXPECT_THROW(
        {
          for ([[maybe_unused]] auto& batch : *failing) ++batches;
        },
        std::runtime_error);
    EXPECT_EQ(batches, 1);
  }
}

TEST(ProgramParts, ASamplerGoesOnWhereItWasSaved) {
  torch::manual_seed(5);
  torch::data::samplers::RandomSampler sampler(10);
  const auto first = sampler.next(4);
  torch::serialize::OutputArchive archive;
  sampler.save(archive);
  torch::data::samplers::RandomSampler other(10);
  torch::serialize::InputArchive saved(archive);
  other.load(saved);
  EXPECT_EQ(other.next(6), sampler.next(6));
  EXPECT_FALSE(sampler.next(1).has_value());
}

TEST(ProgramParts, ThereIsNoOtherDevice) {
  EXPECT_THROW(torch::Device(torch::kCUDA), torch::Error);
  EXPECT_THROW(torch::Device("cuda:0"), torch::Error);
  EXPECT_EQ(torch::ones({1}, torch::device(torch::kCPU).dtype(torch::kFloat64)).dtype(), torch::kFloat64);
}

}  // namespace
