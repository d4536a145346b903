// Gates of a ConvGRU, forward and backward, in one pass over the pre-activations; torch-free.
//
// Data flow.  A row holds the three gates of `inner` cells one after the other, r z n: a pixel of a
// channels_last tensor (inner = C), or a whole image of a contiguous one (inner = C H W).
// Everything is of one type, read once and written once: a cell costs forward 3 + 3 + 1 numbers
// read and 1 (with `activated` 5) written, backward 6 read and 7 written.
//
// A thread takes N neighboring cells of a row, 16 bytes an access where `inner` and pointers allow
// and there is work enough.  blockDim.x lanes go along a row, so that runs of at least a warp or a
// row are contiguous, and blockDim.y rows are done at once; grid.x are the rows, and further parts
// of a row follow along grid.y.  No sums over cells, so nothing depends on the order of the
// threads.
#pragma once

#include "cuda/kernels/conv_lstm.cuh"  // sigmoid, hyperbolic_tangent, load_each

namespace amstel::cuda {

// f(first cell) for the accesses of N cells of the calling thread in a row.
template <int N, typename F>
__device__ __forceinline__ void for_cells(int64_t inner, const F& f) {
  const int64_t step = int64_t{gridDim.y} * blockDim.x * N;
#pragma unroll 1
  for (int64_t k = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * N; k < inner; k += step) f(k);
}

template <typename T>
struct ConvGruArgs {
  const T *gates_x, *gates_h, *h;
  T *h_out, *activated;  // activated may be null
  int64_t rows, inner;
};

template <typename T, int N>
__global__ void __launch_bounds__(kThreads, sizeof(T) == 8 ? 2 : 3)
    conv_gru_gates_kernel(const ConvGruArgs<T> a) {
  using S = Accumulate<T>;
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= a.rows) return;
  for_cells<N>(a.inner, [=](int64_t k) {
    const int64_t gate = row * 3 * a.inner + k, state = row * a.inner + k;
    Cells<T, N> x[3], g[3], h;
    load_each(x, a.gates_x, gate, a.inner);
    load_each(g, a.gates_h, gate, a.inner);
    h.load(a.h + state);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const S r = sigmoid<T>(widen(x[0][i]) + widen(g[0][i]));
      const S z = sigmoid<T>(widen(x[1][i]) + widen(g[1][i]));
      const S n = hyperbolic_tangent<T>(widen(x[2][i]) + r * widen(g[2][i]));
      h[i] = narrow<T>((1 - z) * n + z * widen(h[i]));
      x[0][i] = narrow<T>(r);
      x[1][i] = narrow<T>(z);
      x[2][i] = narrow<T>(n);
    }
    h.store(a.h_out + state);
    if (!a.activated) return;
    T* const to = a.activated + row * 4 * a.inner + k;
#pragma unroll
    for (int i = 0; i < 3; ++i) x[i].store(to + i * a.inner);
    g[2].store(to + 3 * a.inner);
  });
}

template <typename T>
struct ConvGruGradArgs {
  const T *grad, *activated, *h;
  T *grad_gates_x, *grad_gates_h, *grad_h;
  int64_t rows, inner;
};

template <typename T, int N>
__global__ void __launch_bounds__(kThreads, 2)
    conv_gru_gates_grad_kernel(const ConvGruGradArgs<T> a) {
  using S = Accumulate<T>;
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= a.rows) return;
  for_cells<N>(a.inner, [=](int64_t k) {
    const int64_t gate = row * 3 * a.inner + k, state = row * a.inner + k;
    Cells<T, N> v[4], grad, h;
    load_each(v, a.activated, row * 4 * a.inner + k, a.inner);
    grad.load(a.grad + state);
    h.load(a.h + state);
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const S r = widen(v[0][i]), z = widen(v[1][i]), n = widen(v[2][i]), d = widen(grad[i]);
      const S d_n = d * (1 - z) * (1 - n * n);
      v[0][i] = narrow<T>(d_n * widen(v[3][i]) * (r * (1 - r)));
      v[1][i] = narrow<T>(d * (widen(h[i]) - n) * (z * (1 - z)));
      v[2][i] = narrow<T>(d_n);
      v[3][i] = narrow<T>(d_n * r);
      grad[i] = narrow<T>(d * z);
    }
#pragma unroll
    for (int i = 0; i < 3; ++i) {
      v[i].store(a.grad_gates_x + gate + i * a.inner);
      v[i == 2 ? 3 : i].store(a.grad_gates_h + gate + i * a.inner);
    }
    grad.store(a.grad_h + state);
  });
}

}  // namespace amstel::cuda
