#include "io/tensors.h"

#include <utility>

#include "autograd/tape.h"
#include "lohe/error.h"

namespace lohe::io {
namespace {

constexpr size_t kMaxRank = 64;

/// Deleter of an owner that is a Storage: std::get_deleter finds the storage again.
struct StorageKeeper {
  Intrusive<Storage> storage;
  template <class T>
  void operator()(T*) const noexcept {}
};

template <class T>
std::shared_ptr<T> owner_of(Intrusive<Storage> storage) {
  auto* data = static_cast<T*>(storage->data());
  return std::shared_ptr<T>(data, StorageKeeper{std::move(storage)});
}

}  // namespace

std::shared_ptr<std::byte> allocate_bytes(size_t nbytes) {
  return owner_of<std::byte>(Storage::allocate(static_cast<int64_t>(nbytes)));
}

Intrusive<Storage> TensorBuilder::storage(const std::shared_ptr<const StorageBlob>& blob) {
  const auto [found, fresh] = storages_.try_emplace(blob.get());
  Known& known = found->second;
  if (!fresh) return known.storage;
  known.blob = blob;
  const auto nbytes = static_cast<int64_t>(blob->nbytes);
  const auto* keeper = std::get_deleter<StorageKeeper>(blob->owner);
  if (keeper != nullptr && keeper->storage->data() == blob->data && keeper->storage->nbytes() == nbytes) {
    known.storage = keeper->storage;
  } else {
    auto* owner = new std::shared_ptr<const void>(blob->owner);
    known.storage = Storage::borrow(
        const_cast<std::byte*>(blob->data), nbytes,
        [](void* context) { delete static_cast<std::shared_ptr<const void>*>(context); }, owner,
        blob->writable);
  }
  return known.storage;
}

void TensorBuilder::replace(const std::shared_ptr<const StorageBlob>& blob, Intrusive<Storage> storage) {
  LOHE_CHECK_TYPE(storage->nbytes() >= static_cast<int64_t>(blob->nbytes), "a storage of ", storage->nbytes(),
                  " bytes cannot take the place of one of ", blob->nbytes, " bytes");
  storages_[blob.get()] = {blob, std::move(storage)};
}

Intrusive<TensorImpl> TensorBuilder::tensor(const TensorBlob& blob) {
  check_bounds(blob, "cannot load");
  LOHE_CHECK(blob.sizes.size() <= kMaxRank, "cannot load a tensor with ", blob.sizes.size(),
             " dimensions (at most ", kMaxRank, ")");
  Intrusive<TensorImpl> made =
      TensorImpl::make(storage(blob.storage), blob.dtype, blob.sizes, blob.strides, blob.storage_offset);
  made->set_conj(blob.is_conj);
  made->set_neg(blob.is_neg);
  if (blob.requires_grad) autograd::set_requires_grad(*made, true);
  return made;
}

std::shared_ptr<const StorageBlob> TensorDescriber::storage(const Intrusive<Storage>& storage, Dtype dtype,
                                                            bool untyped) {
  std::shared_ptr<const StorageBlob>& known = storages_[storage.get()];
  if (known == nullptr) {
    auto blob = std::make_shared<StorageBlob>();
    blob->dtype = dtype;
    blob->untyped = untyped;
    blob->data = static_cast<const std::byte*>(storage->data());
    blob->nbytes = static_cast<size_t>(storage->nbytes());
    blob->owner = owner_of<const void>(storage);
    known = std::move(blob);
  }
  LOHE_CHECK(
      known->dtype == dtype && known->untyped == untyped,
      "Cannot save multiple tensors or storages that view the same data as different types; clone() one of "
      "them. The types are ",
      info(known->dtype).name, known->untyped ? " (untyped storage)" : "", " and ", info(dtype).name,
      untyped ? " (untyped storage)" : "");
  return known;
}

TensorBlob TensorDescriber::tensor(TensorImpl& tensor) {
  LOHE_CHECK(!tensor.extension,
             "cannot save a tensor inside a function transform; save it outside of vmap, grad or jvp");
  TensorBlob blob;
  blob.dtype = tensor.dtype();
  blob.sizes.assign(tensor.sizes().begin(), tensor.sizes().end());
  blob.strides.assign(tensor.strides().begin(), tensor.strides().end());
  blob.storage_offset = tensor.offset();
  blob.storage = storage(tensor.storage_ptr(), tensor.dtype(), false);
  blob.requires_grad = autograd::requires_grad(tensor);
  blob.is_conj = tensor.conj();
  blob.is_neg = tensor.neg();
  return blob;
}

}  // namespace lohe::io
