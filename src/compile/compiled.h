#pragma once

#include <atomic>
#include <mutex>

#include "compile/calls.h"
#include "compile/fuse.h"
#include "compile/recompute.h"

/// A trace made ready to be carried out again.
namespace lohe::compiler {

struct CompiledTrace {
  /// Where a storage's bytes lie while the steps run.
  enum Home : uint8_t {
    kOwn,     ///< its own memory: it was there before, or is observed after
    kArena,   ///< at `offset` of the arena
    kBlock,   ///< a block of the heap while it is needed; `offset` is where the plan of all blocks has it
    kNowhere  ///< nothing is left that reads or writes it
  };
  struct Placement {
    Home home = kNowhere;
    int64_t offset = 0, bytes = 0;
    size_t first_turn = 0, last_turn = 0;  ///< when it is needed
  };
  /// What is done at a time: a step, or several that run one kernel on operands which have nothing in common
  /// (an optimizer's update of many tensors), in one parallel region.
  struct Turn {
    size_t first = 0, count = 1;  ///< steps
    /// Storages of their own, and those in blocks, that it is the first or the last one to need: memory comes
    /// late and goes early.
    std::vector<int32_t> begin, end;
    std::vector<int32_t> begin_blocks, end_blocks;
    std::vector<const Launch*> together;  ///< of several steps
    static constexpr size_t kMostFar = 16;
    std::vector<int32_t> far;  ///< of a call: storages to fetch for those that follow, see foresee()
  };
  std::vector<FusedStep> steps;
  std::vector<Turn> turns;
  std::vector<Placement> storages;
  std::vector<bool> observed;   ///< storages that are right afterwards, besides those that were there before
  std::vector<Recipe> recipes;  ///< for storages that are made when they are asked for
  int64_t arena_bytes = 0;
  int64_t block_bytes = 0;  ///< of the blocks that are needed at the same time, at most
  int64_t compile_ns = 0;   ///< what making it took

  /// Measurements, by turn; taken while profiling is on.
  struct Times {
    std::atomic<int64_t> runs{0};
    std::vector<std::atomic<int64_t>> turn_ns;
  };
  mutable Times times;

  /// A frame for the calls of one run, of those that earlier runs gave back.
  class FrameUse {
   public:
    FrameUse(const CompiledTrace& program, const Trace& trace);
    ~FrameUse();
    FrameUse(const FrameUse&) = delete;
    FrameUse& operator=(const FrameUse&) = delete;
    CallFrame* operator->() const { return frame_.get(); }

   private:
    const CompiledTrace& program_;
    std::unique_ptr<CallFrame> frame_;
  };

  /// Whether it also serves a trace of which these storages are observed.
  bool serves(const Trace& trace) const;

 private:
  mutable std::mutex frames_mutex_;
  mutable std::vector<std::unique_ptr<CallFrame>> frames_;
};

struct CompileOptions {
  bool fuse = true;
  bool plan_memory = true;  ///< false: no two storages share memory
};

/// Fuses, makes all kernels, and plans the memory. @param grouping see fuse(). @throws internal error.
std::unique_ptr<CompiledTrace> compile_trace(const Trace& trace, const CompileOptions& options,
                                             Grouping& grouping);

}  // namespace lohe::compiler
