#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>

/// What a training run needs beside the framework: files written whole, memory and time, a progress bar.
namespace run {

/// Lets `write` make a temporary file beside `path` and renames it when its bytes are on the disk: a reader
/// finds the former content or the new one, never a part. @throws std::runtime_error where that fails.
inline void write_whole(const std::filesystem::path& path,
                        const std::function<void(const std::filesystem::path&)>& write) {
  const std::filesystem::path temporary = path.string() + "." + std::to_string(getpid()) + ".partial";
  const auto sync = [](const std::filesystem::path& place) {
    const int file = open(place.c_str(), O_RDONLY);
    const bool good = file >= 0 && fsync(file) == 0;
    if (file >= 0) close(file);
    if (!good) throw std::runtime_error(place.string() + ": could not be brought to the disk");
  };
  try {
    write(temporary);
    sync(temporary);
    std::filesystem::rename(temporary, path);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    throw;
  }
  sync(path.parent_path());
}

/// A size of this process in bytes, from /proc/self/status: VmRSS is what is resident, VmHWM the most that
/// ever was.
inline int64_t status_bytes(const std::string& field) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with(field + ":")) return std::stoll(line.substr(field.size() + 1)) * 1024;
  }
  throw std::runtime_error("/proc/self/status has no " + field);
}

/// Seconds between start() and stop(), added up.
class Clock {
 public:
  void start() { began_ = std::chrono::steady_clock::now(); }
  void stop() { seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - began_).count(); }
  double seconds = 0;

 private:
  std::chrono::steady_clock::time_point began_;
};

/// One line that is drawn again on a terminal; elsewhere a line every tenth of the way.
class Progress {
 public:
  Progress(std::string name, int64_t done, int64_t total)
      : name_(std::move(name)), first_(done), total_(total), terminal_(isatty(STDERR_FILENO) != 0) {
    clock_.start();
  }

  void step(int64_t done, double loss) {
    clock_.stop();
    clock_.start();
    const bool last = done == total_;
    const bool due =
        terminal_ ? clock_.seconds - drawn_ > 0.1 : done % std::max<int64_t>(1, total_ / 10) == 0;
    if (!due && !last) return;
    drawn_ = clock_.seconds;
    constexpr int64_t kWidth = 30;
    const std::string bar(static_cast<size_t>(kWidth * done / total_), '#');
    std::fprintf(stderr, "%s%s [%-30s] %lld/%lld, %.0f steps/s, loss %.3f%s", terminal_ ? "\r" : "",
                 name_.c_str(), bar.c_str(), static_cast<long long>(done), static_cast<long long>(total_),
                 static_cast<double>(done - first_) / clock_.seconds, loss,
                 terminal_ && !last ? "\033[K" : "\n");
  }

 private:
  std::string name_;
  int64_t first_, total_;
  bool terminal_;
  Clock clock_;
  double drawn_ = 0;
};

}  // namespace run
