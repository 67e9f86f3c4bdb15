# Compiler, linker and cache. Every flag is attached to the interface target `lohe_flags`, so that a project that
# includes this one keeps its own flags.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_SCAN_FOR_MODULES OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin")
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
set(CMAKE_ARCHIVE_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/lib")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG")
set(CMAKE_CXX_FLAGS_DEBUG "-O0 -g1")
set(CMAKE_CXX_FLAGS_RELWITHDEBINFO "-O1 -g1")

find_program(LOHE_CCACHE ccache)
if(LOHE_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${LOHE_CCACHE}")
endif()

add_library(lohe_flags INTERFACE)
target_compile_options(lohe_flags INTERFACE
  -fvisibility=hidden -fvisibility-inlines-hidden -fno-gnu-unique -ffunction-sections -fdata-sections
  # IEEE arithmetic as written: a contracted or reassociated host loop would differ from the generated kernels.
  -ffp-contract=off -fno-fast-math
  -Wall -Wextra)
if(LOHE_WERROR)
  target_compile_options(lohe_flags INTERFACE -Werror)
endif()
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  # The oldest processor served. What knows newer instruction sets is generated, or stands in a file named for them.
  target_compile_options(lohe_flags INTERFACE -march=x86-64-v2)
  # GCC clears and copies objects of a hundred bytes (tensors, records) by string instructions, which take
  # longer to begin than the stores take.
  target_compile_options(lohe_flags INTERFACE
    "$<$<CXX_COMPILER_ID:GNU>:-mmemset-strategy=unrolled_loop:512:noalign,libcall:-1:noalign>"
    "$<$<CXX_COMPILER_ID:GNU>:-mmemcpy-strategy=unrolled_loop:512:noalign,libcall:-1:noalign>")
endif()
if(LOHE_SANITIZE)
  target_compile_options(lohe_flags INTERFACE "-fsanitize=${LOHE_SANITIZE}" -fno-omit-frame-pointer)
  target_link_options(lohe_flags INTERFACE "-fsanitize=${LOHE_SANITIZE}")
  # GCC sees uninitialised values in instrumented code of the LLVM and standard headers that are not there.
  target_compile_options(lohe_flags INTERFACE -Wno-maybe-uninitialized -Wno-uninitialized)
  if(LOHE_SANITIZE MATCHES "undefined")
    target_compile_options(lohe_flags INTERFACE -fno-sanitize-recover=undefined)
  endif()
endif()

find_program(LOHE_MOLD mold)
if(LOHE_MOLD)
  target_link_options(lohe_flags INTERFACE -fuse-ld=mold)
endif()
