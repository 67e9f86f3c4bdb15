#include "io/unpickle.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "io/builder.h"
#include "io/pickle_ops.h"

namespace lohe::io {
namespace {

/// The stack machine that a pickle is a program for. Every opcode takes at least one byte of the pickle and
/// pushes at most one value, which bounds the stack; long values are bounded by the bytes that are left.
class Machine {
 public:
  Machine(std::span<const std::byte> pickle, const StorageResolver& resolve, const std::string& source)
      : bytes_(reinterpret_cast<const char*>(pickle.data()), pickle.size()),
        resolve_(resolve),
        builder_(source, pickle.size()) {}

  Value run() {
    for (;;) {
      const auto op = static_cast<Op>(take(1)[0]);
      if (op == Op::kStop) break;
      step(op);
    }
    if (!marks_.empty()) fail("it stops inside an open container");
    return builder_.finish(pop());
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    builder_.fail("damaged pickle: " + what + " (at byte " + std::to_string(at_) + " of " +
                  std::to_string(bytes_.size()) + ")");
  }

  // Reading.
  std::string_view take(uint64_t count) {
    if (count > bytes_.size() - at_) fail("it ends early");
    const std::string_view taken = bytes_.substr(at_, count);
    at_ += count;
    return taken;
  }
  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
    return value;
  }
  std::string_view line() {
    // Names of modules and classes are short; an endless line is not worth searching.
    const std::string_view rest = bytes_.substr(at_, 4096);
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) fail("a name without end");
    at_ += end + 1;
    return rest.substr(0, end);
  }
  Value text(uint64_t length) {
    const std::string_view content = take(length);
    if (!is_utf8_with_surrogates(content)) fail("text that is not UTF-8");
    return std::string(content);
  }
  Value bytes(uint64_t length) { return make_bytes(std::string(take(length))); }

  Value big_integer(uint64_t length) {
    std::string_view digits = take(length);
    const auto redundant = [&] {
      if (digits.size() < 2) return false;
      const auto top = static_cast<signed char>(digits.back());
      const auto below = static_cast<signed char>(digits[digits.size() - 2]);
      return (top == 0 && below >= 0) || (top == -1 && below < 0);
    };
    while (redundant()) digits.remove_suffix(1);
    if (digits.size() > 8) return BigInt{std::make_shared<const std::string>(digits)};
    uint64_t value = !digits.empty() && static_cast<signed char>(digits.back()) < 0 ? ~uint64_t{0} : 0;
    std::memcpy(&value, digits.data(), digits.size());
    return static_cast<int64_t>(value);
  }

  double big_endian_double() {
    uint64_t bits = __builtin_bswap64(number<uint64_t>());
    return std::bit_cast<double>(bits);
  }

  // The stack. Values below the last mark belong to an outer container.
  size_t floor() const { return marks_.empty() ? 0 : marks_.back(); }
  void push(Value value) { stack_.push_back(std::move(value)); }
  Value pop() {
    if (stack_.size() <= floor()) fail("its stack is empty");
    Value value = std::move(stack_.back());
    stack_.pop_back();
    return value;
  }
  Value& top() {
    if (stack_.size() <= floor()) fail("its stack is empty");
    return stack_.back();
  }
  std::vector<Value> pop_to_mark() {
    if (marks_.empty()) fail("a mark is missing");
    const auto start = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<Value> items(std::make_move_iterator(start), std::make_move_iterator(stack_.end()));
    stack_.erase(start, stack_.end());
    marks_.pop_back();
    return items;
  }
  Value pop_tuple(size_t count) {
    std::vector<Value> items(count);
    for (size_t i = count; i-- > 0;) items[i] = pop();
    return builder_.new_tuple(std::move(items));
  }

  // The memo.
  void put(uint64_t index) {
    if (index > bytes_.size()) fail("memo number " + std::to_string(index) + " is larger than the pickle");
    memo_[index] = top();
  }
  void get(uint64_t index) {
    const auto found = memo_.find(index);
    if (found == memo_.end()) fail("memo number " + std::to_string(index) + " was never set");
    push(found->second);
  }

  // Containers.
  template <class Container>
  Container& target(std::string_view operation) {
    const auto* held = top().get_if<std::shared_ptr<Container>>();
    if (held == nullptr)
      fail(std::string(operation) + " on an object of type " + std::string(top().type_name()));
    return **held;
  }
  void set_items(std::vector<Value> flat, std::string_view operation) {
    if (flat.size() % 2 != 0) fail("a key without value");
    auto& items = target<Dict>(operation).items;
    for (size_t i = 0; i < flat.size(); i += 2)
      items.emplace_back(std::move(flat[i]), std::move(flat[i + 1]));
  }
  template <class Container>
  void append(std::vector<Value> values, std::string_view operation) {
    auto& items = target<Container>(operation).items;
    items.insert(items.end(), std::make_move_iterator(values.begin()), std::make_move_iterator(values.end()));
  }

  // Named objects.
  void reduce(std::string_view operation) {
    const Value args = pop();
    const Value function = pop();
    const auto* global = function.get_if<Global>();
    if (global == nullptr) {
      fail(std::string(operation) + " calls an object of type " + std::string(function.type_name()));
    }
    const auto* tuple = args.get_if<std::shared_ptr<Tuple>>();
    if (tuple == nullptr) fail(std::string(operation) + " with arguments that are not a tuple");
    push(builder_.call(*global, (*tuple)->items));
  }

  void stack_global() {
    const Value name = pop();
    const Value module = pop();
    if (!name.is_text() || !module.is_text()) fail("a name that is not text");
    push(builder_.global(module.as_text(), name.as_text()));
  }

  void persistent_id() {
    const Value held = pop();
    const auto* tuple = held.get_if<std::shared_ptr<Tuple>>();
    StorageId id;
    const auto sound = [&] {
      if (tuple == nullptr || (*tuple)->items.size() != 5) return false;
      const std::vector<Value>& items = (*tuple)->items;
      if (!items[0].is_text() || items[0].as_text() != "storage") return false;
      if (!builder_.storage_type(items[1], &id.dtype, &id.untyped)) return false;
      if (!items[2].is_text() || !items[3].is_text() || !items[4].is<int64_t>()) return false;
      id.key = items[2].as_text();
      id.location = items[3].as_text();
      id.numel = items[4].as_int();
      return id.numel >= 0 && id.numel <= std::numeric_limits<int64_t>::max() / itemsize(id.dtype);
    };
    if (!sound()) fail("a persistent id that is not ('storage', type, key, location, number of elements)");
    auto& known = storages_[id.key];
    if (known == nullptr) known = resolve_(id);
    const auto wanted = static_cast<uint64_t>(id.numel) * static_cast<uint64_t>(itemsize(id.dtype));
    if (known->nbytes != wanted || known->dtype != id.dtype || known->untyped != id.untyped) {
      fail("storage '" + id.key.substr(0, 100) + "' appears with two types or sizes");
    }
    push(known);
  }

  void step(Op op) {
    switch (op) {
      case Op::kProto: {
        const auto protocol = number<uint8_t>();
        if (protocol < 2 || protocol > 5) {
          builder_.fail("pickle protocol " + std::to_string(protocol) + "; protocols 2 to 5 are read");
        }
        return;
      }
      case Op::kFrame:
        if (number<uint64_t>() > bytes_.size() - at_) fail("a frame longer than the pickle");
        return;
      case Op::kMark:
        marks_.push_back(stack_.size());
        return;
      case Op::kPop:
        if (stack_.size() > floor()) {
          stack_.pop_back();
        } else {
          pop_to_mark();
        }
        return;
      case Op::kPopMark:
        pop_to_mark();
        return;
      case Op::kDup:
        push(top());
        return;

      case Op::kNone:
        push(Value());
        return;
      case Op::kNewTrue:
        push(true);
        return;
      case Op::kNewFalse:
        push(false);
        return;
      case Op::kBinInt:
        push(int64_t{number<int32_t>()});
        return;
      case Op::kBinInt1:
        push(int64_t{number<uint8_t>()});
        return;
      case Op::kBinInt2:
        push(int64_t{number<uint16_t>()});
        return;
      case Op::kLong1:
        push(big_integer(number<uint8_t>()));
        return;
      case Op::kLong4: {
        const auto length = number<int32_t>();
        if (length < 0) fail("an int of negative length");
        push(big_integer(static_cast<uint64_t>(length)));
        return;
      }
      case Op::kBinFloat:
        push(big_endian_double());
        return;
      // Text of Python 2; PyTorch, too, reads it as UTF-8.
      case Op::kBinString: {
        const auto length = number<int32_t>();
        if (length < 0) fail("text of negative length");
        push(text(static_cast<uint64_t>(length)));
        return;
      }
      case Op::kShortBinString:
      case Op::kShortBinUnicode:
        push(text(number<uint8_t>()));
        return;
      case Op::kBinUnicode:
        push(text(number<uint32_t>()));
        return;
      case Op::kBinUnicode8:
        push(text(number<uint64_t>()));
        return;
      case Op::kShortBinBytes:
        push(bytes(number<uint8_t>()));
        return;
      case Op::kBinBytes:
        push(bytes(number<uint32_t>()));
        return;
      case Op::kBinBytes8:
        push(bytes(number<uint64_t>()));
        return;
      case Op::kByteArray8:
        push(ByteArray{std::make_shared<std::string>(take(number<uint64_t>()))});
        return;

      case Op::kEmptyList:
        push(builder_.new_list());
        return;
      case Op::kList: {
        std::vector<Value> items = pop_to_mark();
        auto list = builder_.new_list();
        list->items = std::move(items);
        push(list);
        return;
      }
      case Op::kAppend: {
        std::vector<Value> one;
        one.push_back(pop());
        append<List>(std::move(one), "APPEND");
        return;
      }
      case Op::kAppends:
        append<List>(pop_to_mark(), "APPENDS");
        return;
      case Op::kEmptyTuple:
        push(builder_.new_tuple({}));
        return;
      case Op::kTuple:
        push(builder_.new_tuple(pop_to_mark()));
        return;
      case Op::kTuple1:
        push(pop_tuple(1));
        return;
      case Op::kTuple2:
        push(pop_tuple(2));
        return;
      case Op::kTuple3:
        push(pop_tuple(3));
        return;
      case Op::kEmptyDict:
        push(builder_.new_dict());
        return;
      case Op::kDict: {
        std::vector<Value> flat = pop_to_mark();
        push(builder_.new_dict());
        set_items(std::move(flat), "DICT");
        return;
      }
      case Op::kSetItem: {
        std::vector<Value> pair(2);
        pair[1] = pop();
        pair[0] = pop();
        set_items(std::move(pair), "SETITEM");
        return;
      }
      case Op::kSetItems:
        set_items(pop_to_mark(), "SETITEMS");
        return;
      case Op::kEmptySet:
        push(builder_.new_set(false));
        return;
      case Op::kAddItems:
        append<Set>(pop_to_mark(), "ADDITEMS");
        return;
      case Op::kFrozenSet: {
        std::vector<Value> items = pop_to_mark();
        auto set = builder_.new_set(true);
        set->items = std::move(items);
        push(set);
        return;
      }

      case Op::kGlobal: {
        const std::string_view module = line();
        push(builder_.global(module, line()));
        return;
      }
      case Op::kStackGlobal:
        stack_global();
        return;
      case Op::kReduce:
        reduce("REDUCE");
        return;
      case Op::kNewObj:
        reduce("NEWOBJ");
        return;
      case Op::kNewObjEx: {
        const Value keywords = pop();
        const auto* dict = keywords.get_if<std::shared_ptr<Dict>>();
        if (dict == nullptr || !(*dict)->items.empty()) fail("NEWOBJ_EX with keyword arguments");
        reduce("NEWOBJ_EX");
        return;
      }
      case Op::kBuild: {
        const Value state = pop();
        builder_.set_state(top(), state);
        return;
      }
      case Op::kBinPersId:
        persistent_id();
        return;

      case Op::kBinGet:
        get(number<uint8_t>());
        return;
      case Op::kLongBinGet:
        get(number<uint32_t>());
        return;
      case Op::kBinPut:
        put(number<uint8_t>());
        return;
      case Op::kLongBinPut:
        put(number<uint32_t>());
        return;
      case Op::kMemoize:
        put(memo_.size());
        return;
      case Op::kStop:
        break;
    }
    fail("opcode " + std::to_string(static_cast<int>(op)) +
         ", which protocols 2 to 5 do not use for plain data");
  }

  std::string_view bytes_;
  size_t at_ = 0;
  const StorageResolver& resolve_;
  Builder builder_;
  std::vector<Value> stack_;
  std::vector<size_t> marks_;
  std::unordered_map<uint64_t, Value> memo_;
  std::unordered_map<std::string, std::shared_ptr<const StorageBlob>> storages_;
};

}  // namespace

Value unpickle(std::span<const std::byte> pickle, const StorageResolver& resolve, const std::string& source) {
  return Machine(pickle, resolve, source).run();
}

}  // namespace lohe::io
