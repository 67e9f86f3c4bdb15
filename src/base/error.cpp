#include "lohe/error.h"

namespace lohe::detail {

void raise_internal(const char* file, int line, const char* condition, const std::string& message) {
  throw Error(
      ErrorKind::kInternal,
      concat(
          "internal error at ", file, ":", line, ": '", condition, "' does not hold",
          message.empty() ? "" : "; ", message,
          "\nThis is a fault of Lohe, not of the program that calls it. Please report it with this message, "
          "the output of lohe.show_config() and, if possible, a short program that shows it."));
}

}  // namespace lohe::detail
