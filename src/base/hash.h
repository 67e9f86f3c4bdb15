#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace lohe {

/// A 128-bit hash value: names of cache entries, keys of programs.
struct Hash128 {
  uint64_t first = 0;
  uint64_t second = 0;

  /// 32 lower-case hexadecimal digits, `first` leading.
  std::string hex() const;
  friend auto operator<=>(const Hash128&, const Hash128&) = default;
};

/// Streaming content hash: MurmurHash3, x64, 128 bits (Austin Appleby, public domain), the same on every
/// machine and in every run. Not meant against somebody who builds collisions on purpose: a hit that matters
/// is followed by a full compare.
///
/// `update(bytes)` hashes the concatenation of all bytes given; the typed overloads are prefix-free, so that
/// ("ab", "c") and ("a", "bc") differ.
class Hasher {
 public:
  explicit Hasher(uint64_t seed = 0) noexcept : h1_(seed), h2_(seed) {}

  Hasher& update(std::span<const std::byte> bytes) noexcept;

  /// Integers, bool, enums: as 8 bytes, little-endian, whatever their type.
  template <class T>
    requires(std::is_integral_v<T> || std::is_enum_v<T>)
  Hasher& update(T value) noexcept {
    return update_word(static_cast<uint64_t>(value));
  }
  /// By bits: 0.0 and -0.0 differ.
  Hasher& update(double value) noexcept {
    uint64_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return update_word(bits);
  }
  /// Length, then characters.
  Hasher& update(std::string_view text) noexcept {
    update_word(text.size());
    return update(std::as_bytes(std::span(text)));
  }
  Hasher& update(const char* text) noexcept { return update(std::string_view(text)); }
  Hasher& update(const Hash128& hash) noexcept { return update_word(hash.first).update_word(hash.second); }

  /// The hash of what was given so far; updating may go on.
  Hash128 digest() const noexcept;

 private:
  Hasher& update_word(uint64_t word) noexcept;
  void mix_block(const std::byte* block) noexcept;

  uint64_t h1_;
  uint64_t h2_;
  uint64_t length_ = 0;
  std::array<std::byte, 16> tail_{};
};

inline Hash128 hash_bytes(std::span<const std::byte> bytes) noexcept {
  return Hasher().update(bytes).digest();
}
inline Hash128 hash_bytes(std::string_view text) noexcept {
  return hash_bytes(std::as_bytes(std::span(text)));
}

/// Mixes `value` into `seed`; for the hash of structs in in-memory tables. The order matters.
constexpr uint64_t hash_combine(uint64_t seed, uint64_t value) noexcept {
  // The finalizer of SplitMix64 over the sum, which spreads every input bit over the word.
  uint64_t x = seed * 0x9E3779B97F4A7C15u + value + 0xD1B54A32D192ED03u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

}  // namespace lohe

template <>
struct std::hash<lohe::Hash128> {
  size_t operator()(const lohe::Hash128& hash) const noexcept { return hash.first; }
};
