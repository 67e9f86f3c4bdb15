#include <array>
#include <limits>
#include <numbers>

#include "lohe/error.h"
#include "ops/call.h"

/// Arithmetic on numbers: one expression per element.
namespace lohe::ops {
namespace {

using namespace ir;

void integer_alpha(const OpDef& op, Args args) {
  const Arg& alpha = args[2];
  const auto integral = [](const Arg& a) {
    return a.kind == Arg::kTensor ? is_integral(a.tensor->dtype(), true)
                                  : a.kind == Arg::kBool || a.kind == Arg::kInt;
  };
  LOHE_CHECK(alpha.kind != Arg::kFloat || !(integral(args[0]) && integral(args[1])),
             "For integral input tensors, argument alpha must not be a floating point number.");
  LOHE_CHECK(
      alpha.kind != Arg::kBool || (args[0].kind == Arg::kTensor && args[0].tensor->dtype() == Dtype::kBool),
      "Boolean alpha only supported for Boolean results.");
  LOHE_CHECK(alpha.kind != Arg::kComplex ||
                 (args[0].kind == Arg::kTensor && is_complex(args[0].tensor->dtype())) ||
                 (args[1].kind == Arg::kTensor && is_complex(args[1].tensor->dtype())),
             op.schema.base, ": for non-complex input tensors, argument alpha must not be a complex number.");
}

bool is_boolean(const Arg& a) {
  return a.kind == Arg::kTensor ? a.tensor->dtype() == Dtype::kBool : a.kind == Arg::kBool;
}

/// A number may stand for the second operand only.
void tensor_first(const OpDef& op, Args args) {
  LOHE_CHECK_TYPE(args[0].kind == Arg::kTensor, op.schema.base,
                  "(): argument 'input' (position 1) must be Tensor, not a number");
}

void no_bool_subtraction(const OpDef& op, Args args) {
  integer_alpha(op, args);
  LOHE_CHECK(!is_boolean(args[0]) || !is_boolean(args[1]),
             "Subtraction, the `-` operator, with two bool tensors is not supported. Use "
             "the `^` or `logical_xor()` operator instead.");
  LOHE_CHECK(!is_boolean(args[0]) && !is_boolean(args[1]),
             "Subtraction, the `-` operator, with a bool tensor is not supported. If you "
             "are trying to invert a mask, use the `~` or `logical_not()` operator instead.");
}

/// Integer division by zero is an error, wherever in the tensor it stands.
void nonzero_divisor(Value divisor) {
  if (is_integral(divisor.dtype(), true)) divisor.graph()->check(divisor != 0, "ZeroDivisionError", false);
}

/// Without a mode the row is plain division; with one, integers stay integers.
Results divide_rounded(Args a, dispatch::Form form) {
  static const OpRef plain("div"), rounded("_div_rounded");
  const Arg& mode = a[2];
  LOHE_CHECK(mode.none() || mode.str() == "trunc" || mode.str() == "floor",
             "div expected rounding_mode to be one of None, 'trunc', or 'floor' but found '",
             mode.none() ? "" : mode.str(), "'");
  if (mode.none()) return dispatch::call(plain.op(), a.first(2), form);
  return dispatch::call(rounded.op(), std::array{a[0], a[1], Arg(mode.str() == "floor")}, form);
}

constexpr double kOwnGraph[] = {0, 1, 2, 3, 0.5, -0.5, -1, -2};

/// 0 for an exponent that is computed with as it is; i + 1 for kOwnGraph[i], which has a graph of its own.
uint8_t exponent_case(Args a) {
  if (!a[1].is_number() || a[1].kind == Arg::kComplex) return 0;
  const double exponent = a[1].scalar().to_double();
  for (size_t i = 0; i < std::size(kOwnGraph); ++i) {
    if (exponent == kOwnGraph[i]) return static_cast<uint8_t>(i + 1);
  }
  return 0;
}

/// x to the power of a number with a graph of its own.
Value power_case(Value x, double exponent) {
  if (exponent == 0) return x.literal(1);
  if (exponent == 1) return x;
  if (exponent == 2) return x * x;
  if (exponent == 3) return x * x * x;
  if (exponent == 0.5) return sqrt(x);
  if (exponent == -0.5) return rsqrt(x);
  return exponent == -1 ? reciprocal(x) : reciprocal(x * x);
}

Value power(GraphCall& c) {
  const uint8_t special = exponent_case(c.attributes);
  if (special == 0 || (is_integral(c.nodes[0].dtype(), true) && kOwnGraph[special - 1] < 0))
    return pow(c.nodes[0], c.nodes[1]);
  return power_case(c.nodes[0], kOwnGraph[special - 1]);
}

std::array<Value, 2> power_gradient(GraphCall& c) {
  const Value x = c.nodes[0], exponent = c.nodes[1], g = c.nodes[2], y = c.nodes[3];
  if (const uint8_t special = exponent_case(c.attributes); special != 0) {
    const double n = kOwnGraph[special - 1];
    if (n == 0) return {g.literal(0), {}};
    const Value slope =
        n == 1 || n == 2 || n == 3 || n == 0.5 || n == -1 ? power_case(x, n - 1) : pow(x, x.literal(n - 1));
    return {g * conj(n * slope), {}};
  }
  const Value base = select(exponent == 0.0, g.literal(0), g * conj(exponent * pow(x, exponent - 1)));
  const Value not_negative =
      is_complex(x.dtype()) ? (imag(exponent) == 0.0) & (real(exponent) >= 0.0) : exponent >= 0.0;
  return {base, select((x == 0.0) & not_negative, g.literal(0), g * conj(y * log(x)))};
}

void no_integer_inverse(const OpDef&, Args a) {
  const auto integral = [](const Arg& x) {
    return x.kind == Arg::kTensor && is_integral(x.tensor->dtype(), true);
  };
  LOHE_CHECK(!(integral(a[0]) && a[1].kind == Arg::kInt && a[1].integer < 0),
             "Integers to negative integer powers are not allowed.");
}

/// Python numbers do not stand for these operands.
void only_tensors(const OpDef& op, Args args) {
  for (size_t i = 0; i < 2; ++i) {
    LOHE_CHECK_TYPE(args[i].kind == Arg::kTensor, op.schema.base, "(): argument '",
                    i == 0 ? "input" : op.schema.params[i].name, "' (position ", i + 1,
                    ") must be Tensor, not a number");
  }
}

/// log(exp(a) + exp(b)) in a base, from the larger of both.
template <class Exp, class Log>
Value log_add(Value a, Value b, Exp exponential, Log logarithm) {
  const Value same_infinity = (a == b) & (abs(a) == std::numeric_limits<double>::infinity());
  return select(same_infinity, a, maximum(a, b) + logarithm(exponential(-abs(a - b))));
}

/// The same for complex numbers, from the one with the larger real part.
Value complex_log_add(Value a, Value b) {
  const Value first = real(a) >= real(b);
  const Value high = select(first, a, b), low = select(first, b, a);
  // exp(-inf) adds nothing, whatever its phase.
  const Value nothing = real(high) == -std::numeric_limits<double>::infinity();
  return select(nothing, high, high + log1p(exp(low - high)));
}

/// The magnitude of x with the sign of y.
Value with_sign(Value x, Value y) { return select(signbit(y), -abs(x), abs(x)); }

/// The neighbour of x towards y: floats of one sign are ordered as their bits are.
Value next_after(GraphCall& c) {
  const Dtype dtype = c.result_dtype;
  const Dtype bits = itemsize(dtype) == 2   ? Dtype::kInt16
                     : itemsize(dtype) == 4 ? Dtype::kInt32
                                            : Dtype::kInt64;
  const Value x = c.nodes[0], y = c.nodes[1];
  ir::Graph& graph = *x.graph();
  const auto from_bits = [&](Value v) { return cast(graph.apply(Prim::kBitcast, dtype, v), x.dtype()); };
  const Value raw = graph.apply(Prim::kBitcast, bits, cast(x, dtype));
  const Value smallest = from_bits(graph.constant_int(bits, 1));
  const Value away = (x < y) == (x > 0.0);
  const Value moved = from_bits(select(away, raw + 1, raw - 1));
  const Value finite = select(x == y, y, select(x == 0.0, select(y > 0.0, smallest, -smallest), moved));
  return select(is_nan(x) | is_nan(y), x + y, finite);
}

Value times_log(Value x, Value y) {
  const Value plain = x * log(y);
  return select(is_nan(y), y, select(x == 0.0, x.literal(0), plain));
}

Dtype float_power_dtype(Args a) {
  const auto complex_number = [](const Arg& x) {
    return x.kind == Arg::kComplex || (x.kind == Arg::kTensor && is_complex(x.tensor->dtype()));
  };
  return complex_number(a[0]) || complex_number(a[1]) ? Dtype::kComplex128 : Dtype::kFloat64;
}

TensorPtr float_power(Args a) {
  static const OpRef power_row("pow"), convert("to.dtype");
  const Dtype dtype = float_power_dtype(a);
  TensorPtr converted[2];
  Arg operands[2] = {a[0], a[1]};
  for (size_t i = 0; i < 2; ++i) {
    if (a[i].kind != Arg::kTensor) continue;
    converted[i] = convert(a[i].tensor, dtype);
    operands[i] = Arg(converted[i]);
  }
  return power_row(operands[0], operands[1]);
}

const OpFamily arithmetic(
    "arithmetic",
    {
        pointwise("add(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor",
                  [](Value x, Value y, Value alpha) { return x + alpha * y; })
            .checked(integer_alpha)
            .describe("self + alpha * other."),
        pointwise("sub(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor",
                  [](Value x, Value y, Value alpha) { return x - alpha * y; })
            .checked(no_bool_subtraction)
            .describe("self - alpha * other."),
        pointwise("rsub(Tensor self, Tensor other, *, Scalar alpha=1) -> Tensor",
                  [](Value x, Value y, Value alpha) { return y - alpha * x; })
            .checked([](const OpDef& op, Args args) {
              tensor_first(op, args);
              no_bool_subtraction(op, args);
            })
            .no_inplace()
            .describe("other - alpha * self."),
        pointwise("mul(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return x * y; })
            .describe("self * other; bool tensors: and."),
        pointwise("div(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return x / y; })
            .promote(Promotion::kFloat)
            .describe("True division: integers divide in the default dtype."),
        pointwise("_div_rounded(Tensor self, Tensor other, bool down) -> Tensor",
                  [](Value x, Value y, bool down) {
                    nonzero_divisor(y);
                    return down ? floor_divide(x, y) : trunc_divide(x, y);
                  })
            .dtypes_are(kReals)
            .gradient_reads({})
            .derivative([](Value g) { return std::array{g.literal(0), g.literal(0)}; })
            .in("_C")
            .describe("self / other rounded down or towards 0."),
        function("div.Tensor_mode(Tensor self, Tensor other, *, str? rounding_mode) -> Tensor",
                 [](Args a) { return divide_rounded(a, dispatch::Form::kValue); })
            .inplace()
            .out()
            .describe("Division rounded toward zero ('trunc') or down ('floor')."),
        pointwise("floor_divide(Tensor self, Tensor other) -> Tensor",
                  [](Value x, Value y) {
                    nonzero_divisor(y);
                    return floor_divide(x, y);
                  })
            .dtypes_are(kReals)
            .describe("Division rounded down, as Python's //."),
        pointwise("remainder(Tensor self, Tensor other) -> Tensor",
                  [](Value x, Value y) {
                    nonzero_divisor(y);
                    return remainder(x, y);
                  })
            .dtypes_are(kReals)
            .describe("Modulus with the divisor's sign, as Python's %."),
        pointwise("fmod(Tensor self, Tensor other) -> Tensor",
                  [](Value x, Value y) {
                    nonzero_divisor(y);
                    return fmod(x, y);
                  })
            .dtypes_are(kReals)
            .checked(tensor_first)
            .describe("Modulus with the dividend's sign, as C's fmod."),
        pointwise("neg(Tensor self) -> Tensor", [](Value x) { return -x; })
            .checked([](const OpDef&, Args a) {
              LOHE_CHECK(
                  !is_boolean(a[0]),
                  "Negation, the `-` operator, on a bool tensor is not supported. If you are trying to invert a "
                  "mask, use the `~` or `logical_not()` operator instead.");
            })
            .out(OutDtype::kSame)
            .describe("-self."),
        pointwise("abs(Tensor self) -> Tensor", [](Value x) { return abs(x); })
            .promote(Promotion::kReal)
            .dtypes_are(kNumbers)
            .out(OutDtype::kSame)
            .describe("Magnitude."),
        pointwise("reciprocal(Tensor self) -> Tensor", [](Value x) { return reciprocal(x); })
            .promote(Promotion::kFloat)
            .gradient_reads({"result"})
            .derivative([](Value g, Value y) { return -g * conj(y * y); })
            .describe("1 / self."),
        alias("subtract", "sub"),
        alias("multiply", "mul"),
        alias("divide", "div"),
        alias("true_divide", "div"),
        alias("negative", "neg"),
        alias("absolute", "abs"),
        function("positive(Tensor(a) self) -> Tensor(a)",
                 [](Args a) -> Results {
                   LOHE_CHECK(!is_boolean(a[0]), "The `+` operator, on a bool tensor is not supported.");
                   return TensorPtr(a[0].tensor);
                 })
            .describe("self."),
        // Powers
        pointwise("pow(Tensor self, Tensor exponent) -> Tensor", [](GraphCall& c) { return power(c); })
            .dtypes_are(kNumbers)
            .checked(no_integer_inverse)
            .varies_with(exponent_case)
            .derivative([](GraphCall& c) { return power_gradient(c); })
            .describe("self to the power of exponent."),
        function("square(Tensor self) -> Tensor",
                 [](Args a) {
                   static const OpRef power_row("pow");
                   return Results(power_row(a[0].tensor, int64_t{2}));
                 })
            .out()
            .describe("self * self."),
        function("square_(Tensor(a!) self) -> Tensor(a!)",
                 [](Args a) {
                   static const OpRef power_row("pow");
                   return dispatch::call(power_row.op(), std::array{a[0], Arg(int64_t{2})},
                                         dispatch::Form::kInPlace);
                 })
            .describe("self * self, written into self."),
        function("float_power(Tensor self, Tensor exponent) -> Tensor",
                 [](Args a) { return Results(float_power(a)); })
            .out()
            .describe("pow in float64 or complex128."),
        function("float_power_(Tensor(a!) self, Tensor exponent) -> Tensor(a!)",
                 [](Args a) {
                   static const OpRef power_row("pow");
                   const Dtype dtype = float_power_dtype(a);
                   LOHE_CHECK(a[0].tensor->dtype() == dtype, "the base given to float_power_ has dtype ",
                              info(a[0].tensor->dtype()).name, " but the operation's result requires dtype ",
                              info(dtype).name);
                   return dispatch::call(power_row.op(), a, dispatch::Form::kInPlace);
                 })
            .describe("float_power written into self, which has its dtype."),
        function("ldexp(Tensor self, Tensor other) -> Tensor",
                 [](Args a) {
                   static const OpRef power_row("pow"), product("mul");
                   return Results(product(a[0].tensor, power_row(2.0, a[1].tensor)));
                 })
            .inplace()
            .out()
            .describe("self * 2^other."),
        // Two numbers
        pointwise("hypot(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return hypot(x, y); })
            .dtypes_are(kFloating)
            .checked(only_tensors)
            .gradient_reads({"self", "other", "result"})
            .derivative([](Value g, Value r, Value x, Value y) {
              return std::array{g * (x / r), g * (y / r)};
            })
            .describe("sqrt(self^2 + other^2), without overflow in between."),
        pointwise("atan2(Tensor self, Tensor other) -> Tensor", [](Value y, Value x) { return atan2(y, x); })
            .promote(Promotion::kFloat)
            .dtypes_are(kFloating)
            .checked(only_tensors)
            .describe("The angle of the point (other, self), in radians."),
        alias("arctan2", "atan2"),
        pointwise("copysign(Tensor self, Tensor other) -> Tensor",
                  [](Value x, Value y) { return with_sign(x, y); })
            .promote(Promotion::kFloat)
            .dtypes_are(kFloating)
            .checked(tensor_first)
            .derivative([](Value g, Value r, Value x) {
              return std::array{g * select(x == 0.0, x.literal(0), r / x), g.literal(0)};
            })
            .describe("The magnitude of self with the sign of other."),
        pointwise("nextafter(Tensor self, Tensor other) -> Tensor",
                  [](GraphCall& c) { return next_after(c); })
            .dtypes_are(kFloating)
            .checked(only_tensors)
            .derivative([](Value g, Value, Value x, Value y) {
              return std::array{select(x != y, g, g.literal(0)), g.literal(0)};
            })
            .describe("The next floating-point number after self in the direction of other."),
        pointwise("logaddexp(Tensor self, Tensor other) -> Tensor",
                  [](Value a, Value b) {
                    if (is_complex(a.dtype())) return complex_log_add(a, b);
                    return log_add(a, b, [](Value v) { return exp(v); }, [](Value v) { return log1p(v); });
                  })
            .dtypes_are(kFloatingOrComplex)
            .checked(only_tensors)
            .derivative([](Value g, Value, Value a, Value b) {
              return std::array{g / conj(1 + exp(b - a)), g / conj(1 + exp(a - b))};
            })
            .no_inplace()
            .describe("log(exp(self) + exp(other))."),
        pointwise("logaddexp2(Tensor self, Tensor other) -> Tensor",
                  [](Value a, Value b) {
                    return log_add(
                        a, b, [](Value v) { return exp2(v); },
                        [](Value v) { return log1p(v) * std::numbers::log2e; });
                  })
            .dtypes_are(kFloating)
            .checked(only_tensors)
            .derivative([](Value g, Value, Value a, Value b) {
              return std::array{g / (1 + exp2(b - a)), g / (1 + exp2(a - b))};
            })
            .no_inplace()
            .describe("log2(2^self + 2^other)."),
        pointwise("xlogy(Tensor self, Tensor other) -> Tensor",
                  [](Value x, Value y) { return times_log(x, y); })
            .promote(Promotion::kFloat)
            .dtypes_are(kFloating)
            .derivative([](Value g, Value, Value x, Value y) {
              return std::array{select((x == 0.0) & (y <= 0.0), g.literal(0), times_log(g, y)), g * x / y};
            })
            .describe("self * log(other), 0 where self is 0."),
        pointwise("special_xlog1py(Tensor self, Tensor other) -> Tensor",
                  [](Value x, Value y) {
                    return select(is_nan(y), y, select(x == 0.0, x.literal(0), x * log1p(y)));
                  })
            .promote(Promotion::kFloat)
            .dtypes_are(kFloating)
            .derivative([](Value g, Value, Value x, Value y) {
              return std::array{select((x == 0.0) & (y <= -1.0), g.literal(0), g * log1p(y)),
                                g * x / (y + 1)};
            })
            .in("special")
            .describe("self * log1p(other), 0 where self is 0."),
        alias("special_xlogy", "xlogy").in("special"),
    });

}  // namespace
}  // namespace lohe::ops
