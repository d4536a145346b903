// Gates of a ConvLSTM, forward and backward, in one pass over the pre-activations; torch-free.
//
// Data flow.  A row holds the four gates of `inner` cells one after the other, i f g o: a pixel of
// a channels_last tensor (inner = C), or a whole image of a contiguous one (inner = C H W).
// Everything is read and written once.  With T of t bytes and states U of s bytes (T itself, or 4
// bytes where a sequence keeps c of a short type in float), a cell costs forward
//   4 t (8 t with `more`) + s read, t + s (5 t + s with `activated`) written, and backward
//   4 t + 2 s + t for each gradient of h + s for that of c read, 4 t + s written,
// and 4 / (rows of a block) for each of its sums.  Peepholes [3, inner] come from the cache.
//
// A thread takes N neighboring cells of a row, 16 bytes an access where `inner` and pointers allow
// and there is work enough. blockDim.x lanes go along a row, so that runs of at least a warp or a
// row are contiguous, and blockDim.y rows are done at once; further parts of a row follow along
// grid.y. Forward, grid.x are the rows.  Backward, it is blocks of rows, of a number that depends
// on the shape alone: a thread keeps the sums of its cells over its rows in registers, the rows of
// a block meet in shared memory in a tree (lanes are a power of two), and each block writes its own
// sums.  So no atomics and the same bits in every run.
//
// A thread reads all that it needs of a cell before it writes any of it, and nobody else does:
// outputs may take the place of inputs.  Nothing here is __restrict__ for this reason.
#pragma once

#include "cuda/kernels/kernel.cuh"

namespace amstel::cuda {

// `Count` accesses of N cells, `stride` apart; zero without a pointer.
template <int Count, int N, typename T>
__device__ __forceinline__ void load_each(Cells<T, N> (&cells)[Count], const T* pointer, int64_t at,
                                          int64_t stride) {
#pragma unroll
  for (int g = 0; g < Count; ++g) cells[g] = {};
  if (!pointer) return;
#pragma unroll
  for (int g = 0; g < Count; ++g) cells[g].load(pointer + at + g * stride);
}

// ---- Activations, to 2 units in the last place of T ----

// e^z for z <= 0 to 1.04 units, where the approximation behind expf is further off; below the
// smallest normal number 0.  z = n ln 2 + r, and e^z = s p + s with s = 2^n and p = e^r - 1 by its
// Taylor series.
__device__ __forceinline__ float exponential(float z) {
  constexpr float kMagic = 0x1.8p23f;  // adding it rounds to an integer, held by the lowest bits
  const float shifted = fmaf(z, 0x1.715476p+0f, kMagic), n = shifted - kMagic;
  const float r = fmaf(n, -0x1.7f7d1cp-20f, fmaf(n, -0x1.62e4p-1f, z));
  float q = 1.0f / 5040;
  q = fmaf(q, r, 1.0f / 720);
  q = fmaf(q, r, 1.0f / 120);
  q = fmaf(q, r, 1.0f / 24);
  q = fmaf(q, r, 1.0f / 6);
  q = fmaf(q, r, 0.5f);
  const float p = fmaf(r * r, q, r);
  const float s = __uint_as_float((__float_as_uint(shifted) << 23) + (127u << 23));
  return z < -87.33654f ? 0.0f : fmaf(s, p, s);
}
__device__ __forceinline__ double exponential(double z) { return exp(z); }
__device__ __forceinline__ float multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
__device__ __forceinline__ double multiply_add(double a, double b, double c) {
  return fma(a, b, c);
}
// 1 / d for d in [1, 2]; to 2 units in the last place will do.
__device__ __forceinline__ float inverse(float d) { return __fdividef(1.0f, d); }
__device__ __forceinline__ double inverse(double d) { return 1.0 / d; }

// y = n / (1 + e) with e = exp(-|x|) and n = 1 or e.  One Newton step on the residual n - y (1 + e)
// gives back what the inverse and the rounding of 1 + e lost; what is left, the error of e and half
// a unit, was found to be at most 1.52 units in float.  The short types, of 11 bits at most, take
// the quick exponential, right to 18 bits, and no such step: half the instructions.
template <typename T, typename S>
__device__ __forceinline__ S sigmoid(S x) {
  const S z = x < 0 ? x : -x;
  if constexpr (sizeof(T) == 2) {
    const S e = __expf(z), r = inverse(1 + e);
    return x < 0 ? e * r : r;
  } else {
    const S e = exponential(z);
    const S n = x < 0 ? e : S(1), r = inverse(1 + e), y = n * r;
    return multiply_add(r, multiply_add(-y, e, n - y), y);
  }
}

// For the short types (1 - e) / (1 + e) with e = exp(-2 |x|), and where that cancels x times a
// polynomial in x^2: right to 18 bits, without a branch.
template <typename T, typename S>
__device__ __forceinline__ S hyperbolic_tangent(S x) {
  if constexpr (sizeof(T) == 2) {
    const S size = x < 0 ? -x : x, e = __expf(-2 * size), square = x * x;
    const S far = (1 - e) * inverse(1 + e);
    S near = fmaf(square, -17.0f / 315, 2.0f / 15);
    near = fmaf(square, near, -1.0f / 3);
    near = fmaf(square * x, near, x);
    return size < 0.25f ? near : x < 0 ? -far : far;
  } else if constexpr (sizeof(T) == 4) {
    return tanhf(x);
  } else {
    return tanh(x);
  }
}

// ---- Forward ----

// What may be given beside gates and c: what cannot be costs neither registers nor instructions.
enum class Given { kNothing, kNoPeephole, kAnything };

template <typename T, typename U>
struct ConvLstmArgs {
  const T *gates, *more;  // more may be null, like peephole and activated
  const U* c;
  const Accumulate<T>* peephole;  // of i, f, o
  T* h;
  U* c_out;
  T* activated;
  int64_t rows, inner;
  int64_t more_stride;  // from row to row: 4 inner, or 0 where one row (a bias) serves all
  int64_t h_stride;     // of h, whose rows may be parts of longer ones
};

// Blocks that shall be resident: as many as registers allow without spilling.
template <typename T, Given kGiven>
constexpr int resident_gates() {
  if (sizeof(T) == 8) return 2;
  if (kGiven == Given::kNothing) return 4;
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000  // whose compiler takes more of them
  if (sizeof(T) == 4) return 2;
#endif
  return kGiven == Given::kNoPeephole || sizeof(T) == 4 ? 3 : 2;
}

template <typename T, typename U, int N, Given kGiven>
__global__ void __launch_bounds__(kThreads, resident_gates<T, kGiven>())
    conv_lstm_gates_kernel(const ConvLstmArgs<T, U> a) {
  using S = Accumulate<T>;
  const int64_t row = int64_t{blockIdx.x} * blockDim.y + threadIdx.y;
  if (row >= a.rows) return;
  const int64_t step = int64_t{gridDim.y} * blockDim.x * N;
  const bool peephole = kGiven == Given::kAnything && a.peephole;
#pragma unroll 1
  for (int64_t k = (int64_t{blockIdx.y} * blockDim.x + threadIdx.x) * N; k < a.inner; k += step) {
    const int64_t gate = row * 4 * a.inner + k, state = row * a.inner + k;
    Cells<T, N> gates[4], more[4], h;
    Cells<U, N> c;
    Cells<S, N> p[3];
    load_each(gates, a.gates, gate, a.inner);
    if constexpr (kGiven != Given::kNothing) {
      load_each(more, a.more, row * a.more_stride + k, a.inner);
    }
    c.load(a.c + state);
    if constexpr (kGiven == Given::kAnything) load_each(p, a.peephole, k, a.inner);
#pragma unroll
    for (int n = 0; n < N; ++n) {
      S v[4], old = widen(c[n]);
#pragma unroll
      for (int g = 0; g < 4; ++g) {
        v[g] = widen(gates[g][n]);
        if constexpr (kGiven != Given::kNothing) v[g] += widen(more[g][n]);
      }
      if (peephole) {  // 0 * c would spread a c that is not finite
        v[0] += p[0][n] * old;
        v[1] += p[1][n] * old;
      }
      v[0] = sigmoid<T>(v[0]);
      v[1] = sigmoid<T>(v[1]);
      v[2] = hyperbolic_tangent<T>(v[2]);
      const S next = v[1] * old + v[0] * v[2];
      if (peephole) v[3] += p[2][n] * next;
      v[3] = sigmoid<T>(v[3]);
      c[n] = narrow<U>(next);
      h[n] = narrow<T>(v[3] * hyperbolic_tangent<T>(next));
#pragma unroll
      for (int g = 0; g < 4; ++g) gates[g][n] = narrow<T>(v[g]);
    }
    c.store(a.c_out + state);
    h.store(a.h + row * a.h_stride + k);
    if (kGiven != Given::kNothing && a.activated) {
#pragma unroll
      for (int g = 0; g < 4; ++g) gates[g].store(a.activated + gate + g * a.inner);
    }
  }
}

// ---- Backward ----

template <typename T, typename U>
struct ConvLstmGradArgs {
  const T* activated;
  const U *c, *c_out;
  const Accumulate<T>* peephole;
  const T *grad_h, *grad_h_more;  // may be null, like grad_c
  const U* grad_c;
  U* grad_c_out;
  T* grad_gates;
  Accumulate<T>*bias_sum, *peephole_sum;  // of the first block; bias_sum may be null
  int64_t sum_stride;                     // from block to block
  int64_t rows, rows_per_block, inner;
};

template <typename T, typename U, int N, bool Peephole>
__global__ void __launch_bounds__(kThreads, Peephole || sizeof(T) == 8 ? 2 : 3)
    conv_lstm_gates_grad_kernel(const ConvLstmGradArgs<T, U> a) {
  using S = Accumulate<T>;
  constexpr int kSums = Peephole ? 7 : 4;
  AMSTEL_SHARED(S, partial, kThreads * kSums * N);
  const int64_t first = blockIdx.x * a.rows_per_block + threadIdx.y;
  const int64_t end = (blockIdx.x + int64_t{1}) * a.rows_per_block;
  const int64_t last = end < a.rows ? end : a.rows;
  const int64_t width = int64_t{blockDim.x} * N;
#pragma unroll 1
  for (int64_t part = blockIdx.y * width; part < a.inner; part += gridDim.y * width) {
    const int64_t k = part + int64_t{threadIdx.x} * N;
    const bool has_cells = k < a.inner;
    S sum[kSums * N] = {};
    if (has_cells) {
      Cells<S, N> p[3];
      load_each(p, Peephole ? a.peephole : nullptr, k, a.inner);
#pragma unroll 1
      for (int64_t row = first; row < last; row += blockDim.y) {
        const int64_t gate = row * 4 * a.inner + k, state = row * a.inner + k;
        Cells<T, N> v[4], grad_h[1], more[1];
        Cells<U, N> c, c_out, grad_c[1];
        load_each(v, a.activated, gate, a.inner);
        c.load(a.c + state);
        c_out.load(a.c_out + state);
        load_each(grad_h, a.grad_h, state, 0);
        load_each(more, a.grad_h_more, state, 0);
        load_each(grad_c, a.grad_c, state, 0);
#pragma unroll
        for (int n = 0; n < N; ++n) {
          const S i = widen(v[0][n]), f = widen(v[1][n]), g = widen(v[2][n]), o = widen(v[3][n]);
          const S dh = widen(grad_h[0][n]) + widen(more[0][n]);
          const S before = widen(c[n]), after = widen(c_out[n]);
          const S t = hyperbolic_tangent<T>(after);
          S d[4], dc = widen(grad_c[0][n]) + dh * o * (1 - t * t);
          d[3] = dh * t * (o * (1 - o));
          if constexpr (Peephole) dc += d[3] * p[2][n];
          d[0] = dc * g * (i * (1 - i));
          d[1] = dc * before * (f * (1 - f));
          d[2] = dc * i * (1 - g * g);
          dc *= f;
          if constexpr (Peephole) {
            dc += d[0] * p[0][n] + d[1] * p[1][n];
            sum[4 * N + n] += d[0] * before;
            sum[5 * N + n] += d[1] * before;
            sum[6 * N + n] += d[3] * after;
          }
          grad_c[0][n] = narrow<U>(dc);
#pragma unroll
          for (int q = 0; q < 4; ++q) {
            v[q][n] = narrow<T>(d[q]);
            sum[q * N + n] += d[q];
          }
        }
        grad_c[0].store(a.grad_c_out + state);
#pragma unroll
        for (int q = 0; q < 4; ++q) v[q].store(a.grad_gates + gate + q * a.inner);
      }
    }
    if (!Peephole && !a.bias_sum) continue;
    if (blockDim.y > 1) {
      const int thread = static_cast<int>(threadIdx.y * blockDim.x + threadIdx.x);
      sum_tiles<kSums * N, S>(partial, thread, static_cast<int>(blockDim.x), sum);
    }
    if (!has_cells || threadIdx.y != 0) continue;
#pragma unroll
    for (int q = 0; q < kSums; ++q) {
      S* const sums = q < 4 ? a.bias_sum : a.peephole_sum;
      if (!sums) continue;
      Cells<S, N> total;
#pragma unroll
      for (int n = 0; n < N; ++n) total[n] = sum[q * N + n];
      total.store(sums + blockIdx.x * a.sum_stride + (q < 4 ? q : q - 4) * a.inner + k);
    }
  }
}

}  // namespace amstel::cuda
