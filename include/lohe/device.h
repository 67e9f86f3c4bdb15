#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <string_view>

#include "lohe/export.h"

namespace lohe {

enum class DeviceType : uint8_t { kCpu = 0, kCuda = 1 };
inline constexpr DeviceType kCPU = DeviceType::kCpu, kCUDA = DeviceType::kCuda;

/// Where a tensor's storage lives. `index` is -1 where it is not given; CPU has one device.
struct LOHE_API Device {
  DeviceType type = DeviceType::kCpu;
  int8_t index = -1;

  constexpr Device() = default;
  /// @throws RuntimeError for a type of which there is no device: any but the CPU.
  constexpr Device(DeviceType type, int8_t index = -1) : type(type), index(index) {
    if (type != DeviceType::kCpu) refuse();
  }
  /// As parse() does.
  Device(const std::string& text) : Device(parse(text)) {}
  Device(const char* text) : Device(parse(text)) {}
  /// "cpu", "cpu:0". @throws RuntimeError naming the known device types.
  static Device parse(std::string_view text);
  std::string str() const;
  constexpr bool is_cpu() const { return type == DeviceType::kCpu; }
  constexpr bool is_cuda() const { return false; }
  bool operator==(const Device&) const = default;

 private:
  [[noreturn]] static void refuse();
};

LOHE_API std::ostream& operator<<(std::ostream& out, const Device& device);

/// Programs ask whether there is another device before they use it.
namespace cuda {
inline bool is_available() { return false; }
inline int device_count() { return 0; }
}  // namespace cuda

}  // namespace lohe
