// The gates of a ConvGRU, as entries of the table of one instruction set.
#include "cpu/kernels/conv_gru.inl.h"
#include "cpu/kernels/table.h"

namespace amstel::AMSTEL_ISA {

void add_conv_gru(cpu::Kernels& k) {
  for_dtypes([&]<class T>(int i) {
    k.conv_gru_gates[i] = conv_gru_gates<T>;
    k.conv_gru_gates_grad[i] = conv_gru_gates_grad<T>;
  });
}

}  // namespace amstel::AMSTEL_ISA
