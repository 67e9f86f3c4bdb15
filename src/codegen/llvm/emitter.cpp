#include "codegen/llvm/emitter.h"

#include <llvm/IR/Intrinsics.h>
#include <llvm/IR/MDBuilder.h>

#include <algorithm>
#include <optional>

#include "codegen/llvm/control.h"
#include "codegen/llvm/memory.h"
#include "lohe/error.h"

// Why the generator writes explicit vectors: LLVM's loop vectoriser took two to four times as long to compile
// and lost up to five times in speed on row reductions (a maximum needs nnan before it will touch it), and
// its choices would decide the bits of a reduction. Here the virtual lanes of the IR are laid over registers:
// `lanes` / width accumulators, so that the width is a matter of speed only.
//
// A vector loop becomes up to three loops over one body: an unrolled one (where the body is light or
// straight, or has accumulators to keep in registers), one of single vectors, and one masked step for the
// rest. Of a row inside other loops, which may be short, the rest is code of its own for each number of
// vectors instead at AVX-512: no loop, and accumulators stay in registers (sums of rows of 5 to 127 floats
// take half the time, norms two thirds; at AVX2, where such a row has up to eight vectors, nothing was
// gained).
//
// The steps of an unrolled straight body are woven into one another. A function such as exp is a chain of
// some thirty instructions of four cycles each, and a processor's registers hold three or four such chains,
// if they stand behind one another (Zen 4: 160 results); side by side, four chains take a tenth of that and
// never wait.
//
// Accumulators live in stack slots between those loops, so that a nest of dims, the remainder and the masked
// step need no copies of the body for each accumulator; the unrolled loop holds them in registers.

namespace lohe::codegen {
namespace {

using ir::Op;
using ir::Type;

/// Bodies up to this many instructions wait for memory: two steps keep several loads in flight.
constexpr int kLightBody = 12;
/// Instructions that an unrolled reduction may grow to; beyond it accumulators stay in their stack slots.
constexpr int kUnrolledBudget = 160;
/// The same for straight bodies, and for those without reductions; so many steps are woven at a time.
constexpr int kWovenBudget = 640;
constexpr int kWovenSteps = 4;

class Emitter : MemoryEmitter {
 public:
  Emitter(const ir::Kernel& kernel, CpuLevel level, const std::string& symbol, llvm::Module& module)
      : MemoryEmitter(kernel, level, module) {
    llvm::Type* pointer = b_.getPtrTy();
    auto* type =
        llvm::FunctionType::get(b_.getInt32Ty(), {pointer, pointer, b_.getInt64Ty(), b_.getInt64Ty()}, false);
    function_ = llvm::Function::Create(type, llvm::GlobalValue::ExternalLinkage, symbol, module);
    function_->setDoesNotThrow();
    // So that loops begin within a line as they did when they were measured, wherever a kernel is put.
    function_->setAlignment(llvm::Align(64));
    function_->addFnAttr("prefer-vector-width", std::to_string(8 * register_bytes(level)));
    function_->addFnAttr("min-legal-vector-width", std::to_string(8 * register_bytes(level)));
    for (unsigned i = 0; i < 2; ++i) {
      function_->addParamAttr(i, llvm::Attribute::NoAlias);
      function_->addParamAttr(i, llvm::Attribute::ReadOnly);
      function_->addParamAttr(i, llvm::Attribute::NoCapture);
    }
  }

  void run() {
    entry_ = new_block("entry");
    b_.SetInsertPoint(entry_);
    llvm::BasicBlock* start = new_block("start");
    for (size_t i = 0; i < kernel_.buffers.size(); ++i) {
      llvm::Value* slot = b_.CreateConstGEP1_64(b_.getPtrTy(), function_->getArg(0), i);
      pointers_.push_back(b_.CreateLoad(b_.getPtrTy(), slot));
    }
    load_parameters();
    status_ = has_checks(kernel_.body) ? allocate(b_.getInt32Ty()) : nullptr;
    if (status_ != nullptr) b_.CreateStore(b_.getInt32(0), status_);
    llvm::Instruction* jump = b_.CreateBr(start);
    allocation_point_ = jump;
    b_.SetInsertPoint(start);
    emit(kernel_.body);
    b_.CreateRet(status_ == nullptr ? b_.getInt32(0)
                                    : static_cast<llvm::Value*>(b_.CreateLoad(b_.getInt32Ty(), status_)));
  }

 private:
  using MemoryEmitter::emit;

  void load_parameters() {
    for (size_t v = 0; v < kernel_.insts.size(); ++v) {
      const ir::Inst& inst = kernel_.insts[v];
      if (inst.op != Op::kParam) continue;
      llvm::Value* slot = b_.CreateConstGEP1_64(b_.getInt64Ty(), function_->getArg(1), inst.imm);
      llvm::Value* word = b_.CreateLoad(b_.getInt64Ty(), slot);
      if (inst.type == Type::kBool) {
        values_[v] = b_.CreateICmpNE(word, b_.getInt64(0));
        continue;
      }
      llvm::Value* low =
          b_.CreateTrunc(word, b_.getIntNTy(static_cast<unsigned>(8 * ir::size_of(inst.type))));
      values_[v] = b_.CreateBitCast(low, arithmetic_.type(inst.type, 0));
    }
  }

  void define(ir::Value v) {
    const ir::Inst& inst = kernel_.insts[v];
    switch (inst.op) {
      case Op::kConst:
      case Op::kParam:
      case Op::kBegin:
      case Op::kEnd:
        return;
      case Op::kLoad:
      case Op::kLoadUnit:
        values_[v] = load(inst);
        return;
      case Op::kTable:
        values_[v] = arithmetic_.look_up(kernel_.tables[inst.imm], scalar(inst.a));
        return;
      default:
        break;
    }
    const bool wide = varying_[v];
    const Type from = kernel_.insts[inst.a].type;
    // A select between vectors by one condition needs no vector of conditions.
    const bool wide_first = wide && !(inst.op == Op::kSelect && !varying_[inst.a]);
    values_[v] = arithmetic_.apply(inst.op, inst.type, from, operand(inst.a, wide_first),
                                   operand(inst.b, wide), operand(inst.c, wide));
  }

  void emit(const ir::Check& check) {
    llvm::Value* failed = b_.CreateNot(scalar(check.condition));
    if (failed->getType()->isVectorTy()) {
      if (step_.mask != nullptr) failed = b_.CreateAnd(failed, step_.mask);
      failed = b_.CreateOrReduce(failed);
    }
    llvm::Value* code =
        b_.CreateSelect(failed, b_.getInt32(static_cast<uint32_t>(check.code)), b_.getInt32(0));
    llvm::Value* before = b_.CreateLoad(b_.getInt32Ty(), status_);
    b_.CreateStore(b_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, before, code), status_);
  }

  // Control

  llvm::BasicBlock* new_block(const char* label) {
    return llvm::BasicBlock::Create(b_.getContext(), label, function_);
  }

  void emit(const ir::Block& block) {
    for (size_t i = 0; i < block.size(); ++i) {
      if (i + 1 < block.size() && emit_pairs(block[i], block[i + 1]))
        ++i;
      else
        emit(block[i]);
    }
  }

  void emit(const ir::Stmt& stmt) {
    if (const auto* d = std::get_if<ir::Define>(&stmt)) {
      define(d->value);
    } else if (const auto* s = std::get_if<ir::Store>(&stmt)) {
      emit(*s);
    } else if (const auto* c = std::get_if<ir::Check>(&stmt)) {
      emit(*c);
    } else if (const auto* transpose = std::get_if<ir::Transpose>(&stmt)) {
      emit(*transpose);
    } else if (const auto* rare = std::get_if<std::unique_ptr<ir::Rare>>(&stmt)) {
      emit(**rare);
    } else {
      const ir::Loop& loop = *std::get<std::unique_ptr<ir::Loop>>(stmt);
      loop.vector ? emit_vector(loop) : emit_serial(loop);
    }
  }

  using Body = FunctionRef<Values(llvm::Value* index, const Values& carried)>;
  Values emit_loop(llvm::Value* begin, llvm::Value* end, uint64_t step, const Values& initial, Body body) {
    return counted_loop(b_, begin, end, step, initial, body);
  }

  void emit(const ir::Rare& rare) {
    llvm::Value* condition = scalar(rare.condition);
    llvm::Value* any = condition->getType()->isVectorTy() ? b_.CreateOrReduce(condition) : condition;
    Values usual;
    for (size_t i = 0; i < rare.usual.size(); ++i)
      usual.push_back(operand(rare.usual[i], varying_[rare.results[i]]));
    llvm::BasicBlock* before = b_.GetInsertBlock();
    llvm::BasicBlock* inside = new_block("rare");
    llvm::BasicBlock* after = new_block("after_rare");
    // Registers are spilled inside, not on the way past it.
    b_.CreateCondBr(any, inside, after, llvm::MDBuilder(b_.getContext()).createBranchWeights(1, 1 << 20));
    b_.SetInsertPoint(inside);
    emit(rare.body);
    Values chosen;
    for (size_t i = 0; i < usual.size(); ++i) {
      llvm::Value* computed = operand(rare.computed[i], varying_[rare.results[i]]);
      chosen.push_back(b_.CreateSelect(condition, computed, usual[i]));
    }
    inside = b_.GetInsertBlock();
    b_.CreateBr(after);
    b_.SetInsertPoint(after);
    for (size_t i = 0; i < usual.size(); ++i) {
      llvm::PHINode* phi = b_.CreatePHI(usual[i]->getType(), 2);
      phi->addIncoming(usual[i], before);
      phi->addIncoming(chosen[i], inside);
      values_[rare.results[i]] = phi;
    }
  }

  /// Runs the combine block on (left, right) and returns what it leaves.
  Values combine(const ir::Reduce& reduce, const Values& left, const Values& right) {
    for (size_t i = 0; i < left.size(); ++i) {
      values_[reduce.left[i]] = left[i];
      values_[reduce.right[i]] = right[i];
    }
    emit(reduce.combine);
    Values result;
    for (size_t i = 0; i < left.size(); ++i) {
      llvm::Value* value = scalar(reduce.combined[i]);
      const bool wide = left[i]->getType()->isVectorTy();
      result.push_back(wide && !value->getType()->isVectorTy() ? arithmetic_.splat(value, step_.width)
                                                               : value);
    }
    return result;
  }

  // Serial loops

  void emit_serial(const ir::Loop& loop) {
    const bool wide = step_.width != 0;
    Values initial;
    for (const ir::Reduce& reduce : loop.reduces) {
      for (ir::Value init : reduce.init) initial.push_back(operand(init, wide));
    }
    ++serial_depth_;
    const Values results = emit_serial_dim(loop, 0, initial);
    --serial_depth_;
    size_t next = 0;
    for (const ir::Reduce& reduce : loop.reduces) {
      for (ir::Value result : reduce.results) values_[result] = results[next++];
    }
  }

  Values emit_serial_dim(const ir::Loop& loop, size_t dim, const Values& initial) {
    const ir::Loop::Dim& d = loop.dims[dim];
    return emit_loop(
        scalar(d.begin), scalar(d.end), 1, initial, [&](llvm::Value* index, const Values& carried) {
          values_[d.index] = index;
          if (dim + 1 < loop.dims.size()) return emit_serial_dim(loop, dim + 1, carried);
          emit(loop.body);
          Values next;
          for (const ir::Reduce& reduce : loop.reduces) {
            const size_t first = next.size();
            const Values left(carried.begin() + first, carried.begin() + first + reduce.init.size());
            Values right;
            for (ir::Value element : reduce.elements) right.push_back(operand(element, step_.width != 0));
            const Values combined = combine(reduce, left, right);
            next.insert(next.end(), combined.begin(), combined.end());
          }
          return next;
        });
  }

  // Vector loops

  /// The accumulators of one Reduce: for each of its values, lanes / width vectors in consecutive stack
  /// slots.
  struct Accumulators {
    const ir::Reduce* reduce;
    std::vector<llvm::AllocaInst*> slots;
    int count;
  };

  llvm::Type* slot_type(Type t) const { return memory_type(t, step_.width); }

  llvm::Value* load_slot(const Accumulators& acc, size_t value, llvm::Value* number) {
    const Type t = kernel_.insts[acc.reduce->left[value]].type;
    llvm::Value* at = b_.CreateGEP(slot_type(t), acc.slots[value], number);
    return arithmetic_.from_memory(b_.CreateLoad(slot_type(t), at), t);
  }
  void store_slot(const Accumulators& acc, size_t value, llvm::Value* number, llvm::Value* x) {
    const Type t = kernel_.insts[acc.reduce->left[value]].type;
    b_.CreateStore(arithmetic_.to_memory(x, t), b_.CreateGEP(slot_type(t), acc.slots[value], number));
  }

  void emit_vector(const ir::Loop& loop) {
    LOHE_INTERNAL_ASSERT(step_.width == 0, "vector loops nest in kernel ", kernel_.name);
    step_ = {};
    step_.width = vector_width(kernel_, varying_, loop, level_);
    step_.number = loop.dims.back().index;
    std::vector<Accumulators> accumulators;
    for (const ir::Reduce& reduce : loop.reduces) {
      Accumulators acc{&reduce, {}, reduce.lanes / step_.width};
      for (size_t i = 0; i < reduce.init.size(); ++i) {
        acc.slots.push_back(
            allocate(slot_type(kernel_.insts[reduce.left[i]].type), static_cast<uint64_t>(acc.count)));
        llvm::Value* init = vector(reduce.init[i]);
        for (int n = 0; n < acc.count; ++n) store_slot(acc, i, number(n), init);
      }
      accumulators.push_back(std::move(acc));
    }
    emit_vector_dim(loop, 0, accumulators);
    for (const Accumulators& acc : accumulators) finish(acc);
    step_ = {};
  }

  void emit_vector_dim(const ir::Loop& loop, size_t dim, const std::vector<Accumulators>& accumulators) {
    const ir::Loop::Dim& d = loop.dims[dim];
    if (dim + 1 == loop.dims.size()) {
      emit_lanes(loop, accumulators);
      return;
    }
    emit_loop(scalar(d.begin), scalar(d.end), 1, {}, [&](llvm::Value* index, const Values&) {
      values_[d.index] = index;
      emit_vector_dim(loop, dim + 1, accumulators);
      return Values{};
    });
  }

  /// One vector of the loop's body.
  void emit_body(const ir::Loop& loop, llvm::Value* index, llvm::Value* count = nullptr) {
    step_.index = index;
    step_.count = count;
    step_.mask = mask_of(count);
    number_lanes(loop);
    emit(loop.body);
  }

  llvm::Value* mask_of(llvm::Value* count) {
    return count == nullptr ? nullptr : arithmetic_.lanes_below(count, step_.width);
  }

  void number_lanes(const ir::Loop& loop) {
    std::vector<llvm::Constant*> lanes;
    for (int i = 0; i < step_.width; ++i) lanes.push_back(b_.getInt64(static_cast<uint64_t>(i)));
    values_[loop.dims.back().index] =
        b_.CreateAdd(arithmetic_.splat(step_.index, step_.width), llvm::ConstantVector::get(lanes));
  }

  /// The vectors number `first`, `first` + 1, ... from `index` on, `steps` of them: each statement of the
  /// body for all of them before the next statement, then `after(number)` for each. @param counts of each
  /// one's active lanes (null: all), or none
  template <class F>
  void emit_woven(const ir::Loop& loop, llvm::Value* index, uint64_t first, uint64_t steps, const F& after,
                  const Values& counts = {}) {
    Values at;
    for (uint64_t u = first; u < first + steps; ++u)
      at.push_back(b_.CreateAdd(index, b_.getInt64(u * static_cast<uint64_t>(step_.width))));
    if (steps == 1 && counts.empty()) {
      emit_body(loop, at[0]);
      after(first);
      return;
    }
    step_.mask = step_.count = nullptr;
    Values masks;
    for (llvm::Value* count : counts) masks.push_back(mask_of(count));
    std::vector<Values> values(steps, values_);
    const auto in_each = [&](const auto& f) {
      for (uint64_t u = 0; u < steps; ++u) {
        step_.index = at[u];
        if (!counts.empty()) {
          step_.count = counts[u];
          step_.mask = masks[u];
        }
        values_.swap(values[u]);
        f(first + u);
        values_.swap(values[u]);
      }
    };
    in_each([&](uint64_t) { number_lanes(loop); });
    for (const ir::Stmt& stmt : loop.body) in_each([&](uint64_t) { emit(stmt); });
    in_each(after);
  }

  Values elements(const ir::Reduce& reduce) {
    Values result;
    for (ir::Value element : reduce.elements) result.push_back(vector(element));
    return result;
  }

  /// The body once, with accumulators in their slots.
  void emit_single(const ir::Loop& loop, const std::vector<Accumulators>& accumulators, llvm::Value* begin,
                   llvm::Value* index, llvm::Value* count = nullptr) {
    emit_body(loop, index, count);
    for (const Accumulators& acc : accumulators) {
      llvm::Value* which = number(0);
      if (acc.count > 1) {
        which = b_.CreateLShr(b_.CreateSub(index, begin),
                              number(__builtin_ctz(static_cast<unsigned>(step_.width))));
        which = b_.CreateAnd(which, number(acc.count - 1));
      }
      fold(acc, which);
    }
  }

  /// Combines the elements of a step with the slots of accumulator number `which`.
  void fold(const Accumulators& acc, llvm::Value* which) {
    Values left;
    for (size_t i = 0; i < acc.slots.size(); ++i) left.push_back(load_slot(acc, i, which));
    const Values combined = combine(*acc.reduce, left, elements(*acc.reduce));
    for (size_t i = 0; i < left.size(); ++i) {
      store_slot(acc, i, which,
                 step_.mask == nullptr ? combined[i] : b_.CreateSelect(step_.mask, combined[i], left[i]));
    }
  }

  /// At x86-64-v2 an fma alone is twenty instructions.
  bool weaves(const ir::Block& body) const { return level_ != CpuLevel::kV2 && is_straight(body); }

  /// Instructions of a step.
  static int step_size(const ir::Loop& loop, const std::vector<Accumulators>& accumulators) {
    int size = count_instructions(loop.body);
    for (const Accumulators& acc : accumulators) size += count_instructions(acc.reduce->combine);
    return size;
  }

  int unroll_factor(const ir::Loop& loop, const std::vector<Accumulators>& accumulators) const {
    const bool nested = std::any_of(loop.body.begin(), loop.body.end(), [](const ir::Stmt& stmt) {
      return std::holds_alternative<std::unique_ptr<ir::Loop>>(stmt);
    });
    const int size = step_size(loop, accumulators);
    if (accumulators.empty()) {
      if (nested) return 1;
      if (size <= kLightBody) return 2;
      int steps = weaves(loop.body) ? kWovenSteps : 1;
      while (steps * size > kWovenBudget) steps /= 2;
      return std::max(steps, 1);
    }
    int factor = 1, values = 0;
    for (const Accumulators& acc : accumulators) {
      factor = std::max(factor, acc.count);
      values += acc.count * static_cast<int>(acc.slots.size());
    }
    // 32 registers at AVX-512, 16 below; the body needs some of its own.
    const int registers = level_ == CpuLevel::kAvx512 ? 24 : 16;
    const int budget = weaves(loop.body) ? kWovenBudget : kUnrolledBudget;
    return !nested && values <= registers && factor * size <= budget ? factor : 0;
  }

  /// Whether what is left of a row is worth code of its own for each number of vectors: rows are many and may
  /// be short.
  bool weaves_rest(const ir::Loop& loop, const std::vector<Accumulators>& accumulators, int steps) const {
    return stores_by_mask() && (serial_depth_ > 0 || loop.dims.size() > 1) && weaves(loop.body) &&
           steps * (steps + 1) / 2 * step_size(loop, accumulators) <= kWovenBudget;
  }

  /// The innermost dim: unrolled steps, single vectors, the masked rest.
  void emit_lanes(const ir::Loop& loop, const std::vector<Accumulators>& accumulators) {
    const ir::Loop::Dim& d = loop.dims.back();
    llvm::Value* begin = scalar(d.begin);
    llvm::Value* size = b_.CreateSub(scalar(d.end), begin);
    llvm::Value* count = b_.CreateBinaryIntrinsic(llvm::Intrinsic::smax, size, number(0));
    const uint64_t width = static_cast<uint64_t>(step_.width);
    const uint64_t unroll = static_cast<uint64_t>(unroll_factor(loop, accumulators));
    const auto multiple_of = [&](uint64_t n) { return b_.CreateAnd(count, b_.getInt64(~(n - 1))); };
    llvm::Value* done = begin;
    if (unroll > 1 || (unroll == 1 && !accumulators.empty())) {
      llvm::Value* main_end = b_.CreateAdd(begin, multiple_of(width * unroll));
      emit_unrolled(loop, accumulators, begin, main_end, unroll);
      done = main_end;
    }
    if (unroll > 1 && unroll <= kWovenSteps && weaves_rest(loop, accumulators, static_cast<int>(unroll))) {
      emit_rest(loop, accumulators, done, b_.CreateAnd(count, b_.getInt64(width * unroll - 1)), unroll);
      return;
    }
    llvm::Value* whole = b_.CreateAdd(begin, multiple_of(width));
    if (done == begin || unroll > 1) {
      emit_loop(done, whole, width, {}, [&](llvm::Value* index, const Values&) {
        emit_single(loop, accumulators, begin, index);
        return Values{};
      });
    }
    llvm::Value* rest = b_.CreateAnd(count, b_.getInt64(width - 1));
    llvm::BasicBlock* masked = new_block("masked");
    llvm::BasicBlock* after = new_block("after_masked");
    b_.CreateCondBr(b_.CreateICmpNE(rest, number(0)), masked, after);
    b_.SetInsertPoint(masked);
    emit_single(loop, accumulators, begin, whole, rest);
    b_.CreateBr(after);
    b_.SetInsertPoint(after);
    step_.mask = step_.count = nullptr;
  }

  /// What is left of a row, less than `steps` vectors: so many woven, of which the last is masked.
  void emit_rest(const ir::Loop& loop, const std::vector<Accumulators>& accumulators, llvm::Value* index,
                 llvm::Value* rest, uint64_t steps) {
    const auto width = static_cast<uint64_t>(step_.width);
    llvm::BasicBlock* after = new_block("after_rest");
    llvm::Value* vectors = b_.CreateUDiv(b_.CreateAdd(rest, b_.getInt64(width - 1)), b_.getInt64(width));
    llvm::SwitchInst* by_vectors = b_.CreateSwitch(vectors, after, static_cast<unsigned>(steps));
    const Values before = values_;
    for (uint64_t count = 1; count <= steps; ++count) {
      llvm::BasicBlock* block = new_block("rest");
      by_vectors->addCase(b_.getInt64(count), block);
      b_.SetInsertPoint(block);
      values_ = before;
      Values counts(count, nullptr);
      counts.back() = b_.CreateSub(rest, b_.getInt64((count - 1) * width));
      const auto fold_all = [&](uint64_t u) {
        for (const Accumulators& acc : accumulators)
          fold(acc, b_.getInt64(u % static_cast<uint64_t>(acc.count)));
      };
      emit_woven(loop, index, 0, count, fold_all, counts);
      b_.CreateBr(after);
    }
    b_.SetInsertPoint(after);
    step_.mask = step_.count = nullptr;
  }

  void emit_unrolled(const ir::Loop& loop, const std::vector<Accumulators>& accumulators, llvm::Value* begin,
                     llvm::Value* end, uint64_t unroll) {
    const auto width = static_cast<uint64_t>(step_.width);
    // Rows shorter than one step skip even the traffic with the slots.
    llvm::BasicBlock* inside = new_block("unrolled");
    llvm::BasicBlock* after = new_block("after_unrolled");
    b_.CreateCondBr(b_.CreateICmpSLT(begin, end), inside, after);
    b_.SetInsertPoint(inside);
    Values initial;
    for (const Accumulators& acc : accumulators) {
      for (int n = 0; n < acc.count; ++n) {
        for (size_t i = 0; i < acc.slots.size(); ++i) initial.push_back(load_slot(acc, i, number(n)));
      }
    }
    const Values results =
        emit_loop(begin, end, width * unroll, initial, [&](llvm::Value* index, const Values& carried) {
          Values next = carried;
          const auto add_step = [&](uint64_t u) {
            size_t first = 0;
            for (const Accumulators& acc : accumulators) {
              const size_t values = acc.slots.size();
              const size_t at = first + (u % static_cast<uint64_t>(acc.count)) * values;
              const Values left(next.begin() + at, next.begin() + at + values);
              const Values combined = combine(*acc.reduce, left, elements(*acc.reduce));
              std::copy(combined.begin(), combined.end(), next.begin() + at);
              first += values * static_cast<size_t>(acc.count);
            }
          };
          const uint64_t woven = weaves(loop.body) ? std::min<uint64_t>(unroll, kWovenSteps) : 1;
          for (uint64_t u = 0; u < unroll; u += woven) emit_woven(loop, index, u, woven, add_step);
          return next;
        });
    size_t next = 0;
    for (const Accumulators& acc : accumulators) {
      for (int n = 0; n < acc.count; ++n) {
        for (size_t i = 0; i < acc.slots.size(); ++i) store_slot(acc, i, number(n), results[next++]);
      }
    }
    b_.CreateBr(after);
    b_.SetInsertPoint(after);
  }

  /// Halves the lanes until one is left: whole vectors first, then within the vector.
  void finish(const Accumulators& acc) {
    std::vector<Values> lanes;
    for (int n = 0; n < acc.count; ++n) {
      lanes.emplace_back();
      for (size_t i = 0; i < acc.slots.size(); ++i) lanes.back().push_back(load_slot(acc, i, number(n)));
    }
    for (size_t half = lanes.size() / 2; half >= 1; half /= 2) {
      for (size_t j = 0; j < half; ++j) lanes[j] = combine(*acc.reduce, lanes[j], lanes[j + half]);
    }
    for (int half = step_.width / 2; half >= 1; half /= 2) {
      std::vector<int> upper(static_cast<size_t>(step_.width), -1);
      for (int j = 0; j < half; ++j) upper[static_cast<size_t>(j)] = j + half;
      Values right;
      for (llvm::Value* x : lanes[0]) right.push_back(b_.CreateShuffleVector(x, upper));
      lanes[0] = combine(*acc.reduce, lanes[0], right);
    }
    for (size_t i = 0; i < acc.slots.size(); ++i) {
      values_[acc.reduce->results[i]] = b_.CreateExtractElement(lanes[0][i], uint64_t{0});
    }
  }

  int serial_depth_ = 0;  ///< serial loops around what is emitted
  llvm::BasicBlock* entry_ = nullptr;
  llvm::Value* status_ = nullptr;
};

}  // namespace

void emit_kernel(const ir::Kernel& kernel, CpuLevel level, const std::string& symbol, llvm::Module& module) {
  Emitter(kernel, level, symbol, module).run();
}

}  // namespace lohe::codegen
