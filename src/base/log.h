#pragma once

#include <string>
#include <string_view>

#include "lohe/error.h"

namespace lohe {

enum class LogLevel : unsigned char { kSilent, kError, kWarning, kInfo, kDebug };

/// The least severe level that is written. It starts as LOHE_LOG says (default kWarning; a value that is no
/// level is reported once and ignored).
LogLevel log_level() noexcept;
void set_log_level(LogLevel level) noexcept;
inline bool log_enabled(LogLevel level) noexcept { return level <= log_level(); }

/// Receives each message; `level` is never kSilent. It may be called from any thread.
using LogSink = void (*)(LogLevel level, const std::string& message);
/// Replaces the standard error stream as the place where messages go; nullptr brings it back. Returns the
/// previous sink (nullptr for the standard error stream).
LogSink set_log_sink(LogSink sink) noexcept;

namespace detail {
void log_write(LogLevel level, const std::string& message);
/// True the first time that this process sees `id`.
bool first_time(std::string_view id);
}  // namespace detail

/// The parts are written with operator<<, and only when the level is on.
template <class... Parts>
void log(LogLevel level, const Parts&... parts) {
  if (log_enabled(level)) detail::log_write(level, detail::concat(parts...));
}

/// A warning that is given once a process, whatever its text; `id` names its cause.
template <class... Parts>
void log_warning_once(std::string_view id, const Parts&... parts) {
  if (log_enabled(LogLevel::kWarning) && detail::first_time(id)) {
    detail::log_write(LogLevel::kWarning, detail::concat(parts...));
  }
}

}  // namespace lohe
