#pragma once

#include <iosfwd>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lohe/ivalue.h"
#include "lohe/nn/module.h"

/// Saving and loading: files of PyTorch's .pt format, which Python's `lohe.load` and `torch.load` read, and
/// safetensors. A file may be anything: nothing in it is executed, and it can raise an error but neither
/// crash nor use memory out of proportion to its size. A file is written whole or not at all.
namespace lohe {
namespace serialize {

/// A dict under construction; what it holds is a tensor, a value or another archive under each name.
class LOHE_API OutputArchive {
 public:
  /// A later value of a key replaces an earlier one.
  void write(const std::string& key, const IValue& value);
  void write(const std::string& key, const Tensor& tensor, bool is_buffer = false);
  void write(const std::string& key, const OutputArchive& archive);
  /// @throws Error(kIo)
  void save_to(const std::string& path) const;
  void save_to(std::ostream& stream) const;
  const IValue& value() const { return root_; }

 private:
  IValue root_{IValue::Dict{}};
};

/// What a file holds: a dict, or an archive that stands in another under a name.
class LOHE_API InputArchive {
 public:
  InputArchive() = default;
  /// Reads what an archive would write.
  explicit InputArchive(const OutputArchive& archive) : root_(archive.value()) {}
  /// @throws Error(kIo) for a file that cannot be read, RuntimeError for a damaged one, ValueError for one
  /// that holds more than tensors and plain data.
  void load_from(const std::string& path);
  void load_from(std::istream& stream);
  void load_from(const char* data, size_t size);

  /// @throws RuntimeError where the key is missing, TypeError where it holds something else. A tensor that is
  /// defined takes over what the file has and stays the same object.
  void read(const std::string& key, Tensor& tensor, bool is_buffer = false);
  void read(const std::string& key, IValue& value);
  void read(const std::string& key, InputArchive& archive);
  /// Whether the key is there.
  bool try_read(const std::string& key, Tensor& tensor, bool is_buffer = false);
  bool try_read(const std::string& key, IValue& value);
  bool try_read(const std::string& key, InputArchive& archive);
  std::vector<std::string> keys() const;
  /// All of it; a file may hold a tensor or a list instead of a dict.
  const IValue& value() const { return root_; }

 private:
  const IValue* find(const std::string& key) const;
  IValue root_{IValue::Dict{}};
};

}  // namespace serialize

/// The bytes of a file of `value`, and back: what `lohe.save` writes and `lohe.load` reads.
LOHE_API std::vector<char> pickle_save(const IValue& value);
LOHE_API IValue pickle_load(const std::vector<char>& data);

namespace detail {

inline IValue to_save(const Tensor& tensor) { return tensor; }
inline IValue to_save(const std::vector<Tensor>& tensors) { return tensors; }
inline IValue to_save(const IValue& value) { return value; }
template <class Named>
  requires requires(const Named& n) { n.begin()->second.defined(); }
IValue to_save(const Named& tensors) {  // std::map and its like
  IValue::Dict dict;
  for (const auto& [name, tensor] : tensors) dict.emplace_back(name, tensor);
  return dict;
}
inline IValue to_save(const OrderedDict<std::string, Tensor>& tensors) {
  IValue::Dict dict;
  for (const auto& item : tensors) dict.emplace_back(item.name, item.item);
  return dict;
}
template <class Saved>
  requires requires(const Saved& s, serialize::OutputArchive& a) { s.save(a); }
IValue to_save(const Saved& object) {  // modules and optimizers
  serialize::OutputArchive archive;
  object.save(archive);
  return archive.value();
}
template <class Pointer>
  requires requires(const Pointer& p, serialize::OutputArchive& a) { p->save(a); }
IValue to_save(const Pointer& pointer) {
  return to_save(*pointer);
}

inline void to_load(Tensor& tensor, serialize::InputArchive& archive) { tensor = archive.value().toTensor(); }
inline void to_load(std::vector<Tensor>& tensors, serialize::InputArchive& archive) {
  for (Tensor& t : archive.value().toTensorVector()) tensors.push_back(std::move(t));
}
inline void to_load(IValue& value, serialize::InputArchive& archive) { value = archive.value(); }
LOHE_API void to_load(std::map<std::string, Tensor>& tensors, serialize::InputArchive& archive);
template <class Loaded>
  requires requires(Loaded& l, serialize::InputArchive& a) { l.load(a); }
void to_load(Loaded& object, serialize::InputArchive& archive) {
  object.load(archive);
}
template <class Pointer>
  requires requires(Pointer& p, serialize::InputArchive& a) { p->load(a); }
void to_load(Pointer& pointer, serialize::InputArchive& archive) {
  pointer->load(archive);
}

LOHE_API void save_value(const IValue& value, const std::string& path);
LOHE_API void save_value(const IValue& value, std::ostream& stream);

}  // namespace detail

/// Writes a tensor, a list or a map of tensors, a module (its state dict), or an optimizer to a file named by
/// its path, or to a stream. Python's `lohe.load` gives a tensor, a list, or a dict.
template <class Value, class To>
void save(const Value& value, To&& to) {
  detail::save_value(detail::to_save(value), std::forward<To>(to));
}
/// Reads what save() or Python's `save` wrote into a tensor, list or map of tensors, module or optimizer.
template <class Value, class... From>
void load(Value& value, From&&... from) {
  serialize::InputArchive archive;
  archive.load_from(std::forward<From>(from)...);
  detail::to_load(value, archive);
}

/// Files of the safetensors format.
namespace safetensors {
/// @throws ValueError for tensors that the format cannot hold: complex128, not contiguous, sharing memory.
LOHE_API void save_file(const std::map<std::string, Tensor>& tensors, const std::string& path,
                        const std::map<std::string, std::string>& metadata = {});
/// The tensors lie in the mapped file; its pages are copied when they are first written.
LOHE_API std::map<std::string, Tensor> load_file(const std::string& path,
                                                 std::map<std::string, std::string>* metadata = nullptr);
}  // namespace safetensors
}  // namespace lohe
