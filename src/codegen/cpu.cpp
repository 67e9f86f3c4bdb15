#include <cpuid.h>

#include <cstring>
#include <string>

#include "base/env.h"
#include "codegen/codegen.h"
#include "lohe/error.h"

namespace lohe::codegen {
namespace {

/// XCR0: which register state the operating system saves. A processor may have AVX-512 and its system not.
uint64_t enabled_state() {
  uint32_t low, high;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

constexpr uint32_t bit(int n) { return uint32_t{1} << n; }
constexpr bool has(uint32_t word, uint32_t bits) { return (word & bits) == bits; }

CpuLevel detect() {
  uint32_t a = 0, b = 0, c = 0, d = 0;
  LOHE_CHECK_KIND(kNotImplemented, __get_cpuid(1, &a, &b, &c, &d) != 0,
                  "lohe: this processor does not answer CPUID");
  const uint32_t features1 = c;
  // SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT.
  LOHE_CHECK_KIND(kNotImplemented, has(c, bit(0) | bit(9) | bit(13) | bit(19) | bit(20) | bit(23)),
                  "lohe: this processor is below x86-64-v2 (SSE4.2 and POPCNT), the oldest level served");
  // FMA, MOVBE, OSXSAVE, AVX, F16C.
  if (!has(features1, bit(12) | bit(22) | bit(27) | bit(28) | bit(29))) return CpuLevel::kV2;
  const uint64_t state = enabled_state();
  if ((state & 0x6) != 0x6) return CpuLevel::kV2;
  uint32_t extended = 0;
  if (__get_cpuid(0x80000001, &a, &b, &extended, &d) == 0 || !has(extended, bit(5)))
    return CpuLevel::kV2;  // LZCNT
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return CpuLevel::kV2;
  if (!has(b, bit(3) | bit(5) | bit(8))) return CpuLevel::kV2;  // BMI1, AVX2, BMI2
  // AVX-512 F, DQ, CD, BW, VL, and the state of mask and upper registers.
  if (!has(b, bit(16) | bit(17) | bit(28) | bit(30) | bit(31)) || (state & 0xE6) != 0xE6)
    return CpuLevel::kAvx2;
  return CpuLevel::kAvx512;
}

CpuLevel chosen() {
  const CpuLevel highest = detected_cpu_level();
  const std::string word = env_string("LOHE_CPU_LEVEL", name(highest));
  for (CpuLevel level : kCpuLevels) {
    if (word != name(level)) continue;
    LOHE_CHECK_VALUE(level <= highest, "environment variable LOHE_CPU_LEVEL='", word, "': this machine (",
                     cpu_name(), ") goes up to ", name(highest), "; unset it to use that");
    return level;
  }
  raise(ErrorKind::kValue, "environment variable LOHE_CPU_LEVEL='", word,
        "': expected x86-64-v2, avx2 or avx512; unset it to get the highest level that the machine runs (",
        name(highest), ")");
}

}  // namespace

const char* name(CpuLevel level) {
  constexpr const char* names[] = {"x86-64-v2", "avx2", "avx512"};
  return names[static_cast<int>(level)];
}

CpuLevel detected_cpu_level() {
  static const CpuLevel level = detect();
  return level;
}

CpuLevel cpu_level() {
  static const CpuLevel level = chosen();
  return level;
}

const char* cpu_name() {
  static const std::string text = [] {
    uint32_t words[12] = {};
    for (uint32_t i = 0; i < 3; ++i) {
      uint32_t* w = words + 4 * i;
      if (__get_cpuid(0x80000002 + i, w, w + 1, w + 2, w + 3) == 0)
        return std::string("unknown x86-64 processor");
    }
    char brand[49] = {};
    std::memcpy(brand, words, 48);
    std::string result = brand;
    const size_t first = result.find_first_not_of(' ');
    const size_t last = result.find_last_not_of(' ');
    return first == std::string::npos ? std::string("unknown x86-64 processor")
                                      : result.substr(first, last - first + 1);
  }();
  return text.c_str();
}

}  // namespace lohe::codegen
