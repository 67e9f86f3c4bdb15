#include <algorithm>
#include <cmath>
#include <iostream>
#include <sstream>

#include "autograd/tape.h"
#include "dispatch/public_call.h"

/// Tensors as text, in the layout that PyTorch's C++ programs print: one line a row, one block a matrix, then
/// the type.
namespace lohe {

namespace {

struct Format {
  int width = 1;
  int precision = 4;
  bool scientific = false;
};

std::string number_text(const Scalar& v, const Format& f) {
  std::ostringstream out;
  if (v.is_integral()) {
    out << v.to_int();
  } else if (v.is_complex()) {
    Format part = f;
    part.width = 0;
    const std::complex<double> c = v.to_complex();
    out << number_text(Scalar(c.real()), part) << (std::signbit(c.imag()) ? "-" : "+")
        << number_text(Scalar(std::abs(c.imag())), part) << "j";
  } else if (!std::isfinite(v.to_double())) {
    out << (std::isnan(v.to_double()) ? "nan" : v.to_double() < 0 ? "-inf" : "inf");
  } else {
    out.setf(f.scientific ? std::ios::scientific : std::ios::fixed, std::ios::floatfield);
    out.precision(f.precision);
    out << v.to_double();
  }
  return out.str();
}

/// Whole numbers stand without decimals; a wide range of magnitudes is written with exponents.
Format format_for(const std::vector<Scalar>& values) {
  Format f;
  bool whole = true;
  double least = HUGE_VAL, most = 0;
  for (const Scalar& v : values) {
    for (const double part : {v.to_double(), v.imag()}) {
      if (!std::isfinite(part)) continue;
      whole = whole && part == std::floor(part);
      if (part != 0) least = std::min(least, std::abs(part));
      most = std::max(most, std::abs(part));
    }
  }
  if (whole && most < 1e9)
    f.precision = 0;
  else if (most >= 1e6 || most / least >= 1e8 || (most < 1e-4 && most > 0))
    f.scientific = true;
  // One place more than the digits need, for a sign.
  for (const Scalar& v : values) {
    const std::string text = number_text(v, f);
    f.width = std::max(f.width, static_cast<int>(text.size()) + (text[0] == '-' ? 0 : 1));
  }
  return f;
}

template <class T>
void read(std::vector<Scalar>& values, const TensorImpl& t) {
  const T* p = reinterpret_cast<const T*>(t.data());
  for (int64_t i = 0; i < t.numel(); ++i) {
    if constexpr (std::is_floating_point_v<T> || std::is_integral_v<T>)
      values.emplace_back(p[i]);
    else
      values.emplace_back(std::complex<double>(p[i]));
  }
}

std::vector<Scalar> values_of(const Tensor& tensor) {
  static const ops::OpRef contiguous("contiguous"), conj("resolve_conj"), neg("resolve_neg"), to("to.dtype");
  TensorPtr t = neg(conj(to_internal(tensor)));
  if (is_half(t->dtype())) t = to(t, Dtype::kFloat32);
  t = contiguous(t);
  std::vector<Scalar> values;
  switch (t->dtype()) {
    case Dtype::kBool:
      read<bool>(values, *t);
      break;
    case Dtype::kUInt8:
      read<uint8_t>(values, *t);
      break;
    case Dtype::kInt8:
      read<int8_t>(values, *t);
      break;
    case Dtype::kInt16:
      read<int16_t>(values, *t);
      break;
    case Dtype::kInt32:
      read<int32_t>(values, *t);
      break;
    case Dtype::kInt64:
      read<int64_t>(values, *t);
      break;
    case Dtype::kFloat64:
      read<double>(values, *t);
      break;
    case Dtype::kComplex64:
      read<std::complex<float>>(values, *t);
      break;
    case Dtype::kComplex128:
      read<std::complex<double>>(values, *t);
      break;
    default:
      read<float>(values, *t);
      break;
  }
  return values;
}

}  // namespace

std::ostream& operator<<(std::ostream& out, const Tensor& tensor) {
  if (!tensor.defined()) return out << "[ Tensor (undefined) ]";
  const autograd::GradModeGuard no_grad(false);
  const std::vector<Scalar> values = values_of(tensor);
  const Format format = format_for(values);
  const int64_t dim = tensor.dim(), columns = dim == 0 ? 1 : tensor.size(-1);
  const int64_t rows = dim < 2 ? (dim == 0 ? 1 : columns) : tensor.size(-2);
  const int64_t width = dim < 2 ? 1 : columns, block = rows * width;
  const int64_t blocks = block == 0 ? 0 : static_cast<int64_t>(values.size()) / block;
  for (int64_t b = 0; b < blocks; ++b) {
    if (dim > 2) {
      if (b > 0) out << "\n";
      out << "(";
      int64_t rest = b, step = blocks;
      for (int64_t d = 0; d < dim - 2; ++d) {
        step /= tensor.size(d);
        out << rest / step + 1 << ",";
        rest %= step;
      }
      out << ".,.) = \n";
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < width; ++c) {
        const std::string text = number_text(values[static_cast<size_t>(b * block + r * width + c)], format);
        if (c > 0) out << ' ';
        out << std::string(static_cast<size_t>(std::max<int64_t>(
                               0, (dim == 0 ? 0 : format.width) - static_cast<int64_t>(text.size()))),
                           ' ')
            << text;
      }
      out << "\n";
    }
  }
  out << "[ " << tensor.toString() << "{";
  for (int64_t d = 0; d < dim; ++d) out << (d == 0 ? "" : ",") << tensor.size(d);
  return out << "} ]";
}

void Tensor::print() const {
  if (!defined())
    std::cout << "[UndefinedTensor]\n";
  else
    std::cout << "[" << toString() << " " << sizes() << "]\n";
}

}  // namespace lohe
