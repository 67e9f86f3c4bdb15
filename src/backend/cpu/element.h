#pragma once

#include <cstring>

namespace lohe::backend {

/// The element at an address that need not be aligned for T.
template <class T>
T load(const char* p) {
  T v;
  std::memcpy(&v, p, sizeof(T));
  return v;
}
template <class T>
void store(char* p, T v) {
  std::memcpy(p, &v, sizeof(T));
}

}  // namespace lohe::backend
