#include "io/settle.h"

#include <algorithm>
#include <cmath>
#include <compare>
#include <numeric>
#include <unordered_map>

#include "lohe/error.h"

namespace lohe::io {
namespace {

using Fail = std::function<void(const std::string&)>;

/// The i-th value that `node` holds; false behind the last.
bool child_of(const Value& node, size_t i, Value* child) {
  const auto from = [&](const std::vector<Value>& items) {
    if (i >= items.size()) return false;
    *child = items[i];
    return true;
  };
  if (const auto* list = node.get_if<std::shared_ptr<List>>()) return from((*list)->items);
  if (const auto* tuple = node.get_if<std::shared_ptr<Tuple>>()) return from((*tuple)->items);
  if (const auto* set = node.get_if<std::shared_ptr<Set>>()) return from((*set)->items);
  const std::shared_ptr<Dict>* attributes = nullptr;
  size_t before = 0;
  if (const auto* dict = node.get_if<std::shared_ptr<Dict>>()) {
    before = 2 * (*dict)->items.size();
    if (i < before) {
      const auto& item = (*dict)->items[i / 2];
      *child = i % 2 == 0 ? item.first : item.second;
      return true;
    }
    attributes = &(*dict)->attributes;
  } else if (const auto* tensor = node.get_if<std::shared_ptr<TensorBlob>>()) {
    attributes = &(*tensor)->attributes;
  }
  if (attributes == nullptr || *attributes == nullptr || i > before) return false;
  *child = *attributes;
  return true;
}

/// A total order of hashable values in which Python's equal keys are equal, so that sorting finds them
/// without the worst case of hashing. Frozen sets, tensors and the like are ordered by identity.
class KeyOrder {
 public:
  KeyOrder(size_t& budget, const Fail& fail) : budget_(budget), fail_(fail) {}

  std::strong_ordering compare(const Value& a, const Value& b) {
    spend(1);
    const int rank_a = rank(a), rank_b = rank(b);
    if (rank_a != rank_b) return rank_a <=> rank_b;
    switch (rank_a) {
      case kNone:
        return std::strong_ordering::equal;
      case kNumber:
        return compare_numbers(a, b);
      case kText:
        return compare_strings(a.get_if<Text>(), b.get_if<Text>());
      case kBytes:
        return compare_strings(&a.get_if<Bytes>()->bytes, &b.get_if<Bytes>()->bytes);
      case kBigInt:
        return compare_strings(&a.get_if<BigInt>()->bytes, &b.get_if<BigInt>()->bytes);
      case kDtype:
        return *a.get_if<Dtype>() <=> *b.get_if<Dtype>();
      case kTuple: {
        const auto& x = (*a.get_if<std::shared_ptr<Tuple>>())->items;
        const auto& y = (*b.get_if<std::shared_ptr<Tuple>>())->items;
        if (&x == &y) return std::strong_ordering::equal;
        if (x.size() != y.size()) return x.size() <=> y.size();
        for (size_t i = 0; i < x.size(); ++i) {
          const auto order = compare(x[i], y[i]);
          if (order != 0) return order;
        }
        return std::strong_ordering::equal;
      }
      default:
        return std::compare_three_way()(identity(a), identity(b));
    }
  }

  static bool is_nan(const Value& value) {
    if (const auto* number = value.get_if<double>()) return std::isnan(*number);
    if (const auto* number = value.get_if<std::complex<double>>()) {
      return std::isnan(number->real()) || std::isnan(number->imag());
    }
    return false;
  }

 private:
  enum Rank { kNone, kNumber, kText, kBytes, kBigInt, kDtype, kTuple, kIdentity };

  void spend(size_t units) {
    if (units > budget_) fail_("its keys are made to be slow to compare");
    budget_ -= units;
  }

  static int rank(const Value& value) {
    if (value.is_none()) return kNone;
    if (value.is<bool>() || value.is<int64_t>() || value.is<double>() || value.is<std::complex<double>>()) {
      return kNumber;
    }
    if (value.is_text()) return kText;
    if (value.is<Bytes>()) return kBytes;
    if (value.is<BigInt>()) return kBigInt;
    if (value.is<Dtype>()) return kDtype;
    if (value.is<std::shared_ptr<Tuple>>()) return kTuple;
    return kIdentity;
  }

  static const void* identity(const Value& value) {
    return std::visit(
        [](const auto& held) -> const void* {
          if constexpr (requires { held.get(); }) {
            return held.get();
          } else {
            return nullptr;
          }
        },
        value.variant());
  }

  std::strong_ordering compare_strings(const std::shared_ptr<const std::string>* a,
                                       const std::shared_ptr<const std::string>* b) {
    if (*a == *b) return std::strong_ordering::equal;
    spend(std::min((*a)->size(), (*b)->size()) / 64);
    return (*a)->compare(**b) <=> 0;
  }

  static std::strong_ordering compare_doubles(double a, double b) {
    if (std::isnan(a) || std::isnan(b)) return std::isnan(a) <=> std::isnan(b);
    return a < b   ? std::strong_ordering::less
           : a > b ? std::strong_ordering::greater
                   : std::strong_ordering::equal;
  }

  static std::strong_ordering compare_mixed(int64_t a, double b) {
    if (std::isnan(b) || b >= 0x1p63) return std::strong_ordering::less;
    if (b < -0x1p63) return std::strong_ordering::greater;
    const double whole = std::trunc(b);
    const auto integer = static_cast<int64_t>(whole);
    return a != integer ? a <=> integer : compare_doubles(whole, b);
  }

  static std::strong_ordering compare_numbers(const Value& a, const Value& b) {
    const auto integer = [](const Value& value, int64_t* out) {
      if (const auto* flag = value.get_if<bool>()) return *out = *flag, true;
      if (const auto* number = value.get_if<int64_t>()) return *out = *number, true;
      return false;
    };
    const auto parts = [](const Value& value) {
      const auto* number = value.get_if<double>();
      return number != nullptr ? std::complex<double>(*number) : *value.get_if<std::complex<double>>();
    };
    int64_t x = 0, y = 0;
    const bool exact_a = integer(a, &x), exact_b = integer(b, &y);
    if (exact_a && exact_b) return x <=> y;
    if (exact_a) {
      const auto order = compare_mixed(x, parts(b).real());
      return order != 0 ? order : compare_doubles(0, parts(b).imag());
    }
    if (exact_b) return 0 <=> compare_numbers(b, a);
    const auto order = compare_doubles(parts(a).real(), parts(b).real());
    return order != 0 ? order : compare_doubles(parts(a).imag(), parts(b).imag());
  }

  size_t& budget_;
  const Fail& fail_;
};

bool is_hashable(const Value& value) {
  if (const auto* set = value.get_if<std::shared_ptr<Set>>()) return (*set)->frozen;
  return !value.is<std::shared_ptr<List>>() && !value.is<std::shared_ptr<Dict>>() && !value.is<ByteArray>();
}

/// For each position the position of the first equal key, or `size` when all keys are distinct. A tuple that
/// holds an unhashable value has been refused before, when the tuple itself was visited.
template <class KeyAt>
std::vector<size_t> first_equals(size_t size, KeyAt key_at, KeyOrder& order) {
  std::vector<size_t> sorted(size);
  std::iota(sorted.begin(), sorted.end(), size_t{0});
  std::stable_sort(sorted.begin(), sorted.end(),
                   [&](size_t a, size_t b) { return order.compare(key_at(a), key_at(b)) < 0; });
  std::vector<size_t> first;
  for (size_t i = 1; i < size; ++i) {
    const size_t a = sorted[i - 1], b = sorted[i];
    if (KeyOrder::is_nan(key_at(b)) || order.compare(key_at(a), key_at(b)) != 0) continue;
    if (first.empty()) {
      first.resize(size);
      std::iota(first.begin(), first.end(), size_t{0});
    }
    first[b] = first[a];
  }
  return first;
}

class Settler {
 public:
  Settler(size_t budget, const Fail& fail) : budget_(budget), fail_(fail) {}

  void visit(const Value& root) {
    enter(root);
    Value child;
    while (!path_.empty()) {
      if (child_of(path_.back().node, path_.back().next, &child)) {
        ++path_.back().next;
        enter(child);
        continue;
      }
      const Frame done = path_.back();
      path_.pop_back();
      if (done.height > kMaxNesting) fail_("it nests deeper than " + std::to_string(kMaxNesting) + " levels");
      states_[container_of(done.node)] = {done.height, done.hashable};
      join_equal_keys(done.node);
      leave_child({done.height, done.hashable}, done.node);
    }
  }

  bool reached(const Value& value) const { return states_.contains(container_of(value)); }

 private:
  struct State {
    int height = 0;  // 0 while it is on the path
    bool hashable = true;
  };
  struct Frame {
    Value node;
    size_t next = 0;
    int height = 1;
    bool hashable = true;
  };

  void enter(const Value& value) {
    if (value.is<Global>()) fail_("it stores a class or function as a value; only data is read");
    const void* node = container_of(value);
    if (node == nullptr) {
      leave_child({0, is_hashable(value)}, value);
      return;
    }
    const auto [found, fresh] = states_.try_emplace(node);
    if (fresh) {
      path_.push_back({value, 0, 1, is_hashable(value)});
    } else if (found->second.height == 0) {
      fail_("an object of type " + std::string(value.type_name()) +
            " contains itself, which is not supported");
    } else {
      leave_child(found->second, value);
    }
  }

  /// Hands what was found about a child to the frame that holds it.
  void leave_child(State child, const Value& value) {
    if (path_.empty()) return;
    Frame& parent = path_.back();
    parent.height = std::max(parent.height, child.height + 1);
    if (child.hashable) return;
    const bool is_key = parent.node.is<std::shared_ptr<Set>>() || is_dict_key(parent);
    if (is_key) fail_("unhashable key of type " + std::string(value.type_name()));
    if (parent.node.is<std::shared_ptr<Tuple>>()) parent.hashable = false;
  }

  static bool is_dict_key(const Frame& frame) {
    const auto* dict = frame.node.get_if<std::shared_ptr<Dict>>();
    const size_t index = frame.next - 1;
    return dict != nullptr && index < 2 * (*dict)->items.size() && index % 2 == 0;
  }

  void join_equal_keys(const Value& node) {
    KeyOrder order(budget_, fail_);
    if (const auto* held = node.get_if<std::shared_ptr<Dict>>()) {
      auto& items = (*held)->items;
      if (items.size() < 2) return;
      const auto key_at = [&](size_t i) -> const Value& { return items[i].first; };
      const std::vector<size_t> first = first_equals(items.size(), key_at, order);
      if (first.empty()) return;
      std::vector<std::pair<Value, Value>> joined;
      std::vector<size_t> place(items.size());
      for (size_t i = 0; i < items.size(); ++i) {
        if (first[i] == i) {
          place[i] = joined.size();
          joined.push_back(items[i]);
        } else {
          joined[place[first[i]]].second = items[i].second;
        }
      }
      items = std::move(joined);
    } else if (const auto* set = node.get_if<std::shared_ptr<Set>>()) {
      auto& items = (*set)->items;
      const auto key_at = [&](size_t i) -> const Value& { return items[i]; };
      const std::vector<size_t> first = first_equals(items.size(), key_at, order);
      if (first.empty()) return;
      std::vector<Value> joined;
      for (size_t i = 0; i < items.size(); ++i) {
        if (first[i] == i) joined.push_back(items[i]);
      }
      items = std::move(joined);
    }
  }

  size_t budget_;
  const Fail& fail_;
  std::vector<Frame> path_;
  std::unordered_map<const void*, State> states_;
};

}  // namespace

void clear_container(const Value& value) {
  if (const auto* list = value.get_if<std::shared_ptr<List>>()) (*list)->items.clear();
  if (const auto* tuple = value.get_if<std::shared_ptr<Tuple>>()) (*tuple)->items.clear();
  if (const auto* set = value.get_if<std::shared_ptr<Set>>()) (*set)->items.clear();
  if (const auto* dict = value.get_if<std::shared_ptr<Dict>>()) {
    (*dict)->items.clear();
    (*dict)->attributes.reset();
  }
}

void settle(const Value& root, const std::vector<Value>& containers, size_t budget, const Fail& fail) {
  Settler settler(budget, fail);
  settler.visit(root);
  for (const Value& container : containers) {
    if (!settler.reached(container)) clear_container(container);
  }
}

}  // namespace lohe::io
