#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <new>
#include <span>
#include <utility>

namespace lohe {

/// A vector of any movable elements whose first N live inside it. SmallVector is the one for plain data.
template <class T, int N>
class InlineVector {
 public:
  using value_type = T;
  InlineVector() = default;
  explicit InlineVector(size_t n) { resize(n); }
  InlineVector(std::initializer_list<T> init) {
    reserve(init.size());
    for (const T& v : init) push_back(v);
  }
  InlineVector(const InlineVector& o) {
    reserve(o.size_);
    for (const T& v : o) push_back(v);
  }
  InlineVector(InlineVector&& o) noexcept { take(o); }
  InlineVector& operator=(const InlineVector& o) {
    if (this != &o) *this = InlineVector(o);
    return *this;
  }
  InlineVector& operator=(InlineVector&& o) noexcept {
    if (this != &o) {
      release();
      take(o);
    }
    return *this;
  }
  ~InlineVector() { release(); }

  void reserve(size_t n) {
    if (n > capacity_) grow(n);
  }
  /// Elements that are added are T().
  void resize(size_t n) {
    reserve(n);
    while (size_ < n) std::construct_at(data_ + size_++);
    while (size_ > n) data_[--size_].~T();
  }
  template <class... A>
  T& emplace_back(A&&... arguments) {
    if (size_ == capacity_) grow(size_t{size_} + 1);
    return *std::construct_at(data_ + size_++, std::forward<A>(arguments)...);
  }
  void push_back(T v) { emplace_back(std::move(v)); }
  void pop_back() { data_[--size_].~T(); }
  void clear() {
    while (size_ > 0) pop_back();
  }

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  T& front() { return data_[0]; }
  const T& front() const { return data_[0]; }
  T& back() { return data_[size_ - 1]; }
  const T& back() const { return data_[size_ - 1]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  operator std::span<const T>() const { return {data_, size_}; }

 private:
  T* in_place() { return reinterpret_cast<T*>(inline_); }

  [[gnu::noinline]] void grow(size_t n) {
    const size_t capacity = std::max<size_t>(n, size_t{capacity_} * 2);
    T* p = std::allocator<T>().allocate(capacity);
    std::uninitialized_move_n(data_, size_, p);
    const uint32_t size = size_;
    release();
    data_ = p;
    size_ = size;
    capacity_ = static_cast<uint32_t>(capacity);
  }
  void release() {
    clear();
    if (data_ != in_place()) std::allocator<T>().deallocate(data_, capacity_);
    data_ = in_place();
    capacity_ = N;
  }
  /// Into an empty vector.
  void take(InlineVector& o) noexcept {
    if (o.data_ == o.in_place()) {
      std::uninitialized_move_n(o.data_, o.size_, data_);
      size_ = o.size_;
      o.clear();
    } else {
      data_ = std::exchange(o.data_, o.in_place());
      size_ = std::exchange(o.size_, 0);
      capacity_ = std::exchange(o.capacity_, N);
    }
  }

  T* data_ = in_place();
  uint32_t size_ = 0;
  uint32_t capacity_ = N;
  alignas(T) unsigned char inline_[N * sizeof(T)];
};

}  // namespace lohe
