# The same layout under any prefix: include/, lib/, share/cmake/lohe. In the wheel the prefix is the package itself,
# and lohe.utils.cmake_prefix_path names its share/cmake.
include(CMakePackageConfigHelpers)
set(LOHE_CMAKE_DIR share/cmake/lohe)
install(DIRECTORY include/lohe DESTINATION include FILES_MATCHING PATTERN "*.h")
install(DIRECTORY "${LOHE_GEN_DIR}/lohe" DESTINATION include OPTIONAL FILES_MATCHING PATTERN "*.h")
install(TARGETS lohe EXPORT loheTargets LIBRARY DESTINATION lib)
install(EXPORT loheTargets NAMESPACE lohe:: DESTINATION ${LOHE_CMAKE_DIR})
configure_package_config_file(cmake/lohe-config.cmake.in "${CMAKE_BINARY_DIR}/lohe-config.cmake"
  INSTALL_DESTINATION ${LOHE_CMAKE_DIR})
write_basic_package_version_file("${CMAKE_BINARY_DIR}/lohe-config-version.cmake" COMPATIBILITY SameMinorVersion)
install(FILES "${CMAKE_BINARY_DIR}/lohe-config.cmake" "${CMAKE_BINARY_DIR}/lohe-config-version.cmake"
  DESTINATION ${LOHE_CMAKE_DIR})
if(NOT SKBUILD)
  install(FILES LICENSE DESTINATION share/doc/lohe)
endif()
if(SKBUILD AND TARGET lohe_python)
  install(TARGETS lohe_python LIBRARY DESTINATION .)
  install(DIRECTORY "${LOHE_GEN_DIR}/python/lohe/" DESTINATION . OPTIONAL)
endif()
