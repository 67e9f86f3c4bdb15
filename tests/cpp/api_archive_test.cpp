// Damaged files and files made to do harm, read through the public API: every one gives a lohe::Error or a
// sound value, and what was to be loaded is as it was where it gives an error.

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "lohe/nn/modules.h"
#include "lohe/optim.h"
#include "lohe/serialize.h"

namespace torch = lohe;
using torch::IValue;

namespace {

/// The most memory that this process has had, in MiB.
int64_t peak() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("VmHWM:")) return std::stoll(line.substr(6)) / 1024;
  }
  return 0;
}

struct Training {
  torch::nn::Sequential model{torch::nn::Linear(3, 4), torch::nn::BatchNorm1d(4), torch::nn::Linear(4, 2)};
  torch::optim::AdamW optimizer{model->parameters(), torch::optim::AdamWOptions(0.1)};
  Training() {
    model->forward(torch::ones({2, 3})).sum().backward();
    optimizer.step();
  }
  std::string saved() const {
    torch::serialize::OutputArchive archive, part, state;
    model->save(part);
    optimizer.save(state);
    archive.write("model", part);
    archive.write("optimizer", state);
    archive.write("numbers", IValue(IValue::List{1, 2.5, "text", IValue()}));
    std::ostringstream stream;
    archive.save_to(stream);
    return stream.str();
  }
  /// Whether all of a file was taken.
  bool load(const std::string& file) {
    torch::serialize::InputArchive archive, part;
    archive.load_from(file.data(), file.size());
    archive.read("model", part);
    model->load(part);
    archive.read("optimizer", part);
    optimizer.load(part);
    return true;
  }
};

std::string mutated(const std::string& file, std::mt19937& random) {
  std::string damaged = file;
  switch (random() % 4) {
    case 0:
      damaged.resize(random() % damaged.size());
      break;
    case 1:
      for (uint32_t n = 1 + random() % 4; n > 0; --n)
        damaged[random() % damaged.size()] ^= char(1 << random() % 8);
      break;
    case 2:
      for (uint32_t n = 1 + random() % 16; n > 0; --n)
        damaged[random() % damaged.size()] = static_cast<char>(random());
      break;
    default:
      damaged.insert(random() % damaged.size(), damaged.substr(random() % damaged.size(), random() % 64));
  }
  return damaged;
}

TEST(Archives, DamagedCheckpointsAreRefusedAndChangeNothing) {
  const std::string file = Training().saved();
  Training target;
  ASSERT_TRUE(target.load(file));
  const std::string before = target.saved();
  std::mt19937 random(1);
  int refused = 0;
  [[maybe_unused]] const int64_t memory = peak();
  for (int i = 0; i < 20000; ++i) {
    try {
      target.load(mutated(file, random));
      target.load(file);
    } catch (const torch::Error& error) {
      EXPECT_NE(error.kind(), torch::ErrorKind::kInternal) << error.what();
      EXPECT_FALSE(error.message().empty());
      ++refused;
      if (refused % 500 == 0) {
        EXPECT_EQ(target.saved(), before);
      }
    }
  }
  EXPECT_GT(refused, 15000);
#ifndef __SANITIZE_ADDRESS__  // which keeps freed memory for a while
  EXPECT_LT(peak() - memory, 64);
#endif
}

TEST(Archives, DamagedSafetensorsAreRefused) {
  const auto path = std::filesystem::temp_directory_path() / ("lohe_archive_" + std::to_string(getpid()));
  torch::safetensors::save_file(
      {{"a", torch::ones({2, 3})}, {"b", torch::arange(5)}, {"c", torch::zeros({0, 2}, torch::kFloat64)}},
      path.string(), {{"format", "pt"}});
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  const std::string file = text.str();
  std::mt19937 random(2);
  const int64_t memory = peak();
  int refused = 0;
  for (int i = 0; i < 3000; ++i) {
    std::ofstream(path, std::ios::binary) << mutated(file, random);
    try {
      for (const auto& [name, tensor] : torch::safetensors::load_file(path.string())) {
        if (tensor.numel() > 0) tensor.to(torch::kFloat64).sum().item<double>();
      }
    } catch (const torch::Error& error) {
      EXPECT_NE(error.kind(), torch::ErrorKind::kInternal) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 1500);
  EXPECT_LT(peak() - memory, 64);
  std::filesystem::remove(path);
}

TEST(Archives, WhatAFileNamesOftenIsOneObject) {
  IValue::List deep{1};
  for (int i = 0; i < 200; ++i) {
    const IValue inner(deep);
    deep = {inner, inner};  // 2^200 if each were a copy
  }
  const IValue back = torch::pickle_load(torch::pickle_save(IValue(deep)));
  EXPECT_EQ(&back.toListRef()[0].toListRef(), &back.toListRef()[1].toListRef());
}

TEST(Archives, AListThatHoldsItselfIsRefused) {
  IValue list(IValue::List{});
  list.toListRef().push_back(list);
  EXPECT_THROW(torch::pickle_save(list), torch::Error);
  list.toListRef().clear();
}

TEST(Archives, AnOptimizerRefusesAStateOfOtherParameters) {
  Training training;
  torch::serialize::OutputArchive saved;
  training.optimizer.save(saved);
  torch::nn::Linear other(2, 2);
  torch::optim::AdamW fewer(other->parameters());
  torch::serialize::InputArchive archive(saved);
  EXPECT_THROW(fewer.load(archive), torch::Error);
  const auto all = training.model->parameters();
  torch::optim::AdamW turned(std::vector<torch::Tensor>(all.rbegin(), all.rend()));
  EXPECT_THROW(turned.load(archive), torch::Error);
  EXPECT_TRUE(turned.state(all[0]).is_empty());
}

}  // namespace
