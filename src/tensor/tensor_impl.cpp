#include "tensor/tensor_impl.h"

#include <cstring>
#include <new>

#include "base/allocator.h"
#include "base/env.h"
#include "lohe/error.h"
#include "tensor/shape.h"

namespace lohe {

PythonHooks python_hooks;

std::atomic<int> watchers{0};

namespace {
thread_local Watcher* own_watcher = nullptr;
}

Watcher* watcher_of_this_thread() { return own_watcher; }

Watcher* set_watcher(Watcher* watcher) {
  watchers += (watcher != nullptr ? 1 : 0) - (own_watcher != nullptr ? 1 : 0);
  return std::exchange(own_watcher, watcher);
}

namespace {

/// Small tensors are one block: the Storage object, then the bytes.
constexpr int64_t kInlineBytes = 2048;
constexpr int64_t kHeader = (sizeof(Storage) + 63) / 64 * 64;

/// Under guard pages every buffer must end at its page's end, so header and bytes are kept apart.
bool inline_storage() {
  static const bool enabled = !env_bool("LOHE_DEBUG_GUARD", false);
  return enabled;
}

/// A per-thread stack of memory for TensorImpl objects; one freed on another thread joins that thread's
/// stack. Reached by one static-TLS pointer: the general TLS model would cost a call each time.
struct FreeList {
  static constexpr int kCapacity = 256;
  void* blocks[kCapacity];
  int size = 0;
};
thread_local FreeList* impl_blocks __attribute__((tls_model("initial-exec"))) = nullptr;
thread_local bool thread_ends __attribute__((tls_model("initial-exec"))) = false;

/// Frees the stack when its thread ends.
struct FreeListOwner {
  FreeListOwner() { impl_blocks = new FreeList; }
  ~FreeListOwner() {
    FreeList* list = impl_blocks;
    impl_blocks = nullptr;
    thread_ends = true;
    while (list->size > 0) ::operator delete(list->blocks[--list->size]);
    delete list;
  }
};

[[gnu::noinline]] void make_free_list() {
  if (thread_ends) return;
  static thread_local FreeListOwner owner;
  (void)owner;
}

void* take_block() {
  FreeList* list = impl_blocks;
  if (list != nullptr && list->size > 0) return list->blocks[--list->size];
  return ::operator new(sizeof(TensorImpl));
}

void give_block(void* p) {
  FreeList* list = impl_blocks;
  if (list == nullptr) [[unlikely]] {
    make_free_list();
    list = impl_blocks;
  }
  if (list != nullptr && list->size < FreeList::kCapacity) {
    list->blocks[list->size++] = p;
  } else {
    ::operator delete(p);
  }
}

}  // namespace

namespace {

void tell_of_allocation(const Storage& s) {
  if (Watcher* watcher = current_watcher()) [[unlikely]]
    watcher->allocates(s);
}

}  // namespace

Intrusive<Storage> Storage::allocate(int64_t nbytes) {
  LOHE_CHECK(nbytes >= 0, "a storage cannot have ", nbytes, " bytes");
  if (nbytes <= kInlineBytes && inline_storage()) {
    char* block = static_cast<char*>(lohe::allocate(static_cast<size_t>(kHeader + nbytes)));
    auto* storage = new (block) Storage();
    storage->inline_bytes_ = nbytes;
    storage->inline_ = true;
    storage->data_ = block + kHeader;
    storage->nbytes_ = nbytes;
    tell_of_allocation(*storage);
    return Intrusive<Storage>::adopt(storage);
  }
  void* data = lohe::allocate(static_cast<size_t>(nbytes));
  auto* storage = new Storage();
  storage->data_ = data;
  storage->nbytes_ = nbytes;
  tell_of_allocation(*storage);
  return Intrusive<Storage>::adopt(storage);
}

Intrusive<Storage> Storage::promise(int64_t nbytes) {
  LOHE_CHECK(nbytes >= 0, "a storage cannot have ", nbytes, " bytes");
  auto* storage = new Storage();
  storage->nbytes_ = nbytes;
  return Intrusive<Storage>::adopt(storage);
}

void Storage::provide() {
  if (data_ == nullptr) data_ = lohe::allocate(static_cast<size_t>(nbytes_));
}

Intrusive<Storage> Storage::borrow(void* data, int64_t nbytes, void (*release)(void*), void* context,
                                   bool writable) {
  auto* storage = new Storage();
  storage->data_ = data;
  storage->nbytes_ = nbytes;
  storage->release_ = release == nullptr ? [](void*) {} : release;
  storage->context_ = context;
  storage->writable_ = writable;
  return Intrusive<Storage>::adopt(storage);
}

void (*Storage::settle_readers)(Storage&) = nullptr;

void Storage::settle() const {
  PendingWork* work = pending.load(std::memory_order_acquire);
  if (work == nullptr) return;
  work->settle();
  // Its value may be one that is computed when it is asked for.
  if (PendingWork* left = pending.load(std::memory_order_acquire); left != nullptr && left != work)
    left->settle();
}

void Storage::destroy(Storage* storage) noexcept {
  if (PendingWork* work = storage->pending.load(std::memory_order_acquire); work != nullptr) [[unlikely]]
    work->forget(*storage);
  if (storage->python_object != nullptr && python_hooks.storage_dies != nullptr)
    python_hooks.storage_dies(storage);
  if (storage->inline_) {
    const auto bytes = static_cast<size_t>(kHeader + storage->inline_bytes_);
    if (!storage->holds_inline_bytes())
      lohe::deallocate(storage->data_, static_cast<size_t>(storage->nbytes_));
    storage->~Storage();
    lohe::deallocate(storage, bytes);
    return;
  }
  if (storage->release_ != nullptr) {
    storage->release_(storage->context_);
  } else if (storage->data_ != nullptr) {  // else promised, and never asked for
    lohe::deallocate(storage->data_, static_cast<size_t>(storage->nbytes_));
  }
  delete storage;
}

bool Storage::holds_inline_bytes() const {
  return inline_ && data_ == reinterpret_cast<const char*>(this) + kHeader;
}

void Storage::resize(int64_t nbytes) {
  LOHE_CHECK(resizable(),
             "Trying to resize storage that is not resizable: its memory belongs to another library; "
             "clone() the tensor first");
  this->data();  // whatever is recorded works on the old bytes
  before_write();
  void* data = lohe::allocate(static_cast<size_t>(nbytes));
  if (nbytes_ > 0 && nbytes > 0) std::memcpy(data, data_, static_cast<size_t>(std::min(nbytes, nbytes_)));
  // The bytes behind an inline header stay unused until the storage dies: at most kInlineBytes.
  if (!holds_inline_bytes()) lohe::deallocate(data_, static_cast<size_t>(nbytes_));
  data_ = data;
  nbytes_ = nbytes;
}

Intrusive<TensorImpl> TensorImpl::make(Intrusive<Storage> storage, Dtype dtype,
                                       std::span<const int64_t> sizes, std::span<const int64_t> strides,
                                       int64_t offset) {
  auto* impl = new (take_block()) TensorImpl;  // without (), which would clear it first
  impl->storage_ = std::move(storage);
  impl->dtype_ = dtype;
  impl->offset_ = offset;
  impl->sizes_.assign(sizes.data(), sizes.size());
  impl->strides_.assign(strides.data(), strides.size());
  impl->refresh();
  return Intrusive<TensorImpl>::adopt(impl);
}

Intrusive<TensorImpl> TensorImpl::make_contiguous(Intrusive<Storage> storage, Dtype dtype,
                                                  std::span<const int64_t> sizes) {
  auto* impl = new (take_block()) TensorImpl;
  impl->storage_ = std::move(storage);
  impl->dtype_ = dtype;
  const size_t rank = sizes.size();
  impl->sizes_.assign(sizes.data(), rank);
  impl->strides_.resize(rank);
  int64_t step = 1, numel = 1;
  for (size_t i = rank; i-- > 0;) {
    impl->strides_[i] = step;
    step *= std::max<int64_t>(sizes[i], 1);
    numel *= sizes[i];
  }
  impl->numel_ = numel;
  return Intrusive<TensorImpl>::adopt(impl);
}

void TensorImpl::destroy(TensorImpl* impl) noexcept {
  if (impl->python_object.load(std::memory_order_relaxed) != nullptr && python_hooks.impl_dies != nullptr) {
    python_hooks.impl_dies(impl);
  }
  impl->~TensorImpl();
  give_block(impl);
}

void TensorImpl::refresh() {
  numel_ = 1;
  for (const int64_t s : sizes_) numel_ *= s;
  contiguous_ = is_contiguous(sizes_, strides_);
}

void TensorImpl::set_view(Intrusive<Storage> storage, Dtype dtype, std::span<const int64_t> sizes,
                          std::span<const int64_t> strides, int64_t offset) {
  tell_watcher("it makes a tensor show other memory in place");
  storage_ = std::move(storage);
  dtype_ = dtype;
  sizes_.assign(sizes.data(), sizes.size());
  strides_.assign(strides.data(), strides.size());
  offset_ = offset;
  refresh();
}

}  // namespace lohe
