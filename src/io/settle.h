#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "io/value.h"

namespace lohe::io {

/// Empties a list, tuple, dict or set.
void clear_container(const Value& value);

/// Checks and completes a value that came out of a file: `root` must be free of rings, nested at most
/// kMaxNesting deep, free of Global, with hashable keys; equal keys are joined as Python does (first key,
/// last value). Of `containers`, those that are not reachable from `root` are emptied. On an error nothing is
/// emptied.
/// @param budget the comparisons allowed, in units of a few nanoseconds
/// @param fail throws the error with the text that it is given
void settle(const Value& root, const std::vector<Value>& containers, size_t budget,
            const std::function<void(const std::string&)>& fail);

}  // namespace lohe::io
