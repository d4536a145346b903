// AMSTEL_TEST_INSTANCE(name, kernel<float, 4>) makes one instance of a kernel known to the tests,
// which launch it by name on the emulator (build.py) and as PTX (ptx.py), and whose build
// toolchain.py inspects.  <stem>_instances.cu holds the instances of csrc/cuda/kernels/<stem>.cuh.
// An instance holds for one line: name.  Launch bounds tell toolchain.py the block size.
#pragma once

#include "cuda/kernels/kernel.cuh"

#ifdef AMSTEL_EMULATED
#define AMSTEL_TEST_INSTANCE(name, ...) \
  static const ::cuda_emulator::Instance name##_instance { #name, &__VA_ARGS__ }
#else  // taking its address makes nvcc emit the kernel
#define AMSTEL_TEST_INSTANCE(name, ...) \
  extern const void* const name##_instance = reinterpret_cast<const void*>(&__VA_ARGS__)
#endif
