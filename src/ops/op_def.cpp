#include "ops/op_def.h"

#include <algorithm>
#include <map>

#include "lohe/error.h"
#include "tensor/shape.h"

namespace lohe {

Arg::Arg(const Scalar& s) {
  switch (s.kind()) {
    case Scalar::Kind::kBool:
      kind = kBool;
      integer = s.to_bool();
      break;
    case Scalar::Kind::kInt:
      kind = kInt;
      integer = s.to_int();
      break;
    case Scalar::Kind::kFloat:
      kind = kFloat;
      real = s.to_double();
      break;
    case Scalar::Kind::kComplex:
      kind = kComplex;
      real = s.to_double();
      imag = s.imag();
      break;
  }
}

namespace ops {
namespace {

/// Never destroyed: other threads, and destructors of other statics, may call ops while the process exits.
std::map<std::string, OpDef, std::less<>>& rows() {
  static auto& table = *new std::map<std::string, OpDef, std::less<>>();
  return table;
}

}  // namespace

bool contains(DtypeSet set, Dtype d) {
  switch (d) {
    case Dtype::kBool:
      return (set & kBools) != 0;
    case Dtype::kFloat16:
    case Dtype::kBFloat16:
      return (set & kHalfs) != 0;
    case Dtype::kFloat32:
    case Dtype::kFloat64:
      return (set & kFloats) != 0;
    case Dtype::kComplex64:
    case Dtype::kComplex128:
      return (set & kComplexes) != 0;
    case Dtype::kUndefined:
      return false;
    default:
      return (set & kInts) != 0;
  }
}

OpDef&& OpDef::dtypes_are(DtypeSet set, ErrorKind otherwise) && {
  refusal = otherwise;
  dtypes = set;
  return std::move(*this);
}

OpDef&& OpDef::promote(Promotion p) && {
  promotion = p;
  return std::move(*this);
}

OpDef&& OpDef::no_inplace() && {
  has_inplace = false;
  return std::move(*this);
}

OpDef&& OpDef::inplace() && {
  has_inplace = true;
  return std::move(*this);
}

OpDef&& OpDef::out(OutDtype rule) && {
  has_out = true;
  out_dtype = rule;
  return std::move(*this);
}

OpDef&& OpDef::out_apart(OutDtype rule) && {
  apart = true;
  return std::move(*this).out(rule);
}

OpDef&& OpDef::exact_out() && { return std::move(*this).out_apart(OutDtype::kSame); }

OpDef&& OpDef::function_only() && {
  has_method = false;
  has_inplace = false;
  return std::move(*this);
}

OpDef&& OpDef::method_only() && {
  has_function = false;
  return std::move(*this);
}

OpDef&& OpDef::in(std::string_view m) && {
  module = m;
  has_method = false;
  has_inplace = false;
  return std::move(*this);
}

OpDef&& OpDef::not_differentiable() && {
  differentiable = false;
  return std::move(*this);
}

OpDef&& OpDef::unfilled_result() && {
  unfilled = true;
  return std::move(*this);
}
OpDef&& OpDef::filled_by_ops() && {
  by_ops = true;
  return std::move(*this);
}
OpDef&& OpDef::fills_any_strides() && {
  strided_results = true;
  return std::move(*this);
}
OpDef&& OpDef::wide_statistics() && {
  wide = true;
  return std::move(*this);
}
OpDef&& OpDef::shaped_by_values(std::function<bool(Args)> p) && {
  by_values = std::move(p);
  return std::move(*this);
}
OpDef&& OpDef::contiguous_result() && {
  strides = Strides::kContiguous;
  return std::move(*this);
}

OpDef&& OpDef::over(DomainRule d) && {
  domain = std::move(d);
  return std::move(*this);
}

OpDef&& OpDef::shaped(ResultRule r) && {
  results = std::move(r);
  return std::move(*this);
}

OpDef&& OpDef::checked(std::function<void(const OpDef&, Args)> c) && {
  checks = std::move(c);
  return std::move(*this);
}

OpDef&& OpDef::varies_with(std::function<uint8_t(Args)> f) && {
  variant = std::move(f);
  return std::move(*this);
}

OpDef&& OpDef::grad(TensorGradient g) && {
  gradient = std::move(g);
  return std::move(*this);
}

OpDef&& OpDef::describe(std::string_view text) && {
  doc = text;
  return std::move(*this);
}

OpDef&& OpDef::gradient_reads(std::initializer_list<std::string_view> names) && {
  saves_declared = true;
  for (const std::string_view name : names) {
    if (const int p = schema.index_of(name); p >= 0) {
      saved_params |= uint64_t{1} << p;
    } else if (name.starts_with("result")) {
      const int r = name == "result" ? 0 : name[6] - '0';
      saved_results |= uint64_t{1} << r;
    } else {
      raise(ErrorKind::kInternal, schema.name, ": gradient_reads names '", name,
            "', which is no parameter or result");
    }
  }
  return std::move(*this);
}

OpDef&& OpDef::mask(std::string_view name) && {
  const int p = schema.index_of(name);
  LOHE_INTERNAL_ASSERT(p >= 0, schema.name, ": mask names '", name, "', which is no parameter");
  mask_params |= uint64_t{1} << p;
  return std::move(*this);
}

OpDef&& OpDef::runtime(std::initializer_list<std::string_view> names) && {
  for (const std::string_view name : names) {
    const int p = schema.index_of(name);
    LOHE_INTERNAL_ASSERT(p >= 0 && (schema.params[static_cast<size_t>(p)].type == ArgType::kInt ||
                                    schema.params[static_cast<size_t>(p)].type == ArgType::kFloat),
                         schema.name, ": runtime names '", name, "', which is no int or float parameter");
    runtime_params |= uint64_t{1} << p;
  }
  return std::move(*this);
}

OpDef view(std::string_view schema, std::function<ViewSpec(Args)> rule) {
  OpDef op;
  op.schema = Schema::parse(schema);
  op.kind = OpKind::kView;
  op.view = std::move(rule);
  return op;
}

OpDef multi_view(std::string_view schema, std::function<std::vector<ViewSpec>(Args)> rule) {
  OpDef op;
  op.schema = Schema::parse(schema);
  op.kind = OpKind::kView;
  op.views = std::move(rule);
  return op;
}

OpDef primitive(std::string_view schema, std::function<std::vector<Meta>(Args)> infer,
                std::function<void(Args, Results&)> run) {
  OpDef op;
  op.schema = Schema::parse(schema);
  op.kind = OpKind::kPrimitive;
  op.infer = std::move(infer);
  op.run = std::move(run);
  return op;
}

OpDef function(std::string_view schema, std::function<Results(Args)> call) {
  OpDef op;
  op.schema = Schema::parse(schema);
  op.kind = OpKind::kFunction;
  op.call = std::move(call);
  return op;
}

OpDef alias(std::string_view name, std::string_view base) {
  OpDef op;
  op.schema.name = op.schema.base = std::string(name);
  op.alias_of = base;
  return op;
}

namespace {

/// `row` under the name that `lent` lends.
OpDef renamed(const OpDef& row, const OpDef& lent) {
  OpDef op = row;
  op.schema.base = lent.schema.base;
  op.schema.name = lent.schema.base + row.schema.name.substr(row.schema.base.size());
  op.schema.text = op.schema.name + row.schema.text.substr(row.schema.name.size());
  op.alias_of = lent.alias_of;
  if (!lent.module.empty()) op.module = lent.module;
  op.has_function = op.has_function && lent.has_function;
  op.has_method = op.has_method && lent.has_method;
  op.has_inplace = op.has_inplace && lent.module.empty();
  if (lent.dtypes != kAll) op.dtypes = lent.dtypes;
  return op;
}

}  // namespace

OpFamily::OpFamily(std::string_view name, std::vector<OpDef> family) {
  std::vector<OpDef> named;
  for (const OpDef& lent : family) {
    if (lent.alias_of.empty()) continue;
    const size_t before = named.size();
    for (const OpDef& row : family) {
      if (row.alias_of.empty() && row.schema.base == lent.alias_of) named.push_back(renamed(row, lent));
    }
    LOHE_INTERNAL_ASSERT(named.size() > before, lent.schema.name, " is an alias of no row in family ", name);
  }
  std::erase_if(family, [](const OpDef& op) { return !op.alias_of.empty(); });
  for (std::vector<OpDef>* list : {&family, &named}) {
    for (OpDef& op : *list) {
      op.family = name;
      std::string key = op.schema.name;
      const bool added = rows().emplace(std::move(key), std::move(op)).second;
      LOHE_INTERNAL_ASSERT(added, "two rows have one name in family ", name);
    }
  }
}

const std::vector<const OpDef*>& op_table() {
  static const auto& table = *[] {
    auto* list = new std::vector<const OpDef*>();
    for (auto& [name, op] : rows()) {
      op.id = static_cast<int>(list->size());
      list->push_back(&op);
    }
    return list;
  }();
  return table;
}

const OpDef* find_op_or_null(std::string_view name) {
  const auto found = rows().find(name);
  return found == rows().end() ? nullptr : &found->second;
}

const OpDef& find_op(std::string_view name) {
  const OpDef* op = find_op_or_null(name);
  LOHE_INTERNAL_ASSERT(op != nullptr, "no op is called ", name);
  return *op;
}

DomainRule reduce_over(int param) {
  return [param](const OpDef&, Args args) {
    Domain d;
    const TensorImpl& x = *args[0].tensor;
    const Arg& dims = args[static_cast<size_t>(param)];
    uint64_t mask = 0;
    if (dims.kind == Arg::kInt) {
      mask = dim_mask({&dims.integer, 1}, x.dim(), false);
    } else if (dims.none()) {
      mask = dim_mask({}, x.dim(), true);
    } else {
      mask = dim_mask(dims.int_list(), x.dim(), true);
    }
    d.sizes = x.size_dims();
    for (int64_t i = 0; i < x.dim(); ++i) d.groups.push_back((mask >> i & 1) != 0 ? ir::kRow : ir::kOuter);
    return d;
  };
}

DomainRule trailing(int param) {
  return [param](const OpDef& op, Args args) {
    Domain d;
    const TensorImpl& x = *args[0].tensor;
    const auto row = static_cast<int64_t>(args[static_cast<size_t>(param)].count);
    d.sizes = x.size_dims();
    for (int64_t i = 0; i < x.dim(); ++i) d.groups.push_back(i < x.dim() - row ? ir::kOuter : ir::kRow);
    (void)op;  // weights have the trailing dims and broadcast right-aligned
    return d;
  };
}

DomainRule channels() {
  return [](const OpDef& op, Args args) {
    Domain d;
    const TensorImpl& x = *args[0].tensor;
    d.sizes = x.size_dims();
    for (int64_t i = 0; i < x.dim(); ++i) d.groups.push_back(i == 1 ? ir::kOuter : ir::kRow);
    d.dims_of.resize(op.schema.params.size());
    for (size_t p = 0; p < args.size() && p < op.schema.params.size(); ++p) {
      if (args[p].kind == Arg::kTensor && p > 0 && args[p].tensor->dim() == 1 && x.dim() != 1)
        d.dims_of[p].push_back(1);
    }
    return d;
  };
}

}  // namespace ops
}  // namespace lohe
