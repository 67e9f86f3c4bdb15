#include "codegen_fixture.h"

namespace lohe::codegen::testing {
namespace {

using ir::Builder;
using ir::Type;
using ir::V;
using Values = std::vector<V>;

V integer(Builder& b, int64_t x) { return b.constant_int(Type::kI64, x); }

const Type kTypes[] = {Type::kBool, Type::kU8,  Type::kI16, Type::kF16, Type::kI32,
                       Type::kF32,  Type::kI64, Type::kF64, Type::kBF16};
const std::pair<int64_t, int64_t> kWindows[] = {{0, 0}, {0, 5}, {3, 4}, {1, 40}, {17, 33}, {0, 64}, {63, 64}};
constexpr int64_t kSize = 64;

/// A kernel over [0, kSize) whose parameters are a window's edges; `read` gives what it writes.
template <class Read>
void expect_windows(int64_t stride, const Read& read) {
  for (const Type t : kTypes) {
    Builder b("window");
    const int16_t in = b.buffer(t, false), out = b.buffer(t, true);
    const V low = b.param(Type::kI64), high = b.param(Type::kI64);
    b.loop({{b.begin(), b.end()}}, true, [&](const Values& at) {
      const auto narrow = [&](V x) { return b.cast(x, Type::kI32); };
      const V inside = (narrow(low) <= narrow(at[0])) & (narrow(at[0]) < narrow(high));
      b.store_unit(out, integer(b, 0), read(b, in, at[0], low, inside));
    });
    std::vector<Launch> runs;
    for (const auto& [from, to] : kWindows) {
      // The buffer has the window's elements and nothing beside them.
      const int64_t count = to > from ? (to - from - 1) * stride + 1 : 0;
      runs.push_back(
          {{interesting(t, static_cast<size_t>(count), 1), zeros(t, kSize)}, {from, to}, 0, kSize, {}});
    }
    expect_all_levels_agree(b.finish(), runs);
  }
}

TEST(CodegenWindows, VectorsTouchNothingOutside) {
  expect_windows(1, [](Builder& b, int16_t in, V, V low, V inside) {
    return b.load_unit(in, integer(b, 0) - low, {}, inside);
  });
}

TEST(CodegenWindows, GathersTouchNothingOutside) {
  for (const int64_t stride : {1, 2, 3}) {
    expect_windows(stride, [&](Builder& b, int16_t in, V at, V low, V inside) {
      return b.load(in, (at - low) * integer(b, stride), inside);
    });
  }
}

TEST(CodegenWindows, OneElementForSomeLanesIsReadOnlyIfOneOfThemIsInside) {
  expect_windows(1, [](Builder& b, int16_t in, V, V, V inside) { return b.load(in, integer(b, 0), inside); });
}

TEST(CodegenWindows, AUniformConditionDecidesForAllLanes) {
  for (const bool unit : {false, true}) {
    Builder b("uniform");
    const int16_t in = b.buffer(Type::kF32, false), out = b.buffer(Type::kF32, true);
    const V there = integer(b, 0) < b.param(Type::kI64);
    b.loop({{b.begin(), b.end()}}, true, [&](const Values&) {
      const V zero = integer(b, 0);
      b.store_unit(out, zero, unit ? b.load_unit(in, zero, {}, there) : b.load(in, zero, there));
    });
    const Bytes full = interesting(Type::kF32, static_cast<size_t>(kSize), 1);
    expect_all_levels_agree(b.finish(), {{{full, zeros(Type::kF32, kSize)}, {1}, 0, kSize, {}},
                                         {{{}, zeros(Type::kF32, kSize)}, {0}, 0, kSize, {}}});
  }
}

TEST(CodegenTiles, RowsBecomeColumnsAndNothingElseIsRead) {
  constexpr int64_t kTile = ir::Transpose::kTile, kPitch = kTile + 16;
  for (const Type t : kTypes) {
    const Type wide = ir::size_of(t) < 4 ? Type::kI32 : t;
    Builder b("tile");
    const int16_t in = b.buffer(t, false), out = b.buffer(wide, true), tile = b.buffer(wide, true, true);
    const V rows = b.param(Type::kI64), columns = b.param(Type::kI64), stride = b.param(Type::kI64);
    b.loop({{b.begin(), b.end()}}, false, [&](const Values&) {
      b.transpose({in, tile, integer(b, 0).id, stride.id, rows.id, columns.id, kPitch});
      b.loop({{integer(b, 0), columns}}, false, [&](const Values& at) {
        b.loop({{integer(b, 0), rows}}, true,
               [&](const Values&) { b.store_unit(out, at[0] * rows, b.load_unit(tile, at[0] * kPitch)); });
      });
    });
    std::vector<Launch> runs;
    for (const int64_t r : {1, 3, 16, 17, 64}) {
      for (const int64_t c : {1, 2, 3, 4, 5, 8, 9, 16, 31, 64}) {
        const int64_t apart = c + r % 3;
        runs.push_back({{interesting(t, static_cast<size_t>((r - 1) * apart + c), 1), zeros(wide, r * c),
                         zeros(wide, kPitch * kTile)},
                        {r, c, apart},
                        0,
                        1,
                        {}});
      }
    }
    expect_all_levels_agree(b.finish(), runs);
  }
}

}  // namespace
}  // namespace lohe::codegen::testing
