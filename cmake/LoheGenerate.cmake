# The op table's derived sources. tools/gen/gen_ops.py reads src/ops (and python/lohe/nn, for the C++ layers) as text and says itself which files it writes:
#   --list           one path a line, relative to the output directory
#   --output DIR     write them (a file whose contents stay the same keeps its time stamp)
# Paths under binding/ belong to the Python extension; other *.cpp to liblohe; headers are included as "lohe/ops.h".
set(LOHE_GEN_DIR "${CMAKE_BINARY_DIR}/gen")
set(lohe_gen_ops "${PROJECT_SOURCE_DIR}/tools/gen/gen_ops.py")
file(GLOB_RECURSE lohe_gen_modules CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tools/gen/*.py")
file(GLOB_RECURSE lohe_op_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/ops/*.cpp")
file(GLOB_RECURSE lohe_nn_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/python/lohe/nn/*.py"
  "${PROJECT_SOURCE_DIR}/python/lohe/optim/*.py")
set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${lohe_gen_modules})

execute_process(COMMAND "${Python_EXECUTABLE}" "${lohe_gen_ops}" --source "${PROJECT_SOURCE_DIR}" --list
  OUTPUT_VARIABLE lohe_gen_list OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
string(REPLACE "\n" ";" lohe_gen_list "${lohe_gen_list}")
set(LOHE_GEN_FILES ${lohe_gen_list})
list(TRANSFORM LOHE_GEN_FILES PREPEND "${LOHE_GEN_DIR}/")
set(LOHE_GEN_LIBRARY_SOURCES ${LOHE_GEN_FILES})
list(FILTER LOHE_GEN_LIBRARY_SOURCES INCLUDE REGEX "\\.cpp$")
set(LOHE_GEN_BINDING_SOURCES ${LOHE_GEN_LIBRARY_SOURCES})
list(FILTER LOHE_GEN_LIBRARY_SOURCES EXCLUDE REGEX "^${LOHE_GEN_DIR}/binding/")
list(FILTER LOHE_GEN_BINDING_SOURCES INCLUDE REGEX "^${LOHE_GEN_DIR}/binding/")

# The stamp is what the build compares, so that an unchanged output recompiles nothing.
add_custom_command(OUTPUT "${LOHE_GEN_DIR}/gen_ops.stamp" BYPRODUCTS ${LOHE_GEN_FILES}
  COMMAND "${Python_EXECUTABLE}" "${lohe_gen_ops}" --source "${PROJECT_SOURCE_DIR}" --output "${LOHE_GEN_DIR}"
  COMMAND "${CMAKE_COMMAND}" -E touch "${LOHE_GEN_DIR}/gen_ops.stamp"
  DEPENDS ${lohe_gen_modules} ${lohe_op_sources} ${lohe_nn_sources} "${PROJECT_SOURCE_DIR}/include/lohe/tensor.h"
    "${PROJECT_SOURCE_DIR}/python/binding/_C.pyi"
  COMMENT "Generating from the op table" VERBATIM)
add_custom_target(lohe_gen_ops DEPENDS "${LOHE_GEN_DIR}/gen_ops.stamp")
set_source_files_properties(${LOHE_GEN_FILES} PROPERTIES GENERATED ON)
