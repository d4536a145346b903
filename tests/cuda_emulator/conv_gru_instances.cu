// The kernels of csrc/cuda/kernels/conv_gru.cuh that the tests launch and whose build is inspected:
// of each dtype the widest accesses, and the narrow ones once.
#include "cuda/kernels/conv_gru.cuh"
#include "instances.h"

namespace amstel::cuda {

#define AMSTEL_GATES(name, T, N)                                   \
  AMSTEL_TEST_INSTANCE(gates_##name, conv_gru_gates_kernel<T, N>); \
  AMSTEL_TEST_INSTANCE(grad_##name, conv_gru_gates_grad_kernel<T, N>)

AMSTEL_GATES(f64, double, 2);
AMSTEL_GATES(f32, float, 4);
AMSTEL_GATES(bf16, __nv_bfloat16, 8);
AMSTEL_GATES(f16, __half, 8);
AMSTEL_GATES(f32_odd, float, 1);
AMSTEL_GATES(f16_even, __half, 2);

}  // namespace amstel::cuda
