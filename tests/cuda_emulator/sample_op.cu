// A launch wrapper as csrc/cuda/<stem>_op.cu has them, for the test of build_emulated_library:
// amstel_sample::twice(x).
// The schema is the test's, as it is library.cpp's for the real ones.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "cuda/device.cuh"

namespace amstel_sample {

__global__ void __launch_bounds__(256) twice_kernel(const float* x, float* y, int64_t n) {
  const int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (i < n) y[i] = 2.0f * x[i];
}

torch::stable::Tensor twice(const torch::stable::Tensor& x) {
  torch::stable::Tensor y = torch::stable::empty_like(x);
  const int64_t n = x.numel();
  if (n == 0) return y;
  const amstel::CurrentStream stream(x);
  AMSTEL_LAUNCH(twice_kernel, static_cast<unsigned>((n + 255) / 256), 256, 0, stream,
                x.const_data_ptr<float>(), y.mutable_data_ptr<float>(), n);
  amstel::check_launch("twice");
  return y;
}

STABLE_TORCH_LIBRARY_IMPL(amstel_sample, AMSTEL_CUDA_KEY, m) { m.impl("twice", TORCH_BOX(&twice)); }

}  // namespace amstel_sample
