// The kernels of csrc/cuda/kernels/edge_sum.cuh that the tests launch and whose build is inspected.
#include "cuda/kernels/edge_sum.cuh"
#include "instances.h"

namespace amstel::cuda {

AMSTEL_TEST_INSTANCE(edge_sum_f64, edge_sum_kernel<double>);
AMSTEL_TEST_INSTANCE(edge_sum_f32, edge_sum_kernel<float>);
AMSTEL_TEST_INSTANCE(edge_sum_bf16, edge_sum_kernel<__nv_bfloat16>);
AMSTEL_TEST_INSTANCE(edge_add_f64, edge_add_kernel<double>);
AMSTEL_TEST_INSTANCE(edge_add_f16, edge_add_kernel<__half>);

}  // namespace amstel::cuda
