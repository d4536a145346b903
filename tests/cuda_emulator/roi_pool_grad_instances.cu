// The kernels of csrc/cuda/kernels/roi_pool_grad.cuh that the tests launch and whose build is
// inspected.
#include "cuda/kernels/roi_pool_grad.cuh"
#include "instances.h"

namespace amstel::cuda {

AMSTEL_TEST_INSTANCE(list, roi_list_kernel);
AMSTEL_TEST_INSTANCE(grad_f64, roi_pool_grad_kernel<double>);
AMSTEL_TEST_INSTANCE(grad_f32, roi_pool_grad_kernel<float>);
AMSTEL_TEST_INSTANCE(grad_bf16, roi_pool_grad_kernel<__nv_bfloat16>);
AMSTEL_TEST_INSTANCE(grad_f16, roi_pool_grad_kernel<__half>);

}  // namespace amstel::cuda
