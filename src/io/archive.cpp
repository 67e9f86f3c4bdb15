#include <istream>
#include <iterator>
#include <ostream>
#include <unordered_map>

#include "dispatch/public_call.h"
#include "io/checkpoint.h"
#include "io/safetensors.h"
#include "io/tensors.h"
#include "lohe/serialize.h"

/// Between the values of the public API and those of a file.
namespace lohe {
namespace {

/// Makes the values of one file. What a file names twice is one object: it can stand for no more than it
/// spells out.
class Reader {
 public:
  IValue value(const io::Value& v) {
    return std::visit([&](const auto& held) { return convert(held, v); }, v.variant());
  }

 private:
  static IValue convert(io::None, const io::Value&) { return {}; }
  static IValue convert(bool v, const io::Value&) { return v; }
  static IValue convert(int64_t v, const io::Value&) { return v; }
  static IValue convert(double v, const io::Value&) { return v; }
  static IValue convert(Dtype v, const io::Value&) { return v; }
  static IValue convert(const io::Text& v, const io::Value&) { return *v; }
  static IValue convert(const std::shared_ptr<const io::Size>& v, const io::Value&) {
    return IValue::tuple(IValue::List(v->sizes.begin(), v->sizes.end()));
  }
  IValue convert(const std::shared_ptr<io::List>& v, const io::Value&) {
    return once(v.get(), [&] { return IValue(items(v->items)); });
  }
  IValue convert(const std::shared_ptr<io::Tuple>& v, const io::Value&) {
    return once(v.get(), [&] { return IValue::tuple(items(v->items)); });
  }
  IValue convert(const std::shared_ptr<io::Dict>& v, const io::Value&) {
    return once(v.get(), [&] {
      IValue::Dict dict;
      for (const auto& [key, item] : v->items) dict.emplace_back(value(key), value(item));
      return IValue(std::move(dict));
    });
  }
  IValue convert(const std::shared_ptr<io::TensorBlob>& v, const io::Value&) {
    return once(v.get(), [&] { return IValue(to_public(builder_.tensor(*v))); });
  }
  template <class T>
  static IValue convert(const T&, const io::Value& v) {
    raise(ErrorKind::kNotImplemented, "the file holds a value of type ", v.type_name(),
          ", which IValue does not have; load the file from Python");
  }

  IValue::List items(const std::vector<io::Value>& from) {
    IValue::List list;
    for (const io::Value& v : from) list.push_back(value(v));
    return list;
  }
  template <class Make>
  IValue once(const void* object, const Make& make) {
    const auto found = known_.find(object);
    if (found != known_.end()) return found->second;
    IValue made = make();
    known_.emplace(object, made);
    return made;
  }

  io::TensorBuilder builder_;
  std::unordered_map<const void*, IValue> known_;
};

/// Describes values for one file.
class Writer {
 public:
  io::Value value(const IValue& v, int depth = 0) {
    LOHE_CHECK_VALUE(depth <= io::kMaxNesting, "cannot save a value nested deeper than ", io::kMaxNesting,
                     ", or one that contains itself");
    if (v.isNone()) return {};
    if (v.isBool()) return v.toBool();
    if (v.isInt()) return v.toInt();
    if (v.isDouble()) return v.toDouble();
    if (v.isString()) return v.toStringRef();
    if (v.isDtype()) return v.toDtype();
    if (v.isTensor()) {
      const Tensor tensor = v.toTensor();
      LOHE_CHECK(tensor.defined(), "cannot save an undefined tensor");
      return tensors_.tensor(*tensor.impl());
    }
    if (v.isGenericDict()) {
      const IValue::Dict& dict = v.toDictRef();
      return once(&dict, [&] {
        std::vector<std::pair<io::Value, io::Value>> items;
        for (const auto& [key, item] : dict)
          items.emplace_back(value(key, depth + 1), value(item, depth + 1));
        return io::make_dict(std::move(items));
      });
    }
    const IValue::List& list = v.toListRef();
    return once(&list, [&] {
      std::vector<io::Value> items;
      for (const IValue& item : list) items.push_back(value(item, depth + 1));
      return v.isTuple() ? io::make_tuple(std::move(items)) : io::make_list(std::move(items));
    });
  }

 private:
  template <class Make>
  io::Value once(const void* object, const Make& make) {
    const auto found = known_.find(object);
    if (found != known_.end()) return found->second;
    io::Value made = make();
    known_.emplace(object, made);
    return made;
  }

  io::TensorDescriber tensors_;
  std::unordered_map<const void*, io::Value> known_;
};

std::span<const std::byte> bytes_of(const char* data, size_t size) {
  return std::as_bytes(std::span(data, size));
}

}  // namespace

namespace detail {

void save_value(const IValue& value, const std::string& path) { io::save(Writer().value(value), path); }

void save_value(const IValue& value, std::ostream& stream) {
  io::save(Writer().value(value), [&](std::span<const std::byte> bytes) {
    stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    LOHE_CHECK_KIND(kIo, stream.good(), "save(): the stream could not be written");
  });
}

void to_load(std::map<std::string, Tensor>& tensors, serialize::InputArchive& archive) {
  for (const auto& [key, value] : archive.value().toDictRef()) tensors[key.toStringRef()] = value.toTensor();
}

}  // namespace detail

std::vector<char> pickle_save(const IValue& value) {
  std::vector<char> data;
  io::save(Writer().value(value), [&](std::span<const std::byte> bytes) {
    const char* begin = reinterpret_cast<const char*>(bytes.data());
    data.insert(data.end(), begin, begin + bytes.size());
  });
  return data;
}

IValue pickle_load(const std::vector<char>& data) {
  return Reader().value(io::load(bytes_of(data.data(), data.size()), nullptr, "<bytes>"));
}

namespace serialize {

void OutputArchive::write(const std::string& key, const IValue& value) {
  for (auto& [known, item] : root_.toDictRef()) {
    if (known.toStringRef() != key) continue;
    item = value;
    return;
  }
  root_.toDictRef().emplace_back(key, value);
}
void OutputArchive::write(const std::string& key, const Tensor& tensor, bool) {
  write(key, IValue(tensor.defined() ? tensor.detach() : tensor));
}
void OutputArchive::write(const std::string& key, const OutputArchive& archive) { write(key, archive.root_); }
void OutputArchive::save_to(const std::string& path) const { detail::save_value(root_, path); }
void OutputArchive::save_to(std::ostream& stream) const { detail::save_value(root_, stream); }

void InputArchive::load_from(const std::string& path) { root_ = Reader().value(io::load(path)); }

void InputArchive::load_from(const char* data, size_t size) {
  root_ = Reader().value(io::load(bytes_of(data, size), nullptr, "<bytes>"));
}

void InputArchive::load_from(std::istream& stream) {
  const std::string all{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  root_ = Reader().value(io::load(bytes_of(all.data(), all.size()), nullptr, "<stream>"));
}

const IValue* InputArchive::find(const std::string& key) const { return root_.find(key); }

bool InputArchive::try_read(const std::string& key, IValue& value) {
  const IValue* found = find(key);
  if (found != nullptr) value = *found;
  return found != nullptr;
}

bool InputArchive::try_read(const std::string& key, Tensor& tensor, bool) {
  const IValue* found = find(key);
  if (found == nullptr) return false;
  const Tensor value = found->toTensor();
  if (tensor.defined())
    tensor.set_data(value);
  else
    tensor = value;
  return true;
}

bool InputArchive::try_read(const std::string& key, InputArchive& archive) {
  const IValue* found = find(key);
  if (found == nullptr) return false;
  found->toDictRef();  // an archive is a dict
  archive.root_ = *found;
  return true;
}

namespace {
template <class T>
void must_read(InputArchive& archive, const std::string& key, T& value) {
  if (archive.try_read(key, value)) return;
  std::string known;
  for (const std::string& k : archive.keys()) known += (known.empty() ? "" : ", ") + k;
  raise(ErrorKind::kRuntime, "No such serialized value: '", key, "'; there are: ", known);
}
}  // namespace

void InputArchive::read(const std::string& key, IValue& value) { must_read(*this, key, value); }
void InputArchive::read(const std::string& key, Tensor& tensor, bool) { must_read(*this, key, tensor); }
void InputArchive::read(const std::string& key, InputArchive& archive) { must_read(*this, key, archive); }

std::vector<std::string> InputArchive::keys() const {
  std::vector<std::string> list;
  if (!root_.isGenericDict()) return list;
  for (const auto& [key, value] : root_.toDictRef()) {
    if (key.isString()) list.push_back(key.toStringRef());
  }
  return list;
}

}  // namespace serialize

namespace safetensors {

void save_file(const std::map<std::string, Tensor>& tensors, const std::string& path,
               const std::map<std::string, std::string>& metadata) {
  io::TensorDescriber describer;
  std::map<std::string, io::TensorBlob> blobs;
  for (const auto& [name, tensor] : tensors) {
    LOHE_CHECK_VALUE(tensor.defined(), "save_file(): the tensor '", name, "' is undefined");
    blobs.emplace(name, describer.tensor(*tensor.impl()));
  }
  io::save_safetensors(blobs, metadata, path);
}

std::map<std::string, Tensor> load_file(const std::string& path,
                                        std::map<std::string, std::string>* metadata) {
  io::SafetensorsFile file = io::load_safetensors(path);
  io::TensorBuilder builder;
  std::map<std::string, Tensor> tensors;
  for (const auto& [name, blob] : file.tensors) tensors.emplace(name, to_public(builder.tensor(blob)));
  if (metadata != nullptr) *metadata = std::move(file.metadata);
  return tensors;
}

}  // namespace safetensors
}  // namespace lohe
