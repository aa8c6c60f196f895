# CUDA kernels: the compiler, and one object library per GPU architecture, so that every file is compiled
# for the chips it is for and for no other. Each file costs three seconds of headers: the instances of a
# kernel (elements, head sizes) are those that its dispatch.cu calls, in that file.

# nvcc and the headers of the Python environment (tools/requirements.txt pins them beside torch),
# else those of the machine.
execute_process(
  COMMAND ${SEER_PYTHON} -c "import importlib.util as u; s = u.find_spec('nvidia.cu13'); print(s.submodule_search_locations[0] if s else '')"
  OUTPUT_VARIABLE environment OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
find_program(SEER_NVCC nvcc HINTS ${environment}/bin /usr/local/cuda/bin)
if(NOT SEER_NVCC)
  message(FATAL_ERROR "no nvcc: ./run installs it, or build without CUDA kernels: -DSEER_CUDA=OFF")
endif()
get_filename_component(SEER_CUDA_DIR ${SEER_NVCC}/../.. REALPATH)
find_library(SEER_CUDART cudart_static REQUIRED NO_DEFAULT_PATH
  PATHS ${SEER_CUDA_DIR}/lib ${SEER_CUDA_DIR}/lib64)
message(STATUS "nvcc: ${SEER_NVCC}")

set(CMAKE_CUDA_COMPILER ${SEER_NVCC})
set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
set(CMAKE_CUDA_ARCHITECTURES 80)
set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # linked by name: the environment's folders are not nvcc's own
if(SEER_CCACHE)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${SEER_CCACHE})
endif()
enable_language(CUDA)
# CMake 3.25 does not know nvcc's flag for C++20; newer ones do.
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()

# A register spill is an error: the kernels are written to fit.
function(seer_arch_library arch cuda_arch)
  add_library(seer_${arch} OBJECT)
  set_target_properties(seer_${arch} PROPERTIES CUDA_ARCHITECTURES "${cuda_arch}" CUDA_STANDARD 20
    LINKER_LANGUAGE CXX)
  target_include_directories(seer_${arch} PRIVATE ${PROJECT_SOURCE_DIR})
  # Two threads: the chips of a file beside each other.
  target_compile_options(seer_${arch} PRIVATE -O3 --threads=2 --expt-relaxed-constexpr -Xcompiler=-fPIC
    -Xcompiler=-Wall -Xptxas=--warn-on-spills,-Werror)
  target_sources(seer_kernels PRIVATE $<TARGET_OBJECTS:seer_${arch}>)
endfunction()

# A program and its ctest entries, labelled gpu, for each *_gpu_test.cc. Without a GPU they skip.
function(seer_gpu_tests dir)
  cmake_parse_arguments(T "" "" "LIBRARIES" ${ARGN})
  set(T_LABEL gpu)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${dir}/*_gpu_test.cc)
  foreach(source IN LISTS sources)
    get_filename_component(name ${source} NAME_WE)
    seer_test_program(${name} ${source})
    target_include_directories(${name} SYSTEM PRIVATE ${SEER_CUDA_DIR}/include)
    target_link_libraries(${name} PRIVATE ${SEER_CUDART} dl rt)
  endforeach()
endfunction()
