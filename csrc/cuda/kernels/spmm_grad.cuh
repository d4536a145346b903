// Both gradients of the normalized sparse-dense product, over the transposed matrix; torch-free.
//
// Data flow.  Row j of the transposed matrix holds N features a lane of x[j] and of the sum for
// grad_x[j] in registers and gathers each grad[i] once for both: grad_x[j] += c grad[i], and an
// inner product with x[j] that ends in the lane which holds the edge.  That lane alone writes
// grad_weight of the edge, and adds to it for further parts of the features and items of the batch,
// so these are loops in here and no grid.  An edge costs what it costs in spmm.cuh and 4 bytes
// written (8 in float64; read and written again for each further part), a row F * sizeof(T) bytes
// of x read and of grad_x written, and 4 bytes each of dot and loop.  Rows are shared out as
// csr_rows.cuh says.
#pragma once

#include "cuda/kernels/csr_rows.cuh"

namespace amstel::cuda {

// The sums over a tile of four values, value v in the lanes with lane % 4 == v: each of the first
// two exchanges halves what a lane still carries.
template <int Tile, typename S>
__device__ __forceinline__ S tile_sums(const S (&value)[kGroup], int lane) {
  const bool odd = lane & 1, high = lane & 2;
  const S a = (odd ? value[1] : value[0]) + __shfl_xor_sync(kWarp, odd ? value[0] : value[1], 1);
  const S b = (odd ? value[3] : value[2]) + __shfl_xor_sync(kWarp, odd ? value[2] : value[3], 1);
  S sum = (high ? b : a) + __shfl_xor_sync(kWarp, high ? a : b, 2);
#pragma unroll
  for (int step = kGroup; step < Tile; step *= 2) sum += __shfl_xor_sync(kWarp, sum, step);
  return sum;
}

template <typename T>
struct SpmmGradArgs {
  Csr csr;                                    // transposed: the rows are those of x
  const T* weight;                            // like the scales, grad_x and loop, may be null
  const Accumulate<T>*row_scale, *col_scale;  // row_scale belongs to the rows of grad
  const T *grad, *x;
  T* grad_x;
  Accumulate<T>*grad_weight, *dot, *loop;
  int64_t grad_stride, grad_batch_stride, x_stride, x_batch_stride, batch,
      features;  // < 2^31 features
  double self_loops;
};

template <typename T, int N, int Tile, int Row>
__global__ void __launch_bounds__(kThreads, 2) spmm_grad_kernel(const SpmmGradArgs<T> a) {
  using S = Accumulate<T>;
  AMSTEL_SHARED(S, partial, kThreads * N);
  const int lane = static_cast<int>(threadIdx.x) % Tile;
  const S self_loops = static_cast<S>(a.self_loops);
  for_rows<Tile, Row>(a.csr, [=](const Share<Tile, Row>& share) {
    const S scale_j = share.works && a.col_scale ? a.col_scale[share.row()] : S(1);
    S dot = 0, loop = 0;
    bool add = false;
    for (int64_t item = 0; item < a.batch; ++item) {
      for (int part = 0; part < a.features; part += Tile * N) {
        const int feature = part + lane * N;
        const bool has_features = share.works && feature < a.features;
        const T* grad = a.grad + item * a.grad_batch_stride + feature;
        Vector<T, N> x = {};
        if (has_features)
          x = load_vector<N>(a.x + item * a.x_batch_stride + share.row() * a.x_stride + feature);
        S sum[N] = {};
        if (has_features && share.leads && self_loops != 0) {
          const S c = a.row_scale ? self_loops * a.row_scale[share.row()] : self_loops;
          const Vector<T, N> own = load_vector<N>(grad + share.row() * a.grad_stride);
          S inner = 0;
#pragma unroll
          for (int n = 0; n < N; ++n) {
            sum[n] = c * widen(own[n]);
            inner += widen(x[n]) * widen(own[n]);
          }
          loop += c * scale_j * inner;
        }
#pragma unroll 1
        for (int64_t k = share.begin + lane; __any_sync(kWarp, k - lane < share.end);
             k += share.stride()) {
          int64_t offset = 0, edge = 0;
          S c = 0, factor = scale_j;
          if (k < share.end) {
            const int64_t i = a.csr.index(a.csr.col, k);
            offset = i * a.grad_stride;
            edge = a.csr.edge_of(k);
            c = a.weight ? widen(a.weight[edge]) : S(1);
            if (a.row_scale) {
              c *= a.row_scale[i];
              factor *= a.row_scale[i];
            }
          }
          const int count = held_edges<Tile>(share.end, k, lane);
          S inner = 0;  // of the edge that this lane holds
#pragma unroll 1
          for (int e = 0; e < Tile; e += kGroup) {
            if (e > 0 && !__any_sync(kWarp, e < count)) break;
            Vector<T, N> rows[kGroup];
            gather<Tile>(rows, grad, has_features, offset, e, count);
            S products[kGroup] = {};
#pragma unroll
            for (int u = 0; u < kGroup; ++u) {
              const S c_u = __shfl_sync(kWarp, c, e + u, Tile);
#pragma unroll
              for (int n = 0; n < N; ++n) {
                const S g = widen(rows[u][n]);
                sum[n] += c_u * g;
                products[u] += widen(x[n]) * g;
              }
            }
            const S product = tile_sums<Tile>(products, lane);
            if (lane / kGroup == e / kGroup) inner = product;
          }
          if (k < share.end) {
            S* out = a.grad_weight + edge;
            *out = add ? *out + inner * factor : inner * factor;
          }
        }
        meet(share, partial, sum);
        if (has_features && share.leads) {
          Vector<T, N> grad_x;
#pragma unroll
          for (int n = 0; n < N; ++n) {
            const S value = sum[n] * scale_j;
            grad_x[n] = narrow<T>(value);
            dot += widen(x[n]) * value;
          }
          if (a.grad_x)
            store_row(a.grad_x + (item * a.csr.rows + share.row()) * a.features + feature, grad_x);
        }
        add = true;
      }
    }
    dot = tile_sum<Tile>(dot);
    loop = tile_sum<Tile>(loop);
    if (share.leads && lane == 0) {
      a.dot[share.row()] = dot;
      if (a.loop) a.loop[share.row()] = loop;
    }
  });
}

}  // namespace amstel::cuda
