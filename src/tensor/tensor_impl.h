#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <span>

#include "base/intrusive.h"
#include "base/small_vector.h"
#include "lohe/device.h"
#include "lohe/dtype.h"
#include "tensor/watcher.h"

/// What stands behind a Tensor handle: a strided view of a Storage.
namespace lohe {

/// Counts in-place writes. Views and detach() of a tensor share one; `.data` and set_ give a fresh one.
struct Version : RefCounted<Version> {
  std::atomic<uint32_t> value{0};
};

class Storage;
class TensorImpl;

/// Work that was recorded and will be done when somebody looks at its results (src/record).
class PendingWork {
 public:
  /// @param holds whether it holds a reference of every storage that names it
  explicit PendingWork(bool holds) : holds_storages(holds) {}
  virtual ~PendingWork() = default;
  /// Does all of it; storages that named it do so no more. Nothing on the thread that is doing it already.
  /// @throws what the work raises.
  virtual void settle() = 0;
  /// `taker` records an operation on the storage, which names this work: its bytes are there from then on, or
  /// are to come from the taker.
  virtual void hand_over(Storage& storage, PendingWork& taker) {
    (void)storage, (void)taker;
    settle();
  }
  /// The tape keeps `t`, whose storage names this work.
  virtual void note_saved(const Intrusive<TensorImpl>& t) { (void)t; }
  /// The storage, which names this work, is about to be freed.
  virtual void forget(Storage& storage) { (void)storage; }

  const bool holds_storages;  ///< then it also outlives them all
};

/// A block of bytes and its history. Every tensor that aliases these bytes holds the same Storage.
class Storage : public RefCounted<Storage> {
 public:
  /// Fresh memory from the caching allocator, not initialised. @throws OutOfMemory.
  static Intrusive<Storage> allocate(int64_t nbytes);
  /// Memory of somebody else; `release(context)` runs when the last tensor lets go.
  static Intrusive<Storage> borrow(void* data, int64_t nbytes, void (*release)(void*), void* context,
                                   bool writable);
  /// A block whose memory comes with provide().
  static Intrusive<Storage> promise(int64_t nbytes);
  /// Called by Intrusive when the last reference goes.
  static void destroy(Storage* storage) noexcept;

  /// The bytes, after all work on them that is recorded. @throws what that work raises.
  void* data() const {
    tell_watcher("it reads or writes memory before it returns");
    if (pending.load(std::memory_order_acquire) != nullptr) [[unlikely]]
      settle();
    return data_;
  }
  /// The bytes as they are now; null before provide().
  void* memory() const { return data_; }
  /// Allocates promised memory. @throws OutOfMemory.
  void provide();
  /// Borrowed memory lies elsewhere from now on.
  void move_borrowed(void* data) { data_ = data; }
  int64_t nbytes() const { return nbytes_; }
  bool resizable() const { return release_ == nullptr; }
  bool writable() const { return writable_; }
  /// Whether somebody outside of Lohe knows the address: work on these bytes is never put off.
  bool exposed() const { return exposed_ || release_ != nullptr; }
  /// Settles what is recorded.
  void expose() {
    exposed_ = true;
    data();
    before_write();
  }
  /// Somebody is about to write these bytes, or to record that: work put off that reads them is done first.
  /// Recorded work may put off more: who writes at once asks for data() before.
  void before_write() {
    if (readers.load(std::memory_order_relaxed) != 0) [[unlikely]]
      settle_readers(*this);
  }
  /// Tensors and other owners, without the recorder's own reference.
  uint32_t holders() const {
    const PendingWork* work = pending.load(std::memory_order_relaxed);
    return use_count() - (work != nullptr && work->holds_storages ? 1 : 0);
  }
  /// Keeps the first bytes. @throws RuntimeError for borrowed memory.
  void resize(int64_t nbytes);

  Version version;                             ///< of tensors that did not ask for one of their own
  std::atomic<uint64_t> generation{0};         ///< writes since creation; a recorded read binds to one
  void* python_object = nullptr;               ///< the UntypedStorage object, owned by the binding
  std::atomic<PendingWork*> pending{nullptr};  ///< what reads or writes these bytes and is not done yet
  int32_t pending_number = 0;                  ///< of this storage there
  std::atomic<uint32_t> readers{0};            ///< of work put off that reads these bytes, see before_write()
  static void (*settle_readers)(Storage&);     ///< set by src/record

 private:
  Storage() = default;
  void settle() const;
  void* data_ = nullptr;
  int64_t nbytes_ = 0;
  void (*release_)(void*) = nullptr;
  void* context_ = nullptr;
  bool holds_inline_bytes() const;
  bool inline_ = false;       ///< the header began as one block with its bytes
  int64_t inline_bytes_ = 0;  ///< bytes of that block behind the header
  bool writable_ = true;
  bool exposed_ = false;
};

/// What autograd hangs on a tensor; defined in src/autograd.
struct AutogradMeta {
  virtual ~AutogradMeta() = default;
};

/// What a transform (vmap, jvp) or a subclass hangs on a tensor; defined by the interceptor.
struct TensorExtension : RefCounted<TensorExtension> {
  virtual ~TensorExtension() = default;
  static void destroy(TensorExtension* e) noexcept { delete e; }
};

class TensorImpl : public RefCounted<TensorImpl> {
 public:
  /// Takes its memory from a per-thread free list.
  static Intrusive<TensorImpl> make(Intrusive<Storage> storage, Dtype dtype, std::span<const int64_t> sizes,
                                    std::span<const int64_t> strides, int64_t offset);
  /// Row-major; `numel` and contiguity are known.
  static Intrusive<TensorImpl> make_contiguous(Intrusive<Storage> storage, Dtype dtype,
                                               std::span<const int64_t> sizes);
  /// The same, of another tensor's sizes.
  static Intrusive<TensorImpl> make_like(Intrusive<Storage> storage, Dtype dtype, const TensorImpl& like);
  static void destroy(TensorImpl* impl) noexcept;

  Dtype dtype() const { return dtype_; }
  int64_t dim() const { return static_cast<int64_t>(sizes_.size()); }
  std::span<const int64_t> sizes() const { return sizes_; }
  std::span<const int64_t> strides() const { return strides_; }
  const Dims& size_dims() const { return sizes_; }
  const Dims& stride_dims() const { return strides_; }
  int64_t offset() const { return offset_; }  ///< in elements of dtype
  int64_t numel() const { return numel_; }
  bool contiguous() const { return contiguous_; }  ///< row-major
  int64_t itemsize() const { return lohe::itemsize(dtype_); }
  Storage& storage() const { return *storage_; }
  const Intrusive<Storage>& storage_ptr() const { return storage_; }
  /// Address of element 0.
  char* data() const { return static_cast<char*>(storage_->data()) + offset_ * itemsize(); }

  /// The same, for somebody outside who may read and write there at any time.
  char* expose_data() const {
    storage_->expose();
    return data();
  }

  bool conj() const { return conj_; }
  bool neg() const { return neg_; }
  void set_conj(bool v) { conj_ = v; }
  void set_neg(bool v) { neg_ = v; }

  Version& version() const { return own_version_ ? *own_version_ : storage_->version; }
  /// Views and detach() share `other`'s counter.
  void share_version(const TensorImpl& other) { own_version_ = other.own_version_; }
  void fresh_version() { own_version_ = Intrusive<Version>(new Version); }
  void bump_version() {
    version().value.fetch_add(1, std::memory_order_relaxed);
    storage_->generation.fetch_add(1, std::memory_order_relaxed);
  }

  /// Changes what this tensor views, in place (set_, resize_, transpose_ ...).
  void set_view(Intrusive<Storage> storage, Dtype dtype, std::span<const int64_t> sizes,
                std::span<const int64_t> strides, int64_t offset);

  std::unique_ptr<AutogradMeta> autograd;  ///< null: a leaf that asks for no gradient
  Intrusive<TensorImpl> view_base;  ///< the tensor that this one is a view of, if any (never itself a view)
  Intrusive<TensorExtension> extension;       ///< null for plain tensors
  std::atomic<void*> python_object{nullptr};  ///< PyObject*, see python/binding/tensor.cpp
  bool requires_grad =
      false;               ///< of a leaf as set; of others: has history. Mirrors `autograd` for the fast path
  bool inference = false;  ///< made in inference mode
  bool python_owned =
      false;  ///< the Python object is kept alive by this impl rather than the other way round
  bool python_subclass = false;    ///< a Python subclass with __torch_function__
  bool wrapped_number = false;     ///< a 0-dim tensor that promotes as a number
  std::atomic<uint32_t> saves{0};  ///< of the references, those of the tape made while work was recorded

 private:
  TensorImpl() = default;
  void refresh();
  void set_row_major();

  Intrusive<Storage> storage_;
  Intrusive<Version> own_version_;
  int64_t offset_ = 0;
  int64_t numel_ = 1;
  Dims sizes_, strides_;
  Dtype dtype_ = Dtype::kFloat32;
  bool contiguous_ = true;
  bool conj_ = false;
  bool neg_ = false;
};

/// Hooks by which the binding keeps Python identity and its interpreter's lock; set once when it is loaded.
struct PythonHooks {
  /// The impl dies and holds a Python object that it owns.
  void (*impl_dies)(TensorImpl*) = nullptr;
  void (*storage_dies)(Storage*) = nullptr;
  /// Lets other threads into the interpreter where this one is in it; gives what `enter` wants back, or null.
  void* (*leave)() = nullptr;
  void (*enter)(void*) = nullptr;
};
extern PythonHooks python_hooks;

}  // namespace lohe
