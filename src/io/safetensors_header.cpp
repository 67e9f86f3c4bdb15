#include "io/safetensors_header.h"

#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "io/safetensors.h"
#include "lohe/error.h"

namespace lohe::io {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kMetadata = "__metadata__";
constexpr Dtype kSupported[] = {kBool,  kUInt8,   kInt8,      kInt16,   kFloat16, kBFloat16,
                                kInt32, kFloat32, kComplex64, kFloat64, kInt64};
constexpr std::string_view kForeign[] = {"F4",      "F6_E2M3", "F6_E3M2",     "F8_E5M2",
                                         "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
                                         "U16",     "U32",     "U64"};

/// Receives the parser's events and follows the format's fixed nesting with a state of its own, so no
/// document is ever built: whatever the text holds, memory stays in proportion to it.
class HeaderReader : public nlohmann::json_sax<Json> {
 public:
  explicit HeaderReader(const std::string& source) : source_(source) {}

  SafetensorsHeader take() { return std::move(header_); }

  bool null() override {
    // The reference reads a missing and a null metadata alike.
    if (state_ == State::kTop && key_ == kMetadata) return true;
    unexpected("null");
  }
  bool boolean(bool) override { unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override { unexpected("the number " + std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kShape) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) fail("a size beyond 64 bits");
      entry().shape.push_back(static_cast<int64_t>(value));
    } else if (state_ == State::kOffsets && offsets_ < 2) {
      (offsets_++ == 0 ? entry().begin : entry().end) = value;
    } else {
      unexpected("the number " + std::to_string(value));
    }
    return true;
  }
  bool number_float(number_float_t, const string_t& text) override {
    unexpected("the number " + text.substr(0, 40));
  }
  bool string(string_t& value) override {
    if (state_ == State::kMetadata) {
      header_.metadata[key_] = value;
    } else if (state_ == State::kTensor && key_ == "dtype") {
      entry().dtype = dtype_of(value);
    } else {
      unexpected("a text");
    }
    return true;
  }
  bool binary(binary_t&) override { unexpected("binary data"); }

  bool start_object(size_t) override {
    if (state_ == State::kStart) {
      state_ = State::kTop;
    } else if (state_ == State::kTop && key_ == kMetadata) {
      state_ = State::kMetadata;
    } else if (state_ == State::kTop) {
      state_ = State::kTensor;
      fields_ = 0;
      header_.entries.emplace_back().name = key_;
    } else {
      unexpected("an object");
    }
    return true;
  }
  bool end_object() override {
    if (state_ == State::kTensor) {
      if (fields_ != (kDtypeField | kShapeField | kOffsetsField)) {
        fail("tensor '" + shown(entry().name) + "' lacks dtype, shape or data_offsets");
      }
      state_ = State::kTop;
    } else {
      state_ = state_ == State::kMetadata ? State::kTop : State::kEnd;
    }
    return true;
  }
  bool start_array(size_t) override {
    if (state_ != State::kTensor || key_ == "dtype") unexpected("a list");
    state_ = key_ == "shape" ? State::kShape : State::kOffsets;
    offsets_ = 0;
    return true;
  }
  bool end_array() override {
    if (state_ == State::kOffsets && offsets_ != 2)
      fail("data_offsets of tensor '" + shown(entry().name) + "' must be two numbers");
    state_ = State::kTensor;
    return true;
  }
  bool key(string_t& value) override {
    if (state_ == State::kTensor) {
      const int field = value == "dtype"          ? kDtypeField
                        : value == "shape"        ? kShapeField
                        : value == "data_offsets" ? kOffsetsField
                                                  : 0;
      if (field == 0)
        fail("tensor '" + shown(entry().name) + "' has an unknown field '" + shown(value) + "'");
      if ((fields_ & field) != 0) fail("tensor '" + shown(entry().name) + "' has '" + value + "' twice");
      fields_ |= field;
    } else if (!(state_ == State::kMetadata ? metadata_names_ : names_).insert(value).second) {
      fail("the name '" + shown(value) + "' appears twice");
    }
    key_ = value;
    return true;
  }
  bool parse_error(size_t position, const std::string&, const nlohmann::detail::exception&) override {
    fail("invalid JSON at byte " + std::to_string(position) + " of the header");
  }

 private:
  enum class State { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };
  static constexpr int kDtypeField = 1, kShapeField = 2, kOffsetsField = 4;

  SafetensorsEntry& entry() { return header_.entries.back(); }

  static std::string shown(const std::string& name) {
    return name.size() <= 100 ? name : name.substr(0, 100) + "...";
  }

  [[noreturn]] void fail(const std::string& what) const {
    throw SafetensorsError("cannot read '" + source_ + "': " + what);
  }
  [[noreturn]] void unexpected(const std::string& what) const {
    fail(state_ == State::kStart ? "its header is not an object but " + what
                                 : "unexpected " + what + " at '" + shown(key_) + "' in the header");
  }

  Dtype dtype_of(const std::string& name) const {
    for (const Dtype dtype : kSupported) {
      if (info(dtype).safetensors == name) return dtype;
    }
    for (const std::string_view foreign : kForeign) {
      LOHE_CHECK_KIND(kNotImplemented, foreign != name, "cannot read '", source_, "': tensor '",
                      shown(header_.entries.back().name), "' has dtype ", name, ", which is not supported");
    }
    fail("tensor '" + shown(header_.entries.back().name) + "' has the unknown dtype '" + shown(name) + "'");
  }

  const std::string& source_;
  SafetensorsHeader header_;
  State state_ = State::kStart;
  std::string key_;
  int fields_ = 0;
  int offsets_ = 0;
  std::unordered_set<std::string> names_, metadata_names_;
};

std::string quoted(const std::string& text) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    throw SafetensorsError("cannot save: a name or a metadata text is not UTF-8");
  }
}

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& source) {
  HeaderReader reader(source);
  if (!Json::sax_parse(json, &reader))
    throw SafetensorsError("cannot read '" + source + "': invalid JSON header");
  return reader.take();
}

std::string format_safetensors_header(const SafetensorsHeader& header) {
  std::string out = "{";
  if (!header.metadata.empty()) {
    out += "\"__metadata__\":{";
    for (const auto& [name, value] : header.metadata) out += quoted(name) + ":" + quoted(value) + ",";
    out.back() = '}';
    out += ",";
  }
  for (const SafetensorsEntry& entry : header.entries) {
    out +=
        quoted(entry.name) + ":{\"dtype\":\"" + std::string(info(entry.dtype).safetensors) + "\",\"shape\":[";
    for (size_t d = 0; d < entry.shape.size(); ++d)
      out += (d == 0 ? "" : ",") + std::to_string(entry.shape[d]);
    out += "],\"data_offsets\":[" + std::to_string(entry.begin) + "," + std::to_string(entry.end) + "]},";
  }
  if (out.back() == ',') out.pop_back();
  return out + "}";
}

}  // namespace lohe::io
