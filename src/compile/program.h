#pragma once

#include <array>
#include <atomic>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/small_vector.h"
#include "compile/access.h"
#include "compile/launch.h"
#include "compile/lower.h"
#include "lohe/scalar.h"

/// An op's graph made ready to run on tensors of any shape: one kernel, or a few with small buffers between
/// them.
namespace lohe::compiler {

/// An operand of a call, expanded over the iteration space.
struct Binding {
  char* data = nullptr;
  Dims strides;  ///< elements, one for each dim of the space; 0 where the operand does not move
  const Window* window = nullptr;  ///< of an input: outside of it nothing is read; null: everywhere
};

/// The iteration space of a call.
struct Space {
  Dims sizes;
  SmallVector<uint8_t, 6> groups;  ///< ir::Group of every dim
  int64_t iota_base = 0;           ///< what positions in kOuter start from (random numbers)
  /// Strides, by dim, that order the loops of reductions and choose the vector dim; empty: those of the first
  /// operand.
  Dims leader;
  Preparation* preparation = nullptr;  ///< takes the launches instead of the machine
};

class Program {
 public:
  /// Inputs and outputs of the graph have their memory dtypes.
  Program(ir::Graph graph, std::string name);
  /// Rows longer than this are summed in blocks of this length: the tree depends on the shape alone.
  static constexpr int64_t kBlock = 16384;
  /// Inputs with numbers from here on are read by nothing and have no operand in a call.
  static constexpr int kUnread = 1000;
  ~Program();
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  /// @throws Error when a check of the graph fails; outputs are then undefined.
  void run(const Space& space, std::span<const Binding> inputs, std::span<const Binding> outputs,
           std::span<const Scalar> scalars);
  /// One dim, every operand dense or a single number (`moves` bit 0: input 0, ..., then outputs).
  void run_flat(int64_t n, std::span<char* const> pointers, uint32_t moves, std::span<const Scalar> scalars);
  /// The same on sets of dense operands that have nothing in common, in one parallel region. `pointers` and
  /// `scalars` are those of the sets, one behind the other.
  void run_flat_list(std::span<const int64_t> counts, std::span<char* const> pointers,
                     std::span<const Scalar> scalars);

  const ir::Graph& graph() const { return graph_; }
  const std::string& name() const { return name_; }
  /// The inputs whose strides order the loops of its reductions over `space`, one for each kernel that has
  /// any; -1 for a buffer of its own.
  std::vector<int> leaders(const Space& space);

 private:
  struct Entry;
  struct Stage;
  using Stages = std::vector<std::unique_ptr<Stage>>;
  /// The kernels for this shape. @param split whether rows are cut into blocks
  Stages& stages(const Space& space, bool* split);
  void plan(bool split, std::vector<std::unique_ptr<Stage>>& steps);
  /// The programs that fold what the blocks of a split step give.
  void add_folds(Stage& step, int32_t& next_operand);
  void run_steps(std::vector<std::unique_ptr<Stage>>& steps, bool split, const Space& space,
                 std::span<const Binding> inputs, std::span<const Binding> outputs,
                 std::span<const Scalar> scalars);
  Entry& entry(Stage& step, const KernelSpec& spec);
  /// Of run_flat(): the kernel, which operand of the call each of its own is, its parameters, the least range
  /// that is worth a thread, and the error of a check.
  Entry& flat_entry(size_t operands, uint32_t moves);
  size_t flat_source(size_t operand) const;
  static void flat_params(const Entry& e, int64_t n, std::span<const Scalar> scalars, int64_t* params);
  static int64_t flat_grain(const Entry& e);
  [[noreturn]] void raise_flat(int32_t code) const;
  void run_kernel(Stage& step, const Space& space, std::span<const Binding> operands,
                  std::span<const Scalar> scalars, bool split);

  ir::Graph graph_;
  std::string name_;
  size_t input_count_ = 0;
  std::vector<std::unique_ptr<Stage>> steps_, split_steps_;
  std::once_flag split_once_;
  std::array<std::atomic<Entry*>, 8> flat_{};  ///< by `moves`, for up to three operands
  std::mutex mutex_;
};

/// The program of a graph, which all fused steps with that graph share, whatever their sizes: it is lowered
/// once for each kind of space that it meets.
std::shared_ptr<Program> shared_program(ir::Graph graph, const std::string& name);

}  // namespace lohe::compiler
