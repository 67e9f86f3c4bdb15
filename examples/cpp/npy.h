#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

/// Reads arrays from NumPy's .npy files (format versions 1 to 3, numpy.lib.format). Nothing in a file is
/// trusted: a header that does not say exactly what is expected, or a size that the file does not have,
/// raises std::runtime_error.
namespace npy {

template <class T>
struct Array {
  std::vector<int64_t> shape;
  std::vector<T> values;  ///< row-major
};

namespace detail {

inline constexpr size_t kMaxHeader = 4096;
inline constexpr size_t kMaxDims = 8;

struct Header {
  std::string descr;
  bool fortran_order = true;
  std::vector<int64_t> shape;
};

/// The header is a Python dict literal with three keys, e.g. {'descr': '<f4', 'fortran_order': False,
/// 'shape': (3, 4), }
class HeaderParser {
 public:
  explicit HeaderParser(std::string_view text) : text_(text) {}

  Header parse() {
    Header header;
    bool descr = false, order = false, shape = false;
    expect('{');
    while (!take('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr" && !descr) {
        header.descr = quoted();
        descr = true;
      } else if (key == "fortran_order" && !order) {
        header.fortran_order = boolean();
        order = true;
      } else if (key == "shape" && !shape) {
        header.shape = tuple();
        shape = true;
      } else {
        fail("unexpected key '" + key + "'");
      }
      if (!take(',')) {
        expect('}');
        break;
      }
    }
    skip_spaces();
    if (at_ != text_.size()) fail("something follows the dict");
    if (!descr || !order || !shape) fail("descr, fortran_order or shape is missing");
    return header;
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error("header of a .npy file: " + what + " (at byte " + std::to_string(at_) + ")");
  }
  void skip_spaces() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n')) ++at_;
  }
  bool take(char c) {
    skip_spaces();
    if (at_ == text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail(std::string("expected '") + c + "'");
  }
  std::string quoted() {
    expect('\'');
    const size_t end = text_.find('\'', at_);
    if (end == std::string_view::npos) fail("a string has no end");
    const std::string text(text_.substr(at_, end - at_));
    at_ = end + 1;
    return text;
  }
  bool boolean() {
    skip_spaces();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (text_.substr(at_, word.size()) == word) {
        at_ += word.size();
        return value;
      }
    }
    fail("expected True or False");
  }
  std::vector<int64_t> tuple() {
    std::vector<int64_t> sizes;
    expect('(');
    while (!take(')')) {
      if (sizes.size() == kMaxDims) fail("more than " + std::to_string(kMaxDims) + " dimensions");
      sizes.push_back(number());
      if (!take(',')) {
        expect(')');
        break;
      }
    }
    return sizes;
  }
  int64_t number() {
    skip_spaces();
    int64_t value = 0;
    const size_t begin = at_;
    while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
      if (at_ - begin == 12) fail("a size has more than 12 digits");
      value = value * 10 + (text_[at_++] - '0');
    }
    if (at_ == begin) fail("expected a size");
    return value;
  }

  std::string_view text_;
  size_t at_ = 0;
};

template <class T>
constexpr std::string_view descr_of() {
  static_assert(std::is_same_v<T, float> || std::is_same_v<T, int64_t>,
                "this reader knows float32 and int64");
  return std::is_same_v<T, float> ? "<f4" : "<i8";
}

}  // namespace detail

/// The array in `path`, whose dtype must be T (float or int64_t, little endian) and whose order row-major.
template <class T>
Array<T> read(const std::filesystem::path& path) {
  const auto check = [&](bool good, const std::string& what) {
    if (!good) throw std::runtime_error(path.string() + ": " + what);
  };
  std::ifstream file(path, std::ios::binary);
  check(file.good(), "cannot be opened");
  unsigned char start[12] = {};
  file.read(reinterpret_cast<char*>(start), 8);
  check(file.good() && std::memcmp(start, "\x93NUMPY", 6) == 0, "is no .npy file");
  const int version = start[6];
  check(version >= 1 && version <= 3,
        "has format version " + std::to_string(version) + ", expected 1, 2 or 3");
  const size_t length_bytes = version == 1 ? 2 : 4;
  file.read(reinterpret_cast<char*>(start) + 8, static_cast<std::streamsize>(length_bytes));
  size_t length = 0;
  for (size_t i = 0; i < length_bytes; ++i) length |= static_cast<size_t>(start[8 + i]) << (8 * i);
  check(file.good() && length <= detail::kMaxHeader, "has a header of " + std::to_string(length) + " bytes");
  std::string text(length, '\0');
  file.read(text.data(), static_cast<std::streamsize>(length));
  check(file.good(), "ends within its header");

  const detail::Header header = detail::HeaderParser(text).parse();
  check(header.descr == detail::descr_of<T>(),
        "holds '" + header.descr + "', expected '" + std::string(detail::descr_of<T>()) + "'");
  check(!header.fortran_order, "is in column-major order, expected row-major");
  uint64_t count = 1;
  for (const int64_t size : header.shape) {
    check(!__builtin_mul_overflow(count, static_cast<uint64_t>(size), &count),
          "has a shape that no memory holds");
  }
  // Compared with what the file has before anything is allocated.
  uint64_t bytes = 0;
  const uint64_t before = 8 + length_bytes + length;
  check(
      !__builtin_mul_overflow(count, sizeof(T), &bytes) && std::filesystem::file_size(path) - before == bytes,
      "has another size than its shape says");
  Array<T> array{header.shape, std::vector<T>(count)};
  file.read(reinterpret_cast<char*>(array.values.data()), static_cast<std::streamsize>(bytes));
  check(file.good(), "could not be read to its end");
  return array;
}

}  // namespace npy
