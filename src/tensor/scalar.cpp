#include "lohe/scalar.h"

#include <cmath>
#include <limits>
#include <ostream>

#include "lohe/device.h"
#include "lohe/error.h"

namespace lohe {

int64_t Scalar::to_int() const {
  if (is_integral()) return int_;
  // The limits are exact in double; the upper one is one past the maximum.
  if (!(real_ >= -0x1p63 && real_ < 0x1p63)) return std::numeric_limits<int64_t>::min();
  return static_cast<int64_t>(real_);
}

Dtype Scalar::dtype() const {
  switch (kind_) {
    case Kind::kBool:
      return Dtype::kBool;
    case Kind::kInt:
      return Dtype::kInt64;
    case Kind::kFloat:
      return default_dtype();
    case Kind::kComplex:
      return lohe::to_complex(default_dtype());
  }
  return Dtype::kUndefined;
}

bool Scalar::operator==(const Scalar& other) const {
  if (kind_ != other.kind_) return false;
  if (is_integral()) return int_ == other.int_;
  return real_ == other.real_ && imag() == other.imag();
}

std::ostream& operator<<(std::ostream& out, const Scalar& s) {
  switch (s.kind()) {
    case Scalar::Kind::kBool:
      return out << (s.to_bool() ? "True" : "False");
    case Scalar::Kind::kInt:
      return out << s.to_int();
    case Scalar::Kind::kFloat:
      return out << s.to_double();
    case Scalar::Kind::kComplex:
      return out << '(' << s.to_double() << (s.imag() < 0 ? "" : "+") << s.imag() << "j)";
  }
  return out;
}

void Device::refuse() {
  raise(ErrorKind::kRuntime,
        "this build of Lohe computes on the CPU only; ask cuda::is_available() before a CUDA "
        "device is used");
}

Device Device::parse(std::string_view text) {
  const auto colon = text.find(':');
  const std::string_view type = text.substr(0, colon);
  LOHE_CHECK(type == "cpu", "Device string: expected one of cpu at the start of the device string, got '",
             text, "'; this build knows the device type cpu only");
  Device device;
  if (colon != std::string_view::npos) {
    const std::string_view index = text.substr(colon + 1);
    LOHE_CHECK(index == "0", "Device string: invalid device index in '", text,
               "'; there is one CPU device, cpu:0");
    device.index = 0;
  }
  return device;
}

std::string Device::str() const { return index < 0 ? "cpu" : "cpu:" + std::to_string(index); }

std::ostream& operator<<(std::ostream& out, const Device& device) { return out << device.str(); }

}  // namespace lohe
