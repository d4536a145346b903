// The ConvGRU operators on the CPU: check, allocate, run threads. The arithmetic is in
// kernels/conv_gru.inl.h, the meaning of the arguments in library.cpp.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "common/conv_gru_check.h"
#include "common/stable.h"
#include "cpu/dispatch.h"
#include "cpu/huge_pages.h"
#include "cpu/isa.h"
#include "cpu/parallel.h"

namespace amstel::cpu {

std::tuple<Tensor, Tensor> conv_gru_gates(Tensor gates_x, Tensor gates_h, Tensor h, bool keep) {
  const GateShape s = check_gru_forward("conv_gru_gates", gates_x, gates_h, h);
  Tensor h_out = empty_cells(h, s, 1), activated = empty_cells(h, s, 4, keep);
  want_huge_pages(h_out), want_huge_pages(activated);
  const ConvGruArgs args{gates_x.const_data_ptr(),
                         gates_h.const_data_ptr(),
                         h.const_data_ptr(),
                         h_out.mutable_data_ptr(),
                         keep ? activated.mutable_data_ptr() : nullptr,
                         s.inner,
                         outgrows_caches(activated, s.inner)};
  const auto kernel = kernels().conv_gru_gates[dtype_index(s.dtype)];
  // The arithmetic of a cell costs about as much as moving 64 bytes.
  const int64_t parts = threads_for(s.rows * s.inner * 64);
  parallel_parts(parts,
                 [&](int64_t p) { kernel(args, s.rows * p / parts, s.rows * (p + 1) / parts); });
  return {h_out, activated};
}

std::tuple<Tensor, Tensor, Tensor> conv_gru_gates_grad(Tensor grad, Tensor activated, Tensor h) {
  const GateShape s = check_gru_backward("conv_gru_gates_grad", grad, activated, h);
  Tensor grad_x = empty_cells(h, s, 3), grad_g = empty_cells(h, s, 3);
  Tensor grad_h = empty_cells(h, s, 1);
  want_huge_pages(grad_x), want_huge_pages(grad_g), want_huge_pages(grad_h);
  const ConvGruGradArgs args{.grad = grad.const_data_ptr(),
                             .activated = activated.const_data_ptr(),
                             .h = h.const_data_ptr(),
                             .grad_gates_x = grad_x.mutable_data_ptr(),
                             .grad_gates_h = grad_g.mutable_data_ptr(),
                             .grad_h = grad_h.mutable_data_ptr(),
                             .inner = s.inner};
  const auto kernel = kernels().conv_gru_gates_grad[dtype_index(s.dtype)];
  const int64_t parts = threads_for(s.rows * s.inner * 64);
  parallel_parts(parts,
                 [&](int64_t p) { kernel(args, s.rows * p / parts, s.rows * (p + 1) / parts); });
  return {grad_x, grad_g, grad_h};
}

}  // namespace amstel::cpu

STABLE_TORCH_LIBRARY_IMPL(amstel, CPU, m) {
  m.impl("conv_gru_gates", TORCH_BOX(&amstel::cpu::conv_gru_gates));
  m.impl("conv_gru_gates_grad", TORCH_BOX(&amstel::cpu::conv_gru_gates_grad));
}
