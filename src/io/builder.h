#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "io/value.h"

namespace lohe::io {

/// Makes the objects that a pickle asks for by the names of functions and classes.
class Builder {
 public:
  Builder(std::string source, size_t pickle_size);
  /// Containers may hold themselves by now, in a pickle made to do harm; emptying all of them breaks every
  /// ring.
  ~Builder();
  Builder(const Builder&) = delete;
  Builder& operator=(const Builder&) = delete;

  /// What the name stands for: a Global, or a dtype. @throws UnpicklingError for every name that is not
  /// known.
  Value global(std::string_view module, std::string_view name) const;
  /// function(*args).
  Value call(Global function, const std::vector<Value>& args);
  /// object.__setstate__(state), as pickle's BUILD does it.
  void set_state(const Value& object, const Value& state);
  /// ('storage', type, key, location, numel): whether the type is a storage's, and which.
  bool storage_type(const Value& type, Dtype* dtype, bool* untyped) const;

  std::shared_ptr<List> new_list();
  std::shared_ptr<Dict> new_dict(DictKind kind = DictKind::kPlain);
  std::shared_ptr<Set> new_set(bool frozen);
  Value new_tuple(std::vector<Value> items);

  /// The last step: checks that the value is a tree or a graph without rings, nested at most kMaxNesting
  /// deep, without leftover functions and with hashable keys; joins equal keys; forgets objects that are not
  /// part of it.
  Value finish(Value value);

  [[noreturn]] void fail(const std::string& what) const;

 private:
  struct Arguments;

  /// Bytes copied beyond what the pickle itself spells out; a pickle can name one long object many times.
  void charge(size_t bytes);
  std::vector<int64_t> integers(const Value& value, std::string_view what);
  std::shared_ptr<Dict> attributes_of(const Value& state) const;
  Value rebuild_tensor(const Arguments& args, size_t required, bool dtype_given);
  Value rebuild_parameter(const Arguments& args, bool with_state);
  Value rebuild_from_type(const Arguments& args);
  Value make_mapping(const Arguments& args, DictKind kind);
  Value make_device(const Arguments& args) const;
  Value encode_latin1(const Arguments& args);
  const std::vector<Value>& iterable(const Value& value, std::string_view what) const;

  std::string source_;
  size_t pickle_size_;
  size_t charged_ = 0;
  int calls_ = 0;  // nested ones
  std::vector<Value> containers_;
};

}  // namespace lohe::io
