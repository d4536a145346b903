// The kernels of csrc/cuda/kernels/spmm.cuh that the tests launch and whose build is inspected: of
// each dtype the widest accesses, of each tile width one, and the narrow accesses once.
#include "cuda/kernels/spmm.cuh"
#include "instances.h"

namespace amstel::cuda {

#define AMSTEL_SPMM(name, T, N, Tile, Row)                         \
  AMSTEL_TEST_INSTANCE(spmm_##name, spmm_kernel<T, N, Tile, Row>); \
  AMSTEL_TEST_INSTANCE(spmm_grad_##name, spmm_grad_kernel<T, N, Tile, Row>)

AMSTEL_SPMM(f64, double, 2, 32, 32);
AMSTEL_SPMM(f32, float, 4, 16, 16);
AMSTEL_SPMM(f32_wide, float, 4, 32, 32);
AMSTEL_SPMM(f32_narrow, float, 4, 4, 32);
AMSTEL_SPMM(f32_odd, float, 1, 8, 32);
AMSTEL_SPMM(bf16, __nv_bfloat16, 8, 8, 32);
AMSTEL_SPMM(f16, __half, 8, 4, 4);
AMSTEL_SPMM(f16_even, __half, 2, 8, 8);

AMSTEL_TEST_INSTANCE(spmm_chunk_f64, spmm_chunk_kernel<double, 2, 32>);
AMSTEL_TEST_INSTANCE(spmm_chunk_f32, spmm_chunk_kernel<float, 4, 16>);
AMSTEL_TEST_INSTANCE(spmm_chunk_bf16, spmm_chunk_kernel<__nv_bfloat16, 8, 8>);
AMSTEL_TEST_INSTANCE(spmm_chunk_f16_even, spmm_chunk_kernel<__half, 2, 8>);

AMSTEL_TEST_INSTANCE(edge_sum_f64, edge_sum_kernel<double>);
AMSTEL_TEST_INSTANCE(edge_sum_f32, edge_sum_kernel<float>);
AMSTEL_TEST_INSTANCE(edge_sum_bf16, edge_sum_kernel<__nv_bfloat16>);
AMSTEL_TEST_INSTANCE(edge_add_f64, edge_add_kernel<double>);
AMSTEL_TEST_INSTANCE(edge_add_f16, edge_add_kernel<__half>);

AMSTEL_TEST_INSTANCE(column_sum_f64, column_sum_kernel<double, double, 2, 8>);
AMSTEL_TEST_INSTANCE(column_sum_f32, column_sum_kernel<float, float, 4, 8>);
AMSTEL_TEST_INSTANCE(column_sum_f32_odd, column_sum_kernel<float, float, 1, 32>);
AMSTEL_TEST_INSTANCE(column_sum_bf16, column_sum_kernel<__nv_bfloat16, float, 8, 8>);
AMSTEL_TEST_INSTANCE(column_sum_to_bf16, column_sum_kernel<float, __nv_bfloat16, 4, 8>);

}  // namespace amstel::cuda
