// The input of a RIM's network and resampling, as entries of the table of one instruction set.
#include "cpu/kernels/rim.inl.h"
#include "cpu/kernels/table.h"

namespace amstel::AMSTEL_ISA {

void add_rim(cpu::Kernels& k) {
  for_dtypes([&]<class T>(int i) {
    k.rim_input[i] = rim_input<T>;
    k.rim_input_grad[i] = rim_input_grad<T>;
    k.bicubic_up[i] = bicubic_up<T>;
    if constexpr (__is_same(T, Sum<T>)) k.bicubic_down[i] = bicubic_down<T>;
  });
}

}  // namespace amstel::AMSTEL_ISA
