#include "io/checkpoint.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>

#include "base/file.h"
#include "io/pickle.h"
#include "io/tensors.h"
#include "io/unpickle.h"
#include "io/zip.h"
#include "lohe/error.h"

namespace lohe::io {
namespace {

std::string_view text_of(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

void swap_byte_order(std::byte* data, size_t nbytes, size_t width) {
  for (size_t start = 0; start + width <= nbytes; start += width)
    std::reverse(data + start, data + start + width);
}

/// An opened archive.
class Archive {
 public:
  Archive(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, const std::string& source,
          LoadOptions options, bool writable)
      : source_(source),
        owner_(std::move(owner)),
        options_(options),
        writable_(writable),
        zip_(bytes, source) {
    LOHE_CHECK(!zip_.entries().empty(), "'", source_, "' is an empty zip archive");
    // All entries lie in one folder, whose name is free.
    const std::string& first = zip_.entries().front().name;
    const size_t slash = first.find('/');
    folder_ = slash == std::string::npos ? std::string() : first.substr(0, slash + 1);
    if (const ZipEntry* order = zip_.find(folder_ + "byteorder")) {
      const std::string_view name = text_of(order->bytes);
      LOHE_CHECK(name == "little" || name == "big", "'", source_, "' has an unknown byte order");
      swap_ = name == "big";
    }
  }

  Value read() {
    LOHE_CHECK_KIND(kNotImplemented, !zip_.contains(folder_ + "constants.pkl"), "'", source_,
                    "' is a TorchScript archive, which is not read; save model.state_dict() with torch.save");
    const ZipEntry* pickle = zip_.find(folder_ + "data.pkl");
    LOHE_CHECK(pickle != nullptr, "'", source_, "' is a zip archive without '", folder_.substr(0, 100),
               "data.pkl', so torch.save did not write it");
    zip_.check_crc(*pickle);
    return unpickle(pickle->bytes, [this](const StorageId& id) { return storage(id); }, source_);
  }

 private:
  std::shared_ptr<const StorageBlob> storage(const StorageId& id) const {
    const ZipEntry* entry = zip_.find(folder_ + "data/" + id.key);
    const std::string key = id.key.substr(0, 100);
    LOHE_CHECK(entry != nullptr, "'", source_, "' lacks the bytes of storage '", key, "'");
    const auto width = static_cast<size_t>(itemsize(id.dtype));
    const size_t nbytes = static_cast<size_t>(id.numel) * width;
    // A storage that was saved as wider elements may end in part of one.
    LOHE_CHECK(entry->bytes.size() >= nbytes && entry->bytes.size() - nbytes < width, "'", source_,
               "': storage '", key, "' should have ", nbytes, " bytes but has ", entry->bytes.size());
    auto blob = std::make_shared<StorageBlob>();
    blob->dtype = id.dtype;
    blob->untyped = id.untyped;
    blob->nbytes = nbytes;
    blob->key = id.key;
    blob->location = id.location;
    // Other writers of archives need not align the entries.
    const bool aligned = reinterpret_cast<uintptr_t>(entry->bytes.data()) % width == 0;
    if (options_.mmap && !swap_ && aligned) {
      blob->data = entry->bytes.data();
      blob->owner = owner_;
      blob->writable = writable_;
      return blob;
    }
    zip_.check_crc(*entry);
    LOHE_CHECK_KIND(kNotImplemented, !swap_ || !id.untyped, "'", source_,
                    "' was written on a big-endian machine and holds an untyped storage");
    const std::shared_ptr<std::byte> memory = allocate_bytes(nbytes);
    if (nbytes != 0) std::memcpy(memory.get(), entry->bytes.data(), nbytes);
    if (swap_) swap_byte_order(memory.get(), nbytes, is_complex(id.dtype) ? width / 2 : width);
    blob->data = memory.get();
    blob->owner = memory;
    blob->writable = true;
    return blob;
  }

  const std::string& source_;
  std::shared_ptr<const void> owner_;
  LoadOptions options_;
  bool writable_;  // the mapped bytes
  ZipReader zip_;
  std::string folder_;
  bool swap_ = false;
};

/// Says what a file that is no zip archive is, as far as its first bytes tell.
[[noreturn]] void reject(std::span<const std::byte> bytes, const std::string& source) {
  // A pickle of the number 0x1950a86a20f9469cfc6c.
  constexpr std::string_view kLegacy("\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.", 15);
  const std::string_view text = text_of(bytes);
  LOHE_CHECK_KIND(
      kNotImplemented, !text.starts_with(kLegacy), "'", source,
      "' has the format that PyTorch wrote before 1.6, which is not read; with PyTorch, load it and save "
      "it by torch.save(obj, path, _use_new_zipfile_serialization=True)");
  LOHE_CHECK(text.size() < 9 || text[8] != '{', "'", source,
             "' looks like a safetensors file; load it with "
             "safetensors' load_file");
  LOHE_CHECK(text.size() < 2 || text[0] != '\x80' || text[1] > 5, "'", source,
             "' is a bare pickle, not a file that torch.save wrote");
  LOHE_CHECK(!text.empty(), "'", source, "' is empty");
  raise(ErrorKind::kRuntime, "'", source, "' is not a file that torch.save wrote (no zip archive)");
}

void write_archive(const Value& value, const Sink& sink, const std::string& archive) {
  const Pickled pickled = pickle(value);
  ZipWriter zip(sink, archive);
  zip.add("data.pkl", pickled.bytes);
  zip.add(".format_version", "1");
  zip.add(".storage_alignment", "64");
  zip.add("byteorder", "little");
  for (size_t i = 0; i < pickled.storages.size(); ++i) {
    const StorageBlob& storage = *pickled.storages[i];
    zip.add("data/" + std::to_string(i), {storage.data, storage.nbytes});
  }
  zip.add("version", "3\n");
  // Equal contents have equal ids.
  char id[41];
  std::snprintf(id, sizeof id, "%020u%020u", zip.names_checksum(), zip.content_checksum());
  zip.add(".data/serialization_id", id);
  zip.finish();
}

}  // namespace

Value load(std::span<const std::byte> bytes, std::shared_ptr<const void> owner, const std::string& source,
           LoadOptions options) {
  if (!ZipReader::recognises(bytes)) reject(bytes, source);
  return Archive(bytes, std::move(owner), source, options, false).read();
}

Value load(const std::filesystem::path& path, LoadOptions options) {
  const auto file =
      std::make_shared<const MappedFile>(path, options.mmap ? MapAccess::kCopyOnWrite : MapAccess::kReadOnly);
  const std::string source = path.string();
  if (!ZipReader::recognises(file->bytes())) reject(file->bytes(), source);
  return Archive(file->bytes(), file, source, options, options.mmap).read();
}

void save(const Value& value, const std::filesystem::path& path) {
  std::string archive = path.stem().string();
  // The folder's name is free; keep it a plain one.
  if (archive.empty() || archive.size() > 255 || !is_utf8_with_surrogates(archive)) archive = "archive";
  AtomicFile file(path);
  write_archive(value, [&](std::span<const std::byte> bytes) { file.write(bytes); }, archive);
  file.commit();
}

void save(const Value& value, const std::function<void(std::span<const std::byte>)>& sink,
          const std::string& archive) {
  write_archive(value, sink, archive);
}

std::string save_to_string(const Value& value, const std::string& archive) {
  std::string out;
  write_archive(
      value,
      [&](std::span<const std::byte> bytes) {
        out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      },
      archive);
  return out;
}

}  // namespace lohe::io
