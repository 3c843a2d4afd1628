# Stands in for a build of Slicer, as far as an extension of scripted modules sees it: with -DSlicer_DIR=<this folder> the
# extension configures, builds, installs and packages without Slicer. Names, folders and what goes where follow Slicer
# 5.12 and the CTK that it brings. Left out: everything about C++, translation, launchers, upload, and what is asked of
# git; the package is that of a source folder that no version control knows.

set(Slicer_VERSION 5.12)
set(Slicer_REVISION 0)
string(TOLOWER "${CMAKE_HOST_SYSTEM_NAME}" Slicer_OS)
set(Slicer_ARCHITECTURE amd64)
set(Slicer_LAUNCHER_EXECUTABLE ${CMAKE_COMMAND}) # a program that exists; nobody runs the tests that it would start

set(Slicer_LIB_DIR lib/Slicer-${Slicer_VERSION})
set(Slicer_SHARE_DIR share/Slicer-${Slicer_VERSION})
set(Slicer_QTSCRIPTEDMODULES_LIB_DIR ${Slicer_LIB_DIR}/qt-scripted-modules)

set(Slicer_CMAKE_DIR ${CMAKE_CURRENT_LIST_DIR})
set(Slicer_USE_FILE ${Slicer_CMAKE_DIR}/UseSlicer.cmake)
set(Slicer_EXTENSION_GENERATE_CONFIG ${Slicer_CMAKE_DIR}/SlicerExtensionGenerateConfig.cmake)
set(Slicer_EXTENSION_CPACK ${Slicer_CMAKE_DIR}/SlicerExtensionCPack.cmake)
