#include <algorithm>

#include "lohe/error.h"
#include "ops/view_rules.h"
#include "tensor/shape.h"

/// Images as columns of sliding blocks, and back. The two rows are each other's gradient.
namespace lohe::ops {
namespace {

/// Kernel, dilation, padding and stride of two axes, and how many blocks fit.
struct Blocks {
  int64_t kernel[2], dilation[2], padding[2], stride[2], count[2];
};

Blocks blocks_of(const char* op, int64_t height, int64_t width, Args a, size_t first) {
  static constexpr const char* names[] = {"kernel size", "dilation", "padding", "stride"};
  Blocks b{};
  int64_t* const lists[] = {b.kernel, b.dilation, b.padding, b.stride};
  for (size_t p = 0; p < 4; ++p) {
    const auto given = a[first + p].int_list();
    LOHE_CHECK(given.size() == 2, "It is expected ", names[p], " equals to 2, but got size ", given.size(),
               " in ", op);
    for (size_t k = 0; k < 2; ++k) {
      lists[p][k] = given[k];
      LOHE_CHECK(p == 2 ? given[k] >= 0 : given[k] > 0, names[p],
                 p == 2 ? " should be non-negative" : " should be greater than zero", ", but got ",
                 to_string(given), " in ", op);
    }
  }
  const int64_t sizes[] = {height, width};
  for (size_t k = 0; k < 2; ++k) {
    const int64_t room = sizes[k] + 2 * b.padding[k] - b.dilation[k] * (b.kernel[k] - 1) - 1;
    b.count[k] = room < 0 ? 0 : room / b.stride[k] + 1;
    LOHE_CHECK(b.count[k] > 0, op, ": given spatial size (", height, ", ", width, ") and kernel_size=(",
               b.kernel[0], ", ", b.kernel[1], "), no sliding block fits along dim ", k,
               "; use a larger image or padding, or a smaller kernel");
  }
  return b;
}

void check_values(const char* op, const TensorImpl& t) {
  LOHE_CHECK_KIND(kNotImplemented, !is_integral(t.dtype(), false), "\"", op, "\" not implemented for '",
                  t.dtype(), "'; convert to a floating dtype, a complex one or bool");
}

/// All of the blocks' elements that stand at kernel position (i, j): a view of the padded image.
TensorPtr at_kernel_position(const TensorPtr& padded, const Blocks& b, int64_t i, int64_t j) {
  static const OpRef as_strided("as_strided");
  const auto s = padded->strides();
  const Dims sizes{padded->sizes()[0], padded->sizes()[1], b.count[0], b.count[1]};
  const Dims strides{s[0], s[1], s[2] * b.stride[0], s[3] * b.stride[1]};
  return as_strided(padded, sizes, strides,
                    padded->offset() + i * b.dilation[0] * s[2] + j * b.dilation[1] * s[3]);
}

/// (N, C, kernel, kernel, blocks, blocks): the columns with their dims apart.
TensorPtr apart(const TensorPtr& columns, int64_t n, int64_t channels, const Blocks& b) {
  static const OpRef view("view");
  return view(columns, Dims{n, channels, b.kernel[0], b.kernel[1], b.count[0], b.count[1]});
}

template <class F>
void over_kernel(const TensorPtr& columns, const TensorPtr& padded, const Blocks& b, F&& f) {
  static const OpRef select("select.int");
  const TensorPtr all = apart(columns, padded->sizes()[0], padded->sizes()[1], b);
  for (int64_t i = 0; i < b.kernel[0]; ++i) {
    const TensorPtr row = select(all, int64_t{2}, i);
    for (int64_t j = 0; j < b.kernel[1]; ++j)
      f(TensorPtr(select(row, int64_t{2}, j)), at_kernel_position(padded, b, i, j));
  }
}

std::vector<Meta> column_meta(Args a) {
  const TensorImpl& x = *a[0].tensor;
  check_values("im2col", x);
  const int64_t rank = x.dim();
  bool fits = rank == 3 || rank == 4;
  for (int64_t d = rank == 4 ? 1 : 0; fits && d < rank; ++d) fits = x.sizes()[static_cast<size_t>(d)] > 0;
  LOHE_CHECK(
      fits,
      "Expected 3D or 4D (batch mode) tensor with possibly 0 batch size and other non-zero dimensions for "
      "input, but got: ",
      to_string(x.sizes()));
  const auto spatial = x.sizes().last(2);
  const Blocks b = blocks_of("im2col", spatial[0], spatial[1], a, 1);
  Meta m;
  m.dtype = x.dtype();
  if (rank == 4) m.sizes.push_back(x.sizes()[0]);
  m.sizes.push_back(x.sizes()[static_cast<size_t>(rank - 3)] * b.kernel[0] * b.kernel[1]);
  m.sizes.push_back(b.count[0] * b.count[1]);
  return {m};
}

void to_columns(Args a, Results& r) {
  static const OpRef pad("constant_pad_nd"), contiguous("contiguous"), unsqueeze("unsqueeze"), copy("copy_");
  const NoGrad no_grad;
  TensorPtr x(a[0].tensor), columns = r[0];
  const auto spatial = x->sizes().last(2);
  const Blocks b = blocks_of("im2col", spatial[0], spatial[1], a, 1);
  if (x->dim() == 3) {
    x = unsqueeze(x, int64_t{0});
    columns = unsqueeze(columns, int64_t{0});
  }
  x = contiguous(pad(x, Dims{b.padding[1], b.padding[1], b.padding[0], b.padding[0]}));
  over_kernel(columns, x, b, [](const TensorPtr& column, const TensorPtr& image) { copy(column, image); });
}

std::vector<Meta> image_meta(Args a) {
  const TensorImpl& t = *a[0].tensor;
  check_values("col2im", t);
  const int64_t rank = t.dim();
  bool fits = rank == 2 || rank == 3;
  for (int64_t d = rank == 3 ? 1 : 0; fits && d < rank; ++d) fits = t.sizes()[static_cast<size_t>(d)] > 0;
  LOHE_CHECK(
      fits,
      "Expected 2D or 3D (batch mode) tensor for input with possibly 0 batch size and non-zero dimensions for "
      "input, but got: ",
      to_string(t.sizes()));
  const auto size = a[1].int_list();
  LOHE_CHECK(size.size() == 2 && size[0] > 0 && size[1] > 0,
             "output_size should be two numbers greater than zero, but got ", to_string(size));
  const Blocks b = blocks_of("col2im", size[0], size[1], a, 2);
  const int64_t area = b.kernel[0] * b.kernel[1], rows = t.sizes()[static_cast<size_t>(rank - 2)];
  LOHE_CHECK(rows % area == 0,
             "Expected size of input's dimension 1 to be divisible by the product of kernel_size, but got ",
             "input.size(1)=", rows, " and a kernel of ", area, " positions");
  LOHE_CHECK(t.sizes().back() == b.count[0] * b.count[1], "Given output_size=", to_string(size),
             ", expected size of input's dimension 2 to match the calculated number of sliding blocks ",
             b.count[0], " * ", b.count[1], " = ", b.count[0] * b.count[1],
             ", but got input.size(2)=", t.sizes().back());
  Meta m;
  m.dtype = t.dtype();
  if (rank == 3) m.sizes.push_back(t.sizes()[0]);
  m.sizes.push_back(rows / area);
  m.sizes.push_back(size[0]);
  m.sizes.push_back(size[1]);
  return {m};
}

void to_image(Args a, Results& r) {
  static const OpRef zeros("zeros"), contiguous("contiguous"), unsqueeze("unsqueeze"), slice("slice.Tensor"),
      copy("copy_"), add("add");
  const NoGrad no_grad;
  TensorPtr columns = contiguous(a[0].tensor), image = r[0];
  const auto size = a[1].int_list();
  const Blocks b = blocks_of("col2im", size[0], size[1], a, 2);
  if (columns->dim() == 2) {
    columns = unsqueeze(columns, int64_t{0});
    image = unsqueeze(image, int64_t{0});
  }
  const TensorPtr padded = zeros(
      Dims{image->sizes()[0], image->sizes()[1], size[0] + 2 * b.padding[0], size[1] + 2 * b.padding[1]},
      image->dtype());
  over_kernel(columns, padded, b, [](const TensorPtr& column, const TensorPtr& part) {
    dispatch::call(add.op(), std::array{Arg(part), Arg(column), Arg(int64_t{1})}, dispatch::Form::kInPlace);
  });
  TensorPtr inside = slice(padded, int64_t{2}, b.padding[0], b.padding[0] + size[0]);
  inside = slice(inside, int64_t{3}, b.padding[1], b.padding[1] + size[1]);
  copy(image, inside);
}

const OpFamily unfolding(
    "unfolding",
    {
        primitive(
            "im2col(Tensor self, int[2] kernel_size, int[2] dilation, int[2] padding, int[2] stride) -> Tensor",
            column_meta, to_columns)
            .grad([](Backward& b) {
              static const OpRef row("col2im");
              if (b.needs(0))
                b.set(0, row(b.grad(), Dims(std::span<const int64_t>(b.meta(0).sizes).last(2)), b.arg(1),
                             b.arg(2), b.arg(3), b.arg(4)));
            })
            .gradient_reads({})
            .in("nn")
            .describe("Sliding blocks of (N, C, H, W) as columns: (N, C * kernel area, number of blocks)."),
        primitive(
            "col2im(Tensor self, int[2] output_size, int[2] kernel_size, int[2] dilation, int[2] padding, int[2] stride) -> Tensor",
            image_meta, to_image)
            .grad([](Backward& b) {
              static const OpRef row("im2col");
              if (b.needs(0)) b.set(0, row(b.grad(), b.arg(2), b.arg(3), b.arg(4), b.arg(5)));
            })
            .gradient_reads({})
            .in("nn")
            .describe("Columns of sliding blocks summed into an image of output_size."),
    });

}  // namespace
}  // namespace lohe::ops
