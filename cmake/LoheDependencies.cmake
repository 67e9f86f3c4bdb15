# Third-party code, each behind one interface target that only the room using it links. docs/dependencies.md gives
# the reasons.
set(THREADS_PREFER_PTHREAD_FLAG ON)
find_package(Threads REQUIRED)
find_package(Python 3.11 REQUIRED COMPONENTS Interpreter OPTIONAL_COMPONENTS Development.Module)

# zlib and zstd are linked statically: the library then needs nothing that a minimal system lacks.
find_path(LOHE_ZLIB_INCLUDE zlib.h REQUIRED)
find_library(LOHE_ZLIB_STATIC NAMES libz.a REQUIRED)
find_library(LOHE_ZSTD_STATIC NAMES libzstd.a REQUIRED)
add_library(lohe_zlib INTERFACE)
target_include_directories(lohe_zlib SYSTEM INTERFACE "${LOHE_ZLIB_INCLUDE}")
target_link_libraries(lohe_zlib INTERFACE "${LOHE_ZLIB_STATIC}")

# LLVM: the include directory for src/codegen/llvm, the static libraries for the final link.
find_package(LLVM 19.1 REQUIRED CONFIG)
find_program(LOHE_LLVM_CONFIG NAMES llvm-config llvm-config-19 HINTS "${LLVM_TOOLS_BINARY_DIR}" NO_DEFAULT_PATH REQUIRED)
find_program(LOHE_LLVM_OBJCOPY NAMES llvm-objcopy llvm-objcopy-19 HINTS "${LLVM_TOOLS_BINARY_DIR}" NO_DEFAULT_PATH REQUIRED)
execute_process(COMMAND "${LOHE_LLVM_CONFIG}" --link-static --libfiles orcjit native passes
  OUTPUT_VARIABLE lohe_llvm_libs OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
separate_arguments(lohe_llvm_libs UNIX_COMMAND "${lohe_llvm_libs}")
add_library(lohe_llvm_headers INTERFACE)
target_include_directories(lohe_llvm_headers SYSTEM INTERFACE ${LLVM_INCLUDE_DIRS})
target_compile_definitions(lohe_llvm_headers INTERFACE
  _GNU_SOURCE __STDC_CONSTANT_MACROS __STDC_FORMAT_MACROS __STDC_LIMIT_MACROS)
add_library(lohe_llvm INTERFACE)
target_link_libraries(lohe_llvm INTERFACE ${lohe_llvm_libs} "${LOHE_ZSTD_STATIC}" lohe_zlib rt ${CMAKE_DL_LIBS} m)
