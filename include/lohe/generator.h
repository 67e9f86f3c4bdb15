#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "lohe/device.h"
#include "lohe/export.h"

namespace lohe {

/// A stream of random numbers: Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
/// SC 2011). Four words of 32 bits are a function of a key (the seed) and a counter; a random op takes one
/// counter for each element of its result, in row-major order, so its bits depend on neither threads nor
/// strides. All members lock.
class LOHE_API Generator {
 public:
  static constexpr uint64_t kDefaultSeed = 67280421310721;
  static constexpr size_t kStateBytes = 16;

  struct State {
    uint64_t seed = kDefaultSeed;
    uint64_t offset = 0;  ///< the next counter
  };

  explicit Generator(Device device = kCPU);
  ~Generator();
  Generator(const Generator&) = delete;
  Generator& operator=(const Generator&) = delete;

  Device device() const { return device_; }
  /// Starts the stream of `seed` from its beginning.
  void manual_seed(uint64_t seed);
  /// Takes a seed from the operating system, starts its stream and gives the seed.
  uint64_t seed();
  uint64_t initial_seed() const;

  State state() const;
  void set_state(State state);
  /// Seed, then offset, little endian.
  std::array<uint8_t, kStateBytes> state_bytes() const;
  /// @throws RuntimeError unless there are kStateBytes.
  void set_state_bytes(std::span<const uint8_t> bytes);

  /// Takes `counters` counters: the state before, from which the caller draws.
  State reserve(int64_t counters);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
  Device device_;
};

/// The stream of ops that are not given one.
LOHE_API Generator& default_generator();
/// default_generator().manual_seed(seed).
LOHE_API void manual_seed(uint64_t seed);

}  // namespace lohe
