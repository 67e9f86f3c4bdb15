#include "io/value.h"

#include "lohe/error.h"

namespace lohe::io {
namespace {

template <class T>
const T& checked(const Value& value, std::string_view expected) {
  const T* held = value.get_if<T>();
  LOHE_CHECK_TYPE(held != nullptr, "expected ", expected, ", got ", value.type_name());
  return *held;
}

}  // namespace

bool Value::as_bool() const { return checked<bool>(*this, "bool"); }
int64_t Value::as_int() const { return checked<int64_t>(*this, "int"); }
const std::string& Value::as_text() const { return *checked<Text>(*this, "str"); }
List& Value::as_list() const { return *checked<std::shared_ptr<List>>(*this, "list"); }
Tuple& Value::as_tuple() const { return *checked<std::shared_ptr<Tuple>>(*this, "tuple"); }
Dict& Value::as_dict() const { return *checked<std::shared_ptr<Dict>>(*this, "dict"); }
Set& Value::as_set() const { return *checked<std::shared_ptr<Set>>(*this, "set"); }
TensorBlob& Value::as_tensor() const { return *checked<std::shared_ptr<TensorBlob>>(*this, "Tensor"); }

std::string_view Value::type_name() const {
  struct Namer {
    std::string_view operator()(None) const { return "NoneType"; }
    std::string_view operator()(bool) const { return "bool"; }
    std::string_view operator()(int64_t) const { return "int"; }
    std::string_view operator()(double) const { return "float"; }
    std::string_view operator()(const std::complex<double>&) const { return "complex"; }
    std::string_view operator()(const Text&) const { return "str"; }
    std::string_view operator()(const BigInt&) const { return "int"; }
    std::string_view operator()(const Bytes&) const { return "bytes"; }
    std::string_view operator()(const ByteArray&) const { return "bytearray"; }
    std::string_view operator()(const std::shared_ptr<List>&) const { return "list"; }
    std::string_view operator()(const std::shared_ptr<Tuple>&) const { return "tuple"; }
    std::string_view operator()(const std::shared_ptr<Dict>& dict) const {
      switch (dict->kind) {
        case DictKind::kPlain:
          return "dict";
        case DictKind::kOrdered:
          return "OrderedDict";
        case DictKind::kCounter:
          return "Counter";
        case DictKind::kDefault:
          return "defaultdict";
      }
      return "dict";
    }
    std::string_view operator()(const std::shared_ptr<Set>& set) const {
      return set->frozen ? "frozenset" : "set";
    }
    std::string_view operator()(const std::shared_ptr<TensorBlob>& tensor) const {
      return tensor->is_parameter ? "Parameter" : "Tensor";
    }
    std::string_view operator()(const std::shared_ptr<const StorageBlob>& storage) const {
      return storage->untyped ? "UntypedStorage" : "TypedStorage";
    }
    std::string_view operator()(const std::shared_ptr<const Size>&) const { return "torch.Size"; }
    std::string_view operator()(Dtype) const { return "torch.dtype"; }
    std::string_view operator()(const std::shared_ptr<const Device>&) const { return "torch.device"; }
    std::string_view operator()(const std::shared_ptr<const Layout>&) const { return "torch.layout"; }
    std::string_view operator()(Global) const { return "type"; }
  };
  return std::visit(Namer{}, variant_);
}

const void* container_of(const Value& value) {
  if (const auto* list = value.get_if<std::shared_ptr<List>>()) return list->get();
  if (const auto* tuple = value.get_if<std::shared_ptr<Tuple>>()) return tuple->get();
  if (const auto* dict = value.get_if<std::shared_ptr<Dict>>()) return dict->get();
  if (const auto* set = value.get_if<std::shared_ptr<Set>>()) return set->get();
  if (const auto* tensor = value.get_if<std::shared_ptr<TensorBlob>>()) return tensor->get();
  return nullptr;
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [name, value] : items) {
    const Text* text = name.get_if<Text>();
    if (text != nullptr && **text == key) return &value;
  }
  return nullptr;
}

const Value& Dict::at(std::string_view key) const {
  const Value* found = find(key);
  LOHE_CHECK_KIND(kKey, found != nullptr, "no key '", key, "' among ", items.size(), " items");
  return *found;
}

Value make_list(std::vector<Value> items) { return std::make_shared<List>(List{std::move(items)}); }
Value make_tuple(std::vector<Value> items) { return std::make_shared<Tuple>(Tuple{std::move(items)}); }
Value make_bytes(std::string bytes) { return Bytes{std::make_shared<const std::string>(std::move(bytes))}; }

Value make_dict(std::vector<std::pair<Value, Value>> items, DictKind kind) {
  auto dict = std::make_shared<Dict>();
  dict->kind = kind;
  dict->items = std::move(items);
  return dict;
}

bool is_utf8_with_surrogates(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i]);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const int extra = lead >= 0xF0 ? 3 : lead >= 0xE0 ? 2 : 1;
    if (lead < 0xC2 || lead > 0xF4 || text.size() - i <= static_cast<size_t>(extra)) return false;
    uint32_t code = lead & (0x3F >> extra);
    for (int k = 1; k <= extra; ++k) {
      const auto next = static_cast<unsigned char>(text[i + static_cast<size_t>(k)]);
      if ((next & 0xC0) != 0x80) return false;
      code = (code << 6) | (next & 0x3F);
    }
    // Longer than needed, or beyond Unicode.
    if ((extra == 2 && code < 0x800) || (extra == 3 && (code < 0x10000 || code > 0x10FFFF))) return false;
    i += static_cast<size_t>(extra) + 1;
  }
  return true;
}

void check_bounds(const TensorBlob& tensor, std::string_view what) {
  LOHE_CHECK(tensor.storage != nullptr, what, ": tensor without storage");
  LOHE_CHECK(tensor.dtype != Dtype::kUndefined, what, ": tensor without dtype");
  LOHE_CHECK(tensor.sizes.size() == tensor.strides.size(), what, ": tensor with ", tensor.sizes.size(),
             " sizes but ", tensor.strides.size(), " strides");
  LOHE_CHECK(tensor.storage_offset >= 0, what, ": tensor with negative storage offset ",
             tensor.storage_offset);
  bool empty = false;
  for (size_t d = 0; d < tensor.sizes.size(); ++d) {
    LOHE_CHECK(tensor.sizes[d] >= 0, what, ": tensor with negative size ", tensor.sizes[d], " in dimension ",
               d);
    LOHE_CHECK(tensor.strides[d] >= 0, what, ": tensor with negative stride ", tensor.strides[d],
               " in dimension ", d);
    empty = empty || tensor.sizes[d] == 0;
  }
  // An expanded tensor has far more elements than its storage, but their count must still be an int64.
  int64_t numel = 1;
  int64_t last = tensor.storage_offset;
  bool overflow = false;
  for (size_t d = 0; d < tensor.sizes.size() && !overflow; ++d) {
    if (tensor.sizes[d] == 0) continue;
    int64_t reach = 0;
    overflow = __builtin_mul_overflow(numel, tensor.sizes[d], &numel) ||
               __builtin_mul_overflow(tensor.sizes[d] - 1, tensor.strides[d], &reach) ||
               __builtin_add_overflow(last, reach, &last);
  }
  LOHE_CHECK(!overflow, what, ": tensor whose sizes and strides overflow 64-bit arithmetic");
  const auto capacity =
      static_cast<int64_t>(tensor.storage->nbytes / static_cast<size_t>(itemsize(tensor.dtype)));
  LOHE_CHECK(empty || last < capacity, what, ": tensor reaches element ", last, " of a storage that holds ",
             capacity, " elements of ", info(tensor.dtype).name);
}

}  // namespace lohe::io
