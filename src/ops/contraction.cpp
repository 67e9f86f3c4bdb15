#include <algorithm>
#include <array>

#include "lohe/error.h"
#include "ops/call.h"
#include "tensor/shape.h"

/// Sums of products over named dims: tensordot, inner and einsum, each by products of batches of matrices.
namespace lohe::ops {
namespace {

const OpRef& permute_row() {
  static const OpRef r("permute");
  return r;
}
const OpRef& reshape_row() {
  static const OpRef r("reshape");
  return r;
}
const OpRef& sum_row() {
  static const OpRef r("sum.dim_IntList");
  return r;
}

int64_t size_at(const TensorPtr& t, size_t d) { return t->sizes()[d]; }

// --- tensordot

Results tensordot(Args a) {
  static const OpRef mm("mm"), view("view");
  TensorPtr x(a[0].tensor), y(a[1].tensor);
  const auto over_x = a[2].int_list(), over_y = a[3].int_list();
  LOHE_CHECK(over_x.size() == over_y.size(),
             "tensordot(): both dimension lists should have the same length, got ", to_string(over_x),
             " and ", to_string(over_y));
  const uint64_t reduced_x = dim_mask(over_x, x->dim(), false), reduced_y = dim_mask(over_y, y->dim(), false);
  Dims order_x, order_y, contracted_x, contracted_y, shape;
  int64_t k = 1, m = 1, n = 1;
  for (size_t i = 0; i < over_x.size(); ++i) {
    const int64_t p = wrap_dim(over_x[i], x->dim()), q = wrap_dim(over_y[i], y->dim());
    const int64_t in_x = x->dim() == 0 ? 1 : size_at(x, static_cast<size_t>(p));
    const int64_t in_y = y->dim() == 0 ? 1 : size_at(y, static_cast<size_t>(q));
    LOHE_CHECK(in_x == in_y || in_x == 1 || in_y == 1,
               "tensordot(): contracted dimensions need to match, but the first has size ", in_x, " in dim ",
               over_x[i], " and the second has size ", in_y, " in dim ", over_y[i]);
    // A dim of one stands for as many equal elements as the other tensor has.
    if (in_x != in_y) {
      if (in_y == 1)
        x = sum_row()(x, Dims{p}, true, x->dtype());
      else
        y = sum_row()(y, Dims{q}, true, y->dtype());
    }
    k *= std::min(in_x, in_y);
    contracted_x.push_back(p);
    contracted_y.push_back(q);
  }
  for (int64_t d = 0; d < x->dim(); ++d) {
    if ((reduced_x >> d & 1) != 0) continue;
    order_x.push_back(d);
    shape.push_back(size_at(x, static_cast<size_t>(d)));
    m *= shape.back();
  }
  if (x->dim() > 0) {
    for (const int64_t d : contracted_x) order_x.push_back(d);
  }
  if (y->dim() > 0) order_y = contracted_y;
  for (int64_t d = 0; d < y->dim(); ++d) {
    if ((reduced_y >> d & 1) != 0) continue;
    order_y.push_back(d);
    shape.push_back(size_at(y, static_cast<size_t>(d)));
    n *= shape.back();
  }
  const TensorPtr p = reshape_row()(permute_row()(x, order_x), Dims{m, k});
  const TensorPtr q = reshape_row()(permute_row()(y, order_y), Dims{k, n});
  return view(mm(p, q), shape);
}

Results inner(Args a) {
  static const OpRef mul("mul"), row("tensordot");
  const TensorImpl &x = *a[0].tensor, &y = *a[1].tensor;
  if (x.dim() == 0 || y.dim() == 0) return mul(a[0].tensor, a[1].tensor);
  LOHE_CHECK(x.sizes().back() == y.sizes().back(),
             "inner() the last dimension must match on both input tensors but got shapes ",
             to_string(x.sizes()), " and ", to_string(y.sizes()));
  return row(a[0].tensor, a[1].tensor, Dims{-1}, Dims{-1});
}

// --- einsum

/// A letter as 0..51, capitals first, which is also the order of the implicit output.
constexpr int kLetters = 52;
constexpr int kEllipsis = kLetters;
using Term = std::vector<int>;

struct Equation {
  std::vector<Term> operands;
  Term output;
  bool explicit_output = false;
};

/// One term, a list of letters with at most one "...".
Term parse_term(std::string_view text, std::string_view equation) {
  Term term;
  bool ellipsis = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c == ' ') continue;
    if (c == '.') {
      LOHE_CHECK(text.substr(i, 3) == "..." && !ellipsis, "einsum(): found '.' in the equation '", equation,
                 "' that is not part of one ellipsis (...) a term");
      ellipsis = true;
      term.push_back(kEllipsis);
      i += 2;
      continue;
    }
    const bool upper = c >= 'A' && c <= 'Z', lower = c >= 'a' && c <= 'z';
    LOHE_CHECK(upper || lower, "einsum(): invalid subscript given in the equation '", equation, "': '", c,
               "'; subscripts are letters");
    term.push_back(upper ? c - 'A' : 26 + c - 'a');
  }
  return term;
}

Equation parse_equation(std::string_view text) {
  Equation e;
  const size_t arrow = text.find("->");
  std::string_view left = text.substr(0, arrow);
  while (true) {
    const size_t comma = left.find(',');
    e.operands.push_back(parse_term(left.substr(0, comma), text));
    if (comma == std::string_view::npos) break;
    left.remove_prefix(comma + 1);
  }
  if (arrow != std::string_view::npos) {
    e.explicit_output = true;
    e.output = parse_term(text.substr(arrow + 2), text);
  }
  return e;
}

/// Where each subscript lies in the space that all operands are aligned to: the output's dims in order, then
/// the ones that are summed.
struct Alignment {
  std::array<int64_t, kLetters> place;
  int64_t ellipsis_place = 0, ellipsis_dims = 0;
  int64_t output_rank = 0, rank = 0;
};

Alignment align(const Equation& e, std::span<TensorImpl* const> tensors) {
  Alignment a;
  a.place.fill(-1);
  std::array<int, kLetters> uses{};
  bool any_ellipsis = false;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const Term& term = e.operands[i];
    const bool ellipsis = std::count(term.begin(), term.end(), kEllipsis) != 0;
    const auto letters = static_cast<int64_t>(term.size()) - (ellipsis ? 1 : 0);
    LOHE_CHECK(ellipsis ? letters <= tensors[i]->dim() : letters == tensors[i]->dim(),
               "einsum(): the number of subscripts in the equation (", letters,
               ellipsis ? ") is more than the number of dimensions ("
                        : ") does not match the number of dimensions (",
               tensors[i]->dim(), ") for operand ", i, ellipsis ? "" : " and no ellipsis was given");
    if (ellipsis) {
      any_ellipsis = true;
      a.ellipsis_dims = std::max(a.ellipsis_dims, tensors[i]->dim() - letters);
    }
    for (const int s : term) {
      if (s != kEllipsis) ++uses[static_cast<size_t>(s)];
    }
  }
  bool ellipsis_placed = false;
  const auto put_ellipsis = [&] {
    a.ellipsis_place = a.rank;
    a.rank += a.ellipsis_dims;
    ellipsis_placed = true;
  };
  if (e.explicit_output) {
    for (const int s : e.output) {
      if (s == kEllipsis) {
        put_ellipsis();
        continue;
      }
      int64_t& at = a.place[static_cast<size_t>(s)];
      LOHE_CHECK(at < 0, "einsum(): an output subscript appears more than once in the output");
      LOHE_CHECK(uses[static_cast<size_t>(s)] > 0,
                 "einsum(): an output subscript does not appear in the equation for any input operand");
      at = a.rank++;
    }
  } else {
    if (any_ellipsis) put_ellipsis();
    for (size_t s = 0; s < kLetters; ++s) {
      if (uses[s] == 1) a.place[s] = a.rank++;
    }
  }
  a.output_rank = a.rank;
  if (!ellipsis_placed) put_ellipsis();
  for (size_t s = 0; s < kLetters; ++s) {
    if (uses[s] > 0 && a.place[s] < 0) a.place[s] = a.rank++;
  }
  return a;
}

/// The operand as a view with one dim for each of the aligned space: repeated subscripts become the
/// diagonal, absent ones dims of one.
TensorPtr aligned(TensorImpl* given, const Term& term, const Alignment& a, size_t number) {
  static const OpRef diagonal("diagonal"), movedim("movedim.int"), unsqueeze("unsqueeze");
  TensorPtr t(given);
  std::vector<int64_t> places;  // of each dim of t
  const int64_t covered = t->dim() - (static_cast<int64_t>(term.size()) - 1);
  for (const int s : term) {
    if (s == kEllipsis) {
      // Fewer dims than another operand's ellipsis: aligned at the right.
      for (int64_t d = a.ellipsis_dims - covered; d < a.ellipsis_dims; ++d)
        places.push_back(a.ellipsis_place + d);
      continue;
    }
    const int64_t place = a.place[static_cast<size_t>(s)];
    const auto seen = std::find(places.begin(), places.end(), place);
    if (seen == places.end()) {
      places.push_back(place);
      continue;
    }
    const int64_t first = seen - places.begin(), second = static_cast<int64_t>(places.size());
    LOHE_CHECK(size_at(t, static_cast<size_t>(first)) == size_at(t, static_cast<size_t>(second)),
               "einsum(): a subscript is repeated for operand ", number, " but the sizes don't match, ",
               size_at(t, static_cast<size_t>(second)), " != ", size_at(t, static_cast<size_t>(first)));
    t = movedim(diagonal(t, int64_t{0}, first, second), int64_t{-1}, first);
  }
  Dims order;
  std::vector<int64_t> missing;
  for (int64_t p = 0; p < a.rank; ++p) {
    const auto at = std::find(places.begin(), places.end(), p);
    if (at == places.end())
      missing.push_back(p);
    else
      order.push_back(at - places.begin());
  }
  t = permute_row()(t, order);
  for (const int64_t p : missing) t = unsqueeze(t, p);
  return t;
}

/// The product of two aligned tensors, summed over `summed`; those dims stay as ones. Dims that both have are
/// the batch, or the contracted dim of a product of matrices; the others are its rows and columns.
TensorPtr contracted(TensorPtr x, TensorPtr y, const std::vector<bool>& summed) {
  static const OpRef bmm("bmm"), mul("mul"), view("view");
  // What only one of them has is summed first; integers then count in int64, unless a product of matrices
  // follows, whose operands have one dtype.
  Dims only_x, only_y;
  bool in_both = false;
  for (size_t d = 0; d < summed.size(); ++d) {
    if (!summed[d]) continue;
    const bool in_x = size_at(x, d) != 1, in_y = size_at(y, d) != 1;
    in_both = in_both || (in_x && in_y);
    if (in_x && !in_y) only_x.push_back(static_cast<int64_t>(d));
    if (in_y && !in_x) only_y.push_back(static_cast<int64_t>(d));
  }
  const Arg dtype = in_both ? Arg(x->dtype()) : Arg();
  if (!only_x.empty()) x = sum_row()(x, only_x, true, dtype);
  if (!only_y.empty()) y = sum_row()(y, only_y, true, dtype);
  if (!in_both) return mul(x, y);
  const size_t rank = summed.size();
  Dims both, rows, columns, over;
  int64_t batch = 1, m = 1, n = 1, k = 1;
  for (size_t d = 0; d < rank; ++d) {
    const auto at = static_cast<int64_t>(d);
    const bool in_x = size_at(x, d) != 1, in_y = size_at(y, d) != 1;
    if (summed[d]) {
      k *= size_at(x, d);
      over.push_back(at);
    } else if (in_x && in_y) {
      batch *= size_at(x, d);
      both.push_back(at);
    } else if (in_x) {
      m *= size_at(x, d);
      rows.push_back(at);
    } else {
      n *= size_at(y, d);
      columns.push_back(at);
    }
  }
  // Sums of products of elements, as of rows with rows, are no products of matrices. (Of half types these
  // keep float32 sums; they also refuse bool and two dtypes.)
  const bool usual = x->dtype() == y->dtype() && !is_half(x->dtype()) && x->dtype() != kBool;
  if (rows.empty() && columns.empty() && !both.empty() && usual)
    return sum_row()(mul(x, y), over, true, x->dtype());
  const auto joined = [](std::initializer_list<const Dims*> parts) {
    Dims all;
    for (const Dims* part : parts) {
      for (const int64_t d : *part) all.push_back(d);
    }
    return all;
  };
  const Dims order = joined({&both, &rows, &over, &columns});
  Dims sizes, back(rank);
  for (const int64_t d : order) {
    const auto at = static_cast<size_t>(d);
    back[at] = static_cast<int64_t>(sizes.size());
    sizes.push_back(summed[at] ? 1 : std::max(size_at(x, at), size_at(y, at)));
    if (!summed[at] && (size_at(x, at) == 0 || size_at(y, at) == 0)) sizes.back() = 0;
  }
  const TensorPtr p = reshape_row()(permute_row()(x, order), Dims{batch, m, k});
  const TensorPtr q =
      reshape_row()(permute_row()(y, joined({&both, &over, &columns, &rows})), Dims{batch, k, n});
  return permute_row()(view(bmm(p, q), sizes), back);
}

Results einsum(Args a) {
  static const OpRef squeeze("squeeze.dims");
  const auto tensors = a[1].tensor_list();
  LOHE_CHECK(!tensors.empty(), "einsum(): must provide at least one operand");
  for (size_t i = 0; i < tensors.size(); ++i) {
    LOHE_CHECK_TYPE(tensors[i] != nullptr, "einsum(): operand ", i, " must be Tensor, not NoneType");
  }
  const Equation equation = parse_equation(a[0].str());
  LOHE_CHECK(equation.operands.size() == tensors.size(),
             "einsum(): ", equation.operands.size() < tensors.size() ? "more" : "fewer",
             " operands were provided than specified in the equation: got ", tensors.size(), ", expected ",
             equation.operands.size());
  const Alignment space = align(equation, tensors);
  const auto rank = static_cast<size_t>(space.rank);
  std::vector<TensorPtr> operands;
  for (size_t i = 0; i < tensors.size(); ++i)
    operands.push_back(aligned(tensors[i], equation.operands[i], space, i));
  Dims sizes(rank);
  std::fill(sizes.begin(), sizes.end(), 1);
  for (size_t d = 0; d < rank; ++d) {
    for (size_t i = 0; i < operands.size(); ++i) {
      const int64_t n = size_at(operands[i], d);
      if (n == 1) continue;
      LOHE_CHECK(sizes[d] == 1 || sizes[d] == n,
                 "einsum(): operands do not broadcast with remapped shapes "
                 "[original->remapped]: dim ",
                 d, " of operand ", i, " has size ", n, ", another has ", sizes[d]);
      sizes[d] = n;
    }
  }
  // The order of the products: pairs of positions in what is left, the result goes to its end.
  std::vector<std::array<size_t, 2>> pairs;
  if (a[2].none()) {
    for (size_t i = 1; i < operands.size(); ++i) pairs.push_back({0, 1});
  } else {
    const auto path = a[2].int_list();
    LOHE_CHECK(path.size() == 2 * (operands.size() - 1), "einsum(): expected a contraction path of ",
               2 * (operands.size() - 1), " positions, got ", path.size());
    for (size_t i = 0; i < path.size(); i += 2) {
      const auto left = static_cast<int64_t>(operands.size() - i / 2);
      const int64_t p = std::min(path[i], path[i + 1]), q = std::max(path[i], path[i + 1]);
      LOHE_CHECK(p >= 0 && p < q && q < left, "einsum(): invalid contraction path: (", path[i], ", ",
                 path[i + 1], ") with ", left, " operands left");
      pairs.push_back({static_cast<size_t>(p), static_cast<size_t>(q)});
    }
  }
  const auto is_summed = [&](size_t d) { return d >= static_cast<size_t>(space.output_rank); };
  for (const auto& [p, q] : pairs) {
    const TensorPtr x = operands[p], y = operands[q];
    operands.erase(operands.begin() + static_cast<int64_t>(q));
    operands.erase(operands.begin() + static_cast<int64_t>(p));
    // What no other operand has is summed here.
    std::vector<bool> summed(rank);
    for (size_t d = 0; d < rank; ++d) {
      summed[d] = is_summed(d) && std::all_of(operands.begin(), operands.end(),
                                              [&](const TensorPtr& t) { return size_at(t, d) == 1; });
    }
    const TensorPtr product = contracted(x, y, summed);
    // Left to right: the product stays in front.
    operands.insert(a[2].none() ? operands.begin() : operands.end(), product);
  }
  TensorPtr result = operands[0];
  Dims over;
  for (size_t d = static_cast<size_t>(space.output_rank); d < rank; ++d)
    over.push_back(static_cast<int64_t>(d));
  if (over.empty()) return result;
  // A single operand may still have dims to sum; those of one are only dropped.
  const bool ones = std::all_of(over.begin(), over.end(),
                                [&](int64_t d) { return size_at(result, static_cast<size_t>(d)) == 1; });
  if (ones && tensors.size() > 1) return squeeze(result, over);
  return sum_row()(result, over);
}

const OpFamily contraction(
    "contraction",
    {
        function("inner(Tensor self, Tensor other) -> Tensor", inner)
            .out(OutDtype::kSame)
            .describe("Sum over products of the last dims."),
        function("tensordot(Tensor self, Tensor other, int[] dims_self, int[] dims_other) -> Tensor",
                 tensordot)
            .function_only()
            .out(OutDtype::kSame)
            .describe("Sum of products over pairs of dims."),
        function("einsum(str equation, Tensor[] tensors, *, int[]? path=None) -> Tensor", einsum)
            .function_only()
            .describe("Sum of products of dims that are named by letters, as in 'ij,jk->ik'."),
    });

}  // namespace
}  // namespace lohe::ops
