#include "codegen_fixture.h"
#include "ir/math.h"

namespace lohe::codegen::testing {
namespace {

using ir::Builder;
using ir::Op;
using ir::Type;
using ir::V;

using Values = std::vector<V>;

V integer(Builder& b, int64_t x) { return b.constant_int(Type::kI64, x); }

Builder::Reduction sum(Builder& b, Type t, int lanes) {
  return {
      {b.constant_int(t, 0)}, lanes, [](const Values& l, const Values& r) { return Values{l[0] + r[0]}; }};
}

/// Sizes around every width and every number of lanes.
const int64_t kSizes[] = {0,  1,  2,  3,  4,  5,   7,   8,   9,   15,  16,  17,  31,
                          32, 33, 63, 64, 65, 127, 128, 129, 200, 255, 256, 257, 1000};

TEST(CodegenLoops, PointwiseTailsStayInsideTheirBuffers) {
  for (Type t :
       {Type::kBool, Type::kI8, Type::kF16, Type::kI16, Type::kF32, Type::kI32, Type::kF64, Type::kI64}) {
    Builder b("copy");
    const int16_t in = b.buffer(t, false), out = b.buffer(t, true);
    b.loop({{b.begin(), b.end()}}, true,
           [&](const Values&) { b.store_unit(out, integer(b, 0), b.load_unit(in, integer(b, 0))); });
    std::vector<Launch> runs;
    for (int64_t size : kSizes) {
      Launch run{{interesting(t, static_cast<size_t>(size), 1), zeros(t, size)}, {}, 0, size, {}};
      runs.push_back(run);
      run.begin = size / 3;
      run.end = size - size / 4;
      runs.push_back(run);
    }
    expect_all_levels_agree(b.finish(), runs);
  }
}

TEST(CodegenLoops, AskingForWhatIsReadSoonChangesNothingWhereverThatIs) {
  for (const Type t : {Type::kF32, Type::kU8, Type::kF64}) {
    Builder b("fetch");
    const int16_t in = b.buffer(t, false), out = b.buffer(t, true);
    const V next = b.param(Type::kI64);
    b.loop({{b.begin(), b.end()}}, true,
           [&](const Values&) { b.store_unit(out, integer(b, 0), b.load_unit(in, integer(b, 0), next)); });
    std::vector<Launch> runs;
    for (const int64_t size : kSizes) {
      for (const int64_t next_at : {int64_t{0}, size, int64_t{1} << 40, -(int64_t{1} << 40)})
        runs.push_back(
            {{interesting(t, static_cast<size_t>(size), 1), zeros(t, size)}, {next_at}, 0, size, {}});
    }
    expect_all_levels_agree(b.finish(), runs);
  }
}

/// out = x * y + 1, then `more` chains of it of different lengths, so that a loop's steps are unrolled and
/// woven or not.
ir::Kernel chained_kernel(int more) {
  Builder b("in_place");
  const int16_t x = b.buffer(Type::kF32, false), y = b.buffer(Type::kF32, false),
                out = b.buffer(Type::kF32, true);
  b.loop({{b.begin(), b.end()}}, true, [&](const Values&) {
    const V zero = integer(b, 0), factor = b.load_unit(y, zero);
    V value = b.load_unit(x, zero) * factor + 1;
    for (int i = 0; i < more; ++i) value = value * b.constant(Type::kF32, 0.5) + factor;
    b.store_unit(out, zero, value);
  });
  return b.finish();
}

TEST(CodegenLoops, ResultMayBeAnOperand) {
  std::vector<Launch> runs;
  for (int64_t size : kSizes) {
    const Bytes a = interesting(Type::kF32, static_cast<size_t>(size), 1);
    runs.push_back({{a, interesting(Type::kF32, static_cast<size_t>(size), 2), a}, {}, 0, size, {-1, -1, 0}});
    runs.push_back({{a, a, a}, {}, 0, size, {-1, 0, 0}});
  }
  // Compared by hand, since the aliased buffers come back through the first.
  for (const int more : {0, 10, 70, 140, 300}) {
    const ir::Kernel kernel = chained_kernel(more);
    for (CpuLevel level : levels()) {
      const ir::KernelFunction function = load_object(compile_to_object(kernel, level, "k"), "k");
      for (const Launch& run : runs) {
        const Result got = call(run, true, function);
        const Result expected =
            call(run, true, [&](void* const* p, const int64_t* q, int64_t begin, int64_t end) {
              return ir::interpret(kernel, p, q, begin, end);
            });
        EXPECT_TRUE(same(Type::kF32, expected.buffers[0], got.buffers[0]))
            << more << " more, " << name(level);
      }
    }
  }
}

TEST(CodegenLoops, HeavyBodiesOfEveryWidthAreUnrolledExactly) {
  for (Type t : {Type::kU8, Type::kI16, Type::kBF16, Type::kF32, Type::kF64}) {
    const Type computed = t == Type::kBF16 ? Type::kF32 : t;
    for (const int weight : {20, 60, 130}) {
      Builder b("heavy");
      const int16_t in = b.buffer(t, false), out = b.buffer(t, true);
      b.loop({{b.begin(), b.end()}}, true, [&](const Values&) {
        const V x = b.cast(b.load_unit(in, integer(b, 0)), computed);
        V value = x;
        for (int i = 0; i < weight; ++i) value = i % 2 == 0 ? value + x : value * b.constant(computed, 3);
        b.store_unit(out, integer(b, 0), b.cast(value, t));
      });
      std::vector<Launch> runs;
      for (const int64_t size : kSizes)
        runs.push_back({{interesting(t, static_cast<size_t>(size), 4), zeros(t, size)}, {}, 0, size, {}});
      expect_all_levels_agree(b.finish(), runs);
    }
  }
}

/// Row reduction: out[r] = reduce over in[r, 0..n), rows [begin, end).
void expect_row_reduction(const std::string& name, Type in, Type acc, int lanes,
                          const std::function<Builder::Reduction(Builder&)>& make,
                          const std::function<Values(Builder&, V x, V index)>& elements) {
  Builder b(name);
  const int16_t source = b.buffer(in, false);
  V n = b.param(Type::kI64);
  Builder::Reduction reduction = make(b);
  reduction.lanes = lanes;
  std::vector<int16_t> targets;
  for (const V& init : reduction.init) targets.push_back(b.buffer(init.type(), true));
  b.loop({{b.begin(), b.end()}}, false, [&](const Values& row) {
    V base = row[0] * n;
    auto results = b.reduce({{integer(b, 0), n}}, true, {reduction}, [&](const Values& i) {
      V x = b.load_unit(source, base);
      if (ir::is_half(in)) x = b.cast(x, Type::kF32);
      return std::vector<Values>{elements(b, b.cast(x, acc), i[0])};
    });
    for (size_t k = 0; k < targets.size(); ++k) b.store(targets[k], row[0], results[0][k]);
  });
  const ir::Kernel kernel = b.finish();
  std::vector<Launch> runs;
  for (int64_t size : kSizes) {
    const int64_t rows = 3;
    Launch run{{interesting(in, static_cast<size_t>(rows * size), static_cast<uint64_t>(size))},
               {size},
               0,
               rows,
               {}};
    // A second set of rows without special values, so that sums are not all NaN.
    Launch plain = run;
    if (in == Type::kF32) {
      std::mt19937 random(static_cast<unsigned>(size));
      for (size_t i = 0; i + 4 <= plain.buffers[0].size(); i += 4) {
        const float x = static_cast<float>(random() % 100000) * 0.001f - 40.0f;
        std::memcpy(&plain.buffers[0][i], &x, 4);
      }
    }
    for (int16_t target : targets) {
      const Bytes empty = zeros(kernel.buffers[static_cast<size_t>(target)].type, rows);
      run.buffers.push_back(empty);
      plain.buffers.push_back(empty);
    }
    runs.push_back(run);
    runs.push_back(plain);
  }
  expect_all_levels_agree(kernel, runs);
}

TEST(CodegenReductions, SumsHaveTheSameBitsAtEveryWidth) {
  for (int lanes : {16, 32, 64, 128}) {
    for (auto [in, acc] : {std::pair{Type::kF32, Type::kF32},
                           {Type::kF64, Type::kF64},
                           {Type::kF16, Type::kF32},
                           {Type::kBF16, Type::kF32},
                           {Type::kF32, Type::kF64},
                           {Type::kI32, Type::kI64},
                           {Type::kU8, Type::kI64},
                           {Type::kI8, Type::kI8}}) {
      expect_row_reduction(
          std::string("sum_") + ir::name(in), in, acc, lanes,
          [acc = acc](Builder& b) { return sum(b, acc, 0); }, [](Builder&, V x, V) { return Values{x}; });
    }
  }
}

TEST(CodegenReductions, MaximumWithIndexCarriesTwoValues) {
  for (int lanes : {16, 64}) {
    expect_row_reduction(
        "argmax", Type::kF32, Type::kF32, lanes,
        [](Builder& b) {
          return Builder::Reduction{
              {b.constant(Type::kF32, -INFINITY), integer(b, -1)}, 0, [](const Values& l, const Values& r) {
                V take_right =
                    (l[0] < r[0]) | ((l[0] == r[0]) & (r[1] < l[1])) | (is_nan(r[0]) & ~is_nan(l[0]));
                return Values{select(take_right, r[0], l[0]), select(take_right, r[1], l[1])};
              }};
        },
        [](Builder&, V x, V i) { return Values{x, i}; });
  }
}

TEST(CodegenReductions, AnyAndAllCarryBools) {
  expect_row_reduction(
      "any", Type::kF32, Type::kF32, 64,
      [](Builder& b) {
        return Builder::Reduction{{b.constant_bits(Type::kBool, 0)}, 0, [](const Values& l, const Values& r) {
                                    return Values{l[0] | r[0]};
                                  }};
      },
      [](Builder& b, V x, V) { return Values{x == b.constant(Type::kF32, 39.0)}; });
}

TEST(CodegenReductions, WelfordCombinesThreeValuesOfAHeavyBody) {
  for (int lanes : {16, 64, 128}) {
    expect_row_reduction(
        "welford", Type::kF32, Type::kF32, lanes,
        [](Builder& b) {
          V zero = b.constant(Type::kF32, 0);
          return Builder::Reduction{{zero, zero, zero}, 0, [](const Values& l, const Values& r) {
                                      V count = l[2] + r[2];
                                      V safe = select(count == 0.0, count + 1.0, count);
                                      V delta = r[0] - l[0];
                                      V mean = l[0] + delta * (r[2] / safe);
                                      V m2 = l[1] + r[1] + delta * delta * (l[2] * r[2] / safe);
                                      return Values{mean, m2, count};
                                    }};
        },
        [](Builder& b, V x, V) {
          return Values{ir::math::exp(x * 0.01), b.constant(Type::kF32, 0), b.constant(Type::kF32, 1)};
        });
  }
}

TEST(CodegenReductions, StraightBodiesOfEveryWeightFoldExactly) {
  for (const int weight : {5, 30, 70, 150}) {
    expect_row_reduction(
        "weighty", Type::kF32, Type::kF32, 64, [](Builder& b) { return sum(b, Type::kF32, 64); },
        [weight](Builder& b, V x, V) {
          V value = x;
          for (int i = 0; i < weight; ++i) value = value * b.constant(Type::kF32, 0.75) + x;
          return Values{value};
        });
  }
}

TEST(CodegenReductions, AccumulatorsLiveAcrossTheOuterDimsOfANest) {
  for (int lanes : {16, 64}) {
    Builder b("nest");
    const int16_t in = b.buffer(Type::kF32, false), out = b.buffer(Type::kF32, true);
    V rows = b.param(Type::kI64), columns = b.param(Type::kI64), stride = b.param(Type::kI64);
    b.loop({{b.begin(), b.end()}}, false, [&](const Values& r) {
      auto results =
          b.reduce({{integer(b, 0), rows}, {integer(b, 0), columns}}, true, {sum(b, Type::kF32, lanes)},
                   [&](const Values& i) { return std::vector<Values>{{b.load_unit(in, i[0] * stride)}}; });
      b.store(out, r[0], results[0][0]);
    });
    std::vector<Launch> runs;
    for (int64_t columns : {0, 1, 5, 16, 17, 64, 70, 200}) {
      const int64_t rows = 5, stride = columns + 3;
      const int64_t size = columns == 0 ? 0 : (rows - 1) * stride + columns;
      Bytes data(static_cast<size_t>(4 * size));
      std::mt19937 random(1);
      for (size_t i = 0; i + 4 <= data.size(); i += 4) {
        const float x = static_cast<float>(random() % 100000) * 0.001f;
        std::memcpy(&data[i], &x, 4);
      }
      runs.push_back({{data, zeros(Type::kF32, 2)}, {rows, columns, stride}, 0, 2, {}});
    }
    expect_all_levels_agree(b.finish(), runs);
  }
}

TEST(CodegenReductions, LoopsThatStartAboveZeroCountLanesFromTheirBegin) {
  for (const bool inside_rows : {false, true}) {
    Builder b("offset");
    const int16_t in = b.buffer(Type::kF32, false), out = b.buffer(Type::kF32, true);
    V first = b.param(Type::kI64), last = b.param(Type::kI64), zero = integer(b, 0);
    const auto fold = [&] {
      auto results = b.reduce({{first, last}}, true, {sum(b, Type::kF32, 32), sum(b, Type::kF32, 64)},
                              [&](const Values&) {
                                V x = b.load_unit(in, zero);
                                return std::vector<Values>{{x}, {x * x}};
                              });
      b.store(out, zero, results[0][0]);
      b.store(out, integer(b, 1), results[1][0]);
    };
    if (inside_rows)
      b.loop({{b.begin(), b.end()}}, false, [&](const Values&) { fold(); });
    else
      fold();
    std::vector<Launch> runs;
    Bytes data(4 * 300);
    for (size_t i = 0; i < 300; ++i) {
      const float x = static_cast<float>(i * i % 97) * 0.37f;
      std::memcpy(&data[4 * i], &x, 4);
    }
    for (int64_t begin : {0, 1, 13, 33, 100}) {
      for (int64_t end : {100, 101, 120, 133, 300})
        runs.push_back({{data, zeros(Type::kF32, 2)}, {begin, end}, 0, 1, {}});
    }
    expect_all_levels_agree(b.finish(), runs);
  }
}

TEST(CodegenLoops, SerialReductionInsideAVectorLoopKeepsIndexOrder) {
  // Column sums: lanes run over columns, the chain over rows.
  Builder b("columns");
  const int16_t in = b.buffer(Type::kF32, false), out = b.buffer(Type::kF32, true);
  V rows = b.param(Type::kI64), columns = b.param(Type::kI64);
  b.loop({{b.begin(), b.end()}}, true, [&](const Values&) {
    auto results = b.reduce({{integer(b, 0), rows}}, false, {sum(b, Type::kF32, 0)}, [&](const Values& r) {
      return std::vector<Values>{{b.load_unit(in, r[0] * columns)}};
    });
    b.store_unit(out, integer(b, 0), results[0][0]);
  });
  std::vector<Launch> runs;
  for (int64_t columns : {1, 3, 16, 33, 100}) {
    Bytes data = interesting(Type::kF32, static_cast<size_t>(columns * 7), 3);
    runs.push_back({{data, zeros(Type::kF32, columns)}, {7, columns}, 0, columns, {}});
    runs.push_back({{data, zeros(Type::kF32, columns)}, {0, columns}, 0, columns, {}});
    runs.push_back({{data, zeros(Type::kF32, columns)}, {7, columns}, columns / 2, columns, {}});
  }
  expect_all_levels_agree(b.finish(), runs);
}

TEST(CodegenLoops, RaresServeTheLanesThatAskForThem) {
  // Rows of x, and their sums; where x > limit, a row's or an element's, sqrt(x) and its whole part.
  Builder b("rares");
  const int16_t in = b.buffer(Type::kF32, false), out = b.buffer(Type::kF32, true),
                whole = b.buffer(Type::kI32, true), sums = b.buffer(Type::kF32, true);
  V n = b.param(Type::kI64), limit = b.param(Type::kF32);
  b.loop({{b.begin(), b.end()}}, false, [&](const Values& r) {
    const V row = r[0] * n;
    const auto root = [&](V condition, V x) {
      return b.rare(condition, {x, b.constant_int(Type::kI32, -1)}, [&] {
        const V y = sqrt(b.cast(x, Type::kF64));
        return Values{b.cast(y, Type::kF32), b.cast(y, Type::kI32)};
      });
    };
    const V first = b.load(in, row);
    const Values uniform = root(limit < first, first);
    const auto totals = b.reduce({{integer(b, 0), n}}, true, {sum(b, Type::kF32, 32)}, [&](const Values&) {
      const V x = b.load_unit(in, row);
      const Values y = root(limit < x, x), z = root(limit < first, x);
      b.store_unit(out, row, y[0] + z[0]);
      b.store_unit(whole, row, y[1] * 1000 + z[1] + uniform[1]);
      return std::vector<Values>{{y[0] + uniform[0]}};
    });
    b.store(sums, r[0], totals[0][0]);
  });
  const float bound = 1000;
  int64_t bound_bits = 0;
  std::memcpy(&bound_bits, &bound, sizeof bound);
  std::vector<Launch> runs;
  for (const int64_t size : {1, 7, 16, 33, 64, 150}) {
    for (const int64_t every : {1, 2, 50, 1000}) {
      std::vector<float> x(static_cast<size_t>(3 * size));
      for (size_t i = 0; i < x.size(); ++i)
        x[i] = static_cast<float>(i) +
               (i % static_cast<size_t>(every) == 5 % static_cast<size_t>(every) ? 3000.0f : 0.25f);
      Bytes bytes(4 * x.size());
      std::memcpy(bytes.data(), x.data(), bytes.size());
      runs.push_back({{bytes, zeros(Type::kF32, 3 * size), zeros(Type::kI32, 3 * size), zeros(Type::kF32, 3)},
                      {size, bound_bits},
                      0,
                      3,
                      {}});
    }
  }
  expect_all_levels_agree(b.finish(), runs);
}

TEST(CodegenLoops, GathersAndScattersOfEveryType) {
  for (Type t :
       {Type::kBool, Type::kU8, Type::kI16, Type::kBF16, Type::kI32, Type::kF32, Type::kI64, Type::kF64}) {
    for (Type index_type : {Type::kI32, Type::kI64}) {
      Builder b(std::string("gather_") + ir::name(t));
      const int16_t index = b.buffer(index_type, false), in = b.buffer(t, false), out = b.buffer(t, true),
                    scattered = b.buffer(t, true), strided = b.buffer(t, true);
      V n = b.param(Type::kI64);
      b.loop({{b.begin(), b.end()}}, true, [&](const Values& i) {
        V zero = integer(b, 0);
        V at = b.cast(b.load_unit(index, zero), Type::kI64);
        V x = b.load(in, at);
        b.store_unit(out, zero, x);
        b.store(scattered, n - 1 - i[0], x);
        b.store(strided, i[0] * 3, b.load(in, zero));
      });
      std::vector<Launch> runs;
      for (int64_t size : {1, 3, 16, 17, 65, 200}) {
        Bytes indices = zeros(index_type, size);
        for (int64_t i = 0; i < size; ++i) {
          const int64_t value = (i * 7 + 3) % size;
          std::memcpy(&indices[static_cast<size_t>(i * ir::size_of(index_type))], &value,
                      static_cast<size_t>(ir::size_of(index_type)));
        }
        runs.push_back({{indices, interesting(t, static_cast<size_t>(size), 9), zeros(t, size),
                         zeros(t, size), zeros(t, 3 * size - 2)},
                        {size},
                        0,
                        size,
                        {}});
      }
      expect_all_levels_agree(b.finish(), runs);
    }
  }
}

TEST(CodegenLoops, ElementsAtEqualDistancesAreTheOnesTouched) {
  for (Type t : {Type::kU8, Type::kI16, Type::kF32, Type::kI64, Type::kF64}) {
    Builder b("strided");
    const int16_t in = b.buffer(t, false), plain = b.buffer(t, true), out = b.buffer(t, true);
    const V start = b.param(Type::kI64), distance = b.param(Type::kI64), to = b.param(Type::kI64);
    b.loop({{b.begin(), b.end()}}, true, [&](const Values& i) {
      const V x = b.load(in, start + i[0] * distance);
      b.store_unit(plain, integer(b, 0), x + x);
      b.store(out, i[0] * to, x);
    });
    std::vector<Launch> runs;
    for (const int64_t size : kSizes) {
      if (size == 0) continue;
      for (const int64_t d : {-3, -2, -1, 0, 1, 2, 3}) {
        const int64_t to_distance = 1 + size % 3;
        // Not an element more than the loop reaches.
        const auto reach = static_cast<size_t>((size - 1) * std::abs(d) + 1);
        runs.push_back({{interesting(t, reach, 6), zeros(t, size), zeros(t, (size - 1) * to_distance + 1)},
                        {d < 0 ? (size - 1) * -d : 0, d, to_distance},
                        0,
                        size,
                        {}});
      }
    }
    expect_all_levels_agree(b.finish(), runs);
  }
}

// The parts of complex numbers: next to each other in the kernel, apart from each other, in the other order,
// and one of them alone.
TEST(CodegenLoops, PairsOfNumbersAreReadAndWrittenWhole) {
  for (Type t : {Type::kI16, Type::kF32, Type::kI64, Type::kF64}) {
    for (const int form : {0, 1, 2, 3}) {
      Builder b("pairs");
      const int16_t x = b.buffer(t, false), y = b.buffer(t, false), out = b.buffer(t, true);
      const V start = b.param(Type::kI64);
      b.loop({{b.begin(), b.end()}}, true, [&](const Values& i) {
        const V number = start + i[0], first = number + number, second = first + 1;
        const V re = b.load(x, first), im = b.load(x, second);
        if (form == 1) b.store(out, first, re + im);
        const V c = form == 3 ? re : b.load(y, second), d = b.load(y, first);
        if (form == 2) b.store(out, second, re * d - im * c);
        if (form != 1) b.store(out, first, re * c - im * d);
        if (form < 2) b.store(out, second, re * d + im * c);
      });
      std::vector<Launch> runs;
      for (const int64_t size : kSizes) {
        for (const int64_t begin : {0, 3}) {
          if (size == 0) continue;
          const auto elements = static_cast<size_t>(2 * (size + begin));
          runs.push_back({{interesting(t, elements, 7), interesting(t, elements, 8), zeros(t, elements)},
                          {begin},
                          0,
                          size,
                          {}});
        }
      }
      expect_all_levels_agree(b.finish(), runs);
    }
  }
}

TEST(CodegenLoops, ChecksReturnTheLargestFailingCode) {
  Builder b("checks");
  const int16_t in = b.buffer(Type::kI64, false), out = b.buffer(Type::kI64, true);
  V limit = b.param(Type::kI64);
  b.loop({{b.begin(), b.end()}}, true, [&](const Values&) {
    V x = b.load_unit(in, integer(b, 0));
    b.check(x < limit, 3);
    b.check(integer(b, -5) < x, 8);
    b.store_unit(out, integer(b, 0), x * 2);
  });
  std::vector<Launch> runs;
  for (int64_t bad : {-1, 0, 7, 8, 36}) {
    for (int64_t value : {1000, -1000, 5}) {
      Bytes data = zeros(Type::kI64, 37);
      if (bad >= 0) std::memcpy(&data[static_cast<size_t>(8 * bad)], &value, 8);
      runs.push_back({{data, zeros(Type::kI64, 37)}, {100}, 0, 37, {}});
    }
  }
  expect_all_levels_agree(b.finish(), runs);
}

TEST(CodegenLoops, NestsOfSeveralDims) {
  Builder b("strided");
  const int16_t in = b.buffer(Type::kF32, false), out = b.buffer(Type::kF32, true);
  V columns = b.param(Type::kI64);
  b.loop({{b.begin(), b.end()}, {integer(b, 0), integer(b, 3)}, {integer(b, 0), columns}}, true,
         [&](const Values& i) {
           V row = (i[0] * 3 + i[1]) * columns;
           b.store_unit(out, row,
                        b.load_unit(in, row) * b.cast(b.cast(i[2], Type::kI32), Type::kF32) +
                            b.cast(i[0], Type::kF32));
         });
  std::vector<Launch> runs;
  for (int64_t columns : {0, 1, 5, 16, 33}) {
    runs.push_back(
        {{interesting(Type::kF32, static_cast<size_t>(12 * columns), 4), zeros(Type::kF32, 12 * columns)},
         {columns},
         1,
         4,
         {}});
  }
  expect_all_levels_agree(b.finish(), runs);
}

TEST(CodegenLoops, RowsOfEveryLengthStayInsideTheirBuffers) {
  for (const Type t : {Type::kU8, Type::kI16, Type::kF32, Type::kF64}) {
    for (const int terms : {1, 5}) {  // a light body is unrolled twice, one of more instructions woven
      Builder b("rows");
      const int16_t in = b.buffer(t, false), out = b.buffer(t, true);
      const V columns = b.param(Type::kI64);
      b.loop({{b.begin(), b.end()}}, false, [&](const Values& r) {
        b.loop({{integer(b, 0), columns}}, true, [&](const Values& i) {
          const V row = r[0] * columns;
          const V every_second = b.load(in, row * 2 + i[0] * 2);
          V sum = b.load_unit(in, row);
          for (int n = 0; n < terms; ++n) sum = sum * every_second + every_second;
          b.store_unit(out, row, sum);
        });
      });
      std::vector<Launch> runs;
      for (int64_t columns = 1; columns <= 140; columns += columns < 70 ? 1 : 7) {
        runs.push_back({{interesting(t, static_cast<size_t>(6 * columns - 1), 4), zeros(t, 3 * columns)},
                        {columns},
                        0,
                        3,
                        {}});
      }
      expect_all_levels_agree(b.finish(), runs);
    }
  }
}

TEST(CodegenMath, ElementaryFunctionsAgreeAtEveryLevel) {
  using Function = V (*)(V);
  const std::pair<const char*, Function> functions[] = {
      {"exp", ir::math::exp},   {"log", ir::math::log},         {"log1p", ir::math::log1p},
      {"sin", ir::math::sin},   {"cos", ir::math::cos},         {"tanh", ir::math::tanh},
      {"erf", ir::math::erf},   {"sigmoid", ir::math::sigmoid}, {"lgamma", ir::math::lgamma},
      {"atan", ir::math::atan}, {"expm1", ir::math::expm1}};
  for (const auto& [name, function] : functions) {
    for (Type t : {Type::kF32, Type::kF64}) {
      Builder b(name);
      const int16_t in = b.buffer(t, false), out = b.buffer(t, true);
      b.loop({{b.begin(), b.end()}}, true, [&](const Values&) {
        b.store_unit(out, integer(b, 0), function(b.load_unit(in, integer(b, 0))));
      });
      expect_all_levels_agree(b.finish(), {{{interesting(t, 5001, 8), zeros(t, 5001)}, {}, 0, 5001, {}}});
    }
  }
}

TEST(CodegenReductions, SoftmaxRowsAgreeAtEveryLevel) {
  Builder b("softmax");
  const int16_t in = b.buffer(Type::kF32, false), out = b.buffer(Type::kF32, true);
  V n = b.param(Type::kI64);
  b.loop({{b.begin(), b.end()}}, false, [&](const Values& row) {
    V base = row[0] * n, zero = integer(b, 0);
    Builder::Reduction maximum{{b.constant(Type::kF32, -INFINITY)}, 64, [](const Values& l, const Values& r) {
                                 return Values{select((l[0] < r[0]) | is_nan(r[0]), r[0], l[0])};
                               }};
    V top = b.reduce({{zero, n}}, true, {maximum},
                     [&](const Values&) { return std::vector<Values>{{b.load_unit(in, base)}}; })[0][0];
    V total = b.reduce({{zero, n}}, true, {sum(b, Type::kF32, 64)}, [&](const Values&) {
      V e = ir::math::exp(b.load_unit(in, base) - top);
      b.store_unit(out, base, e);
      return std::vector<Values>{{e}};
    })[0][0];
    b.loop({{zero, n}}, true,
           [&](const Values&) { b.store_unit(out, base, b.load_unit(out, base) / total); });
  });
  std::vector<Launch> runs;
  for (int64_t n : {1, 7, 16, 17, 32, 40, 48, 49, 63, 64, 65, 100, 500}) {
    Bytes data(static_cast<size_t>(4 * 3 * n));
    for (size_t i = 0; i < data.size() / 4; ++i) {
      const float x = static_cast<float>(i * i % 103) * 0.2f - 10.0f;
      std::memcpy(&data[4 * i], &x, 4);
    }
    runs.push_back({{data, zeros(Type::kF32, 3 * n)}, {n}, 0, 3, {}});
  }
  expect_all_levels_agree(b.finish(), runs);
}

}  // namespace
}  // namespace lohe::codegen::testing
