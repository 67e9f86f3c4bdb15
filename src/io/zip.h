#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace lohe::io {

/// One file of a zip archive.
struct ZipEntry {
  std::string name;
  uint32_t crc32 = 0;
  uint16_t method = 0;  ///< 0 for stored; `bytes` of any other are compressed
  std::span<const std::byte> bytes;
};

/// Reads uncompressed zip archives (PKWARE APPNOTE 6.3, with zip64 and data descriptors) out of memory that
/// the caller keeps alive. Every record is checked against the span before it is used, and no two records may
/// overlap, so an archive can never stand for more bytes than it has. Errors (kRuntime) name `source` and the
/// entry.
class ZipReader {
 public:
  ZipReader(std::span<const std::byte> archive, std::string source);
  ZipReader(const ZipReader&) = delete;
  ZipReader& operator=(const ZipReader&) = delete;

  const std::vector<ZipEntry>& entries() const noexcept { return entries_; }
  bool contains(std::string_view name) const { return by_name_.contains(name); }
  /// The stored entry of that name, or null. @throws Error if it is compressed
  const ZipEntry* find(std::string_view name) const;
  /// @throws Error if the bytes do not have the checksum that the archive gives for them.
  void check_crc(const ZipEntry& entry) const;

  /// Whether the bytes start like a zip archive.
  static bool recognises(std::span<const std::byte> bytes);

 private:
  std::string source_;
  std::vector<ZipEntry> entries_;
  std::unordered_map<std::string_view, size_t> by_name_;  // keys point into entries_
};

/// Takes the bytes of a file in order.
using Sink = std::function<void(std::span<const std::byte>)>;

/// Writes the layout of PyTorch's files: stored entries `<archive>/<name>` whose bytes start at multiples of
/// 64, sizes and checksum in a data descriptor behind them and in the central directory. Equal entries give
/// equal bytes.
class ZipWriter {
 public:
  /// @param archive the folder that all entries lie in; PyTorch takes the file's stem.
  ZipWriter(Sink sink, std::string archive);
  void add(std::string_view name, std::span<const std::byte> bytes);
  void add(std::string_view name, std::string_view text) { add(name, std::as_bytes(std::span(text))); }
  /// Writes the central directory; nothing may be added afterwards.
  void finish();

  /// CRC-32 over the checksums of all entries so far, in order, and over their names.
  uint32_t content_checksum() const noexcept { return content_checksum_; }
  uint32_t names_checksum() const noexcept { return names_checksum_; }

 private:
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text))); }

  Sink sink_;
  uint64_t size_ = 0;
  std::string archive_;
  std::string directory_;
  uint64_t count_ = 0;
  uint32_t content_checksum_ = 0;
  uint32_t names_checksum_ = 0;
};

/// CRC-32 (ISO-HDLC, as zip uses it) of `bytes`, continuing from `start`.
uint32_t crc32_of(std::span<const std::byte> bytes, uint32_t start = 0);

}  // namespace lohe::io
