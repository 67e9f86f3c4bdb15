#include "lohe/generator.h"

#include <mutex>
#include <random>

#include "base/fork.h"
#include "lohe/error.h"
#include "tensor/tensor_impl.h"

namespace lohe {
namespace {

constexpr const char* kRandom =
    "it draws random numbers from a generator of its own, or reads or sets a generator's state";

}  // namespace

struct Generator::Impl {
  mutable std::mutex mutex;
  State state;
};

Generator::Generator(Device device) : impl_(std::make_unique<Impl>()), device_(device) {}
Generator::~Generator() = default;

void Generator::manual_seed(uint64_t seed) { set_state({seed, 0}); }

uint64_t Generator::seed() {
  std::random_device device;
  const uint64_t seed = (uint64_t{device()} << 32 | device()) & 0x1FFFFFFFFFFFFFu;  // exact as a double too
  manual_seed(seed);
  return seed;
}

uint64_t Generator::initial_seed() const { return state().seed; }

Generator::State Generator::state() const {
  tell_watcher(kRandom);
  const ForkSection section;
  const std::lock_guard lock(impl_->mutex);
  return impl_->state;
}

void Generator::set_state(State state) {
  tell_watcher(kRandom);
  const ForkSection section;
  const std::lock_guard lock(impl_->mutex);
  impl_->state = state;
}

std::array<uint8_t, Generator::kStateBytes> Generator::state_bytes() const {
  const State s = state();
  std::array<uint8_t, kStateBytes> bytes{};
  for (size_t i = 0; i < 8; ++i) {
    bytes[i] = static_cast<uint8_t>(s.seed >> (8 * i));
    bytes[8 + i] = static_cast<uint8_t>(s.offset >> (8 * i));
  }
  return bytes;
}

void Generator::set_state_bytes(std::span<const uint8_t> bytes) {
  LOHE_CHECK(bytes.size() == kStateBytes, "Generator.set_state: a state has ", kStateBytes, " bytes, got ",
             bytes.size(), "; pass what Generator.get_state() gave");
  State s{0, 0};
  for (size_t i = 0; i < 8; ++i) {
    s.seed |= uint64_t{bytes[i]} << (8 * i);
    s.offset |= uint64_t{bytes[8 + i]} << (8 * i);
  }
  set_state(s);
}

Generator::State Generator::reserve(int64_t counters) {
  tell_watcher(kRandom);
  const ForkSection section;
  const std::lock_guard lock(impl_->mutex);
  const State before = impl_->state;
  impl_->state.offset += static_cast<uint64_t>(counters);
  return before;
}

Generator& default_generator() {
  static auto& generator = *new Generator();
  return generator;
}

void manual_seed(uint64_t seed) { default_generator().manual_seed(seed); }

}  // namespace lohe
