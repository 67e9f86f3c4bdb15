# liblohe.so: every room, the prebuilt kernels, LLVM inside and hidden.
add_library(lohe_parts INTERFACE)
target_link_libraries(lohe_parts INTERFACE lohe_flags lohe_llvm lohe_zlib Threads::Threads)
set(LOHE_LINK_OPTIONS -Wl,--exclude-libs,ALL -Wl,--gc-sections -Wl,-Bsymbolic -Wl,-z,defs
  "-Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/lohe.map")
if(LOHE_SANITIZE)
  list(REMOVE_ITEM LOHE_LINK_OPTIONS -Wl,-z,defs)
endif()

# Prebuilt kernels: an executable made of the rooms writes one relocatable object file, which joins the link. Without
# it (LOHE_PREBUILD_KERNELS=OFF, and under sanitizers, which do not see generated code) every kernel is generated when
# first needed.
set(LOHE_PREBUILT_OBJECTS "")
if(LOHE_PREBUILD_KERNELS AND NOT LOHE_SANITIZE)
  add_executable(lohe_prebuild_kernels "${PROJECT_SOURCE_DIR}/tools/gen/prebuild_kernels.cpp"
    "${PROJECT_SOURCE_DIR}/tools/gen/usual_ops.cpp" ${LOHE_ROOM_OBJECTS})
  add_dependencies(lohe_prebuild_kernels lohe_gen_ops)
  target_link_libraries(lohe_prebuild_kernels PRIVATE lohe_room lohe_parts)
  target_link_options(lohe_prebuild_kernels PRIVATE -Wl,--gc-sections)
  set_target_properties(lohe_prebuild_kernels PROPERTIES BUILD_RPATH "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}")
  set(LOHE_PREBUILT_OBJECTS "${CMAKE_BINARY_DIR}/prebuilt/prebuilt_kernels.o")
  add_custom_command(OUTPUT "${LOHE_PREBUILT_OBJECTS}"
    COMMAND "${CMAKE_COMMAND}" "-DPREBUILD=$<TARGET_FILE:lohe_prebuild_kernels>" "-DLINKER=${CMAKE_LINKER}"
      "-DOUTPUT=${LOHE_PREBUILT_OBJECTS}" "-DCODEGEN=${PROJECT_SOURCE_DIR}/src/codegen" -P "${PROJECT_SOURCE_DIR}/cmake/run_prebuild.cmake"
    DEPENDS lohe_prebuild_kernels "${PROJECT_SOURCE_DIR}/cmake/run_prebuild.cmake"
    COMMENT "Generating the prebuilt kernels" VERBATIM)
endif()

if(NOT EXISTS "${CMAKE_BINARY_DIR}/empty.cpp")
  file(WRITE "${CMAKE_BINARY_DIR}/empty.cpp" "")
endif()
# The rooms are compiled with hidden symbols, so that calls between them are direct; then the symbols of namespace lohe are
# made visible in one relocatable file, since the Python binding and the tests stand on the rooms.
set(lohe_visible "${CMAKE_BINARY_DIR}/internal/visible.o")
add_custom_command(OUTPUT "${lohe_visible}"
  COMMAND "${CMAKE_COMMAND}" -E make_directory "${CMAKE_BINARY_DIR}/internal"
  COMMAND "${CMAKE_LINKER}" -r -o "${lohe_visible}" ${LOHE_ROOM_OBJECTS} ${LOHE_PREBUILT_OBJECTS}
  COMMAND "${LOHE_LLVM_OBJCOPY}" --wildcard "--set-symbol-visibility=*4lohe*=default" "${lohe_visible}"
  DEPENDS ${LOHE_ROOM_OBJECTS} ${LOHE_PREBUILT_OBJECTS} ${LOHE_ROOM_TARGETS}
  COMMAND_EXPAND_LISTS COMMENT "Making the symbols of namespace lohe visible" VERBATIM)
set_source_files_properties("${lohe_visible}" PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
add_library(lohe SHARED "${CMAKE_BINARY_DIR}/empty.cpp" "${lohe_visible}")
add_library(lohe::lohe ALIAS lohe)
add_dependencies(lohe lohe_gen_ops)
target_compile_features(lohe PUBLIC cxx_std_20)
target_include_directories(lohe PUBLIC
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<BUILD_INTERFACE:${LOHE_GEN_DIR}> $<INSTALL_INTERFACE:include>)
target_link_libraries(lohe PRIVATE $<BUILD_INTERFACE:lohe_parts>)
target_link_options(lohe PRIVATE ${LOHE_LINK_OPTIONS} $<$<CONFIG:Release>:-Wl,-s>)
set_target_properties(lohe PROPERTIES BUILD_RPATH_USE_ORIGIN ON BUILD_RPATH "$ORIGIN" INSTALL_RPATH "$ORIGIN"
  LINK_DEPENDS "${PROJECT_SOURCE_DIR}/cmake/lohe.map")
