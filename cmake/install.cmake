# What goes into the wheel: the libraries, and what find_package(amstel) needs.
include(CMakePackageConfigHelpers)
install(TARGETS amstel LIBRARY DESTINATION . COMPONENT amstel)
install(FILES csrc/cpu/isa.h DESTINATION include/amstel/cpu COMPONENT amstel)
install(FILES csrc/common/numbers.h csrc/common/roi.h DESTINATION include/amstel/common COMPONENT amstel)
configure_file(cmake/amstelConfig.cmake.in amstelConfig.cmake @ONLY)
write_basic_package_version_file(amstelConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/amstelConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/amstelConfigVersion.cmake
              cmake/find_torch.cmake
        DESTINATION share/cmake/amstel COMPONENT amstel)
