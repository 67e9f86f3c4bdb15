#include "base/env.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>
#include <optional>

#include "lohe/error.h"

namespace lohe {
namespace {

constexpr std::array kVariables{
    EnvVariable{"LOHE_CACHE_DIR", EnvType::kPath, "$XDG_CACHE_HOME/lohe, else ~/.cache/lohe", "",
                "Folder of the on-disk cache of compiled kernels."},
    EnvVariable{"LOHE_COMPILE_AT", EnvType::kInt, "2", "",
                "The occurrence of a trace from which on it runs as a compiled program; 1: at once."},
    EnvVariable{"LOHE_COMPILE_FUSE", EnvType::kBool, "1", "",
                "Whether compile() joins operations into fused kernels; results do not change."},
    EnvVariable{"LOHE_COMPILE_PLAN_MEMORY", EnvType::kBool, "1", "",
                "Whether buffers of a compiled program that are not needed at the same time share memory."},
    EnvVariable{
        "LOHE_COMPILE_RECOMPUTE_FROM", EnvType::kInt, "524288", "",
        "Backward computes again what a compiled program would keep for it where that is as cheap, if it "
        "leaves out so many bytes."},
    EnvVariable{
        "LOHE_COMPILE_STRICT", EnvType::kBool, "0", "",
        "Raise when the compiler fails, instead of a warning and the eager kernels or the interpreter."},
    EnvVariable{
        "LOHE_CPU_LEVEL", EnvType::kString, "the highest level that this machine runs", "",
        "Instruction set level that kernels are generated for; a level that the machine lacks is an error."},
    EnvVariable{
        "LOHE_DEBUG_FEED_FROM", EnvType::kInt, "2097152", "",
        "From so many bytes on, what only a long reduction of a compiled program reads is made piece by piece; "
        "less in tests."},
    EnvVariable{
        "LOHE_DEBUG_FILL", EnvType::kBool, "0", "",
        "Fill new memory with 0xFF bytes (NaN in every floating dtype), so that reading what was never "
        "written shows."},
    EnvVariable{
        "LOHE_DEBUG_GUARD", EnvType::kBool, "0", "",
        "End each allocation exactly at an inaccessible page and unmap it when freed, so that an access out "
        "of bounds or after free stops the process at the faulty instruction. Slow."},
    EnvVariable{
        "LOHE_DEBUG_WAKE", EnvType::kBool, "0", "",
        "Wake sleeping threads for every parallel region, however short, so that tests share out what "
        "would run alone."},
    EnvVariable{
        "LOHE_DUMP_IR", EnvType::kPath, "nothing is written", "",
        "Folder for what the compiler makes on its way: traces, programs, graphs and kernels as text, "
        "LLVM's input."},
    EnvVariable{"LOHE_KERNELS", EnvType::kChoice, "llvm", "llvm|generated|interpreter",
                "What runs kernels: machine code, machine code that is generated even where the library "
                "carries it, or the portable interpreter; all with the same bits."},
    EnvVariable{"LOHE_LOG", EnvType::kChoice, "warning", "silent|error|warning|info|debug",
                "Least severe level of messages written to the standard error stream."},
    EnvVariable{"LOHE_NUM_THREADS", EnvType::kInt,
                "OMP_NUM_THREADS, else the number of CPUs that this process may use", "",
                "Threads that a parallel region uses, the calling one included."},
    EnvVariable{
        "LOHE_RECORD", EnvType::kBool, "0", "",
        "Record all work of the importing thread as inside one compile() scope; results do not change."},
    EnvVariable{
        "LOHE_REPLAY_AUDIT", EnvType::kInt, "0", "",
        "Every so many calls a function compiled with replay=True runs again instead, and an error is "
        "raised where that differs from what was to be replayed; 0: never."},
};

const EnvVariable& row(std::string_view name) {
  const auto found = std::find_if(kVariables.begin(), kVariables.end(),
                                  [&](const EnvVariable& variable) { return variable.name == name; });
  LOHE_INTERNAL_ASSERT(found != kVariables.end(), "environment variable not in the table: ", name);
  return *found;
}

std::optional<std::string> value_of(const EnvVariable& variable) {
  const char* text = std::getenv(std::string(variable.name).c_str());
  if (text == nullptr || *text == '\0') return std::nullopt;
  return std::string(text);
}

std::string lower_case(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

template <class... Parts>
[[noreturn]] void reject(const EnvVariable& variable, const std::string& value, const Parts&... expected) {
  raise(ErrorKind::kValue, "environment variable ", variable.name, "='", value, "': expected ", expected...,
        "; unset it to get the default (", variable.default_text, ")");
}

}  // namespace

std::span<const EnvVariable> env_variables() { return kVariables; }

bool env_bool(std::string_view name, bool default_value) {
  const EnvVariable& variable = row(name);
  const std::optional<std::string> value = value_of(variable);
  if (!value) return default_value;
  const std::string word = lower_case(*value);
  if (word == "1" || word == "true" || word == "yes" || word == "on") return true;
  if (word == "0" || word == "false" || word == "no" || word == "off") return false;
  reject(variable, *value, "1 or 0 (true/false, yes/no, on/off)");
}

int64_t env_int(std::string_view name, int64_t default_value, int64_t minimum, int64_t maximum) {
  const EnvVariable& variable = row(name);
  const std::optional<std::string> value = value_of(variable);
  if (!value) return default_value;
  int64_t number = 0;
  const char* end = value->data() + value->size();
  const auto [stopped_at, status] = std::from_chars(value->data(), end, number);
  if (status != std::errc() || stopped_at != end || number < minimum || number > maximum) {
    reject(variable, *value, "an integer from ", minimum, " to ", maximum);
  }
  return number;
}

std::string env_string(std::string_view name, std::string_view default_value) {
  return value_of(row(name)).value_or(std::string(default_value));
}

std::string env_choice(std::string_view name, std::string_view default_value) {
  const EnvVariable& variable = row(name);
  const std::optional<std::string> value = value_of(variable);
  if (!value) return std::string(default_value);
  const std::string word = lower_case(*value);
  for (std::string_view rest = variable.choices; !rest.empty();) {
    const std::string_view choice = rest.substr(0, rest.find('|'));
    if (word == choice) return std::string(choice);
    rest.remove_prefix(std::min(rest.size(), choice.size() + 1));
  }
  reject(variable, *value, "one of ", variable.choices);
}

}  // namespace lohe
