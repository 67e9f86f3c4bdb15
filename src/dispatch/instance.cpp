#include "dispatch/instance.h"

#include <cstring>
#include <mutex>
#include <unordered_map>

#include "base/fork.h"
#include "lohe/error.h"
#include "ops/indexing.h"
#include "ops/public_name.h"

namespace lohe::dispatch {
namespace {

using namespace ops;

/// What tells one instance of a row from another: dtypes or number categories, presence, static attributes.
struct Key {
  Key() { std::memset(bytes, 0, kWords * 8); }
  static constexpr size_t kWords = 2;  ///< what most keys fit in; behind their bytes it is 0
  char bytes[120];
  uint32_t size = 0;
  void add(const void* p, size_t n) {
    LOHE_INTERNAL_ASSERT(size + n <= sizeof(bytes), "too many static attributes");
    std::memcpy(bytes + size, p, n);
    size += static_cast<uint32_t>(n);
  }
  void byte(uint8_t b) { bytes[size++] = static_cast<char>(b); }
  std::string_view view() const { return {bytes, size}; }
  bool operator==(const Key& o) const {
    uint64_t a[kWords], b[kWords];
    std::memcpy(a, bytes, sizeof a);
    std::memcpy(b, o.bytes, sizeof b);
    return size == o.size && a[0] == b[0] && a[1] == b[1] &&
           (size <= sizeof a || std::memcmp(bytes + sizeof a, o.bytes + sizeof a, size - sizeof a) == 0);
  }
};

struct RowState {
  std::mutex mutex;
  std::unordered_map<std::string, std::unique_ptr<Instance>> instances;
  /// The last ones found, read without a lock; entries are never freed.
  struct Recent {
    Key key;
    const Instance* instance;
  };
  std::atomic<const Recent*> recent[2] = {};
  std::vector<std::unique_ptr<Recent>> kept;
};

RowState& state_of(const OpDef& op) {
  void* state = __atomic_load_n(&op.state, __ATOMIC_ACQUIRE);
  if (state == nullptr) {
    auto* made = new RowState();
    void* expected = nullptr;
    if (!__atomic_compare_exchange_n(&op.state, &expected, made, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
      delete made;
      state = expected;
    } else {
      state = made;
    }
  }
  return *static_cast<RowState*>(state);
}

Key make_key(const OpDef& op, Args args, const ir::Space* spaces, Dtype out_dtype) {
  Key key;
  key.byte(static_cast<uint8_t>(out_dtype));
  key.byte(static_cast<uint8_t>(default_dtype()));
  if (const OpDef& row = op.primal != nullptr ? *op.primal : op; row.variant) {
    key.byte(row.variant(args.first(row.schema.params.size())));
  }
  for (size_t i = 0; i < args.size(); ++i) {
    const Arg& a = args[i];
    switch (a.kind) {
      case Arg::kTensor:
        // Bit 7: whether it has dims, which promotion asks.
        key.byte(static_cast<uint8_t>(static_cast<uint8_t>(a.tensor->dtype()) |
                                      (a.tensor->dim() > 0 ? 0x80 : 0) |
                                      (a.tensor->wrapped_number ? 0x40 : 0)));
        if (spaces != nullptr) key.byte(spaces[i]);
        break;
      case Arg::kNone:
        key.byte(0x7f);
        break;
      case Arg::kBool:
      case Arg::kInt:
      case Arg::kFloat:
      case Arg::kComplex:
        key.byte(static_cast<uint8_t>(0x20 + a.kind));
        if (!op.is_operand(i)) key.add(&a.integer, 8);
        break;
      case Arg::kStr:
        key.byte(static_cast<uint8_t>(a.count));
        key.add(a.chars, static_cast<size_t>(a.count));
        break;
      case Arg::kDtype:
        key.byte(static_cast<uint8_t>(a.dtype));
        break;
      case Arg::kInts:
        key.byte(0x30);
        break;  // shapes and dims reach the graph only through the domain
      default:
        key.byte(0x31);
    }
  }
  return key;
}

std::unique_ptr<Instance> make_instance(const OpDef& op, Args args, const ir::Space* spaces,
                                        Dtype out_dtype) {
  auto made = std::make_unique<Instance>();
  resolve_dtypes(op, args, &made->compute, &made->result);
  ir::Graph graph;
  GraphCall call{graph, op, {}, {}, made->compute, made->result};
  const Dtype result =
      out_dtype != Dtype::kUndefined && op.kind == OpKind::kPointwise ? out_dtype : made->result;
  for (size_t i = 0; i < args.size(); ++i) {
    const Arg& a = args[i];
    Node node;
    if (a.kind == Arg::kTensor) {
      const ir::Space space = spaces != nullptr ? spaces[i] : ir::Space{ir::kOuter};
      node = graph.input(static_cast<int>(made->tensors.size()), a.tensor->dtype(), space);
      made->tensors.push_back(static_cast<int>(i));
      // Operands enter in the compute dtype; what a row needs as it is (an index, a mask) it declares by
      // promotion kFirst.
      const bool keeps =
          (op.mask_params >> i & 1) != 0 || (!is_differentiable(a.tensor->dtype()) && i > 0 &&
                                             (op.promotion == Promotion::kFirst ||
                                              (op.primal != nullptr && i >= op.root().schema.params.size())));
      if (!keeps) node = cast(node, made->compute);
    } else if (a.is_number() && i < op.schema.params.size() && op.is_operand(i)) {
      node = graph.scalar(static_cast<int>(made->scalars.size()), op.number_dtype(i, made->compute));
      made->scalars.push_back(static_cast<int>(i));
    } else if (a.none() && op.primal != nullptr && !op.domain && i < op.primal->schema.params.size() &&
               op.is_operand(i)) {
      // Not saved since nothing reads it: it only stands for what the gradient belongs to. (Composed rows
      // keep its shape.)
      node = graph.input(compiler::Program::kUnread + static_cast<int>(i), made->compute, ir::kOuter);
    }
    call.nodes.push_back(node);
    call.attributes.push_back(a);
  }
  const std::vector<Node> outputs = op.body(call);
  for (size_t o = 0; o < outputs.size(); ++o) {
    Node n = outputs[o];
    LOHE_INTERNAL_ASSERT(n.defined(), op.schema.name, ": output ", o, " of the graph is undefined");
    Dtype to = n.dtype();
    if (op.primal != nullptr) {
      to = call.attributes[args.size() - outputs.size() + o].dtype;  // a gradient has its parameter's dtype
    } else if (op.wide && o > 0) {
      // As it was computed.
    } else if (op.kind == OpKind::kPointwise || to == made->compute ||
               (is_differentiable(to) && is_differentiable(made->result))) {
      to = result;
      if (is_complex(n.dtype()) && !is_complex(to) && op.kind != OpKind::kPointwise) to = n.dtype();
    }
    if (is_complex(n.dtype()) && !is_complex(to) && to != Dtype::kBool) n = ir::real(n);
    n = cast(n, to);
    graph.output(n);
    made->outputs.push_back(to);
    made->output_spaces.push_back(n.space());
    const ir::GraphNode& g = graph.node(n.id());
    made->passed_through.push_back(g.prim == ir::Prim::kInput ? static_cast<int>(g.imm) : -1);
  }
  made->program = std::make_unique<compiler::Program>(std::move(graph), op.schema.name);
  return made;
}

}  // namespace

Dtype promoted_dtype(Args args) {
  Dtype with_dims = Dtype::kUndefined, zero_dim = Dtype::kUndefined, number = Dtype::kUndefined;
  for (const Arg& a : args) {
    if (a.kind == Arg::kTensor) {
      const Dtype d = a.tensor->dtype();
      Dtype& slot = a.tensor->wrapped_number ? number : a.tensor->dim() > 0 ? with_dims : zero_dim;
      slot = promote_types(slot, d);
    } else if (a.is_number()) {
      number = promote_types(number, a.scalar().dtype());
    }
  }
  const auto combine = [](Dtype high, Dtype low) {
    if (high == Dtype::kUndefined) return low;
    if (low == Dtype::kUndefined || is_complex(high)) return high;
    if (is_floating(high)) return is_complex(low) ? to_complex(high) : high;
    if (high == Dtype::kBool || is_floating(low) || is_complex(low)) return promote_types(high, low);
    return high;
  };
  return combine(with_dims, combine(zero_dim, number));
}

void resolve_dtypes(const OpDef& op, Args args, Dtype* compute, Dtype* result) {
  if (op.primal != nullptr) {
    // Derived gradients are told: the last attributes are the compute dtype and the dtype of every output.
    const size_t at = args.size() - op.schema.returns.size() - 1;
    *compute = args[at].dtype;
    *result = args[at].dtype;
    return;
  }
  Dtype promoted;
  if (op.promotion == Promotion::kFirst) {
    promoted = args[0].kind == Arg::kTensor ? args[0].tensor->dtype() : args[0].scalar().dtype();
  } else {
    Arg operands[16];
    size_t n = 0;
    for (size_t i = 0; i < args.size(); ++i) {
      const Param& p = op.schema.params[i];
      // Scalars such as alpha do not take part; numbers that stand for tensors, and clamp's bounds, do.
      if ((op.mask_params >> i & 1) != 0) continue;
      if (p.type == ArgType::kTensor || (p.type == ArgType::kScalar && p.optional)) operands[n++] = args[i];
    }
    promoted = promoted_dtype(Args(operands, n));
  }
  *result = promoted;
  switch (op.promotion) {
    case Promotion::kFloat:
      if (is_integral(promoted, true)) *result = default_dtype();
      break;
    case Promotion::kBool:
      *result = Dtype::kBool;
      break;
    case Promotion::kReal:
      *result = info(promoted).value_dtype;
      break;
    case Promotion::kRealFloat:
      *result = is_integral(promoted, true) ? default_dtype() : info(promoted).value_dtype;
      break;
    case Promotion::kSum:
      if (is_integral(promoted, true)) *result = Dtype::kInt64;
      break;
    case Promotion::kIndex:
      *result = Dtype::kInt64;
      break;
    default:
      break;
  }
  const int d = op.schema.index_of("dtype");
  const bool given = d >= 0 && args[static_cast<size_t>(d)].kind == Arg::kDtype;
  if (given) *result = args[static_cast<size_t>(d)].dtype;
  Dtype computed = op.promotion == Promotion::kBool || op.promotion == Promotion::kReal ||
                           op.promotion == Promotion::kIndex
                       ? promoted
                   : op.promotion == Promotion::kRealFloat && is_complex(promoted) ? promoted
                                                                                   : *result;
  const bool to_float = op.promotion == Promotion::kFloat || op.promotion == Promotion::kRealFloat;
  if (!contains(op.dtypes, given || to_float ? computed : promoted)) {
    raise(op.refusal, "\"", ops::public_name(op.schema.base), "\" not implemented for '",
          type_word(given ? computed : promoted),
          given ? "'; give a dtype that it accepts" : "'; convert the tensor to a dtype that it accepts");
  }
  *compute = is_complex(computed) ? computed : info(computed).compute_dtype;
}

const Instance& find_instance(const OpDef& op, Args args, const ir::Space* spaces, Dtype out_dtype) {
  RowState& state = state_of(op);
  const Key key = make_key(op, args, spaces, out_dtype);
  for (auto& slot : state.recent) {
    const RowState::Recent* r = slot.load(std::memory_order_acquire);
    if (r != nullptr && r->key == key) return *r->instance;
  }
  const ForkSection section;
  const std::lock_guard lock(state.mutex);
  auto& slot = state.instances[std::string(key.view())];
  if (!slot) {
    std::unique_ptr<Instance> made;
    try {
      made = make_instance(op, args, spaces, out_dtype);
    } catch (...) {
      state.instances.erase(std::string(key.view()));
      throw;
    }
    slot = std::move(made);
  }
  // Keep a bounded number of recent entries alive: a reader may still look at an old one.
  if (state.kept.size() < 64) {
    state.kept.push_back(std::make_unique<RowState::Recent>(RowState::Recent{key, slot.get()}));
    state.recent[1].store(state.recent[0].load(std::memory_order_relaxed), std::memory_order_release);
    state.recent[0].store(state.kept.back().get(), std::memory_order_release);
  }
  return *slot;
}

}  // namespace lohe::dispatch
