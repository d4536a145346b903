// The kernels of csrc/cuda/kernels/rim_input.cuh that the tests launch and whose build is
// inspected.
#include "cuda/kernels/rim_input.cuh"
#include "instances.h"

namespace amstel::cuda {

#define AMSTEL_RIM(name, T)                                                     \
  AMSTEL_TEST_INSTANCE(input_gray_##name, rim_input_kernel<T, 1>);              \
  AMSTEL_TEST_INSTANCE(input_complex_##name, rim_input_kernel<T, 2>);           \
  AMSTEL_TEST_INSTANCE(input_planes_##name, rim_input_planes_kernel<T, false>); \
  AMSTEL_TEST_INSTANCE(input_##name, rim_input_strided_kernel<T, false>);       \
  AMSTEL_TEST_INSTANCE(grad_gray_##name, rim_input_grad_kernel<T, 1>);          \
  AMSTEL_TEST_INSTANCE(grad_complex_##name, rim_input_grad_kernel<T, 2>);       \
  AMSTEL_TEST_INSTANCE(grad_planes_##name, rim_input_planes_kernel<T, true>);   \
  AMSTEL_TEST_INSTANCE(grad_##name, rim_input_strided_kernel<T, true>)

AMSTEL_RIM(f64, double);
AMSTEL_RIM(f32, float);
AMSTEL_RIM(bf16, __nv_bfloat16);
AMSTEL_RIM(f16, __half);

}  // namespace amstel::cuda
