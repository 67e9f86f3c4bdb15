#pragma once

#include <string_view>

namespace lohe::ops {

/// What a user calls a row: one with an underscore stands behind a function of the same name without it.
inline std::string_view public_name(std::string_view base) {
  return base.starts_with('_') ? base.substr(1) : base;
}

}  // namespace lohe::ops
