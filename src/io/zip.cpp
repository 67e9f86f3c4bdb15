#include "io/zip.h"

#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <type_traits>
#include <utility>

#include "lohe/error.h"

namespace lohe::io {
namespace {

static_assert(std::endian::native == std::endian::little, "zip fields are little-endian");

constexpr uint32_t kLocalSignature = 0x04034b50;
constexpr uint32_t kDescriptorSignature = 0x08074b50;
constexpr uint32_t kCentralSignature = 0x02014b50;
constexpr uint32_t kEndSignature = 0x06054b50;
constexpr uint32_t kEnd64Signature = 0x06064b50;
constexpr uint32_t kLocator64Signature = 0x07064b50;
constexpr size_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22, kEnd64Size = 56, kLocator64Size = 20;
constexpr uint16_t kZip64Extra = 0x0001;
constexpr uint16_t kPaddingExtra = 0x4246;  // "FB"
constexpr uint16_t kFlagEncrypted = 1, kFlagDescriptor = 1 << 3, kFlagUtf8 = 1 << 11;
constexpr uint32_t kMax32 = 0xFFFFFFFF;
constexpr uint16_t kMax16 = 0xFFFF;
constexpr uint64_t kDataAlignment = 64;

template <class T>
T load_at(std::span<const std::byte> bytes, uint64_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

template <class T>
void put(std::string& out, std::type_identity_t<T> value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

bool fits(uint64_t offset, uint64_t length, uint64_t size) {
  return offset <= size && length <= size - offset;
}

/// Where the central directory lies.
struct Directory {
  uint64_t offset = 0;
  uint64_t size = 0;
  uint64_t count = 0;
  uint64_t end = 0;  // first byte of the records behind the directory
};

/// What the central directory says of an entry.
struct Record {
  uint16_t flags = 0, method = 0;
  uint32_t crc32 = 0;
  uint64_t compressed = 0, size = 0, header = 0;
  std::string_view name;
};

[[noreturn]] void corrupt(const std::string& source, const std::string& what) {
  raise(ErrorKind::kRuntime, "'", source, "' is not a sound zip archive: ", what,
        "; the file is truncated or damaged, fetch or save it again");
}

Directory find_directory(std::span<const std::byte> archive, const std::string& source) {
  if (archive.size() < kEndSize) corrupt(source, "shorter than any archive");
  // The end record is last, but a comment of at most 64 KiB may follow it.
  const uint64_t lowest = archive.size() > kEndSize + kMax16 ? archive.size() - kEndSize - kMax16 : 0;
  uint64_t at = archive.size() - kEndSize;
  while (load_at<uint32_t>(archive, at) != kEndSignature ||
         load_at<uint16_t>(archive, at + 20) != archive.size() - at - kEndSize) {
    if (at == lowest) corrupt(source, "no end-of-directory record");
    --at;
  }
  Directory found;
  if (load_at<uint16_t>(archive, at + 4) != 0 || load_at<uint16_t>(archive, at + 6) != 0) {
    corrupt(source, "it is one part of several");
  }
  found.count = load_at<uint16_t>(archive, at + 10);
  found.size = load_at<uint32_t>(archive, at + 12);
  found.offset = load_at<uint32_t>(archive, at + 16);
  found.end = at;
  const bool has64 =
      at >= kLocator64Size && load_at<uint32_t>(archive, at - kLocator64Size) == kLocator64Signature;
  if (has64) {
    const uint64_t at64 = load_at<uint64_t>(archive, at - kLocator64Size + 8);
    if (!fits(at64, kEnd64Size, at - kLocator64Size) || load_at<uint32_t>(archive, at64) != kEnd64Signature) {
      corrupt(source, "the zip64 locator points to no zip64 record");
    }
    found.count = load_at<uint64_t>(archive, at64 + 32);
    found.size = load_at<uint64_t>(archive, at64 + 40);
    found.offset = load_at<uint64_t>(archive, at64 + 48);
    found.end = at64;
  }
  if (!fits(found.offset, found.size, found.end)) corrupt(source, "the directory lies outside the file");
  if (found.count > found.size / kCentralSize)
    corrupt(source, "the directory is too short for its entry count");
  return found;
}

/// The zip64 field gives, in this order, those of size, compressed size and header offset that are all ones
/// elsewhere.
void apply_zip64(std::span<const std::byte> extra, Record& record, const std::string& source) {
  const bool wanted = record.size == kMax32 || record.compressed == kMax32 || record.header == kMax32;
  uint64_t at = 0;
  while (wanted && fits(at, 4, extra.size())) {
    const auto id = load_at<uint16_t>(extra, at);
    const auto length = load_at<uint16_t>(extra, at + 2);
    if (!fits(at + 4, length, extra.size())) break;
    if (id == kZip64Extra) {
      auto field = extra.subspan(at + 4, length);
      for (uint64_t* value : {&record.size, &record.compressed, &record.header}) {
        if (*value != kMax32) continue;
        if (field.size() < 8) corrupt(source, "short zip64 field of '" + std::string(record.name) + "'");
        *value = load_at<uint64_t>(field, 0);
        field = field.subspan(8);
      }
      return;
    }
    at += 4 + uint64_t{length};
  }
}

/// The first byte behind the entry's data descriptor, if it has one. Its size field width cannot be known for
/// sure, so each form is accepted when it agrees with the directory.
uint64_t end_of_descriptor(std::span<const std::byte> archive, uint64_t at, const Record& record) {
  const auto agrees = [&](uint64_t start, bool wide) {
    if (!fits(start, wide ? 20 : 12, archive.size()) || load_at<uint32_t>(archive, start) != record.crc32)
      return false;
    return wide ? load_at<uint64_t>(archive, start + 4) == record.compressed &&
                      load_at<uint64_t>(archive, start + 12) == record.size
                : load_at<uint32_t>(archive, start + 4) == record.compressed &&
                      load_at<uint32_t>(archive, start + 8) == record.size;
  };
  if (fits(at, 4, archive.size()) && load_at<uint32_t>(archive, at) == kDescriptorSignature) {
    for (const bool wide : {false, true}) {
      if (agrees(at + 4, wide)) return at + 4 + (wide ? 20 : 12);
    }
  }
  for (const bool wide : {false, true}) {
    if (agrees(at, wide)) return at + (wide ? 20 : 12);
  }
  return 0;
}

}  // namespace

uint32_t crc32_of(std::span<const std::byte> bytes, uint32_t start) {
  uint32_t crc = start;
  while (!bytes.empty()) {
    const size_t chunk = std::min<size_t>(bytes.size(), size_t{1} << 30);
    crc = static_cast<uint32_t>(
        ::crc32(crc, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(chunk)));
    bytes = bytes.subspan(chunk);
  }
  return crc;
}

bool ZipReader::recognises(std::span<const std::byte> bytes) {
  if (bytes.size() < 4) return false;
  const auto signature = load_at<uint32_t>(bytes, 0);
  return signature == kLocalSignature || signature == kEndSignature;
}

ZipReader::ZipReader(std::span<const std::byte> archive, std::string source) : source_(std::move(source)) {
  const Directory directory = find_directory(archive, source_);
  entries_.reserve(directory.count);
  std::vector<std::pair<uint64_t, uint64_t>> extents;
  extents.reserve(directory.count);
  uint64_t at = directory.offset;
  const uint64_t end = directory.offset + directory.size;
  for (uint64_t i = 0; i < directory.count; ++i) {
    if (!fits(at, kCentralSize, end) || load_at<uint32_t>(archive, at) != kCentralSignature) {
      corrupt(source_, "directory entry " + std::to_string(i) + " has no header");
    }
    Record record;
    record.flags = load_at<uint16_t>(archive, at + 8);
    record.method = load_at<uint16_t>(archive, at + 10);
    record.crc32 = load_at<uint32_t>(archive, at + 16);
    record.compressed = load_at<uint32_t>(archive, at + 20);
    record.size = load_at<uint32_t>(archive, at + 24);
    const uint64_t name_length = load_at<uint16_t>(archive, at + 28);
    const uint64_t extra_length = load_at<uint16_t>(archive, at + 30);
    const uint64_t comment_length = load_at<uint16_t>(archive, at + 32);
    record.header = load_at<uint32_t>(archive, at + 42);
    if (!fits(at + kCentralSize, name_length + extra_length + comment_length, end)) {
      corrupt(source_, "directory entry " + std::to_string(i) + " runs out of the directory");
    }
    record.name = {reinterpret_cast<const char*>(archive.data() + at + kCentralSize), name_length};
    apply_zip64(archive.subspan(at + kCentralSize + name_length, extra_length), record, source_);
    at += kCentralSize + name_length + extra_length + comment_length;

    const std::string name(record.name);
    LOHE_CHECK((record.flags & kFlagEncrypted) == 0, "'", source_, "': entry '", name,
               "' is encrypted, which is not supported");
    if (record.method == 0 && record.compressed != record.size) {
      corrupt(source_, "the two sizes of stored entry '" + name + "' differ");
    }
    if (!fits(record.header, kLocalSize, directory.offset) ||
        load_at<uint32_t>(archive, record.header) != kLocalSignature) {
      corrupt(source_, "entry '" + name + "' has no local header");
    }
    const uint64_t local_name = load_at<uint16_t>(archive, record.header + 26);
    const uint64_t local_extra = load_at<uint16_t>(archive, record.header + 28);
    const uint64_t data = record.header + kLocalSize + local_name + local_extra;
    if (!fits(data, record.compressed, directory.offset))
      corrupt(source_, "entry '" + name + "' runs out of the file");
    if (local_name != name_length ||
        std::memcmp(archive.data() + record.header + kLocalSize, record.name.data(), name_length) != 0) {
      corrupt(source_, "entry '" + name + "' has another name in its local header");
    }
    const auto local_flags = load_at<uint16_t>(archive, record.header + 6);
    const auto local_method = load_at<uint16_t>(archive, record.header + 8);
    if (local_method != record.method ||
        ((local_flags ^ record.flags) & (kFlagDescriptor | kFlagEncrypted)) != 0) {
      corrupt(source_, "the local header of entry '" + name + "' contradicts the directory");
    }
    uint64_t data_end = data + record.compressed;
    if ((local_flags & kFlagDescriptor) != 0) {
      data_end = end_of_descriptor(archive.first(directory.offset), data_end, record);
      if (data_end == 0)
        corrupt(source_, "the data descriptor of entry '" + name + "' contradicts the directory");
    } else if (load_at<uint32_t>(archive, record.header + 14) != record.crc32) {
      corrupt(source_, "the local header of entry '" + name + "' contradicts the directory");
    }
    extents.emplace_back(record.header, data_end);
    entries_.push_back({name, record.crc32, record.method, archive.subspan(data, record.compressed)});
  }
  std::sort(extents.begin(), extents.end());
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].first < extents[i - 1].second) corrupt(source_, "two entries overlap");
  }
  by_name_.reserve(entries_.size());
  for (size_t i = 0; i < entries_.size(); ++i) {
    if (!by_name_.emplace(entries_[i].name, i).second) {
      corrupt(source_, "entry '" + entries_[i].name + "' exists twice");
    }
  }
}

const ZipEntry* ZipReader::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  if (found == by_name_.end()) return nullptr;
  const ZipEntry& entry = entries_[found->second];
  LOHE_CHECK(
      entry.method == 0, "'", source_, "': entry '", entry.name, "' is compressed (method ", entry.method,
      "); only stored entries, as torch.save writes them, are supported: pack the archive anew without "
      "compression (zip -0)");
  return &entry;
}

void ZipReader::check_crc(const ZipEntry& entry) const {
  const uint32_t actual = crc32_of(entry.bytes);
  if (actual != entry.crc32)
    corrupt(source_, "the bytes of entry '" + entry.name + "' do not have their checksum");
}

ZipWriter::ZipWriter(Sink sink, std::string archive) : sink_(std::move(sink)), archive_(std::move(archive)) {}

void ZipWriter::write(std::span<const std::byte> bytes) {
  sink_(bytes);
  size_ += bytes.size();
}

void ZipWriter::add(std::string_view name, std::span<const std::byte> bytes) {
  const std::string full = archive_ + "/" + std::string(name);
  LOHE_CHECK_VALUE(full.size() <= 1024, "zip entry name of ", full.size(),
                   " bytes is too long (at most 1024)");
  const uint64_t offset = size_;
  const uint32_t crc = crc32_of(bytes);
  const bool wide = bytes.size() >= kMax32;
  const bool far_off = offset >= kMax32;
  // An empty entry needs no descriptor: its checksum and sizes are the zeros that the local header holds.
  const bool described = !bytes.empty();
  const auto flags = static_cast<uint16_t>(kFlagUtf8 | (described ? kFlagDescriptor : 0));

  std::string extra;
  if (wide) {
    put<uint16_t>(extra, kZip64Extra);
    put<uint16_t>(extra, 16);
    put<uint64_t>(extra, 0);
    put<uint64_t>(extra, 0);
  }
  const uint64_t unpadded = offset + kLocalSize + full.size() + extra.size() + 4;
  const uint64_t padding = (kDataAlignment - unpadded % kDataAlignment) % kDataAlignment;
  put<uint16_t>(extra, kPaddingExtra);
  put<uint16_t>(extra, static_cast<uint16_t>(padding));
  extra.append(padding, 'Z');

  std::string local;
  put<uint32_t>(local, kLocalSignature);
  put<uint16_t>(local, wide ? 45 : 0);  // version needed
  put<uint16_t>(local, flags);
  put<uint16_t>(local, 0);  // stored
  put<uint32_t>(local, 0);  // time and date: none, so that equal contents give equal files
  put<uint32_t>(local, 0);
  put<uint32_t>(local, wide ? kMax32 : 0);
  put<uint32_t>(local, wide ? kMax32 : 0);
  put<uint16_t>(local, static_cast<uint16_t>(full.size()));
  put<uint16_t>(local, static_cast<uint16_t>(extra.size()));
  local += full;
  local += extra;
  write(local);
  write(bytes);

  std::string descriptor;
  if (described) {
    put<uint32_t>(descriptor, kDescriptorSignature);
    put<uint32_t>(descriptor, crc);
    for (int i = 0; i < 2; ++i) {
      wide ? put<uint64_t>(descriptor, bytes.size())
           : put<uint32_t>(descriptor, static_cast<uint32_t>(bytes.size()));
    }
    write(descriptor);
  }

  std::string zip64;
  if (wide || far_off) {
    put<uint16_t>(zip64, kZip64Extra);
    put<uint16_t>(zip64, static_cast<uint16_t>((wide ? 16 : 0) + (far_off ? 8 : 0)));
    if (wide) {
      put<uint64_t>(zip64, bytes.size());
      put<uint64_t>(zip64, bytes.size());
    }
    if (far_off) put<uint64_t>(zip64, offset);
  }
  const uint32_t size32 = wide ? kMax32 : static_cast<uint32_t>(bytes.size());
  put<uint32_t>(directory_, kCentralSignature);
  put<uint16_t>(directory_, 0);  // version made by
  put<uint16_t>(directory_, wide || far_off ? 45 : 0);
  put<uint16_t>(directory_, flags);
  put<uint16_t>(directory_, 0);
  put<uint32_t>(directory_, 0);
  put<uint32_t>(directory_, crc);
  put<uint32_t>(directory_, size32);
  put<uint32_t>(directory_, size32);
  put<uint16_t>(directory_, static_cast<uint16_t>(full.size()));
  put<uint16_t>(directory_, static_cast<uint16_t>(zip64.size()));
  put<uint16_t>(directory_, 0);  // comment
  put<uint16_t>(directory_, 0);  // disk
  put<uint16_t>(directory_, 0);  // attributes
  put<uint32_t>(directory_, 0);
  put<uint32_t>(directory_, far_off ? kMax32 : static_cast<uint32_t>(offset));
  directory_ += full;
  directory_ += zip64;

  ++count_;
  content_checksum_ = crc32_of(std::as_bytes(std::span(&crc, 1)), content_checksum_);
  names_checksum_ = crc32_of(std::as_bytes(std::span(name)), names_checksum_);
}

void ZipWriter::finish() {
  const uint64_t offset = size_;
  const uint64_t size = directory_.size();
  std::string& out = directory_;
  // PyTorch writes the zip64 records always; so does this writer, for one layout whatever the size.
  put<uint32_t>(out, kEnd64Signature);
  put<uint64_t>(out, kEnd64Size - 12);
  put<uint16_t>(out, 0x031E);  // made by: Unix, 3.0
  put<uint16_t>(out, 45);
  put<uint32_t>(out, 0);
  put<uint32_t>(out, 0);
  put<uint64_t>(out, count_);
  put<uint64_t>(out, count_);
  put<uint64_t>(out, size);
  put<uint64_t>(out, offset);
  put<uint32_t>(out, kLocator64Signature);
  put<uint32_t>(out, 0);
  put<uint64_t>(out, offset + size);
  put<uint32_t>(out, 1);
  put<uint32_t>(out, kEndSignature);
  put<uint32_t>(out, 0);
  const auto count16 = static_cast<uint16_t>(std::min<uint64_t>(count_, kMax16));
  put<uint16_t>(out, count16);
  put<uint16_t>(out, count16);
  put<uint32_t>(out, static_cast<uint32_t>(std::min<uint64_t>(size, kMax32)));
  put<uint32_t>(out, static_cast<uint32_t>(std::min<uint64_t>(offset, kMax32)));
  put<uint16_t>(out, 0);
  write(out);
}

}  // namespace lohe::io
