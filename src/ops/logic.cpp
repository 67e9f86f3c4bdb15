#include "lohe/error.h"
#include "ops/call.h"

/// Logic on truth values and on bits.
namespace lohe::ops {
namespace {

using namespace ir;

Value truth(Value x) { return cast(x, Dtype::kBool); }

/// Python numbers do not stand for these operands.
void only_tensors(const OpDef& op, Args args) {
  for (size_t i = 0; i < 2; ++i) {
    LOHE_CHECK_TYPE(args[i].kind == Arg::kTensor, op.schema.base, "(): argument '",
                    i == 0 ? "input" : op.schema.params[i].name, "' (position ", i + 1,
                    ") must be Tensor, not a number");
  }
}

template <class F>
OpDef logical(std::string_view schema, F f) {
  return pointwise(schema, f).promote(Promotion::kBool);
}

template <class F>
OpDef bitwise(std::string_view schema, F f) {
  return pointwise(schema, f).dtypes_are(kIntegral);
}

const OpFamily logic(
    "logic",
    {
        logical("logical_and(Tensor self, Tensor other) -> Tensor",
                [](Value x, Value y) { return truth(x) & truth(y); })
            .checked(only_tensors)
            .describe("Whether both are not 0."),
        logical("logical_or(Tensor self, Tensor other) -> Tensor",
                [](Value x, Value y) { return truth(x) | truth(y); })
            .checked(only_tensors)
            .describe("Whether either is not 0."),
        logical("logical_xor(Tensor self, Tensor other) -> Tensor",
                [](Value x, Value y) { return truth(x) ^ truth(y); })
            .checked(only_tensors)
            .describe("Whether exactly one is not 0."),
        logical("logical_not(Tensor self) -> Tensor", [](Value x) { return ~truth(x); })
            .describe("Whether self is 0."),
        bitwise("bitwise_and(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return x & y; })
            .describe("Bits that both have."),
        bitwise("bitwise_or(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return x | y; })
            .describe("Bits that either has."),
        bitwise("bitwise_xor(Tensor self, Tensor other) -> Tensor", [](Value x, Value y) { return x ^ y; })
            .describe("Bits that exactly one has."),
        bitwise("bitwise_not(Tensor self) -> Tensor", [](Value x) { return ~x; })
            .out(OutDtype::kSame)
            .describe("All bits turned; of bool: not."),
        bitwise("bitwise_left_shift(Tensor self, Tensor other) -> Tensor",
                [](Value x, Value y) { return shift_left(x, y); })
            .dtypes_are(kInts)
            .describe("self * 2^other; 0 when other is negative or no less than the number of bits."),
        bitwise("bitwise_right_shift(Tensor self, Tensor other) -> Tensor",
                [](Value x, Value y) { return shift_right(x, y); })
            .dtypes_are(kInts)
            .describe("self / 2^other rounded down; the sign fills in."),
    });

}  // namespace
}  // namespace lohe::ops
