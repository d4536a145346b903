// ROI pooling and matching, as entries of the table of one instruction set.
#include "cpu/kernels/roi_pool.inl.h"
#include "cpu/kernels/table.h"

namespace amstel::AMSTEL_ISA {

void add_roi_pool(cpu::Kernels& k) {
  for_dtypes([&]<class T>(int i) {
    k.roi[i][0] = kRoi<T, 2 * kRoiVector<T>>;
    k.roi[i][1] = kRoi<T, kRoiVector<T>>;
    k.roi[i][2] = kRoi<T, 1>;
  });
}

}  // namespace amstel::AMSTEL_ISA
