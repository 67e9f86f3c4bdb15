#pragma once

#include <vector>

#include "compile/lower.h"

/// A kernel sweeps its reduced dims once for every depth of dependent reductions (softmax: maximum, sum,
/// result). This says what each sweep makes.
namespace lohe::compiler {

/// How many loops of a kernel are over kept dims: the first ones.
size_t kept_dims(const KernelSpec& spec);

struct Sweeps {
  Sweeps(const ir::Graph& graph, const KernelSpec& spec);

  /// When results and checks are finished that do not vary over the reduced dims: after the reductions.
  static constexpr int kAfter = 0;
  /// The sweep that finishes an output or a check: the first that knows its value; or the one behind all
  /// reductions, `count` + 1.
  int sweep_of_output(size_t output) const;
  int sweep_of_check(const ir::Graph::Check& check) const;
  std::vector<int32_t> finished_in(int sweep) const;
  std::vector<int32_t> reductions_of(int sweep) const;
  /// What a sweep computes: its reductions' operands, and what it finishes.
  std::vector<int32_t> targets_of(int sweep) const;
  /// What all sweeps behind it compute.
  std::vector<int32_t> targets_after(int sweep) const;

  // By node.
  std::vector<char> row;   ///< whether it changes along reduced loops
  std::vector<int> depth;  ///< after how many sweeps it can be known
  std::vector<bool> needed;
  int count = 0;  ///< sweeps that reduce
  int cost = 0;   ///< simple instructions an element

 private:
  int sweep_of(int32_t value, bool in_row) const;

  const ir::Graph& graph_;
  const KernelSpec& spec_;
};

}  // namespace lohe::compiler
