#include "io/builder.h"

#include <array>
#include <limits>

#include "io/settle.h"
#include "io/unpickle.h"
#include "lohe/error.h"

namespace lohe::io {
namespace {

enum class Kind : uint8_t {
  kOrderedDict,
  kCounter,
  kDefaultDict,
  kDict,
  kList,
  kTuple,
  kSet,
  kFrozenSet,
  kComplex,
  kBytes,
  kByteArray,
  kEncode,
  kScalarType,
  kTensorClass,
  kParameterClass,
  kBufferClass,
  kStorageClass,
  kUntypedStorageClass,
  kSize,
  kDevice,
  kGetLayout,
  kRebuildTensor,
  kRebuildTensorV2,
  kRebuildTensorV3,
  kRebuildParameter,
  kRebuildParameterWithState,
  kRebuildFromType,
};

struct KnownGlobal {
  std::string_view module;
  std::string_view name;
  Kind kind;
  Dtype dtype = Dtype::kUndefined;  ///< of a storage class
};

/// The allow-list. A name that is not here is refused, whatever it is.
constexpr KnownGlobal kKnown[] = {
    {"collections", "OrderedDict", Kind::kOrderedDict},
    {"collections", "Counter", Kind::kCounter},
    {"collections", "defaultdict", Kind::kDefaultDict},
    {"builtins", "dict", Kind::kDict},
    {"builtins", "list", Kind::kList},
    {"builtins", "tuple", Kind::kTuple},
    {"builtins", "set", Kind::kSet},
    {"builtins", "frozenset", Kind::kFrozenSet},
    {"builtins", "complex", Kind::kComplex},
    {"builtins", "bytes", Kind::kBytes},
    {"builtins", "bytearray", Kind::kByteArray},
    {"builtins", "int", Kind::kScalarType},
    {"builtins", "float", Kind::kScalarType},
    {"builtins", "bool", Kind::kScalarType},
    {"builtins", "str", Kind::kScalarType},
    {"_codecs", "encode", Kind::kEncode},
    {"torch", "Tensor", Kind::kTensorClass},
    {"torch.nn.parameter", "Parameter", Kind::kParameterClass},
    {"torch.nn.parameter", "Buffer", Kind::kBufferClass},
    {"torch", "Size", Kind::kSize},
    {"torch", "device", Kind::kDevice},
    {"torch.serialization", "_get_layout", Kind::kGetLayout},
    {"torch._utils", "_rebuild_tensor", Kind::kRebuildTensor},
    {"torch._utils", "_rebuild_tensor_v2", Kind::kRebuildTensorV2},
    {"torch._utils", "_rebuild_tensor_v3", Kind::kRebuildTensorV3},
    {"torch._utils", "_rebuild_parameter", Kind::kRebuildParameter},
    {"torch._utils", "_rebuild_parameter_with_state", Kind::kRebuildParameterWithState},
    {"torch._tensor", "_rebuild_from_type_v2", Kind::kRebuildFromType},
    {"torch.storage", "UntypedStorage", Kind::kUntypedStorageClass},
    {"torch", "UntypedStorage", Kind::kUntypedStorageClass},
    {"torch", "ByteStorage", Kind::kStorageClass, Dtype::kUInt8},
    {"torch", "CharStorage", Kind::kStorageClass, Dtype::kInt8},
    {"torch", "ShortStorage", Kind::kStorageClass, Dtype::kInt16},
    {"torch", "IntStorage", Kind::kStorageClass, Dtype::kInt32},
    {"torch", "LongStorage", Kind::kStorageClass, Dtype::kInt64},
    {"torch", "HalfStorage", Kind::kStorageClass, Dtype::kFloat16},
    {"torch", "FloatStorage", Kind::kStorageClass, Dtype::kFloat32},
    {"torch", "DoubleStorage", Kind::kStorageClass, Dtype::kFloat64},
    {"torch", "ComplexFloatStorage", Kind::kStorageClass, Dtype::kComplex64},
    {"torch", "ComplexDoubleStorage", Kind::kStorageClass, Dtype::kComplex128},
    {"torch", "BoolStorage", Kind::kStorageClass, Dtype::kBool},
    {"torch", "BFloat16Storage", Kind::kStorageClass, Dtype::kBFloat16},
};

/// What PyTorch itself saves and this system does not have: an honest reason instead of the general one.
struct Unsupported {
  std::string_view name;
  std::string_view reason;
};
constexpr Unsupported kUnsupported[] = {
    {"torch._utils._rebuild_sparse_tensor", "sparse tensors; save tensor.to_dense()"},
    {"torch._utils._rebuild_sparse_csr_tensor", "sparse tensors; save tensor.to_dense()"},
    {"torch._utils._rebuild_qtensor", "PyTorch's quantized tensors; save tensor.dequantize()"},
    {"torch._utils._rebuild_meta_tensor_no_storage", "tensors on the meta device, which have no data"},
    {"torch._utils._rebuild_nested_tensor", "nested tensors; save tensor.unbind()"},
    {"torch._utils._rebuild_wrapper_subclass", "tensor subclasses"},
    {"torch._utils._rebuild_device_tensor_from_numpy", "tensors of this device; save tensor.cpu()"},
    {"torch._utils._rebuild_device_tensor_from_cpu_tensor", "tensors of this device; save tensor.cpu()"},
};
constexpr std::string_view kForeignDtypes[] = {
    "uint16",      "uint32",          "uint64",          "complex32",      "float8_e4m3fn",
    "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu", "float4_e2m1fn_x2",
    "qint8",       "quint8",          "qint32",          "quint4x2",       "quint2x4",
    "bits8",       "bits16"};
constexpr std::string_view kForeignStorages[] = {"QInt8Storage",    "QUInt8Storage",   "QInt32Storage",
                                                 "QUInt4x2Storage", "QUInt2x4Storage", "ComplexHalfStorage"};
constexpr std::string_view kLayouts[] = {"torch.strided",    "torch.sparse_coo", "torch.sparse_csr",
                                         "torch.sparse_csc", "torch.sparse_bsr", "torch.sparse_bsc",
                                         "torch.jagged"};

constexpr size_t kMaxDims = 64;

const KnownGlobal& known(Global global) { return kKnown[global.id]; }

std::string qualified(const KnownGlobal& global) {
  return std::string(global.module) + "." + std::string(global.name);
}

template <class Range>
bool holds(const Range& range, std::string_view name) {
  for (const std::string_view item : range) {
    if (item == name) return true;
  }
  return false;
}

}  // namespace

struct Builder::Arguments {
  const Builder& builder;
  Global function;
  const std::vector<Value>& values;

  size_t size() const { return values.size(); }
  const Value& operator[](size_t i) const { return values[i]; }

  void count(size_t low, size_t high) const {
    if (values.size() < low || values.size() > high) {
      builder.fail(qualified(known(function)) + " with " + std::to_string(values.size()) + " arguments");
    }
  }
  template <class T>
  const T& get(size_t i, std::string_view expected) const {
    const T* held = values[i].get_if<T>();
    if (held == nullptr) {
      builder.fail(qualified(known(function)) + ": argument " + std::to_string(i) + " must be " +
                   std::string(expected) + ", got " + std::string(values[i].type_name()));
    }
    return *held;
  }
};

Builder::Builder(std::string source, size_t pickle_size)
    : source_(std::move(source)), pickle_size_(pickle_size) {}

Builder::~Builder() {
  for (const Value& value : containers_) clear_container(value);
}

void Builder::fail(const std::string& what) const {
  throw UnpicklingError("cannot read '" + source_ + "': " + what);
}

void Builder::charge(size_t bytes) {
  charged_ += bytes;
  if (charged_ > 16 * pickle_size_ + 65536) {
    fail("it copies the same objects so often that they need far more memory than the file has bytes");
  }
}

std::shared_ptr<List> Builder::new_list() {
  auto list = std::make_shared<List>();
  containers_.emplace_back(list);
  return list;
}

std::shared_ptr<Dict> Builder::new_dict(DictKind kind) {
  auto dict = std::make_shared<Dict>();
  dict->kind = kind;
  containers_.emplace_back(dict);
  return dict;
}

std::shared_ptr<Set> Builder::new_set(bool frozen) {
  auto set = std::make_shared<Set>();
  set->frozen = frozen;
  containers_.emplace_back(set);
  return set;
}

Value Builder::new_tuple(std::vector<Value> items) {
  auto tuple = std::make_shared<Tuple>(Tuple{std::move(items)});
  containers_.emplace_back(tuple);
  return tuple;
}

Value Builder::global(std::string_view module, std::string_view name) const {
  if (module == "__builtin__") module = "builtins";  // Python 2's name, which protocol 2 keeps
  for (size_t i = 0; i < std::size(kKnown); ++i) {
    if (kKnown[i].module == module && kKnown[i].name == name) return Global{static_cast<uint16_t>(i)};
  }
  if (module == "torch") {
    const Dtype dtype = dtype_from_name(name);
    if (dtype != Dtype::kUndefined) return dtype;
    LOHE_CHECK_KIND(kNotImplemented, !holds(kForeignDtypes, name) && !holds(kForeignStorages, name),
                    "cannot read '", source_, "': it holds torch.", name,
                    ", which is not supported; convert to a supported dtype "
                    "before saving");
  }
  // Names come from the file and go into a message: keep them short and printable.
  std::string full = std::string(module.substr(0, 100)) + "." + std::string(name.substr(0, 100));
  for (char& c : full) {
    if (c < 0x20 || c > 0x7E) c = '?';
  }
  for (const Unsupported& unsupported : kUnsupported) {
    LOHE_CHECK_KIND(kNotImplemented, unsupported.name != full, "cannot read '", source_, "': it holds ",
                    unsupported.reason);
  }
  if (module.starts_with("numpy")) {
    fail("it holds a NumPy object (" + full +
         "), which is not read. Save plain numbers (value.item()) or tensors (torch.from_numpy(array)) "
         "instead");
  }
  if (module.starts_with("__torch__")) {
    fail("it is a TorchScript archive (" + full + "), which is not read. Save model.state_dict() instead");
  }
  fail(
      "it asks for '" + full +
      "', which is not among the names that tensors and plain data need. Loading is always safe loading here "
      "(weights_only=True): no code that a file names is ever run. Save model.state_dict(), tensors, "
      "numbers, text "
      "and containers of them instead of whole objects");
}

bool Builder::storage_type(const Value& type, Dtype* dtype, bool* untyped) const {
  const Global* global = type.get_if<Global>();
  if (global == nullptr) return false;
  const KnownGlobal& row = known(*global);
  *untyped = row.kind == Kind::kUntypedStorageClass;
  *dtype = *untyped ? Dtype::kUInt8 : row.dtype;
  return *untyped || row.kind == Kind::kStorageClass;
}

std::vector<int64_t> Builder::integers(const Value& value, std::string_view what) {
  const std::vector<Value>* items = nullptr;
  if (const auto* size = value.get_if<std::shared_ptr<const Size>>()) {
    charge((*size)->sizes.size() * sizeof(int64_t));
    return (*size)->sizes;
  }
  if (const auto* tuple = value.get_if<std::shared_ptr<Tuple>>()) items = &(*tuple)->items;
  if (const auto* list = value.get_if<std::shared_ptr<List>>()) items = &(*list)->items;
  if (items == nullptr)
    fail(std::string(what) + " must be a tuple of ints, got " + std::string(value.type_name()));
  if (items->size() > kMaxDims) {
    fail(std::string(what) + " with " + std::to_string(items->size()) + " dimensions (at most 64)");
  }
  charge(items->size() * sizeof(int64_t));
  std::vector<int64_t> result;
  result.reserve(items->size());
  for (const Value& item : *items) {
    const int64_t* number = item.get_if<int64_t>();
    if (number == nullptr) fail(std::string(what) + " must hold ints, got " + std::string(item.type_name()));
    result.push_back(*number);
  }
  return result;
}

const std::vector<Value>& Builder::iterable(const Value& value, std::string_view what) const {
  if (const auto* list = value.get_if<std::shared_ptr<List>>()) return (*list)->items;
  if (const auto* tuple = value.get_if<std::shared_ptr<Tuple>>()) return (*tuple)->items;
  if (const auto* set = value.get_if<std::shared_ptr<Set>>()) return (*set)->items;
  fail(std::string(what) + " from an object of type " + std::string(value.type_name()));
}

std::shared_ptr<Dict> Builder::attributes_of(const Value& state) const {
  const Value* attributes = &state;
  if (const auto* tuple = state.get_if<std::shared_ptr<Tuple>>()) {
    // (attributes, values of __slots__)
    if ((*tuple)->items.size() == 2 && (*tuple)->items[1].is_none()) attributes = &(*tuple)->items[0];
  }
  if (attributes->is_none()) return nullptr;
  const auto* dict = attributes->get_if<std::shared_ptr<Dict>>();
  if (dict == nullptr) fail("attributes must be a dict, got " + std::string(attributes->type_name()));
  return *dict;
}

void Builder::set_state(const Value& object, const Value& state) {
  const auto* dict = object.get_if<std::shared_ptr<Dict>>();
  if (dict == nullptr || (*dict)->kind == DictKind::kPlain) {
    fail("BUILD sets attributes of an object of type " + std::string(object.type_name()) +
         "; only OrderedDict, Counter and defaultdict can have them");
  }
  (*dict)->attributes = attributes_of(state);
}

Value Builder::rebuild_tensor(const Arguments& args, size_t required, bool dtype_given) {
  args.count(required, required == 4 ? 4 : required + 1);
  TensorBlob tensor;
  tensor.storage = args.get<std::shared_ptr<const StorageBlob>>(0, "a storage");
  tensor.storage_offset = args.get<int64_t>(1, "an int");
  tensor.sizes = integers(args[2], "tensor sizes");
  tensor.strides = integers(args[3], "tensor strides");
  tensor.dtype = dtype_given ? args.get<Dtype>(6, "a dtype") : tensor.storage->dtype;
  if (required > 4) tensor.requires_grad = args.get<bool>(4, "a bool");
  if (args.size() > required && !args[required].is_none()) {
    const auto& metadata = args.get<std::shared_ptr<Dict>>(required, "a dict");
    for (const auto& [key, value] : metadata->items) {
      const Text* name = key.get_if<Text>();
      const bool* flag = value.get_if<bool>();
      if (name != nullptr && flag != nullptr && **name == "conj") {
        tensor.is_conj = *flag;
      } else if (name != nullptr && flag != nullptr && **name == "neg") {
        tensor.is_neg = *flag;
      } else {
        fail("tensor metadata other than the flags 'conj' and 'neg'");
      }
    }
  }
  if (tensor.is_conj && !is_complex(tensor.dtype)) fail("a conjugate tensor of a real dtype");
  check_bounds(tensor, "cannot read '" + source_ + "'");
  return tensor;
}

Value Builder::rebuild_parameter(const Arguments& args, bool with_state) {
  args.count(with_state ? 4 : 3, with_state ? 4 : 3);
  auto parameter = *args.get<std::shared_ptr<TensorBlob>>(0, "a tensor");
  charge(2 * parameter.sizes.size() * sizeof(int64_t));
  parameter.is_parameter = true;
  parameter.requires_grad = args.get<bool>(1, "a bool");
  if (with_state) parameter.attributes = attributes_of(args[3]);
  return parameter;
}

Value Builder::rebuild_from_type(const Arguments& args) {
  args.count(4, 4);
  const Global function = args.get<Global>(0, "a function");
  const Kind type = known(args.get<Global>(1, "a class")).kind;
  if (type != Kind::kTensorClass && type != Kind::kParameterClass && type != Kind::kBufferClass) {
    fail("a tensor of class " + qualified(known(args.get<Global>(1, "a class"))));
  }
  const auto& inner = args.get<std::shared_ptr<Tuple>>(2, "a tuple");
  if (calls_ > 0) fail("nested _rebuild_from_type_v2");
  ++calls_;
  const Value built = call(function, inner->items);
  --calls_;
  const auto* held = built.get_if<std::shared_ptr<TensorBlob>>();
  if (held == nullptr) fail("_rebuild_from_type_v2 of an object of type " + std::string(built.type_name()));
  TensorBlob& tensor = **held;
  tensor.is_parameter = tensor.is_parameter || type == Kind::kParameterClass;
  tensor.attributes = attributes_of(args[3]);
  if (tensor.attributes != nullptr) {
    // A Buffer has the class Tensor in its pickle and this attribute.
    const Value* flag = tensor.attributes->find("_is_buffer");
    tensor.is_buffer = flag != nullptr && flag->is<bool>() && flag->as_bool();
  }
  tensor.is_buffer = tensor.is_buffer || type == Kind::kBufferClass;
  return built;
}

Value Builder::make_mapping(const Arguments& args, DictKind kind) {
  const size_t first = kind == DictKind::kDefault ? 1 : 0;
  args.count(0, first + 1);
  auto dict = new_dict(kind);
  if (kind == DictKind::kDefault && args.size() > 0 && !args[0].is_none()) {
    const Global factory = args.get<Global>(0, "a class");
    if (known(factory).module != "builtins") fail("a defaultdict of " + qualified(known(factory)));
    dict->default_factory = known(factory).name;
  }
  if (args.size() <= first) return dict;
  if (const auto* other = args[first].get_if<std::shared_ptr<Dict>>()) {
    charge((*other)->items.size() * sizeof((*other)->items[0]));
    dict->items = (*other)->items;
    return dict;
  }
  const std::vector<Value>& pairs = iterable(args[first], "a mapping");
  charge(pairs.size() * sizeof(dict->items[0]));
  for (const Value& pair : pairs) {
    const std::vector<Value>& items = iterable(pair, "a key and its value");
    if (items.size() != 2) fail("a mapping from items that are not pairs");
    dict->items.emplace_back(items[0], items[1]);
  }
  return dict;
}

Value Builder::make_device(const Arguments& args) const {
  args.count(1, 2);
  Device device{*args.get<Text>(0, "a str")};
  if (args.size() == 2) device.name += ":" + std::to_string(args.get<int64_t>(1, "an int"));
  const size_t colon = device.name.find(':');
  const auto is_letter = [](char c) { return c >= 'a' && c <= 'z'; };
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  bool sound =
      !device.name.empty() && device.name.size() <= 32 && colon != 0 && colon != device.name.size() - 1;
  for (size_t i = 0; i < device.name.size() && sound; ++i) {
    sound = i == colon || (i < colon ? is_letter(device.name[i]) : is_digit(device.name[i]));
  }
  if (!sound) fail("a torch.device of unknown form");
  return std::make_shared<const Device>(std::move(device));
}

Value Builder::encode_latin1(const Arguments& args) {
  args.count(2, 2);
  const std::string& text = *args.get<Text>(0, "a str");
  const std::string& encoding = *args.get<Text>(1, "a str");
  if (encoding != "latin1" && encoding != "latin-1") fail("bytes in another encoding than latin1");
  charge(text.size());
  std::string bytes;
  bytes.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    auto lead = static_cast<unsigned char>(text[i]);
    if (lead >= 0x80) {
      if (lead > 0xC3) fail("bytes spelt with a character beyond latin1");
      lead = static_cast<unsigned char>((lead << 6) | (static_cast<unsigned char>(text[++i]) & 0x3F));
    }
    bytes.push_back(static_cast<char>(lead));
  }
  return make_bytes(std::move(bytes));
}

Value Builder::call(Global function, const std::vector<Value>& values) {
  const Arguments args{*this, function, values};
  switch (known(function).kind) {
    case Kind::kOrderedDict:
      return make_mapping(args, DictKind::kOrdered);
    case Kind::kCounter:
      return make_mapping(args, DictKind::kCounter);
    case Kind::kDefaultDict:
      return make_mapping(args, DictKind::kDefault);
    case Kind::kDict:
      return make_mapping(args, DictKind::kPlain);
    case Kind::kSet:
    case Kind::kFrozenSet: {
      args.count(0, 1);
      auto set = new_set(known(function).kind == Kind::kFrozenSet);
      if (args.size() == 1) {
        const std::vector<Value>& items = iterable(args[0], "a set");
        charge(items.size() * sizeof(Value));
        set->items = items;
      }
      return set;
    }
    case Kind::kList: {
      args.count(0, 0);
      return new_list();
    }
    case Kind::kComplex:
      args.count(2, 2);
      return std::complex<double>(args.get<double>(0, "a float"), args.get<double>(1, "a float"));
    case Kind::kBytes:
      args.count(0, 0);
      return make_bytes({});
    case Kind::kByteArray: {
      args.count(0, 2);
      std::string bytes;
      if (args.size() == 1) {
        const Bytes& source = args.get<Bytes>(0, "bytes");
        charge(source.bytes->size());
        bytes = *source.bytes;
      } else if (args.size() == 2) {
        bytes = *encode_latin1(args).get_if<Bytes>()->bytes;
      }
      return ByteArray{std::make_shared<std::string>(std::move(bytes))};
    }
    case Kind::kEncode:
      return encode_latin1(args);
    case Kind::kSize:
      args.count(0, 1);
      return std::make_shared<const Size>(args.size() == 0 ? Size{} : Size{integers(args[0], "torch.Size")});
    case Kind::kDevice:
      return make_device(args);
    case Kind::kGetLayout: {
      args.count(1, 1);
      const std::string& name = *args.get<Text>(0, "a str");
      if (!holds(kLayouts, name)) fail("a torch.layout of unknown name");
      return std::make_shared<const Layout>(Layout{name});
    }
    case Kind::kRebuildTensor:
      return rebuild_tensor(args, 4, false);
    case Kind::kRebuildTensorV2:
      return rebuild_tensor(args, 6, false);
    case Kind::kRebuildTensorV3:
      return rebuild_tensor(args, 7, true);
    case Kind::kRebuildParameter:
      return rebuild_parameter(args, false);
    case Kind::kRebuildParameterWithState:
      return rebuild_parameter(args, true);
    case Kind::kRebuildFromType:
      return rebuild_from_type(args);
    case Kind::kTuple:
    case Kind::kScalarType:
    case Kind::kTensorClass:
    case Kind::kParameterClass:
    case Kind::kBufferClass:
    case Kind::kStorageClass:
    case Kind::kUntypedStorageClass:
      break;
  }
  fail("it calls " + qualified(known(function)) + ", which files of tensors and plain data never do");
}

Value Builder::finish(Value value) {
  settle(value, containers_, 64 * pickle_size_ + (size_t{1} << 20),
         [this](const std::string& what) { fail(what); });
  containers_.clear();
  return value;
}

}  // namespace lohe::io
