#include "compile/direct_results.h"

#include <algorithm>
#include <optional>

#include "ir/primitives.h"
#include "lohe/dtype.h"

namespace lohe::compiler {
namespace {

/// A result and the place that it is copied to.
struct Copy {
  size_t call = SIZE_MAX;  ///< step; SIZE_MAX: none that can be made so
  size_t operand = 0;      ///< of the call
  TraceOperand to;
};

/// Strides in `to` for a tensor whose strides in `from` are `strides`: both are seen over one space, of which
/// each dim of the tensor must lie within one dim.
std::optional<Dims> mapped_strides(const Dims& sizes, const Dims& strides, const Space& space,
                                   const Dims& from, const Dims& to) {
  Dims result(sizes.size());
  Dims reached(space.sizes.size());  // last index along each dim of the space
  for (size_t d = 0; d < sizes.size(); ++d) {
    if (sizes[d] == 1) continue;
    size_t best = space.sizes.size();
    for (size_t s = 0; s < space.sizes.size(); ++s) {
      if (space.sizes[s] == 1 || from[s] <= 0 || strides[d] < from[s] || strides[d] % from[s] != 0) continue;
      if (best == space.sizes.size() || from[s] > from[best]) best = s;
    }
    if (best == space.sizes.size()) return std::nullopt;
    const int64_t step = strides[d] / from[best];
    result[d] = step * to[best];
    reached[best] += step * (sizes[d] - 1);
  }
  // Sums of indices do not carry over into another dim, and all of the space is met.
  for (size_t s = 0; s < space.sizes.size(); ++s) {
    if (reached[s] != space.sizes[s] - 1) return std::nullopt;
  }
  return result;
}

class Placing {
 public:
  Placing(const Trace& trace, std::vector<FusedStep>& steps) : trace_(trace), steps_(steps) {}

  void run() {
    for (size_t i = 0; i < steps_.size();) {
      const std::vector<Copy> copies = copies_of(i);
      for (const Copy& c : copies) steps_[c.call].operands[c.operand] = c.to;
      if (copies.empty()) {
        ++i;
        continue;
      }
      std::vector<int32_t>& records = steps_[copies[0].call].records;
      records.insert(records.end(), steps_[i].records.begin(), steps_[i].records.end());
      steps_.erase(steps_.begin() + static_cast<std::ptrdiff_t>(i));
    }
  }

 private:
  const TraceStorage& storage(int32_t s) const { return trace_.storages[static_cast<size_t>(s)]; }

  /// What step `at` copies, if it does nothing else and all of it can be written there at once.
  std::vector<Copy> copies_of(size_t at) const {
    const FusedStep& step = steps_[at];
    if (step.program == nullptr || !step.windows.empty()) return {};
    const ir::Graph& graph = step.program->graph();
    if (!graph.checks.empty()) return {};
    std::vector<Copy> copies;
    for (size_t o = 0; o < graph.outputs.size(); ++o) {
      const ir::GraphNode& node = graph.node(graph.outputs[o]);
      if (node.prim != ir::Prim::kInput) return {};
      copies.push_back(copy_of(at, step.operands[static_cast<size_t>(node.imm)],
                               step.operands[static_cast<size_t>(step.inputs) + o], node.dtype));
      if (copies.back().call == SIZE_MAX) return {};
    }
    return copies;
  }

  Copy copy_of(size_t at, const TraceOperand& from, const TraceOperand& to, Dtype dtype) const {
    Copy copy;
    const TraceStorage& source = storage(from.storage);
    if (!source.fresh || source.observed || source.kept || !storage(to.storage).fresh) return copy;
    // One call makes it, and nobody else looks at it.
    size_t call = SIZE_MAX, operand = 0;
    for (size_t s = 0; s < steps_.size(); ++s) {
      for (size_t o = 0; o < steps_[s].operands.size(); ++o) {
        if (steps_[s].operands[o].storage != from.storage || &steps_[s].operands[o] == &from) continue;
        if (call != SIZE_MAX || s >= at || o < static_cast<size_t>(steps_[s].inputs)) return copy;
        call = s;
        operand = o;
      }
    }
    if (call == SIZE_MAX || steps_[call].program != nullptr) return copy;
    const TraceRecord& record = trace_.records[static_cast<size_t>(steps_[call].call)];
    const TraceCall& made_by = trace_.calls[static_cast<size_t>(record.call)];
    const auto result =
        std::find_if(made_by.results.begin(), made_by.results.end(),
                     [&](const TraceCall::Tensor& t) { return t.operand == static_cast<int32_t>(operand); });
    const TraceOperand& made = steps_[call].operands[operand];
    if (!made_by.op->strided_results || result == made_by.results.end() || result->dtype != dtype ||
        made.offset != from.offset)
      return copy;
    // From the call on, the place is nobody else's.
    for (size_t s = call; s < at; ++s) {
      for (const TraceOperand& o : steps_[s].operands) {
        if (o.storage == to.storage) return copy;
      }
    }
    const std::optional<Dims> strides =
        mapped_strides(result->sizes, made.strides, steps_[at].space, from.strides, to.strides);
    if (!strides || strides->empty() || strides->back() != 1) return copy;
    copy.call = call;
    copy.operand = operand;
    copy.to = TraceOperand(to.storage, to.offset, *strides);
    return copy;
  }

  const Trace& trace_;
  std::vector<FusedStep>& steps_;
};

}  // namespace

void place_results(const Trace& trace, std::vector<FusedStep>& steps) { Placing(trace, steps).run(); }

}  // namespace lohe::compiler
