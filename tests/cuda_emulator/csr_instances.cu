// The kernels of csrc/cuda/kernels/csr.cuh that the tests launch and whose build is inspected, for
// each index that is given and each of the result.
#include "cuda/kernels/csr.cuh"
#include "instances.h"

namespace amstel::cuda {

AMSTEL_TEST_INSTANCE(coo_keys_i32, coo_keys_kernel<int32_t, int32_t>);
AMSTEL_TEST_INSTANCE(coo_keys_i64_i32, coo_keys_kernel<int64_t, int32_t>);
AMSTEL_TEST_INSTANCE(coo_keys_i64, coo_keys_kernel<int64_t, int64_t>);
AMSTEL_TEST_INSTANCE(csr_keys_i32, csr_keys_kernel<int32_t>);
AMSTEL_TEST_INSTANCE(csr_keys_i64, csr_keys_kernel<int64_t>);
AMSTEL_TEST_INSTANCE(csr_from_sorted_i32, csr_from_sorted_kernel<int32_t, int32_t>);
AMSTEL_TEST_INSTANCE(csr_from_sorted_i64_i32, csr_from_sorted_kernel<int64_t, int32_t>);
AMSTEL_TEST_INSTANCE(csr_from_sorted_i64, csr_from_sorted_kernel<int64_t, int64_t>);
AMSTEL_TEST_INSTANCE(csr_check_i32, csr_check_kernel<int32_t>);
AMSTEL_TEST_INSTANCE(csr_check_i64, csr_check_kernel<int64_t>);
AMSTEL_TEST_INSTANCE(first_nan_f64, first_nan_kernel<double>);
AMSTEL_TEST_INSTANCE(first_nan_f32, first_nan_kernel<float>);
AMSTEL_TEST_INSTANCE(first_nan_bf16, first_nan_kernel<__nv_bfloat16>);
AMSTEL_TEST_INSTANCE(first_nan_f16, first_nan_kernel<__half>);

}  // namespace amstel::cuda
