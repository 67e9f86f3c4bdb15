#pragma once

#include <array>
#include <cstdint>

/// Philox 4x32-10 on the host, for what is drawn one number after another. The kernels have the same function
/// (ir::Prim::kPhilox).
namespace lohe {

/// Words at a counter of 128 bits, of which ops use the low half for the element and the high half for
/// further draws.
inline std::array<uint32_t, 4> philox(uint64_t key, uint64_t counter, uint64_t draw = 0) {
  std::array<uint32_t, 4> c = {static_cast<uint32_t>(counter), static_cast<uint32_t>(counter >> 32),
                               static_cast<uint32_t>(draw), static_cast<uint32_t>(draw >> 32)};
  auto k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53u} * c[0], p1 = uint64_t{0xCD9E8D57u} * c[2];
    c = {static_cast<uint32_t>(p1 >> 32) ^ c[1] ^ k0, static_cast<uint32_t>(p1),
         static_cast<uint32_t>(p0 >> 32) ^ c[3] ^ k1, static_cast<uint32_t>(p0)};
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return c;
}

/// 53 bits in [0, 1).
inline double unit_double(uint32_t high, uint32_t low) {
  return static_cast<double>((uint64_t{high} << 21) | (low >> 11)) * 0x1p-53;
}
/// 52 bits in (0, 1), neither end included.
inline double open_unit_double(uint32_t high, uint32_t low) {
  return (static_cast<double>((uint64_t{high} << 20) | (low >> 12)) + 0.5) * 0x1p-52;
}

/// The draws of one element, one number after another.
class PhiloxStream {
 public:
  PhiloxStream(uint64_t key, uint64_t counter) : key_(key), counter_(counter) {}
  uint32_t word() {
    if (at_ == 4) {
      words_ = philox(key_, counter_, draw_++);
      at_ = 0;
    }
    return words_[static_cast<size_t>(at_++)];
  }
  double uniform() {
    const uint32_t high = word(), low = word();
    return open_unit_double(high, low);
  }

 private:
  uint64_t key_, counter_, draw_ = 0;
  std::array<uint32_t, 4> words_{};
  int at_ = 4;
};

}  // namespace lohe
