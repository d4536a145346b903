// The gradient of multi-coil MRI, as entries of the table of one instruction set.
#include "cpu/kernels/mri_grad.inl.h"
#include "cpu/kernels/table.h"

namespace amstel::AMSTEL_ISA {

void add_mri(cpu::Kernels& k) {
  for_dtypes([&]<class T>(int i) {
    if constexpr (__is_same(T, Sum<T>)) {
      k.mri_columns[i] = mri_columns<T>;
      k.mri_strips[i] = mri_strips<T>;
      k.mri_blocks[i] = mri_blocks<T>;
      k.mri_columns_grad[i] = mri_columns_grad<T>;
      k.mri_strips_grad[i] = mri_strips_grad<T>;
      k.coil_expand[i] = coil_expand<T>;
      k.coil_reduce[i] = coil_reduce<T>;
      k.kspace_residual[i] = kspace_residual<T>;
    }
  });
}

}  // namespace amstel::AMSTEL_ISA
