#include <array>
#include <limits>

#include "lohe/error.h"
#include "ops/call.h"

/// Choices between numbers: masks, bounds, replacements, interpolation.
namespace lohe::ops {
namespace {

using namespace ir;

Value zero(Value like) { return like.literal(0); }
bool is_tensor(const Arg& a) { return a.kind == Arg::kTensor; }
bool is_complex_arg(const Arg& a) {
  return is_tensor(a) ? is_complex(a.tensor->dtype()) : a.kind == Arg::kComplex;
}

void bool_condition(const OpDef&, Args a) {
  LOHE_CHECK_TYPE(is_tensor(a[0]), "where(): argument 'condition' (position 1) must be Tensor");
  const Dtype d = a[0].tensor->dtype();
  LOHE_CHECK(d == Dtype::kBool || d == Dtype::kUInt8,
             "where expected condition to be a boolean tensor, but got a tensor with dtype ", info(d).name);
}

/// A number may stand for the bound only.
void tensor_first(const OpDef& op, Args args) {
  LOHE_CHECK_TYPE(is_tensor(args[0]), op.schema.base,
                  "(): argument 'input' (position 1) must be Tensor, not a number");
}

void fill_arguments(const OpDef&, Args a) {
  LOHE_CHECK_TYPE(is_tensor(a[0]) && is_tensor(a[1]),
                  "masked_fill(): arguments 'input' and 'mask' must be Tensors");
  LOHE_CHECK(a[1].tensor->dtype() == Dtype::kBool,
             "masked_fill only supports boolean masks, but got mask with dtype ",
             info(a[1].tensor->dtype()).name);
  LOHE_CHECK(!is_tensor(a[2]) || a[2].tensor->dim() == 0,
             "masked_fill only supports a 0-dimensional value tensor, but got tensor with ",
             is_tensor(a[2]) ? a[2].tensor->dim() : 0, " dimension(s).");
  LOHE_CHECK(is_complex(a[0].tensor->dtype()) || !is_complex_arg(a[2]), "value cannot be converted to type ",
             info(a[0].tensor->dtype()).name, " without overflow");
  if (!a[2].is_number() || !is_integral(a[0].tensor->dtype(), false)) return;
  const double v = a[2].scalar().to_double();
  const int bits = static_cast<int>(itemsize(a[0].tensor->dtype())) * 8;
  const double limit = std::ldexp(1.0, bits - 1);
  const bool is_unsigned = !info(a[0].tensor->dtype()).is_signed;
  LOHE_CHECK(v < (is_unsigned ? 2 * limit : limit) && v >= -(is_unsigned ? 2 * limit : limit),
             "value cannot be converted to type ", info(a[0].tensor->dtype()).name, " without overflow");
}

void real_bounds(const OpDef& op, Args args) {
  LOHE_CHECK(args.size() < 3 || !args[1].none() || !args[2].none(),
             "torch.clamp: At least one of 'min' or 'max' must not be None");
  for (const Arg& a : args)
    LOHE_CHECK_KIND(kNotImplemented, !is_complex_arg(a), op.schema.base,
                    " is not supported for complex types");
}

/// Bounds with NaN: a NaN bound or operand gives NaN. Where the bounds cross, the upper one wins.
Value clamp(GraphCall& c) {
  Value y = c.nodes[0];
  if (!c.attributes[1].none()) y = maximum(c.nodes[1], y);
  if (!c.attributes[2].none()) y = minimum(c.nodes[2], y);
  return y;
}

std::array<Value, 3> clamp_gradient(GraphCall& c) {
  const Value x = c.nodes[0], low = c.nodes[1], high = c.nodes[2], g = c.nodes[3], none = zero(g);
  const bool below = !c.attributes[1].none(), above = !c.attributes[2].none();
  if (below && above) {
    return {select((x >= low) & (x <= high), g, none), select((x < low) & (low < high), g, none),
            select((x > high) | (high < low), g, none)};
  }
  if (below) return {select(x >= low, g, none), select(x < low, g, none), none};
  return {select(x <= high, g, none), none, select(x > high, g, none)};
}

/// Largest finite number of a floating dtype.
double largest(Dtype d) {
  switch (info(d).value_dtype) {
    case Dtype::kFloat16:
      return 65504;
    case Dtype::kBFloat16:
      return 0x1.fep+127;
    case Dtype::kFloat32:
      return std::numeric_limits<float>::max();
    default:
      return std::numeric_limits<double>::max();
  }
}

Value nan_to_num(GraphCall& c) {
  const Value x = c.nodes[0];
  if (is_integral(x.dtype(), true)) return x;
  const auto number = [&](int p, double otherwise) {
    const Arg& a = c.attributes[static_cast<size_t>(p)];
    return a.none() ? otherwise : a.scalar().to_double();
  };
  const double infinity = std::numeric_limits<double>::infinity(), most = largest(c.result_dtype);
  const auto part = [&](Value v) {
    v = select(v == infinity, v.literal(number(2, most)),
               select(v == -infinity, v.literal(number(3, -most)), v));
    return select(is_nan(v), v.literal(number(1, 0)), v);
  };
  return is_complex(x.dtype()) ? x.graph()->apply(Prim::kComplex, x.dtype(), part(real(x)), part(imag(x)))
                               : part(x);
}

Value is_finite(Value x) {
  const double infinity = std::numeric_limits<double>::infinity();
  return is_complex(x.dtype()) ? (abs(real(x)) < infinity) & (abs(imag(x)) < infinity) : abs(x) < infinity;
}

void same_dtypes(const OpDef& op, Args args) {
  LOHE_CHECK_KIND(kNotImplemented, !is_tensor(args[0]) || is_differentiable(args[0].tensor->dtype()),
                  "lerp is not implemented for integers; convert the tensor to a floating dtype");
  for (size_t i = 1; i < 3; ++i) {
    LOHE_CHECK(
        !is_tensor(args[0]) || !is_tensor(args[i]) || args[i].tensor->dtype() == args[0].tensor->dtype(),
        "expected dtype ", info(args[0].tensor->dtype()).name, " for `", op.schema.params[i].name,
        "` but got dtype ", info(args[i].tensor->dtype()).name, "; convert it first");
  }
}

bool is_integer(const Arg& a) {
  return is_tensor(a) ? is_integral(a.tensor->dtype(), true) : a.kind == Arg::kBool || a.kind == Arg::kInt;
}

void integer_value(const OpDef& op, Args a) {
  LOHE_CHECK(!(is_integer(a[0]) && is_integer(a[1]) && is_integer(a[2])) || is_integer(a[3]), op.schema.base,
             ": for integral input tensors, argument value must not be a floating point number.");
}

void no_integer_division(const OpDef&, Args a) {
  LOHE_CHECK(
      !is_integer(a[1]) || !is_integer(a[2]),
      "Integer division with addcdiv is no longer supported, and in a future release "
      "addcdiv will perform a true division of tensor1 and tensor2; convert one of them to a floating dtype.");
}

void heaviside_dtypes(const OpDef&, Args a) {
  LOHE_CHECK_TYPE(is_tensor(a[0]) && is_tensor(a[1]),
                  "heaviside(): arguments 'input' and 'values' must be Tensor, not a number");
  LOHE_CHECK(!is_complex_arg(a[0]) && !is_complex_arg(a[1]),
             "heaviside is not yet implemented for complex tensors.");
  LOHE_CHECK(!is_tensor(a[0]) || !is_tensor(a[1]) || a[0].tensor->dtype() == a[1].tensor->dtype(),
             "heaviside is not yet implemented for tensors with different dtypes.");
}

const OpFamily selection(
    "selection",
    {
        pointwise("where.self(Tensor condition, Tensor self, Tensor other) -> Tensor",
                  [](Value c, Value x, Value y) { return select(cast(c, Dtype::kBool), x, y); })
            .mask("condition")
            .checked(bool_condition)
            .out(OutDtype::kSame)
            .no_inplace()
            .describe("self where condition holds, other elsewhere."),
        pointwise("masked_fill(Tensor self, Tensor mask, Tensor value) -> Tensor",
                  [](Value x, Value mask, Value v) { return select(mask, cast(v, x.dtype()), x); })
            .promote(Promotion::kFirst)
            .mask("mask")
            .checked(fill_arguments)
            .describe("self with value where mask holds."),
        pointwise("clamp(Tensor self, Tensor? min=None, Tensor? max=None) -> Tensor",
                  [](GraphCall& c) { return clamp(c); })
            .dtypes_are(kReals)
            .checked(real_bounds)
            .out(OutDtype::kSame)
            .derivative([](GraphCall& c) { return clamp_gradient(c); })
            .describe("self bounded by min and max, either of which may be left out."),
        alias("clip", "clamp"),
        pointwise("clamp_min(Tensor self, Tensor min) -> Tensor",
                  [](Value x, Value low) { return maximum(low, x); })
            .dtypes_are(kAllReals)
            .checked(tensor_first)
            .derivative([](Value g, Value, Value x, Value low) {
              return std::array{select(x >= low, g, zero(g)), select(x < low, g, zero(g))};
            })
            .describe("self, but at least min."),
        pointwise("clamp_max(Tensor self, Tensor max) -> Tensor",
                  [](Value x, Value high) { return minimum(high, x); })
            .dtypes_are(kAllReals)
            .checked(tensor_first)
            .derivative([](Value g, Value, Value x, Value high) {
              return std::array{select(x <= high, g, zero(g)), select(x > high, g, zero(g))};
            })
            .describe("self, but at most max."),
        pointwise(
            "nan_to_num(Tensor self, float? nan=None, float? posinf=None, float? neginf=None) -> Tensor",
            [](GraphCall& c) { return nan_to_num(c); })
            .derivative([](Value g, Value, Value x) { return select(is_finite(x), g, zero(g)); })
            .out(OutDtype::kSame)
            .describe(
                "self with NaN (by default to 0) and infinities (to the dtype's largest numbers) replaced."),
        pointwise("heaviside(Tensor self, Tensor values) -> Tensor",
                  [](Value x, Value v) {
                    if (x.dtype() == Dtype::kBool) return x | v;
                    return select(x == 0.0, v, cast(x > 0.0, x.dtype()));
                  })
            .dtypes_are(kAllReals)
            .checked(heaviside_dtypes)
            .out(OutDtype::kSame)
            .not_differentiable()
            .describe("0 left of 0, 1 right of it, values at 0."),
        pointwise("lerp(Tensor self, Tensor end, Tensor weight) -> Tensor",
                  [](Value a, Value b, Value w) {
                    // Exact at both ends: from the nearer one.
                    const Value d = b - a;
                    return select(abs(w) < 0.5, a + w * d, b - d * (1 - w));
                  })
            .dtypes_are(kFloatingOrComplex)
            .checked(same_dtypes)
            .derivative([](Value g, Value, Value a, Value b, Value w) {
              return std::array{g * conj(1 - w), g * conj(w), g * conj(b - a)};
            })
            .describe("self + weight * (end - self)."),
        pointwise("addcmul(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor",
                  [](Value x, Value a, Value b, Value v) { return x + v * a * b; })
            .dtypes_are(kNumbers)
            .checked(integer_value)
            .describe("self + value * tensor1 * tensor2."),
        pointwise("addcdiv(Tensor self, Tensor tensor1, Tensor tensor2, *, Scalar value=1) -> Tensor",
                  [](Value x, Value a, Value b, Value v) { return x + v * (a / b); })
            .dtypes_are(kFloatingOrComplex)
            .checked(no_integer_division)
            .describe("self + value * tensor1 / tensor2."),
    });

}  // namespace
}  // namespace lohe::ops
