#include "ops/arg.h"

#include <cstring>

namespace lohe {

size_t list_bytes(const Arg& a) {
  if (a.kind == Arg::kInts || a.kind == Arg::kFloats) return sizeof(int64_t) * static_cast<size_t>(a.count);
  return a.kind == Arg::kStr ? static_cast<size_t>(a.count) : 0;
}

std::unique_ptr<int64_t[]> own_lists(std::span<Arg> args) {
  size_t words = 0;
  for (const Arg& a : args) words += (list_bytes(a) + 7) / 8;
  if (words == 0) return nullptr;
  std::unique_ptr<int64_t[]> block(new int64_t[words]);
  int64_t* at = block.get();
  for (Arg& a : args) {
    const size_t bytes = list_bytes(a);
    if (bytes == 0) continue;
    std::memcpy(at, a.chars, bytes);
    a.chars = reinterpret_cast<const char*>(at);  // the pointers of a list are one union
    at += (bytes + 7) / 8;
  }
  return block;
}

}  // namespace lohe
