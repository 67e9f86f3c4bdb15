#include "ir/eval.h"
#include "lohe/error.h"

namespace lohe::ir {
namespace {

class Checker {
 public:
  explicit Checker(const Kernel& kernel)
      : kernel_(kernel),
        available_(kernel.insts.size()),
        defined_(kernel.insts.size()),
        varying_(kernel.insts.size()) {}

  void run() {
    for (const Buffer& buffer : kernel_.buffers)
      require(!buffer.scratch || buffer.written, "a scratch buffer must be written");
    visit(kernel_.body, Context{});
  }

 private:
  static constexpr const char* kArithmeticOnly = "combine blocks and bodies of rares hold arithmetic only";

  struct Context {
    bool in_vector = false, arithmetic_only = false;
  };

  /// Everything that is wrong is said together with the place: the last instruction or statement visited.
  template <class... Parts>
  void require(bool condition, const Parts&... parts) const {
    if (!condition) raise(ErrorKind::kInternal, "kernel ", kernel_.name, ", ", place_, ": ", parts...);
  }

  const Inst& inst(Value v) const { return kernel_.insts[static_cast<size_t>(v)]; }
  Type type(Value v) const { return inst(v).type; }
  bool varies(Value v) const { return v != kNoValue && varying_[static_cast<size_t>(v)]; }

  void in_range(Value v) const {
    require(v >= 0 && static_cast<size_t>(v) < kernel_.insts.size(), "value ", v, " does not exist");
  }
  void use(Value v) const {
    in_range(v);
    require(available_[static_cast<size_t>(v)], "%", v, " is not defined here");
  }
  void use(Value v, Type expected) const {
    use(v);
    require(type(v) == expected, "%", v, " has type ", name(type(v)), ", expected ", name(expected));
  }
  const Buffer& buffer(int16_t number) const {
    require(number >= 0 && static_cast<size_t>(number) < kernel_.buffers.size(), "buffer ", number,
            " does not exist");
    return kernel_.buffers[static_cast<size_t>(number)];
  }

  void define(Value v, bool varying) {
    in_range(v);
    require(!defined_[static_cast<size_t>(v)], "%", v, " is defined twice");
    defined_[static_cast<size_t>(v)] = available_[static_cast<size_t>(v)] = true;
    varying_[static_cast<size_t>(v)] = varying;
    scope_.push_back(v);
  }
  /// A value that a loop defines: an index, an accumulator or a result.
  void define(Value v, Op op, Type expected, bool varying) {
    define(v, varying);
    require(inst(v).op == op && type(v) == expected, "%", v, " must be ", name(op), " of type ",
            name(expected), ", got ", name(inst(v).op), " of type ", name(type(v)));
  }

  void leave_scope(size_t depth) {
    for (; scope_.size() > depth; scope_.pop_back()) available_[static_cast<size_t>(scope_.back())] = false;
  }

  void visit(const Block& block, Context context) {
    for (const Stmt& stmt : block) {
      if (const auto* d = std::get_if<Define>(&stmt)) {
        visit(d->value, context);
      } else if (const auto* store = std::get_if<Store>(&stmt)) {
        place_ = "store to buffer " + std::to_string(store->buffer);
        visit(*store, context);
      } else if (const auto* t = std::get_if<Transpose>(&stmt)) {
        place_ = "transpose of buffer " + std::to_string(t->from);
        visit(*t, context);
      } else if (const auto* check = std::get_if<Check>(&stmt)) {
        place_ = "check with code " + std::to_string(check->code);
        require(!context.arithmetic_only, kArithmeticOnly);
        use(check->condition, Type::kBool);
        require(check->code > 0, "the code must be positive");
      } else if (const auto* rare = std::get_if<std::unique_ptr<Rare>>(&stmt)) {
        place_ = "rare";
        require(*rare != nullptr, "null");
        visit(**rare, context);
      } else {
        place_ = "loop";
        require(!context.arithmetic_only, kArithmeticOnly);
        const auto& loop = std::get<std::unique_ptr<Loop>>(stmt);
        require(loop != nullptr, "null");
        visit(*loop, context);
      }
    }
  }

  void visit(const Store& store, Context context) {
    require(!context.arithmetic_only, kArithmeticOnly);
    const Buffer& to = buffer(store.buffer);
    require(to.written, "the buffer is not marked as written");
    use(store.index, Type::kI64);
    use(store.value, to.type);
    if (store.next != kNoValue) {
      require(store.unit, "only unit stores say what is written soon");
      use(store.next, Type::kI64);
      require(!varies(store.next), "what is written soon begins at a uniform place");
    }
    if (store.unit) unit_access(store.index, context);
  }

  void visit(const Transpose& t, Context context) {
    require(!context.arithmetic_only, kArithmeticOnly);
    require(!context.in_vector, "a vector loop has no tiles");
    for (const Value v : {t.base, t.stride, t.rows, t.columns}) use(v, Type::kI64);
    const Buffer &from = buffer(t.from), &to = buffer(t.to);
    require(to.written && to.scratch, "only scratch takes tiles");
    require(to.type == (size_of(from.type) < 4 ? Type::kI32 : from.type), "scratch of another type");
    require(t.pitch >= Transpose::kTile, "columns overlap");
  }

  void unit_access(Value base, Context context) const {
    require(context.in_vector, "unit access needs an enclosing vector loop");
    require(!varies(base), "the base %", base, " of a unit access must be uniform");
  }

  void visit(Value v, Context context) {
    place_ = "definition of value " + std::to_string(v);
    in_range(v);
    const Inst& i = inst(v);
    place_ = "%" + std::to_string(v) + " = " + name(i.op) + " of type " + name(i.type);
    const int count = operand_count(i.op);
    const Value operands[] = {i.a, i.b, i.c};
    bool varying = i.op == Op::kLoadUnit;
    if (is_load(i.op) && i.c != kNoValue) {
      use(i.c, Type::kBool);
      varying = varying || varies(i.c);
    }
    if (i.op == Op::kLoadUnit && i.b != kNoValue) {
      use(i.b, Type::kI64);
      require(!varies(i.b), "what is read soon begins at a uniform place");
    }
    for (int k = 0; k < 3; ++k) {
      if (k >= count) {
        if ((i.op == Op::kLoadUnit && k == 1) || (is_load(i.op) && k == 2)) continue;
        require(operands[k] == kNoValue, "takes ", count, " operands");
        continue;
      }
      require(operands[k] != kNoValue, "takes ", count, " operands");
      use(operands[k]);
      varying = varying || varies(operands[k]);
    }
    switch (i.op) {
      case Op::kConst:
        require(
            i.type == Type::kBool ? i.imm <= 1 : size_of(i.type) == 8 || i.imm >> size_of(i.type) * 8 == 0,
            "the bits ", i.imm, " do not fit the type");
        break;
      case Op::kParam:
        require(i.imm < static_cast<uint64_t>(kernel_.params), "slot ", i.imm, " of ", kernel_.params,
                " parameters");
        break;
      case Op::kBegin:
      case Op::kEnd:
        require(i.type == Type::kI64, "must have type i64");
        break;
      case Op::kIndex:
      case Op::kCarry:
        require(false, "is defined by its loop only");
        break;
      case Op::kLoad:
      case Op::kLoadUnit: {
        require(!context.arithmetic_only, kArithmeticOnly);
        require(i.type == buffer(i.buffer).type, "the buffer has type ", name(buffer(i.buffer).type));
        use(i.a, Type::kI64);
        if (i.op == Op::kLoadUnit) unit_access(i.a, context);
        break;
      }
      default:
        arithmetic(i, count);
    }
    define(v, varying);
  }

  void arithmetic(const Inst& i, int count) const {
    const bool selects = i.op == Op::kSelect;
    const Type operand = type(selects ? i.b : i.a);
    const Value operands[] = {i.a, i.b, i.c};
    for (int k = 0; k < count; ++k) use(operands[k], selects && k == 0 ? Type::kBool : operand);
    require(i.op != Op::kTable || i.imm < kernel_.tables.size(), "table ", i.imm, " of ",
            kernel_.tables.size());
    require(lane_function(i.op, i.type, operand) != nullptr, "is not defined for operands of type ",
            name(operand));
  }

  void visit(const Rare& rare, Context context) {
    use(rare.condition, Type::kBool);
    const size_t count = rare.usual.size();
    require(count > 0 && rare.computed.size() == count && rare.results.size() == count,
            "the lists must have one length, at least 1");
    for (const Value v : rare.usual) use(v);
    const size_t outside = scope_.size();
    visit(rare.body, Context{context.in_vector, true});
    place_ = "rare";
    std::vector<bool> varying;
    for (size_t i = 0; i < count; ++i) {
      use(rare.computed[i], type(rare.usual[i]));
      varying.push_back(varies(rare.condition) || varies(rare.computed[i]) || varies(rare.usual[i]));
    }
    leave_scope(outside);
    for (size_t i = 0; i < count; ++i) define(rare.results[i], Op::kCarry, type(rare.usual[i]), varying[i]);
  }

  void visit(const Loop& loop, Context context) {
    require(!loop.dims.empty(), "has no dims");
    require(!(loop.vector && context.in_vector), "vector loops do not nest");
    for (const Loop::Dim& dim : loop.dims) {
      for (const Value bound : {dim.begin, dim.end}) {
        use(bound, Type::kI64);
        require(!varies(bound), "the bound %", bound, " must be uniform");
      }
    }
    const bool wide = context.in_vector || loop.vector;
    for (const Reduce& reduce : loop.reduces) {
      const size_t count = reduce.init.size();
      require(count > 0 && reduce.elements.size() == count && reduce.left.size() == count &&
                  reduce.right.size() == count && reduce.combined.size() == count &&
                  reduce.results.size() == count,
              "a reduction's lists must have one length, at least 1");
      if (loop.vector) {
        require(reduce.lanes >= 16 && (reduce.lanes & (reduce.lanes - 1)) == 0,
                "a vector loop's reduction has ", reduce.lanes,
                " lanes, expected a power of two of at least 16");
      } else {
        require(reduce.lanes == 0, "a serial loop's reduction has no lanes, got ", reduce.lanes);
      }
      for (const Value v : reduce.init) {
        use(v);
        require(!(loop.vector && varies(v)), "the initial value %", v, " must be uniform");
        require(!is_half(type(v)), "half types cannot be reduced");
      }
    }
    const size_t outside = scope_.size();
    for (size_t d = 0; d < loop.dims.size(); ++d) {
      define(loop.dims[d].index, Op::kIndex, Type::kI64, loop.vector && d + 1 == loop.dims.size());
    }
    visit(loop.body, Context{wide, false});
    place_ = "reduction";
    for (const Reduce& reduce : loop.reduces) {
      for (size_t i = 0; i < reduce.init.size(); ++i) use(reduce.elements[i], type(reduce.init[i]));
    }
    leave_scope(outside);
    for (const Reduce& reduce : loop.reduces) {
      place_ = "reduction";
      for (size_t i = 0; i < reduce.init.size(); ++i) {
        define(reduce.left[i], Op::kCarry, type(reduce.init[i]), wide);
        define(reduce.right[i], Op::kCarry, type(reduce.init[i]), wide);
      }
      visit(reduce.combine, Context{wide, true});
      place_ = "reduction";
      for (size_t i = 0; i < reduce.init.size(); ++i) use(reduce.combined[i], type(reduce.init[i]));
      leave_scope(outside);
    }
    for (const Reduce& reduce : loop.reduces) {
      for (size_t i = 0; i < reduce.init.size(); ++i) {
        define(reduce.results[i], Op::kCarry, type(reduce.init[i]), context.in_vector);
      }
    }
  }

  const Kernel& kernel_;
  std::vector<bool> available_, defined_, varying_;
  std::vector<Value> scope_;  ///< available values in the order of definition
  std::string place_ = "buffers";
};

}  // namespace

void check(const Kernel& kernel) { Checker(kernel).run(); }

}  // namespace lohe::ir
