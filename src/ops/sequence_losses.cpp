#include <algorithm>
#include <limits>

#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// Losses of sequences: connectionist temporal classification.
namespace lohe::ops {
namespace {

using namespace ir;

constexpr int64_t kNone = 0, kMean = 1;

constexpr double kNever = -std::numeric_limits<double>::infinity();

/// Each target with a blank before, between and after its symbols: the states that an alignment runs through,
/// (batch, states) for the longest target.
struct States {
  TensorPtr symbols;   ///< int64
  TensorPtr may_skip;  ///< bool: the blank before may be left out, since the symbols around it differ
  TensorPtr ends;      ///< 0 at the two states that an alignment may end in, -infinity elsewhere
  int64_t count = 1;
};

/// @param a targets, input_lengths, target_lengths, blank. @throws RuntimeError for a label out of range
States states_of(const TensorImpl& log_probs, Args a) {
  static const OpRef to("to.dtype"), contiguous("contiguous"), full("full");
  const TensorPtr targets = contiguous(to(a[0].tensor, kInt64));
  const auto* labels = reinterpret_cast<const int64_t*>(targets->data());
  const auto lengths = a[2].int_list();
  const int64_t classes = log_probs.sizes()[2], blank = a[3].integer;
  States s;
  for (const int64_t n : lengths) s.count = std::max(s.count, 2 * n + 1);
  const Dims sizes{static_cast<int64_t>(lengths.size()), s.count};
  s.symbols = full(sizes, blank, kInt64);
  s.may_skip = full(sizes, false, kBool);
  const TensorPtr ends = full(sizes, kNever, kFloat64);
  auto* symbol = reinterpret_cast<int64_t*>(s.symbols->data());
  auto* skip = reinterpret_cast<bool*>(s.may_skip->data());
  auto* end = reinterpret_cast<double*>(ends->data());
  for (const int64_t n : lengths) {
    for (int64_t k = 0; k < n; ++k) {
      LOHE_CHECK(labels[k] >= 0 && labels[k] < classes, "ctc_loss: target ", labels[k],
                 " is out of range for ", classes, " classes");
      symbol[2 * k + 1] = labels[k];
      skip[2 * k + 1] = k > 0 && labels[k] != labels[k - 1];
    }
    end[2 * n] = 0;
    if (n > 0) end[2 * n - 1] = 0;
    labels += targets->dim() == 2 ? targets->sizes()[1] : n;
    symbol += s.count;
    skip += s.count;
    end += s.count;
  }
  s.ends = to(ends, log_probs.dtype());
  return s;
}

/// (time, batch, states): the log probability of each state's symbol.
TensorPtr emissions(const TensorPtr& log_probs, const States& s) {
  static const OpRef gather("gather"), expand("expand");
  const Dims sizes{log_probs->sizes()[0], log_probs->sizes()[1], s.count};
  return gather(log_probs, int64_t{2}, expand(s.symbols, sizes));
}

TensorPtr columns(const TensorPtr& t, int64_t from, int64_t to) {
  static const OpRef slice("slice.Tensor");
  return slice(t, int64_t{1}, from, to);
}

/// Log probabilities of all prefixes that end in each state at each time: (time, batch, 2 + states), two
/// columns of impossible states in front.
TensorPtr prefixes(const TensorPtr& emit, const States& s) {
  static const OpRef full("full"), select("select.int"), copy("copy_"), step("_ctc_step");
  const int64_t time = emit->sizes()[0], n = s.count;
  const TensorPtr alpha = full(Dims{time, emit->sizes()[1], n + 2}, kNever, emit->dtype());
  for (int64_t t = 0; t < time; ++t) {
    const TensorPtr now = select(alpha, int64_t{0}, t), symbols = select(emit, int64_t{0}, t);
    if (t == 0) {
      const int64_t starts = std::min<int64_t>(n, 2);
      copy(columns(now, 2, 2 + starts), columns(symbols, 0, starts));
      continue;
    }
    const TensorPtr before = select(alpha, int64_t{0}, t - 1);
    copy(columns(now, 2, n + 2), step(columns(before, 2, n + 2), columns(before, 1, n + 1),
                                      columns(before, 0, n), s.may_skip, symbols));
  }
  return alpha;
}

void run_losses(Args a, Results& r) {
  static const OpRef contiguous("contiguous"), to("to.dtype"), empty("empty"), step("_ctc_step"), neg("neg"),
      copy("copy_"), slice("slice.Tensor");
  const NoGrad no_grad;
  const TensorPtr x = contiguous(a[0].tensor);
  const States s = states_of(*x, a.subspan(1));
  const TensorPtr alpha = prefixes(emissions(x, s), s);
  copy(r[1], slice(alpha, int64_t{2}, int64_t{2}, s.count + 2));
  // What each sample's alignments that end in its last symbol, and in the blank behind it, add up to.
  const int64_t batch = x->sizes()[1];
  const TensorPtr wide = to(r[1], kFloat64), ends = empty(Dims{3, batch}, kFloat64);
  const auto* at = reinterpret_cast<const double*>(wide->data());
  auto* end = reinterpret_cast<double*>(ends->data());
  const auto steps = a[2].int_list(), lengths = a[3].int_list();
  for (int64_t n = 0; n < batch; ++n) {
    const auto i = static_cast<size_t>(n);
    const double* last = at + ((steps[i] - 1) * batch + n) * s.count + 2 * lengths[i];
    end[n] = steps[i] == 0 ? (lengths[i] == 0 ? 0 : kNever) : *last;
    end[batch + n] = steps[i] == 0 || lengths[i] == 0 ? kNever : last[-1];
    end[2 * batch + n] = 0;
  }
  static const OpRef select("select.int"), full("full");
  const auto row = [&](int64_t k) { return TensorPtr(select(ends, int64_t{0}, k)); };
  copy(r[0], neg(step(row(0), row(1), row(1), full(Dims{batch}, false, kBool), row(2))));
}

/// grad, log_probs, targets, input_lengths, target_lengths, blank, neg_log_likelihood, log_alpha,
/// zero_infinity
void run_gradient(Args a, Results& r) {
  static const OpRef contiguous("contiguous"), full("full"), select("select.int"), copy("copy_"),
      step("_ctc_step"), where("where.self"), add("add"), sub("sub"), mul("mul"), exp("exp"), neg("neg"),
      scatter("scatter_add"), expand("expand"), unsqueeze("unsqueeze"), eq("eq"), both("logical_or");
  const NoGrad no_grad;
  const TensorPtr x = contiguous(a[1].tensor);
  const States s = states_of(*x, a.subspan(2));
  const TensorPtr emit = emissions(x, s);
  const int64_t time = x->sizes()[0], batch = x->sizes()[1], n = s.count;
  // Log probabilities of all suffixes; two columns of impossible states behind.
  const TensorPtr beta = full(Dims{time, batch, n + 2}, kNever, x->dtype());
  const TensorPtr last = full(Dims{time, batch, 1}, false, kBool),
                  outside = full(Dims{time, batch, 1}, false, kBool);
  auto* is_last = reinterpret_cast<bool*>(last->data());
  auto* is_outside = reinterpret_cast<bool*>(outside->data());
  const auto steps = a[3].int_list();
  for (int64_t t = 0; t < time; ++t) {
    for (int64_t k = 0; k < batch; ++k) {
      is_last[t * batch + k] = t + 1 == steps[static_cast<size_t>(k)];
      is_outside[t * batch + k] = t >= steps[static_cast<size_t>(k)];
    }
  }
  // A state may be skipped on the way to the one two behind if that one's blank may be left out.
  const TensorPtr skip = full(Dims{batch, n + 2}, false, kBool);
  copy(columns(skip, 0, n), s.may_skip);
  const TensorPtr silent = full(Dims{batch, n}, 0.0, x->dtype());
  for (int64_t t = time - 1; t >= 0; --t) {
    TensorPtr reach = s.ends;
    if (t + 1 < time) {
      const TensorPtr after = select(beta, int64_t{0}, t + 1);
      reach = step(columns(after, 0, n), columns(after, 1, n + 1), columns(after, 2, n + 2),
                   columns(skip, 2, n + 2), silent);
      reach = where(select(last, int64_t{0}, t), s.ends, reach);
    }
    copy(columns(select(beta, int64_t{0}, t), 0, n), add(reach, select(emit, int64_t{0}, t)));
  }
  static const OpRef slice("slice.Tensor");
  const TensorPtr both_ways = add(a[7].tensor, slice(beta, int64_t{2}, int64_t{0}, n));
  const TensorPtr losses = unsqueeze(a[6].tensor, int64_t{1});
  // How likely each state is at each time, given the target.
  const TensorPtr occupied = exp(sub(add(both_ways, losses), emit));
  const TensorPtr slope = scatter(exp(x), int64_t{2}, expand(s.symbols, Dims{time, batch, n}), neg(occupied));
  TensorPtr nothing = outside;
  if (a[8].integer != 0) nothing = both(nothing, eq(losses, -kNever));
  copy(r[0], where(nothing, 0.0, mul(slope, unsqueeze(a[0].tensor, int64_t{1}))));
}

std::vector<Meta> infer_losses(Args a) {
  const TensorImpl &x = *a[0].tensor, &targets = *a[1].tensor;
  const auto inputs = a[2].int_list(), lengths = a[3].int_list();
  LOHE_CHECK(x.dim() == 3, "ctc_loss: log_probs must be (T, N, C) or (T, C), got shape ",
             to_string(x.sizes()));
  LOHE_CHECK_KIND(kNotImplemented, x.dtype() == kFloat32 || x.dtype() == kFloat64,
                  "\"ctc_loss_cpu\" not implemented for '", x.dtype(),
                  "'; convert log_probs to float32 or float64");
  const int64_t time = x.sizes()[0], batch = x.sizes()[1], classes = x.sizes()[2], blank = a[4].integer;
  LOHE_CHECK(blank >= 0 && blank < classes, "blank must be in label range, got ", blank, " for ", classes,
             " classes");
  LOHE_CHECK(static_cast<int64_t>(inputs.size()) == batch, "input_lengths must be of size batch_size, got ",
             inputs.size(), " for a batch of ", batch);
  LOHE_CHECK(static_cast<int64_t>(lengths.size()) == batch, "target_lengths must be of size batch_size, got ",
             lengths.size(), " for a batch of ", batch);
  int64_t total = 0, longest = 0;
  for (size_t n = 0; n < inputs.size(); ++n) {
    LOHE_CHECK(inputs[n] >= 0 && inputs[n] <= time, "Expected input_lengths to have value between 0 and ",
               time, ", but got value ", inputs[n], " in ctc_loss");
    LOHE_CHECK(lengths[n] >= 0, "Expected target_lengths to have value at least 0, but got value ",
               lengths[n], " in ctc_loss");
    total += lengths[n];
    longest = std::max(longest, lengths[n]);
  }
  LOHE_CHECK(targets.dtype() == kInt64 || targets.dtype() == kInt32,
             "ctc_loss: targets must be int32 or int64, got ", targets.dtype());
  LOHE_CHECK(targets.dim() == 1 || targets.dim() == 2, "targets tensor must be 1 or 2 dimensional, but got ",
             targets.dim(), " dimensions");
  if (targets.dim() == 1) {
    LOHE_CHECK(targets.sizes()[0] == total, "Expected tensor to have size ", total,
               " at dimension 0, but got size ", targets.sizes()[0], " for argument 'targets' of ctc_loss");
  } else {
    LOHE_CHECK(targets.sizes()[0] == batch && targets.sizes()[1] >= longest, "Expected targets of ", batch,
               " rows and at least ", longest, " columns in ctc_loss, but got shape ",
               to_string(targets.sizes()));
  }
  Meta losses, alpha;
  losses.dtype = alpha.dtype = x.dtype();
  losses.sizes = {batch};
  alpha.sizes = {time, batch, 2 * longest + 1};
  return {losses, alpha};
}

Results loss_of(const Arg& log_probs, const Arg& targets, const Dims& inputs, const Dims& lengths,
                const Arg& blank, int64_t reduction, bool zero_infinity) {
  static const OpRef row("_ctc_loss"), unsqueeze("unsqueeze"), squeeze("squeeze.dim"), where("where.self"),
      eq("eq"), div("div"), mean("mean"), sum("sum"), empty("empty"), to("to.dtype");
  const bool batched = log_probs.tensor->dim() == 3;
  const TensorPtr x = batched ? TensorPtr(log_probs.tensor) : TensorPtr(unsqueeze(log_probs, int64_t{1}));
  TensorPtr loss = row.all(x, targets, inputs, lengths, blank, zero_infinity)[0];
  if (zero_infinity) loss = where(eq(loss, std::numeric_limits<double>::infinity()), 0.0, loss);
  if (reduction == kNone) return Results(batched ? loss : TensorPtr(squeeze(loss, int64_t{0})));
  if (reduction != kMean) return Results(sum(loss));
  // The mean over the batch of losses by symbol; an empty target counts as one.
  const TensorPtr divisors = empty(Dims{static_cast<int64_t>(lengths.size())}, kFloat64);
  auto* values = reinterpret_cast<double*>(divisors->data());
  for (size_t n = 0; n < lengths.size(); ++n)
    values[n] = static_cast<double>(std::max<int64_t>(lengths[n], 1));
  return Results(mean(div(loss, to(divisors, loss->dtype()))));
}

Dims lengths_in(const Arg& t, const char* name) {
  static const OpRef to("to.dtype"), contiguous("contiguous"), reshape("reshape");
  LOHE_CHECK(is_integral(t.tensor->dtype(), false), name, " must be integral, got ", t.tensor->dtype());
  const NoGrad no_grad;
  const TensorPtr flat = contiguous(to(t.tensor, kInt64));
  const auto* values = reinterpret_cast<const int64_t*>(flat->data());
  Dims list;
  for (int64_t i = 0; i < flat->numel(); ++i) list.push_back(values[i]);
  return list;
}

const OpFamily sequence_losses(
    "sequence_losses",
    {
        pointwise("_ctc_step(Tensor stay, Tensor step, Tensor skip, Tensor may_skip, Tensor emit) -> Tensor",
                  [](Value stay, Value step, Value skip, Value may_skip, Value emit) {
                    const Value never = stay.literal(kNever);
                    skip = select(may_skip, skip, never);
                    const Value highest = maximum(maximum(stay, step), skip);
                    const Value base = select(highest == never, stay.literal(0), highest);
                    return log(exp(stay - base) + exp(step - base) + exp(skip - base)) + base + emit;
                  })
            .mask("may_skip")
            .dtypes_are(kFloats)
            .no_inplace()
            .not_differentiable()
            .in("_C")
            .describe("Log of the sum of three probabilities given as logs, times another one."),
        primitive(
            "_ctc_loss(Tensor log_probs, Tensor targets, int[] input_lengths, int[] target_lengths, int blank=0, bool zero_infinity=False) -> (Tensor, Tensor)",
            infer_losses, run_losses)
            .grad([](Backward& b) {
              static const OpRef row("_ctc_loss_backward");
              if (b.needs(0) && b.grad(0)) {
                b.set(0, row(b.grad(0), b.tensor(0), b.tensor(1), b.arg(2), b.arg(3), b.arg(4), b.result(0),
                             b.result(1), b.arg(5)));
              }
            })
            .gradient_reads({"log_probs", "targets", "result0", "result1"})
            .function_only()
            .describe("ctc_loss of each sample, and the log probabilities of all prefixes."),
        primitive(
            "_ctc_loss_backward(Tensor grad, Tensor log_probs, Tensor targets, int[] input_lengths, int[] target_lengths, int blank, Tensor neg_log_likelihood, Tensor log_alpha, bool zero_infinity=False) -> Tensor",
            [](Args a) {
              Meta m;
              m.dtype = a[1].tensor->dtype();
              m.sizes = a[1].tensor->size_dims();
              return std::vector<Meta>{m};
            },
            run_gradient)
            .function_only()
            .describe("The gradient of _ctc_loss."),
        function(
            "ctc_loss.IntList(Tensor log_probs, Tensor targets, int[] input_lengths, int[] target_lengths, int blank=0, int reduction=1, bool zero_infinity=False) -> Tensor",
            [](Args a) {
              return loss_of(a[0], a[1], Dims(a[2].int_list()), Dims(a[3].int_list()), a[4], a[5].integer,
                             a[6].integer != 0);
            })
            .function_only()
            .describe(
                "Connectionist temporal classification of (T, N, C) log-probabilities (Graves et al. 2006)."),
        function(
            "ctc_loss.Tensor(Tensor log_probs, Tensor targets, Tensor input_lengths, Tensor target_lengths, int blank=0, int reduction=1, bool zero_infinity=False) -> Tensor",
            [](Args a) {
              return loss_of(a[0], a[1], lengths_in(a[2], "input_lengths"),
                             lengths_in(a[3], "target_lengths"), a[4], a[5].integer, a[6].integer != 0);
            })
            .function_only()
            .describe(
                "Connectionist temporal classification of (T, N, C) log-probabilities (Graves et al. 2006)."),
    });

}  // namespace
}  // namespace lohe::ops
