# The rooms of src/, from the ground up: a room includes only from rooms above it in this list, which
# tools/lint_rooms.py reads from here and checks. Each is one object library lohe_<room>.
set(LOHE_ROOMS base profile tensor ir codegen backend ops compile autograd record dispatch nn optim data io quant llm
    serve dist)

add_library(lohe_room INTERFACE)
target_include_directories(lohe_room INTERFACE
  "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src" "${LOHE_GEN_DIR}")
target_link_libraries(lohe_room INTERFACE lohe_flags Threads::Threads)

set(LOHE_ROOM_OBJECTS "")
set(LOHE_ROOM_TARGETS "")

# Every object library waits for the generator (only src/ops, read as text, is its input), never for another room.
function(lohe_object_library name)
  add_library(${name} OBJECT ${ARGN})
  target_link_libraries(${name} PRIVATE lohe_room)
  add_dependencies(${name} lohe_gen_ops)
  set(LOHE_ROOM_TARGETS ${LOHE_ROOM_TARGETS} ${name} PARENT_SCOPE)
  set(LOHE_ROOM_OBJECTS ${LOHE_ROOM_OBJECTS} $<TARGET_OBJECTS:${name}> PARENT_SCOPE)
endfunction()

foreach(room IN LISTS LOHE_ROOMS)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/${room}/*.cpp")
  if(room STREQUAL "codegen")
    # LLVM's headers are visible to src/codegen/llvm alone.
    set(llvm_sources ${sources})
    list(FILTER llvm_sources INCLUDE REGEX "/src/codegen/llvm/")
    list(FILTER sources EXCLUDE REGEX "/src/codegen/llvm/")
    if(llvm_sources)
      lohe_object_library(lohe_codegen_llvm ${llvm_sources})
      target_link_libraries(lohe_codegen_llvm PRIVATE lohe_llvm_headers)
    endif()
  endif()
  if(sources)
    lohe_object_library(lohe_${room} ${sources})
  endif()
endforeach()

# Files named for an instruction set are compiled for it. Their inner loops begin where a processor's cache of decoded
# instructions has a line begin (up to 2 % of a product).
if(TARGET lohe_backend)
  foreach(level "avx2:-march=x86-64-v3" "avx512:-march=x86-64-v4")
    string(REPLACE ":" ";" level "${level}")
    list(GET level 0 suffix)
    list(GET level 1 flag)
    file(GLOB_RECURSE level_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/backend/cpu/*_${suffix}.cpp")
    set_source_files_properties(${level_sources} PROPERTIES COMPILE_OPTIONS "${flag};-falign-loops=64")
  endforeach()
  # Loops in plain C++ that become vectors, and so lose their jumps.
  foreach(name pooling resampling)
    set_source_files_properties("${PROJECT_SOURCE_DIR}/src/backend/cpu/${name}.cpp" PROPERTIES COMPILE_OPTIONS -O3)
  endforeach()
endif()
# Headers of a library, for the rooms that wrap it: nobody else can include one.
foreach(room io data)
  if(TARGET lohe_${room})
    target_include_directories(lohe_${room} SYSTEM PRIVATE $<TARGET_PROPERTY:lohe_zlib,INTERFACE_INCLUDE_DIRECTORIES>)
  endif()
endforeach()

if(LOHE_GEN_LIBRARY_SOURCES)
  lohe_object_library(lohe_generated ${LOHE_GEN_LIBRARY_SOURCES})
endif()
