#pragma once

#include <memory>
#include <unordered_map>

#include "io/value.h"
#include "tensor/tensor_impl.h"

/// Between the tensors of a file and tensors that compute. Tensors that share a storage share it afterwards.
namespace lohe::io {

/// Memory for the bytes of a storage, from the tensor allocator. A StorageBlob with this owner becomes a
/// Storage without a copy, which can be resized like any other.
std::shared_ptr<std::byte> allocate_bytes(size_t nbytes);

/// Makes tensors of what was read from one file. Keep one object for all tensors of the file.
class TensorBuilder {
 public:
  /// The storage behind a blob, always the same one. Its bytes are not copied: `blob.owner` is kept alive,
  /// and a storage is writable where the blob is.
  Intrusive<Storage> storage(const std::shared_ptr<const StorageBlob>& blob);
  /// Puts another storage in the place of a blob's. @throws TypeError when it is smaller.
  void replace(const std::shared_ptr<const StorageBlob>& blob, Intrusive<Storage> storage);
  /// A new leaf tensor; the caller remembers which blob it came from.
  /// @throws RuntimeError for a tensor outside its storage, or with more than 64 dimensions, or one that
  /// cannot require a gradient but says so.
  Intrusive<TensorImpl> tensor(const TensorBlob& blob);

 private:
  struct Known {
    std::shared_ptr<const StorageBlob> blob;  // kept, so that its address stays its own
    Intrusive<Storage> storage;
  };
  std::unordered_map<const StorageBlob*, Known> storages_;
};

/// Describes tensors for a file. Keep one object for all tensors of the file.
class TensorDescriber {
 public:
  /// The blob of a storage, always the same one, which keeps the storage alive.
  /// @param dtype what its elements are for the file's readers. @throws RuntimeError if the storage was
  /// described with another dtype before: a file names one dtype for each storage.
  std::shared_ptr<const StorageBlob> storage(const Intrusive<Storage>& storage, Dtype dtype, bool untyped);
  /// The view, its flags and whether it requires a gradient; class and attributes are the caller's business.
  /// @throws RuntimeError for a tensor inside a transform (vmap, jvp).
  TensorBlob tensor(TensorImpl& tensor);

 private:
  std::unordered_map<const Storage*, std::shared_ptr<const StorageBlob>> storages_;
};

}  // namespace lohe::io
