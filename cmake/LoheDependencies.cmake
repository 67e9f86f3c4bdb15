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

# OpenBLAS without threads of its own, with the Fortran runtime, static.
find_library(LOHE_OPENBLAS_STATIC NAMES libopenblas.a PATH_SUFFIXES openblas-serial REQUIRED)
find_path(LOHE_OPENBLAS_INCLUDE cblas.h
  PATH_SUFFIXES "${CMAKE_LIBRARY_ARCHITECTURE}/openblas-serial" openblas-serial openblas REQUIRED)
foreach(runtime gfortran quadmath)
  execute_process(COMMAND "${CMAKE_CXX_COMPILER}" "-print-file-name=lib${runtime}.a"
    OUTPUT_VARIABLE lohe_${runtime}_static OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT IS_ABSOLUTE "${lohe_${runtime}_static}")
    message(FATAL_ERROR "lib${runtime}.a is missing; install libgfortran-12-dev (tools/setup does)")
  endif()
endforeach()
add_library(lohe_openblas INTERFACE)
target_include_directories(lohe_openblas SYSTEM INTERFACE "${LOHE_OPENBLAS_INCLUDE}")
target_link_libraries(lohe_openblas INTERFACE
  "${LOHE_OPENBLAS_STATIC}" "${lohe_gfortran_static}" "${lohe_quadmath_static}" m)

# oneDNN: the wheel's library, stripped, is installed beside ours.
if(LOHE_WITH_ONEDNN)
  cmake_path(GET Python_EXECUTABLE PARENT_PATH lohe_python_bin)
  cmake_path(GET lohe_python_bin PARENT_PATH lohe_python_prefix)
  find_package(dnnl 3.2 REQUIRED CONFIG HINTS "${lohe_python_prefix}")
  get_target_property(lohe_dnnl_original DNNL::dnnl LOCATION)
  get_target_property(lohe_dnnl_include DNNL::dnnl INTERFACE_INCLUDE_DIRECTORIES)
  set(LOHE_DNNL_LIBRARY "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}/libdnnl.so.3")
  add_custom_command(OUTPUT "${LOHE_DNNL_LIBRARY}"
    COMMAND "${CMAKE_COMMAND}" -E make_directory "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}"
    COMMAND "${CMAKE_STRIP}" -o "${LOHE_DNNL_LIBRARY}" "${lohe_dnnl_original}"
    DEPENDS "${lohe_dnnl_original}" COMMENT "Stripping oneDNN" VERBATIM)
  add_custom_target(lohe_dnnl_strip DEPENDS "${LOHE_DNNL_LIBRARY}")
  execute_process(COMMAND "${CMAKE_CXX_COMPILER}" -print-file-name=libgomp.so.1
    OUTPUT_VARIABLE LOHE_GOMP_LIBRARY OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT IS_ABSOLUTE "${LOHE_GOMP_LIBRARY}")
    find_library(LOHE_GOMP_SHARED NAMES libgomp.so.1 REQUIRED)
    set(LOHE_GOMP_LIBRARY "${LOHE_GOMP_SHARED}")
  endif()
  add_library(lohe_dnnl INTERFACE)
  add_dependencies(lohe_dnnl lohe_dnnl_strip)
  target_include_directories(lohe_dnnl SYSTEM INTERFACE ${lohe_dnnl_include})
  target_compile_definitions(lohe_dnnl INTERFACE LOHE_WITH_ONEDNN=1)
  foreach(part dnnl gomp)
    string(TOUPPER ${part} upper)
    add_library(lohe_${part}_file SHARED IMPORTED)
    set_target_properties(lohe_${part}_file PROPERTIES IMPORTED_LOCATION "${LOHE_${upper}_LIBRARY}")
    target_link_libraries(lohe_dnnl INTERFACE lohe_${part}_file)
  endforeach()
endif()

# FFT: the headers of ducc0, unpacked once from its source distribution.
include(LoheDucc0)
