// The kernels of csrc/cuda/kernels/column_sum.cuh that the tests launch and whose build is
// inspected: of each dtype the widest accesses, and single elements once.
#include "cuda/kernels/column_sum.cuh"
#include "instances.h"

namespace amstel::cuda {

AMSTEL_TEST_INSTANCE(column_sum_f64, column_sum_kernel<double, double, 2, 8>);
AMSTEL_TEST_INSTANCE(column_sum_f32, column_sum_kernel<float, float, 4, 8>);
AMSTEL_TEST_INSTANCE(column_sum_f32_odd, column_sum_kernel<float, float, 1, 32>);
AMSTEL_TEST_INSTANCE(column_sum_bf16, column_sum_kernel<__nv_bfloat16, float, 8, 8>);
AMSTEL_TEST_INSTANCE(column_sum_to_bf16, column_sum_kernel<float, __nv_bfloat16, 4, 8>);

}  // namespace amstel::cuda
