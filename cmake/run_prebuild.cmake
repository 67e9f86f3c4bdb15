# Runs PREBUILD (lohe_prebuild_kernels --output DIR, which writes any number of *.o there) and joins its object files
# into the one relocatable file OUTPUT.
cmake_path(GET OUTPUT PARENT_PATH directory)
set(parts "${directory}/parts")
file(REMOVE_RECURSE "${parts}")
file(MAKE_DIRECTORY "${parts}")
execute_process(COMMAND "${PREBUILD}" --output "${parts}" COMMAND_ERROR_IS_FATAL ANY)
file(GLOB objects "${parts}/*.o")
if(NOT objects)
  message(FATAL_ERROR "${PREBUILD} wrote no object file")
endif()
string(REPLACE ";" "\n" list "${objects}")
file(WRITE "${directory}/parts.rsp" "${list}\n")
execute_process(COMMAND "${LINKER}" -r -o "${OUTPUT}" "@${directory}/parts.rsp" COMMAND_ERROR_IS_FATAL ANY)
