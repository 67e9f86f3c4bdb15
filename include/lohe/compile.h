#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

/// compile(): work is recorded while a function runs and done as fused programs when it returns, with the
/// bits that it has without, unless other roundings are allowed. See docs/compile.md.
namespace lohe {

namespace record {
class Scope;
}

/// Records this thread's work from its construction to end(). What reads a value runs what was recorded so
/// far. Scopes nest: the outermost one does the work, exactly or not as it was told.
class Lazy {
 public:
  /// @param site whose traces compile_report() shows together; 0: nobody's
  /// @param exact false: programs may round differently, see CompileOptions
  explicit Lazy(uint64_t site = 0, bool exact = true);
  /// Ends what an exception left open; an error of the recorded work is then logged, not thrown.
  ~Lazy();
  /// Does the recorded work. @throws what it raises: an index out of range, memory that cannot be had.
  void end();
  Lazy(const Lazy&) = delete;
  Lazy& operator=(const Lazy&) = delete;

 private:
  std::unique_ptr<record::Scope> scope_;
};

struct CompileOptions {
  bool disable = false;  ///< give the function back as it is
  /// false: allows rewrites that round differently, each within a bound that docs/compile.md states.
  bool exact = true;
};

/// A number for each compiled function.
uint64_t new_compile_site();

/// What compile() gives: callable as the function itself.
template <class F>
class Compiled {
 public:
  Compiled(F function, const CompileOptions& options)
      : function_(std::move(function)),
        site_(new_compile_site()),
        disabled_(options.disable),
        exact_(options.exact) {}

  template <class... A>
  decltype(auto) operator()(A&&... arguments) {
    using Result = std::invoke_result_t<F&, A...>;
    if (disabled_) return static_cast<Result>(function_(std::forward<A>(arguments)...));
    Lazy scope(site_, exact_);
    if constexpr (std::is_void_v<Result>) {
      function_(std::forward<A>(arguments)...);
      scope.end();
    } else {
      Result result = function_(std::forward<A>(arguments)...);
      scope.end();
      return static_cast<Result>(result);
    }
  }
  uint64_t site() const { return site_; }
  F& function() { return function_; }

 private:
  F function_;
  uint64_t site_;
  bool disabled_, exact_;
};

/// Makes `function`, any callable or module holder, run as fused programs. A training step (forward,
/// backward, optimizer) is best compiled whole.
template <class F>
Compiled<std::decay_t<F>> compile(F&& function, const CompileOptions& options = {}) {
  return Compiled<std::decay_t<F>>(std::forward<F>(function), options);
}

/// One program of a compiled function.
struct ProgramReport {
  /// What was rewritten where programs may round differently: divisions carried out as products with a
  /// reciprocal, sums of products as fused multiply-adds, roundings to a half dtype that were left out.
  struct Rewrites {
    int reciprocals = 0, fmas = 0, roundings = 0;
  };
  struct Step {
    std::string name;  ///< with " x8" behind it: so many steps of one kernel, done side by side
    bool kernel;       ///< generated code; false: a call of a primitive or a library
    int operations;    ///< recorded operations that it carries out
    std::vector<int64_t> sizes;
    int64_t read, written;  ///< bytes of its operands
    int64_t far;    ///< bytes that steps up to the next call read from far away, which a product fetches
    int64_t flops;  ///< of a matrix product or convolution in a floating dtype; 0: another step
    int64_t nanoseconds;  ///< mean of the profiled runs; 0: none was
    /// What a kernel, a matrix product or a convolution reaches of the machine's limit: the least time of a
    /// plain loop that moves as many bytes over the same working set, or of as many fused multiply-adds, over
    /// the measured time. 0: not known.
    double share;
    Rewrites rewrites;
  };
  struct Buffer {
    int64_t offset, bytes;  ///< in the arena, and behind it in the plan of the blocks
    int first_step, last_step;
  };
  uint64_t site;
  std::string reason;  ///< why it was made
  bool exact;          ///< its results have the bits that they have without compile()
  int64_t met;         ///< how often its trace came
  int64_t operations;
  int64_t arena_bytes;  ///< one piece of memory for all small buffers
  int64_t block_bytes;  ///< what its large buffers, each a block of the heap, need together at most
  int64_t compile_nanoseconds, profiled_runs;
  double share;  ///< of the machine's limit, in the time of those steps that have one; 0: not known
  std::vector<Step> steps;
  std::vector<Buffer> buffers;
};

/// Programs of one compiled function, or of all for 0, the one used last first. The machine's limits are
/// measured by the first report with times that needs them.
std::vector<ProgramReport> compile_report(uint64_t site = 0);
/// The same as text.
std::string to_string(const std::vector<ProgramReport>& programs);
/// Whether programs measure their steps; gives what held before.
bool profile_programs(bool on);
/// Forgets all compiled programs.
void reset_compiler();

}  // namespace lohe
