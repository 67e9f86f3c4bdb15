#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>

#include "io/value.h"

/// PyTorch's own file format: a zip archive of a pickle (`data.pkl`) and one entry of raw bytes for each
/// storage.
namespace lohe::io {

struct LoadOptions {
  /// Storages stay in the mapped file: loading takes no time or memory, and checksums are not verified (a
  /// misaligned storage is copied). Pages of a file that was opened by its path are copied when they are
  /// first written; bytes in memory are read-only. Otherwise storages are copied to memory of their own and
  /// every checksum is verified.
  bool mmap = false;
};

/// Reads a file that torch.save wrote (PyTorch 1.6 and later). Tensors of every device come back on the CPU.
/// The file may be anything: nothing in it is executed, and it can make this function raise but not crash or
/// use memory out of proportion to its size.
/// @throws Error(kIo) for a file that cannot be read, Error(kRuntime) for a damaged archive, UnpicklingError
/// (kValue)
///   for a damaged pickle or one with other things than tensors and plain data, Error(kNotImplemented)
Value load(const std::filesystem::path& path, LoadOptions options = {});

/// The same for a file in memory. @param owner keeps `bytes` alive, for options.mmap
/// @param source names the file in messages
Value load(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, const std::string& source,
           LoadOptions options = {});

/// Writes a file that torch.load(weights_only=True) reads. It appears whole or not at all.
void save(const Value& value, const std::filesystem::path& path);

/// The same in pieces, in their order in the file.
void save(const Value& value, const std::function<void(std::span<const std::byte>)>& sink,
          const std::string& archive = "archive");

/// The bytes of that file. @param archive name of the folder inside the archive
std::string save_to_string(const Value& value, const std::string& archive = "archive");

}  // namespace lohe::io
