#pragma once

#include "dispatch/call.h"
#include "record/replay.h"

namespace lohe::dispatch {

/// An observer of a call, told of every op that this thread calls until stop().
class Observation final : public Interceptor {
 public:
  explicit Observation(std::span<TensorImpl* const> arguments);
  ~Observation() override { stop(); }
  bool wants(const ops::OpDef& op, Args args) override;
  Results call(const ops::OpDef& op, Args args, Form form, std::span<TensorImpl* const> out) override;
  void stop();
  Observation(const Observation&) = delete;
  Observation& operator=(const Observation&) = delete;

  record::Observer observer;

 private:
  bool open_ = true;
};

}  // namespace lohe::dispatch
