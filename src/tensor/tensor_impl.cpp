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

/// The address sanitizer is to see uses of objects that are gone.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeepsBlocks = false;
#else
constexpr bool kKeepsBlocks = true;
#endif

/// Per-thread stacks of memory for tensors and for storages without bytes of their own; an object freed on
/// another thread joins that thread's. Reached by one static-TLS pointer: the general TLS model would cost a
/// call each time.
struct FreeLists {
  static constexpr int kCapacity = 512;  // a recorded training step lets go of as many storages at once
  struct Stack {
    void* blocks[kCapacity];
    int size = 0;
  };
  Stack tensors, storages;
  Stack& of(const TensorImpl*) { return tensors; }
  Stack& of(const Storage*) { return storages; }
};
thread_local FreeLists* free_lists __attribute__((tls_model("initial-exec"))) = nullptr;
thread_local bool thread_ends __attribute__((tls_model("initial-exec"))) = false;

/// Frees the stacks when their thread ends.
struct FreeListsOwner {
  FreeListsOwner() { free_lists = new FreeLists; }
  ~FreeListsOwner() {
    FreeLists* lists = free_lists;
    free_lists = nullptr;
    thread_ends = true;
    for (FreeLists::Stack* s : {&lists->tensors, &lists->storages}) {
      while (s->size > 0) ::operator delete(s->blocks[--s->size]);
    }
    delete lists;
  }
};

[[gnu::noinline]] void make_free_lists() {
  if (thread_ends) return;
  static thread_local FreeListsOwner owner;
  (void)owner;
}

template <class T>
void* take_block() {
  if (FreeLists* lists = free_lists; lists != nullptr) {
    FreeLists::Stack& stack = lists->of(static_cast<T*>(nullptr));
    if (stack.size > 0) return stack.blocks[--stack.size];
  }
  return ::operator new(sizeof(T));
}

template <class T>
void give_block(T* p) {
  if (free_lists == nullptr) [[unlikely]]
    make_free_lists();
  if (FreeLists* lists = free_lists; lists != nullptr) {
    FreeLists::Stack& stack = lists->of(p);
    if (kKeepsBlocks && stack.size < FreeLists::kCapacity) {
      stack.blocks[stack.size++] = p;
      return;
    }
  }
  ::operator delete(p);
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
    auto* storage = new (block) Storage;
    storage->inline_bytes_ = nbytes;
    storage->inline_ = true;
    storage->data_ = block + kHeader;
    storage->nbytes_ = nbytes;
    tell_of_allocation(*storage);
    return Intrusive<Storage>::adopt(storage);
  }
  void* data = lohe::allocate(static_cast<size_t>(nbytes));
  auto* storage = new (take_block<Storage>()) Storage;
  storage->data_ = data;
  storage->nbytes_ = nbytes;
  tell_of_allocation(*storage);
  return Intrusive<Storage>::adopt(storage);
}

Intrusive<Storage> Storage::promise(int64_t nbytes) {
  LOHE_CHECK(nbytes >= 0, "a storage cannot have ", nbytes, " bytes");
  auto* storage = new (take_block<Storage>()) Storage;
  storage->nbytes_ = nbytes;
  return Intrusive<Storage>::adopt(storage);
}

void Storage::provide() {
  if (data_ == nullptr) data_ = lohe::allocate(static_cast<size_t>(nbytes_));
}

Intrusive<Storage> Storage::borrow(void* data, int64_t nbytes, void (*release)(void*), void* context,
                                   bool writable) {
  auto* storage = new (take_block<Storage>()) Storage;
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
  storage->~Storage();
  give_block(storage);
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
  auto* impl = new (take_block<TensorImpl>()) TensorImpl;  // without (), which would clear it first
  impl->storage_ = std::move(storage);
  impl->dtype_ = dtype;
  impl->offset_ = offset;
  impl->sizes_.assign(sizes.data(), sizes.size());
  impl->strides_.assign(strides.data(), strides.size());
  impl->refresh();
  return Intrusive<TensorImpl>::adopt(impl);
}

[[gnu::always_inline]] inline void TensorImpl::set_row_major() {
  const size_t rank = sizes_.size();
  strides_.resize(rank);
  int64_t step = 1, numel = 1;
  for (size_t i = rank; i-- > 0;) {
    strides_[i] = step;
    step *= std::max<int64_t>(sizes_[i], 1);
    numel *= sizes_[i];
  }
  numel_ = numel;
}

Intrusive<TensorImpl> TensorImpl::make_contiguous(Intrusive<Storage> storage, Dtype dtype,
                                                  std::span<const int64_t> sizes) {
  auto* impl = new (take_block<TensorImpl>()) TensorImpl;
  impl->storage_ = std::move(storage);
  impl->dtype_ = dtype;
  impl->sizes_.assign(sizes.data(), sizes.size());
  impl->set_row_major();
  return Intrusive<TensorImpl>::adopt(impl);
}

Intrusive<TensorImpl> TensorImpl::make_like(Intrusive<Storage> storage, Dtype dtype, const TensorImpl& like) {
  auto* impl = new (take_block<TensorImpl>()) TensorImpl;
  impl->storage_ = std::move(storage);
  impl->dtype_ = dtype;
  impl->sizes_ = like.sizes_;
  impl->set_row_major();
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
