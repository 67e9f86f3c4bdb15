#pragma once

#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>

namespace lohe::codegen {

/// Compiled kernels on disk, one file an entry, shared by all processes of one user.
///
/// An entry is used only if its whole key, its sizes and its checksum are as expected; anything else in its
/// place is ignored and written anew. Entries appear whole or not at all, so writers need no locks and may
/// die at any moment. A directory that cannot be used (read-only, full, owned by somebody else) costs one
/// warning and is then left alone.
class DiskCache {
 public:
  /// An empty `directory` makes a cache that holds nothing. The directory is created when something is
  /// stored.
  DiskCache(std::filesystem::path directory, uint64_t max_bytes);

  /// `key` is any text; the name of the entry is its hash.
  std::optional<std::string> load(const std::string& key);
  void store(const std::string& key, const std::string& object);

  std::filesystem::path path_of(const std::string& key) const;

 private:
  bool usable_for_reading();
  void disable(const std::string& why);
  void evict();

  std::filesystem::path directory_;
  uint64_t max_bytes_;
  std::mutex mutex_;
  bool checked_ = false;  ///< ownership was looked at
  bool readable_ = false;
  bool writable_ = true;
  uint64_t written_since_scan_;  ///< bytes
};

}  // namespace lohe::codegen
