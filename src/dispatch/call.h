#pragma once

#include <vector>

#include "ops/call.h"

namespace lohe::dispatch {

/// A transform, a subclass protocol, autocast, a profiler, a recorder: takes every call while it is on top of
/// the stack. It runs with itself and everything above it taken off, so that its own calls go to the next one
/// below.
class Interceptor {
 public:
  virtual ~Interceptor() = default;
  /// Whether this call concerns it; else the next one below is asked.
  virtual bool wants(const ops::OpDef& op, Args args) = 0;
  virtual Results call(const ops::OpDef& op, Args args, Form form, std::span<TensorImpl* const> out) = 0;
  /// Whether its tensors are wrappers with a history of their own, on which this call is to be recorded.
  virtual bool records(const ops::OpDef&) const { return false; }
};
void push_interceptor(Interceptor* interceptor);
/// @throws internal error when `interceptor` is not on top.
void pop_interceptor(Interceptor* interceptor);
/// The same from anywhere in the stack.
void remove_interceptor(Interceptor* interceptor);

/// Runs with the interceptors from `interceptor` upward taken off.
class BelowInterceptor {
 public:
  explicit BelowInterceptor(Interceptor* interceptor);
  ~BelowInterceptor();
  BelowInterceptor(const BelowInterceptor&) = delete;
  BelowInterceptor& operator=(const BelowInterceptor&) = delete;

 private:
  std::vector<Interceptor*> saved_;
  uint32_t mode_;
};

}  // namespace lohe::dispatch
