# amstel_cuda: the CUDA kernels, compiled by nvcc against the same stable headers (a CPU-only torch
# is enough). Built where nvcc is found, unless AMSTEL_CUDA says otherwise.
set(AMSTEL_CUDA_SUMMARY "off")
if(NOT AMSTEL_CUDA)
  return()
endif()
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(AMSTEL_CUDA STREQUAL "AUTO")
    set(AMSTEL_CUDA_SUMMARY "off (no nvcc found)")
    return()
  endif()
  message(FATAL_ERROR "AMSTEL_CUDA=ON, but no nvcc was found; put it on PATH or set CUDACXX")
endif()

if(DEFINED ENV{TORCH_CUDA_ARCH_LIST})
  # "8.0;9.0a+PTX" -> 80-real;90a-real;90a-virtual
  string(REGEX REPLACE "[ ,]+" ";" requested "$ENV{TORCH_CUDA_ARCH_LIST}")
  foreach(arch ${requested})
    string(REPLACE "." "" number "${arch}")
    string(REPLACE "+PTX" "" real "${number}")
    list(APPEND CMAKE_CUDA_ARCHITECTURES ${real}-real)
    if(arch MATCHES "PTX")
      list(APPEND CMAKE_CUDA_ARCHITECTURES ${real}-virtual)
    endif()
  endforeach()
elseif(NOT CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES 75-real 80-real 90-real 100-real 100-virtual)
endif()
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
enable_language(CUDA)

add_library(amstel_cuda MODULE csrc/cuda/csr_op.cu csrc/cuda/spmm_op.cu csrc/cuda/conv_lstm_op.cu
                                csrc/cuda/roi_pool_op.cu csrc/cuda/roi_align_op.cu csrc/cuda/conv_gru_op.cu
                                csrc/cuda/rim_op.cu csrc/cuda/mri_op.cu
                                csrc/cuda/mri_columns_op.cu)
target_include_directories(amstel_cuda PRIVATE csrc)
target_link_libraries(amstel_cuda PRIVATE torch_stable)
install(TARGETS amstel_cuda LIBRARY DESTINATION . COMPONENT amstel)
list(JOIN CMAKE_CUDA_ARCHITECTURES " " architectures)
set(AMSTEL_CUDA_SUMMARY "${CMAKE_CUDA_COMPILER_VERSION} for ${architectures}")
