#include "compile/lower.h"

#include <algorithm>
#include <functional>
#include <map>

#include "compile/sweeps.h"
#include "ir/builder.h"
#include "ir/primitives.h"
#include "lohe/error.h"

/// The reduced dims are swept once for every depth of dependent reductions (softmax: maximum, sum, result).
/// Results that vary over them are written in the first sweep that knows them, which may be one more than the
/// reductions need. A value that is dear to make and needed in a later sweep is kept in a scratch row.
namespace lohe::compiler {
namespace {

using namespace ir;

constexpr int kDear =
    10;  ///< cost from which a scratch store and load are cheaper than making the value again
/// By rows, a thread's tile of columns is a short piece of each row, where a processor's own prefetching has
/// hardly begun when it ends. Where values are dear, the same piece of a row so far ahead is fetched.
constexpr int kRowsAhead = 2;

class Lowering {
 public:
  Lowering(const Graph& graph, const KernelSpec& spec, std::string name)
      : graph_(graph),
        spec_(spec),
        sweeps_(graph, spec),
        kept_(kept_dims(spec)),
        b_(std::move(name)),
        values_(graph.nodes.size()) {
    result_.cost = sweeps_.cost;
  }

  LoweredKernel run() {
    declare_buffers();
    const bool vector_kept = spec_.vector_dim < static_cast<int>(kept_);
    std::vector<std::pair<V, V>> outer;
    for (size_t i = 0; i < kept_; ++i) {
      if (i == 0) {
        outer.push_back({b_.begin(), b_.end()});
      } else {
        outer.push_back({b_.constant_int(Type::kI64, 0), extent(static_cast<int>(i))});
      }
    }
    for (size_t i = kept_; i < spec_.dims.size(); ++i) extent(static_cast<int>(i));
    declare_parameters();
    if (spec_.row > 0) {
      short_rows(outer);
    } else if (spec_.tile_dim >= 0) {
      turned_tiles(outer);
    } else if (spec_.by_rows) {
      const std::vector<std::pair<V, V>> serial(outer.begin(), outer.end() - 1);
      over(serial, [&](const std::vector<V>& at) { column_tiles(at, outer.back()); });
    } else if (vector_kept && kept_ > 1) {
      // Serial loops around one vector loop.
      const std::vector<std::pair<V, V>> serial(outer.begin(), outer.end() - 1);
      b_.loop(serial, false, [&](const std::vector<V>& at) {
        b_.loop({outer.back()}, true, [&](const std::vector<V>& last) {
          std::vector<V> indices = at;
          indices.push_back(last[0]);
          body({indices});
        });
      });
    } else if (const int together = rows_together(); together > 1) {
      several_rows(outer, together);
    } else {
      b_.loop(outer, vector_kept, [&](const std::vector<V>& at) { body({at}); });
    }
    result_.kernel = b_.finish();
    return std::move(result_);
  }

 private:
  const GraphNode& node(int32_t id) const { return graph_.nodes[static_cast<size_t>(id)]; }

  V slot(Slot s, Type type) {
    result_.slots.push_back(s);
    return b_.param(type);
  }

  V extent(int dim) {
    const auto found = extents_.find(dim);
    if (found != extents_.end()) return found->second;
    return extents_[dim] = slot({Slot::kExtent, static_cast<int16_t>(dim)}, Type::kI64);
  }

  void declare_buffers() {
    for (const Operand& o : spec_.inputs) buffers_.push_back(b_.buffer(memory_type(o.dtype), false));
    for (const Operand& o : spec_.outputs) buffers_.push_back(b_.buffer(memory_type(o.dtype), true));
  }
  static Type memory_type(Dtype d) { return type_of(info(d).value_dtype); }

  void declare_parameters() {
    // Strides first, then scalars: the order in which the nodes ask for them does not matter to anybody.
    for (size_t o = 0; o < spec_.inputs.size() + spec_.outputs.size(); ++o) {
      const Operand& operand =
          o < spec_.inputs.size() ? spec_.inputs[o] : spec_.outputs[o - spec_.inputs.size()];
      for (size_t d = 0; d < spec_.dims.size(); ++d) {
        if ((operand.dims >> d & 1) == 0) continue;
        if (static_cast<int>(d) == spec_.vector_dim && operand.step == Step::kUnit) continue;
        if (static_cast<int>(d) == spec_.tile_dim && operand.step == Step::kTurned) continue;
        strides_[{o, d}] =
            slot({Slot::kStride, static_cast<int16_t>(o), static_cast<int16_t>(d)}, Type::kI64);
      }
      for (size_t d = 0; d < spec_.dims.size(); ++d) {
        if ((operand.edges >> d & 1) == 0) continue;
        const auto a = static_cast<int16_t>(o), b = static_cast<int16_t>(d);
        const V low = slot({Slot::kLow, a, b}, Type::kI64);
        edges_[{o, d}] = {low, slot({Slot::kHigh, a, b}, Type::kI64)};
      }
    }
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      const GraphNode& g = graph_.nodes[i];
      if (!sweeps_.needed[i]) continue;
      if (g.prim == Prim::kScalar) {
        const Type type = memory_type(g.dtype);
        const auto number = static_cast<int16_t>(g.imm);
        Registers r{slot({Slot::kScalar, number, 0, g.dtype}, type), {}};
        if (is_complex(g.dtype)) r.im = slot({Slot::kScalar, number, 1, g.dtype}, type);
        values_[i] = r;
      } else if (g.prim == Prim::kExtent) {
        const V count = slot({Slot::kCount, g.span}, Type::kI64);
        values_[i] = {b_.cast(count, memory_type(g.dtype)), {}};
        if (is_complex(g.dtype)) values_[i].im = b_.constant(memory_type(g.dtype), 0);
      } else if (g.prim == Prim::kConst) {
        values_[i] = lower_constant(b_, g);
      } else if (g.prim == Prim::kIota || ((g.prim == Prim::kArgmax || g.prim == Prim::kArgmin) && g.b < 0)) {
        if (!iota_base_.contains(g.span)) {
          iota_base_[g.span] = slot({Slot::kIotaBase, g.span}, Type::kI64);
          for (size_t d = 0; d < spec_.dims.size(); ++d) {
            if ((spec_.dims[d].group & g.span) != 0) {
              iota_step_[static_cast<int>(d)] = slot({Slot::kIotaStep, static_cast<int16_t>(d)}, Type::kI64);
            }
          }
        }
      }
    }
  }

  /// Element index of an operand at the current loop indices, without the vector dim if it is unit.
  V address(size_t operand, const Operand& o) {
    V index = b_.constant_int(Type::kI64, 0);
    for (size_t d = 0; d < spec_.dims.size(); ++d) {
      const auto stride = strides_.find({operand, d});
      if ((o.dims >> d & 1) == 0 || stride == strides_.end() || d >= at_.size()) continue;
      index = index + at_[d] * stride->second;
    }
    return index;
  }
  bool moves_by_unit(const Operand& o) const {
    return o.step == Step::kUnit && (o.dims >> spec_.vector_dim & 1) != 0;
  }

  /// Whether the current element is in an input's window; none where that is everywhere.
  V inside(size_t number) {
    V all;
    for (size_t d = 0; d < spec_.dims.size(); ++d) {
      const auto edge = edges_.find({number, d});
      if (edge == edges_.end()) continue;
      // In 32 bits, of which a vector has as many as of numbers.
      const auto narrow = [this](V x) { return b_.cast(x, Type::kI32); };
      const V at = narrow(at_[d]);
      const V in = (narrow(edge->second.first) <= at) & (at < narrow(edge->second.second));
      all = all.builder == nullptr ? in : all & in;
    }
    return all;
  }

  Registers load_input(const GraphNode& g) {
    const auto number = static_cast<size_t>(g.imm);
    const Operand& o = spec_.inputs[number];
    const V window = inside(number);
    if (o.step == Step::kTurned) return {load_turned(number), {}};
    const V base = address(number, o);
    const int16_t buffer = buffers_[number];
    if (is_complex(o.dtype)) {
      V index = base;
      if (moves_by_unit(o)) index = index + at_[static_cast<size_t>(spec_.vector_dim)];
      index = index + index;
      const V second = index + 1;  // before the loads, see store_output()
      const V re = b_.load(buffer, index);
      return {re, b_.load(buffer, second)};
    }
    if (!moves_by_unit(o)) return {b_.load(buffer, base, window), {}};
    return {b_.load_unit(buffer, base, rows_ahead(number, o, base), window), {}};
  }

  /// What operand `number` reads or writes so many rows later; none, where nothing is to be fetched.
  V rows_ahead(size_t number, const Operand& o, V base) {
    const auto stride = strides_.find({number, at_.size() - 1});
    if (ahead_ == 0 || stride == strides_.end() || (o.dims >> (at_.size() - 1) & 1) == 0) return {};
    return base + stride->second * ahead_;
  }

  void store_output(size_t number, const Registers& r) {
    const Operand& o = spec_.outputs[number];
    const size_t operand = spec_.inputs.size() + number;
    const V base = address(operand, o);
    const int16_t buffer = buffers_[operand];
    if (is_complex(o.dtype)) {
      V index = base;
      if (moves_by_unit(o)) index = index + at_[static_cast<size_t>(spec_.vector_dim)];
      index = index + index;
      const V second = index + 1;  // first, so that the generator finds the two stores side by side
      b_.store(buffer, index, r.re);
      b_.store(buffer, second, r.im);
    } else if (moves_by_unit(o)) {
      b_.store_unit(buffer, base, r.re, rows_ahead(operand, o, base));
    } else {
      b_.store(buffer, base, r.re);
    }
  }

  /// Position within a group, as `type`. The part along the vector dim is added last and without a
  /// multiplication where neighbours are one apart, which leaves one vector addition.
  V position(Space span, Type type = Type::kI64) {
    V uniform = iota_base_.at(span);
    V along;
    for (size_t d = 0; d < spec_.dims.size(); ++d) {
      if ((spec_.dims[d].group & span) == 0) continue;
      if (static_cast<int>(d) == spec_.vector_dim && spec_.unit_iota) {
        along = at_[d];
      } else {
        uniform = uniform + at_[d] * iota_step_.at(static_cast<int>(d));
      }
    }
    uniform = b_.cast(uniform, type);
    return along.builder == nullptr ? uniform : uniform + b_.cast(along, type);
  }

  void make(int32_t id) {
    const GraphNode& g = node(id);
    Registers& r = values_[static_cast<size_t>(id)];
    const auto value = [&](int32_t x) { return x < 0 ? Registers{} : values_[static_cast<size_t>(x)]; };
    switch (g.prim) {
      case Prim::kInput:
        r = load_input(g);
        return;
      case Prim::kInside: {
        const V in = inside(static_cast<size_t>(g.imm));
        r = {in.builder == nullptr ? b_.constant_bits(Type::kBool, 1) : in, {}};
        return;
      }
      case Prim::kIota:
        if (g.dtype == Dtype::kInt32) {
          r = {position(g.span, Type::kI32), {}};
          return;
        }
        r = lower(b_, {.prim = Prim::kCast, .dtype = g.dtype}, Dtype::kInt64, {position(g.span), {}}, {}, {});
        return;
      case Prim::kScalar:
      case Prim::kConst:
      case Prim::kExtent:
        return;
      default:
        break;
    }
    const Dtype operand = g.prim == Prim::kSelect ? g.dtype : node(g.a).dtype;
    // Memory holds halves as they are; registers compute in float32, which the graph's casts ask for.
    r = lower(b_, g, operand, value(g.a), value(g.b), value(g.c));
  }

  /// Marks what `targets` need that is not known yet; a reduction of an earlier sweep and a scratch row are
  /// known.
  std::vector<bool> closure(const std::vector<int32_t>& targets) {
    std::vector<bool> want(graph_.nodes.size());
    for (const int32_t t : targets) want[static_cast<size_t>(t)] = true;
    for (size_t i = want.size(); i-- > 0;) {
      const auto id = static_cast<int32_t>(i);
      if (!want[i] || is_reduction(graph_.nodes[i].prim) || scratch_.contains(id) || columns_.contains(id))
        continue;
      for (const int32_t x : {graph_.nodes[i].a, graph_.nodes[i].b, graph_.nodes[i].c}) {
        if (x >= 0) want[static_cast<size_t>(x)] = true;
      }
    }
    return want;
  }

  int rows_together() const {
    const bool one_sweep = sweeps_.count < 2 && sweeps_.finished_in(sweeps_.count + 1).empty();
    return spec_.vector_dim < static_cast<int>(kept_) || one_sweep ? 1 : spec_.rows_together;
  }

  void several_rows(const std::vector<std::pair<V, V>>& bounds, int together) {
    const auto [begin, end] = bounds.back();
    over({bounds.begin(), bounds.end() - 1}, [&](const std::vector<V>& at) {
      const auto row = [&](V index) {
        std::vector<V> indices = at;
        indices.push_back(index);
        return indices;
      };
      const V groups = (end - begin) / b_.constant_int(Type::kI64, together);
      b_.loop({{b_.constant_int(Type::kI64, 0), groups}}, false, [&](const std::vector<V>& i) {
        const V first = begin + i[0] * together;
        std::vector<std::vector<V>> rows;
        for (int r = 0; r < together; ++r) rows.push_back(row(first + r));
        body(rows);
      });
      b_.loop({{begin + groups * together, end}}, false, [&](const std::vector<V>& i) { body({row(i[0])}); });
    });
  }

  /// What is known of a row.
  struct Row {
    std::vector<V> outer;
    std::vector<Registers> values;
    std::vector<char> made;
    std::map<int32_t, int16_t> scratch;
  };

  /// @param outer kept indices of each row
  void body(const std::vector<std::vector<V>>& outer) {
    std::vector<Row> rows;
    for (const std::vector<V>& o : outer)
      rows.push_back({o, values_, std::vector<char>(graph_.nodes.size()), {}});
    const auto each = [&](const auto& f) {
      for (row_ = 0; row_ < rows.size(); ++row_) {
        Row& row = rows[row_];
        at_ = row.outer;
        values_.swap(row.values);
        made_.swap(row.made);
        scratch_.swap(row.scratch);
        f();
        values_.swap(row.values);
        made_.swap(row.made);
        scratch_.swap(row.scratch);
      }
    };
    const auto in_loop = [&](const std::vector<V>& at, const auto& f) {
      each([&] {
        at_.insert(at_.end(), at.begin(), at.end());
        f();
      });
    };
    const bool sweeps_vector = spec_.vector_dim >= static_cast<int>(kept_);
    const std::vector<std::pair<V, V>> bounds = reduced_bounds();
    for (int sweep = 1; sweep <= sweeps_.count; ++sweep) {
      const std::vector<int32_t> reductions = sweeps_.reductions_of(sweep);
      std::vector<bool> want;
      std::vector<int32_t> keep;
      std::vector<Builder::Reduction> folds;
      each([&] {
        want = closure(sweeps_.targets_of(sweep));
        make_kept(want);
        keep = sweeps_vector ? worth_keeping(want, sweep) : std::vector<int32_t>{};
        for (const int32_t r : reductions) folds.push_back(fold_of(r, sweeps_vector));
      });
      const auto results = b_.reduce(bounds, sweeps_vector, folds, [&](const std::vector<V>& at) {
        std::vector<std::vector<V>> elements;
        in_loop(at, [&] {
          make_row(want);
          for (const int32_t k : keep) keep_in_scratch(k);
          finish(sweep);
          for (const int32_t r : reductions) elements.push_back(elements_of(r));
        });
        return elements;
      });
      size_t next = 0;
      each([&] {
        for (const int32_t k : keep) scratch_.insert({k, scratch_buffers_.at({row_, k})});
        for (const int32_t r : reductions) {
          values_[static_cast<size_t>(r)] = result_of(r, results[next++]);
          made_[static_cast<size_t>(r)] = true;
        }
      });
    }
    if (const std::vector<int32_t> targets = sweeps_.finished_in(Sweeps::kAfter); !targets.empty()) {
      each([&] {
        make_kept(closure(targets));
        finish(Sweeps::kAfter);
      });
    }
    if (const std::vector<int32_t> targets = sweeps_.finished_in(sweeps_.count + 1); !targets.empty()) {
      std::vector<bool> want;
      each([&] {
        want = closure(targets);
        make_kept(want);
      });
      b_.loop(bounds, sweeps_vector, [&](const std::vector<V>& at) {
        in_loop(at, [&] {
          make_row(want);
          finish(sweeps_.count + 1);
        });
      });
    }
    at_ = outer.front();
  }

  Builder::Reduction fold_of(int32_t reduction, bool by_lanes) {
    const Prim prim = node(reduction).prim;
    const Dtype element = node(node(reduction).a).dtype;
    Builder::Reduction fold;
    fold.init = reduction_identity(b_, prim, element);
    fold.lanes = by_lanes ? reduction_lanes(fold.init.size(), memory_type(element)) : 0;
    fold.combine = [this, prim, element](const std::vector<V>& l, const std::vector<V>& r) {
      return reduction_combine(b_, prim, element, l, r);
    };
    return fold;
  }

  static bool finds_position(Prim p) { return p == Prim::kArgmax || p == Prim::kArgmin; }
  /// What a reduction folds at the current indices.
  std::vector<V> elements_of(int32_t reduction) {
    const GraphNode& g = node(reduction);
    const Registers& x = values_[static_cast<size_t>(g.a)];
    if (finds_position(g.prim))
      return {x.re, g.b >= 0 ? values_[static_cast<size_t>(g.b)].re : position(g.span)};
    return x.complex() ? std::vector<V>{x.re, x.im} : std::vector<V>{x.re};
  }
  /// The value of a reduction whose accumulators are `parts`.
  Registers result_of(int32_t reduction, const std::vector<V>& parts) const {
    if (finds_position(node(reduction).prim)) return {parts[1], {}};
    return {parts[0], parts.size() > 1 ? parts[1] : V{}};
  }

  void finish(int sweep) {
    int code = 0;
    for (const Graph::Check& c : graph_.checks) {
      ++code;
      if (sweeps_.sweep_of_check(c) == sweep) b_.check(values_[static_cast<size_t>(c.condition)].re, code);
    }
    for (size_t o = 0; o < graph_.outputs.size(); ++o) {
      if (sweeps_.sweep_of_output(o) == sweep)
        store_output(o, values_[static_cast<size_t>(graph_.outputs[o])]);
    }
  }
  // Turned tiles: a tile of each turned input is read along its own dense dim and lies in scratch as the
  // vector dim goes; cache lines are used whole.

  /// b_.loop, or the body alone where there is nothing to loop over.
  void over(const std::vector<std::pair<V, V>>& bounds, const Builder::Body& body) {
    bounds.empty() ? body({}) : b_.loop(bounds, false, body);
  }
  /// Goes over [begin, end) in pieces.
  void over_pieces(const std::pair<V, V>& bounds, int64_t size, const std::function<void(V, V)>& body) {
    const V piece = b_.constant_int(Type::kI64, size);
    const V count = (bounds.second - bounds.first + (size - 1)) / piece;
    b_.loop({{b_.constant_int(Type::kI64, 0), count}}, false, [&](const std::vector<V>& at) {
      const V begin = bounds.first + at[0] * piece;
      body(begin, b_.binary(Op::kMin, begin + piece, bounds.second));
    });
  }

  static int64_t tile_side(Type t) { return size_of(t) == 8 ? kTurnedTile / 2 : kTurnedTile; }
  /// See ir::Transpose.
  static Type turned_type(Type t) { return size_of(t) < 4 ? Type::kI32 : t; }

  /// Scratch for the tiles; how long and wide they are.
  int64_t declare_tiles() {
    int64_t side = kTurnedTile;
    for (size_t i = 0; i < spec_.inputs.size(); ++i) {
      if (spec_.inputs[i].step != Step::kTurned) continue;
      const Type type = turned_type(memory_type(spec_.inputs[i].dtype));
      side = std::min(side, tile_side(type));
      turned_.emplace(i, scratch(type, {kTurnedTile * kTurnedPitch * size_of(type), false}));
    }
    return side;
  }

  /// Fills them from `rows` of the vector dim and `columns` of the tile's.
  void fill_tiles(V begin, V rows, V columns) {
    for (const auto& [number, buffer] : turned_) {
      const V stride = strides_.at({number, static_cast<size_t>(spec_.vector_dim)});
      const V base = address(number, spec_.inputs[number]) + begin;
      b_.transpose({buffers_[number], buffer, base.id, stride.id, rows.id, columns.id, kTurnedPitch});
    }
  }

  void turned_tiles(const std::vector<std::pair<V, V>>& bounds) {
    const auto d = static_cast<size_t>(spec_.tile_dim), v = static_cast<size_t>(spec_.vector_dim);
    const int64_t side = declare_tiles();
    std::vector<std::pair<V, V>> serial;
    for (size_t i = 0; i < bounds.size(); ++i) {
      if (i != d && i != v) serial.push_back(bounds[i]);
    }
    over(serial, [&](const std::vector<V>& at) {
      at_.assign(spec_.dims.size(), V{});
      size_t next = 0;
      for (size_t i = 0; i < bounds.size(); ++i) {
        if (i != d && i != v) at_[i] = at[next++];
      }
      over_pieces(bounds[d], side, [&](V d_begin, V d_end) {
        over_pieces(bounds[v], side, [&](V v_begin, V v_end) {
          tile_at_ = {d_begin, v_begin};
          at_[d] = d_begin;
          at_[v] = v_begin;
          fill_tiles(d_begin, v_end - v_begin, d_end - d_begin);
          b_.loop({{d_begin, d_end}}, false, [&](const std::vector<V>& i) {
            at_[d] = i[0];
            b_.loop({{v_begin, v_end}}, true, [&](const std::vector<V>& j) {
              at_[v] = j[0];
              scratch_.clear();
              made_.assign(graph_.nodes.size(), false);
              make_kept(closure(sweeps_.finished_in(Sweeps::kAfter)));
              finish(Sweeps::kAfter);
            });
          });
        });
      });
    });
  }

  /// Columns of a tile lie so far apart that a first-level cache keeps neighbours in different places.
  static constexpr int64_t kTurnedPitch = kTurnedTile + 16;

  V load_turned(size_t number) {
    const Type type = memory_type(spec_.inputs[number].dtype);
    const V column = at_[static_cast<size_t>(spec_.tile_dim)] - tile_at_.first;
    const V x = b_.load_unit(turned_.at(number), column * kTurnedPitch - tile_at_.second);
    return is_half(type) ? b_.bitcast(b_.cast(x, Type::kI16), type) : b_.cast(x, type);
  }

  // Short rows: vectors go along the last kept dim; of a row, each element is code of its own.

  void short_rows(const std::vector<std::pair<V, V>>& bounds) {
    const size_t v = bounds.size() - 1;
    const int64_t side = declare_tiles();
    over({bounds.begin(), bounds.end() - 1}, [&](const std::vector<V>& outer) {
      over_pieces(bounds[v], side, [&](V begin, V end) {
        const V zero = b_.constant_int(Type::kI64, 0);
        tile_at_ = {zero, begin};
        at_ = outer;
        at_.push_back(begin);
        fill_tiles(zero, end - begin, b_.constant_int(Type::kI64, spec_.row));
        b_.loop({{begin, end}}, true, [&](const std::vector<V>& at) {
          at_ = outer;
          at_.push_back(at[0]);
          short_row();
        });
      });
    });
  }

  void short_row() {
    scratch_.clear();
    made_.assign(graph_.nodes.size(), false);
    const auto in_row = [&](const std::vector<bool>& want, int sweep, const std::function<void()>& then) {
      make_kept(want);
      for (int i = 0; i < spec_.row; ++i) {
        at_.push_back(b_.constant_int(Type::kI64, i));
        make_row(want);
        finish(sweep);
        then();
        at_.pop_back();
      }
    };
    for (int sweep = 1; sweep <= sweeps_.count; ++sweep) {
      const std::vector<int32_t> reductions = sweeps_.reductions_of(sweep);
      std::map<int32_t, std::vector<std::vector<V>>> elements;
      in_row(closure(sweeps_.targets_of(sweep)), sweep, [&] {
        for (const int32_t r : reductions) elements[r].push_back(elements_of(r));
      });
      for (const int32_t r : reductions) {
        values_[static_cast<size_t>(r)] =
            result_of(r, reduction_of_few(b_, node(r).prim, node(node(r).a).dtype, std::move(elements[r])));
        made_[static_cast<size_t>(r)] = true;
      }
    }
    if (const std::vector<int32_t> targets = sweeps_.finished_in(Sweeps::kAfter); !targets.empty()) {
      make_kept(closure(targets));
      finish(Sweeps::kAfter);
    }
    if (const std::vector<int32_t> targets = sweeps_.finished_in(sweeps_.count + 1); !targets.empty())
      in_row(closure(targets), sweeps_.count + 1, [] {});
  }

  // By rows: a tile of columns at a time, with what is known of each column in scratch.

  void column_tiles(const std::vector<V>& outer, const std::pair<V, V>& columns) {
    const int unrolled = result_.cost <= kDear ? 4 : 1;
    over_pieces(columns, kColumnTile, [&](V begin, V end) {
      scratch_.clear();
      columns_.clear();
      tile_at_ = {begin, end};
      for (int sweep = 1; sweep <= sweeps_.count; ++sweep) sweep_rows(outer, sweep, unrolled);
      if (const std::vector<int32_t> targets = sweeps_.finished_in(Sweeps::kAfter); !targets.empty()) {
        const std::vector<bool> want = closure(targets);
        over_columns(outer, [&] {
          make_kept(want);
          finish(Sweeps::kAfter);
        });
      }
      if (const std::vector<int32_t> targets = sweeps_.finished_in(sweeps_.count + 1); !targets.empty()) {
        const std::vector<bool> want = closure(targets);
        b_.loop(reduced_bounds(), false, [&](const std::vector<V>& rows) {
          over_columns(outer, [&] {
            make_kept(want);
            at_.insert(at_.end(), rows.begin(), rows.end());
            make_row(want);
            finish(sweeps_.count + 1);
          });
        });
      }
    });
  }

  /// A vector loop over the tile's columns; what is known of them is loaded first.
  void over_columns(const std::vector<V>& outer, const std::function<void()>& body) {
    b_.loop({tile_at_}, true, [&](const std::vector<V>& at) {
      at_ = outer;
      at_.push_back(at[0]);
      made_.assign(graph_.nodes.size(), false);
      for (const auto& [id, parts] : columns_) {
        std::vector<V> known;
        for (const int16_t buffer : parts) known.push_back(b_.load_unit(buffer, -tile_at_.first));
        const bool reduction = is_reduction(node(id).prim);
        values_[static_cast<size_t>(id)] =
            reduction ? result_of(id, known) : Registers{known[0], known.size() > 1 ? known[1] : V{}};
        made_[static_cast<size_t>(id)] = true;
      }
      body();
    });
  }

  void sweep_rows(const std::vector<V>& outer, int sweep, int unrolled) {
    const std::vector<int32_t> reductions = sweeps_.reductions_of(sweep);
    const std::vector<bool> want = closure(sweeps_.targets_of(sweep));
    const V base = -tile_at_.first;
    const auto store = [&](const std::vector<int16_t>& buffers, const std::vector<V>& parts) {
      for (size_t i = 0; i < parts.size(); ++i) b_.store_unit(buffers[i], base, parts[i]);
    };
    std::map<int32_t, std::vector<int16_t>> accumulators;
    over_columns(outer, [&] {
      for (const int32_t r : reductions) {
        const std::vector<V> init = reduction_identity(b_, node(r).prim, node(node(r).a).dtype);
        for (const V part : init) accumulators[r].push_back(column_scratch(part.type()));
        store(accumulators[r], init);
      }
    });
    const auto fold = [&](const std::vector<V>& rows, V last, int count) {
      over_columns(outer, [&] {
        make_kept(want);
        std::map<int32_t, std::vector<V>> sums;
        for (const int32_t r : reductions) {
          for (const int16_t buffer : accumulators[r]) sums[r].push_back(b_.load_unit(buffer, base));
        }
        const size_t columns = at_.size();
        for (int i = 0; i < count; ++i) {
          at_.resize(columns);
          at_.insert(at_.end(), rows.begin(), rows.end());
          at_.push_back(last + i);
          ahead_ = unrolled == 1 ? kRowsAhead : 0;
          make_row(want);
          finish(sweep);
          ahead_ = 0;
          for (const int32_t r : reductions)
            sums[r] = reduction_combine(b_, node(r).prim, node(node(r).a).dtype, sums[r], elements_of(r));
        }
        for (const int32_t r : reductions) store(accumulators[r], sums[r]);
      });
    };
    std::vector<std::pair<V, V>> bounds = reduced_bounds();
    const V rows = bounds.back().second, zero = b_.constant_int(Type::kI64, 0);
    const V steps = rows / b_.constant_int(Type::kI64, unrolled);
    bounds.pop_back();
    over(bounds, [&](const std::vector<V>& at) {
      b_.loop({{zero, steps}}, false, [&](const std::vector<V>& i) { fold(at, i[0] * unrolled, unrolled); });
      if (unrolled > 1) {
        b_.loop({{steps * unrolled, rows}}, false, [&](const std::vector<V>& i) { fold(at, i[0], 1); });
      }
    });
    columns_.insert(accumulators.begin(), accumulators.end());
    settle(outer, sweep);
  }

  /// Puts the values of a column that later rows read, and that can be known now, into scratch.
  void settle(const std::vector<V>& outer, int sweep) {
    const std::vector<bool> want = closure(sweeps_.targets_after(sweep));
    std::vector<int32_t> settled;
    for (size_t i = 0; i < want.size(); ++i) {
      if (!want[i] || !sweeps_.row[i]) continue;
      for (const int32_t x : {graph_.nodes[i].a, graph_.nodes[i].b, graph_.nodes[i].c}) {
        if (x < 0 || sweeps_.row[static_cast<size_t>(x)] || sweeps_.depth[static_cast<size_t>(x)] > sweep)
          continue;
        const GraphNode& g = node(x);
        if (is_leaf(g.prim) || is_reduction(g.prim) || columns_.contains(x) ||
            (g.space & spec_.dims[static_cast<size_t>(spec_.vector_dim)].group) == 0)
          continue;
        settled.push_back(x);
      }
    }
    std::sort(settled.begin(), settled.end());
    settled.erase(std::unique(settled.begin(), settled.end()), settled.end());
    if (settled.empty()) return;
    std::map<int32_t, std::vector<int16_t>> stored;
    const std::vector<bool> needed = closure(settled);
    over_columns(outer, [&] {
      make_kept(needed);
      for (const int32_t x : settled) {
        const Registers& r = values_[static_cast<size_t>(x)];
        for (const V part : {r.re, r.im}) {
          if (part.builder == nullptr) continue;
          stored[x].push_back(column_scratch(part.type()));
          b_.store_unit(stored[x].back(), -tile_at_.first, part);
        }
      }
    });
    columns_.insert(stored.begin(), stored.end());
  }

  int16_t column_scratch(Type type) { return scratch(type, {kColumnTile * size_of(type), false}); }
  int16_t scratch(Type type, Scratch memory) {
    result_.scratch.push_back(memory);
    return b_.buffer(type, true, true);
  }
  std::vector<std::pair<V, V>> reduced_bounds() {
    std::vector<std::pair<V, V>> bounds;
    for (size_t i = kept_; i < spec_.dims.size(); ++i)
      bounds.push_back({b_.constant_int(Type::kI64, 0), extent(static_cast<int>(i))});
    return bounds;
  }

  void make_kept(const std::vector<bool>& want) {
    for (size_t i = 0; i < want.size(); ++i) {
      if (!want[i] || sweeps_.row[i] || made_[i] || is_reduction(graph_.nodes[i].prim)) continue;
      make(static_cast<int32_t>(i));
      made_[i] = true;
    }
  }

  void make_row(const std::vector<bool>& want) {
    for (size_t i = 0; i < want.size(); ++i) {
      if (!want[i] || !sweeps_.row[i]) continue;
      const auto kept = scratch_.find(static_cast<int32_t>(i));
      if (kept != scratch_.end()) {
        values_[i] = {b_.load_unit(kept->second, scratch_base()), {}};
      } else {
        make(static_cast<int32_t>(i));
      }
    }
  }

  /// Row-major position in the reduced loops, without the last.
  V scratch_base() {
    V base = b_.constant_int(Type::kI64, 0);
    for (size_t d = kept_; d + 1 < spec_.dims.size(); ++d)
      base = (base + at_[d]) * extent(static_cast<int>(d) + 1);
    return base;
  }

  std::vector<int32_t> worth_keeping(const std::vector<bool>& want, int sweep) {
    const std::vector<bool> later = closure(sweeps_.targets_after(sweep));
    std::vector<int32_t> keep;
    for (size_t i = graph_.nodes.size(); i-- > 0;) {
      const GraphNode& g = graph_.nodes[i];
      if (!want[i] || !later[i] || !sweeps_.row[i] || is_leaf(g.prim) || is_complex(g.dtype) ||
          is_half(g.dtype) || g.dtype == Dtype::kBool || scratch_.contains(static_cast<int32_t>(i)) ||
          primitive(g.prim).cost < kDear) {
        continue;
      }
      keep.push_back(static_cast<int32_t>(i));
    }
    return keep;
  }

  void keep_in_scratch(int32_t id) {
    auto found = scratch_buffers_.find({row_, id});
    if (found == scratch_buffers_.end()) {
      const Type type = memory_type(node(id).dtype);
      found = scratch_buffers_.emplace(std::pair{row_, id}, scratch(type, {size_of(type), true})).first;
    }
    b_.store_unit(found->second, scratch_base(), values_[static_cast<size_t>(id)].re);
  }

  const Graph& graph_;
  const KernelSpec& spec_;
  const Sweeps sweeps_;
  const size_t kept_;
  Builder b_;
  LoweredKernel result_;
  std::vector<int16_t> buffers_;
  std::vector<Registers> values_;
  std::vector<char> made_;
  std::vector<V> at_;  ///< loop indices where we are
  std::map<int, V> extents_;
  std::map<std::pair<size_t, size_t>, V> strides_;
  std::map<std::pair<size_t, size_t>, std::pair<V, V>> edges_;  ///< by input and loop
  std::map<int, V> iota_base_, iota_step_;
  size_t row_ = 0;  ///< which one of those that are done together
  std::map<std::pair<size_t, int32_t>, int16_t> scratch_buffers_;
  std::map<int32_t, int16_t> scratch_;
  std::map<size_t, int16_t> turned_;                 ///< scratch of an input's tile
  int ahead_ = 0;                                    ///< by rows: how many rows ahead what is read is fetched
  std::map<int32_t, std::vector<int16_t>> columns_;  ///< scratch of what is known of the tile's columns
  std::pair<V, V>
      tile_at_;  ///< by rows: the columns' range; turned: first index along tile_dim and vector_dim
};

}  // namespace

LoweredKernel lower(const ir::Graph& graph, const KernelSpec& spec, std::string name) {
  return Lowering(graph, spec, std::move(name)).run();
}

}  // namespace lohe::compiler
