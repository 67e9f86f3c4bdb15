# Every benchmarks/*.cpp is one Google Benchmark executable in bin/benchmarks.
find_package(benchmark REQUIRED)
file(GLOB lohe_benchmark_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/benchmarks/*.cpp")
foreach(source IN LISTS lohe_benchmark_sources)
  cmake_path(GET source STEM name)
  add_executable(bench_${name} "${source}")
  target_link_libraries(bench_${name} PRIVATE lohe lohe_flags benchmark::benchmark)
  set_target_properties(bench_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_BINARY_DIR}/bin/benchmarks"
    BUILD_RPATH "${CMAKE_LIBRARY_OUTPUT_DIRECTORY}")
endforeach()
