#include "io/pickle.h"

#include <algorithm>
#include <bit>
#include <limits>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "io/pickle_ops.h"
#include "lohe/error.h"

namespace lohe::io {
namespace {

constexpr size_t kBatch = 1000;  // items an APPENDS or SETITEMS, as Python's pickler writes them

/// Name of the storage class, "FloatStorage".
std::string storage_class(Dtype dtype) {
  std::string name(info(dtype).tensor_type);
  constexpr std::string_view kTensor = "Tensor";
  LOHE_INTERNAL_ASSERT(name.ends_with(kTensor), "tensor type ", name);
  return name.substr(0, name.size() - kTensor.size()) + "Storage";
}

class Pickler {
 public:
  Pickled run(const Value& value) {
    op(Op::kProto);
    put<uint8_t>(2);
    save(value);
    op(Op::kStop);
    return std::move(out_);
  }

 private:
  void op(Op code) { out_.bytes.push_back(static_cast<char>(code)); }
  template <class T>
  void put(std::type_identity_t<T> value) {
    out_.bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
  }

  // The memo: objects by identity, names and the writer's own words by content.
  void memoize() {
    const uint32_t index = next_memo_++;
    if (index < 256) {
      op(Op::kBinPut);
      put<uint8_t>(static_cast<uint8_t>(index));
    } else {
      op(Op::kLongBinPut);
      put<uint32_t>(index);
    }
  }
  void memoize(const void* object) {
    LOHE_CHECK_VALUE(next_memo_ != std::numeric_limits<uint32_t>::max(),
                     "cannot save: too many objects for a pickle");
    objects_.emplace(object, next_memo_);
    memoize();
  }
  void recall(uint32_t index) {
    if (index < 256) {
      op(Op::kBinGet);
      put<uint8_t>(static_cast<uint8_t>(index));
    } else {
      op(Op::kLongBinGet);
      put<uint32_t>(index);
    }
  }
  bool recalled(const void* object) {
    const auto found = objects_.find(object);
    if (found == objects_.end()) return false;
    recall(found->second);
    return true;
  }

  void global(std::string_view module, std::string_view name) {
    const std::string line = std::string(module) + "\n" + std::string(name) + "\n";
    const auto [found, fresh] = names_.try_emplace(line, next_memo_);
    if (!fresh) return recall(found->second);
    op(Op::kGlobal);
    out_.bytes += line;
    memoize();
  }
  void raw_text(std::string_view text) {
    LOHE_CHECK_VALUE(text.size() <= std::numeric_limits<uint32_t>::max(), "cannot save a text of ",
                     text.size(), " bytes; the file format allows 4 GiB");
    op(Op::kBinUnicode);
    put<uint32_t>(static_cast<uint32_t>(text.size()));
    out_.bytes += text;
  }
  /// A word of the format itself, such as "storage" or "cpu".
  void word(const std::string& text) {
    const auto [found, fresh] = words_.try_emplace(text, next_memo_);
    if (!fresh) return recall(found->second);
    raw_text(text);
    memoize();
  }

  void integer(int64_t value) {
    if (value >= 0 && value <= 0xFF) {
      op(Op::kBinInt1);
      put<uint8_t>(static_cast<uint8_t>(value));
    } else if (value >= 0 && value <= 0xFFFF) {
      op(Op::kBinInt2);
      put<uint16_t>(static_cast<uint16_t>(value));
    } else if (value >= std::numeric_limits<int32_t>::min() && value <= std::numeric_limits<int32_t>::max()) {
      op(Op::kBinInt);
      put<int32_t>(static_cast<int32_t>(value));
    } else {
      std::string digits(reinterpret_cast<const char*>(&value), sizeof value);
      while (static_cast<signed char>(digits.back()) == (value < 0 ? -1 : 0) &&
             (static_cast<signed char>(digits[digits.size() - 2]) < 0) == (value < 0)) {
        digits.pop_back();
      }
      long_integer(digits);
    }
  }
  void long_integer(const std::string& digits) {
    if (digits.size() <= 0xFF) {
      op(Op::kLong1);
      put<uint8_t>(static_cast<uint8_t>(digits.size()));
    } else {
      LOHE_CHECK_VALUE(digits.size() <= 0x7FFFFFFF, "cannot save an int of ", digits.size(), " bytes");
      op(Op::kLong4);
      put<int32_t>(static_cast<int32_t>(digits.size()));
    }
    out_.bytes += digits;
  }
  void floating(double value) {
    op(Op::kBinFloat);
    put<uint64_t>(__builtin_bswap64(std::bit_cast<uint64_t>(value)));
  }
  void boolean(bool value) { op(value ? Op::kNewTrue : Op::kNewFalse); }

  void close_small_tuple(size_t count) {
    op(count == 1 ? Op::kTuple1 : count == 2 ? Op::kTuple2 : Op::kTuple3);
    memoize();
  }
  void integers(const std::vector<int64_t>& values) {
    if (values.empty()) return op(Op::kEmptyTuple);
    if (values.size() > 3) op(Op::kMark);
    for (const int64_t value : values) integer(value);
    if (values.size() <= 3) return close_small_tuple(values.size());
    op(Op::kTuple);
    memoize();
  }

  /// Python's way with an exactly known number of items: one alone, then batches.
  template <class SaveItem>
  void batches(size_t count, Op single, Op several, SaveItem save_item) {
    if (count == 1) {
      save_item(0);
      return op(single);
    }
    for (size_t start = 0; start < count; start += kBatch) {
      op(Op::kMark);
      for (size_t i = start; i < std::min(count, start + kBatch); ++i) save_item(i);
      op(several);
    }
  }
  void items_of(const Dict& dict) {
    batches(dict.items.size(), Op::kSetItem, Op::kSetItems, [&](size_t i) {
      save(dict.items[i].first);
      save(dict.items[i].second);
    });
  }
  void list_of(const std::vector<Value>& items) {
    op(Op::kEmptyList);
    memoize();
    batches(items.size(), Op::kAppend, Op::kAppends, [&](size_t i) { save(items[i]); });
  }

  /// bytes has no opcode in protocol 2: Python writes a text of the same code points and its encoding.
  void bytes_of(const std::string& bytes) {
    if (bytes.empty()) {
      global("__builtin__", "bytes");
      op(Op::kEmptyTuple);
    } else {
      std::string text;
      text.reserve(bytes.size() * 2);
      for (const char c : bytes) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte < 0x80) {
          text.push_back(c);
        } else {
          text.push_back(static_cast<char>(0xC0 | (byte >> 6)));
          text.push_back(static_cast<char>(0x80 | (byte & 0x3F)));
        }
      }
      global("_codecs", "encode");
      raw_text(text);
      memoize();
      word("latin1");
      close_small_tuple(2);
    }
    op(Op::kReduce);
  }

  void empty_ordered_dict() {
    global("collections", "OrderedDict");
    op(Op::kEmptyTuple);
    op(Op::kReduce);
    memoize();
  }

  /// The persistent id of a storage.
  void storage_of(const std::shared_ptr<const StorageBlob>& storage, Dtype dtype, bool untyped) {
    LOHE_CHECK(storage != nullptr, "cannot save a tensor without storage");
    const auto code = static_cast<uint16_t>(static_cast<unsigned>(dtype) << 1 | (untyped ? 1U : 0U));
    const auto [seen, first] = storage_types_.try_emplace(storage.get(), code);
    LOHE_CHECK(seen->second == code,
               "cannot save multiple tensors or storages that view the same data as different "
               "types; clone one of them");
    if (first) out_.storages.push_back(storage);
    const auto [key, fresh] = storage_keys_.try_emplace(storage.get(), out_.storages.size() - 1);
    op(Op::kMark);
    word("storage");
    untyped ? global("torch.storage", "UntypedStorage") : global("torch", storage_class(dtype));
    word(std::to_string(key->second));
    word("cpu");
    integer(static_cast<int64_t>(storage->nbytes / static_cast<size_t>(itemsize(dtype))));
    op(Op::kTuple);
    memoize();
    op(Op::kBinPersId);
  }

  void rebuild_arguments(const TensorBlob& tensor, bool requires_grad) {
    check_bounds(tensor, "cannot save");
    op(Op::kMark);
    storage_of(tensor.storage, tensor.dtype, false);
    integer(tensor.storage_offset);
    integers(tensor.sizes);
    integers(tensor.strides);
    boolean(requires_grad);
    empty_ordered_dict();
    if (tensor.is_conj || tensor.is_neg) flags_of(tensor);
    op(Op::kTuple);
    memoize();
  }
  void flags_of(const TensorBlob& tensor) {
    op(Op::kEmptyDict);
    memoize();
    const bool both = tensor.is_conj && tensor.is_neg;
    if (both) op(Op::kMark);
    if (tensor.is_conj) {
      word("conj");
      boolean(true);
    }
    if (tensor.is_neg) {
      word("neg");
      boolean(true);
    }
    op(both ? Op::kSetItems : Op::kSetItem);
  }

  void attributes_of(const TensorBlob& tensor) {
    if (tensor.attributes != nullptr) return save(tensor.attributes);
    op(Op::kEmptyDict);
    memoize();
    op(Op::kMark);
    word("persistent");
    boolean(true);
    word("_is_buffer");
    boolean(true);
    op(Op::kSetItems);
  }

  void save_tensor(const TensorBlob& tensor) {
    if (tensor.is_parameter) {
      const bool with_state = tensor.attributes != nullptr;
      global("torch._utils", with_state ? "_rebuild_parameter_with_state" : "_rebuild_parameter");
      if (with_state) op(Op::kMark);
      global("torch._utils", "_rebuild_tensor_v2");
      rebuild_arguments(tensor, false);
      op(Op::kReduce);
      memoize();
      boolean(tensor.requires_grad);
      empty_ordered_dict();
      if (with_state) {
        save(tensor.attributes);
        op(Op::kTuple);
        memoize();
      } else {
        close_small_tuple(3);
      }
    } else if (tensor.attributes != nullptr || tensor.is_buffer) {
      global("torch._tensor", "_rebuild_from_type_v2");
      op(Op::kMark);
      global("torch._utils", "_rebuild_tensor_v2");
      global("torch", "Tensor");
      rebuild_arguments(tensor, tensor.requires_grad);
      attributes_of(tensor);
      op(Op::kTuple);
      memoize();
    } else {
      global("torch._utils", "_rebuild_tensor_v2");
      rebuild_arguments(tensor, tensor.requires_grad);
    }
    op(Op::kReduce);
  }

  void save_dict(const std::shared_ptr<Dict>& dict) {
    switch (dict->kind) {
      case DictKind::kPlain:
        op(Op::kEmptyDict);
        memoize(dict.get());
        return items_of(*dict);
      case DictKind::kOrdered:
        global("collections", "OrderedDict");
        op(Op::kEmptyTuple);
        break;
      case DictKind::kDefault:
        global("collections", "defaultdict");
        if (dict->default_factory.empty()) {
          op(Op::kEmptyTuple);
        } else {
          global("__builtin__", dict->default_factory);
          close_small_tuple(1);
        }
        break;
      case DictKind::kCounter:
        global("collections", "Counter");
        op(Op::kEmptyDict);
        memoize();
        items_of(*dict);
        close_small_tuple(1);
        break;
    }
    op(Op::kReduce);
    memoize(dict.get());
    if (dict->kind != DictKind::kCounter) items_of(*dict);
    if (dict->attributes == nullptr) return;
    save(dict->attributes);
    op(Op::kBuild);
  }

  void save_device(const Device& device) {
    global("torch", "device");
    const size_t colon = device.name.find(':');
    word(device.name.substr(0, colon));
    if (colon != std::string::npos) integer(std::stoll(device.name.substr(colon + 1)));
    close_small_tuple(colon == std::string::npos ? 1 : 2);
    op(Op::kReduce);
  }

  void save(const Value& value) {
    LOHE_CHECK_VALUE(depth_ < kMaxNesting, "cannot save a value that nests deeper than ", kMaxNesting,
                     " levels");
    // Python writes rings through its memo, but readers that run no code refuse them, this one too.
    const void* container = container_of(value);
    LOHE_CHECK_VALUE(container == nullptr || open_.insert(container).second, "cannot save a ",
                     value.type_name(), " that contains itself");
    ++depth_;
    std::visit([this](const auto& held) { save_held(held); }, value.variant());
    --depth_;
    if (container != nullptr) open_.erase(container);
  }

  void save_held(None) { op(Op::kNone); }
  void save_held(bool value) { boolean(value); }
  void save_held(int64_t value) { integer(value); }
  void save_held(double value) { floating(value); }
  void save_held(const std::complex<double>& value) {
    global("__builtin__", "complex");
    floating(value.real());
    floating(value.imag());
    close_small_tuple(2);
    op(Op::kReduce);
    memoize();
  }
  void save_held(const BigInt& value) { long_integer(*value.bytes); }
  void save_held(Dtype value) { global("torch", info(value).name); }
  void save_held(Global) { raise(ErrorKind::kType, "cannot save a class or function"); }

  void save_held(const Text& text) {
    if (recalled(text.get())) return;
    LOHE_CHECK_VALUE(is_utf8_with_surrogates(*text), "cannot save a text that is not UTF-8");
    raw_text(*text);
    memoize(text.get());
  }
  void save_held(const Bytes& bytes) {
    if (recalled(bytes.bytes.get())) return;
    bytes_of(*bytes.bytes);
    memoize(bytes.bytes.get());
  }
  void save_held(const ByteArray& bytes) {
    if (recalled(bytes.bytes.get())) return;
    global("__builtin__", "bytearray");
    if (bytes.bytes->empty()) {
      op(Op::kEmptyTuple);
    } else {
      bytes_of(*bytes.bytes);
      memoize();
      close_small_tuple(1);
    }
    op(Op::kReduce);
    memoize(bytes.bytes.get());
  }
  void save_held(const std::shared_ptr<List>& list) {
    if (recalled(list.get())) return;
    op(Op::kEmptyList);
    memoize(list.get());
    batches(list->items.size(), Op::kAppend, Op::kAppends, [&](size_t i) { save(list->items[i]); });
  }
  void save_held(const std::shared_ptr<Tuple>& tuple) {
    const std::vector<Value>& items = tuple->items;
    if (items.empty()) return op(Op::kEmptyTuple);
    if (recalled(tuple.get())) return;
    if (items.size() > 3) op(Op::kMark);
    for (const Value& item : items) save(item);
    constexpr Op kSmall[] = {Op::kTuple1, Op::kTuple2, Op::kTuple3};
    op(items.size() > 3 ? Op::kTuple : kSmall[items.size() - 1]);
    memoize(tuple.get());
  }
  void save_held(const std::shared_ptr<Dict>& dict) {
    if (!recalled(dict.get())) save_dict(dict);
  }
  void save_held(const std::shared_ptr<Set>& set) {
    if (recalled(set.get())) return;
    global("__builtin__", set->frozen ? "frozenset" : "set");
    list_of(set->items);
    close_small_tuple(1);
    op(Op::kReduce);
    memoize(set.get());
  }
  void save_held(const std::shared_ptr<TensorBlob>& tensor) {
    if (recalled(tensor.get())) return;
    save_tensor(*tensor);
    memoize(tensor.get());
  }
  void save_held(const std::shared_ptr<const StorageBlob>& storage) {
    storage_of(storage, storage->dtype, storage->untyped);
  }
  void save_held(const std::shared_ptr<const Size>& size) {
    if (recalled(size.get())) return;
    global("torch", "Size");
    integers(size->sizes);
    close_small_tuple(1);
    op(Op::kReduce);
    memoize(size.get());
  }
  void save_held(const std::shared_ptr<const Device>& device) {
    if (recalled(device.get())) return;
    save_device(*device);
    memoize(device.get());
  }
  void save_held(const std::shared_ptr<const Layout>& layout) {
    if (recalled(layout.get())) return;
    global("torch.serialization", "_get_layout");
    word(layout->name);
    close_small_tuple(1);
    op(Op::kReduce);
    memoize(layout.get());
  }

  Pickled out_;
  int depth_ = 0;
  std::unordered_set<const void*> open_;  // containers being written
  uint32_t next_memo_ = 0;
  std::unordered_map<const void*, uint32_t> objects_;
  std::unordered_map<std::string, uint32_t> names_;
  std::unordered_map<std::string, uint32_t> words_;
  std::unordered_map<const void*, uint16_t> storage_types_;
  std::unordered_map<const void*, size_t> storage_keys_;
};

}  // namespace

Pickled pickle(const Value& value) { return Pickler().run(value); }

}  // namespace lohe::io
