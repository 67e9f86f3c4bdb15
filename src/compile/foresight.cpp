#include "compile/foresight.h"

#include <algorithm>
#include <span>

#include "backend/meanwhile.h"

namespace lohe::compiler {
namespace {

constexpr int64_t kWorthIt = 4096;  ///< bytes

std::span<const FusedStep> steps_of(const CompiledTrace& compiled, size_t turn) {
  const CompiledTrace::Turn& t = compiled.turns[turn];
  return std::span(compiled.steps).subspan(t.first, t.count);
}

bool is_call(const CompiledTrace& compiled, size_t turn) {
  return compiled.steps[compiled.turns[turn].first].program == nullptr;
}

}  // namespace

void foresee(const Trace& trace, CompiledTrace& compiled) {
  constexpr int64_t kNever = -1;
  std::vector<int64_t> last(trace.storages.size(), kNever);  // bytes that were used up to its last use
  int64_t now = 0;
  for (size_t t = 0; t < compiled.turns.size(); ++t) {
    for (const FusedStep& step : steps_of(compiled, t)) {
      for (const TraceOperand& o : step.operands) {
        const auto s = static_cast<size_t>(o.storage);
        now += trace.storages[s].nbytes;
        last[s] = now;
      }
    }
    if (!is_call(compiled, t)) continue;
    std::vector<int32_t>& far = compiled.turns[t].far;
    const auto note = [&](int32_t number) {
      const auto s = static_cast<size_t>(number);
      const TraceStorage& storage = trace.storages[s];
      // What the trace makes and no turn before this one has used is not there yet.
      const bool is_far = last[s] == kNever ? !storage.fresh : now - last[s] >= backend::Meanwhile::kFar;
      if (is_far && storage.nbytes >= kWorthIt && far.size() < CompiledTrace::Turn::kMostFar &&
          std::find(far.begin(), far.end(), number) == far.end())
        far.push_back(number);
    };
    for (size_t u = t + 1; u < compiled.turns.size(); ++u) {
      for (const FusedStep& step : steps_of(compiled, u)) {
        for (int32_t i = 0; i < step.inputs; ++i) note(step.operands[static_cast<size_t>(i)].storage);
      }
      if (is_call(compiled, u)) break;
    }
  }
}

}  // namespace lohe::compiler
