#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>

#include "lohe/export.h"

namespace lohe {

enum class DeviceType : uint8_t { kCpu = 0 };

/// Where a tensor's storage lives. `index` is -1 where it is not given; CPU has one device.
struct LOHE_API Device {
  DeviceType type = DeviceType::kCpu;
  int8_t index = -1;

  /// "cpu", "cpu:0". @throws RuntimeError naming the known device types.
  static Device parse(std::string_view text);
  std::string str() const;
  bool operator==(const Device&) const = default;
};

LOHE_API std::ostream& operator<<(std::ostream& out, const Device& device);

inline constexpr Device kCPU{};

}  // namespace lohe
