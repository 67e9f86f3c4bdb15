#pragma once

#include <memory>
#include <string>
#include <vector>

#include "io/value.h"

namespace lohe::io {

/// A pickle, and the storages that its persistent ids "0", "1", ... stand for, in that order.
struct Pickled {
  std::string bytes;
  std::vector<std::shared_ptr<const StorageBlob>> storages;
};

/// Writes `value` as Python and PyTorch do (pickle protocol 2), so that torch.load(weights_only=True) reads
/// it. An object that appears twice through the same shared_ptr, storages above all, is written once.
/// @throws Error: kValue for a value deeper than kMaxNesting (or that contains itself) or text that is not
/// UTF-8;
///   kRuntime for a tensor outside its storage, or one storage seen as two dtypes, which the format cannot
///   say
Pickled pickle(const Value& value);

}  // namespace lohe::io
