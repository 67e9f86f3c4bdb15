// Makes layers, runs them forward and backward, and writes all that went in and came out, for the Python test
// that compares with the Python layers:
//   layers_tool OUT.pt
// The file is a dict: name of the case -> {"state", "inputs", "outputs", "grads"}. Every case begins with
// seed 3 for its layer and seed 4 for its inputs.

#include <exception>
#include <iostream>

#include "lohe/autograd.h"
#include "lohe/generator.h"
#include "lohe/nn/container.h"
#include "lohe/nn/functional.h"
#include "lohe/nn/modules.h"
#include "lohe/operators.h"
#include "lohe/serialize.h"

namespace torch = lohe;
namespace nn = torch::nn;
using torch::IValue;
using torch::Tensor;

namespace {

IValue::Dict cases;
std::string current;  // for messages

void flatten(const Tensor& t, std::vector<Tensor>& list) {
  if (t.defined()) list.push_back(t);
}
void flatten(const torch::IntList&, std::vector<Tensor>&) {}
template <class... T>
void flatten(const std::tuple<T...>& results, std::vector<Tensor>& list) {
  std::apply([&](const auto&... r) { (flatten(r, list), ...); }, results);
}

IValue detached(const std::vector<Tensor>& list) {
  IValue::List result;
  for (const Tensor& t : list) result.emplace_back(t.detach());
  return result;
}

/// `make` gives a layer, `inputs` what it is called with.
template <class Make, class Inputs>
void run(const std::string& name, const Make& make, const Inputs& inputs) {
  current = name;
  torch::manual_seed(3);
  auto layer = make();
  torch::manual_seed(4);
  std::vector<Tensor> given;
  const auto arguments = inputs();
  std::apply([&](const auto&... a) { (flatten(a, given), ...); }, arguments);
  torch::serialize::OutputArchive state;
  layer->save(state);
  IValue::Dict before;
  for (const auto& [key, value] : state.value().toDictRef())
    before.emplace_back(key, value.toTensor().clone());
  const IValue saved_inputs = detached(given);
  for (Tensor& t : given) {
    if (t.is_floating_point()) t.requires_grad_();
  }
  torch::manual_seed(5);
  std::vector<Tensor> outputs, grads;
  flatten(std::apply([&](const auto&... a) { return layer->forward(a...); }, arguments), outputs);
  Tensor loss;
  for (const Tensor& out : outputs) {
    if (!out.requires_grad()) continue;
    const Tensor part = (out * out).sum();
    loss = loss.defined() ? loss + part : part;
  }
  if (loss.defined()) loss.backward();
  for (const Tensor& t : given) flatten(t.grad(), grads);
  for (const Tensor& p : layer->parameters()) flatten(p.grad(), grads);
  IValue::Dict result;
  result.emplace_back("state", std::move(before));
  result.emplace_back("inputs", saved_inputs);
  result.emplace_back("outputs", detached(outputs));
  result.emplace_back("grads", detached(grads));
  cases.emplace_back(name, std::move(result));
}

template <class Layer, class... Options>
auto made(const Options&... options) {
  return [=] { return Layer(options...); };
}

/// Inputs of given sizes.
auto randn(std::vector<int64_t> sizes) {
  return [=] { return std::tuple(torch::randn(sizes)); };
}

void pooling_and_padding() {
  run("MaxPool1d", made<nn::MaxPool1d>(nn::MaxPool1dOptions(3).stride(2).padding(1)), randn({2, 3, 11}));
  run("MaxPool2d", made<nn::MaxPool2d>(2), randn({2, 3, 8, 8}));
  run("MaxPool2d_dilated",
      made<nn::MaxPool2d>(nn::MaxPool2dOptions({3, 2}).stride({2, 1}).dilation(2).ceil_mode(true)),
      randn({2, 3, 9, 9}));
  run("MaxPool3d", made<nn::MaxPool3d>(nn::MaxPool3dOptions(2).stride(1)), randn({2, 3, 4, 5, 6}));
  run("AvgPool2d", made<nn::AvgPool2d>(nn::AvgPool2dOptions(3).stride(2).padding(1).count_include_pad(false)),
      randn({2, 3, 9, 8}));
  run("AdaptiveAvgPool1d", made<nn::AdaptiveAvgPool1d>(4), randn({2, 3, 10}));
  run("AdaptiveAvgPool2d", made<nn::AdaptiveAvgPool2d>(nn::AdaptiveAvgPool2dOptions({3, std::nullopt})),
      randn({2, 3, 7, 5}));
  run("AdaptiveAvgPool3d", made<nn::AdaptiveAvgPool3d>(2), randn({2, 3, 5, 4, 6}));
  run("AdaptiveMaxPool2d", made<nn::AdaptiveMaxPool2d>(3), randn({2, 3, 7, 5}));
  run("LPPool1d", made<nn::LPPool1d>(nn::LPPool1dOptions(2, 3)), randn({2, 3, 9}));
  run("LPPool2d", made<nn::LPPool2d>(nn::LPPool2dOptions(2, 3).stride(2)), randn({2, 3, 9, 9}));
  run("ReflectionPad1d", made<nn::ReflectionPad1d>(2), randn({2, 3, 6}));
  run("ReflectionPad2d", made<nn::ReflectionPad2d>(nn::ReflectionPad2dOptions({1, 2, 3, 0})),
      randn({2, 3, 6, 5}));
  run("ReplicationPad2d", made<nn::ReplicationPad2d>(2), randn({2, 3, 6, 5}));
  run("ReplicationPad3d", made<nn::ReplicationPad3d>(1), randn({2, 3, 4, 3, 5}));
  run("CircularPad2d", made<nn::CircularPad2d>(1), randn({2, 3, 4, 5}));
  run("ZeroPad2d", made<nn::ZeroPad2d>(nn::ZeroPad2dOptions({1, 0, 2, 1})), randn({2, 3, 4, 5}));
  run("ConstantPad1d", made<nn::ConstantPad1d>(2, 1.5), randn({2, 3, 4}));
  run("ConstantPad3d", made<nn::ConstantPad3d>(1, -0.5), randn({2, 3, 4, 3, 2}));
}

void convolutions() {
  run("Conv1d", made<nn::Conv1d>(nn::Conv1dOptions(4, 6, 3).stride(2).padding(1).groups(2)),
      randn({2, 4, 9}));
  run("Conv2d", made<nn::Conv2d>(nn::Conv2dOptions(3, 5, {3, 2}).padding({1, 0}).dilation(2).bias(false)),
      randn({2, 3, 8, 9}));
  run("Conv2d_circular",
      made<nn::Conv2d>(nn::Conv2dOptions(3, 4, 3).padding(1).padding_mode(torch::kCircular)),
      randn({2, 3, 6, 6}));
  run("ConvTranspose1d",
      made<nn::ConvTranspose1d>(nn::ConvTranspose1dOptions(4, 3, 3).stride(2).output_padding(1)),
      randn({2, 4, 5}));
  run("ConvTranspose2d",
      made<nn::ConvTranspose2d>(nn::ConvTranspose2dOptions(4, 6, 3).stride(2).padding(1).groups(2)),
      randn({2, 4, 5, 6}));
  run("ConvTranspose2d_sized", made<nn::ConvTranspose2d>(nn::ConvTranspose2dOptions(4, 3, 3).stride(2)),
      [] { return std::tuple(torch::randn({2, 4, 5, 6}), torch::IntList{12, 13}); });
  run("ConvTranspose3d", made<nn::ConvTranspose3d>(nn::ConvTranspose3dOptions(2, 3, 2).stride(2).bias(false)),
      randn({1, 2, 3, 2, 3}));
}

void normalization_and_dropout() {
  run("BatchNorm2d", made<nn::BatchNorm2d>(3), randn({4, 3, 5, 2}));
  run("LayerNorm", made<nn::LayerNorm>(nn::LayerNormOptions({4, 5}).eps(1e-3)), randn({3, 4, 5}));
  run("GroupNorm", made<nn::GroupNorm>(2, 6), randn({3, 6, 4}));
  run("RMSNorm", made<nn::RMSNorm>(7), randn({3, 7}));
  run("InstanceNorm1d", made<nn::InstanceNorm1d>(nn::InstanceNorm1dOptions(3).affine(true)),
      randn({2, 3, 6}));
  run("LocalResponseNorm", made<nn::LocalResponseNorm>(nn::LocalResponseNormOptions(3).k(2.0)),
      randn({2, 7, 4, 4}));
  run("LocalResponseNorm_3d", made<nn::LocalResponseNorm>(2), randn({2, 7, 4}));
  run("Dropout", made<nn::Dropout>(0.3), randn({50}));
  run("Dropout1d", made<nn::Dropout1d>(0.5), randn({4, 20, 3}));
  run("Dropout2d", made<nn::Dropout2d>(0.5), randn({4, 20, 3, 2}));
  run("Dropout3d", made<nn::Dropout3d>(0.5), randn({20, 3, 2, 2}));
  run("AlphaDropout", made<nn::AlphaDropout>(0.4), randn({50}));
  run("FeatureAlphaDropout", made<nn::FeatureAlphaDropout>(0.4), randn({4, 20, 3}));
}

void activations_and_losses() {
  run("Softshrink", made<nn::Softshrink>(0.3), randn({30}));
  run("GELU", made<nn::GELU>(nn::GELUOptions().approximate("tanh")), randn({30}));
  run("PReLU", made<nn::PReLU>(nn::PReLUOptions().num_parameters(3)), randn({4, 3, 2}));
  run("RReLU", made<nn::RReLU>(nn::RReLUOptions(0.1).upper(0.4)), randn({40}));
  run("Identity", made<nn::Identity>(), randn({3, 2}));
  run("Unflatten", made<nn::Unflatten>(nn::UnflattenOptions(1, {2, 3})), randn({4, 6}));
  const auto probabilities = [] { return std::tuple(torch::rand({4, 3}), torch::rand({4, 3}).detach()); };
  run("BCELoss", made<nn::BCELoss>(nn::BCELossOptions().reduction(torch::kSum)), probabilities);
  run(
      "BCELoss_weight", [] { return nn::BCELoss(nn::BCELossOptions(torch::tensor({0.5, 1.0, 2.0}))); },
      probabilities);
  run("CrossEntropyLoss", made<nn::CrossEntropyLoss>(nn::CrossEntropyLossOptions().label_smoothing(0.1)),
      [] { return std::tuple(torch::randn({5, 4}), torch::randint(4, {5}, torch::kInt64)); });
  run("MSELoss", made<nn::MSELoss>(), [] { return std::tuple(torch::randn({5, 4}), torch::randn({5, 4})); });
}

void embeddings() {
  const auto numbers = [](std::vector<int64_t> sizes) {
    return [=] { return std::tuple(torch::randint(10, sizes, torch::kInt64)); };
  };
  run("Embedding", made<nn::Embedding>(nn::EmbeddingOptions(10, 4).padding_idx(2)), numbers({3, 5}));
  run("EmbeddingBag", made<nn::EmbeddingBag>(10, 4), numbers({3, 5}));
  run("EmbeddingBag_sum", made<nn::EmbeddingBag>(nn::EmbeddingBagOptions(10, 4).mode(torch::kSum)), [] {
    return std::tuple(torch::randint(10, {7}, torch::kInt64), torch::tensor({0, 2, 6}), torch::rand({7}));
  });
  run("EmbeddingBag_max", made<nn::EmbeddingBag>(nn::EmbeddingBagOptions(10, 4).mode(torch::kMax)),
      numbers({3, 5}));
}

void recurrent() {
  run("RNN", made<nn::RNN>(nn::RNNOptions(4, 5).num_layers(2).nonlinearity("relu")), randn({6, 3, 4}));
  run("LSTM",
      made<nn::LSTM>(nn::LSTMOptions(4, 5).num_layers(2).bidirectional(true).batch_first(true).dropout(0.3)),
      randn({3, 6, 4}));
  run("LSTM_state", made<nn::LSTM>(nn::LSTMOptions(4, 5).proj_size(3)), [] {
    return std::tuple(torch::randn({6, 3, 4}), std::tuple(torch::randn({1, 3, 3}), torch::randn({1, 3, 5})));
  });
  run("LSTM_unbatched", made<nn::LSTM>(nn::LSTMOptions(4, 5).bias(false)), randn({6, 4}));
  run("GRU", made<nn::GRU>(nn::GRUOptions(4, 5).bidirectional(true)),
      [] { return std::tuple(torch::randn({6, 3, 4}), torch::randn({2, 3, 5})); });
  run("RNNCell", made<nn::RNNCell>(4, 5), randn({3, 4}));
  run("LSTMCell", made<nn::LSTMCell>(4, 5), [] {
    return std::tuple(torch::randn({3, 4}), std::tuple(torch::randn({3, 5}), torch::randn({3, 5})));
  });
  run("GRUCell", made<nn::GRUCell>(4, 5), randn({4}));
}

void attention() {
  const auto three = [] {
    return std::tuple(torch::randn({5, 2, 8}), torch::randn({6, 2, 8}), torch::randn({6, 2, 8}));
  };
  run("MultiheadAttention", made<nn::MultiheadAttention>(8, 2), three);
  run("MultiheadAttention_kv",
      made<nn::MultiheadAttention>(
          nn::MultiheadAttentionOptions(8, 2).kdim(4).vdim(3).add_bias_kv(true).dropout(0.2)),
      [] { return std::tuple(torch::randn({5, 2, 8}), torch::randn({6, 2, 4}), torch::randn({6, 2, 3})); });
  run("MultiheadAttention_self",
      made<nn::MultiheadAttention>(nn::MultiheadAttentionOptions(8, 4).batch_first(true).bias(false)), [] {
        const Tensor x = torch::randn({2, 5, 8});
        return std::tuple(x, x, x);
      });
  run("TransformerEncoderLayer",
      made<nn::TransformerEncoderLayer>(
          nn::TransformerEncoderLayerOptions(8, 2).dim_feedforward(16).activation(torch::kGELU)),
      randn({5, 3, 8}));
  run("TransformerDecoderLayer",
      made<nn::TransformerDecoderLayer>(
          nn::TransformerDecoderLayerOptions(8, 2).dim_feedforward(16).batch_first(true).norm_first(true)),
      [] { return std::tuple(torch::randn({2, 5, 8}), torch::randn({2, 4, 8})); });
  run(
      "TransformerEncoder",
      [] {
        nn::TransformerEncoderLayer layer(
            nn::TransformerEncoderLayerOptions(8, 2).dim_feedforward(16).dropout(0.0));
        return nn::TransformerEncoder(nn::TransformerEncoderOptions(layer, 2).norm(nn::LayerNorm(8)));
      },
      randn({5, 3, 8}));
  run("Transformer",
      made<nn::Transformer>(
          nn::TransformerOptions(8).nhead(2).num_encoder_layers(1).num_decoder_layers(2).dim_feedforward(16)),
      [] { return std::tuple(torch::randn({5, 3, 8}), torch::randn({4, 3, 8})); });
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: layers_tool OUT.pt\n";
    return 2;
  }
  try {
    pooling_and_padding();
    convolutions();
    normalization_and_dropout();
    activations_and_losses();
    embeddings();
    recurrent();
    attention();
    torch::save(IValue(cases), argv[1]);
  } catch (const std::exception& error) {
    std::cerr << current << ": " << error.what() << '\n';
    return 1;
  }
  return 0;
}
