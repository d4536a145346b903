// The kernels of csrc/cuda/kernels/roi_pool.cuh that the tests launch and whose build is inspected:
// of each dtype the widest accesses, and single elements once.
#include "cuda/kernels/roi_pool.cuh"
#include "instances.h"

namespace amstel::cuda {

using roi::Arithmetic;
AMSTEL_TEST_INSTANCE(table_f64, roi_table_kernel<double, Arithmetic::kDouble>);
AMSTEL_TEST_INSTANCE(table_f32, roi_table_kernel<float, Arithmetic::kFloat>);
AMSTEL_TEST_INSTANCE(table_bf16, roi_table_kernel<__nv_bfloat16, Arithmetic::kDouble>);
AMSTEL_TEST_INSTANCE(table_f16, roi_table_kernel<__half, Arithmetic::kHalf>);

#define AMSTEL_ROI(name, T, N)                                           \
  AMSTEL_TEST_INSTANCE(pool_##name, roi_pool_kernel<T, N, false>);       \
  AMSTEL_TEST_INSTANCE(pool_argmax_##name, roi_pool_kernel<T, N, true>); \
  AMSTEL_TEST_INSTANCE(match_##name, roi_match_kernel<T, N>)

AMSTEL_ROI(f64, double, 2);
AMSTEL_ROI(f32, float, 4);
AMSTEL_ROI(bf16, __nv_bfloat16, 8);
AMSTEL_ROI(f16, __half, 8);
AMSTEL_ROI(f64_single, double, 1);
AMSTEL_ROI(f32_single, float, 1);
AMSTEL_ROI(f16_single, __half, 1);

AMSTEL_TEST_INSTANCE(gather_f64, roi_pool_gather_kernel<double>);
AMSTEL_TEST_INSTANCE(gather_f32, roi_pool_gather_kernel<float>);
AMSTEL_TEST_INSTANCE(gather_f16, roi_pool_gather_kernel<__half>);

AMSTEL_TEST_INSTANCE(sum_rows_f64, sum_rows_kernel<double>);
AMSTEL_TEST_INSTANCE(sum_rows_f32, sum_rows_kernel<float>);
AMSTEL_TEST_INSTANCE(sum_rows_bf16, sum_rows_kernel<__nv_bfloat16>);

}  // namespace amstel::cuda
