#include "lohe/dtype.h"

#include <array>
#include <atomic>
#include <ostream>

#include "lohe/error.h"

namespace lohe {
namespace {

// name, alias, tensor type, safetensors name, bytes, floating, complex, signed, real part, compute dtype
constexpr std::array kTable{
    DtypeInfo{kUInt8, "uint8", "", "ByteTensor", "U8", 1, false, false, false, kUInt8, kUInt8},
    DtypeInfo{kInt8, "int8", "", "CharTensor", "I8", 1, false, false, true, kInt8, kInt8},
    DtypeInfo{kInt16, "int16", "short", "ShortTensor", "I16", 2, false, false, true, kInt16, kInt16},
    DtypeInfo{kInt32, "int32", "int", "IntTensor", "I32", 4, false, false, true, kInt32, kInt32},
    DtypeInfo{kInt64, "int64", "long", "LongTensor", "I64", 8, false, false, true, kInt64, kInt64},
    DtypeInfo{kFloat16, "float16", "half", "HalfTensor", "F16", 2, true, false, true, kFloat16, kFloat32},
    DtypeInfo{kFloat32, "float32", "float", "FloatTensor", "F32", 4, true, false, true, kFloat32, kFloat32},
    DtypeInfo{kFloat64, "float64", "double", "DoubleTensor", "F64", 8, true, false, true, kFloat64, kFloat64},
    DtypeInfo{kComplex64, "complex64", "cfloat", "ComplexFloatTensor", "C64", 8, false, true, true, kFloat32,
              kComplex64},
    DtypeInfo{kComplex128, "complex128", "cdouble", "ComplexDoubleTensor", "C128", 16, false, true, true,
              kFloat64, kComplex128},
    DtypeInfo{kBool, "bool", "", "BoolTensor", "BOOL", 1, false, false, false, kBool, kBool},
    DtypeInfo{kBFloat16, "bfloat16", "", "BFloat16Tensor", "BF16", 2, true, false, true, kBFloat16, kFloat32},
};

std::atomic<Dtype> default_dtype_{kFloat32};

int category(Dtype d) { return d == kBool ? 0 : is_integral(d, false) ? 1 : is_floating(d) ? 2 : 3; }

}  // namespace

const DtypeInfo& info(Dtype dtype) {
  for (const DtypeInfo& row : kTable) {
    if (row.dtype == dtype) return row;
  }
  LOHE_INTERNAL_ASSERT(false, "no dtype has number ", static_cast<int>(dtype));
  return kTable[0];
}

Dtype promote_types(Dtype a, Dtype b) {
  if (a == b || b == Dtype::kUndefined) return a;
  if (a == Dtype::kUndefined) return b;
  const int ca = category(a), cb = category(b);
  if (ca != cb) {
    const Dtype high = ca > cb ? a : b, low = ca > cb ? b : a;
    // A complex operand keeps its width unless the other one is float64.
    if (category(high) == 3 && low == kFloat64) return kComplex128;
    return high;
  }
  switch (ca) {
    case 1:  // uint8 with a signed type needs the next wider one
      if (a == kUInt8 || b == kUInt8) {
        const Dtype other = a == kUInt8 ? b : a;
        return other == kInt8 ? kInt16 : other;
      }
      return itemsize(a) > itemsize(b) ? a : b;
    case 2:
      if (itemsize(a) == itemsize(b)) return kFloat32;  // float16 with bfloat16
      return itemsize(a) > itemsize(b) ? a : b;
    default:
      return kComplex128;
  }
}

bool can_cast(Dtype from, Dtype to) {
  if (is_complex(from) && !is_complex(to)) return false;
  if (is_floating(from) && is_integral(to, true)) return false;
  return to != kBool || from == kBool;
}

Dtype to_complex(Dtype d) {
  if (is_complex(d)) return d;
  return d == kFloat64 ? kComplex128 : kComplex64;
}

Dtype dtype_from_name(std::string_view name) {
  for (const DtypeInfo& row : kTable) {
    if (name == row.name || (!row.alias.empty() && name == row.alias)) return row.dtype;
  }
  return Dtype::kUndefined;
}

Dtype default_dtype() { return default_dtype_.load(std::memory_order_relaxed); }

void set_default_dtype(Dtype d) {
  LOHE_CHECK_TYPE(is_floating(d),
                  "set_default_dtype: only floating-point types are supported as the default type, got ", d,
                  "; use float16, bfloat16, float32 or float64");
  default_dtype_.store(d, std::memory_order_relaxed);
}

std::ostream& operator<<(std::ostream& out, Dtype d) {
  return out << (d == Dtype::kUndefined ? std::string_view("undefined") : info(d).name);
}

}  // namespace lohe
