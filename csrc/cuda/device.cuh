// What a launch wrapper (csrc/cuda/<stem>_op.cu) needs around its kernels: the dispatch key, the
// current stream of a tensor's device, and a check after the launch.  Compiled as C++ for the
// emulator, the wrappers serve the CPU key.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <stdexcept>
#include <string>

#include "cuda/kernels/kernel.cuh"

// STABLE_TORCH_LIBRARY_IMPL(amstel, AMSTEL_CUDA_KEY, m) { ... }
#ifdef AMSTEL_EMULATED
#define AMSTEL_CUDA_KEY CPU
#else
#define AMSTEL_CUDA_KEY CUDA
#endif

namespace amstel {

// Makes the device of a tensor current while it lives, and is that device's current stream.
class CurrentStream {
 public:
#ifdef AMSTEL_EMULATED
  explicit CurrentStream(const torch::stable::Tensor&) {}
  operator cudaStream_t() const { return nullptr; }  // NOLINT
#else
  explicit CurrentStream(const torch::stable::Tensor& tensor)
      : guard_(tensor.get_device_index()),
        stream_(torch::stable::accelerator::getCurrentStream(tensor.get_device_index())) {}
  operator cudaStream_t() const {
    return static_cast<cudaStream_t>(stream_.nativeHandle());
  }  // NOLINT

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  torch::stable::accelerator::Stream stream_;
#endif
};

// Right after a launch: throws where it was refused.
inline void check_launch(const char* op) {
  const cudaError_t error = cudaGetLastError();
  if (error != cudaSuccess) {
    throw std::runtime_error(std::string(op) +
                             ": CUDA launch failed: " + cudaGetErrorString(error));
  }
}

}  // namespace amstel
