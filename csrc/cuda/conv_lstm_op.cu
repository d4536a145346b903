// The ConvLSTM gates on CUDA: check, allocate, launch.  The kernels and how their threads share the
// work are in kernels/conv_lstm.cuh, the meaning of the arguments in library.cpp.
#include <torch/csrc/stable/library.h>

#include <algorithm>

#include "common/conv_lstm_check.h"
#include "common/stable.h"
#include "cuda/device.cuh"
#include "cuda/dispatch.cuh"
#include "cuda/kernels/conv_lstm.cuh"

namespace amstel::cuda {
namespace {

template <Given kGiven>
using GivenIs = std::integral_constant<Given, kGiven>;

// f(Type<U>{}): that of c, which short types may keep in float.
template <class T, class F>
void with_state(const GateShape& s, const F& f) {
  if constexpr (sizeof(T) == 2) {
    if (s.state == s.dtype) return f(Type<T>{});
  }
  f(Type<Accumulate<T>>{});
}

// f(Int<N>{}): elements an access of T, at most Widest, which leave `threads`.  `elements` and
// `states` are what the arrays of T and of U are aligned to; every gate of every row begins at a
// multiple of `inner`.
template <class T, class U, int Widest, class F>
void with_width(const GateShape& s, int64_t threads, const Alignment& elements,
                const Alignment& states, const F& f) {
  const auto fits = [&](int n) {
    return s.inner % n == 0 && elements.allows(n * static_cast<int>(sizeof(T))) &&
           states.allows(std::min(n * static_cast<int>(sizeof(U)), 16));
  };
  if (fits(Widest) && s.rows * s.inner / Widest >= threads) return f(Int<Widest>{});
  if constexpr (sizeof(T) == 2) {
    if (fits(2)) return f(Int<2>{});
  }
  f(Int<1>{});
}

// The fewest lanes that hold a row of `parts` accesses at once, a power of two for the sums; the
// rest of the block takes further rows.
dim3 block_for(int64_t parts) {
  unsigned lanes = 1;
  while (lanes < parts && lanes < kThreads) lanes *= 2;
  return dim3(lanes, kThreads / lanes);
}

unsigned grid_y(int64_t parts, const dim3& block) { return grid_yz(divide_up(parts, block.x)); }

}  // namespace

void conv_lstm_gates(Tensor gates, OptionalTensor more, Tensor c, OptionalTensor peephole, Tensor h,
                     Tensor c_out, OptionalTensor activated) {
  const char* op = "conv_lstm_gates";
  const GateShape s = check_forward(op, gates, more, c, peephole, h, c_out, activated, true);
  if (s.rows * s.inner == 0) return;
  const int64_t h_stride = h.dim() == 2 ? h.stride(0) : s.inner;
  const CurrentStream stream(gates);
  with_float(s.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    with_state<T>(s, [&](auto state) {
      using U = typename decltype(state)::type;
      const ConvLstmArgs<T, U> a{.gates = data<T>(gates),
                                 .more = data<T>(more),
                                 .c = data<U>(c),
                                 .peephole = data<Accumulate<T>>(peephole),
                                 .h = mutable_data<T>(h),
                                 .c_out = mutable_data<U>(c_out),
                                 .activated = mutable_data<T>(activated),
                                 .rows = s.rows,
                                 .inner = s.inner,
                                 .more_stride = more && more->size(0) == 1 ? 0 : 4 * s.inner,
                                 .h_stride = h_stride};
      Alignment elements, states;
      if (s.rows > 1) elements.bytes(h_stride * static_cast<int64_t>(sizeof(T)));
      elements.pointer(a.gates).pointer(a.more).pointer(a.h).pointer(a.activated);
      states.pointer(a.c).pointer(a.c_out);
      states.pointer(a.peephole);
      const auto launch = [&](auto width, auto given) {
        constexpr int N = decltype(width)::value;
        const dim3 block = block_of_rows(s.inner / N);
        const dim3 grid(blocks(op, divide_up(s.rows, block.y)), grid_y(s.inner / N, block));
        AMSTEL_LAUNCH((conv_lstm_gates_kernel<T, U, N, decltype(given)::value>), grid, block, 0,
                      stream, a);
        check_launch(op);
      };
      with_width<T, U, kVectorWidth<T>>(s, kManyThreads, elements, states, [&](auto width) {
        // Narrow accesses are few and take the kernel that serves all.
        if constexpr (decltype(width)::value == kVectorWidth<T>) {
          if (!peephole && !more && !activated) return launch(width, GivenIs<Given::kNothing>{});
          if (!peephole) return launch(width, GivenIs<Given::kNoPeephole>{});
        }
        launch(width, GivenIs<Given::kAnything>{});
      });
    });
  });
}

Tensor conv_lstm_gates_grad(Tensor activated, Tensor c, Tensor c_out, OptionalTensor peephole,
                            OptionalTensor grad_h, OptionalTensor grad_h_more,
                            OptionalTensor grad_c, Tensor grad_c_out, Tensor grad_gates,
                            bool bias) {
  const char* op = "conv_lstm_gates_grad";
  const GateShape s = check_backward(op, activated, c, c_out, peephole, grad_h, grad_h_more, grad_c,
                                     grad_c_out, grad_gates);
  const CurrentStream stream(c);
  const int64_t per_block = rows_per_block(s.inner);
  const int64_t width = ((bias ? 4 : 0) + (peephole ? 3 : 0)) * s.inner;
  Tensor sums = empty(c, {divide_up(s.rows, per_block), width}, s.sum);
  if (s.rows * s.inner == 0) return sums;
  with_float(s.dtype, [&](auto type) {
    using T = typename decltype(type)::type;
    using S = Accumulate<T>;
    with_state<T>(s, [&](auto state) {
      using U = typename decltype(state)::type;
      S* const sum = mutable_data<S>(sums);
      S* const peephole_sum = peephole ? sum + (bias ? 4 * s.inner : 0) : nullptr;
      const ConvLstmGradArgs<T, U> a{.activated = data<T>(activated),
                                     .c = data<U>(c),
                                     .c_out = data<U>(c_out),
                                     .peephole = data<S>(peephole),
                                     .grad_h = data<T>(grad_h),
                                     .grad_h_more = data<T>(grad_h_more),
                                     .grad_c = data<U>(grad_c),
                                     .grad_c_out = mutable_data<U>(grad_c_out),
                                     .grad_gates = mutable_data<T>(grad_gates),
                                     .bias_sum = bias ? sum : nullptr,
                                     .peephole_sum = peephole_sum,
                                     .sum_stride = width,
                                     .rows = s.rows,
                                     .rows_per_block = per_block,
                                     .inner = s.inner};
      Alignment elements, states;
      elements.pointer(a.activated).pointer(a.grad_h).pointer(a.grad_h_more);
      elements.pointer(a.grad_gates);
      states.pointer(a.c).pointer(a.c_out).pointer(a.peephole).pointer(a.grad_c);
      states.pointer(a.grad_c_out).pointer(sum);
      const auto launch = [&](auto width, auto with_peephole) {
        constexpr int N = decltype(width)::value;
        constexpr bool kPeephole = decltype(with_peephole)::value;
        const dim3 block = block_for(s.inner / N);
        const dim3 grid(blocks(op, divide_up(s.rows, per_block)), grid_y(s.inner / N, block));
        AMSTEL_LAUNCH((conv_lstm_gates_grad_kernel<T, U, N, kPeephole>), grid, block, 0, stream, a);
        check_launch(op);
      };
      // As many elements as states fit into 16 bytes: the sums take the registers for more.
      with_width<T, S, kVectorWidth<S>>(s, 0, elements, states, [&](auto width) {
        peephole ? launch(width, std::true_type{}) : launch(width, std::false_type{});
      });
    });
  });
  return sums;
}

}  // namespace amstel::cuda

STABLE_TORCH_LIBRARY_IMPL(amstel, AMSTEL_CUDA_KEY, m) {
  m.impl("conv_lstm_gates", TORCH_BOX(&amstel::cuda::conv_lstm_gates));
  m.impl("conv_lstm_gates_grad", TORCH_BOX(&amstel::cuda::conv_lstm_gates_grad));
}
