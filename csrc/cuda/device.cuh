// What a launch wrapper (csrc/cuda/<stem>_op.cu) needs around its kernels: the dispatch key, the
// current stream of a tensor's device, a check after the launch, and a look at its results.
// Compiled as C++ for the emulator, the wrappers serve the CPU key.
#pragma once

#include <dlfcn.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/tensor.h>

#include <stdexcept>
#include <string>

#include "common/torch_error.h"
#include "cuda/kernels/kernel.cuh"

// STABLE_TORCH_LIBRARY_IMPL(amstel, AMSTEL_CUDA_KEY, m) { ... }
#ifdef AMSTEL_EMULATED
#define AMSTEL_CUDA_KEY CPU
#else
#define AMSTEL_CUDA_KEY CUDA
#endif

namespace amstel {

#ifndef AMSTEL_EMULATED
// The stream of torch on a device. Stream::nativeHandle() is past the floor of this library, and
// this library does not need libtorch_cuda, which torch has loaded long since where it has CUDA.
inline cudaStream_t current_stream(int32_t device) {
  using Get = AOTITorchError (*)(int32_t, void**);
  static const auto get = [] {
    void* const library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return reinterpret_cast<Get>(library ? dlsym(library, "aoti_torch_get_current_cuda_stream")
                                         : nullptr);
  }();
  if (!get)
    throw std::runtime_error("amstel: this torch has no aoti_torch_get_current_cuda_stream");
  void* stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(get(device, &stream));
  return static_cast<cudaStream_t>(stream);
}
#endif

// Makes the device of a tensor current while it lives, and is that device's current stream.
class CurrentStream {
 public:
#ifdef AMSTEL_EMULATED
  explicit CurrentStream(const torch::stable::Tensor&) {}
  operator cudaStream_t() const { return nullptr; }  // NOLINT
#else
  explicit CurrentStream(const torch::stable::Tensor& tensor)
      : guard_(tensor.get_device_index()), stream_(current_stream(tensor.get_device_index())) {}
  operator cudaStream_t() const { return stream_; }  // NOLINT

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
#endif
};

// Throws where CUDA has refused something.
inline void check_cuda(const char* op, cudaError_t error) {
  if (error == cudaSuccess) return;
  const std::string text = std::string(op) + ": CUDA launch failed: " + cudaGetErrorString(error);
  if (error == cudaErrorMemoryAllocation) throw OutOfMemory(text);
  if (error == cudaErrorNoKernelImageForDevice)
    throw std::runtime_error(text + " (the wheel was built for other architectures: amstel info)");
  throw std::runtime_error(text);
}

// Right after a launch.
inline void check_launch(const char* op) { check_cuda(op, cudaGetLastError()); }

inline bool is_capturing(cudaStream_t stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  return cudaStreamIsCapturing(stream, &status) == cudaSuccess &&
         status != cudaStreamCaptureStatusNone;
}

// What lies on the device, after all that the stream has been given.
template <class T>
T to_host(const char* op, cudaStream_t stream, const T* pointer) {
  T value;
  cudaMemcpyAsync(&value, pointer, sizeof(T), cudaMemcpyDeviceToHost, stream);
  cudaStreamSynchronize(stream);
  check_launch(op);
  return value;
}

}  // namespace amstel
