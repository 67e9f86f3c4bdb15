#pragma once

/// Marks what the shared library exports. Everything else is hidden (-fvisibility=hidden), so that the
/// libraries that Lohe links statically (LLVM among them) never meet another copy of themselves in the same
/// process.
#define LOHE_API __attribute__((visibility("default")))
