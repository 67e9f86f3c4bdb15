#pragma once

#include <memory>
#include <type_traits>
#include <utility>

namespace lohe {

template <class Signature>
class FunctionRef;

/// A reference to something callable: two words, no allocation, no ownership. It is meant for parameters;
/// the callable must outlive the call that it is passed to.
template <class Result, class... Args>
class FunctionRef<Result(Args...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, FunctionRef> &&
             std::is_invocable_r_v<Result, F&, Args...>)
  FunctionRef(F&& callable) noexcept {  // NOLINT: implicit on purpose
    using Callable = std::remove_reference_t<F>;
    if constexpr (std::is_function_v<Callable>) {
      target_.function = reinterpret_cast<void (*)()>(&callable);
      call_ = [](Target target, Args... args) -> Result {
        return reinterpret_cast<Callable*>(target.function)(std::forward<Args>(args)...);
      };
    } else {
      target_.object = const_cast<void*>(static_cast<const volatile void*>(std::addressof(callable)));
      call_ = [](Target target, Args... args) -> Result {
        return static_cast<Result>((*static_cast<Callable*>(target.object))(std::forward<Args>(args)...));
      };
    }
  }

  Result operator()(Args... args) const { return call_(target_, std::forward<Args>(args)...); }

 private:
  union Target {
    void* object;
    void (*function)();
  };
  Target target_;
  Result (*call_)(Target, Args...);
};

}  // namespace lohe
