// The products of the graph operators, as entries of the table of one instruction set.
#include "cpu/kernels/spmm.inl.h"
#include "cpu/kernels/table.h"

namespace amstel::AMSTEL_ISA {

void add_spmm(cpu::Kernels& k) {
  for_dtypes([&]<class T>(int i) {
    k.spmm[i][0] = spmm<T, int32_t>;
    k.spmm[i][1] = spmm<T, int64_t>;
    k.spmm_grad[i][0] = spmm_grad<T, int32_t>;
    k.spmm_grad[i][1] = spmm_grad<T, int64_t>;
    k.epilogue_grad[i] = epilogue_grad<T>;
  });
}

}  // namespace amstel::AMSTEL_ISA
