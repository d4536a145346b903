// The table of one instruction set; compiled once for each (cmake/isa.cmake).
#include "cpu/kernels/table.h"

#define AMSTEL_STRING_(x) #x
#define AMSTEL_STRING(x) AMSTEL_STRING_(x)

namespace amstel::AMSTEL_ISA {

// Made when it is asked for: this is code of the instruction set too.
const cpu::Kernels& kernels() {
  static const cpu::Kernels table = [] {
    cpu::Kernels k{};
    k.isa = AMSTEL_STRING(AMSTEL_ISA);
    k.vector_bytes = kVectorBytes;
    add_spmm(k);
    add_conv_lstm(k);
    add_conv_gru(k);
    add_rim(k);
    add_mri(k);
    add_winograd(k);
    add_roi_pool(k);
    add_roi_align(k);
    return k;
  }();
  return table;
}

}  // namespace amstel::AMSTEL_ISA
