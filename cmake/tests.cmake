# amstel._kernels_test: the tables of CPU kernels, without torch, for pytest on NumPy arrays.
find_package(Python COMPONENTS Interpreter Development.Module REQUIRED)
execute_process(COMMAND ${Python_EXECUTABLE} -m pybind11 --cmakedir
                OUTPUT_VARIABLE pybind11_ROOT OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE failed)
if(failed)
  message(FATAL_ERROR "AMSTEL_TESTS=ON needs pybind11 in ${Python_EXECUTABLE} (extra amstel[test])")
endif()
find_package(pybind11 CONFIG REQUIRED)
pybind11_add_module(_kernels_test MODULE csrc/python/kernels_test.cpp ${AMSTEL_ISA_OBJECTS})
target_include_directories(_kernels_test PRIVATE csrc)
target_compile_definitions(_kernels_test PRIVATE ${AMSTEL_ISA_DEFINITIONS})
install(TARGETS _kernels_test LIBRARY DESTINATION . COMPONENT amstel)
