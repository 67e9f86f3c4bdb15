// Trains a small model, for the Python test that compares with Python's optimizers, schedules and files:
//   train_tool OPTIMIZER SCHEDULE STEPS OUT.pt [IN.pt]
// OUT is {"model", "optimizer", "rates"}; IN, another such file, is where training goes on.

#include <exception>
#include <functional>
#include <iostream>
#include <map>
#include <memory>

#include "lohe/autograd.h"
#include "lohe/generator.h"
#include "lohe/nn/functional.h"
#include "lohe/nn/modules.h"
#include "lohe/operators.h"
#include "lohe/optim.h"
#include "lohe/optim_schedules.h"
#include "lohe/serialize.h"

namespace torch = lohe;
namespace nn = torch::nn;
namespace optim = torch::optim;

namespace {

using Groups = std::vector<optim::OptimizerParamGroup>;

template <class Made, class Options>
std::unique_ptr<optim::Optimizer> with(const Groups& groups, Options options) {
  return std::make_unique<Made>(groups, std::move(options));
}

const std::map<std::string, std::function<std::unique_ptr<optim::Optimizer>(const Groups&)>> kOptimizers{
    {"SGD",
     [](const Groups& g) {
       return with<optim::SGD>(g, optim::SGDOptions(0.1).momentum(0.9).nesterov(true));
     }},
    {"Adam", [](const Groups& g) { return with<optim::Adam>(g, optim::AdamOptions(0.05).amsgrad(true)); }},
    {"AdamW",
     [](const Groups& g) { return with<optim::AdamW>(g, optim::AdamWOptions(0.05).betas({0.8, 0.95})); }},
    {"RMSprop",
     [](const Groups& g) {
       return with<optim::RMSprop>(g, optim::RMSpropOptions(0.05).centered(true).momentum(0.5));
     }},
};

template <class Made, class... Args>
std::unique_ptr<optim::LRScheduler> schedule(optim::Optimizer& o, Args... args) {
  return std::make_unique<Made>(o, args...);
}

const std::map<std::string, std::function<std::unique_ptr<optim::LRScheduler>(optim::Optimizer&)>> kSchedules{
    {"StepLR", [](optim::Optimizer& o) { return schedule<optim::StepLR>(o, 3, 0.5); }},
    {"MultiStepLR",
     [](optim::Optimizer& o) {
       return std::make_unique<optim::MultiStepLR>(o, torch::IntList{2, 5, 5}, 0.3);
     }},
    {"ConstantLR", [](optim::Optimizer& o) { return schedule<optim::ConstantLR>(o, 0.25, 4); }},
    {"LinearLR", [](optim::Optimizer& o) { return schedule<optim::LinearLR>(o, 0.3, 0.9, 6); }},
    {"ExponentialLR", [](optim::Optimizer& o) { return schedule<optim::ExponentialLR>(o, 0.93); }},
    {"PolynomialLR", [](optim::Optimizer& o) { return schedule<optim::PolynomialLR>(o, 7, 1.7); }},
    {"CosineAnnealingLR",
     [](optim::Optimizer& o) { return schedule<optim::CosineAnnealingLR>(o, 4, 0.001); }},
    {"LambdaLR",
     [](optim::Optimizer& o) {
       return schedule<optim::LambdaLR>(
           o, [](int64_t epoch) { return 1.0 / (1.0 + static_cast<double>(epoch)); });
     }},
    {"MultiplicativeLR",
     [](optim::Optimizer& o) { return schedule<optim::MultiplicativeLR>(o, [](int64_t) { return 0.9; }); }},
};

void train(const std::string& optimizer_name, const std::string& schedule_name, int steps, const char* out,
           const char* in) {
  torch::manual_seed(3);
  nn::Sequential model;  // layer by layer: the order in which arguments are made is open
  model->push_back(nn::Linear(4, 6));
  model->push_back(nn::Tanh());
  model->push_back(nn::Linear(6, 2));
  const std::vector<torch::Tensor> all = model->parameters();
  Groups groups{std::vector<torch::Tensor>{all[0], all[1]}, std::vector<torch::Tensor>{all[2], all[3]}};
  const auto optimizer = kOptimizers.at(optimizer_name)(groups);
  optimizer->param_groups()[1].options().set_lr(0.02);
  const torch::Tensor x = torch::randn({8, 4}), y = torch::randn({8, 2});
  if (in != nullptr) {
    torch::serialize::InputArchive archive, part;
    archive.load_from(in);
    archive.read("model", part);
    model->load(part);
    archive.read("optimizer", part);
    optimizer->load(part);
  }
  const auto schedule = kSchedules.at(schedule_name)(*optimizer);
  torch::IValue::List rates;
  for (int i = 0; i < steps; ++i) {
    optimizer->zero_grad();
    nn::functional::mse_loss(model->forward(x), y).backward();
    optimizer->step();
    schedule->step();
    for (const double rate : schedule->get_last_lr()) rates.emplace_back(rate);
  }
  torch::serialize::OutputArchive archive, part, state;
  model->save(part);
  optimizer->save(state);
  archive.write("model", part);
  archive.write("optimizer", state);
  archive.write("rates", torch::IValue(std::move(rates)));
  archive.save_to(out);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::cerr << "usage: train_tool OPTIMIZER SCHEDULE STEPS OUT.pt [IN.pt]\n";
    return 2;
  }
  try {
    train(argv[1], argv[2], std::stoi(argv[3]), argv[4], argc > 5 ? argv[5] : nullptr);
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
  return 0;
}
