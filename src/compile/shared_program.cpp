#include <algorithm>
#include <memory>
#include <mutex>
#include <unordered_map>

#include "base/fork.h"
#include "base/hash.h"
#include "compile/program.h"

namespace lohe::compiler {
namespace {

uint64_t hash_of(const ir::Graph& graph) {
  Hasher h;
  for (const ir::GraphNode& n : graph.nodes) {
    h.update(static_cast<uint64_t>(n.prim) << 32 | static_cast<uint64_t>(n.dtype) << 16 |
             static_cast<uint64_t>(n.space) << 8 | n.span);
    h.update(n.a).update(n.b).update(n.c).update(n.imm).update(n.real).update(n.imag);
  }
  for (const int32_t o : graph.outputs) h.update(o);
  return h.digest().first;
}

bool same(const ir::Graph& a, const ir::Graph& b) {
  return a.nodes == b.nodes && a.outputs == b.outputs && a.checks.empty() && b.checks.empty();
}

}  // namespace

std::shared_ptr<Program> shared_program(ir::Graph graph, const std::string& name) {
  // Programs live as long as traces that use them.
  static std::mutex mutex;
  static auto* programs = new std::unordered_multimap<uint64_t, std::weak_ptr<Program>>;
  static size_t clean_at = 64;
  const uint64_t hash = hash_of(graph);
  const ForkSection section;
  const std::lock_guard lock(mutex);
  const auto [begin, end] = programs->equal_range(hash);
  for (auto i = begin; i != end; ++i) {
    if (std::shared_ptr<Program> known = i->second.lock(); known != nullptr && same(known->graph(), graph))
      return known;
  }
  if (programs->size() >= clean_at) {
    std::erase_if(*programs, [](const auto& p) { return p.second.expired(); });
    clean_at = std::max<size_t>(64, 2 * programs->size());
  }
  auto made = std::make_shared<Program>(std::move(graph), name);
  programs->emplace(hash, made);
  return made;
}

}  // namespace lohe::compiler
