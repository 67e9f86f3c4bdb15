#pragma once

#include <cstdint>

#include "base/function_ref.h"
#include "lohe/export.h"

namespace lohe {

/// Threads that a parallel region uses, the calling one included. Until set_num_threads is called:
/// LOHE_NUM_THREADS, else OMP_NUM_THREADS, else the number of CPUs in the process's affinity mask.
int num_threads();
/// For all later regions of the process; `n` from 1 to kMaxThreads, else a RuntimeError.
LOHE_API void set_num_threads(int n);
inline constexpr int kMaxThreads = 4096;

/// Runs `body(begin, end)` over disjoint ranges that cover [0, n), possibly at the same time on several
/// threads of the process's one pool, and returns when all have ended. Each range starts at a multiple of
/// `grain` and its length is a multiple of `grain`, except for the last. How [0, n) is cut depends on the
/// number of threads and on timing, so the body's results must not depend on it.
///
/// The whole range runs at once on the caller when n <= grain, when there is one thread, inside another
/// region, and while another thread's region has the pool. Nobody waits for a worker that has not begun a
/// range, so a busy machine costs a region no more than running it alone.
///
/// Workers take over the caller's floating-point mode (rounding, flush to zero, traps). When bodies throw,
/// the exception of the range that comes first in [0, n) is rethrown after all begun ranges have ended;
/// ranges behind it may not have run.
///
/// Waking workers that sleep takes longer than a few short grains do: where they all sleep, a region of few
/// short grains runs on the caller, unless such regions lately took most of the time.
enum class Grain {
  kLong,
  kShort,  ///< about a microsecond of work
};
void parallel_for(int64_t n, int64_t grain, FunctionRef<void(int64_t begin, int64_t end)> body,
                  Grain length = Grain::kLong);

/// Whether the calling thread is running the body of a region that the pool shares out.
bool in_parallel_region() noexcept;

}  // namespace lohe
