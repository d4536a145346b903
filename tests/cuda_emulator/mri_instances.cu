// The kernels of csrc/cuda/kernels/mri.cuh that the tests launch and whose build is inspected, with
// every width of access.
#include "cuda/kernels/mri.cuh"
#include "instances.h"

namespace amstel::cuda {

#define AMSTEL_MRI(name, S, N)                                   \
  AMSTEL_TEST_INSTANCE(expand_##name, coil_expand_kernel<S, N>); \
  AMSTEL_TEST_INSTANCE(reduce_##name, coil_reduce_kernel<S, N>); \
  AMSTEL_TEST_INSTANCE(residual_##name, kspace_residual_kernel<S, N>)

AMSTEL_MRI(f64, double, 2);
AMSTEL_MRI(f32, float, 4);
AMSTEL_MRI(f64_single, double, 1);
AMSTEL_MRI(f32_pair, float, 2);
AMSTEL_MRI(f32_single, float, 1);

}  // namespace amstel::cuda
