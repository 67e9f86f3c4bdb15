#include <cinttypes>
#include <cstdio>

#include "ir/eval.h"

namespace lohe::ir {
namespace {

class Printer {
 public:
  explicit Printer(const Kernel& kernel) : kernel_(kernel) {}

  std::string run() {
    out_ = "kernel " + kernel_.name + ", " + std::to_string(kernel_.params) + " params\n";
    for (size_t i = 0; i < kernel_.buffers.size(); ++i) {
      const Buffer& buffer = kernel_.buffers[i];
      out_ += "buffer " + std::to_string(i) + ": " + name(buffer.type) + (buffer.written ? " written" : "") +
              (buffer.scratch ? " scratch" : "") + "\n";
    }
    for (size_t i = 0; i < kernel_.tables.size(); ++i) {
      out_ += "table " + std::to_string(i) + ":";
      for (const uint32_t x : kernel_.tables[i]) out_ += " " + hexadecimal(x);
      out_ += "\n";
    }
    print(kernel_.body, 0);
    return std::move(out_);
  }

 private:
  static std::string hexadecimal(uint64_t bits) {
    char text[24];
    std::snprintf(text, sizeof text, "0x%" PRIx64, bits);
    return text;
  }
  static std::string number(Value v) { return "%" + std::to_string(v); }
  static std::string list(const std::vector<Value>& values) {
    std::string text;
    for (const Value v : values) text += " " + number(v);
    return text;
  }
  void line(int depth, const std::string& text) {
    out_ += std::string(static_cast<size_t>(depth) * 2, ' ') + text + "\n";
  }
  std::string typed(const std::vector<Value>& values) const {
    std::string text;
    for (const Value v : values) {
      text += " " + number(v) + ":" + name(kernel_.insts[static_cast<size_t>(v)].type);
    }
    return text;
  }

  std::string text(Value v) const {
    const Inst& inst = kernel_.insts[static_cast<size_t>(v)];
    std::string text = number(v) + ":" + name(inst.type) + " = " + name(inst.op);
    if (inst.op == Op::kConst) text += " " + hexadecimal(inst.imm);
    if (inst.op == Op::kParam || inst.op == Op::kTable) text += " " + std::to_string(inst.imm);
    if (is_load(inst.op)) text += " buffer " + std::to_string(inst.buffer);
    for (const Value operand : {inst.a, inst.b, inst.c}) {
      if (operand != kNoValue) text += " " + number(operand);
    }
    return text;
  }

  void print(const Block& block, int depth) {
    for (const Stmt& stmt : block) {
      if (const auto* define = std::get_if<Define>(&stmt)) {
        line(depth, text(define->value));
      } else if (const auto* store = std::get_if<Store>(&stmt)) {
        line(depth, std::string(store->unit ? "store_unit" : "store") + " buffer " +
                        std::to_string(store->buffer) + " " + number(store->index) + " " +
                        number(store->value) + (store->next == kNoValue ? "" : " " + number(store->next)));
      } else if (const auto* t = std::get_if<Transpose>(&stmt)) {
        line(depth, "transpose buffer " + std::to_string(t->from) + " into " + std::to_string(t->to) +
                        list({t->base, t->stride, t->rows, t->columns}) + " pitch " +
                        std::to_string(t->pitch));
      } else if (const auto* check = std::get_if<Check>(&stmt)) {
        line(depth, "check " + number(check->condition) + " code " + std::to_string(check->code));
      } else if (const auto* rare = std::get_if<std::unique_ptr<Rare>>(&stmt)) {
        print(**rare, depth);
      } else {
        print(*std::get<std::unique_ptr<Loop>>(stmt), depth);
      }
    }
  }

  void print(const Rare& rare, int depth) {
    line(depth, "rare " + number(rare.condition) + " into" + typed(rare.results));
    print(rare.body, depth + 1);
    line(depth, "leave" + list(rare.computed) + " else" + list(rare.usual));
  }

  void print(const Loop& loop, int depth) {
    std::string head = loop.vector ? "vector loop" : "loop";
    for (const Loop::Dim& dim : loop.dims) {
      head += " " + number(dim.index) + " in [" + number(dim.begin) + ", " + number(dim.end) + ")";
    }
    line(depth, head);
    print(loop.body, depth + 1);
    for (const Reduce& reduce : loop.reduces) {
      line(depth, "reduce" + list(reduce.elements) + " from" + list(reduce.init) + " lanes " +
                      std::to_string(reduce.lanes) + " into" + typed(reduce.results));
      line(depth, "combine" + typed(reduce.left) + " with" + typed(reduce.right));
      print(reduce.combine, depth + 1);
      line(depth, "leave" + list(reduce.combined));
    }
    line(depth, "end");
  }

  const Kernel& kernel_;
  std::string out_;
};

}  // namespace

std::string print(const Kernel& kernel) { return Printer(kernel).run(); }

}  // namespace lohe::ir
