#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "io/value.h"
#include "lohe/error.h"

/// The safetensors format: a 64-bit header length, a JSON header, then the bytes of all tensors without gaps.
namespace lohe::io {

/// A file that breaks the format's rules. safetensors.SafetensorError in Python.
class SafetensorsError : public Error {
 public:
  explicit SafetensorsError(std::string message) : Error(ErrorKind::kValue, std::move(message)) {}
};

struct SafetensorsFile {
  /// In the order of their bytes in the file. Contiguous; each has a StorageBlob of its own inside the file's
  /// bytes, which the blob's owner keeps alive.
  std::vector<std::pair<std::string, TensorBlob>> tensors;
  std::map<std::string, std::string> metadata;

  /// The tensor of that name, or null.
  const TensorBlob* find(std::string_view name) const;
};

/// Maps a file. The tensors' bytes are pages that are copied when they are first written, but for tensors
/// that lie at an address unfit for their dtype, which are copied at once. Enforced: a header of at most 100
/// MB that is one JSON object nested as the format says, no duplicate names, known dtypes, and byte ranges
/// that match shape and dtype and cover the rest of the file exactly.
/// @throws Error(kIo) for a file that cannot be read; SafetensorsError; Error(kNotImplemented) for a dtype of
/// the
///   format that is not supported
SafetensorsFile load_safetensors(const std::filesystem::path& path);
/// The same for a file in memory, whose bytes are read-only. @param owner keeps `bytes` alive @param source
/// names the file in messages
SafetensorsFile load_safetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                                 const std::string& source);

/// Writes tensors in the reference implementation's order: wide dtypes first, then by name.
/// @throws SafetensorsError for tensors that are not contiguous, have a conj or neg bit, share memory, or
/// have a dtype
///   that the format lacks (complex128), and for the name "__metadata__"
void save_safetensors(const std::map<std::string, TensorBlob>& tensors,
                      const std::map<std::string, std::string>& metadata, const std::filesystem::path& path);
/// The bytes of that file.
std::string save_safetensors_to_string(const std::map<std::string, TensorBlob>& tensors,
                                       const std::map<std::string, std::string>& metadata);

}  // namespace lohe::io
