#pragma once

#include <cstdint>
#include <limits>

#include "base/allocator.h"
#include "lohe/error.h"

namespace lohe::backend {

/// Uninitialised memory for `count` elements, given back at the end of the scope.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t count) : bytes_(bytes_of(count)), data_(static_cast<T*>(allocate(bytes_))) {}
  ~Scratch() { deallocate(data_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  T* data() { return data_; }

 private:
  static size_t bytes_of(int64_t count) {
    LOHE_CHECK_KIND(kOutOfMemory, count <= std::numeric_limits<int64_t>::max() / int64_t{sizeof(T)},
                    "cannot allocate scratch memory for ", count, " elements of ", sizeof(T), " bytes");
    return static_cast<size_t>(count) * sizeof(T);
  }

  const size_t bytes_;
  T* const data_;
};

}  // namespace lohe::backend
