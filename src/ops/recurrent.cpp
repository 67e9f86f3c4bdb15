#include <algorithm>

#include "lohe/error.h"
#include "ops/call.h"
#include "tensor/shape.h"

/// Recurrent networks: steps of linear maps and pointwise functions, along time and through layers.
namespace lohe::ops {
namespace {

enum class Cell : uint8_t { kTanh, kRelu, kLstm, kGru };

int64_t gates_of(Cell cell) { return cell == Cell::kLstm ? 4 : cell == Cell::kGru ? 3 : 1; }

/// The weights of one layer and direction; biases and the projection may be absent.
struct Weights {
  TensorPtr w_ih, w_hh, b_ih, b_hh, w_hr;
};
/// h, and c of an LSTM.
struct State {
  TensorPtr h, c;
};

TensorPtr linear(const TensorPtr& x, const TensorPtr& w, const TensorPtr& b) {
  static const OpRef row("linear");
  return row(x, w, b);
}

Results chunk(const TensorPtr& x, int64_t n) {
  static const OpRef row("chunk");
  return row.all(x, n, int64_t{-1});
}

TensorPtr add(const TensorPtr& a, const TensorPtr& b) {
  static const OpRef row("add");
  return row(a, b);
}
TensorPtr sub(const TensorPtr& a, const TensorPtr& b) {
  static const OpRef row("sub");
  return row(a, b);
}
TensorPtr mul(const TensorPtr& a, const TensorPtr& b) {
  static const OpRef row("mul");
  return row(a, b);
}
TensorPtr sigmoid(const TensorPtr& x) {
  static const OpRef row("sigmoid");
  return row(x);
}
TensorPtr tanh(const TensorPtr& x) {
  static const OpRef row("tanh");
  return row(x);
}
TensorPtr relu(const TensorPtr& x) {
  static const OpRef row("relu");
  return row(x);
}

/// One step; `x` is W_ih x + b_ih of all gates.
State step(Cell cell, const TensorPtr& x, const State& s, const Weights& w) {
  const TensorPtr hidden = linear(s.h, w.w_hh, w.b_hh);
  if (cell == Cell::kTanh) return {tanh(add(x, hidden)), nullptr};
  if (cell == Cell::kRelu) return {relu(add(x, hidden)), nullptr};
  if (cell == Cell::kGru) {
    const Results a = chunk(x, 3), b = chunk(hidden, 3);
    const TensorPtr r = sigmoid(add(a[0], b[0])), z = sigmoid(add(a[1], b[1]));
    const TensorPtr n = tanh(add(a[2], mul(r, b[2])));
    return {add(n, mul(z, sub(s.h, n))), nullptr};
  }
  const Results g = chunk(add(x, hidden), 4);  // input, forget, cell, output
  const TensorPtr c = add(mul(sigmoid(g[1]), s.c), mul(sigmoid(g[0]), tanh(g[2])));
  const TensorPtr h = mul(sigmoid(g[3]), tanh(c));
  return {w.w_hr ? linear(h, w.w_hr, nullptr) : h, c};
}

std::vector<TensorImpl*> pointers(const std::vector<TensorPtr>& list) {
  std::vector<TensorImpl*> result;
  result.reserve(list.size());
  for (const TensorPtr& t : list) result.push_back(t.get());
  return result;
}

TensorPtr stack(const std::vector<TensorPtr>& list) {
  static const OpRef row("stack");
  const std::vector<TensorImpl*> parts = pointers(list);
  return row(std::span<TensorImpl* const>(parts), int64_t{0});
}

TensorPtr join(const std::vector<TensorPtr>& list, int64_t dim) {
  static const OpRef row("cat");
  if (list.size() == 1) return list[0];
  const std::vector<TensorImpl*> parts = pointers(list);
  return row(std::span<TensorImpl* const>(parts), dim);
}

/// The weights by layer and direction. @throws RuntimeError unless there are as many as the network needs.
std::vector<Weights> sorted(const char* name, std::span<TensorImpl* const> params, int64_t places,
                            bool biases, bool projected) {
  const size_t each = 2 + (biases ? 2 : 0) + (projected ? 1 : 0);
  LOHE_CHECK(params.size() == each * static_cast<size_t>(places), name, ": expected ", each,
             " weights for each layer and direction, ", each * static_cast<size_t>(places),
             " together, but got ", params.size());
  std::vector<Weights> list;
  for (size_t i = 0; i < params.size(); i += each) {
    Weights w;
    w.w_ih = TensorPtr(params[i]);
    w.w_hh = TensorPtr(params[i + 1]);
    if (biases) {
      w.b_ih = TensorPtr(params[i + 2]);
      w.b_hh = TensorPtr(params[i + 3]);
    }
    if (projected) w.w_hr = TensorPtr(params[i + each - 1]);
    list.push_back(std::move(w));
  }
  return list;
}

void check_state(const char* name, const TensorImpl& state, int64_t places, int64_t batch) {
  LOHE_CHECK(state.dim() == 3 && state.sizes()[0] == places && state.sizes()[1] == batch, name,
             ": expected a state of size [", places, ", ", batch,
             ", *] (layers times directions, batch, width), "
             "but got ",
             to_string(state.sizes()));
}

/// input, hx, params, has_biases, num_layers, dropout, train, bidirectional, batch_first
Results run(const char* name, Cell cell, Args a) {
  static const OpRef transpose("transpose.int"), unbind("unbind.int"), select("select.int"),
      dropout("dropout");
  const TensorImpl& input = *a[0].tensor;
  const bool biases = a[3].integer != 0, train = a[6].integer != 0, both = a[7].integer != 0;
  const bool batch_first = a[8].integer != 0;
  const int64_t layers = a[4].integer, directions = both ? 2 : 1, places = layers * directions;
  const double p = a[5].scalar().to_double();
  LOHE_CHECK(input.dim() == 3, name, ": expected an input of 3 dims, but got ", input.dim(),
             "; add a batch dim with unsqueeze");
  LOHE_CHECK(layers > 0, name, ": num_layers must be positive, but got ", layers);
  LOHE_CHECK(input.sizes()[batch_first ? 1 : 0] > 0, "Expected sequence length to be larger than 0 in RNN");
  const int64_t batch = input.sizes()[batch_first ? 0 : 1];
  TensorPtr h0, c0;
  if (cell == Cell::kLstm) {
    LOHE_CHECK(a[1].count == 2, "lstm expects two hidden states, but got ", a[1].count);
    h0 = TensorPtr(a[1].tensors[0]);
    c0 = TensorPtr(a[1].tensors[1]);
    check_state(name, *c0, places, batch);
  } else {
    h0 = TensorPtr(a[1].tensor);
  }
  check_state(name, *h0, places, batch);
  const bool projected = cell == Cell::kLstm && h0->sizes()[2] != c0->sizes()[2];
  const std::vector<Weights> weights = sorted(name, a[2].tensor_list(), places, biases, projected);
  const int64_t hidden = (c0 ? c0 : h0)->sizes()[2];
  for (const Weights& w : weights) {
    LOHE_CHECK(w.w_hh->dim() == 2 && w.w_hh->sizes()[0] == gates_of(cell) * hidden, name,
               ": expected a hidden weight of ", gates_of(cell) * hidden, " rows for a state of width ",
               hidden, ", but got size ", to_string(w.w_hh->sizes()));
  }

  TensorPtr x(a[0].tensor);
  if (batch_first) x = transpose(x, int64_t{0}, int64_t{1});
  std::vector<TensorPtr> last_h, last_c;
  for (int64_t layer = 0; layer < layers; ++layer) {
    std::vector<TensorPtr> outputs;
    for (int64_t direction = 0; direction < directions; ++direction) {
      const int64_t place = layer * directions + direction;
      const Weights& w = weights[static_cast<size_t>(place)];
      const Results gates = unbind.all(linear(x, w.w_ih, w.b_ih), int64_t{0});
      State state{select(h0, int64_t{0}, place), c0 ? select(c0, int64_t{0}, place) : nullptr};
      std::vector<TensorPtr> shown(static_cast<size_t>(gates.size()));
      for (int i = 0; i < gates.size(); ++i) {
        const int t = direction == 0 ? i : gates.size() - 1 - i;
        state = step(cell, gates[t], state, w);
        shown[static_cast<size_t>(t)] = state.h;
      }
      outputs.push_back(stack(shown));
      last_h.push_back(state.h);
      last_c.push_back(state.c);
    }
    x = join(outputs, -1);
    if (p > 0 && train && layer < layers - 1) x = dropout(x, p, true);
  }
  if (batch_first) x = transpose(x, int64_t{0}, int64_t{1});
  if (cell == Cell::kLstm) return {x, stack(last_h), stack(last_c)};
  return {x, stack(last_h)};
}

/// input, hx, w_ih, w_hh, b_ih, b_hh
Results run_cell(const char* name, Cell cell, Args a) {
  State state;
  if (cell == Cell::kLstm) {
    LOHE_CHECK(a[1].count == 2, "lstm_cell expects two hidden states, but got ", a[1].count);
    state = {TensorPtr(a[1].tensors[0]), TensorPtr(a[1].tensors[1])};
  } else {
    state.h = TensorPtr(a[1].tensor);
  }
  const TensorImpl& input = *a[0].tensor;
  const TensorImpl& w_hh = *a[3].tensor;
  LOHE_CHECK(input.dim() == 2 && w_hh.dim() == 2, name,
             ": expected input and weights of 2 dims, but got input of ", input.dim(), " and w_hh of ",
             w_hh.dim());
  const int64_t hidden = w_hh.sizes()[0] / gates_of(cell);
  for (const TensorPtr& s : {state.h, state.c}) {
    LOHE_CHECK(!s || (s->dim() == 2 && s->sizes()[0] == input.sizes()[0] && s->sizes()[1] == hidden), name,
               ": expected a state of size [", input.sizes()[0], ", ", hidden,
               "] (batch, hidden size), but got ", s ? to_string(s->sizes()) : std::string());
  }
  const Weights w{TensorPtr(a[2].tensor), TensorPtr(a[3].tensor),
                  a[4].none() ? TensorPtr() : TensorPtr(a[4].tensor),
                  a[5].none() ? TensorPtr() : TensorPtr(a[5].tensor), TensorPtr()};
  State next = step(cell, linear(TensorPtr(a[0].tensor), w.w_ih, w.b_ih), state, w);
  if (cell == Cell::kLstm) return {next.h, next.c};
  return Results(next.h);
}

const OpFamily recurrent_rows(
    "recurrent",
    {
        function(
            "lstm.input(Tensor input, Tensor[] hx, Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor, Tensor)",
            [](Args a) { return run("lstm", Cell::kLstm, a); })
            .function_only()
            .describe(
                "Long short-term memory (Hochreiter and Schmidhuber, 1997) of (L, N, H_in), gates in the order "
                "input, forget, cell, output: the outputs, and the last h and c."),
        function(
            "gru.input(Tensor input, Tensor hx, Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor)",
            [](Args a) { return run("gru", Cell::kGru, a); })
            .function_only()
            .describe(
                "Gated recurrent units (Cho et al., 2014) of (L, N, H_in), gates in the order reset, update, "
                "new: the outputs, and the last state."),
        function(
            "rnn_tanh.input(Tensor input, Tensor hx, Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor)",
            [](Args a) { return run("rnn_tanh", Cell::kTanh, a); })
            .function_only()
            .describe("Elman's network with tanh of (L, N, H_in): the outputs, and the last state."),
        function(
            "rnn_relu.input(Tensor input, Tensor hx, Tensor[] params, bool has_biases, int num_layers, float dropout, bool train, bool bidirectional, bool batch_first) -> (Tensor, Tensor)",
            [](Args a) { return run("rnn_relu", Cell::kRelu, a); })
            .function_only()
            .describe("Elman's network with relu of (L, N, H_in): the outputs, and the last state."),
        function(
            "lstm_cell(Tensor input, Tensor[] hx, Tensor w_ih, Tensor w_hh, Tensor? b_ih=None, Tensor? b_hh=None) -> (Tensor, Tensor)",
            [](Args a) { return run_cell("lstm_cell", Cell::kLstm, a); })
            .function_only()
            .describe("One step of lstm on (N, H_in)."),
        function(
            "gru_cell(Tensor input, Tensor hx, Tensor w_ih, Tensor w_hh, Tensor? b_ih=None, Tensor? b_hh=None) -> Tensor",
            [](Args a) { return run_cell("gru_cell", Cell::kGru, a); })
            .function_only()
            .describe("One step of gru on (N, H_in)."),
        function(
            "rnn_tanh_cell(Tensor input, Tensor hx, Tensor w_ih, Tensor w_hh, Tensor? b_ih=None, Tensor? b_hh=None) -> Tensor",
            [](Args a) { return run_cell("rnn_tanh_cell", Cell::kTanh, a); })
            .function_only()
            .describe("One step of rnn_tanh on (N, H_in)."),
        function(
            "rnn_relu_cell(Tensor input, Tensor hx, Tensor w_ih, Tensor w_hh, Tensor? b_ih=None, Tensor? b_hh=None) -> Tensor",
            [](Args a) { return run_cell("rnn_relu_cell", Cell::kRelu, a); })
            .function_only()
            .describe("One step of rnn_relu on (N, H_in)."),
    });

}  // namespace
}  // namespace lohe::ops
