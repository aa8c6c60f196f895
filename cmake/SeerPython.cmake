# The Python environment that torch and nvcc come from.

set(SEER_PYTHON "" CACHE FILEPATH "Python whose torch is used; default: .venv, then python3")
if(NOT SEER_PYTHON)
  if(SEER_PACKAGE AND Python_EXECUTABLE)  # the one that builds the package
    set(SEER_PYTHON ${Python_EXECUTABLE} CACHE FILEPATH "" FORCE)
  elseif(EXISTS ${PROJECT_SOURCE_DIR}/.venv/bin/python)
    set(SEER_PYTHON ${PROJECT_SOURCE_DIR}/.venv/bin/python CACHE FILEPATH "" FORCE)
  else()
    find_program(SEER_PYTHON3 python3 REQUIRED)
    set(SEER_PYTHON ${SEER_PYTHON3} CACHE FILEPATH "" FORCE)
  endif()
endif()
