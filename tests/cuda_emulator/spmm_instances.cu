// The kernels of csrc/cuda/kernels/spmm.cuh that the tests launch and whose build is inspected: of
// each dtype the widest accesses, of each tile width one, and the narrow accesses once. How they
// share rows out, csrc/cuda/kernels/csr_rows.cuh, is tested by way of them.
#include "cuda/kernels/spmm.cuh"
#include "instances.h"

namespace amstel::cuda {

AMSTEL_TEST_INSTANCE(spmm_f64, spmm_kernel<double, 2, 32, 32>);
AMSTEL_TEST_INSTANCE(spmm_f32, spmm_kernel<float, 4, 16, 16>);
AMSTEL_TEST_INSTANCE(spmm_f32_wide, spmm_kernel<float, 4, 32, 32>);
AMSTEL_TEST_INSTANCE(spmm_f32_narrow, spmm_kernel<float, 4, 4, 32>);
AMSTEL_TEST_INSTANCE(spmm_f32_odd, spmm_kernel<float, 1, 8, 32>);
AMSTEL_TEST_INSTANCE(spmm_bf16, spmm_kernel<__nv_bfloat16, 8, 8, 32>);
AMSTEL_TEST_INSTANCE(spmm_f16, spmm_kernel<__half, 8, 4, 4>);
AMSTEL_TEST_INSTANCE(spmm_f16_even, spmm_kernel<__half, 2, 8, 8>);

AMSTEL_TEST_INSTANCE(spmm_chunk_f64, spmm_chunk_kernel<double, 2, 32>);
AMSTEL_TEST_INSTANCE(spmm_chunk_f32, spmm_chunk_kernel<float, 4, 16>);
AMSTEL_TEST_INSTANCE(spmm_chunk_bf16, spmm_chunk_kernel<__nv_bfloat16, 8, 8>);
AMSTEL_TEST_INSTANCE(spmm_chunk_f16_even, spmm_chunk_kernel<__half, 2, 8>);

}  // namespace amstel::cuda
