# The torch of a Python environment: headers and libraries by path. Its own CMake package is not
# used, because that one wants a CUDA toolkit wherever torch was built with CUDA.

execute_process(
  COMMAND ${SEER_PYTHON} -c
    "import importlib.util as u, importlib.metadata as m; print(u.find_spec('torch').submodule_search_locations[0], m.version('torch'), sep=';')"
  OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE status ERROR_QUIET)
if(NOT status EQUAL 0)
  message(FATAL_ERROR "${SEER_PYTHON} has no torch: ./run installs it, or set SEER_PYTHON")
endif()
list(GET found 0 SEER_TORCH_DIR)
list(GET found 1 SEER_TORCH_VERSION)
message(STATUS "torch ${SEER_TORCH_VERSION}: ${SEER_TORCH_DIR}")

add_library(seer_torch_headers INTERFACE)
target_include_directories(seer_torch_headers SYSTEM INTERFACE
  ${SEER_TORCH_DIR}/include ${SEER_TORCH_DIR}/include/torch/csrc/api/include)
# libtorch_cuda is there in the CUDA builds of torch; nothing here calls it by name, so it is linked
# without --as-needed: loading it registers the CUDA backend. In Python torch has loaded it, where there is one.
set(libraries ${SEER_TORCH_DIR}/lib/libtorch_cpu.so ${SEER_TORCH_DIR}/lib/libc10.so)
if(NOT SEER_PACKAGE AND EXISTS ${SEER_TORCH_DIR}/lib/libtorch_cuda.so)
  list(APPEND libraries -Wl,--no-as-needed ${SEER_TORCH_DIR}/lib/libtorch_cuda.so
    ${SEER_TORCH_DIR}/lib/libc10_cuda.so -Wl,--as-needed)
endif()
# torch's own OpenMP runtime has the system's soname: one thread pool in the process.
target_link_libraries(seer_torch_headers INTERFACE ${libraries})
if(NOT SEER_PACKAGE)  # in a wheel it lies beside torch
  target_link_options(seer_torch_headers INTERFACE -Wl,-rpath,${SEER_TORCH_DIR}/lib)
endif()
