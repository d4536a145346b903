// The kernels of csrc/cuda/kernels/conv_lstm.cuh that the tests launch and whose build is
// inspected: of each dtype the widest accesses, and the narrow ones once.
#include "cuda/kernels/conv_lstm.cuh"
#include "instances.h"

namespace amstel::cuda {

// U: of the states; the kernels without what is not given only with the widest accesses.
#define AMSTEL_GATES(name, T, U, N, GradN)                                               \
  AMSTEL_TEST_INSTANCE(gates_##name, conv_lstm_gates_kernel<T, U, N, Given::kAnything>); \
  AMSTEL_TEST_INSTANCE(grad_##name, conv_lstm_gates_grad_kernel<T, U, GradN, false>);    \
  AMSTEL_TEST_INSTANCE(grad_peephole_##name, conv_lstm_gates_grad_kernel<T, U, GradN, true>)
#define AMSTEL_WIDE_GATES(name, T, U, N, GradN)                                               \
  AMSTEL_GATES(name, T, U, N, GradN);                                                         \
  AMSTEL_TEST_INSTANCE(gates_alone_##name, conv_lstm_gates_kernel<T, U, N, Given::kNothing>); \
  AMSTEL_TEST_INSTANCE(gates_more_##name, conv_lstm_gates_kernel<T, U, N, Given::kNoPeephole>)

AMSTEL_WIDE_GATES(f64, double, double, 2, 2);
AMSTEL_WIDE_GATES(f32, float, float, 4, 4);
AMSTEL_WIDE_GATES(bf16, __nv_bfloat16, float, 8, 4);
AMSTEL_WIDE_GATES(f16, __half, float, 8, 4);
AMSTEL_WIDE_GATES(bf16_short, __nv_bfloat16, __nv_bfloat16, 8, 4);
AMSTEL_WIDE_GATES(f16_short, __half, __half, 8, 4);
AMSTEL_GATES(f32_odd, float, float, 1, 1);
AMSTEL_GATES(f16_even, __half, float, 2, 2);

}  // namespace amstel::cuda
