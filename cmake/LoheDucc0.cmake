# The FFT of ducc0 is a set of C++ headers that no binary package carries, so its source distribution is fetched
# through pip and checked against a fixed hash. LOHE_DUCC0_INCLUDE names an unpacked copy instead.
set(LOHE_DUCC0_INCLUDE "" CACHE PATH "Directory that holds ducc0/fft/fft.h")
if(NOT LOHE_DUCC0_INCLUDE)
  set(lohe_ducc0_root "${CMAKE_BINARY_DIR}/third_party/ducc0")
  if(NOT EXISTS "${lohe_ducc0_root}/ducc0/fft/fft.h")
    message(STATUS "Fetching the FFT headers of ducc0")
    execute_process(
      COMMAND "${Python_EXECUTABLE}" "${CMAKE_CURRENT_LIST_DIR}/fetch_ducc0.py" "${lohe_ducc0_root}"
      RESULT_VARIABLE lohe_ducc0_status)
    if(NOT lohe_ducc0_status EQUAL 0)
      message(FATAL_ERROR "ducc0 could not be fetched; set LOHE_DUCC0_INCLUDE to the src directory of its source distribution")
    endif()
  endif()
else()
  set(lohe_ducc0_root "${LOHE_DUCC0_INCLUDE}")
endif()
add_library(lohe_ducc0 INTERFACE)
target_include_directories(lohe_ducc0 SYSTEM INTERFACE "${lohe_ducc0_root}")
# Its own threads stay off: the pool of src/base is the only one. A unit that needs them includes infra/threading.cc.
target_compile_definitions(lohe_ducc0 INTERFACE DUCC0_NO_LOWLEVEL_THREADING)
