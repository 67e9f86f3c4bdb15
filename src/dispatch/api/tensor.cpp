#include "autograd/tape.h"
#include "dispatch/public_call.h"
#include "lohe/functions.h"
#include "tensor/shape.h"

/// Tensor's methods that are not ops.
namespace lohe {

using ops::OpRef;

namespace detail {

void retain(TensorImpl* impl) noexcept { impl->retain(); }
void release(TensorImpl* impl) noexcept { impl->release(); }

void raise_undefined(const char* op, const char* param) {
  raise(ErrorKind::kRuntime, op, "(): argument '", param, "' is an undefined tensor; give it a value first");
}

}  // namespace detail

namespace {

TensorImpl& checked(TensorImpl* impl, const char* what) {
  LOHE_CHECK(impl != nullptr, what, "() was called on an undefined tensor; give it a value first");
  return *impl;
}

Tensor& write(Tensor& self, const OpRef& row, std::initializer_list<Arg> rest) {
  Arg args[4];
  size_t n = 0;
  args[n++] = detail::required(self, row.op().schema.base.c_str(), "self");
  for (const Arg& a : rest) args[n++] = a;
  for (; n < row.op().schema.params.size(); ++n) args[n] = row.op().schema.params[n].default_value;
  dispatch::call(row.op(), Args(args, n), dispatch::Form::kInPlace);
  return self;
}

}  // namespace

int64_t Tensor::dim() const { return checked(impl_, "dim").dim(); }
IntArrayRef Tensor::sizes() const { return checked(impl_, "sizes").sizes(); }
IntArrayRef Tensor::strides() const { return checked(impl_, "strides").strides(); }
int64_t Tensor::size(int64_t d) const {
  const auto all = checked(impl_, "size").sizes();
  LOHE_CHECK_INDEX(!all.empty(), "Dimension specified as ", d, " but tensor has no dimensions");
  return all[static_cast<size_t>(wrap_dim(d, dim()))];
}
int64_t Tensor::stride(int64_t d) const {
  const auto all = checked(impl_, "stride").strides();
  LOHE_CHECK_INDEX(!all.empty(), "Dimension specified as ", d, " but tensor has no dimensions");
  return all[static_cast<size_t>(wrap_dim(d, dim()))];
}
int64_t Tensor::numel() const { return checked(impl_, "numel").numel(); }
int64_t Tensor::storage_offset() const { return checked(impl_, "storage_offset").offset(); }
Dtype Tensor::dtype() const { return checked(impl_, "dtype").dtype(); }
Device Tensor::device() const {
  checked(impl_, "device");
  return kCPU;
}
TensorOptions Tensor::options() const { return TensorOptions(dtype()).device(device()); }
bool Tensor::is_conj() const { return checked(impl_, "is_conj").conj(); }
bool Tensor::is_neg() const { return checked(impl_, "is_neg").neg(); }
bool Tensor::is_view() const { return static_cast<bool>(checked(impl_, "is_view").view_base); }
bool Tensor::is_inference() const { return checked(impl_, "is_inference").inference; }
int64_t Tensor::_version() const {
  return checked(impl_, "_version").version().value.load(std::memory_order_relaxed);
}

bool Tensor::is_contiguous(MemoryFormat format) const {
  const TensorImpl& t = checked(impl_, "is_contiguous");
  switch (format) {
    case MemoryFormat::kContiguous:
      return t.contiguous();
    case MemoryFormat::kChannelsLast:
      return t.dim() == 4 && is_channels_last(t.sizes(), t.strides());
    case MemoryFormat::kChannelsLast3d:
      return t.dim() == 5 && is_channels_last(t.sizes(), t.strides());
    case MemoryFormat::kPreserve:
      break;
  }
  raise(ErrorKind::kRuntime, "preserve memory format is unsupported by the contiguous operator");
}

void* Tensor::data_ptr() const { return checked(impl_, "data_ptr").expose_data(); }

void* Tensor::checked_data(Dtype expected) const {
  const TensorImpl& t = checked(impl_, "data_ptr");
  LOHE_CHECK(t.dtype() == expected, "expected scalar type ", info(expected).name, " but found ",
             info(t.dtype()).name, "; ask for data_ptr of the tensor's own type, or convert with to()");
  LOHE_CHECK(!t.conj() && !t.neg(),
             "data_ptr() of a tensor with a pending conjugation or negation; call resolve_conj() "
             "and resolve_neg() first");
  return t.data();
}

Scalar Tensor::item() const {
  static const OpRef conj("resolve_conj"), neg("resolve_neg");
  LOHE_CHECK(checked(impl_, "item").numel() == 1, "a Tensor with ", numel(),
             " elements cannot be converted to Scalar");
  TensorPtr t = to_internal(*this);
  if (t->conj() || t->neg()) t = neg(conj(t));
  const void* p = t->data();
  switch (t->dtype()) {
    case Dtype::kBool:
      return *static_cast<const bool*>(p);
    case Dtype::kUInt8:
      return *static_cast<const uint8_t*>(p);
    case Dtype::kInt8:
      return *static_cast<const int8_t*>(p);
    case Dtype::kInt16:
      return *static_cast<const int16_t*>(p);
    case Dtype::kInt32:
      return *static_cast<const int32_t*>(p);
    case Dtype::kInt64:
      return *static_cast<const int64_t*>(p);
    case Dtype::kFloat32:
      return *static_cast<const float*>(p);
    case Dtype::kFloat64:
      return *static_cast<const double*>(p);
    case Dtype::kComplex64:
      return std::complex<double>(*static_cast<const std::complex<float>*>(p));
    case Dtype::kComplex128:
      return *static_cast<const std::complex<double>*>(p);
    case Dtype::kFloat16:
    case Dtype::kBFloat16: {
      const autograd::GradModeGuard no_grad(false);
      return to(kFloat32).item();
    }
    case Dtype::kUndefined:
      break;
  }
  LOHE_INTERNAL_ASSERT(false, "a tensor without a dtype");
  return {};
}

Tensor Tensor::data() const {
  TensorImpl& t = checked(impl_, "data");
  if (Watcher* watcher = watcher_of_this_thread()) watcher->uses(t);
  TensorPtr alias = TensorImpl::make(t.storage_ptr(), t.dtype(), t.sizes(), t.strides(), t.offset());
  alias->set_conj(t.conj());
  alias->set_neg(t.neg());
  alias->fresh_version();
  return to_public(std::move(alias));
}

void Tensor::set_data(const Tensor& other) const {
  const TensorImpl& from = checked(other.impl_, "set_data");
  TensorImpl& t = checked(impl_, "set_data");
  LOHE_CHECK(!t.requires_grad || is_differentiable(from.dtype()), "set_data: data of dtype ",
             info(from.dtype()).name, " cannot stand in a tensor that requires grad");
  t.set_view(from.storage_ptr(), from.dtype(), from.sizes(), from.strides(), from.offset());
  t.set_conj(from.conj());
  t.set_neg(from.neg());
}

Tensor Tensor::to(Dtype dtype, bool non_blocking, bool copy) const {
  static const OpRef row("to.dtype");
  return to_public(row(detail::required(*this, "to", "self"), dtype, non_blocking, copy, Arg()));
}

Tensor Tensor::to(const TensorOptions& options, bool non_blocking, bool copy) const {
  static const OpRef row("to.dtype");
  const auto format = detail::to_arg(options.memory_format_opt());
  return to_public(row(detail::required(*this, "to", "self"), options.dtype_opt().value_or(dtype()),
                       non_blocking, copy, format));
}

Tensor Tensor::to(Device, Dtype dtype, bool non_blocking, bool copy) const {
  return to(dtype, non_blocking, copy);
}
Tensor Tensor::to(const Tensor& other, bool non_blocking, bool copy) const {
  return to(other.dtype(), non_blocking, copy);
}

Tensor Tensor::operator-() const {
  static const OpRef row("neg");
  return to_public(row(detail::required(*this, "neg", "self")));
}
Tensor Tensor::operator~() const {
  static const OpRef row("bitwise_not");
  return to_public(row(detail::required(*this, "bitwise_not", "self")));
}

#define LOHE_ASSIGN(symbol, name)                                       \
  Tensor& Tensor::operator symbol(const Tensor & other) {               \
    static const OpRef row(name);                                       \
    return write(*this, row, {detail::required(other, name, "other")}); \
  }                                                                     \
  Tensor& Tensor::operator symbol(const Scalar & other) {               \
    static const OpRef row(name);                                       \
    return write(*this, row, {Arg(other)});                             \
  }
LOHE_ASSIGN(+=, "add")
LOHE_ASSIGN(-=, "sub")
LOHE_ASSIGN(*=, "mul")
LOHE_ASSIGN(/=, "div")
#undef LOHE_ASSIGN

std::string Tensor::toString() const {
  return "CPU" + std::string(info(dtype()).tensor_type.substr(0, info(dtype()).tensor_type.find("Tensor"))) +
         "Type";
}

}  // namespace lohe
