// ROI pooling and matching, as entries of the table of one instruction set.
#include "cpu/kernels/roi_match.inl.h"
#include "cpu/kernels/roi_pool.inl.h"
#include "cpu/kernels/table.h"

namespace amstel::AMSTEL_ISA {

template <class T, int L>
constexpr cpu::Kernels::Roi kRoi = {L, roi_pool<T, L>, roi_pool_grad<T, L>, roi_match<T, L>,
                                    roi_match_grad<T, L>};

void add_roi_pool(cpu::Kernels& k) {
  for_dtypes([&]<class T>(int i) {
    k.roi[i][0] = kRoi<T, 2 * kRoiVector<T>>;
    k.roi[i][1] = kRoi<T, kRoiVector<T>>;
    k.roi[i][2] = kRoi<T, 1>;
  });
}

}  // namespace amstel::AMSTEL_ISA
