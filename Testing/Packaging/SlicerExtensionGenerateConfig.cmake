# Stands in for Slicer_EXTENSION_GENERATE_CONFIG: what lets another extension find this one in its build tree.

file(CONFIGURE
  OUTPUT ${CMAKE_BINARY_DIR}/${EXTENSION_NAME}Config.cmake
  CONTENT "set(@EXTENSION_NAME@_SOURCE_DIR \"@CMAKE_SOURCE_DIR@\")\n"
  @ONLY)
