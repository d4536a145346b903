// Winograd's convolutions, as entries of the table of one instruction set.
#include "cpu/kernels/table.h"
#include "cpu/kernels/winograd.inl.h"

namespace amstel::AMSTEL_ISA {

void add_winograd(cpu::Kernels& k) {
  k.winograd_weight = winograd_weight;
  for_dtypes([&]<class T>(int i) {
    if constexpr (!__is_same(T, double)) {
      k.winograd[i] = winograd<T>;
      k.winograd_planes[i][0] = winograd_planes<T, false>;
      k.winograd_planes[i][1] = winograd_planes<T, true>;
    }
  });
}

}  // namespace amstel::AMSTEL_ISA
