// The kernels of csrc/cuda/kernels/roi_align.cuh whose build is inspected; the tests launch them
// through the wrappers.
#include "cuda/kernels/roi_align.cuh"
#include "instances.h"

namespace amstel::cuda {

AMSTEL_TEST_INSTANCE(boxes_f64, align_boxes_kernel<double, double>);
AMSTEL_TEST_INSTANCE(boxes_f32, align_boxes_kernel<float, float>);
AMSTEL_TEST_INSTANCE(table_f64, ps_table_kernel<double, double>);
AMSTEL_TEST_INSTANCE(table_f32, ps_table_kernel<float, float>);
AMSTEL_TEST_INSTANCE(list_f64, align_list_kernel<double>);
AMSTEL_TEST_INSTANCE(list_f32, align_list_kernel<float>);

#define AMSTEL_ALIGN(name, T, C, N)                               \
  AMSTEL_TEST_INSTANCE(align_##name, roi_align_kernel<T, C, N>);  \
  AMSTEL_TEST_INSTANCE(single_##name, roi_align_kernel<T, C, 1>); \
  AMSTEL_TEST_INSTANCE(grad_##name, roi_align_grad_kernel<T, C>); \
  AMSTEL_TEST_INSTANCE(ps_##name, ps_roi_pool_kernel<T>);         \
  AMSTEL_TEST_INSTANCE(ps_grad_##name, ps_roi_pool_grad_kernel<T>)

AMSTEL_ALIGN(f64, double, double, 2);
AMSTEL_ALIGN(f32, float, float, 4);
AMSTEL_ALIGN(bf16, __nv_bfloat16, double, 8);
AMSTEL_ALIGN(f16, __half, float, 8);

}  // namespace amstel::cuda
