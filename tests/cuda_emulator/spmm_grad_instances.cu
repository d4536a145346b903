// The kernels of csrc/cuda/kernels/spmm_grad.cuh that the tests launch and whose build is
// inspected, with the widths and tiles of spmm_instances.cu.
#include "cuda/kernels/spmm_grad.cuh"
#include "instances.h"

namespace amstel::cuda {

AMSTEL_TEST_INSTANCE(spmm_grad_f64, spmm_grad_kernel<double, 2, 32, 32>);
AMSTEL_TEST_INSTANCE(spmm_grad_f32, spmm_grad_kernel<float, 4, 16, 16>);
AMSTEL_TEST_INSTANCE(spmm_grad_f32_wide, spmm_grad_kernel<float, 4, 32, 32>);
AMSTEL_TEST_INSTANCE(spmm_grad_f32_narrow, spmm_grad_kernel<float, 4, 4, 32>);
AMSTEL_TEST_INSTANCE(spmm_grad_f32_odd, spmm_grad_kernel<float, 1, 8, 32>);
AMSTEL_TEST_INSTANCE(spmm_grad_bf16, spmm_grad_kernel<__nv_bfloat16, 8, 8, 32>);
AMSTEL_TEST_INSTANCE(spmm_grad_f16, spmm_grad_kernel<__half, 8, 4, 4>);
AMSTEL_TEST_INSTANCE(spmm_grad_f16_even, spmm_grad_kernel<__half, 2, 8, 8>);

}  // namespace amstel::cuda
