// The elementary functions as machine code: at every CPU level the interpreter's bits, for special values and
// random ones.
#include "codegen_fixture.h"
#include "ir/math.h"

namespace lohe::codegen::testing {
namespace {

using ir::V;
namespace math = ir::math;

struct Function {
  const char* name;
  V (*apply)(V x, V y);
};

#define UNARY(name) {#name, [](V x, V) { return math::name(x); }}
#define BINARY(name) {#name, [](V x, V y) { return math::name(x, y); }}
const Function kFunctions[] = {UNARY(exp),   UNARY(exp2),       UNARY(expm1),  UNARY(log),     UNARY(log2),
                               UNARY(log10), UNARY(log1p),      UNARY(sin),    UNARY(cos),     UNARY(tan),
                               UNARY(asin),  UNARY(acos),       UNARY(atan),   UNARY(sinh),    UNARY(cosh),
                               UNARY(tanh),  UNARY(asinh),      UNARY(acosh),  UNARY(atanh),   UNARY(erf),
                               UNARY(erfc),  UNARY(erfinv),     UNARY(lgamma), UNARY(digamma), UNARY(sigmoid),
                               UNARY(rsqrt), UNARY(gelu_slope), BINARY(atan2), BINARY(pow),    BINARY(fmod),
                               BINARY(hypot)};

TEST(CodegenMath, MachineCodeGivesTheInterpretersBits) {
  constexpr size_t count = 517;  // full vectors and a tail at every width
  for (const Function& f : kFunctions) {
    for (ir::Type type : {ir::Type::kF32, ir::Type::kF64}) {
      ir::Builder b(f.name);
      const int16_t x = b.buffer(type, false), y = b.buffer(type, false), out = b.buffer(type, true);
      b.loop({{b.begin(), b.end()}}, true,
             [&](const std::vector<V>& i) { b.store(out, i[0], f.apply(b.load(x, i[0]), b.load(y, i[0]))); });
      const ir::Kernel kernel = b.finish();
      const Launch run{
          {interesting(type, count, 1), interesting(type, count, 2), zeros(type, count)}, {}, 0, count, {}};
      expect_all_levels_agree(kernel, {run});
    }
  }
}

}  // namespace
}  // namespace lohe::codegen::testing
