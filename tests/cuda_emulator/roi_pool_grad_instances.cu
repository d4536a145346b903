// The kernels of csrc/cuda/kernels/roi_pool_grad.cuh that the tests launch and whose build is
// inspected.
#include "cuda/kernels/roi_pool_grad.cuh"
#include "instances.h"

namespace amstel::cuda {

AMSTEL_TEST_INSTANCE(list, roi_list_kernel);
#define AMSTEL_GRAD(name, T)                                         \
  AMSTEL_TEST_INSTANCE(grad_##name, roi_pool_grad_kernel<T, false>); \
  AMSTEL_TEST_INSTANCE(matched_##name, roi_pool_grad_kernel<T, true>)

AMSTEL_GRAD(f64, double);
AMSTEL_GRAD(f32, float);
AMSTEL_GRAD(bf16, __nv_bfloat16);
AMSTEL_GRAD(f16, __half);

}  // namespace amstel::cuda
