# Libraries and tests by folder: every .cc of a layer's folder belongs to its library, but main.cc and
# every *_test.cc, which is a test program of its own.

include(GoogleTest)

# Parsing the headers of torch, nlohmann and gtest takes most of a build, so files of one target are
# compiled together, `batch` at a time. Names in unnamed namespaces therefore differ within a layer.
# -DSEER_UNITY=OFF compiles every file alone: each includes what it uses.
option(SEER_UNITY "compile files of a layer together" ON)
function(seer_unity target batch)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${SEER_UNITY} UNITY_BUILD_BATCH_SIZE ${batch})
endfunction()

function(seer_sources out dir)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${dir}/*.cc)
  list(FILTER sources EXCLUDE REGEX "(_test|/main)\\.cc$")
  set(${out} ${sources} PARENT_SCOPE)
endfunction()

function(seer_library name dir)
  seer_sources(sources ${dir})
  add_library(${name} STATIC ${sources})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE -Wall -Wextra ${SEER_NO_RESTRICT})
endfunction()

# A file as a string: <file without its ending>_script.h with `name` in namespace seer.
function(seer_embed target file name)
  file(READ ${file} text)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/${file})
  string(REGEX REPLACE "\\.[a-z]+$" "_script.h" header ${file})
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/embedded/${header} @ONLY CONTENT
    "#pragma once\nnamespace seer {\ninline constexpr char @name@[] = R\"_____(@text@)_____\";\n}\n")
  target_include_directories(${target} PRIVATE ${PROJECT_BINARY_DIR}/embedded)
endfunction()

# A page as a string, as seer_embed() does: folder/index.html with @style@ (style.css), @scripts@ (the files of SCRIPTS in this
# order), and @name@ of files elsewhere, name and path in turn behind WITH; one named TEXT_... is escaped for HTML.
function(seer_embed_page target folder variable)
  cmake_parse_arguments(P "" "" "SCRIPTS;WITH" ${ARGN})
  set(files ${folder}/index.html ${folder}/style.css)
  file(READ ${folder}/style.css style)
  set(scripts "")
  foreach(script IN LISTS P_SCRIPTS)
    file(READ ${folder}/${script} text)
    string(APPEND scripts "${text}")
    list(APPEND files ${folder}/${script})
  endforeach()
  while(P_WITH)
    list(POP_FRONT P_WITH name path)
    file(READ ${path} ${name})
    list(APPEND files ${path})
    if(name MATCHES "^TEXT_")
      string(REPLACE "&" "&amp;" ${name} "${${name}}")
      string(REPLACE "<" "&lt;" ${name} "${${name}}")
    endif()
  endwhile()
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${files})
  file(READ ${folder}/index.html page)
  string(CONFIGURE "${page}" text @ONLY)
  file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/embedded/${folder}/index_script.h @ONLY CONTENT
    "#pragma once\nnamespace seer {\ninline constexpr char @variable@[] = R\"_____(@text@)_____\";\n}\n")
  target_include_directories(${target} PRIVATE ${PROJECT_BINARY_DIR}/embedded)
endfunction()

function(seer_shared_library name dir)
  seer_sources(sources ${dir})
  add_library(${name} SHARED ${sources})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE -Wall -Wextra ${SEER_NO_RESTRICT})
endfunction()

# seer_tests(dir LABEL unit LIBRARIES ... [ONE_PROGRAM]): a program and its ctest entries for each
# *_test.cc, or one program, <layer>_tests, for all of them.
function(seer_tests dir)
  cmake_parse_arguments(T "ONE_PROGRAM" "LABEL" "LIBRARIES" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${dir}/*_test.cc)
  list(FILTER sources EXCLUDE REGEX "_gpu_test\\.cc$")  # seer_gpu_tests()
  get_filename_component(layer ${dir} NAME)
  if(T_ONE_PROGRAM)
    seer_test_program(${layer}_tests ${sources})
    seer_unity(${layer}_tests 8)
  else()
    foreach(source IN LISTS sources)
      get_filename_component(name ${source} NAME_WE)
      seer_test_program(${name} ${source})
    endforeach()
  endif()
endfunction()

# Part of seer_tests(), whose T_LABEL and T_LIBRARIES it reads.
function(seer_test_program name)
  add_executable(${name} ${ARGN})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
  target_compile_definitions(${name} PRIVATE SEER_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
  # Where several layers' headers are parsed, optimizing is a fifth of the time and gains nothing.
  target_compile_options(${name} PRIVATE $<IF:$<BOOL:${T_ONE_PROGRAM}>,-O0,-O1>)
  target_link_libraries(${name} PRIVATE ${T_LIBRARIES} GTest::gmock GTest::gtest_main)
  # Tests of one program share its temporary files: one at a time. The first program that loads
  # torch reads gigabytes from the disk, which can take a minute.
  gtest_discover_tests(${name} PROPERTIES LABELS ${T_LABEL} RESOURCE_LOCK ${name}
    DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 300)
endfunction()
