#include "base/log.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <mutex>
#include <set>

#include "base/env.h"
#include "base/fork.h"

namespace lohe {
namespace {

constexpr std::array<std::string_view, 5> kNames{"silent", "error", "warning", "info", "debug"};

std::atomic<LogSink> sink{nullptr};

LogLevel level_from_environment() noexcept {
  try {
    const std::string word = env_choice("LOHE_LOG", "warning");
    for (size_t i = 0; i < kNames.size(); ++i) {
      if (word == kNames[i]) return static_cast<LogLevel>(i);
    }
  } catch (const std::exception& error) {
    // A misspelt log level must not keep a program from running; log_level() is noexcept for that reason.
    detail::log_write(LogLevel::kWarning, error.what());
  }
  return LogLevel::kWarning;
}

std::atomic<LogLevel>& current_level() noexcept {
  static std::atomic<LogLevel> level{level_from_environment()};
  return level;
}

}  // namespace

LogLevel log_level() noexcept { return current_level().load(std::memory_order_relaxed); }
void set_log_level(LogLevel level) noexcept { current_level().store(level, std::memory_order_relaxed); }
LogSink set_log_sink(LogSink new_sink) noexcept { return sink.exchange(new_sink); }

namespace detail {

void log_write(LogLevel level, const std::string& message) {
  if (const LogSink target = sink.load()) {
    target(level, message);
    return;
  }
  // One write per message, so that the lines of several threads and processes do not mix.
  const std::string line = concat("lohe ", kNames[static_cast<size_t>(level)], ": ", message, "\n");
  size_t done = 0;
  while (done < line.size()) {
    const ssize_t written = ::write(STDERR_FILENO, line.data() + done, line.size() - done);
    if (written <= 0) return;  // nowhere left to report that the log cannot be written
    done += static_cast<size_t>(written);
  }
}

bool first_time(std::string_view id) {
  static std::mutex mutex;
  static auto& seen = *new std::set<std::string, std::less<>>;  // outlives threads that log at exit
  const ForkSection section;
  const std::lock_guard lock(mutex);
  return seen.emplace(id).second;
}

}  // namespace detail
}  // namespace lohe
