// The gates of a ConvLSTM, as entries of the table of one instruction set.
#include "cpu/kernels/conv_lstm.inl.h"
#include "cpu/kernels/table.h"

namespace amstel::AMSTEL_ISA {

void add_conv_lstm(cpu::Kernels& k) {
  for_dtypes([&]<class T>(int i) {
    k.conv_lstm_gates[i] = conv_lstm_gates<T>;
    k.conv_lstm_gates_grad[i] = conv_lstm_gates_grad<T>;
  });
}

}  // namespace amstel::AMSTEL_ISA
