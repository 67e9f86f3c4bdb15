#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/inline_vector.h"
#include "lohe/device.h"
#include "lohe/error.h"
#include "lohe/scalar.h"
#include "tensor/tensor_impl.h"

/// The uniform form of a call's arguments and results. Arguments borrow: whoever makes them keeps what they
/// point to.
namespace lohe {

class Generator;

struct Arg {
  enum Kind : uint8_t {
    kNone,
    kTensor,
    kBool,
    kInt,
    kFloat,
    kComplex,
    kStr,
    kDtype,
    kDevice,
    kInts,
    kFloats,
    kTensors,
    kGenerator
  };
  Kind kind = kNone;
  Dtype dtype = Dtype::kUndefined;  ///< kDtype
  Device device{};                  ///< kDevice
  int32_t count = 0;                ///< kInts, kFloats, kTensors, kStr
  union {
    TensorImpl* tensor;  ///< never null: an absent tensor is kNone
    int64_t integer = 0;
    double real;
    const int64_t* ints;
    const double* floats;
    TensorImpl* const* tensors;  ///< entries may be null (Tensor?[])
    const char* chars;
    Generator* generator;
  };
  double imag = 0;

  Arg() = default;
  Arg(TensorImpl* t) : kind(t == nullptr ? kNone : kTensor), tensor(t) {}
  Arg(const Intrusive<TensorImpl>& t) : Arg(t.get()) {}
  Arg(const Dims& d) : Arg(std::span<const int64_t>(d)) {}
  Arg(bool v) : kind(kBool), integer(v) {}
  Arg(int64_t v) : kind(kInt), integer(v) {}
  Arg(int v) : kind(kInt), integer(v) {}
  Arg(double v) : kind(kFloat), real(v) {}
  Arg(Dtype d) : kind(kDtype), dtype(d) {}
  Arg(Device d) : kind(kDevice), device(d) {}
  Arg(std::string_view s) : kind(kStr), count(static_cast<int32_t>(s.size())), chars(s.data()) {}
  Arg(const char* s) : Arg(std::string_view(s)) {}
  Arg(std::span<const int64_t> v) : kind(kInts), count(static_cast<int32_t>(v.size())), ints(v.data()) {}
  Arg(std::span<const double> v) : kind(kFloats), count(static_cast<int32_t>(v.size())), floats(v.data()) {}
  Arg(std::span<TensorImpl* const> v)
      : kind(kTensors), count(static_cast<int32_t>(v.size())), tensors(v.data()) {}
  Arg(Generator* g) : kind(g == nullptr ? kNone : kGenerator), generator(g) {}
  Arg(const Scalar& s);

  bool none() const { return kind == kNone; }
  bool is_number() const { return kind >= kBool && kind <= kComplex; }
  Scalar scalar() const;
  std::string_view str() const { return {chars, static_cast<size_t>(count)}; }
  std::span<const int64_t> int_list() const { return {ints, static_cast<size_t>(count)}; }
  std::span<const double> float_list() const { return {floats, static_cast<size_t>(count)}; }
  std::span<TensorImpl* const> tensor_list() const { return {tensors, static_cast<size_t>(count)}; }
};
static_assert(sizeof(Arg) <= 32);

inline Scalar Arg::scalar() const {
  switch (kind) {
    case kBool:
      return Scalar(integer != 0);
    case kInt:
      return Scalar(integer);
    case kFloat:
      return Scalar(real);
    case kComplex:
      return Scalar(std::complex<double>(real, imag));
    default:
      LOHE_INTERNAL_ASSERT(false, "not a number");
      return {};
  }
}

using Args = std::span<const Arg>;

/// Of what a list of numbers or a string points to; 0 for other kinds.
size_t list_bytes(const Arg& a);
/// Puts the numbers and characters that the arguments borrow into one block, which they point to from then
/// on; null where there are none. Tensors in a list are not looked at.
std::unique_ptr<int64_t[]> own_lists(std::span<Arg> args);
using TensorPtr = Intrusive<TensorImpl>;

/// What a call gives: tensors, up to three of them in place, or a number.
class Results {
 public:
  Results() = default;
  Results(TensorPtr t) { push(std::move(t)); }
  Results(TensorPtr a, TensorPtr b) : Results(std::move(a)) { push(std::move(b)); }
  Results(TensorPtr a, TensorPtr b, TensorPtr c) : Results(std::move(a), std::move(b)) { push(std::move(c)); }
  explicit Results(std::vector<TensorPtr> list) {
    tensors_.reserve(list.size());
    for (TensorPtr& t : list) push(std::move(t));
  }
  explicit Results(Scalar number) : number_(number) {}

  int size() const { return static_cast<int>(tensors_.size()); }
  const TensorPtr& operator[](int i) const { return tensors_[static_cast<size_t>(i)]; }
  TensorPtr& operator[](int i) { return tensors_[static_cast<size_t>(i)]; }
  void push(TensorPtr t) { tensors_.emplace_back(std::move(t)); }
  bool is_number() const { return number_.has_value(); }
  const Scalar& number() const { return *number_; }

 private:
  InlineVector<TensorPtr, 3> tensors_;
  std::optional<Scalar> number_;
};

}  // namespace lohe
