#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "base/file.h"
#include "lohe/error.h"

namespace lohe {
namespace {

namespace fs = std::filesystem;

class File : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "lohe-file-test-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  size_t entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), fs::directory_iterator()));
  }

  template <class F>
  void expect_io_error(F&& f, const std::string& path, const std::string& reason) {
    try {
      f();
      ADD_FAILURE() << "nothing was thrown";
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kIo);
      EXPECT_NE(error.message().find(path), std::string::npos) << error.message();
      EXPECT_NE(error.message().find(reason), std::string::npos) << error.message();
    }
  }

  fs::path folder_;
};

TEST_F(File, WrittenFilesAreReadBack) {
  const fs::path path = folder_ / "data.bin";
  for (const std::string& content :
       {std::string("first\0second", 12), std::string(), std::string(3'000'000, 'x')}) {
    write_file_atomically(path, content);
    EXPECT_EQ(read_file(path), content);
    const MappedFile mapped(path);
    ASSERT_EQ(mapped.size(), content.size());
    EXPECT_TRUE(std::equal(content.begin(), content.end(), reinterpret_cast<const char*>(mapped.data())));
    EXPECT_EQ(entries(), 1u);
  }
}

TEST_F(File, NothingIsSeenBeforeTheCommitAndNothingStaysWithoutOne) {
  const fs::path path = folder_ / "model";
  write_file_atomically(path, "old");
  {
    AtomicFile file(path);
    file.write("new and ");
    AtomicFile moved(std::move(file));
    moved.write("unfinished");
    EXPECT_EQ(moved.size(), 18u);
    EXPECT_EQ(read_file(path), "old");
    EXPECT_EQ(entries(), 2u);
  }
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(entries(), 1u);
  AtomicFile file(path);
  file.write("????tail");
  file.write_at(0, std::as_bytes(std::span("head", 4)));
  EXPECT_THROW(file.write_at(6, std::as_bytes(std::span("head", 4))), Error);
  file.write("!");
  file.commit();
  EXPECT_EQ(read_file(path), "headtail!");
  EXPECT_THROW(file.write("late"), Error);
  EXPECT_THROW(file.commit(), Error);
  EXPECT_EQ(entries(), 1u);
}

TEST_F(File, AFailedWriteLeavesTheOldFileAndNoTemporary) {
  const fs::path path = folder_ / "model";
  write_file_atomically(path, "old");
  rlimit before;
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit limit{1000, before.rlim_max};
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  setrlimit(RLIMIT_FSIZE, &limit);
  expect_io_error([&] { write_file_atomically(path, std::string(5000, 'x')); }, path.string(), "too large");
  setrlimit(RLIMIT_FSIZE, &before);
  std::signal(SIGXFSZ, handler);
  EXPECT_EQ(read_file(path), "old");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(File, ErrorsNamePathAndReason) {
  const fs::path missing = folder_ / "no" / "such";
  expect_io_error([&] { write_file_atomically(missing, "x"); }, missing.string(), "No such file");
  expect_io_error([&] { read_file(missing); }, missing.string(), "No such file");
  expect_io_error([&] { MappedFile file(missing); }, missing.string(), "No such file");
  expect_io_error([&] { write_file_atomically(folder_, "x"); }, folder_.string(), "Is a directory");
  expect_io_error([&] { read_file(folder_); }, folder_.string(), "Is a directory");
  expect_io_error([&] { MappedFile file(folder_); }, folder_.string(), "Is a directory");
  EXPECT_EQ(entries(), 0u);
}

TEST_F(File, PermissionsOfAReplacedFileStay) {
  const fs::path path = folder_ / "private";
  write_file_atomically(path, "a");
  ASSERT_EQ(chmod(path.c_str(), 0640), 0);
  write_file_atomically(path, "b");
  struct stat status;
  ASSERT_EQ(stat(path.c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777u, 0640u);
}

TEST_F(File, ASymbolicLinkStaysOne) {
  write_file_atomically(folder_ / "target", "old");
  fs::create_symlink("target", folder_ / "link");
  write_file_atomically(folder_ / "link", "new");
  EXPECT_TRUE(fs::is_symlink(folder_ / "link"));
  EXPECT_EQ(read_file(folder_ / "target"), "new");
}

TEST_F(File, RelativeAndLongNames) {
  const fs::path before = fs::current_path();
  fs::current_path(folder_);
  write_file_atomically("plain", "x");
  EXPECT_EQ(read_file("plain"), "x");
  fs::current_path(before);
  const fs::path path = folder_ / std::string(255, 'n');
  write_file_atomically(path, "y");
  EXPECT_EQ(read_file(path), "y");
}

TEST_F(File, RacingWritersLeaveOneWholeFile) {
  const fs::path path = folder_ / "shared";
  std::vector<std::thread> writers;
  for (int w = 0; w < 4; ++w) {
    writers.emplace_back([&, w] {
      for (int i = 0; i < 10; ++i)
        write_file_atomically(path, std::string(10'000, static_cast<char>('a' + w)));
    });
  }
  for (std::thread& writer : writers) writer.join();
  const std::string content = read_file(path);
  EXPECT_EQ(content, std::string(10'000, content.at(0)));
  EXPECT_EQ(entries(), 1u);
}

TEST_F(File, FilesOfUnknownSizeAreReadToTheirEnd) {
  EXPECT_NE(read_file("/proc/self/status").find("Pid:"), std::string::npos);
}

TEST_F(File, AMappingMoves) {
  write_file_atomically(folder_ / "m", "abc");
  MappedFile first(folder_ / "m");
  MappedFile second(std::move(first));
  EXPECT_EQ(first.size(), 0u);  // NOLINT: moved-from is empty
  EXPECT_EQ(second.size(), 3u);
  first = std::move(second);
  EXPECT_EQ(first.size(), 3u);
}

}  // namespace
}  // namespace lohe
