#include "ops/schema.h"

#include <charconv>
#include <deque>

#include "lohe/error.h"

namespace lohe::ops {
namespace {

/// Default values of list arguments and strings live as long as the library.
template <class T>
const T& keep(T value) {
  static std::deque<T> kept;
  return kept.emplace_back(std::move(value));
}

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Schema read() {
    Schema s;
    s.text = std::string(text_);
    s.name = std::string(until("("));
    const auto dot = s.name.find('.');
    s.base = s.name.substr(0, dot);
    if (dot != std::string::npos) s.overload = s.name.substr(dot + 1);
    expect("(");
    bool keyword_only = false;
    while (!accept(")")) {
      if (accept("*")) {
        keyword_only = true;
      } else {
        Param p = param();
        p.keyword_only = keyword_only;
        if (!keyword_only) ++s.positional;
        s.mutating = s.mutating || p.written;
        s.params.push_back(std::move(p));
      }
      accept(",");
    }
    expect("->");
    if (accept("(")) {
      while (!accept(")")) {
        s.returns.push_back(result());
        accept(",");
      }
    } else {
      s.returns.push_back(result());
    }
    return s;
  }

 private:
  struct Type {
    ArgType type;
    bool optional;
    bool written;
    char alias;
    int list_size;
  };

  Type type() {
    skip();
    size_t n = 0;
    while (at_ + n < text_.size() &&
           (isalnum(static_cast<unsigned char>(text_[at_ + n])) != 0 || text_[at_ + n] == '_'))
      ++n;
    const std::string_view word = text_.substr(at_, n);
    at_ += n;
    Type t{ArgType::kTensor, false, false, 0, 0};
    if (word == "Tensor")
      t.type = ArgType::kTensor;
    else if (word == "Scalar")
      t.type = ArgType::kScalar;
    else if (word == "int")
      t.type = ArgType::kInt;
    else if (word == "float")
      t.type = ArgType::kFloat;
    else if (word == "bool")
      t.type = ArgType::kBool;
    else if (word == "str")
      t.type = ArgType::kStr;
    else if (word == "ScalarType" || word == "dtype")
      t.type = ArgType::kDtype;
    else if (word == "Device")
      t.type = ArgType::kDevice;
    else if (word == "Layout")
      t.type = ArgType::kLayout;
    else if (word == "MemoryFormat")
      t.type = ArgType::kMemoryFormat;
    else if (word == "Generator")
      t.type = ArgType::kGenerator;
    else
      fail("unknown type");
    if (at_ < text_.size() && text_[at_] == '(') {
      t.alias = text_[at_ + 1];
      at_ += 2;
      if (text_[at_] == '!') {
        t.written = true;
        ++at_;
      }
      expect(")");
    }
    if (accept("[")) {
      if (!accept("]")) {
        const auto [end, error] =
            std::from_chars(text_.data() + at_, text_.data() + text_.size(), t.list_size);
        at_ = static_cast<size_t>(end - text_.data());
        expect("]");
      }
      switch (t.type) {
        case ArgType::kTensor:
          t.type = ArgType::kTensors;
          break;
        case ArgType::kInt:
          t.type = ArgType::kInts;
          break;
        case ArgType::kFloat:
          t.type = ArgType::kFloats;
          break;
        default:
          fail("no lists of this type");
      }
    }
    if (accept("?")) {
      if (accept("[")) {  // Tensor?[]
        expect("]");
        t.type = ArgType::kTensors;
      } else {
        t.optional = true;
      }
    }
    return t;
  }

  Param param() {
    const Type t = type();
    Param p;
    p.type = t.type;
    p.optional = t.optional;
    p.written = t.written;
    p.alias = t.alias;
    p.list_size = t.list_size;
    skip();
    p.name = std::string(until(",)="));
    while (!p.name.empty() && p.name.back() == ' ') p.name.pop_back();
    if (accept("=")) {
      p.has_default = true;
      default_value(p);
    }
    return p;
  }

  Return result() {
    const Type t = type();
    Return r{"", t.type, t.written, t.alias};
    skip();
    if (at_ < text_.size() && text_[at_] != ',' && text_[at_] != ')') r.name = std::string(until(",)"));
    return r;
  }

  void default_value(Param& p) {
    skip();
    const size_t start = at_;
    if (text_[at_] == '\'') {
      const size_t end = text_.find('\'', at_ + 1);
      p.default_value = Arg(std::string_view(keep(std::string(text_.substr(at_ + 1, end - at_ - 1)))));
      at_ = end + 1;
    } else if (text_[at_] == '[') {
      const size_t end = text_.find(']', at_);
      std::vector<int64_t> values;
      for (const char* c = text_.data() + at_ + 1; c < text_.data() + end;) {
        int64_t v = 0;
        const auto [next, error] = std::from_chars(c, text_.data() + end, v);
        if (error == std::errc()) values.push_back(v);
        c = error == std::errc() ? next : c + 1;
      }
      p.default_value = Arg(std::span<const int64_t>(keep(std::move(values))));
      at_ = end + 1;
    } else {
      const std::string_view word = until(",)");
      if (word == "None")
        p.default_value = Arg();
      else if (word == "True" || word == "False")
        p.default_value = Arg(word == "True");
      else if (p.type == ArgType::kInt ||
               (p.type == ArgType::kScalar && word.find_first_of(".e") == word.npos) ||
               p.type == ArgType::kMemoryFormat) {
        int64_t v = 0;
        std::from_chars(word.data(), word.data() + word.size(), v);
        p.default_value = Arg(v);
      } else if (p.type == ArgType::kInts) {
        int64_t v = 0;
        std::from_chars(word.data(), word.data() + word.size(), v);
        p.default_value = Arg(std::span<const int64_t>(
            keep(std::vector<int64_t>(static_cast<size_t>(std::max(p.list_size, 1)), v))));
      } else {
        p.default_value = Arg(std::stod(std::string(word)));
      }
    }
    p.default_text = std::string(text_.substr(start, at_ - start));
    while (!p.default_text.empty() && p.default_text.back() == ' ') p.default_text.pop_back();
  }

  void skip() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool accept(std::string_view token) {
    skip();
    if (text_.substr(at_, token.size()) != token) return false;
    at_ += token.size();
    return true;
  }
  void expect(std::string_view token) {
    if (!accept(token)) fail(token);
  }
  std::string_view until(std::string_view stops) {
    const size_t end = std::min(text_.find_first_of(stops, at_), text_.size());
    const std::string_view word = text_.substr(at_, end - at_);
    at_ = end;
    return word;
  }
  [[noreturn]] void fail(std::string_view what) {
    raise(ErrorKind::kInternal, "schema '", text_, "': ", what, " expected or not understood at position ",
          at_);
  }

  std::string_view text_;
  size_t at_ = 0;
};

}  // namespace

Schema Schema::parse(std::string_view text) { return Reader(text).read(); }

int Schema::index_of(std::string_view param) const {
  for (size_t i = 0; i < params.size(); ++i) {
    if (params[i].name == param) return static_cast<int>(i);
  }
  return -1;
}

}  // namespace lohe::ops
