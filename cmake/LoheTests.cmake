# Every tests/cpp/*_test.cpp is one executable and one ctest entry. Every *_tool.cpp is an executable that tests of
# tests/python run.
find_package(GTest REQUIRED)
include(GoogleTest)
file(GLOB lohe_test_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/cpp/*_test.cpp")
file(GLOB lohe_test_support CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/cpp/support/*.cpp")

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
    target_link_libraries(${name} PRIVATE lohe_test_main lohe)
  else()
    target_link_libraries(${name} PRIVATE lohe_test_main lohe)
  endif()
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin/tests"
    BUILD_RPATH "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}")
  add_test(NAME ${name} COMMAND ${name})
  set_tests_properties(${name} PROPERTIES LABELS cpp TIMEOUT 300)
endforeach()

# tools/math_accuracy builds and runs this one. Its references use what the machine has; the ops under test
# choose at run time, as ever.
add_executable(math_accuracy EXCLUDE_FROM_ALL "${PROJECT_SOURCE_DIR}/tests/cpp/math_accuracy.cpp"
  "${PROJECT_SOURCE_DIR}/tests/cpp/math_references.cpp")
target_compile_options(math_accuracy PRIVATE -O3 -march=native -ffp-contract=off)
target_link_libraries(math_accuracy PRIVATE lohe quadmath mvec)
set_target_properties(math_accuracy PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin/tests"
  BUILD_RPATH "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}" CXX_EXTENSIONS ON)

file(GLOB lohe_test_tools CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/tests/cpp/*_tool.cpp")
foreach(source IN LISTS lohe_test_tools)
  cmake_path(GET source STEM name)
  add_executable(${name} "${source}")
  add_dependencies(${name} lohe_gen_ops)
  target_link_libraries(${name} PRIVATE lohe_room lohe)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin/tests"
    BUILD_RPATH "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}")
endforeach()

# Files that PyTorch and safetensors wrote, for the tests that read them; without PyTorch those tests are skipped.
execute_process(
  COMMAND "${Python_EXECUTABLE}" -c
    "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ('torch', 'safetensors'))))"
  RESULT_VARIABLE lohe_no_oracle OUTPUT_QUIET ERROR_QUIET)
if(lohe_no_oracle EQUAL 0)
  set(lohe_io_fixtures "${CMAKE_BINARY_DIR}/io_fixtures")
  add_test(NAME io_fixtures
    COMMAND "${Python_EXECUTABLE}" "${PROJECT_SOURCE_DIR}/tests/cpp/make_io_fixtures.py" "${lohe_io_fixtures}")
  set_tests_properties(io_fixtures PROPERTIES FIXTURES_SETUP io_fixtures LABELS cpp)
  set_tests_properties(io_load_test io_safetensors_test PROPERTIES
    FIXTURES_REQUIRED io_fixtures ENVIRONMENT "LOHE_IO_FIXTURES=${lohe_io_fixtures}")
endif()
