#pragma once

#include <string>
#include <string_view>

namespace lohe {

/// Whether LOHE_DUMP_IR names a folder for what the compiler makes on its way.
bool dumps_ir();

/// Writes `text` there as `<process>-<number>-<name>.<stage>`; numbers count up in the order of the calls. A
/// folder that cannot be written to is warned about once.
void dump_ir(std::string_view name, std::string_view stage, std::string_view text);

}  // namespace lohe
