#include "usual_ops.h"

#include <lohe/lohe.h>

#include <functional>
#include <vector>

#include "dispatch/public_call.h"
#include "ops/call.h"

namespace lohe::gen {
namespace {

namespace F = nn::functional;
using Unary = std::function<Tensor(const Tensor&)>;
using Binary = std::function<Tensor(const Tensor&, const Tensor&)>;

// Long enough for the tiles of transposed operands, and too wide for the narrow form of column reductions;
// and so many rows that some of them are done together.
constexpr int64_t kRows = 12, kColumns = 64, kManyRows = 48;

Tensor random(IntArrayRef sizes, Dtype dtype) { return rand(sizes).add_(1).to(dtype); }
Tensor leaf(IntArrayRef sizes, Dtype dtype) { return random(sizes, dtype).requires_grad_(true); }

/// With numbers for bounds, which Python passes and the C++ function does not take.
Tensor clamp_to_unit(const Tensor& x) {
  static const ops::OpRef clamp("clamp");
  return to_public(clamp(x.impl(), 0.0, 1.0));
}

/// Forward without gradients, then backward once for each way in which the inputs may want one. The second
/// backward adds to what is there.
void differentiate(const std::vector<Tensor>& inputs, const std::function<Tensor()>& call) {
  const unsigned all = (1u << inputs.size()) - 1;
  std::vector<unsigned> wanted{all, all};
  for (size_t i = 0; i < inputs.size() && inputs.size() > 1; ++i) wanted.push_back(1u << i);
  for (const unsigned bits : wanted) {
    for (size_t i = 0; i < inputs.size(); ++i) Tensor(inputs[i]).requires_grad_((bits >> i & 1) != 0);
    const Tensor y = call();
    y.dim() == 0 ? y.backward() : y.backward(ones_like(y));
  }
}

void unary_ops(Dtype dtype) {
  const Unary differentiable[] = {
      [](const Tensor& x) { return exp(x); },
      [](const Tensor& x) { return log(x); },
      [](const Tensor& x) { return sqrt(x); },
      [](const Tensor& x) { return rsqrt(x); },
      [](const Tensor& x) { return sin(x); },
      [](const Tensor& x) { return cos(x); },
      [](const Tensor& x) { return tanh(x); },
      [](const Tensor& x) { return sigmoid(x); },
      [](const Tensor& x) { return abs(x); },
      [](const Tensor& x) { return -x; },
      [](const Tensor& x) { return reciprocal(x); },
      [](const Tensor& x) { return square(x); },
      [](const Tensor& x) { return pow(x, 2); },
      [](const Tensor& x) { return pow(x, 0.5); },
      [](const Tensor& x) { return pow(x, 3.0); },
      [](const Tensor& x) { return relu(x); },
      [](const Tensor& x) { return nn::ops::gelu(x); },
      [](const Tensor& x) { return nn::ops::gelu(x, "tanh"); },
      [](const Tensor& x) { return nn::ops::silu(x); },
      [](const Tensor& x) { return nn::ops::leaky_relu(x); },
      [](const Tensor& x) { return nn::ops::elu(x); },
      [](const Tensor& x) { return nn::ops::softplus(x); },
      [](const Tensor& x) { return log1p(x); },
      [](const Tensor& x) { return clamp_to_unit(x); },
      [](const Tensor& x) { return clamp_min(x, 0.0); },
      [](const Tensor& x) { return x.clone(); },
      [](const Tensor& x) { return x.t().contiguous(); },
      [](const Tensor& x) { return x * 2; },
      [](const Tensor& x) { return x + 2; },
      [](const Tensor& x) { return x - 2; },
      [](const Tensor& x) { return x / 2; },
      [](const Tensor& x) { return 2 - x; },
      [](const Tensor& x) { return 2 / x; },
      [](const Tensor& x) { return x * 0.5; },
      [](const Tensor& x) { return x + 0.5; },
      [](const Tensor& x) { return x - 0.5; },
      [](const Tensor& x) { return x / 0.5; },
      [](const Tensor& x) { return 0.5 - x; },
      [](const Tensor& x) { return 0.5 / x; },
      [](const Tensor& x) { return masked_fill(x, x > 1, 0.0); },
      [](const Tensor& x) { return dropout(x, 0.5, true); },
  };
  for (const Unary& f : differentiable) {
    const Tensor x = leaf({kRows, kColumns}, dtype);
    differentiate({x}, [&] { return f(x); });
  }
  const Unary others[] = {
      [](const Tensor& x) { return floor(x); }, [](const Tensor& x) { return round(x); },
      [](const Tensor& x) { return sign(x); },  [](const Tensor& x) { return isnan(x); },
      [](const Tensor& x) { return isinf(x); }, [](const Tensor& x) { return isfinite(x); },
  };
  for (const Unary& f : others) f(random({kRows, kColumns}, dtype));
}

/// Copies that reorder dims: matrices, the heads of attention, slices of a joint projection, images.
void copies(Dtype dtype) {
  const Tensor x = random({2, kRows, 3, kColumns}, dtype), small = random({6, kColumns}, dtype);
  for (const Tensor& t : {x, x.narrow(3, 0, kColumns / 2)}) {
    t.transpose(1, 2).contiguous(), t.permute({0, 2, 3, 1}).contiguous(),
        t.permute({2, 0, 3, 1}).contiguous();
    t.transpose(1, 2).transpose(2, 3).contiguous(), t.transpose(2, 3).contiguous(), t.contiguous();
    t[0].contiguous(), t[0].transpose(0, 1).contiguous(), t.select(2, 0).contiguous();
    t.select(2, 0).transpose(1, 2).contiguous(), t.transpose(1, 2).flatten(0, 1).transpose(1, 2).contiguous();
  }
  for (const Tensor& t : {small, small.narrow(1, 0, 6)}) t.t().contiguous(), t.contiguous();
  const Tensor joint = random({2, kRows, 3 * 32}, dtype);
  for (const Tensor& part : joint.split(32, 2)) part.view({2, kRows, 2, 16}).transpose(1, 2).contiguous();
}

/// The shapes of two operands: equal, a row, a column, a number, a transposed one.
void over_shapes(Dtype dtype, const std::function<void(const Tensor&, const Tensor&)>& call) {
  const Tensor x = random({kRows, kColumns}, dtype);
  call(x, random({kRows, kColumns}, dtype));
  call(x, random({kColumns}, dtype));
  call(x, random({kRows, 1}, dtype));
  call(x, random({}, dtype));
  call(random({}, dtype), x);
  call(x, random({kColumns, kRows}, dtype).t());
  call(random({2, kRows, kColumns}, dtype), random({kRows, kColumns}, dtype));
  call(random({2, kRows, kColumns}, dtype), random({1, kRows, 1}, dtype));
}

void binary_ops(Dtype dtype) {
  const Binary ops[] = {
      [](const Tensor& x, const Tensor& y) { return x + y; },
      [](const Tensor& x, const Tensor& y) { return x - y; },
      [](const Tensor& x, const Tensor& y) { return x * y; },
      [](const Tensor& x, const Tensor& y) { return x / y; },
  };
  const bool floating = is_floating(dtype);
  for (const Binary& f : ops) {
    over_shapes(dtype, [&](const Tensor& x, const Tensor& y) {
      if (!floating) return (void)f(x, y);
      differentiate({x, y}, [&] { return f(x, y); });
    });
  }
  const Binary equal_shapes[] = {
      [](const Tensor& x, const Tensor& y) { return maximum(x, y); },
      [](const Tensor& x, const Tensor& y) { return minimum(x, y); },
      [](const Tensor& x, const Tensor& y) { return where(x > y, x, y); },
  };
  for (const Binary& f : equal_shapes) {
    const Tensor x = random({kRows, kColumns}, dtype), y = random({kRows, kColumns}, dtype);
    if (!floating) {
      f(x, y);
    } else {
      differentiate({x, y}, [&] { return f(x, y); });
    }
  }
  const Tensor x = random({kRows, kColumns}, dtype);
  for (const Tensor& y : {random({kRows, kColumns}, dtype), random({kColumns}, dtype), random({}, dtype)}) {
    eq(x, y), ne(x, y), lt(x, y), le(x, y), gt(x, y), ge(x, y);
    x.clone().add_(y), x.clone().sub_(y), x.clone().mul_(y), x.clone().copy_(y);
    if (floating) x.clone().div_(y);
  }
  eq(x, 1), ne(x, 1), lt(x, 1), le(x, 1), gt(x, 1), ge(x, 1);
  x.clone().add_(1), x.clone().sub_(1), x.clone().mul_(2), x.clone().fill_(1), x.clone().zero_();
  where(x > 1, x, 0), where(x > 1, 0, x);
  if (!floating) remainder(x, 3), floor_divide(x, 3), remainder(x, x), floor_divide(x, x), x * 0.5, x / 2;
  if (floating) {
    x.clone().add_(x, 0.5), x.clone().mul_(0.5), x.clone().div_(2.0);
    lerp(x, x, 0.5), addcmul(x, x, x), addcdiv(x, x, x);
    x.clone().lerp_(x, 0.5), x.clone().addcmul_(x, x, 0.5), x.clone().addcdiv_(x, x, 0.5);
  }
}

void reductions(Dtype dtype) {
  const bool floating = is_floating(dtype);
  const std::function<Tensor(const Tensor&, OptionalIntArrayRef, bool)> along[] = {
      [](const Tensor& x, OptionalIntArrayRef dim, bool keep) { return x.sum(dim, keep); },
      [](const Tensor& x, OptionalIntArrayRef dim, bool keep) { return x.mean(dim, keep); },
      [](const Tensor& x, OptionalIntArrayRef dim, bool keep) { return x.var(dim, 1, keep); },
      [](const Tensor& x, OptionalIntArrayRef dim, bool keep) { return x.std(dim, 1, keep); },
      [](const Tensor& x, OptionalIntArrayRef dim, bool keep) {
        return x.amax(dim ? *dim : IntArrayRef(), keep);
      },
      [](const Tensor& x, OptionalIntArrayRef dim, bool keep) {
        return x.amin(dim ? *dim : IntArrayRef(), keep);
      },
  };
  const std::vector<std::vector<int64_t>> shapes{{kRows, kColumns}, {2, kRows, kColumns}};
  size_t number = 0;
  for (const auto& f : along) {
    const bool needs_floats = number++ >= 1 && number <= 4;
    if (needs_floats && !floating) continue;
    for (const auto& shape : shapes) {
      for (const int64_t dim : {int64_t{-1}, int64_t{0}}) {
        const Tensor x = random(shape, dtype);
        const int64_t dims[] = {dim};
        if (floating) {
          differentiate({x}, [&] { return f(x, IntArrayRef(dims), false); });
        } else {
          f(x, IntArrayRef(dims), false);
        }
      }
    }
    const Tensor x = random({kRows, kColumns}, dtype);
    const int64_t both[] = {0, 1};
    if (floating) differentiate({x}, [&] { return f(x, IntArrayRef(both), false); });
    f(x, IntArrayRef(both), false);
  }
  const Tensor x = random({kRows, kColumns}, dtype), row = random({1, kColumns}, dtype);
  sum(row, -1), sum(row), sum(random({kRows, 10}, dtype), 0), sum(random({kRows, 10}, dtype), -1);
  argmax(x), argmax(x, -1), argmax(x, 0), argmin(x, -1), max(x), min(x), max(x, -1), min(x, -1);
  if (floating) {
    differentiate({x}, [&] { return sum(x); });
    differentiate({x}, [&] { return mean(x); });
    for (const int64_t n : {int64_t{40000}, kColumns}) sum(random({n}, dtype)), mean(random({n}, dtype));
    logsumexp(x, -1), linalg::vector_norm(x), linalg::vector_norm(x, 2, IntArrayRef{-1});
  } else {
    sum(x);
  }
}

void rows_ops(Dtype dtype) {
  for (const auto& shape : std::vector<std::vector<int64_t>>{
           {kRows, kColumns}, {2, kRows, kColumns}, {1, kColumns}, {kManyRows, kColumns}}) {
    const Tensor x = random(shape, dtype);
    differentiate({x}, [&] { return softmax(x, -1); });
    differentiate({x}, [&] { return log_softmax(x, -1); });
    const Tensor w = random({kColumns}, dtype), b = random({kColumns}, dtype);
    differentiate({x}, [&] { return layer_norm(x, kColumns); });
    differentiate({x, w}, [&] { return layer_norm(x, kColumns, w); });
    differentiate({x, w, b}, [&] { return layer_norm(x, kColumns, w, b); });
    differentiate({x, w}, [&] { return rms_norm(x, kColumns, w, 1e-6); });
  }
  const Tensor scores = random({2, 3, 16, 16}, dtype);
  differentiate({scores}, [&] {
    return softmax(masked_fill(scores, tril(ones({16, 16}, kBool)).logical_not(), -1e9), -1);
  });
  const Tensor q = random({2, 3, 16, 32}, dtype), k = random({2, 3, 16, 32}, dtype),
               v = random({2, 3, 16, 32}, dtype);
  for (const bool causal : {false, true})
    differentiate({q, k, v}, [&] { return nn::ops::scaled_dot_product_attention(q, k, v, {}, 0.0, causal); });
  // Losses.
  const Tensor logits = random({kRows, kColumns}, dtype), target = randint(kColumns, {kRows}, kInt64);
  const Tensor many = random({kManyRows, kColumns}, dtype), targets = randint(kColumns, {kManyRows}, kInt64);
  differentiate({logits}, [&] { return F::cross_entropy(logits, target); });
  differentiate({many}, [&] { return F::cross_entropy(many, targets); });
  differentiate({logits}, [&] { return nll_loss(log_softmax(logits, -1), target); });
  const Tensor same = random({kRows, kColumns}, dtype);
  differentiate({logits}, [&] { return F::mse_loss(logits, same); });
  differentiate({logits}, [&] { return F::l1_loss(logits, same); });
  differentiate({logits}, [&] { return F::binary_cross_entropy_with_logits(logits, same); });
  // Images.
  const Tensor image = random({2, 4, 8, 8}, dtype), w = random({4}, dtype), b = random({4}, dtype);
  Tensor mean = zeros({4}, dtype), var = ones({4}, dtype);
  for (const bool training : {true, false}) {
    differentiate({image, w, b}, [&] { return F::batch_norm(image, mean, var, w, b, training); });
  }
  differentiate({image, w, b}, [&] { return group_norm(image, 2, w, b); });
  differentiate({image, w}, [&] { return image + w.view({1, 4, 1, 1}); });
  differentiate({image}, [&] { return image.mean(IntArrayRef{2, 3}); });
  image.permute({0, 2, 3, 1}).contiguous();
  embedding(random({kColumns, kRows}, dtype), target);
}

void layers_and_optimizers() {
  const auto train = [](auto make) {
    nn::Sequential model(nn::Linear(kColumns, 48), nn::ReLU(), nn::Linear(48, kColumns),
                         nn::LayerNorm(kColumns));
    auto optimizer = make(model->parameters());
    for (int i = 0; i < 3; ++i) {
      optimizer.zero_grad();
      F::cross_entropy(model->forward(randn({kRows, kColumns})), randint(kColumns, {kRows}, kInt64))
          .backward();
      optimizer.step();
    }
  };
  train([](auto p) { return optim::SGD(p, optim::SGDOptions(0.1)); });
  train([](auto p) { return optim::SGD(p, optim::SGDOptions(0.1).momentum(0.9)); });
  train([](auto p) { return optim::SGD(p, optim::SGDOptions(0.1).momentum(0.9).weight_decay(0.1)); });
  train([](auto p) { return optim::Adam(p, optim::AdamOptions(0.1)); });
  train([](auto p) { return optim::AdamW(p, optim::AdamWOptions(0.1)); });
}

void creation_and_casts() {
  const Dtype dtypes[] = {kFloat32, kBFloat16, kFloat16, kFloat64, kInt64, kInt32, kUInt8, kBool};
  for (const Dtype from : dtypes) {
    const Tensor x = ones({kRows, kColumns}, from);
    for (const Dtype to : dtypes) x.to(to);
    x.narrow(1, 1, 5).clone(), x.t().contiguous(), x.narrow(1, 1, 5).fill_(1);
    x.clone().narrow(1, 1, 5).copy_(x.narrow(1, 7, 5));
  }
  const Tensor flags = ones({kRows, kColumns}, kBool);
  flags.logical_not(), flags.logical_and(flags), flags.logical_or(flags), flags &flags, flags | flags;
  flags.sum(), flags.any(), flags.all(), flags.sum(-1), flags.to(kFloat32).mean();
  arange(5), arange(5, TensorOptions(kFloat32)), arange(1, 5), linspace(0, 1, 5), full({3}, 1.5), eye(3);
  randn({5}), rand({5}), randint(5, {5}, kInt64), randperm(5), bernoulli(full({5}, 0.5));
  tril(ones({4, 4})), triu(ones({4, 4})), nn::ops::one_hot(arange(3), 3);
  cat({randn({2, 3}), randn({2, 3})}), stack({randn({2, 3}), randn({2, 3})});
}

}  // namespace

void run_usual_ops() {
  for (const Dtype dtype : {kFloat32, kBFloat16}) {
    unary_ops(dtype);
    copies(dtype);
    binary_ops(dtype);
    reductions(dtype);
    rows_ops(dtype);
  }
  copies(kInt64);
  binary_ops(kInt64);
  reductions(kInt64);
  layers_and_optimizers();
  creation_and_casts();
}

}  // namespace lohe::gen
