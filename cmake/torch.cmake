# torch_stable: the headers and libtorch_cpu of a torch, restricted to the stable ABI as of the floor
# release. The floor is also in pyproject.toml and cmake/backend.py.
set(AMSTEL_TORCH_FLOOR 2.11)
set(AMSTEL_TORCH_TARGET 0x020b000000000000)
include(${CMAKE_CURRENT_LIST_DIR}/find_torch.cmake)
amstel_find_torch(${AMSTEL_TORCH_FLOOR})

add_library(torch_stable INTERFACE)
target_include_directories(torch_stable SYSTEM INTERFACE ${TORCH_ROOT}/include)
target_compile_definitions(torch_stable INTERFACE TORCH_TARGET_VERSION=${AMSTEL_TORCH_TARGET})
# The text of torch's errors, also where the macros of the headers at hand would lose it.
target_compile_options(torch_stable INTERFACE "SHELL:-include ${CMAKE_CURRENT_SOURCE_DIR}/csrc/common/torch_error.h")
target_link_libraries(torch_stable INTERFACE ${TORCH_ROOT}/lib/libtorch_cpu.so)
# torch is loaded before the library: nothing of this machine's layout goes into the binary.
set(CMAKE_SKIP_RPATH ON)
