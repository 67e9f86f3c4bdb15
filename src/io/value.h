#pragma once

#include <complex>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "lohe/dtype.h"

/// What a file of tensors and plain data holds, independent of Python and of lohe::Tensor. Everything that
/// Python keeps by reference is held by shared_ptr, so that an object which appears twice in a file is one
/// object here.
namespace lohe::io {

class Value;

/// The bytes of a storage. `owner` keeps `data` alive: a mapped file or a block of memory.
struct StorageBlob {
  Dtype dtype = Dtype::kUInt8;  ///< element type it was saved as; uint8 for an untyped storage
  bool untyped = false;
  bool writable = false;  ///< nobody else reads `data`: memory of its own or pages that are copied on write
  const std::byte* data = nullptr;
  size_t nbytes = 0;
  std::shared_ptr<const void> owner;
  std::string key;       ///< name within its file, "0", "1", ...; not used when saving
  std::string location;  ///< device that it was saved from, "cpu" or "cuda:0"; not used when saving
};

struct Dict;

/// A strided view of a storage; sizes, strides and offset count elements. Readers guarantee that every
/// element lies inside the storage and that no stride is negative.
struct TensorBlob {
  Dtype dtype = Dtype::kUndefined;
  std::vector<int64_t> sizes;
  std::vector<int64_t> strides;
  int64_t storage_offset = 0;
  std::shared_ptr<const StorageBlob> storage;
  bool requires_grad = false;
  bool is_parameter = false;
  bool is_buffer = false;
  bool is_conj = false;
  bool is_neg = false;
  std::shared_ptr<Dict> attributes;  ///< Python attributes set on the tensor, or null
};

struct None {
  friend bool operator==(None, None) { return true; }
};
/// Text in UTF-8; like Python's pickles it may hold lone surrogates ("surrogatepass").
using Text = std::shared_ptr<const std::string>;
/// An int outside int64: two's complement, little-endian, as int.from_bytes(..., "little", signed=True) reads
/// it.
struct BigInt {
  std::shared_ptr<const std::string> bytes;
};
struct Bytes {
  std::shared_ptr<const std::string> bytes;
};
struct ByteArray {
  std::shared_ptr<std::string> bytes;
};
struct Device {
  std::string name;  ///< "cpu", "cuda:0"
};
struct Layout {
  std::string name;  ///< "torch.strided"
};
/// torch.Size.
struct Size {
  std::vector<int64_t> sizes;
};
/// A class or function that the unpickler knows by name, such as "torch.FloatStorage". Appears while a pickle
/// is read, never in a loaded value.
struct Global {
  uint16_t id = 0;
};

struct List;
struct Tuple;
struct Set;

/// Whether a variant has T among its alternatives.
template <class T, class Variant>
inline constexpr bool kIsAlternative = false;
template <class T, class... Alternatives>
inline constexpr bool kIsAlternative<T, std::variant<Alternatives...>> =
    (std::is_same_v<T, Alternatives> || ...);

class Value {
 public:
  using Variant = std::variant<None, bool, int64_t, double, std::complex<double>, Text, BigInt, Bytes,
                               ByteArray, std::shared_ptr<List>, std::shared_ptr<Tuple>,
                               std::shared_ptr<Dict>, std::shared_ptr<Set>, std::shared_ptr<TensorBlob>,
                               std::shared_ptr<const StorageBlob>, std::shared_ptr<const Size>, Dtype,
                               std::shared_ptr<const Device>, std::shared_ptr<const Layout>, Global>;

  Value() = default;
  template <class T>
    requires(kIsAlternative<T, Variant>)
  Value(T held) : variant_(std::in_place_type<T>, std::move(held)) {}
  Value(int number) : variant_(int64_t{number}) {}
  Value(std::string text) : variant_(std::make_shared<const std::string>(std::move(text))) {}
  Value(const char* text) : Value(std::string(text)) {}
  Value(TensorBlob tensor) : variant_(std::make_shared<TensorBlob>(std::move(tensor))) {}

  const Variant& variant() const noexcept { return variant_; }
  template <class T>
  bool is() const noexcept {
    return std::holds_alternative<T>(variant_);
  }
  /// The held T, or null.
  template <class T>
  const T* get_if() const noexcept {
    return std::get_if<T>(&variant_);
  }
  bool is_none() const noexcept { return is<None>(); }
  bool is_text() const noexcept { return is<Text>(); }

  /// Checked access. @throws Error(kType) naming what is held instead.
  bool as_bool() const;
  int64_t as_int() const;
  const std::string& as_text() const;
  List& as_list() const;
  Tuple& as_tuple() const;
  Dict& as_dict() const;
  Set& as_set() const;
  TensorBlob& as_tensor() const;

  /// What Python calls the type: "int", "OrderedDict", "Tensor".
  std::string_view type_name() const;

 private:
  Variant variant_;
};

struct List {
  std::vector<Value> items;
};

struct Tuple {
  std::vector<Value> items;
};

enum class DictKind : uint8_t { kPlain, kOrdered, kCounter, kDefault };

/// A Python mapping in insertion order. A loaded one has no two equal keys in Python's sense (1, 1.0 and True
/// are equal).
struct Dict {
  DictKind kind = DictKind::kPlain;
  std::vector<std::pair<Value, Value>> items;
  std::string default_factory;       ///< of a defaultdict: "list", "int", ...; empty for None
  std::shared_ptr<Dict> attributes;  ///< instance attributes, such as a state_dict's `_metadata`; or null

  /// The value of a text key, or null. Linear in the number of items.
  const Value* find(std::string_view key) const;
  /// @throws Error(kKey) naming the key.
  const Value& at(std::string_view key) const;
};

struct Set {
  bool frozen = false;
  std::vector<Value> items;
};

/// The object behind a value that can hold other values (a tensor by its attributes), or null.
const void* container_of(const Value& value);

Value make_list(std::vector<Value> items);
Value make_tuple(std::vector<Value> items);
Value make_dict(std::vector<std::pair<Value, Value>> items, DictKind kind = DictKind::kPlain);
Value make_bytes(std::string bytes);

/// How deeply a value may nest, for reading and writing. Python's own pickler stops near there.
inline constexpr int kMaxNesting = 1000;

/// Whether `text` is UTF-8, with lone surrogates allowed.
bool is_utf8_with_surrogates(std::string_view text);

/// @throws Error unless sizes, strides and offset of `tensor` lie inside its storage. `what` starts the
/// message.
void check_bounds(const TensorBlob& tensor, std::string_view what);

}  // namespace lohe::io
