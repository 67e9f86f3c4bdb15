#include "base/threads.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/env.h"
#include "base/fork.h"
#include "lohe/error.h"

namespace lohe {
namespace {

using std::memory_order_acq_rel;
using std::memory_order_acquire;
using std::memory_order_relaxed;
using std::memory_order_release;
using std::memory_order_seq_cst;

using Clock = std::chrono::steady_clock;

// ---- The machine ------------------------------------------------------------------------------------------

void futex_wait(const std::atomic<uint32_t>& word, uint32_t expected) noexcept {
  ::syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, expected, nullptr, nullptr, 0);
}

void futex_wake(const std::atomic<uint32_t>& word, int count) noexcept {
  ::syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, count, nullptr, nullptr, 0);
}

void pause_cpu() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("isb" ::: "memory");
#endif
}

/// The control half of the floating-point environment: rounding, flush to zero, trap masks; no status flags.
uint64_t float_mode() noexcept {
#if defined(__x86_64__)
  uint16_t x87;  // long double arithmetic; fegetround() asks it too
  asm volatile("fnstcw %0" : "=m"(x87));
  return uint64_t{x87} << 32 | (_mm_getcsr() & ~0x3Fu);
#elif defined(__aarch64__)
  uint64_t mode;
  asm volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
#else
  return 0;
#endif
}

void set_float_mode(uint64_t mode) noexcept {
  if (mode == float_mode()) return;
#if defined(__x86_64__)
  const auto x87 = static_cast<uint16_t>(mode >> 32);
  asm volatile("fldcw %0" ::"m"(x87));
  _mm_setcsr(static_cast<uint32_t>(mode));
#elif defined(__aarch64__)
  asm volatile("msr fpcr, %0" ::"r"(mode));
#endif
}

/// Spins until `ready()` or until the time is up, and says whether it became ready. The bound is in time
/// because a pause instruction takes 4 to 140 cycles depending on the machine.
template <class Ready>
bool spin_until(Ready ready, std::chrono::nanoseconds bound) noexcept {
  for (int i = 0; i < 32; ++i) {
    if (ready()) return true;
    pause_cpu();
  }
  const Clock::time_point deadline = Clock::now() + bound;
  do {
    for (int i = 0; i < 16; ++i) {
      if (ready()) return true;
      pause_cpu();
    }
  } while (Clock::now() < deadline);
  return ready();
}

int default_num_threads() {
  if (const int64_t n = env_int("LOHE_NUM_THREADS", 0, 1, kMaxThreads)) return static_cast<int>(n);
  if (const char* text = std::getenv("OMP_NUM_THREADS")) {
    // A list gives one number per nesting level; like OpenMP, a value that is no number is ignored.
    const long n = std::strtol(text, nullptr, 10);
    if (n > 0) return static_cast<int>(std::min<long>(n, kMaxThreads));
  }
  // The mask may be larger than cpu_set_t on machines with more than 1024 CPUs.
  for (size_t cpus = CPU_SETSIZE; cpus <= (1u << 18); cpus *= 2) {
    std::vector<unsigned long> mask(cpus / (8 * sizeof(unsigned long)));
    auto* set = reinterpret_cast<cpu_set_t*>(mask.data());
    const size_t bytes = mask.size() * sizeof(unsigned long);
    if (::sched_getaffinity(0, bytes, set) == 0) return std::clamp(CPU_COUNT_S(bytes, set), 1, kMaxThreads);
  }
  return static_cast<int>(std::clamp<long>(::sysconf(_SC_NPROCESSORS_ONLN), 1, kMaxThreads));
}

// ---- The pool ---------------------------------------------------------------------------------------------

/// Set on workers for good, on a caller while its region runs.
thread_local bool in_region = false;

/// Waking a sleeping thread costs a region 30 to 60 microseconds. A worker whose last wait would have ended
/// within kDenseSpin waits awake for that long, since regions come close together; any other gives its core
/// up after kWorkerSpin. Who has no chunk left waits awake for as long as one took it, up to kLongestSpin,
/// because the others have only begun their last ones when it did.
constexpr std::chrono::microseconds kWorkerSpin{8}, kDenseSpin{80};
constexpr std::chrono::microseconds kCallerSpin{20}, kLongestSpin{1000};
/// Regions of fewer short grains wake nobody, unless for kLonely of the last kWindow, and for half of the
/// time, there were only such regions.
constexpr int64_t kFewGrains = 32;
constexpr std::chrono::microseconds kLonely{40}, kWindow{1000};
constexpr int64_t kChunksPerThread = 8;

/// How long to wait awake for the others' last chunks.
std::chrono::nanoseconds last_chunks_take(Clock::time_point begin, Clock::time_point end,
                                          int chunks) noexcept {
  return std::min<std::chrono::nanoseconds>((end - begin) / std::max(chunks, 1), kLongestSpin);
}
static_assert(kChunksPerThread * kMaxThreads <= 0xFFFF, "chunk numbers take 16 bits");

/// The chunks of the current region that nobody has claimed yet, [front, back), and the region's number. A
/// claim is one compare-and-swap of the whole word, so a thread that slept through any number of regions
/// either fails it or claims a chunk of the region that is current: nobody ever has to wait for a thread that
/// holds no chunk. The caller takes chunks from the front and the workers from the back, so that in a
/// sequence of regions over the same arrays a core mostly meets the data that its cache already holds.
struct Claims {
  uint32_t region;
  uint16_t front;
  uint16_t back;

  static Claims unpack(uint64_t word) noexcept {
    return {static_cast<uint32_t>(word >> 32), static_cast<uint16_t>(word >> 16),
            static_cast<uint16_t>(word)};
  }
  uint64_t pack() const noexcept { return uint64_t{region} << 32 | uint64_t{front} << 16 | back; }
  bool empty() const noexcept { return front >= back; }
};

/// What the holder of a claim may read; it changes only while no claim is held.
struct Region {
  const FunctionRef<void(int64_t, int64_t)>* body = nullptr;
  int64_t n = 0;
  int64_t chunk = 0;
  uint64_t float_mode = 0;
};

class Pool {
 public:
  int num_threads();
  void set_num_threads(int n);
  void run(int64_t n, int64_t grain, int threads, FunctionRef<void(int64_t, int64_t)> body);

  /// Whether a region of few short grains had better run on its caller; the pool is owned.
  bool lets_sleep() noexcept;
  /// How long such a region took.
  void add_lonely(std::chrono::nanoseconds time) noexcept {
    lonely_.fetch_add(time.count(), memory_order_relaxed);
  }

  bool try_own() noexcept {
    return !owned_.load(memory_order_relaxed) && !owned_.exchange(true, memory_order_acquire);
  }
  void disown() noexcept { owned_.store(false, memory_order_release); }

  void before_fork() noexcept;
  void after_fork_in_parent() noexcept;
  void after_fork_in_child() noexcept;

 private:
  enum class End { kFront, kBack };
  int claim(End end) noexcept;
  void run_chunk(int chunk) noexcept;
  void start_workers(int wanted);
  void wake_workers(int wanted) noexcept;
  void work(int index) noexcept;
  bool work_is_open() const noexcept { return !Claims::unpack(claims_.load(memory_order_seq_cst)).empty(); }

  // Each group of words that is written together has its own cache lines (pairs of lines are fetched at
  // once).
  alignas(128) std::atomic<uint64_t> claims_{0};
  alignas(128) Region region_;
  std::atomic<int> first_failed_{INT_MAX};  ///< lowest chunk that threw
  std::exception_ptr failure_;              ///< its exception; guarded by failure_mutex_
  std::mutex failure_mutex_;
  alignas(128) std::atomic<uint32_t> completed_{
      0};  ///< chunks that workers have ended; a futex of the caller
  std::atomic<bool> caller_sleeps_{false};
  alignas(128) std::atomic<uint32_t> epoch_{0};  ///< changes with each region; a futex of idle workers
  std::atomic<int> sleepers_{0};
  alignas(128) std::atomic<bool> owned_{false};
  Clock::time_point window_;        ///< since when lonely_ counts; guarded by owned_
  std::atomic<int64_t> lonely_{0};  ///< nanoseconds of regions that nobody was woken for
  std::atomic<uint32_t> worker_limit_{
      0};                            ///< workers from this number on are parked; a futex of parked workers
  std::atomic<int> num_threads_{0};  ///< 0 until first asked for
  std::atomic<int> started_{0};      ///< written with mutex_ held
  std::mutex mutex_;
  bool owned_for_fork_ = false;
};

/// Never destroyed: workers sleep in it until the process has gone.
Pool& pool() {
  alignas(Pool) static char storage[sizeof(Pool)];
  static Pool* const instance = [] {
    Pool* const created = new (storage) Pool;
    at_fork([] { pool().before_fork(); }, [] { pool().after_fork_in_parent(); },
            [] { pool().after_fork_in_child(); });
    return created;
  }();
  return *instance;
}

int Pool::num_threads() {
  const int known = num_threads_.load(memory_order_acquire);
  if (known != 0) return known;
  const std::lock_guard lock(mutex_);
  if (num_threads_.load(memory_order_relaxed) == 0) {
    const int n = default_num_threads();
    worker_limit_.store(static_cast<uint32_t>(n - 1), memory_order_seq_cst);
    num_threads_.store(n, memory_order_release);
  }
  return num_threads_.load(memory_order_relaxed);
}

void Pool::set_num_threads(int n) {
  const std::lock_guard lock(mutex_);
  worker_limit_.store(static_cast<uint32_t>(n - 1), memory_order_seq_cst);
  num_threads_.store(n, memory_order_release);
  // Idle workers move between the two futexes.
  epoch_.fetch_add(1, memory_order_seq_cst);
  futex_wake(epoch_, INT_MAX);
  futex_wake(worker_limit_, INT_MAX);
}

int Pool::claim(End end) noexcept {
  uint64_t word = claims_.load(memory_order_acquire);
  while (true) {
    Claims claims = Claims::unpack(word);
    if (claims.empty()) return -1;
    const int chunk = end == End::kFront ? claims.front++ : --claims.back;
    if (claims_.compare_exchange_weak(word, claims.pack(), memory_order_acq_rel, memory_order_acquire))
      return chunk;
  }
}

void Pool::run_chunk(int chunk) noexcept {
  // Only chunks behind a failed one are skipped, so the exception that is rethrown does not depend on timing.
  if (chunk > first_failed_.load(memory_order_relaxed)) return;
  const int64_t begin = chunk * region_.chunk;
  const int64_t end = std::min(region_.n - begin, region_.chunk) + begin;
  try {
    (*region_.body)(begin, end);
  } catch (...) {
    const std::lock_guard lock(failure_mutex_);
    if (chunk < first_failed_.load(memory_order_relaxed)) {
      first_failed_.store(chunk, memory_order_relaxed);
      failure_ = std::current_exception();
    }
  }
}

void Pool::run(int64_t n, int64_t grain, int threads, FunctionRef<void(int64_t, int64_t)> body) {
  const int64_t grains = (n - 1) / grain + 1;
  const int64_t grains_per_chunk = (grains - 1) / std::min(grains, threads * kChunksPerThread) + 1;
  const int chunks = static_cast<int>((grains - 1) / grains_per_chunk + 1);
  const int workers = std::min(threads, chunks) - 1;
  if (started_.load(memory_order_acquire) < workers) start_workers(workers);

  region_ = {&body, n, grains_per_chunk > n / grain ? n : grains_per_chunk * grain, float_mode()};
  first_failed_.store(INT_MAX, memory_order_relaxed);
  completed_.store(0, memory_order_relaxed);
  const uint32_t number = Claims::unpack(claims_.load(memory_order_relaxed)).region + 1;
  claims_.store(Claims{number, 0, static_cast<uint16_t>(chunks)}.pack(), memory_order_seq_cst);
  epoch_.fetch_add(1, memory_order_seq_cst);
  wake_workers(workers);

  in_region = true;
  const auto begin = Clock::now();
  uint32_t by_workers = static_cast<uint32_t>(chunks);
  for (int chunk; (chunk = claim(End::kFront)) >= 0; --by_workers) run_chunk(chunk);
  in_region = false;

  const auto all_ended = [&] { return completed_.load(memory_order_acquire) == by_workers; };
  const auto wait_awake = [&] {
    const auto longest = last_chunks_take(begin, Clock::now(), chunks - static_cast<int>(by_workers));
    return spin_until(all_ended, std::max<std::chrono::nanoseconds>(longest, kCallerSpin));
  };
  if (by_workers != 0 && !all_ended() && !wait_awake()) {
    caller_sleeps_.store(true, memory_order_seq_cst);
    for (uint32_t ended; (ended = completed_.load(memory_order_seq_cst)) != by_workers;)
      futex_wait(completed_, ended);
    caller_sleeps_.store(false, memory_order_relaxed);
  }
  // The acquiring load above orders everything that the workers did before what follows.
  std::exception_ptr failure;
  if (first_failed_.load(memory_order_relaxed) != INT_MAX) failure = std::exchange(failure_, nullptr);
  disown();
  if (failure) std::rethrow_exception(failure);
}

bool Pool::lets_sleep() noexcept {
  static const bool always_wakes = env_bool("LOHE_DEBUG_WAKE", false);
  if (always_wakes || sleepers_.load(memory_order_relaxed) < started_.load(memory_order_relaxed))
    return false;
  const auto now = Clock::now();
  const std::chrono::nanoseconds lonely(lonely_.load(memory_order_relaxed)), elapsed = now - window_;
  if (elapsed < kWindow && (lonely < kLonely || 2 * lonely < elapsed)) return true;
  window_ = now;
  lonely_.store(0, memory_order_relaxed);
  return elapsed >= kWindow;
}

void Pool::wake_workers(int wanted) noexcept {
  const int sleeping = sleepers_.load(memory_order_seq_cst);
  if (sleeping == 0) return;
  const int available = std::min<int>(started_.load(memory_order_relaxed),
                                      static_cast<int>(worker_limit_.load(memory_order_relaxed)));
  const int awake = std::max(available - sleeping, 0);
  if (wanted > awake) futex_wake(epoch_, wanted - awake);
}

void Pool::start_workers(int wanted) {
  const std::lock_guard lock(mutex_);
  // Signals belong to the program's own threads.
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  for (int started = started_.load(memory_order_relaxed); started < wanted; ++started) {
    pthread_t thread;
    const auto entry = [](void* index) -> void* {
      pool().work(static_cast<int>(reinterpret_cast<intptr_t>(index)));
      return nullptr;
    };
    // A system that has no thread left to give makes regions slower, not wrong.
    if (::pthread_create(&thread, &attributes, entry, reinterpret_cast<void*>(intptr_t{started})) != 0) break;
    started_.store(started + 1, memory_order_release);
  }
  ::pthread_attr_destroy(&attributes);
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Pool::work(int index) noexcept {
  ::pthread_setname_np(::pthread_self(), "lohe-worker");
  in_region = true;
  std::chrono::nanoseconds spin = kWorkerSpin;
  while (true) {
    const uint32_t limit = worker_limit_.load(memory_order_seq_cst);
    if (static_cast<uint32_t>(index) >= limit) {
      futex_wait(worker_limit_, limit);
      continue;
    }
    const auto begin = Clock::now();
    int chunks = 0;
    for (int chunk; (chunk = claim(End::kBack)) >= 0; ++chunks) {
      set_float_mode(region_.float_mode);
      run_chunk(chunk);
      completed_.fetch_add(1, memory_order_seq_cst);
      if (caller_sleeps_.load(memory_order_seq_cst)) futex_wake(completed_, 1);
    }
    const auto since = Clock::now();
    const auto longest = chunks == 0 ? spin : std::max(spin, last_chunks_take(begin, since, chunks));
    if (spin_until([&] { return work_is_open(); }, longest)) continue;
    // The caller opens work, changes the epoch and then looks for sleepers; the worker does the reverse. So
    // either the caller sees the sleeper, or the worker sees the work or a changed epoch.
    sleepers_.fetch_add(1, memory_order_seq_cst);
    const uint32_t epoch = epoch_.load(memory_order_seq_cst);
    if (!work_is_open() && worker_limit_.load(memory_order_seq_cst) == limit) futex_wait(epoch_, epoch);
    sleepers_.fetch_sub(1, memory_order_seq_cst);
    // Part of what it slept is the time it took to wake.
    spin = spin == kWorkerSpin && Clock::now() - since < 2 * kDenseSpin ? kDenseSpin : kWorkerSpin;
  }
}

// ---- Fork -------------------------------------------------------------------------------------------------

void Pool::before_fork() noexcept {
  // A region of another thread is given time to end. It may take longer, or wait for the thread that forks;
  // that is no reason to hang, because the child starts from a fresh pool anyway.
  owned_for_fork_ = !in_region && try_own();
  for (int i = 0; !in_region && !owned_for_fork_ && i < 1000; ++i) {
    const timespec hundred_microseconds{0, 100'000};
    ::nanosleep(&hundred_microseconds, nullptr);
    owned_for_fork_ = try_own();
  }
  mutex_.lock();
  failure_mutex_.lock();
}

void Pool::after_fork_in_parent() noexcept {
  failure_mutex_.unlock();
  mutex_.unlock();
  if (owned_for_fork_) disown();
}

void Pool::after_fork_in_child() noexcept {
  failure_mutex_.unlock();
  mutex_.unlock();
  // No worker exists here. The numbers of regions and epochs simply go on.
  claims_.store(Claims{Claims::unpack(claims_.load()).region, 0, 0}.pack());
  completed_.store(0);
  caller_sleeps_.store(false);
  sleepers_.store(0);
  started_.store(0);
  in_region = false;
  disown();
}

}  // namespace

int num_threads() { return pool().num_threads(); }

void set_num_threads(int n) {
  LOHE_CHECK(n >= 1 && n <= kMaxThreads, "set_num_threads(", n, "): expected a number from 1 to ",
             kMaxThreads);
  pool().set_num_threads(n);
}

bool in_parallel_region() noexcept { return in_region; }

void parallel_for(int64_t n, int64_t grain, FunctionRef<void(int64_t begin, int64_t end)> body,
                  Grain length) {
  if (n <= 0) return;
  grain = std::max<int64_t>(grain, 1);
  const int threads = n <= grain || in_region ? 1 : num_threads();
  if (threads == 1 || !pool().try_own()) return body(0, n);
  if (length == Grain::kShort && n / grain < kFewGrains && pool().lets_sleep()) {
    pool().disown();
    const auto begin = Clock::now();
    body(0, n);
    return pool().add_lonely(Clock::now() - begin);
  }
  pool().run(n, grain, threads, body);
}

}  // namespace lohe
