#include "lohe/error.h"
#include "ops/call.h"

/// Arithmetic on numbers: one expression per element.
namespace lohe::ops {
namespace {

using namespace ir;

void integer_alpha(const OpDef& op, Args args) {
  const Arg& alpha = args[2];
  const auto integral = [](const Arg& a) {
    return a.kind == Arg::kTensor ? is_integral(a.tensor->dtype(), true) : a.kind == Arg::kBool || a.kind == Arg::kInt;
  };
  LOHE_CHECK(alpha.kind != Arg::kFloat || !(integral(args[0]) && integral(args[1])),
             "For integral input tensors, argument alpha must not be a floating point number.");
  LOHE_CHECK(alpha.kind != Arg::kBool || (args[0].kind == Arg::kTensor && args[0].tensor->dtype() == Dtype::kBool),
             "Boolean alpha only supported for Boolean results.");
  LOHE_CHECK(alpha.kind != Arg::kComplex || (args[0].kind == Arg::kTensor && is_complex(args[0].tensor->dtype())) ||
                 (args[1].kind == Arg::kTensor && is_complex(args[1].tensor->dtype())),
             op.schema.base, ": for non-complex input tensors, argument alpha must not be a complex number.");
}

bool is_boolean(const Arg& a) { return a.kind == Arg::kTensor ? a.tensor->dtype() == Dtype::kBool : a.kind == Arg::kBool; }

void no_bool_subtraction(const OpDef& op, Args args) {
  integer_alpha(op, args);
  LOHE_CHECK(!is_boolean(args[0]) || !is_boolean(args[1]), "Subtraction, the `-` operator, with two bool tensors is not supported. Use "
             "the `^` or `logical_xor()` operator instead.");
  LOHE_CHECK(!is_boolean(args[0]) && !is_boolean(args[1]), "Subtraction, the `-` operator, with a bool tensor is not supported. If you "
             "are trying to invert a mask, use the `~` or `logical_not()` operator instead.");
}

/// Integer division by zero is an error, wherever in the tensor it stands.
void nonzero_divisor(Value divisor) {
  if (is_integral(divisor.dtype(), true)) divisor.graph()->check(divisor != 0, "ZeroDivisionError", false);
}

const OpFamily arithmetic("arithmetic", {
    pointwise("add(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor",
              [](Value x, Value y, Value alpha) { return x + alpha * y; })
        .checked(integer_alpha).describe("self + alpha * other."),
    pointwise("sub(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor",
              [](Value x, Value y, Value alpha) { return x - alpha * y; })
        .checked(no_bool_subtraction).describe("self - alpha * other."),
    pointwise("rsub(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor",
              [](Value x, Value y, Value alpha) { return y - alpha * x; })
        .checked(no_bool_subtraction).no_inplace().describe("other - alpha * self."),
    pointwise("mul(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return x * y; })
        .describe("self * other; bool tensors: and."),
    pointwise("div(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return x / y; })
        .promote(Promotion::kFloat).describe("True division: integers divide in the default dtype."),
    pointwise("div.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor",
              [](Value x, Value y, Arg mode) {
                if (mode.none()) return is_integral(x.dtype(), true) ? cast(x, default_dtype()) / cast(y, default_dtype()) : x / y;
                nonzero_divisor(y);
                return mode.str() == "floor" ? floor_divide(x, y) : trunc_divide(x, y);
              })
        .checked([](const OpDef&, Args a) {
          LOHE_CHECK(a[2].none() || a[2].str() == "trunc" || a[2].str() == "floor", "div expected rounding_mode to be one of None, "
                     "'trunc', or 'floor' but found '", a[2].none() ? "" : a[2].str(), "'");
        })
        .describe("Division rounded toward zero ('trunc') or down ('floor')."),
    pointwise("floor_divide(Tensor self, Tensor other) -> Tensor",
              [](Value x, Value y) { nonzero_divisor(y); return floor_divide(x, y); })
        .dtypes_are(kReals).describe("Division rounded down, as Python's //."),
    pointwise("remainder(Tensor self, Tensor other) -> Tensor",
              [](Value x, Value y) { nonzero_divisor(y); return remainder(x, y); })
        .dtypes_are(kReals).describe("Modulus with the divisor's sign, as Python's %."),
    pointwise("fmod(Tensor self, Tensor other) -> Tensor",
              [](Value x, Value y) { nonzero_divisor(y); return fmod(x, y); })
        .dtypes_are(kReals).describe("Modulus with the dividend's sign, as C's fmod."),
    pointwise("neg(Tensor self) -> Tensor", [](Value x) { return -x; })
        .checked([](const OpDef&, Args a) {
          LOHE_CHECK(!is_boolean(a[0]), "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a "
                     "mask, use the `~` or `logical_not()` operator instead.");
        })
        .describe("-self."),
    pointwise("abs(Tensor self) -> Tensor", [](Value x) { return abs(x); }).promote(Promotion::kReal).describe("Magnitude."),
    pointwise("square(Tensor self) -> Tensor", [](Value x) { return square(x); }).describe("self * self."),
    pointwise("reciprocal(Tensor self) -> Tensor", [](Value x) { return reciprocal(x); }).promote(Promotion::kFloat)
        .gradient_reads({"result"}).derivative([](Value g, Value y) { return -g * conj(y * y); }).describe("1 / self."),
});

}  // namespace
}  // namespace lohe::ops
