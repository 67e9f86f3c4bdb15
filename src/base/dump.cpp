#include "base/dump.h"

#include <unistd.h>

#include <atomic>
#include <cctype>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "base/env.h"
#include "base/log.h"

namespace lohe {
namespace {

const std::string& folder() {
  static const auto& path = *new std::string(env_string("LOHE_DUMP_IR", ""));
  return path;
}

}  // namespace

bool dumps_ir() { return !folder().empty(); }

void dump_ir(std::string_view name, std::string_view stage, std::string_view text) {
  static std::atomic<int> next{0};
  char number[48];
  std::snprintf(number, sizeof number, "%d-%04d-", static_cast<int>(::getpid()), next++);
  std::string file = number;
  for (const char c : name.substr(0, 80))
    file += std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' ? c : '_';
  std::error_code ignored;
  std::filesystem::create_directories(folder(), ignored);
  std::ofstream out(std::filesystem::path(folder()) / (file + "." + std::string(stage)), std::ios::binary);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  out.flush();
  if (!out)
    log_warning_once("dump-ir", "LOHE_DUMP_IR: cannot write into '", folder(), "'; nothing is dumped there");
}

}  // namespace lohe
