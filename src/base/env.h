#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <string_view>

namespace lohe {

enum class EnvType : unsigned char { kBool, kInt, kString, kPath, kChoice };

/// One row of the table of environment variables, from which the documentation page is written.
struct EnvVariable {
  std::string_view name;
  EnvType type;
  std::string_view default_text;  ///< what holds when the variable is unset or empty, in words or as a value
  std::string_view choices;       ///< for kChoice: the allowed words, separated by '|'
  std::string_view meaning;
};

/// Every variable that Lohe itself reads, sorted by name. The readers below accept no name outside it.
std::span<const EnvVariable> env_variables();

/// The readers look at the environment at each call; an unset or empty variable gives `default_value`.
/// A value that does not parse raises a ValueError naming the variable, the value and what is accepted.

/// 1, true, yes, on / 0, false, no, off, in any case.
bool env_bool(std::string_view name, bool default_value);
/// A decimal integer in [minimum, maximum].
int64_t env_int(std::string_view name, int64_t default_value, int64_t minimum, int64_t maximum);
std::string env_string(std::string_view name, std::string_view default_value);
/// One of the row's `choices`, returned in the table's spelling.
std::string env_choice(std::string_view name, std::string_view default_value);

}  // namespace lohe
