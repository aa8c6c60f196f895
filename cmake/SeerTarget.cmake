# Libraries and tests by folder: every .cc of a layer's folder belongs to its library, every
# *_test.cc is a test program of its own.

include(GoogleTest)

function(seer_sources out dir)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${dir}/*.cc)
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  set(${out} ${sources} PARENT_SCOPE)
endfunction()

function(seer_library name dir)
  seer_sources(sources ${dir})
  add_library(${name} STATIC ${sources})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wno-restrict)
endfunction()

function(seer_shared_library name dir)
  seer_sources(sources ${dir})
  add_library(${name} SHARED ${sources})
  target_include_directories(${name} PUBLIC ${PROJECT_SOURCE_DIR})
  target_compile_options(${name} PRIVATE -Wall -Wextra -Wno-restrict)
endfunction()

# seer_tests(dir LABEL unit LIBRARIES ...): one program and its ctest entries for each *_test.cc.
function(seer_tests dir)
  cmake_parse_arguments(T "" "LABEL" "LIBRARIES" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${dir}/*_test.cc)
  foreach(source IN LISTS sources)
    get_filename_component(name ${source} NAME_WE)
    add_executable(${name} ${source})
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR})
    target_compile_definitions(${name} PRIVATE SEER_SOURCE_DIR="${PROJECT_SOURCE_DIR}")
    target_link_libraries(${name} PRIVATE ${T_LIBRARIES} GTest::gmock GTest::gtest_main)
    # Tests of one program share its temporary files: one at a time.
    gtest_discover_tests(${name} PROPERTIES LABELS ${T_LABEL} RESOURCE_LOCK ${name}
      DISCOVERY_MODE PRE_TEST)
  endforeach()
endfunction()
