#pragma once

#include <array>
#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <optional>
#include <ostream>
#include <span>
#include <vector>

// Lists between braces live until the end of the call that they are given to.
#pragma GCC diagnostic push
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Winit-list-lifetime"
#endif

namespace lohe {

/// A view of elements that somebody else owns: what functions take for shapes and lists. A single element
/// stands for a list of one. Like std::span it must not outlive what it was made from; a braced list lives
/// until the end of the call.
template <class T>
class ArrayRef {
 public:
  using value_type = T;
  constexpr ArrayRef() = default;
  constexpr ArrayRef(const T* data, size_t size) : data_(data), size_(size) {}
  constexpr ArrayRef(const T& one) : data_(&one), size_(1) {}
  constexpr ArrayRef(const std::initializer_list<T>& list) : data_(list.begin()), size_(list.size()) {}
  constexpr ArrayRef(std::span<const T> list) : data_(list.data()), size_(list.size()) {}
  ArrayRef(const std::vector<T>& list) : data_(list.data()), size_(list.size()) {}
  template <size_t N>
  constexpr ArrayRef(const std::array<T, N>& list) : data_(list.data()), size_(N) {}

  constexpr const T* data() const { return data_; }
  constexpr size_t size() const { return size_; }
  constexpr bool empty() const { return size_ == 0; }
  constexpr const T* begin() const { return data_; }
  constexpr const T* end() const { return data_ + size_; }
  constexpr const T& operator[](size_t i) const { return data_[i]; }
  constexpr const T& front() const { return data_[0]; }
  constexpr const T& back() const { return data_[size_ - 1]; }
  std::vector<T> vec() const { return {begin(), end()}; }
  constexpr operator std::span<const T>() const { return {data_, size_}; }
  constexpr bool equals(ArrayRef other) const {
    if (size_ != other.size_) return false;
    for (size_t i = 0; i < size_; ++i) {
      if (!(data_[i] == other.data_[i])) return false;
    }
    return true;
  }
  friend constexpr bool operator==(const ArrayRef& a, const ArrayRef& b) { return a.equals(b); }
  friend bool operator==(const ArrayRef& a, const std::vector<T>& b) { return a.equals(ArrayRef(b)); }

 private:
  const T* data_ = nullptr;
  size_t size_ = 0;
};

using IntArrayRef = ArrayRef<int64_t>;

/// A list of ints that somebody keeps: options of layers. One int is a list of one.
class IntList : public std::vector<int64_t> {
 public:
  IntList() = default;
  IntList(int64_t one) : std::vector<int64_t>(1, one) {}
  IntList(int one) : IntList(int64_t{one}) {}
  IntList(std::initializer_list<int64_t> list) : std::vector<int64_t>(list) {}
  IntList(const std::vector<int64_t>& list) : std::vector<int64_t>(list) {}
  IntList(IntArrayRef list) : std::vector<int64_t>(list.begin(), list.end()) {}
};

/// "[2, 3]"
inline std::ostream& operator<<(std::ostream& out, const IntArrayRef& list) {
  out << '[';
  for (size_t i = 0; i < list.size(); ++i) out << (i == 0 ? "" : ", ") << list[i];
  return out << ']';
}

/// A list that may be absent (`int[]?` in signatures). std::optional<IntArrayRef> would take neither `1` nor
/// `{0, 1}`.
template <class T>
class OptionalArrayRef {
 public:
  constexpr OptionalArrayRef() = default;
  constexpr OptionalArrayRef(std::nullopt_t) {}
  constexpr OptionalArrayRef(ArrayRef<T> list) : list_(list), given_(true) {}
  constexpr OptionalArrayRef(const T& one) : list_(one), given_(true) {}
  constexpr OptionalArrayRef(const std::initializer_list<T>& list) : list_(list), given_(true) {}
  OptionalArrayRef(const std::vector<T>& list) : list_(list), given_(true) {}
  constexpr bool has_value() const { return given_; }
  constexpr explicit operator bool() const { return given_; }
  constexpr ArrayRef<T> value_or(ArrayRef<T> other) const { return given_ ? list_ : other; }
  constexpr const ArrayRef<T>& operator*() const { return list_; }
  constexpr const ArrayRef<T>* operator->() const { return &list_; }

 private:
  ArrayRef<T> list_;
  bool given_ = false;
};
using OptionalIntArrayRef = OptionalArrayRef<int64_t>;

}  // namespace lohe

#pragma GCC diagnostic pop
