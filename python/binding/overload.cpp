#include <algorithm>
#include <map>

#include "binding/parse.h"

/// What a schema means to the parser.
namespace lohe::python {
namespace {

using ops::ArgType;

/// NumPy's names for PyTorch's parameters, and `input` for the tensor that methods belong to.
PyObject* alias_of(const ops::Param& param) {
  static const std::map<std::string, const char*, std::less<>> aliases{
      {"dim", "axis"}, {"keepdim", "keepdims"}, {"other", "x2"}};
  if (param.name == "self") return intern("input");
  const auto found = aliases.find(param.name);
  return found == aliases.end() ? nullptr : intern(found->second);
}

const char* python_type(const ops::Param& param) {
  switch (param.type) {
    case ArgType::kTensor:
      return "Tensor";
    case ArgType::kTensors:
      return "tuple of Tensors";
    case ArgType::kScalar:
      return "Number";
    case ArgType::kInt:
      return "int";
    case ArgType::kFloat:
      return "float";
    case ArgType::kBool:
      return "bool";
    case ArgType::kStr:
      return "str";
    case ArgType::kInts:
      return "tuple of ints";
    case ArgType::kFloats:
      return "tuple of floats";
    case ArgType::kDtype:
      return "torch.dtype";
    case ArgType::kDevice:
      return "torch.device";
    case ArgType::kLayout:
      return "torch.layout";
    case ArgType::kMemoryFormat:
      return "torch.memory_format";
    case ArgType::kGenerator:
      return "torch.Generator";
  }
  return "object";
}

}  // namespace

std::string python_type_of(const ops::Param& param) { return python_type(param); }

Overload::Overload(const ops::OpDef& row) : op(&row) {
  const ops::Schema& schema = row.schema;
  count = static_cast<int>(schema.params.size());
  LOHE_INTERNAL_ASSERT(count <= kMaxParams, schema.name, " has too many parameters");
  positional = schema.positional;
  self_at = std::max(schema.index_of("self"), 0);
  int tensors = 0, tensor_lists = 0;
  bool dtype = false, device = false;
  signature = "(";
  for (int i = 0; i < count; ++i) {
    const ops::Param& p = schema.params[static_cast<size_t>(i)];
    names.push_back(intern(p.name.c_str()));
    aliases.push_back(alias_of(p));
    defaults.push_back(p.has_default ? p.default_value : Arg());
    if (!p.has_default) required |= uint64_t{1} << i;
    tensors += p.type == ArgType::kTensor;
    tensor_lists += p.type == ArgType::kTensors;
    dtype |= p.keyword_only && p.type == ArgType::kDtype;
    device |= p.keyword_only && p.type == ArgType::kDevice;
    if (i != 0) signature += ", ";
    if (i == positional) signature += "*, ";
    signature += std::string(python_type(p)) + " " + (p.name == "self" ? "input" : p.name);
    if (p.has_default) signature += " = " + p.default_text;
  }
  if (row.has_out) signature += positional == count ? ", *, Tensor out = None" : ", Tensor out = None";
  signature += ")";
  outputs = static_cast<int>(schema.returns.size());
  // "fill_.Tensor" stands beside a row that takes numbers.
  numbers_for_tensors =
      row.kind == ops::OpKind::kPointwise && tensors > 1 && !schema.name.ends_with(".Tensor");
  single_tensor = tensors == 1 && tensor_lists == 0;
  factory = dtype && device;
}

int64_t* ParsedArgs::new_ints(size_t n) {
  if (ints_used_ + n <= std::size(ints_)) {
    int64_t* place = ints_ + ints_used_;
    ints_used_ += n;
    return place;
  }
  return more_ints_.emplace_back(new int64_t[n]).get();
}

void ParsedArgs::reset() {
  overridden = false;
  requires_grad = false;
  out.clear();
  ints_used_ = 0;
}

}  // namespace lohe::python
