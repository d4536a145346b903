// The kernels of csrc/cuda/kernels/rim.cuh that the tests launch and whose build is inspected.
#include "cuda/kernels/rim.cuh"
#include "instances.h"

namespace amstel::cuda {

AMSTEL_TEST_INSTANCE(up_input_f64, bicubic_up_kernel<double, true>);
AMSTEL_TEST_INSTANCE(up_input_f32, bicubic_up_kernel<float, true>);
AMSTEL_TEST_INSTANCE(up_input_bf16, bicubic_up_kernel<__nv_bfloat16, true>);
AMSTEL_TEST_INSTANCE(up_input_f16, bicubic_up_kernel<__half, true>);

AMSTEL_TEST_INSTANCE(down_f64, bicubic_down_kernel<double>);
AMSTEL_TEST_INSTANCE(down_f32, bicubic_down_kernel<float>);
AMSTEL_TEST_INSTANCE(up_f64, bicubic_up_kernel<double, false>);
AMSTEL_TEST_INSTANCE(up_f32, bicubic_up_kernel<float, false>);

}  // namespace amstel::cuda
