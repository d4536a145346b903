// The ConvLSTM operators on the CPU: check, allocate, run threads. The arithmetic is in
// kernels/conv_lstm.inl.h, the meaning of the arguments in library.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include "common/conv_lstm_check.h"
#include "common/rows.h"
#include "common/stable.h"
#include "cpu/dispatch.h"
#include "cpu/huge_pages.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"

namespace amstel::cpu {
namespace {

template <class P>
P offset(P p, int64_t count, int64_t size) {
  using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<P>>, const char, char>;
  return p ? static_cast<Byte*>(p) + count * size : nullptr;
}

void* mutable_pointer(const OptionalTensor& t) { return t ? t->mutable_data_ptr() : nullptr; }

}  // namespace

void conv_lstm_gates(Tensor gates, OptionalTensor more, Tensor c, OptionalTensor peephole, Tensor h,
                     Tensor c_out, OptionalTensor activated) {
  const char* op = "conv_lstm_gates";
  const GateShape s = check_forward(op, gates, more, c, peephole, h, c_out, activated);
  want_huge_pages(h), want_huge_pages(c_out);
  if (activated) want_huge_pages(*activated);
  const ConvLstmArgs args{.gates = gates.const_data_ptr(),
                          .more = pointer(more),
                          .c = c.const_data_ptr(),
                          .peephole = pointer(peephole),
                          .h = h.mutable_data_ptr(),
                          .c_out = c_out.mutable_data_ptr(),
                          .activated = mutable_pointer(activated),
                          .inner = s.inner,
                          .stream = activated && outgrows_caches(*activated, s.inner)};
  const auto kernel = kernels().conv_lstm_gates[dtype_index(s.dtype)][s.state == s.dtype];
  // The arithmetic of a cell costs about as much as moving 64 bytes.
  const int64_t parts = threads_for(s.rows * s.inner * 64);
  parallel_parts(parts,
                 [&](int64_t p) { kernel(args, s.rows * p / parts, s.rows * (p + 1) / parts); });
}

Tensor conv_lstm_gates_grad(Tensor activated, Tensor c, Tensor c_out, OptionalTensor peephole,
                            OptionalTensor grad_h, OptionalTensor grad_h_more,
                            OptionalTensor grad_c, Tensor grad_c_out, Tensor grad_gates,
                            bool bias) {
  const char* op = "conv_lstm_gates_grad";
  const GateShape s = check_backward(op, activated, c, c_out, peephole, grad_h, grad_h_more, grad_c,
                                     grad_c_out, grad_gates);
  want_huge_pages(grad_c_out), want_huge_pages(grad_gates);
  const int64_t block = rows_per_block(s.inner), blocks = divide_up(s.rows, block);
  const int64_t width = ((bias ? 4 : 0) + (peephole ? 3 : 0)) * s.inner;
  Tensor sums = empty(c, {blocks, width}, s.sum);
  if (width) torch::stable::zero_(sums);
  const ConvLstmGradArgs args{.activated = activated.const_data_ptr(),
                              .c = c.const_data_ptr(),
                              .c_out = c_out.const_data_ptr(),
                              .peephole = pointer(peephole),
                              .grad_h = pointer(grad_h),
                              .grad_h_more = pointer(grad_h_more),
                              .grad_c = pointer(grad_c),
                              .grad_c_out = grad_c_out.mutable_data_ptr(),
                              .grad_gates = grad_gates.mutable_data_ptr(),
                              .inner = s.inner};
  const auto kernel = kernels().conv_lstm_gates_grad[dtype_index(s.dtype)][s.state == s.dtype];
  const int64_t size = static_cast<int64_t>(sums.element_size());
  const int64_t parts = threads_for(s.rows * s.inner * 64);
  parallel_parts(parts, [&](int64_t p) {
    for (int64_t b = blocks * p / parts; b < blocks * (p + 1) / parts; ++b) {
      ConvLstmGradArgs part = args;
      void* const sum = offset(sums.mutable_data_ptr(), b * width, size);
      if (bias) part.bias_sum = sum;
      if (peephole) part.peephole_sum = offset(sum, bias ? 4 * s.inner : 0, size);
      kernel(part, b * block, std::min(s.rows, (b + 1) * block));
    }
  });
  return sums;
}

}  // namespace amstel::cpu

STABLE_TORCH_LIBRARY_IMPL(amstel, CPU, m) {
  m.impl("conv_lstm_gates", TORCH_BOX(&amstel::cpu::conv_lstm_gates));
  m.impl("conv_lstm_gates_grad", TORCH_BOX(&amstel::cpu::conv_lstm_gates_grad));
}
