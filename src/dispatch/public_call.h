#pragma once

#include "lohe/options.h"
#include "lohe/tensor.h"
#include "ops/call.h"

/// From the public C++ types to a call's arguments and back; the generated functions (tools/gen/cpp_api.py)
/// use it.
namespace lohe {

inline Tensor to_public(TensorPtr t) { return Tensor::adopt(t.detach()); }
inline TensorPtr to_internal(const Tensor& t) { return TensorPtr(t.impl()); }

namespace detail {

[[noreturn]] void raise_undefined(const char* op, const char* param);

inline Arg required(const Tensor& t, const char* op, const char* param) {
  if (!t.defined()) [[unlikely]]
    raise_undefined(op, param);
  return Arg(t.impl());
}

inline Arg to_arg(const Tensor& t) { return Arg(t.impl()); }
inline Arg to_arg(bool v) { return Arg(v); }
inline Arg to_arg(int64_t v) { return Arg(v); }
inline Arg to_arg(double v) { return Arg(v); }
inline Arg to_arg(const Scalar& v) { return Arg(v); }
inline Arg to_arg(Dtype v) { return Arg(v); }
inline Arg to_arg(Device v) { return Arg(v); }
inline Arg to_arg(Layout v) { return Arg(static_cast<int64_t>(v)); }
inline Arg to_arg(MemoryFormat v) { return Arg(static_cast<int64_t>(v)); }
inline Arg to_arg(std::string_view v) { return Arg(v); }
inline Arg to_arg(Generator* v) { return Arg(v); }
inline Arg to_arg(IntArrayRef v) { return Arg(std::span<const int64_t>(v)); }
inline Arg to_arg(ArrayRef<double> v) { return Arg(std::span<const double>(v)); }
template <class T>
Arg to_arg(const OptionalArrayRef<T>& v) {
  return v.has_value() ? to_arg(*v) : Arg();
}
template <class T>
Arg to_arg(const std::optional<T>& v) {
  return v.has_value() ? to_arg(*v) : Arg();
}

/// A list parameter of fixed size: one element stands for all.
template <int N>
class Expanded {
 public:
  template <class T>
  explicit Expanded(ArrayRef<T> list) {
    const std::span<const T> given(list);
    if (given.size() != 1) {
      arg_ = Arg(given);
    } else if constexpr (std::is_same_v<T, double>) {
      std::fill_n(reals_, N, given[0]);
      arg_ = Arg(std::span<const double>(reals_, N));
    } else {
      std::fill_n(ints_, N, given[0]);
      arg_ = Arg(std::span<const int64_t>(ints_, N));
    }
  }
  template <class T>
  explicit Expanded(const OptionalArrayRef<T>& list) : Expanded(list.value_or({})) {
    if (!list.has_value()) arg_ = Arg();
  }
  Expanded(const Expanded&) = delete;
  Expanded& operator=(const Expanded&) = delete;
  const Arg& arg() const { return arg_; }

 private:
  union {
    int64_t ints_[N];
    double reals_[N];
  };
  Arg arg_;
};

/// The pointers of a list of tensors.
class TensorArgs {
 public:
  explicit TensorArgs(TensorList list) {
    for (const Tensor& t : list) impls_.push_back(t.impl());
  }
  explicit TensorArgs(ArrayRef<std::optional<Tensor>> list) {
    for (const auto& t : list) impls_.push_back(t.has_value() ? t->impl() : nullptr);
  }
  std::span<TensorImpl* const> span() const { return {impls_.data(), impls_.size()}; }

 private:
  SmallVector<TensorImpl*, 8> impls_;
};

template <class T>
struct Convert;
template <>
struct Convert<Tensor> {
  static Tensor from(Results&& r) { return to_public(std::move(r[0])); }
};
template <>
struct Convert<std::vector<Tensor>> {
  static std::vector<Tensor> from(Results&& r) {
    std::vector<Tensor> list;
    for (int i = 0; i < r.size(); ++i) list.push_back(to_public(std::move(r[i])));
    return list;
  }
};
template <class... T>
struct Convert<std::tuple<T...>> {
  static std::tuple<T...> from(Results&& r) { return convert(r, std::make_index_sequence<sizeof...(T)>()); }
  template <size_t... I>
  static std::tuple<T...> convert(Results& r, std::index_sequence<I...>) {
    return {to_public(std::move(r[static_cast<int>(I)]))...};
  }
};
template <>
struct Convert<Scalar> {
  static Scalar from(Results&& r) { return r.number(); }
};
template <>
struct Convert<bool> {
  static bool from(Results&& r) { return r.number().to_bool(); }
};
template <>
struct Convert<int64_t> {
  static int64_t from(Results&& r) { return r.number().to_int(); }
};
template <>
struct Convert<double> {
  static double from(Results&& r) { return r.number().to_double(); }
};
template <>
struct Convert<Dtype> {
  static Dtype from(Results&& r) { return static_cast<Dtype>(r.number().to_int()); }
};

template <class T>
T results_to(Results&& results) {
  return Convert<T>::from(std::move(results));
}

}  // namespace detail
}  // namespace lohe
