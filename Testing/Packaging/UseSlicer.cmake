# Stands in for Slicer_USE_FILE: defaults of an extension, its folders, and the two macros that ours calls.

set(EXTENSION_NAME ${PROJECT_NAME})
if(EXTENSION_NAME MATCHES "^$|^Slicer$|^Project$")
  message(FATAL_ERROR "project(<name of the extension>) must be called before include(\${Slicer_USE_FILE}).")
endif()

macro(set_default name value)
  if(NOT DEFINED EXTENSION_${name})
    set(EXTENSION_${name} "${value}")
  endif()
endmacro()
set_default(DEPENDS NA)
set_default(BUILD_SUBDIRECTORY .)
set_default(ENABLED 1)
set_default(STATUS "")

include(CTest)
find_package(Python3 REQUIRED COMPONENTS Interpreter)

# Scripts and resources are copied into the build tree one by one, under the paths by which they are listed; the scripts
# are byte-compiled there. Installed is all that then lies in that folder.
function(slicerMacroBuildScriptedModule)
  cmake_parse_arguments(MY "WITH_GENERIC_TESTS" "NAME" "SCRIPTS;RESOURCES" ${ARGN})
  if(MY_UNPARSED_ARGUMENTS OR NOT MY_NAME)
    message(FATAL_ERROR "slicerMacroBuildScriptedModule: NAME is missing, or unknown: ${MY_UNPARSED_ARGUMENTS}")
  endif()

  set(folder ${CMAKE_BINARY_DIR}/${Slicer_QTSCRIPTEDMODULES_LIB_DIR})
  set(copies)
  set(script_copies)
  foreach(kind SCRIPTS RESOURCES)
    foreach(file ${MY_${kind}})
      set(source ${CMAKE_CURRENT_SOURCE_DIR}/${file})
      set(copy ${folder}/${file})
      if(NOT EXISTS ${source})
        message(FATAL_ERROR "slicerMacroBuildScriptedModule: there is no ${source}")
      endif()
      add_custom_command(
        OUTPUT ${copy}
        DEPENDS ${source}
        COMMAND ${CMAKE_COMMAND} -E copy ${source} ${copy})
      list(APPEND copies ${copy})
      if(kind STREQUAL SCRIPTS)
        list(APPEND script_copies ${copy})
      endif()
    endforeach()
  endforeach()

  set(done ${CMAKE_CURRENT_BINARY_DIR}/python_compile_${MY_NAME}_complete)
  add_custom_command(
    OUTPUT ${done}
    DEPENDS ${script_copies}
    COMMAND ${Python3_EXECUTABLE} -m py_compile ${script_copies}
    COMMAND ${CMAKE_COMMAND} -E touch ${done})
  add_custom_target(${MY_NAME} ALL DEPENDS ${copies} ${done})
  install(DIRECTORY ${folder}/
    DESTINATION ${Slicer_QTSCRIPTEDMODULES_LIB_DIR}
    COMPONENT RuntimeLibraries
    USE_SOURCE_PERMISSIONS)

  if(BUILD_TESTING AND MY_WITH_GENERIC_TESTS)
    slicer_add_python_unittest(
      SCRIPT qSlicer${MY_NAME}ModuleGenericTest.py
      TESTNAME_PREFIX nomainwindow_
      SLICER_ARGS --no-main-window --disable-cli-modules --additional-module-path ${folder})
  endif()
endfunction()

# The test is named after the script, which Slicer finds beside the calling CMakeLists.txt or in the build tree.
function(slicer_add_python_unittest)
  cmake_parse_arguments(MY "" "SCRIPT;TESTNAME_PREFIX" "SLICER_ARGS" ${ARGN})
  cmake_path(GET MY_SCRIPT STEM name)
  set(folders "['${CMAKE_CURRENT_BINARY_DIR}', '${CMAKE_CURRENT_SOURCE_DIR}']")
  add_test(
    NAME py_${MY_TESTNAME_PREFIX}${name}
    COMMAND ${Slicer_LAUNCHER_EXECUTABLE} --no-splash --testing ${MY_SLICER_ARGS}
      --python-code "import slicer.testing\\; slicer.testing.runUnitTest(${folders}, '${name}')")
endfunction()
