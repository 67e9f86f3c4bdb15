#include <algorithm>

#include "codegen/llvm/emitter.h"

namespace lohe::codegen {
namespace {

using ir::Block;
using ir::Kernel;
using ir::Loop;
using ir::Op;
using ir::Value;

template <class... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <class... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

class VaryingValues {
 public:
  explicit VaryingValues(const Kernel& kernel) : kernel_(kernel), varying_(kernel.insts.size(), false) {}

  std::vector<bool> run() {
    visit(kernel_.body, false);
    return std::move(varying_);
  }

 private:
  void visit(const Block& block, bool in_vector) {
    for (const ir::Stmt& stmt : block) {
      if (const auto* define = std::get_if<ir::Define>(&stmt)) {
        const ir::Inst& inst = kernel_.insts[define->value];
        varying_[define->value] =
            inst.op == Op::kLoadUnit || is_varying(inst.a) || is_varying(inst.b) || is_varying(inst.c);
      } else if (const auto* rare = std::get_if<std::unique_ptr<ir::Rare>>(&stmt)) {
        visit((*rare)->body, in_vector);
        for (size_t i = 0; i < (*rare)->results.size(); ++i) {
          varying_[(*rare)->results[i]] = is_varying((*rare)->condition) ||
                                          is_varying((*rare)->computed[i]) || is_varying((*rare)->usual[i]);
        }
      } else if (const auto* loop = std::get_if<std::unique_ptr<Loop>>(&stmt)) {
        visit(**loop, in_vector);
      }
    }
  }

  void visit(const Loop& loop, bool in_vector) {
    if (loop.vector) varying_[loop.dims.back().index] = true;
    for (const ir::Reduce& reduce : loop.reduces) {
      // Inside a vector loop an accumulator may become varying in any iteration, so it is from the start.
      set(reduce.left, loop.vector || in_vector);
      set(reduce.right, loop.vector || in_vector);
    }
    visit(loop.body, in_vector || loop.vector);
    for (const ir::Reduce& reduce : loop.reduces) {
      visit(reduce.combine, in_vector || loop.vector);
      set(reduce.results, in_vector);
    }
  }

  void set(const std::vector<Value>& values, bool varying) {
    for (Value value : values) varying_[value] = varying;
  }
  bool is_varying(Value value) const { return value != ir::kNoValue && varying_[value]; }

  const Kernel& kernel_;
  std::vector<bool> varying_;
};

/// Gathers and scatters handle their 64-bit indices, so more lanes than this type has would only be more
/// code.
constexpr ir::Type kGathered = ir::Type::kF32;

/// Varying 64-bit integers that only number elements (indices and what addresses are made of) do not set the
/// width, nor does what a Rare's body computes.
class WidestType {
 public:
  WidestType(const Kernel& kernel, const std::vector<bool>& varying) : kernel_(kernel), varying_(varying) {}

  int visit(const Block& block) {
    for (const ir::Stmt& stmt : block) {
      std::visit(Overloaded{[&](const ir::Define& define) { visit(define.value); },
                            [&](const ir::Store& store) {
                              take(kernel_.buffers[store.buffer].type);
                              if (!store.unit && varying_[store.index]) take(kGathered);
                            },
                            [&](const ir::Check&) {}, [&](const ir::Transpose&) {},
                            [&](const std::unique_ptr<ir::Rare>& rare) {
                              for (Value value : rare->results) visit(value);
                            },
                            [&](const std::unique_ptr<Loop>& loop) {
                              visit(loop->body);
                              for (const ir::Reduce& reduce : loop->reduces) take(reduce);
                            }},
                 stmt);
    }
    return widest_;
  }
  void take(const ir::Reduce& reduce) {
    for (Value value : reduce.left) take(kernel_.insts[value].type);
    visit(reduce.combine);
  }
  int widest() const { return widest_; }

 private:
  void visit(Value value) {
    const ir::Inst& inst = kernel_.insts[value];
    if (!varying_[value]) return;
    const bool index_arithmetic = (inst.type == ir::Type::kI64 || inst.type == ir::Type::kU64) &&
                                  inst.op != Op::kLoadUnit && inst.op != Op::kLoad;
    if (!index_arithmetic) take(inst.type);
    if (inst.op == Op::kLoad && varying_[inst.a]) take(kGathered);
  }
  void take(ir::Type type) { widest_ = std::max(widest_, ir::size_of(type)); }

  const Kernel& kernel_;
  const std::vector<bool>& varying_;
  int widest_ = 1;
};

}  // namespace

std::vector<bool> find_varying(const Kernel& kernel) { return VaryingValues(kernel).run(); }

int count_instructions(const Block& block) {
  int count = 0;
  for (const ir::Stmt& stmt : block) {
    ++count;
    if (const auto* loop = std::get_if<std::unique_ptr<Loop>>(&stmt)) {
      count += count_instructions((*loop)->body);
      for (const ir::Reduce& reduce : (*loop)->reduces) count += count_instructions(reduce.combine);
    } else if (const auto* rare = std::get_if<std::unique_ptr<ir::Rare>>(&stmt)) {
      count += count_instructions((*rare)->body);
    }
  }
  return count;
}

bool has_checks(const Block& block) {
  return std::any_of(block.begin(), block.end(), [](const ir::Stmt& stmt) {
    const auto* loop = std::get_if<std::unique_ptr<Loop>>(&stmt);
    return std::holds_alternative<ir::Check>(stmt) || (loop != nullptr && has_checks((*loop)->body));
  });
}

bool is_straight(const Block& block) {
  return std::all_of(block.begin(), block.end(), [](const ir::Stmt& stmt) {
    const auto* store = std::get_if<ir::Store>(&stmt);
    return std::holds_alternative<ir::Define>(stmt) || (store != nullptr && store->unit);
  });
}

int vector_width(const Kernel& kernel, const std::vector<bool>& varying, const Loop& loop, CpuLevel level) {
  WidestType types(kernel, varying);
  types.visit(loop.body);
  for (const ir::Reduce& reduce : loop.reduces) types.take(reduce);
  int width = register_bytes(level) / types.widest();
  for (const ir::Reduce& reduce : loop.reduces) width = std::min(width, reduce.lanes);
  return std::max(width, 2);
}

}  // namespace lohe::codegen
