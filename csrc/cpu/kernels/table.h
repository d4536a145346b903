// How the kernels of one instruction set come into its table: each stem is a file of its own, so
// that threads of the compiler share the work and an edit compiles one stem.
#pragma once
#include "cpu/isa.h"
#include "cpu/kernels/vector.h"

namespace amstel::AMSTEL_ISA {

void add_spmm(cpu::Kernels& k);
void add_conv_lstm(cpu::Kernels& k);
void add_conv_gru(cpu::Kernels& k);
void add_rim(cpu::Kernels& k);
void add_mri(cpu::Kernels& k);
void add_winograd(cpu::Kernels& k);
void add_roi_pool(cpu::Kernels& k);
void add_roi_align(cpu::Kernels& k);

// f.operator()<T>(index of T in the table)
template <class F>
void for_dtypes(const F& f) {
  f.template operator()<double>(cpu::kDouble);
  f.template operator()<float>(cpu::kFloat);
  f.template operator()<bfloat16>(cpu::kBFloat16);
  f.template operator()<float16>(cpu::kHalf);
}

}  // namespace amstel::AMSTEL_ISA
