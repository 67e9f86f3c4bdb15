#include <algorithm>
#include <cstring>

#include "ir/eval.h"
#include "lohe/error.h"

/// The kernel is decoded once into steps with resolved addresses. A vector loop runs kLanes elements at a
/// time: each step does all of them before the next, which shares the cost of a step and changes no result,
/// because lanes are independent. Every register has room for kLanes elements; a uniform value is computed
/// once and spread if a varying step reads it.
namespace lohe::ir {
namespace {

constexpr int kLanes = 64;

struct LoopPlan;
struct RarePlan;

struct Step {
  enum class Kind : uint8_t {
    kCompute,
    kLoad,
    kLoadUnit,
    kStore,
    kStoreUnit,
    kTranspose,
    kCheck,
    kLoop,
    kRare
  };
  Kind kind;
  bool varying = false;
  bool spread = false;   ///< uniform, and read by varying steps
  bool is_bool = false;  ///< of loads: any non-zero byte is true
  uint8_t size = 0;
  int32_t code = 0;
  LaneFunction function = nullptr;
  char* r = nullptr;
  const char *a = nullptr, *b = nullptr, *c = nullptr;
  char* memory = nullptr;
  LoopPlan* loop = nullptr;
  RarePlan* rare = nullptr;
  const Transpose* transpose = nullptr;
};
using Steps = std::vector<Step>;

struct ReducePlan {
  struct Item {
    char *init, *element, *left, *right, *combined, *result;
    std::vector<char> lanes;  ///< the accumulators of a vector loop
    int size;
    bool spread;  ///< the result is uniform and read by varying steps
  };
  std::vector<Item> items;
  Steps combine;
  int lanes = 0;
};

struct LoopPlan {
  struct Dim {
    int64_t *index, *begin, *end;
    bool spread;
  };
  std::vector<Dim> dims;
  bool vector = false, in_vector = false;
  Steps body;
  std::vector<ReducePlan> reduces;
};

struct RarePlan {
  Steps body;
  std::vector<Step> selects;  ///< what makes the results
};

template <class T>
void fill_with(char* at) {
  T x;
  std::memcpy(&x, at, sizeof x);
  std::fill_n(reinterpret_cast<T*>(at), kLanes, x);
}

/// Copies the first lane to all others.
void fill(char* at, int size) {
  switch (size) {
    case 1:
      return fill_with<uint8_t>(at);
    case 2:
      return fill_with<uint16_t>(at);
    case 4:
      return fill_with<uint32_t>(at);
    default:
      return fill_with<uint64_t>(at);
  }
}

template <class T>
void gather(char* r, const char* memory, const int64_t* index, const char* condition, int n) {
  for (int i = 0; i < n; ++i) {
    const bool there = condition == nullptr || condition[i] != 0;
    reinterpret_cast<T*>(r)[i] = there ? reinterpret_cast<const T*>(memory)[index[i]] : T{0};
  }
}
template <class T>
void scatter(char* memory, const char* value, const int64_t* index, int n) {
  for (int i = 0; i < n; ++i) reinterpret_cast<T*>(memory)[index[i]] = reinterpret_cast<const T*>(value)[i];
}

class Interpreter {
 public:
  Interpreter(const Kernel& kernel, void* const* buffers, const int64_t* params, int64_t begin, int64_t end)
      : kernel_(kernel), buffers_(buffers), varying_(kernel.insts.size()), read_wide_(kernel.insts.size()) {
    mark(kernel.body, false);
    size_t bytes = 0;
    std::vector<size_t> offsets;
    for (const Inst& inst : kernel.insts) {
      offsets.push_back(bytes);
      bytes += static_cast<size_t>(size_of(inst.type)) * kLanes;
    }
    file_.resize(bytes / sizeof(uint64_t) + 1);
    for (size_t v = 0; v < offsets.size(); ++v) {
      const Inst& inst = kernel.insts[v];
      registers_.push_back(reinterpret_cast<char*>(file_.data()) + offsets[v]);
      uint64_t bits = inst.imm;
      switch (inst.op) {
        case Op::kConst:
          break;
        case Op::kParam:
          bits = static_cast<uint64_t>(params[inst.imm]);
          break;
        case Op::kBegin:
          bits = static_cast<uint64_t>(begin);
          break;
        case Op::kEnd:
          bits = static_cast<uint64_t>(end);
          break;
        default:
          continue;
      }
      if (inst.type == Type::kBool) bits = bits != 0 ? 1 : 0;
      std::memcpy(registers_[v], &bits, static_cast<size_t>(size_of(inst.type)));
      if (read_wide_[v]) fill(registers_[v], size_of(inst.type));
    }
    program_ = decode(kernel.body, false);
  }

  int32_t run() {
    run(program_, 1);
    return failed_;
  }

 private:
  Type type(Value v) const { return kernel_.insts[static_cast<size_t>(v)].type; }
  char* at(Value v) const { return v == kNoValue ? nullptr : registers_[static_cast<size_t>(v)]; }
  int64_t* integer(Value v) const { return reinterpret_cast<int64_t*>(at(v)); }
  bool varies(Value v) const { return v != kNoValue && varying_[static_cast<size_t>(v)]; }
  void read_wide(Value v) {
    if (v != kNoValue) read_wide_[static_cast<size_t>(v)] = true;
  }
  bool spread(Value v) const {
    return read_wide_[static_cast<size_t>(v)] && !varying_[static_cast<size_t>(v)];
  }

  /// Finds which values vary over lanes and which uniform ones are read lane by lane.
  void mark(const Block& block, bool in_vector) {
    for (const Stmt& stmt : block) {
      if (const auto* define = std::get_if<Define>(&stmt)) {
        const Inst& inst = kernel_.insts[static_cast<size_t>(define->value)];
        const bool vary = inst.op == Op::kLoadUnit || varies(inst.a) || varies(inst.b) || varies(inst.c);
        varying_[static_cast<size_t>(define->value)] = vary;
        if (vary && inst.op != Op::kLoadUnit) {
          for (const Value v : {inst.a, inst.b, inst.c}) read_wide(v);
        }
        if (inst.op == Op::kLoadUnit) read_wide(inst.c);
      } else if (const auto* store = std::get_if<Store>(&stmt)) {
        if (store->unit) {
          read_wide(store->value);
        } else if (varies(store->index) || varies(store->value)) {
          read_wide(store->index);
          read_wide(store->value);
        }
      } else if (const auto* loop = std::get_if<std::unique_ptr<Loop>>(&stmt)) {
        mark(**loop, in_vector);
      } else if (const auto* rare = std::get_if<std::unique_ptr<Rare>>(&stmt)) {
        mark(**rare, in_vector);
      }
    }
  }

  void mark(const Rare& rare, bool in_vector) {
    mark(rare.body, in_vector);
    for (size_t i = 0; i < rare.results.size(); ++i) {
      const Value operands[] = {rare.condition, rare.computed[i], rare.usual[i]};
      const bool vary =
          std::any_of(std::begin(operands), std::end(operands), [&](Value v) { return varies(v); });
      varying_[static_cast<size_t>(rare.results[i])] = vary;
      if (!vary) continue;
      for (const Value v : operands) read_wide(v);
    }
  }

  void mark(const Loop& loop, bool in_vector) {
    if (loop.vector) varying_[static_cast<size_t>(loop.dims.back().index)] = true;
    const bool wide = in_vector || loop.vector;
    for (const Reduce& reduce : loop.reduces) {
      for (const auto* values : {&reduce.left, &reduce.right}) {
        for (const Value v : *values) varying_[static_cast<size_t>(v)] = wide;
      }
    }
    mark(loop.body, wide);
    for (const Reduce& reduce : loop.reduces) {
      mark(reduce.combine, wide);
      for (const Value v : reduce.results) varying_[static_cast<size_t>(v)] = in_vector;
      if (!wide) continue;
      for (const auto* values : {&reduce.init, &reduce.elements, &reduce.combined}) {
        for (const Value v : *values) read_wide(v);
      }
    }
  }

  Steps decode(const Block& block, bool in_vector) {
    Steps steps;
    for (const Stmt& stmt : block) {
      if (const auto* define = std::get_if<Define>(&stmt)) {
        if (!is_leaf(kernel_.insts[static_cast<size_t>(define->value)].op))
          steps.push_back(decode(define->value));
      } else if (const auto* store = std::get_if<Store>(&stmt)) {
        Step step{store->unit ? Step::Kind::kStoreUnit : Step::Kind::kStore};
        step.varying = store->unit || varies(store->index) || varies(store->value);
        step.size = static_cast<uint8_t>(size_of(type(store->value)));
        step.memory = static_cast<char*>(buffers_[store->buffer]);
        step.a = at(store->index);
        step.b = at(store->value);
        steps.push_back(step);
      } else if (const auto* t = std::get_if<Transpose>(&stmt)) {
        Step step{Step::Kind::kTranspose};
        step.transpose = t;
        steps.push_back(step);
      } else if (const auto* check = std::get_if<Check>(&stmt)) {
        Step step{Step::Kind::kCheck};
        step.varying = varies(check->condition);
        step.a = at(check->condition);
        step.code = check->code;
        steps.push_back(step);
      } else if (const auto* rare = std::get_if<std::unique_ptr<Rare>>(&stmt)) {
        Step step{Step::Kind::kRare};
        step.varying = varies((*rare)->condition);
        step.a = at((*rare)->condition);
        step.rare = decode(**rare, in_vector);
        steps.push_back(step);
      } else {
        Step step{Step::Kind::kLoop};
        step.loop = decode(*std::get<std::unique_ptr<Loop>>(stmt), in_vector);
        steps.push_back(step);
      }
    }
    return steps;
  }

  Step decode(Value v) {
    const Inst& inst = kernel_.insts[static_cast<size_t>(v)];
    Step step{Step::Kind::kCompute};
    step.varying = varies(v);
    step.spread = spread(v);
    step.size = static_cast<uint8_t>(size_of(inst.type));
    step.r = at(v);
    step.a = at(inst.a);
    step.b = at(inst.b);
    step.c = at(inst.c);
    if (is_load(inst.op)) {
      step.kind = inst.op == Op::kLoad ? Step::Kind::kLoad : Step::Kind::kLoadUnit;
      step.memory = static_cast<char*>(buffers_[inst.buffer]);
      step.is_bool = inst.type == Type::kBool;
    } else {
      if (inst.op == Op::kTable) step.b = reinterpret_cast<const char*>(&kernel_.tables[inst.imm]);
      step.function = lane_function(inst.op, inst.type, type(inst.op == Op::kSelect ? inst.b : inst.a));
      LOHE_INTERNAL_ASSERT(step.function != nullptr, "kernel ", kernel_.name, ": %", v, " = ", name(inst.op),
                           " is not defined for its types");
    }
    return step;
  }

  RarePlan* decode(const Rare& rare, bool in_vector) {
    auto plan = std::make_unique<RarePlan>();
    plan->body = decode(rare.body, in_vector);
    for (size_t i = 0; i < rare.results.size(); ++i) {
      const Value result = rare.results[i];
      Step step{Step::Kind::kCompute};
      step.varying = varies(result);
      step.spread = spread(result);
      step.size = static_cast<uint8_t>(size_of(type(result)));
      step.function = lane_function(Op::kSelect, type(result), type(result));
      step.r = at(result);
      step.a = at(rare.condition);
      step.b = at(rare.computed[i]);
      step.c = at(rare.usual[i]);
      plan->selects.push_back(step);
    }
    rares_.push_back(std::move(plan));
    return rares_.back().get();
  }

  LoopPlan* decode(const Loop& loop, bool in_vector) {
    auto plan = std::make_unique<LoopPlan>();
    plan->vector = loop.vector;
    plan->in_vector = in_vector;
    for (const Loop::Dim& dim : loop.dims) {
      plan->dims.push_back({integer(dim.index), integer(dim.begin), integer(dim.end), spread(dim.index)});
    }
    plan->body = decode(loop.body, in_vector || loop.vector);
    for (const Reduce& reduce : loop.reduces) {
      ReducePlan& to = plan->reduces.emplace_back();
      to.lanes = reduce.lanes;
      to.combine = decode(reduce.combine, in_vector || loop.vector);
      for (size_t i = 0; i < reduce.init.size(); ++i) {
        ReducePlan::Item& item = to.items.emplace_back();
        item.init = at(reduce.init[i]);
        item.element = at(reduce.elements[i]);
        item.left = at(reduce.left[i]);
        item.right = at(reduce.right[i]);
        item.combined = at(reduce.combined[i]);
        item.result = at(reduce.results[i]);
        item.size = size_of(type(reduce.results[i]));
        item.spread = spread(reduce.results[i]);
        if (loop.vector)
          item.lanes.resize(static_cast<size_t>(reduce.lanes) * static_cast<size_t>(item.size));
      }
    }
    loops_.push_back(std::move(plan));
    return loops_.back().get();
  }

  void run(const Steps& steps, int width) {
    for (const Step& step : steps) {
      const int n = step.varying ? width : 1;
      switch (step.kind) {
        case Step::Kind::kCompute:
          step.function(step.r, step.a, step.b, step.c, n);
          break;
        case Step::Kind::kLoad: {
          const auto* index = reinterpret_cast<const int64_t*>(step.a);
          switch (step.size) {
            case 1:
              gather<uint8_t>(step.r, step.memory, index, step.c, n);
              break;
            case 2:
              gather<uint16_t>(step.r, step.memory, index, step.c, n);
              break;
            case 4:
              gather<uint32_t>(step.r, step.memory, index, step.c, n);
              break;
            default:
              gather<uint64_t>(step.r, step.memory, index, step.c, n);
              break;
          }
          if (step.is_bool) make_bool(step.r, n);
          break;
        }
        case Step::Kind::kLoadUnit:
          load_unit(step, n);
          if (step.is_bool) make_bool(step.r, n);
          break;
        case Step::Kind::kStore: {
          const auto* index = reinterpret_cast<const int64_t*>(step.a);
          switch (step.size) {
            case 1:
              scatter<uint8_t>(step.memory, step.b, index, n);
              break;
            case 2:
              scatter<uint16_t>(step.memory, step.b, index, n);
              break;
            case 4:
              scatter<uint32_t>(step.memory, step.b, index, n);
              break;
            default:
              scatter<uint64_t>(step.memory, step.b, index, n);
              break;
          }
          break;
        }
        case Step::Kind::kStoreUnit:
          std::memcpy(unit_address(step), step.b, static_cast<size_t>(n) * step.size);
          break;
        case Step::Kind::kTranspose:
          transpose(*step.transpose);
          break;
        case Step::Kind::kCheck:
          if (std::memchr(step.a, 0, static_cast<size_t>(n)) != nullptr)
            failed_ = std::max(failed_, step.code);
          break;
        case Step::Kind::kRare:
          if (std::memchr(step.a, 1, static_cast<size_t>(n)) != nullptr) run(step.rare->body, width);
          run(step.rare->selects, width);
          break;
        case Step::Kind::kLoop:
          if (step.loop->vector) {
            run_vector(*step.loop);
          } else {
            run_serial(*step.loop, width);
          }
          break;
      }
      if (step.spread) fill(step.r, step.size);
    }
  }

  static void make_bool(char* r, int n) {
    for (int i = 0; i < n; ++i) r[i] = r[i] != 0;
  }
  char* unit_address(const Step& step) const {
    return step.memory + (*reinterpret_cast<const int64_t*>(step.a) + unit_index_) * step.size;
  }

  void transpose(const Transpose& t) {
    const auto from_size = static_cast<int64_t>(size_of(kernel_.buffers[static_cast<size_t>(t.from)].type));
    const auto to_size = static_cast<int64_t>(size_of(kernel_.buffers[static_cast<size_t>(t.to)].type));
    const auto* from = static_cast<const char*>(buffers_[t.from]) + *integer(t.base) * from_size;
    auto* to = static_cast<char*>(buffers_[t.to]);
    for (int64_t row = 0; row < *integer(t.rows); ++row) {
      for (int64_t column = 0; column < *integer(t.columns); ++column) {
        char* element = to + (column * t.pitch + row) * to_size;
        std::memset(element, 0, static_cast<size_t>(to_size));
        std::memcpy(element, from + (row * *integer(t.stride) + column) * from_size,
                    static_cast<size_t>(from_size));
      }
    }
  }

  void load_unit(const Step& step, int n) const {
    const size_t size = step.size;
    if (step.c == nullptr) {
      std::memcpy(step.r, unit_address(step), static_cast<size_t>(n) * size);
      return;
    }
    std::memset(step.r, 0, static_cast<size_t>(n) * size);
    for (size_t i = 0; i < static_cast<size_t>(n); ++i) {
      if (step.c[i] != 0) std::memcpy(step.r + i * size, unit_address(step) + i * size, size);
    }
  }

  void run_serial(LoopPlan& loop, int width) {
    for (ReducePlan& reduce : loop.reduces) {
      for (ReducePlan::Item& item : reduce.items)
        copy(item.result, item.init, item.size, loop.in_vector ? width : 1);
    }
    run_serial_dim(loop, 0, width);
    for (ReducePlan& reduce : loop.reduces) {
      for (ReducePlan::Item& item : reduce.items) {
        if (item.spread) fill(item.result, item.size);
      }
    }
  }

  void run_serial_dim(LoopPlan& loop, size_t d, int width) {
    if (d == loop.dims.size()) {
      run(loop.body, width);
      const int n = loop.in_vector ? width : 1;
      for (ReducePlan& reduce : loop.reduces) {
        for (ReducePlan::Item& item : reduce.items) {
          copy(item.left, item.result, item.size, n);
          copy(item.right, item.element, item.size, n);
        }
        run(reduce.combine, width);
        for (ReducePlan::Item& item : reduce.items) copy(item.result, item.combined, item.size, n);
      }
      return;
    }
    const LoopPlan::Dim& dim = loop.dims[d];
    const int64_t end = *dim.end;
    for (int64_t i = *dim.begin; i < end; ++i) {
      *dim.index = i;
      if (dim.spread) fill(reinterpret_cast<char*>(dim.index), 8);
      run_serial_dim(loop, d + 1, width);
    }
  }

  void run_vector(LoopPlan& loop) {
    for (ReducePlan& reduce : loop.reduces) {
      for (ReducePlan::Item& item : reduce.items) {
        for (int lane = 0; lane < reduce.lanes; ++lane)
          copy(item.lanes.data() + lane * item.size, item.init, item.size, 1);
      }
    }
    run_vector_dim(loop, 0);
    for (ReducePlan& reduce : loop.reduces) {
      for (int half = reduce.lanes / 2; half >= 1; half /= 2) {
        for (int lane = 0; lane < half; lane += kLanes) {
          const int n = std::min(kLanes, half - lane);
          for (ReducePlan::Item& item : reduce.items) {
            copy(item.right, item.lanes.data() + (lane + half) * item.size, item.size, n);
          }
          combine(reduce, lane, n);
        }
      }
      for (ReducePlan::Item& item : reduce.items) {
        copy(item.result, item.lanes.data(), item.size, 1);
        if (item.spread) fill(item.result, item.size);
      }
    }
  }

  /// lanes[lane ...] = combine(lanes[lane ...], right)
  void combine(ReducePlan& reduce, int lane, int n) {
    for (ReducePlan::Item& item : reduce.items)
      copy(item.left, item.lanes.data() + lane * item.size, item.size, n);
    run(reduce.combine, n);
    for (ReducePlan::Item& item : reduce.items)
      copy(item.lanes.data() + lane * item.size, item.combined, item.size, n);
  }

  void run_vector_dim(LoopPlan& loop, size_t d) {
    const LoopPlan::Dim& dim = loop.dims[d];
    const int64_t begin = *dim.begin, end = *dim.end;
    if (d + 1 < loop.dims.size()) {
      for (int64_t i = begin; i < end; ++i) {
        *dim.index = i;
        if (dim.spread) fill(reinterpret_cast<char*>(dim.index), 8);
        run_vector_dim(loop, d + 1);
      }
      return;
    }
    for (int64_t first = begin; first < end; first += kLanes) {
      const int width = static_cast<int>(std::min<int64_t>(kLanes, end - first));
      for (int i = 0; i < width; ++i) dim.index[i] = first + i;
      unit_index_ = first;
      run(loop.body, width);
      for (ReducePlan& reduce : loop.reduces) {
        const int step = std::min(reduce.lanes, kLanes);
        for (int i = 0; i < width; i += step) {
          const int n = std::min(step, width - i);
          for (ReducePlan::Item& item : reduce.items)
            copy(item.right, item.element + i * item.size, item.size, n);
          combine(reduce, static_cast<int>((first - begin + i) % reduce.lanes), n);
        }
      }
    }
  }

  static void copy(char* to, const char* from, int size, int n) {
    std::memcpy(to, from, static_cast<size_t>(size) * static_cast<size_t>(n));
  }

  const Kernel& kernel_;
  void* const* buffers_;
  std::vector<bool> varying_, read_wide_;
  std::vector<uint64_t> file_;
  std::vector<char*> registers_;
  std::vector<std::unique_ptr<LoopPlan>> loops_;
  std::vector<std::unique_ptr<RarePlan>> rares_;
  Steps program_;
  int64_t unit_index_ = 0;  ///< the vector loop's index in lane 0
  int32_t failed_ = 0;
};

}  // namespace

int32_t interpret(const Kernel& kernel, void* const* buffers, const int64_t* params, int64_t begin,
                  int64_t end) {
  return Interpreter(kernel, buffers, params, begin, end).run();
}

}  // namespace lohe::ir
