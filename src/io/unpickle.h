#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "io/value.h"
#include "lohe/error.h"

namespace lohe::io {

/// A pickle that is damaged, or that asks for something other than tensors and plain data.
/// pickle.UnpicklingError in Python.
class UnpicklingError : public Error {
 public:
  explicit UnpicklingError(std::string message) : Error(ErrorKind::kValue, std::move(message)) {}
};

/// The persistent id of a storage in PyTorch's files: ('storage', type, key, location, number of elements).
struct StorageId {
  Dtype dtype = Dtype::kUInt8;
  bool untyped = false;
  std::string key;
  std::string location;
  int64_t numel = 0;
};

/// Gives the bytes of a storage; called once for each key. Throws when there are fewer than the id says.
using StorageResolver = std::function<std::shared_ptr<const StorageBlob>(const StorageId&)>;

/// Reads one pickled object (Python's pickle protocols 2 to 5). Nothing is ever executed or imported: a
/// pickle names functions and classes, and only those that PyTorch's files of tensors and plain data need are
/// known here, each with its own builder. Memory stays within a fixed multiple of the pickle's size, and
/// nesting within kMaxNesting.
/// @param source the file's name, for messages
/// @throws UnpicklingError; Error(kNotImplemented) for tensors that exist in PyTorch but not here (sparse,
/// quantized)
Value unpickle(std::span<const std::byte> pickle, const StorageResolver& resolve, const std::string& source);

}  // namespace lohe::io
