#include "io/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <tuple>

#include "base/file.h"
#include "io/safetensors_header.h"
#include "io/tensors.h"
#include "io/zip.h"

namespace lohe::io {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;  // the reference implementation's bound
constexpr size_t kLengthField = 8;

[[noreturn]] void reject(const std::string& source, const std::string& what) {
  throw SafetensorsError("cannot read '" + source + "': " + what);
}

std::string shown(const std::string& name) { return "'" + name.substr(0, 100) + "'"; }

std::vector<int64_t> contiguous_strides(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size(), 1);
  for (size_t d = sizes.size(); d-- > 1;) strides[d - 1] = strides[d] * std::max<int64_t>(sizes[d], 1);
  return strides;
}

/// Bytes of a tensor of this shape; false when they, or the strides, overflow.
bool byte_size(const SafetensorsEntry& entry, uint64_t* bytes) {
  // Zeros count as ones at first: [2^62, 2^62, 0] has no bytes, but its strides have no meaning either.
  int64_t product = itemsize(entry.dtype);
  bool empty = false;
  for (const int64_t size : entry.shape) {
    empty = empty || size == 0;
    if (__builtin_mul_overflow(product, std::max<int64_t>(size, 1), &product)) return false;
  }
  *bytes = empty ? 0 : static_cast<uint64_t>(product);
  return true;
}

/// Place in the reference's order of dtypes, which is by alignment and otherwise by its own list.
int order_of(Dtype dtype) {
  constexpr Dtype kOrder[] = {kInt64,   kFloat64, kComplex64, kFloat32, kInt32, kBFloat16,
                              kFloat16, kInt16,   kInt8,      kUInt8,   kBool};
  const auto* found = std::find(std::begin(kOrder), std::end(kOrder), dtype);
  return found == std::end(kOrder) ? -1 : static_cast<int>(found - std::begin(kOrder));
}

TensorBlob tensor_of(const SafetensorsEntry& entry, std::span<const std::byte> bytes,
                     const std::shared_ptr<const void>& owner, bool writable) {
  auto storage = std::make_shared<StorageBlob>();
  storage->dtype = entry.dtype;
  storage->nbytes = bytes.size();
  storage->key = entry.name;
  storage->data = bytes.data();
  storage->owner = owner;
  storage->writable = writable;
  const auto alignment = static_cast<size_t>(itemsize(info(entry.dtype).value_dtype));
  if (!bytes.empty() && reinterpret_cast<uintptr_t>(bytes.data()) % alignment != 0) {
    const std::shared_ptr<std::byte> copy = allocate_bytes(bytes.size());
    std::memcpy(copy.get(), bytes.data(), bytes.size());
    storage->data = copy.get();
    storage->owner = copy;
    storage->writable = true;
  }
  TensorBlob tensor;
  tensor.dtype = entry.dtype;
  tensor.sizes = entry.shape;
  tensor.strides = contiguous_strides(entry.shape);
  tensor.storage = std::move(storage);
  return tensor;
}

std::span<const std::byte> bytes_of(const std::string& name, const TensorBlob& tensor) {
  check_bounds(tensor, "cannot save tensor " + shown(name));
  const auto fail = [&](const std::string& what) {
    throw SafetensorsError("cannot save tensor " + shown(name) + ": " + what);
  };
  if (tensor.is_conj || tensor.is_neg)
    fail("its conj or neg bit is set; call resolve_conj() or resolve_neg() first");
  int64_t numel = 1;
  for (const int64_t size : tensor.sizes) numel *= size;
  int64_t expected = 1;
  for (size_t d = tensor.sizes.size(); d-- > 0 && numel != 0;) {
    if (tensor.sizes[d] != 1 && tensor.strides[d] != expected)
      fail("it is not contiguous; call contiguous() first");
    expected *= tensor.sizes[d];
  }
  const auto width = static_cast<size_t>(itemsize(tensor.dtype));
  if (numel == 0) return {};
  return {tensor.storage->data + static_cast<size_t>(tensor.storage_offset) * width,
          static_cast<size_t>(numel) * width};
}

void write_file(const std::map<std::string, TensorBlob>& tensors,
                const std::map<std::string, std::string>& metadata, const Sink& sink) {
  struct Item {
    SafetensorsEntry entry;
    std::span<const std::byte> bytes;
  };
  std::vector<Item> items;
  items.reserve(tensors.size());
  for (const auto& [name, tensor] : tensors) {
    if (name == "__metadata__")
      throw SafetensorsError("cannot save a tensor named '__metadata__', a reserved name");
    if (order_of(tensor.dtype) < 0) {
      throw SafetensorsError("cannot save tensor " + shown(name) +
                             ": the safetensors format has no dtype for it (" +
                             detail::concat(info(tensor.dtype).name) + ")");
    }
    // Not in one braced expression: when bytes_of throws, GCC 12 destroys the parts of such a temporary
    // twice.
    Item& item = items.emplace_back();
    item.entry.name = name;
    item.entry.dtype = tensor.dtype;
    item.entry.shape = tensor.sizes;
    item.bytes = bytes_of(name, tensor);
  }
  std::sort(items.begin(), items.end(),
            [](const Item& a, const Item& b) { return a.bytes.data() < b.bytes.data(); });
  const Item* before = nullptr;
  for (const Item& item : items) {
    if (item.bytes.empty()) continue;
    if (before != nullptr && before->bytes.data() + before->bytes.size() > item.bytes.data()) {
      throw SafetensorsError("cannot save: tensors " + shown(before->entry.name) + " and " +
                             shown(item.entry.name) +
                             " share memory, which the format cannot say; save one of them, or a clone");
    }
    before = &item;
  }
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return std::forward_as_tuple(order_of(a.entry.dtype), a.entry.name) <
           std::forward_as_tuple(order_of(b.entry.dtype), b.entry.name);
  });

  SafetensorsHeader header;
  header.metadata = metadata;
  uint64_t at = 0;
  for (Item& item : items) {
    item.entry.begin = at;
    at += item.bytes.size();
    item.entry.end = at;
    header.entries.push_back(item.entry);
  }
  std::string text = format_safetensors_header(header);
  // The tensors' bytes start at a multiple of 8.
  text.append((8 - text.size() % 8) % 8, ' ');
  if (text.size() > kMaxHeader) throw SafetensorsError("cannot save: the header would exceed 100 MB");
  const uint64_t length = text.size();
  sink(std::as_bytes(std::span(&length, 1)));
  sink(std::as_bytes(std::span(text)));
  for (const Item& item : items) sink(item.bytes);
}

}  // namespace

const TensorBlob* SafetensorsFile::find(std::string_view name) const {
  for (const auto& [key, tensor] : tensors) {
    if (key == name) return &tensor;
  }
  return nullptr;
}

namespace {

SafetensorsFile read_file(std::span<const std::byte> bytes, const std::shared_ptr<const void>& owner,
                          const std::string& source, bool writable) {
  if (bytes.size() < kLengthField) reject(source, "shorter than the 8 bytes of the header's length");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof length);
  if (length > kMaxHeader)
    reject(source, "a header of " + std::to_string(length) +
                       " bytes (at most 100 MB); it is "
                       "probably not a safetensors file");
  if (length > bytes.size() - kLengthField) {
    reject(source,
           "its header of " + std::to_string(length) + " bytes runs out of the file; the file is truncated");
  }
  const std::string_view json(reinterpret_cast<const char*>(bytes.data()) + kLengthField, length);
  if (!json.starts_with('{')) reject(source, "its header does not start with '{'");
  SafetensorsHeader header = parse_safetensors_header(json, source);

  std::sort(
      header.entries.begin(), header.entries.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
        return std::forward_as_tuple(a.begin, a.end, a.name) < std::forward_as_tuple(b.begin, b.end, b.name);
      });
  const std::span<const std::byte> data = bytes.subspan(kLengthField + length);
  SafetensorsFile file;
  file.metadata = std::move(header.metadata);
  file.tensors.reserve(header.entries.size());
  uint64_t at = 0;
  for (const SafetensorsEntry& entry : header.entries) {
    if (entry.begin != at || entry.end < entry.begin) {
      reject(source,
             "the bytes of tensor " + shown(entry.name) + " do not follow those of the tensor before it");
    }
    if (entry.end > data.size()) {
      reject(source, "tensor " + shown(entry.name) + " runs out of the file; the file is truncated");
    }
    uint64_t expected = 0;
    if (!byte_size(entry, &expected))
      reject(source, "the shape of tensor " + shown(entry.name) + " overflows");
    if (expected != entry.end - entry.begin) {
      reject(source, "tensor " + shown(entry.name) + " needs " + std::to_string(expected) +
                         " bytes but has " + std::to_string(entry.end - entry.begin));
    }
    file.tensors.emplace_back(entry.name,
                              tensor_of(entry, data.subspan(entry.begin, expected), owner, writable));
    at = entry.end;
  }
  if (at != data.size()) reject(source, std::to_string(data.size() - at) + " bytes belong to no tensor");
  return file;
}

}  // namespace

SafetensorsFile load_safetensors(std::span<const std::byte> bytes, std::shared_ptr<const void> owner,
                                 const std::string& source) {
  return read_file(bytes, owner, source, false);
}

SafetensorsFile load_safetensors(const std::filesystem::path& path) {
  const auto file = std::make_shared<const MappedFile>(path, MapAccess::kCopyOnWrite);
  return read_file(file->bytes(), file, path.string(), true);
}

void save_safetensors(const std::map<std::string, TensorBlob>& tensors,
                      const std::map<std::string, std::string>& metadata, const std::filesystem::path& path) {
  AtomicFile file(path);
  write_file(tensors, metadata, [&](std::span<const std::byte> bytes) { file.write(bytes); });
  file.commit();
}

std::string save_safetensors_to_string(const std::map<std::string, TensorBlob>& tensors,
                                       const std::map<std::string, std::string>& metadata) {
  std::string out;
  write_file(tensors, metadata, [&](std::span<const std::byte> bytes) {
    out.append(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  });
  return out;
}

}  // namespace lohe::io
