// The ConvGRU gates on CUDA: check, allocate, launch.  The kernels and how their threads share the
// work are in kernels/conv_gru.cuh, the meaning of the arguments in library.cpp.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <tuple>

#include "common/conv_gru_check.h"
#include "common/stable.h"
#include "cuda/device.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/kernels/conv_gru.cuh"

namespace amstel::cuda {
namespace {

// f(Int<N>{}, grid, block): elements an access.  Every gate of every row begins at a multiple of
// `inner`.
template <class T, class F>
void launch(const char* op, const GateShape& s, const Alignment& alignment, const F& f) {
  const auto with = [&](auto width) {
    const int64_t parts = s.inner / decltype(width)::value;
    const dim3 block = block_of_rows(parts);
    const dim3 grid(blocks(op, divide_up(s.rows, block.y)), grid_yz(divide_up(parts, block.x)));
    f(width, grid, block);
    check_launch(op);
  };
  const auto fits = [&](int n, int64_t threads) {
    return s.inner % n == 0 && alignment.allows(n * static_cast<int>(sizeof(T))) &&
           s.rows * s.inner / n >= threads;
  };
  if (fits(kVectorWidth<T>, kManyThreads)) return with(Int<kVectorWidth<T>>{});
  if constexpr (sizeof(T) == 2) {
    if (fits(2, 0)) return with(Int<2>{});
  }
  with(Int<1>{});
}

}  // namespace

std::tuple<Tensor, Tensor> conv_gru_gates(Tensor gates_x, Tensor gates_h, Tensor h, bool keep) {
  const char* op = "conv_gru_gates";
  const GateShape s = check_gru_forward(op, gates_x, gates_h, h);
  const CurrentStream stream(h);
  Tensor h_out = empty_cells(h, s, 1), activated = empty_cells(h, s, 4, keep);
  if (s.rows * s.inner == 0) return {h_out, activated};
  with_float(s.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const ConvGruArgs<T> a{.gates_x = data<T>(gates_x),
                           .gates_h = data<T>(gates_h),
                           .h = data<T>(h),
                           .h_out = mutable_data<T>(h_out),
                           .activated = keep ? mutable_data<T>(activated) : nullptr,
                           .rows = s.rows,
                           .inner = s.inner};
    Alignment alignment;
    alignment.pointer(a.gates_x).pointer(a.gates_h).pointer(a.h);
    alignment.pointer(a.h_out).pointer(a.activated);
    launch<T>(op, s, alignment, [&](auto width, const dim3& grid, const dim3& block) {
      AMSTEL_LAUNCH((conv_gru_gates_kernel<T, decltype(width)::value>), grid, block, 0, stream, a);
    });
  });
  return {h_out, activated};
}

std::tuple<Tensor, Tensor, Tensor> conv_gru_gates_grad(Tensor grad, Tensor activated, Tensor h) {
  const char* op = "conv_gru_gates_grad";
  const GateShape s = check_gru_backward(op, grad, activated, h);
  const CurrentStream stream(h);
  Tensor grad_x = empty_cells(h, s, 3), grad_g = empty_cells(h, s, 3);
  Tensor grad_h = empty_cells(h, s, 1);
  if (s.rows * s.inner == 0) return {grad_x, grad_g, grad_h};
  with_float(s.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    const ConvGruGradArgs<T> a{.grad = data<T>(grad),
                               .activated = data<T>(activated),
                               .h = data<T>(h),
                               .grad_gates_x = mutable_data<T>(grad_x),
                               .grad_gates_h = mutable_data<T>(grad_g),
                               .grad_h = mutable_data<T>(grad_h),
                               .rows = s.rows,
                               .inner = s.inner};
    Alignment alignment;
    alignment.pointer(a.grad).pointer(a.activated).pointer(a.h);
    alignment.pointer(a.grad_gates_x).pointer(a.grad_gates_h).pointer(a.grad_h);
    launch<T>(op, s, alignment, [&](auto width, const dim3& grid, const dim3& block) {
      AMSTEL_LAUNCH((conv_gru_gates_grad_kernel<T, decltype(width)::value>), grid, block, 0, stream,
                    a);
    });
  });
  return {grad_x, grad_g, grad_h};
}

}  // namespace amstel::cuda

STABLE_TORCH_LIBRARY_IMPL(amstel, AMSTEL_CUDA_KEY, m) {
  m.impl("conv_gru_gates", TORCH_BOX(&amstel::cuda::conv_gru_gates));
  m.impl("conv_gru_gates_grad", TORCH_BOX(&amstel::cuda::conv_gru_gates_grad));
}
