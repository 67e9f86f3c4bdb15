#include "lohe/error.h"
#include "ops/call.h"

/// One op over a list of tensors.
namespace lohe::ops {
namespace {

using dispatch::Form;

/// Calls `row` on every tensor of the list with what `rest(i)` gives, in place.
template <class Rest>
Results each_in_place(const OpRef& row, Args a, Rest rest) {
  const auto list = a[0].tensor_list();
  for (size_t i = 0; i < list.size(); ++i) {
    dispatch::ArgStack args;
    args.slots[0] = Arg(list[i]);
    const Arg second = rest(i);
    args.slots[1] = second;
    const OpDef& op = row.op();
    for (size_t p = 2; p < op.schema.params.size(); ++p) args.slots[p] = op.schema.params[p].default_value;
    dispatch::call(op, Args(args.slots, op.schema.params.size()), Form::kInPlace);
  }
  return {};
}

Arg partner(Args a, size_t i) {
  LOHE_CHECK(a[1].count == a[0].count, "Tensor lists must have the same number of tensors, got ", a[0].count,
             " and ", a[1].count);
  return Arg(a[1].tensor_list()[i]);
}

const OpFamily foreach_rows(
    "foreach", {
                   function("_foreach_add_.Scalar(Tensor(a!)[] self, Scalar scalar) -> ()",
                            [](Args a) {
                              static const OpRef add("add");
                              return each_in_place(add, a, [&](size_t) { return a[1]; });
                            })
                       .function_only()
                       .describe("Adds a number to every tensor."),
                   function("_foreach_add_.List(Tensor(a!)[] self, Tensor[] other) -> ()",
                            [](Args a) {
                              static const OpRef add("add");
                              return each_in_place(add, a, [&](size_t i) { return partner(a, i); });
                            })
                       .function_only()
                       .describe("Adds the tensors of one list to those of another."),
                   function("_foreach_mul_.Scalar(Tensor(a!)[] self, Scalar scalar) -> ()",
                            [](Args a) {
                              static const OpRef mul("mul");
                              return each_in_place(mul, a, [&](size_t) { return a[1]; });
                            })
                       .function_only()
                       .describe("Multiplies every tensor by a number."),
                   function("_foreach_mul_.Tensor(Tensor(a!)[] self, Tensor other) -> ()",
                            [](Args a) {
                              static const OpRef mul("mul");
                              return each_in_place(mul, a, [&](size_t) { return a[1]; });
                            })
                       .function_only()
                       .describe("Multiplies every tensor by one tensor."),
                   function("_foreach_mul_.List(Tensor(a!)[] self, Tensor[] other) -> ()",
                            [](Args a) {
                              static const OpRef mul("mul");
                              return each_in_place(mul, a, [&](size_t i) { return partner(a, i); });
                            })
                       .function_only()
                       .describe("Multiplies the tensors of one list by those of another."),
               });

}  // namespace
}  // namespace lohe::ops
