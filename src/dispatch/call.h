#pragma once

#include "ops/op_def.h"

/// The life of a call, the same for Python and C++.
namespace lohe::dispatch {

/// The form in which an op is called.
enum class Form : uint8_t {
  kValue,    ///< gives new results
  kInPlace,  ///< writes the first argument and gives it back
  kOut,      ///< writes the tensors in `out` and gives them back
};

/// Arguments are complete (defaults filled in) and of the kinds that the schema names; a number may stand for a tensor in a
/// pointwise op. @throws Error; all arguments are then as they were.
Results call(const ops::OpDef& op, Args args, Form form = Form::kValue, std::span<TensorImpl* const> out = {});

/// Modes: one thread-local word, tested once a call. Zero is the plain path.
enum Mode : uint32_t {
  kNoGrad = 1,        ///< grad mode is off (tested by the tape only)
  kInference = 2,     ///< inference mode
  kIntercepted = 4,   ///< the stack of interceptors is not empty
};
extern thread_local uint32_t mode_word;
inline bool grad_enabled() { return (mode_word & (kNoGrad | kInference)) == 0; }

/// A transform, a subclass protocol, autocast, a profiler, a recorder: takes every call while it is on top of the stack.
/// It runs with itself and everything above it taken off, so that its own calls go to the next one below.
class Interceptor {
 public:
  virtual ~Interceptor() = default;
  /// Whether this call concerns it; else the next one below is asked.
  virtual bool wants(const ops::OpDef& op, Args args) = 0;
  virtual Results call(const ops::OpDef& op, Args args, Form form, std::span<TensorImpl* const> out) = 0;
};
void push_interceptor(Interceptor* interceptor);
void pop_interceptor(Interceptor* interceptor);
/// Runs `body` with the interceptors from `interceptor` upward taken off.
class BelowInterceptor {
 public:
  explicit BelowInterceptor(Interceptor* interceptor);
  ~BelowInterceptor();
 private:
  std::vector<Interceptor*> saved_;
  uint32_t mode_;
};

}  // namespace lohe::dispatch
