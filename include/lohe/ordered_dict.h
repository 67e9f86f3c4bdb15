#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "lohe/error.h"

namespace lohe {

/// Items by key, in the order in which they were inserted.
template <class Key, class Value>
class OrderedDict {
 public:
  struct Item {
    Key name;
    Value item;
    const Key& key() const { return name; }
    const Value& value() const { return item; }
    Value& value() { return item; }
    const Value& operator*() const { return item; }
    const Value* operator->() const { return &item; }
  };
  OrderedDict() = default;
  OrderedDict(std::initializer_list<std::pair<Key, Value>> list) {
    for (const auto& [key, value] : list) insert(key, value);
  }
  void insert(Key key, Value value) { items_.push_back({std::move(key), std::move(value)}); }
  const Value* find(const Key& key) const {
    for (const Item& i : items_) {
      if (i.name == key) return &i.item;
    }
    return nullptr;
  }
  Value* find(const Key& key) { return const_cast<Value*>(std::as_const(*this).find(key)); }
  /// @throws KeyError naming what there is.
  const Value& operator[](const Key& key) const {
    if (const Value* found = find(key)) return *found;
    std::string known;
    for (const Item& i : items_) known += detail::concat(known.empty() ? "" : ", ", i.name);
    raise(ErrorKind::kKey, "'", key, "' is not defined; there are: ", known);
  }
  bool contains(const Key& key) const { return find(key) != nullptr; }
  void erase(const Key& key) {
    std::erase_if(items_, [&](const Item& i) { return i.name == key; });
  }
  void clear() { items_.clear(); }
  size_t size() const { return items_.size(); }
  bool is_empty() const { return items_.empty(); }
  std::vector<Key> keys() const {
    std::vector<Key> list;
    for (const Item& i : items_) list.push_back(i.name);
    return list;
  }
  std::vector<Value> values() const {
    std::vector<Value> list;
    for (const Item& i : items_) list.push_back(i.item);
    return list;
  }
  auto begin() const { return items_.begin(); }
  auto end() const { return items_.end(); }
  auto begin() { return items_.begin(); }
  auto end() { return items_.end(); }

 private:
  std::vector<Item> items_;
};

}  // namespace lohe
