// The kernels of one instruction set; compiled once for each (cmake/isa.cmake).
#include "cpu/kernels/spmm.inl.h"

#define AMSTEL_STRING_(x) #x
#define AMSTEL_STRING(x) AMSTEL_STRING_(x)

namespace amstel::AMSTEL_ISA {

extern const cpu::Kernels kernels;
const cpu::Kernels kernels = {
    AMSTEL_STRING(AMSTEL_ISA),
    {{spmm<double, int32_t>, spmm<double, int64_t>},
     {spmm<float, int32_t>, spmm<float, int64_t>},
     {spmm<bfloat16, int32_t>, spmm<bfloat16, int64_t>},
     {spmm<float16, int32_t>, spmm<float16, int64_t>}},
    {{spmm_grad<double, int32_t>, spmm_grad<double, int64_t>},
     {spmm_grad<float, int32_t>, spmm_grad<float, int64_t>},
     {spmm_grad<bfloat16, int32_t>, spmm_grad<bfloat16, int64_t>},
     {spmm_grad<float16, int32_t>, spmm_grad<float16, int64_t>}},
    {epilogue_grad<double>, epilogue_grad<float>, epilogue_grad<bfloat16>, epilogue_grad<float16>},
};

}  // namespace amstel::AMSTEL_ISA
