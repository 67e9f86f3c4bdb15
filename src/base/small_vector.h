#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <span>
#include <type_traits>

namespace lohe {

/// A vector of trivially copyable elements whose first N live inside it: shapes and strides never allocate up
/// to rank N.
template <class T, int N>
class SmallVector {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  using value_type = T;
  SmallVector() = default;
  explicit SmallVector(size_t n, T fill = T{}) { resize(n, fill); }
  SmallVector(std::initializer_list<T> init) { assign(init.begin(), init.size()); }
  SmallVector(std::span<const T> s) { assign(s.data(), s.size()); }
  SmallVector(const T* first, const T* last) { assign(first, static_cast<size_t>(last - first)); }
  SmallVector(const SmallVector& o) { copy(o); }
  SmallVector(SmallVector&& o) noexcept { take(o); }
  SmallVector& operator=(const SmallVector& o) {
    if (this != &o) copy(o);
    return *this;
  }
  SmallVector& operator=(SmallVector&& o) noexcept {
    if (this != &o) {
      release();
      take(o);
    }
    return *this;
  }
  ~SmallVector() { release(); }

  void assign(const T* p, size_t n) {
    reserve(n);
    move(data_, p, n);
    size_ = static_cast<uint32_t>(n);
  }
  void reserve(size_t n) {
    if (n <= capacity_) return;
    const size_t capacity = std::max<size_t>(n, size_t{capacity_} * 2);
    T* p = new T[capacity];
    move(p, data_, size_);
    release();
    data_ = p;
    capacity_ = static_cast<uint32_t>(capacity);
  }
  void resize(size_t n, T fill = T{}) {
    reserve(n);
    for (size_t i = size_; i < n; ++i) data_[i] = fill;
    size_ = static_cast<uint32_t>(n);
  }
  void push_back(T v) {
    reserve(size_ + 1u);
    data_[size_++] = v;
  }
  void pop_back() { --size_; }
  void clear() { size_ = 0; }
  void erase(T* at) {
    move(at, at + 1, static_cast<size_t>(end() - at - 1));
    --size_;
  }
  void insert(T* at, T v) {
    const auto i = at - data_;
    push_back(v);
    move(data_ + i + 1, data_ + i, size_ - 1u - static_cast<size_t>(i));
    data_[i] = v;
  }

  T* data() { return data_; }
  const T* data() const { return data_; }
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }
  T& back() { return data_[size_ - 1]; }
  const T& back() const { return data_[size_ - 1]; }
  T& front() { return data_[0]; }
  const T& front() const { return data_[0]; }
  T* begin() { return data_; }
  T* end() { return data_ + size_; }
  const T* begin() const { return data_; }
  const T* end() const { return data_ + size_; }
  operator std::span<const T>() const { return {data_, size_}; }
  bool operator==(const SmallVector& o) const {
    // A loop of its own: std::equal() calls memcmp(), which takes longer than most of these are.
    if (size_ != o.size_) return false;
    for (uint32_t i = 0; i < size_; ++i) {
      if (!(data_[i] == o.data_[i])) return false;
    }
    return true;
  }

 private:
  /// Elements may be pointers, whose addresses become void* only when told to.
  static void move(T* to, const T* from, size_t n) {
    if (n != 0) std::memmove(static_cast<void*>(to), static_cast<const void*>(from), n * sizeof(T));
  }
  void copy(const SmallVector& o) {
    if (o.size_ <= N)
      copy_short(o);
    else
      assign(o.data_, o.size_);
  }
  /// Of up to N elements: any vector has room for them, so that they take a few moves and no call.
  void copy_short(const SmallVector& o) {
    constexpr size_t kAll = N * sizeof(T), kFewBytes = 64;
    if constexpr (kAll > kFewBytes) {
      assign(o.data_, o.size_);
    } else {
      size_ = o.size_;
      if (size_ == 1)  // what was written a moment ago cannot be read in wider words
        data_[0] = o.data_[0];
      else
        std::memcpy(static_cast<void*>(data_), static_cast<const void*>(o.data_), kAll);
    }
  }
  void release() {
    if (data_ != inline_) delete[] data_;
    data_ = inline_;
    capacity_ = N;
  }
  void take(SmallVector& o) {
    if (o.data_ == o.inline_) {
      copy_short(o);
    } else {
      data_ = o.data_;
      capacity_ = o.capacity_;
      size_ = o.size_;
      o.data_ = o.inline_;
      o.capacity_ = N;
    }
    o.size_ = 0;
  }

  T* data_ = inline_;
  uint32_t size_ = 0;
  uint32_t capacity_ = N;
  T inline_[N];
};

/// Sizes, strides, dimension numbers.
using Dims = SmallVector<int64_t, 6>;

}  // namespace lohe
