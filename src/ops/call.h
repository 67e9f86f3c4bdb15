#pragma once

#include "ops/op_def.h"

/// How ops are called, by rows, by the tape and by the bindings; src/dispatch implements it.
namespace lohe::dispatch {

/// The form in which an op is called.
enum class Form : uint8_t {
  kValue,    ///< gives new results
  kInPlace,  ///< writes the first argument and gives it back
  kOut,      ///< writes the tensors in `out` and gives them back
};

/// Arguments are complete (defaults filled in) and of the kinds that the schema names; a number may stand for
/// a tensor in a pointwise op. @throws Error; all arguments are then as they were.
Results call(const ops::OpDef& op, Args args, Form form = Form::kValue,
             std::span<TensorImpl* const> out = {});

/// Calls an op, which writes its arguments, for each of `count` argument lists that stand one behind the
/// other, in turn. Lists of dense tensors, each of its own, are checked together and take one parallel
/// region.
void call_each(const ops::OpDef& op, Args args, size_t count, Form form);

/// Modes: one thread-local word, tested once a call. Zero is the plain path.
enum Mode : uint32_t {
  kNoGrad = 1,       ///< grad mode is off (tested by the tape only)
  kInference = 2,    ///< inference mode
  kIntercepted = 4,  ///< the stack of interceptors is not empty
  kRecording = 8,    ///< work is written down, not done (src/record)
  kProfiling = 16,   ///< the thread has a session (src/profile)
  kInexact = 32,     ///< programs of what is recorded may round differently (src/compile/relax.h)
};
extern thread_local uint32_t mode_word __attribute__((tls_model("initial-exec")));
inline bool grad_enabled() { return (mode_word & (kNoGrad | kInference)) == 0; }

/// Room for any row's arguments, not initialised: clearing it would cost more than a small op.
union ArgStack {
  static constexpr size_t kSize = 48;
  ArgStack() {}
  Arg slots[kSize];
};

/// Row "add" called with C++ values; arguments that are left out take their defaults. For rows and the tape:
/// the public C++ functions (generated) come to the same call.
template <class... A>
Results call_op(const ops::OpDef& op, const A&... arguments) {
  ArgStack args;
  size_t n = 0;
  ((args.slots[n++] = Arg(arguments)), ...);
  const size_t total = op.schema.params.size();
  for (; n < total; ++n) args.slots[n] = op.schema.params[n].default_value;
  return call(op, Args(args.slots, total));
}

}  // namespace lohe::dispatch

namespace lohe::ops {

/// A row that another row calls, looked up once: `static const OpRef mm("mm"); TensorPtr c = mm(a, b);`
class OpRef {
 public:
  constexpr explicit OpRef(std::string_view name) : name_(name) {}
  const OpDef& op() const {
    const OpDef* found = __atomic_load_n(&op_, __ATOMIC_ACQUIRE);
    if (found == nullptr) {
      found = &find_op(name_);
      __atomic_store_n(&op_, found, __ATOMIC_RELEASE);
    }
    return *found;
  }
  template <class... A>
  TensorPtr operator()(const A&... arguments) const {
    return dispatch::call_op(op(), arguments...)[0];
  }
  template <class... A>
  Results all(const A&... arguments) const {
    return dispatch::call_op(op(), arguments...);
  }

 private:
  std::string_view name_;
  mutable const OpDef* op_ = nullptr;
};

}  // namespace lohe::ops
