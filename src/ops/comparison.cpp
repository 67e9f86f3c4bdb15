#include <array>
#include <limits>

#include "lohe/error.h"
#include "ops/call.h"

/// Comparisons and tests of single numbers; results are bool. Maximum and minimum of two.
namespace lohe::ops {
namespace {

using namespace ir;

template <class F>
OpDef test(std::string_view schema, F f) {
  return pointwise(schema, f).promote(Promotion::kBool);
}

/// Complex numbers have no order.
template <class F>
OpDef order(std::string_view schema, F f) {
  return test(schema, f).dtypes_are(kAllReals);
}

constexpr double kInfinity = std::numeric_limits<double>::infinity();

Value constant(Value like, bool value) { return like.graph()->constant_int(Dtype::kBool, value); }
Value is_infinite(Value x) { return is_integral(x.dtype(), true) ? constant(x, false) : abs(x) == kInfinity; }
/// x - x is 0 for finite numbers only.
Value is_finite(Value x) { return is_integral(x.dtype(), true) ? constant(x, true) : abs(x) < kInfinity; }

void no_complex(const OpDef& op, Args args) {
  for (const Arg& a : args) {
    LOHE_CHECK(a.kind != Arg::kComplex && (a.kind != Arg::kTensor || !is_complex(a.tensor->dtype())),
               op.schema.base, " not implemented for complex tensors.");
  }
}

/// A number may stand for the second operand only.
void tensor_first(const OpDef& op, Args args) {
  LOHE_CHECK_TYPE(args[0].kind == Arg::kTensor, op.schema.base,
                  "(): argument 'input' (position 1) must be Tensor, not a number");
}

/// Python numbers do not stand for these operands.
void only_tensors(const OpDef& op, Args args) {
  for (size_t i = 0; i < 2; ++i) {
    LOHE_CHECK_TYPE(args[i].kind == Arg::kTensor, op.schema.base, "(): argument '",
                    i == 0 ? "input" : op.schema.params[i].name, "' (position ", i + 1,
                    ") must be Tensor, not a number");
  }
}

void only_real_tensors(const OpDef& op, Args args) {
  only_tensors(op, args);
  no_complex(op, args);
}

const char* const kNames[] = {"Byte",  "Char",   "Short", "Int",          "Long",          "Half",
                              "Float", "Double", "",      "ComplexFloat", "ComplexDouble", "Bool",
                              "",      "",       "",      "BFloat16"};

void close_arguments(const OpDef&, Args a) {
  LOHE_CHECK_TYPE(a[0].kind == Arg::kTensor && a[1].kind == Arg::kTensor,
                  "isclose(): arguments 'input' and 'other' must be Tensors");
  LOHE_CHECK(a[0].tensor->dtype() == a[1].tensor->dtype(), kNames[static_cast<int>(a[0].tensor->dtype())],
             " did not match ", kNames[static_cast<int>(a[1].tensor->dtype())]);
  LOHE_CHECK(a[2].scalar().to_double() >= 0, "rtol must be greater than or equal to zero, but got ",
             a[2].scalar().to_double());
  LOHE_CHECK(a[3].scalar().to_double() >= 0, "atol must be greater than or equal to zero, but got ",
             a[3].scalar().to_double());
}

Value close(Value x, Value y, const Arg& rtol, const Arg& atol, bool equal_nan) {
  Value near = x == y;
  if (equal_nan && is_differentiable(x.dtype())) near = near | (is_nan(x) & is_nan(y));
  const double relative = rtol.scalar().to_double(), absolute = atol.scalar().to_double();
  if (relative == 0 && absolute == 0) return near;
  const Dtype wide = is_integral(x.dtype(), true) ? default_dtype() : info(x.dtype()).value_dtype;
  const Value allowed =
      cast(abs(cast(y, is_complex(x.dtype()) ? x.dtype() : wide)), wide) * relative + absolute;
  const Value error = x.dtype() == Dtype::kBool ? cast(x ^ y, wide) : cast(abs(x - y), wide);
  return near | ((abs(error) < kInfinity) & (error <= allowed));
}

const OpFamily comparison(
    "comparison",
    {
        test("eq(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return x == y; })
            .checked(tensor_first)
            .describe("self == other."),
        test("ne(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return x != y; })
            .checked(tensor_first)
            .describe("self != other."),
        order("lt(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return x < y; })
            .checked(tensor_first)
            .describe("self < other."),
        order("le(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return x <= y; })
            .checked(tensor_first)
            .describe("self <= other."),
        order("gt(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return x > y; })
            .checked(tensor_first)
            .describe("self > other."),
        order("ge(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return x >= y; })
            .checked(tensor_first)
            .describe("self >= other."),
        alias("not_equal", "ne"),
        alias("less", "lt"),
        alias("less_equal", "le"),
        alias("greater", "gt"),
        alias("greater_equal", "ge"),
        test(
            "isclose(Tensor self, Tensor other, float rtol=1e-05, float atol=1e-08, bool equal_nan=False) -> Tensor",
            [](Value x, Value y, Arg rtol, Arg atol, bool equal_nan) {
              return close(x, y, rtol, atol, equal_nan);
            })
            .checked(close_arguments)
            .no_inplace()
            .describe("Whether |self - other| <= atol + rtol |other|."),
        test("isnan(Tensor self) -> Tensor", [](Value x) { return is_nan(x); })
            .no_inplace()
            .describe("Whether a number is NaN."),
        test("isinf(Tensor self) -> Tensor",
             [](Value x) {
               return is_complex(x.dtype()) ? is_infinite(real(x)) | is_infinite(imag(x)) : is_infinite(x);
             })
            .no_inplace()
            .describe("Whether a number, or a part of it, is infinite."),
        test("isfinite(Tensor self) -> Tensor",
             [](Value x) {
               return is_complex(x.dtype()) ? is_finite(real(x)) & is_finite(imag(x)) : is_finite(x);
             })
            .no_inplace()
            .describe("Whether a number is neither infinite nor NaN."),
        order("isposinf(Tensor self) -> Tensor",
              [](Value x) { return is_integral(x.dtype(), true) ? constant(x, false) : x == kInfinity; })
            .checked(no_complex)
            .out(OutDtype::kSame)
            .no_inplace()
            .describe("Whether a number is +infinity."),
        order("isneginf(Tensor self) -> Tensor",
              [](Value x) { return is_integral(x.dtype(), true) ? constant(x, false) : x == -kInfinity; })
            .checked(no_complex)
            .out(OutDtype::kSame)
            .no_inplace()
            .describe("Whether a number is -infinity."),
        test("isreal(Tensor self) -> Tensor",
             [](Value x) { return is_complex(x.dtype()) ? imag(x) == 0.0 : constant(x, true); })
            .no_inplace()
            .describe("Whether the imaginary part is 0."),
        pointwise("maximum(Tensor self, Tensor other) -> Tensor",
                  [](Value x, Value y) { return maximum(x, y); })
            .dtypes_are(kAllReals)
            .checked(only_real_tensors)
            .no_inplace()
            .describe("The larger of two; NaN if either is."),
        pointwise("minimum(Tensor self, Tensor other) -> Tensor",
                  [](Value x, Value y) { return minimum(x, y); })
            .dtypes_are(kAllReals)
            .checked(only_real_tensors)
            .no_inplace()
            .describe("The smaller of two; NaN if either is."),
        pointwise("fmax(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return fmax(x, y); })
            .dtypes_are(kAllReals)
            .checked(only_real_tensors)
            .no_inplace()
            .describe("The larger of two; NaN only if both are."),
        pointwise("fmin(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return fmin(x, y); })
            .dtypes_are(kAllReals)
            .checked(only_real_tensors)
            .no_inplace()
            .describe("The smaller of two; NaN only if both are."),
    });

}  // namespace
}  // namespace lohe::ops
