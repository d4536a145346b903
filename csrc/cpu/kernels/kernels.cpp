// The kernels of one instruction set; compiled once for each (cmake/isa.cmake).
#include "cpu/kernels/conv_gru.inl.h"
#include "cpu/kernels/conv_lstm.inl.h"
#include "cpu/kernels/mri.inl.h"
#include "cpu/kernels/rim.inl.h"
#include "cpu/kernels/roi_pool.inl.h"
#include "cpu/kernels/spmm.inl.h"
#include "cpu/kernels/winograd.inl.h"

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
    {conv_lstm_gates<double>, conv_lstm_gates<float>, conv_lstm_gates<bfloat16>,
     conv_lstm_gates<float16>},
    {conv_lstm_gates_grad<double>, conv_lstm_gates_grad<float>, conv_lstm_gates_grad<bfloat16>,
     conv_lstm_gates_grad<float16>},
    {conv_gru_gates<double>, conv_gru_gates<float>, conv_gru_gates<bfloat16>,
     conv_gru_gates<float16>},
    {conv_gru_gates_grad<double>, conv_gru_gates_grad<float>, conv_gru_gates_grad<bfloat16>,
     conv_gru_gates_grad<float16>},
    {rim_input<double>, rim_input<float>, rim_input<bfloat16>, rim_input<float16>},
    {rim_input_grad<double>, rim_input_grad<float>, rim_input_grad<bfloat16>,
     rim_input_grad<float16>},
    {bicubic_down<double>, bicubic_down<float>},
    {bicubic_up<double>, bicubic_up<float>, bicubic_up<bfloat16>, bicubic_up<float16>},
    kVectorBytes,
    {mri_columns<double>, mri_columns<float>},
    {mri_strips<double>, mri_strips<float>},
    {mri_blocks<double>, mri_blocks<float>},
    {coil_expand<double>, coil_expand<float>},
    {coil_reduce<double>, coil_reduce<float>},
    {kspace_residual<double>, kspace_residual<float>},
    winograd_weight,
    {nullptr, winograd<float>, winograd<bfloat16>, winograd<float16>},
    {{nullptr, nullptr},
     {winograd_planes<float, false>, winograd_planes<float, true>},
     {winograd_planes<bfloat16, false>, winograd_planes<bfloat16, true>},
     {winograd_planes<float16, false>, winograd_planes<float16, true>}},
    {{kRoi<double, 2 * kRoiVector<double>>, kRoi<double, kRoiVector<double>>, kRoi<double, 1>},
     {kRoi<float, 2 * kRoiVector<float>>, kRoi<float, kRoiVector<float>>, kRoi<float, 1>},
     {kRoi<bfloat16, 2 * kRoiVector<bfloat16>>, kRoi<bfloat16, kRoiVector<bfloat16>>,
      kRoi<bfloat16, 1>},
     {kRoi<float16, 2 * kRoiVector<float16>>, kRoi<float16, kRoiVector<float16>>,
      kRoi<float16, 1>}},
};

}  // namespace amstel::AMSTEL_ISA
