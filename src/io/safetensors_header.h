#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lohe/dtype.h"

namespace lohe::io {

/// What a header says of one tensor; the byte range counts from the end of the header.
struct SafetensorsEntry {
  std::string name;
  Dtype dtype = Dtype::kUndefined;
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;
  std::map<std::string, std::string> metadata;
};

/// Parses the JSON text of a header. The byte ranges are not checked yet.
/// @throws SafetensorsError, Error(kNotImplemented) for a dtype that is not supported
SafetensorsHeader parse_safetensors_header(std::string_view json, const std::string& source);

/// The JSON text of a header, not yet padded.
std::string format_safetensors_header(const SafetensorsHeader& header);

}  // namespace lohe::io
