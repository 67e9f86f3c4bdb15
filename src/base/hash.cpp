#include "base/hash.h"

#include <algorithm>
#include <bit>

namespace lohe {
namespace {

constexpr uint64_t kC1 = 0x87C37B91114253D5u;
constexpr uint64_t kC2 = 0x4CF5AD432745937Fu;

uint64_t load_little_endian(const std::byte* bytes) noexcept {
  uint64_t word;
  std::memcpy(&word, bytes, sizeof word);
  if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
  return word;
}

uint64_t scramble_first(uint64_t k) noexcept { return std::rotl(k * kC1, 31) * kC2; }
uint64_t scramble_second(uint64_t k) noexcept { return std::rotl(k * kC2, 33) * kC1; }

uint64_t finalize(uint64_t k) noexcept {
  k = (k ^ (k >> 33)) * 0xFF51AFD7ED558CCDu;
  k = (k ^ (k >> 33)) * 0xC4CEB9FE1A85EC53u;
  return k ^ (k >> 33);
}

}  // namespace

std::string Hash128::hex() const {
  std::string text;
  for (const uint64_t word : {first, second}) {
    for (int shift = 60; shift >= 0; shift -= 4) text += "0123456789abcdef"[(word >> shift) & 15];
  }
  return text;
}

void Hasher::mix_block(const std::byte* block) noexcept {
  h1_ = (std::rotl(h1_ ^ scramble_first(load_little_endian(block)), 27) + h2_) * 5 + 0x52DCE729u;
  h2_ = (std::rotl(h2_ ^ scramble_second(load_little_endian(block + 8)), 31) + h1_) * 5 + 0x38495AB5u;
}

Hasher& Hasher::update(std::span<const std::byte> bytes) noexcept {
  const std::byte* next = bytes.data();
  size_t left = bytes.size();
  const size_t filled = length_ % tail_.size();
  length_ += left;
  if (filled != 0) {
    const size_t taken = std::min(left, tail_.size() - filled);
    if (taken != 0) std::memcpy(tail_.data() + filled, next, taken);
    next += taken;
    left -= taken;
    if (filled + taken < tail_.size()) return *this;
    mix_block(tail_.data());
  }
  for (; left >= tail_.size(); left -= tail_.size(), next += tail_.size()) mix_block(next);
  if (left != 0) std::memcpy(tail_.data(), next, left);
  return *this;
}

Hasher& Hasher::update_word(uint64_t word) noexcept {
  if constexpr (std::endian::native == std::endian::big) word = __builtin_bswap64(word);
  return update(std::as_bytes(std::span(&word, 1)));
}

Hash128 Hasher::digest() const noexcept {
  uint64_t h1 = h1_;
  uint64_t h2 = h2_;
  std::array<std::byte, 16> last{};
  std::copy_n(tail_.begin(), length_ % tail_.size(), last.begin());
  // An absent half scrambles to zero and leaves its word unchanged.
  h2 ^= scramble_second(load_little_endian(last.data() + 8));
  h1 ^= scramble_first(load_little_endian(last.data()));
  h1 ^= length_;
  h2 ^= length_;
  h1 += h2;
  h2 += h1;
  h1 = finalize(h1);
  h2 = finalize(h2);
  h1 += h2;
  h2 += h1;
  return {h1, h2};
}

}  // namespace lohe
