#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace lohe {

/// Writes a file that appears under its name whole or not at all. The bytes go to a temporary file of unique
/// name in the same folder; commit() makes them durable (fsync of the file and of its folder) and renames.
/// Without a commit the destructor removes the temporary file. An existing file keeps its permissions; a new
/// one gets those of the process's umask. All errors are of kind kIo and name the path and the system's
/// reason.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);
  ~AtomicFile();
  AtomicFile(AtomicFile&& other) noexcept;
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  AtomicFile& operator=(AtomicFile&&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }
  /// Overwrites bytes written before, for headers known only at the end.
  void write_at(uint64_t offset, std::span<const std::byte> bytes);
  /// Bytes written so far.
  uint64_t size() const noexcept { return size_; }
  void commit();

 private:
  void discard() noexcept;

  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  uint64_t size_ = 0;
};

void write_file_atomically(const std::filesystem::path& path, std::span<const std::byte> bytes);
void write_file_atomically(const std::filesystem::path& path, std::string_view text);

/// The whole content of a file.
std::string read_file(const std::filesystem::path& path);

/// Who may write the pages of a mapped file; the file itself never changes.
enum class MapAccess : uint8_t {
  kReadOnly,
  kCopyOnWrite,  ///< the process may write: a page becomes its own copy by the first write
};

/// A mapped file. An empty file maps to an empty span. A file that somebody shortens while it is mapped
/// faults on access; replace files by renaming (AtomicFile) instead of writing into them.
class MappedFile {
 public:
  MappedFile() noexcept = default;
  explicit MappedFile(const std::filesystem::path& path, MapAccess access = MapAccess::kReadOnly);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  const std::byte* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace lohe
