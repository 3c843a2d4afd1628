# Stands in for Slicer_EXTENSION_CPACK: writes the description that Slicer's Extensions Manager reads, and sets CPack to
# one archive with one folder at its top, which that manager expects.

foreach(file ${EXTENSION_LICENSE_FILE} ${EXTENSION_README_FILE})
  if(NOT EXISTS ${file})
    message(FATAL_ERROR "There is no ${file}, which EXTENSION_LICENSE_FILE or EXTENSION_README_FILE names.")
  endif()
endforeach()

# As in Slicer, the values are passed on unquoted: whatever follows a semicolon is lost.
function(write_description)
  cmake_parse_arguments(MY ""
    "BUILD_SUBDIRECTORY;CATEGORY;CONTRIBUTORS;DESCRIPTION;ENABLED;HOMEPAGE;ICONURL;SCREENSHOTURLS;STATUS" "DEPENDS"
    ${ARGN})
  list(JOIN MY_DEPENDS " " MY_DEPENDS)
  configure_file(${Slicer_CMAKE_DIR}/description.s4ext.in ${CMAKE_BINARY_DIR}/${EXTENSION_NAME}.s4ext @ONLY)
endfunction()
set(metadata)
foreach(name BUILD_SUBDIRECTORY CATEGORY CONTRIBUTORS DESCRIPTION DEPENDS ENABLED HOMEPAGE ICONURL SCREENSHOTURLS STATUS)
  list(APPEND metadata ${name} ${EXTENSION_${name}})
endforeach()
write_description(${metadata})
install(FILES ${CMAKE_BINARY_DIR}/${EXTENSION_NAME}.s4ext
  DESTINATION ${Slicer_SHARE_DIR}
  COMPONENT RuntimeLibraries)

set(CPACK_GENERATOR TGZ)
set(CPACK_MONOLITHIC_INSTALL ON)
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "${EXTENSION_DESCRIPTION}")
set(CPACK_PACKAGE_DESCRIPTION_FILE ${EXTENSION_README_FILE})
set(CPACK_RESOURCE_FILE_LICENSE ${EXTENSION_LICENSE_FILE})
set(CPACK_PACKAGE_FILE_NAME ${Slicer_REVISION}-${Slicer_OS}-${Slicer_ARCHITECTURE}-${EXTENSION_NAME}-local0)
include(CPack)
