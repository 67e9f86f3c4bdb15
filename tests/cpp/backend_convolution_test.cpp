#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <complex>
#include <cstring>
#include <random>
#include <vector>

#include "backend/cpu/gemm.h"
#include "backend/library.h"
#include "base/threads.h"
#include "lohe/error.h"

namespace lohe::backend {
namespace {

using Axes = ConvolutionShape::Axes;

/// The number that an element stands for, wide enough to be exact here.
template <class E>
auto value_of(E x) {
  if constexpr (std::is_same_v<E, uint16_t>)
    return static_cast<double>(std::bit_cast<float>(uint32_t{x} << 16));
  else if constexpr (std::is_integral_v<E>)
    return static_cast<uint64_t>(x);
  else if constexpr (std::is_floating_point_v<E>)
    return static_cast<double>(x);
  else
    return std::complex<double>(x);
}

template <class E, class V>
E element_of(V v) {
  if constexpr (std::is_same_v<E, uint16_t>) {
    const auto x = static_cast<float>(v);
    uint16_t result;
    gemm_portable().half.narrow_bfloat16(1, &x, &result);
    return result;
  } else {
    return static_cast<E>(v);
  }
}

enum class Format { kChannelsFirst, kChannelsLast, kPadded };

template <class E>
struct Buffer {
  std::vector<E> memory;
  Images images;

  Buffer(int64_t outer, int64_t channels, const Axes& size, Format format) {
    const int64_t pad = format == Format::kPadded ? 2 : 0;
    const int64_t unit = format == Format::kChannelsLast ? channels : 1;
    Axes strides;
    strides[2] = unit + (pad ? 1 : 0);
    strides[1] = strides[2] * size[2] + pad;
    strides[0] = strides[1] * size[1] + pad;
    const int64_t plane = strides[0] * size[0] + pad;
    images.strides = strides;
    images.channel_stride = format == Format::kChannelsLast ? 1 : plane;
    images.outer_stride = format == Format::kChannelsLast ? plane : plane * channels;
    memory.resize(static_cast<size_t>(plane * channels * outer + 8), E{});
    images.data = memory.data();
  }

  void randomize(std::mt19937& random) {
    std::uniform_int_distribution<int> number(-4, 4);
    for (E& x : memory) {
      if constexpr (std::is_integral_v<E> && !std::is_same_v<E, uint16_t>)
        x = static_cast<E>(number(random) * 31 + 1);
      else if constexpr (std::is_same_v<E, uint16_t> || std::is_floating_point_v<E>)
        x = element_of<E>(number(random) / 4.0);
      else
        x = E(std::complex<double>(number(random) / 4.0, number(random) / 4.0));
    }
  }

  E& at(int64_t n, int64_t c, const Axes& p) {
    return memory[static_cast<size_t>(n * images.outer_stride + c * images.channel_stride +
                                      p[0] * images.strides[0] + p[1] * images.strides[1] +
                                      p[2] * images.strides[2])];
  }
};

template <class F>
void for_axes(const Axes& size, F&& body) {
  Axes p;
  for (p[0] = 0; p[0] < size[0]; ++p[0])
    for (p[1] = 0; p[1] < size[1]; ++p[1])
      for (p[2] = 0; p[2] < size[2]; ++p[2]) body(p);
}

std::string describe(Dtype dtype, const ConvolutionShape& s, Format format) {
  std::ostringstream out;
  out << dtype << " batch " << s.batch << " channels " << s.in_channels << "->" << s.out_channels
      << " groups " << s.groups << " input";
  for (const Axes* axes : {&s.input, &s.kernel, &s.output, &s.stride, &s.padding, &s.dilation})
    out << " " << (*axes)[0] << "," << (*axes)[1] << "," << (*axes)[2];
  out << " format " << static_cast<int>(format);
  return out.str();
}

/// All three computations against plain loops. The numbers are small multiples of 1/4: any order is exact.
template <class E>
void check_dtype(Dtype dtype, const ConvolutionShape& s, Format format) {
  SCOPED_TRACE(describe(dtype, s, format));
  std::mt19937 random(17);
  const int64_t in_group = s.in_channels / s.groups, out_group = s.out_channels / s.groups;
  Buffer<E> input(s.batch, s.in_channels, s.input, format),
      weight(s.out_channels, in_group, s.kernel, format);
  Buffer<E> output(s.batch, s.out_channels, s.output, format), grad_output(output),
      bias(1, s.out_channels, {1, 1, 1}, Format::kChannelsFirst);
  Buffer<E> grad_input(input), grad_weight(weight),
      bias_in(1, s.in_channels, {1, 1, 1}, Format::kChannelsFirst);
  for (Buffer<E>* buffer :
       {&input, &weight, &output, &grad_output, &grad_input, &grad_weight, &bias, &bias_in}) {
    buffer->images.data = buffer->memory.data();
    buffer->randomize(random);
  }
  using V = decltype(value_of(E{}));
  std::vector<V> expected(output.memory.size()), expected_input(input.memory.size()),
      expected_weight(weight.memory.size());
  const auto index = [](Buffer<E>& buffer, E& element) {
    return static_cast<size_t>(&element - buffer.memory.data());
  };
  for (int64_t n = 0; n < s.batch; ++n) {
    for (int64_t co = 0; co < s.out_channels; ++co) {
      for (int64_t ci = 0; ci < in_group; ++ci) {
        const int64_t channel = co / out_group * in_group + ci;
        for_axes(s.output, [&](const Axes& o) {
          for_axes(s.kernel, [&](const Axes& r) {
            Axes i;
            for (int axis = 0; axis < 3; ++axis) {
              i[axis] = o[axis] * s.stride[axis] + r[axis] * s.dilation[axis] - s.padding[axis];
              if (i[axis] < 0 || i[axis] >= s.input[axis]) return;
            }
            const V x = value_of(input.at(n, channel, i)), w = value_of(weight.at(co, ci, r)),
                    g = value_of(grad_output.at(n, co, o));
            expected[index(output, output.at(n, co, o))] += x * w;
            expected_input[index(input, input.at(n, channel, i))] += g * w;
            expected_weight[index(weight, weight.at(co, ci, r))] += g * x;
          });
        });
      }
    }
  }
  convolution(dtype, s, input.images, weight.images, bias.images.data, output.images);
  convolution_input_gradient(dtype, s, grad_output.images, weight.images, bias_in.images.data,
                             grad_input.images);
  convolution_weight_gradient(dtype, s, input.images, grad_output.images, grad_weight.images);
  int wrong = 0;
  const auto compare = [&](const char* what, Buffer<E>& buffer, const std::vector<V>& sums, Buffer<E>* add,
                           int64_t outer, int64_t channels, const Axes& size) {
    for (int64_t n = 0; n < outer; ++n)
      for (int64_t c = 0; c < channels; ++c)
        for_axes(size, [&](const Axes& p) {
          E& got = buffer.at(n, c, p);
          V want = sums[index(buffer, got)];
          if (add) want += value_of(add->memory[static_cast<size_t>(c)]);
          if (got != element_of<E>(want) && wrong++ < 3)
            ADD_FAILURE() << what << " at " << n << "," << c << "," << p[0] << "," << p[1] << "," << p[2];
        });
  };
  compare("output", output, expected, &bias, s.batch, s.out_channels, s.output);
  compare("grad_input", grad_input, expected_input, &bias_in, s.batch, s.in_channels, s.input);
  compare("grad_weight", grad_weight, expected_weight, nullptr, s.out_channels, in_group, s.kernel);
}

void check(Dtype dtype, const ConvolutionShape& s, Format format) {
  switch (dtype) {
    case kFloat32:
      return check_dtype<float>(dtype, s, format);
    case kFloat64:
      return check_dtype<double>(dtype, s, format);
    case kComplex64:
      return check_dtype<std::complex<float>>(dtype, s, format);
    case kComplex128:
      return check_dtype<std::complex<double>>(dtype, s, format);
    case kBFloat16:
      return check_dtype<uint16_t>(dtype, s, format);
    case kUInt8:
      return check_dtype<uint8_t>(dtype, s, format);
    case kInt8:
      return check_dtype<int8_t>(dtype, s, format);
    case kInt16:
      return check_dtype<int16_t>(dtype, s, format);
    case kInt32:
      return check_dtype<int32_t>(dtype, s, format);
    default:
      return check_dtype<int64_t>(dtype, s, format);
  }
}

ConvolutionShape shape_of(int64_t batch, int64_t in, int64_t out, int64_t groups, Axes input, Axes kernel,
                          Axes stride, Axes padding, Axes dilation) {
  ConvolutionShape s{batch, in, out, groups, input, kernel, {}, stride, padding, dilation};
  for (int axis = 0; axis < 3; ++axis)
    s.output[axis] =
        (input[axis] + 2 * padding[axis] - dilation[axis] * (kernel[axis] - 1) - 1) / stride[axis] + 1;
  return s;
}

std::vector<ConvolutionShape> shapes() {
  return {
      shape_of(1, 1, 1, 1, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}),
      shape_of(2, 3, 5, 1, {1, 9, 11}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}),
      shape_of(2, 4, 6, 2, {1, 9, 11}, {1, 3, 2}, {1, 2, 3}, {0, 2, 1}, {1, 2, 1}),
      shape_of(3, 8, 16, 1, {1, 6, 40}, {1, 1, 1}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}),
      shape_of(2, 8, 4, 1, {1, 7, 7}, {1, 1, 1}, {1, 2, 2}, {0, 0, 0}, {1, 1, 1}),
      shape_of(2, 6, 6, 6, {1, 8, 8}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}),
      shape_of(1, 3, 6, 3, {1, 8, 8}, {1, 5, 5}, {1, 2, 2}, {0, 2, 2}, {1, 1, 1}),
      shape_of(2, 3, 4, 1, {1, 1, 50}, {1, 1, 7}, {1, 1, 3}, {0, 0, 3}, {1, 1, 2}),
      shape_of(2, 2, 3, 1, {5, 6, 7}, {3, 2, 3}, {2, 1, 2}, {1, 0, 1}, {1, 2, 1}),
      shape_of(1, 70, 17, 1, {1, 5, 5}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}),
      shape_of(1, 2, 2, 1, {1, 3, 3}, {1, 2, 2}, {1, 5, 5}, {0, 4, 4},
               {1, 1, 1}),  // a stride past the kernel
      shape_of(5, 2, 20, 1, {1, 13, 16}, {1, 3, 3}, {1, 1, 1}, {0, 0, 0}, {1, 1, 1}),
      shape_of(0, 2, 3, 1, {1, 4, 4}, {1, 3, 3}, {1, 1, 1}, {0, 1, 1}, {1, 1, 1}),
  };
}

TEST(Convolution, MatchesPlainLoopsForEveryDtypeFormatAndGeometry) {
  for (const Dtype dtype :
       {kFloat32, kFloat64, kComplex64, kComplex128, kBFloat16, kUInt8, kInt8, kInt16, kInt32, kInt64})
    for (const ConvolutionShape& s : shapes())
      for (const Format format : {Format::kChannelsFirst, Format::kChannelsLast, Format::kPadded})
        check(dtype, s, format);
}

TEST(Convolution, AnOutputMayBeLargerThanTheLastWholeWindow) {
  // The input's gradient as a transposed convolution with output_padding 1: the last row meets no kernel.
  ConvolutionShape s = shape_of(1, 2, 3, 1, {1, 6, 6}, {1, 3, 3}, {1, 2, 2}, {0, 0, 0}, {1, 1, 1});
  ASSERT_EQ(s.output[1], 2);
  check(kFloat32, s, Format::kChannelsFirst);
}

std::vector<float> random_numbers(size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> result(n);
  for (float& x : result) x = normal(random);
  return result;
}

Images plain(const std::vector<float>& memory, int64_t channels, const Axes& size) {
  const int64_t plane = size[0] * size[1] * size[2];
  return {const_cast<float*>(memory.data()), channels * plane, plane, {size[1] * size[2], size[2], 1}};
}

TEST(Convolution, BitsDependNeitherOnThreadsNorOnBatchNorOnFormat) {
  const int before = num_threads();
  const ConvolutionShape s = shape_of(3, 67, 40, 1, {1, 12, 15}, {1, 3, 3}, {1, 2, 1}, {0, 1, 1}, {1, 1, 1});
  const int64_t pixels = 12 * 15, places = s.output[1] * s.output[2];
  const auto x = random_numbers(static_cast<size_t>(3 * 67 * pixels), 1), w = random_numbers(40 * 67 * 9, 2);
  const auto g = random_numbers(static_cast<size_t>(3 * 40 * places), 3);
  std::vector<float> y0, dx0, dw0;
  for (const int threads : {1, 2, 3}) {
    set_num_threads(threads);
    std::vector<float> y(g.size()), dx(x.size()), dw(w.size());
    convolution(kFloat32, s, plain(x, 67, s.input), plain(w, 67, s.kernel), nullptr, plain(y, 40, s.output));
    convolution_input_gradient(kFloat32, s, plain(g, 40, s.output), plain(w, 67, s.kernel), nullptr,
                               plain(dx, 67, s.input));
    convolution_weight_gradient(kFloat32, s, plain(x, 67, s.input), plain(g, 40, s.output),
                                plain(dw, 67, s.kernel));
    if (threads == 1) y0 = y, dx0 = dx, dw0 = dw;
    EXPECT_EQ(std::memcmp(y.data(), y0.data(), y.size() * 4), 0);
    EXPECT_EQ(std::memcmp(dx.data(), dx0.data(), dx.size() * 4), 0);
    EXPECT_EQ(std::memcmp(dw.data(), dw0.data(), dw.size() * 4), 0);
  }
  set_num_threads(before);
  ConvolutionShape one = s;
  one.batch = 1;
  std::vector<float> y(static_cast<size_t>(40 * places));
  convolution(kFloat32, one, plain(x, 67, s.input), plain(w, 67, s.kernel), nullptr, plain(y, 40, s.output));
  EXPECT_EQ(std::memcmp(y.data(), y0.data(), y.size() * 4), 0);
  std::vector<float> last(x.size()), y_last(y0.size());
  for (size_t n = 0; n < 3; ++n)
    for (size_t c = 0; c < 67; ++c)
      for (size_t p = 0; p < static_cast<size_t>(pixels); ++p)
        last[(n * 180 + p) * 67 + c] = x[(n * 67 + c) * 180 + p];
  convolution(kFloat32, s, {last.data(), 67 * pixels, 1, {67 * pixels, 67 * 15, 67}}, plain(w, 67, s.kernel),
              nullptr, plain(y_last, 40, s.output));
  EXPECT_EQ(std::memcmp(y_last.data(), y0.data(), y0.size() * 4), 0);
}

TEST(Convolution, RefusesBool) { EXPECT_THROW(convolution(kBool, {}, {}, {}, nullptr, {}), Error); }

}  // namespace
}  // namespace lohe::backend
