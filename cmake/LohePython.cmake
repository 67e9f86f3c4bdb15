# lohe._C: the extension module. It stands beside the package's modules; liblohe.so is found relative to it.
file(GLOB_RECURSE lohe_binding_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/python/binding/*.cpp")
list(APPEND lohe_binding_sources ${LOHE_GEN_BINDING_SOURCES})
if(lohe_binding_sources)
  if(NOT Python_Development.Module_FOUND)
    message(FATAL_ERROR "Python's headers are missing; install python3-dev (tools/setup does)")
  endif()
  Python_add_library(lohe_python MODULE WITH_SOABI ${lohe_binding_sources})
  add_dependencies(lohe_python lohe_gen_ops)
  target_include_directories(lohe_python PRIVATE "${PROJECT_SOURCE_DIR}/python" "${PROJECT_SOURCE_DIR}/python/binding"
    "${PROJECT_SOURCE_DIR}/src" "${LOHE_GEN_DIR}" "${LOHE_GEN_DIR}/binding")
  target_link_libraries(lohe_python PRIVATE lohe lohe_flags)
  target_link_options(lohe_python PRIVATE $<$<CONFIG:Release>:-Wl,-s>)
  set_target_properties(lohe_python PROPERTIES OUTPUT_NAME _C
    LIBRARY_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/python/lohe"
    BUILD_RPATH "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}" INSTALL_RPATH "$ORIGIN/lib")
  # The build's own package directory: links to every module of python/lohe, what was generated, and the extension.
  set(lohe_link_package "${Python_EXECUTABLE}" "${PROJECT_SOURCE_DIR}/tools/gen/link_package.py"
    --source "${PROJECT_SOURCE_DIR}/python/lohe" --generated "${LOHE_GEN_DIR}/python/lohe"
    --build "${CMAKE_BINARY_DIR}/python/lohe")
  add_custom_target(lohe_python_package ALL
    COMMAND ${lohe_link_package} "$<$<BOOL:${LOHE_INPLACE}>:--inplace>" COMMAND_EXPAND_LISTS
    COMMENT "Linking the Python package" VERBATIM)
  add_dependencies(lohe_python_package lohe_python)
endif()
