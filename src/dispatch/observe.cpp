#include "dispatch/observe.h"

#include "lohe/error.h"

namespace lohe::dispatch {

Observation::Observation(std::span<TensorImpl* const> arguments) : observer(arguments) {
  push_interceptor(this);
  observer.start();
}

bool Observation::wants(const ops::OpDef& op, Args args) {
  observer.calls(op, args);
  return false;
}

Results Observation::call(const ops::OpDef& op, Args, Form, std::span<TensorImpl* const>) {
  LOHE_INTERNAL_ASSERT(false, op.schema.name, " was given to an observer, which takes no call");
  return {};
}

void Observation::stop() {
  if (!open_) return;
  open_ = false;
  remove_interceptor(this);
  observer.stop();
}

}  // namespace lohe::dispatch
