# Every tests/cpp/*_test.cpp is one executable and one ctest entry. A test that includes headers of rooms needs
# symbols that liblohe.so hides, so it links liblohe_internal.so: the same object files, with the symbols of namespace
# lohe made visible. A test of the public API alone links liblohe.so and so proves that what it uses is exported.
find_package(GTest REQUIRED)
include(GoogleTest)
file(GLOB lohe_test_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/cpp/*_test.cpp")
file(GLOB lohe_test_support CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/cpp/support/*.cpp")

set(lohe_visible "${CMAKE_BINARY_DIR}/internal/visible.o")
if(LOHE_ROOM_OBJECTS)
  add_custom_command(OUTPUT "${lohe_visible}"
    COMMAND "${CMAKE_COMMAND}" -E make_directory "${CMAKE_BINARY_DIR}/internal"
    COMMAND "${CMAKE_LINKER}" -r -o "${lohe_visible}" ${LOHE_ROOM_OBJECTS} ${LOHE_PREBUILT_OBJECTS}
    COMMAND "${LOHE_LLVM_OBJCOPY}" --wildcard "--set-symbol-visibility=*4lohe*=default" "${lohe_visible}"
    DEPENDS ${LOHE_ROOM_OBJECTS} ${LOHE_PREBUILT_OBJECTS} ${LOHE_ROOM_TARGETS}
    COMMAND_EXPAND_LISTS COMMENT "Making internal symbols visible for tests" VERBATIM)
  add_library(lohe_internal SHARED EXCLUDE_FROM_ALL "${CMAKE_BINARY_DIR}/empty.cpp" "${lohe_visible}")
  set_source_files_properties("${lohe_visible}" PROPERTIES EXTERNAL_OBJECT ON GENERATED ON)
  target_link_libraries(lohe_internal PRIVATE lohe_parts)
  # Undefined symbols are liblohe.so's business: a room can be tested while one above it does not link yet.
  set(lohe_internal_options ${LOHE_LINK_OPTIONS})
  list(REMOVE_ITEM lohe_internal_options -Wl,-z,defs)
  target_link_options(lohe_internal PRIVATE ${lohe_internal_options} -Wl,-z,lazy)
  set_target_properties(lohe_internal PROPERTIES BUILD_RPATH "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}")
endif()

add_library(lohe_test_main INTERFACE)
target_link_libraries(lohe_test_main INTERFACE lohe_room GTest::gtest GTest::gtest_main)
list(JOIN LOHE_ROOMS "|" lohe_rooms_pattern)
foreach(source IN LISTS lohe_test_sources)
  cmake_path(GET source STEM name)
  file(STRINGS "${source}" internal REGEX "^#include \"(${lohe_rooms_pattern}|support)/")
  add_executable(${name} "${source}")
  add_dependencies(${name} lohe_gen_ops)
  target_include_directories(${name} PRIVATE "${PROJECT_SOURCE_DIR}/tests/cpp")
  if(internal)
    target_sources(${name} PRIVATE ${lohe_test_support})
    target_link_libraries(${name} PRIVATE lohe_test_main lohe_internal)
  else()
    target_link_libraries(${name} PRIVATE lohe_test_main lohe)
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin/tests"
    BUILD_RPATH "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS cpp TIMEOUT 300)
endforeach()
