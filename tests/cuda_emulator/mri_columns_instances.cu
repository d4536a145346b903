// The kernels of csrc/cuda/kernels/mri_columns.cuh, and with them the transforms of
// csrc/cuda/kernels/fft.cuh, that the tests launch and whose build is inspected.
#include "cuda/kernels/mri_columns.cuh"
#include "instances.h"

namespace amstel::cuda {

AMSTEL_TEST_INSTANCE(columns_f64, mri_columns_kernel<double>);
AMSTEL_TEST_INSTANCE(columns_f32, mri_columns_kernel<float>);

}  // namespace amstel::cuda
