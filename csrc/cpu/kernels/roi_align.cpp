// ROI align and position-sensitive ROI pooling, as entries of the table of one instruction set.
// Compiled without contraction, so that every product is rounded as torchvision rounds it.
#include "cpu/kernels/roi_align.inl.h"
#include "cpu/kernels/table.h"

namespace amstel::AMSTEL_ISA {

void add_roi_align(cpu::Kernels& k) {
  for_dtypes([&]<class T>(int i) {
    k.roi_align[i][0] = kRoiAlign<T, 2 * kRoiVector<T>>;
    k.roi_align[i][1] = kRoiAlign<T, kRoiVector<T>>;
    k.roi_align[i][2] = kRoiAlign<T, 1>;
  });
}

}  // namespace amstel::AMSTEL_ISA
