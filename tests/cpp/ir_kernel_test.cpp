// Building, checking and interpreting whole kernels.
#include <gtest/gtest.h>

#include <functional>
#include <numeric>

#include "ir/builder.h"
#include "lohe/error.h"

namespace lohe::ir {
namespace {

int32_t run(const Kernel& kernel, std::vector<void*> buffers, std::vector<int64_t> params, int64_t begin,
            int64_t end) {
  check(kernel);
  return interpret(kernel, buffers.data(), params.data(), begin, end);
}

TEST(IrBuilder, FoldsConstantsAndExactIdentitiesOnly) {
  Builder b("fold");
  const V x = b.param(Type::kF32), n = b.param(Type::kI32);
  EXPECT_EQ((x * 1).id, x.id);
  EXPECT_EQ((x - 0).id, x.id);
  EXPECT_EQ((x + -0.0).id, x.id);
  EXPECT_NE((x + 0).id, x.id);  // -0 + 0 = +0
  EXPECT_NE((x * 0).id, b.constant(Type::kF32, 0).id);
  EXPECT_EQ((n + 0).id, n.id);
  EXPECT_EQ((n * 0).id, b.constant_int(Type::kI32, 0).id);
  EXPECT_EQ((b.constant(Type::kF32, 0.1) + 0.2).id, b.constant_bits(Type::kF32, 0x3E99999A).id);
  EXPECT_EQ((x + n.builder->cast(n, Type::kF32)).id, (x + b.cast(n, Type::kF32)).id);
  EXPECT_EQ(b.cast(b.constant(Type::kF64, 300.7), Type::kU8).id, b.constant_int(Type::kU8, 44).id);
  EXPECT_EQ(b.constant(Type::kF16, 65520.0).id, b.constant_bits(Type::kF16, 0x7C00).id);
  EXPECT_THROW(x + n, Error);
  EXPECT_THROW(x & x, Error);
}

TEST(IrBuilder, NeverReusesLoadsOfWrittenBuffers) {
  Builder b("loads");
  const int16_t in = b.buffer(Type::kF32, false), out = b.buffer(Type::kF32, true);
  const V zero = b.constant_int(Type::kI64, 0);
  EXPECT_EQ(b.load(in, zero).id, b.load(in, zero).id);
  const V before = b.load(out, zero);
  b.store(out, zero, before + 1);
  EXPECT_NE(b.load(out, zero).id, before.id);
}

/// out[row] = sum of in[row, 0..n).
Kernel row_sums(int lanes = 16) {
  Builder b("row_sums");
  const int16_t in = b.buffer(Type::kF32, false), out = b.buffer(Type::kF32, true);
  const V n = b.param(Type::kI64), zero = b.constant_int(Type::kI64, 0);
  b.loop({{b.begin(), b.end()}}, false, [&](const std::vector<V>& row) {
    Builder::Reduction sum{{b.constant(Type::kF32, 0)}, lanes, [](const auto& l, const auto& r) {
                             return std::vector<V>{l[0] + r[0]};
                           }};
    const auto total = b.reduce({{zero, n}}, true, {sum}, [&](const std::vector<V>&) {
      return std::vector<std::vector<V>>{{b.load_unit(in, row[0] * n)}};
    });
    b.store(out, row[0], total[0][0]);
  });
  return b.finish();
}

TEST(IrInterpret, VectorReductionsCombineVirtualLanesByHalving) {
  for (const int count : {16, 32, 64, 128, 256}) {
    const Kernel kernel = row_sums(count);
    for (const int64_t n :
         {0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 1000}) {
      std::vector<float> in(static_cast<size_t>(3 * n)), out(3, -1.0f);
      for (size_t i = 0; i < in.size(); ++i) in[i] = 1.0f / static_cast<float>(i + 1);
      EXPECT_EQ(run(kernel, {in.data(), out.data()}, {n}, 0, 2), 0);
      for (int row = 0; row < 2; ++row) {
        std::vector<float> lanes(static_cast<size_t>(count));
        for (int64_t i = 0; i < n; ++i) {
          float& lane = lanes[static_cast<size_t>(i % count)];
          lane = lane + in[static_cast<size_t>(row * n + i)];
        }
        for (size_t half = lanes.size() / 2; half >= 1; half /= 2) {
          for (size_t j = 0; j < half; ++j) lanes[j] = lanes[j] + lanes[j + half];
        }
        EXPECT_EQ(out[static_cast<size_t>(row)], lanes[0]) << "n = " << n << ", lanes " << count;
      }
      EXPECT_EQ(out[2], -1.0f);  // Outside [begin, end).
    }
  }
}

TEST(IrInterpret, SerialReductionInsideAVectorLoopIsAChainPerLane) {
  Builder b("columns");
  const int16_t in = b.buffer(Type::kF32, false), out = b.buffer(Type::kF32, true);
  const V rows = b.param(Type::kI64), stride = b.param(Type::kI64), zero = b.constant_int(Type::kI64, 0);
  b.loop({{b.begin(), b.end()}}, true, [&](const std::vector<V>&) {
    Builder::Reduction chain{{b.constant(Type::kF32, 1)}, 0, [&b](const auto& l, const auto& r) {
                               return std::vector<V>{l[0] * b.constant(Type::kF32, 0.5) + r[0]};
                             }};
    const auto result = b.reduce({{zero, rows}}, false, {chain}, [&](const std::vector<V>& row) {
      return std::vector<std::vector<V>>{{b.load_unit(in, row[0] * stride)}};
    });
    b.store_unit(out, zero, result[0][0]);
  });
  const Kernel kernel = b.finish();
  const int64_t n = 71, m = 5;
  std::vector<float> x(static_cast<size_t>(n * m)), y(static_cast<size_t>(n));
  std::iota(x.begin(), x.end(), 0.25f);
  EXPECT_EQ(run(kernel, {x.data(), y.data()}, {m, n}, 0, n), 0);
  for (int64_t i = 0; i < n; ++i) {
    float expected = 1;
    for (int64_t row = 0; row < m; ++row) expected = expected * 0.5f + x[static_cast<size_t>(row * n + i)];
    EXPECT_EQ(y[static_cast<size_t>(i)], expected);
  }
}

TEST(IrInterpret, GathersScattersScratchBoolsAndChecks) {
  Builder b("gather");
  const int16_t index = b.buffer(Type::kI64, false), in = b.buffer(Type::kBool, false),
                out = b.buffer(Type::kI32, true), scratch = b.buffer(Type::kI32, true, true);
  const V size = b.param(Type::kI64), zero = b.constant_int(Type::kI64, 0);
  b.loop({{b.begin(), b.end()}}, true, [&](const std::vector<V>& at) {
    const V i = b.load_unit(index, zero);
    b.check(i < size, 3);
    b.check((i >= 0) | (i == -5), 7);
    const V inside = b.binary(Op::kMax, b.binary(Op::kMin, i, size - 1), zero);
    b.store_unit(scratch, zero, b.cast(b.load(in, inside), Type::kI32));
    b.store(out, b.end() - 1 - at[0], b.load_unit(scratch, zero) * 10);
  });
  const Kernel kernel = b.finish();
  std::vector<int64_t> indices = {2, 1, 0, 9, -5};
  std::vector<uint8_t> flags = {0, 1, 128};
  std::vector<int32_t> result(5), work(5);
  EXPECT_EQ(run(kernel, {indices.data(), flags.data(), result.data(), work.data()}, {3}, 0, 5), 3);
  EXPECT_EQ(result, (std::vector<int32_t>{0, 10, 0, 10, 10}));
  indices[4] = -1;
  EXPECT_EQ(run(kernel, {indices.data(), flags.data(), result.data(), work.data()}, {3}, 0, 5), 7);
  EXPECT_EQ(run(kernel, {indices.data(), flags.data(), result.data(), work.data()}, {3}, 0, 3), 0);
}

/// out[i] = in[i] < 0 ? sqrt(-in[i]) + 1 : in[i], the first by a Rare, made `times` times.
Kernel roots(int times, V* results = nullptr) {
  Builder b("roots");
  const int16_t in = b.buffer(Type::kF32, false), out = b.buffer(Type::kF32, true);
  const V zero = b.constant_int(Type::kI64, 0);
  b.loop({{b.begin(), b.end()}}, true, [&](const std::vector<V>&) {
    const V x = b.load_unit(in, zero);
    for (int i = 0; i < times; ++i) {
      const V y = b.rare(x < 0, {x}, [&] { return std::vector<V>{sqrt(-x) + 1}; })[0];
      if (results != nullptr) results[i] = y;
      b.store_unit(out, zero, y);
    }
  });
  return b.finish();
}

TEST(IrInterpret, ARareResultDependsOnItsOwnLaneOnly) {
  const Kernel kernel = roots(1);
  std::vector<float> in(150, 3.0f), out(150);
  for (const size_t i : {1, 64, 149}) in[i] = -4;
  EXPECT_EQ(run(kernel, {in.data(), out.data()}, {}, 0, 150), 0);
  for (size_t i = 0; i < in.size(); ++i) EXPECT_EQ(out[i], 3.0f) << i;
  in.assign(150, -9.0f);
  in[70] = 5;
  EXPECT_EQ(run(kernel, {in.data(), out.data()}, {}, 0, 150), 0);
  for (size_t i = 0; i < in.size(); ++i) EXPECT_EQ(out[i], i == 70 ? 5.0f : 4.0f) << i;
}

TEST(IrBuilder, ReusesEqualRaresAndResolvesConstantConditions) {
  V results[2];
  roots(2, results);
  EXPECT_EQ(results[0].id, results[1].id);
  Builder b("constant");
  const V x = b.param(Type::kF32), y = x + 1;
  const auto body = [&] { return std::vector<V>{y}; };
  EXPECT_EQ(b.rare(b.constant(Type::kBool, 0), {x}, body)[0].id, x.id);
  EXPECT_EQ(b.rare(b.constant(Type::kBool, 1), {x}, body)[0].id, y.id);
  const V first = b.rare(x < 0, {x}, body)[0];
  EXPECT_NE(first.id, b.rare(x < 1, {x}, body)[0].id);
  EXPECT_NE(first.id, b.rare(x < 0, {y}, body)[0].id);
  EXPECT_NE(first.id, b.rare(x < 0, {x}, [&] { return std::vector<V>{x * 2}; })[0].id);
}

TEST(IrCheck, RejectsMalformedRaresWithTheReason) {
  const auto rare = [](Kernel& k) -> Rare& {
    for (Stmt& s : std::get<std::unique_ptr<Loop>>(k.body.back())->body) {
      if (auto* found = std::get_if<std::unique_ptr<Rare>>(&s)) return **found;
    }
    throw std::logic_error("no rare");
  };
  const std::vector<std::pair<const char*, std::function<void(Kernel&)>>> cases = {
      {"expected bool", [&](Kernel& k) { rare(k).condition = rare(k).usual[0]; }},
      {"one length", [&](Kernel& k) { rare(k).computed.clear(); }},
      {"expected f32", [&](Kernel& k) { rare(k).computed[0] = rare(k).condition; }},
      {"is not defined here", [&](Kernel& k) { rare(k).usual[0] = rare(k).computed[0]; }},
      {"is not defined here",
       [&](Kernel& k) {
         std::get<Store>(std::get<std::unique_ptr<Loop>>(k.body.back())->body.back()).value =
             rare(k).computed[0];
       }},
      {"arithmetic only", [&](Kernel& k) { rare(k).body.push_back(Check{rare(k).condition, 1}); }},
      {"is defined twice", [&](Kernel& k) { rare(k).results[0] = std::get<Define>(rare(k).body[0]).value; }},
  };
  for (const auto& [expected, damage] : cases) {
    Kernel kernel = roots(1);
    ASSERT_NO_THROW(check(kernel));
    damage(kernel);
    try {
      check(kernel);
      ADD_FAILURE() << "accepted; expected: " << expected;
    } catch (const Error& e) {
      EXPECT_NE(e.message().find(expected), std::string::npos) << e.message() << "\nexpected: " << expected;
    }
  }
}

TEST(IrPrint, EqualKernelsHaveEqualText) {
  EXPECT_EQ(print(roots(1)), print(roots(1)));
  EXPECT_NE(print(roots(1)).find("rare %"), std::string::npos);
  EXPECT_EQ(print(row_sums()), print(row_sums()));
  EXPECT_NE(print(row_sums()).find("vector loop"), std::string::npos);
}

struct Malformed {
  const char* expected;  ///< part of the message
  std::function<void(Kernel&)> damage;
};

Loop& outer(Kernel& k) { return *std::get<std::unique_ptr<Loop>>(k.body.back()); }
Loop& inner(Kernel& k) {
  for (Stmt& s : outer(k).body) {
    if (auto* loop = std::get_if<std::unique_ptr<Loop>>(&s)) return **loop;
  }
  throw std::logic_error("no inner loop");
}
Store& store(Kernel& k) { return std::get<Store>(outer(k).body.back()); }

TEST(IrCheck, RejectsMalformedKernelsWithTheReason) {
  const std::vector<Malformed> cases = {
      {"not marked as written", [](Kernel& k) { k.buffers[1].written = false; }},
      {"expected f64", [](Kernel& k) { k.buffers[1].type = Type::kF64; }},
      {"the buffer has type i32", [](Kernel& k) { k.buffers[0].type = Type::kI32; }},
      {"buffer 9 does not exist", [](Kernel& k) { store(k).buffer = 9; }},
      {"unit access needs", [](Kernel& k) { store(k).unit = true; }},
      {"begins at a uniform place",
       [](Kernel& k) {
         const Value sum = inner(k).dims[0].index;
         for (Inst& i : k.insts) {
           if (i.op == Op::kLoadUnit) i.b = sum;
         }
       }},
      {"only unit stores say", [](Kernel& k) { store(k).next = store(k).index; }},
      {"vector loops do not nest", [](Kernel& k) { outer(k).vector = true; }},
      {"unit access needs",
       [](Kernel& k) {
         inner(k).vector = false;
         inner(k).reduces[0].lanes = 0;
       }},
      {"power of two", [](Kernel& k) { inner(k).reduces[0].lanes = 24; }},
      {"power of two", [](Kernel& k) { inner(k).reduces[0].lanes = 8; }},
      {"has no lanes", [](Kernel& k) { inner(k).vector = false; }},
      {"one length", [](Kernel& k) { inner(k).reduces[0].elements.clear(); }},
      {"is not defined here", [](Kernel& k) { store(k).value = inner(k).reduces[0].elements[0]; }},
      {"is not defined here", [](Kernel& k) { store(k).index = inner(k).dims[0].index; }},
      {"is defined twice",
       [](Kernel& k) {
         k.body.insert(k.body.begin(), Define{inner(k).reduces[0].elements[0]});
         k.insts[static_cast<size_t>(inner(k).reduces[0].elements[0])] = {.op = Op::kConst,
                                                                          .type = Type::kF32};
       }},
      {"does not exist", [](Kernel& k) { store(k).index = 999; }},
      {"does not exist", [](Kernel& k) { store(k).index = -1; }},
      {"parameters", [](Kernel& k) { k.params = 0; }},
      {"has no dims", [](Kernel& k) { outer(k).dims.clear(); }},
      {"defined by its loop only",
       [](Kernel& k) { k.body.insert(k.body.begin(), Define{outer(k).dims[0].index}); }},
      {"must be positive",
       [](Kernel& k) {
         k.insts.push_back({.op = Op::kConst, .type = Type::kBool, .imm = 1});
         const auto v = static_cast<Value>(k.insts.size() - 1);
         k.body.push_back(Define{v});
         k.body.push_back(Check{v, 0});
       }},
      {"do not fit",
       [](Kernel& k) {
         k.insts.push_back({.op = Op::kConst, .type = Type::kU8, .imm = 256});
         k.body.push_back(Define{static_cast<Value>(k.insts.size() - 1)});
       }},
      {"table 1 of 1",
       [](Kernel& k) {
         k.tables.resize(1);
         k.insts.push_back({.op = Op::kConst, .type = Type::kU32});
         const auto index = static_cast<Value>(k.insts.size() - 1);
         k.insts.push_back({.op = Op::kTable, .type = Type::kF32, .a = index, .imm = 1});
         k.body.push_back(Define{index});
         k.body.push_back(Define{index + 1});
       }},
      {"expected i64", [](Kernel& k) { store(k).index = store(k).value; }},
      {"arithmetic only",
       [](Kernel& k) {
         inner(k).reduces[0].combine.push_back(
             Store{1, false, inner(k).dims[0].begin, inner(k).reduces[0].left[0]});
       }},
      {"is not defined for operands",
       [](Kernel& k) {
         for (Inst& i : k.insts)
           if (i.op == Op::kAdd) i.op = Op::kRem;
       }},
      {"must be uniform",
       [](Kernel& k) {
         for (Inst& i : k.insts)
           if (i.op == Op::kLoadUnit) i.a = inner(k).dims[0].index;
       }},
  };
  for (const Malformed& c : cases) {
    Kernel kernel = row_sums();
    ASSERT_NO_THROW(check(kernel));
    c.damage(kernel);
    try {
      check(kernel);
      ADD_FAILURE() << "accepted; expected: " << c.expected;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::kInternal);
      EXPECT_NE(e.message().find(c.expected), std::string::npos)
          << e.message() << "\nexpected: " << c.expected;
    }
  }
}

}  // namespace
}  // namespace lohe::ir
