#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <atomic>
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "base/file.h"
#include "base/log.h"
#include "codegen/disk_cache.h"
#include "codegen_fixture.h"

namespace lohe::codegen::testing {
namespace {

namespace fs = std::filesystem;
using ir::Type;

/// out[i] = in[i] * factor
ir::Kernel scale(double factor) {
  ir::Builder b("scale");
  const int16_t in = b.buffer(Type::kF32, false), out = b.buffer(Type::kF32, true);
  ir::V zero = b.constant_int(Type::kI64, 0);
  b.loop({{b.begin(), b.end()}}, true,
         [&](const std::vector<ir::V>&) { b.store_unit(out, zero, b.load_unit(in, zero) * factor); });
  return b.finish();
}

float run_scale(const CompiledKernel& kernel, float x) {
  float y = 0;
  void* buffers[] = {&x, &y};
  EXPECT_EQ(kernel(buffers, nullptr, 0, 1), 0);
  return y;
}

class CodegenCache : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "lohe_cache_XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    root_ = pattern;
  }
  void TearDown() override {
    fs::permissions(root_, fs::perms::owner_all);
    fs::remove_all(root_);
  }
  KernelCacheOptions options() const {
    KernelCacheOptions result{};
    result.level = detected_cpu_level();
    result.directory = root_ / "kernels";
    return result;
  }
  std::vector<fs::path> entries() const {
    std::vector<fs::path> result;
    if (!fs::exists(root_ / "kernels")) return result;
    for (const auto& file : fs::directory_iterator(root_ / "kernels")) result.push_back(file.path());
    return result;
  }
  fs::path root_;
};

/// First in the file: the level is read once a process.
TEST(CodegenLevel, UnknownLevelIsAnError) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    ::setenv("LOHE_CPU_LEVEL", "avx3", 1);
    try {
      KernelCacheOptions::from_environment();
    } catch (const Error& error) {
      ::_exit(error.kind() == ErrorKind::kValue ? 0 : 2);
    }
    ::_exit(1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(CodegenCache, EqualKernelsShareOneFunction) {
  KernelCache cache(options());
  const CompiledKernel* first = cache.get(scale(2));
  EXPECT_EQ(first, cache.get(scale(2)));
  EXPECT_NE(first, cache.get(scale(3)));
  EXPECT_EQ(run_scale(*first, 4), 8);
  EXPECT_EQ(cache.stats().compiled, 2u);
  EXPECT_EQ(cache.stats().memory_hits, 1u);
}

TEST_F(CodegenCache, SecondProcessReadsTheDisk) {
  EXPECT_EQ(run_scale(*KernelCache(options()).get(scale(2)), 4), 8);
  ASSERT_EQ(entries().size(), 1u);
  KernelCache cache(options());
  EXPECT_EQ(run_scale(*cache.get(scale(2)), 4), 8);
  EXPECT_EQ(cache.stats().disk_hits, 1u);
  EXPECT_EQ(cache.stats().compiled, 0u);
}

TEST_F(CodegenCache, InterpreterModeNeedsNoMachineCode) {
  KernelCacheOptions o = options();
  o.interpreter = true;
  KernelCache cache(o);
  const CompiledKernel* kernel = cache.get(scale(2));
  EXPECT_EQ(kernel->function, nullptr);
  EXPECT_EQ(run_scale(*kernel, 4), 8);
  EXPECT_EQ(cache.stats().interpreted, 1u);
  EXPECT_TRUE(entries().empty());
}

TEST_F(CodegenCache, PointersOutliveTheCache) {
  const CompiledKernel* kernel = nullptr;
  {
    KernelCache cache(options());
    kernel = cache.get(scale(5));
  }
  EXPECT_EQ(run_scale(*kernel, 2), 10);
}

TEST_F(CodegenCache, ManyThreadsMakeAKernelOnce) {
  KernelCache cache(options());
  std::vector<std::thread> threads;
  std::atomic<int> wrong{0};
  for (int t = 0; t < 8; ++t) {
    threads.emplace_back([&] {
      for (int i = 1; i <= 6; ++i) {
        if (run_scale(*cache.get(scale(i)), 3) != static_cast<float>(3 * i)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
  EXPECT_EQ(cache.stats().compiled, 6u);
}

TEST_F(CodegenCache, LevelsHaveEntriesOfTheirOwn) {
  for (CpuLevel level : levels()) {
    KernelCacheOptions o = options();
    o.level = level;
    KernelCache(o).get(scale(2));
  }
  EXPECT_EQ(entries().size(), levels().size());
}

TEST_F(CodegenCache, DamagedBytesAreFoundAndTheEntryIsWrittenAnew) {
  DiskCache disk(root_ / "kernels", 1 << 20);
  const std::string key = "some key", object(500, 'x');
  disk.store(key, object);
  const fs::path path = disk.path_of(key);
  const std::string good = read_file(path);
  for (size_t at = 0; at < good.size(); at += at < 64 ? 1 : 7) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x10);
    write_file_atomically(path, bad);
    EXPECT_FALSE(disk.load(key).has_value()) << "byte " << at;
  }
  for (size_t size = 0; size < good.size(); size += size < 64 ? 1 : 13) {
    write_file_atomically(path, good.substr(0, size));
    EXPECT_FALSE(disk.load(key).has_value()) << "cut to " << size;
  }
  write_file_atomically(path, good + "tail");
  EXPECT_FALSE(disk.load(key).has_value());
  disk.store(key, object);
  EXPECT_EQ(disk.load(key), object);
}

TEST_F(CodegenCache, DamagedEntryIsCompiledAgain) {
  KernelCache(options()).get(scale(2));
  const fs::path path = entries().at(0);
  std::string content = read_file(path);
  content[content.size() / 2] = static_cast<char>(content[content.size() / 2] ^ 1);
  write_file_atomically(path, content);
  KernelCache cache(options());
  EXPECT_EQ(run_scale(*cache.get(scale(2)), 4), 8);
  EXPECT_EQ(cache.stats().compiled, 1u);
  KernelCache again(options());
  again.get(scale(2));
  EXPECT_EQ(again.stats().disk_hits, 1u);
}

TEST_F(CodegenCache, EntryOfAnotherKeyUnderTheSameNameIsNotUsed) {
  DiskCache disk(root_ / "kernels", 1 << 20);
  disk.store("key one", "object one");
  fs::copy_file(disk.path_of("key one"), disk.path_of("key two"));
  EXPECT_FALSE(disk.load("key two").has_value());
}

TEST_F(CodegenCache, ConcurrentProcessesAgree) {
  std::vector<pid_t> children;
  for (int c = 0; c < 6; ++c) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      KernelCache cache(options());
      bool good = true;
      for (int i = 1; i <= 4; ++i) good &= run_scale(*cache.get(scale(i)), 3) == static_cast<float>(3 * i);
      ::_exit(good ? 0 : 1);
    }
    children.push_back(child);
  }
  for (pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  EXPECT_EQ(entries().size(), 4u);
  KernelCache cache(options());
  for (int i = 1; i <= 4; ++i) cache.get(scale(i));
  EXPECT_EQ(cache.stats().disk_hits, 4u);
}

TEST_F(CodegenCache, WritersKilledAtAnyMomentLeaveOnlyWholeEntries) {
  const std::string object(200000, 'o');
  for (int round = 0; round < 40; ++round) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      DiskCache disk(root_ / "kernels", 1 << 30);
      for (int i = 0;; ++i) disk.store("key " + std::to_string(i % 5), object);
    }
    ::usleep(static_cast<useconds_t>(300 + 617 * (round % 13)));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    DiskCache disk(root_ / "kernels", 1 << 30);
    for (int i = 0; i < 5; ++i) {
      const std::string key = "key " + std::to_string(i);
      if (!fs::exists(disk.path_of(key))) continue;
      EXPECT_EQ(disk.load(key), object);
    }
  }
}

int warnings = 0;

TEST_F(CodegenCache, DirectoryThatCannotBeWrittenCostsOneWarning) {
  // A file in the place of the parent fails for every user, root included.
  write_file_atomically(root_ / "kernels", std::string_view("in the way"));
  warnings = 0;
  const LogSink before =
      set_log_sink([](LogLevel level, const std::string&) { warnings += level == LogLevel::kWarning; });
  KernelCacheOptions o = options();
  o.directory = root_ / "kernels" / "below";
  KernelCache cache(o);
  for (int i = 1; i <= 3; ++i) EXPECT_EQ(run_scale(*cache.get(scale(i)), 1), static_cast<float>(i));
  set_log_sink(before);
  EXPECT_LE(warnings, 1);
}

TEST_F(CodegenCache, WithoutExecutableMemoryKernelsAreInterpretedOrStrictlyRefused) {
  constexpr int kSetMdwe = 65, kRefuseExecGain = 1;  // prctl: no page ever becomes executable (Linux 6.3)
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    if (::prctl(kSetMdwe, kRefuseExecGain, 0, 0, 0) != 0) ::_exit(77);
    warnings = 0;
    set_log_sink([](LogLevel level, const std::string&) { warnings += level == LogLevel::kWarning; });
    KernelCache cache(options());
    bool good = run_scale(*cache.get(scale(2)), 4) == 8 && run_scale(*cache.get(scale(3)), 4) == 12;
    KernelCacheOptions o = options();
    o.strict = true;
    try {
      (void)KernelCache(o).get(scale(5));
      good = false;
    } catch (const Error&) {
    }
    ::_exit(good && cache.stats().interpreted == 2 && warnings == 1 ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) GTEST_SKIP() << "this kernel cannot deny executable memory";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST_F(CodegenCache, ReadOnlyDirectoryStillServesItsEntries) {
  KernelCache(options()).get(scale(2));
  fs::permissions(root_ / "kernels", fs::perms::owner_read | fs::perms::owner_exec);
  KernelCache cache(options());
  EXPECT_EQ(run_scale(*cache.get(scale(2)), 4), 8);
  EXPECT_EQ(run_scale(*cache.get(scale(3)), 4), 12);
  EXPECT_EQ(cache.stats().disk_hits, 1u);
  fs::permissions(root_ / "kernels", fs::perms::owner_all);
}

TEST_F(CodegenCache, DirectoryThatEveryUserMayWriteIsNotTrusted) {
  KernelCache(options()).get(scale(2));
  fs::permissions(root_ / "kernels", fs::perms::all);
  KernelCache cache(options());
  EXPECT_EQ(run_scale(*cache.get(scale(2)), 4), 8);
  EXPECT_EQ(cache.stats().disk_hits, 0u);
}

TEST_F(CodegenCache, LeastRecentlyUsedEntriesGoFirst) {
  const std::string object(1000, 'x');
  const fs::path directory = root_ / "kernels";
  for (int i = 0; i < 20; ++i) {
    DiskCache disk(directory, 1 << 20);
    disk.store("key " + std::to_string(i), object);
    const auto used = fs::file_time_type::clock::now() - std::chrono::hours(100 - i);
    fs::last_write_time(disk.path_of("key " + std::to_string(i)), used);
  }
  {
    DiskCache disk(directory, 1 << 20);
    EXPECT_TRUE(disk.load("key 0").has_value());  // now the latest used
  }
  DiskCache disk(directory, 10000);
  disk.store("one more", object);
  uint64_t total = 0;
  for (const fs::path& path : entries()) total += fs::file_size(path);
  EXPECT_LE(total, 10000u);
  EXPECT_TRUE(disk.load("key 0").has_value());
  EXPECT_TRUE(disk.load("one more").has_value());
  EXPECT_FALSE(disk.load("key 1").has_value());
}

TEST_F(CodegenCache, PrebuiltKernelsLinkAndGiveTheSameFunctions) {
  std::vector<ir::Kernel> kernels;
  for (int i = 1; i <= 3; ++i) kernels.push_back(scale(100 + i));
  kernels.push_back(scale(101));
  std::vector<const ir::Kernel*> pointers;
  for (const ir::Kernel& kernel : kernels) pointers.push_back(&kernel);
  write_prebuilt(pointers, kCpuLevels, root_ / "prebuilt");
  EXPECT_NE(read_file(root_ / "prebuilt" / "prebuilt_table.o").find(".init_array"), std::string::npos);
  // Joined as the build joins them, then loaded as one object: its table must be complete and point at the
  // functions.
  const std::string command =
      "ld -r -o '" + (root_ / "all.o").string() + "' '" + (root_ / "prebuilt").string() + "'/*.o";
  ASSERT_EQ(std::system(command.c_str()), 0);
  for (CpuLevel level : levels()) {
    const std::string object = read_file(root_ / "all.o");
    const std::string symbol = "lohe_prebuilt_" + kernel_hash(kernels[1]).hex() + "_" + name(level);
    EXPECT_EQ(run_scale({load_object(object, symbol), nullptr}, 1), 102);
  }
}

TEST_F(CodegenCache, RegisteredKernelsComeBeforeDiskAndCompiler) {
  const ir::Kernel kernel = scale(77);
  const Hash128 hash = kernel_hash(kernel);
  const ir::KernelFunction function = load_object(compile_to_object(kernel, detected_cpu_level(), "k"), "k");
  const PrebuiltKernel row{hash.first, hash.second, detected_cpu_level(), function};
  register_prebuilt(std::span(&row, 1));
  KernelCache cache(options());
  EXPECT_EQ(cache.get(kernel)->function, function);
  EXPECT_EQ(cache.stats().prebuilt_hits, 1u);
  EXPECT_TRUE(entries().empty());
}

TEST_F(CodegenCache, ForkWhileOtherThreadsMakeKernelsLeavesTheChildWorking) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "the sanitizer's own allocator may be locked by another thread, in the child for good";
#endif
  ::setenv("LOHE_CACHE_DIR", root_.c_str(), 1);
  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; !stop; ++i) KernelCache::global().get(scale(1000 + 2 * (i % 200) + t));
    });
  }
  for (int round = 0; round < 15; ++round) {
    ::usleep(3000);
    const pid_t child = ::fork();
    if (child == 0) {
      ::alarm(20);
      bool good = true;
      for (int i = 0; i < 4; ++i) {
        good &= run_scale(*KernelCache::global().get(scale(1000 + 40 * round + i)), 1) ==
                static_cast<float>(1000 + 40 * round + i);
      }
      ::_exit(good ? 0 : 1);
    }
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "round " << round;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  ::unsetenv("LOHE_CACHE_DIR");
}

TEST(CodegenLevel, NamesAreThoseOfTheEnvironmentVariable) {
  EXPECT_STREQ(name(CpuLevel::kV2), "x86-64-v2");
  EXPECT_STREQ(name(CpuLevel::kAvx2), "avx2");
  EXPECT_STREQ(name(CpuLevel::kAvx512), "avx512");
  EXPECT_NE(std::string(cpu_name()), "");
}

}  // namespace
}  // namespace lohe::codegen::testing
