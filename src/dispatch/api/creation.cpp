#include "lohe/creation.h"

#include "autograd/tape.h"
#include "base/threads.h"
#include "dispatch/public_call.h"
#include "lohe/generator.h"
#include "tensor/shape.h"

namespace lohe {
namespace detail {

NestedNumbers::NestedNumbers(std::initializer_list<NestedNumbers> list)
    : dtype_(list.size() == 0 ? default_dtype() : list.begin()->dtype_) {
  sizes_.push_back(static_cast<int64_t>(list.size()));
  if (list.size() == 0) return;
  const NestedNumbers& first = *list.begin();
  sizes_.insert(sizes_.end(), first.sizes_.begin(), first.sizes_.end());
  for (const NestedNumbers& item : list) {
    LOHE_CHECK_VALUE(item.sizes_ == first.sizes_, "tensor(): expected all sub-lists to have sizes ",
                     IntArrayRef(first.sizes_), ", but got ", IntArrayRef(item.sizes_));
    dtype_ = promote_types(dtype_, item.dtype_);
    if (item.sizes_.empty())
      numbers_.push_back(item.number_);
    else
      numbers_.insert(numbers_.end(), item.numbers_.begin(), item.numbers_.end());
  }
}

namespace {

template <class T>
void write(void* to, const std::vector<Scalar>& numbers) {
  T* p = static_cast<T*>(to);
  for (const Scalar& v : numbers) {
    if constexpr (std::is_same_v<T, std::complex<double>>)
      *p++ = v.to_complex();
    else if constexpr (std::is_same_v<T, int64_t>)
      *p++ = v.to_int();
    else
      *p++ = v.to_double();
  }
}

}  // namespace

Tensor NestedNumbers::make(const TensorOptions& options) const {
  static const ops::OpRef empty("empty"), to("to.dtype");
  const Dtype dtype = options.dtype_opt().value_or(dtype_);
  // Written in the widest type of the category, converted by the op.
  const Dtype wide = is_complex(dtype_)          ? Dtype::kComplex128
                     : is_integral(dtype_, true) ? Dtype::kInt64
                                                 : Dtype::kFloat64;
  const std::vector<Scalar> one{number_};
  const std::vector<Scalar>& numbers = sizes_.empty() ? one : numbers_;
  const TensorPtr t = empty(std::span<const int64_t>(sizes_), wide);
  switch (wide) {
    case Dtype::kComplex128:
      write<std::complex<double>>(t->data(), numbers);
      break;
    case Dtype::kInt64:
      write<int64_t>(t->data(), numbers);
      break;
    default:
      write<double>(t->data(), numbers);
      break;
  }
  Tensor result = to_public(dtype == wide ? t : to(t, dtype));
  if (options.requires_grad()) result.set_requires_grad(true);
  return result;
}

}  // namespace detail

Tensor from_blob(void* data, IntArrayRef sizes, IntArrayRef strides, std::function<void(void*)> deleter,
                 const TensorOptions& options) {
  LOHE_CHECK(sizes.size() == strides.size(), "from_blob: ", sizes.size(), " sizes, but ", strides.size(),
             " strides");
  LOHE_CHECK(data != nullptr || numel_of(sizes) == 0, "from_blob: the address is null");
  int64_t last = numel_of(sizes) == 0 ? -1 : 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    LOHE_CHECK(strides[i] >= 0, "from_blob: strides must not be negative, got ", strides);
    if (last >= 0) last += (sizes[i] - 1) * strides[i];
  }
  struct Owner {
    void* data;
    std::function<void(void*)> deleter;
  };
  auto* owner = deleter ? new Owner{data, std::move(deleter)} : nullptr;
  const auto release = [](void* context) {
    auto* o = static_cast<Owner*>(context);
    if (o == nullptr) return;
    o->deleter(o->data);
    delete o;
  };
  auto storage = Storage::borrow(data, (last + 1) * itemsize(options.dtype()), release, owner, true);
  Tensor t = to_public(TensorImpl::make(std::move(storage), options.dtype(), sizes, strides, 0));
  if (options.requires_grad()) t.set_requires_grad(true);
  return t;
}
Tensor from_blob(void* data, IntArrayRef sizes, IntArrayRef strides, const TensorOptions& options) {
  return from_blob(data, sizes, strides, nullptr, options);
}
Tensor from_blob(void* data, IntArrayRef sizes, std::function<void(void*)> deleter,
                 const TensorOptions& options) {
  const Dims strides = contiguous_strides(sizes);
  return from_blob(data, sizes, std::span<const int64_t>(strides), std::move(deleter), options);
}
Tensor from_blob(void* data, IntArrayRef sizes, const TensorOptions& options) {
  return from_blob(data, sizes, nullptr, options);
}

int get_num_threads() { return num_threads(); }

Tensor get_rng_state() {
  const auto bytes = default_generator().state_bytes();
  const Tensor state = empty({static_cast<int64_t>(bytes.size())}, kUInt8);
  std::copy(bytes.begin(), bytes.end(), state.data_ptr<uint8_t>());
  return state;
}

void set_rng_state(const Tensor& state) {
  LOHE_CHECK_TYPE(state.defined() && state.dtype() == kUInt8, "set_rng_state: expected a tensor of uint8");
  const Tensor bytes = state.contiguous();
  default_generator().set_state_bytes({bytes.data_ptr<uint8_t>(), static_cast<size_t>(bytes.numel())});
}

}  // namespace lohe
