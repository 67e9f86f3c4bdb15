#include <functional>
#include <vector>

#include "lohe/error.h"
#include "ops/call.h"

/// One op over lists of tensors: tensor i with number i, tensor i or the one number or tensor given for all.
namespace lohe::ops {
namespace {

using dispatch::Form;
using Call = std::function<Results(Args)>;

/// What stands for parameter `p` of a list row at tensor `i`.
Arg entry(Args a, size_t p, size_t i) {
  const Arg& given = a[p];
  if (given.kind != Arg::kTensors && given.kind != Arg::kFloats) return given;
  LOHE_CHECK(given.count == a[0].count, "Tensor lists must have the same number of tensors, got ", a[0].count,
             " and ", given.count);
  return given.kind == Arg::kTensors ? Arg(given.tensor_list()[i]) : Arg(given.float_list()[i]);
}

/// `row` for every tensor. List rows have the row's parameters in order, lists in place of its tensors.
Call each(std::string_view name, Form form, bool writes = false) {
  return [row = OpRef(name), form, writes](Args a) {
    const OpDef& op = row.op();
    const auto list = a[0].tensor_list();
    LOHE_CHECK(!list.empty(), "Tensor list must have at least one tensor.");
    const size_t params = op.schema.params.size();
    std::vector<Arg> args;
    args.reserve(list.size() * params);
    for (size_t i = 0; i < list.size(); ++i) {
      for (size_t p = 0; p < params; ++p)
        args.push_back(p < a.size() ? entry(a, p, i) : op.schema.params[p].default_value);
    }
    if (writes) {
      dispatch::call_each(op, args, list.size(), form);
      return Results();
    }
    std::vector<TensorPtr> results;
    for (size_t i = 0; i < list.size(); ++i)
      results.push_back(dispatch::call(op, Args(args).subspan(i * params, params), form)[0]);
    return Results(std::move(results));
  };
}
Call new_tensors(std::string_view name) { return each(name, Form::kValue); }
Call in_place(std::string_view name) { return each(name, Form::kInPlace, true); }

const OpFamily foreach_rows(
    "foreach",
    {
        function("_foreach_neg(Tensor[] self) -> Tensor[]", new_tensors("neg"))
            .function_only()
            .describe("Negates every tensor."),
        function("_foreach_neg_(Tensor(a!)[] self) -> ()", in_place("neg"))
            .function_only()
            .describe("Negates every tensor."),
        function("_foreach_sqrt(Tensor[] self) -> Tensor[]", new_tensors("sqrt"))
            .function_only()
            .describe("Takes the square root of every tensor."),
        function("_foreach_sqrt_(Tensor(a!)[] self) -> ()", in_place("sqrt"))
            .function_only()
            .describe("Takes the square root of every tensor."),
        function("_foreach_reciprocal(Tensor[] self) -> Tensor[]", new_tensors("reciprocal"))
            .function_only()
            .describe("Takes the reciprocal of every tensor."),
        function("_foreach_reciprocal_(Tensor(a!)[] self) -> ()", in_place("reciprocal"))
            .function_only()
            .describe("Takes the reciprocal of every tensor."),
        function("_foreach_abs(Tensor[] self) -> Tensor[]", new_tensors("abs"))
            .function_only()
            .describe("Takes the absolute value of every tensor."),
        function("_foreach_abs_(Tensor(a!)[] self) -> ()", in_place("abs"))
            .function_only()
            .describe("Takes the absolute value of every tensor."),
        function("_foreach_exp(Tensor[] self) -> Tensor[]", new_tensors("exp"))
            .function_only()
            .describe("Takes the exponential of every tensor."),
        function("_foreach_exp_(Tensor(a!)[] self) -> ()", in_place("exp"))
            .function_only()
            .describe("Takes the exponential of every tensor."),
        function("_foreach_log(Tensor[] self) -> Tensor[]", new_tensors("log"))
            .function_only()
            .describe("Takes the logarithm of every tensor."),
        function("_foreach_log_(Tensor(a!)[] self) -> ()", in_place("log"))
            .function_only()
            .describe("Takes the logarithm of every tensor."),
        function("_foreach_sign(Tensor[] self) -> Tensor[]", new_tensors("sign"))
            .function_only()
            .describe("Takes the sign of every tensor."),
        function("_foreach_sign_(Tensor(a!)[] self) -> ()", in_place("sign"))
            .function_only()
            .describe("Takes the sign of every tensor."),
        function("_foreach_add.Scalar(Tensor[] self, Scalar scalar) -> Tensor[]", new_tensors("add"))
            .function_only()
            .describe("Adds to every tensor: one number."),
        function("_foreach_add_.Scalar(Tensor(a!)[] self, Scalar scalar) -> ()", in_place("add"))
            .function_only()
            .describe("Adds to every tensor: one number."),
        function("_foreach_add.List(Tensor[] self, Tensor[] other, *, Scalar alpha=1) -> Tensor[]",
                 new_tensors("add"))
            .function_only()
            .describe("Adds to every tensor: the tensors of another list."),
        function("_foreach_add_.List(Tensor(a!)[] self, Tensor[] other, *, Scalar alpha=1) -> ()",
                 in_place("add"))
            .function_only()
            .describe("Adds to every tensor: the tensors of another list."),
        function("_foreach_add.ScalarList(Tensor[] self, float[] scalars) -> Tensor[]", new_tensors("add"))
            .function_only()
            .describe("Adds to every tensor: a number for each."),
        function("_foreach_add_.ScalarList(Tensor(a!)[] self, float[] scalars) -> ()", in_place("add"))
            .function_only()
            .describe("Adds to every tensor: a number for each."),
        function("_foreach_add.Tensor(Tensor[] self, Tensor other, *, Scalar alpha=1) -> Tensor[]",
                 new_tensors("add"))
            .function_only()
            .describe("Adds to every tensor: one tensor."),
        function("_foreach_add_.Tensor(Tensor(a!)[] self, Tensor other, *, Scalar alpha=1) -> ()",
                 in_place("add"))
            .function_only()
            .describe("Adds to every tensor: one tensor."),
        function("_foreach_sub.Scalar(Tensor[] self, Scalar scalar) -> Tensor[]", new_tensors("sub"))
            .function_only()
            .describe("Subtracts from every tensor: one number."),
        function("_foreach_sub_.Scalar(Tensor(a!)[] self, Scalar scalar) -> ()", in_place("sub"))
            .function_only()
            .describe("Subtracts from every tensor: one number."),
        function("_foreach_sub.List(Tensor[] self, Tensor[] other, *, Scalar alpha=1) -> Tensor[]",
                 new_tensors("sub"))
            .function_only()
            .describe("Subtracts from every tensor: the tensors of another list."),
        function("_foreach_sub_.List(Tensor(a!)[] self, Tensor[] other, *, Scalar alpha=1) -> ()",
                 in_place("sub"))
            .function_only()
            .describe("Subtracts from every tensor: the tensors of another list."),
        function("_foreach_sub.ScalarList(Tensor[] self, float[] scalars) -> Tensor[]", new_tensors("sub"))
            .function_only()
            .describe("Subtracts from every tensor: a number for each."),
        function("_foreach_sub_.ScalarList(Tensor(a!)[] self, float[] scalars) -> ()", in_place("sub"))
            .function_only()
            .describe("Subtracts from every tensor: a number for each."),
        function("_foreach_mul.Scalar(Tensor[] self, Scalar scalar) -> Tensor[]", new_tensors("mul"))
            .function_only()
            .describe("Multiplies every tensor: one number."),
        function("_foreach_mul_.Scalar(Tensor(a!)[] self, Scalar scalar) -> ()", in_place("mul"))
            .function_only()
            .describe("Multiplies every tensor: one number."),
        function("_foreach_mul.List(Tensor[] self, Tensor[] other) -> Tensor[]", new_tensors("mul"))
            .function_only()
            .describe("Multiplies every tensor: the tensors of another list."),
        function("_foreach_mul_.List(Tensor(a!)[] self, Tensor[] other) -> ()", in_place("mul"))
            .function_only()
            .describe("Multiplies every tensor: the tensors of another list."),
        function("_foreach_mul.ScalarList(Tensor[] self, float[] scalars) -> Tensor[]", new_tensors("mul"))
            .function_only()
            .describe("Multiplies every tensor: a number for each."),
        function("_foreach_mul_.ScalarList(Tensor(a!)[] self, float[] scalars) -> ()", in_place("mul"))
            .function_only()
            .describe("Multiplies every tensor: a number for each."),
        function("_foreach_mul.Tensor(Tensor[] self, Tensor other) -> Tensor[]", new_tensors("mul"))
            .function_only()
            .describe("Multiplies every tensor: one tensor."),
        function("_foreach_mul_.Tensor(Tensor(a!)[] self, Tensor other) -> ()", in_place("mul"))
            .function_only()
            .describe("Multiplies every tensor: one tensor."),
        function("_foreach_div.Scalar(Tensor[] self, Scalar scalar) -> Tensor[]", new_tensors("div"))
            .function_only()
            .describe("Divides every tensor: one number."),
        function("_foreach_div_.Scalar(Tensor(a!)[] self, Scalar scalar) -> ()", in_place("div"))
            .function_only()
            .describe("Divides every tensor: one number."),
        function("_foreach_div.List(Tensor[] self, Tensor[] other) -> Tensor[]", new_tensors("div"))
            .function_only()
            .describe("Divides every tensor: the tensors of another list."),
        function("_foreach_div_.List(Tensor(a!)[] self, Tensor[] other) -> ()", in_place("div"))
            .function_only()
            .describe("Divides every tensor: the tensors of another list."),
        function("_foreach_div.ScalarList(Tensor[] self, float[] scalars) -> Tensor[]", new_tensors("div"))
            .function_only()
            .describe("Divides every tensor: a number for each."),
        function("_foreach_div_.ScalarList(Tensor(a!)[] self, float[] scalars) -> ()", in_place("div"))
            .function_only()
            .describe("Divides every tensor: a number for each."),
        function("_foreach_div.Tensor(Tensor[] self, Tensor other) -> Tensor[]", new_tensors("div"))
            .function_only()
            .describe("Divides every tensor: one tensor."),
        function("_foreach_div_.Tensor(Tensor(a!)[] self, Tensor other) -> ()", in_place("div"))
            .function_only()
            .describe("Divides every tensor: one tensor."),
        function("_foreach_maximum.Scalar(Tensor[] self, Scalar scalar) -> Tensor[]",
                 new_tensors("clamp_min"))
            .function_only()
            .describe("Takes the maximum with every tensor: one number."),
        function("_foreach_maximum_.Scalar(Tensor(a!)[] self, Scalar scalar) -> ()", in_place("clamp_min"))
            .function_only()
            .describe("Takes the maximum with every tensor: one number."),
        function("_foreach_maximum.List(Tensor[] self, Tensor[] other) -> Tensor[]", new_tensors("maximum"))
            .function_only()
            .describe("Takes the maximum with every tensor: the tensors of another list."),
        function("_foreach_maximum_.List(Tensor(a!)[] self, Tensor[] other) -> ()", in_place("maximum"))
            .function_only()
            .describe("Takes the maximum with every tensor: the tensors of another list."),
        function("_foreach_maximum.ScalarList(Tensor[] self, float[] scalars) -> Tensor[]",
                 new_tensors("clamp_min"))
            .function_only()
            .describe("Takes the maximum with every tensor: a number for each."),
        function("_foreach_maximum_.ScalarList(Tensor(a!)[] self, float[] scalars) -> ()",
                 in_place("clamp_min"))
            .function_only()
            .describe("Takes the maximum with every tensor: a number for each."),
        function("_foreach_minimum.Scalar(Tensor[] self, Scalar scalar) -> Tensor[]",
                 new_tensors("clamp_max"))
            .function_only()
            .describe("Takes the minimum with every tensor: one number."),
        function("_foreach_minimum_.Scalar(Tensor(a!)[] self, Scalar scalar) -> ()", in_place("clamp_max"))
            .function_only()
            .describe("Takes the minimum with every tensor: one number."),
        function("_foreach_minimum.List(Tensor[] self, Tensor[] other) -> Tensor[]", new_tensors("minimum"))
            .function_only()
            .describe("Takes the minimum with every tensor: the tensors of another list."),
        function("_foreach_minimum_.List(Tensor(a!)[] self, Tensor[] other) -> ()", in_place("minimum"))
            .function_only()
            .describe("Takes the minimum with every tensor: the tensors of another list."),
        function("_foreach_minimum.ScalarList(Tensor[] self, float[] scalars) -> Tensor[]",
                 new_tensors("clamp_max"))
            .function_only()
            .describe("Takes the minimum with every tensor: a number for each."),
        function("_foreach_minimum_.ScalarList(Tensor(a!)[] self, float[] scalars) -> ()",
                 in_place("clamp_max"))
            .function_only()
            .describe("Takes the minimum with every tensor: a number for each."),
        function("_foreach_clamp_max.Scalar(Tensor[] self, Scalar scalar) -> Tensor[]",
                 new_tensors("clamp_max"))
            .function_only()
            .describe("Bounds from above every tensor: one number."),
        function("_foreach_clamp_max_.Scalar(Tensor(a!)[] self, Scalar scalar) -> ()", in_place("clamp_max"))
            .function_only()
            .describe("Bounds from above every tensor: one number."),
        function("_foreach_clamp_max.List(Tensor[] self, Tensor[] other) -> Tensor[]",
                 new_tensors("clamp_max"))
            .function_only()
            .describe("Bounds from above every tensor: the tensors of another list."),
        function("_foreach_clamp_max_.List(Tensor(a!)[] self, Tensor[] other) -> ()", in_place("clamp_max"))
            .function_only()
            .describe("Bounds from above every tensor: the tensors of another list."),
        function("_foreach_clamp_max.ScalarList(Tensor[] self, float[] scalars) -> Tensor[]",
                 new_tensors("clamp_max"))
            .function_only()
            .describe("Bounds from above every tensor: a number for each."),
        function("_foreach_clamp_max_.ScalarList(Tensor(a!)[] self, float[] scalars) -> ()",
                 in_place("clamp_max"))
            .function_only()
            .describe("Bounds from above every tensor: a number for each."),
        function("_foreach_clamp_min.Scalar(Tensor[] self, Scalar scalar) -> Tensor[]",
                 new_tensors("clamp_min"))
            .function_only()
            .describe("Bounds from below every tensor: one number."),
        function("_foreach_clamp_min_.Scalar(Tensor(a!)[] self, Scalar scalar) -> ()", in_place("clamp_min"))
            .function_only()
            .describe("Bounds from below every tensor: one number."),
        function("_foreach_clamp_min.List(Tensor[] self, Tensor[] other) -> Tensor[]",
                 new_tensors("clamp_min"))
            .function_only()
            .describe("Bounds from below every tensor: the tensors of another list."),
        function("_foreach_clamp_min_.List(Tensor(a!)[] self, Tensor[] other) -> ()", in_place("clamp_min"))
            .function_only()
            .describe("Bounds from below every tensor: the tensors of another list."),
        function("_foreach_clamp_min.ScalarList(Tensor[] self, float[] scalars) -> Tensor[]",
                 new_tensors("clamp_min"))
            .function_only()
            .describe("Bounds from below every tensor: a number for each."),
        function("_foreach_clamp_min_.ScalarList(Tensor(a!)[] self, float[] scalars) -> ()",
                 in_place("clamp_min"))
            .function_only()
            .describe("Bounds from below every tensor: a number for each."),
        function("_foreach_pow.Scalar(Tensor[] self, Scalar exponent) -> Tensor[]", new_tensors("pow"))
            .function_only()
            .describe("Takes to a power every tensor: one number."),
        function("_foreach_pow_.Scalar(Tensor(a!)[] self, Scalar exponent) -> ()", in_place("pow"))
            .function_only()
            .describe("Takes to a power every tensor: one number."),
        function("_foreach_pow.List(Tensor[] self, Tensor[] exponent) -> Tensor[]", new_tensors("pow"))
            .function_only()
            .describe("Takes to a power every tensor: the tensors of another list."),
        function("_foreach_pow_.List(Tensor(a!)[] self, Tensor[] exponent) -> ()", in_place("pow"))
            .function_only()
            .describe("Takes to a power every tensor: the tensors of another list."),
        function("_foreach_pow.ScalarList(Tensor[] self, float[] exponent) -> Tensor[]", new_tensors("pow"))
            .function_only()
            .describe("Takes to a power every tensor: a number for each."),
        function("_foreach_pow_.ScalarList(Tensor(a!)[] self, float[] exponent) -> ()", in_place("pow"))
            .function_only()
            .describe("Takes to a power every tensor: a number for each."),
        function(
            "_foreach_addcmul.Scalar(Tensor[] self, Tensor[] tensor1, Tensor[] tensor2, Scalar value=1) -> Tensor[]",
            new_tensors("addcmul"))
            .function_only()
            .describe("Adds value * tensor1 * tensor2 to every tensor."),
        function(
            "_foreach_addcmul_.Scalar(Tensor(a!)[] self, Tensor[] tensor1, Tensor[] tensor2, Scalar value=1) -> ()",
            in_place("addcmul"))
            .function_only()
            .describe("Adds value * tensor1 * tensor2 to every tensor."),
        function(
            "_foreach_addcmul.ScalarList(Tensor[] self, Tensor[] tensor1, Tensor[] tensor2, float[] scalars) -> Tensor[]",
            new_tensors("addcmul"))
            .function_only()
            .describe("Adds value * tensor1 * tensor2 to every tensor."),
        function(
            "_foreach_addcmul_.ScalarList(Tensor(a!)[] self, Tensor[] tensor1, Tensor[] tensor2, float[] scalars) -> ()",
            in_place("addcmul"))
            .function_only()
            .describe("Adds value * tensor1 * tensor2 to every tensor."),
        function(
            "_foreach_addcdiv.Scalar(Tensor[] self, Tensor[] tensor1, Tensor[] tensor2, Scalar value=1) -> Tensor[]",
            new_tensors("addcdiv"))
            .function_only()
            .describe("Adds value * tensor1 / tensor2 to every tensor."),
        function(
            "_foreach_addcdiv_.Scalar(Tensor(a!)[] self, Tensor[] tensor1, Tensor[] tensor2, Scalar value=1) -> ()",
            in_place("addcdiv"))
            .function_only()
            .describe("Adds value * tensor1 / tensor2 to every tensor."),
        function(
            "_foreach_addcdiv.ScalarList(Tensor[] self, Tensor[] tensor1, Tensor[] tensor2, float[] scalars) -> Tensor[]",
            new_tensors("addcdiv"))
            .function_only()
            .describe("Adds value * tensor1 / tensor2 to every tensor."),
        function(
            "_foreach_addcdiv_.ScalarList(Tensor(a!)[] self, Tensor[] tensor1, Tensor[] tensor2, float[] scalars) -> ()",
            in_place("addcdiv"))
            .function_only()
            .describe("Adds value * tensor1 / tensor2 to every tensor."),
        function("_foreach_lerp.List(Tensor[] self, Tensor[] tensors1, Tensor[] weights) -> Tensor[]",
                 new_tensors("lerp"))
            .function_only()
            .describe("Moves every tensor towards another by weight."),
        function("_foreach_lerp_.List(Tensor(a!)[] self, Tensor[] tensors1, Tensor[] weights) -> ()",
                 in_place("lerp"))
            .function_only()
            .describe("Moves every tensor towards another by weight."),
        function("_foreach_lerp.Scalar(Tensor[] self, Tensor[] tensors1, Scalar weight) -> Tensor[]",
                 new_tensors("lerp"))
            .function_only()
            .describe("Moves every tensor towards another by weight."),
        function("_foreach_lerp_.Scalar(Tensor(a!)[] self, Tensor[] tensors1, Scalar weight) -> ()",
                 in_place("lerp"))
            .function_only()
            .describe("Moves every tensor towards another by weight."),
        function("_foreach_copy_(Tensor(a!)[] self, Tensor[] src, bool non_blocking=False) -> ()",
                 each("copy_", Form::kValue, true))
            .function_only()
            .describe("Copies the tensors of one list into those of another."),
        function("_foreach_zero_(Tensor(a!)[] self) -> ()", each("zero_", Form::kValue, true))
            .function_only()
            .describe("Writes zeros."),
    });

}  // namespace
}  // namespace lohe::ops
