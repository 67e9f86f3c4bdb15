#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <type_traits>
#include <utility>

namespace lohe {

/// Base of objects that count their own references. `T` is the class that derives from it. An object starts
/// with one reference, which `Intrusive<T>::adopt` takes over.
///
/// The last release calls `T::destroy(T*)`; a class that recycles its objects, or that lives in a hierarchy
/// without virtual destructors, declares its own static `destroy`.
template <class T>
class RefCounted {
 public:
  void retain() const noexcept { count_.fetch_add(1, std::memory_order_relaxed); }

  /// For the sole owner of an object that nobody else can see yet.
  void retain_unshared() const noexcept {
    count_.store(count_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  }

  void release() const noexcept {
    // The sole owner needs no read-modify-write: nobody else can reach the object to add a reference.
    if (count_.load(std::memory_order_acquire) == 1 || count_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      T::destroy(const_cast<T*>(static_cast<const T*>(this)));
    }
  }

  /// Adds a reference unless the object is already being destroyed; for weak tables that hold a lock which
  /// `destroy` takes too.
  bool try_retain() const noexcept {
    uint32_t count = count_.load(std::memory_order_relaxed);
    while (count != 0) {
      if (count_.compare_exchange_weak(count, count + 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  uint32_t use_count() const noexcept { return count_.load(std::memory_order_acquire); }
  bool unique() const noexcept { return use_count() == 1; }

  /// Out of line: it is the rare end of a path that is inlined everywhere.
  [[gnu::noinline]] static void destroy(T* object) noexcept { delete object; }

 private:
  friend T;  // nobody else can have it as a base
  RefCounted() noexcept = default;
  RefCounted(const RefCounted&) = delete;
  RefCounted& operator=(const RefCounted&) = delete;
  ~RefCounted() = default;

  mutable std::atomic<uint32_t> count_{1};
};

/// Owning pointer to a RefCounted object: one word.
template <class T>
class Intrusive {
 public:
  using element_type = T;

  constexpr Intrusive() noexcept = default;
  constexpr Intrusive(std::nullptr_t) noexcept {}  // NOLINT: implicit like std::shared_ptr
  /// Shares ownership: adds a reference to `object`.
  explicit Intrusive(T* object) noexcept : object_(object) {
    if (object_) object_->retain();
  }
  Intrusive(const Intrusive& other) noexcept : Intrusive(other.object_) {}
  Intrusive(Intrusive&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
  template <class U>
    requires(!std::is_same_v<U, T> && std::is_convertible_v<U*, T*>)
  Intrusive(const Intrusive<U>& other) noexcept : Intrusive(static_cast<T*>(other.get())) {}  // NOLINT
  template <class U>
    requires(!std::is_same_v<U, T> && std::is_convertible_v<U*, T*>)
  Intrusive(Intrusive<U>&& other) noexcept : object_(other.detach()) {}  // NOLINT
  ~Intrusive() {
    if (object_) object_->release();
  }

  Intrusive& operator=(const Intrusive& other) noexcept {
    Intrusive copy(other);
    swap(copy);
    return *this;
  }
  Intrusive& operator=(Intrusive&& other) noexcept {
    Intrusive(std::move(other)).swap(*this);
    return *this;
  }

  /// Takes over a reference that the caller owns; nothing is added.
  static Intrusive adopt(T* object) noexcept {
    Intrusive result;
    result.object_ = object;
    return result;
  }
  /// Gives the reference to the caller, who releases it later.
  [[nodiscard]] T* detach() noexcept { return std::exchange(object_, nullptr); }

  void reset() noexcept { Intrusive().swap(*this); }
  void swap(Intrusive& other) noexcept { std::swap(object_, other.object_); }

  T* get() const noexcept { return object_; }
  T& operator*() const noexcept { return *object_; }
  T* operator->() const noexcept { return object_; }
  explicit operator bool() const noexcept { return object_ != nullptr; }
  uint32_t use_count() const noexcept { return object_ ? object_->use_count() : 0; }
  bool unique() const noexcept { return use_count() == 1; }

  friend bool operator==(const Intrusive& a, const Intrusive& b) noexcept { return a.object_ == b.object_; }
  friend bool operator==(const Intrusive& a, std::nullptr_t) noexcept { return a.object_ == nullptr; }

 private:
  T* object_ = nullptr;
};

template <class T, class... Args>
Intrusive<T> make_intrusive(Args&&... args) {
  return Intrusive<T>::adopt(new T(std::forward<Args>(args)...));
}

}  // namespace lohe

template <class T>
struct std::hash<lohe::Intrusive<T>> {
  size_t operator()(const lohe::Intrusive<T>& pointer) const noexcept {
    return std::hash<T*>()(pointer.get());
  }
};
