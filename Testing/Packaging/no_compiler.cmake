# A toolchain for project(), which asks for C and C++ as every Slicer extension does: nothing is compiled here, so that
# no compiler is needed.

foreach(language C CXX)
  set(CMAKE_${language}_COMPILER ${CMAKE_COMMAND})
  set(CMAKE_${language}_COMPILER_FORCED TRUE)
  set(CMAKE_${language}_COMPILER_ID_RUN TRUE)
endforeach()
