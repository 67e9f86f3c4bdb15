# liblohe.so: every room, the prebuilt kernels, LLVM and OpenBLAS inside and hidden.
add_library(lohe_parts INTERFACE)
target_link_libraries(lohe_parts INTERFACE lohe_flags lohe_llvm lohe_openblas lohe_zlib Threads::Threads)
if(TARGET lohe_dnnl)
  target_link_libraries(lohe_parts INTERFACE lohe_dnnl)
endif()
set(LOHE_LINK_OPTIONS -Wl,--exclude-libs,ALL -Wl,--gc-sections -Wl,-Bsymbolic -Wl,-z,defs
  "-Wl,--version-script=${PROJECT_SOURCE_DIR}/cmake/lohe.map")
if(LOHE_SANITIZE)
  list(REMOVE_ITEM LOHE_LINK_OPTIONS -Wl,-z,defs)
endif()

# Prebuilt kernels: an executable made of the rooms writes one relocatable object file, which joins the link. Without
# it (LOHE_PREBUILD_KERNELS=OFF) every kernel is generated when first needed.
set(LOHE_PREBUILT_OBJECTS "")
set(lohe_prebuild_source "${PROJECT_SOURCE_DIR}/tools/gen/prebuild_kernels.cpp")
if(LOHE_PREBUILD_KERNELS AND EXISTS "${lohe_prebuild_source}")
  add_executable(lohe_prebuild_kernels "${lohe_prebuild_source}" ${LOHE_ROOM_OBJECTS})
  add_dependencies(lohe_prebuild_kernels lohe_gen_ops)
  target_link_libraries(lohe_prebuild_kernels PRIVATE lohe_room lohe_parts)
  target_link_options(lohe_prebuild_kernels PRIVATE -Wl,--gc-sections)
  set_target_properties(lohe_prebuild_kernels PROPERTIES BUILD_RPATH "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}")
  set(LOHE_PREBUILT_OBJECTS "${CMAKE_BINARY_DIR}/prebuilt/prebuilt_kernels.o")
  add_custom_command(OUTPUT "${LOHE_PREBUILT_OBJECTS}"
    COMMAND "${CMAKE_COMMAND}" "-DPREBUILD=$<TARGET_FILE:lohe_prebuild_kernels>" "-DLINKER=${CMAKE_LINKER}"
      "-DOUTPUT=${LOHE_PREBUILT_OBJECTS}" -P "${PROJECT_SOURCE_DIR}/cmake/run_prebuild.cmake"
    DEPENDS lohe_prebuild_kernels "${PROJECT_SOURCE_DIR}/cmake/run_prebuild.cmake"
    COMMENT "Generating the prebuilt kernels" VERBATIM)
endif()

if(NOT EXISTS "${CMAKE_BINARY_DIR}/empty.cpp")
  file(WRITE "${CMAKE_BINARY_DIR}/empty.cpp" "")
endif()
add_library(lohe SHARED "${CMAKE_BINARY_DIR}/empty.cpp" ${LOHE_ROOM_OBJECTS} ${LOHE_PREBUILT_OBJECTS})
add_library(lohe::lohe ALIAS lohe)
add_dependencies(lohe lohe_gen_ops)
target_compile_features(lohe PUBLIC cxx_std_20)
target_include_directories(lohe PUBLIC
  $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<BUILD_INTERFACE:${LOHE_GEN_DIR}> $<INSTALL_INTERFACE:include>)
target_link_libraries(lohe PRIVATE $<BUILD_INTERFACE:lohe_parts>)
target_link_options(lohe PRIVATE ${LOHE_LINK_OPTIONS} $<$<CONFIG:Release>:-Wl,-s>)
set_target_properties(lohe PROPERTIES BUILD_RPATH_USE_ORIGIN ON BUILD_RPATH "$ORIGIN" INSTALL_RPATH "$ORIGIN"
  LINK_DEPENDS "${PROJECT_SOURCE_DIR}/cmake/lohe.map")
