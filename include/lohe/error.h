#pragma once

#include <exception>
#include <sstream>
#include <string>
#include <utility>

#include "lohe/export.h"

namespace lohe {

/// The Python exception that an error becomes; in C++ every error is a lohe::Error.
enum class ErrorKind : unsigned char {
  kRuntime,         ///< RuntimeError: a misuse that PyTorch reports as RuntimeError
  kType,            ///< TypeError
  kValue,           ///< ValueError
  kIndex,           ///< IndexError
  kKey,             ///< KeyError
  kAttribute,       ///< AttributeError
  kNotImplemented,  ///< NotImplementedError: an operation that exists, but not for this dtype or layout
  kZeroDivision,    ///< RuntimeError in Python ("ZeroDivisionError" is the text PyTorch uses for integer
                    ///< division)
  kOverflow,        ///< OverflowError
  kOutOfMemory,     ///< RuntimeError naming the request; everything stays usable
  kIo,              ///< OSError: files, sockets
  kLinAlg,          ///< lohe.linalg.LinAlgError
  kStopped,         ///< KeyboardInterrupt, or an error already set in the interpreter
  kInternal,        ///< a fault of Lohe itself; a test that reaches one fails
};

/// The one exception type of the C++ API. `what()` says: op, got, expected, what to do.
class LOHE_API Error : public std::exception {
 public:
  Error(ErrorKind kind, std::string message) : kind_(kind), message_(std::move(message)) {}
  const char* what() const noexcept override { return message_.c_str(); }
  ErrorKind kind() const noexcept { return kind_; }
  const std::string& message() const noexcept { return message_; }

 private:
  ErrorKind kind_;
  std::string message_;
};

namespace detail {

template <class... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream out;
  ((void)(out << parts), ...);
  return out.str();
}

[[noreturn]] LOHE_API void raise_internal(const char* file, int line, const char* condition,
                                          const std::string& message);

}  // namespace detail

/// Throws Error(kind, parts...); the parts are written with operator<<.
template <class... Parts>
[[noreturn]] void raise(ErrorKind kind, const Parts&... parts) {
  throw Error(kind, detail::concat(parts...));
}

}  // namespace lohe

/// User errors. The message parts are only evaluated when the check fails.
#define LOHE_CHECK_KIND(kind, condition, ...)              \
  do {                                                     \
    if (!(condition)) [[unlikely]]                         \
      ::lohe::raise(::lohe::ErrorKind::kind, __VA_ARGS__); \
  } while (false)
#define LOHE_CHECK(condition, ...) LOHE_CHECK_KIND(kRuntime, condition, __VA_ARGS__)
#define LOHE_CHECK_TYPE(condition, ...) LOHE_CHECK_KIND(kType, condition, __VA_ARGS__)
#define LOHE_CHECK_VALUE(condition, ...) LOHE_CHECK_KIND(kValue, condition, __VA_ARGS__)
#define LOHE_CHECK_INDEX(condition, ...) LOHE_CHECK_KIND(kIndex, condition, __VA_ARGS__)

/// Internal errors: reaching one is a fault of Lohe, never of the caller.
#define LOHE_INTERNAL_ASSERT(condition, ...)                                                               \
  do {                                                                                                     \
    if (!(condition)) [[unlikely]]                                                                         \
      ::lohe::detail::raise_internal(__FILE__, __LINE__, #condition, ::lohe::detail::concat(__VA_ARGS__)); \
  } while (false)
