# torch_stable: headers and libtorch_cpu of the torch that this Python has, found without importing
# torch and without its CMake package, restricted to the stable ABI as of the floor release.
set(AMSTEL_TORCH_FLOOR 2.11)
set(AMSTEL_TORCH_TARGET 0x020b000000000000)
find_package(Python COMPONENTS Interpreter REQUIRED)
execute_process(
  COMMAND ${Python_EXECUTABLE} -c
          "import importlib.util, pathlib, re; p = pathlib.Path(importlib.util.find_spec('torch').origin).parent; print(p, re.search(r\"__version__ = '([^']+)'\", (p / 'version.py').read_text()).group(1), sep=';', end='')"
  OUTPUT_VARIABLE found RESULT_VARIABLE failed ERROR_VARIABLE reason)
if(failed)
  message(FATAL_ERROR "amstel needs torch >= ${AMSTEL_TORCH_FLOOR} in the Python that builds it (${Python_EXECUTABLE}); "
                      "install it, or let pip build in isolation.\n${reason}")
endif()
list(GET found 0 torch_root)
list(GET found 1 AMSTEL_TORCH_VERSION)
if(AMSTEL_TORCH_VERSION VERSION_LESS ${AMSTEL_TORCH_FLOOR})
  message(FATAL_ERROR "amstel needs torch >= ${AMSTEL_TORCH_FLOOR} to build, found ${AMSTEL_TORCH_VERSION} in ${torch_root}")
endif()

add_library(torch_stable INTERFACE)
target_include_directories(torch_stable SYSTEM INTERFACE ${torch_root}/include)
target_compile_definitions(torch_stable INTERFACE TORCH_TARGET_VERSION=${AMSTEL_TORCH_TARGET})
# The text of torch's errors, also where the macros of the headers at hand would lose it.
target_compile_options(torch_stable INTERFACE "SHELL:-include ${CMAKE_CURRENT_LIST_DIR}/../csrc/common/torch_error.h")
target_link_libraries(torch_stable INTERFACE ${torch_root}/lib/libtorch_cpu.so)
# torch is loaded before the library: nothing of this machine's layout goes into the binary.
set(CMAKE_SKIP_RPATH ON)
