// The gates of a ConvLSTM, as entries of the table of one instruction set.
#include "cpu/kernels/conv_lstm.inl.h"
#include "cpu/kernels/table.h"

namespace amstel::AMSTEL_ISA {

void add_conv_lstm(cpu::Kernels& k) {
  for_dtypes([&]<class T>(int i) {
    k.conv_lstm_gates[i][0] = conv_lstm_gates<T, Sum<T>>;
    k.conv_lstm_gates[i][1] = conv_lstm_gates<T, T>;
    k.conv_lstm_gates_grad[i][0] = conv_lstm_gates_grad<T, Sum<T>>;
    k.conv_lstm_gates_grad[i][1] = conv_lstm_gates_grad<T, T>;
  });
}

}  // namespace amstel::AMSTEL_ISA
